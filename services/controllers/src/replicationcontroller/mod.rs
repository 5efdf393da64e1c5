//! ReplicationController: as many pods of a template as the user asked for.

mod plan;

use std::sync::Arc;

use client::{Action, Controller, Key, Reflector, controller::Watches};
use jiff::Timestamp;
use proto::{
    Kind,
    k8s::core::v1::{Pod, ReplicationController, ResourceQuota},
};

pub use plan::{Snapshot, plan};

/// Pods by the uid of the owner that controls them.
const BY_CONTROLLER: &str = "controller";
/// Pods nobody controls, by namespace.
const ORPHANS: &str = "orphans";

pub struct ReplicationControllers;

impl Controller for ReplicationControllers {
    type Snapshot = Snapshot;
    const NAME: &'static str = "replicationcontroller";

    fn watches(&self, watches: Watches) -> Watches {
        watches
            .each::<ReplicationController>()
            .index::<Pod>(BY_CONTROLLER, |pod| {
                model::meta::controller_of(pod.meta()).map(|owner| owner.uid.clone()).into_iter().collect()
            })
            .index::<Pod>(ORPHANS, |pod| {
                let is_orphan = model::meta::controller_of(pod.meta()).is_none();
                is_orphan.then(|| pod.meta().namespace.clone()).into_iter().collect()
            })
            .map::<Pod>(concerned)
            // A quota that gave way may let refused pods in.
            .map::<ResourceQuota>(|caches, quota| {
                let controllers = caches.cache::<ReplicationController>().list_in(&quota.meta().namespace);
                controllers.iter().filter(|controller| is_short(controller)).map(|it| Key::of(it.as_ref())).collect()
            })
    }

    fn observe(&self, caches: &Reflector, key: &Key, now: Timestamp) -> Option<Snapshot> {
        let controller = caches.cache::<ReplicationController>().get(&key.namespace, &key.name)?;
        let pods = caches.cache::<Pod>();
        let owned = pods.by_index(BY_CONTROLLER, &controller.meta().uid);
        let orphans = pods.by_index(ORPHANS, &key.namespace);
        let matching = orphans.into_iter().filter(|pod| plan::matches(&controller, pod));
        let owned = owned.into_iter().filter(|pod| pod.meta().namespace == key.namespace);
        Some(Snapshot { pods: owned.chain(matching).collect(), controller, now })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

/// The controller of a pod, or those that would adopt it.
fn concerned(caches: &Reflector, pod: &Pod) -> Vec<Key> {
    let namespace = &pod.meta().namespace;
    match model::meta::controller_of(pod.meta()) {
        Some(owner) if owner.kind == ReplicationController::KIND => vec![Key::new(namespace, &owner.name)],
        Some(_) => Vec::new(),
        None => {
            let controllers: Vec<Arc<ReplicationController>> = caches.cache().list_in(namespace);
            controllers.iter().filter(|it| plan::matches(it, pod)).map(|it| Key::of(it.as_ref())).collect()
        }
    }
}

fn is_short(controller: &ReplicationController) -> bool {
    let wanted = controller.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    controller.status.as_ref().is_none_or(|status| status.replicas < wanted)
}

#[cfg(test)]
mod tests;
