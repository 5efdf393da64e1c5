//! The rules of a pod's spec, and of the templates that pods are made from.

use std::collections::BTreeSet;

use model::validate;
use prost::{
    Message,
    encoding::{DecodeContext, decode_key, skip_field},
};
use proto::k8s::core::v1::{PodSpec, PodTemplateSpec, Toleration, Volume};

use super::container::{self, Mounts};
use crate::registry::{Causes, meta};

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"];
const EFFECTS: &[&str] = &["NoSchedule", "PreferNoSchedule", "NoExecute"];
const MEDIA: &[&str] = &["", "Memory"];

/// The rules of a pod template.
pub(in crate::registry::kind) fn validate_template(template: &PodTemplateSpec, field: &str, causes: &mut Causes) {
    if let Some(labels) = template.metadata.as_ref().map(|meta| &meta.labels) {
        meta::validate_labels(labels, &format!("{field}.metadata.labels"), causes);
    }
    validate_spec(&template.spec.clone().unwrap_or_default(), &format!("{field}.spec"), causes);
}

pub(super) fn validate_spec(spec: &PodSpec, field: &str, causes: &mut Causes) {
    let volumes = validate_volumes(spec, field, causes);
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

/// Checks the volumes, and answers their names.
fn validate_volumes<'a>(spec: &'a PodSpec, field: &str, causes: &mut Causes) -> BTreeSet<&'a str> {
    let mut names = BTreeSet::new();
    for (index, volume) in spec.volumes.iter().enumerate() {
        let field = format!("{field}.volumes[{index}]");
        if volume.name.is_empty() {
            causes.required(format!("{field}.name"), "");
        } else {
            causes.invalid_each(format!("{field}.name"), &volume.name, validate::dns_label(&volume.name));
        }
        if !names.insert(volume.name.as_str()) {
            causes.duplicate(format!("{field}.name"), &volume.name);
        }
        validate_source(volume, &field, causes);
    }
    names
}

fn validate_source(volume: &Volume, field: &str, causes: &mut Causes) {
    let source = volume.volume_source.clone().unwrap_or_default();
    match fields_set(&source.encode_to_vec()) {
        0 => causes.required(field, "must specify a volume type"),
        1 => {}
        _ => causes.forbidden(field, "may not specify more than 1 volume type"),
    }
    if let Some(path) = &source.host_path {
        if path.path.is_empty() {
            causes.required(format!("{field}.hostPath.path"), "");
        } else if path.path.split('/').any(|part| part == "..") {
            causes.invalid(format!("{field}.hostPath.path"), &path.path, "must not contain '..'");
        }
    }
    if let Some(directory) = &source.empty_dir
        && !MEDIA.contains(&directory.medium.as_str())
        && !directory.medium.starts_with("HugePages")
    {
        causes.not_supported(format!("{field}.emptyDir.medium"), &directory.medium, MEDIA);
    }
    if source.secret.as_ref().is_some_and(|secret| secret.secret_name.is_empty()) {
        causes.required(format!("{field}.secret.secretName"), "");
    }
    let map_name = |map: &proto::k8s::core::v1::ConfigMapVolumeSource| {
        map.local_object_reference.as_ref().map(|reference| reference.name.clone()).unwrap_or_default()
    };
    if source.config_map.as_ref().is_some_and(|map| map_name(map).is_empty()) {
        causes.required(format!("{field}.configMap.name"), "");
    }
    let secret_items = source.secret.iter().flat_map(|secret| &secret.items).map(|item| ("secret", item));
    let map_items = source.config_map.iter().flat_map(|map| &map.items).map(|item| ("configMap", item));
    for (kind, item) in secret_items.chain(map_items) {
        if item.key.is_empty() {
            causes.required(format!("{field}.{kind}.items.key"), "");
        }
        if item.path.is_empty() {
            causes.required(format!("{field}.{kind}.items.path"), "");
        } else if item.path.starts_with('/') || item.path.split('/').any(|part| part == "..") {
            let detail = "must be a relative path and must not contain '..'";
            causes.invalid(format!("{field}.{kind}.items.path"), &item.path, detail);
        }
    }
}

/// How many different fields a message has set.
fn fields_set(message: &[u8]) -> usize {
    let mut rest = message;
    let mut numbers = BTreeSet::new();
    while !rest.is_empty() {
        let Ok((number, wire_type)) = decode_key(&mut rest) else { break };
        numbers.insert(number);
        if skip_field(wire_type, number, &mut rest, DecodeContext::default()).is_err() {
            break;
        }
    }
    numbers.len()
}
