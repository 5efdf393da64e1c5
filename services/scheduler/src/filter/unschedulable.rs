//! A cordoned node takes no pods, but those that tolerate the taint which says the same.

use proto::k8s::core::v1::Taint;

use super::{Refusal, taints::is_tolerated};
use crate::{demand::Demand, view::NodeView};

pub fn check<'a>(pod: &'a Demand, node: &'a NodeView, refusals: &mut Vec<Refusal<'a>>) {
    if !node.unschedulable {
        return;
    }
    let taint = Taint {
        key: "node.kubernetes.io/unschedulable".to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Taint::default()
    };
    if !is_tolerated(&taint, &pod.tolerations) {
        refusals.push(Refusal::Unschedulable);
    }
}
