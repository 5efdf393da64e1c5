//! The role table: what each role listens on, who it is, and how it runs. `forestay up` runs all of it in one process.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result};
use apiserver::storage::{EtcdStore, Store};
use client::Client;
use kit::{
    layout::{self, Port},
    life::Shutdown,
    tls::{self, ClientTls, Clients, Identity},
};
use kubelet::runtime::fake::Fake;
use rustls::ServerConfig;
use tokio::net::TcpListener;

use crate::{
    certificates::{Certificates, Holder},
    settings::{ProxyChoice, RuntimeChoice, Settings},
    store::InProcess,
};

/// A part of the server that can run as a process of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    RaftStore,
    Apiserver,
    Controllers,
    Scheduler,
    Kubelet,
    Proxy,
    /// A kubelet on the fake runtime, named by its node.
    HollowKubelet(String),
}

impl Role {
    pub fn name(&self) -> &str {
        match self {
            Self::RaftStore => "raft-store",
            Self::Apiserver => "apiserver",
            Self::Controllers => "controllers",
            Self::Scheduler => "scheduler",
            Self::Kubelet => "kubelet",
            Self::Proxy => "proxy",
            Self::HollowKubelet(node) => node,
        }
    }

    /// What this role listens on.
    pub fn port(&self, settings: &Settings) -> Option<(Port, u16)> {
        let ports = &settings.ports;
        match self {
            Self::RaftStore => Some((layout::STORE_CLIENT, ports.store_port)),
            Self::Apiserver => Some((layout::API, ports.api_port)),
            Self::Controllers => Some((layout::CONTROLLERS, ports.controllers_port)),
            Self::Scheduler => Some((layout::SCHEDULER, ports.scheduler_port)),
            Self::Kubelet => Some((layout::KUBELET, ports.kubelet_port)),
            Self::Proxy => Some((layout::PROXY, ports.proxy_port)),
            Self::HollowKubelet(_) => None,
        }
    }

    fn holder(&self, settings: &Settings) -> Holder {
        match self {
            Self::RaftStore => Holder::Store,
            Self::Apiserver => Holder::ApiServer,
            Self::Controllers => Holder::Controllers,
            Self::Scheduler => Holder::Scheduler,
            Self::Kubelet => Holder::Node(settings.node_name()),
            Self::Proxy => Holder::Proxy,
            Self::HollowKubelet(node) => Holder::Node(node.clone()),
        }
    }
}

/// What the roles of one process share.
#[derive(Clone)]
pub struct House {
    pub settings: Arc<Settings>,
    /// The store's member, where it runs in this process.
    pub store: Option<raft_store::Node>,
}

impl House {
    pub fn new(settings: Settings) -> Self {
        Self { settings: Arc::new(settings), store: None }
    }

    pub fn certificates(&self) -> Certificates {
        Certificates::of(&self.settings.directories())
    }

    /// Runs a role until `shutdown`.
    ///
    /// # Errors
    /// Where it cannot start, or cannot go on.
    pub async fn run(&self, role: &Role, shutdown: Shutdown) -> Result<()> {
        let ended = match role {
            Role::RaftStore => self.raft_store(shutdown).await,
            Role::Apiserver => self.apiserver(shutdown).await,
            Role::Controllers => self.controllers(shutdown).await,
            Role::Scheduler => self.scheduler(shutdown).await,
            Role::Kubelet => self.kubelet(shutdown).await,
            Role::Proxy => self.proxy(shutdown).await,
            Role::HollowKubelet(node) => self.hollow_kubelet(node, shutdown).await,
        };
        ended.with_context(|| format!("run {}", role.name()))
    }

    /// Opens this machine's store.
    ///
    /// # Errors
    /// Where its files are in use, damaged, or of a format this build does not know.
    pub async fn open_store(&self) -> Result<raft_store::Node> {
        let options = raft_store::Options {
            name: self.settings.node_name(),
            data_dir: self.settings.directories().store(),
            engine: raft_store::Engine::RocksDb,
            // The apiserver's limit of an object is etcd's of a request; here there is room for the key and the rest of
            // the transaction beside it.
            request_bytes_max: 2 << 20,
            ..raft_store::Options::default()
        };
        raft_store::Node::start(options).await.context("open the store")
    }

    async fn raft_store(&self, shutdown: Shutdown) -> Result<()> {
        let node = self.open_store().await?;
        let listener = self.listen(&Role::RaftStore).await?;
        let certificates = self.certificates();
        let identity = certificates.identity(&Holder::Store)?;
        let tls = tls::server_config(&identity, &certificates.store_ca()?, Clients::Certified, &["h2"])?;
        let serving = node.serve(listener, Some(tls));
        tokio::pin!(serving);
        let ended = tokio::select! {
            ended = &mut serving => Some(ended),
            () = shutdown.triggered() => None,
            failure = node.stopped() => Some(Err(store_failed(failure))),
        };
        let closed = node.shutdown().await;
        match ended {
            Some(ended) => ended.and(closed),
            None => serving.await.and(closed),
        }
    }

