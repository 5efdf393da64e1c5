//! The rules of a pod's spec, and of the templates that pods are made from.

use std::collections::BTreeSet;

use model::validate;
use proto::k8s::core::v1::{PodSpec, PodTemplateSpec, Toleration};

use super::{
    container::{self, Mounts},
    placement, volume,
};
use crate::registry::{Causes, meta};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const OPERATING_SYSTEMS: &[&str] = &["linux", "windows"];
const PREEMPTION_POLICIES: &[&str] = &["PreemptLowerPriority", "Never"];

/// The rules of a pod template.
pub(in crate::registry::kind) fn validate_template(template: &PodTemplateSpec, field: &str, causes: &mut Causes) {
    if let Some(meta) = &template.metadata {
        meta::validate_labels(&meta.labels, &format!("{field}.metadata.labels"), causes);
        meta::validate_annotations(&meta.annotations, &format!("{field}.metadata.annotations"), causes);
    }
    let spec = template.spec.clone().unwrap_or_default();
    validate_spec(&spec, &format!("{field}.spec"), causes);
    if !spec.ephemeral_containers.is_empty() {
        causes.forbidden(format!("{field}.spec.ephemeralContainers"), "cannot be set in a pod template");
    }
}

pub(super) fn validate_spec(spec: &PodSpec, field: &str, causes: &mut Causes) {
    let volumes = volume::validate(&spec.volumes, &format!("{field}.volumes"), causes);
    if spec.containers.is_empty() {
        causes.required(format!("{field}.containers"), "");
    }
    let mounts = Mounts { volumes: &volumes, is_host_network: spec.host_network };
    let mut names = BTreeSet::new();
    for (index, one) in spec.init_containers.iter().enumerate() {
        let field = format!("{field}.initContainers[{index}]");
        container::validate(one, &field, &mounts, causes);
        container::validate_init(one, &field, causes);
        if !one.name.is_empty() && !names.insert(one.name.as_str()) {
            causes.duplicate(format!("{field}.name"), &one.name);
        }
    }
    for (index, one) in spec.containers.iter().enumerate() {
        let field = format!("{field}.containers[{index}]");
        container::validate(one, &field, &mounts, causes);
        if !one.name.is_empty() && !names.insert(one.name.as_str()) {
            causes.duplicate(format!("{field}.name"), &one.name);
        }
    }
    container::validate_host_ports(spec, field, causes);
    causes.one_of(format!("{field}.restartPolicy"), &spec.restart_policy, RESTART_POLICIES);
    causes.one_of(format!("{field}.dnsPolicy"), &spec.dns_policy, DNS_POLICIES);
    if spec.dns_policy == "None" && spec.dns_config.as_ref().is_none_or(|config| config.nameservers.is_empty()) {
        causes.required(
            format!("{field}.dnsConfig.nameservers"),
            "must provide at least one DNS nameserver when `dnsPolicy` is None",
        );
    }
    validate_names(spec, field, causes);
    validate_times(spec, field, causes);
    for (index, toleration) in spec.tolerations.iter().enumerate() {
        validate_toleration(toleration, &format!("{field}.tolerations[{index}]"), causes);
    }
    placement::validate(spec, field, causes);
    validate_gates(spec, field, causes);
    validate_host(spec, field, causes);
}

/// What holds a pod back from being placed, and from being ready.
fn validate_gates(spec: &PodSpec, field: &str, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for (index, gate) in spec.scheduling_gates.iter().enumerate() {
        let field = format!("{field}.schedulingGates[{index}]");
        causes.invalid_each(&field, &gate.name, validate::qualified_name(&gate.name));
        if !names.insert(&gate.name) {
            causes.duplicate(field, &gate.name);
        }
    }
    for (index, gate) in spec.readiness_gates.iter().enumerate() {
        let problems = validate::qualified_name(&gate.condition_type);
        causes.invalid_each(format!("{field}.readinessGates[{index}].conditionType"), &gate.condition_type, problems);
    }
}

