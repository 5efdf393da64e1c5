//! The hub: one watch of the whole store, kept as a bounded ring that any number of watchers read by cursor.
//!
//! A watcher is a position, not a queue: a slow one costs nothing and is replayed from the store's history once it
//! falls out of the ring. Each event is rendered at most once per form, however many watch.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use kit::life::Shutdown;
use parking_lot::RwLock;
use proto::{
    codec::ResourceInfo,
    envelope,
    etcdserverpb::{WatchCreateRequest, WatchResponse},
    mvccpb::{self, event::EventType},
};
use tokio::sync::watch;
use tonic::Status;
use tracing::{info, warn};

use super::{Store, keys};
use crate::api::Stored;

/// Revisions kept. At 1,000 writes a second this is 8 seconds of history before a watcher is replayed from the store.
const REVISIONS_MAX: usize = 8192;
/// Bytes of values kept, so that many large objects do not fill the memory.
const BYTES_MAX: usize = 32 << 20;
/// A broken store watch is opened again after this long.
const RETRY: Duration = Duration::from_millis(200);

/// One change of one object.
pub struct Event {
    pub resource: &'static ResourceInfo,
    pub namespace: String,
    pub name: String,
    pub revision: u64,
    value: Option<Bytes>,
    previous: Option<Bytes>,
    present: OnceLock<Option<Arc<Stored>>>,
    past: OnceLock<Option<Arc<Stored>>>,
    labels: OnceLock<BTreeMap<String, String>>,
    past_labels: OnceLock<BTreeMap<String, String>>,
}

impl Event {
    fn read(event: mvccpb::Event, resource_of: &ResourceOf) -> Option<Self> {
        let is_deleted = event.r#type() == EventType::Delete;
        let pair = event.kv?;
        let key = std::str::from_utf8(&pair.key).ok()?;
        let scope = |group: &str, plural: &str| resource_of(group, plural).map(|found| found.resource.namespaced);
        let parsed = keys::parse(key, scope)?;
        Some(Self {
            resource: resource_of(parsed.group, parsed.plural)?,
            namespace: parsed.namespace.to_owned(),
            name: parsed.name.to_owned(),
            revision: u64::try_from(pair.mod_revision).ok()?,
            value: (!is_deleted).then_some(pair.value),
            previous: event.prev_kv.map(|previous| previous.value),
            present: OnceLock::new(),
            past: OnceLock::new(),
            labels: OnceLock::new(),
            past_labels: OnceLock::new(),
        })
    }

    /// The object after the change; none where it was deleted.
    pub fn present(&self) -> Option<&Arc<Stored>> {
        self.present.get_or_init(|| self.stored(self.value.as_ref()?)).as_ref()
    }

    /// The object before the change, at the change's revision; none where it was created.
    pub fn past(&self) -> Option<&Arc<Stored>> {
        self.past.get_or_init(|| self.stored(self.previous.as_ref()?)).as_ref()
    }

    pub fn is_creation(&self) -> bool {
        self.previous.is_none()
    }

    pub fn is_deletion(&self) -> bool {
        self.value.is_none()
    }

    /// Labels after the change.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.labels.get_or_init(|| labels_of(self.present()))
    }

    /// Labels before the change.
    pub fn past_labels(&self) -> &BTreeMap<String, String> {
        self.past_labels.get_or_init(|| labels_of(self.past()))
    }

    fn stored(&self, value: &Bytes) -> Option<Arc<Stored>> {
        let raw = envelope::unwrap(value).and_then(|(_, raw)| envelope::splice_resource_version(&raw, self.revision));
        match raw {
            Ok(raw) => Some(Arc::new(Stored::new(self.resource, self.revision, raw))),
            Err(error) => {
                warn!(name = self.name, revision = self.revision, %error, "unreadable object in the store");
                None
            }
        }
    }

    fn size_bytes(&self) -> usize {
        // Rendered forms come on top; JSON is about four times the stored bytes where anyone asks for it.
        256 + self.value.as_ref().map_or(0, Bytes::len) + self.previous.as_ref().map_or(0, Bytes::len)
    }
}

fn labels_of(object: Option<&Arc<Stored>>) -> BTreeMap<String, String> {
    object.and_then(|stored| envelope::metadata(&stored.raw).ok()).map(|meta| meta.labels).unwrap_or_default()
}

/// All changes of one revision.
pub struct Revision {
    pub revision: u64,
    pub events: Vec<Event>,
    size_bytes: usize,
}

impl Revision {
    /// Reads a store's watch message: all events of one revision, or of several, in order.
    fn read(response: WatchResponse, resource_of: &ResourceOf) -> Vec<Arc<Self>> {
        let mut revisions: Vec<Self> = Vec::new();
        for event in response.events {
            let revision = event.kv.as_ref().map_or(0, |pair| u64::try_from(pair.mod_revision).unwrap_or(0));
            if revisions.last().is_none_or(|last| last.revision != revision) {
                revisions.push(Self { revision, events: Vec::new(), size_bytes: 64 });
            }
            if let (Some(event), Some(last)) = (Event::read(event, resource_of), revisions.last_mut()) {
                last.size_bytes += event.size_bytes();
                last.events.push(event);
            }
        }
        revisions.into_iter().map(Arc::new).collect()
    }
}

/// Finds a resource by group and plural.
pub type ResourceOf = Arc<dyn Fn(&str, &str) -> Option<&'static ResourceInfo> + Send + Sync>;

/// What a cursor finds at its position.
pub enum Position {
    /// The revisions that follow.
    Next(Vec<Arc<Revision>>),
    /// Nothing new.
    Newest,
    /// The ring no longer reaches back so far: replay from the store.
    Behind,
}

