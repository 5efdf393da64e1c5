//! The controllers together, over the fake API.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use client::{Client, fake::FakeApi};
use controllers::Options;
use kit::life::{Shutdown, Tasks};
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{
            ConfigMap, Endpoints, Event, Namespace, Node, NodeCondition, Pod, PodCondition, PodTemplateSpec,
            ReplicationController, ResourceQuota, Secret, Service, ServiceAccount, ServicePort,
        },
        discovery::v1::EndpointSlice,
        meta::v1::{DeleteOptions, Time},
        resource::Quantity,
    },
};

/// A running set of controllers; stops when the test ends.
struct Cluster {
    client: Client,
    fake: FakeApi,
    tasks: Tasks,
    shutdown: Shutdown,
}

impl Cluster {
    async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    async fn start_with(options: Options) -> Self {
        let (client, fake) = FakeApi::start().await;
        let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
        let (theirs, stop) = (fake.client(), shutdown.clone());
        tasks.spawn("controllers", async move { controllers::run(options, theirs, stop).await.unwrap() });
        Self { client, fake, tasks, shutdown }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        self.tasks.join(Duration::from_secs(10)).await;
    }
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("app".to_owned(), "web".to_owned())])
}

fn web(replicas: i32) -> ReplicationController {
    let mut controller = ReplicationController::default();
    (controller.meta_mut().namespace, controller.meta_mut().name) = ("default".into(), "web".into());
    let spec = controller.spec.get_or_insert_default();
    spec.replicas = Some(replicas);
    spec.selector = labels();
    let mut template = PodTemplateSpec::default();
    template.metadata.get_or_insert_default().labels = labels();
    spec.template = Some(template);
    controller
}

fn pod(name: &str) -> Pod {
    let mut pod = Pod::default();
    (pod.meta_mut().namespace, pod.meta_mut().name, pod.meta_mut().labels) = ("default".into(), name.into(), labels());
    pod
}

fn node(name: &str, ready: &str) -> Node {
    let mut node = Node::default();
    node.meta_mut().name = name.into();
    node.status.get_or_insert_default().conditions.push(NodeCondition {
        r#type: "Ready".into(),
        status: ready.into(),
        ..Default::default()
    });
    node
}

fn run(fake: &FakeApi, name: &str, ip: &str) {
    fake.edit::<Pod>("default", name, |pod| {
        pod.spec.get_or_insert_default().node_name = "n1".into();
        let status = pod.status.get_or_insert_default();
        (status.phase, status.pod_ip) = ("Running".into(), ip.into());
        let ready = PodCondition { r#type: "Ready".into(), status: "True".into(), ..Default::default() };
        model::condition::set(&mut status.conditions, ready, Time { seconds: 1, nanos: 0 });
    });
}

fn names(fake: &FakeApi) -> Vec<String> {
    fake.list::<Pod>().iter().map(|pod| pod.meta().name.clone()).collect()
}

#[tokio::test]
async fn a_deleted_pod_is_replaced() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(3)).await.unwrap();
    cluster.fake.until("three pods", |fake| names(fake).len() == 3).await;
    let first = names(&cluster.fake).remove(0);
    cluster.client.delete::<Pod>("default", &first, DeleteOptions::default()).await.unwrap();
    cluster.fake.until("another third pod", |fake| names(fake).len() == 3 && !names(fake).contains(&first)).await;
    let counted =
        |fake: &FakeApi| fake.get::<ReplicationController>("default", "web").unwrap().status.unwrap().replicas;
    cluster.fake.until("the status says three", |fake| counted(fake) == 3).await;
    cluster.fake.until("events tell", |fake| fake.list::<Event>().len() >= 4).await;
    let told: Vec<String> = cluster.fake.list::<Event>().into_iter().map(|event| event.reason).collect();
    assert!(told.iter().all(|reason| reason == "SuccessfulCreate"), "{told:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_stray_pod_with_its_labels_is_removed() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(2)).await.unwrap();
    cluster.fake.until("two pods", |fake| names(fake).len() == 2).await;
    cluster.client.create(&pod("stray")).await.unwrap();
    cluster.fake.until("two pods again", |fake| names(fake).len() == 2 && !names(fake).contains(&"stray".into())).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_thousand_pods_are_created_once_each() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(1000)).await.unwrap();
    cluster.fake.until("1,000 pods", |fake| fake.list::<Pod>().len() == 1000).await;
    let status = |fake: &FakeApi| fake.get::<ReplicationController>("default", "web").unwrap().status.unwrap();
    cluster.fake.until("the status says so", |fake| status(fake).replicas == 1000).await;
    let created = cluster.fake.writes().iter().filter(|write| write.starts_with("create pods")).count();
    assert_eq!(created, 1000);
    cluster.stop().await;
}

