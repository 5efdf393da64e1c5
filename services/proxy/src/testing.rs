//! Builders for tests.

use std::net::{Ipv4Addr, SocketAddrV4};

use proptest::prelude::*;

use crate::{
    diff::Changes,
    rules::{Backend, Key, Protocol, Rule, RuleSet, ServiceKey},
};

pub fn service(name: &str) -> ServiceKey {
    ServiceKey { namespace: "default".to_owned(), name: name.to_owned() }
}

pub fn key(address: &str, port: u16) -> Key {
    Key { address: address.parse().ok(), protocol: Protocol::Tcp, port }
}

pub fn backend(address: &str, port: u16) -> Backend {
    let address = SocketAddrV4::new(address.parse().unwrap(), port);
    Backend { address, is_local: address.ip().octets()[2] == 0 }
}

/// Backends of 10.244.0.0/24 are local.
pub fn rule(service_name: &str, backends: &[(&str, u16)]) -> Rule {
    Rule {
        service: service(service_name),
        port_name: String::new(),
        backends: backends.iter().map(|(address, port)| backend(address, *port)).collect(),
        affinity_seconds: None,
        masquerade: false,
    }
}

pub fn apply(rules: &mut RuleSet, changes: &Changes) {
    for (key, change) in &changes.0 {
        assert_eq!(rules.get(key), change.before.as_ref());
        match &change.after {
            Some(rule) => rules.insert(*key, rule.clone()),
            None => rules.remove(key),
        };
    }
}

fn any_key() -> impl Strategy<Value = Key> {
    let addresses =
        [Some(Ipv4Addr::new(10, 96, 0, 1)), Some(Ipv4Addr::new(10, 96, 0, 2)), Some(Ipv4Addr::new(192, 0, 2, 1)), None];
    (prop::sample::select(addresses.to_vec()), prop::sample::select(vec![Protocol::Tcp, Protocol::Udp]), 80..82u16)
        .prop_map(|(address, protocol, port)| Key { address, protocol, port })
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let backends = prop::collection::btree_set((0..2u8, 1..6u8), 0..5);
    (backends, prop::option::weighted(0.4, prop::sample::select(vec![60u32, 10800])), any::<bool>()).prop_map(
        |(backends, affinity_seconds, masquerade)| Rule {
            backends: backends.iter().map(|(net, host)| backend(&format!("10.244.{net}.{host}"), 8080)).collect(),
            affinity_seconds,
            masquerade,
            ..rule("web", &[])
        },
    )
}

pub fn any_rules() -> impl Strategy<Value = RuleSet> {
    prop::collection::btree_map(any_key(), any_rule(), 0..10)
}