/// What the pod asks of the machine it runs on.
fn validate_host(spec: &PodSpec, field: &str, causes: &mut Causes) {
    for (index, alias) in spec.host_aliases.iter().enumerate() {
        let field = format!("{field}.hostAliases[{index}]");
        causes.invalid_each(format!("{field}.ip"), &alias.ip, validate::ip(&alias.ip));
        for (at, name) in alias.hostnames.iter().enumerate() {
            causes.invalid_each(format!("{field}.hostnames[{at}]"), name, validate::dns_subdomain(name));
        }
    }
    if let Some(os) = &spec.os {
        causes.one_of(format!("{field}.os.name"), &os.name, OPERATING_SYSTEMS);
    }
    if let Some(policy) = &spec.preemption_policy {
        causes.one_of(format!("{field}.preemptionPolicy"), policy, PREEMPTION_POLICIES);
    }
    let context = spec.security_context.clone().unwrap_or_default();
    for (name, id) in
        [("runAsUser", context.run_as_user), ("runAsGroup", context.run_as_group), ("fsGroup", context.fs_group)]
    {
        container::validate_id(id, &format!("{field}.securityContext.{name}"), causes);
    }
    for (index, id) in context.supplemental_groups.iter().enumerate() {
        container::validate_id(Some(*id), &format!("{field}.securityContext.supplementalGroups[{index}]"), causes);
    }
}

fn validate_names(spec: &PodSpec, field: &str, causes: &mut Causes) {
    for (key, value) in &spec.node_selector {
        causes.invalid_each(format!("{field}.nodeSelector"), key, validate::qualified_name(key));
        causes.invalid_each(format!("{field}.nodeSelector"), value, validate::label_value(value));
    }
    for (name, value, problems) in [
        ("serviceAccountName", &spec.service_account_name, validate::dns_subdomain(&spec.service_account_name)),
        ("nodeName", &spec.node_name, validate::dns_subdomain(&spec.node_name)),
        ("hostname", &spec.hostname, validate::dns_label(&spec.hostname)),
        ("subdomain", &spec.subdomain, validate::dns_label(&spec.subdomain)),
        ("priorityClassName", &spec.priority_class_name, validate::dns_subdomain(&spec.priority_class_name)),
    ] {
        if !value.is_empty() {
            causes.invalid_each(format!("{field}.{name}"), value, problems);
        }
    }
    if !spec.node_name.is_empty() && !spec.scheduling_gates.is_empty() {
        causes.forbidden(format!("{field}.nodeName"), "cannot be set until all schedulingGates have been cleared");
    }
}

fn validate_times(spec: &PodSpec, field: &str, causes: &mut Causes) {
    if let Some(seconds) = spec.active_deadline_seconds.filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds)) {
        let detail = "must be between 1 and 2147483647, inclusive";
        causes.invalid_number(format!("{field}.activeDeadlineSeconds"), seconds, detail);
    }
    if let Some(seconds) = spec.termination_grace_period_seconds.filter(|seconds| *seconds < 0) {
        let detail = "must be greater than or equal to 0";
        causes.invalid_number(format!("{field}.terminationGracePeriodSeconds"), seconds, detail);
    }
}

fn validate_toleration(toleration: &Toleration, field: &str, causes: &mut Causes) {
    if toleration.key.is_empty() {
        if toleration.operator != "Exists" {
            let detail = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
            causes.invalid(format!("{field}.operator"), &toleration.operator, detail);
        }
    } else {
        causes.invalid_each(format!("{field}.key"), &toleration.key, validate::qualified_name(&toleration.key));
    }
    match toleration.operator.as_str() {
        "" | "Equal" => {
            causes.invalid_each(format!("{field}.value"), &toleration.value, validate::label_value(&toleration.value));
        }
        "Exists" if !toleration.value.is_empty() => {
            causes.invalid(
                format!("{field}.value"),
                &toleration.value,
                "value must be empty when `operator` is 'Exists'",
            );
        }
        "Exists" => {}
        other => causes.not_supported(format!("{field}.operator"), other, &["Equal", "Exists"]),
    }
    if !toleration.effect.is_empty() {
        causes.one_of(format!("{field}.effect"), &toleration.effect, EFFECTS);
    }
    if toleration.toleration_seconds.is_some() && toleration.effect != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        causes.invalid(format!("{field}.effect"), &toleration.effect, detail);
    }
}
