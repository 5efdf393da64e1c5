//! watch: several sets on one stream, in revision order.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::BoxStream};
use proto::codec::ResourceInfo;
use tokio::sync::mpsc;
use tonic::Status;

use super::read::{scope, stored};
use crate::{
    api::{Api, Batch, Change, ChangeKind, RequestContext, Target, WatchSet, Watching},
    gate::authz::Verb,
    refusal::{Refusal, Result},
    registry::Filter,
    storage::{Event, Hub, Position, Revision, keys},
};

/// Batches on their way to one client: enough to keep the connection busy, little enough that a slow client is a
/// position in the ring and not a queue in memory.
const IN_FLIGHT: usize = 16;
/// Objects per message of the initial state.
const INITIAL_PAGE: i64 = 500;
/// Revisions looked at before others get their turn.
const STEP: usize = 64;
/// A mark tells how far the stream is, while revisions go by that it does not select.
const MARK_MOVING: Duration = Duration::from_secs(1);
/// A mark tells that the stream lives.
const MARK_IDLE: Duration = Duration::from_secs(10);
/// Sets of one watch; each costs a comparison per event.
const SETS_MAX: usize = 256;

/// A set, ready to be matched.
struct Set {
    resource: &'static ResourceInfo,
    namespace: String,
    name: String,
    filter: Filter,
    from: u64,
}

impl Set {
    fn covers(&self, event: &Event) -> bool {
        std::ptr::eq(self.resource, event.resource)
            && event.revision > self.from
            && (self.namespace.is_empty() || self.namespace == event.namespace)
            && (self.name.is_empty() || self.name == event.name)
    }

    /// What the event is to this set: an object that comes to match is added, one that no longer does is deleted.
    fn change(&self, index: usize, event: &Event) -> Option<Change> {
        if !self.covers(event) {
            return None;
        }
        let (is_in, was_in) = if self.filter.is_everything() {
            (!event.is_deletion(), !event.is_creation())
        } else {
            let is_in = event.present().is_some_and(|now| self.filter.matches(|| event.labels(), &now.raw));
            let was_in = event.past().is_some_and(|past| self.filter.matches(|| event.past_labels(), &past.raw));
            (is_in, was_in)
        };
        let (kind, object) = match (is_in, was_in) {
            (true, false) => (ChangeKind::Added, event.present()),
            (true, true) => (ChangeKind::Modified, event.present()),
            (false, true) => (ChangeKind::Deleted, event.past()),
            (false, false) => return None,
        };
        Some(Change { kind, set: index, object: object?.clone() })
    }
}

impl Api {
    /// Changes of several sets, as one stream in revision order.
    ///
    /// # Errors
    /// 400 for selectors that are none, 403. 410 comes as the stream's last item where history is compacted.
    pub async fn watch(&self, context: &RequestContext, sets: Vec<WatchSet>) -> Result<Watching> {
        if sets.is_empty() || sets.len() > SETS_MAX {
            return Err(Refusal::bad_request(format!("a watch takes 1 to {SETS_MAX} sets, not {}", sets.len())));
        }
        let sets = sets.into_iter().map(|set| self.ready(context, set)).collect::<Result<Vec<_>>>()?;
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        let watcher = Watcher { api: self.parts(), sets, sender };
        tokio::spawn(watcher.run());
        Ok(tokio_stream::wrappers::ReceiverStream::new(receiver).boxed())
    }

    fn ready(&self, context: &RequestContext, set: WatchSet) -> Result<Set> {
        let target = Target { resource: set.resource, namespace: &set.namespace, name: &set.name, subresource: "" };
        let served = self.catalog.of(set.resource).ok_or_else(Refusal::unknown_resource)?;
        let filter = Filter::compile(served.info, &set.selection)?;
        self.authorize(context, Verb::Watch, &target)?.check_watch(set.resource, &set.selection)?;
        let namespace = scope(&target, &filter).to_owned();
        let name = if set.name.is_empty() { filter.required_name().unwrap_or_default().to_owned() } else { set.name };
        Ok(Set { resource: served.info, namespace, name, filter, from: set.from })
    }

    fn parts(&self) -> Parts {
        Parts { objects: self.objects.clone(), hub: self.hub.clone(), shutdown: self.shutdown.clone() }
    }
}

struct Parts {
    objects: crate::storage::Objects,
    hub: Arc<Hub>,
    shutdown: kit::life::Shutdown,
}

/// The client has gone, or the server stops.
struct Gone;

enum Stop {
    Gone,
    Refused(Refusal),
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Self {
        Self::Gone
    }
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<Status> for Stop {
    fn from(status: Status) -> Self {
        Self::Refused(crate::storage::refused(status))
    }
}

struct Watcher {
    api: Parts,
    sets: Vec<Set>,
    sender: mpsc::Sender<Result<Batch>>,
}

impl Watcher {
    async fn run(mut self) {
        let shutdown = self.api.shutdown.clone();
        let sender = self.sender.clone();
        tokio::select! {
            () = shutdown.triggered() => {}
            () = sender.closed() => {}
            stopped = self.deliver() => {
                if let Err(Stop::Refused(refusal)) = stopped {
                    let _ = sender.send(Err(refusal)).await;
                }
            }
        }
    }

