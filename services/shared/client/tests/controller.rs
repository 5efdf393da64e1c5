//! The controller loop, its executor and its friends, over the fake server.
#![allow(clippy::unwrap_used, clippy::result_large_err)]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use client::{
    Action, Client, Controller, Key, Reflector,
    action::Note,
    controller::{Host, Running, Watches},
    election::{Elector, Options},
    error::failure,
    events::{NORMAL, Recorder},
    fake::FakeApi,
};
use jiff::Timestamp;
use kit::life::{Shutdown, Tasks};
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{ConfigMap, Event, Pod, Secret},
    },
};

/// Makes as many secrets as a config map says in its data; counts how often it looks.
#[derive(Default)]
struct Copies(Arc<AtomicUsize>);

#[derive(Debug)]
struct Wanted {
    map: Arc<ConfigMap>,
    secrets: Vec<Arc<Secret>>,
}

impl Controller for Copies {
    type Snapshot = Wanted;
    const NAME: &'static str = "copies";

    fn watches(&self, watches: Watches) -> Watches {
        watches.each::<ConfigMap>().map::<Secret>(|caches, secret| {
            caches
                .cache::<ConfigMap>()
                .list_in(&secret.meta().namespace)
                .iter()
                .map(|map| Key::of(map.as_ref()))
                .collect()
        })
    }

    fn observe(&self, caches: &Reflector, key: &Key, _: Timestamp) -> Option<Wanted> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let map = caches.cache::<ConfigMap>().get(&key.namespace, &key.name)?;
        Some(Wanted { map, secrets: caches.cache::<Secret>().list_in(&key.namespace) })
    }

    fn plan(Wanted { map, secrets }: &Wanted) -> Vec<Action> {
        let wanted: usize = map.data["copies"].parse().unwrap();
        let mut secret = Secret::default();
        secret.meta_mut().namespace = map.meta().namespace.clone();
        secret.meta_mut().generate_name = "copy-".into();
        let missing = (secrets.len()..wanted).map(|_| Action::create(&secret));
        missing.chain(secrets.iter().skip(wanted).map(|secret| Action::delete(secret.as_ref()))).collect()
    }
}

fn copies(count: usize) -> ConfigMap {
    let mut map = ConfigMap::default();
    (map.meta_mut().namespace, map.meta_mut().name) = ("default".into(), "m".into());
    map.data.insert("copies".into(), count.to_string());
    map
}

fn start(client: Client, tasks: &Tasks, shutdown: &Shutdown) -> Running {
    Host::new(client, kit::clock::system()).with(Copies::default()).start("test", tasks, shutdown.clone())
}

#[tokio::test]
async fn a_controller_never_does_twice_what_it_cannot_see_yet() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let _running = start(client.clone(), &tasks, &shutdown);
    client.create(&copies(100)).await.unwrap();
    fake.until("100 secrets are there", |fake| fake.list::<Secret>().len() == 100).await;
    let mut map = client.get::<ConfigMap>("default", "m").await.unwrap();
    map.data.insert("copies".into(), "10".into());
    client.update(&map).await.unwrap();
    fake.until("10 secrets are left", |fake| fake.list::<Secret>().len() == 10).await;
    shutdown.trigger();
    tasks.join(Duration::from_secs(5)).await;
    let count = |verb: &str| fake.writes().iter().filter(|write| write.starts_with(&format!("{verb} secrets"))).count();
    assert_eq!((count("create"), count("delete")), (100, 90));
}

#[tokio::test]
async fn a_refused_creation_stops_the_others_and_is_tried_again() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let refusals = AtomicUsize::new(0);
    fake.refuse(move |verb, target, _| match (verb, &*target.resource) {
        ("create", "secrets") if refusals.fetch_add(1, Ordering::SeqCst) < 4 => {
            Err(failure(403, "Forbidden", "exceeded quota"))
        }
        _ => Ok(()),
    });
    let _running = start(client.clone(), &tasks, &shutdown);
    client.create(&copies(500)).await.unwrap();
    fake.until("500 secrets are there", |fake| fake.list::<Secret>().len() == 500).await;
    assert_eq!(fake.writes().iter().filter(|write| write.starts_with("create secrets")).count(), 504);
    shutdown.trigger();
}

#[tokio::test]
async fn a_plan_can_be_asked_for_without_being_done() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    fake.refuse(|_, target, _| match &*target.resource {
        "secrets" => Err(failure(403, "Forbidden", "no secrets")),
        _ => Ok(()),
    });
    let running = start(client.clone(), &tasks, &shutdown);
    client.create(&copies(2)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), running.caches().synced()).await.unwrap();
    running.caches().reached(fake.revision()).await;
    let explanation = running.explain("copies", &Key::new("default", "m")).unwrap();
    assert_eq!(explanation.plan, ["create secret/copy-*", "create secret/copy-*"]);
    assert!(running.explain("nobody", &Key::default()).is_none());
    shutdown.trigger();
}

#[tokio::test]
async fn repeated_events_are_counted() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let recorder = Recorder::start(client, "tester", "", &tasks, shutdown.clone());
    let mut pod = Pod::default();
    (pod.meta_mut().namespace, pod.meta_mut().name, pod.meta_mut().uid) = ("default".into(), "a".into(), "1".into());
    for _ in 0..3 {
        recorder.event(&pod, NORMAL, "Pulled", "the image is here");
    }
    recorder.record(Note::new(&pod, NORMAL, "Started", "it runs"));
    fake.until("two events, one counted thrice", |fake| {
        let mut counts: Vec<i32> = fake.list::<Event>().iter().map(|event| event.count).collect();
        counts.sort_unstable();
        counts == [1, 3]
    })
    .await;
    shutdown.trigger();
}

