//! One watcher: what it wants, and how far it has heard.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    etcdserverpb::{WatchCreateRequest, watch_create_request::FilterType},
    mvccpb::{Event, event::EventType},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use super::Hub;
use crate::{consensus::Stage, machine};

/// Bytes of events in one answer; a single revision may exceed it, it is never split here.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A watcher whose client wants progress hears of a revision that brought it nothing after this long.
const PROGRESS_DELAY: Duration = Duration::from_secs(1);

/// And when nothing happens at all, after this long; etcd's interval.
const PROGRESS_IDLE: Duration = Duration::from_secs(600);

/// Which events a watcher wants, and in what form.
#[derive(Clone, Debug)]
pub struct Interest {
    key: Bytes,
    range_end: Bytes,
    puts: bool,
    deletes: bool,
    pub prev_kv: bool,
    pub progress: bool,
}

impl Interest {
    pub fn of(create: &WatchCreateRequest) -> Interest {
        let filters = |filter: FilterType| create.filters.contains(&(filter as i32));
        Interest {
            // No key means the smallest one, as in etcd.
            key: if create.key.is_empty() { Bytes::from_static(&[0]) } else { create.key.clone() },
            range_end: create.range_end.clone(),
            puts: !filters(FilterType::Noput),
            deletes: !filters(FilterType::Nodelete),
            prev_kv: create.prev_kv,
            progress: create.progress_notify,
        }
    }

    /// Whether no key can be in the interval; etcd refuses such a watch.
    pub fn is_empty(&self) -> bool {
        !matches!(self.range_end.as_ref(), [] | [0]) && self.range_end <= self.key
    }

    fn covers(&self, key: &[u8]) -> bool {
        match self.range_end.as_ref() {
            [] => key == self.key,
            [0] => key >= self.key.as_ref(),
            end => self.key.as_ref() <= key && key < end,
        }
    }

    fn wants(&self, event: &Event) -> bool {
        let kind = if event.r#type() == EventType::Put { self.puts } else { self.deletes };
        kind && event.kv.as_ref().is_some_and(|kv| self.covers(&kv.key))
    }
}

/// What a watcher hears next.
#[derive(Debug, PartialEq)]
pub enum Heard {
    /// Whole revisions, in order; everything up to `revision` has been heard now.
    Events { revision: i64, events: Vec<Event> },
    /// Nothing for this watcher up to `revision`.
    Progress { revision: i64 },
    /// What it asked for is gone.
    Compacted { compacted: i64 },
}

/// A place in the stream of changes.
pub struct Watcher {
    hub: Arc<Hub>,
    stage: Arc<Stage>,
    interest: Interest,
    /// The next revision to hear.
    next: i64,
    newest: watch::Receiver<i64>,
    /// Up to where everything was handed out.
    heard: watch::Sender<i64>,
    /// The last revision its client was told of.
    told: i64,
    last_told: Instant,
}

impl Watcher {
    /// Begins with revision `next`, which may lie in the past or in the future.
    pub fn new(hub: Arc<Hub>, stage: Arc<Stage>, interest: Interest, next: i64) -> Watcher {
        let newest = hub.newest.subscribe();
        let heard = watch::Sender::new(next - 1);
        Watcher { hub, stage, interest, next, newest, heard, told: next - 1, last_told: Instant::now() }
    }

    /// Follows how far this watcher has come.
    pub fn heard(&self) -> watch::Receiver<i64> {
        self.heard.subscribe()
    }

    /// Waits for what comes next; asking again says that the last answer was passed on. Dropping the future loses
    /// nothing.
    ///
    /// # Errors
    /// The history cannot be read.
    pub async fn next(&mut self) -> io::Result<Heard> {
        loop {
            let heard = self.next - 1;
            self.heard.send_if_modified(|known| std::mem::replace(known, heard) != heard);
            let newest = *self.newest.borrow_and_update();
            if heard >= newest {
                if let Some(progress) = self.wait(heard, newest).await {
                    return Ok(progress);
                }
                continue;
            }
            let (events, next) = match self.hub.since(self.next, ANSWER_BYTES_MAX) {
                Some(revisions) => {
                    let next = revisions.last().map_or(newest + 1, |last| last.revision + 1);
                    (self.pick(revisions.iter().flat_map(|revision| &revision.events)), next)
                }
                None => match self.replay().await? {
                    Ok(replayed) => replayed,
                    Err(compacted) => return Ok(Heard::Compacted { compacted }),
                },
            };
            self.next = next;
            if !events.is_empty() {
                self.tell(next - 1);
                return Ok(Heard::Events { revision: next - 1, events });
            }
            if self.interest.progress && Instant::now() >= self.last_told + PROGRESS_DELAY {
                return Ok(self.tell(next - 1));
            }
        }
    }

    fn tell(&mut self, revision: i64) -> Heard {
        self.told = revision;
        self.last_told = Instant::now();
        Heard::Progress { revision }
    }

    /// Waits at the end of the ring, or before a revision of the future.
    async fn wait(&mut self, heard: i64, newest: i64) -> Option<Heard> {
        let due = self.last_told + if heard > self.told { PROGRESS_DELAY } else { PROGRESS_IDLE };
        if !self.interest.progress || heard > newest {
            // The hub outlives its watchers; an error would mean that nothing comes any more.
            let _ = self.newest.changed().await;
            return None;
        }
        tokio::select! {
            _ = self.newest.changed() => None,
            () = sleep_until(due) => Some(self.tell(heard)),
        }
    }

    fn pick<'e>(&self, events: impl Iterator<Item = &'e Event>) -> Vec<Event> {
        events
            .filter(|event| self.interest.wants(event))
            .map(|event| Event {
                prev_kv: if self.interest.prev_kv { event.prev_kv.clone() } else { None },
                r#type: event.r#type,
                kv: event.kv.clone(),
            })
            .collect()
    }

    async fn replay(&self) -> io::Result<Result<(Vec<Event>, i64), i64>> {
        let (stage, interest, from) = (self.stage.clone(), self.interest.clone(), self.next);
        let replayed = tokio::task::spawn_blocking(move || {
            stage.read(|view, position| {
                if from < position.compacted_revision {
                    return Ok(Err(position.compacted_revision));
                }
                let wanted = |key: &[u8]| interest.covers(key);
                Ok(Ok(machine::changes_between(
                    view,
                    from,
                    position.revision,
                    ANSWER_BYTES_MAX,
                    interest.prev_kv,
                    &wanted,
                )?))
            })
        })
        .await
        .map_err(io::Error::other)??;
        Ok(replayed
            .map(|(events, next)| (events.into_iter().filter(|event| self.interest.wants(event)).collect(), next)))
    }
}
