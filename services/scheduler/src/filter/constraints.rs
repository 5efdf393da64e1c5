//! A hard constraint without a filter keeps the pod waiting: placing it as if it had not asked would break its promise.

use super::Refusal;
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, _: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    refusals.extend(pod.unknown_constraint.map(Refusal::UnknownConstraint));
}
