//! What a ReplicationController does about the pods it sees. Pure.

use std::{cmp::Reverse, sync::Arc};

use client::Action;
use jiff::{SignedDuration, Timestamp};
use model::{
    meta::{controlled_by, is_controlled_by, is_deleting},
    pod::{is_live, is_ready, is_scheduled, phase, status},
};
use proto::{
    Kind,
    k8s::core::v1::{Pod, ReplicationController, ReplicationControllerSpec, ReplicationControllerStatus},
};

use crate::time::instant;

/// Pods created or deleted by one plan: what follows is planned on what has become of these.
pub const BURST: usize = 500;

#[derive(Debug, Clone)]
pub struct Snapshot {
    pub controller: Arc<ReplicationController>,
    /// The pods it controls, and those without a controller that its selector matches.
    pub pods: Vec<Arc<Pod>>,
    pub now: Timestamp,
}

/// Steps from what is to what is wanted; empty once they agree.
pub fn plan(Snapshot { controller, pods, now }: &Snapshot) -> Vec<Action> {
    let uid = &controller.meta().uid;
    let mut actions = Vec::new();
    let (owned, orphans): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        pods.iter().partition(|pod| is_controlled_by(pod.meta(), uid));
    let (members, strays): (Vec<&Arc<Pod>>, Vec<&Arc<Pod>>) =
        owned.into_iter().partition(|pod| matches(controller, pod));
    actions.extend(status_update(controller, &members, *now));
    if is_deleting(controller.meta()) {
        return actions;
    }
    actions.extend(strays.iter().filter(|pod| !is_deleting(pod.meta())).map(|pod| released(pod, uid)));

    let adoptable = orphans.into_iter().filter(|pod| is_live(pod));
    let mut live: Vec<&Arc<Pod>> = members.iter().copied().filter(|pod| is_live(pod)).chain(adoptable).collect();
    let wanted = usize::try_from(spec(controller).replicas.unwrap_or(1)).unwrap_or(0);
    let missing = wanted.saturating_sub(live.len()).min(BURST);
    let surplus = live.len().saturating_sub(wanted).min(BURST);

    live.sort_by_cached_key(|pod| loss(pod));
    let (removed, kept) = live.split_at(surplus);
    actions.extend(removed.iter().map(|pod| delete(controller, pod)));
    let adopted = kept.iter().filter(|pod| !is_controlled_by(pod.meta(), uid));
    actions.extend(adopted.map(|pod| adopt(controller, pod)));
    if missing > 0 {
        let create = create(controller);
        actions.extend(std::iter::repeat_n(create, missing));
    }
    actions
}

/// Whether the selector matches a pod; an empty selector matches nothing.
pub fn matches(controller: &ReplicationController, pod: &Pod) -> bool {
    let selector = &spec(controller).selector;
    let labels = &pod.meta().labels;
    !selector.is_empty()
        && pod.meta().namespace == controller.meta().namespace
        && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

fn spec(controller: &ReplicationController) -> &ReplicationControllerSpec {
    static EMPTY: std::sync::LazyLock<ReplicationControllerSpec> = std::sync::LazyLock::new(Default::default);
    controller.spec.as_ref().unwrap_or(&EMPTY)
}

/// How much is lost with a pod; the smallest loss comes first.
///
/// An unscheduled pod is lost without loss, then one that does not run, then one that is not ready; of ready pods the
/// one that became so last, then the one that restarted most, then the youngest.
fn loss(pod: &Pod) -> impl Ord + use<> {
    let phase = match phase(pod) {
        phase::PENDING => 0,
        phase::UNKNOWN => 1,
        _ => 2,
    };
    let restarts = status(pod).container_statuses.iter().map(|container| container.restart_count).max();
    let created = pod.meta().creation_timestamp.map(|time| time.seconds);
    (
        is_scheduled(pod),
        phase,
        is_ready(pod),
        Reverse(ready_since(pod).map(|time| time.as_second())),
        Reverse(restarts.unwrap_or(0)),
        Reverse(created),
        pod.meta().name.clone(),
    )
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    let ready = model::condition::find(&status(pod).conditions, "Ready")?;
    (ready.status == "True").then(|| ready.last_transition_time.as_ref().map(instant)).flatten()
}

fn create(controller: &ReplicationController) -> Action {
    let template = spec(controller).template.clone().unwrap_or_default();
    let mut pod = Pod { metadata: template.metadata, spec: template.spec, status: None };
    let meta = pod.meta_mut();
    meta.name.clear();
    meta.generate_name = format!("{}-", controller.meta().name);
    meta.namespace.clone_from(&controller.meta().namespace);
    meta.owner_references = vec![controlled_by(controller)];
    Action::create(&pod).telling(
        controller,
        ("SuccessfulCreate", "Created pod: "),
        ("FailedCreate", "Error creating: "),
    )
}

fn delete(controller: &ReplicationController, pod: &Pod) -> Action {
    Action::delete(pod).telling(controller, ("SuccessfulDelete", "Deleted pod: "), ("FailedDelete", "Error deleting: "))
}

fn adopt(controller: &ReplicationController, pod: &Pod) -> Action {
    let mut adopted = pod.clone();
    adopted.meta_mut().owner_references.push(controlled_by(controller));
    Action::update(&adopted).remark("adopted")
}

fn released(pod: &Pod, uid: &str) -> Action {
    let mut released = pod.clone();
    released.meta_mut().owner_references.retain(|owner| owner.uid != uid);
    Action::update(&released).remark("released")
}

/// The status as counted now, where it is not what is stored; and when a ready pod will have been so for long enough.
fn status_update(controller: &ReplicationController, members: &[&Arc<Pod>], now: Timestamp) -> Vec<Action> {
    let live: Vec<&Arc<Pod>> = members.iter().copied().filter(|pod| is_live(pod)).collect();
    let template = spec(controller).template.as_ref().and_then(|template| template.metadata.as_ref());
    let is_fully_labeled = |pod: &Pod| {
        template.is_none_or(|template| {
            template.labels.iter().all(|(name, value)| pod.meta().labels.get(name) == Some(value))
        })
    };
    let patience = SignedDuration::from_secs(spec(controller).min_ready_seconds.into());
    let available_at = |pod: &Pod| ready_since(pod).map_or(now, |since| since + patience);
    let ready: Vec<&&Arc<Pod>> = live.iter().filter(|pod| is_ready(pod)).collect();
    let soon = ready.iter().map(|pod| available_at(pod)).filter(|time| *time > now).min();
    let count = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let wanted = ReplicationControllerStatus {
        replicas: count(live.len()),
        fully_labeled_replicas: count(live.iter().filter(|pod| is_fully_labeled(pod)).count()),
        ready_replicas: count(ready.len()),
        available_replicas: count(ready.iter().filter(|pod| available_at(pod) <= now).count()),
        observed_generation: controller.meta().generation,
        conditions: controller.status.clone().unwrap_or_default().conditions,
    };
    let mut actions: Vec<Action> = soon.map(Action::WakeAt).into_iter().collect();
    if controller.status.as_ref() != Some(&wanted) {
        let remark = format!(
            "replicas={} ready={} available={}",
            wanted.replicas, wanted.ready_replicas, wanted.available_replicas
        );
        let updated = ReplicationController { status: Some(wanted), ..ReplicationController::clone(controller) };
        actions.push(Action::update_status(&updated).remark(remark));
    }
    actions
}
