use proto::{
    Kind,
    k8s::core::v1::{ConfigMap, Pod},
};

use super::*;
use crate::api::Selection;

fn names<K: Kind>(objects: &[K]) -> Vec<String> {
    objects.iter().map(|object| proto::Kind::meta(object).name.clone()).collect()
}

async fn three_maps() -> Cluster {
    let cluster = cluster().await;
    for name in ["a", "b", "c"] {
        let mut map = named("default", name, ConfigMap::default());
        map.meta_mut().labels.insert("odd".into(), (name != "b").to_string());
        cluster.create(&map).await.unwrap();
    }
    cluster
}

#[tokio::test]
async fn pages_show_one_moment() {
    let cluster = three_maps().await;
    let target = cluster.target::<ConfigMap>("default", "");
    let first = ListOptions { limit: 2, ..Default::default() };
    let page = cluster.api().list(&cluster.context, target, first).await.unwrap();
    assert_eq!((page.items.len(), page.remaining), (2, Some(1)));
    // What comes and goes between two pages is not seen.
    cluster.create(&named("default", "d", ConfigMap::default())).await.unwrap();
    cluster.delete::<ConfigMap>("default", "c", DeleteOptions::default()).await.unwrap();
    let next = ListOptions { limit: 2, continue_: page.continue_, ..Default::default() };
    let last = cluster.api().list(&cluster.context, target, next).await.unwrap();
    assert_eq!(last.revision, page.revision);
    assert_eq!(
        last.items.iter().map(|stored| typed::<ConfigMap>(stored).meta().name.clone()).collect::<Vec<_>>(),
        ["c"]
    );
    assert_eq!((last.continue_.as_str(), last.remaining), ("", None));
}

#[tokio::test]
async fn selectors_choose_and_pages_fill_up() {
    let cluster = three_maps().await;
    let by = |labels: &str, fields: &str, limit| ListOptions {
        selection: Selection { labels: labels.into(), fields: fields.into() },
        limit,
        ..Default::default()
    };
    let list = async |options| names(&cluster.list::<ConfigMap>("default", options).await.unwrap());
    assert_eq!(list(by("odd=true", "", 0)).await, ["a", "c"]);
    assert_eq!(list(by("odd=true", "", 2)).await, ["a", "c"]);
    assert_eq!(list(by("odd!=true", "", 0)).await, ["b"]);
    assert_eq!(list(by("", "metadata.name=b", 0)).await, ["b"]);
    assert_eq!(list(by("", "metadata.name!=b", 0)).await, ["a", "c"]);
    let refusal = cluster.list::<ConfigMap>("default", by("", "spec.x=1", 0)).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (400, "field label not supported: spec.x"));
}

#[tokio::test]
async fn pods_are_selected_by_node_and_phase() {
    let cluster = cluster().await;
    cluster.create(&pod("a")).await.unwrap();
    let mut placed = pod("b");
    placed.spec.as_mut().unwrap().node_name = "n1".into();
    cluster.create(&placed).await.unwrap();
    let fields = |fields: &str| ListOptions {
        selection: Selection { labels: String::new(), fields: fields.into() },
        ..Default::default()
    };
    let list = async |selector| names(&cluster.list::<Pod>("", fields(selector)).await.unwrap());
    assert_eq!(list("spec.nodeName=n1").await, ["b"]);
    assert_eq!(list("spec.nodeName=").await, ["a"]);
    assert_eq!(list("status.phase=Pending,spec.nodeName!=n1").await, ["a"]);
    assert_eq!(list("spec.hostNetwork=false").await, ["a", "b"]);
}

#[tokio::test]
async fn old_revisions_are_listed_until_they_are_compacted() {
    let cluster = three_maps().await;
    let target = cluster.target::<ConfigMap>("default", "");
    let now = cluster.api().list(&cluster.context, target, ListOptions::default()).await.unwrap().revision;
    cluster.delete::<ConfigMap>("default", "a", DeleteOptions::default()).await.unwrap();
    let exact = ListOptions { revision: now, exact: true, ..Default::default() };
    assert_eq!(cluster.list::<ConfigMap>("default", exact.clone()).await.unwrap().len(), 3);
    let ahead = ListOptions { revision: now + 100, ..Default::default() };
    assert_eq!(cluster.list::<ConfigMap>("default", ahead).await.unwrap_err().code(), 504);

    let (version, revision) = crate::bootstrap::compact_once(cluster.api(), 0, 0).await.unwrap();
    assert_eq!(version, 1);
    crate::bootstrap::compact_once(cluster.api(), version, revision).await.unwrap();
    let refusal = cluster.list::<ConfigMap>("default", exact).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (410, "Expired"));
}

#[tokio::test]
async fn a_list_that_took_too_long_can_go_on_as_things_stand_now() {
    let cluster = three_maps().await;
    let target = cluster.target::<ConfigMap>("default", "");
    let first = ListOptions { limit: 1, ..Default::default() };
    let page = cluster.api().list(&cluster.context, target, first).await.unwrap();
    cluster.delete::<ConfigMap>("default", "b", DeleteOptions::default()).await.unwrap();
    let (version, revision) = crate::bootstrap::compact_once(cluster.api(), 0, 0).await.unwrap();
    crate::bootstrap::compact_once(cluster.api(), version, revision).await.unwrap();
    let next = ListOptions { continue_: page.continue_, ..Default::default() };
    let refusal = cluster.list::<ConfigMap>("default", next).await.unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (410, "Expired"));
    let rest = refusal.status().metadata.as_ref().unwrap().r#continue.clone();
    let next = ListOptions { continue_: rest, ..Default::default() };
    assert_eq!(names(&cluster.list::<ConfigMap>("default", next).await.unwrap()), ["c"]);
}
