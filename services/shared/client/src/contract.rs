//! What every server of the API's gRPC door keeps: run over the fake by this crate's tests, and over the real apiserver
//! by the house's. A rule that services rely on and that stands only here or only there is a trap.
//!
//! Each function takes a client with all rights and a namespace of its own, and panics where the rule is broken.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, time::Duration};

use futures::{Stream, StreamExt};
use proto::{
    Kind, Object, Resource,
    forestay::api::v1::{View, watch_event},
    k8s::{
        core::v1::{ConfigMap, Container, Namespace, Pod, PodTemplateSpec, ReplicationController},
        meta::v1::{DeleteOptions, Preconditions},
    },
};

use crate::{Client, Error, PatchKind, PodBinding, Selection, Target, WatchRequest, WatchResponse, WatchSet, target};

/// A server that takes longer than this for an event hangs.
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Checks every rule, each in a namespace named after it.
pub async fn all(client: &Client) {
    macro_rules! rules {
        ($($rule:ident),* $(,)?) => {$(
            let namespace = stringify!($rule).replace('_', "-");
            let namespace = &namespace[..namespace.len().min(60)].trim_end_matches('-').to_owned();
            make_namespace(client, namespace).await;
            $rule(client, namespace).await;
        )*};
    }
    rules!(
        a_created_object_has_identity,
        a_name_is_taken_once,
        a_generated_name_extends_its_base,
        nothing_is_created_in_a_namespace_that_is_not_there,
        a_stale_write_conflicts,
        a_write_that_changes_nothing_makes_no_revision,
        status_and_spec_are_written_apart,
        a_merge_patch_keeps_its_preconditions,
        a_deletion_keeps_its_preconditions,
        finalizers_keep_a_deleted_object,
        a_bound_pod_leaves_gracefully,
        a_pod_is_bound_once,
        lists_select_by_labels_and_fields,
        a_watch_shows_the_present_then_what_follows,
        a_watch_resumes_after_a_revision,
        a_watch_over_several_sets_is_in_one_order,
        a_selector_turns_leaving_into_deletion,
        a_metadata_view_has_no_object,
        the_resources_are_listed,
        a_namespace_is_finalized_through_its_own_part,
    );
}

async fn make_namespace(client: &Client, name: &str) {
    let mut namespace = Namespace::default();
    namespace.meta_mut().name = name.to_owned();
    client.create(&namespace).await.unwrap();
}

fn map(namespace: &str, name: &str) -> ConfigMap {
    let mut map = ConfigMap::default();
    (map.meta_mut().namespace, map.meta_mut().name) = (namespace.to_owned(), name.to_owned());
    map
}

fn pod(namespace: &str, name: &str) -> Pod {
    let mut pod = Pod::default();
    (pod.meta_mut().namespace, pod.meta_mut().name) = (namespace.to_owned(), name.to_owned());
    pod.spec.get_or_insert_default().containers =
        vec![Container { name: "main".into(), image: "demo".into(), ..Default::default() }];
    pod
}

fn controller(namespace: &str, replicas: i32) -> ReplicationController {
    let mut controller = ReplicationController::default();
    (controller.meta_mut().namespace, controller.meta_mut().name) = (namespace.to_owned(), "web".to_owned());
    let spec = controller.spec.get_or_insert_default();
    let labels = BTreeMap::from([("app".to_owned(), "web".to_owned())]);
    (spec.replicas, spec.selector) = (Some(replicas), labels.clone());
    let mut template = PodTemplateSpec { spec: pod(namespace, "").spec, ..Default::default() };
    template.metadata.get_or_insert_default().labels = labels;
    spec.template = Some(template);
    controller
}

fn revision<K: Kind>(object: &K) -> u64 {
    model::meta::revision(object.meta())
}

fn watching<K: Resource>(namespace: &str, from_revision: u64) -> WatchSet {
    WatchSet { target: Some(target::<K>(namespace, "")), from_revision, ..Default::default() }
}

type Following = std::pin::Pin<Box<dyn Stream<Item = Result<WatchResponse, Error>> + Send>>;

async fn follow(client: &Client, sets: Vec<WatchSet>) -> Following {
    Box::pin(client.watch(WatchRequest { sets }).await.unwrap())
}

/// The next message that says something; progress marks do not.
async fn next(stream: &mut Following) -> WatchResponse {
    loop {
        let message = tokio::time::timeout(WAIT_MAX, stream.next()).await.expect("a message in time").unwrap().unwrap();
        if !message.events.is_empty() || message.synced {
            return message;
        }
    }
}

