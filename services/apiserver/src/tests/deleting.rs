use proto::{
    Kind,
    k8s::{
        core::v1::{ConfigMap, Namespace, Pod},
        meta::v1::Preconditions,
    },
};

use super::*;
use crate::api::{PodBinding, Selection};

async fn bound(cluster: &Cluster, name: &str) -> Pod {
    cluster.create(&pod(name)).await.unwrap();
    let binding = PodBinding { namespace: "default".into(), name: name.into(), uid: String::new(), node: "n1".into() };
    cluster.api().bind(&cluster.context, vec![binding]).await.remove(0).unwrap();
    cluster.get::<Pod>("default", name).await.unwrap()
}

#[tokio::test]
async fn a_pod_on_no_node_is_gone_at_once() {
    let cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    assert!(cluster.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap());
    assert_eq!(cluster.get::<Pod>("default", "web").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_running_pod_is_given_its_grace() {
    let cluster = cluster().await;
    bound(&cluster, "web").await;
    assert!(!cluster.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap());
    let leaving = cluster.get::<Pod>("default", "web").await.unwrap();
    assert_eq!(leaving.meta().deletion_grace_period_seconds, Some(30));
    assert!(leaving.meta().deletion_timestamp.is_some());

    let sooner = DeleteOptions { grace_period_seconds: Some(5), ..Default::default() };
    assert!(!cluster.delete::<Pod>("default", "web", sooner).await.unwrap());
    let later = DeleteOptions { grace_period_seconds: Some(60), ..Default::default() };
    assert!(!cluster.delete::<Pod>("default", "web", later).await.unwrap());
    let leaving = cluster.get::<Pod>("default", "web").await.unwrap();
    assert_eq!(leaving.meta().deletion_grace_period_seconds, Some(5));

    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    assert!(cluster.delete::<Pod>("default", "web", now).await.unwrap());
    assert_eq!(cluster.get::<Pod>("default", "web").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_finalizer_keeps_an_object_until_it_is_taken_off() {
    let cluster = cluster().await;
    let mut map = named("default", "kept", ConfigMap::default());
    map.meta_mut().finalizers = vec!["hold".into()];
    let refusal = cluster.create(&map).await.unwrap_err();
    assert!(refusal.message().contains("neither a standard finalizer name nor is it fully qualified"), "{refusal}");
    map.meta_mut().finalizers = vec!["example.com/hold".into()];
    cluster.create(&map).await.unwrap();
    assert!(!cluster.delete::<ConfigMap>("default", "kept", DeleteOptions::default()).await.unwrap());
    let mut kept = cluster.get::<ConfigMap>("default", "kept").await.unwrap();
    kept.meta_mut().finalizers.push("example.com/late".into());
    assert_eq!(cluster.update(&kept).await.unwrap_err().code(), 422);
    kept.meta_mut().finalizers.clear();
    cluster.update(&kept).await.unwrap();
    assert_eq!(cluster.get::<ConfigMap>("default", "kept").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn a_deletion_meant_for_another_object_is_refused() {
    let cluster = cluster().await;
    cluster.create(&pod("web")).await.unwrap();
    let preconditions = Preconditions { uid: Some("other".into()), resource_version: None };
    let options = DeleteOptions { preconditions: Some(preconditions), ..Default::default() };
    let refusal = cluster.delete::<Pod>("default", "web", options).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (409, "Conflict"));
    assert!(refusal.message().contains("Precondition failed: UID in precondition: other"));
}

#[tokio::test]
async fn a_namespace_ends_when_its_last_finalizer_goes() {
    let cluster = cluster().await;
    let made = cluster.create(&namespace("blue")).await.unwrap();
    assert_eq!(made.spec.clone().unwrap().finalizers, ["kubernetes"]);
    assert_eq!(made.status.unwrap().phase, "Active");
    cluster.create(&named("blue", "web", pod("web"))).await.unwrap();
    assert!(!cluster.delete::<Namespace>("", "blue", DeleteOptions::default()).await.unwrap());
    let mut leaving = cluster.get::<Namespace>("", "blue").await.unwrap();
    assert_eq!(leaving.status.clone().unwrap().phase, "Terminating");

    let refusal = cluster.create(&named("blue", "late", pod("late"))).await.unwrap_err();
    assert_eq!(refusal.code(), 403);
    assert!(refusal.message().contains("because it is being terminated"), "{refusal}");
    let causes = &refusal.status().details.as_ref().unwrap().causes;
    assert_eq!(causes[0].reason, "NamespaceTerminating");

    leaving.spec.as_mut().unwrap().finalizers.clear();
    cluster.replace(&leaving, "finalize").await.unwrap();
    assert_eq!(cluster.get::<Namespace>("", "blue").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn the_default_namespace_cannot_be_deleted() {
    let refusal = cluster().await.delete::<Namespace>("", "default", DeleteOptions::default()).await.unwrap_err();
    assert_eq!(refusal.message(), "namespaces \"default\" is forbidden: this namespace may not be deleted");
}

#[tokio::test]
async fn a_collection_is_deleted_by_selector() {
    let cluster = cluster().await;
    for (name, app) in [("a", "x"), ("b", "x"), ("c", "y")] {
        let mut one = pod(name);
        one.meta_mut().labels.insert("app".into(), app.into());
        cluster.create(&one).await.unwrap();
    }
    let selection = Selection { labels: "app=x".into(), fields: String::new() };
    let target = cluster.target::<Pod>("default", "");
    let deleted =
        cluster.api().delete_collection(&cluster.context, target, &selection, &DeleteOptions::default()).await.unwrap();
    assert_eq!(deleted.len(), 2);
    assert_eq!(cluster.list::<Pod>("default", ListOptions::default()).await.unwrap().len(), 1);
}
