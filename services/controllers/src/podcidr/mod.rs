//! Pod networks: each node gets a part of the cluster's pod network, no two the same.

use std::{collections::HashSet, sync::Arc};

use client::{Action, Controller, Key, Reflector, controller::Watches, events::WARNING};
use ipnet::{IpNet, Ipv4Net};
use jiff::Timestamp;
use proto::{Kind, k8s::core::v1::Node};

/// Gives out networks of one length from a larger one.
pub struct PodCidrs {
    pub network: Ipv4Net,
    pub prefix: u8,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub network: Ipv4Net,
    pub prefix: u8,
    /// All nodes, by name: what one gets depends on what the others have.
    pub nodes: Vec<Arc<Node>>,
}

impl Controller for PodCidrs {
    type Snapshot = Snapshot;
    const NAME: &'static str = "podcidr";

    fn watches(&self, watches: Watches) -> Watches {
        // One key for all nodes: two plans at once could give the same network twice.
        watches.map::<Node>(|_, node| {
            let needs = node.spec.as_ref().is_none_or(|spec| spec.pod_cidr.is_empty());
            needs.then(|| Key::new("", "")).into_iter().collect()
        })
    }

    fn observe(&self, caches: &Reflector, _: &Key, _: Timestamp) -> Option<Snapshot> {
        Some(Snapshot { network: self.network, prefix: self.prefix, nodes: caches.cache().list() })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

/// The lowest free networks for the nodes that have none, by name.
pub fn plan(Snapshot { network, prefix, nodes }: &Snapshot) -> Vec<Action> {
    let taken: Vec<IpNet> = nodes
        .iter()
        .flat_map(|node| node.spec.iter())
        .flat_map(|spec| spec.pod_cidrs.iter().chain([&spec.pod_cidr]))
        .filter_map(|cidr| cidr.parse().ok())
        .collect();
    let exact: HashSet<Ipv4Net> =
        taken.iter().filter_map(|net| if let IpNet::V4(net) = net { Some(*net) } else { None }).collect();
    let is_odd = |net: &&Ipv4Net| net.prefix_len() != *prefix;
    let odd: Vec<Ipv4Net> = exact.iter().filter(is_odd).copied().collect();
    let overlaps = |net: &Ipv4Net| odd.iter().any(|odd| odd.contains(net) || net.contains(odd));
    let subnets = network.subnets(*prefix).into_iter().flatten();
    let mut free = subnets.filter(|net| !exact.contains(net) && !overlaps(net));
    let needy = nodes.iter().filter(|node| {
        node.spec.as_ref().is_none_or(|spec| spec.pod_cidr.is_empty()) && !model::meta::is_deleting(node.meta())
    });
    needy
        .map(|node| match free.next() {
            Some(net) => give(node, net),
            None => {
                let message =
                    format!("Node {} cannot get a pod network: all of {network} is given out", node.meta().name);
                Action::event(node.as_ref(), WARNING, "CIDRNotAvailable", message)
            }
        })
        .collect()
}

fn give(node: &Arc<Node>, net: Ipv4Net) -> Action {
    let mut given = Node::clone(node);
    let spec = given.spec.get_or_insert_default();
    spec.pod_cidr = net.to_string();
    spec.pod_cidrs = vec![net.to_string()];
    Action::update(&given).remark(net.to_string())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{World, acting, check, named, settles};

    fn node(name: &str, cidr: &str) -> Node {
        let mut node: Node = named(name);
        let spec = node.spec.get_or_insert_default();
        spec.pod_cidr = cidr.into();
        spec.pod_cidrs = if cidr.is_empty() { vec![] } else { vec![cidr.into()] };
        node
    }

    fn snapshot(network: &str, nodes: impl IntoIterator<Item = Node>) -> Snapshot {
        Snapshot { network: network.parse().unwrap(), prefix: 24, nodes: nodes.into_iter().map(Arc::new).collect() }
    }

    #[test]
    fn nodes_get_the_lowest_free_networks_in_order_of_their_names() {
        let nodes = [node("a", "10.244.1.0/24"), node("b", ""), node("c", "10.244.0.0/24"), node("d", "")];
        check(
            plan(&snapshot("10.244.0.0/16", nodes)),
            expect![[r#"
            update node/b 10.244.2.0/24
            update node/d 10.244.3.0/24
        "#]],
        );
    }

    #[test]
    fn a_network_given_by_hand_is_not_given_again_in_parts() {
        let nodes = [node("a", "10.244.0.0/23"), node("b", "")];
        check(
            plan(&snapshot("10.244.0.0/16", nodes)),
            expect![[r#"
            update node/b 10.244.2.0/24
        "#]],
        );
    }

    #[test]
    fn a_full_network_is_told() {
        let nodes = [node("a", "10.244.0.0/24"), node("b", "")];
        check(
            plan(&snapshot("10.244.0.0/24", nodes)),
            expect![[r#"
            event node/b Warning CIDRNotAvailable: Node b cannot get a pod network: all of 10.244.0.0/24 is given out
        "#]],
        );
    }

    proptest! {
        #[test]
        fn no_two_nodes_get_the_same_network(taken in proptest::collection::vec(proptest::option::of(0u8..40), 1..40)) {
            let nodes = taken.into_iter().enumerate().map(|(at, third)| {
                let cidr = third.map(|third| format!("10.244.{third}.0/24")).unwrap_or_default();
                // What users gave twice stays theirs.
                node(&format!("n{at:02}"), &cidr)
            });
            let mut world = World::default().with(nodes);
            let before: usize = world.list::<Node>().iter().filter(|it| !it.spec.as_ref().unwrap().pod_cidr.is_empty()).count();
            let distinct = |world: &World| {
                world.list::<Node>().iter().map(|it| it.spec.clone().unwrap().pod_cidr).collect::<HashSet<_>>()
            };
            let given: HashSet<String> = distinct(&world).into_iter().filter(|cidr| !cidr.is_empty()).collect();
            let observe = |world: &World| Snapshot { nodes: world.list(), ..snapshot("10.244.0.0/16", []) };
            settles(&mut world, 2, |world| plan(&observe(world)), &[acting::<Node>]);
            let count = world.list::<Node>().len();
            prop_assert_eq!(distinct(&world).len(), given.len() + count - before);
        }
    }
}
