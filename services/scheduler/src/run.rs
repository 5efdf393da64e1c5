//! Options, and the component's life.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::Context as _;
use client::{
    Client, Reflector, Selection,
    election::{self, Elector, Term},
    events::Recorder,
};
use kit::{
    clock,
    life::{Shutdown, Tasks},
};
use parking_lot::RwLock;
use proto::{
    forestay::scheduler::v1::scheduler_server::SchedulerServer,
    k8s::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
};
use tracing::info;

use crate::{
    driver::Driver,
    explain::Explain,
    load,
    report::{Desk, Reporter},
    schedule::SAMPLE_DEFAULT,
    view::ClusterView,
};

/// Time to finish calls on their way at shutdown.
const GRACE: Duration = Duration::from_secs(3);

#[derive(Clone)]
pub struct Options {
    /// The pods that name this scheduler, or none, are its own.
    pub scheduler_name: String,
    /// Nodes that fit among which the best is chosen; more gives better places, fewer gives faster decisions.
    pub feasible_max: usize,
    /// The name to stand for election with, where several schedulers run; absent: this one is alone.
    pub elect_as: Option<String>,
    /// Where `forestay.scheduler.v1` is served; absent: nowhere.
    pub listen: Option<SocketAddr>,
    /// The certificate to serve with; needed with `listen`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            scheduler_name: "default-scheduler".to_owned(),
            feasible_max: SAMPLE_DEFAULT,
            elect_as: None,
            listen: None,
            tls: None,
        }
    }
}

/// Schedules until `shutdown`.
///
/// # Errors
/// Where it cannot listen, or a part of it fails; never because the API is away for a while.
pub async fn run(options: Options, client: Client, shutdown: Shutdown) -> anyhow::Result<()> {
    let shutdown = shutdown.child();
    let tasks = Tasks::of(&shutdown);
    let reflector = Reflector::builder(client.clone())
        .watch::<Pod>(Selection::default())
        .watch::<Node>(Selection::default())
        .watch_in::<Lease>(load::NAMESPACE, Selection::default())
        .start(&tasks, shutdown.clone());
    let view = Arc::new(RwLock::new(None));
    serve(&options, &reflector, &view, &tasks, &shutdown).await?;

    tokio::select! {
        () = shutdown.triggered() => {}
        () = reflector.synced() => lead(options, client, reflector, view, &tasks, &shutdown).await?,
    }
    tasks.join(GRACE).await;
    Ok(tasks.check()?)
}

/// Schedules whenever this scheduler leads.
async fn lead(
    options: Options,
    client: Client,
    reflector: Reflector,
    view: Arc<RwLock<Option<ClusterView>>>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let recorder = Recorder::start(client.clone(), &options.scheduler_name, "", tasks, shutdown.clone());
    let desk = Desk::default();
    let reporter = Reporter {
        desk: desk.clone(),
        client: client.clone(),
        pods: reflector.cache(),
        recorder: recorder.clone(),
        clock: clock::system(),
    };
    tasks.spawn("scheduler reports", reporter.run(shutdown.clone()));
    while !shutdown.is_triggered() {
        let term = match &options.elect_as {
            Some(identity) => {
                let election = election::Options::new("kube-system", "kube-scheduler", identity);
                Elector::new(client.clone(), election).lead(tasks, shutdown.clone()).await
            }
            None => Some(Term::endless(shutdown)),
        };
        let Some(term) = term else { break };
        let bindings = Tasks::of(shutdown);
        let driver = Driver {
            scheduler_name: options.scheduler_name.clone(),
            feasible_max: options.feasible_max,
            client: client.clone(),
            pods: reflector.cache(),
            nodes: reflector.cache(),
            leases: reflector.cache(),
            view: view.clone(),
            recorder: recorder.clone(),
            desk: desk.clone(),
            tasks: bindings.clone(),
        };
        // Subscribed before the driver reads the caches: what changes meanwhile is read twice, not missed.
        driver.run(reflector.changes(), term.over().clone()).await;
        *view.write() = None;
        // The next leader must not decide while bindings of this one are on their way.
        bindings.join(GRACE).await;
        bindings.check()?;
    }
    Ok(())
}

async fn serve(
    options: &Options,
    reflector: &Reflector,
    view: &Arc<RwLock<Option<ClusterView>>>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> anyhow::Result<()> {
    let Some(address) = options.listen else { return Ok(()) };
    let tls = options.tls.clone().context("the scheduler's --listen needs a certificate to serve with")?;
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("listen on {address} for forestay.scheduler.v1"))?;
    let (health, health_service) = tonic_health::server::health_reporter();
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()
        .context("build reflection")?;
    let explain = Explain { pods: reflector.cache(), view: view.clone() };
    let explain = SchedulerServer::with_interceptor(explain, kit::grpc::only_operators);
    health.set_serving::<SchedulerServer<Explain>>().await;
    let mut routes = tonic::service::RoutesBuilder::default();
    routes.add_service(health_service).add_service(reflection).add_service(explain);
    info!(%address, "serving forestay.scheduler.v1");
    let shutdown = shutdown.clone();
    tasks.spawn("scheduler door", async move {
        if let Err(error) = kit::grpc::serve(listener, tls, routes, shutdown).await {
            tracing::error!(%error, "serve forestay.scheduler.v1");
        }
    });
    Ok(())
}
