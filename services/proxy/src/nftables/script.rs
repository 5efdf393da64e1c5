//! Rules as an nft script. Pure: it knows what was programmed from its own memory and never asks the kernel.
//!
//! Endpoints are elements of shared maps, so that a change costs elements and never chains: `services` sends a key to
//! the chain for its number of endpoints, which picks an index at random and finds the endpoint under (key, index) in
//! `endpoints_tcp`. Chains exist once per protocol, number of endpoints, affinity and masquerading, not once per service.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Write as _,
    net::Ipv4Addr,
};

use ipnet::Ipv4Net;

use super::affinity::Memory;
use crate::{
    diff::Changes,
    rules::{Backend, Key, Protocol, Rule, RuleSet},
};

pub const TABLE: &str = "forestay_proxy";
/// Set on packets that need this node's address when they leave it; Kubernetes' own proxy uses the same bit.
const MASQUERADE_MARK: &str = "0x4000";
/// Elements per command: nft parses a long line slower than several short ones.
const ELEMENTS_MAX: usize = 1000;
/// Remembered clients of all services together; beyond it new ones are not remembered, but still served.
const AFFINITY_MAX: usize = 65535;

/// The ranges the table is built around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ranges {
    pub services: Ipv4Net,
    /// Where known, connections to services from outside of it take this node's address.
    pub pods: Option<Ipv4Net>,
}

/// A chain that picks among `endpoints` endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Chain {
    is_node_port: bool,
    protocol: Protocol,
    masquerade: bool,
    endpoints: usize,
    affinity_seconds: Option<u32>,
}

/// What the kernel holds, as far as we put it there.
#[derive(Clone, Debug, Default)]
pub struct Programmed {
    /// Endpoints by index.
    slots: HashMap<Key, Vec<Backend>>,
    chains: BTreeMap<Key, Chain>,
    known_chains: BTreeSet<Chain>,
    known_timeouts: BTreeSet<u32>,
    rejected: BTreeSet<Key>,
    /// How many (key, index) lead to a local address.
    local: BTreeMap<Ipv4Addr, usize>,
}

/// Element commands, gathered by the map they belong to.
#[derive(Default)]
struct Elements {
    delete: BTreeMap<String, Vec<String>>,
    add: BTreeMap<String, Vec<String>>,
}

/// The script that puts exactly these rules into effect, and what will be programmed then.
pub fn rebuild(ranges: &Ranges, rules: &RuleSet) -> (String, Programmed) {
    let changes = crate::diff::diff(&RuleSet::new(), rules);
    let mut programmed = Programmed::default();
    let elements = change(ranges, &mut programmed, &changes, &Memory::default());
    (base(ranges) + &elements, programmed)
}

/// The script that takes everything out; it does no harm where nothing is there.
pub fn remove() -> String {
    format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")
}

/// The script for a change; `programmed` is what it leaves. `memory` is what clients are remembered to use.
pub fn change(ranges: &Ranges, programmed: &mut Programmed, changes: &Changes, memory: &Memory) -> String {
    let mut script = String::new();
    let mut elements = Elements::default();
    for (key, change) in &changes.0 {
        programmed.set(ranges, key, change.after.as_ref(), &mut script, &mut elements);
    }
    script.push_str(&forget(changes, memory));
    elements.write(&mut script);
    script
}

/// The script that forgets clients whose backend is gone by these changes.
pub fn forget(changes: &Changes, memory: &Memory) -> String {
    let (mut known, mut clients) = (Vec::new(), Vec::new());
    for (client, backend) in memory.stale(changes) {
        // An entry that expires meanwhile must not fail the transaction: adding it first makes the deletion sure.
        known.push(format!("{client} : {} . {}", backend.ip(), backend.port()));
        clients.push(client);
    }
    let mut script = String::new();
    command(&mut script, "add", "affinity", &known);
    command(&mut script, "delete", "affinity", &clients);
    script
}

