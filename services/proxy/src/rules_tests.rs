use expect_test::{Expect, expect};
use proto::k8s::{
    core::v1::{LoadBalancerIngress, LoadBalancerStatus, ServiceStatus},
    discovery::v1::{EndpointConditions, EndpointPort},
};

use super::*;

fn service(change: impl FnOnce(&mut ServiceSpec)) -> Service {
    let port = ServicePort { name: "http".to_owned(), port: 80, protocol: "TCP".to_owned(), ..ServicePort::default() };
    let mut spec = ServiceSpec { cluster_ip: "10.96.0.10".to_owned(), ports: vec![port], ..ServiceSpec::default() };
    change(&mut spec);
    let mut service = Service { spec: Some(spec), ..Service::default() };
    service.meta_mut().namespace = "default".to_owned();
    service.meta_mut().name = "web".to_owned();
    service
}

fn endpoint(address: &str, node: &str) -> Endpoint {
    Endpoint {
        addresses: vec![address.to_owned()],
        node_name: Some(node.to_owned()),
        conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
        ..Endpoint::default()
    }
}

fn in_condition(mut endpoint: Endpoint, ready: bool, serving: bool, terminating: bool) -> Endpoint {
    endpoint.conditions =
        Some(EndpointConditions { ready: Some(ready), serving: Some(serving), terminating: Some(terminating) });
    endpoint
}

fn slice(endpoints: Vec<Endpoint>) -> EndpointSlice {
    let port = EndpointPort {
        name: Some("http".to_owned()),
        port: Some(8080),
        protocol: Some("TCP".to_owned()),
        ..EndpointPort::default()
    };
    EndpointSlice { address_type: "IPv4".to_owned(), endpoints, ports: vec![port], ..EndpointSlice::default() }
}

fn three() -> EndpointSlice {
    slice(vec![endpoint("10.244.1.3", "other"), endpoint("10.244.0.2", "here"), endpoint("10.244.0.1", "here")])
}

fn check(service: &Service, slices: &[EndpointSlice], expected: Expect) {
    let slices: Vec<&EndpointSlice> = slices.iter().collect();
    let mut text = String::new();
    for (key, rule) in rules(&Snapshot { node: "here", service, slices: &slices }) {
        let backends: Vec<String> = rule.backends.iter().map(|backend| backend.address.to_string()).collect();
        let affinity = rule.affinity_seconds.map(|seconds| format!(" sticky {seconds}s")).unwrap_or_default();
        let masquerade = if rule.masquerade { " masquerade" } else { "" };
        text += &format!("{key} -> [{}]{affinity}{masquerade}\n", backends.join(", "));
    }
    expected.assert_eq(&text);
}

#[test]
fn a_cluster_ip_leads_to_every_ready_endpoint() {
    check(
        &service(|_| ()),
        &[three()],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080, 10.244.0.2:8080, 10.244.1.3:8080]
    "#]],
    );
}

