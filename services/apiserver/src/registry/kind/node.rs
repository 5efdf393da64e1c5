//! Nodes.

use std::collections::BTreeSet;

use ipnet::IpNet;
use model::validate;
use proto::{k8s::core::v1::Node, quantity};

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

    fn validate_status(&self, new: &Node, _old: &Node, causes: &mut Causes) {
        validate_amounts(new, causes);
    }

    fn validate(&self, node: &Node, causes: &mut Causes) {
        validate_amounts(node, causes);
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
        if spec.pod_cidrs.first().is_some_and(|first| *first != spec.pod_cidr) {
            causes.invalid("spec.podCIDRs[0]", &spec.pod_cidrs[0], "must match `podCIDR`");
        }
        let is_v6 = |cidr: &String| cidr.contains(':');
        let families: BTreeSet<bool> = spec.pod_cidrs.iter().map(is_v6).collect();
        if families.len() < spec.pod_cidrs.len() {
            let detail = "may specify no more than one CIDR for each IP family";
            causes.invalid("spec.podCIDRs", &spec.pod_cidrs.join(","), detail);
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

fn validate_amounts(node: &Node, causes: &mut Causes) {
    let Some(status) = &node.status else { return };
    for (list, amounts) in [("capacity", &status.capacity), ("allocatable", &status.allocatable)] {
        for (name, amount) in amounts {
            if quantity::parse(&amount.string).is_ok_and(|amount| amount.is_negative()) {
                let detail = "must be greater than or equal to 0";
                causes.invalid(format!("status.{list}.{name}"), &amount.string, detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::{
        core::v1::{NodeSpec, NodeStatus},
        resource::Quantity,
    };

    use super::*;

    #[test]
    fn a_node_has_real_amounts_and_one_range_per_family() {
        let ranges = |ranges: &[&str]| ranges.iter().map(|range| (*range).to_owned()).collect::<Vec<_>>();
        let capacity = [("cpu".to_owned(), Quantity { string: "-1".to_owned() })].into();
        let mut node = Node {
            spec: Some(NodeSpec { pod_cidrs: ranges(&["10.1.0.0/24", "10.2.0.0/24"]), ..Default::default() }),
            status: Some(NodeStatus { capacity, ..Default::default() }),
            ..Default::default()
        };
        Nodes.fill_in(&mut node);
        let mut causes = Causes::default();
        Nodes.validate(&node, &mut causes);
        expect![[r#"
            status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0
            status.allocatable.cpu: Invalid value: "-1": must be greater than or equal to 0
            spec.podCIDRs: Invalid value: "10.1.0.0/24,10.2.0.0/24": may specify no more than one CIDR for each IP family
        "#]]
        .assert_eq(&causes.lines());
        let spec = node.spec.as_mut().unwrap();
        (spec.pod_cidr, spec.pod_cidrs) = ("10.3.0.0/24".to_owned(), ranges(&["10.1.0.0/24", "fd00::/64"]));
        let mut causes = Causes::default();
        Nodes.validate(&Node { status: None, ..node }, &mut causes);
        expect![[r#"
            spec.podCIDRs[0]: Invalid value: "10.1.0.0/24": must match `podCIDR`
        "#]]
        .assert_eq(&causes.lines());
    }
}
