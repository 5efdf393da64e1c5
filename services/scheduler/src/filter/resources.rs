//! What the pods of a node ask for together may not exceed what it offers; nor may their number.

use super::Refusal;
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    if node.usage.pods >= node.pods_max {
        refusals.push(Refusal::TooManyPods);
    }
    let lacking = node.allocatable.lacking(&node.usage.requested, &pod.requests);
    refusals.extend(lacking.map(Refusal::Insufficient));
}
