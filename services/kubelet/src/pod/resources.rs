//! A pod's claims as numbers the kernel takes: QoS class, cgroup names, shares, quotas, OOM scores. PURE.

use std::collections::BTreeMap;

use proto::k8s::{
    core::v1::{Container, Pod, PodSpec},
    resource::Quantity,
};

use crate::{
    cgroup::Limits,
    runtime::{CgroupDriver, Resources},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QosClass {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl QosClass {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

type List = BTreeMap<String, Quantity>;

fn limits(container: &Container) -> Option<&List> {
    container.resources.as_ref().map(|resources| &resources.limits)
}

fn requests(container: &Container) -> Option<&List> {
    container.resources.as_ref().map(|resources| &resources.requests)
}

fn claim(list: Option<&List>, resource: &str) -> Option<i64> {
    let quantity = list?.get(resource)?;
    Some(if resource == "cpu" { quantity.milli() } else { quantity.value() }).filter(|claim| *claim > 0)
}

/// The quality of service by Kubernetes' rules, from cpu and memory alone.
pub fn qos_class(spec: &PodSpec) -> QosClass {
    let containers = || spec.init_containers.iter().chain(&spec.containers);
    let claims_nothing = |container: &Container| {
        let has = |list: Option<&List>| claim(list, "cpu").or(claim(list, "memory")).is_some();
        !has(limits(container)) && !has(requests(container))
    };
    let is_exact = |container: &Container| {
        ["cpu", "memory"].into_iter().all(|resource| {
            let limit = claim(limits(container), resource);
            limit.is_some() && claim(requests(container), resource).is_none_or(|request| Some(request) == limit)
        })
    };
    if containers().all(claims_nothing) {
        QosClass::BestEffort
    } else if containers().all(is_exact) {
        QosClass::Guaranteed
    } else {
        QosClass::Burstable
    }
}

/// The cgroup a pod's containers live below, in the form the runtime's driver takes.
pub fn cgroup_parent(driver: CgroupDriver, root: &str, qos: QosClass, uid: &str) -> String {
    let class = class_levels(qos);
    match driver {
        CgroupDriver::Cgroupfs => cgroup(driver, root, &[class, &[&format!("pod{uid}")]].concat()),
        // In a slice's name a dash is a level; the uid's own are written as underscores.
        CgroupDriver::Systemd => cgroup(driver, root, &[class, &[&format!("pod{}", uid.replace('-', "_"))]].concat()),
    }
}

/// The cgroup of all pods of a class; guaranteed ones lie beside the classes.
pub fn class_cgroup(driver: CgroupDriver, root: &str, qos: QosClass) -> Option<String> {
    let levels = class_levels(qos);
    (!levels.is_empty()).then(|| cgroup(driver, root, levels))
}

fn class_levels(qos: QosClass) -> &'static [&'static str] {
    match qos {
        QosClass::Guaranteed => &[],
        QosClass::Burstable => &["burstable"],
        QosClass::BestEffort => &["besteffort"],
    }
}

fn cgroup(driver: CgroupDriver, root: &str, levels: &[&str]) -> String {
    let levels = [&[root], levels].concat();
    match driver {
        CgroupDriver::Cgroupfs => format!("/{}", levels.join("/")),
        CgroupDriver::Systemd => format!("{}.slice", levels.join("-")),
    }
}

/// What a pod as a whole weighs against others, and may use.
///
/// Its cgroup is bounded only where every container is: one without a limit may use what the node has.
pub fn pod_limits(pod: &Pod) -> Limits {
    let (requests, whole) = (model::resources::pod_requests(pod), model::resources::pod_limits(pod));
    let is_bounded = |resource| model::pod::containers(pod).all(|c| claim(limits(c), resource).is_some());
    Limits {
        cpu_shares: shares(requests.get("cpu").milli_value()),
        cpu_quota_us: if is_bounded("cpu") { quota(whole.get("cpu").milli_value()) } else { 0 },
        memory_bytes: if is_bounded("memory") { whole.get("memory").value() } else { 0 },
    }
}

/// What all burstable pods of a node weigh together.
pub fn burstable_limits<'a>(pods: impl Iterator<Item = &'a Pod>) -> Limits {
    let is_burstable =
        |pod: &&Pod| !model::pod::is_terminal(pod) && qos_class(model::pod::spec(pod)) == QosClass::Burstable;
    let milli = pods.filter(is_burstable).map(|pod| model::resources::pod_requests(pod).get("cpu").milli_value()).sum();
    Limits { cpu_shares: shares(milli), ..Limits::default() }
}

/// Best-effort pods get what nobody else wants.
pub const BEST_EFFORT: Limits = Limits { cpu_shares: SHARES_MIN, cpu_quota_us: 0, memory_bytes: 0 };

fn shares(milli: i64) -> i64 {
    (milli * 1024 / 1000).clamp(SHARES_MIN, SHARES_MAX)
}

fn quota(milli: i64) -> i64 {
    (milli * QUOTA_PERIOD_US / 1000).max(QUOTA_MIN_US)
}

pub const QUOTA_PERIOD_US: i64 = 100_000;
const QUOTA_MIN_US: i64 = 1_000;
const SHARES_MIN: i64 = 2;
const SHARES_MAX: i64 = 262_144;

/// What one container may use.
pub fn container_resources(spec: &PodSpec, container: &Container, node_memory: i64) -> Resources {
    let (limits, requests) = (limits(container), requests(container));
    let cpu_limit = claim(limits, "cpu");
    let cpu = claim(requests, "cpu").or(cpu_limit);
    Resources {
        cpu_shares: cpu.map_or(SHARES_MIN, shares),
        cpu_quota_us: cpu_limit.map_or(0, quota),
        memory_bytes: claim(limits, "memory").unwrap_or(0),
        oom_score_adj: oom_score_adj(qos_class(spec), claim(requests, "memory").unwrap_or(0), node_memory),
    }
}

/// Who is killed first when the node runs out of memory: best effort, then who asked for little.
fn oom_score_adj(qos: QosClass, memory_request: i64, node_memory: i64) -> i32 {
    match qos {
        QosClass::Guaranteed => -997,
        QosClass::BestEffort => 1000,
        QosClass::Burstable => {
            let share = 1000_i128 * i128::from(memory_request) / i128::from(node_memory.max(1));
            i32::try_from(1000 - share).unwrap_or(0).clamp(3, 999)
        }
    }
}

/// The pause container's score: the pod falls with it, so it goes last.
pub const SANDBOX_OOM_SCORE_ADJ: i32 = -998;

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::ResourceRequirements;

    use super::*;

    fn list(entries: &[(&str, &str)]) -> List {
        entries.iter().map(|(k, v)| ((*k).to_owned(), Quantity { string: (*v).to_owned() })).collect()
    }

    fn pod(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> PodSpec {
        let resources = ResourceRequirements { requests: list(requests), limits: list(limits), ..Default::default() };
        PodSpec {
            containers: vec![Container { resources: Some(resources), ..Default::default() }],
            ..Default::default()
        }
    }

    #[test]
    fn quality_of_service_follows_cpu_and_memory() {
        assert_eq!(qos_class(&pod(&[], &[])), QosClass::BestEffort);
        assert_eq!(qos_class(&pod(&[("cpu", "100m")], &[])), QosClass::Burstable);
        let both = [("cpu", "1"), ("memory", "64Mi")];
        assert_eq!(qos_class(&pod(&both, &[("cpu", "1000m"), ("memory", "64Mi")])), QosClass::Guaranteed);
        assert_eq!(qos_class(&pod(&[], &both)), QosClass::Guaranteed);
        assert_eq!(qos_class(&pod(&both, &[("cpu", "2"), ("memory", "64Mi")])), QosClass::Burstable);
    }

    #[test]
    fn cgroup_parents_have_the_form_of_their_driver() {
        let parent = |driver, qos| cgroup_parent(driver, "kubepods", qos, "1-2");
        assert_eq!(parent(CgroupDriver::Cgroupfs, QosClass::Burstable), "/kubepods/burstable/pod1-2");
        assert_eq!(parent(CgroupDriver::Cgroupfs, QosClass::Guaranteed), "/kubepods/pod1-2");
        assert_eq!(parent(CgroupDriver::Systemd, QosClass::BestEffort), "kubepods-besteffort-pod1_2.slice");
    }

    #[test]
    fn a_pods_cgroup_is_bounded_only_where_all_its_containers_are() {
        let spec = |more: Option<Container>| {
            let mut spec = pod(&[("cpu", "250m")], &[("cpu", "500m"), ("memory", "64Mi")]);
            spec.containers.extend(more);
            Pod { spec: Some(spec), ..Default::default() }
        };
        let bounded = Limits { cpu_shares: 256, cpu_quota_us: 50_000, memory_bytes: 64 << 20 };
        assert_eq!(pod_limits(&spec(None)), bounded);
        let free = Limits { cpu_shares: 256, ..Limits::default() };
        assert_eq!(pod_limits(&spec(Some(Container::default()))), free);
        assert_eq!(pod_limits(&Pod::default()).cpu_shares, 2);
    }

    #[test]
    fn burstable_pods_weigh_together_what_they_request() {
        let one = Pod { spec: Some(pod(&[("cpu", "500m")], &[])), ..Default::default() };
        let guaranteed = [("cpu", "2"), ("memory", "1Gi")];
        let other = Pod { spec: Some(pod(&guaranteed, &guaranteed)), ..Default::default() };
        let mut over = one.clone();
        over.status.get_or_insert_default().phase = "Succeeded".into();
        assert_eq!(burstable_limits([&one, &one, &other, &over].into_iter()).cpu_shares, 1024);
        let class = |qos| class_cgroup(CgroupDriver::Systemd, "kubepods", qos);
        assert_eq!(class(QosClass::Burstable).as_deref(), Some("kubepods-burstable.slice"));
        assert_eq!(class(QosClass::Guaranteed), None);
    }

    #[test]
    fn requests_weigh_and_limits_bind() {
        let spec = pod(&[("cpu", "250m"), ("memory", "1Gi")], &[("cpu", "500m"), ("memory", "2Gi")]);
        let resources = container_resources(&spec, &spec.containers[0], 4 << 30);
        let expected = Resources { cpu_shares: 256, cpu_quota_us: 50_000, memory_bytes: 2 << 30, oom_score_adj: 750 };
        assert_eq!(resources, expected);
    }
}
