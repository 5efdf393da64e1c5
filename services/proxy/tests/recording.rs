//! The room without a kernel: rules follow the API, and the door shows them.
#![allow(clippy::unwrap_used)]

use client::fake::FakeApi;
use kit::{
    life::Shutdown,
    tls::{self, Ca, ClientTls, Clients, Subject},
};
use proto::{
    Kind,
    forestay::proxy::v1::{RulesRequest, proxy_client::ProxyClient},
    k8s::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::{Endpoint, EndpointPort, EndpointSlice},
    },
};
use proxy::{Mode, Options, Recording, rules::RuleSet};

fn service(name: &str, address: &str) -> Service {
    let port = ServicePort { port: 80, ..ServicePort::default() };
    let spec = ServiceSpec { cluster_ip: address.to_owned(), ports: vec![port], ..ServiceSpec::default() };
    let mut service = Service { spec: Some(spec), ..Service::default() };
    (service.meta_mut().namespace, service.meta_mut().name) = ("default".to_owned(), name.to_owned());
    service
}

fn slice(service: &str, addresses: &[&str]) -> EndpointSlice {
    let mut slice = EndpointSlice {
        address_type: "IPv4".to_owned(),
        endpoints: addresses
            .iter()
            .map(|address| Endpoint { addresses: vec![address.to_string()], ..Endpoint::default() })
            .collect(),
        ports: vec![EndpointPort { port: Some(8080), ..EndpointPort::default() }],
        ..EndpointSlice::default()
    };
    (slice.meta_mut().namespace, slice.meta_mut().name) = ("default".to_owned(), format!("{service}-x"));
    slice.meta_mut().labels.insert("kubernetes.io/service-name".to_owned(), service.to_owned());
    slice
}

fn options(recording: &Recording) -> Options {
    Options { node_name: "n1".to_owned(), mode: Mode::Recording, recording: recording.clone(), ..Options::default() }
}

fn backends(rules: &RuleSet) -> Vec<String> {
    rules.values().flat_map(|rule| &rule.backends).map(|backend| backend.address.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_follow_services_and_slices_even_when_those_go() {
    let (client, api) = FakeApi::start().await;
    api.put(&service("web", "10.96.0.10"));
    api.put(&slice("web", &["10.244.0.1", "10.244.0.2"]));
    let (recording, shutdown) = (Recording::default(), Shutdown::new());
    let running = tokio::spawn(proxy::run(options(&recording), client, shutdown.clone()));
    recording.until(|rules| backends(rules) == ["10.244.0.1:8080", "10.244.0.2:8080"]).await;
    api.put(&slice("web", &["10.244.0.2"]));
    recording.until(|rules| backends(rules) == ["10.244.0.2:8080"]).await;
    api.remove::<EndpointSlice>("default", "web-x");
    recording.until(|rules| rules.len() == 1 && backends(rules).is_empty()).await;
    api.remove::<Service>("default", "web");
    recording.until(RuleSet::is_empty).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_watch_costs_nothing_but_time() {
    let (client, api) = FakeApi::start().await;
    let (recording, shutdown) = (Recording::default(), Shutdown::new());
    let running = tokio::spawn(proxy::run(options(&recording), client, shutdown.clone()));
    api.put(&service("web", "10.96.0.10"));
    recording.until(|rules| rules.len() == 1).await;
    api.break_watches();
    api.put(&slice("web", &["10.244.0.1"]));
    recording.until(|rules| backends(rules) == ["10.244.0.1:8080"]).await;
    shutdown.trigger();
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn administrators_see_the_rules_in_force() {
    let ca = Ca::create("test").unwrap();
    let day = std::time::Duration::from_secs(86400);
    let server = ca.issue(&Subject::server("proxy", ["127.0.0.1"]), day).unwrap();
    let tls = tls::server_config(&server, ca.cert_pem(), Clients::Welcome, &["h2"]).unwrap();
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, api) = FakeApi::start().await;
    api.put(&service("web", "10.96.0.10"));
    api.put(&slice("web", &["10.244.0.1"]));
    let (recording, shutdown) = (Recording::default(), Shutdown::new());
    let options = Options { listen: Some(address), tls: Some(tls), ..options(&recording) };
    let running = tokio::spawn(proxy::run(options, client, shutdown.clone()));
    recording.until(|rules| !rules.is_empty()).await;

    let ask = async |organization: &str| {
        let identity = ca.issue(&Subject::client("someone", &[organization]), day).unwrap();
        let tls = ClientTls { ca_pem: ca.cert_pem().to_owned(), identity: Some(identity) };
        let channel = tls::channel(&[format!("https://{address}")], &tls).unwrap();
        ProxyClient::new(channel).rules(RulesRequest::default()).await
    };
    let answer = ask("system:masters").await.unwrap().into_inner();
    assert_eq!(answer.backend, "recording");
    assert_eq!(answer.rules[0].backends, ["10.244.0.1:8080"]);
    assert_eq!(ask("system:nodes").await.unwrap_err().code(), tonic::Code::PermissionDenied);
    shutdown.trigger();
    running.await.unwrap().unwrap();
}
