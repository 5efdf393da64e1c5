//! [`Controller`]: the one shape of all API controllers, and [`Host`], the loop that runs them.

use std::{
    collections::HashMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kit::{
    clock::Clock,
    life::{Shutdown, Tasks},
};
use parking_lot::Mutex;
use proto::{Kind, Resource};
use tracing::{debug, warn};

use crate::{Action, Builder, Client, Error, Executor, Partial, Queue, Reflector, Selection, events::Recorder};

/// How long a controller waits until it sees its own writes before it looks again regardless.
const VISIBLE_MAX: Duration = Duration::from_secs(2);
/// How long creations wait for the controller's earlier writes to become visible, where nothing else keeps them from
/// being made twice. Ends where the caches were set back and that revision is of another history.
const BLIND_MAX: Duration = Duration::from_secs(60);
/// Keys of one controller worked on side by side.
const WORKERS: usize = 8;

/// The object (or other unit) that a controller looks after: what it is woken by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    pub fn of<K: Kind>(object: &K) -> Self {
        Self::new(&object.meta().namespace, &object.meta().name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)
    }
}

/// Moves one kind of thing towards what is wanted. Level-triggered: it is woken by a key, never told what happened.
pub trait Controller: Send + Sync + 'static {
    type Snapshot: fmt::Debug + Send;

    /// "replicationcontroller": in logs and for Explain.
    const NAME: &'static str;

    /// Which kinds wake which keys.
    fn watches(&self, watches: Watches) -> Watches;

    /// Everything the plan for `key` depends on, at one revision; none where there is nothing to look after.
    fn observe(&self, caches: &Reflector, key: &Key, now: Timestamp) -> Option<Self::Snapshot>;

    /// Steps from what is to what is wanted. Pure; empty, but for wake-ups, once they agree.
    fn plan(snapshot: &Self::Snapshot) -> Vec<Action>;
}

/// Collects what one controller watches into the host's one stream.
pub struct Watches {
    builder: Builder,
    queue: Queue<Key>,
}

impl Watches {
    /// Keeps a cache of a kind.
    #[must_use]
    pub fn watch<K: Resource>(mut self) -> Self {
        self.builder = self.builder.watch::<K>(Selection::default());
        self
    }

    /// Each object of a kind is a key.
    #[must_use]
    pub fn each<K: Resource>(self) -> Self {
        self.map::<K>(|_, object| vec![Key::of(object)])
    }

    /// A change of an object wakes these keys, by its state before and by its state after.
    #[must_use]
    pub fn map<K: Resource>(self, keys: impl Fn(&Reflector, &K) -> Vec<Key> + Send + Sync + 'static) -> Self {
        let mut watches = self.watch::<K>();
        let queue = watches.queue.clone();
        watches.builder = watches.builder.on::<K>(move |caches, before, after| {
            for object in [before, after].into_iter().flatten() {
                keys(caches, object).into_iter().for_each(|key| queue.add(key));
            }
        });
        watches
    }

    /// Files a kind's objects for [`crate::Cache::by_index`].
    #[must_use]
    pub fn index<K: Resource>(
        self,
        name: &'static str,
        by: impl Fn(&K) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        let mut watches = self.watch::<K>();
        watches.builder = watches.builder.index::<K>(name, by);
        watches
    }

    /// Keeps only the metadata of a resource, filed under what `by` lists.
    #[must_use]
    pub fn index_metadata(
        mut self,
        group: &str,
        plural: &str,
        name: &'static str,
        by: impl Fn(&Partial) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.builder = self.builder.watch_metadata(group, plural).index_metadata(group, plural, name, by);
        self
    }