    async fn deliver(&mut self) -> Result<(), Stop> {
        self.initial().await?;
        let mut position = self.sets.iter().map(|set| set.from).min().unwrap_or(0);
        loop {
            position = self.follow(position).await?;
            position = self.replay(position).await?;
        }
    }

    /// Sends the present state of the sets that ask for it, all at one revision.
    async fn initial(&mut self) -> Result<(), Stop> {
        let mut revision = 0;
        for index in 0..self.sets.len() {
            if self.sets[index].from == 0 {
                revision = self.initial_of(index, revision).await?;
            }
        }
        if revision == 0 {
            return Ok(());
        }
        let revision = revision.unsigned_abs();
        for set in self.sets.iter_mut().filter(|set| set.from == 0) {
            set.from = revision;
        }
        // Where other sets still catch up, only their start is delivered by all.
        let delivered = self.sets.iter().map(|set| set.from).min().unwrap_or(revision);
        self.send(Batch { revision: delivered, synced: true, ..Batch::default() }).await?;
        Ok(())
    }

    async fn initial_of(&self, index: usize, mut revision: i64) -> Result<i64, Stop> {
        let set = &self.sets[index];
        let mut after = String::new();
        let prefix = if set.name.is_empty() || (set.namespace.is_empty() && set.resource.resource.namespaced) {
            keys::prefix(set.resource, &set.namespace)
        } else {
            keys::object(set.resource, &set.namespace, &set.name)
        };
        loop {
            let page = self.api.objects.list(&prefix, &after, INITIAL_PAGE, revision).await?;
            revision = page.revision;
            let is_last = page.remaining == 0;
            let mut changes = Vec::new();
            for entry in page.entries {
                let is_named = set.name.is_empty() || entry.key.rsplit('/').next() == Some(set.name.as_str());
                if is_named && set.filter.matches_object(&entry.raw) {
                    let object = Arc::new(stored(set.resource, &entry)?);
                    changes.push(Change { kind: ChangeKind::Added, set: index, object });
                }
                after = entry.key;
            }
            if !changes.is_empty() {
                let batch = Batch { revision: revision.unsigned_abs(), changes, initial: true, synced: false };
                self.send(batch).await?;
            }
            if is_last {
                return Ok(revision);
            }
        }
    }

    /// Reads the ring from `position`, until it no longer reaches back so far.
    async fn follow(&self, mut position: u64) -> Result<u64, Stop> {
        let mut heads = self.api.hub.heads();
        let mut marked = position;
        let mut last_sent = tokio::time::Instant::now();
        loop {
            heads.borrow_and_update();
            match self.api.hub.after(position, STEP) {
                Position::Behind => return Ok(position),
                Position::Next(revisions) => {
                    for revision in revisions {
                        position = revision.revision;
                        if self.send_changes(&revision).await? {
                            (marked, last_sent) = (position, tokio::time::Instant::now());
                        }
                    }
                }
                Position::Newest => {
                    let wait = if position > marked { MARK_MOVING } else { MARK_IDLE };
                    tokio::select! {
                        changed = heads.changed() => changed.map_err(|_| Gone)?,
                        () = tokio::time::sleep_until(last_sent + wait) => {
                            self.send(Batch { revision: position, ..Batch::default() }).await?;
                            (marked, last_sent) = (position, tokio::time::Instant::now());
                        }
                    }
                }
            }
            if position > marked && last_sent.elapsed() >= MARK_MOVING {
                self.send(Batch { revision: position, ..Batch::default() }).await?;
                (marked, last_sent) = (position, tokio::time::Instant::now());
            }
        }
    }

    /// Reads the store's history from `position`, until the ring takes over.
    async fn replay(&self, mut position: u64) -> Result<u64, Stop> {
        let mut history: BoxStream<'_, Result<Vec<Arc<Revision>>, Status>> = self.api.hub.replay(position).await?;
        loop {
            if !matches!(self.api.hub.after(position, 1), Position::Behind) {
                return Ok(position);
            }
            let next = tokio::time::timeout(MARK_IDLE, history.next()).await;
            let Ok(next) = next else {
                self.send(Batch { revision: position, ..Batch::default() }).await?;
                continue;
            };
            let Some(revisions) = next else { return Ok(position) };
            for revision in revisions? {
                position = revision.revision;
                self.send_changes(&revision).await?;
            }
        }
    }

    async fn send_changes(&self, revision: &Revision) -> Result<bool, Gone> {
        let mut changes = Vec::new();
        for event in &revision.events {
            changes.extend(self.sets.iter().enumerate().filter_map(|(index, set)| set.change(index, event)));
        }
        if changes.is_empty() {
            return Ok(false);
        }
        self.send(Batch { revision: revision.revision, changes, initial: false, synced: false }).await?;
        Ok(true)
    }

    async fn send(&self, batch: Batch) -> Result<(), Gone> {
        self.sender.send(Ok(batch)).await.map_err(|_| Gone)
    }
}
