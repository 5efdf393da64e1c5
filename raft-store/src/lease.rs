//! Deadlines of leases, kept by the leader; the end of one is a revoke in the log, so that all members agree on it.
//!
//! A new leader gives every lease its full time again, as etcd does: it cannot know what was renewed before.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use kit::life::Shutdown;
use parking_lot::Mutex;
use proto::{
    etcdserverpb::LeaseRevokeRequest,
    forestay::raft::v1::{Command, LeaseResponse, command::Action},
};

use crate::{consensus::Group, machine::LeaseChange};

/// How often deadlines are looked at; etcd's interval.
const LOOK: Duration = Duration::from_millis(500);

/// Revokes per look, so that a thousand leases ending at once do not crowd out writes.
const REVOKES_MAX: usize = 500;

/// The table of leases in force.
#[derive(Debug, Default)]
pub struct Keeper {
    leases: Mutex<BTreeMap<i64, Lease>>,
    /// The term in which the deadlines are kept.
    term: Mutex<Option<u64>>,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    ttl_seconds: i64,
    deadline: Instant,
}

fn after(seconds: i64) -> Instant {
    let now = Instant::now();
    // Beyond what the clock can express is never.
    now.checked_add(Duration::from_secs(seconds.max(0) as u64))
        .unwrap_or(now + Duration::from_secs(u64::from(u32::MAX)))
}

impl Keeper {
    pub fn learn(&self, changes: &[LeaseChange]) {
        if changes.is_empty() {
            return;
        }
        let mut leases = self.leases.lock();
        for change in changes {
            match *change {
                LeaseChange::Granted { id, ttl_seconds } => {
                    leases.insert(id, Lease { ttl_seconds, deadline: after(ttl_seconds) });
                }
                LeaseChange::Revoked { id } => {
                    leases.remove(&id);
                }
            }
        }
    }

    /// Forgets all it knew for what the state says now.
    pub fn restart(&self, leases: impl Iterator<Item = (i64, i64)>) {
        *self.leases.lock() =
            leases.map(|(id, ttl_seconds)| (id, Lease { ttl_seconds, deadline: after(ttl_seconds) })).collect();
    }

    /// Gives a lease its full time again; its length in seconds, or `None` where it is not in force.
    pub fn renew(&self, id: i64) -> Option<i64> {
        let mut leases = self.leases.lock();
        let lease = leases.get_mut(&id)?;
        // One that has ended may be on its way out through the log already.
        if lease.deadline <= Instant::now() {
            return None;
        }
        lease.deadline = after(lease.ttl_seconds);
        Some(lease.ttl_seconds)
    }

    /// Granted and remaining seconds.
    pub fn time_to_live(&self, id: i64) -> Option<(i64, i64)> {
        let leases = self.leases.lock();
        let lease = leases.get(&id)?;
        Some((lease.ttl_seconds, lease.deadline.saturating_duration_since(Instant::now()).as_secs() as i64))
    }

    /// What a client is to hear of a lease, which is renewed first where asked for.
    pub fn tell(&self, id: i64, renew: bool) -> LeaseResponse {
        if renew && self.renew(id).is_none() {
            return LeaseResponse::default();
        }
        self.time_to_live(id).map_or_else(LeaseResponse::default, |(granted_seconds, remaining_seconds)| {
            LeaseResponse { in_force: true, granted_seconds, remaining_seconds }
        })
    }

    /// Leases in force, the one that ends first in front.
    pub fn ids(&self) -> Vec<i64> {
        let mut ids: Vec<(Instant, i64)> = self.leases.lock().iter().map(|(id, lease)| (lease.deadline, *id)).collect();
        ids.sort();
        ids.into_iter().map(|(_, id)| id).collect()
    }

    /// Begins with full times where this member has begun to lead. To be called before a deadline is gone by.
    pub fn lead(&self, term: Option<u64>) {
        let mut known = self.term.lock();
        // By the term: a member that lost the lead and won it again between two looks did not hear of renewals.
        if *known != term && term.is_some() {
            for lease in self.leases.lock().values_mut() {
                lease.deadline = after(lease.ttl_seconds);
            }
        }
        *known = term;
    }

    fn ended(&self) -> Vec<i64> {
        let now = Instant::now();
        self.leases
            .lock()
            .iter()
            .filter(|(_, lease)| lease.deadline <= now)
            .map(|(id, _)| *id)
            .take(REVOKES_MAX)
            .collect()
    }
}

/// Revokes what has ended, as long as this member leads.
pub async fn expire(keeper: Arc<Keeper>, group: Group, shutdown: Shutdown) {
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.triggered() => return,
            _ = look.tick() => {}
        }
        let leading = group.leading_term();
        keeper.lead(leading);
        if leading.is_none() {
            continue;
        }
        let ended = keeper.ended();
        let revokes = ended.iter().map(|id| {
            let command = Command { action: Some(Action::LeaseRevoke(LeaseRevokeRequest { id: *id })) };
            let group = group.clone();
            // Never by way of another leader: there the lease may have been renewed.
            async move { group.propose_leading(&command).await }
        });
        // A refusal means that somebody else revoked it, or that this member leads no longer: the next look tells.
        for outcome in futures::future::join_all(revokes).await {
            if let Err(refusal) = outcome {
                tracing::debug!(%refusal, "a lease that ended was not revoked");
            }
        }
    }
}
