//! What a service means on one node. Pure.
//!
//! IPv4 only: the pod and service ranges are IPv4, and slices or addresses of another family are passed over.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{Ipv4Addr, SocketAddrV4},
};

use proto::{
    Kind,
    k8s::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointSlice},
    },
};

/// Three hours, as in Kubernetes.
const AFFINITY_SECONDS_DEFAULT: u32 = 10800;
/// Services that another proxy cares for carry this label.
const OTHER_PROXY_LABEL: &str = "service.kubernetes.io/service-proxy-name";
/// Names the service a slice belongs to.
pub const SERVICE_LABEL: &str = "kubernetes.io/service-name";

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceKey {
    pub namespace: String,
    pub name: String,
}

impl fmt::Display for ServiceKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}/{}", self.namespace, self.name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    Tcp,
    Udp,
    Sctp,
}

impl Protocol {
    pub const ALL: [Self; 3] = [Self::Tcp, Self::Udp, Self::Sctp];

    /// Empty means TCP.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "TCP" => Some(Self::Tcp),
            "UDP" => Some(Self::Udp),
            "SCTP" => Some(Self::Sctp),
            _ => None,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        }
    }
}

/// Where clients knock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Absent: every address of the node, that is a node port.
    pub address: Option<Ipv4Addr>,
    pub protocol: Protocol,
    pub port: u16,
}

impl fmt::Display for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => write!(out, "{address}:{} {}", self.port, self.protocol.name()),
            None => write!(out, "node:{} {}", self.port, self.protocol.name()),
        }
    }
}

/// Where connections go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Backend {
    pub address: SocketAddrV4,
    /// On this node.
    pub is_local: bool,
}

/// What happens at a [`Key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub service: ServiceKey,
    pub port_name: String,
    /// In order, each once. Empty: connections are refused.
    pub backends: Vec<Backend>,
    /// A client keeps its backend for this long after its last connection.
    pub affinity_seconds: Option<u32>,
    /// Whether a connection passed on to another node takes this node's address, so that answers come back this way.
    pub masquerade: bool,
}

/// Everything in force on a node.
pub type RuleSet = BTreeMap<Key, Rule>;

/// One service with its slices, as seen from a node.
pub struct Snapshot<'a> {
    pub node: &'a str,
    pub service: &'a Service,
    pub slices: &'a [&'a EndpointSlice],
}

/// The rules of one service; none for one that has no address.
pub fn rules(Snapshot { node, service, slices }: &Snapshot) -> RuleSet {
    let mut rules = RuleSet::new();
    let Some(spec) = &service.spec else { return rules };
    if spec.r#type == "ExternalName" || service.meta().labels.contains_key(OTHER_PROXY_LABEL) {
        return rules;
    }
    let Ok(cluster_ip) = spec.cluster_ip.parse::<Ipv4Addr>() else { return rules };
    let name = ServiceKey { namespace: service.meta().namespace.clone(), name: service.meta().name.clone() };
    let inside_is_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    let outside_is_local = spec.external_traffic_policy == "Local";

    for service_port in &spec.ports {
        let Some(protocol) = Protocol::parse(&service_port.protocol) else { continue };
        let endpoints = endpoints(slices, service_port, protocol, node);
        let rule = |local_only: bool, from_outside: bool| Rule {
            service: name.clone(),
            port_name: service_port.name.clone(),
            backends: usable(&endpoints, local_only),
            affinity_seconds: affinity(spec),
            masquerade: from_outside && !local_only,
        };
        if let Some(port) = port(service_port.port) {
            rules.insert(Key { address: Some(cluster_ip), protocol, port }, rule(inside_is_local, false));
            for address in outside_addresses(service, spec) {
                rules.insert(Key { address: Some(address), protocol, port }, rule(outside_is_local, true));
            }
        }
        if let Some(port) = port(service_port.node_port) {
            rules.insert(Key { address: None, protocol, port }, rule(outside_is_local, true));
        }
    }
    rules
}

fn affinity(spec: &ServiceSpec) -> Option<u32> {
    let configured = spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = configured.and_then(|client| client.timeout_seconds).and_then(|seconds| u32::try_from(seconds).ok());
    (spec.session_affinity == "ClientIP").then(|| seconds.filter(|s| *s > 0).unwrap_or(AFFINITY_SECONDS_DEFAULT))
}

fn outside_addresses(service: &Service, spec: &ServiceSpec) -> BTreeSet<Ipv4Addr> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer.map(|balancer| balancer.ingress.as_slice()).unwrap_or_default();
    // "Proxy" means that packets arrive with the node's address already.
    let ingress =
        ingress.iter().filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy")).map(|ingress| &ingress.ip);
    spec.external_ips.iter().chain(ingress).filter_map(|address| address.parse().ok()).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Ready,
    /// On its way out but still answering: better than nothing.
    Leaving,
}

fn endpoints(
    slices: &[&EndpointSlice],
    service_port: &ServicePort,
    protocol: Protocol,
    node: &str,
) -> Vec<(Backend, Condition)> {
    let mut found = Vec::new();
    for slice in slices.iter().filter(|slice| slice.address_type == "IPv4") {
        for slice_port in &slice.ports {
            let is_named = slice_port.name.as_deref().unwrap_or_default() == service_port.name;
            let is_protocol = Protocol::parse(slice_port.protocol.as_deref().unwrap_or_default()) == Some(protocol);
            let Some(port) = slice_port.port.and_then(port).filter(|_| is_named && is_protocol) else { continue };
            for endpoint in &slice.endpoints {
                let Some(condition) = condition(endpoint) else { continue };
                let is_local = endpoint.node_name.as_deref() == Some(node);
                let addresses = endpoint.addresses.iter().filter_map(|address| address.parse().ok());
                found.extend(
                    addresses.map(|ip| (Backend { address: SocketAddrV4::new(ip, port), is_local }, condition)),
                );
            }
        }
    }
    found
}

fn condition(endpoint: &Endpoint) -> Option<Condition> {
    let conditions = endpoint.conditions.unwrap_or_default();
    if conditions.ready.unwrap_or(true) {
        Some(Condition::Ready)
    } else if conditions.terminating == Some(true) && conditions.serving == Some(true) {
        Some(Condition::Leaving)
    } else {
        None
    }
}

/// The ready ones; where there is none, those that are leaving.
fn usable(endpoints: &[(Backend, Condition)], local_only: bool) -> Vec<Backend> {
    let in_condition = |wanted: Condition| -> Vec<Backend> {
        let chosen =
            endpoints.iter().filter(|(backend, condition)| *condition == wanted && (backend.is_local || !local_only));
        // A backend two slices name counts once, and as local where one of them says so.
        let mut distinct: BTreeMap<SocketAddrV4, bool> = BTreeMap::new();
        for (backend, _) in chosen {
            *distinct.entry(backend.address).or_default() |= backend.is_local;
        }
        distinct.into_iter().map(|(address, is_local)| Backend { address, is_local }).collect()
    };
    let ready = in_condition(Condition::Ready);
    if ready.is_empty() { in_condition(Condition::Leaving) } else { ready }
}

fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port > 0)
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