/// "ADDED a", "DELETED b", ...
fn said(message: &WatchResponse) -> Vec<String> {
    let one = |event: &proto::forestay::api::v1::WatchEvent| {
        let object = event.object.as_ref().unwrap();
        let kind = match event.r#type() {
            watch_event::Type::Added => "ADDED",
            watch_event::Type::Modified => "MODIFIED",
            watch_event::Type::Deleted => "DELETED",
            watch_event::Type::Unknown => "UNKNOWN",
        };
        format!("{kind} {}", crate::Partial::of(object).unwrap().metadata.name)
    };
    message.events.iter().map(one).collect()
}

/// Everything up to and with the mark that the present state is whole.
async fn present(stream: &mut Following) -> (Vec<String>, u64) {
    let mut all = Vec::new();
    loop {
        let message = next(stream).await;
        all.extend(said(&message));
        if message.synced {
            return (all, message.revision);
        }
        assert!(message.initial, "the present comes before anything else");
    }
}

async fn a_created_object_has_identity(client: &Client, namespace: &str) {
    let created = client.create(&map(namespace, "a")).await.unwrap();
    let meta = created.meta();
    assert!(!meta.uid.is_empty() && meta.creation_timestamp.is_some() && revision(&created) > 0);
    let read: ConfigMap = client.get(namespace, "a").await.unwrap();
    assert_eq!(read, created);
}

async fn a_name_is_taken_once(client: &Client, namespace: &str) {
    client.create(&map(namespace, "a")).await.unwrap();
    let error = client.create(&map(namespace, "a")).await.unwrap_err();
    assert!(error.is_already_exists(), "{error:?}");
    assert_eq!(error.to_string(), "configmaps \"a\" already exists");
    let error = client.get::<ConfigMap>(namespace, "b").await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "configmaps \"b\" not found");
}

async fn a_generated_name_extends_its_base(client: &Client, namespace: &str) {
    let mut unnamed = map(namespace, "");
    unnamed.meta_mut().generate_name = "base-".into();
    let (one, other) = (client.create(&unnamed).await.unwrap(), client.create(&unnamed).await.unwrap());
    assert!(one.meta().name.starts_with("base-") && one.meta().name.len() == 10, "{}", one.meta().name);
    assert_ne!(one.meta().name, other.meta().name);
}

async fn nothing_is_created_in_a_namespace_that_is_not_there(client: &Client, _: &str) {
    let error = client.create(&map("nowhere", "a")).await.unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(error.to_string(), "namespaces \"nowhere\" not found");
}

async fn a_stale_write_conflicts(client: &Client, namespace: &str) {
    let first = client.create(&map(namespace, "a")).await.unwrap();
    let mut changed = first.clone();
    changed.data.insert("k".into(), "1".into());
    let second = client.update(&changed).await.unwrap();
    assert!(revision(&second) > revision(&first));
    let error = client.update(&changed).await.unwrap_err();
    assert!(error.is_conflict(), "{error:?}");
    let mut other = second.clone();
    other.meta_mut().uid = "another".into();
    let error = client.update(&other).await.unwrap_err();
    assert!(error.is_conflict(), "another object of that name: {error:?}");
}

async fn a_write_that_changes_nothing_makes_no_revision(client: &Client, namespace: &str) {
    let created = client.create(&map(namespace, "a")).await.unwrap();
    let updated = client.update(&created).await.unwrap();
    assert_eq!(revision(&updated), revision(&created));
}

async fn status_and_spec_are_written_apart(client: &Client, namespace: &str) {
    // Zero replicas: where controllers run, they have nothing to do here.
    let mut created = client.create(&controller(namespace, 0)).await.unwrap();
    assert_eq!(created.meta().generation, 1);
    created.meta_mut().resource_version.clear();
    let mut by_spec = created.clone();
    by_spec.spec.as_mut().unwrap().min_ready_seconds = 9;
    by_spec.status.get_or_insert_default().ready_replicas = 7;
    let updated = client.update(&by_spec).await.unwrap();
    assert_eq!(updated.meta().generation, 2);
    assert_ne!(updated.status.clone().unwrap_or_default().ready_replicas, 7);
    let mut by_status = updated.clone();
    by_status.meta_mut().resource_version.clear();
    by_status.spec.as_mut().unwrap().min_ready_seconds = 1;
    by_status.status.get_or_insert_default().observed_generation = 2;
    let updated = client.update_status(&by_status).await.unwrap();
    assert_eq!(updated.spec.as_ref().unwrap().min_ready_seconds, 9);
    assert_eq!(updated.status.unwrap().observed_generation, 2);
}

