use std::collections::{BTreeMap, BTreeSet};

use expect_test::expect;
use proptest::prelude::*;

use super::*;
use crate::{
    diff::diff,
    testing::{any_rules, backend, key, rule},
};

fn ranges() -> Ranges {
    Ranges { services: "10.96.0.0/16".parse().unwrap(), pods: Some("10.244.0.0/16".parse().unwrap()) }
}

/// The elements of the table's maps, as a kernel would hold them; it refuses what a kernel would refuse.
#[derive(Debug, Default)]
struct Kernel {
    maps: BTreeMap<String, BTreeMap<String, String>>,
    chains: BTreeSet<String>,
}

impl Kernel {
    fn run(&mut self, script: &str) {
        for line in script.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                ["chain", name, "{"] => _ = self.chains.insert(name.to_string()),
                [verb, "element", "ip", TABLE, map, ..] => {
                    let inside = line.split_once('{').unwrap().1.trim_end_matches('}').trim();
                    inside.split(", ").for_each(|element| self.element(verb, map, element));
                }
                _ => {}
            }
        }
    }

    fn element(&mut self, verb: &str, map: &str, element: &str) {
        let (key, value) = element.split_once(" : ").unwrap_or((element, ""));
        let elements = self.maps.entry(map.to_owned()).or_default();
        if verb == "delete" {
            assert!(elements.remove(key).is_some(), "{map} has no {key} to delete");
            return;
        }
        if let Some(chain) = value.strip_prefix("goto ") {
            assert!(self.chains.contains(chain), "no chain {chain}");
        }
        let was = elements.insert(key.to_owned(), value.to_owned());
        assert_eq!(was, None, "{map} has {key} already");
    }

    fn elements(&self, map: &str) -> BTreeMap<String, String> {
        self.maps.get(map).cloned().unwrap_or_default()
    }

    /// Where a key leads.
    fn backends(&self, key: &Key) -> Option<BTreeSet<String>> {
        let entries = if key.address.is_some() { "services" } else { "node_ports" };
        let chain = self.elements(entries).get(&target(key))?.clone();
        let count: usize = chain.rsplit('_').next().unwrap().parse().unwrap();
        let endpoints = self.elements(&endpoints_map(key.address.is_none(), key.protocol));
        Some((0..count).map(|at| endpoints[&format!("{} . {at}", target(key))].clone()).collect())
    }
}

fn check_state(kernel: &Kernel, rules: &RuleSet) -> Result<(), TestCaseError> {
    let mut endpoints = 0;
    for (key, rule) in rules {
        let wanted: BTreeSet<String> = rule
            .backends
            .iter()
            .map(|backend| format!("{} . {}", backend.address.ip(), backend.address.port()))
            .collect();
        endpoints += wanted.len();
        let leads_to = kernel.backends(key);
        prop_assert_eq!(leads_to, (!wanted.is_empty()).then_some(wanted), "{}", key);
    }
    let held = |map: &str| kernel.elements(map).len();
    let maps = [false, true].into_iter().flat_map(|is_node_port| Protocol::ALL.map(|p| endpoints_map(is_node_port, p)));
    prop_assert_eq!(maps.map(|map| held(&map)).sum::<usize>(), endpoints);
    prop_assert_eq!(
        held("services") + held("node_ports"),
        rules.values().filter(|rule| !rule.backends.is_empty()).count()
    );
    let local: BTreeSet<String> = rules
        .values()
        .flat_map(|rule| &rule.backends)
        .filter(|backend| backend.is_local)
        .map(|backend| backend.address.ip().to_string())
        .collect();
    prop_assert_eq!(kernel.elements("local_endpoints").into_keys().collect::<BTreeSet<_>>(), local);
    let sticky: usize = ["sticky_60", "sticky_10800", "sticky_ports_60", "sticky_ports_10800"].map(held).iter().sum();
    let wanted = rules.values().filter(|rule| rule.affinity_seconds.is_some() && !rule.backends.is_empty()).count();
    prop_assert_eq!(sticky, wanted);
    let refusing = rules.iter().filter(|(key, rule)| {
        rule.backends.is_empty() && key.address.is_some_and(|ip| !ranges().services.contains(&ip))
    });
    prop_assert_eq!(held("rejected"), refusing.count());
    Ok(())
}

