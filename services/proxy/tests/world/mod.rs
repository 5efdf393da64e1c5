//! A node with pods, made of network namespaces that belong to threads.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::Path,
    process::Command,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use client::{Client, fake::FakeApi};
use kit::life::Shutdown;
use proto::{
    Kind,
    k8s::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
    },
};
use proxy::{Mode, Options};

pub const NODE: &str = "192.168.77.1";
pub const OUTSIDE: &str = "outside";
const NODE_NAME: &str = "n1";
const PORT: u16 = 8080;
const PATIENCE: Duration = Duration::from_secs(20);
const GATEWAY: &str = "169.254.1.1";

/// Runs a test in a fresh network namespace; says so loudly where that cannot be.
pub fn in_namespace(test: impl AsyncFnOnce(&mut World) + Send + 'static) {
    if let Some(missing) = missing() {
        eprintln!("SKIPPED: {missing}");
        return;
    }
    let body = thread::spawn(move || {
        own_namespace();
        // The runtime's threads are born into this thread's namespace.
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let mut world = World::new().await;
            test(&mut world).await;
            world.stop().await;
        });
    });
    if let Err(panic) = body.join() {
        std::panic::resume_unwind(panic);
    }
}

fn missing() -> Option<String> {
    if !nix::unistd::Uid::effective().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    if let Some(tool) = ["nft", "ip"].into_iter().find(|tool| !has(tool)) {
        return Some(format!("no {tool} (Debian: apt-get install nftables iproute2)"));
    }
    let may = thread::spawn(|| nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)).join().unwrap();
    may.err().map(|error| format!("no network namespaces here: {error}"))
}

pub fn has(tool: &str) -> bool {
    let folders = std::env::var("PATH").unwrap_or_default();
    folders.split(':').any(|folder| Path::new(folder).join(tool).exists())
}

fn own_namespace() {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
    ip("link set lo up");
}

/// Runs `ip` in this thread's namespace.
fn ip(arguments: &str) -> String {
    let output = Command::new("ip").args(arguments.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What a proxy may change on a machine.
#[derive(Debug, PartialEq)]
pub struct State {
    pub forwarding: String,
    tables: String,
    routes: String,
}

pub fn state() -> State {
    let tables = Command::new("nft").args(["list", "tables"]).output().unwrap();
    State {
        forwarding: std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap(),
        tables: String::from_utf8(tables.stdout).unwrap(),
        // Links may still be coming up.
        routes: ip("-4 route show table all").replace(" linkdown", ""),
    }
}

/// Whether any client of this service address is remembered.
pub fn remembers(address: &str) -> bool {
    let listing = Command::new("nft").args(["list", "map", "ip", proxy::nftables::TABLE, "affinity"]).output().unwrap();
    String::from_utf8_lossy(&listing.stdout).contains(address)
}

/// Tries again until something holds.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < PATIENCE, "waited in vain until {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Who answered, and whom it saw asking.
#[derive(Debug)]
pub struct Answer {
    pub pod: String,
    pub client: String,
}

impl Answer {
    fn parse(text: &str) -> io::Result<Self> {
        let (pod, client) = text.trim().split_once(' ').ok_or(io::ErrorKind::InvalidData)?;
        Ok(Self { pod: pod.to_owned(), client: client.to_owned() })
    }
}

pub fn ask(address: &str) -> io::Result<Answer> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Answer::parse(&text)
}

pub fn ask_udp(socket: &UdpSocket, address: &str) -> io::Result<Answer> {
    socket.send_to(b"?", address)?;
    let mut buffer = [0; 128];
    let (length, _) = socket.recv_from(&mut buffer)?;
    Answer::parse(&String::from_utf8_lossy(&buffer[..length]))
}

type Job = Box<dyn FnOnce() + Send>;

/// A pod: a thread in a network namespace, with a server beside it.
pub struct Pod {
    pub address: String,
    jobs: mpsc::Sender<Job>,
}

impl Pod {
    /// Runs something inside the pod.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        self.jobs.send(Box::new(move || _ = sender.send(job()))).unwrap();
        receiver.recv().expect("the pod's thread did not finish its job")
    }

    /// A new namespace and the thread id that names it.
    fn start(address: &str) -> (Self, String) {
        let (jobs, queue) = mpsc::channel::<Job>();
        thread::spawn(move || {
            own_namespace();
            for job in queue {
                job();
            }
        });
        let pod = Self { address: address.to_owned(), jobs };
        let thread = pod.run(|| nix::unistd::gettid().to_string());
        (pod, thread)
    }

    fn serve(&self, name: &str) {
        let (tcp_name, udp_name) = (name.to_owned(), name.to_owned());
        self.run(move || {
            let listener = TcpListener::bind(("0.0.0.0", PORT)).unwrap();
            thread::spawn(move || {
                for mut stream in listener.incoming().flatten() {
                    let client = stream.peer_addr().map(|client| client.ip().to_string()).unwrap_or_default();
                    let _ = writeln!(stream, "{tcp_name} {client}");
                }
            });
            let socket = UdpSocket::bind(("0.0.0.0", PORT)).unwrap();
            thread::spawn(move || {
                let mut buffer = [0; 16];
                while let Ok((_, client)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(format!("{udp_name} {}", client.ip()).as_bytes(), client);
                }
            });
        });
    }
}