async fn a_merge_patch_keeps_its_preconditions(client: &Client, namespace: &str) {
    let created = client.create(&map(namespace, "a")).await.unwrap();
    let body = |revision: &str, uid: &str| {
        format!(r#"{{"metadata":{{"uid":"{uid}","resourceVersion":"{revision}","labels":{{"a":"b"}}}}}}"#)
    };
    let (uid, at) = (created.meta().uid.as_str(), created.meta().resource_version.as_str());
    let patch = |body: String| async move {
        client.patch::<ConfigMap>(namespace, "a", "", PatchKind::Merge, body.as_bytes()).await
    };
    assert!(patch(body("1", uid)).await.unwrap_err().is_conflict());
    assert!(patch(body(at, "another")).await.unwrap_err().is_conflict());
    assert_eq!(patch(body(at, uid)).await.unwrap().meta().labels["a"], "b");
}

async fn a_deletion_keeps_its_preconditions(client: &Client, namespace: &str) {
    let created = client.create(&map(namespace, "a")).await.unwrap();
    let only = |uid: Option<&str>, revision: Option<&str>| DeleteOptions {
        preconditions: Some(Preconditions {
            uid: uid.map(str::to_owned),
            resource_version: revision.map(str::to_owned),
        }),
        ..Default::default()
    };
    let delete = |options| client.delete::<ConfigMap>(namespace, "a", options);
    assert!(delete(only(Some("another"), None)).await.unwrap_err().is_conflict());
    assert!(delete(only(None, Some("1"))).await.unwrap_err().is_conflict());
    let answer = delete(only(Some(&created.meta().uid), Some(&created.meta().resource_version))).await.unwrap();
    assert!(answer.gone);
    let last: ConfigMap = answer.object.unwrap().decode_as().unwrap();
    assert_eq!(last.meta().uid, created.meta().uid);
    assert!(delete(DeleteOptions::default()).await.unwrap_err().is_not_found());
}

async fn finalizers_keep_a_deleted_object(client: &Client, namespace: &str) {
    let mut held = map(namespace, "a");
    held.meta_mut().finalizers = vec!["example.com/hold".into()];
    client.create(&held).await.unwrap();
    let answer = client.delete::<ConfigMap>(namespace, "a", DeleteOptions::default()).await.unwrap();
    assert!(!answer.gone);
    let mut leaving: ConfigMap = client.get(namespace, "a").await.unwrap();
    assert!(leaving.meta().deletion_timestamp.is_some());
    leaving.meta_mut().finalizers.clear();
    client.update(&leaving).await.unwrap();
    assert!(client.get::<ConfigMap>(namespace, "a").await.unwrap_err().is_not_found());
}

async fn a_bound_pod_leaves_gracefully(client: &Client, namespace: &str) {
    // Held back from schedulers, and bound to a node that nobody plays.
    let mut waiting = pod(namespace, "waiting");
    waiting.spec.as_mut().unwrap().scheduler_name = "nobody".into();
    client.create(&waiting).await.unwrap();
    let answer = client.delete::<Pod>(namespace, "waiting", DeleteOptions::default()).await.unwrap();
    assert!(answer.gone, "a pod without a node has nothing to end");

    let mut bound = pod(namespace, "bound");
    bound.spec.as_mut().unwrap().node_name = "nobodys-node".into();
    let created = client.create(&bound).await.unwrap();
    assert_eq!(model::pod::phase(&created), "Pending");
    let answer = client.delete::<Pod>(namespace, "bound", DeleteOptions::default()).await.unwrap();
    assert!(!answer.gone);
    let leaving: Pod = client.get(namespace, "bound").await.unwrap();
    assert_eq!(leaving.meta().deletion_grace_period_seconds, Some(30));
    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    assert!(client.delete::<Pod>(namespace, "bound", now).await.unwrap().gone);
}

async fn a_pod_is_bound_once(client: &Client, namespace: &str) {
    let mut waiting = pod(namespace, "a");
    waiting.spec.as_mut().unwrap().scheduler_name = "nobody".into();
    let created = client.create(&waiting).await.unwrap();
    let binding = |name: &str, uid: &str| PodBinding {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        node: "nobodys-node".into(),
    };
    let bindings = vec![binding("a", "another"), binding("b", ""), binding("a", &created.meta().uid)];
    let mut answers = client.bind(bindings).await.unwrap();
    answers.extend(client.bind(vec![binding("a", "")]).await.unwrap());
    let codes: Vec<i32> =
        answers.iter().map(|answer| if answer.status == "Success" { 0 } else { answer.code }).collect();
    assert_eq!(codes, [409, 404, 0, 409]);
    let bound: Pod = client.get(namespace, "a").await.unwrap();
    assert_eq!(model::pod::spec(&bound).node_name, "nobodys-node");
    let now = DeleteOptions { grace_period_seconds: Some(0), ..Default::default() };
    client.delete::<Pod>(namespace, "a", now).await.unwrap();
}

async fn lists_select_by_labels_and_fields(client: &Client, namespace: &str) {
    for (name, tier) in [("a", "web"), ("b", "db"), ("c", "web")] {
        let mut labelled = map(namespace, name);
        labelled.meta_mut().labels.insert("tier".into(), tier.into());
        client.create(&labelled).await.unwrap();
    }
    let list = |labels: &str, fields: &str| {
        let selection = Selection { labels: labels.to_owned(), fields: fields.to_owned() };
        async move {
            let (maps, revision) = client.list::<ConfigMap>(namespace, selection).await?;
            assert!(revision > 0);
            let names = maps.iter().map(|map| map.meta().name.clone()).filter(|name| name != "kube-root-ca.crt");
            Ok::<String, Error>(names.collect::<Vec<_>>().join(" "))
        }
    };
    assert_eq!(list("", "").await.unwrap(), "a b c");
    assert_eq!(list("tier=web", "").await.unwrap(), "a c");
    assert_eq!(list("tier in (db)", "").await.unwrap(), "b");
    assert_eq!(list("tier=web", "metadata.name!=a").await.unwrap(), "c");
    assert!(list("tier=(", "").await.unwrap_err().is_invalid());
}

async fn a_watch_shows_the_present_then_what_follows(client: &Client, namespace: &str) {
    let mut held = pod(namespace, "a");
    held.spec.as_mut().unwrap().scheduler_name = "nobody".into();
    client.create(&held).await.unwrap();
    let mut stream = follow(client, vec![watching::<Pod>(namespace, 0)]).await;
    let (shown, at) = present(&mut stream).await;
    assert_eq!(shown, ["ADDED a"]);
    held.meta_mut().name = "b".into();
    let created = client.create(&held).await.unwrap();
    assert!(revision(&created) > at);
    let message = next(&mut stream).await;
    assert_eq!((said(&message), message.revision), (vec!["ADDED b".to_owned()], revision(&created)));
    client.delete::<Pod>(namespace, "b", DeleteOptions::default()).await.unwrap();
    let message = next(&mut stream).await;
    assert_eq!(said(&message), ["DELETED b"]);
    let last: Pod = message.events[0].object.as_ref().unwrap().decode_as().unwrap();
    assert_eq!(revision(&last), message.revision, "a deletion carries its own revision");
}

async fn a_watch_resumes_after_a_revision(client: &Client, namespace: &str) {
    let first = client.create(&map(namespace, "a")).await.unwrap();
    client.create(&map(namespace, "b")).await.unwrap();
    client.delete::<ConfigMap>(namespace, "a", DeleteOptions::default()).await.unwrap();
    let mut stream = follow(client, vec![watching::<ConfigMap>(namespace, revision(&first))]).await;
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(said(&next(&mut stream).await).into_iter().filter(|it| !it.contains("kube-root-ca")));
    }
    assert_eq!(seen, ["ADDED b", "DELETED a"]);
}

