//! A pod's whole life through every room: two doors, store, scheduler, controllers, kubelet, proxy.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use client::{Client, Selection};
use proto::{
    Kind,
    k8s::{
        core::v1::{
            Container, Node, Pod, PodSpec, PodTemplateSpec, ReplicationController, ReplicationControllerSpec, Service,
            ServicePort, ServiceSpec,
        },
        discovery::v1::EndpointSlice,
        meta::v1::{DeleteOptions, ObjectMeta},
    },
};
use tests::{PATIENCE, cluster::Cluster, eventually, scene, within};

fn labels() -> BTreeMap<String, String> {
    [("app".to_owned(), "web".to_owned())].into()
}

fn meta(name: &str) -> Option<ObjectMeta> {
    Some(ObjectMeta { name: name.into(), namespace: "default".into(), labels: labels(), ..ObjectMeta::default() })
}

fn controller(replicas: i32) -> ReplicationController {
    let container = Container { name: "web".into(), image: "web:1".into(), ..Container::default() };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let template = PodTemplateSpec { metadata: meta(""), spec: Some(spec) };
    let template =
        PodTemplateSpec { metadata: Some(ObjectMeta { labels: labels(), ..ObjectMeta::default() }), ..template };
    let spec = ReplicationControllerSpec {
        replicas: Some(replicas),
        selector: labels(),
        template: Some(template),
        ..ReplicationControllerSpec::default()
    };
    ReplicationController { metadata: meta("web"), spec: Some(spec), status: None }
}

fn service() -> Service {
    let port = ServicePort { name: "http".into(), port: 80, ..ServicePort::default() };
    let spec = ServiceSpec { selector: labels(), ports: vec![port], ..ServiceSpec::default() };
    Service { metadata: meta("web"), spec: Some(spec), status: None }
}

async fn ready_pods(client: &Client) -> Vec<Pod> {
    let selection = Selection { labels: "app=web".into(), ..Selection::default() };
    let (pods, _) = client.list::<Pod>("default", selection).await.unwrap();
    pods.into_iter().filter(|pod| model::pod::is_ready(pod) && pod.meta().deletion_timestamp.is_none()).collect()
}

async fn ready(client: &Client, count: usize) -> Vec<Pod> {
    let found = within(PATIENCE, || async {
        let pods = ready_pods(client).await;
        (pods.len() == count).then_some(pods)
    })
    .await;
    match found {
        Some(pods) => pods,
        None => panic!("{count} pods did not become ready:\n{}", scene(client).await),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replication_controller_becomes_ready_pods_behind_a_service() {
    let cluster = Cluster::start(&[]).await;
    let client = &cluster.client;
    client.create(&service()).await.unwrap();
    client.create(&controller(3)).await.unwrap();

    let pods = ready(client, 3).await;
    for pod in &pods {
        assert_eq!(pod.spec.as_ref().unwrap().node_name, "n1");
        assert_eq!(pod.status.as_ref().unwrap().phase, "Running");
        assert!(pod.meta().owner_references.iter().any(|owner| owner.kind == "ReplicationController"));
    }
    let addresses: Vec<String> = pods.iter().map(|pod| pod.status.as_ref().unwrap().pod_ip.clone()).collect();
    eventually("the service has the pods' addresses", || async {
        let selection = Selection { labels: "kubernetes.io/service-name=web".into(), ..Selection::default() };
        let (slices, _) = client.list::<EndpointSlice>("default", selection).await.unwrap();
        let mut found: Vec<String> =
            slices.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| endpoint.addresses.clone()).collect();
        let mut wanted = addresses.clone();
        found.sort();
        wanted.sort();
        (found == wanted).then_some(())
    })
    .await;

    // A deleted pod is replaced.
    let gone = pods[0].meta().clone();
    client.delete::<Pod>("default", &gone.name, DeleteOptions::default()).await.unwrap();
    eventually("the pod is replaced", || async {
        let pods = ready_pods(client).await;
        (pods.len() == 3 && pods.iter().all(|pod| pod.meta().uid != gone.uid)).then_some(())
    })
    .await;

    // Shrunk and grown.
    for replicas in [1, 4] {
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
        ready(client, replicas as usize).await;
    }
    cluster.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hollow_nodes_join_and_share_the_pods() {
    let cluster = Cluster::start(&["--hollow-nodes=3"]).await;
    let client = &cluster.client;
    eventually("four nodes are ready", || async {
        let (nodes, _) = client.list::<Node>("", Selection::default()).await.unwrap();
        let ready = nodes.iter().filter(|node| {
            let conditions = &node.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
            conditions.iter().any(|condition| condition.r#type == "Ready" && condition.status == "True")
        });
        (ready.count() == 4).then_some(())
    })
    .await;
    client.create(&controller(8)).await.unwrap();
    let pods = ready(client, 8).await;
    let mut nodes: Vec<&str> = pods.iter().map(|pod| pod.spec.as_ref().unwrap().node_name.as_str()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    assert!(nodes.len() >= 3, "all pods went to {nodes:?}");
    cluster.stop().await.unwrap();
}
