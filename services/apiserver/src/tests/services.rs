use futures::future::join_all;
use proto::{
    Kind,
    k8s::core::v1::{Service, ServicePort, ServiceSpec},
};

use super::*;

fn service(name: &str, kind: &str) -> Service {
    let port = ServicePort { port: 80, ..Default::default() };
    let spec = ServiceSpec { r#type: kind.into(), ports: vec![port], ..Default::default() };
    named("default", name, Service { spec: Some(spec), ..Default::default() })
}

fn spec(service: &Service) -> &ServiceSpec {
    service.spec.as_ref().unwrap()
}

#[tokio::test]
async fn the_kubernetes_service_has_the_first_address() {
    let kubernetes = cluster().await.get::<Service>("default", "kubernetes").await.unwrap();
    assert_eq!(spec(&kubernetes).cluster_ip, "10.96.0.1");
}

#[tokio::test]
async fn a_service_is_given_an_address_and_defaults() {
    let cluster = cluster().await;
    let made = cluster.create(&service("web", "")).await.unwrap();
    let spec = spec(&made);
    assert!(spec.cluster_ip.starts_with("10.96."));
    assert_eq!(spec.cluster_ips.join(","), spec.cluster_ip);
    assert_eq!((spec.r#type.as_str(), spec.session_affinity.as_str()), ("ClusterIP", "None"));
    assert_eq!(spec.internal_traffic_policy.as_deref(), Some("Cluster"));
    assert_eq!((spec.ports[0].protocol.as_str(), spec.ports[0].target_port.as_ref().unwrap().int_val), ("TCP", 80));
}

#[tokio::test]
async fn an_address_belongs_to_one_service_until_that_is_deleted() {
    let cluster = cluster().await;
    let mut first = service("a", "");
    first.spec.as_mut().unwrap().cluster_ip = "10.96.5.5".into();
    cluster.create(&first).await.unwrap();
    first.meta_mut().name = "b".into();
    let refusal = cluster.create(&first).await.unwrap_err();
    assert_eq!(refusal.code(), 422);
    assert!(refusal.message().contains("provided IP is already allocated"), "{refusal}");
    cluster.delete::<Service>("default", "a", DeleteOptions::default()).await.unwrap();
    cluster.create(&first).await.unwrap();
}

#[tokio::test]
async fn node_ports_come_and_go_with_the_type() {
    let cluster = cluster().await;
    let made = cluster.create(&service("web", "NodePort")).await.unwrap();
    let port = spec(&made).ports[0].node_port;
    assert!((30000..=32767).contains(&port));
    assert_eq!(spec(&made).external_traffic_policy, "Cluster");

    let mut other = service("other", "NodePort");
    other.spec.as_mut().unwrap().ports[0].node_port = port;
    let refusal = cluster.create(&other).await.unwrap_err();
    assert!(refusal.message().contains(&format!("Invalid value: {port}: provided port is already allocated")));

    let mut inner = made.clone();
    let inner_spec = inner.spec.as_mut().unwrap();
    inner_spec.r#type = "ClusterIP".into();
    inner_spec.external_traffic_policy.clear();
    let inner = cluster.update(&inner).await.unwrap();
    assert_eq!(spec(&inner).ports[0].node_port, 0);
    assert_eq!(spec(&inner).cluster_ip, spec(&made).cluster_ip);
    cluster.create(&other).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_small_range_is_given_out_to_the_last_address() {
    let options = Options { service_cidr: "10.96.0.0/28".parse().unwrap(), ..Options::default() };
    let cluster = cluster_with(options).await;
    let services: Vec<Service> = (0..14).map(|n| service(&format!("s{n}"), "")).collect();
    let made = join_all(services.iter().map(|service| cluster.create(service))).await;
    let mut addresses: Vec<String> =
        made.iter().filter_map(|made| made.as_ref().ok()).map(|made| spec(made).cluster_ip.clone()).collect();
    addresses.sort();
    addresses.dedup();
    // 14 addresses, and the kubernetes Service has one of them.
    assert_eq!(addresses.len(), 13);
    let refusal = made.into_iter().find_map(std::result::Result::err).unwrap();
    assert!(refusal.message().contains("no address is left in the service range 10.96.0.0/28"), "{refusal}");
}

#[tokio::test]
async fn a_headless_service_has_no_address_and_an_address_does_not_change() {
    let cluster = cluster().await;
    let mut headless = service("headless", "");
    headless.spec.as_mut().unwrap().cluster_ip = "None".into();
    assert_eq!(spec(&cluster.create(&headless).await.unwrap()).cluster_ip, "None");
    let mut made = cluster.create(&service("web", "")).await.unwrap();
    let spec = made.spec.as_mut().unwrap();
    (spec.cluster_ip, spec.cluster_ips) = ("10.96.7.7".into(), vec!["10.96.7.7".into()]);
    assert!(cluster.update(&made).await.unwrap_err().message().contains("may not change once set"));
}

#[tokio::test]
async fn an_unconditional_replace_keeps_the_address() {
    let cluster = cluster().await;
    let made = cluster.create(&service("web", "")).await.unwrap();
    let mut again = service("web", "");
    again.spec.as_mut().unwrap().ports[0].port = 81;
    let changed = cluster.update(&again).await.unwrap();
    assert_eq!(spec(&changed).cluster_ip, spec(&made).cluster_ip);
}

#[tokio::test]
async fn a_living_apiserver_is_behind_the_kubernetes_service() {
    let options = Options { advertise: Some(("192.0.2.7".parse().unwrap(), 6443)), ..Options::default() };
    let cluster = cluster_with(options).await;
    let mut heads = cluster.api().hub.heads();
    let slice = loop {
        let found = cluster.get::<proto::k8s::discovery::v1::EndpointSlice>("default", "kubernetes").await;
        match found {
            Ok(slice) => break slice,
            Err(_) => heads.changed().await.unwrap(),
        }
    };
    assert_eq!(slice.endpoints[0].addresses, ["192.0.2.7"]);
    assert_eq!(slice.ports[0].port, Some(6443));
    let endpoints = cluster.get::<proto::k8s::core::v1::Endpoints>("default", "kubernetes").await.unwrap();
    assert_eq!(endpoints.subsets[0].addresses[0].ip, "192.0.2.7");
}

#[tokio::test]
async fn a_type_leaves_behind_what_the_next_one_does_not_have() {
    let cluster = cluster().await;
    let types = ["NodePort", "LoadBalancer", "ClusterIP"];
    for (kind, next) in types.into_iter().flat_map(|kind| [(kind, "ClusterIP"), (kind, "ExternalName")]) {
        let made = cluster.create(&service(&format!("{kind}-{next}").to_lowercase(), kind)).await.unwrap();
        let mut changed = made.clone();
        let spec = changed.spec.as_mut().unwrap();
        spec.r#type = next.into();
        if next == "ExternalName" {
            spec.external_name = "example.com".into();
        }
        let changed = cluster.update(&changed).await.unwrap_or_else(|refusal| panic!("{kind} to {next}: {refusal}"));
        let spec = changed.spec.unwrap();
        assert_eq!((spec.external_traffic_policy.as_str(), spec.ports[0].node_port), ("", 0), "{kind} to {next}");
        assert_eq!(spec.allocate_load_balancer_node_ports, None);
        assert_eq!(spec.cluster_ip.is_empty(), next == "ExternalName");
    }
}

#[tokio::test]
async fn what_the_cluster_cannot_give_is_refused() {
    let cluster = cluster().await;
    let refused = async |change: fn(&mut ServiceSpec)| {
        let mut wanted = service("web", "");
        change(wanted.spec.as_mut().unwrap());
        let refusal = cluster.create(&wanted).await.unwrap_err();
        refusal.message().replace("Service \"web\" is invalid: ", "")
    };
    assert_eq!(
        refused(|spec| spec.ip_families = vec!["IPv6".into()]).await,
        "spec.ipFamilies[0]: Invalid value: \"IPv6\": not configured on this cluster"
    );
    assert_eq!(
        refused(|spec| spec.ip_family_policy = Some("RequireDualStack".into())).await,
        "spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": this cluster is not configured for dual-stack services"
    );
    assert_eq!(
        refused(|spec| spec.load_balancer_class = Some("example.com/lb".into())).await,
        "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"
    );
    assert_eq!(
        refused(|spec| spec.external_ips = vec!["127.0.0.1".into()]).await,
        "spec.externalIPs[0]: Invalid value: \"127.0.0.1\": must be an address that reaches a node from outside"
    );
    assert!(refused(|spec| spec.health_check_node_port = 30000).await.starts_with("spec.healthCheckNodePort: Invalid"));
}

#[tokio::test]
async fn a_dry_run_sees_that_an_address_is_taken() {
    let cluster = cluster().await;
    let mut taken = service("web", "");
    taken.spec.as_mut().unwrap().cluster_ip = "10.96.0.1".into();
    let dry = WriteOptions { dry_run: true, ..Default::default() };
    let target = cluster.target::<Service>("default", "");
    let refusal = cluster.api().create(&cluster.context, target, raw(&taken), &dry).await.unwrap_err();
    assert!(refusal.message().contains("provided IP is already allocated"), "{refusal}");
    let made = cluster.create(&service("web", "NodePort")).await.unwrap();
    let mut other = service("other", "NodePort");
    other.spec.as_mut().unwrap().ports[0].node_port = spec(&made).ports[0].node_port;
    let refusal = cluster.api().create(&cluster.context, target, raw(&other), &dry).await.unwrap_err();
    assert!(refusal.message().contains("provided port is already allocated"), "{refusal}");
    assert_eq!(cluster.get::<Service>("default", "other").await.unwrap_err().code(), 404);
}

#[tokio::test]
async fn the_kubernetes_service_follows_its_apiserver() {
    let at = |address: &str, port| Options { advertise: Some((address.parse().unwrap(), port)), ..Options::default() };
    let until = async |cluster: &Cluster, count: usize| {
        let mut heads = cluster.api().hub.heads();
        loop {
            let found = cluster.get::<proto::k8s::core::v1::Endpoints>("default", "kubernetes").await;
            if found.is_ok_and(|endpoints| endpoints.subsets.len() == count) {
                return;
            }
            heads.changed().await.unwrap();
        }
    };
    let first = cluster_with(at("192.0.2.7", 6443)).await;
    until(&first, 1).await;
    first.server.stop().await;
    // The next one is reached by nobody else, and at another port.
    let server = Server::new(at("127.0.0.1", 7443), Arc::new(first.store.clone()));
    server.start().await;
    let next = Cluster { server, store: first.store, context: first.context };
    until(&next, 0).await;
    let service = next.get::<Service>("default", "kubernetes").await.unwrap();
    assert_eq!(spec(&service).ports[0].target_port.as_ref().unwrap().int_val, 7443);
}