#[tokio::test]
async fn what_a_controller_made_goes_with_it() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(3)).await.unwrap();
    cluster.fake.until("three pods", |fake| names(fake).len() == 3).await;
    let background = DeleteOptions { propagation_policy: Some("Background".into()), ..Default::default() };
    cluster.client.delete::<ReplicationController>("default", "web", background).await.unwrap();
    cluster.fake.until("no pods", |fake| names(fake).is_empty()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_owner_deleted_in_the_foreground_leaves_last() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(3)).await.unwrap();
    cluster.fake.until("three pods", |fake| names(fake).len() == 3).await;
    let foreground = DeleteOptions { propagation_policy: Some("Foreground".into()), ..Default::default() };
    cluster.client.delete::<ReplicationController>("default", "web", foreground).await.unwrap();
    let is_gone = |fake: &FakeApi| fake.get::<ReplicationController>("default", "web").is_none();
    cluster
        .fake
        .until("the controller is gone", |fake| {
            assert!(!is_gone(fake) || names(fake).is_empty(), "the owner left before its pods");
            is_gone(fake)
        })
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn an_orphaning_owner_leaves_its_pods() {
    let cluster = Cluster::start().await;
    cluster.client.create(&web(2)).await.unwrap();
    cluster.fake.until("two pods", |fake| names(fake).len() == 2).await;
    let orphan = DeleteOptions { propagation_policy: Some("Orphan".into()), ..Default::default() };
    cluster.client.delete::<ReplicationController>("default", "web", orphan).await.unwrap();
    cluster
        .fake
        .until("the controller is gone", |fake| fake.get::<ReplicationController>("default", "web").is_none())
        .await;
    assert_eq!(names(&cluster.fake).len(), 2);
    assert!(cluster.fake.list::<Pod>().iter().all(|pod| pod.meta().owner_references.is_empty()));
    cluster.stop().await;
}