    /// As [`Watches::map`], for a resource of which only metadata is kept.
    #[must_use]
    pub fn map_metadata(
        mut self,
        group: &str,
        plural: &str,
        keys: impl Fn(&Reflector, &Partial) -> Vec<Key> + Send + Sync + 'static,
    ) -> Self {
        let queue = self.queue.clone();
        self.builder =
            self.builder.watch_metadata(group, plural).on_metadata(group, plural, move |caches, before, after| {
                for object in [before, after].into_iter().flatten() {
                    keys(caches, object).into_iter().for_each(|key| queue.add(key));
                }
            });
        self
    }

    /// The queue itself, for wishes of another source.
    pub fn queue(&self) -> Queue<Key> {
        self.queue.clone()
    }
}

/// What a controller sees and would do for one key.
#[derive(Clone, Debug, Default)]
pub struct Explanation {
    /// The snapshot, as text; empty where there is nothing to look after.
    pub snapshot: String,
    /// What it would do now.
    pub plan: Vec<String>,
    pub next_wake: Option<Timestamp>,
    /// What its last try met.
    pub error: String,
}

/// Runs controllers over one reflector and one executor.
pub struct Host {
    client: Client,
    clock: Arc<dyn Clock>,
    builder: Builder,
    starts: Vec<Start>,
}

type Start = Box<dyn FnOnce(Reflector, Executor, &Tasks, Shutdown) -> (&'static str, Arc<dyn Explain>) + Send>;

impl Host {
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { builder: Reflector::builder(client.clone()), client, clock, starts: Vec::new() }
    }

    #[must_use]
    pub fn with<C: Controller>(mut self, controller: C) -> Self {
        let queue = Queue::new();
        self.builder = controller.watches(Watches { builder: self.builder, queue: queue.clone() }).builder;
        let clock = self.clock.clone();
        self.starts.push(Box::new(move |caches, executor, tasks, shutdown| {
            let (failures, unseen, stop) = (Mutex::default(), Mutex::default(), shutdown.clone());
            let running =
                Arc::new(Loop { controller, queue, caches, executor, clock, shutdown: stop, failures, unseen });
            for _ in 0..WORKERS {
                tasks.spawn(C::NAME, running.clone().work());
            }
            let queue = running.queue.clone();
            tasks.spawn(C::NAME, async move {
                shutdown.triggered().await;
                queue.close();
            });
            (C::NAME, running as Arc<dyn Explain>)
        }));
        self
    }

    /// Starts the stream, and the controllers behind it.
    pub fn start(self, component: &str, tasks: &Tasks, shutdown: Shutdown) -> Running {
        let recorder = Recorder::start(self.client.clone(), component, "", tasks, shutdown.clone());
        let executor = Executor::new(self.client, recorder, shutdown.clone());
        let caches = self.builder.start(tasks, shutdown.clone());
        let start = |start: Start| start(caches.clone(), executor.clone(), tasks, shutdown.clone());
        let controllers = self.starts.into_iter().map(start).collect();
        Running { caches, controllers }
    }
}

/// Controllers that run.
pub struct Running {
    caches: Reflector,
    controllers: HashMap<&'static str, Arc<dyn Explain>>,
}

impl Running {
    pub fn caches(&self) -> &Reflector {
        &self.caches
    }

    pub fn names(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self.controllers.keys().copied().collect();
        names.sort_unstable();
        names
    }

    /// What a controller sees and would do for a key; none where no controller has this name.
    pub fn explain(&self, controller: &str, key: &Key) -> Option<Explanation> {
        self.controllers.get(controller).map(|controller| controller.explain(key))
    }
}

trait Explain: Send + Sync {
    fn explain(&self, key: &Key) -> Explanation;
}

struct Loop<C> {
    controller: C,
    queue: Queue<Key>,
    caches: Reflector,
    executor: Executor,
    clock: Arc<dyn Clock>,
    shutdown: Shutdown,
    /// What the last try of a key met; only of those that failed.
    failures: Mutex<HashMap<Key, String>>,
    /// The newest write for a key that the caches did not show in time, and since when.
    unseen: Mutex<HashMap<Key, (u64, Instant)>>,
}

