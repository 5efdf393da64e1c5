//! Every flag of the server, in one place: all roles take the same ones and use those that concern them.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use ipnet::Ipv4Net;
use kit::layout::{self, Directories, Port};

use crate::{certificates::ServerNames, machine};

#[derive(Clone, Debug, Args)]
pub struct Settings {
    /// Where certificates, the store's data and the node's state are kept
    #[arg(long, value_name = "DIRECTORY", default_value = layout::DATA_DIR, env = "FORESTAY_DATA_DIR")]
    pub data_dir: PathBuf,

    /// This node's name in the cluster [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node_name: Option<String>,

    /// The address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = IpAddr::V4(Ipv4Addr::UNSPECIFIED))]
    pub bind_address: IpAddr,

    /// The address others reach this machine by [default: the one its default route leaves from]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise_address: Option<IpAddr>,

    /// The apiserver to work for, when it is another process; repeat for several
    #[arg(long = "server", value_name = "URL")]
    pub servers: Vec<String>,

    /// The store of the apiserver, when it is another process
    #[arg(long, value_name = "URL")]
    pub store: Option<String>,

    #[command(flatten)]
    pub ports: Ports,

    /// Addresses of Services
    #[arg(long, value_name = "CIDR", default_value = "10.96.0.0/16")]
    pub service_cidr: Ipv4Net,

    /// Addresses of pods; each node gets a /24 of it
    #[arg(long, value_name = "CIDR", default_value = "10.244.0.0/16")]
    pub pod_cidr: Ipv4Net,

    /// What runs the containers of this node
    #[arg(long, value_enum, default_value_t = RuntimeChoice::Docker)]
    pub runtime: RuntimeChoice,

    /// Docker's socket
    #[arg(long, value_name = "PATH", default_value = "/var/run/docker.sock")]
    pub docker_socket: PathBuf,

    /// The static program that holds a pod's namespaces open [default: `pause` beside this program]
    #[arg(long, value_name = "PATH")]
    pub pause_binary: Option<PathBuf>,

    /// How Services get into the kernel
    #[arg(long, visible_alias = "mode", value_enum, default_value_t = ProxyChoice::Auto)]
    pub proxy_mode: ProxyChoice,

    /// Keep service rules and routes when stopping, as a restart wants it
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, value_name = "BOOL")]
    pub keep_rules: bool,

    /// Add this many nodes that run pods on a fake runtime
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub hollow_nodes: usize,

    /// A node whose lease is older than this is not ready
    #[arg(long, value_name = "SECONDS", default_value_t = 40)]
    pub node_grace_seconds: u64,

    /// Pods leave an unreachable node after this, where they do not say otherwise
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub eviction_seconds: u64,

    /// How often the store's history is cut
    #[arg(long, value_name = "SECONDS", default_value_t = 300)]
    pub compaction_seconds: u64,
}

/// Ports; 0 takes any free one where nobody has to know it.
#[derive(Clone, Debug, Args)]
pub struct Ports {
    /// The API, gRPC and REST
    #[arg(long, value_name = "PORT", default_value_t = layout::API.default)]
    pub api_port: u16,
    /// The store, where it is a process of its own
    #[arg(long, value_name = "PORT", default_value_t = layout::STORE_CLIENT.default)]
    pub store_port: u16,
    /// The kubelet: logs, commands, measured use
    #[arg(long, value_name = "PORT", default_value_t = layout::KUBELET.default)]
    pub kubelet_port: u16,
    /// The proxy: its rules and its health
    #[arg(long, value_name = "PORT", default_value_t = layout::PROXY.default)]
    pub proxy_port: u16,
    /// The controllers: why they did what they did
    #[arg(long, value_name = "PORT", default_value_t = layout::CONTROLLERS.default)]
    pub controllers_port: u16,
    /// The scheduler: why it put a pod where it is
    #[arg(long, value_name = "PORT", default_value_t = layout::SCHEDULER.default)]
    pub scheduler_port: u16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum RuntimeChoice {
    /// Docker Engine
    Docker,
    /// No containers at all: pods are said to run
    Fake,
    /// No kubelet on this machine
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProxyChoice {
    /// The best this kernel has
    Auto,
    Nftables,
    Ipvs,
    /// Work the rules out and keep them to itself
    Recording,
    /// No proxy on this machine
    None,
}

impl Settings {
    pub fn directories(&self) -> Directories {
        Directories::below(&self.data_dir)
    }

    pub fn node_name(&self) -> String {
        self.node_name.clone().unwrap_or_else(machine::host_name)
    }

    pub fn advertise_address(&self) -> IpAddr {
        self.advertise_address.unwrap_or_else(machine::advertised_address)
    }

    /// The names of the nodes that exist for load only.
    pub fn hollow_names(&self) -> Vec<String> {
        (0..self.hollow_nodes).map(|index| format!("hollow-{index}")).collect()
    }

    /// Where the roles of this machine find the apiserver.
    pub fn servers(&self) -> Vec<String> {
        if self.servers.is_empty() { vec![self.local_server()] } else { self.servers.clone() }
    }

    /// The apiserver of this machine.
    pub fn local_server(&self) -> String {
        let address =
            if self.bind_address.is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { self.bind_address };
        format!("https://{}", SocketAddr::new(address, self.ports.api_port))
    }

    /// The names and addresses the certificates of this machine carry.
    pub fn server_names(&self) -> ServerNames {
        let mut addresses = machine::addresses();
        for address in [self.advertise_address(), self.bind_address] {
            if !address.is_unspecified() && !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        let service = IpAddr::V4(self.service_cidr.hosts().next().unwrap_or(self.service_cidr.network()));
        ServerNames { host: self.node_name(), addresses, service }
    }

    /// Checks what can be known before anything starts: ports that collide or are taken, ranges that cannot be.
    ///
    /// # Errors
    /// Names the flag that settles it.
    pub fn check(&self, ports: &[(Port, u16)]) -> Result<()> {
        layout::check_distinct(ports)?;
        for &(port, number) in ports.iter().filter(|(_, number)| *number != 0) {
            layout::check_free(port, self.bind_address, number)?;
        }
        let (services, pods) = (self.service_cidr, self.pod_cidr);
        ensure!(
            !services.contains(&pods.network()) && !pods.contains(&services.network()),
            "--service-cidr {services} and --pod-cidr {pods} overlap: choose ranges apart from each other"
        );
        ensure!(services.prefix_len() <= 30, "--service-cidr {services} has no room: use a /30 or wider");
        ensure!(self.data_dir.is_absolute(), "--data-dir {} is not an absolute path", self.data_dir.display());
        Ok(())
    }

    pub fn listen(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.bind_address, port)
    }

    pub fn compaction_interval(&self) -> Duration {
        Duration::from_secs(self.compaction_seconds)
    }

    /// # Errors
    /// Where no `pause` is given and none lies beside this program.
    pub fn pause_binary(&self) -> Result<PathBuf> {
        let beside = || Some(std::env::current_exe().ok()?.parent()?.join("pause"));
        // `bin/forestay` is a link into the build's folder; the name it was called by leads to `bin/pause`.
        let called = || Some(PathBuf::from(std::env::args_os().next()?).parent()?.join("pause"));
        let candidates = [self.pause_binary.clone(), beside(), called()];
        candidates.into_iter().flatten().find(|path| path.is_file()).context(
            "find the pause program: build it with `deploy/build` and name it with --pause-binary, or put it beside forestay",
        )
    }
}