/// The table without elements.
///
/// Endpoints have a map per protocol: nft 1.0.6 takes one declared with `th dport`, but then refuses every later rule
/// that uses it ("conflicting protocols specified: ip vs. th"), and one declared with `tcp dport` matches TCP only.
fn base(Ranges { services, pods }: &Ranges) -> String {
    let mut script = remove();
    let endpoints: String = Protocol::ALL
        .map(nft_protocol)
        .map(|protocol| {
            let key = format!("meta l4proto . {protocol} dport . numgen random mod 2");
            format!(
                " map endpoints_{protocol} {{ typeof ip daddr . {key} : ip daddr . {protocol} dport; }}\n \
                 map node_port_endpoints_{protocol} {{ typeof {key} : ip daddr . {protocol} dport; }}\n"
            )
        })
        .concat();
    let from_outside = match pods {
        Some(pods) => format!(
            "  ct status dnat ct original ip daddr {services} ip saddr != {pods} fib saddr type != local \
             ip daddr != @local_endpoints masquerade\n"
        ),
        None => String::new(),
    };
    write!(
        script,
        "table ip {TABLE} {{
 map services {{ type ipv4_addr . inet_proto . inet_service : verdict; }}
 map node_ports {{ type inet_proto . inet_service : verdict; }}
{endpoints} map affinity {{ type ipv4_addr . ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; size {AFFINITY_MAX}; flags dynamic,timeout; }}
 set local_endpoints {{ type ipv4_addr; }}
 set hairpin {{ type ipv4_addr . ipv4_addr; }}
 set rejected {{ type ipv4_addr . inet_proto . inet_service; }}
 chain dispatch {{
  ip daddr . meta l4proto . th dport vmap @services
  ip daddr != {{ 127.0.0.0/8, {services} }} fib daddr type local meta l4proto . th dport vmap @node_ports
 }}
 chain prerouting {{
  type nat hook prerouting priority -100; policy accept;
  jump dispatch
 }}
 chain output {{
  type nat hook output priority -100; policy accept;
  jump dispatch
 }}
 chain remember {{
 }}
 chain postrouting {{
  type nat hook postrouting priority 90; policy accept;
  ct status dnat jump remember
  ct status dnat ip saddr . ip daddr @hairpin masquerade
  meta mark and {MASQUERADE_MARK} == {MASQUERADE_MARK} ip daddr != @local_endpoints masquerade
{from_outside} }}
 chain refuse {{
  meta l4proto tcp reject with tcp reset
  reject
 }}
 chain guard {{
  ip daddr {services} goto refuse
  ip daddr . meta l4proto . th dport @rejected goto refuse
 }}
 chain guard_input {{
  type filter hook input priority 0; policy accept;
  jump guard
 }}
 chain guard_forward {{
  type filter hook forward priority 0; policy accept;
  jump guard
 }}
 chain guard_output {{
  type filter hook output priority 0; policy accept;
  jump guard
 }}
}}
"
    )
    .expect("a String takes everything");
    script
}

impl Programmed {
    /// Brings one key to its new rule.
    fn set(&mut self, ranges: &Ranges, key: &Key, rule: Option<&Rule>, script: &mut String, elements: &mut Elements) {
        let old_slots = self.slots.remove(key).unwrap_or_default();
        let wanted = rule.map(|rule| rule.backends.as_slice()).unwrap_or_default();
        let slots = reslot(&old_slots, wanted);
        self.set_slots(key, &old_slots, &slots, elements);
        let chain = rule.filter(|_| !slots.is_empty()).map(|rule| Chain {
            is_node_port: key.address.is_none(),
            protocol: key.protocol,
            masquerade: rule.masquerade,
            endpoints: slots.len(),
            affinity_seconds: rule.affinity_seconds,
        });
        self.set_chain(key, chain, script, elements);
        let rejects =
            rule.is_some() && slots.is_empty() && key.address.is_some_and(|ip| !ranges.services.contains(&ip));
        match (self.rejected.contains(key), rejects) {
            (false, true) => elements.add("rejected", target(key)),
            (true, false) => elements.delete("rejected", target(key)),
            _ => {}
        }
        if rejects {
            self.rejected.insert(*key)
        } else {
            self.rejected.remove(key)
        };
        if !slots.is_empty() {
            self.slots.insert(*key, slots);
        }
    }

