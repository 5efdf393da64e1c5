//! What a cache promises, over the fake server.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{Client, Reflector, Selection, fake::FakeApi};
use kit::life::{Shutdown, Tasks};
use parking_lot::Mutex;
use proto::{
    Kind,
    k8s::core::v1::{ConfigMap, Node, Pod},
};

fn pod(name: &str) -> Pod {
    let mut pod = Pod::default();
    pod.meta_mut().namespace = "default".into();
    pod.meta_mut().name = name.into();
    pod.meta_mut().labels = BTreeMap::from([("app".into(), "web".into())]);
    pod
}

fn watching(client: Client, tasks: &Tasks, shutdown: &Shutdown) -> Reflector {
    Reflector::builder(client)
        .watch::<Pod>(Selection::default())
        .watch::<Node>(Selection::default())
        .index::<Pod>("app", |pod| pod.meta().labels.get("app").cloned().into_iter().collect())
        .start(tasks, shutdown.clone())
}

async fn bounded<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("it comes within 20 s")
}

#[tokio::test]
async fn a_cache_shows_what_was_there_and_what_comes() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    client.create(&pod("early")).await.unwrap();
    let reflector = watching(client.clone(), &tasks, &shutdown);
    bounded(reflector.synced()).await;
    let pods = reflector.cache::<Pod>();
    assert!(pods.get("default", "early").is_some());

    let mut changes = reflector.changes();
    let late = client.create(&pod("late")).await.unwrap();
    bounded(reflector.reached(model::meta::revision(late.meta()))).await;
    assert_eq!(pods.list().len(), 2);
    assert_eq!(pods.by_index("app", "web").len(), 2);
    let change = bounded(changes.recv()).await.unwrap();
    assert!(change.is::<Pod>());
    assert_eq!(change.name, "late");

    client.delete::<Pod>("default", "late", Default::default()).await.unwrap();
    bounded(reflector.reached(fake.revision())).await;
    assert_eq!(pods.by_index("app", "web").len(), 1);
    shutdown.trigger();
    tasks.join(Duration::from_secs(5)).await;
}

#[tokio::test]
async fn progress_is_made_by_revisions_that_change_nothing_watched() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let reflector = watching(client.clone(), &tasks, &shutdown);
    bounded(reflector.synced()).await;
    let mut map = ConfigMap::default();
    (map.meta_mut().namespace, map.meta_mut().name) = ("default".into(), "m".into());
    client.create(&map).await.unwrap();
    bounded(reflector.reached(fake.revision())).await;
}

#[tokio::test]
async fn deletions_during_an_expired_absence_are_seen() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    for name in ["a", "b"] {
        client.create(&pod(name)).await.unwrap();
    }
    let seen = Arc::new(Mutex::new(Vec::new()));
    let told = seen.clone();
    let reflector = Reflector::builder(client.clone())
        .watch::<Pod>(Selection::default())
        .on::<Pod>(move |_, before, after| {
            let name = before.or(after).unwrap().meta().name.clone();
            told.lock().push(format!("{name} {} {}", before.is_some(), after.is_some()));
        })
        .start(&tasks, shutdown.clone());
    bounded(reflector.synced()).await;

    // The stream is held off while the history goes.
    fake.hold_watches(true);
    fake.remove::<Pod>("default", "a");
    client.create(&pod("c")).await.unwrap();
    fake.compact();
    fake.hold_watches(false);
    bounded(reflector.reached(fake.revision())).await;
    let names: Vec<String> = reflector.cache::<Pod>().list().iter().map(|pod| pod.meta().name.clone()).collect();
    assert_eq!(names, ["b", "c"]);
    assert_eq!(*seen.lock(), ["a false true", "b false true", "a true false", "c false true"]);
}

#[tokio::test]
async fn a_broken_stream_is_resumed_without_a_new_initial_state() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    client.create(&pod("a")).await.unwrap();
    let reflector = watching(client.clone(), &tasks, &shutdown);
    bounded(reflector.synced()).await;
    let mut changes = reflector.changes();
    fake.break_watches();
    client.create(&pod("b")).await.unwrap();
    bounded(reflector.reached(fake.revision())).await;
    assert_eq!(changes.take().len(), 1);
}

#[tokio::test]
async fn a_selector_turns_leaving_objects_into_deletions() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let mut web = client.create(&pod("a")).await.unwrap();
    let reflector = Reflector::builder(client.clone())
        .watch::<Pod>(Selection { labels: "app=web".into(), fields: String::new() })
        .start(&tasks, shutdown.clone());
    bounded(reflector.synced()).await;
    assert_eq!(reflector.cache::<Pod>().len(), 1);
    web.meta_mut().labels.clear();
    client.update(&web).await.unwrap();
    bounded(reflector.reached(fake.revision())).await;
    assert!(reflector.cache::<Pod>().is_empty());
}

#[tokio::test]
async fn metadata_of_any_resource_can_be_watched() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let reflector = Reflector::builder(client.clone()).watch_metadata("", "pods").start(&tasks, shutdown.clone());
    client.create(&pod("a")).await.unwrap();
    bounded(reflector.synced()).await;
    bounded(reflector.reached(fake.revision())).await;
    let pods = reflector.metadata("", "pods").unwrap();
    let partial = pods.get("default", "a").unwrap();
    assert_eq!((partial.kind.as_str(), partial.metadata.labels.len()), ("Pod", 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_is_read_under_a_cut_is_of_one_revision() {
    const PAIRS: usize = 200;
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let reflector = Reflector::builder(client.clone())
        .watch::<Pod>(Selection::default())
        .watch::<ConfigMap>(Selection::default())
        .start(&tasks, shutdown.clone());
    bounded(reflector.synced()).await;
    let (pods, maps) = (reflector.cache::<Pod>(), reflector.cache::<ConfigMap>());
    let reading = tokio::task::spawn_blocking({
        let reflector = reflector.clone();
        move || {
            let mut revisions = std::collections::BTreeSet::new();
            loop {
                let (revision, count) = {
                    let cut = reflector.cut();
                    // Each map is made before its pod, so a state without the map has never been.
                    let pods = pods.len();
                    std::thread::yield_now();
                    assert!((pods..=pods + 1).contains(&maps.len()), "{pods} pods, {} maps", maps.len());
                    (cut.revision(), pods)
                };
                revisions.insert(revision);
                if count == PAIRS {
                    return revisions.len();
                }
            }
        }
    });
    for at in 0..PAIRS {
        let mut map = ConfigMap::default();
        (map.meta_mut().namespace, map.meta_mut().name) = ("default".into(), format!("m{at}"));
        fake.put(&map);
        fake.put(&pod(&format!("p{at}")));
        if at % 50 == 25 {
            fake.break_watches();
        }
        tokio::task::yield_now().await;
    }
    let seen = bounded(reading).await.unwrap();
    assert!(seen > 1, "the reader saw nothing on its way");
    shutdown.trigger();
}