    async fn apiserver(&self, shutdown: Shutdown) -> Result<()> {
        let (settings, certificates) = (&self.settings, self.certificates());
        let store: Arc<dyn Store> = match (&self.store, &settings.store) {
            (Some(node), _) => Arc::new(InProcess(node.clone())),
            (None, Some(address)) => {
                let identity = certificates.identity(&Holder::StoreClient)?;
                let tls = ClientTls { ca_pem: certificates.store_ca()?, identity: Some(identity) };
                Arc::new(EtcdStore::new(tls::channel(std::slice::from_ref(address), &tls)?))
            }
            (None, None) => anyhow::bail!("the apiserver needs a store: name it with --store https://host:port"),
        };
        let cluster_ca = certificates.cluster_ca()?;
        let kubelets = certificates.identity(&Holder::ApiServerClient)?;
        let options = apiserver::Options {
            service_cidr: settings.service_cidr,
            advertise: Some((settings.advertise_address(), settings.ports.api_port)),
            compaction_interval: settings.compaction_interval(),
            garbage_collection: true,
            lost_node_seconds: i64::try_from(settings.eviction_seconds).unwrap_or(i64::MAX),
            kubelets: Some(ClientTls { ca_pem: cluster_ca.clone(), identity: Some(kubelets) }),
            ..apiserver::Options::default()
        };
        let identity = certificates.identity(&Holder::ApiServer)?;
        let tls = tls::server_config(&identity, &cluster_ca, Clients::Welcome, &["h2", "http/1.1"])?;
        let listener = self.listen(&Role::Apiserver).await?;
        apiserver::Server::new(options, store).serve(listener, tls, shutdown).await
    }

    async fn controllers(&self, shutdown: Shutdown) -> Result<()> {
        let settings = &self.settings;
        let options = controllers::Options {
            pod_cidr: settings.pod_cidr,
            node_monitor_grace: Duration::from_secs(settings.node_grace_seconds),
            eviction_after: Duration::from_secs(settings.eviction_seconds),
            root_ca_pem: self.certificates().cluster_ca()?,
            listen: Some(settings.listen(settings.ports.controllers_port)),
            tls: Some(self.server_tls(&Role::Controllers)?),
            identity: Some(self.candidate(&Role::Controllers)),
            ..controllers::Options::default()
        };
        controllers::run(options, self.client(&Role::Controllers)?, shutdown).await
    }

    async fn scheduler(&self, shutdown: Shutdown) -> Result<()> {
        let options = scheduler::Options {
            listen: Some(self.settings.listen(self.settings.ports.scheduler_port)),
            tls: Some(self.server_tls(&Role::Scheduler)?),
            elect_as: Some(self.candidate(&Role::Scheduler)),
            ..scheduler::Options::default()
        };
        scheduler::run(options, self.client(&Role::Scheduler)?, shutdown).await
    }

    async fn kubelet(&self, shutdown: Shutdown) -> Result<()> {
        let settings = &self.settings;
        let pause_binary = match settings.runtime {
            RuntimeChoice::None => return Ok(()),
            RuntimeChoice::Fake => None,
            RuntimeChoice::Docker => Some(settings.pause_binary()?),
        };
        let options = kubelet::Options {
            pause_binary,
            listen: Some(settings.listen(settings.ports.kubelet_port)),
            tls: Some(Arc::new(self.kubelet_tls(&Role::Kubelet)?)),
            ..kubelet_options(settings)
        };
        kubelet::run(options, self.client(&Role::Kubelet)?, shutdown).await
    }

    async fn hollow_kubelet(&self, node: &str, shutdown: Shutdown) -> Result<()> {
        let role = Role::HollowKubelet(node.to_owned());
        let capacity = [("cpu", "64"), ("memory", "256Gi"), ("pods", "1000")];
        let options = kubelet::Options {
            node_name: node.to_owned(),
            runtime: kubelet::RuntimeChoice::Fake(Fake::default()),
            root_dir: self.settings.directories().root.join("hollow").join(node),
            node_ip: Some(self.settings.advertise_address()),
            cluster_cidr: self.settings.pod_cidr,
            capacity: capacity.map(|(name, quantity)| (name.to_owned(), quantity.to_owned())).into(),
            pods_max: 1000,
            labels: [("forestay.dev/hollow".to_owned(), "true".to_owned())].into(),
            ..kubelet::Options::default()
        };
        kubelet::run(options, self.client(&role)?, shutdown).await
    }

