//! A place to try a kubelet: a network namespace, a dockerd in it, a fake API, and a broom.

use std::{
    fs::{self, File},
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use client::fake::FakeApi;
use kit::life::Shutdown;
use kubelet::{Options, RuntimeChoice, pod::backoff::BackOff, runtime::Runtime, runtime::docker::Docker};
use nix::sched::{CloneFlags, setns, unshare};
use proto::{
    Kind,
    forestay::node::v1::node_client::NodeClient,
    k8s::core::v1::{Container, EnvVar, EnvVarSource, Event, Namespace, Node, ObjectFieldSelector, Pod, PodSpec},
};

pub const IMAGE: &str = "fskubelet/busybox:1";
const WAIT_MAX: Duration = Duration::from_secs(60);

pub struct Lab {
    pub client: client::Client,
    pub api: FakeApi,
    engine: Engine,
    running: Mutex<Option<(Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>)>>,
}

/// A dockerd that ends, with all it has, when it is dropped.
struct Engine {
    dir: PathBuf,
    process: Child,
}

/// Runs a test in a lab of its own.
pub fn in_lab(test: impl AsyncFnOnce(&Lab)) {
    if let Err(why) = can_run() {
        eprintln!("SKIPPED: no Docker here: {why}");
        return;
    }
    unshare(CloneFlags::CLONE_NEWNET).unwrap();
    let namespace = Arc::new(File::open("/proc/thread-self/ns/net").unwrap());
    // A node has an address that pods can answer to.
    for words in [&["link", "set", "lo", "up"][..], &["address", "add", "192.0.2.10/32", "dev", "lo"]] {
        assert!(Command::new("ip").args(words).status().unwrap().success());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .on_thread_start(move || setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).unwrap())
        .build()
        .unwrap();
    runtime.block_on(async {
        let lab = Lab::start().await;
        let outcome = std::panic::AssertUnwindSafe(test(&lab));
        let outcome = futures::FutureExt::catch_unwind(outcome).await;
        if outcome.is_err() {
            lab.tell_all();
        }
        lab.stop().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

fn can_run() -> Result<(), String> {
    let has = |program: &str| match Command::new(program)
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
    {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{program}: {error}")),
    };
    ["dockerd", "docker", "nft", "ip"].into_iter().try_for_each(has)?;
    if !nix::unistd::geteuid().is_root() {
        return Err("not root".into());
    }
    if Path::new("/bin/busybox").exists() { Ok(()) } else { Err("no /bin/busybox (apt install busybox-static)".into()) }
}

pub fn sh(script: &str) -> String {
    let output = Command::new("sh").args(["-c", script]).output().unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Engine {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("fskubelet-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let log = File::create(dir.join("dockerd.log")).unwrap();
        let process = Command::new("dockerd")
            .arg("-H")
            .arg(format!("unix://{}", dir.join("docker.sock").display()))
            .arg("--data-root")
            .arg(dir.join("data"))
            .arg("--exec-root")
            .arg(dir.join("exec"))
            .arg("--pidfile")
            .arg(dir.join("docker.pid"))
            .args(["--bridge", "none"])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { dir, process }
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    fn docker(&self, words: &[&str]) -> std::process::Output {
        let host = format!("unix://{}", self.socket().display());
        Command::new("docker").args(["-H", &host]).args(words).stdin(Stdio::null()).output().unwrap()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let ids = String::from_utf8(self.docker(&["ps", "-aq"]).stdout).unwrap_or_default();
        let ids: Vec<&str> = ids.split_whitespace().collect();
        if !ids.is_empty() {
            self.docker(&[&["rm", "-f"][..], &ids[..]].concat());
        }
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.process.wait();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for path in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)) {
            if Path::new(path).starts_with(&self.dir) {
                let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
            }
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Our pause program, built the way it is shipped.
fn pause() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pause");
    let built = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "-p", "pause", "--manifest-path"])
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/pause/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // All of it in its own folder: a build of something else under way must not hold up a test.
        .env_remove("CARGO_BUILD_BUILD_DIR")
        .status()
        .unwrap();
    assert!(built.success(), "the pause program builds");
    target.join("debug/pause")
}

impl Lab {
    async fn start() -> Self {
        let engine = Engine::start();
        let wait = async {
            while Docker::connect(&engine.socket(), "n1", "none").await.is_err() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        if tokio::time::timeout(WAIT_MAX, wait).await.is_err() {
            panic!("dockerd does not answer: {}", fs::read_to_string(engine.dir.join("dockerd.log")).unwrap());
        }
        import_busybox(&engine);
        let (client, api) = FakeApi::start().await;
        for namespace in ["default", "kube-node-lease"] {
            let mut object = Namespace::default();
            object.meta_mut().name = namespace.into();
            api.put(&object);
        }
        let lab = Self { client, api, engine, running: Mutex::new(None) };
        lab.start_kubelet();
        lab.api.until("the node is registered", |api| api.get::<Node>("", "n1").is_some()).await;
        lab
    }

    pub fn dir(&self) -> &Path {
        &self.engine.dir
    }

    pub fn options(&self) -> Options {
        Options {
            node_name: "n1".into(),
            runtime: RuntimeChoice::Docker { socket: self.engine.socket() },
            root_dir: self.engine.dir.join("kubelet"),
            listen: Some(([127, 0, 0, 1], 0).into()),
            node_ip: Some([192, 0, 2, 10].into()),
            pod_cidr: Some("10.244.9.0/24".parse().unwrap()),
            pause_binary: Some(pause()),
            cgroup_root: format!("fskubelet-{}", std::process::id()),
            back_off: BackOff {
                first: Duration::from_millis(50),
                max: Duration::from_millis(200),
                ..Default::default()
            },
            runtime_patience: Duration::from_millis(500),
            ..Default::default()
        }
    }

    /// `forestay.node.v1` of the kubelet.
    pub async fn node(&self) -> NodeClient<tonic::transport::Channel> {
        let status = self.api.get::<Node>("", "n1").unwrap().status.unwrap();
        let port = status.daemon_endpoints.unwrap().kubelet_endpoint.unwrap().port;
        NodeClient::connect(format!("http://127.0.0.1:{port}")).await.unwrap()
    }

    pub fn dockerd(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.engine.process.id()).unwrap())
    }

    /// What a cgroup of a pod holds: the file of version 1, or the one of version 2.
    pub fn cgroup(&self, path: &str, controller: &str, one: &str, two: &str) -> String {
        let below = format!("{}/{path}", self.options().cgroup_root);
        let places = [format!("{controller}/{below}/{one}"), format!("{below}/{two}")];
        let found = places.iter().find_map(|place| fs::read_to_string(Path::new("/sys/fs/cgroup").join(place)).ok());
        found.unwrap_or_else(|| panic!("none of {places:?}")).trim().to_owned()
    }

    pub async fn until_event(&self, reason: &str, message: &str) {
        let is_told = |event: &Event| event.reason == reason && event.message.contains(message);
        self.until_api(&format!("event {reason}: {message}"), |api| api.list::<Event>().iter().any(is_told)).await;
    }

    pub async fn until_api(&self, what: &str, is_so: impl Fn(&FakeApi) -> bool) {
        let wait = self.api.until(what, |api| is_so(api));
        tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or_else(|_| panic!("{what}"));
    }

    pub fn start_kubelet(&self) {
        let shutdown = Shutdown::new();
        let task = tokio::spawn(kubelet::run(self.options(), self.client.clone(), shutdown.clone()));
        *self.running.lock().unwrap() = Some((shutdown, task));
    }

    pub async fn stop_kubelet(&self) {
        let running = self.running.lock().unwrap().take();
        if let Some((shutdown, task)) = running {
            shutdown.trigger();
            if let Ok(Err(error)) = task.await {
                eprintln!("the kubelet failed: {error:#}");
            }
        }
    }

    pub async fn restart_kubelet(&self) {
        self.stop_kubelet().await;
        self.start_kubelet();
    }

    async fn stop(self) {
        self.stop_kubelet().await;
        if let Err(error) = kubelet::clean_up(&self.options()).await {
            eprintln!("clean up: {error:#}");
        }
    }

    fn tell_all(&self) {
        for pod in self.api.list::<Pod>() {
            eprintln!("{}: {:#?}", pod.meta().name, pod.status);
        }
        for event in self.api.list::<proto::k8s::core::v1::Event>() {
            eprintln!("{} {}", event.reason, event.message);
        }
    }

    pub fn docker(&self, words: &[&str]) -> String {
        let output = self.engine.docker(words);
        assert!(output.status.success(), "docker {words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub async fn until_pod(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        let wait = self.api.until(what, |api| api.get::<Pod>("default", name).is_some_and(|pod| is_so(&pod)));
        tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or_else(|_| panic!("{what}"));
        self.api.get("default", name).unwrap()
    }

    pub async fn until_ready(&self, name: &str) -> Pod {
        self.until_pod(name, "the pod is ready", |pod| {
            let status = pod.status.clone().unwrap_or_default();
            status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
        })
        .await
    }

    pub async fn until_gone(&self, name: &str) {
        self.api.until("the pod is gone", |api| api.get::<Pod>("default", name).is_none()).await;
    }

    /// What a shell line in a container says.
    pub async fn said(&self, pod: &str, container: &str, line: &str) -> String {
        let docker = Docker::connect(&self.engine.socket(), "n1", "none").await.unwrap();
        let pod = self.api.get::<Pod>("default", pod).unwrap().status.unwrap();
        let status = pod.container_statuses.iter().find(|status| status.name == container).unwrap();
        let id = status.container_id.strip_prefix("docker://").unwrap();
        let command = ["/bin/sh", "-c", line].map(str::to_owned);
        let result = docker.exec_wait(id, &command, WAIT_MAX).await.unwrap();
        String::from_utf8_lossy(&result.output).into_owned()
    }

    pub async fn until_said(&self, pod: &str, container: &str, line: &str, expected: &str) {
        let wait = async { while !self.said(pod, container, line).await.contains(expected) {} };
        tokio::time::timeout(WAIT_MAX, wait).await.unwrap_or_else(|_| panic!("{line} says {expected}"));
    }

    /// A GET from the node, tried until something answers.
    pub async fn get(&self, address: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let ask = async {
            loop {
                let Ok(mut stream) = tokio::net::TcpStream::connect(address).await else { continue };
                stream.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await.unwrap();
                return answer;
            }
        };
        tokio::time::timeout(WAIT_MAX, ask).await.unwrap_or_else(|_| panic!("{address} answers"))
    }
}

/// A root file system of busybox as a tar archive.
pub fn busybox(dir: &Path) -> Vec<u8> {
    let root = dir.join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::create_dir_all(root.join("tmp")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "cat", "echo", "httpd", "wget", "touch", "rm", "test", "mkdir", "ping", "ip", "env", "tail",
        "true", "ps", "grep", "killall",
    ] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(name)).unwrap();
    }
    let archive = Command::new("tar").arg("-C").arg(&root).args(["-c", "."]).output().unwrap();
    assert!(archive.status.success(), "{}", String::from_utf8_lossy(&archive.stderr));
    fs::remove_dir_all(root).unwrap();
    archive.stdout
}

fn import_busybox(engine: &Engine) {
    let archive = engine.dir.join("busybox.tar");
    fs::write(&archive, busybox(&engine.dir)).unwrap();
    let imported = engine.docker(&["import", &archive.display().to_string(), IMAGE]);
    assert!(imported.status.success(), "import the image: {}", String::from_utf8_lossy(&imported.stderr));
}

/// A pod whose containers each run a shell script.
pub fn pod(name: &str, containers: &[(&str, &str)]) -> Pod {
    let field = ObjectFieldSelector { field_path: "metadata.name".into(), ..Default::default() };
    let source = EnvVarSource { field_ref: Some(field), ..Default::default() };
    let env = EnvVar { name: "POD".into(), value_from: Some(source), ..Default::default() };
    let container = |(name, script): &(&str, &str)| Container {
        name: (*name).into(),
        image: IMAGE.into(),
        image_pull_policy: "Never".into(),
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        env: vec![env.clone()],
        ..Default::default()
    };
    let spec = PodSpec {
        containers: containers.iter().map(container).collect(),
        node_name: "n1".into(),
        termination_grace_period_seconds: Some(1),
        ..Default::default()
    };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    pod.meta_mut().name = name.into();
    pod.meta_mut().namespace = "default".into();
    pod
}
