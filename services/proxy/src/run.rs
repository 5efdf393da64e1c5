//! Options, and the component's life: routes before rules, rules before readiness, and all of it backwards at the end.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use client::{Cache, Changes as News, Client, Reflector, Selection};
use ipnet::Ipv4Net;
use kit::life::{Shutdown, Tasks};
use parking_lot::RwLock;
use proto::{
    forestay::proxy::v1::proxy_server::ProxyServer,
    k8s::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
};
use tokio::sync::watch;
use tracing::info;

use crate::{
    backend::Backend,
    door::{Door, InForce},
    driver::{BY_SERVICE, Driver, service_of},
    nftables::{self, Nftables, Ranges},
    recording::Recording,
    route::Routes,
    sysctl,
};

const GRACE: Duration = Duration::from_secs(3);

/// What carries the rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// The best this machine has.
    #[default]
    Auto,
    Nftables,
    Ipvs,
    /// No kernel: rules are only kept, for tests and hollow nodes.
    Recording,
}

impl FromStr for Mode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "nftables" => Ok(Self::Nftables),
            "ipvs" => Ok(Self::Ipvs),
            "recording" => Ok(Self::Recording),
            _ => Err(format!("{text:?} is no proxy mode: use auto, nftables, ipvs or recording")),
        }
    }
}

#[derive(Clone)]
pub struct Options {
    /// The node whose endpoints are local.
    pub node_name: String,
    /// The source address of the node's own connections to services; absent: the Node's InternalIP.
    pub node_ip: Option<Ipv4Addr>,
    pub mode: Mode,
    pub service_cidr: Ipv4Net,
    /// The pods of all nodes; where known, connections from elsewhere are masqueraded.
    pub cluster_cidr: Option<Ipv4Net>,
    /// Remembers what cleaning up must restore.
    pub state_dir: PathBuf,
    /// Whether a clean end takes the rules out; without it services work on while the proxy restarts.
    pub cleanup_on_exit: bool,
    /// Where [`Mode::Recording`] keeps the rules.
    pub recording: Recording,
    /// Where `forestay.proxy.v1` is served; absent: nowhere.
    pub listen: Option<SocketAddr>,
    /// The certificate to serve with; needed with `listen`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            node_ip: None,
            mode: Mode::Auto,
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            cluster_cidr: Some(Ipv4Net::new_assert(Ipv4Addr::new(10, 244, 0, 0), 16)),
            state_dir: PathBuf::from("/var/lib/forestay/proxy"),
            cleanup_on_exit: false,
            recording: Recording::default(),
            listen: None,
            tls: None,
        }
    }
}

/// Keeps the node's service rules until `shutdown`.
///
/// # Errors
/// Where the service range is taken, the mode cannot work here, or it cannot listen.
pub async fn run(options: Options, client: Client, shutdown: Shutdown) -> anyhow::Result<()> {
    if options.node_name.is_empty() {
        bail!("the proxy needs the name of its node");
    }
    let kernel = Kernel::prepare(&options).await?;
    let backend = backend(&options).await?;
    let shutdown = shutdown.child();
    let tasks = Tasks::of(&shutdown);
    let own = Selection { fields: format!("metadata.name={}", options.node_name), ..Selection::default() };
    let reflector = Reflector::builder(client)
        .watch::<Service>(Selection::default())
        .watch::<EndpointSlice>(Selection::default())
        .index::<EndpointSlice>(BY_SERVICE, service_of)
        .watch::<Node>(own)
        .start(&tasks, shutdown.clone());
    let (news, node_news) = (reflector.changes(), reflector.changes());
    let in_force = Arc::new(RwLock::new(InForce::default()));
    let synced = watch::Sender::new(false);
    let door = Door { backend: backend.name(), in_force: in_force.clone() };
    serve(&options, door, synced.subscribe(), &tasks, &shutdown).await?;

    let is_ready = tokio::select! {
        () = shutdown.triggered() => false,
        () = reflector.synced() => match &kernel {
            Some(kernel) => kernel.install(&options, &reflector.cache(), node_news, &shutdown).await?,
            None => true,
        }
    };
    if is_ready {
        info!(node = options.node_name, backend = backend.name(), "keeping service rules");
        let driver = Driver {
            node_name: options.node_name.clone(),
            services: reflector.cache(),
            slices: reflector.cache(),
            reflector: reflector.clone(),
            backend,
            in_force,
            synced,
        };
        let mut backend = driver.run(news, shutdown.clone()).await;
        if options.cleanup_on_exit {
            backend.remove().await?;
            if let Some(kernel) = kernel {
                kernel.remove(&options.state_dir).await?;
            }
        }
    }
    tasks.join(GRACE).await;
    Ok(tasks.check()?)
}

