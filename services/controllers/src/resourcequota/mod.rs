//! ResourceQuota status: what is in use, counted anew.
//!
//! The apiserver counts each creation on the quota in the creation's own transaction; this controller counts off what
//! was deleted or has ended, and whatever else drifted. Its write carries the quota's revision, so that a creation
//! between counting and writing makes it count again.

mod usage;

use std::sync::Arc;

use client::{Action, Controller, Key, Reflector, controller::Watches};
use jiff::Timestamp;
use model::{
    quota,
    resources::{Amount, Resources},
};
use proto::{
    Kind, Resource,
    k8s::core::v1::{ConfigMap, Pod, ReplicationController, ResourceQuota, Service, ServiceAccount},
};

/// Resources of which only the number counts, so only their metadata is kept.
const COUNTED: [(&str, &str); 10] = [
    ("", "secrets"),
    ("", "persistentvolumeclaims"),
    ("apps", "deployments"),
    ("apps", "replicasets"),
    ("apps", "statefulsets"),
    ("apps", "daemonsets"),
    ("batch", "jobs"),
    ("batch", "cronjobs"),
    ("networking.k8s.io", "ingresses"),
    ("autoscaling", "horizontalpodautoscalers"),
];

pub struct ResourceQuotas;

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub quota: Arc<ResourceQuota>,
    /// What every object of the namespace uses, as far as the quota's scopes cover it.
    pub used: Resources,
}

impl Controller for ResourceQuotas {
    type Snapshot = Snapshot;
    const NAME: &'static str = "resourcequota";

    fn watches(&self, watches: Watches) -> Watches {
        let watches = watches
            .each::<ResourceQuota>()
            .map::<Pod>(|caches, pod| of_namespace(caches, &pod.meta().namespace))
            .map::<Service>(|caches, service| of_namespace(caches, &service.meta().namespace))
            .map::<ReplicationController>(|caches, owner| of_namespace(caches, &owner.meta().namespace))
            .map::<ConfigMap>(|caches, map| of_namespace(caches, &map.meta().namespace))
            .map::<ServiceAccount>(|caches, account| of_namespace(caches, &account.meta().namespace));
        COUNTED.iter().fold(watches, |watches, (group, plural)| {
            watches.map_metadata(group, plural, |caches, object| of_namespace(caches, &object.metadata.namespace))
        })
    }

