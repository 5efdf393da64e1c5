//! `nodeSelector` and required node affinity: the node's labels and name must match both.

use proto::k8s::core::v1::{NodeSelectorRequirement, NodeSelectorTerm};

use super::Refusal;
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    let selected = pod.node_selector.iter().all(|(key, value)| node.labels.get(key) == Some(value));
    let affine = pod
        .required_affinity
        .as_ref()
        .is_none_or(|affinity| affinity.node_selector_terms.iter().any(|term| matches_term(term, node)));
    if !selected || !affine {
        refusals.push(Refusal::Affinity);
    }
}

/// Whether a node meets every requirement of a term. A term without any matches nothing.
pub fn matches_term(term: &NodeSelectorTerm, node: &NodeView) -> bool {
    let says_something = !term.match_expressions.is_empty() || !term.match_fields.is_empty();
    let labels = |requirement: &NodeSelectorRequirement| {
        meets(requirement, node.labels.get(&requirement.key).map(String::as_str))
    };
    let fields = |requirement: &NodeSelectorRequirement| {
        meets(requirement, (requirement.key == "metadata.name").then_some(&*node.name))
    };
    says_something && term.match_expressions.iter().all(labels) && term.match_fields.iter().all(fields)
}

fn meets(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let is_listed = || value.is_some_and(|value| requirement.values.iter().any(|listed| listed == value));
    match requirement.operator.as_str() {
        "In" => is_listed(),
        "NotIn" => !is_listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compares(requirement, value, |value, bound| value > bound),
        "Lt" => compares(requirement, value, |value, bound| value < bound),
        _ => false,
    }
}

fn compares(requirement: &NodeSelectorRequirement, value: Option<&str>, holds: impl Fn(i64, i64) -> bool) -> bool {
    let [bound] = requirement.values.as_slice() else { return false };
    matches!((value.map(str::parse), bound.parse()), (Some(Ok(value)), Ok(bound)) if holds(value, bound))
}
