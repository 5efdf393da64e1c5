//! A runtime that runs nothing: for hollow nodes, and for tests of everything above a runtime.
//!
//! Containers "start" at once and run until they are stopped. Tests make them end, lose events, or refuse to start.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use tokio_stream::wrappers::BroadcastStream;

use super::{
    Container, ContainerConfig, Error, Event, ExecResult, Image, LogOptions, Output, Phase, PodKey, PodState, Record,
    Runtime, Sandbox, SandboxConfig, Session, SessionId, Stats, Streams, Version,
    record::{container_name, sandbox_name},
};

/// More missed events than this become one [`Event::Gap`].
const EVENTS_MAX: usize = 1024;

/// A handle to the fake; clones share its state.
#[derive(Clone, Debug)]
pub struct Fake(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    world: Mutex<World>,
    events: broadcast::Sender<String>,
}

#[derive(Debug, Default)]
struct World {
    pods: BTreeMap<String, (PodKey, PodState)>,
    /// By container or sandbox id: the uid of its pod.
    owners: HashMap<String, String>,
    ids: HashMap<String, String>,
    missing_images: HashSet<String>,
    stalled_images: HashSet<String>,
    deaf: HashSet<String>,
    is_silent: bool,
    is_hanging: bool,
    made: u64,
}

impl Default for Fake {
    fn default() -> Self {
        Self(Arc::new(Inner { world: Mutex::default(), events: broadcast::Sender::new(EVENTS_MAX) }))
    }
}

impl Fake {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the newest attempt of a container; false where it is not running.
    pub fn exit(&self, uid: &str, container: &str, code: i32) -> bool {
        let ended = self.0.world.lock().end(uid, |c| c.name == container, code);
        self.tell(uid);
        ended
    }

    /// Pulling this image fails, and it is not there.
    pub fn lose_image(&self, name: &str) {
        self.0.world.lock().missing_images.insert(name.to_owned());
    }

    /// This image is not there, and pulling it takes for ever.
    pub fn stall_image(&self, name: &str) {
        self.lose_image(name);
        self.0.world.lock().stalled_images.insert(name.to_owned());
    }

    pub fn find_image(&self, name: &str) {
        self.0.world.lock().missing_images.remove(name);
    }

    /// Containers of this name do not end when asked: only when killed.
    pub fn make_deaf(&self, container: &str) {
        self.0.world.lock().deaf.insert(container.to_owned());
    }

    /// Changes are no longer told.
    pub fn fall_silent(&self) {
        self.0.world.lock().is_silent = true;
    }

    /// The runtime takes calls and answers none, or is well again.
    pub fn hang(&self, is_hanging: bool) {
        self.0.world.lock().is_hanging = is_hanging;
    }

    /// Ends a pod's sandbox, as a restart of the machine would.
    pub fn end_sandbox(&self, uid: &str) {
        if let Some((_, state)) = self.0.world.lock().pods.get_mut(uid) {
            state.sandboxes.iter_mut().for_each(|sandbox| sandbox.running = false);
        }
        self.tell(uid);
    }

    pub fn state(&self, uid: &str) -> PodState {
        self.0.world.lock().pods.get(uid).map(|(_, state)| state.clone()).unwrap_or_default()
    }

    fn tell(&self, uid: &str) {
        if !self.0.world.lock().is_silent {
            // Nobody listening is no error: whoever comes lists first.
            let _ = self.0.events.send(uid.to_owned());
        }
    }
}

impl World {
    fn id(&mut self, name: String, uid: &str) -> (String, bool) {
        if let Some(id) = self.ids.get(&name) {
            return (id.clone(), false);
        }
        self.made += 1;
        let id = format!("{:064x}", self.made);
        self.ids.insert(name, id.clone());
        self.owners.insert(id.clone(), uid.to_owned());
        (id, true)
    }

