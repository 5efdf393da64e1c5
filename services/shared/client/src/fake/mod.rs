//! [`FakeApi`]: the API's gRPC door over objects in memory, for the tests of every service.
//!
//! It keeps the promises services rely on (revisions, consistent watches over several sets, preconditions, graceful
//! deletion, finalizers, binding) and is held to the same contract suite as the real server. It has no validation
//! beyond names, no authorization and no quota; a test that needs a refusal asks for it with [`FakeApi::refuse`].

// Refusals are whole Statuses; a test server need not be frugal with them.
#![allow(clippy::result_large_err)]

mod patch;
mod raw;
mod refusal;
mod select;
mod serve;
mod store;

use std::{sync::Arc, time::Duration};

use kit::{clock::Clock, life::Shutdown};
use parking_lot::Mutex;
use proto::{
    Kind, Object, Resource,
    forestay::api::v1::objects_server::ObjectsServer,
    k8s::{
        core::v1::Namespace,
        meta::v1::{Status, Time},
    },
};
use tokio::sync::watch;

use crate::{Client, Target, target};

/// A test that waits longer than this for something hangs.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Asked before each write: verb, target, and the object where the request carries one.
type Hook = Box<dyn Fn(&str, &Target, Option<&Object>) -> Result<(), Status> + Send + Sync>;

/// A handle to the fake's objects. The server stops with the last of them.
#[derive(Clone)]
pub struct FakeApi {
    inner: Arc<Inner>,
    address: String,
    _stop: Arc<StopOnDrop>,
}

struct Inner {
    store: Mutex<store::Store>,
    revision: watch::Sender<u64>,
    /// Counts how often all watches were broken.
    epoch: watch::Sender<u64>,
    held: std::sync::atomic::AtomicBool,
    clock: Arc<dyn Clock>,
    hook: Mutex<Option<Hook>>,
    writes: Mutex<Vec<String>>,
}

struct StopOnDrop(Shutdown);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.trigger();
    }
}

impl FakeApi {
    /// Starts a fake on a free loopback port, with the usual namespaces.
    pub async fn start() -> (Client, Self) {
        Self::start_with_clock(kit::clock::system()).await
    }

