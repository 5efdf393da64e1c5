//! A kubelet on the fake runtime, against the fake API: everything between a pod's object and a runtime's calls.
#![allow(clippy::unwrap_used)]

use std::time::Duration;

use client::fake::FakeApi;
use kit::life::Shutdown;
use kubelet::{Options, RuntimeChoice, pod::backoff::BackOff, runtime::fake::Fake};
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{Container, Event, Namespace, Node, Pod, PodSpec},
        meta::v1::DeleteOptions,
    },
};

struct Hollow {
    api: FakeApi,
    client: client::Client,
    fake: Fake,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
}

fn options(fake: &Fake) -> Options {
    Options {
        node_name: "n1".into(),
        runtime: RuntimeChoice::Fake(fake.clone()),
        root_dir: "/nonexistent".into(),
        node_ip: Some([192, 0, 2, 7].into()),
        lease_interval: Duration::from_millis(50),
        back_off: BackOff { first: Duration::from_millis(20), max: Duration::from_millis(40), ..Default::default() },
        relist_interval: Duration::from_millis(100),
        runtime_patience: Duration::from_millis(50),
        ..Default::default()
    }
}

async fn start() -> Hollow {
    let (client, api) = FakeApi::start().await;
    for namespace in ["default", "kube-node-lease"] {
        let mut object = Namespace::default();
        object.meta_mut().name = namespace.into();
        api.put(&object);
    }
    let hollow = run(client, api, Fake::new());
    hollow.api.until("the node is registered", |api| api.get::<Node>("", "n1").is_some()).await;
    hollow.api.edit::<Node>("", "n1", |node| node.spec.get_or_insert_default().pod_cidr = "10.244.7.0/24".into());
    hollow
}

fn run(client: client::Client, api: FakeApi, fake: Fake) -> Hollow {
    let shutdown = Shutdown::new();
    let task = tokio::spawn(kubelet::run(options(&fake), client.clone(), shutdown.clone()));
    Hollow { api, client, fake, shutdown, task }
}

fn pod(name: &str, containers: &[&str]) -> Pod {
    let container = |name: &&str| Container {
        name: (*name).into(),
        image: "img:1".into(),
        image_pull_policy: "IfNotPresent".into(),
        ..Default::default()
    };
    let spec = PodSpec {
        containers: containers.iter().map(container).collect(),
        node_name: "n1".into(),
        termination_grace_period_seconds: Some(1),
        ..Default::default()
    };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    pod.meta_mut().name = name.into();
    pod.meta_mut().namespace = "default".into();
    pod
}

fn condition(pod: &Pod, kind: &str) -> String {
    let status = pod.status.clone().unwrap_or_default();
    status.conditions.into_iter().find(|condition| condition.r#type == kind).map(|c| c.status).unwrap_or_default()
}

/// Waits for something the API does not show.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("{what}"));
}

impl Hollow {
    async fn until_pod(&self, name: &str, what: &str, is_so: impl Fn(&Pod) -> bool) -> Pod {
        self.api.until(what, |api| api.get::<Pod>("default", name).is_some_and(|pod| is_so(&pod))).await;
        self.api.get("default", name).unwrap()
    }

    async fn until_ready(&self, name: &str) -> Pod {
        self.until_pod(name, "the pod is ready", |pod| condition(pod, "Ready") == "True").await
    }

    async fn stop(self) -> (client::Client, FakeApi, Fake) {
        self.shutdown.trigger();
        self.task.await.unwrap().unwrap();
        (self.client, self.api, self.fake)
    }
}

#[tokio::test]
async fn a_bound_pod_runs_becomes_ready_and_is_deleted_gracefully() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a", "b"])).await.unwrap();
    let web = hollow.until_ready("web").await;
    let status = web.status.clone().unwrap();
    assert_eq!(status.phase, "Running");
    assert_eq!(status.pod_ip, "10.244.7.2");
    assert_eq!((status.host_ip.as_str(), status.qos_class.as_str()), ("192.0.2.7", "BestEffort"));
    assert!(status.start_time.is_some());
    assert!(status.container_statuses.iter().all(|container| container.ready && container.restart_count == 0));
    assert!(status.container_statuses[0].container_id.starts_with("docker://"));

    hollow.client.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap();
    hollow.api.until("the pod is gone", |api| api.get::<Pod>("default", "web").is_none()).await;
    assert!(hollow.fake.state(&web.meta().uid).is_empty());
    hollow.stop().await;
}

