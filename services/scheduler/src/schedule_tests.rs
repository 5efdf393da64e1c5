use expect_test::{Expect, expect};
use proptest::prelude::*;
use proto::k8s::core::v1::{
    Affinity, NodeAffinity, NodeSelector, NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodAntiAffinity,
    PreferredSchedulingTerm,
};

use super::*;
use crate::{
    load::Load,
    testing::{NodeBuilder, PodBuilder, node, pod, view},
};

fn decide(view: &ClusterView, pod: PodBuilder) -> String {
    match schedule(view, &pod.demand(), Sample::default()) {
        Decision::Bind { node, .. } => format!("bind {node}"),
        Decision::Wait(wait) => wait.to_string(),
    }
}

fn check(nodes: impl IntoIterator<Item = NodeBuilder>, pod: PodBuilder, expected: Expect) {
    expected.assert_eq(&decide(&view(nodes), pod));
}

/// Places pods one after another, as the driver does; the node of each.
fn place(view: &mut ClusterView, pods: impl IntoIterator<Item = PodBuilder>) -> Vec<String> {
    let mut start = 0;
    let mut places = Vec::new();
    for pod in pods {
        let pod = pod.demand();
        let Decision::Bind { node, examined } = schedule(view, &pod, Sample { start, ..Sample::default() }) else {
            places.push("-".to_owned());
            continue;
        };
        start = (start + examined + 1) % view.nodes().len();
        view.assume(&pod, &node);
        places.push(node.to_string());
    }
    places
}

fn term(key: &str, operator: &str, values: &[&str]) -> NodeSelectorTerm {
    let requirement = NodeSelectorRequirement {
        key: key.to_owned(),
        operator: operator.to_owned(),
        values: values.iter().map(|value| value.to_string()).collect(),
    };
    NodeSelectorTerm { match_expressions: vec![requirement], ..NodeSelectorTerm::default() }
}

fn required(pod: PodBuilder, terms: Vec<NodeSelectorTerm>) -> PodBuilder {
    let affinity = NodeAffinity {
        required_during_scheduling_ignored_during_execution: Some(NodeSelector { node_selector_terms: terms }),
        ..NodeAffinity::default()
    };
    pod.spec(|spec| spec.affinity = Some(Affinity { node_affinity: Some(affinity), ..Affinity::default() }))
}

#[test]
fn without_nodes_the_message_says_so() {
    check([], pod("a"), expect!["no nodes available to schedule pods"]);
}

#[test]
fn reasons_are_counted_per_node() {
    let nodes = [
        node("n1").offers(&[("cpu", "1"), ("memory", "1Gi"), ("pods", "10")]),
        node("n2").taint("k", "v", "NoSchedule"),
        node("n3").taint("k", "v", "NoExecute"),
    ];
    check(
        nodes,
        pod("a").asks(&[("cpu", "2")]),
        expect!["0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint {k: v}."],
    );
}

#[test]
fn every_lacking_resource_of_a_node_is_named() {
    check(
        [node("n1")],
        pod("a").asks(&[("cpu", "5"), ("memory", "9Gi"), ("example.com/gpu", "1")]),
        expect!["0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient example.com/gpu, 1 Insufficient memory."],
    );
}

#[test]
fn what_is_assumed_on_a_node_counts() {
    let mut view = view([node("n1")]);
    let places = place(&mut view, (0..5).map(|n| pod(&format!("p{n}")).asks(&[("cpu", "1")])));
    assert_eq!(places, ["n1", "n1", "n1", "n1", "-"]);
}

#[test]
fn a_pod_taken_back_frees_its_node() {
    let mut view = view([node("n1")]);
    let large = pod("large").asks(&[("cpu", "4")]).demand();
    view.assume(&large, "n1");
    assert_eq!(decide(&view, pod("a").asks(&[("cpu", "1")])), "0/1 nodes are available: 1 Insufficient cpu.");
    assert_eq!(view.forget(&large.key, &large.uid).as_deref(), Some("n1"));
    assert_eq!(decide(&view, pod("a").asks(&[("cpu", "1")])), "bind n1");
}