/// Why the store is no longer followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    Stopped,
    /// The store compacted what this hub has not seen.
    Lost,
}

struct Ring {
    revisions: VecDeque<Arc<Revision>>,
    /// The ring holds everything after this revision.
    floor: u64,
    size_bytes: usize,
}

/// One watch of the store for all watchers of this apiserver.
pub struct Hub {
    store: Arc<dyn Store>,
    resource_of: ResourceOf,
    ring: RwLock<Ring>,
    head: watch::Sender<u64>,
}

impl Hub {
    /// A hub that has seen nothing yet.
    pub fn new(store: Arc<dyn Store>, resource_of: ResourceOf) -> Self {
        Self {
            store,
            resource_of,
            ring: RwLock::new(Ring { revisions: VecDeque::new(), floor: 0, size_bytes: 0 }),
            head: watch::Sender::new(0),
        }
    }

    /// Follows the store from the newest revision seen; `observe` sees every event before any watcher does.
    pub async fn follow(&self, observe: impl Fn(&Event) + Send + Sync, shutdown: &Shutdown) -> Ended {
        loop {
            let after = self.head();
            let ended = tokio::select! {
                () = shutdown.triggered() => return Ended::Stopped,
                ended = self.follow_once(after, &observe) => ended,
            };
            match ended {
                Ok(Ended::Stopped) => info!(after, "the store ended its watch; watching again"),
                Ok(Ended::Lost) => return Ended::Lost,
                Err(error) => warn!(after, %error, "the store's watch failed; watching again"),
            }
            tokio::select! {
                () = shutdown.triggered() => return Ended::Stopped,
                () = tokio::time::sleep(RETRY) => {}
            }
        }
    }

    async fn follow_once(&self, after: u64, observe: &(impl Fn(&Event) + Send + Sync)) -> Result<Ended, Status> {
        let mut responses = self.store.watch(watch_after(after)).await?;
        while let Some(response) = responses.next().await {
            let response = response?;
            if response.compact_revision > 0 {
                warn!(after, compacted = response.compact_revision, "missed changes were compacted");
                return Ok(Ended::Lost);
            }
            if response.canceled {
                return Err(Status::unavailable(response.cancel_reason));
            }
            for revision in Revision::read(response, &self.resource_of) {
                revision.events.iter().for_each(observe);
                self.push(revision);
            }
        }
        Ok(Ended::Stopped)
    }

    fn push(&self, revision: Arc<Revision>) {
        let head = revision.revision;
        {
            let mut ring = self.ring.write();
            if head <= ring.revisions.back().map_or(ring.floor, |last| last.revision) {
                return;
            }
            ring.size_bytes += revision.size_bytes;
            ring.revisions.push_back(revision);
            while ring.revisions.len() > REVISIONS_MAX || (ring.size_bytes > BYTES_MAX && ring.revisions.len() > 1) {
                if let Some(oldest) = ring.revisions.pop_front() {
                    ring.size_bytes -= oldest.size_bytes;
                    ring.floor = oldest.revision;
                }
            }
        }
        self.head.send_replace(head);
    }

    /// Forgets everything up to and with `floor`: watchers that stand before it are replayed from the store.
    pub fn restart_at(&self, floor: u64) {
        *self.ring.write() = Ring { revisions: VecDeque::new(), floor, size_bytes: 0 };
        self.head.send_replace(floor);
    }

    /// The newest revision seen.
    pub fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// Tells of every new head.
    pub fn heads(&self) -> watch::Receiver<u64> {
        self.head.subscribe()
    }

    /// Waits until the hub has seen `revision`, at most `bound`; false where it has not.
    pub async fn reaches(&self, revision: u64, bound: Duration) -> bool {
        let mut heads = self.heads();
        matches!(tokio::time::timeout(bound, heads.wait_for(|head| *head >= revision)).await, Ok(Ok(_)))
    }

    /// At most `limit` revisions after `position`.
    pub fn after(&self, position: u64, limit: usize) -> Position {
        let ring = self.ring.read();
        if position < ring.floor {
            return Position::Behind;
        }
        let start = ring.revisions.partition_point(|revision| revision.revision <= position);
        if start == ring.revisions.len() {
            return Position::Newest;
        }
        Position::Next(ring.revisions.iter().skip(start).take(limit).cloned().collect())
    }

    /// Revisions after `position` straight from the store's history, for watchers the ring has left behind.
    ///
    /// # Errors
    /// `OutOfRange` where the history is compacted.
    pub async fn replay(
        &self,
        position: u64,
    ) -> Result<BoxStream<'static, Result<Vec<Arc<Revision>>, Status>>, Status> {
        let responses = self.store.watch(watch_after(position)).await?;
        let resource_of = self.resource_of.clone();
        Ok(responses
            .map(move |response| {
                let response = response?;
                if response.compact_revision > 0 {
                    return Err(Status::out_of_range("mvcc: required revision has been compacted"));
                }
                if response.canceled {
                    return Err(Status::unavailable(response.cancel_reason));
                }
                Ok(Revision::read(response, &resource_of))
            })
            .boxed())
    }
}

fn watch_after(revision: u64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: Bytes::from_static(keys::ROOT.as_bytes()),
        range_end: keys::prefix_end(keys::ROOT.as_bytes()),
        start_revision: i64::try_from(revision).unwrap_or(i64::MAX - 1) + 1,
        prev_kv: true,
        ..WatchCreateRequest::default()
    }
}
