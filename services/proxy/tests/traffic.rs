//! Real connections through a real kernel: the proxy in a network namespace of its own, pods in others.
//!
//! Namespaces belong to threads and have no names, so that nothing is left behind however a test ends.
#![allow(clippy::unwrap_used)]

mod world;

use std::{collections::BTreeMap, io::ErrorKind, net::TcpListener, time::Duration};

use proto::k8s::core::v1::{ClientIpConfig, ServiceSpec, SessionAffinityConfig};
use proxy::{
    Mode, Options,
    backend::Backend as _,
    diff::diff,
    nftables::{Nftables, Ranges},
    rules::{Backend, Key, Protocol, Rule, RuleSet, ServiceKey},
};
use world::{NODE, OUTSIDE, World, ask, ask_udp, in_namespace, until};

const VIP: &str = "10.96.0.10";

/// How often each pod answered.
fn answers(times: usize, address: &str) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for _ in 0..times {
        *counts.entry(ask(address).unwrap().pod).or_default() += 1;
    }
    counts
}

#[test]
fn a_cluster_ip_spreads_connections_over_its_pods() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b", "c"]);
        world.service("web", VIP, &["a", "b", "c"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());

        let from_node = answers(90, "10.96.0.10:80");
        assert_eq!(from_node.len(), 3, "{from_node:?}");
        let from_pod = world.pod("a").run(|| answers(90, "10.96.0.10:80"));
        assert_eq!(from_pod.len(), 3, "{from_pod:?}");
    });
}

#[test]
fn pods_see_who_calls() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b"]);
        world.service("web", VIP, &["b"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        assert_eq!(ask("10.96.0.10:80").unwrap().client, NODE);
        let address = world.pod("a").address.clone();
        assert_eq!(world.pod("a").run(|| ask("10.96.0.10:80").unwrap().client), address);
    });
}

#[test]
fn what_no_service_answers_is_refused_at_once() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a"]);
        world.service("web", VIP, &["a"], |_| ());
        world.service("empty", "10.96.0.11", &[], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());

        // The node itself listens here; service addresses must not lead to it.
        let _host = TcpListener::bind("0.0.0.0:9999").unwrap();
        for address in ["10.96.0.11:80", "10.96.0.10:81", "10.96.0.10:9999", "10.96.77.77:80"] {
            assert_eq!(ask(address).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{address} from the node");
            let refused = world.pod("a").run(move || ask(address).unwrap_err().kind());
            assert_eq!(refused, ErrorKind::ConnectionRefused, "{address} from a pod");
        }
    });
}

#[test]
fn connections_follow_pods_that_come_and_go() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b", "c"]);
        world.service("web", VIP, &["a", "b"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        assert_eq!(answers(40, "10.96.0.10:80").len(), 2);
        world.endpoints("web", &["b", "c"]);
        until("the new one answers", || answers(20, "10.96.0.10:80").contains_key("c"));
        assert!(!answers(60, "10.96.0.10:80").contains_key("a"));
        world.endpoints("web", &[]);
        until("nobody answers", || {
            ask("10.96.0.10:80").is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused)
        });
        world.endpoints("web", &["a"]);
        until("the one that came back answers", || ask("10.96.0.10:80").is_ok_and(|answer| answer.pod == "a"));
    });
}

#[test]
fn a_pod_reaches_itself_through_its_service() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a"]);
        world.service("web", VIP, &["a"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        let answer = world.pod("a").run(|| ask("10.96.0.10:80"));
        assert_eq!(answer.unwrap().pod, "a");
    });
}

#[test]
fn a_node_port_answers_from_outside_from_the_node_and_from_pods() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b"]);
        world.outside();
        world.service("web", VIP, &["a", "b"], |spec| spec.ports[0].node_port = 30080);
        world.start().await;
        let port = "192.168.77.1:30080";
        until("the node port answers", || ask(port).is_ok());
        assert_eq!(answers(40, port).len(), 2);
        assert_eq!(world.pod("a").run(move || answers(40, port)).len(), 2);
        let answer = world.pod(OUTSIDE).run(move || ask(port).unwrap());
        // The pod is on this node, so the answer comes back this way and the client's address can be kept.
        assert_eq!(answer.client, world.pod(OUTSIDE).address);
    });
}

