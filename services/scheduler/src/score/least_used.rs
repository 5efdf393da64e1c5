//! The less a node was measured to use, the better, whatever its pods ask for.
//!
//! A measurement is some seconds old: pods placed since count with what they ask for, or a burst would all go to the
//! node that was idle a moment ago. A node nobody measured is taken to use what is asked of it.

use super::share;
use crate::{demand::Demand, resources::Nominal, view::NodeView};

pub fn points(pod: &Demand, node: &NodeView) -> i64 {
    let used = match node.load {
        Some(load) => {
            let mut used = node.usage.unmeasured();
            used.add(Nominal { cpu_milli: load.cpu_milli, memory_bytes: load.memory_bytes });
            used
        }
        None => node.usage.nominal,
    };
    let cpu = node.allocatable.cpu_milli - used.cpu_milli - pod.nominal.cpu_milli;
    let memory = node.allocatable.memory_bytes - used.memory_bytes - pod.nominal.memory_bytes;
    (share(cpu, node.allocatable.cpu_milli) + share(memory, node.allocatable.memory_bytes)) / 2
}
