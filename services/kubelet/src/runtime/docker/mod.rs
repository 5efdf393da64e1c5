//! Docker Engine as the runtime, through its HTTP API.
//!
//! Docker restarts nothing here and connects nothing: both are the kubelet's work. Containers are found by labels, and
//! made under names that Docker refuses to give twice.

mod config;
mod convert;
mod session;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use async_trait::async_trait;
use bollard::{
    Docker as Engine,
    models::SystemInfoCgroupDriverEnum,
    query_parameters::{
        CreateContainerOptions, CreateImageOptions, EventsOptions, ImportImageOptions, InspectContainerOptions,
        ListContainersOptions, ListImagesOptions, LogsOptions, RemoveContainerOptions, StartContainerOptions,
        StatsOptions, StopContainerOptions,
    },
};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, future::join_all, stream::BoxStream};

use super::{
    CgroupDriver, ContainerConfig, Error, Event, ExecResult, Image, LogOptions, PodState, Record, Runtime, Sandbox,
    SandboxConfig, Session, SessionId, Stats, Streams, Version,
    record::{self, NODE, POD_UID},
};
use convert::{refused, tag_of};

/// How long a single call may take; what waits for a container has its own limit.
const CALL_SECONDS_MAX: u64 = 120;

/// How long the end of a command that took too long is waited for.
const KILL_MAX: Duration = Duration::from_secs(2);

/// A Docker Engine and the pods of one node in it.
#[derive(Clone)]
pub struct Docker {
    engine: Engine,
    node: String,
    pause_image: String,
    /// Whether processes may be protected from the kernel's out-of-memory killer more than we are ourselves.
    may_lower_oom_score: bool,
}

impl Docker {
    /// Connects to the engine behind a socket.
    ///
    /// # Errors
    /// Where nothing answers there.
    pub async fn connect(socket: &Path, node: &str, pause_image: &str) -> Result<Self, Error> {
        let unavailable = |error: bollard::errors::Error| {
            Error::Unavailable(format!("{}: {error}: is dockerd running?", socket.display()))
        };
        let path = socket.display().to_string();
        let engine = Engine::connect_with_unix(&path, CALL_SECONDS_MAX, bollard::API_DEFAULT_VERSION);
        // The newest version of the API is refused by every older engine.
        let engine = engine.map_err(unavailable)?.negotiate_version().await.map_err(unavailable)?;
        let may_lower_oom_score = may_lower_oom_score();
        if !may_lower_oom_score {
            tracing::info!("without CAP_SYS_RESOURCE no pod is protected from the out-of-memory killer");
        }
        Ok(Self { engine, node: node.to_owned(), pause_image: pause_image.to_owned(), may_lower_oom_score })
    }

    /// Makes sure that the pause image is there, from our static program where it is not.
    ///
    /// # Errors
    /// Where there is neither image nor program.
    pub async fn provide_pause(&self, binary: Option<&PathBuf>) -> Result<(), Error> {
        let Some(binary) = binary else {
            return match self.image(&self.pause_image).await? {
                Some(_) => Ok(()),
                None => Err(Error::NotFound(format!(
                    "image {} is not there and no pause program is given to make it from: set pause_binary",
                    self.pause_image
                ))),
            };
        };
        let program = tokio::fs::read(binary).await;
        let program = program.map_err(|error| Error::Refused(format!("read {}: {error}", binary.display())))?;
        let digest = convert::digest(&program);
        let has_it = self.engine.inspect_image(&self.pause_image).await.ok().and_then(|image| image.config);
        let known = has_it.and_then(|config| config.labels?.remove(PAUSE_DIGEST));
        if known.as_deref() == Some(&digest) {
            return Ok(());
        }
        let changes = ["ENTRYPOINT [\"/pause\"]".to_owned(), format!("LABEL {PAUSE_DIGEST}={digest}")];
        let archive = futures::stream::iter([Bytes::from(convert::tar_of("pause", &program))]).boxed();
        self.import_image(&self.pause_image, &changes, archive).await.map(drop)
    }

    fn filters(&self, more: &[String]) -> Option<HashMap<String, Vec<String>>> {
        let labels = [format!("{NODE}={}", self.node)].into_iter().chain(more.iter().cloned());
        Some([("label".to_owned(), labels.collect())].into())
    }

    async fn list(&self, labels: &[String]) -> Result<Vec<(String, bool, HashMap<String, String>)>, Error> {
        let options = ListContainersOptions { all: true, filters: self.filters(labels), ..Default::default() };
        let found = self.engine.list_containers(Some(options)).await.map_err(refused)?;
        let read = |summary: bollard::models::ContainerSummary| {
            let running = summary.state.is_some_and(|state| state.to_string() == "running");
            Some((summary.id?, running, summary.labels?))
        };
        Ok(found.into_iter().filter_map(read).collect())
    }

    async fn inspect(&self, id: &str) -> Result<bollard::models::ContainerInspectResponse, Error> {
        self.engine.inspect_container(id, None::<InspectContainerOptions>).await.map_err(refused)
    }