    fn set_slots(&mut self, key: &Key, old: &[Backend], new: &[Backend], elements: &mut Elements) {
        let map = &endpoints_map(key.address.is_none(), key.protocol);
        for at in 0..old.len().max(new.len()) {
            let (was, is) = (old.get(at), new.get(at));
            if was == is {
                continue;
            }
            if let Some(was) = was {
                if is.map(|is| is.address) != Some(was.address) {
                    elements.delete(map, format!("{} . {at}", target(key)));
                }
                self.release_local(was, elements);
            }
            if let Some(is) = is {
                if was.map(|was| was.address) != Some(is.address) {
                    let (ip, port) = (is.address.ip(), is.address.port());
                    elements.add(map, format!("{} . {at} : {ip} . {port}", target(key)));
                }
                self.hold_local(is, elements);
            }
        }
    }

    fn hold_local(&mut self, backend: &Backend, elements: &mut Elements) {
        let ip = *backend.address.ip();
        if backend.is_local {
            let held = self.local.entry(ip).or_default();
            *held += 1;
            if *held == 1 {
                elements.toggle(true, "local_endpoints", ip.to_string());
                elements.toggle(true, "hairpin", format!("{ip} . {ip}"));
            }
        }
    }

    fn release_local(&mut self, backend: &Backend, elements: &mut Elements) {
        let ip = *backend.address.ip();
        if let Some(held) = self.local.get_mut(&ip).filter(|_| backend.is_local) {
            *held -= 1;
            if *held == 0 {
                self.local.remove(&ip);
                elements.toggle(false, "local_endpoints", ip.to_string());
                elements.toggle(false, "hairpin", format!("{ip} . {ip}"));
            }
        }
    }

    fn set_chain(&mut self, key: &Key, chain: Option<Chain>, script: &mut String, elements: &mut Elements) {
        let map = if key.address.is_some() { "services" } else { "node_ports" };
        let old = self.chains.remove(key);
        if let Some(chain) = chain {
            self.know(chain, script);
            self.chains.insert(*key, chain);
        }
        if old == chain {
            return;
        }
        if old.is_some() {
            elements.delete(map, target(key));
        }
        if let Some(chain) = chain {
            elements.add(map, format!("{} : goto {}", target(key), chain.name()));
        }
        let sticky = |chain: Option<Chain>| chain.and_then(|chain| chain.affinity_seconds);
        if sticky(old) != sticky(chain) {
            if let Some(seconds) = sticky(old) {
                elements.delete(&sticky_set(key, seconds), target(key));
            }
            if let Some(seconds) = sticky(chain) {
                elements.add(&sticky_set(key, seconds), target(key));
            }
        }
    }

    /// Makes sure that a chain, and what it needs, exists.
    fn know(&mut self, chain: Chain, script: &mut String) {
        if let Some(seconds) = chain.affinity_seconds
            && self.known_timeouts.insert(seconds)
        {
            script.push_str(&remembering(seconds));
        }
        if self.known_chains.insert(chain) {
            script.push_str(&chain.definition());
        }
    }
}

impl Chain {
    fn name(&self) -> String {
        let family = if self.is_node_port { "node_port" } else { "service" };
        let masquerade = if self.masquerade { "_masquerade" } else { "" };
        let affinity = self.affinity_seconds.map(|seconds| format!("_sticky_{seconds}")).unwrap_or_default();
        let protocol = nft_protocol(self.protocol);
        format!("{family}_{protocol}{masquerade}{affinity}_{}", self.endpoints)
    }

    fn definition(&self) -> String {
        let map = endpoints_map(self.is_node_port, self.protocol);
        let address = if self.is_node_port { "" } else { "ip daddr . " };
        let key = format!("{address}meta l4proto . {} dport", nft_protocol(self.protocol));
        let mut body = String::new();
        if self.masquerade {
            body += &format!("  meta mark set meta mark or {MASQUERADE_MARK}\n");
        }
        if self.affinity_seconds.is_some() {
            body += "  dnat ip addr . port to ip saddr . ip daddr . meta l4proto . th dport map @affinity\n";
        }
        body += &format!("  dnat ip addr . port to {key} . numgen random mod {} map @{map}\n", self.endpoints);
        format!("table ip {TABLE} {{\n chain {} {{\n{body} }}\n}}\n", self.name())
    }
}