/// Otherwise the pod would answer the client directly, who never asked it.
#[test]
fn who_comes_from_outside_reaches_other_nodes_by_this_nodes_address() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a"]);
        world.outside();
        world.service("web", VIP, &[], |spec| spec.ports[0].node_port = 30080);
        world.endpoints_on("n2", "web", &["a"]);
        world.start().await;
        until("the node port answers", || ask("192.168.77.1:30080").is_ok());
        for address in ["192.168.77.1:30080", "10.96.0.10:80"] {
            assert_eq!(world.pod(OUTSIDE).run(move || ask(address).unwrap().client), NODE, "{address}");
        }
        // A pod keeps its own address inside the cluster.
        world.pods(&["b"]);
        let address = world.pod("b").address.clone();
        assert_eq!(world.pod("b").run(|| ask("10.96.0.10:80").unwrap().client), address);
    });
}

#[test]
fn a_client_keeps_its_pod_until_the_pod_goes() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b", "c"]);
        world.service("web", VIP, &["a", "b", "c"], |spec| {
            sticky(spec);
            spec.ports[0].node_port = 30080;
        });
        world.start().await;
        for address in ["10.96.0.10:80", "192.168.77.1:30080"] {
            until("the service answers", || ask(address).is_ok());
            let first = answers(30, address);
            assert_eq!(first.len(), 1, "{address} {first:?}");
        }

        let chosen = ask("10.96.0.10:80").unwrap().pod;
        let others: Vec<&str> = ["a", "b", "c"].into_iter().filter(|name| **name != *chosen).collect();
        world.endpoints("web", &others);
        until("another takes over", || ask("10.96.0.10:80").is_ok_and(|answer| answer.pod != chosen));
        let second = answers(30, "10.96.0.10:80");
        assert_eq!(second.len(), 1, "{second:?}");

        // It comes back as another member of the set: the client stays where it is.
        let kept = ask("10.96.0.10:80").unwrap().pod;
        world.endpoints("web", &["a", "b", "c"]);
        world.service("marker", "10.96.0.12", &["a"], |_| ());
        until("the change is through", || ask("10.96.0.12:80").is_ok());
        assert_eq!(answers(30, "10.96.0.10:80"), BTreeMap::from([(kept, 30)]));
    });
}

#[test]
fn udp_flows_leave_a_pod_that_goes() {
    if !world::has("conntrack") {
        return eprintln!("SKIPPED: no conntrack tool (Debian: apt-get install conntrack)");
    }
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b"]);
        world.service("dns", VIP, &["a"], |spec| spec.ports[0].protocol = "UDP".to_owned());
        world.start().await;
        // One socket throughout: the flow that conntrack remembers.
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
        until("a answers", || ask_udp(&socket, "10.96.0.10:80").is_ok_and(|answer| answer.pod == "a"));
        world.endpoints("dns", &["b"]);
        until("b answers", || ask_udp(&socket, "10.96.0.10:80").is_ok_and(|answer| answer.pod == "b"));
    });
}

/// The node remembered the flow as its own, and kept it for as long as the client went on asking.
#[test]
fn udp_flows_find_a_node_port_that_gets_its_first_pod() {
    if !world::has("conntrack") {
        return eprintln!("SKIPPED: no conntrack tool (Debian: apt-get install conntrack)");
    }
    in_namespace(async |world: &mut World| {
        world.pods(&["a"]);
        world.outside();
        world.service("dns", VIP, &[], |spec| {
            spec.ports[0].protocol = "UDP".to_owned();
            spec.ports[0].node_port = 30053;
        });
        world.service("marker", "10.96.0.12", &["a"], |_| ());
        world.start().await;
        until("the proxy is at work", || ask("10.96.0.12:80").is_ok());
        // One socket throughout, from a machine of its own.
        let (asking, outcomes) = std::sync::mpsc::channel();
        let (enough, is_enough) = std::sync::mpsc::channel();
        world.pod(OUTSIDE).run(move || {
            let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            std::thread::spawn(move || {
                while is_enough.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                    let answer = ask_udp(&socket, "192.168.77.1:30053");
                    let _ = asking.send(answer.map(|answer| answer.pod).map_err(|error| error.kind()));
                }
            });
        });
        assert!(outcomes.recv().unwrap().is_err());
        world.endpoints("dns", &["a"]);
        until("the pod answers", || outcomes.recv().unwrap().is_ok_and(|pod| pod == "a"));
        enough.send(()).unwrap();
    });
}

