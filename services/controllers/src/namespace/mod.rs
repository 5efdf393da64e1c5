//! Namespace deletion: pods first, so that nothing runs without what it relies on; then everything else; then the
//! namespace itself.

use std::sync::Arc;

use client::{Action, Controller, Key, Partial, Reflector, Target, action::Deletion, controller::Watches};
use jiff::Timestamp;
use proto::{
    Kind,
    k8s::{
        core::v1::{Event, Namespace, NamespaceCondition},
        meta::v1::{DeleteOptions, Preconditions},
    },
};

use crate::{catalog::Catalog, time::api_time};

const FINALIZER: &str = "kubernetes";
const REMAINING: &str = "NamespaceContentRemaining";
const FINALIZING: &str = "NamespaceFinalizersRemaining";

pub struct Namespaces {
    pub catalog: Arc<Catalog>,
}

/// What one resource still has in a namespace.
#[derive(Clone, Debug)]
pub struct Content {
    pub group: String,
    pub plural: String,
    pub objects: Vec<Arc<Partial>>,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub namespace: Arc<Namespace>,
    /// Resources that have something in it.
    pub contents: Vec<Content>,
    pub now: Timestamp,
}

impl Controller for Namespaces {
    type Snapshot = Snapshot;
    const NAME: &'static str = "namespace";

    fn watches(&self, watches: Watches) -> Watches {
        let watches = watches.map::<Namespace>(|_, namespace| vec![Key::new("", &namespace.meta().name)]);
        self.catalog.namespaced().fold(watches, |watches, (group, plural)| {
            watches.map_metadata(group, plural, |caches, object| {
                let namespace = caches.cache::<Namespace>().get("", &object.metadata.namespace);
                let is_leaving = namespace.is_some_and(|namespace| model::meta::is_deleting(namespace.meta()));
                is_leaving.then(|| Key::new("", &object.metadata.namespace)).into_iter().collect()
            })
        })
    }