/// Takes out whatever a proxy of ours left on this machine: rules, route, kernel settings.
///
/// # Errors
/// Where something of it is there and cannot be removed.
pub async fn cleanup(state_dir: &Path) -> anyhow::Result<()> {
    nftables::remove().await?;
    Routes::open()?.remove(None).await?;
    sysctl::restore(state_dir)
}

async fn backend(options: &Options) -> anyhow::Result<Box<dyn Backend>> {
    let ranges = Ranges { services: options.service_cidr, pods: options.cluster_cidr };
    match options.mode {
        Mode::Auto | Mode::Nftables => Ok(Box::new(Nftables::probe(ranges).await?)),
        Mode::Ipvs => bail!("this build has no IPVS backend yet; use --proxy-mode nftables"),
        Mode::Recording => Ok(Box::new(options.recording.clone())),
    }
}

/// What every backend that has a kernel needs around its rules.
struct Kernel(Routes);

impl Kernel {
    /// Looks before anything is changed.
    async fn prepare(options: &Options) -> anyhow::Result<Option<Self>> {
        if options.mode == Mode::Recording {
            return Ok(None);
        }
        let routes = Routes::open()?;
        routes.check_free(options.service_cidr).await?;
        Ok(Some(Self(routes)))
    }

    /// Routes and settings, once the node's address is known. False where shutdown came first.
    async fn install(
        &self,
        options: &Options,
        nodes: &Cache<Node>,
        mut news: News,
        shutdown: &Shutdown,
    ) -> anyhow::Result<bool> {
        let address = loop {
            let own = nodes.get("", &options.node_name);
            if let Some(address) = options.node_ip.or_else(|| own.as_deref().and_then(internal_ip)) {
                break address;
            }
            info!(node = options.node_name, "waiting for the node's address");
            tokio::select! {
                () = shutdown.triggered() => return Ok(false),
                news = news.recv_all() => if news.is_empty() { return Ok(false) },
            }
        };
        sysctl::set(&options.state_dir)?;
        self.0.remove(Some(options.service_cidr)).await?;
        self.0.install(options.service_cidr, address).await?;
        Ok(true)
    }

    async fn remove(&self, state_dir: &Path) -> anyhow::Result<()> {
        self.0.remove(None).await?;
        sysctl::restore(state_dir)
    }
}

fn internal_ip(node: &Node) -> Option<Ipv4Addr> {
    let addresses = &node.status.as_ref()?.addresses;
    addresses.iter().filter(|address| address.r#type == "InternalIP").find_map(|address| address.address.parse().ok())
}

async fn serve(
    options: &Options,
    door: Door,
    mut synced: watch::Receiver<bool>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let Some(address) = options.listen else { return Ok(()) };
    let tls = options.tls.clone().context("the proxy's --listen needs a certificate to serve with")?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for forestay.proxy.v1"))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()
        .context("build reflection")?;
    health.set_not_serving::<ProxyServer<Door>>().await;
    let mut routes = tonic::service::RoutesBuilder::default();
    routes
        .add_service(health_service)
        .add_service(reflection)
        .add_service(ProxyServer::with_interceptor(door, kit::grpc::only_operators));
    // Healthy means that the rules are in force.
    tasks.spawn("proxy health", {
        let shutdown = shutdown.clone();
        async move {
            loop {
                let is_synced = *synced.borrow_and_update();
                match is_synced {
                    true => health.set_serving::<ProxyServer<Door>>().await,
                    false => health.set_not_serving::<ProxyServer<Door>>().await,
                }
                tokio::select! {
                    () = shutdown.triggered() => return,
                    changed = synced.changed() => if changed.is_err() { return },
                }
            }
        }
    });
    info!(%address, "serving forestay.proxy.v1");
    let shutdown = shutdown.clone();
    tasks.spawn("proxy door", async move {
        if let Err(error) = kit::grpc::serve(listener, tls, routes, shutdown).await {
            tracing::error!(%error, "serve forestay.proxy.v1");
        }
    });
    Ok(())
}
