//! Services: a stable address and port in front of changing pods.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::IpNet;
use model::validate;
use proto::k8s::{
    core::v1::{ClientIpConfig, Service, ServicePort, ServiceSpec, SessionAffinityConfig},
    intstr::IntOrString,
};

use super::Settings;
use crate::registry::{Causes, Claim, Pool, Strategy};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const FAMILIES: &[&str] = &["IPv4", "IPv6"];
const FAMILY_POLICIES: &[&str] = &["SingleStack", "PreferDualStack", "RequireDualStack"];
const HEADLESS: &str = "None";
/// Three hours.
const AFFINITY_SECONDS: i32 = 10_800;
const AFFINITY_SECONDS_MAX: i32 = 86_400;

pub(super) struct Services(pub Settings);

impl Strategy for Services {
    type Object = Service;

    fn fill_in(&self, service: &mut Service) {
        let spec = service.spec.get_or_insert_default();
        if spec.r#type.is_empty() {
            spec.r#type = "ClusterIP".to_owned();
        }
        if spec.session_affinity.is_empty() {
            spec.session_affinity = "None".to_owned();
        }
        default_affinity(spec);
        for port in &mut spec.ports {
            default_port(port);
        }
        match (spec.cluster_ip.is_empty(), spec.cluster_ips.first()) {
            (false, None) => spec.cluster_ips = vec![spec.cluster_ip.clone()],
            (true, Some(first)) => spec.cluster_ip.clone_from(first),
            _ => {}
        }
        let is_external = matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer");
        if is_external && spec.external_traffic_policy.is_empty() {
            spec.external_traffic_policy = "Cluster".to_owned();
        }
        if spec.r#type == "LoadBalancer" {
            spec.allocate_load_balancer_node_ports.get_or_insert(true);
        }
        if spec.r#type != "ExternalName" {
            spec.internal_traffic_policy.get_or_insert_with(|| "Cluster".to_owned());
            spec.ip_family_policy.get_or_insert_with(|| "SingleStack".to_owned());
            if spec.ip_families.is_empty() {
                spec.ip_families = vec!["IPv4".to_owned()];
            }
        }
    }

    fn prepare_update(&self, new: &mut Service, old: &Service) {
        let (Some(new), Some(old)) = (new.spec.as_mut(), old.spec.as_ref()) else { return };
        leave_behind(new, old);
        // What was given is kept where the update does not say otherwise.
        let has_address = new.r#type != "ExternalName";
        if has_address && new.cluster_ip.is_empty() && old.r#type != "ExternalName" {
            new.cluster_ip.clone_from(&old.cluster_ip);
            new.cluster_ips.clone_from(&old.cluster_ips);
        }
        if !needs_node_ports(new) {
            // A node port that the type no longer has goes back, unless the update itself asks for it.
            for port in &mut new.ports {
                if old.ports.iter().any(|known| known.node_port == port.node_port) {
                    port.node_port = 0;
                }
            }
            return;
        }
        for port in new.ports.iter_mut().filter(|port| port.node_port == 0) {
            let known = old.ports.iter().find(|known| known.port == port.port && known.protocol == port.protocol);
            port.node_port = known.map_or(0, |known| known.node_port);
        }
    }

    fn validate(&self, service: &Service, causes: &mut Causes) {
        let spec = service.spec.clone().unwrap_or_default();
        causes.one_of("spec.type", &spec.r#type, TYPES);
        causes.one_of("spec.sessionAffinity", &spec.session_affinity, AFFINITIES);
        self.validate_addresses(&spec, causes);
        self.validate_ports(&spec, causes);
        for (key, value) in &spec.selector {
            causes.invalid_each("spec.selector", key, validate::qualified_name(key));
            causes.invalid_each("spec.selector", value, validate::label_value(value));
        }
        if let Some(policy) = &spec.internal_traffic_policy {
            causes.one_of("spec.internalTrafficPolicy", policy, POLICIES);
        }
        if !spec.external_traffic_policy.is_empty() {
            causes.one_of("spec.externalTrafficPolicy", &spec.external_traffic_policy, POLICIES);
            if !matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") {
                let detail = "may only be set for externally-accessible services";
                causes.invalid("spec.externalTrafficPolicy", &spec.external_traffic_policy, detail);
            }
        }
        validate_balancer(&spec, causes);
        let timeout =
            spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        if let Some(seconds) = timeout.filter(|seconds| !(1..=AFFINITY_SECONDS_MAX).contains(seconds)) {
            let field = "spec.sessionAffinityConfig.clientIP.timeoutSeconds";
            let detail = format!("must be greater than 0 and less than {AFFINITY_SECONDS_MAX}");
            causes.invalid_number(field, i64::from(seconds), detail);
        }
    }

    fn validate_update(&self, new: &Service, old: &Service, causes: &mut Causes) {
        self.validate(new, causes);
        let (new, old) = (new.spec.clone().unwrap_or_default(), old.spec.clone().unwrap_or_default());
        let is_internal = |spec: &ServiceSpec| spec.r#type != "ExternalName";
        if is_internal(&new) && is_internal(&old) && !old.cluster_ip.is_empty() && new.cluster_ip != old.cluster_ip {
            causes.invalid("spec.clusterIPs[0]", &new.cluster_ip, "may not change once set");
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        validate::dns1035_label(name)
    }

    fn has_claims(&self) -> bool {
        true
    }

    fn claims(&self, service: &Service) -> Vec<Claim> {
        let Some(spec) = &service.spec else { return Vec::new() };
        let address = Some(&spec.cluster_ip).filter(|ip| !ip.is_empty() && *ip != HEADLESS).map(|ip| Claim {
            pool: Pool::ServiceAddresses,
            value: ip.clone(),
            field: "spec.clusterIPs".to_owned(),
        });
        let mut seen = BTreeSet::new();
        let ports =
            spec.ports.iter().enumerate().filter(|(_, port)| port.node_port != 0 && seen.insert(port.node_port));
        let ports = ports.map(|(index, port)| Claim {
            pool: Pool::NodePorts,
            value: port.node_port.to_string(),
            field: format!("spec.ports[{index}].nodePort"),
        });
        address.into_iter().chain(ports).collect()
    }

    fn allocate(
        &self,
        service: &mut Service,
        _old: Option<&Service>,
        pick: &mut dyn FnMut(Pool) -> Option<String>,
    ) -> Result<(), Pool> {
        let Some(spec) = &mut service.spec else { return Ok(()) };
        if spec.r#type != "ExternalName" && spec.cluster_ip.is_empty() {
            let address = pick(Pool::ServiceAddresses).ok_or(Pool::ServiceAddresses)?;
            spec.cluster_ips = vec![address.clone()];
            spec.cluster_ip = address;
        }
        if needs_node_ports(spec) {
            for port in spec.ports.iter_mut().filter(|port| port.node_port == 0) {
                let picked = pick(Pool::NodePorts).ok_or(Pool::NodePorts)?;
                port.node_port = picked.parse().map_err(|_| Pool::NodePorts)?;
            }
        }
        Ok(())
    }
}