    /// Makes a container, or finds the one that has its name already.
    async fn create(&self, name: String, body: bollard::models::ContainerCreateBody) -> Result<String, Error> {
        let options = CreateContainerOptions { name: Some(name.clone()), ..Default::default() };
        match self.engine.create_container(Some(options), body).await.map_err(refused) {
            Ok(created) => Ok(created.id),
            Err(Error::Conflict(message)) => {
                let found = self.inspect(&name).await?;
                found.id.ok_or(Error::Conflict(message))
            }
            Err(error) => Err(error),
        }
    }
}

/// Which program the pause image was made from.
const PAUSE_DIGEST: &str = "forestay.dev/pause-digest";

/// Tries it on ourselves: lowering a score needs CAP_SYS_RESOURCE, raising it back does not.
fn may_lower_oom_score() -> bool {
    const OWN: &str = "/proc/self/oom_score_adj";
    let Some(now) = std::fs::read_to_string(OWN).ok().and_then(|text| text.trim().parse::<i32>().ok()) else {
        return false;
    };
    let may = now > -1000 && std::fs::write(OWN, (now - 1).to_string()).is_ok();
    if may && let Err(error) = std::fs::write(OWN, now.to_string()) {
        tracing::debug!(%error, "our own oom score stays one lower");
    }
    may
}

#[async_trait]
impl Runtime for Docker {
    async fn version(&self) -> Result<Version, Error> {
        let info = self.engine.info().await.map_err(refused)?;
        Ok(Version {
            name: "docker".to_owned(),
            version: info.server_version.unwrap_or_default(),
            cgroup_driver: match info.cgroup_driver {
                Some(SystemInfoCgroupDriverEnum::SYSTEMD) => CgroupDriver::Systemd,
                _ => CgroupDriver::Cgroupfs,
            },
            root_dir: info.docker_root_dir.unwrap_or_else(|| "/var/lib/docker".to_owned()).into(),
        })
    }

    async fn ping(&self) -> Result<(), Error> {
        self.engine.ping().await.map(drop).map_err(refused)
    }

    async fn pods(&self) -> Result<Vec<Record>, Error> {
        let found = self.list(&[]).await?;
        Ok(found.iter().filter_map(|(id, running, labels)| Record::read(id, *running, labels)).collect())
    }