#[tokio::test]
async fn a_node_gets_its_pod_network() {
    let cluster = Cluster::start().await;
    for name in ["n1", "n2", "n3"] {
        cluster.client.create(&node(name, "True")).await.unwrap();
    }
    let cidrs = |fake: &FakeApi| {
        let mut cidrs: Vec<String> =
            fake.list::<Node>().into_iter().map(|it| it.spec.unwrap_or_default().pod_cidr).collect();
        cidrs.sort();
        cidrs
    };
    let wanted = ["10.244.0.0/24", "10.244.1.0/24", "10.244.2.0/24"];
    cluster.fake.until("three networks", |fake| cidrs(fake) == wanted).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_silent_node_loses_its_pods_and_they_are_replaced() {
    let cluster = Cluster::start_with(Options {
        node_monitor_grace: Duration::from_millis(300),
        eviction_after: Duration::from_millis(300),
        ..Options::default()
    })
    .await;
    cluster.client.create(&node("n1", "True")).await.unwrap();
    let mut lease = Lease::default();
    (lease.meta_mut().namespace, lease.meta_mut().name) = ("kube-node-lease".into(), "n1".into());
    cluster.client.create(&lease).await.unwrap();
    cluster.client.create(&web(1)).await.unwrap();
    cluster.fake.until("a pod", |fake| names(fake).len() == 1).await;
    let first = names(&cluster.fake).remove(0);
    run(&cluster.fake, &first, "10.244.0.7");
    let is_unknown = |fake: &FakeApi| {
        let node = fake.get::<Node>("", "n1").unwrap();
        let is_tainted = node.spec.unwrap_or_default().taints.len() == 2;
        let conditions = node.status.unwrap().conditions;
        is_tainted && model::condition::find(&conditions, "Ready").unwrap().status == "Unknown"
    };
    cluster.fake.until("the node is unknown and tainted", is_unknown).await;
    cluster
        .fake
        .until("its pod is leaving, and there is another", |fake| {
            let pods = fake.list::<Pod>();
            let is_leaving = pods.iter().any(|pod| pod.meta().name == first && model::pod::is_deleting(pod));
            is_leaving && pods.len() == 2
        })
        .await;
    assert!(!model::pod::is_ready(&cluster.fake.get::<Pod>("default", &first).unwrap()));
    cluster.fake.remove::<Node>("", "n1");
    cluster.fake.until("the node's pod is removed", |fake| fake.get::<Pod>("default", &first).is_none()).await;
    cluster.stop().await;
}

#[tokio::test]
async fn endpoints_follow_the_pods() {
    let cluster = Cluster::start().await;
    let mut service = Service::default();
    (service.meta_mut().namespace, service.meta_mut().name) = ("default".into(), "web".into());
    let spec = service.spec.get_or_insert_default();
    spec.selector = labels();
    spec.ports.push(ServicePort { port: 80, ..Default::default() });
    cluster.client.create(&service).await.unwrap();
    for name in ["a", "b"] {
        cluster.client.create(&pod(name)).await.unwrap();
    }
    run(&cluster.fake, "a", "10.244.0.1");
    run(&cluster.fake, "b", "10.244.0.2");
    let ready = |fake: &FakeApi| {
        let endpoints = fake.get::<Endpoints>("default", "web").unwrap_or_default();
        let slices = fake.list::<EndpointSlice>();
        let in_slices: usize = slices.iter().map(|slice| slice.endpoints.len()).sum();
        (endpoints.subsets.iter().map(|subset| subset.addresses.len()).sum::<usize>(), in_slices)
    };
    cluster.fake.until("two addresses", |fake| ready(fake) == (2, 2)).await;
    cluster.fake.remove::<Pod>("default", "a");
    cluster.fake.until("one address", |fake| ready(fake) == (1, 1)).await;
    cluster.client.delete::<Service>("default", "web", DeleteOptions::default()).await.unwrap();
    cluster
        .fake
        .until("nothing is left of it", |fake| {
            fake.list::<EndpointSlice>().is_empty() && fake.get::<Endpoints>("default", "web").is_none()
        })
        .await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_quota_is_counted_off_when_pods_go() {
    let cluster = Cluster::start().await;
    let mut quota = ResourceQuota::default();
    (quota.meta_mut().namespace, quota.meta_mut().name) = ("default".into(), "limit".into());
    quota.spec.get_or_insert_default().hard = BTreeMap::from([
        ("pods".to_owned(), Quantity { string: "3".into() }),
        ("secrets".to_owned(), Quantity { string: "3".into() }),
    ]);
    cluster.client.create(&quota).await.unwrap();
    cluster.client.create(&pod("a")).await.unwrap();
    cluster.client.create(&pod("b")).await.unwrap();
    let mut secret = Secret::default();
    (secret.meta_mut().namespace, secret.meta_mut().name) = ("default".into(), "s".into());
    cluster.client.create(&secret).await.unwrap();
    let used = |fake: &FakeApi| {
        let status = fake.get::<ResourceQuota>("default", "limit").unwrap().status.unwrap_or_default();
        status.used.into_iter().map(|(name, quantity)| format!("{name}={}", quantity.string)).collect::<Vec<_>>()
    };
    cluster.fake.until("two pods and a secret are used", |fake| used(fake) == ["pods=2", "secrets=1"]).await;
    cluster.client.delete::<Pod>("default", "a", DeleteOptions::default()).await.unwrap();
    cluster.fake.until("one pod is used", |fake| used(fake) == ["pods=1", "secrets=1"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_namespace_comes_furnished_and_goes_empty() {
    let cluster = Cluster::start_with(Options { root_ca_pem: "PEM".into(), ..Options::default() }).await;
    let mut namespace = Namespace::default();
    namespace.meta_mut().name = "shop".into();
    cluster.client.create(&namespace).await.unwrap();
    cluster
        .fake
        .until("it has an account and the authority", |fake| {
            let map = fake.get::<ConfigMap>("shop", "kube-root-ca.crt");
            fake.get::<ServiceAccount>("shop", "default").is_some()
                && map.is_some_and(|map| map.data["ca.crt"] == "PEM")
        })
        .await;
    let mut controller = web(2);
    controller.meta_mut().namespace = "shop".into();
    cluster.client.create(&controller).await.unwrap();
    cluster.fake.until("two pods", |fake| names(fake).len() == 2).await;
    let is_in_shop = |event: &Event| event.meta().namespace == "shop";
    cluster.fake.until("events tell of them", |fake| fake.list::<Event>().iter().any(is_in_shop)).await;
    cluster.client.delete::<Namespace>("", "shop", DeleteOptions::default()).await.unwrap();
    cluster.fake.until("it is gone", |fake| fake.get::<Namespace>("", "shop").is_none()).await;
    let left = cluster.fake.list::<ConfigMap>().into_iter().filter(|map| map.meta().namespace == "shop").count();
    assert_eq!((left, names(&cluster.fake).len()), (0, 0));
    cluster.fake.until("its events are forgotten", |fake| !fake.list::<Event>().iter().any(is_in_shop)).await;
    cluster.stop().await;
}

#[tokio::test]
async fn another_process_takes_over_when_the_leader_leaves() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, first, second) = (Tasks::new(), Shutdown::new(), Shutdown::new());
    for (identity, stop) in [("a", &first), ("b", &second)] {
        let options = Options { identity: Some(identity.into()), ..Options::default() };
        let (client, stop) = (fake.client(), stop.clone());
        tasks.spawn("controllers", async move { controllers::run(options, client, stop).await.unwrap() });
    }
    client.create(&web(2)).await.unwrap();
    fake.until("two pods", |fake| names(fake).len() == 2).await;
    first.trigger();
    client.delete::<Pod>("default", &names(&fake)[0], DeleteOptions::default()).await.unwrap();
    fake.until("two pods again", |fake| names(fake).len() == 2).await;
    second.trigger();
    tasks.join(Duration::from_secs(10)).await;
}
