//! [`Reflector`]: one watch stream that keeps typed caches of several kinds at one revision.

use std::{
    any::{Any, TypeId},
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use kit::life::{Shutdown, Tasks};
use parking_lot::{RwLock, RwLockReadGuard};
use proto::{
    Resource,
    forestay::api::v1::{View, watch_event},
};
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use crate::{
    Cache, Change, Changes, Client, Entry, Error, Partial,
    backoff::Backoff,
    cache::{IndexBy, Shelves},
    changes::Subscribers,
    client::{Selection, Target, WatchRequest, WatchResponse, WatchSet, target},
    set::{AnySet, Follower, Set},
};

/// Progress marks come at least every 10 s; a stream silent for longer than this is dead.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(5);

/// Says what a reflector watches.
pub struct Builder {
    client: Client,
    sets: Vec<Box<dyn AnySet>>,
}

impl Builder {
    /// Watches a kind in all namespaces.
    ///
    /// A kind has one set: a second call with another selection widens it to everything.
    #[must_use]
    pub fn watch<K: Resource>(self, selection: Selection) -> Self {
        self.watch_in::<K>("", selection)
    }

    /// Watches a kind in one namespace.
    #[must_use]
    pub fn watch_in<K: Resource>(mut self, namespace: &str, selection: Selection) -> Self {
        self.add::<K>(target::<K>(namespace, ""), selection, View::Full, K::ARM);
        self
    }

    /// Watches the metadata of any resource; see [`Reflector::metadata`].
    #[must_use]
    pub fn watch_metadata(mut self, group: &str, plural: &str) -> Self {
        let target = Target { group: group.to_owned(), resource: plural.to_owned(), ..Default::default() };
        self.add::<Partial>(target, Selection::default(), View::Metadata, 0);
        self
    }

    /// Files the kind's objects under the values `by` lists for each; see [`Cache::by_index`].
    ///
    /// # Panics
    /// Where the kind is not watched yet.
    #[must_use]
    pub fn index<K: Resource>(
        mut self,
        name: &'static str,
        by: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let indices = &mut self.set::<K>(K::GROUP, K::PLURAL).indices;
        if !indices.iter().any(|(present, _)| *present == name) {
            let by: IndexBy<K> = Box::new(by);
            indices.push((name, by));
        }
        self
    }

    /// As [`Builder::index`], for a resource watched as metadata.
    ///
    /// # Panics
    /// Where the resource is not watched as metadata yet.
    #[must_use]
    pub fn index_metadata(
        mut self,
        group: &str,
        plural: &str,
        name: &'static str,
        by: impl Fn(&Partial) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let indices = &mut self.set::<Partial>(group, plural).indices;
        if !indices.iter().any(|(present, _)| *present == name) {
            let by: IndexBy<Partial> = Box::new(by);
            indices.push((name, by));
        }
        self
    }

    /// Calls `listener` with the state before and after, for every change and in order, after the caches show it.
    ///
    /// # Panics
    /// Where the kind is not watched yet.
    #[must_use]
    pub fn on<K: Resource>(
        mut self,
        listener: impl Fn(&Reflector, Option<&Arc<K>>, Option<&Arc<K>>) + Send + Sync + 'static,
    ) -> Self {
        self.set::<K>(K::GROUP, K::PLURAL).listeners.push(Box::new(listener));
        self
    }

    /// As [`Builder::on`], for a resource watched as metadata.
    ///
    /// # Panics
    /// Where the resource is not watched as metadata yet.
    #[must_use]
    pub fn on_metadata(
        mut self,
        group: &str,
        plural: &str,
        listener: impl Fn(&Reflector, Option<&Arc<Partial>>, Option<&Arc<Partial>>) + Send + Sync + 'static,
    ) -> Self {
        self.set::<Partial>(group, plural).listeners.push(Box::new(listener));
        self
    }

    /// Starts following the server; runs until `shutdown`.
    pub fn start(self, tasks: &Tasks, shutdown: Shutdown) -> Reflector {
        let request = WatchRequest { sets: self.sets.iter().map(|set| set.request()).collect() };
        let slots = self.sets.iter().enumerate().map(|(slot, set)| (set.id(), (slot, set.entry_type()))).collect();
        let (shelves, followers): (Vec<_>, Vec<_>) =
            self.sets.into_iter().enumerate().map(|(slot, set)| set.start(slot)).unzip();
        let reflector = Reflector(Arc::new(Shared {
            shelves: Arc::new(RwLock::new(shelves)),
            slots,
            applied: AtomicU64::new(0),
            progress: watch::Sender::new(Progress::default()),
            subscribers: Subscribers::default(),
        }));
        let stream = Stream { client: self.client, request, followers, reflector: reflector.clone(), resume: 0 };
        tasks.spawn("reflector", stream.run(shutdown));
        reflector
    }

    fn add<E: Entry>(&mut self, target: Target, selection: Selection, view: View, arm: u32) {
        let present = self.sets.iter_mut().find(|set| set.id() == (target.group.clone(), target.resource.clone()));
        match present {
            Some(set) => {
                set.widen(&WatchSet { target: Some(target), selection: Some(selection), ..Default::default() })
            }
            None => self.sets.push(Box::new(Set::<E>::new(target, selection, view, arm))),
        }
    }

    fn set<E: Entry>(&mut self, group: &str, plural: &str) -> &mut Set<E> {
        let set = self.sets.iter_mut().find(|set| set.id() == (group.to_owned(), plural.to_owned()));
        let set: Option<&mut Set<E>> = set.and_then(|set| (set.as_mut() as &mut dyn Any).downcast_mut());
        set.unwrap_or_else(|| panic!("`watch` comes before `index` and `on` for {plural}"))
    }
}

/// A handle to the caches. Cheap to clone.
#[derive(Clone)]
pub struct Reflector(Arc<Shared>);

struct Shared {
    shelves: Arc<RwLock<Shelves>>,
    slots: HashMap<(String, String), (usize, TypeId)>,
    /// The revision the shelves stand at; written under their lock.
    applied: AtomicU64,
    progress: watch::Sender<Progress>,
    subscribers: Subscribers,
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// Listeners have been told of everything up to here.
    revision: u64,
    is_synced: bool,
}

/// While it lives, the caches do not change: everything read under it is of one revision. Keep it for microseconds.
pub struct Cut<'reflector> {
    _shelves: RwLockReadGuard<'reflector, Shelves>,
    revision: u64,
}

