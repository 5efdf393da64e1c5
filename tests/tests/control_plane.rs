//! Scheduler and controllers in the whole house: their own doors, measured load, lost nodes, bursts, and who leads.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, HashSet},
    fs,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use client::{Client, Selection, WatchRequest, WatchSet, target};
use forestay::{
    certificates::{Certificates, Holder},
    role::{House, Role},
    settings::Settings,
    up,
};
use futures::StreamExt;
use kit::{
    layout::Directories,
    life::Shutdown,
    tls::{ClientTls, channel},
};
use proto::{
    Kind,
    forestay::{
        api::v1::{View, watch_event},
        controllers::v1::{self as controllers, controllers_client::ControllersClient},
        scheduler::v1::{self as scheduler, scheduler_client::SchedulerClient},
    },
    k8s::{
        coordination::v1::Lease,
        core::v1::{
            Container, Event, Namespace, Node, Pod, PodSpec, PodTemplateSpec, ReplicationController,
            ReplicationControllerSpec, ResourceQuota, ResourceQuotaSpec, Toleration,
        },
        meta::v1::ObjectMeta,
        resource::Quantity,
    },
};
use tests::{
    cluster::{Cluster, Process, free_port, quiet_settings, role_arguments},
    eventually, scene, within,
};
use tonic::{Code, transport::Channel};

/// For what takes many steps on a loaded machine.
const LONG: Duration = Duration::from_secs(240);

fn labels(name: &str) -> BTreeMap<String, String> {
    [("app".to_owned(), name.to_owned())].into()
}

fn spec() -> PodSpec {
    let container = Container { name: "web".into(), image: "web:1".into(), ..Container::default() };
    PodSpec { containers: vec![container], ..PodSpec::default() }
}

fn pod(name: &str) -> Pod {
    let metadata = ObjectMeta { name: name.into(), namespace: "default".into(), ..ObjectMeta::default() };
    Pod { metadata: Some(metadata), spec: Some(spec()), status: None }
}

/// A pod that only nodes with this label take.
fn pinned(name: &str, label: &str, value: &str) -> Pod {
    let mut pod = pod(name);
    pod.spec.as_mut().unwrap().node_selector = [(label.to_owned(), value.to_owned())].into();
    pod
}

fn controller(replicas: i32) -> ReplicationController {
    let metadata = ObjectMeta { labels: labels("web"), ..ObjectMeta::default() };
    let spec = ReplicationControllerSpec {
        replicas: Some(replicas),
        selector: labels("web"),
        template: Some(PodTemplateSpec { metadata: Some(metadata), spec: Some(spec()) }),
        ..ReplicationControllerSpec::default()
    };
    let metadata = ObjectMeta { name: "web".into(), namespace: "default".into(), ..ObjectMeta::default() };
    ReplicationController { metadata: Some(metadata), spec: Some(spec), status: None }
}

async fn resize(client: &Client, replicas: i32) {
    // The controller writes its status meanwhile: a conflict means to read again.
    eventually("the controller is resized", || async {
        let mut wanted = client.get::<ReplicationController>("default", "web").await.unwrap();
        wanted.spec.as_mut().unwrap().replicas = Some(replicas);
        match client.update(&wanted).await {
            Ok(_) => Some(()),
            Err(error) if error.is_conflict() => None,
            Err(error) => panic!("{error}"),
        }
    })
    .await;
}

async fn pods_of(client: &Client, selector: &str) -> Vec<Pod> {
    let selection = Selection { labels: selector.into(), ..Selection::default() };
    client.list::<Pod>("default", selection).await.unwrap().0
}

fn node_of(pod: &Pod) -> &str {
    &pod.spec.as_ref().unwrap().node_name
}

async fn node(client: &Client, name: &str) -> Option<Node> {
    client.get::<Node>("", name).await.ok()
}

/// "True", "False", "Unknown"; empty where it has not reported.
fn readiness(node: &Node) -> String {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    model::condition::find(conditions, "Ready").map(|ready| ready.status.clone()).unwrap_or_default()
}

