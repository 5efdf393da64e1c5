//! A one-node cluster in this process, or as processes of its own, on free ports and in a folder that goes with it.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use clap::Parser;
use client::Client;
use forestay::{certificates::Holder, role::House, settings::Settings, up};
use kit::life::Shutdown;
use tempfile::TempDir;
use tokio::task::JoinHandle;

use crate::eventually;

/// How long a cluster may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(30);

/// Flags of every port with free ones, so that clusters of several tests live side by side.
pub fn free_ports() -> Vec<String> {
    let flags =
        ["--api-port", "--store-port", "--kubelet-port", "--proxy-port", "--controllers-port", "--scheduler-port"];
    // All are held until all are known: the kernel then cannot give one out twice.
    let held: Vec<_> = flags.iter().map(|flag| (flag, TcpListener::bind("127.0.0.1:0").unwrap())).collect();
    held.iter().map(|(flag, listener)| format!("{flag}={}", listener.local_addr().unwrap().port())).collect()
}

/// A port nobody listens on now.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

/// No Docker, and the kernel is left as it is.
pub const QUIET: [&str; 2] = ["--runtime=fake", "--proxy-mode=recording"];

/// Settings of a cluster on loopback below `folder`, without Docker and without touching the kernel.
pub fn quiet_settings(folder: &Path, more: &[&str]) -> Settings {
    settings(folder, &[&QUIET, more].concat())
}

/// Settings of a cluster on loopback below `folder`, on free ports.
pub fn settings(folder: &Path, more: &[&str]) -> Settings {
    let mut flags = vec!["forestay".to_owned(), format!("--data-dir={}", folder.join("data").display())];
    flags.extend(["--bind-address=127.0.0.1", "--advertise-address=127.0.0.1", "--node-name=n1"].map(str::to_owned));
    flags.extend(free_ports());
    flags.extend(more.iter().map(|&flag| flag.to_owned()));
    Flags::parse_from(flags).settings
}

/// The arguments that give a `forestay up` process these settings.
pub fn up_arguments(settings: &Settings, more: &[&str]) -> Vec<String> {
    role_arguments("up", settings, more)
}

/// The arguments that give a role's own process these settings, without Docker and without touching the kernel.
pub fn role_arguments(role: &str, settings: &Settings, more: &[&str]) -> Vec<String> {
    arguments(role, settings, &[&QUIET, more].concat())
}

/// The arguments that give a role's own process its place: folder, name, addresses and ports.
pub fn arguments(role: &str, settings: &Settings, more: &[&str]) -> Vec<String> {
    let ports = &settings.ports;
    let mut arguments = vec![
        role.to_owned(),
        format!("--data-dir={}", settings.data_dir.display()),
        format!("--bind-address={}", settings.bind_address),
        format!("--advertise-address={}", settings.advertise_address()),
        format!("--node-name={}", settings.node_name()),
        format!("--api-port={}", ports.api_port),
        format!("--store-port={}", ports.store_port),
        format!("--kubelet-port={}", ports.kubelet_port),
        format!("--proxy-port={}", ports.proxy_port),
        format!("--controllers-port={}", ports.controllers_port),
        format!("--scheduler-port={}", ports.scheduler_port),
    ];
    arguments.extend(more.iter().map(|&flag| flag.to_owned()));
    arguments
}

/// A cluster in this process.
pub struct Cluster {
    pub settings: Settings,
    pub client: Client,
    shutdown: Shutdown,
    running: Option<JoinHandle<anyhow::Result<()>>>,
    _folder: TempDir,
}

impl Cluster {
    /// Starts a cluster with a fake runtime and a recording proxy, and waits until its API answers.
    pub async fn start(more: &[&str]) -> Self {
        kit::telemetry::init(0);
        let folder = tempfile::tempdir().unwrap();
        let settings = quiet_settings(folder.path(), more);
        let shutdown = Shutdown::new();
        let mut running = tokio::spawn(up::up(settings.clone(), shutdown.clone()));
        let kubeconfig = settings.directories().admin_kubeconfig();
        tokio::select! {
            () = eventually("the API answers", || { let path = kubeconfig.clone(); async move { path.exists().then_some(()) } }) => {}
            ended = &mut running => panic!("the cluster ended at its start: {ended:?}"),
        }
        let client = House::new(settings.clone()).client_as(&Holder::Admin).unwrap();
        Self { settings, client, shutdown, running: Some(running), _folder: folder }
    }

    pub fn kubeconfig(&self) -> PathBuf {
        self.settings.directories().admin_kubeconfig()
    }

    /// A client with another identity of this machine.
    pub fn client_as(&self, holder: &Holder) -> Client {
        House::new(self.settings.clone()).client_as(holder).unwrap()
    }

    /// Stops as SIGTERM would, and says how it ended.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        self.shutdown.trigger();
        let running = self.running.take().unwrap();
        tokio::time::timeout(LEAVE_WITHIN, running).await.expect("the cluster stops in time").unwrap()
    }
}

/// A failed test's cluster is waited for as well: the store's threads must not outlive what they work on.
impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.trigger();
        let Some(running) = self.running.take() else { return };
        let (ended, is_ended) = mpsc::channel();
        tokio::spawn(async move {
            let _ = running.await;
            let _ = ended.send(());
        });
        // On the test's own thread: the cluster runs on those of the runtime.
        let _ = is_ended.recv_timeout(LEAVE_WITHIN);
    }
}

/// A binary that `deploy/build` linked, or the one `FORESTAY_BIN` names a folder for.
pub fn binary(name: &str) -> PathBuf {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bin");
    let path = std::env::var_os("FORESTAY_BIN").map_or(beside, PathBuf::from).join(name);
    assert!(path.exists(), "{} is missing: run deploy/build dev (tests/run does)", path.display());
    path
}

/// A process that does not outlive its test.
pub struct Process(Child);

impl Process {
    /// Starts `forestay` with these arguments; its log goes to a file.
    pub fn forestay(arguments: &[String], log: &Path) -> Self {
        let log = std::fs::File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(binary("forestay"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self(child)
    }

    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// SIGKILL: no time for any last word.
    pub fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Panics
    /// Where it does not end within [`LEAVE_WITHIN`].
    pub fn terminate(&mut self) -> Option<i32> {
        let id = self.0.id().to_string();
        assert!(Command::new("kill").arg(&id).status().unwrap().success());
        let told = Instant::now();
        while self.is_running() {
            assert!(told.elapsed() < LEAVE_WITHIN, "the process did not end within {LEAVE_WITHIN:?} of SIGTERM");
            std::thread::sleep(Duration::from_millis(10));
        }
        self.0.wait().unwrap().code()
    }

    pub fn is_running(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