#[test]
fn a_client_is_forgotten_after_its_affinity_has_timed_out() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b"]);
        world.service("web", VIP, &["a", "b"], |spec| {
            sticky(spec);
            let config = spec.session_affinity_config.as_mut().unwrap();
            config.client_ip.as_mut().unwrap().timeout_seconds = Some(1);
        });
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        assert_eq!(answers(20, "10.96.0.10:80").len(), 1);
        assert!(world::remembers(VIP));
        until("the client is forgotten", || !world::remembers(VIP));
    });
}

#[test]
fn cleaning_up_leaves_the_machine_as_it_was() {
    in_namespace(async |world: &mut World| {
        let before = world::state();
        world.pods(&["a"]);
        let with_pods = world::state();
        world.service("web", VIP, &["a"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        world.stop().await;
        // Services work on while the proxy is away.
        assert!(ask("10.96.0.10:80").is_ok());
        assert_ne!(world::state(), with_pods);

        proxy::cleanup(world.state_dir()).await.unwrap();
        assert_eq!(world::state(), with_pods);
        proxy::cleanup(world.state_dir()).await.unwrap();
        assert_eq!(before.forwarding, with_pods.forwarding);
    });
}

#[test]
fn a_restart_takes_over_what_is_there() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a", "b"]);
        world.service("web", VIP, &["a"], |_| ());
        world.start().await;
        until("the service answers", || ask("10.96.0.10:80").is_ok());
        world.stop().await;
        world.endpoints("web", &["b"]);
        world.start().await;
        until("the new pod answers", || ask("10.96.0.10:80").is_ok_and(|answer| answer.pod == "b"));
    });
}

#[test]
fn a_service_range_that_is_in_use_is_refused() {
    in_namespace(async |world: &mut World| {
        world.pods(&["a"]);
        for (service_cidr, in_the_way) in
            [("10.244.0.0/16", "the route 10.244.0.1/32"), ("192.168.0.0/16", "192.168.77")]
        {
            let options = Options { service_cidr: service_cidr.parse().unwrap(), ..world.options() };
            let refusal =
                proxy::run(options, world.client(), kit::life::Shutdown::new()).await.unwrap_err().to_string();
            assert!(refusal.contains(in_the_way) && refusal.contains("--service-cidr"), "{refusal}");
        }
    });
}

#[test]
fn the_ipvs_mode_says_what_to_use_instead() {
    in_namespace(async |world: &mut World| {
        let options = Options { mode: Mode::Ipvs, ..world.options() };
        let refusal = proxy::run(options, world.client(), kit::life::Shutdown::new()).await.unwrap_err().to_string();
        assert_eq!(refusal, "this build has no IPVS backend yet; use --proxy-mode nftables");
    });
}

/// The driver builds everything anew after a refused change, which would hide one; here nothing is hidden.
#[test]
fn nft_takes_every_kind_of_change() {
    in_namespace(async |_: &mut World| {
        let ranges = Ranges { services: "10.96.0.0/16".parse().unwrap(), pods: None };
        let rule = |endpoints: u8, affinity_seconds, masquerade| Rule {
            service: ServiceKey { namespace: "default".to_owned(), name: "web".to_owned() },
            port_name: String::new(),
            backends: (1..=endpoints)
                .map(|host| Backend {
                    address: format!("10.244.0.{host}:8080").parse().unwrap(),
                    is_local: host % 2 == 0,
                })
                .collect(),
            affinity_seconds,
            masquerade,
        };
        let keys = ["10.96.0.1", "192.0.2.1", ""].into_iter().flat_map(|address| {
            Protocol::ALL.map(|protocol| Key { address: address.parse().ok(), protocol, port: 80 })
        });
        let keys: Vec<Key> = keys.collect();
        let mut backend = Nftables::probe(ranges).await.unwrap();
        let mut now = RuleSet::new();
        backend.rebuild(&now).await.unwrap();
        for (endpoints, affinity, masquerade) in [
            (1, None, false),
            (3, None, true),
            (2, Some(60), true),
            (4, Some(120), false),
            (0, None, false),
            (2, Some(60), false),
        ] {
            let next: RuleSet = keys.iter().map(|key| (*key, rule(endpoints, affinity, masquerade))).collect();
            backend.apply(&diff(&now, &next)).await.unwrap();
            now = next;
        }
        backend.apply(&diff(&now, &RuleSet::new())).await.unwrap();
        backend.remove().await.unwrap();
        backend.remove().await.unwrap();
    });
}

fn sticky(spec: &mut ServiceSpec) {
    spec.session_affinity = "ClientIP".to_owned();
    let client_ip = Some(ClientIpConfig { timeout_seconds: Some(300) });
    spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
}
