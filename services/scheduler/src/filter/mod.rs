//! Which nodes a pod may run on: one file per rule, each a pure function of pod and node.
//!
//! A new rule is a file beside these and a line in [`FILTERS`].

mod constraints;
mod host_ports;
mod node_affinity;
mod resources;
mod taints;
mod unschedulable;

use std::fmt;

pub use node_affinity::matches_term;
pub use taints::is_tolerated;

use crate::{demand::Demand, view::NodeView};

/// Why a node does not fit a pod. Its text is what users of Kubernetes know.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Refusal<'a> {
    Unschedulable,
    Taint { key: &'a str, value: &'a str },
    Affinity,
    HostPorts,
    TooManyPods,
    Insufficient(&'a str),
    UnknownConstraint(&'static str),
}

impl fmt::Display for Refusal<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unschedulable => out.write_str("node(s) were unschedulable"),
            Self::Taint { key, value } => write!(out, "node(s) had untolerated taint {{{key}: {value}}}"),
            Self::Affinity => out.write_str("node(s) didn't match Pod's node affinity/selector"),
            Self::HostPorts => out.write_str("node(s) didn't have free ports for the requested pod ports"),
            Self::TooManyPods => out.write_str("Too many pods"),
            Self::Insufficient(resource) => write!(out, "Insufficient {resource}"),
            Self::UnknownConstraint(name) => write!(out, "node(s) could not be checked for {name}"),
        }
    }
}

/// Adds its refusals; adds none where the node passes.
type Filter = for<'a> fn(&'a Demand, &'a NodeView, &mut Vec<Refusal<'a>>);

/// In this order: a node is refused for the reasons of the first rule it fails.
const FILTERS: [Filter; 6] = [
    constraints::check,
    unschedulable::check,
    taints::check,
    node_affinity::check,
    host_ports::check,
    resources::check,
];

/// Adds the reasons why `node` does not fit `pod`. True where there is none.
pub fn fits<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) -> bool {
    let before = refusals.len();
    for filter in FILTERS {
        filter(pod, node, refusals);
        if refusals.len() > before {
            return false;
        }
    }
    true
}
