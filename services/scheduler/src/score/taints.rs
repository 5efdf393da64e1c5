//! How many `PreferNoSchedule` taints of a node the pod does not tolerate.

use crate::{demand::Demand, filter::is_tolerated, view::NodeView};

pub fn count(pod: &Demand, node: &NodeView) -> i64 {
    let soft = node.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
    soft.filter(|taint| !is_tolerated(taint, &pod.tolerations)).count() as i64
}
