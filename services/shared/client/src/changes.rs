//! [`Changes`]: which objects changed, each named once until it is taken.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use proto::Kind;
use tokio::sync::Notify;

/// The name of an object that was added, modified or deleted. What became of it, the cache says.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Change {
    /// The kind's arm number; 0 for sets watched as metadata only.
    pub arm: u32,
    pub namespace: String,
    pub name: String,
}

impl Change {
    pub fn is<K: Kind>(&self) -> bool {
        self.arm == K::ARM
    }
}

/// Changes not yet taken.
///
/// Bounded by the number of objects that exist or existed since the last take: each waits at most once, however often
/// it changes, so that a slow reader costs no memory and misses nothing.
pub struct Changes(Arc<Pending>);

#[derive(Default)]
struct Pending {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Default)]
struct Waiting {
    order: VecDeque<Change>,
    names: HashSet<Change>,
    is_closed: bool,
}

impl Changes {
    /// The next change, in order of first arrival; `None` once the reflector has stopped.
    pub async fn recv(&mut self) -> Option<Change> {
        loop {
            let arrived = self.0.arrived.notified();
            {
                let mut waiting = self.0.waiting.lock();
                if let Some(change) = waiting.order.pop_front() {
                    waiting.names.remove(&change);
                    return Some(change);
                }
                if waiting.is_closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    /// Everything that waits; waits for the first where nothing does. Empty once the reflector has stopped.
    pub async fn recv_all(&mut self) -> Vec<Change> {
        let Some(first) = self.recv().await else { return Vec::new() };
        let mut all = vec![first];
        all.extend(self.take());
        all
    }

    /// Everything that waits now.
    pub fn take(&mut self) -> Vec<Change> {
        let mut waiting = self.0.waiting.lock();
        waiting.names.clear();
        waiting.order.drain(..).collect()
    }
}

/// The sending side, held by the reflector.
#[derive(Default)]
pub(crate) struct Subscribers(Mutex<Vec<Weak<Pending>>>);

impl Subscribers {
    pub(crate) fn subscribe(&self, present: impl IntoIterator<Item = Change>) -> Changes {
        let pending = Arc::new(Pending::default());
        push(&pending, present);
        self.0.lock().push(Arc::downgrade(&pending));
        Changes(pending)
    }

    pub(crate) fn tell(&self, changes: &[Change]) {
        if changes.is_empty() {
            return;
        }
        self.0.lock().retain(|subscriber| {
            let Some(pending) = subscriber.upgrade() else { return false };
            push(&pending, changes.iter().cloned());
            true
        });
    }

    pub(crate) fn close(&self) {
        for pending in self.0.lock().drain(..).filter_map(|subscriber| subscriber.upgrade()) {
            pending.waiting.lock().is_closed = true;
            pending.arrived.notify_one();
        }
    }
}

fn push(pending: &Pending, changes: impl IntoIterator<Item = Change>) {
    let mut waiting = pending.waiting.lock();
    for change in changes {
        if waiting.names.insert(change.clone()) {
            waiting.order.push_back(change);
        }
    }
    drop(waiting);
    pending.arrived.notify_one();
}
