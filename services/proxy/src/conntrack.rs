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

/// A service address or node port, and the backend its flows lead to; no backend: whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Flow {
    pub address: Option<Ipv4Addr>,
    pub port: u16,
    pub backend: Option<Ipv4Addr>,
}

/// UDP flows that no longer lead where their rule says. Pure.
pub fn stale(changes: &Changes) -> BTreeSet<Flow> {
    let mut flows = BTreeSet::new();
    for (key, change) in changes.0.iter().filter(|(key, _)| key.protocol == Protocol::Udp) {
        let kept = change.after.as_ref().map(|rule| rule.backends.as_slice()).unwrap_or_default();
        let had = change.before.as_ref().map(|rule| rule.backends.as_slice()).unwrap_or_default();
        let gone = had.iter().filter(|was| !kept.iter().any(|is| is.address == was.address));
        flows.extend(gone.map(|was| Flow { address: key.address, port: key.port, backend: Some(*was.address.ip()) }));
    }
    if flows.len() > PAIRS_MAX {
        flows = flows.into_iter().map(|flow| Flow { backend: None, ..flow }).collect();
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
        match flow.backend {
            Some(backend) => command.args(["--dst-nat", &backend.to_string()]),
            None => command.arg("--dst-nat"),
        };
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
