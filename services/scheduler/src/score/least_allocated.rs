//! The less of a node is asked for, the better: spreads pods.

use super::share;
use crate::{demand::Demand, view::NodeView};

pub fn points(pod: &Demand, node: &NodeView) -> i64 {
    let asked = node.usage.nominal;
    let cpu = node.allocatable.cpu_milli - asked.cpu_milli - pod.nominal.cpu_milli;
    let memory = node.allocatable.memory_bytes - asked.memory_bytes - pod.nominal.memory_bytes;
    (share(cpu, node.allocatable.cpu_milli) + share(memory, node.allocatable.memory_bytes)) / 2
}