/// Once a connection has its backend it is written down, and written down again with every further connection.
///
/// The packet shows the backend at this point, and conntrack still knows what the client asked for.
fn remembering(seconds: u32) -> String {
    let mut rules = String::new();
    for protocol in Protocol::ALL.map(nft_protocol) {
        let asked = "meta l4proto . ct original proto-dst";
        let update = format!(
            "update @affinity {{ ct original ip saddr . ct original ip daddr . {asked} timeout {seconds}s : ip daddr . th dport }}"
        );
        rules += &format!(
            "  meta l4proto {protocol} ct original ip daddr . {asked} @sticky_{seconds} {update}\n  \
             meta l4proto {protocol} {asked} @sticky_ports_{seconds} {update}\n"
        );
    }
    format!(
        "table ip {TABLE} {{
 set sticky_{seconds} {{ type ipv4_addr . inet_proto . inet_service; }}
 set sticky_ports_{seconds} {{ type inet_proto . inet_service; }}
 chain remember {{
{rules} }}
}}
"
    )
}

fn endpoints_map(is_node_port: bool, protocol: Protocol) -> String {
    let family = if is_node_port { "node_port_endpoints" } else { "endpoints" };
    format!("{family}_{}", nft_protocol(protocol))
}

fn sticky_set(key: &Key, seconds: u32) -> String {
    if key.address.is_some() { format!("sticky_{seconds}") } else { format!("sticky_ports_{seconds}") }
}

/// A key as the maps spell it.
pub fn target(key: &Key) -> String {
    let (protocol, port) = (nft_protocol(key.protocol), key.port);
    match key.address {
        Some(address) => format!("{address} . {protocol} . {port}"),
        None => format!("{protocol} . {port}"),
    }
}

pub fn nft_protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    }
}

/// Endpoints by index for a new set of them: those that stay keep their place as far as there is one.
pub fn reslot(old: &[Backend], wanted: &[Backend]) -> Vec<Backend> {
    let mut missing: Vec<Backend> = wanted
        .iter()
        .filter(|backend| !old.iter().take(wanted.len()).any(|held| held == *backend))
        .rev()
        .copied()
        .collect();
    (0..wanted.len())
        .map(|at| match old.get(at).filter(|held| wanted.contains(held)) {
            Some(held) => *held,
            None => missing.pop().expect("as many are missing as places are free"),
        })
        .collect()
}

impl Elements {
    fn add(&mut self, map: &str, element: String) {
        self.add.entry(map.to_owned()).or_default().push(element);
    }

    fn delete(&mut self, map: &str, element: String) {
        self.delete.entry(map.to_owned()).or_default().push(element);
    }

    /// Adds or deletes an element whose last wish counts: one that leaves and comes in one change stays.
    fn toggle(&mut self, is_wanted: bool, map: &str, element: String) {
        let (to, from) = if is_wanted { (&mut self.add, &mut self.delete) } else { (&mut self.delete, &mut self.add) };
        let opposite =
            from.get_mut(map).and_then(|list| list.iter().position(|held| *held == element).map(|at| (list, at)));
        match opposite {
            Some((list, at)) => _ = list.swap_remove(at),
            None => to.entry(map.to_owned()).or_default().push(element),
        }
    }

    /// Deletions come first: a key that moves is deleted and added in one transaction.
    fn write(&self, script: &mut String) {
        for (verb, maps) in [("delete", &self.delete), ("add", &self.add)] {
            for (map, elements) in maps {
                command(script, verb, map, elements);
            }
        }
    }
}

fn command(script: &mut String, verb: &str, map: &str, elements: &[String]) {
    for part in elements.chunks(ELEMENTS_MAX) {
        writeln!(script, "{verb} element ip {TABLE} {map} {{ {} }}", part.join(", "))
            .expect("a String takes everything");
    }
}

#[cfg(test)]
#[path = "script_tests.rs"]
mod tests;