    fn observe(&self, caches: &Reflector, key: &Key, now: Timestamp) -> Option<Snapshot> {
        let namespace = caches.cache::<Namespace>().get("", &key.name)?;
        if !model::meta::is_deleting(namespace.meta()) {
            return None;
        }
        let content = |(group, plural): (&str, &str)| {
            let objects = caches.metadata(group, plural)?.list_in(&key.name);
            (!objects.is_empty()).then(|| Content { group: group.to_owned(), plural: plural.to_owned(), objects })
        };
        Some(Snapshot { namespace, contents: self.catalog.namespaced().filter_map(content).collect(), now })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

/// The next stage of the deletion. What it deletes is gone only when it is no longer seen.
pub fn plan(Snapshot { namespace, contents, now }: &Snapshot) -> Vec<Action> {
    let finalizers = namespace.spec.as_ref().map(|spec| spec.finalizers.as_slice()).unwrap_or_default();
    if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
        return Vec::new();
    }
    if contents.is_empty() {
        // Where others still hold it, its status must not go on naming what is gone.
        if let Some(told) = told(namespace, contents, *now).filter(|_| has_told(namespace)) {
            return vec![told];
        }
        let mut finalized = Namespace::clone(namespace);
        finalized.spec.get_or_insert_default().finalizers.retain(|finalizer| finalizer != FINALIZER);
        return vec![Action::Clear(events(namespace)), Action::update_part(&finalized, "finalize")];
    }
    let is_pods = |content: &&Content| content.group.is_empty() && content.plural == "pods";
    let has_pods = contents.iter().any(|content| is_pods(&content));
    let stage = contents.iter().filter(|content| !has_pods || is_pods(content));
    let leave = stage.flat_map(|content| {
        let staying = content.objects.iter().filter(|object| !model::meta::is_deleting(&object.metadata));
        staying.map(|object| delete(content, object))
    });
    told(namespace, contents, *now).into_iter().chain(leave).collect()
}

/// Whatever became of it since it was seen: it must go.
fn delete(content: &Content, object: &Partial) -> Action {
    let meta = &object.metadata;
    Action::Delete(Deletion {
        target: Target {
            group: content.group.clone(),
            resource: content.plural.clone(),
            namespace: meta.namespace.clone(),
            name: meta.name.clone(),
            subresource: String::new(),
        },
        object_kind: object.kind.clone(),
        options: DeleteOptions {
            preconditions: Some(Preconditions { uid: Some(meta.uid.clone()), resource_version: None }),
            propagation_policy: Some("Background".to_owned()),
            ..Default::default()
        },
        telling: None,
    })
}

/// They come by the thousand and are not watched; whoever makes the namespace anew must not find those of the old one.
fn events(namespace: &Namespace) -> Target {
    client::target::<Event>(&namespace.meta().name, "")
}

/// Whether its status says that something keeps it.
fn has_told(namespace: &Namespace) -> bool {
    let conditions = namespace.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    model::condition::is_true(conditions, REMAINING) || model::condition::is_true(conditions, FINALIZING)
}

/// Says in the status what keeps the namespace.
fn told(namespace: &Arc<Namespace>, contents: &[Content], now: Timestamp) -> Option<Action> {
    let mut told = Namespace::clone(namespace);
    let conditions = &mut told.status.get_or_insert_default().conditions;
    let qualified = |content: &Content| {
        if content.group.is_empty() { content.plural.clone() } else { format!("{}.{}", content.plural, content.group) }
    };
    let left: Vec<String> = contents
        .iter()
        .map(|content| format!("{} has {} resource instances", qualified(content), content.objects.len()))
        .collect();
    let mut finalizers: Vec<&str> = contents
        .iter()
        .flat_map(|content| &content.objects)
        .flat_map(|object| object.metadata.finalizers.iter().map(String::as_str))
        .collect();
    finalizers.sort_unstable();
    finalizers.dedup();
    let (is_finalizing, is_left) = (!finalizers.is_empty(), !left.is_empty());
    let remaining = NamespaceCondition {
        r#type: REMAINING.into(),
        status: if is_left { "True" } else { "False" }.into(),
        reason: if is_left { "SomeResourcesRemain" } else { "ContentRemoved" }.into(),
        message: if is_left {
            format!("Some resources are remaining: {}", left.join(", "))
        } else {
            "All content successfully removed".into()
        },
        ..Default::default()
    };
    let finalizing = NamespaceCondition {
        r#type: FINALIZING.into(),
        status: if is_finalizing { "True" } else { "False" }.into(),
        reason: if is_finalizing { "SomeFinalizersRemain" } else { "ContentHasNoFinalizers" }.into(),
        message: if is_finalizing {
            format!("Some content in the namespace has finalizers remaining: {}", finalizers.join(", "))
        } else {
            "All content-preserving finalizers finished".into()
        },
        ..Default::default()
    };
    let is_news = model::condition::set(conditions, remaining, api_time(now));
    let is_news = model::condition::set(conditions, finalizing, api_time(now)) || is_news;
    is_news.then(|| Action::update_status(&told).remark(left.join(", ")))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use proto::k8s::meta::v1::ObjectMeta;

    use super::*;
    use crate::testing::{ago, check, named, now};

    fn leaving() -> Namespace {
        let mut namespace: Namespace = named("web");
        namespace.meta_mut().deletion_timestamp = Some(ago(1));
        namespace.spec.get_or_insert_default().finalizers = vec!["kubernetes".into()];
        namespace
    }

    fn content(plural: &str, kind: &str, names: &[&str]) -> Content {
        let partial = |name: &&str| {
            let metadata = ObjectMeta {
                name: (*name).to_owned(),
                namespace: "web".into(),
                uid: format!("{name}-uid"),
                ..Default::default()
            };
            Arc::new(Partial { api_version: "v1".into(), kind: kind.into(), metadata })
        };
        Content { group: String::new(), plural: plural.into(), objects: names.iter().map(partial).collect() }
    }

    fn snapshot(contents: Vec<Content>) -> Snapshot {
        Snapshot { namespace: Arc::new(leaving()), contents, now: now() }
    }

    #[test]
    fn pods_go_before_what_they_rely_on() {
        let contents = vec![content("configmaps", "ConfigMap", &["m"]), content("pods", "Pod", &["a", "b"])];
        check(
            plan(&snapshot(contents)),
            expect![[r#"
            status namespace/web configmaps has 1 resource instances, pods has 2 resource instances
            delete pod/a
            delete pod/b
        "#]],
        );
        check(
            plan(&snapshot(vec![content("configmaps", "ConfigMap", &["m"])])),
            expect![[r#"
            status namespace/web configmaps has 1 resource instances
            delete configmap/m
        "#]],
        );
    }

    #[test]
    fn an_empty_namespace_is_let_go() {
        check(
            plan(&snapshot(vec![])),
            expect![[r#"
            clear events of web
            finalize namespace/web
        "#]],
        );
    }

    #[test]
    fn an_emptied_namespace_that_others_hold_names_nothing_that_is_gone() {
        let told = plan(&snapshot(vec![content("configmaps", "ConfigMap", &["m"])]));
        let Action::UpdateStatus(write) = &told[0] else { panic!("a status: {told:?}") };
        let mut emptied = Snapshot { namespace: Arc::new(write.object.decode_as().unwrap()), ..snapshot(vec![]) };
        let told = plan(&emptied);
        let [Action::UpdateStatus(write)] = told.as_slice() else { panic!("a status: {told:?}") };
        emptied.namespace = Arc::new(write.object.decode_as().unwrap());
        let conditions = emptied.namespace.status.clone().unwrap().conditions;
        assert!(conditions.iter().all(|condition| condition.status == "False"), "{conditions:?}");
        check(
            plan(&emptied),
            expect![[r#"
            clear events of web
            finalize namespace/web
        "#]],
        );
    }

    #[test]
    fn what_is_leaving_already_is_waited_for() {
        let mut pods = content("pods", "Pod", &["a"]);
        let mut pod = Partial::clone(&pods.objects[0]);
        pod.metadata.deletion_timestamp = Some(ago(1));
        pod.metadata.finalizers = vec!["example.com/hold".into()];
        pods.objects = vec![Arc::new(pod)];
        let plan = plan(&snapshot(vec![pods]));
        let Action::UpdateStatus(write) = &plan[0] else { panic!("a status: {plan:?}") };
        let told: Namespace = write.object.decode_as().unwrap();
        let messages: Vec<String> = told.status.unwrap().conditions.into_iter().map(|it| it.message).collect();
        assert_eq!(
            messages,
            [
                "Some resources are remaining: pods has 1 resource instances",
                "Some content in the namespace has finalizers remaining: example.com/hold"
            ]
        );
        assert_eq!(plan.len(), 1);
    }

    proptest! {
        #[test]
        fn namespaces_settle(pods in 0usize..5, maps in 0usize..5) {
            let (pods, maps): (Vec<String>, Vec<String>) =
                ((0..pods).map(|at| format!("p{at}")).collect(), (0..maps).map(|at| format!("m{at}")).collect());
            let refs = |names: &[String], plural, kind| content(plural, kind, &names.iter().map(String::as_str).collect::<Vec<_>>());
            let mut contents = vec![refs(&pods, "pods", "Pod"), refs(&maps, "configmaps", "ConfigMap")];
            let mut namespace = Arc::new(leaving());
            for _ in 0..6 {
                contents.retain(|content| !content.objects.is_empty());
                let actions = plan(&Snapshot { namespace: namespace.clone(), contents: contents.clone(), now: now() });
                for action in actions {
                    match action {
                        Action::Delete(gone) => contents.iter_mut().for_each(|content| {
                            content.objects.retain(|object| object.metadata.name != gone.target.name);
                        }),
                        Action::Update(write) | Action::UpdateStatus(write) => {
                            namespace = Arc::new(write.object.decode_as().unwrap());
                        }
                        _ => {}
                    }
                }
            }
            prop_assert!(contents.is_empty());
            prop_assert!(namespace.spec.as_ref().unwrap().finalizers.is_empty());
        }
    }
}
