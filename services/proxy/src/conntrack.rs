//! UDP flows remember their backend in conntrack for as long as packets come: one that is gone must be forgotten.
//!
//! TCP needs nothing: its peers notice, and a new connection is a new flow.

use std::{collections::BTreeSet, net::Ipv4Addr, process::Stdio, time::Duration};

use tokio::process::Command;
use tracing::{debug, warn};

use crate::{diff::Changes, rules::Protocol};

const TIMEOUT: Duration = Duration::from_secs(10);
/// More flows than this at once are forgotten address by address instead of pair by pair.
const PAIRS_MAX: usize = 64;

/// Flows to a service address or node port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    pub leads: Leads,
}

/// Where the flows meant lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leads {
    To(Ipv4Addr),
    /// To one backend or another.
    Somewhere,
    /// To the node itself, or wherever: they began when there was no backend.
    Anywhere,
}

/// UDP flows that no longer lead where their rule says. Pure.
pub fn stale(changes: &Changes) -> BTreeSet<Flow> {
    let mut flows = BTreeSet::new();
    for (key, change) in changes.0.iter().filter(|(key, _)| key.protocol == Protocol::Udp) {
        let kept = change.after.as_ref().map(|rule| rule.backends.as_slice()).unwrap_or_default();
        let had = change.before.as_ref().map(|rule| rule.backends.as_slice()).unwrap_or_default();
        let gone = had.iter().filter(|was| !kept.iter().any(|is| is.address == was.address));
        let flow = |leads| Flow { address: key.address, port: key.port, leads };
        flows.extend(gone.map(|was| flow(Leads::To(*was.address.ip()))));
        // Without a backend packets to a node port reached the node, which remembers the flow as its own; those to
        // other addresses were refused before anything remembered them.
        if key.address.is_none() && had.is_empty() && !kept.is_empty() {
            flows.insert(flow(Leads::Anywhere));
        }
    }
    if flows.len() > PAIRS_MAX {
        let wider = |flow: Flow| match flow.leads {
            Leads::To(_) => Flow { leads: Leads::Somewhere, ..flow },
            Leads::Somewhere | Leads::Anywhere => flow,
        };
        flows = flows.into_iter().map(wider).collect();
    }
    flows
}

/// Forgets flows through the `conntrack` tool; without it they end when they fall silent.
pub async fn forget(flows: &BTreeSet<Flow>) {
    for flow in flows {
        let mut command = Command::new("conntrack");
        command.args(["--delete", "--proto", "udp", "--orig-port-dst", &flow.port.to_string()]);
        if let Some(address) = flow.address {
            command.args(["--orig-dst", &address.to_string()]);
        }
        match flow.leads {
            Leads::To(backend) => _ = command.args(["--dst-nat", &backend.to_string()]),
            Leads::Somewhere => _ = command.arg("--dst-nat"),
            Leads::Anywhere => {}
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
        match tokio::time::timeout(TIMEOUT, command.status()).await {
            // It also fails where there was nothing to delete.
            Ok(Ok(status)) => debug!(?flow, %status, "flows forgotten"),
            Ok(Err(error)) => {
                debug!(%error, "no conntrack tool, old UDP flows end by themselves");
                return;
            }
            Err(_) => {
                warn!("conntrack did not end within {TIMEOUT:?}");
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        diff::diff,
        rules::{Key, RuleSet},
        testing::rule,
    };

    #[test]
    fn flows_are_stale_when_their_backend_goes_or_a_node_port_gets_its_first() {
        let port = Key { address: None, protocol: Protocol::Udp, port: 30053 };
        let address = Key { address: Some([10, 96, 0, 10].into()), port: 53, ..port };
        let tcp = Key { protocol: Protocol::Tcp, ..port };
        let rules = |backends: &[(&str, u16)]| -> RuleSet {
            [port, address, tcp].into_iter().map(|key| (key, rule("dns", backends))).collect()
        };
        let one = rules(&[("10.244.0.1", 53)]);
        let (to_port, to_address) = (Flow { address: None, port: 30053, leads: Leads::Anywhere }, address.address);
        assert_eq!(stale(&diff(&rules(&[]), &one)), BTreeSet::from([to_port]));
        assert_eq!(stale(&diff(&RuleSet::new(), &one)), BTreeSet::from([to_port]));
        let gone = Leads::To([10, 244, 0, 1].into());
        let both = [Flow { leads: gone, ..to_port }, Flow { address: to_address, port: 53, leads: gone }];
        assert_eq!(stale(&diff(&one, &rules(&[("10.244.0.2", 53)]))), BTreeSet::from(both));
    }
}