    fn container(&mut self, id: &str) -> Result<(&str, &mut Container), Error> {
        let gone = || Error::NotFound(format!("No such container: {id}"));
        let uid = self.owners.get(id).ok_or_else(gone)?;
        let (key, state) = self.pods.get_mut(uid).ok_or_else(gone)?;
        let container = state.containers.iter_mut().find(|container| container.id == id).ok_or_else(gone)?;
        Ok((&key.uid, container))
    }

    fn end(&mut self, uid: &str, which: impl Fn(&Container) -> bool, code: i32) -> bool {
        let Some((_, state)) = self.pods.get_mut(uid) else { return false };
        let running = state.containers.iter_mut().find(|container| container.is_running() && which(container));
        let Some(container) = running else { return false };
        container.phase = Phase::Exited;
        container.exit_code = code;
        container.finished_at = Some(Timestamp::now());
        true
    }
}

#[async_trait]
impl Runtime for Fake {
    async fn version(&self) -> Result<Version, Error> {
        Ok(Version { name: "fake".into(), version: "1.0".into(), ..Default::default() })
    }

    async fn ping(&self) -> Result<(), Error> {
        let is_hanging = self.0.world.lock().is_hanging;
        if is_hanging {
            return std::future::pending().await;
        }
        Ok(())
    }

    async fn pods(&self) -> Result<Vec<Record>, Error> {
        let world = self.0.world.lock();
        let records = world.pods.values().flat_map(|(pod, state)| {
            let of = move |id: &String, container: Option<&String>, attempt, running, ip| Record {
                id: id.clone(),
                pod: pod.clone(),
                container: container.cloned(),
                attempt,
                running,
                ip,
            };
            let sandboxes = state.sandboxes.iter().map(move |s| of(&s.id, None, s.attempt, s.running, s.ip));
            let containers =
                state.containers.iter().map(move |c| of(&c.id, Some(&c.name), c.attempt, c.is_running(), None));
            sandboxes.chain(containers)
        });
        Ok(records.collect())
    }