async fn a_watch_over_several_sets_is_in_one_order(client: &Client, namespace: &str) {
    let mut stream = follow(client, vec![watching::<ConfigMap>(namespace, 0), watching::<Pod>(namespace, 0)]).await;
    present(&mut stream).await;
    for number in 0..10 {
        client.create(&map(namespace, &format!("m{number}"))).await.unwrap();
        let mut held = pod(namespace, &format!("p{number}"));
        held.spec.as_mut().unwrap().scheduler_name = "nobody".into();
        client.create(&held).await.unwrap();
    }
    let (mut seen, mut last) = (Vec::new(), 0);
    while seen.len() < 20 {
        let message = next(&mut stream).await;
        assert!(message.revision > last, "each revision comes once, in order");
        last = message.revision;
        let sets: Vec<u32> = message.events.iter().map(|event| event.set).collect();
        let news = said(&message)
            .into_iter()
            .zip(sets)
            .filter(|(text, _)| text.starts_with("ADDED") && !text.contains("ca.crt"));
        seen.extend(news);
    }
    let wanted = (0..10).flat_map(|number| [(format!("ADDED m{number}"), 0), (format!("ADDED p{number}"), 1)]);
    assert_eq!(seen, wanted.collect::<Vec<_>>());
}

async fn a_selector_turns_leaving_into_deletion(client: &Client, namespace: &str) {
    let mut labelled = map(namespace, "a");
    labelled.meta_mut().labels.insert("tier".into(), "web".into());
    let mut labelled = client.create(&labelled).await.unwrap();
    let selection = Selection { labels: "tier=web".into(), fields: String::new() };
    let set = WatchSet { selection: Some(selection), ..watching::<ConfigMap>(namespace, 0) };
    let mut stream = follow(client, vec![set]).await;
    assert_eq!(present(&mut stream).await.0, ["ADDED a"]);
    labelled.meta_mut().labels.clear();
    let mut unlabelled = client.update(&labelled).await.unwrap();
    assert_eq!(said(&next(&mut stream).await), ["DELETED a"]);
    unlabelled.meta_mut().labels.insert("tier".into(), "web".into());
    client.update(&unlabelled).await.unwrap();
    assert_eq!(said(&next(&mut stream).await), ["ADDED a"]);
}