proptest! {
    #[test]
    fn every_change_leads_to_the_same_table_as_building_it_anew(steps in prop::collection::vec(any_rules(), 1..6)) {
        let mut kernel = Kernel::default();
        let (script, mut programmed) = rebuild(&ranges(), &steps[0]);
        kernel.run(&script);
        check_state(&kernel, &steps[0])?;
        for pair in steps.windows(2) {
            let changes = diff(&pair[0], &pair[1]);
            kernel.run(&change(&ranges(), &mut programmed, &changes, &Memory::default()));
            check_state(&kernel, &pair[1])?;
        }
    }

    #[test]
    fn endpoints_that_stay_keep_their_index(old in prop::collection::btree_set(1..20u8, 0..10), new in prop::collection::btree_set(1..20u8, 0..10)) {
        let backends = |hosts: &BTreeSet<u8>| -> Vec<Backend> {
            hosts.iter().map(|host| backend(&format!("10.244.0.{host}"), 80)).collect()
        };
        let (old, wanted) = (backends(&old), backends(&new));
        let slots = reslot(&old, &wanted);
        let sorted: BTreeSet<_> = slots.iter().copied().collect();
        prop_assert_eq!(sorted.into_iter().collect::<Vec<_>>(), wanted.clone());
        for (at, held) in old.iter().take(wanted.len()).enumerate().filter(|(_, held)| wanted.contains(held)) {
            prop_assert_eq!(&slots[at], held);
        }
    }
}

#[test]
fn one_endpoint_more_costs_three_elements() {
    let before = RuleSet::from([(key("10.96.0.1", 80), rule("web", &[("10.244.1.1", 8080)]))]);
    let after = RuleSet::from([(key("10.96.0.1", 80), rule("web", &[("10.244.1.1", 8080), ("10.244.1.2", 8080)]))]);
    let (_, mut programmed) = rebuild(&ranges(), &before);
    let script = change(&ranges(), &mut programmed, &diff(&before, &after), &Memory::default());
    expect![[r#"
        table ip forestay_proxy {
         chain service_tcp_2 {
          dnat ip addr . port to ip daddr . meta l4proto . tcp dport . numgen random mod 2 map @endpoints_tcp
         }
        }
        delete element ip forestay_proxy services { 10.96.0.1 . tcp . 80 }
        add element ip forestay_proxy endpoints_tcp { 10.96.0.1 . tcp . 80 . 1 : 10.244.1.2 . 8080 }
        add element ip forestay_proxy services { 10.96.0.1 . tcp . 80 : goto service_tcp_2 }
    "#]]
    .assert_eq(&script);
}

#[test]
fn remembered_clients_of_an_endpoint_leave_with_it() {
    let sticky = |backends: &[(&str, u16)]| {
        RuleSet::from([(key("10.96.0.1", 80), Rule { affinity_seconds: Some(60), ..rule("web", backends) })])
    };
    let (before, after) = (sticky(&[("10.244.1.1", 8080), ("10.244.1.2", 8080)]), sticky(&[("10.244.1.2", 8080)]));
    let listing = br#"{"nftables": [{"metainfo": {"version": "1.0.6"}}, {"map": {"name": "affinity", "elem": [
        [{"elem": {"val": {"concat": ["10.0.0.1", "10.96.0.1", "tcp", 80]}, "timeout": 60, "expires": 59}}, {"concat": ["10.244.1.1", 8080]}],
        [{"elem": {"val": {"concat": ["10.0.0.2", "10.96.0.1", "tcp", 80]}, "timeout": 60, "expires": 59}}, {"concat": ["10.244.1.2", 8080]}],
        [{"elem": {"val": {"concat": ["10.0.0.3", "10.96.0.9", "tcp", 80]}, "timeout": 60, "expires": 59}}, {"concat": ["10.244.1.1", 8080]}]
    ]}}]}"#;
    let changes = diff(&before, &after);
    assert!(Memory::is_needed_for(&changes) && !Memory::is_needed_for(&diff(&after, &before)));
    let (_, mut programmed) = rebuild(&ranges(), &before);
    let script = change(&ranges(), &mut programmed, &changes, &Memory::parse(listing).unwrap());
    let about_memory: Vec<&str> = script.lines().filter(|line| line.contains(" affinity ")).collect();
    expect![[r#"
        [
            "add element ip forestay_proxy affinity { 10.0.0.1 . 10.96.0.1 . tcp . 80 : 10.244.1.1 . 8080 }",
            "delete element ip forestay_proxy affinity { 10.0.0.1 . 10.96.0.1 . tcp . 80 }",
        ]
    "#]]
    .assert_debug_eq(&about_memory);
}

#[test]
fn an_unreadable_list_of_clients_is_an_error() {
    for listing in [&b"{"[..], b"{}", br#"{"nftables": [{"map": {"elem": [["x"]]}}]}"#] {
        assert!(Memory::parse(listing).is_err());
    }
    assert!(Memory::parse(br#"{"nftables": [{"map": {"name": "affinity"}}]}"#).is_ok());
}