    fn observe(&self, caches: &Reflector, key: &Key, _: Timestamp) -> Option<Snapshot> {
        let quota = caches.cache::<ResourceQuota>().get(&key.namespace, &key.name)?;
        let mut used = Resources::default();
        for pod in caches.cache::<Pod>().list_in(&key.namespace) {
            if quota::covers(&quota, &pod) {
                used.add(&usage::of_pod(&pod));
            }
        }
        if quota::covers_all(&quota) {
            for service in caches.cache::<Service>().list_in(&key.namespace) {
                used.add(&usage::of_service(&service));
            }
            used.add(&counted::<ReplicationController>(caches, &key.namespace));
            used.add(&counted::<ConfigMap>(caches, &key.namespace));
            used.add(&counted::<ServiceAccount>(caches, &key.namespace));
            used.add(&counted::<ResourceQuota>(caches, &key.namespace));
            for (group, plural) in COUNTED {
                let count = caches.metadata(group, plural).map_or(0, |cache| cache.list_in(&key.namespace).len());
                used.add(&usage::count(group, plural, count));
            }
        }
        Some(Snapshot { quota, used })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

/// The status as counted, where it is not what is stored.
pub fn plan(Snapshot { quota, used }: &Snapshot) -> Vec<Action> {
    if model::meta::is_deleting(quota.meta()) {
        return Vec::new();
    }
    let hard = quota.spec.as_ref().map(|spec| spec.hard.clone()).unwrap_or_default();
    let named = hard.keys().filter(|name| usage::is_known(name));
    let wanted = Resources(named.map(|name| (name.clone(), used.get(name))).collect());
    let stored = quota.status.clone().unwrap_or_default();
    if stored.hard == hard && Resources::of(&stored.used) == wanted {
        return Vec::new();
    }
    let said: Vec<String> = wanted.0.iter().map(|(name, amount)| format!("{name}={amount}")).collect();
    let mut updated = ResourceQuota::clone(quota);
    let status = updated.status.get_or_insert_default();
    (status.hard, status.used) = (hard, wanted.quantities());
    vec![Action::update_status(&updated).remark(said.join(" "))]
}

fn of_namespace(caches: &Reflector, namespace: &str) -> Vec<Key> {
    caches.cache::<ResourceQuota>().list_in(namespace).iter().map(|quota| Key::of(quota.as_ref())).collect()
}

fn counted<K: Resource>(caches: &Reflector, namespace: &str) -> Resources {
    usage::count(K::GROUP, K::PLURAL, caches.cache::<K>().list_in(namespace).len())
}

/// A number of objects as an amount.
fn amount(count: usize) -> Amount {
    Amount::count(i64::try_from(count).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;
    use proto::k8s::{
        core::v1::{Container, ResourceQuotaSpec, ResourceRequirements},
        resource::Quantity,
    };

    use super::*;
    use crate::testing::{World, acting, check, named, pod, settles};

    fn quota(hard: &[(&str, &str)]) -> ResourceQuota {
        let quantity = |text: &str| Quantity { string: text.to_owned() };
        let hard = hard.iter().map(|(name, text)| ((*name).to_owned(), quantity(text))).collect();
        ResourceQuota { spec: Some(ResourceQuotaSpec { hard, ..Default::default() }), ..named("limit") }
    }

    fn asking(name: &str, cpu: &str) -> Pod {
        let mut pod = pod(name, &[]);
        let mut resources = ResourceRequirements::default();
        resources.requests.insert("cpu".into(), Quantity { string: cpu.into() });
        pod.spec.get_or_insert_default().containers =
            vec![Container { resources: Some(resources), ..Default::default() }];
        pod
    }

    fn used(quota: &ResourceQuota, pods: &[Pod]) -> Resources {
        let mut used = Resources::default();
        pods.iter().filter(|pod| quota::covers(quota, pod)).for_each(|pod| used.add(&usage::of_pod(pod)));
        used
    }

    #[test]
    fn use_is_counted_for_what_the_quota_names() {
        let quota = quota(&[("pods", "4"), ("requests.cpu", "2"), ("secrets", "9")]);
        let mut ended = asking("ended", "1");
        ended.status.as_mut().unwrap().phase = "Succeeded".into();
        let used = used(&quota, &[asking("a", "500m"), asking("b", "250m"), ended]);
        check(
            plan(&Snapshot { quota: Arc::new(quota), used }),
            expect![[r#"
            status resourcequota/limit pods=2 requests.cpu=750m secrets=0
        "#]],
        );
    }

    #[test]
    fn a_scope_narrows_what_is_counted() {
        let mut quota = quota(&[("pods", "4")]);
        quota.spec.as_mut().unwrap().scopes = vec!["BestEffort".into()];
        let used = used(&quota, &[asking("a", "500m"), pod("b", &[])]);
        check(
            plan(&Snapshot { quota: Arc::new(quota), used }),
            expect![[r#"
            status resourcequota/limit pods=1
        "#]],
        );
    }

    #[test]
    fn the_same_use_written_differently_is_no_news() {
        let mut stored = quota(&[("requests.cpu", "2")]);
        let status = stored.status.get_or_insert_default();
        status.hard = stored.spec.as_ref().unwrap().hard.clone();
        status.used.insert("requests.cpu".into(), Quantity { string: "0.5".into() });
        let used = used(&stored, &[asking("a", "500m")]);
        check(plan(&Snapshot { quota: Arc::new(stored), used }), expect![""]);
    }

    proptest! {
        #[test]
        fn quotas_settle(cpus in proptest::collection::vec(0u32..5000, 0..20)) {
            let pods: Vec<Pod> = cpus.iter().enumerate().map(|(at, cpu)| asking(&format!("p{at}"), &format!("{cpu}m"))).collect();
            let mut world = World::default().with([quota(&[("pods", "4"), ("cpu", "2"), ("count/pods", "9")])]);
            let observe = |world: &World| {
                let quota: Arc<ResourceQuota> = world.get("limit").unwrap();
                Snapshot { used: used(&quota, &pods), quota }
            };
            settles(&mut world, 2, |world| plan(&observe(world)), &[acting::<ResourceQuota>]);
            let status = world.get::<ResourceQuota>("limit").unwrap().status.clone().unwrap();
            prop_assert_eq!(&status.used["count/pods"].string, &pods.len().to_string());
        }
    }
}
