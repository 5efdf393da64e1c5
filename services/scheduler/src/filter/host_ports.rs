//! Two pods of one node cannot hold the same port of it.

use super::Refusal;
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    let taken = pod.host_ports.iter().any(|port| node.usage.host_ports.iter().any(|held| held.collides_with(port)));
    if taken {
        refusals.push(Refusal::HostPorts);
    }
}