async fn nodes_are_ready(client: &Client, names: &[&str]) {
    eventually("the nodes are ready", || async {
        for name in names {
            let node = node(client, name).await?;
            let is_tainted = node.spec.as_ref().is_some_and(|spec| !spec.taints.is_empty());
            if readiness(&node) != "True" || is_tainted {
                return None;
            }
        }
        Some(())
    })
    .await;
}

/// The way to a role's own door, as this identity.
fn door(settings: &Settings, holder: &Holder, port: u16) -> Channel {
    let certificates = House::new(settings.clone()).certificates();
    let identity = Some(certificates.identity(holder).unwrap());
    let tls = ClientTls { ca_pem: certificates.cluster_ca().unwrap(), identity };
    channel(&[format!("https://127.0.0.1:{port}")], &tls).unwrap()
}

fn scheduler_of(settings: &Settings, holder: &Holder) -> SchedulerClient<Channel> {
    SchedulerClient::new(door(settings, holder, settings.ports.scheduler_port))
}

fn controllers_of(settings: &Settings, holder: &Holder) -> ControllersClient<Channel> {
    ControllersClient::new(door(settings, holder, settings.ports.controllers_port))
}

fn about(name: &str) -> scheduler::ExplainRequest {
    scheduler::ExplainRequest { namespace: "default".into(), name: name.into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_explains_and_simulates_over_its_own_door() {
    let cluster = Cluster::start(&["--hollow-nodes=2"]).await;
    let client = &cluster.client;
    nodes_are_ready(client, &["n1", "hollow-0", "hollow-1"]).await;
    client.create(&pinned("nowhere", "disk", "ssd")).await.unwrap();
    client.create(&pinned("placed", "kubernetes.io/hostname", "n1")).await.unwrap();
    let mut asked = scheduler_of(&cluster.settings, &Holder::Admin);

    let reason = "node(s) didn't match Pod's node affinity/selector";
    let waits = format!("0/3 nodes are available: 3 {reason}.");
    eventually("the pod's condition says why it waits", || async {
        let status = client.get::<Pod>("default", "nowhere").await.unwrap().status?;
        let scheduled = model::condition::find(&status.conditions, "PodScheduled")?;
        (scheduled.status == "False" && scheduled.message == waits).then_some(())
    })
    .await;
    let explained = asked.explain(about("nowhere")).await.unwrap().into_inner();
    assert_eq!((explained.node.as_str(), explained.message.as_str()), ("", waits.as_str()));
    assert!(explained.verdicts.iter().all(|verdict| verdict.reasons == [reason]), "{explained:?}");
    assert_eq!(explained.verdicts.len(), 3);

    eventually("the other is bound", || async {
        let explained = asked.clone().explain(about("placed")).await.ok()?.into_inner();
        (explained.message == "bound to n1" && explained.node == "n1").then_some(())
    })
    .await;
    assert_eq!(asked.explain(about("nobody")).await.unwrap_err().code(), Code::NotFound);

    let simulate = |pod: Pod, copies| scheduler::SimulateRequest { pod: Some(pod), copies };
    let hollow = simulate(pinned("many", "forestay.dev/hollow", "true"), 20);
    let simulated = asked.simulate(hollow).await.unwrap().into_inner();
    let placed: BTreeMap<_, _> = simulated.placements.iter().map(|it| (it.node.as_str(), it.copies)).collect();
    assert_eq!((placed.values().sum::<u32>(), simulated.message.as_str()), (20, ""));
    assert!(
        placed.len() == 2 && placed.iter().all(|(node, copies)| node.starts_with("hollow-") && *copies > 5),
        "{placed:?}"
    );
    let simulated = asked.simulate(simulate(pinned("none", "disk", "ssd"), 1)).await.unwrap().into_inner();
    assert_eq!((simulated.placements.len(), simulated.message), (0, waits));
    assert!(client.get::<Pod>("default", "many").await.unwrap_err().is_not_found(), "a simulation changes nothing");

    let mut by_node = scheduler_of(&cluster.settings, &Holder::Node("n1".into()));
    assert_eq!(by_node.explain(about("placed")).await.unwrap_err().code(), Code::PermissionDenied);
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_controllers_explain_what_they_see_and_would_do_over_their_own_door() {
    let cluster = Cluster::start(&[]).await;
    let client = &cluster.client;
    let hard = [("pods".to_owned(), Quantity { string: "1".into() })].into();
    let metadata = ObjectMeta { name: "one".into(), namespace: "default".into(), ..ObjectMeta::default() };
    let spec = ResourceQuotaSpec { hard, ..ResourceQuotaSpec::default() };
    let quota = ResourceQuota { metadata: Some(metadata), spec: Some(spec), status: None };
    client.create(&quota).await.unwrap();
    client.create(&controller(3)).await.unwrap();

    let asked = controllers_of(&cluster.settings, &Holder::Admin);
    let request = |controller: &str, namespace: &str, name: &str| controllers::ExplainRequest {
        controller: controller.into(),
        namespace: namespace.into(),
        name: name.into(),
    };
    let explained = eventually("the quota's refusal is told", || async {
        let asked = asked.clone().explain(request("replicationcontroller", "default", "web")).await;
        asked.ok().map(tonic::Response::into_inner).filter(|explained| explained.error.contains("exceeded quota"))
    })
    .await;
    assert_eq!(explained.plan.iter().filter(|step| *step == "create pod/web-*").count(), 2, "{explained:?}");
    assert!(explained.snapshot.contains("ReplicationController"), "{}", explained.snapshot);

    nodes_are_ready(client, &["n1"]).await;
    let silence = asked.clone().explain(request("node", "", "n1")).await.unwrap().into_inner();
    assert!(!silence.next_wake.is_empty(), "the node controller waits for the lease to run out: {silence:?}");

    let unknown = asked.clone().explain(request("nobody", "", "")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    assert!(unknown.message().contains("replicationcontroller"), "{unknown:?}");
    let mut by_node = controllers_of(&cluster.settings, &Holder::Node("n1".into()));
    let refused = by_node.explain(request("node", "", "n1")).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_equal_requests_a_node_measured_as_busy_gets_fewer_pods() {
    let cluster = Cluster::start(&["--hollow-nodes=2"]).await;
    let client = &cluster.client;
    nodes_are_ready(client, &["hollow-0", "hollow-1"]).await;
    // What the kubelet of a real node writes when it renews its lease; hollow ones measure nothing.
    for (name, measured) in [("hollow-0", "cpu=57000m,memory=240000000000"), ("hollow-1", "cpu=500m,memory=1000000000")]
    {
        eventually("the measurement is written", || async {
            let mut lease = client.get::<Lease>("kube-node-lease", name).await.ok()?;
            lease.meta_mut().annotations.insert("forestay.dev/measured-use".to_owned(), measured.to_owned());
            client.update(&lease).await.ok()
        })
        .await;
    }
    let asking = |name: &str| {
        let mut pod = pinned(name, "forestay.dev/hollow", "true");
        pod.meta_mut().labels = labels("load");
        pod
    };
    let asked = scheduler_of(&cluster.settings, &Holder::Admin);
    eventually("the scheduler has seen it", || async {
        let request = scheduler::SimulateRequest { pod: Some(asking("asked")), copies: 20 };
        let simulated = asked.clone().simulate(request).await.ok()?.into_inner();
        let on = |name: &str| simulated.placements.iter().find(|it| it.node == name).map_or(0, |it| it.copies);
        (on("hollow-0") < on("hollow-1")).then_some(())
    })
    .await;
    for at in 0..20 {
        client.create(&asking(&format!("p{at}"))).await.unwrap();
    }
    let pods = eventually("all are bound", || async {
        let pods = pods_of(client, "app=load").await;
        pods.iter().all(|pod| !node_of(pod).is_empty()).then_some(pods)
    })
    .await;
    let busy = pods.iter().filter(|pod| node_of(pod) == "hollow-0").count();
    assert!(busy < 10, "{busy} of {} pods went to the busy node", pods.len());
    cluster.stop().await.unwrap();
}

/// A folder for another machine of this cluster, with a certificate for its node.
fn join(cluster: &Settings, folder: &Path, node: &str) -> Settings {
    let machine = Settings {
        data_dir: folder.to_owned(),
        node_name: Some(node.to_owned()),
        ports: forestay::settings::Ports { kubelet_port: free_port(), ..cluster.ports.clone() },
        ..cluster.clone()
    };
    let pki = machine.directories().pki();
    fs::create_dir_all(&pki).unwrap();
    for name in ["ca.crt", "ca.key", "store-ca.crt", "store-ca.key"] {
        fs::copy(cluster.directories().pki().join(name), pki.join(name)).unwrap();
    }
    let certificates = Certificates::of(&Directories::below(folder));
    certificates.issue_all(&machine.server_names(), &[node.to_owned()]).unwrap();
    machine
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_leave_a_node_whose_kubelet_is_dead_each_after_as_long_as_it_tolerates() {
    // A kubelet renews every 10 s.
    let cluster = Cluster::start(&["--node-grace-seconds=16", "--eviction-seconds=8"]).await;
    let client = &cluster.client;
    let folder = tempfile::tempdir().unwrap();
    let machine = join(&cluster.settings, &folder.path().join("data"), "m2");
    let start = || Process::forestay(&role_arguments("kubelet", &machine, &[]), &folder.path().join("log"));
    let mut kubelet = start();
    nodes_are_ready(client, &["n1", "m2"]).await;

    let tolerating = |name: &str, seconds: Option<i64>| {
        let mut pod = pinned(name, "kubernetes.io/hostname", "m2");
        pod.spec.as_mut().unwrap().tolerations.push(Toleration {
            key: "node.kubernetes.io/unreachable".into(),
            operator: "Exists".into(),
            effect: "NoExecute".into(),
            toleration_seconds: seconds,
            ..Toleration::default()
        });
        pod
    };
    client.create(&pinned("plain", "kubernetes.io/hostname", "m2")).await.unwrap();
    client.create(&tolerating("brief", Some(1))).await.unwrap();
    client.create(&tolerating("eternal", None)).await.unwrap();
    // More than what evens out the pinned ones: each node gets some.
    const REPLICAS: usize = 10;
    client.create(&controller(REPLICAS as i32)).await.unwrap();
    let ready_on = |name: &'static str| async move {
        let pods = pods_of(client, "app=web").await;
        let is_ready = |pod: &&Pod| model::pod::is_ready(pod) && !model::pod::is_deleting(pod);
        pods.iter().filter(is_ready).filter(|pod| node_of(pod) == name).count()
    };
    eventually("both nodes run some of them", || async {
        (ready_on("n1").await + ready_on("m2").await == REPLICAS && ready_on("m2").await > 0).then_some(())
    })
    .await;
    eventually("the pinned ones run", || async {
        for name in ["plain", "brief", "eternal"] {
            model::pod::is_ready(&client.get::<Pod>("default", name).await.ok()?).then_some(())?;
        }
        Some(())
    })
    .await;

    kubelet.kill();
    eventually("the node is unknown and tainted", || async {
        let node = node(client, "m2").await?;
        let taints = node.spec.as_ref().map(|spec| spec.taints.clone()).unwrap_or_default();
        let is_driving = taints.iter().any(|it| it.key == "node.kubernetes.io/unreachable" && it.effect == "NoExecute");
        (readiness(&node) == "Unknown" && is_driving).then_some(())
    })
    .await;
    let evicted_at = |name: &'static str| async move {
        eventually("the pod is evicted", || async {
            client.get::<Pod>("default", name).await.ok()?.meta().deletion_timestamp.map(|time| time.seconds)
        })
        .await
    };
    let (brief, plain) = (evicted_at("brief").await, evicted_at("plain").await);
    // Timestamps are whole seconds.
    assert!((6..=30).contains(&(plain - brief)), "brief left at {brief}, plain at {plain}");
    eventually("all run on the node that is left", || async { (ready_on("n1").await == REPLICAS).then_some(()) }).await;
    let eternal = client.get::<Pod>("default", "eternal").await.unwrap();
    assert!(!model::pod::is_deleting(&eternal), "it tolerates silence for ever");
    assert!(!model::pod::is_ready(&eternal), "nobody knows whether it answers");

    let _kubelet = start();
    nodes_are_ready(client, &["m2"]).await;
    eventually("what was evicted ends, and what was not is ready again", || async {
        for name in ["plain", "brief"] {
            client.get::<Pod>("default", name).await.is_err_and(|error| error.is_not_found()).then_some(())?;
        }
        model::pod::is_ready(&client.get::<Pod>("default", "eternal").await.ok()?).then_some(())
    })
    .await;
    cluster.stop().await.unwrap();
}

/// A role's process, its log in a file of its name.
fn role(name: &str, settings: &Settings, folder: &Path) -> Process {
    let store = format!("--store=https://127.0.0.1:{}", settings.ports.store_port);
    let more: &[&str] = if name == "apiserver" { &[&store] } else { &[] };
    Process::forestay(&role_arguments(name, settings, more), &folder.join(format!("{name}.log")))
}

async fn answering(settings: &Settings) -> Client {
    eventually("the API answers", || async {
        let client = House::new(settings.clone()).client_as(&Holder::Admin).ok()?;
        client.get::<Namespace>("", "default").await.ok()?;
        Some(client)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_makes_each_pod_once_though_the_controllers_are_killed_in_the_middle() {
    const REPLICAS: usize = 500;
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &["--hollow-nodes=4"]);
    up::init(&settings).unwrap();
    let _others = ["raft-store", "apiserver", "scheduler"].map(|name| role(name, &settings, folder.path()));
    let mut controllers = role("controllers", &settings, folder.path());
    let client = answering(&settings).await;
    let stop = Shutdown::new();
    let house = House::new(settings.clone());
    let hollow: Vec<_> = settings
        .hollow_names()
        .into_iter()
        .map(|name| {
            let (house, stop) = (house.clone(), stop.clone());
            tokio::spawn(async move { house.run(&Role::HollowKubelet(name), stop).await })
        })
        .collect();

    let (_, revision) = client.list::<Pod>("default", Selection::default()).await.unwrap();
    let set = WatchSet {
        target: Some(target::<Pod>("default", "")),
        from_revision: revision,
        view: View::Metadata.into(),
        ..WatchSet::default()
    };
    let mut news = client.watch(WatchRequest { sets: vec![set] }).await.unwrap();
    let made = Arc::new(std::sync::Mutex::new(HashSet::new()));
    let seen = made.clone();
    tokio::spawn(async move {
        while let Some(Ok(message)) = news.next().await {
            for event in message.events.iter().filter(|event| event.r#type() == watch_event::Type::Added) {
                let meta = event.object.as_ref().and_then(|object| object.metadata.clone()).unwrap();
                seen.lock().unwrap().insert(meta.uid);
            }
        }
    });
    let made = || made.lock().unwrap().len();
    let counted = || async {
        let web = client.get::<ReplicationController>("default", "web").await.unwrap();
        let (replicas, live) =
            (web.status.unwrap_or_default().replicas as usize, pods_of(&client, "app=web").await.len());
        (replicas, live)
    };
    let settled =
        |wanted: usize| within(LONG, move || async move { (counted().await == (wanted, wanted)).then_some(()) });

    client.create(&controller(REPLICAS as i32)).await.unwrap();
    eventually("some are made", || std::future::ready((made() > 60).then_some(()))).await;
    controllers.kill();
    assert!(made() < REPLICAS, "the controllers were to be killed in the middle");
    let mut controllers = role("controllers", &settings, folder.path());
    assert!(settled(REPLICAS).await.is_some(), "{:?} after growing:\n{}", counted().await, scene(&client).await);
    assert_eq!(made(), REPLICAS);

    resize(&client, 0).await;
    eventually("some leave", || async {
        let leaving = pods_of(&client, "app=web").await.iter().filter(|pod| !model::pod::is_deleting(pod)).count();
        (leaving < REPLICAS).then_some(())
    })
    .await;
    assert_eq!(controllers.terminate(), Some(0));
    let _controllers = role("controllers", &settings, folder.path());
    assert!(settled(0).await.is_some(), "{:?} after shrinking", counted().await);
    assert_eq!(made(), REPLICAS);
    stop.trigger();
    for kubelet in hollow {
        kubelet.await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_scheduler_processes_one_acts_and_the_other_follows_when_it_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    up::init(&settings).unwrap();
    let _others =
        ["raft-store", "apiserver", "controllers", "kubelet"].map(|name| role(name, &settings, folder.path()));
    let client = answering(&settings).await;
    let second = Settings {
        ports: forestay::settings::Ports { scheduler_port: free_port(), ..settings.ports.clone() },
        ..settings.clone()
    };
    let mut processes = [&settings, &second].map(|settings| (settings, role("scheduler", settings, folder.path())));
    let holder = || async {
        let lease = client.get::<Lease>("kube-system", "kube-scheduler").await.ok()?;
        lease.spec?.holder_identity.filter(|holder| !holder.is_empty())
    };
    let first = eventually("one leads", holder).await;
    if !first.ends_with(&format!(":{}", settings.ports.scheduler_port)) {
        processes.reverse();
    }
    let [(leading, leader), (following, follower)] = &mut processes;
    let (leading, following) = (*leading, *following);

    let names: Vec<String> = (0..20).map(|at| format!("p{at}")).collect();
    for name in &names {
        client.create(&pod(name)).await.unwrap();
    }
    let bound = |name: String| {
        let client = &client;
        async move {
            let pod = client.get::<Pod>("default", &name).await.ok()?;
            (!node_of(&pod).is_empty()).then_some(())
        }
    };
    for name in &names {
        eventually("the pod is bound", || bound(name.clone())).await;
    }
    let admin = |settings: &Settings| scheduler_of(settings, &Holder::Admin);
    let refused = admin(following).explain(about("p0")).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition, "{refused:?}");
    assert_eq!(admin(leading).explain(about("p0")).await.unwrap().into_inner().message, "bound to n1");
    eventually("each is said to be scheduled, once", || async {
        let (events, _) = client.list::<Event>("default", Selection::default()).await.unwrap();
        let told = events.iter().filter(|event| event.reason == "Scheduled");
        let counts: Vec<i32> = told.map(|event| event.count).collect();
        assert!(counts.len() <= names.len() && counts.iter().all(|count| *count == 1), "{counts:?}");
        (counts.len() == names.len()).then_some(())
    })
    .await;

    leader.kill();
    let killed = Instant::now();
    client.create(&pod("after")).await.unwrap();
    eventually("the other binds", || bound("after".into())).await;
    assert!(killed.elapsed() < Duration::from_secs(20), "the hand-over took {:?}", killed.elapsed());
    assert_eq!(admin(following).explain(about("after")).await.unwrap().into_inner().message, "bound to n1");

    // The killed one comes back and stands behind; it takes over at once from one that leaves in order.
    let _revived = role("scheduler", leading, folder.path());
    eventually("it answers", || async {
        let refused = admin(leading).explain(about("p0")).await.err()?;
        (refused.code() == Code::FailedPrecondition).then_some(())
    })
    .await;
    assert_eq!(follower.terminate(), Some(0));
    client.create(&pod("last")).await.unwrap();
    eventually("the first binds again", || bound("last".into())).await;
    assert_eq!(holder().await.unwrap(), first);
}