#[test]
fn a_service_without_endpoints_has_a_rule_that_refuses() {
    check(
        &service(|_| ()),
        &[],
        expect![[r#"
        10.96.0.10:80 TCP -> []
    "#]],
    );
}

#[test]
fn headless_external_and_foreign_services_have_no_rules() {
    check(&service(|spec| spec.cluster_ip = "None".to_owned()), &[three()], expect![""]);
    check(&service(|spec| spec.r#type = "ExternalName".to_owned()), &[three()], expect![""]);
    check(&service(|spec| spec.cluster_ip = "fd00::1".to_owned()), &[three()], expect![""]);
    let mut foreign = service(|_| ());
    foreign.meta_mut().labels.insert(OTHER_PROXY_LABEL.to_owned(), "x".to_owned());
    check(&foreign, &[three()], expect![""]);
}

#[test]
fn a_node_port_answers_on_every_address_and_masquerades() {
    check(
        &service(|spec| spec.ports[0].node_port = 30080),
        &[slice(vec![endpoint("10.244.0.1", "here")])],
        expect![[r#"
        node:30080 TCP -> [10.244.0.1:8080] masquerade
        10.96.0.10:80 TCP -> [10.244.0.1:8080]
    "#]],
    );
}

#[test]
fn external_traffic_policy_local_keeps_to_this_node_and_the_clients_address() {
    let service = service(|spec| {
        spec.ports[0].node_port = 30080;
        spec.external_traffic_policy = "Local".to_owned();
    });
    check(
        &service,
        &[three()],
        expect![[r#"
        node:30080 TCP -> [10.244.0.1:8080, 10.244.0.2:8080]
        10.96.0.10:80 TCP -> [10.244.0.1:8080, 10.244.0.2:8080, 10.244.1.3:8080]
    "#]],
    );
}

#[test]
fn internal_traffic_policy_local_keeps_to_this_node() {
    let service = service(|spec| spec.internal_traffic_policy = Some("Local".to_owned()));
    check(
        &service,
        &[three()],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080, 10.244.0.2:8080]
    "#]],
    );
    check(
        &service,
        &[slice(vec![endpoint("10.244.1.3", "other")])],
        expect![[r#"
        10.96.0.10:80 TCP -> []
    "#]],
    );
}

#[test]
fn external_and_balancer_addresses_lead_there_too() {
    let mut service = service(|spec| spec.external_ips = vec!["192.0.2.7".to_owned()]);
    let ingress = |ip: &str, mode: Option<&str>| LoadBalancerIngress {
        ip: ip.to_owned(),
        ip_mode: mode.map(str::to_owned),
        ..LoadBalancerIngress::default()
    };
    let ingress = vec![ingress("192.0.2.8", Some("VIP")), ingress("192.0.2.9", Some("Proxy"))];
    service.status =
        Some(ServiceStatus { load_balancer: Some(LoadBalancerStatus { ingress }), ..ServiceStatus::default() });
    check(
        &service,
        &[slice(vec![endpoint("10.244.0.1", "here")])],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080]
        192.0.2.7:80 TCP -> [10.244.0.1:8080] masquerade
        192.0.2.8:80 TCP -> [10.244.0.1:8080] masquerade
    "#]],
    );
}

#[test]
fn client_affinity_lasts_three_hours_unless_said_otherwise() {
    let mut sticky = service(|spec| spec.session_affinity = "ClientIP".to_owned());
    check(
        &sticky,
        &[],
        expect![[r#"
        10.96.0.10:80 TCP -> [] sticky 10800s
    "#]],
    );
    let config = sticky.spec.as_mut().unwrap().session_affinity_config.get_or_insert_default();
    config.client_ip.get_or_insert_default().timeout_seconds = Some(60);
    check(
        &sticky,
        &[],
        expect![[r#"
        10.96.0.10:80 TCP -> [] sticky 60s
    "#]],
    );
}

#[test]
fn an_endpoint_that_is_not_ready_gets_nothing() {
    let endpoints =
        vec![endpoint("10.244.0.1", "here"), in_condition(endpoint("10.244.0.2", "here"), false, false, false)];
    check(
        &service(|_| ()),
        &[slice(endpoints)],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080]
    "#]],
    );
}

#[test]
fn endpoints_that_leave_serve_only_where_no_other_does() {
    let leaving = in_condition(endpoint("10.244.0.2", "here"), false, true, true);
    check(
        &service(|_| ()),
        &[slice(vec![leaving.clone()])],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.2:8080]
    "#]],
    );
    check(
        &service(|_| ()),
        &[slice(vec![endpoint("10.244.0.1", "here"), leaving])],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080]
    "#]],
    );
}

#[test]
fn an_endpoint_in_two_slices_counts_once() {
    let once = || slice(vec![endpoint("10.244.0.1", "here")]);
    check(
        &service(|_| ()),
        &[once(), once()],
        expect![[r#"
        10.96.0.10:80 TCP -> [10.244.0.1:8080]
    "#]],
    );
}

#[test]
fn ports_match_by_name_and_protocol() {
    let mut other_name = slice(vec![endpoint("10.244.0.1", "here")]);
    other_name.ports[0].name = Some("admin".to_owned());
    let mut other_protocol = slice(vec![endpoint("10.244.0.2", "here")]);
    other_protocol.ports[0].protocol = Some("UDP".to_owned());
    let mut other_family = slice(vec![endpoint("fd00::1", "here")]);
    other_family.address_type = "IPv6".to_owned();
    check(
        &service(|_| ()),
        &[other_name, other_protocol, other_family],
        expect![[r#"
        10.96.0.10:80 TCP -> []
    "#]],
    );
}

#[test]
fn each_port_of_a_service_leads_to_what_its_pods_call_by_that_name() {
    let service = service(|spec| {
        let dns = |name: &str, protocol: &str| ServicePort {
            name: name.to_owned(),
            port: 53,
            protocol: protocol.to_owned(),
            ..ServicePort::default()
        };
        spec.ports.extend([dns("dns", "UDP"), dns("dns-tcp", "TCP")]);
    });
    let named = |name: &str, protocol: &str, port| EndpointPort {
        name: Some(name.to_owned()),
        protocol: Some(protocol.to_owned()),
        port: Some(port),
        ..EndpointPort::default()
    };
    let mut old = slice(vec![endpoint("10.244.0.1", "here")]);
    old.ports.extend([named("dns", "UDP", 5353), named("dns-tcp", "TCP", 5353)]);
    // Pods of another version listen elsewhere under the same name, and not at all under another.
    let mut new = slice(vec![endpoint("10.244.0.2", "here")]);
    new.ports = vec![named("http", "TCP", 9090), named("dns", "UDP", 53)];
    check(
        &service,
        &[old, new],
        expect![[r#"
        10.96.0.10:53 TCP -> [10.244.0.1:5353]
        10.96.0.10:80 TCP -> [10.244.0.1:8080, 10.244.0.2:9090]
        10.96.0.10:53 UDP -> [10.244.0.1:5353, 10.244.0.2:53]
    "#]],
    );
}