async fn a_metadata_view_has_no_object(client: &Client, namespace: &str) {
    let created = client.create(&map(namespace, "a")).await.unwrap();
    let check = |object: &Object| {
        assert_eq!((object.arm, object.kind.as_str(), object.api_version.as_str()), (0, "ConfigMap", "v1"));
        let meta = object.metadata.as_ref().unwrap();
        assert_eq!((&meta.uid, &meta.resource_version), (&created.meta().uid, &created.meta().resource_version));
    };
    check(&client.get_object(target::<ConfigMap>(namespace, "a"), View::Metadata).await.unwrap());
    let all = Target { name: String::new(), ..target::<ConfigMap>(namespace, "") };
    let selection = Selection { labels: String::new(), fields: "metadata.name=a".into() };
    check(&client.list_objects(all, selection, View::Metadata).await.unwrap().0[0]);
    let set = WatchSet { view: View::Metadata.into(), ..watching::<ConfigMap>(namespace, revision(&created) - 1) };
    let mut stream = follow(client, vec![set]).await;
    check(next(&mut stream).await.events[0].object.as_ref().unwrap());
}

async fn the_resources_are_listed(client: &Client, _: &str) {
    let resources = client.resources().await.unwrap();
    let pods = resources.iter().find(|it| it.group.is_empty() && it.plural == "pods").expect("pods are served");
    assert!(pods.namespaced && pods.kind == "Pod" && pods.version == "v1");
    assert!(pods.verbs.iter().any(|verb| verb == "watch"), "{:?}", pods.verbs);
}

async fn a_namespace_is_finalized_through_its_own_part(client: &Client, namespace: &str) {
    // With a finalizer of another, so that a namespace controller cannot be faster.
    let mut held: Namespace = client.get("", namespace).await.unwrap();
    assert_eq!(held.spec.as_ref().unwrap().finalizers, ["kubernetes"]);
    held.spec.as_mut().unwrap().finalizers.push("example.com/hold".into());
    let finalize = Target { subresource: "finalize".into(), ..target::<Namespace>("", namespace) };
    let put = |namespace: Namespace| client.update_object(finalize.clone(), Object::of(&namespace));
    held.meta_mut().resource_version.clear();
    put(held).await.unwrap();
    let answer = client.delete::<Namespace>("", namespace, DeleteOptions::default()).await.unwrap();
    assert!(!answer.gone);
    let mut leaving: Namespace = client.get("", namespace).await.unwrap();
    assert_eq!(leaving.status.as_ref().unwrap().phase, "Terminating");
    let error = client.create(&map(namespace, "late")).await.unwrap_err();
    assert!(error.is_forbidden(), "{error:?}");
    leaving.spec.as_mut().unwrap().finalizers.clear();
    leaving.meta_mut().resource_version.clear();
    put(leaving).await.unwrap();
    assert!(client.get::<Namespace>("", namespace).await.unwrap_err().is_not_found());
}
