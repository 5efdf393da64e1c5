//! One member's part in the group: propose, read linearizably, follow its standing.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use openraft::{
    Config, Raft, RaftNetworkFactory, ReadPolicy, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, LinearizableReadError, RaftError},
    network::NetSnapshot,
};
use prost::Message;
use proto::forestay::raft::v1::{Command, Peer};
use tokio::runtime::Runtime;

use super::{
    Outcome, Proposal, Types,
    link::Alone,
    log::Log,
    state::{Audience, Stage, State},
};
use crate::{
    engine::{Checkpoint, Home},
    machine::{Refusal, Response},
};

/// How quickly a lost leader is noticed. All members of a group need the same.
#[derive(Clone, Debug)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// Entries between snapshots; the log before the last one is dropped, except `log_kept` entries for slow members.
    pub snapshot_entries: u64,
    pub log_kept: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot_entries: 20_000,
            log_kept: 5_000,
        }
    }
}

/// How a member without a log begins.
#[derive(Clone, Debug)]
pub enum Founding {
    /// As the only member of a new group.
    Alone(Peer),
    /// It waits to be told by the others.
    Join,
}

/// Longest wait for a proposal or a read to be confirmed; etcd's request timeout at its default timing.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// Where consensus stands on this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub term: u64,
    pub leader: Option<u64>,
    pub last_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

