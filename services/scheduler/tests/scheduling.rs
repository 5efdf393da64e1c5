//! The whole room against a fake API: what users see of it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use client::{Client, fake::FakeApi};
use kit::life::Shutdown;
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{
            Container, Event, Node, NodeCondition, NodeStatus, Pod, PodCondition, PodSpec, ResourceRequirements, Taint,
        },
        resource::Quantity,
    },
};
use scheduler::{Options, load};

struct Cluster {
    api: FakeApi,
    client: Client,
    shutdown: Shutdown,
    running: tokio::task::JoinHandle<anyhow::Result<()>>,
}

impl Cluster {
    async fn start(nodes: &[Node]) -> Self {
        let (client, api) = FakeApi::start().await;
        for node in nodes {
            api.put(node);
        }
        let shutdown = Shutdown::new();
        let running = tokio::spawn(scheduler::run(Options::default(), client.clone(), shutdown.clone()));
        Self { api, client, shutdown, running }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.running.await.unwrap().unwrap();
    }

    fn node_of(&self, name: &str) -> String {
        self.api.get::<Pod>("default", name).and_then(|pod| pod.spec).map(|spec| spec.node_name).unwrap_or_default()
    }

    fn scheduled_condition(&self, name: &str) -> Option<PodCondition> {
        let status = self.api.get::<Pod>("default", name)?.status?;
        status.conditions.into_iter().find(|condition| condition.r#type == "PodScheduled")
    }

    fn has_event(&self, name: &str, reason: &str) -> bool {
        self.api.list::<Event>().iter().any(|event| {
            event.reason == reason && event.involved_object.as_ref().is_some_and(|about| about.name == name)
        })
    }
}

fn amounts(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, text)| (name.to_string(), Quantity { string: text.to_string() })).collect()
}

fn node(name: &str, cpu: &str) -> Node {
    let allocatable = amounts(&[("cpu", cpu), ("memory", "8Gi"), ("pods", "110")]);
    let mut node = Node { status: Some(NodeStatus { allocatable, ..Default::default() }), ..Default::default() };
    node.meta_mut().name = name.to_owned();
    node
}

