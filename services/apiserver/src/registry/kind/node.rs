//! Nodes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use model::validate;
use proto::k8s::core::v1::Node;

use crate::registry::{Causes, Strategy};

const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];

pub(super) struct Nodes;

impl Strategy for Nodes {
    type Object = Node;

    fn fill_in(&self, node: &mut Node) {
        let spec = node.spec.get_or_insert_default();
        match (spec.pod_cidr.is_empty(), spec.pod_cidrs.first()) {
            (false, None) => spec.pod_cidrs = vec![spec.pod_cidr.clone()],
            (true, Some(first)) => spec.pod_cidr.clone_from(first),
            _ => {}
        }
        if let Some(status) = &mut node.status
            && status.allocatable.is_empty()
        {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn keeps_first_status(&self) -> bool {
        true
    }

    fn prepare_status(&self, new: &mut Node, _old: &Node) {
        if let Some(status) = &mut new.status
            && status.allocatable.is_empty()
        {
            status.allocatable.clone_from(&status.capacity);
        }
    }

    fn validate(&self, node: &Node, causes: &mut Causes) {
        let Some(spec) = &node.spec else { return };
        let mut seen = BTreeSet::new();
        for (index, taint) in spec.taints.iter().enumerate() {
            let field = format!("spec.taints[{index}]");
            causes.invalid_each(format!("{field}.key"), &taint.key, validate::qualified_name(&taint.key));
            causes.invalid_each(format!("{field}.value"), &taint.value, validate::label_value(&taint.value));
            causes.one_of(format!("{field}.effect"), &taint.effect, EFFECTS);
            if !seen.insert((&taint.key, &taint.effect)) {
                causes.duplicate(&field, &format!("{}:{}", taint.key, taint.effect));
            }
        }
        for (index, cidr) in spec.pod_cidrs.iter().enumerate() {
            if cidr.parse::<IpNet>().is_err() {
                let detail = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";
                causes.invalid(format!("spec.podCIDRs[{index}]"), cidr, detail);
            }
        }
    }

    fn validate_update(&self, new: &Node, old: &Node, causes: &mut Causes) {
        self.validate(new, causes);
        let cidrs = |node: &Node| node.spec.as_ref().map(|spec| spec.pod_cidrs.clone()).unwrap_or_default();
        if !cidrs(old).is_empty() && cidrs(new) != cidrs(old) {
            causes.forbidden("spec.podCIDRs", "node updates may not change podCIDR except from \"\" to valid");
        }
        let provider = |node: &Node| node.spec.as_ref().map(|spec| spec.provider_id.clone()).unwrap_or_default();
        if !provider(old).is_empty() && provider(new) != provider(old) {
            causes.forbidden("spec.providerID", "node updates may not change providerID except from \"\" to valid");
        }
    }
}
