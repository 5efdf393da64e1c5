//! What a pod offers to a service: addresses, ports, readiness. Pure.

use std::{collections::BTreeMap, net::IpAddr};

use model::pod::{is_deleting, is_ready, is_terminal, port_number, spec, status};
use proto::{
    Kind,
    k8s::core::v1::{ObjectReference, Pod, Service, ServiceSpec},
};

/// One port as endpoints carry it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    pub name: String,
    pub protocol: String,
    pub number: i32,
    pub app_protocol: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    V4,
    V6,
}

/// A pod behind a service.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    pub family: Family,
    pub ip: String,
    pub hostname: String,
    pub node: String,
    pub target: ObjectReference,
    /// May get new traffic.
    pub is_ready: bool,
    /// Answers, even if it is on its way out.
    pub is_serving: bool,
    pub is_terminating: bool,
}

pub fn spec_of(service: &Service) -> &ServiceSpec {
    static EMPTY: std::sync::LazyLock<ServiceSpec> = std::sync::LazyLock::new(Default::default);
    service.spec.as_ref().unwrap_or(&EMPTY)
}

/// Whether a service selects a pod; one without a selector selects none, its endpoints are somebody else's.
pub fn selects(service: &Service, pod: &Pod) -> bool {
    let selector = &spec_of(service).selector;
    let labels = &pod.meta().labels;
    !selector.is_empty() && selector.iter().all(|(name, value)| labels.get(name) == Some(value))
}

pub fn is_headless(service: &Service) -> bool {
    spec_of(service).cluster_ip == "None"
}

/// The families a service wants addresses of; all its pods have, where it does not say.
pub fn wants(service: &Service, family: Family) -> bool {
    let families = &spec_of(service).ip_families;
    let name = match family {
        Family::V4 => "IPv4",
        Family::V6 => "IPv6",
    };
    families.is_empty() || families.iter().any(|wanted| wanted == name)
}

/// The backends of a service by the ports they offer, in order of their addresses.
///
/// Pods may call different numbers by one name, so there may be several sets of ports.
pub fn backends<'pods>(
    service: &Service,
    pods: impl Iterator<Item = &'pods Pod>,
) -> BTreeMap<(Family, Vec<Port>), Vec<Backend>> {
    let mut by_ports: BTreeMap<(Family, Vec<Port>), Vec<Backend>> = BTreeMap::new();
    for pod in pods.filter(|pod| !is_terminal(pod)) {
        let Some(ports) = ports(service, pod) else { continue };
        for ip in ips(pod) {
            let Some(family) = family(ip).filter(|family| wants(service, *family)) else { continue };
            by_ports.entry((family, ports.clone())).or_default().push(backend(service, pod, family, ip));
        }
    }
    for backends in by_ports.values_mut() {
        backends.sort_by(|one, other| (&one.ip, &one.target.uid).cmp(&(&other.ip, &other.target.uid)));
    }
    by_ports
}

fn family(ip: &str) -> Option<Family> {
    match ip.parse().ok()? {
        IpAddr::V4(_) => Some(Family::V4),
        IpAddr::V6(_) => Some(Family::V6),
    }
}

fn ips(pod: &Pod) -> Vec<&str> {
    let status = status(pod);
    let mut ips: Vec<&str> = status.pod_ips.iter().map(|ip| ip.ip.as_str()).collect();
    if ips.is_empty() && !status.pod_ip.is_empty() {
        ips.push(&status.pod_ip);
    }
    ips
}

/// The service's ports as this pod has them; a port it does not have is left out, and a pod with none of them is no
/// backend, except of a service that has no ports at all.
fn ports(service: &Service, pod: &Pod) -> Option<Vec<Port>> {
    let asked = &spec_of(service).ports;
    let found: Vec<Port> = asked
        .iter()
        .filter_map(|port| {
            let number = match &port.target_port {
                Some(target) if target.r#type != 0 || target.int_val != 0 => port_number(pod, target, &port.protocol)?,
                _ => port.port,
            };
            let protocol = if port.protocol.is_empty() { "TCP" } else { &port.protocol };
            Some(Port {
                name: port.name.clone(),
                protocol: protocol.to_owned(),
                number,
                app_protocol: port.app_protocol.clone(),
            })
        })
        .collect();
    (asked.is_empty() || !found.is_empty()).then_some(found)
}

fn backend(service: &Service, pod: &Pod, family: Family, ip: &str) -> Backend {
    let is_published = spec_of(service).publish_not_ready_addresses;
    let (is_serving, is_terminating) = (is_ready(pod), is_deleting(pod));
    let has_name = !spec(pod).hostname.is_empty() && spec(pod).subdomain == service.meta().name;
    Backend {
        family,
        ip: ip.to_owned(),
        hostname: if has_name { spec(pod).hostname.clone() } else { String::new() },
        node: spec(pod).node_name.clone(),
        target: ObjectReference {
            kind: Pod::KIND.into(),
            namespace: pod.meta().namespace.clone(),
            name: pod.meta().name.clone(),
            uid: pod.meta().uid.clone(),
            ..Default::default()
        },
        is_ready: is_published || (is_serving && !is_terminating),
        is_serving,
        is_terminating,
    }
}
