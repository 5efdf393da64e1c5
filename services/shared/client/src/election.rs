//! [`Elector`]: at most one of several equal processes leads, by a Lease object.

use std::time::Duration;

use jiff::Timestamp;
use kit::life::{Shutdown, Tasks};
use proto::{
    Kind,
    k8s::{coordination::v1::Lease, meta::v1::MicroTime},
};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::{Client, Error};

/// Which lease to hold, as whom, and how long a silent leader is believed in.
#[derive(Clone, Debug)]
pub struct Options {
    pub namespace: String,
    pub name: String,
    /// Differs between the candidates.
    pub identity: String,
    /// A leader that does not renew for this long is followed by another.
    pub lease_duration: Duration,
    /// A leader that cannot renew for this long stops leading; less than the lease's duration.
    pub renew_deadline: Duration,
    /// Between two renewals of a leader: each is a write to every member's disk.
    pub renew_period: Duration,
    /// Between two tries of a candidate, and of a leader whose renewal failed.
    pub retry_period: Duration,
}

impl Options {
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            lease_duration: Duration::from_secs(6),
            renew_deadline: Duration::from_secs(4),
            renew_period: Duration::from_secs(2),
            retry_period: Duration::from_millis(500),
        }
    }
}

/// Leadership, while it is held: drop it when the work it stands for has ended, and no sooner.
///
/// The lease is renewed until then, even after a shutdown: what is still being written must not meet another leader's
/// writes.
pub struct Term {
    over: Shutdown,
    done: Shutdown,
}

impl Term {
    /// Leadership without an election, of one who is alone.
    pub fn endless(shutdown: &Shutdown) -> Self {
        Self { over: shutdown.child(), done: Shutdown::new() }
    }

    /// Triggered when leadership is lost, or by the shutdown: stop what only a leader may do.
    pub fn over(&self) -> &Shutdown {
        &self.over
    }
}

impl Drop for Term {
    fn drop(&mut self) {
        self.over.trigger();
        self.done.trigger();
    }
}

/// A candidate.
pub struct Elector {
    client: Client,
    options: Options,
    /// The lease as last seen changed, and when by this machine's own clock: other clocks are not trusted.
    seen: Option<(Lease, Instant)>,
}

impl Elector {
    pub fn new(client: Client, options: Options) -> Self {
        Self { client, options, seen: None }
    }

    /// Waits for leadership; `None` if shut down before.
    ///
    /// Leadership is given back once the term is dropped, so that another need not wait for the lease to run out.
    pub async fn lead(mut self, tasks: &Tasks, shutdown: Shutdown) -> Option<Term> {
        loop {
            match self.claim().await {
                Ok(true) => break,
                Ok(false) => {}
                Err(error) => debug!(lease = self.options.name, %error, "claiming failed"),
            }
            tokio::select! {
                () = shutdown.triggered() => return None,
                () = tokio::time::sleep(self.options.retry_period) => {}
            }
        }
        info!(lease = self.options.name, identity = self.options.identity, "leading");
        let term = Term { over: shutdown.child(), done: Shutdown::new() };
        let (over, done) = (term.over.clone(), term.done.clone());
        tasks.spawn("leader election", async move {
            self.keep(&done).await;
            over.trigger();
            self.give_back().await;
        });
        Some(term)
    }

    /// Renews until that fails for too long, another holds the lease, or the term's work is done.
    async fn keep(&mut self, done: &Shutdown) {
        let mut renewed = Instant::now();
        let mut pause = self.options.renew_period;
        loop {
            tokio::select! {
                () = done.triggered() => return,
                () = tokio::time::sleep(pause) => {}
            }
            let deadline = renewed + self.options.renew_deadline;
            match tokio::time::timeout_at(deadline, self.claim()).await {
                Ok(Ok(true)) => (renewed, pause) = (Instant::now(), self.options.renew_period),
                Ok(Ok(false)) => return warn!(lease = self.options.name, "another leads now"),
                Ok(Err(error)) if Instant::now() < deadline => {
                    debug!(%error, "renewing failed");
                    pause = self.options.retry_period;
                }
                Ok(Err(_)) | Err(_) => {
                    return warn!(lease = self.options.name, "could not renew in time, leadership is lost");
                }
            }
        }
    }

    /// Takes or renews the lease; whether it is held now.
    async fn claim(&mut self) -> Result<bool, Error> {
        let Options { namespace, name, identity, .. } = &self.options;
        let present = match self.client.get::<Lease>(namespace, name).await {
            Ok(lease) => lease,
            Err(error) if error.is_not_found() => {
                let mut lease = Lease::default();
                (lease.meta_mut().namespace, lease.meta_mut().name) = (namespace.clone(), name.clone());
                return self.written(self.client.create(&self.claimed(lease)).await);
            }
            Err(error) => return Err(error),
        };
        let is_news = self.seen.as_ref().is_none_or(|(seen, _)| seen.spec != present.spec);
        if is_news {
            self.seen = Some((present.clone(), Instant::now()));
        }
        let holder = present.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default();
        let is_silent = self.seen.as_ref().is_some_and(|(_, since)| since.elapsed() >= self.options.lease_duration);
        if holder.is_empty() || holder == identity || is_silent {
            return self.written(self.client.update(&self.claimed(present)).await);
        }
        Ok(false)
    }

    /// A lost race is an answer, not an error.
    fn written(&mut self, answer: Result<Lease, Error>) -> Result<bool, Error> {
        match answer {
            Ok(lease) => {
                self.seen = Some((lease, Instant::now()));
                Ok(true)
            }
            Err(error) if error.is_conflict() || error.is_already_exists() => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn claimed(&self, mut lease: Lease) -> Lease {
        let now = micro_now();
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.options.identity) {
            spec.lease_transitions = Some(spec.lease_transitions.map_or(0, |transitions| transitions + 1));
            spec.acquire_time = Some(now);
        }
        spec.holder_identity = Some(self.options.identity.clone());
        spec.lease_duration_seconds = i32::try_from(self.options.lease_duration.as_secs()).ok();
        spec.renew_time = Some(now);
        lease
    }

    async fn give_back(&mut self) {
        let Some((mut lease, _)) = self.seen.take() else { return };
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() == Some(&self.options.identity) {
            spec.holder_identity = Some(String::new());
            if let Err(error) = self.client.update(&lease).await {
                debug!(%error, "the lease could not be given back");
            }
        }
    }
}

/// The present, as leases write it.
pub fn micro_now() -> MicroTime {
    let now = Timestamp::now();
    MicroTime { seconds: now.as_second(), nanos: now.subsec_nanosecond() / 1000 * 1000 }
}
