//! The rules of where a pod may be placed: affinity and spread.

use std::collections::BTreeSet;

use model::validate;
use proto::k8s::{
    core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodAffinityTerm, PodSpec, TopologySpreadConstraint},
    meta::v1::LabelSelector,
};

use crate::registry::{Causes, meta};

const WHEN_UNSATISFIABLE: &[&str] = &["DoNotSchedule", "ScheduleAnyway"];
const SPREAD_POLICIES: &[&str] = &["Honor", "Ignore"];
const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";
/// The one field by which a node can be selected.
const NODE_FIELDS: &[&str] = &["metadata.name"];

pub(super) fn validate(spec: &PodSpec, field: &str, causes: &mut Causes) {
    let affinity = spec.affinity.clone().unwrap_or_default();
    let field_of = |name: &str| format!("{field}.affinity.{name}");
    if let Some(nodes) = &affinity.node_affinity {
        if let Some(required) = &nodes.required_during_scheduling_ignored_during_execution {
            let field = format!("{}.{REQUIRED}.nodeSelectorTerms", field_of("nodeAffinity"));
            if required.node_selector_terms.is_empty() {
                causes.required(&field, "must have at least one node selector term");
            }
            for (index, term) in required.node_selector_terms.iter().enumerate() {
                validate_node_term(term, &format!("{field}[{index}]"), causes);
            }
        }
        for (index, preferred) in nodes.preferred_during_scheduling_ignored_during_execution.iter().enumerate() {
            let field = format!("{}.{PREFERRED}[{index}]", field_of("nodeAffinity"));
            validate_weight(preferred.weight, &field, causes);
            let term = preferred.preference.clone().unwrap_or_default();
            validate_node_term(&term, &format!("{field}.preference"), causes);
        }
    }
    let near = affinity.pod_affinity.unwrap_or_default();
    let apart = affinity.pod_anti_affinity.unwrap_or_default();
    for (name, required, preferred) in [
        (
            "podAffinity",
            &near.required_during_scheduling_ignored_during_execution,
            &near.preferred_during_scheduling_ignored_during_execution,
        ),
        (
            "podAntiAffinity",
            &apart.required_during_scheduling_ignored_during_execution,
            &apart.preferred_during_scheduling_ignored_during_execution,
        ),
    ] {
        for (index, term) in required.iter().enumerate() {
            validate_pod_term(term, &format!("{}.{REQUIRED}[{index}]", field_of(name)), causes);
        }
        for (index, weighted) in preferred.iter().enumerate() {
            let field = format!("{}.{PREFERRED}[{index}]", field_of(name));
            validate_weight(weighted.weight, &field, causes);
            let term = weighted.pod_affinity_term.clone().unwrap_or_default();
            validate_pod_term(&term, &format!("{field}.podAffinityTerm"), causes);
        }
    }
    validate_spread(&spec.topology_spread_constraints, &format!("{field}.topologySpreadConstraints"), causes);
}

fn validate_weight(weight: i32, field: &str, causes: &mut Causes) {
    if !(1..=100).contains(&weight) {
        causes.invalid_number(format!("{field}.weight"), i64::from(weight), "must be in the range 1-100");
    }
}

fn validate_node_term(term: &NodeSelectorTerm, field: &str, causes: &mut Causes) {
    for (index, requirement) in term.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        causes.invalid_each(format!("{field}.key"), &requirement.key, validate::qualified_name(&requirement.key));
        validate_node_operator(requirement, &field, causes);
    }
    for (index, requirement) in term.match_fields.iter().enumerate() {
        let field = format!("{field}.matchFields[{index}]");
        causes.one_of(format!("{field}.key"), &requirement.key, NODE_FIELDS);
        if !matches!(requirement.operator.as_str(), "In" | "NotIn") {
            causes.invalid(format!("{field}.operator"), &requirement.operator, "not a valid selector operator");
        } else if requirement.values.len() != 1 {
            causes.required(format!("{field}.values"), "must be only one value when `operator` is 'In' or 'NotIn'");
        }
    }
}