/// The node: this thread's namespace, an API, and the proxy.
pub struct World {
    api: FakeApi,
    client: Client,
    pods: BTreeMap<String, Pod>,
    state_dir: tempfile::TempDir,
    running: Option<(Shutdown, tokio::task::JoinHandle<anyhow::Result<()>>)>,
}

impl World {
    async fn new() -> Self {
        ip("link add node0 type veth peer name node1");
        ip(&format!("addr add {NODE}/32 dev node0"));
        ip("link set node0 up");
        let (client, api) = FakeApi::start().await;
        let state_dir = tempfile::tempdir().unwrap();
        Self { api, client, pods: BTreeMap::new(), state_dir, running: None }
    }

    pub fn options(&self) -> Options {
        Options {
            node_name: NODE_NAME.to_owned(),
            node_ip: Some(NODE.parse().unwrap()),
            mode: Mode::Nftables,
            state_dir: self.state_dir.path().to_owned(),
            ..Options::default()
        }
    }

    pub fn client(&self) -> Client {
        self.client.clone()
    }

    pub fn state_dir(&self) -> &Path {
        self.state_dir.path()
    }

    pub async fn start(&mut self) {
        let shutdown = Shutdown::new();
        let running = tokio::spawn(proxy::run(self.options(), self.client.clone(), shutdown.clone()));
        self.running = Some((shutdown, running));
    }

    pub async fn stop(&mut self) {
        if let Some((shutdown, running)) = self.running.take() {
            shutdown.trigger();
            running.await.unwrap().unwrap();
        }
    }

    pub fn pod(&self, name: &str) -> &Pod {
        &self.pods[name]
    }

    /// Pods wired as a kubelet does it: a veth, a /32 and a gateway that is only a neighbour entry.
    pub fn pods(&mut self, names: &[&str]) {
        for name in names {
            let number = self.pods.len() + 1;
            let pod = self.wired(&format!("10.244.0.{number}"), number);
            pod.serve(name);
            self.pods.insert(name.to_string(), pod);
        }
    }

    /// A client that is no pod.
    pub fn outside(&mut self) {
        let number = self.pods.len() + 1;
        let outside = self.wired("192.168.78.2", number);
        self.pods.insert(OUTSIDE.to_owned(), outside);
    }

    fn wired(&self, address: &str, number: usize) -> Pod {
        let (pod, thread) = Pod::start(address);
        let host = format!("host{number}");
        ip(&format!("link add {host} type veth peer name eth0 netns {thread}"));
        ip(&format!("link set {host} up"));
        ip(&format!("route add {address} dev {host}"));
        // Not from /sys: that shows the namespace it was mounted in.
        let mac = ip(&format!("-brief link show {host}")).split_whitespace().nth(2).unwrap().to_owned();
        let inside = address.to_owned();
        pod.run(move || {
            ip(&format!("addr add {inside}/32 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("neigh add {GATEWAY} lladdr {} dev eth0 nud permanent", mac));
            ip(&format!("route add {GATEWAY} dev eth0"));
            ip(&format!("route add default via {GATEWAY} dev eth0"));
        });
        pod
    }

    pub fn service(&self, name: &str, address: &str, pods: &[&str], change: impl FnOnce(&mut ServiceSpec)) {
        let port = ServicePort { port: 80, protocol: "TCP".to_owned(), ..ServicePort::default() };
        let mut spec = ServiceSpec { cluster_ip: address.to_owned(), ports: vec![port], ..ServiceSpec::default() };
        change(&mut spec);
        let mut service = Service { spec: Some(spec), ..Service::default() };
        service.meta_mut().namespace = "default".to_owned();
        service.meta_mut().name = name.to_owned();
        self.api.put(&service);
        self.endpoints(name, pods);
    }

    pub fn endpoints(&self, name: &str, pods: &[&str]) {
        self.endpoints_on(NODE_NAME, name, pods);
    }

    /// Endpoints that are said to be on some node.
    pub fn endpoints_on(&self, node: &str, name: &str, pods: &[&str]) {
        let service: Service = self.api.get("default", name).unwrap();
        let protocol = service.spec.unwrap().ports[0].protocol.clone();
        let conditions = Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() });
        let endpoint = |pod: &&str| Endpoint {
            addresses: vec![self.pods[*pod].address.clone()],
            conditions,
            node_name: Some(node.to_owned()),
            ..Endpoint::default()
        };
        let port = EndpointPort { port: Some(PORT.into()), protocol: Some(protocol), ..EndpointPort::default() };
        let mut slice = EndpointSlice {
            address_type: "IPv4".to_owned(),
            endpoints: pods.iter().map(endpoint).collect(),
            ports: vec![port],
            ..EndpointSlice::default()
        };
        slice.meta_mut().namespace = "default".to_owned();
        slice.meta_mut().name = format!("{name}-1");
        slice.meta_mut().labels.insert("kubernetes.io/service-name".to_owned(), name.to_owned());
        self.api.put(&slice);
    }
}