/// A handle to this member's consensus; clones are the same member.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    raft: Raft<Types, State>,
    stage: Arc<Stage>,
    log: Log,
    home: Arc<dyn Home>,
    /// The term of the last answer, for headers: reading the metrics costs a lock each time.
    term: AtomicU64,
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Group {
    /// Starts a group of one, or the only member's next life.
    pub async fn start_alone(
        id: u64,
        home: Arc<dyn Home>,
        founding: Peer,
        timing: &Timing,
        audience: Arc<dyn Audience>,
    ) -> anyhow::Result<Group> {
        Group::start(id, home, Founding::Alone(founding), timing, audience, Alone).await
    }

    /// Starts this member on threads of its own.
    pub async fn start<N>(
        id: u64,
        home: Arc<dyn Home>,
        founding: Founding,
        timing: &Timing,
        audience: Arc<dyn Audience>,
        links: N,
    ) -> anyhow::Result<Group>
    where
        N: RaftNetworkFactory<Types>,
        N::Network: NetSnapshot<Types, SnapshotData = Checkpoint>,
    {
        let name = format!("{id:x}");
        let log = Log::open(&name, home.log()).context("open the raft log")?;
        let state = State::open(home.clone(), audience).context("open the state")?;
        let stage = state.stage.clone();
        let config = Arc::new(config(timing).validate().context("read the timing of consensus")?);
        // After all that may refuse: a runtime cannot be dropped here.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("raft {name}"))
            .enable_all()
            .build()
            .context("start the threads of consensus")?;
        let of_raft = log.clone();
        let raft = runtime.spawn(async move { Raft::new(id, config, links, of_raft, state).await }).await??;
        let group = Group {
            inner: Arc::new(Inner { id, raft, stage, log, home, term: AtomicU64::new(0), runtime: Some(runtime) }),
        };
        if let Founding::Alone(peer) = founding {
            group.found(peer).await?;
        }
        Ok(group)
    }

    async fn found(&self, peer: Peer) -> anyhow::Result<()> {
        let raft = &self.inner.raft;
        if !raft.is_initialized().await? {
            raft.initialize(BTreeMap::from([(self.inner.id, peer)])).await.context("found the group")?;
        }
        let voters: Vec<u64> = raft.voter_ids().collect();
        if voters == [self.inner.id] && !raft.is_leader() {
            // Nobody else can win: there is nothing to wait for.
            raft.trigger().elect(false).await?;
        }
        Ok(())
    }

    pub fn id(&self) -> u64 {
        self.inner.id
    }

    pub fn stage(&self) -> &Arc<Stage> {
        &self.inner.stage
    }

    pub fn term(&self) -> u64 {
        self.inner.term.load(Ordering::Relaxed)
    }

    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// Has `command` agreed on and applied here.
    ///
    /// # Errors
    /// The machine's refusal, or that of consensus: no leader, leader changed, timed out.
    pub async fn propose(&self, command: &Command) -> Result<Response, Refusal> {
        let write = self.inner.raft.client_write(Proposal(command.encode_to_vec().into()));
        match tokio::time::timeout(REQUEST_TIMEOUT, write).await {
            Err(_) => Err(Refusal::Timeout),
            Ok(Ok(written)) => {
                self.inner.term.fetch_max(written.log_id.committed_leader_id().term, Ordering::Relaxed);
                let Outcome(outcome) = written.data;
                outcome
            }
            Ok(Err(RaftError::APIError(error))) => Err(match error {
                ClientWriteError::ForwardToLeader(forward) if forward.leader_id.is_some() => Refusal::NotLeader,
                ClientWriteError::ForwardToLeader(_) => Refusal::NoLeader,
                _ => Refusal::LeaderChanged,
            }),
            Ok(Err(RaftError::Fatal(_))) => Err(Refusal::Stopped),
        }
    }

    /// Returns once everything acknowledged before the call can be read here (ReadIndex).
    pub async fn catch_up(&self) -> Result<(), Refusal> {
        let confirmed = self.inner.raft.ensure_linearizable(ReadPolicy::ReadIndex);
        match tokio::time::timeout(REQUEST_TIMEOUT, confirmed).await {
            Err(_) => Err(Refusal::Timeout),
            Ok(Ok(_)) => Ok(()),
            Ok(Err(RaftError::APIError(LinearizableReadError::ForwardToLeader(forward)))) => {
                Err(if forward.leader_id.is_some() { Refusal::NotLeader } else { Refusal::NoLeader })
            }
            Ok(Err(RaftError::APIError(LinearizableReadError::QuorumNotEnough(_)))) => Err(Refusal::NoLeader),
            Ok(Err(RaftError::Fatal(_))) => Err(Refusal::Stopped),
        }
    }

    pub fn progress(&self) -> Progress {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        self.inner.term.fetch_max(metrics.current_term, Ordering::Relaxed);
        Progress {
            term: metrics.current_term,
            leader: metrics.current_leader,
            last_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: metrics.last_applied.map_or(0, |id| id.index()),
            is_learner: metrics.membership_config.membership().learner_ids().any(|id| id == self.inner.id),
        }
    }

    /// Members of the group: id, what is known of it, whether it is a learner.
    pub fn members(&self) -> Vec<(u64, Peer, bool)> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        membership.nodes().map(|(id, peer)| (*id, peer.clone(), !voters.contains(id))).collect()
    }

    /// Returns once this member leads, or `within` has passed.
    pub async fn lead(&self, within: Duration) -> anyhow::Result<()> {
        let id = self.inner.id;
        self.inner
            .raft
            .wait(Some(within))
            .metrics(|metrics| metrics.current_leader == Some(id), "this member leads")
            .await?;
        Ok(())
    }

    /// Returns when consensus has stopped for good: a failed disk, or a shutdown.
    pub async fn stopped(&self) -> Option<String> {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return Some(fatal.to_string());
            }
            if metrics.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Stops consensus and makes log and state durable, so that the next start has nothing to replay.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        self.inner.raft.shutdown().await.context("stop consensus")?;
        self.inner.log.stop().await.context("finish the raft log")?;
        let home = self.inner.home.clone();
        let close = move || -> io::Result<()> {
            let flushed = home.state().flush();
            home.close();
            flushed
        };
        tokio::task::spawn_blocking(close).await?.context("flush the state")
    }

    #[cfg(test)]
    pub(in crate::consensus) fn raft(&self) -> &Raft<Types, State> {
        &self.inner.raft
    }
}

fn config(timing: &Timing) -> Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "forestay".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected again: its state may be older than what it acknowledged.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_entries),
        max_in_snapshot_log_to_keep: timing.log_kept,
        purge_batch_size: timing.log_kept.clamp(1, 1_000),
        max_payload_entries: 1_000,
        // Bounded queues: a burst waits at the door, not in memory.
        api_channel_size: Some(4_096),
        ..Config::default()
    }
}