fn validate_node_operator(requirement: &NodeSelectorRequirement, field: &str, causes: &mut Causes) {
    let NodeSelectorRequirement { operator, values, .. } = requirement;
    let at = format!("{field}.values");
    match (operator.as_str(), values.len()) {
        ("In" | "NotIn", 0) => causes.required(at, "must be specified when `operator` is 'In' or 'NotIn'"),
        ("In" | "NotIn", _) => {
            for (index, value) in values.iter().enumerate() {
                causes.invalid_each(format!("{at}[{index}]"), value, validate::label_value(value));
            }
        }
        ("Exists" | "DoesNotExist", 0) | ("Gt" | "Lt", 1) => {}
        ("Exists" | "DoesNotExist", _) => {
            causes.forbidden(at, "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
        }
        ("Gt" | "Lt", _) => causes.required(at, "must be specified single value when `operator` is 'Lt' or 'Gt'"),
        _ => causes.invalid(format!("{field}.operator"), operator, "not a valid selector operator"),
    }
}

fn validate_pod_term(term: &PodAffinityTerm, field: &str, causes: &mut Causes) {
    validate_selector(term.label_selector.as_ref(), &format!("{field}.labelSelector"), causes);
    validate_selector(term.namespace_selector.as_ref(), &format!("{field}.namespaceSelector"), causes);
    for (index, namespace) in term.namespaces.iter().enumerate() {
        causes.invalid_each(format!("{field}.namespaces[{index}]"), namespace, validate::dns_label(namespace));
    }
    validate_topology_key(&term.topology_key, field, causes);
}

fn validate_topology_key(key: &str, field: &str, causes: &mut Causes) {
    let field = format!("{field}.topologyKey");
    if key.is_empty() {
        causes.required(field, "can not be empty");
    } else {
        causes.invalid_each(field, key, validate::qualified_name(key));
    }
}

fn validate_spread(constraints: &[TopologySpreadConstraint], field: &str, causes: &mut Causes) {
    let mut known = BTreeSet::new();
    for (index, constraint) in constraints.iter().enumerate() {
        let field = format!("{field}[{index}]");
        if constraint.max_skew <= 0 {
            let detail = "must be greater than zero";
            causes.invalid_number(format!("{field}.maxSkew"), i64::from(constraint.max_skew), detail);
        }
        if let Some(domains) = constraint.min_domains.filter(|domains| *domains <= 0) {
            let detail = "must be greater than zero";
            causes.invalid_number(format!("{field}.minDomains"), i64::from(domains), detail);
        }
        validate_topology_key(&constraint.topology_key, &field, causes);
        causes.one_of(format!("{field}.whenUnsatisfiable"), &constraint.when_unsatisfiable, WHEN_UNSATISFIABLE);
        for (name, policy) in [
            ("nodeAffinityPolicy", &constraint.node_affinity_policy),
            ("nodeTaintsPolicy", &constraint.node_taints_policy),
        ] {
            if let Some(policy) = policy {
                causes.one_of(format!("{field}.{name}"), policy, SPREAD_POLICIES);
            }
        }
        validate_selector(constraint.label_selector.as_ref(), &format!("{field}.labelSelector"), causes);
        if !known.insert((&constraint.topology_key, &constraint.when_unsatisfiable)) {
            let pair = format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            causes.duplicate(format!("{field}.{{topologyKey, whenUnsatisfiable}}"), &pair);
        }
    }
}

fn validate_selector(selector: Option<&LabelSelector>, field: &str, causes: &mut Causes) {
    let Some(selector) = selector else { return };
    meta::validate_labels(&selector.match_labels, &format!("{field}.matchLabels"), causes);
    for (index, requirement) in selector.match_expressions.iter().enumerate() {
        let field = format!("{field}.matchExpressions[{index}]");
        causes.invalid_each(format!("{field}.key"), &requirement.key, validate::qualified_name(&requirement.key));
        match (requirement.operator.as_str(), requirement.values.is_empty()) {
            ("In" | "NotIn", true) => {
                causes.required(format!("{field}.values"), "must be specified when `operator` is 'In' or 'NotIn'");
            }
            ("Exists" | "DoesNotExist", false) => {
                let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                causes.forbidden(format!("{field}.values"), detail);
            }
            ("In" | "NotIn" | "Exists" | "DoesNotExist", _) => {}
            (other, _) => causes.invalid(format!("{field}.operator"), other, "not a valid selector operator"),
        }
    }
}