impl Services {
    fn validate_addresses(&self, spec: &ServiceSpec, causes: &mut Causes) {
        if spec.r#type == "ExternalName" {
            if spec.external_name.is_empty() {
                causes.required("spec.externalName", "");
            } else {
                let name = spec.external_name.trim_end_matches('.');
                causes.invalid_each("spec.externalName", &spec.external_name, validate::dns_subdomain(name));
            }
            if !spec.cluster_ip.is_empty() {
                causes.forbidden("spec.clusterIPs", "may not be set for ExternalName services");
            }
            return;
        }
        validate_families(spec, causes);
        if spec.cluster_ips.len() > 1 {
            causes.invalid("spec.clusterIPs", &spec.cluster_ips.join(","), "may only hold 1 value");
        }
        if spec.cluster_ips.first().is_some_and(|first| *first != spec.cluster_ip) {
            let detail = "first value must match `clusterIP`";
            causes.invalid("spec.clusterIPs", &spec.cluster_ips.join(","), detail);
        }
        if spec.cluster_ip == HEADLESS {
            if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") {
                let detail = format!("may not be set to 'None' for {} services", spec.r#type);
                causes.invalid("spec.clusterIPs[0]", HEADLESS, detail);
            }
        } else if !spec.cluster_ip.is_empty() {
            match spec.cluster_ip.parse::<Ipv4Addr>() {
                Ok(address) if self.0.service_cidr.contains(&address) => {}
                Ok(address) => {
                    let detail = format!(
                        "failed to allocate IP {address}: the provided IP is not in the valid range. The range of \
                         valid IPs is {}",
                        self.0.service_cidr
                    );
                    causes.invalid("spec.clusterIPs", &spec.cluster_ip, detail);
                }
                Err(_) => causes.invalid_each("spec.clusterIPs[0]", &spec.cluster_ip, validate::ip(&spec.cluster_ip)),
            }
        }
        for (index, address) in spec.external_ips.iter().enumerate() {
            let field = format!("spec.externalIPs[{index}]");
            match address.parse::<IpAddr>() {
                Ok(parsed) if parsed.is_loopback() || parsed.is_unspecified() || parsed.is_multicast() => {
                    causes.invalid(field, address, "must be an address that reaches a node from outside");
                }
                Ok(_) => {}
                Err(_) => causes.invalid_each(field, address, validate::ip(address)),
            }
        }
    }

    fn validate_ports(&self, spec: &ServiceSpec, causes: &mut Causes) {
        let may_lack_ports = spec.cluster_ip == HEADLESS || spec.r#type == "ExternalName";
        if spec.ports.is_empty() && !may_lack_ports {
            causes.required("spec.ports", "");
        }
        let (mut names, mut ports, mut node_ports) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for (index, port) in spec.ports.iter().enumerate() {
            let field = format!("spec.ports[{index}]");
            if port.name.is_empty() {
                if spec.ports.len() > 1 {
                    causes.required(format!("{field}.name"), "");
                }
            } else {
                causes.invalid_each(format!("{field}.name"), &port.name, validate::dns_label(&port.name));
                if !names.insert(&port.name) {
                    causes.duplicate(format!("{field}.name"), &port.name);
                }
            }
            for problem in validate::port(i64::from(port.port)) {
                causes.invalid_number(format!("{field}.port"), i64::from(port.port), problem);
            }
            causes.one_of(format!("{field}.protocol"), &port.protocol, PROTOCOLS);
            validate_target(port.target_port.as_ref(), &format!("{field}.targetPort"), causes);
            if !ports.insert((port.port, &port.protocol)) {
                causes.duplicate(&field, &format!("{}/{}", port.port, port.protocol));
            }
            if port.node_port != 0 {
                self.validate_node_port(spec, port, &format!("{field}.nodePort"), causes);
                if !node_ports.insert((port.node_port, &port.protocol)) {
                    causes.duplicate(format!("{field}.nodePort"), &port.node_port.to_string());
                }
            }
        }
    }

    fn validate_node_port(&self, spec: &ServiceSpec, port: &ServicePort, field: &str, causes: &mut Causes) {
        if !matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") {
            causes.forbidden(field, "may not be used when `type` is 'ClusterIP'");
        } else if !u16::try_from(port.node_port).is_ok_and(|number| self.0.node_ports.contains(&number)) {
            let (first, last) = (self.0.node_ports.start(), self.0.node_ports.end());
            let detail = format!("provided port is not in the valid range. The range of valid ports is {first}-{last}");
            causes.invalid_number(field, i64::from(port.node_port), detail);
        }
    }
}