impl Cut<'_> {
    pub fn revision(&self) -> u64 {
        self.revision
    }
}

impl Reflector {
    pub fn builder(client: Client) -> Builder {
        Builder { client, sets: Vec::new() }
    }

    /// # Panics
    /// Where the kind is not among those watched.
    pub fn cache<K: Resource>(&self) -> Cache<K> {
        self.slot::<K>(K::GROUP, K::PLURAL).unwrap_or_else(|| panic!("{} are not watched here", K::PLURAL))
    }

    /// The cache of a resource that is watched as metadata.
    pub fn metadata(&self, group: &str, plural: &str) -> Option<Cache<Partial>> {
        self.slot(group, plural)
    }

    fn slot<E: Entry>(&self, group: &str, plural: &str) -> Option<Cache<E>> {
        let (slot, entry) = self.0.slots.get(&(group.to_owned(), plural.to_owned()))?;
        (*entry == TypeId::of::<E>()).then(|| Cache::new(self.0.shelves.clone(), *slot))
    }

    /// Whether a resource is watched at all.
    pub fn is_watched(&self, group: &str, plural: &str) -> bool {
        self.0.slots.contains_key(&(group.to_owned(), plural.to_owned()))
    }

    /// Resolves once the caches hold a first whole state.
    pub async fn synced(&self) {
        self.until(|progress| progress.is_synced).await;
    }

    pub fn is_synced(&self) -> bool {
        self.0.progress.borrow().is_synced
    }

    /// The revision up to which everything is in the caches, and told.
    pub fn revision(&self) -> u64 {
        self.0.progress.borrow().revision
    }

    /// Resolves once everything up to `revision` is in the caches. Where nothing watched changed, a progress mark
    /// brings it within a second or so: put a bound around it.
    pub async fn reached(&self, revision: u64) {
        self.until(|progress| progress.revision >= revision).await;
    }

    async fn until(&self, is_reached: impl Fn(&Progress) -> bool) {
        let mut progress = self.0.progress.subscribe();
        // The sender lives in this handle.
        let _ = progress.wait_for(|progress| is_reached(progress)).await;
    }

    /// Names of what changes from now on.
    pub fn changes(&self) -> Changes {
        self.0.subscribers.subscribe([])
    }

    /// Holds the caches still.
    pub fn cut(&self) -> Cut<'_> {
        let shelves = self.0.shelves.read_recursive();
        Cut { _shelves: shelves, revision: self.0.applied.load(Ordering::Acquire) }
    }
}

/// A step that changes the shelves, and says afterwards what it changed.
pub(crate) type Step = Box<dyn FnOnce(&mut Shelves, &mut Vec<Notice>) + Send>;