    async fn pod(&self, uid: &str) -> Result<PodState, Error> {
        let found = self.list(&[format!("{POD_UID}={uid}")]).await?;
        let inspected = join_all(found.iter().map(|(id, ..)| self.inspect(id))).await;
        let mut state = PodState::default();
        for one in inspected {
            match one {
                Ok(container) => convert::file(container, &mut state),
                // Removed between list and look.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(state.newest_first())
    }

    async fn events(&self) -> Result<BoxStream<'static, Result<Event, Error>>, Error> {
        self.ping().await?;
        let mut filters = self.filters(&[]).unwrap_or_default();
        filters.insert("type".to_owned(), vec!["container".to_owned()]);
        let actions = ["start", "die", "oom", "destroy"].map(str::to_owned);
        filters.insert("event".to_owned(), actions.to_vec());
        let options = EventsOptions { filters: Some(filters), ..Default::default() };
        let events = self.engine.clone().events(Some(options)).filter_map(async |event| match event {
            Ok(event) => {
                let uid = event.actor?.attributes?.remove(POD_UID)?;
                Some(Ok(Event::Pod { uid }))
            }
            Err(error) => Some(Err(refused(error))),
        });
        Ok(events.boxed())
    }

    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error> {
        let labels = record::sandbox_labels(&self.node, config);
        let body = config::sandbox(config, &self.pause_image, labels, self.may_lower_oom_score);
        let id = self.create(record::sandbox_name(config), body).await?;
        self.start_container(&id).await?;
        let mut state = PodState::default();
        convert::file(self.inspect(&id).await?, &mut state);
        let sandbox = state.sandboxes.pop().filter(|sandbox| sandbox.running);
        sandbox.ok_or_else(|| {
            Error::Refused("the sandbox ended at once: is the pause program built for this machine?".into())
        })
    }

    async fn create_container(&self, config: &ContainerConfig) -> Result<String, Error> {
        let labels = record::container_labels(&self.node, config);
        let body = config::container(config, labels, self.may_lower_oom_score);
        self.create(record::container_name(config), body).await
    }

    async fn start_container(&self, id: &str) -> Result<(), Error> {
        let started = self.engine.start_container(id, None::<StartContainerOptions>).await;
        convert::unless_unchanged(started)
    }

    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error> {
        let seconds = i32::try_from(grace.as_secs()).unwrap_or(i32::MAX);
        let engine = self.engine.clone().with_timeout(grace + Duration::from_secs(CALL_SECONDS_MAX));
        // The signal is the one the container was made with.
        let options = StopContainerOptions { t: Some(seconds), signal: None };
        match convert::unless_unchanged(engine.stop_container(id, Some(options)).await) {
            Err(error) if error.is_not_found() => Ok(()),
            outcome => outcome,
        }
    }

    async fn remove_container(&self, id: &str) -> Result<(), Error> {
        let options = RemoveContainerOptions { force: true, v: true, ..Default::default() };
        match self.engine.remove_container(id, Some(options)).await.map_err(refused) {
            Err(error) if error.is_not_found() => Ok(()),
            // "removal already in progress": the next look will tell.
            Err(Error::Conflict(_)) => Ok(()),
            outcome => outcome,
        }
    }

    async fn image(&self, name: &str) -> Result<Option<Image>, Error> {
        match self.engine.inspect_image(name).await.map_err(refused) {
            Ok(image) => Ok(Some(Image {
                id: image.id.unwrap_or_default(),
                names: image.repo_tags.unwrap_or_default(),
                size_bytes: image.size.unwrap_or_default(),
                user: image.config.and_then(|config| config.user).unwrap_or_default(),
            })),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn images(&self) -> Result<Vec<Image>, Error> {
        let found = self.engine.list_images(None::<ListImagesOptions>).await.map_err(refused)?;
        let image = |image: bollard::models::ImageSummary| Image {
            id: image.id,
            names: image.repo_tags,
            size_bytes: image.size,
            user: String::new(),
        };
        let mut images: Vec<Image> = found.into_iter().map(image).filter(|image| !image.names.is_empty()).collect();
        images.sort_by(|one, other| one.names.cmp(&other.names));
        Ok(images)
    }

    async fn pull_image(&self, name: &str) -> Result<(), Error> {
        let (from_image, tag) = tag_of(name);
        let options = CreateImageOptions { from_image: Some(from_image), tag: Some(tag), ..Default::default() };
        let steps = self.engine.create_image(Some(options), None, None);
        steps.try_for_each(async |_| Ok(())).await.map_err(refused)
    }

    async fn import_image(
        &self,
        name: &str,
        changes: &[String],
        archive: BoxStream<'static, Bytes>,
    ) -> Result<String, Error> {
        let (is_saved, archive) = convert::peek(archive).await;
        let body = bollard::body_stream(archive);
        if is_saved {
            let steps = self.engine.import_image(ImportImageOptions::default(), body, None);
            steps.try_for_each(async |_| Ok(())).await.map_err(refused)?;
        } else {
            let (repo, tag) = tag_of(name);
            let options = CreateImageOptions {
                from_src: Some("-".to_owned()),
                repo: Some(repo),
                tag: Some(tag),
                changes: changes.to_vec(),
                ..Default::default()
            };
            let steps = self.engine.create_image(Some(options), Some(body), None);
            steps.try_for_each(async |_| Ok(())).await.map_err(refused)?;
        }
        let image = self.image(name).await?;
        image.map(|image| image.id).ok_or_else(|| Error::NotFound(format!("the archive holds no image named {name}")))
    }

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error> {
        // A container that is gone is told as such, not as an empty log.
        self.inspect(id).await?;
        let since = options.since.map_or(0, |since| i32::try_from(since.as_second()).unwrap_or(i32::MAX));
        let options = LogsOptions {
            follow: options.follow,
            stdout: true,
            stderr: true,
            since,
            timestamps: options.timestamps,
            tail: options.tail_lines.map_or_else(|| "all".to_owned(), |lines| lines.max(0).to_string()),
            ..Default::default()
        };
        let lines = self.engine.clone().logs(id, Some(options));
        Ok(lines.map(|line| line.map(bollard::container::LogOutput::into_bytes).map_err(refused)).boxed())
    }

    async fn exec(&self, id: &str, command: &[String], streams: &Streams) -> Result<Session, Error> {
        session::exec(&self.engine, id, command, streams).await
    }

    async fn attach(&self, id: &str, streams: &Streams) -> Result<Session, Error> {
        session::attach(&self.engine, id, streams).await
    }

    async fn resize(&self, session: &SessionId, width: u16, height: u16) -> Result<(), Error> {
        session::resize(&self.engine, session, width, height).await
    }

    async fn exit_code(&self, session: &SessionId) -> Result<i32, Error> {
        session::exit_code(&self.engine, session).await
    }

    async fn exec_wait(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult, Error> {
        let streams = Streams { stdout: true, stderr: true, ..Default::default() };
        let end = tokio::time::Instant::now() + limit;
        let start = session::exec(&self.engine, id, command, &streams);
        let started = tokio::time::timeout_at(end, start).await;
        let mut session =
            started.map_err(|_| Error::Unavailable(format!("no command was started within {limit:?}")))??;
        match tokio::time::timeout_at(end, session::collect(&self.engine, &mut session)).await {
            Ok(result) => result,
            Err(_) => {
                // An engine that hangs must not hold up who asked.
                let kill = session::kill(&self.engine, id, &session.id);
                let _ = tokio::time::timeout(KILL_MAX, kill).await;
                Err(Error::Timeout { what: "the command", limit })
            }
        }
    }

    async fn stats(&self, id: &str) -> Result<Stats, Error> {
        let options = StatsOptions { stream: false, one_shot: true };
        let mut stats = std::pin::pin!(self.engine.stats(id, Some(options)));
        match stats.next().await {
            Some(Ok(stats)) => Ok(convert::stats(&stats)),
            Some(Err(error)) => Err(refused(error)),
            None => Err(Error::NotFound(format!("No such container: {id}"))),
        }
    }
}
