//! What the kubelet asks of a container runtime, and the words both sides use.
//!
//! A runtime keeps no desired state and restarts nothing by itself: it does what it is told and reports what is.

pub mod docker;
pub mod fake;
mod record;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf, pin::Pin, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use tokio::io::AsyncWrite;

pub use record::Record;

/// Names one pod for good: a later pod of the same name has another uid.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodKey {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

impl std::fmt::Display for PodKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything a runtime knows of one pod, newest attempt first in both lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodState {
    pub sandboxes: Vec<Sandbox>,
    pub containers: Vec<Container>,
}

impl PodState {
    /// The sandbox that holds the pod's namespaces now.
    pub fn live_sandbox(&self) -> Option<&Sandbox> {
        self.sandboxes.iter().find(|sandbox| sandbox.running)
    }

    /// The newest attempt of a container.
    pub fn newest(&self, name: &str) -> Option<&Container> {
        self.containers.iter().find(|container| container.name == name)
    }

    /// All attempts of a container, newest first.
    pub fn attempts<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a Container> {
        self.containers.iter().filter(move |container| container.name == name)
    }

    pub fn is_empty(&self) -> bool {
        self.sandboxes.is_empty() && self.containers.is_empty()
    }

    /// Sorts into the promised order.
    pub fn newest_first(mut self) -> Self {
        self.sandboxes.sort_by_key(|sandbox| std::cmp::Reverse((sandbox.attempt, sandbox.created_at)));
        self.containers.sort_by_key(|container| std::cmp::Reverse((container.attempt, container.created_at)));
        self
    }
}

/// The pause container that holds a pod's namespaces open.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sandbox {
    pub id: String,
    pub attempt: u32,
    pub running: bool,
    /// The process whose namespaces are the pod's; 0 where it is not running.
    pub pid: u32,
    /// The address it was made for; none with the host's network.
    pub ip: Option<IpAddr>,
    pub created_at: Timestamp,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Made, never started.
    #[default]
    Created,
    Running,
    Exited,
}

/// One attempt of one container as it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Container {
    pub id: String,
    pub name: String,
    pub attempt: u32,
    pub sandbox_id: String,
    pub image: String,
    pub image_id: String,
    pub phase: Phase,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub finished_at: Option<Timestamp>,
    pub exit_code: i32,
    pub oom_killed: bool,
    /// Why the runtime could not start it; empty where it could.
    pub error: String,
    /// Hash of the spec it was made from.
    pub hash: String,
    /// How many quick failures came directly before this attempt.
    pub failures: u32,
}

impl Container {
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// It ended, or could not even start.
    pub fn is_dead(&self) -> bool {
        self.phase == Phase::Exited || (self.phase == Phase::Created && !self.error.is_empty())
    }
}

/// What a sandbox is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SandboxConfig {
    pub pod: PodKey,
    pub attempt: u32,
    pub hostname: String,
    pub ip: Option<IpAddr>,
    pub host_network: bool,
    pub host_pid: bool,
    pub host_ipc: bool,
    pub cgroup_parent: String,
    pub sysctls: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Mount {
    pub host_path: PathBuf,
    pub container_path: String,
    pub read_only: bool,
    /// "rprivate", "rslave" or "rshared".
    pub propagation: &'static str,
}

/// What a container is made from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ContainerConfig {
    pub pod: PodKey,
    pub name: String,
    pub attempt: u32,
    pub hash: String,
    pub failures: u32,
    pub sandbox_id: String,
    pub image: String,
    /// Replaces the image's entrypoint, where not empty.
    pub command: Vec<String>,
    /// Replaces the image's command, where not empty.
    pub args: Vec<String>,
    pub env: Vec<(String, String)>,
    pub working_dir: String,
    pub mounts: Vec<Mount>,
    pub resources: Resources,
    pub cgroup_parent: String,
    pub security: Security,
    pub stdin: bool,
    pub stdin_once: bool,
    pub tty: bool,
    pub share_pid: bool,
    pub host_pid: bool,
    pub stop_signal: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Relative weight; 1024 is one core.
    pub cpu_shares: i64,
    /// Microseconds per 100 ms; 0 is without limit.
    pub cpu_quota_us: i64,
    /// Bytes; 0 is without limit.
    pub memory_bytes: i64,
    pub oom_score_adj: i32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Security {
    /// "1000" or "1000:1000"; empty for the image's.
    pub user: String,
    pub groups: Vec<String>,
    pub privileged: bool,
    pub capabilities_add: Vec<String>,
    pub capabilities_drop: Vec<String>,
    pub read_only_root: bool,
    pub no_new_privileges: bool,
    pub seccomp_unconfined: bool,
}