#[tokio::test]
async fn a_node_registers_with_its_facts_and_renews_its_lease() {
    let hollow = start().await;
    let is_ready = |node: &Node| {
        let status = node.status.clone().unwrap_or_default();
        status.conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
    };
    hollow.api.until("the node is ready", |api| api.get::<Node>("", "n1").is_some_and(|node| is_ready(&node))).await;
    let node: Node = hollow.api.get("", "n1").unwrap();
    let status = node.status.clone().unwrap();
    assert_eq!(node.meta().labels["kubernetes.io/hostname"], "n1");
    assert_eq!(status.allocatable["pods"].string, "110");
    let info = status.node_info.unwrap();
    assert_eq!(info.kubelet_version, "v1.36.0+forestay");
    assert_eq!(info.container_runtime_version, "fake://1.0");
    let renewed = |api: &FakeApi| api.get::<Lease>("kube-node-lease", "n1").and_then(|lease| lease.spec?.renew_time);
    hollow.api.until("the lease is there", |api| renewed(api).is_some()).await;
    let first = renewed(&hollow.api);
    hollow.api.until("the lease is renewed", |api| renewed(api) != first).await;
    hollow.stop().await;
}

#[tokio::test]
async fn a_container_that_ends_is_started_again_and_counted() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let uid = hollow.until_ready("web").await.meta().uid.clone();
    for restarts in 1..=3 {
        assert!(hollow.fake.exit(&uid, "a", 3));
        let web = hollow
            .until_pod("web", "the container is restarted", |pod| {
                let status = &pod.status.as_ref().unwrap().container_statuses[0];
                status.restart_count == restarts && status.ready
            })
            .await;
        let last = web.status.unwrap().container_statuses[0].last_state.clone().unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_str()), (3, "Error"));
    }
    hollow.stop().await;
}

#[tokio::test]
async fn a_container_that_keeps_ending_backs_off_and_an_event_says_so() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let uid = hollow.until_ready("web").await.meta().uid.clone();
    // The first restart is free, the second waits.
    for restarts in 1..=2 {
        assert!(hollow.fake.exit(&uid, "a", 3));
        let is_restarted = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses[0].restart_count == restarts;
        hollow.until_pod("web", "the container is restarted", is_restarted).await;
    }
    let expected = format!("Back-off restarting failed container a in pod web_default({uid})");
    let is_told = |api: &FakeApi| {
        let told = api.list::<Event>();
        told.iter().any(|e| (e.reason.as_str(), e.r#type.as_str()) == ("BackOff", "Warning") && e.message == expected)
    };
    hollow.api.until("the wait is an event", is_told).await;
    hollow.stop().await;
}

#[tokio::test]
async fn a_runtime_that_hangs_makes_the_node_not_ready_until_it_answers_again() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let uid = hollow.until_ready("web").await.meta().uid.clone();
    let ready = |api: &FakeApi| {
        let conditions = api.get::<Node>("", "n1").unwrap().status.unwrap().conditions;
        conditions.into_iter().find(|condition| condition.r#type == "Ready").unwrap()
    };
    hollow.fake.hang(true);
    hollow.api.until("the node is not ready", |api| ready(api).status == "False").await;
    assert_eq!(ready(&hollow.api).message, "container runtime is down: its answer took longer than 50ms");
    hollow.fake.hang(false);
    hollow.api.until("the node is ready again", |api| ready(api).status == "True").await;
    assert!(hollow.fake.state(&uid).containers[0].is_running());
    let reasons = |api: &FakeApi| api.list::<Event>().into_iter().map(|event| event.reason).collect::<Vec<_>>();
    hollow
        .api
        .until("both are events", |api| {
            ["NodeNotReady", "NodeReady"].iter().all(|reason| reasons(api).iter().any(|told| told == reason))
        })
        .await;
    hollow.stop().await;
}

#[tokio::test]
async fn a_lost_event_is_made_up_for_by_the_list() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let uid = hollow.until_ready("web").await.meta().uid.clone();
    hollow.fake.fall_silent();
    assert!(hollow.fake.exit(&uid, "a", 0));
    hollow
        .until_pod("web", "the container is restarted", |pod| {
            pod.status.as_ref().unwrap().container_statuses[0].restart_count == 1
        })
        .await;
    hollow.stop().await;
}