#[test]
fn a_placed_pod_is_not_taken_back() {
    let mut view = view([node("n1")]);
    let large = pod("large").asks(&[("cpu", "4")]).demand();
    view.assume(&large, "n1");
    view.observe_placed(&large, "n1");
    assert_eq!(view.forget(&large.key, &large.uid), None);
    assert_eq!(view.node("n1").unwrap().usage.pods, 1);
}

#[test]
fn pods_of_a_node_that_appears_later_count() {
    let mut view = view([]);
    view.observe_placed(&pod("early").asks(&[("cpu", "4")]).demand(), "n1");
    view.observe_node(&node("n1").build());
    assert_eq!(decide(&view, pod("a").asks(&[("cpu", "1")])), "0/1 nodes are available: 1 Insufficient cpu.");
}

#[test]
fn the_number_of_pods_is_bounded() {
    let mut view = view([node("n1").offers(&[("cpu", "4"), ("memory", "8Gi"), ("pods", "1")])]);
    assert_eq!(place(&mut view, [pod("a"), pod("b")]), ["n1", "-"]);
    assert_eq!(decide(&view, pod("b")), "0/1 nodes are available: 1 Too many pods.");
}

#[test]
fn an_init_container_counts_only_where_it_is_the_largest() {
    let demand =
        pod("a").starts_with(None, &[("cpu", "3")]).starts_with(None, &[("cpu", "1")]).asks(&[("cpu", "2")]).demand();
    assert_eq!(demand.requests.cpu_milli, 3000);
}

#[test]
fn a_sidecar_counts_beside_the_containers_and_the_init_containers_after_it() {
    let sidecar = || pod("a").starts_with(Some("Always"), &[("cpu", "1")]);
    assert_eq!(sidecar().asks(&[("cpu", "2")]).demand().requests.cpu_milli, 3000);
    assert_eq!(sidecar().starts_with(None, &[("cpu", "4")]).asks(&[("cpu", "2")]).demand().requests.cpu_milli, 5000);
}

#[test]
fn overhead_comes_on_top() {
    let overhead = crate::testing::list(&[("cpu", "250m"), ("memory", "64Mi")]);
    let demand = pod("a").asks(&[("cpu", "1")]).spec(|spec| spec.overhead = overhead).demand();
    assert_eq!((demand.requests.cpu_milli, demand.requests.memory_bytes), (1250, 64 << 20));
}

#[test]
fn a_cordoned_node_is_refused() {
    check([node("n1").cordoned()], pod("a"), expect!["0/1 nodes are available: 1 node(s) were unschedulable."]);
}

#[test]
fn a_cordoned_node_takes_who_tolerates_it() {
    let tolerant = pod("a").tolerates("node.kubernetes.io/unschedulable", "Exists", "", "NoSchedule");
    check([node("n1").cordoned()], tolerant, expect!["bind n1"]);
}

#[test]
fn a_toleration_matches_by_key_value_and_effect() {
    let nodes = || [node("n1").taint("k", "v", "NoSchedule")];
    let refused = "0/1 nodes are available: 1 node(s) had untolerated taint {k: v}.";
    for (key, operator, value, effect, expected) in [
        ("k", "Equal", "v", "NoSchedule", "bind n1"),
        ("k", "", "v", "", "bind n1"),
        ("k", "Exists", "", "", "bind n1"),
        ("", "Exists", "", "", "bind n1"),
        ("k", "Equal", "w", "NoSchedule", refused),
        ("k", "Exists", "", "NoExecute", refused),
        ("j", "Exists", "", "", refused),
        ("", "Equal", "v", "", refused),
    ] {
        let decision = decide(&view(nodes()), pod("a").tolerates(key, operator, value, effect));
        assert_eq!(decision, expected, "{key:?} {operator:?} {value:?} {effect:?}");
    }
}

#[test]
fn a_prefer_no_schedule_taint_only_ranks() {
    let tainted = || node("n1").taint("k", "v", "PreferNoSchedule");
    check([tainted()], pod("a"), expect!["bind n1"]);
    check([tainted(), node("n2")], pod("a"), expect!["bind n2"]);
}

