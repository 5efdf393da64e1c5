//! Questions about pods that several rooms ask: is it ready, is it over, which class of service, which ports.

use proto::k8s::{
    core::v1::{Container, ContainerStatus, Pod, PodSpec, PodStatus, ResourceRequirements},
    intstr::IntOrString,
};

use crate::{condition, resources};

/// The values of `status.phase`.
pub mod phase {
    pub const PENDING: &str = "Pending";
    pub const RUNNING: &str = "Running";
    pub const SUCCEEDED: &str = "Succeeded";
    pub const FAILED: &str = "Failed";
    pub const UNKNOWN: &str = "Unknown";
}

/// The values of `status.qosClass`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Qos {
    Guaranteed,
    Burstable,
    BestEffort,
}

impl Qos {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Guaranteed => "Guaranteed",
            Self::Burstable => "Burstable",
            Self::BestEffort => "BestEffort",
        }
    }
}

/// A pod without a spec reads as one with an empty spec.
pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

/// A pod without a status reads as one with an empty status.
pub fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub fn phase(pod: &Pod) -> &str {
    match status(pod).phase.as_str() {
        "" => phase::PENDING,
        phase => phase,
    }
}

/// Its `Ready` condition is true.
pub fn is_ready(pod: &Pod) -> bool {
    condition::is_true(&status(pod).conditions, "Ready")
}

/// It has ended for good: none of its containers will run again.
pub fn is_terminal(pod: &Pod) -> bool {
    matches!(phase(pod), phase::SUCCEEDED | phase::FAILED)
}

pub fn is_deleting(pod: &Pod) -> bool {
    pod.metadata.as_ref().is_some_and(crate::meta::is_deleting)
}

/// It counts for a controller: neither over nor on its way out.
pub fn is_live(pod: &Pod) -> bool {
    !is_terminal(pod) && !is_deleting(pod)
}

pub fn is_scheduled(pod: &Pod) -> bool {
    !spec(pod).node_name.is_empty()
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Init containers first, then the others, as they start.
pub fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    spec(pod).init_containers.iter().chain(&spec(pod).containers)
}

pub fn container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    containers(pod).find(|container| container.name == name)
}

/// The container that `logs` and `exec` mean when none is named: the annotated one, else the first.
pub fn default_container(pod: &Pod) -> Option<&Container> {
    let annotated =
        pod.metadata.as_ref().and_then(|meta| meta.annotations.get("kubectl.kubernetes.io/default-container"));
    annotated.and_then(|name| container(pod, name)).or_else(|| spec(pod).containers.first())
}

pub fn container_status<'a>(pod: &'a Pod, name: &str) -> Option<&'a ContainerStatus> {
    let status = status(pod);
    status.container_statuses.iter().chain(&status.init_container_statuses).find(|status| status.name == name)
}

/// Class of service, from what the containers request and are limited to.
///
/// <https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/>: only cpu and memory count; a request that is absent
/// counts as the limit.
pub fn qos(pod: &Pod) -> Qos {
    let spec = spec(pod);
    let requirements: Vec<Option<&ResourceRequirements>> = match &spec.resources {
        Some(whole) if !whole.requests.is_empty() || !whole.limits.is_empty() => vec![Some(whole)],
        _ => containers(pod).map(|container| container.resources.as_ref()).collect(),
    };
    let amount = |requirements: Option<&ResourceRequirements>, is_limit: bool, name: &str| {
        let requirements = requirements?;
        let list = if is_limit { &requirements.limits } else { &requirements.requests };
        list.get(name).and_then(resources::Amount::of).filter(|amount| !amount.is_zero())
    };
    let (mut is_any, mut is_guaranteed) = (false, !requirements.is_empty());
    for one in requirements {
        for name in ["cpu", "memory"] {
            let (request, limit) = (amount(one, false, name), amount(one, true, name));
            is_any |= request.is_some() || limit.is_some();
            is_guaranteed &= limit.is_some_and(|limit| request.is_none_or(|request| request == limit));
        }
    }
    match (is_any, is_guaranteed) {
        (false, _) => Qos::BestEffort,
        (true, true) => Qos::Guaranteed,
        (true, false) => Qos::Burstable,
    }
}