/// Takes off what the new type does not have, where the update carries it on from the old type unchanged.
fn leave_behind(new: &mut ServiceSpec, old: &ServiceSpec) {
    if new.r#type == "ExternalName" && old.r#type != "ExternalName" && new.cluster_ip == old.cluster_ip {
        new.cluster_ip.clear();
        new.cluster_ips.clear();
        new.ip_families.clear();
        new.ip_family_policy = None;
        new.internal_traffic_policy = None;
    }
    let is_external = matches!(new.r#type.as_str(), "NodePort" | "LoadBalancer");
    if !is_external && new.external_traffic_policy == old.external_traffic_policy {
        new.external_traffic_policy.clear();
    }
    if new.r#type != "LoadBalancer" {
        if new.allocate_load_balancer_node_ports == old.allocate_load_balancer_node_ports {
            new.allocate_load_balancer_node_ports = None;
        }
        if new.load_balancer_class == old.load_balancer_class {
            new.load_balancer_class = None;
        }
        if new.health_check_node_port == old.health_check_node_port {
            new.health_check_node_port = 0;
        }
    }
}

/// The cluster's addresses are of one family.
fn validate_families(spec: &ServiceSpec, causes: &mut Causes) {
    if let Some(policy) = &spec.ip_family_policy {
        causes.one_of("spec.ipFamilyPolicy", policy, FAMILY_POLICIES);
        if policy == "RequireDualStack" {
            let detail = "this cluster is not configured for dual-stack services";
            causes.invalid("spec.ipFamilyPolicy", policy, detail);
        }
    }
    for (index, family) in spec.ip_families.iter().enumerate() {
        let field = format!("spec.ipFamilies[{index}]");
        causes.one_of(&field, family, FAMILIES);
        if family == "IPv6" {
            causes.invalid(field, family, "not configured on this cluster");
        } else if index > 0 {
            causes.duplicate(field, family);
        }
    }
}

