//! Runs the pods of one node, and tells the API how they and the node are.
//!
//! One worker for each pod ([`pod::worker`]) compares what is wanted with what the runtime has, plans
//! ([`pod::plan`], pure), and sets the node's [hands](pod::hands) to work. All state is rebuilt from the runtime's
//! labels: a kubelet may be killed at any time, and no container notices.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod cgroup;
mod crew;
mod events;
pub mod network;
pub mod node;
mod objects;
mod options;
pub mod pod;
mod probe;
pub mod runtime;
mod serve;
pub mod volume;

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use client::{Cache, Client, Reflector, Selection, events::Recorder};
use ipnet::Ipv4Net;
use kit::life::{Shutdown, Tasks};
use proto::k8s::core::v1::{Node, Pod, Service};
use tokio::{
    net::TcpListener,
    sync::{Semaphore, mpsc, watch},
};
use tracing::{error, info, warn};

pub use options::{Options, RuntimeChoice, ServerTls};

use crew::{Crew, Patience, Sources};
use events::Events;
use network::Network;
use node::{Health, Profile, facts, lease};
use objects::Objects;
use pod::{files::ClusterDns, hands::Hands, snapshot::NodeFacts, spec::NodeSetup};
use probe::Prober;
use runtime::{Runtime, docker::Docker};
use volume::Volumes;

/// Runs a node until `shutdown`; containers go on running after it.
///
/// # Errors
/// Where the runtime is not there at the start, or the node cannot be set up.
pub async fn run(options: Options, client: Client, shutdown: Shutdown) -> anyhow::Result<()> {
    let shutdown = shutdown.child();
    let tasks = Tasks::of(&shutdown);
    let outcome = tokio::select! {
        () = shutdown.triggered() => Ok(()),
        outcome = start(&options, client, &tasks, shutdown.clone()) => outcome,
    };
    if outcome.is_ok() {
        shutdown.triggered().await;
    }
    tasks.join(STOP_GRACE).await;
    outcome?;
    Ok(tasks.check()?)
}

/// Tasks only have to notice; nothing of theirs is lost.
const STOP_GRACE: Duration = Duration::from_secs(2);
const REGISTER_RETRY: Duration = Duration::from_millis(500);

async fn start(options: &Options, client: Client, tasks: &Tasks, shutdown: Shutdown) -> anyhow::Result<()> {
    let is_hollow = matches!(options.runtime, RuntimeChoice::Fake(_));
    let runtime = open_runtime(options).await?;
    let version = runtime.version().await.context("ask the container runtime for its version")?;
    let machine = facts::Machine::read(&version.root_dir, options.node_ip);
    let listener = match options.listen {
        Some(address) => Some(TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?),
        None => None,
    };
    let port = listener.as_ref().and_then(|listener| listener.local_addr().ok()).map_or(0, |address| address.port());
    let profile = Arc::new(Profile::new(options, machine, version.clone(), port));

    let (change_sender, changes) = mpsc::unbounded_channel();
    let reflector = watch_api(&client, options, is_hollow, change_sender, tasks, &shutdown);
    let recorder = Recorder::start(client.clone(), "kubelet", &options.node_name, tasks, shutdown.clone());
    let events = Events::new(recorder, is_hollow);

    let health = Health::of(options, None);
    let node = register(&profile, &client, &health).await;
    events.node(&node, "Starting", "Starting kubelet.");
    let renewal = lease::Renewal {
        node: options.node_name.clone(),
        interval: options.lease_interval,
        duration: options.lease_duration,
        measures: !is_hollow,
    };
    tasks.spawn("node lease", lease::renew(renewal, client.clone(), shutdown.clone()));

    let net = pod_cidr(options, reflector.cache::<Node>(), &reflector).await;
    let network = open_network(options, net, is_hollow).await?;
    let records = runtime.pods().await.context("list the pods of the container runtime")?;
    network.adopt(&records);
    let uids: Vec<String> = records.iter().map(|record| record.pod.uid.clone()).collect();
    network.retain(&uids).await.context("cut the wires of pods that are gone")?;

    let (trouble_sender, trouble) = watch::channel(None);
    let status = node::keep_status(
        profile.clone(),
        client.clone(),
        runtime.clone(),
        trouble,
        options.clone(),
        events.clone(),
        shutdown.clone(),
    );
    tasks.spawn("node status", status);

    let (object_sender, objects_changed) = mpsc::channel(256);
    let objects = Objects::new(client.clone());
    tasks.spawn("configMaps and secrets", objects.clone().run(object_sender, shutdown.clone()));

    if let Some(listener) = listener {
        let service = serve::Service::new(runtime.clone(), reflector.cache(), options.tls.is_some());
        let (tls, shutdown) = (options.tls.clone(), shutdown.clone());
        tasks.spawn("forestay.node.v1", async move {
            if let Err(error) = service.serve(listener, tls, shutdown).await {
                error!(%error, "serving forestay.node.v1 failed");
            }
        });
    }
    let ips = profile.machine.ips.clone();
    let node_ip = ips.first().copied().context("find an address of this node: set one with --node-ip")?;
    let hands = Arc::new(Hands {
        services: (!is_hollow).then(|| reflector.cache::<Service>()),
        pods: reflector.cache(),
        prober: if is_hollow { Prober::Hollow } else { Prober::Real { runtime: runtime.clone(), node_ip } },
        volumes: (!is_hollow).then(|| volumes(options)),
        client,
        runtime,
        network,
        objects,
        events,
        starts: Semaphore::new(options.starts_max.max(1)),
        setup: NodeSetup {
            cgroup_driver: version.cgroup_driver,
            cgroup_root: options.cgroup_root.clone(),
            memory_bytes: i64::try_from(profile.machine.memory_bytes).unwrap_or(i64::MAX),
        },
        facts: NodeFacts { name: options.node_name.clone(), ips },
        allocatable: profile.allocatable.clone(),
    });
    let patience = Patience { relist: options.relist_interval, runtime: options.runtime_patience };
    let crew = Crew::new(hands, options.back_off, patience, shutdown);
    let sources = Sources { pods: reflector.cache(), reflector, changes, objects: objects_changed };
    tasks.spawn("pods", crew.run(sources, trouble_sender));
    info!(node = options.node_name, %net, runtime = version.name, version = version.version, "kubelet runs");
    Ok(())
}

