use futures::StreamExt;
use proto::{
    Kind,
    k8s::core::v1::{ConfigMap, Namespace, Pod},
};

use super::*;
use crate::api::{Batch, ChangeKind, Selection, WatchSet, Watching};

fn set<K: Resource>(cluster: &Cluster, labels: &str, from: u64) -> WatchSet {
    WatchSet {
        resource: cluster.target::<K>("", "").resource,
        namespace: String::new(),
        name: String::new(),
        selection: Selection { labels: labels.into(), fields: String::new() },
        from,
    }
}

async fn watch(cluster: &Cluster, sets: Vec<WatchSet>) -> Watching {
    cluster.api().watch(&cluster.context, sets).await.unwrap()
}

/// The next batch that tells of a change.
async fn next(watching: &mut Watching) -> Batch {
    loop {
        let batch = watching.next().await.unwrap().unwrap();
        if !batch.changes.is_empty() {
            return batch;
        }
    }
}

fn told(batch: &Batch) -> Vec<(ChangeKind, usize, String)> {
    let name = |stored: &Stored| stored.metadata().unwrap().name;
    batch.changes.iter().map(|change| (change.kind, change.set, name(&change.object))).collect()
}

fn map(name: &str, label: &str) -> ConfigMap {
    let mut map = named("default", name, ConfigMap::default());
    map.meta_mut().labels.insert("on".into(), label.into());
    map
}

#[tokio::test]
async fn the_present_state_comes_first_then_what_follows() {
    let cluster = cluster().await;
    cluster.create(&map("a", "yes")).await.unwrap();
    let sets = vec![set::<ConfigMap>(&cluster, "", 0), set::<Namespace>(&cluster, "", 0)];
    let mut watching = watch(&cluster, sets).await;
    let first = watching.next().await.unwrap().unwrap();
    assert!(first.initial);
    assert_eq!(told(&first), [(ChangeKind::Added, 0, "a".into())]);
    let second = watching.next().await.unwrap().unwrap();
    assert_eq!((second.initial, second.revision, second.changes.len()), (true, first.revision, 4));
    let synced = watching.next().await.unwrap().unwrap();
    assert!(synced.synced && synced.changes.is_empty());
    assert_eq!(synced.revision, first.revision);

    let made = cluster.create(&namespace("blue")).await.unwrap();
    let change = next(&mut watching).await;
    assert_eq!(told(&change), [(ChangeKind::Added, 1, "blue".into())]);
    assert_eq!(change.revision.to_string(), made.meta().resource_version);
}

#[tokio::test]
async fn a_selector_turns_changes_into_comings_and_goings() {
    let cluster = cluster().await;
    let from = cluster.api().hub.head();
    let mut watching = watch(&cluster, vec![set::<ConfigMap>(&cluster, "on=yes", from)]).await;
    let mut object = cluster.create(&map("a", "no")).await.unwrap();
    object.meta_mut().labels.insert("on".into(), "yes".into());
    let mut object = cluster.update(&object).await.unwrap();
    assert_eq!(told(&next(&mut watching).await), [(ChangeKind::Added, 0, "a".into())]);
    object.meta_mut().labels.insert("on".into(), "no".into());
    let object = cluster.update(&object).await.unwrap();
    let gone = next(&mut watching).await;
    assert_eq!(told(&gone), [(ChangeKind::Deleted, 0, "a".into())]);
    // The last state that matched, at the revision at which it no longer did.
    let last = gone.changes[0].object.metadata().unwrap();
    assert_eq!(last.labels["on"], "yes");
    assert_eq!(last.resource_version, object.meta().resource_version);
}

#[tokio::test]
async fn a_deletion_shows_the_last_state_at_the_deletions_revision() {
    let cluster = cluster().await;
    let made = cluster.create(&map("a", "yes")).await.unwrap();
    let from = made.meta().resource_version.parse().unwrap();
    let mut watching = watch(&cluster, vec![set::<ConfigMap>(&cluster, "", from)]).await;
    cluster.delete::<ConfigMap>("default", "a", DeleteOptions::default()).await.unwrap();
    let gone = next(&mut watching).await;
    assert_eq!(told(&gone), [(ChangeKind::Deleted, 0, "a".into())]);
    assert_eq!(gone.changes[0].object.metadata().unwrap().resource_version, gone.revision.to_string());
    assert!(gone.revision > from);
}

#[tokio::test]
async fn a_watcher_behind_the_ring_is_replayed_from_the_store() {
    let cluster = cluster().await;
    let from = cluster.api().hub.head();
    for name in ["a", "b", "c"] {
        cluster.create(&map(name, "yes")).await.unwrap();
    }
    let head = cluster.store.revision().unsigned_abs();
    assert!(cluster.api().hub.reaches(head, std::time::Duration::from_secs(5)).await);
    // The ring forgets everything so far.
    cluster.api().hub.restart_at(head);
    let mut watching = watch(&cluster, vec![set::<ConfigMap>(&cluster, "", from)]).await;
    cluster.create(&map("d", "yes")).await.unwrap();
    for name in ["a", "b", "c", "d"] {
        assert_eq!(told(&next(&mut watching).await), [(ChangeKind::Added, 0, name.to_owned())]);
    }
}

#[tokio::test]
async fn only_compacted_history_is_refused() {
    let cluster = cluster().await;
    cluster.create(&map("a", "yes")).await.unwrap();
    cluster.create(&map("b", "yes")).await.unwrap();
    let head = cluster.store.revision();
    assert!(cluster.api().hub.reaches(head.unsigned_abs(), std::time::Duration::from_secs(5)).await);
    crate::storage::Store::compact(&cluster.store, head).await.unwrap();
    cluster.api().hub.restart_at(head.unsigned_abs());
    let mut watching = watch(&cluster, vec![set::<ConfigMap>(&cluster, "", 2)]).await;
    let refusal = watching.next().await.unwrap().unwrap_err();
    assert_eq!((refusal.code(), refusal.reason()), (410, "Expired"));
    assert!(watching.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_quiet_watch_is_marked() {
    let cluster = cluster().await;
    let from = cluster.api().hub.head();
    let mut watching = watch(&cluster, vec![set::<Pod>(&cluster, "", from)]).await;
    let mark = watching.next().await.unwrap().unwrap();
    assert_eq!((mark.revision, mark.changes.len(), mark.synced), (from, 0, false));
    // Revisions that the watch does not select move its marks.
    cluster.create(&map("a", "yes")).await.unwrap();
    let moved = watching.next().await.unwrap().unwrap();
    assert!(moved.revision > from && moved.changes.is_empty());
}

#[tokio::test]
async fn every_watcher_shares_one_rendering() {
    let cluster = cluster().await;
    let from = cluster.api().hub.head();
    let mut one = watch(&cluster, vec![set::<ConfigMap>(&cluster, "", from)]).await;
    let mut other = watch(&cluster, vec![set::<ConfigMap>(&cluster, "on=yes", from)]).await;
    cluster.create(&map("a", "yes")).await.unwrap();
    let (seen, also) = (next(&mut one).await, next(&mut other).await);
    assert!(Arc::ptr_eq(&seen.changes[0].object, &also.changes[0].object));
    assert!(seen.changes[0].object.json().unwrap().starts_with(br#"{"#));
}