#[tokio::test]
async fn a_pod_whose_image_is_nowhere_waits_and_says_why() {
    let hollow = start().await;
    hollow.fake.lose_image("img:1");
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let reason = |pod: &Pod| {
        let status = pod.status.clone().unwrap_or_default();
        let waiting = status.container_statuses.first().and_then(|c| c.state.clone()?.waiting);
        waiting.map(|waiting| waiting.reason).unwrap_or_default()
    };
    hollow.until_pod("web", "the failed pull is told", |pod| reason(pod) == "ErrImagePull").await;
    hollow.until_pod("web", "the wait is told", |pod| reason(pod) == "ImagePullBackOff").await;
    for message in ["Error: ErrImagePull", "Error: ImagePullBackOff"] {
        let is_told = |api: &FakeApi| api.list::<Event>().iter().any(|e| e.reason == "Failed" && e.message == message);
        hollow.api.until(message, is_told).await;
    }
    hollow.fake.find_image("img:1");
    hollow.until_ready("web").await;
    hollow.stop().await;
}

/// The deletion waited for the pull.
#[tokio::test]
async fn a_pod_whose_image_never_arrives_can_be_deleted() {
    let hollow = start().await;
    hollow.fake.stall_image("img:1");
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    hollow.until_pod("web", "its sandbox is there", |pod| condition(pod, "PodReadyToStartContainers") == "True").await;
    hollow.client.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap();
    hollow.api.until("the pod is gone", |api| api.get::<Pod>("default", "web").is_none()).await;
    hollow.stop().await;
}

#[tokio::test]
async fn a_lost_sandbox_is_replaced_with_all_its_containers() {
    let hollow = start().await;
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    let uid = hollow.until_ready("web").await.meta().uid.clone();
    hollow.fake.end_sandbox(&uid);
    hollow
        .until_pod("web", "the pod runs in a new sandbox", |pod| {
            let status = &pod.status.as_ref().unwrap().container_statuses[0];
            status.restart_count == 1 && status.ready
        })
        .await;
    assert_eq!(hollow.fake.state(&uid).live_sandbox().unwrap().attempt, 1);
    hollow.stop().await;
}

#[tokio::test]
async fn a_restarted_kubelet_touches_no_container_and_removes_orphans() {
    let hollow = start().await;
    for name in ["stays", "goes"] {
        hollow.client.create(&pod(name, &["a"])).await.unwrap();
    }
    let stays = hollow.until_ready("stays").await;
    let goes = hollow.until_ready("goes").await;
    let (client, api, fake) = hollow.stop().await;
    let before = fake.state(&stays.meta().uid);
    assert!(api.remove::<Pod>("default", "goes"));

    let hollow = run(client, api, fake);
    let gone = goes.meta().uid.clone();
    until("the orphan is removed", || hollow.fake.state(&gone).is_empty()).await;
    assert_eq!(hollow.fake.state(&stays.meta().uid), before);
    // Its address is still taken.
    hollow.client.create(&pod("later", &["a"])).await.unwrap();
    let later = hollow.until_ready("later").await.status.unwrap();
    assert_ne!(later.pod_ip, stays.status.unwrap().pod_ip);
    hollow.stop().await;
}

#[tokio::test]
async fn one_hanging_container_holds_up_neither_other_pods_nor_the_node() {
    let hollow = start().await;
    hollow.fake.make_deaf("deaf");
    let mut slow = pod("slow", &["deaf"]);
    slow.spec.as_mut().unwrap().termination_grace_period_seconds = Some(3600);
    hollow.client.create(&slow).await.unwrap();
    hollow.until_ready("slow").await;
    hollow.client.delete::<Pod>("default", "slow", DeleteOptions::default()).await.unwrap();
    hollow.client.create(&pod("web", &["a"])).await.unwrap();
    hollow.until_ready("web").await;
    let node: Node = hollow.api.get("", "n1").unwrap();
    let conditions = node.status.unwrap().conditions;
    assert!(conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True"));
    // A forced deletion does not wait for it.
    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    let uid = hollow.api.get::<Pod>("default", "slow").unwrap().meta().uid.clone();
    hollow.client.delete::<Pod>("default", "slow", now).await.unwrap();
    let runs = || hollow.fake.state(&uid).containers.iter().any(|container| container.is_running());
    until("the deaf container is killed", || !runs()).await;
    hollow.stop().await;
}
