//! [`Options`]: what an apiserver is told at its start.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    ops::RangeInclusive,
    time::Duration,
};

use ipnet::Ipv4Net;
use kit::tls::ClientTls;

use crate::registry::Pool;

/// Random tries before a range is walked from its start.
const RANDOM_PICKS: usize = 16;

/// What an apiserver is told at its start.
#[derive(Clone, Debug)]
pub struct Options {
    /// Addresses given to Services; the first one is the `kubernetes` Service's.
    pub service_cidr: Ipv4Net,
    /// Ports given to Services of type NodePort.
    pub node_ports: RangeInclusive<u16>,
    /// The address and port by which this apiserver is listed behind the `kubernetes` Service; one on loopback is not
    /// listed.
    pub advertise: Option<(IpAddr, u16)>,
    /// How often the store's history is compacted; the history of one interval is kept.
    pub compaction_interval: Duration,
    /// Foreground and orphan deletion leave finalizers for a garbage collector to resolve; without one, objects are
    /// deleted as if in the background.
    pub garbage_collection: bool,
    /// How long a pod stays bound to a node that is not ready or not reachable, where it does not say so itself.
    pub lost_node_seconds: i64,
    /// How this apiserver shows itself to kubelets; without it logs and exec are refused.
    pub kubelets: Option<ClientTls>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            service_cidr: Ipv4Net::new_assert(Ipv4Addr::new(10, 96, 0, 0), 16),
            node_ports: 30000..=32767,
            advertise: None,
            compaction_interval: Duration::from_secs(300),
            garbage_collection: false,
            lost_node_seconds: 300,
            kubelets: None,
        }
    }
}

impl Options {
    /// The `kubernetes` Service's address.
    pub fn first_service_address(&self) -> Ipv4Addr {
        self.service_cidr.hosts().next().unwrap_or(self.service_cidr.network())
    }

    /// A value of the pool that is not known to be taken; `None` where all are.
    pub(crate) fn pick(&self, pool: Pool, taken: &BTreeSet<String>) -> Option<String> {
        let nth: Box<dyn Fn(u32) -> String> = match pool {
            Pool::ServiceAddresses => {
                // The first address is the kubernetes Service's; network and broadcast are nobody's.
                let first = u32::from(self.first_service_address());
                Box::new(move |n| Ipv4Addr::from(first + n).to_string())
            }
            Pool::NodePorts => {
                let first = u32::from(*self.node_ports.start());
                Box::new(move |n| (first + n).to_string())
            }
        };
        let size = match pool {
            Pool::ServiceAddresses => {
                u32::from(self.service_cidr.broadcast()).checked_sub(u32::from(self.first_service_address()))?
            }
            Pool::NodePorts => u32::from(self.node_ports.end().checked_sub(*self.node_ports.start())?) + 1,
        };
        if size == 0 {
            return None;
        }
        let random = (0..RANDOM_PICKS).map(|_| rand::random_range(0..size));
        random.chain(0..size).map(nth).find(|value| !taken.contains(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_free_value_is_found() {
        let options =
            Options { service_cidr: "10.96.0.0/29".parse().unwrap(), node_ports: 30000..=30001, ..Options::default() };
        let taken = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(options.pick(Pool::NodePorts, &taken(&["30000"])).as_deref(), Some("30001"));
        assert_eq!(options.pick(Pool::NodePorts, &taken(&["30000", "30001"])), None);
        let used = taken(&["10.96.0.1", "10.96.0.2", "10.96.0.3", "10.96.0.4", "10.96.0.5"]);
        assert_eq!(options.pick(Pool::ServiceAddresses, &used).as_deref(), Some("10.96.0.6"));
    }
}