#[test]
fn a_node_selector_must_match_every_label() {
    let nodes = || [node("n1").label("disk", "ssd"), node("n2").label("disk", "ssd").label("zone", "a")];
    check(nodes(), pod("a").selects("disk", "ssd").selects("zone", "a"), expect!["bind n2"]);
    check(
        nodes(),
        pod("a").selects("disk", "hdd"),
        expect!["0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector."],
    );
}

#[test]
fn required_affinity_knows_every_operator() {
    let nodes = || [node("n1").label("disk", "ssd").label("cores", "8")];
    let refused = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.";
    for (key, operator, values, expected) in [
        ("disk", "In", &["hdd", "ssd"][..], "bind n1"),
        ("disk", "In", &["hdd"], refused),
        ("disk", "NotIn", &["hdd"], "bind n1"),
        ("absent", "NotIn", &["hdd"], "bind n1"),
        ("disk", "NotIn", &["ssd"], refused),
        ("disk", "Exists", &[], "bind n1"),
        ("absent", "Exists", &[], refused),
        ("absent", "DoesNotExist", &[], "bind n1"),
        ("disk", "DoesNotExist", &[], refused),
        ("cores", "Gt", &["7"], "bind n1"),
        ("cores", "Gt", &["8"], refused),
        ("cores", "Lt", &["9"], "bind n1"),
        ("disk", "Lt", &["9"], refused),
        ("disk", "Resembles", &["ssd"], refused),
    ] {
        let decision = decide(&view(nodes()), required(pod("a"), vec![term(key, operator, values)]));
        assert_eq!(decision, expected, "{key} {operator} {values:?}");
    }
}

#[test]
fn one_of_several_affinity_terms_is_enough_and_an_empty_term_matches_nothing() {
    let nodes = || [node("n1").label("disk", "ssd")];
    let no_match = expect!["0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."];
    check(nodes(), required(pod("a"), vec![NodeSelectorTerm::default()]), no_match);
    check(
        nodes(),
        required(pod("a"), vec![NodeSelectorTerm::default(), term("disk", "Exists", &[])]),
        expect!["bind n1"],
    );
}

#[test]
fn a_pod_can_ask_for_a_node_by_name() {
    let mut by_name = term("metadata.name", "In", &["n2"]);
    by_name.match_fields = std::mem::take(&mut by_name.match_expressions);
    check([node("n1"), node("n2")], required(pod("a"), vec![by_name]), expect!["bind n2"]);
}

#[test]
fn preferred_affinity_ranks_but_does_not_refuse() {
    let preferring = |value: &str| {
        let preferred = PreferredSchedulingTerm { weight: 50, preference: Some(term("disk", "In", &[value])) };
        let affinity = NodeAffinity {
            preferred_during_scheduling_ignored_during_execution: vec![preferred],
            ..NodeAffinity::default()
        };
        pod("a").spec(|spec| spec.affinity = Some(Affinity { node_affinity: Some(affinity), ..Affinity::default() }))
    };
    let nodes = || [node("n1"), node("n2").label("disk", "ssd")];
    check(nodes(), preferring("ssd"), expect!["bind n2"]);
    check(nodes(), preferring("none"), expect!["bind n1"]);
}

#[test]
fn a_host_port_is_held_by_one_pod_of_a_node() {
    let mut view = view([node("n1"), node("n2")]);
    let places = place(&mut view, ["a", "b", "c"].map(|name| pod(name).host_port(80, "")));
    assert_eq!(places, ["n1", "n2", "-"]);
    let no_ports = "0/2 nodes are available: 2 node(s) didn't have free ports for the requested pod ports.";
    assert_eq!(decide(&view, pod("d").host_port(80, "10.0.0.1")), no_ports);
    assert_eq!(decide(&view, pod("d").host_port(81, "")), "bind n1");
}

#[test]
fn a_host_port_of_two_addresses_is_two_ports() {
    let mut view = view([node("n1")]);
    let places = place(&mut view, [pod("a").host_port(80, "10.0.0.1"), pod("b").host_port(80, "10.0.0.2")]);
    assert_eq!(places, ["n1", "n1"]);
}