fn pod(name: &str, cpu: &str) -> Pod {
    let resources = ResourceRequirements { requests: amounts(&[("cpu", cpu)]), ..Default::default() };
    let container = Container { name: "c".to_owned(), resources: Some(resources), ..Default::default() };
    let mut pod =
        Pod { spec: Some(PodSpec { containers: vec![container], ..Default::default() }), ..Default::default() };
    pod.meta_mut().namespace = "default".to_owned();
    pod.meta_mut().name = name.to_owned();
    pod
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_are_bound_and_say_so() {
    let cluster = Cluster::start(&[node("n1", "4"), node("n2", "4")]).await;
    for name in ["a", "b", "c", "d"] {
        cluster.client.create(&pod(name, "1")).await.unwrap();
    }
    cluster
        .api
        .until("all are bound", |_| ["a", "b", "c", "d"].iter().all(|name| !cluster.node_of(name).is_empty()))
        .await;
    let on_n1 = ["a", "b", "c", "d"].iter().filter(|name| cluster.node_of(name) == "n1").count();
    assert_eq!(on_n1, 2);
    cluster.api.until("an event tells of it", |_| cluster.has_event("a", "Scheduled")).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_impossible_pod_says_why_and_is_scheduled_when_a_node_appears() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    cluster.client.create(&pod("large", "2")).await.unwrap();
    cluster.api.until("the condition is written", |_| cluster.scheduled_condition("large").is_some()).await;
    let condition = cluster.scheduled_condition("large").unwrap();
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str(), condition.message.as_str()),
        ("False", "Unschedulable", "0/1 nodes are available: 1 Insufficient cpu.")
    );
    cluster.api.until("an event tells of it", |_| cluster.has_event("large", "FailedScheduling")).await;

    cluster.api.put(&node("n2", "4"));
    cluster.api.until("it is bound", |_| cluster.node_of("large") == "n2").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_leaves_makes_room_for_one_that_waits() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    cluster.client.create(&pod("first", "1")).await.unwrap();
    cluster.api.until("the first is bound", |_| cluster.node_of("first") == "n1").await;
    cluster.client.create(&pod("second", "1")).await.unwrap();
    cluster.api.until("the second waits", |_| cluster.scheduled_condition("second").is_some()).await;

    cluster.api.remove::<Pod>("default", "first");
    cluster.api.until("the second is bound", |_| cluster.node_of("second") == "n1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_ended_occupies_nothing() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    cluster.client.create(&pod("job", "1")).await.unwrap();
    cluster.api.until("the job is bound", |_| cluster.node_of("job") == "n1").await;
    cluster.api.edit::<Pod>("default", "job", |pod| pod.status.get_or_insert_default().phase = "Succeeded".to_owned());

    cluster.client.create(&pod("next", "1")).await.unwrap();
    cluster.api.until("the next is bound", |_| cluster.node_of("next") == "n1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_uncordoned_node_takes_who_waited() {
    let mut cordoned = node("n1", "4");
    cordoned.spec.get_or_insert_default().unschedulable = true;
    let cluster = Cluster::start(&[cordoned]).await;
    cluster.client.create(&pod("a", "1")).await.unwrap();
    cluster.api.until("it waits", |_| cluster.scheduled_condition("a").is_some()).await;

    cluster.api.edit::<Node>("", "n1", |node| node.spec.get_or_insert_default().unschedulable = false);
    cluster.api.until("it is bound", |_| cluster.node_of("a") == "n1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taint_that_goes_and_a_label_that_comes_let_in_who_waited() {
    let mut tainted = node("n1", "4");
    tainted.spec.get_or_insert_default().taints.push(Taint {
        key: "gpu".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    });
    let cluster = Cluster::start(&[tainted]).await;
    let mut picky = pod("picky", "1");
    picky.spec.as_mut().unwrap().node_selector = BTreeMap::from([("disk".to_owned(), "ssd".to_owned())]);
    cluster.client.create(&pod("plain", "1")).await.unwrap();
    cluster.client.create(&picky).await.unwrap();
    let message = |name: &str| cluster.scheduled_condition(name).map(|condition| condition.message);
    let refused = "0/1 nodes are available: 1 node(s) had untolerated taint {gpu: }.";
    cluster
        .api
        .until("both wait", |_| ["plain", "picky"].iter().all(|name| message(name).as_deref() == Some(refused)))
        .await;

    cluster.api.edit::<Node>("", "n1", |node| node.spec.as_mut().unwrap().taints.clear());
    cluster.api.until("the plain one is bound", |_| cluster.node_of("plain") == "n1").await;
    // The picky one fits no better than before.
    assert_eq!(cluster.node_of("picky"), "");
    cluster.api.edit::<Node>("", "n1", |node| {
        node.meta_mut().labels.insert("disk".to_owned(), "ssd".to_owned());
    });
    cluster.api.until("the picky one is bound", |_| cluster.node_of("picky") == "n1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reason_is_told_though_the_server_was_away_when_it_was_found() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    let refusals = std::sync::atomic::AtomicUsize::new(0);
    #[allow(clippy::result_large_err, reason = "the hook's signature")]
    let away = move |verb: &str, target: &client::Target, _: Option<&proto::Object>| {
        let is_status = (verb, target.resource.as_str()) == ("update", "pods");
        if is_status && refusals.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 {
            return Err(client::error::failure(503, "ServiceUnavailable", "away"));
        }
        Ok(())
    };
    cluster.api.refuse(away);
    cluster.client.create(&pod("large", "2")).await.unwrap();
    cluster.api.until("the condition is written", |_| cluster.scheduled_condition("large").is_some()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_help_a_waiting_pod_does_not_wake_it() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    cluster.client.create(&pod("large", "2")).await.unwrap();
    let message = || cluster.scheduled_condition("large").map(|condition| condition.message).unwrap_or_default();
    let first = "0/1 nodes are available: 1 Insufficient cpu.";
    cluster.api.until("it waits", |_| message() == first).await;
    let writes = || cluster.api.writes().iter().filter(|write| write.ends_with("default/large")).count();
    let before = writes();

    // Another node, too small as well, heartbeats, and a pod that comes and goes.
    cluster.api.put(&node("n2", "1"));
    for at in 0..50 {
        cluster.api.edit::<Node>("", "n2", |node| {
            node.status.as_mut().unwrap().conditions =
                vec![NodeCondition { r#type: "Ready".to_owned(), message: at.to_string(), ..Default::default() }];
        });
    }
    cluster.client.create(&pod("small", "1")).await.unwrap();
    cluster.api.until("the small one is bound", |_| !cluster.node_of("small").is_empty()).await;
    cluster.api.remove::<Pod>("default", "small");
    cluster.client.create(&pod("marker", "1")).await.unwrap();
    cluster.api.until("all of it was seen", |_| !cluster.node_of("marker").is_empty()).await;
    // Decided again, it would count two nodes.
    assert_eq!((message().as_str(), writes()), (first, before));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_other_schedulers_and_gated_pods_are_left_alone() {
    let cluster = Cluster::start(&[node("n1", "4")]).await;
    let mut foreign = pod("foreign", "1");
    foreign.spec.as_mut().unwrap().scheduler_name = "another".to_owned();
    let mut gated = pod("gated", "1");
    gated
        .spec
        .as_mut()
        .unwrap()
        .scheduling_gates
        .push(proto::k8s::core::v1::PodSchedulingGate { name: "g".to_owned() });
    cluster.client.create(&foreign).await.unwrap();
    cluster.client.create(&gated).await.unwrap();
    cluster.client.create(&pod("ours", "1")).await.unwrap();
    cluster.api.until("ours is bound", |_| !cluster.node_of("ours").is_empty()).await;
    assert_eq!((cluster.node_of("foreign"), cluster.node_of("gated")), (String::new(), String::new()));

    cluster.api.edit::<Pod>("default", "gated", |pod| pod.spec.as_mut().unwrap().scheduling_gates.clear());
    cluster.api.until("the gate's end lets it in", |_| !cluster.node_of("gated").is_empty()).await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_binding_is_tried_again() {
    let cluster = Cluster::start(&[node("n1", "1")]).await;
    #[allow(clippy::result_large_err, reason = "the hook's signature")]
    let not_now = |verb: &str, _: &client::Target, _: Option<&proto::Object>| match verb {
        "bind" => Err(client::error::failure(500, "InternalError", "not now")),
        _ => Ok(()),
    };
    cluster.api.refuse(not_now);
    cluster.client.create(&pod("a", "1")).await.unwrap();
    cluster.api.until("the refusal is told", |_| cluster.has_event("a", "FailedScheduling")).await;
    cluster.api.refuse_nothing();
    cluster.api.until("it is bound", |_| cluster.node_of("a") == "n1").await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_node_gets_fewer_pods_at_equal_requests() {
    let (busy, idle) = (node("busy", "4"), node("idle", "4"));
    let (client, api) = FakeApi::start().await;
    for (node, used) in [(&busy, "cpu=3600m,memory=6442450944"), (&idle, "cpu=50m,memory=268435456")] {
        api.put(node);
        let mut lease = Lease::default();
        lease.meta_mut().namespace = load::NAMESPACE.to_owned();
        lease.meta_mut().name = node.meta().name.clone();
        lease.meta_mut().annotations.insert(load::ANNOTATION.to_owned(), used.to_owned());
        api.put(&lease);
    }
    let names: Vec<String> = (0..20).map(|n| format!("p{n}")).collect();
    for name in &names {
        client.create(&pod(name, "100m")).await.unwrap();
    }
    let shutdown = Shutdown::new();
    let running = tokio::spawn(scheduler::run(Options::default(), client.clone(), shutdown.clone()));
    let cluster = Cluster { api, client, shutdown, running };
    cluster.api.until("all are bound", |_| names.iter().all(|name| !cluster.node_of(name).is_empty())).await;
    let on_busy = names.iter().filter(|name| cluster.node_of(name) == "busy").count();
    assert!(on_busy < 10, "{on_busy} of 20 pods went to the busy node");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_schedulers_one_leads_and_the_other_takes_over() {
    let (client, api) = FakeApi::start().await;
    api.put(&node("n1", "4"));
    let start = |identity: &str| {
        let shutdown = Shutdown::new();
        let options = Options { elect_as: Some(identity.to_owned()), ..Options::default() };
        (tokio::spawn(scheduler::run(options, client.clone(), shutdown.clone())), shutdown)
    };
    let holder = || {
        let lease: Option<Lease> = api.get("kube-system", "kube-scheduler");
        lease.and_then(|lease| lease.spec).and_then(|spec| spec.holder_identity).unwrap_or_default()
    };
    let (first, first_shutdown) = start("first");
    api.until("the first leads", |_| holder() == "first").await;
    let (second, second_shutdown) = start("second");
    client.create(&pod("a", "1")).await.unwrap();
    let is_bound =
        |name: &str| api.get::<Pod>("default", name).is_some_and(|pod| !pod.spec.unwrap().node_name.is_empty());
    api.until("a is bound", |_| is_bound("a")).await;

    first_shutdown.trigger();
    first.await.unwrap().unwrap();
    api.until("the second leads", |_| holder() == "second").await;
    client.create(&pod("b", "1")).await.unwrap();
    api.until("b is bound", |_| is_bound("b")).await;
    second_shutdown.trigger();
    second.await.unwrap().unwrap();
}