#[tokio::test]
async fn one_candidate_leads_and_hands_over_when_it_leaves() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, first, second) = (Tasks::new(), Shutdown::new(), Shutdown::new());
    let options = |identity: &str| Options {
        renew_period: Duration::from_millis(20),
        retry_period: Duration::from_millis(20),
        ..Options::new("kube-system", "controllers", identity)
    };
    let term = Elector::new(client.clone(), options("a")).lead(&tasks, first.clone()).await.unwrap();
    let waiting = tokio::spawn({
        let (client, tasks, second, options) = (client.clone(), tasks.clone(), second.clone(), options("b"));
        async move { Elector::new(client, options).lead(&tasks, second).await }
    });
    assert!(!term.over().is_triggered() && !waiting.is_finished());
    first.trigger();
    // Asked to stop, but still at work: the lease is kept.
    let renewed = || fake.get::<Lease>("kube-system", "controllers").unwrap().spec.unwrap().renew_time;
    for _ in 0..3 {
        let before = renewed();
        fake.until("the lease is renewed", |_| renewed() != before).await;
    }
    assert!(term.over().is_triggered() && !waiting.is_finished());
    drop(term);
    let term = tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap().unwrap().unwrap();
    assert!(!term.over().is_triggered());
    second.trigger();
}

#[tokio::test]
async fn a_leader_that_falls_silent_is_followed_within_its_leases_duration() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let options = |identity: &str| Options {
        lease_duration: Duration::from_millis(300),
        renew_deadline: Duration::from_millis(200),
        renew_period: Duration::from_millis(50),
        retry_period: Duration::from_millis(20),
        ..Options::new("kube-system", "controllers", identity)
    };
    let term = Elector::new(client.clone(), options("a")).lead(&tasks, shutdown.clone()).await.unwrap();
    fake.refuse(|_, _, object| match object.and_then(|object| object.decode_as::<Lease>().ok()?.spec) {
        Some(spec) if spec.holder_identity.as_deref() != Some("b") => Err(failure(503, "Unavailable", "cut off")),
        _ => Ok(()),
    });
    let follower = Elector::new(client.clone(), options("b")).lead(&tasks, shutdown.clone());
    let (_, successor) = tokio::join!(term.over().triggered(), follower);
    assert!(!successor.unwrap().over().is_triggered());
    shutdown.trigger();
}

/// Has a plan that cannot be made.
struct Broken;

impl Controller for Broken {
    type Snapshot = ();
    const NAME: &'static str = "broken";

    fn watches(&self, watches: Watches) -> Watches {
        watches.each::<ConfigMap>()
    }

    fn observe(&self, _: &Reflector, _: &Key, _: Timestamp) -> Option<()> {
        Some(())
    }

    fn plan((): &()) -> Vec<Action> {
        panic!("as told")
    }
}

#[tokio::test]
async fn a_controller_that_panics_stops_all_instead_of_going_on_without_it() {
    let (client, _fake) = FakeApi::start().await;
    let shutdown = Shutdown::new();
    let tasks = Tasks::of(&shutdown);
    let _running = Host::new(client.clone(), kit::clock::system()).with(Broken).start("test", &tasks, shutdown.clone());
    client.create(&copies(1)).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), shutdown.triggered()).await.unwrap();
    tasks.join(Duration::from_secs(5)).await;
    assert_eq!(tasks.check().unwrap_err().to_string(), "the task \"broken\" panicked");
}

#[tokio::test]
async fn nothing_is_created_twice_while_the_watch_is_held_up() {
    let (client, fake) = FakeApi::start().await;
    let (tasks, shutdown) = (Tasks::new(), Shutdown::new());
    let looks = Arc::new(AtomicUsize::new(0));
    let running = Host::new(client.clone(), kit::clock::system()).with(Copies(looks.clone()));
    let running = running.start("test", &tasks, shutdown.clone());
    running.caches().synced().await;
    client.create(&copies(0)).await.unwrap();
    running.caches().reached(fake.revision()).await;

    // The change is seen, its consequences are not: the stream goes away with the first creation.
    let holder = fake.clone();
    fake.refuse(move |verb, target, _| {
        if (verb, &*target.resource) == ("create", "secrets") {
            holder.hold_watches(true);
        }
        Ok(())
    });
    let mut map = client.get::<ConfigMap>("default", "m").await.unwrap();
    map.data.insert("copies".into(), "20".into());
    client.update(&map).await.unwrap();
    fake.until("20 secrets are there", |fake| fake.list::<Secret>().len() == 20).await;
    // The wait for its own writes is bounded: it looks again, on caches that lack them.
    let before = looks.load(Ordering::SeqCst);
    let looking = async {
        while looks.load(Ordering::SeqCst) < before + 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap();
    let plan = running.explain("copies", &Key::new("default", "m")).unwrap().plan;
    assert!(!plan.is_empty(), "the caches were to lack what was made");
    fake.hold_watches(false);
    fake.refuse_nothing();
    running.caches().reached(fake.revision()).await;
    fake.until("20 secrets are there", |fake| fake.list::<Secret>().len() == 20).await;
    assert_eq!(fake.writes().iter().filter(|write| write.starts_with("create secrets")).count(), 20);
    shutdown.trigger();
}
