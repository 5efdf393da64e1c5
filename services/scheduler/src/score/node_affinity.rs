//! The sum of the weights of the preferred terms a node matches.

use crate::{demand::Demand, filter::matches_term, view::NodeView};

pub fn weight(pod: &Demand, node: &NodeView) -> i64 {
    pod.preferred_affinity
        .iter()
        .filter(|term| term.preference.as_ref().is_some_and(|preference| matches_term(preference, node)))
        .map(|term| i64::from(term.weight))
        .sum()
}