/// What one change means to others.
pub(crate) struct Notice {
    pub(crate) change: Change,
    pub(crate) tell: Option<Telling>,
}

/// Passes one change on to those who asked for its kind.
pub(crate) type Telling = Box<dyn FnOnce(&Reflector) + Send>;

/// The one task that writes the caches.
struct Stream {
    client: Client,
    request: WatchRequest,
    followers: Vec<Box<dyn Follower>>,
    reflector: Reflector,
    /// The revision everything up to which has been applied; 0 to start from the present state.
    resume: u64,
}

impl Stream {
    async fn run(mut self, shutdown: Shutdown) {
        let mut backoff = Backoff::new(RECONNECT_MIN, RECONNECT_MAX);
        while !shutdown.is_triggered() {
            let outcome = tokio::select! {
                () = shutdown.triggered() => break,
                outcome = self.follow(&mut backoff) => outcome,
            };
            match outcome {
                Err(error) if error.is_expired() => {
                    info!(revision = self.resume, "the watch's revision is compacted, starting from the present state");
                    self.resume = 0;
                }
                Err(error) if backoff.failures() == 3 => warn!(%error, "watch fails, trying on"),
                Err(error) => debug!(%error, revision = self.resume, "watch broke, resuming"),
                Ok(()) => debug!(revision = self.resume, "watch ended, resuming"),
            }
            tokio::select! {
                () = shutdown.triggered() => break,
                () = tokio::time::sleep(backoff.wait()) => {}
            }
        }
        self.reflector.0.subscribers.close();
    }

    /// Follows one stream to its end.
    async fn follow(&mut self, backoff: &mut Backoff) -> Result<(), Error> {
        let mut request = self.request.clone();
        request.sets.iter_mut().for_each(|set| set.from_revision = self.resume);
        let mut stream = self.client.watch(request).await?;
        let mut is_fresh = self.resume == 0;
        if is_fresh {
            self.followers.iter_mut().for_each(|follower| follower.begin());
        }
        loop {
            let Ok(message) = tokio::time::timeout(SILENCE_MAX, stream.next()).await else {
                return Err(Error::internal(format!("the watch was silent for {SILENCE_MAX:?}")));
            };
            let Some(message) = message.transpose()? else { return Ok(()) };
            backoff.reset();
            if message.revision < self.resume {
                // The store was set back (restored from a copy): nothing here can be trusted any more.
                warn!(
                    was = self.resume,
                    now = message.revision,
                    "the store went back, starting from its present state"
                );
                self.resume = 0;
                return Ok(());
            }
            if is_fresh && (message.initial || message.synced) {
                self.initial(&message);
                if message.synced {
                    is_fresh = false;
                    let steps = self.followers.iter_mut().map(|follower| follower.finish()).collect();
                    self.apply(steps, message.revision, true);
                }
            } else if !is_fresh {
                let steps = self.steps(&message);
                self.apply(steps, message.revision, true);
            }
        }
    }

    fn initial(&mut self, message: &WatchResponse) {
        for event in &message.events {
            let (Some(object), Some(follower)) = (&event.object, self.followers.get_mut(event.set as usize)) else {
                continue;
            };
            if let Err(error) = follower.initial(object) {
                error!(kind = object.kind, %error, "an object cannot be read, going on without it");
            }
        }
    }

    fn steps(&mut self, message: &WatchResponse) -> Vec<Step> {
        let mut steps = Vec::with_capacity(message.events.len());
        for event in &message.events {
            let (Some(object), Some(follower)) = (&event.object, self.followers.get(event.set as usize)) else {
                continue;
            };
            let is_deletion = event.r#type() == watch_event::Type::Deleted;
            match follower.step(is_deletion, object) {
                Ok(step) => steps.push(step),
                Err(error) => error!(kind = object.kind, %error, "an object cannot be read, going on without it"),
            }
        }
        steps
    }

    /// Makes one revision visible: first in the caches, then to listeners, then as progress.
    fn apply(&mut self, steps: Vec<Step>, revision: u64, is_synced: bool) {
        let shared = &self.reflector.0;
        let mut notices = Vec::new();
        {
            let mut shelves = shared.shelves.write();
            steps.into_iter().for_each(|step| step(&mut shelves, &mut notices));
            shared.applied.store(revision, Ordering::Release);
        }
        let mut changes = Vec::with_capacity(notices.len());
        for Notice { change, tell } in notices {
            if let Some(tell) = tell {
                tell(&self.reflector);
            }
            changes.push(change);
        }
        shared.subscribers.tell(&changes);
        self.resume = revision;
        shared.progress.send_replace(Progress { revision, is_synced });
    }
}
