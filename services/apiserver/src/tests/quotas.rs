use futures::future::join_all;
use proto::{
    Kind,
    k8s::{
        core::v1::{Pod, ResourceQuota, ResourceQuotaSpec, Service, ServicePort, ServiceSpec},
        resource::Quantity,
    },
};

use super::*;

fn quota(name: &str, hard: &[(&str, &str)]) -> ResourceQuota {
    let amount = |(name, text): &(&str, &str)| ((*name).to_owned(), Quantity { string: (*text).to_owned() });
    let spec = ResourceQuotaSpec { hard: hard.iter().map(amount).collect(), ..Default::default() };
    named("default", name, ResourceQuota { spec: Some(spec), ..Default::default() })
}

async fn used(cluster: &Cluster, name: &str, resource: &str) -> String {
    let quota = cluster.get::<ResourceQuota>("default", name).await.unwrap();
    quota.status.unwrap().used[resource].string.clone()
}

#[tokio::test]
async fn the_pod_beyond_the_quota_is_refused() {
    let cluster = cluster().await;
    cluster.create(&pod("p0")).await.unwrap();
    cluster.create(&quota("q", &[("pods", "3")])).await.unwrap();
    // The pod from before the quota counts.
    for name in ["p1", "p2"] {
        cluster.create(&pod(name)).await.unwrap();
    }
    let refusal = cluster.create(&pod("p4")).await.unwrap_err();
    assert_eq!(refusal.code(), 403);
    assert_eq!(
        refusal.message(),
        "pods \"p4\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3"
    );
    assert_eq!(used(&cluster, "q", "pods").await, "3");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn ten_creates_at_once_cannot_exceed_a_quota() {
    let cluster = cluster().await;
    cluster.create(&quota("q", &[("pods", "3")])).await.unwrap();
    let pods: Vec<Pod> = (0..10).map(|n| pod(&format!("p{n}"))).collect();
    let made = join_all(pods.iter().map(|pod| cluster.create(pod))).await;
    assert_eq!(made.iter().filter(|made| made.is_ok()).count(), 3);
    assert!(made.iter().filter_map(|made| made.as_ref().err()).all(|refusal| refusal.code() == 403));
    assert_eq!(cluster.list::<Pod>("default", ListOptions::default()).await.unwrap().len(), 3);
    assert_eq!(used(&cluster, "q", "pods").await, "3");
}

#[tokio::test]
async fn a_pod_and_its_quota_are_one_revision() {
    let cluster = cluster().await;
    cluster.create(&quota("q", &[("pods", "3")])).await.unwrap();
    let made = cluster.create(&pod("p1")).await.unwrap();
    let quota = cluster.get::<ResourceQuota>("default", "q").await.unwrap();
    assert_eq!(made.meta().resource_version, quota.meta().resource_version);
}

#[tokio::test]
async fn several_quotas_all_count_and_give_back() {
    let cluster = cluster().await;
    cluster.create(&quota("a", &[("pods", "5")])).await.unwrap();
    cluster.create(&quota("b", &[("count/pods", "1")])).await.unwrap();
    cluster.create(&pod("p1")).await.unwrap();
    assert_eq!(cluster.create(&pod("p2")).await.unwrap_err().code(), 403);
    assert_eq!(cluster.create(&pod("p1")).await.unwrap_err().code(), 403);
    assert_eq!(used(&cluster, "b", "count/pods").await, "1");
}

#[tokio::test]
async fn a_quota_on_compute_wants_requests_said() {
    let cluster = cluster().await;
    cluster.create(&quota("q", &[("requests.cpu", "1")])).await.unwrap();
    let refusal = cluster.create(&pod("p1")).await.unwrap_err();
    assert_eq!(refusal.message(), "pods \"p1\" is forbidden: failed quota: q: must specify requests.cpu for: c");
    let mut asking = pod("p1");
    let resources = asking.spec.as_mut().unwrap().containers[0].resources.get_or_insert_default();
    resources.requests.insert("cpu".into(), Quantity { string: "600m".into() });
    cluster.create(&asking).await.unwrap();
    asking.meta_mut().name = "p2".into();
    let refusal = cluster.create(&asking).await.unwrap_err();
    assert!(
        refusal.message().contains("requested: requests.cpu=600m, used: requests.cpu=600m, limited: requests.cpu=1")
    );
}

#[tokio::test]
async fn a_change_that_uses_more_is_counted_too() {
    let cluster = cluster().await;
    cluster.create(&quota("q", &[("services.nodeports", "1")])).await.unwrap();
    let port = |number: i32| ServicePort { name: format!("p{number}"), port: number, ..Default::default() };
    let spec = ServiceSpec { ports: vec![port(80)], ..Default::default() };
    let mut service = named("default", "web", Service { spec: Some(spec), ..Default::default() });
    cluster.create(&service).await.unwrap();
    service.spec.as_mut().unwrap().r#type = "NodePort".into();
    let exposed = cluster.update(&service).await.unwrap();
    let quota = cluster.get::<ResourceQuota>("default", "q").await.unwrap();
    assert_eq!(exposed.meta().resource_version, quota.meta().resource_version, "one transaction");
    assert_eq!(used(&cluster, "q", "services.nodeports").await, "1");
    service.spec.as_mut().unwrap().ports.push(port(81));
    assert_eq!(
        cluster.update(&service).await.unwrap_err().message(),
        "services \"web\" is forbidden: exceeded quota: q, requested: services.nodeports=1, used: \
         services.nodeports=1, limited: services.nodeports=1"
    );
    // What uses no more is not counted again.
    service.spec.as_mut().unwrap().ports.truncate(1);
    service.meta_mut().labels.insert("a".into(), "b".into());
    cluster.update(&service).await.unwrap();
    assert_eq!(used(&cluster, "q", "services.nodeports").await, "1");
}