/// The number of a service's or a probe's target port in one pod; a name is looked up in its containers.
pub fn port_number(pod: &Pod, port: &IntOrString, protocol: &str) -> Option<i32> {
    if port.r#type == 0 {
        return (port.int_val > 0).then_some(port.int_val);
    }
    let is_named = |found: &str| found == protocol || (found.is_empty() && protocol == "TCP");
    spec(pod)
        .init_containers
        .iter()
        .filter(|container| is_sidecar(container))
        .chain(&spec(pod).containers)
        .flat_map(|container| &container.ports)
        .find(|candidate| candidate.name == port.str_val && is_named(&candidate.protocol))
        .map(|found| found.container_port)
}

/// The (host address, protocol, port) triples that this pod takes on its node; "" as address means all of them.
pub fn host_ports(pod: &Pod) -> impl Iterator<Item = (&str, &str, i32)> {
    let is_host = spec(pod).host_network;
    containers(pod).flat_map(|container| &container.ports).filter_map(move |port| {
        let number = if port.host_port == 0 && is_host { port.container_port } else { port.host_port };
        let protocol = if port.protocol.is_empty() { "TCP" } else { port.protocol.as_str() };
        (number > 0).then_some((port.host_ip.as_str(), protocol, number))
    })
}

#[cfg(test)]
mod tests {
    use proto::k8s::{core::v1::ContainerPort, resource::Quantity};

    use super::*;

    fn pod(containers: Vec<Container>) -> Pod {
        Pod { spec: Some(PodSpec { containers, ..Default::default() }), ..Default::default() }
    }

    fn with(requests: &[(&str, &str)], limits: &[(&str, &str)]) -> Container {
        let list = |pairs: &[(&str, &str)]| {
            let quantity = |text: &str| Quantity { string: text.to_owned() };
            pairs.iter().map(|(name, text)| ((*name).to_owned(), quantity(text))).collect()
        };
        Container {
            resources: Some(ResourceRequirements {
                requests: list(requests),
                limits: list(limits),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn qos_follows_requests_and_limits() {
        let both = [("cpu", "1"), ("memory", "1Gi")];
        assert_eq!(qos(&pod(vec![with(&[], &[])])), Qos::BestEffort);
        assert_eq!(qos(&pod(vec![with(&both, &both)])), Qos::Guaranteed);
        assert_eq!(qos(&pod(vec![with(&[], &both)])), Qos::Guaranteed);
        assert_eq!(qos(&pod(vec![with(&[("cpu", "500m")], &both)])), Qos::Burstable);
        assert_eq!(qos(&pod(vec![with(&both, &both), with(&[], &[])])), Qos::Burstable);
        assert_eq!(qos(&pod(vec![with(&[("cpu", "1000m"), ("memory", "1024Mi")], &both)])), Qos::Guaranteed);
        assert_eq!(qos(&pod(vec![with(&[("example.com/gpu", "1")], &[])])), Qos::BestEffort);
    }

    #[test]
    fn a_named_port_is_looked_up_in_the_containers() {
        let port = ContainerPort { name: "http".into(), container_port: 8080, ..Default::default() };
        let pod = pod(vec![Container { ports: vec![port], ..Default::default() }]);
        let named = |name: &str| IntOrString { r#type: 1, str_val: name.into(), ..Default::default() };
        assert_eq!(port_number(&pod, &named("http"), "TCP"), Some(8080));
        assert_eq!(port_number(&pod, &named("http"), "UDP"), None);
        assert_eq!(port_number(&pod, &named("dns"), "TCP"), None);
        assert_eq!(port_number(&pod, &IntOrString { int_val: 81, ..Default::default() }, "TCP"), Some(81));
    }

    #[test]
    fn a_pod_without_a_phase_is_pending() {
        assert_eq!(phase(&Pod::default()), "Pending");
        assert!(is_live(&Pod::default()));
    }
}
