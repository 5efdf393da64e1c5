//! Who leads, as far as this member can vouch for it.
//!
//! Consensus names the last leader until there is another one, also where it is long gone, or has lost its quorum.
//! Clients are to hear that nobody leads then.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use openraft::{Instant as _, Raft, async_runtime::watch::WatchReceiver};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::{Types, state::State};

/// How often silence is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// When the leader was last heard of.
#[derive(Clone, Debug)]
pub struct Heard {
    begun: Instant,
    millis: Arc<AtomicU64>,
}

impl Heard {
    pub fn new() -> Heard {
        Heard { begun: Instant::now(), millis: Arc::default() }
    }

    pub fn now(&self) {
        self.millis.fetch_max(self.begun.elapsed().as_millis() as u64, Ordering::Relaxed);
    }

    fn silence(&self) -> Duration {
        self.begun.elapsed().saturating_sub(Duration::from_millis(self.millis.load(Ordering::Relaxed)))
    }
}

/// Follows who leads until consensus stops; a leader not heard of for `patience`, or one without a quorum, is none.
pub async fn follow(raft: Raft<Types, State>, heard: Heard, patience: Duration, leader: watch::Sender<Option<u64>>) {
    let mut metrics = raft.metrics();
    let mut named = None;
    let mut since = Instant::now();
    loop {
        let found = {
            let now = metrics.borrow_watched();
            if now.current_leader != named {
                (named, since) = (now.current_leader, Instant::now());
            }
            let leads_alone = now.membership_config.membership().voter_ids().eq([now.id]);
            let silence = if named == Some(now.id) {
                now.last_quorum_acked.map_or(Duration::MAX, |acked| acked.elapsed())
            } else {
                heard.silence()
            };
            named.filter(|_| leads_alone || silence.min(since.elapsed()) < patience)
        };
        leader.send_if_modified(|known| std::mem::replace(known, found) != found);
        if let Ok(Err(_)) = timeout(LOOK, metrics.changed()).await {
            leader.send_replace(None);
            return;
        }
    }
}