    async fn pod(&self, uid: &str) -> Result<PodState, Error> {
        Ok(self.state(uid).newest_first())
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        self.ping().await?;
        let events = BroadcastStream::new(self.0.events.subscribe());
        let event = |told: Result<String, _>| Ok(told.map_or(Event::Gap, |uid| Event::Pod { uid }));
        Ok(events.map(event).boxed())
    }

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error> {
        let sandbox = {
            let mut world = self.0.world.lock();
            let (id, is_new) = world.id(sandbox_name(config), &config.pod.uid);
            let (_, state) =
                world.pods.entry(config.pod.uid.clone()).or_insert_with(|| (config.pod.clone(), PodState::default()));
            if is_new {
                state.sandboxes.insert(
                    0,
                    Sandbox {
                        id: id.clone(),
                        attempt: config.attempt,
                        running: true,
                        pid: 0,
                        ip: config.ip,
                        created_at: Timestamp::now(),
                    },
                );
            }
            let found = state.sandboxes.iter_mut().find(|sandbox| sandbox.id == id);
            let sandbox = found.ok_or_else(|| Error::NotFound(format!("No such container: {id}")))?;
            sandbox.running = true;
            sandbox.clone()
        };
        self.tell(&config.pod.uid);
        Ok(sandbox)
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String, Error> {
        let mut world = self.0.world.lock();
        let (id, is_new) = world.id(container_name(config), &config.pod.uid);
        if is_new {
            let (_, state) = world
                .pods
                .get_mut(&config.pod.uid)
                .ok_or_else(|| Error::NotFound(format!("No such container: {}", config.sandbox_id)))?;
            state.containers.insert(
                0,
                Container {
                    id: id.clone(),
                    name: config.name.clone(),
                    attempt: config.attempt,
                    sandbox_id: config.sandbox_id.clone(),
                    image: config.image.clone(),
                    image_id: format!("docker://sha256:{}", config.image),
                    created_at: Timestamp::now(),
                    hash: config.hash.clone(),
                    failures: config.failures,
                    ..Default::default()
                },
            );
        }
        Ok(id)
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let uid = {
            let mut world = self.0.world.lock();
            let (uid, container) = world.container(id)?;
            container.phase = Phase::Running;
            container.started_at = Some(Timestamp::now());
            uid.to_owned()
        };
        self.tell(&uid);
        Ok(())
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let (uid, is_deaf) = {
            let mut world = self.0.world.lock();
            let Some(uid) = world.owners.get(id).cloned() else { return Ok(()) };
            let name = world.container(id).map(|(_, container)| container.name.clone()).unwrap_or_default();
            (uid, world.deaf.contains(&name))
        };
        if is_deaf {
            tokio::time::sleep(grace).await;
        }
        self.0.world.lock().end(&uid, |container| container.id == id, if is_deaf { 137 } else { 143 });
        self.tell(&uid);
        Ok(())
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let mut world = self.0.world.lock();
        let Some(uid) = world.owners.remove(id) else { return Ok(()) };
        world.ids.retain(|_, known| known != id);
        if let Some((_, state)) = world.pods.get_mut(&uid) {
            state.sandboxes.retain(|sandbox| sandbox.id != id);
            state.containers.retain(|container| container.id != id);
            if state.is_empty() {
                world.pods.remove(&uid);
            }
        }
        drop(world);
        self.tell(&uid);
        Ok(())
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        let is_missing = self.0.world.lock().missing_images.contains(name);
        Ok((!is_missing).then(|| Image { id: name.to_owned(), names: vec![name.to_owned()], ..Default::default() }))
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        Ok(Vec::new())
    }

    async fn pull_image(&self, name: &str) -> Result<(), Error> {
        let is_stalled = self.0.world.lock().stalled_images.contains(name);
        if is_stalled {
            return std::future::pending().await;
        }
        match self.0.world.lock().missing_images.contains(name) {
            true => Err(Error::NotFound(format!("pull access denied for {name}, repository does not exist"))),
            false => Ok(()),
        }
    }

    async fn import_image(
        &self,
        name: &str,
        _changes: &[String],
        archive: BoxStream<'static, Bytes>,
    ) -> Result<String, Error> {
        archive.for_each(|_| async {}).await;
        self.find_image(name);
        Ok(format!("sha256:{name}"))
    }

    async fn logs(&self, id: &str, _options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        let line = Bytes::from(format!("container {id} runs on a hollow node and says nothing\n"));
        Ok(futures::stream::iter([Ok(line)]).boxed())
    }

    async fn exec(&self, _id: &str, command: &[String], _streams: &Streams) -> Result<Session, Error> {
        let said = Bytes::from(format!("{}\n", command.join(" ")));
        Ok(Session {
            output: futures::stream::iter([Ok(Output::Stdout(said))]).boxed(),
            input: None,
            id: SessionId::Exec(String::new()),
        })
    }

    async fn attach(&self, id: &str, streams: &Streams) -> Result<Session, Error> {
        self.exec(id, &[], streams).await
    }

    async fn resize(&self, _session: &SessionId, _width: u16, _height: u16) -> Result<(), Error> {
        Ok(())
    }

    async fn exit_code(&self, _session: &SessionId) -> Result<i32, Error> {
        Ok(0)
    }

    async fn exec_wait(&self, _id: &str, command: &[String], limit: Duration) -> Result<ExecResult, Error> {
        let is_hanging = self.0.world.lock().is_hanging;
        if is_hanging {
            return Err(Error::Unavailable(format!("no command was started within {limit:?}")));
        }
        let exit_code = i32::from(command.first().is_some_and(|program| program == "false"));
        Ok(ExecResult { exit_code, output: Vec::new() })
    }

    async fn stats(&self, _id: &str) -> Result<Stats, Error> {
        Ok(Stats::default())
    }
}
