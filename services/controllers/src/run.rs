//! Starts the controllers, on one leader at a time.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context;
use client::{
    Backoff, Client,
    controller::{Host, Running},
    election::{self, Elector, Term},
};
use ipnet::Ipv4Net;
use kit::{
    clock::Clock,
    life::{Shutdown, Tasks},
};
use tokio::net::TcpListener;

use crate::{
    EndpointsOfServices, Garbage, Namespaces, Nodes, PodCidrs, ReplicationControllers, ResourceQuotas, ServiceAccounts,
    catalog::Catalog, explain,
};

/// The name events and leases carry, as Kubernetes' users know it.
const COMPONENT: &str = "kube-controller-manager";
/// What is running may take this long to stop.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What the controllers need to know.
#[derive(Clone)]
pub struct Options {
    /// Nodes get their pods' addresses from this network.
    pub pod_cidr: Ipv4Net,
    /// Length of a node's part of it.
    pub node_prefix: u8,
    /// A node that does not renew its lease for this long is not ready.
    pub node_monitor_grace: Duration,
    /// A pod on a node that is not ready is moved after this long, where it does not say itself how long it tolerates it.
    pub eviction_after: Duration,
    /// The authority of the API's certificate, given to every namespace as a ConfigMap.
    pub root_ca_pem: String,
    /// Where `forestay.controllers.v1` is served.
    pub listen: Option<SocketAddr>,
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// This process among its equals; without it there is no election.
    pub identity: Option<String>,
    pub clock: Arc<dyn Clock>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            pod_cidr: Ipv4Net::new_assert([10, 244, 0, 0].into(), 16),
            node_prefix: 24,
            node_monitor_grace: Duration::from_secs(40),
            eviction_after: Duration::from_secs(300),
            root_ca_pem: String::new(),
            listen: None,
            tls: None,
            identity: None,
            clock: kit::clock::system(),
        }
    }
}

/// Runs until `shutdown`; while another process leads, this one waits.
///
/// # Errors
/// Where the listener cannot be had, or a controller fails.
pub async fn run(options: Options, client: Client, shutdown: Shutdown) -> anyhow::Result<()> {
    let client = client.with_field_manager(COMPONENT);
    let shutdown = shutdown.child();
    let tasks = Tasks::of(&shutdown);
    let explained = explain::Explained::default();
    if let (Some(address), Some(tls)) = (options.listen, options.tls.clone()) {
        let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
        let routes = explain::routes(explained.clone()).await?;
        let stop = shutdown.clone();
        tasks.spawn("controllers' server", async move {
            if let Err(error) = kit::grpc::serve(listener, tls, routes, stop).await {
                tracing::error!(%error, "the controllers' server ended");
            }
        });
    }
    while !shutdown.is_triggered() {
        let term = match &options.identity {
            None => Some(Term::endless(&shutdown)),
            Some(identity) => {
                let lease = election::Options::new("kube-system", COMPONENT, identity);
                Elector::new(client.clone(), lease).lead(&tasks, shutdown.clone()).await
            }
        };
        let Some(term) = term else { break };
        let controllers = Tasks::of(&shutdown);
        if let Some(catalog) = catalog(&client, term.over()).await {
            explained.show(start(&options, &catalog, &client, &controllers, term.over()));
            term.over().triggered().await;
        }
        explained.hide();
        controllers.join(STOP_MAX).await;
        controllers.check()?;
    }
    tasks.join(STOP_MAX).await;
    Ok(tasks.check()?)
}

/// The list of controllers.
///
/// Two streams: one of whole objects, and one of all resources' metadata for what follows ownership and namespaces.
fn start(options: &Options, catalog: &Arc<Catalog>, client: &Client, tasks: &Tasks, term: &Shutdown) -> Vec<Running> {
    let objects = Host::new(client.clone(), options.clock.clone())
        .with(ReplicationControllers)
        .with(Nodes::new(options.node_monitor_grace, options.eviction_after))
        .with(PodCidrs { network: options.pod_cidr, prefix: options.node_prefix })
        .with(EndpointsOfServices)
        .with(ResourceQuotas)
        .with(ServiceAccounts { root_ca_pem: options.root_ca_pem.as_str().into() });
    let metadata = Host::new(client.clone(), options.clock.clone())
        .with(Namespaces { catalog: catalog.clone() })
        .with(Garbage { catalog: catalog.clone() });
    vec![objects.start(COMPONENT, tasks, term.clone()), metadata.start(COMPONENT, tasks, term.clone())]
}

/// Asks the server for its resources until it answers; none once shut down.
async fn catalog(client: &Client, shutdown: &Shutdown) -> Option<Arc<Catalog>> {
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(5));
    loop {
        match client.resources().await {
            Ok(resources) => return Some(Arc::new(Catalog::new(resources))),
            Err(error) => tracing::debug!(%error, "the server does not say yet what resources it has"),
        }
        tokio::select! {
            () = shutdown.triggered() => return None,
            () = tokio::time::sleep(backoff.wait()) => {}
        }
    }
}
