//! The closer CPU and memory are asked for in the same proportion, the better: neither is left over unusable.

use super::{POINTS_MAX, share};
use crate::{demand::Demand, view::NodeView};

pub fn points(pod: &Demand, node: &NodeView) -> i64 {
    let asked = &node.usage.requested;
    let cpu = share(asked.cpu_milli + pod.requests.cpu_milli, node.allocatable.cpu_milli);
    let memory = share(asked.memory_bytes + pod.requests.memory_bytes, node.allocatable.memory_bytes);
    // The standard deviation of two values is half their distance.
    POINTS_MAX - (cpu - memory).abs() / 2
}
