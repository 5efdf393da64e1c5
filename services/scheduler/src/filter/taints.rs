//! A tainted node takes only pods that tolerate the taint.

use proto::k8s::core::v1::{Taint, Toleration};

use super::Refusal;
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    let refusing = node
        .taints
        .iter()
        .filter(|taint| taint.effect == "NoSchedule" || taint.effect == "NoExecute")
        .find(|taint| !is_tolerated(taint, &pod.tolerations));
    refusals.extend(refusing.map(|taint| Refusal::Taint { key: &taint.key, value: &taint.value }));
}

/// Whether one of the tolerations speaks of this taint.
///
/// An empty effect means every effect; an empty key with `Exists` means every taint.
pub fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| {
        let effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
        let key = toleration.key.is_empty() || toleration.key == taint.key;
        let value = match toleration.operator.as_str() {
            "" | "Equal" => toleration.value == taint.value && !toleration.key.is_empty(),
            "Exists" => true,
            "Gt" => compares(&taint.value, &toleration.value, |taint, bound| taint > bound),
            "Lt" => compares(&taint.value, &toleration.value, |taint, bound| taint < bound),
            _ => false,
        };
        effect && key && value
    })
}

fn compares(taint: &str, bound: &str, holds: impl Fn(i64, i64) -> bool) -> bool {
    matches!((taint.parse(), bound.parse()), (Ok(taint), Ok(bound)) if holds(taint, bound))
}