    async fn proxy(&self, shutdown: Shutdown) -> Result<()> {
        let settings = &self.settings;
        let mode = match settings.proxy_mode {
            ProxyChoice::Auto => proxy::Mode::Auto,
            ProxyChoice::Nftables => proxy::Mode::Nftables,
            ProxyChoice::Ipvs => proxy::Mode::Ipvs,
            ProxyChoice::Recording => proxy::Mode::Recording,
            ProxyChoice::None => return Ok(()),
        };
        let node_ip = match settings.advertise_address() {
            IpAddr::V4(address) => Some(address),
            IpAddr::V6(_) => None,
        };
        let options = proxy::Options {
            node_name: settings.node_name(),
            node_ip,
            mode,
            service_cidr: settings.service_cidr,
            cluster_cidr: Some(settings.pod_cidr),
            state_dir: settings.directories().proxy(),
            cleanup_on_exit: !settings.keep_rules,
            listen: Some(settings.listen(settings.ports.proxy_port)),
            tls: Some(self.server_tls(&Role::Proxy)?),
            ..proxy::Options::default()
        };
        proxy::run(options, self.client(&Role::Proxy)?, shutdown).await
    }

    /// A client of the apiserver, as the role.
    ///
    /// # Errors
    /// Where the role's certificate is missing.
    pub fn client(&self, role: &Role) -> Result<Client> {
        self.client_as(&role.holder(&self.settings))
    }

    /// A client of the apiserver, as anyone whose certificate is here.
    ///
    /// # Errors
    /// Where the certificate is missing.
    pub fn client_as(&self, holder: &Holder) -> Result<Client> {
        let certificates = self.certificates();
        let config = client::Config {
            servers: self.settings.servers(),
            ca_pem: certificates.cluster_ca()?,
            identity: Some(certificates.identity(holder)?),
            ..client::Config::default()
        };
        Ok(Client::from_channel(config.channel()?))
    }

    /// The name a role stands for election with: where it listens.
    ///
    /// Two processes cannot listen at one place, and one that is started again there is the same candidate, so that it
    /// need not wait for the lease of its former life to run out. Whoever reads the lease knows whom to ask.
    fn candidate(&self, role: &Role) -> String {
        let port = role.port(&self.settings).map_or(0, |(_, number)| number);
        let place = SocketAddr::new(self.settings.advertise_address(), port);
        let name = format!("{}_{place}", self.settings.node_name());
        // Any free port may be another's in its next life.
        if port == 0 { format!("{name}_{}", std::process::id()) } else { name }
    }

    fn identity(&self, role: &Role) -> Result<Identity> {
        self.certificates().identity(&role.holder(&self.settings))
    }

    fn server_tls(&self, role: &Role) -> Result<Arc<ServerConfig>> {
        let ca = self.certificates().cluster_ca()?;
        Ok(tls::server_config(&self.identity(role)?, &ca, Clients::Certified, &["h2"])?)
    }

    fn kubelet_tls(&self, role: &Role) -> Result<kubelet::ServerTls> {
        Ok(kubelet::ServerTls { identity: self.identity(role)?, client_ca_pem: self.certificates().cluster_ca()? })
    }

    async fn listen(&self, role: &Role) -> Result<TcpListener> {
        let (port, number) = role.port(&self.settings).context("this role has no port")?;
        let address = self.settings.listen(number);
        TcpListener::bind(address).await.with_context(|| {
            format!("listen on {address} for the {}: free the port, or choose another with {}", port.name, port.flag)
        })
    }
}

/// Why the store ended without being asked to. What the disk holds is unknown then: another life of the process has to
/// find out.
pub fn store_failed(failure: Option<String>) -> anyhow::Error {
    anyhow::anyhow!("the store stopped: {}", failure.as_deref().unwrap_or("it does not say why"))
}

/// What running and cleaning up after a kubelet must agree on.
pub fn kubelet_options(settings: &Settings) -> kubelet::Options {
    kubelet::Options {
        node_name: settings.node_name(),
        runtime: match settings.runtime {
            RuntimeChoice::Docker => kubelet::RuntimeChoice::Docker { socket: settings.docker_socket.clone() },
            RuntimeChoice::Fake | RuntimeChoice::None => kubelet::RuntimeChoice::Fake(Fake::default()),
        },
        root_dir: settings.directories().kubelet(),
        node_ip: Some(settings.advertise_address()),
        cluster_cidr: settings.pod_cidr,
        ..kubelet::Options::default()
    }
}