async fn open_runtime(options: &Options) -> anyhow::Result<Arc<dyn Runtime>> {
    match &options.runtime {
        RuntimeChoice::Fake(fake) => Ok(Arc::new(fake.clone())),
        RuntimeChoice::Docker { socket } => {
            let docker = Docker::connect(socket, &options.node_name, &options.pause_image).await;
            let docker = docker.context("connect to Docker")?;
            docker.provide_pause(options.pause_binary.as_ref()).await.context("provide the pause image")?;
            Ok(Arc::new(docker))
        }
    }
}

async fn open_network(options: &Options, net: Ipv4Net, is_hollow: bool) -> anyhow::Result<Network> {
    if is_hollow {
        return Ok(Network::hollow(net));
    }
    Network::wired(net, &options.network()).await.context("set up the pod network")
}

/// Removes from this machine all that a kubelet leaves when it stops: containers, wires, rules, mounts, files.
///
/// # Errors
/// Says what could not be removed.
pub async fn clean_up(options: &Options) -> anyhow::Result<()> {
    if let RuntimeChoice::Docker { socket } = &options.runtime {
        // Without its runtime there is nothing that runs, and the rest can still be removed.
        match Docker::connect(socket, &options.node_name, &options.pause_image).await {
            Ok(docker) => {
                for record in docker.pods().await.context("list containers")? {
                    docker.remove_container(&record.id).await.with_context(|| format!("remove {}", record.id))?;
                }
            }
            Err(error) => warn!(%error, "containers are not looked for"),
        }
    }
    cgroup::remove(&options.cgroup_root);
    network::clean_up(&options.network()).await.context("remove the pod network")?;
    let volumes = volumes(options);
    for uid in volumes.uids() {
        volumes.remove(&uid).with_context(|| format!("remove the files of pod {uid}"))?;
    }
    Ok(())
}

fn volumes(options: &Options) -> Volumes {
    let dns = ClusterDns { servers: options.cluster_dns.clone(), domain: options.cluster_domain.clone() };
    Volumes::new(options.root_dir.clone(), dns, options.resolv_conf.clone())
}

/// Watches this node's pods and its own object; on real nodes services too, for containers' environment.
fn watch_api(
    client: &Client,
    options: &Options,
    is_hollow: bool,
    changes: mpsc::UnboundedSender<crew::Change>,
    tasks: &Tasks,
    shutdown: &Shutdown,
) -> Reflector {
    let fields = |fields: String| Selection { fields, ..Default::default() };
    let builder = Reflector::builder(client.clone())
        .watch::<Pod>(fields(format!("spec.nodeName={}", options.node_name)))
        .watch::<Node>(fields(format!("metadata.name={}", options.node_name)))
        .on::<Pod>(move |_, before, after| {
            // The crew ends only with the kubelet.
            let _ = changes.send((before.cloned(), after.cloned()));
        });
    let builder = if is_hollow { builder } else { builder.watch::<Service>(Selection::default()) };
    builder.start(tasks, shutdown.clone())
}

/// Registers until it succeeds: the API may come later than its nodes.
async fn register(profile: &Profile, client: &Client, health: &Health) -> Node {
    loop {
        match profile.register(client, health).await {
            Ok(node) => return node,
            Err(error) => warn!(node = profile.name, %error, "register the node failed, trying again"),
        }
        tokio::time::sleep(REGISTER_RETRY).await;
    }
}

/// The CIDR given, or the one the cluster gives this node.
async fn pod_cidr(options: &Options, nodes: Cache<Node>, reflector: &Reflector) -> Ipv4Net {
    if let Some(net) = options.pod_cidr {
        return net;
    }
    let mut changes = reflector.changes();
    reflector.synced().await;
    let mut is_told = false;
    loop {
        let node = nodes.get("", &options.node_name);
        let text = node.and_then(|node| node.spec.as_ref().map(|spec| spec.pod_cidr.clone())).unwrap_or_default();
        match text.parse() {
            Ok(net) => return net,
            Err(_) if text.is_empty() => {}
            Err(error) => warn!(node = options.node_name, text, %error, "spec.podCIDR is not an IPv4 network"),
        }
        if !std::mem::replace(&mut is_told, true) {
            info!(node = options.node_name, "waiting for the node's pod CIDR");
        }
        changes.recv().await;
    }
}
