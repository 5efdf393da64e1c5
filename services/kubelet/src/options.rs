//! How a kubelet is set up.

use std::{collections::BTreeMap, net::IpAddr, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use ipnet::Ipv4Net;

use crate::{network, pod::backoff::BackOff, runtime::fake::Fake};

/// What runs the containers.
#[derive(Clone, Debug)]
pub enum RuntimeChoice {
    /// A Docker Engine behind this socket.
    Docker { socket: PathBuf },
    /// Nothing: a hollow node.
    Fake(Fake),
}

#[derive(Clone)]
pub struct Options {
    pub node_name: String,
    pub runtime: RuntimeChoice,
    /// Below it lie the pods' files.
    pub root_dir: PathBuf,
    /// Where `forestay.node.v1` is served; nowhere without it.
    pub listen: Option<SocketAddr>,
    /// For `listen`; plain without it, which only tests may do.
    pub tls: Option<Arc<ServerTls>>,
    /// The address others reach this node by; found out without it.
    pub node_ip: Option<IpAddr>,
    /// The addresses of this node's pods; taken from the Node's `spec.podCIDR` without it.
    pub pod_cidr: Option<Ipv4Net>,
    /// The addresses of all pods: traffic between them is not masqueraded.
    pub cluster_cidr: Ipv4Net,
    /// The largest packet of pods; the node's own without it.
    pub pod_mtu: Option<u32>,
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The node's resolver file.
    pub resolv_conf: PathBuf,
    pub labels: BTreeMap<String, String>,
    pub pods_max: u32,
    /// Overrides of measured capacity: "cpu" to "64".
    pub capacity: BTreeMap<String, String>,
    /// Kept from pods: "memory" to "200Mi".
    pub reserved: BTreeMap<String, String>,
    /// The name below which all pods' cgroups lie.
    pub cgroup_root: String,
    /// The image of sandboxes.
    pub pause_image: String,
    /// Our static pause program, imported as that image at start; without it the image must be there.
    pub pause_binary: Option<PathBuf>,
    pub back_off: BackOff,
    /// Containers that start at once.
    pub starts_max: usize,
    pub lease_interval: Duration,
    pub lease_duration: Duration,
    /// The node's status is written at least this often.
    pub status_interval: Duration,
    /// The safety net under the runtime's events.
    pub relist_interval: Duration,
    /// A runtime that gives no sign of life for this long, twice, makes the node not ready.
    pub runtime_patience: Duration,
}

/// The certificate `listen` shows, and whose clients' it takes.
pub struct ServerTls {
    pub identity: kit::tls::Identity,
    pub client_ca_pem: String,
}

impl Default for Options {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            node_name: hostname(),
            runtime: RuntimeChoice::Docker { socket: "/var/run/docker.sock".into() },
            root_dir: "/var/lib/forestay/kubelet".into(),
            listen: None,
            tls: None,
            node_ip: None,
            pod_cidr: None,
            cluster_cidr: Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            pod_mtu: None,
            cluster_dns: Vec::new(),
            cluster_domain: "cluster.local".to_owned(),
            resolv_conf: "/etc/resolv.conf".into(),
            labels: BTreeMap::new(),
            pods_max: 110,
            capacity: BTreeMap::new(),
            reserved: BTreeMap::new(),
            cgroup_root: "kubepods".to_owned(),
            pause_image: concat!("forestay/pause:", env!("CARGO_PKG_VERSION")).to_owned(),
            pause_binary: None,
            back_off: BackOff::default(),
            starts_max: cores,
            lease_interval: Duration::from_secs(10),
            lease_duration: Duration::from_secs(40),
            status_interval: Duration::from_secs(300),
            relist_interval: Duration::from_secs(30),
            runtime_patience: Duration::from_secs(10),
        }
    }
}

impl Options {
    pub(crate) fn network(&self) -> network::Setup {
        network::Setup { cluster: self.cluster_cidr, mtu: self.pod_mtu, memory: self.root_dir.clone() }
    }
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim().to_lowercase() {
        name if name.is_empty() => "localhost".to_owned(),
        name => name,
    }
}