    /// As [`FakeApi::start`]; timestamps are the clock's.
    pub async fn start_with_clock(clock: Arc<dyn Clock>) -> (Client, Self) {
        let inner = Arc::new(Inner {
            store: Mutex::default(),
            revision: watch::Sender::new(0),
            epoch: watch::Sender::new(0),
            held: Default::default(),
            clock,
            hook: Mutex::default(),
            writes: Mutex::default(),
        });
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            let mut namespace = Namespace::default();
            namespace.meta_mut().name = name.to_owned();
            inner
                .change(|store| store.create(&target::<Namespace>("", name), Object::of(&namespace), inner.now()))
                .expect("an empty store takes the first namespaces");
        }
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("bind a free loopback port");
        let address = format!("http://{}", listener.local_addr().expect("a bound listener has an address"));
        let stop = Shutdown::new();
        let server = tonic::transport::Server::builder()
            .tcp_nodelay(true)
            .add_service(ObjectsServer::new(serve::Door(inner.clone())).max_decoding_message_size(64 << 20))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener));
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stopped.triggered() => {}
                served = server => drop(served),
            }
        });
        let fake = Self { inner, address, _stop: Arc::new(StopOnDrop(stop)) };
        (fake.client(), fake)
    }

    /// One more client, on a connection of its own.
    pub fn client(&self) -> Client {
        let endpoint =
            tonic::transport::Endpoint::from_shared(self.address.clone()).expect("a loopback address is a URI");
        Client::from_channel(endpoint.tcp_nodelay(true).connect_lazy())
    }

    /// "http://127.0.0.1:port"
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn get<K: Resource>(&self, namespace: &str, name: &str) -> Option<K> {
        let store = self.inner.store.lock();
        store.get(&target::<K>(namespace, name)).ok().and_then(|stored| stored.object.decode_as().ok())
    }

    /// All objects of a kind, by namespace and name.
    pub fn list<K: Resource>(&self) -> Vec<K> {
        let store = self.inner.store.lock();
        let resource = (K::GROUP.to_owned(), K::PLURAL.to_owned());
        store.all(&resource).filter_map(|stored| stored.object.decode_as().ok()).collect()
    }

    /// Stores an object as it is, status and all, without any rule; new objects get a uid and a creation time.
    pub fn put<K: Resource>(&self, object: &K) -> K {
        let mut meta = object.meta().clone();
        if meta.uid.is_empty() {
            let present = self.get::<K>(&meta.namespace, &meta.name);
            meta.uid = present.map_or_else(|| uuid::Uuid::new_v4().to_string(), |present| present.meta().uid.clone());
        }
        meta.creation_timestamp.get_or_insert_with(|| self.inner.now());
        let target = target::<K>(&meta.namespace, &meta.name);
        let stored = self.inner.change(|store| Ok(store.put(&target, meta, Object::of(object))));
        stored.ok().and_then(|stored| stored.object.decode_as().ok()).expect("a put object is read back")
    }

    /// Changes a stored object by hand, status and all.
    ///
    /// # Panics
    /// Where it is not there.
    pub fn edit<K: Resource>(&self, namespace: &str, name: &str, edit: impl FnOnce(&mut K)) -> K {
        let mut object: K =
            self.get(namespace, name).unwrap_or_else(|| panic!("{} {namespace}/{name} is there", K::PLURAL));
        edit(&mut object);
        self.put(&object)
    }

    /// Removes an object at once, whatever keeps it.
    pub fn remove<K: Resource>(&self, namespace: &str, name: &str) -> bool {
        let target = target::<K>(namespace, name);
        self.inner.change(|store| store.force_remove(&target)).is_ok()
    }

    pub fn revision(&self) -> u64 {
        *self.inner.revision.borrow()
    }

    /// Waits until a condition over the objects holds.
    ///
    /// # Panics
    /// Where it does not hold within 20 s.
    pub async fn until(&self, what: &str, mut is_so: impl FnMut(&Self) -> bool) {
        let mut revision = self.inner.revision.subscribe();
        let wait = async {
            loop {
                revision.borrow_and_update();
                if is_so(self) {
                    return;
                }
                if revision.changed().await.is_err() {
                    return;
                }
            }
        };
        if tokio::time::timeout(WAIT_MAX, wait).await.is_err() {
            panic!("waited {WAIT_MAX:?} in vain until {what}; writes: {:#?}", self.writes());
        }
    }

    /// Lets a hook refuse writes: it gets the verb ("create", "update", "patch", "delete", "bind"), target and object.
    pub fn refuse(&self, hook: impl Fn(&str, &Target, Option<&Object>) -> Result<(), Status> + Send + Sync + 'static) {
        *self.inner.hook.lock() = Some(Box::new(hook));
    }

    pub fn refuse_nothing(&self) {
        *self.inner.hook.lock() = None;
    }

    /// Every write asked for so far: "create pods default/web-x".
    pub fn writes(&self) -> Vec<String> {
        self.inner.writes.lock().clone()
    }

    /// Ends all watch streams, as a server that restarts does.
    pub fn break_watches(&self) {
        self.inner.epoch.send_modify(|epoch| *epoch += 1);
    }

    /// While held, running streams end and no new one is opened.
    pub fn hold_watches(&self, is_held: bool) {
        self.inner.held.store(is_held, std::sync::atomic::Ordering::SeqCst);
        self.break_watches();
    }

    /// Forgets the history: a watch from an earlier revision gets "Expired".
    pub fn compact(&self) {
        self.inner.store.lock().compact();
    }
}

impl Inner {
    fn now(&self) -> Time {
        Time { seconds: self.clock.now().as_second(), nanos: 0 }
    }

    fn admit(&self, verb: &'static str, target: &Target, object: Option<&Object>) -> Result<(), Status> {
        let Target { resource, namespace, name, .. } = target;
        let place = if namespace.is_empty() { String::new() } else { format!("{namespace}/") };
        self.writes.lock().push(format!("{verb} {resource} {place}{name}"));
        self.hook.lock().as_ref().map_or(Ok(()), |hook| hook(verb, target, object))
    }

    fn change<T>(&self, change: impl FnOnce(&mut store::Store) -> Result<T, Status>) -> Result<T, Status> {
        let mut store = self.store.lock();
        let outcome = change(&mut store);
        self.revision.send_if_modified(|revision| {
            let is_moved = *revision != store.revision;
            *revision = store.revision;
            is_moved
        });
        outcome
    }
}
