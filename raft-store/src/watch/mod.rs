//! Who hears of changes: one ring of the latest revisions, shared by all, and a cursor per watcher.
//!
//! A watcher holds nothing but its cursor. Inside the ring it is served from memory; behind it, from the history on
//! disk; behind the compaction, it is told so. A slow one therefore costs no memory and loses nothing.

mod cursor;

use std::{collections::VecDeque, sync::Arc};

use parking_lot::RwLock;
use prost::Message;
use proto::mvccpb::Event;
use tokio::sync::watch;

pub use cursor::{Heard, Interest, Watcher};

/// Bounds of the ring: what a watcher may lag behind before it is served from disk.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub events_max: usize,
    pub bytes_max: usize,
}

impl Default for Bounds {
    fn default() -> Bounds {
        Bounds { events_max: 16_384, bytes_max: 16 << 20 }
    }
}

/// All events of one revision, previous key-values included.
#[derive(Debug)]
pub struct Revision {
    pub revision: i64,
    pub events: Vec<Event>,
    bytes: usize,
}

/// The ring and those who wait at its end.
#[derive(Debug)]
pub struct Hub {
    ring: RwLock<Ring>,
    newest: watch::Sender<i64>,
    bounds: Bounds,
}

#[derive(Debug, Default)]
struct Ring {
    /// Without a gap.
    revisions: VecDeque<Arc<Revision>>,
    events: usize,
    bytes: usize,
    /// Revisions up to here are not in the ring.
    floor: i64,
}

impl Hub {
    pub fn new(bounds: Bounds) -> Hub {
        Hub { ring: RwLock::default(), newest: watch::Sender::new(0), bounds }
    }

    /// Takes the events of the next revision; they must be readable already.
    pub fn publish(&self, revision: i64, events: Vec<Event>) {
        let bytes = events.iter().map(Message::encoded_len).sum();
        let mut ring = self.ring.write();
        ring.events += events.len();
        ring.bytes += bytes;
        ring.revisions.push_back(Arc::new(Revision { revision, events, bytes }));
        while (ring.events > self.bounds.events_max || ring.bytes > self.bounds.bytes_max)
            && ring.revisions.len() > 1
            && let Some(oldest) = ring.revisions.pop_front()
        {
            ring.events -= oldest.events.len();
            ring.bytes -= oldest.bytes;
            ring.floor = oldest.revision;
        }
        drop(ring);
        self.newest.send_replace(revision);
    }

    /// Begins anew at `revision`: what came before is on disk.
    pub fn restart(&self, revision: i64) {
        *self.ring.write() = Ring { floor: revision, ..Ring::default() };
        self.newest.send_replace(revision);
    }

    pub fn newest(&self) -> i64 {
        *self.newest.borrow()
    }

    /// Revisions from `from` on, up to about `bytes_max`; `None` where the ring does not reach back that far.
    fn since(&self, from: i64, bytes_max: usize) -> Option<Vec<Arc<Revision>>> {
        let ring = self.ring.read();
        if from <= ring.floor {
            return None;
        }
        let start = ring.revisions.partition_point(|known| known.revision < from);
        let mut bytes = 0;
        Some(
            ring.revisions
                .range(start..)
                .take_while(|known| {
                    let fits = bytes <= bytes_max;
                    bytes += known.bytes;
                    fits
                })
                .cloned()
                .collect(),
        )
    }
}