#[test]
fn a_hard_constraint_nobody_checks_keeps_the_pod_waiting() {
    let apart = PodAntiAffinity {
        required_during_scheduling_ignored_during_execution: vec![PodAffinityTerm::default()],
        ..PodAntiAffinity::default()
    };
    let pod =
        pod("a").spec(|spec| spec.affinity = Some(Affinity { pod_anti_affinity: Some(apart), ..Affinity::default() }));
    check(
        [node("n1")],
        pod,
        expect!["0/1 nodes are available: 1 node(s) could not be checked for required podAntiAffinity."],
    );
}

#[test]
fn equal_pods_spread_evenly() {
    let mut view = view(["n1", "n2", "n3"].map(node));
    let mut places = place(&mut view, (0..30).map(|n| pod(&format!("p{n}")).asks(&[("cpu", "100m")])));
    places.sort();
    let counts = ["n1", "n2", "n3"].map(|name| places.iter().filter(|place| *place == name).count());
    assert_eq!(counts, [10, 10, 10]);
}

#[test]
fn at_equal_requests_a_busy_node_gets_fewer_pods() {
    let mut view = view(["busy", "idle"].map(node));
    view.observe_load("busy", Some(Load { cpu_milli: 3600, memory_bytes: 6 << 30 }));
    view.observe_load("idle", Some(Load { cpu_milli: 40, memory_bytes: 1 << 29 }));
    let places = place(&mut view, (0..20).map(|n| pod(&format!("p{n}")).asks(&[("cpu", "100m"), ("memory", "64Mi")])));
    let busy = places.iter().filter(|place| *place == "busy").count();
    assert!(busy < 10, "{busy} of 20 pods went to the busy node");
}

#[test]
fn a_burst_does_not_all_go_to_the_node_that_was_idle_a_moment_ago() {
    let mut view = view(["a", "b"].map(node));
    view.observe_load("a", Some(Load { cpu_milli: 500, memory_bytes: 1 << 30 }));
    view.observe_load("b", Some(Load { cpu_milli: 400, memory_bytes: 1 << 30 }));
    let places = place(&mut view, (0..20).map(|n| pod(&format!("p{n}")).asks(&[("cpu", "100m"), ("memory", "64Mi")])));
    let a = places.iter().filter(|place| *place == "a").count();
    assert!((5..=15).contains(&a), "{a} of 20 pods went to a");
}

#[test]
fn no_more_nodes_are_compared_than_asked_for() {
    let view = view((0..500).map(|n| node(&format!("n{n}"))));
    let Decision::Bind { examined, node } =
        schedule(&view, &pod("a").demand(), Sample { start: 490, feasible_max: 20 })
    else {
        panic!("nothing refuses this pod")
    };
    assert_eq!((examined, &*node), (20, "n490"));
}

#[test]
fn explain_agrees_with_the_decision() {
    let mut view = view([node("n1"), node("n2").cordoned(), node("n3")]);
    view.observe_load("n1", Some(Load { cpu_milli: 3000, memory_bytes: 1 << 30 }));
    let verdicts = explain(&view, &pod("a").demand());
    let shown: Vec<_> = verdicts.iter().map(|verdict| (&*verdict.node, verdict.reasons.join(", "))).collect();
    assert_eq!(shown, [("n3", String::new()), ("n1", String::new()), ("n2", "node(s) were unschedulable".to_owned())]);
    assert_eq!(decide(&view, pod("a")), "bind n3");
}

#[test]
fn a_simulation_fills_the_nodes_and_says_why_the_next_copy_waits() {
    let mut view = view([node("n1"), node("n2"), node("n3").cordoned()]);
    view.observe_placed(&pod("present").asks(&[("cpu", "2")]).demand(), "n1");
    let asking = pod("present").asks(&[("cpu", "1")]).demand();
    let simulated = simulate(&mut view.clone(), &asking, 100);
    let placed: Vec<_> = simulated.placed.iter().map(|(node, copies)| format!("{node} {copies}")).collect();
    assert_eq!(placed, ["n1 2", "n2 4"]);
    let reason = "0/3 nodes are available: 1 node(s) were unschedulable, 2 Insufficient cpu.";
    assert_eq!(simulated.wait.unwrap().to_string(), reason);
    assert_eq!(simulate(&mut view, &asking, 3).wait, None);
}