/// What only a load balancer outside the cluster has.
fn validate_balancer(spec: &ServiceSpec, causes: &mut Causes) {
    let is_balanced = spec.r#type == "LoadBalancer";
    for (index, range) in spec.load_balancer_source_ranges.iter().enumerate() {
        let field = format!("spec.loadBalancerSourceRanges[{index}]");
        if range.trim().parse::<IpNet>().is_err() {
            causes.invalid(field, range, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)");
        }
    }
    for (name, is_set) in [
        ("loadBalancerSourceRanges", !spec.load_balancer_source_ranges.is_empty()),
        ("loadBalancerClass", spec.load_balancer_class.is_some()),
        ("allocateLoadBalancerNodePorts", spec.allocate_load_balancer_node_ports.is_some()),
    ] {
        if is_set && !is_balanced {
            causes.forbidden(format!("spec.{name}"), "may only be used when `type` is 'LoadBalancer'");
        }
    }
    let is_checked = is_balanced && spec.external_traffic_policy == "Local";
    if spec.health_check_node_port != 0 && !is_checked {
        let detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
        causes.invalid_number("spec.healthCheckNodePort", i64::from(spec.health_check_node_port), detail);
    }
}

fn needs_node_ports(spec: &ServiceSpec) -> bool {
    match spec.r#type.as_str() {
        "NodePort" => true,
        "LoadBalancer" => spec.allocate_load_balancer_node_ports != Some(false),
        _ => false,
    }
}

fn default_affinity(spec: &mut ServiceSpec) {
    if spec.session_affinity != "ClientIP" {
        if spec.session_affinity == "None" {
            spec.session_affinity_config = None;
        }
        return;
    }
    let config = spec.session_affinity_config.get_or_insert_with(SessionAffinityConfig::default);
    config.client_ip.get_or_insert_with(ClientIpConfig::default).timeout_seconds.get_or_insert(AFFINITY_SECONDS);
}

fn default_port(port: &mut ServicePort) {
    if port.protocol.is_empty() {
        port.protocol = "TCP".to_owned();
    }
    let target = port.target_port.get_or_insert_default();
    if *target == IntOrString::default() {
        target.int_val = port.port;
    }
}

fn validate_target(target: Option<&IntOrString>, field: &str, causes: &mut Causes) {
    match target {
        Some(IntOrString { r#type: 1, str_val, .. }) => {
            causes.invalid_each(field, str_val, validate::port_name(str_val));
        }
        Some(target) => {
            for problem in validate::port(i64::from(target.int_val)) {
                causes.invalid_number(field, i64::from(target.int_val), problem);
            }
        }
        None => {}
    }
}