impl<C: Controller> Loop<C> {
    async fn work(self: Arc<Self>) {
        while let Some(key) = self.queue.get().await {
            if !self.caches.is_synced() {
                // Absence means nothing before the first whole state.
                self.caches.synced().await;
            }
            self.reconcile(&key).await;
            self.queue.done(&key);
        }
    }

    fn observe(&self, key: &Key) -> Option<C::Snapshot> {
        let _cut = self.caches.cut();
        self.controller.observe(&self.caches, key, self.clock.now())
    }

    async fn reconcile(&self, key: &Key) {
        // Asked before looking: what becomes visible in between is then in the snapshot.
        let is_blind = self.is_blind(key);
        let mut actions = self.observe(key).map(|snapshot| C::plan(&snapshot)).unwrap_or_default();
        if is_blind {
            actions.retain(|action| !action.would_double());
        } else if actions.is_empty() {
            return self.succeeded(key);
        }
        let outcome = self.executor.execute(actions).await;
        if let Some(time) = outcome.wake_at {
            let wait = Duration::try_from(time.duration_since(self.clock.now())).unwrap_or_default();
            self.queue.add_after(key.clone(), wait);
        }
        let is_visible = self.see(key, &outcome.written).await;
        match outcome.error {
            None if is_visible => self.succeeded(key),
            // Look again regardless: what a stale plan could do harm with is held back.
            None => self.queue.add(key.clone()),
            Some(error) => self.failed(key, &error),
        }
    }

    /// Waits until the writes are in the caches, so that the next plan knows of them; whether they are.
    async fn see(&self, key: &Key, written: &[(String, String, u64)]) -> bool {
        let watched = written.iter().filter(|(group, plural, _)| self.caches.is_watched(group, plural));
        let before = self.unseen.lock().get(key).copied();
        let newest = watched.map(|(_, _, revision)| *revision).chain(before.map(|(revision, _)| revision)).max();
        let Some(revision) = newest else { return true };
        tokio::select! {
            () = self.caches.reached(revision) => {
                self.unseen.lock().remove(key);
                true
            }
            () = self.shutdown.triggered() => true,
            () = tokio::time::sleep(VISIBLE_MAX) => {
                let since = before.map_or_else(Instant::now, |(_, since)| since);
                self.unseen.lock().insert(key.clone(), (revision, since));
                false
            }
        }
    }

    /// Whether the caches lack something that this controller wrote for the key.
    fn is_blind(&self, key: &Key) -> bool {
        let mut unseen = self.unseen.lock();
        let Some((revision, since)) = unseen.get(key) else { return false };
        let is_blind = self.caches.revision() < *revision && since.elapsed() < BLIND_MAX;
        if !is_blind {
            unseen.remove(key);
        }
        is_blind
    }

    fn succeeded(&self, key: &Key) {
        self.queue.forget(key);
        self.failures.lock().remove(key);
    }

    fn failed(&self, key: &Key, error: &Error) {
        if error.is_conflict() || error.is_passing() {
            debug!(controller = C::NAME, %key, %error, "trying again");
        } else {
            warn!(controller = C::NAME, %key, %error, "a step was refused, trying again later");
        }
        self.failures.lock().insert(key.clone(), error.to_string());
        self.queue.retry(key.clone());
    }
}

impl<C: Controller> Explain for Loop<C> {
    /// Plans are pure, so asking is planning without doing.
    fn explain(&self, key: &Key) -> Explanation {
        let snapshot = self.observe(key);
        let next_wake = self.queue.due_in(key).and_then(|wait| self.clock.now().checked_add(wait).ok());
        Explanation {
            plan: snapshot.iter().flat_map(C::plan).map(|action| action.to_string()).collect(),
            snapshot: snapshot.map(|snapshot| format!("{snapshot:#?}")).unwrap_or_default(),
            next_wake,
            error: self.failures.lock().get(key).cloned().unwrap_or_default(),
        }
    }
}
