//! Services and the endpoints behind them.

use prost::Message;
use proto::{
    Kind,
    k8s::{
        core::v1::{Endpoints, Service, ServicePort, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
};

use super::{AGE, Column, NAME, Row, Sheet, age, first_three, or, selector, text};

pub static SERVICES: Sheet = sheet!(
    &[
        NAME,
        Column::text("Type", "How it is reached: ClusterIP, NodePort, LoadBalancer or ExternalName."),
        Column::text("Cluster-IP", "Its address inside the cluster."),
        Column::text("External-IP", "Addresses it has outside the cluster."),
        Column::text("Port(s)", "Its ports, with the node port after a colon."),
        AGE,
        Column::text("Selector", "The labels of the pods behind it.").wide(),
    ],
    Service,
    service
);

pub static ENDPOINTS: Sheet = sheet!(
    &[NAME, Column::text("Endpoints", "Addresses and ports that are ready."), AGE],
    Endpoints,
    |endpoints: &Endpoints, now| {
        let age = age(endpoints.meta().creation_timestamp.as_ref(), now);
        Row::of([text(&endpoints.meta().name), first_three(&ready(endpoints), "<none>").into(), age.into()])
    }
);

pub static ENDPOINT_SLICES: Sheet = sheet!(
    &[
        NAME,
        Column::text("AddressType", "IPv4, IPv6 or FQDN."),
        Column::text("Ports", "The ports of every endpoint."),
        Column::text("Endpoints", "The addresses."),
        AGE,
    ],
    EndpointSlice,
    slice
);

fn service(service: &Service, now: i64) -> Row {
    let spec = service.spec.clone().unwrap_or_default();
    let cluster_ip = spec.cluster_ips.first().unwrap_or(&spec.cluster_ip);
    let ports: Vec<String> = spec.ports.iter().map(port).collect();
    Row::of([
        text(&service.meta().name),
        text(&spec.r#type),
        text(or(cluster_ip, "<none>")),
        external(service, &spec).into(),
        text(or(&ports.join(","), "<none>")),
        age(service.meta().creation_timestamp.as_ref(), now).into(),
        selector(&spec.selector).into(),
    ])
}

fn port(port: &ServicePort) -> String {
    match port.node_port {
        0 => format!("{}/{}", port.port, port.protocol),
        node_port => format!("{}:{node_port}/{}", port.port, port.protocol),
    }
}

fn external(service: &Service, spec: &ServiceSpec) -> String {
    match spec.r#type.as_str() {
        "ExternalName" => spec.external_name.clone(),
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let ingress = balancer.map_or(&[][..], |balancer| &balancer.ingress);
            let mut addresses: Vec<&str> =
                ingress.iter().map(|ingress| or(&ingress.ip, &ingress.hostname)).filter(|a| !a.is_empty()).collect();
            addresses.extend(spec.external_ips.iter().map(String::as_str));
            or(&addresses.join(","), "<pending>").to_owned()
        }
        _ => or(&spec.external_ips.join(","), "<none>").to_owned(),
    }
}

fn ready(endpoints: &Endpoints) -> Vec<String> {
    let mut addresses = Vec::new();
    for subset in &endpoints.subsets {
        for address in &subset.addresses {
            match subset.ports.as_slice() {
                [] => addresses.push(address.ip.clone()),
                ports => addresses.extend(ports.iter().map(|port| host_port(&address.ip, port.port))),
            }
        }
    }
    addresses
}

fn host_port(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn slice(slice: &EndpointSlice, now: i64) -> Row {
    let port = |port: &proto::k8s::discovery::v1::EndpointPort| match (port.port, &port.name) {
        (Some(number), _) => number.to_string(),
        (None, Some(name)) if !name.is_empty() => name.clone(),
        _ => "*".to_owned(),
    };
    let ports: Vec<String> = slice.ports.iter().map(port).collect();
    let addresses: Vec<String> = slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone()).collect();
    Row::of([
        text(&slice.meta().name),
        text(&slice.address_type),
        first_three(&ports, "<unset>").into(),
        first_three(&addresses, "<unset>").into(),
        age(slice.meta().creation_timestamp.as_ref(), now).into(),
    ])
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::{
        core::v1::{
            EndpointAddress, EndpointPort, EndpointSubset, LoadBalancerIngress, LoadBalancerStatus, ServiceStatus,
        },
        discovery::v1::Endpoint,
    };

    use super::*;

    fn web(kind: &str) -> Service {
        let port = |port, node_port| ServicePort { port, node_port, protocol: "TCP".into(), ..Default::default() };
        let mut service = Service {
            spec: Some(ServiceSpec {
                r#type: kind.into(),
                cluster_ip: "10.96.0.10".into(),
                cluster_ips: vec!["10.96.0.10".into()],
                ports: vec![port(80, 0), port(443, 30_443)],
                selector: [("app".to_owned(), "web".to_owned())].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        service.meta_mut().name = "web".into();
        service
    }

    #[test]
    fn a_service_shows_its_ports_with_node_ports() {
        expect![[r#"
            Name         web
            Type         NodePort
            Cluster-IP   10.96.0.10
            External-IP  <none>
            Port(s)      80/TCP,443:30443/TCP
            Age          <unknown>
            Selector     app=web
        "#]]
        .assert_eq(&super::super::show::row(&SERVICES, &service(&web("NodePort"), 0)));
    }

    #[test]
    fn a_load_balancer_is_pending_until_it_has_an_address() {
        let mut balancer = web("LoadBalancer");
        assert_eq!(service(&balancer, 0).cells[3], "<pending>".into());
        let ingress = vec![LoadBalancerIngress { hostname: "lb.example".into(), ..Default::default() }];
        balancer.status =
            Some(ServiceStatus { load_balancer: Some(LoadBalancerStatus { ingress }), ..Default::default() });
        assert_eq!(service(&balancer, 0).cells[3], "lb.example".into());
    }

    #[test]
    fn endpoints_beyond_three_are_counted() {
        let address = |last: u8| EndpointAddress { ip: format!("10.244.0.{last}"), ..Default::default() };
        let ports = vec![EndpointPort { port: 80, ..Default::default() }];
        let subset = EndpointSubset { addresses: (1..6).map(address).collect(), ports, ..Default::default() };
        let endpoints = Endpoints { subsets: vec![subset], ..Default::default() };
        let row = ENDPOINTS.row(&endpoints.encode_to_vec(), 0).unwrap();
        assert_eq!(row.cells[1], "10.244.0.1:80,10.244.0.2:80,10.244.0.3:80 + 2 more...".into());
        assert_eq!(ENDPOINTS.row(&[], 0).unwrap().cells[1], "<none>".into());
    }

    #[test]
    fn a_slice_without_endpoints_says_so() {
        let empty = EndpointSlice { address_type: "IPv4".into(), ..Default::default() };
        assert_eq!(slice(&empty, 0).cells[2..4], ["<unset>".into(), "<unset>".into()]);
        let port = proto::k8s::discovery::v1::EndpointPort { port: Some(8080), ..Default::default() };
        let endpoints = vec![Endpoint { addresses: vec!["10.244.0.9".into()], ..Default::default() }];
        let full = EndpointSlice { endpoints, ports: vec![port], ..empty };
        assert_eq!(slice(&full, 0).cells[2..4], ["8080".into(), "10.244.0.9".into()]);
    }
}
