//! What one pod asks of a node, worked out once when the pod is seen.

use std::{collections::BTreeMap, fmt, sync::Arc};

use proto::{
    Kind,
    k8s::core::v1::{NodeSelector, Pod, PreferredSchedulingTerm, Toleration},
};

use crate::resources::{self, Nominal, Resources};

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
}

impl PodKey {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for PodKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

/// A port of the node that a container wants for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    pub protocol: String,
    pub port: i32,
    /// Empty: every address of the node.
    pub address: String,
}

impl HostPort {
    pub fn collides_with(&self, other: &Self) -> bool {
        let same_address = self.address == other.address || self.address.is_empty() || other.address.is_empty();
        self.port == other.port && self.protocol == other.protocol && same_address
    }
}

/// What a pod asks of a node. Equal demands get equal decisions, so a change elsewhere in the pod wakes nobody.
#[derive(Clone, Debug, PartialEq)]
pub struct Demand {
    pub key: PodKey,
    pub uid: String,
    pub priority: i32,
    pub requests: Resources,
    pub nominal: Nominal,
    pub host_ports: Vec<HostPort>,
    pub node_selector: BTreeMap<String, String>,
    pub required_affinity: Option<NodeSelector>,
    pub preferred_affinity: Vec<PreferredSchedulingTerm>,
    pub tolerations: Vec<Toleration>,
    /// A hard constraint this scheduler has no filter for; such a pod waits rather than being placed wrongly.
    pub unknown_constraint: Option<&'static str>,
}

impl Demand {
    pub fn of(pod: &Pod) -> Self {
        let empty = Default::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let node_affinity = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
        let requests = resources::requests(spec);
        Self {
            key: PodKey::new(&pod.meta().namespace, &pod.meta().name),
            uid: pod.meta().uid.clone(),
            priority: spec.priority.unwrap_or_default(),
            nominal: resources::nominal(spec, &requests),
            requests,
            host_ports: host_ports(spec),
            node_selector: spec.node_selector.clone(),
            required_affinity: node_affinity
                .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.clone()),
            preferred_affinity: node_affinity
                .map(|affinity| affinity.preferred_during_scheduling_ignored_during_execution.clone())
                .unwrap_or_default(),
            tolerations: spec.tolerations.clone(),
            unknown_constraint: unknown_constraint(spec),
        }
    }
}

fn host_ports(spec: &proto::k8s::core::v1::PodSpec) -> Vec<HostPort> {
    let sidecars =
        spec.init_containers.iter().filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers
        .iter()
        .chain(sidecars)
        .flat_map(|container| &container.ports)
        .filter(|port| port.host_port > 0)
        .map(|port| HostPort {
            protocol: if port.protocol.is_empty() { "TCP".to_owned() } else { port.protocol.clone() },
            port: port.host_port,
            address: if port.host_ip == "0.0.0.0" || port.host_ip == "::" {
                String::new()
            } else {
                port.host_ip.clone()
            },
        })
        .collect()
}

fn unknown_constraint(spec: &proto::k8s::core::v1::PodSpec) -> Option<&'static str> {
    let affinity = spec.affinity.as_ref();
    let near = affinity.and_then(|affinity| affinity.pod_affinity.as_ref());
    let apart = affinity.and_then(|affinity| affinity.pod_anti_affinity.as_ref());
    if near.is_some_and(|near| !near.required_during_scheduling_ignored_during_execution.is_empty()) {
        return Some("required podAffinity");
    }
    if apart.is_some_and(|apart| !apart.required_during_scheduling_ignored_during_execution.is_empty()) {
        return Some("required podAntiAffinity");
    }
    let spread = spec.topology_spread_constraints.iter().any(|rule| rule.when_unsatisfiable == "DoNotSchedule");
    spread.then_some("topologySpreadConstraints with DoNotSchedule")
}