prop_compose! {
    fn any_node()(name in 0..12u8, cpu in 1..8i64, memory in 1..8i64, pods in 1..6i64, cordoned in prop::bool::weighted(0.1),
                  tainted in prop::bool::weighted(0.2), zone in 0..3u8) -> NodeBuilder {
        let amounts = [("cpu", cpu.to_string()), ("memory", format!("{memory}Gi")), ("pods", pods.to_string())];
        let amounts: Vec<_> = amounts.iter().map(|(name, text)| (*name, text.as_str())).collect();
        let mut node = node(&format!("n{name}")).offers(&amounts).label("zone", &zone.to_string());
        if cordoned { node = node.cordoned(); }
        if tainted { node = node.taint("dedicated", "x", "NoSchedule"); }
        node
    }
}

prop_compose! {
    fn any_pod()(name in 0..60u8, cpu in 0..3000i64, memory in 0..3000i64, port in prop::option::weighted(0.3, 80..83i32),
                 zone in prop::option::weighted(0.3, 0..3u8), tolerant in any::<bool>()) -> PodBuilder {
        let (cpu, memory) = (format!("{cpu}m"), format!("{memory}Mi"));
        let mut pod = pod(&format!("p{name}")).asks(&[("cpu", &cpu), ("memory", &memory)]);
        if let Some(port) = port { pod = pod.host_port(port, ""); }
        if let Some(zone) = zone { pod = pod.selects("zone", &zone.to_string()); }
        if tolerant { pod = pod.tolerates("dedicated", "Exists", "", ""); }
        pod
    }
}

/// Sums a node's usage anew from the pods on it.
fn is_within_bounds(view: &ClusterView, placed: &[(Demand, String)]) -> Result<(), TestCaseError> {
    for node in view.nodes() {
        let pods: Vec<_> = placed.iter().filter(|(_, on)| **on == *node.name).map(|(pod, _)| pod).collect();
        let sum = |amount: fn(&Demand) -> i64| pods.iter().map(|pod| amount(pod)).sum::<i64>();
        prop_assert!(sum(|pod| pod.requests.cpu_milli) <= node.allocatable.cpu_milli);
        prop_assert!(sum(|pod| pod.requests.memory_bytes) <= node.allocatable.memory_bytes);
        prop_assert!(pods.len() as i64 <= node.pods_max);
        prop_assert_eq!(node.usage.pods, pods.len() as i64);
        prop_assert_eq!(node.usage.requested.cpu_milli, sum(|pod| pod.requests.cpu_milli));
        let ports: Vec<_> = pods.iter().flat_map(|pod| &pod.host_ports).collect();
        let distinct: std::collections::HashSet<_> = ports.iter().collect();
        prop_assert_eq!(ports.len(), distinct.len());
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn no_node_is_ever_given_more_than_it_has_nor_a_pod_it_refuses(
        nodes in prop::collection::vec(any_node(), 0..8),
        pods in prop::collection::vec((any_pod(), 0..4u8), 0..80),
        feasible_max in 1..10usize,
    ) {
        let mut view = view(nodes);
        let mut placed: Vec<(Demand, String)> = Vec::new();
        for (at, (pod, fate)) in pods.into_iter().enumerate() {
            let demand = pod.demand();
            if let Some(was) = placed.iter().position(|(known, _)| known.key == demand.key) {
                view.remove_pod(&demand.key);
                placed.remove(was);
            }
            match schedule(&view, &demand, Sample { start: at, feasible_max }) {
                Decision::Bind { node, .. } => {
                    let mut refusals = Vec::new();
                    prop_assert!(filter::fits(&demand, view.node(&node).unwrap(), &mut refusals));
                    view.assume(&demand, &node);
                    if fate == 0 {
                        view.forget(&demand.key, &demand.uid);
                    } else {
                        if fate == 1 { view.observe_placed(&demand, &node); }
                        placed.push((demand.clone(), node.to_string()));
                    }
                }
                Decision::Wait(wait) => {
                    let mut refusals = Vec::new();
                    prop_assert!(view.nodes().iter().all(|node| !filter::fits(&demand, node, &mut refusals)));
                    prop_assert_eq!(wait.nodes, view.nodes().len());
                }
            }
            is_within_bounds(&view, &placed)?;
        }
    }
}