/// An image present on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    pub id: String,
    pub names: Vec<String>,
    pub size_bytes: i64,
    /// The user its processes run as; empty for root.
    pub user: String,
}

/// What the runtime says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// "docker"
    pub name: String,
    /// "20.10.24"
    pub version: String,
    pub cgroup_driver: CgroupDriver,
    /// Where it keeps images and container files.
    pub root_dir: PathBuf,
}

/// Who makes cgroups; it decides how their parents are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    #[default]
    Cgroupfs,
    Systemd,
}

/// A pod has changed in the runtime; which way is seen by looking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Pod {
        uid: String,
    },
    /// The stream may have missed something: look at every pod.
    Gap,
}

/// Which log lines are wanted.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LogOptions {
    pub follow: bool,
    pub timestamps: bool,
    pub tail_lines: Option<i64>,
    pub since: Option<Timestamp>,
}

/// What an exec or attach stream carries outwards.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    Stdout(Bytes),
    Stderr(Bytes),
}

/// A running exec or an attached container.
pub struct Session {
    pub output: BoxStream<'static, Result<Output, Error>>,
    pub input: Option<Pin<Box<dyn AsyncWrite + Send>>>,
    /// Names it for [`Runtime::resize`] and [`Runtime::exit_code`].
    pub id: SessionId,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionId {
    Exec(String),
    Container(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    pub stdin: bool,
    pub stdout: bool,
    pub stderr: bool,
    pub tty: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecResult {
    pub exit_code: i32,
    pub output: Vec<u8>,
}

/// Totals since the container's start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub cpu_ns: u64,
    /// Working set: used memory without what could be dropped at once.
    pub memory_bytes: u64,
}

/// A runtime's refusal, by what the caller must do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    NotFound(String),
    /// The name is in use.
    #[error("{0}")]
    Conflict(String),
    #[error("{0}")]
    Refused(String),
    #[error("{what} took longer than {limit:?}")]
    Timeout { what: &'static str, limit: Duration },
    #[error("the runtime does not answer: {0}")]
    Unavailable(String),
}

impl Error {
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }
}

#[async_trait]
pub trait Runtime: Send + Sync + 'static {
    /// Says what the runtime is.
    async fn version(&self) -> Result<Version, Error>;

    /// Answers at once where the runtime is there and well.
    async fn ping(&self) -> Result<(), Error>;

    /// Every pod of which anything is left, in one cheap call, with the addresses their sandboxes were made for.
    async fn pods(&self) -> Result<Vec<Record>, Error>;

    /// Everything about one pod.
    async fn pod(&self, uid: &str) -> Result<PodState, Error>;

    /// Changes from now on. Ends where the connection does.
    async fn events(&self) -> Result<BoxStream<'static, Result<Event, Error>>, Error>;

    /// Makes and starts a sandbox; the one of that name where it exists already.
    async fn start_sandbox(&self, config: &SandboxConfig) -> Result<Sandbox, Error>;

    /// Makes a container; the one of that name where it exists already.
    async fn create_container(&self, config: &ContainerConfig) -> Result<String, Error>;

    async fn start_container(&self, id: &str) -> Result<(), Error>;

    /// Asks the container to end, and kills it after `grace`. Returns when it has ended, or is gone.
    async fn stop_container(&self, id: &str, grace: Duration) -> Result<(), Error>;

    /// Removes a container or sandbox by force; one that is gone is no error.
    async fn remove_container(&self, id: &str) -> Result<(), Error>;

    async fn image(&self, name: &str) -> Result<Option<Image>, Error>;
    async fn images(&self) -> Result<Vec<Image>, Error>;
    async fn pull_image(&self, name: &str) -> Result<(), Error>;

    /// A root filesystem or a `docker save` archive becomes image `name`; its id.
    async fn import_image(
        &self,
        name: &str,
        changes: &[String],
        archive: BoxStream<'static, Bytes>,
    ) -> Result<String, Error>;

    async fn logs(&self, id: &str, options: &LogOptions) -> Result<BoxStream<'static, Result<Bytes, Error>>, Error>;
    async fn exec(&self, id: &str, command: &[String], streams: &Streams) -> Result<Session, Error>;
    async fn attach(&self, id: &str, streams: &Streams) -> Result<Session, Error>;
    async fn resize(&self, session: &SessionId, width: u16, height: u16) -> Result<(), Error>;
    /// The code a finished session ended with.
    async fn exit_code(&self, session: &SessionId) -> Result<i32, Error>;

    /// Runs a command to its end. One that takes longer than `limit` is ended; where it did not even start within it,
    /// the runtime does not answer.
    async fn exec_wait(&self, id: &str, command: &[String], limit: Duration) -> Result<ExecResult, Error>;

    async fn stats(&self, id: &str) -> Result<Stats, Error>;
}
