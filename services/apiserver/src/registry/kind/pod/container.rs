//! The rules of one container.

use std::collections::BTreeSet;

use model::validate;
use proto::{
    k8s::{
        core::v1::{
            Container, ContainerPort, EnvVar, LifecycleHandler, ObjectFieldSelector, PodSpec, Probe, ProbeHandler,
            ResourceFieldSelector, ResourceRequirements, SecurityContext,
        },
        intstr::IntOrString,
    },
    quantity,
};

use crate::registry::Causes;

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const PULL_POLICIES: &[&str] = &["Always", "IfNotPresent", "Never"];
const MESSAGE_POLICIES: &[&str] = &["FallbackToLogsOnError", "File"];
const SCHEMES: &[&str] = &["HTTP", "HTTPS"];
/// Fields of its pod that a variable can hold; single labels and annotations besides.
const ENV_FIELDS: &[&str] = &[
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Amounts of a container that a variable or a file can show; huge pages besides.
const RESOURCE_FIELDS: &[&str] = &[
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
/// Numbers of users and groups.
const ID_MAX: i64 = i32::MAX as i64;

/// What of its pod a container may refer to.
pub(super) struct Mounts<'a> {
    pub volumes: &'a BTreeSet<&'a str>,
    pub is_host_network: bool,
}

pub(super) fn validate(container: &Container, field: &str, mounts: &Mounts<'_>, causes: &mut Causes) {
    if container.name.is_empty() {
        causes.required(format!("{field}.name"), "");
    } else {
        causes.invalid_each(format!("{field}.name"), &container.name, validate::dns_label(&container.name));
    }
    let image = container.image.trim();
    if image.is_empty() {
        causes.required(format!("{field}.image"), "");
    } else if image.len() != container.image.len() {
        causes.invalid(format!("{field}.image"), &container.image, "must not have leading or trailing whitespace");
    }
    validate_ports(&container.ports, field, mounts, causes);
    for (index, variable) in container.env.iter().enumerate() {
        validate_env(variable, &format!("{field}.env[{index}]"), causes);
    }
    for (index, source) in container.env_from.iter().enumerate() {
        let field = format!("{field}.envFrom[{index}]");
        match (&source.config_map_ref, &source.secret_ref) {
            (None, None) => causes.invalid(&field, "", "must specify one of: `configMapRef` or `secretRef`"),
            (Some(_), Some(_)) => causes.invalid(&field, "", "may not have more than one field specified at a time"),
            _ => {}
        }
    }
    validate_mounts(container, field, mounts, causes);
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        if let Some(probe) = probe {
            validate_probe(probe, &format!("{field}.{name}"), name == "readinessProbe", causes);
        }
    }
    let hooks = container.lifecycle.clone().unwrap_or_default();
    for (name, hook) in [("postStart", &hooks.post_start), ("preStop", &hooks.pre_stop)] {
        if let Some(hook) = hook {
            validate_hook(hook, &format!("{field}.lifecycle.{name}"), causes);
        }
    }
    if let Some(context) = &container.security_context {
        validate_security(context, &format!("{field}.securityContext"), causes);
    }
    if let Some(resources) = &container.resources {
        validate_resources(resources, &format!("{field}.resources"), causes);
    }
    causes.one_of(format!("{field}.imagePullPolicy"), &container.image_pull_policy, PULL_POLICIES);
    let policy = &container.termination_message_policy;
    causes.one_of(format!("{field}.terminationMessagePolicy"), policy, MESSAGE_POLICIES);
}

/// What an init container may not have, unless it goes on beside the others.
pub(super) fn validate_init(container: &Container, field: &str, causes: &mut Causes) {
    if let Some(policy) = container.restart_policy.as_deref().filter(|policy| *policy != "Always") {
        causes.not_supported(format!("{field}.restartPolicy"), policy, &["Always"]);
    }
    if model::pod::is_sidecar(container) {
        return;
    }
    for (name, is_set) in [
        ("livenessProbe", container.liveness_probe.is_some()),
        ("readinessProbe", container.readiness_probe.is_some()),
        ("startupProbe", container.startup_probe.is_some()),
        ("lifecycle", container.lifecycle.is_some()),
    ] {
        if is_set {
            causes.forbidden(
                format!("{field}.{name}"),
                "may not be set for init containers without restartPolicy=Always",
            );
        }
    }
}

fn validate_ports(ports: &[ContainerPort], field: &str, mounts: &Mounts<'_>, causes: &mut Causes) {
    let mut names = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let field = format!("{field}.ports[{index}]");
        if !port.name.is_empty() {
            causes.invalid_each(format!("{field}.name"), &port.name, validate::port_name(&port.name));
            if !names.insert(&port.name) {
                causes.duplicate(format!("{field}.name"), &port.name);
            }
        }
        if port.container_port == 0 {
            causes.required(format!("{field}.containerPort"), "");
        } else {
            for problem in validate::port(i64::from(port.container_port)) {
                causes.invalid_number(format!("{field}.containerPort"), i64::from(port.container_port), problem);
            }
        }
        if port.host_port != 0 {
            for problem in validate::port(i64::from(port.host_port)) {
                causes.invalid_number(format!("{field}.hostPort"), i64::from(port.host_port), problem);
            }
            if mounts.is_host_network && port.host_port != port.container_port {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                causes.invalid_number(format!("{field}.hostPort"), i64::from(port.host_port), detail);
            }
        }
        causes.one_of(format!("{field}.protocol"), &port.protocol, PROTOCOLS);
        if !port.host_ip.is_empty() {
            causes.invalid_each(format!("{field}.hostIP"), &port.host_ip, validate::ip(&port.host_ip));
        }
    }
}

/// Two containers of a pod cannot have one port of the node.
pub(super) fn validate_host_ports(spec: &PodSpec, field: &str, causes: &mut Causes) {
    let mut seen = BTreeSet::new();
    for (index, container) in spec.containers.iter().enumerate() {
        for (at, port) in container.ports.iter().enumerate().filter(|(_, port)| port.host_port != 0) {
            let taken = format!("{}/{}/{}", port.protocol, port.host_ip, port.host_port);
            if !seen.insert(taken.clone()) {
                causes.duplicate(format!("{field}.containers[{index}].ports[{at}].hostPort"), &taken);
            }
        }
    }
}

fn validate_env(variable: &EnvVar, field: &str, causes: &mut Causes) {
    if variable.name.is_empty() {
        causes.required(format!("{field}.name"), "");
    } else {
        causes.invalid_each(format!("{field}.name"), &variable.name, validate::env_name(&variable.name));
    }
    let Some(from) = &variable.value_from else { return };
    let sources = [
        from.field_ref.is_some(),
        from.resource_field_ref.is_some(),
        from.config_map_key_ref.is_some(),
        from.secret_key_ref.is_some(),
        from.file_key_ref.is_some(),
    ];
    match sources.iter().filter(|is_set| **is_set).count() {
        0 => {
            let detail = "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or \
                          `fileKeyRef`";
            causes.invalid(format!("{field}.valueFrom"), "", detail);
        }
        1 => {}
        _ => causes.invalid(format!("{field}.valueFrom"), "", "may not have more than one field specified at a time"),
    }
    if !variable.value.is_empty() {
        causes.invalid(format!("{field}.valueFrom"), "", "may not be specified when `value` is not empty");
    }
    if let Some(reference) = &from.field_ref {
        validate_field(reference, ENV_FIELDS, &format!("{field}.valueFrom.fieldRef"), causes);
    }
    if let Some(reference) = &from.resource_field_ref {
        validate_resource(reference, &format!("{field}.valueFrom.resourceFieldRef"), causes);
    }
    for (name, key) in [
        ("configMapKeyRef", from.config_map_key_ref.as_ref().map(|reference| &reference.key)),
        ("secretKeyRef", from.secret_key_ref.as_ref().map(|reference| &reference.key)),
    ] {
        if key.is_some_and(String::is_empty) {
            causes.required(format!("{field}.valueFrom.{name}.key"), "");
        }
    }
}

/// A field of the pod that is shown to its containers.
pub(super) fn validate_field(reference: &ObjectFieldSelector, known: &[&str], field: &str, causes: &mut Causes) {
    let field = format!("{field}.fieldPath");
    let path = reference.field_path.as_str();
    if path.is_empty() {
        return causes.required(field, "");
    }
    let key = ["metadata.labels['", "metadata.annotations['"]
        .iter()
        .find_map(|start| path.strip_prefix(start)?.strip_suffix("']"));
    match key {
        Some(key) => causes.invalid_each(field, key, validate::qualified_name(&key.to_lowercase())),
        None if known.contains(&path) => {}
        None => causes.not_supported(field, path, known),
    }
}

/// An amount of a container that is shown to its containers.
pub(super) fn validate_resource(reference: &ResourceFieldSelector, field: &str, causes: &mut Causes) {
    let is_huge =
        ["limits.hugepages-", "requests.hugepages-"].iter().any(|start| reference.resource.starts_with(start));
    if !is_huge {
        causes.one_of(format!("{field}.resource"), &reference.resource, RESOURCE_FIELDS);
    }
}

pub(super) fn validate_id(id: Option<i64>, field: &str, causes: &mut Causes) {
    if let Some(id) = id.filter(|id| !(0..=ID_MAX).contains(id)) {
        causes.invalid_number(field, id, format!("must be between 0 and {ID_MAX}, inclusive"));
    }
}

fn validate_security(context: &SecurityContext, field: &str, causes: &mut Causes) {
    validate_id(context.run_as_user, &format!("{field}.runAsUser"), causes);
    validate_id(context.run_as_group, &format!("{field}.runAsGroup"), causes);
    if context.privileged == Some(true) && context.allow_privilege_escalation == Some(false) {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true";
        causes.invalid(field, "", detail);
    }
}

fn validate_hook(hook: &LifecycleHandler, field: &str, causes: &mut Causes) {
    if let Some(sleep) = &hook.sleep {
        if hook.exec.is_some() || hook.http_get.is_some() || hook.tcp_socket.is_some() {
            causes.forbidden(format!("{field}.sleep"), "may not specify more than 1 handler type");
        }
        if sleep.seconds < 0 {
            let detail = "must be greater than or equal to 0";
            causes.invalid_number(format!("{field}.sleep.seconds"), sleep.seconds, detail);
        }
        return;
    }
    let handler = ProbeHandler {
        exec: hook.exec.clone(),
        http_get: hook.http_get.clone(),
        tcp_socket: hook.tcp_socket.clone(),
        ..ProbeHandler::default()
    };
    validate_handler(&handler, field, causes);
}

fn validate_mounts(container: &Container, field: &str, mounts: &Mounts<'_>, causes: &mut Causes) {
    let mut paths = BTreeSet::new();
    for (index, mount) in container.volume_mounts.iter().enumerate() {
        let field = format!("{field}.volumeMounts[{index}]");
        if mount.name.is_empty() {
            causes.required(format!("{field}.name"), "");
        } else if !mounts.volumes.contains(mount.name.as_str()) {
            causes.not_found(format!("{field}.name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            causes.required(format!("{field}.mountPath"), "");
        } else if !paths.insert(&mount.mount_path) {
            causes.invalid(format!("{field}.mountPath"), &mount.mount_path, "must be unique");
        }
        if !mount.sub_path.is_empty() {
            if mount.sub_path.starts_with('/') {
                causes.invalid(format!("{field}.subPath"), &mount.sub_path, "must be a relative path");
            } else if mount.sub_path.split('/').any(|part| part == "..") {
                causes.invalid(format!("{field}.subPath"), &mount.sub_path, "must not contain '..'");
            }
        }
    }
}

fn validate_probe(probe: &Probe, field: &str, is_readiness: bool, causes: &mut Causes) {
    validate_handler(&probe.handler.clone().unwrap_or_default(), field, causes);
    for (name, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if number < 0 {
            let detail = "must be greater than or equal to 0";
            causes.invalid_number(format!("{field}.{name}"), i64::from(number), detail);
        }
    }
    if !is_readiness && probe.success_threshold > 1 {
        causes.invalid_number(format!("{field}.successThreshold"), i64::from(probe.success_threshold), "must be 1");
    }
}

fn validate_handler(handler: &ProbeHandler, field: &str, causes: &mut Causes) {
    let mut handlers = 0;
    let mut is_next = |name: &str, causes: &mut Causes| {
        handlers += 1;
        if handlers > 1 {
            causes.forbidden(format!("{field}.{name}"), "may not specify more than 1 handler type");
        }
        handlers == 1
    };
    if let Some(exec) = &handler.exec
        && is_next("exec", causes)
        && exec.command.is_empty()
    {
        causes.required(format!("{field}.exec.command"), "");
    }
    if let Some(get) = &handler.http_get
        && is_next("httpGet", causes)
    {
        validate_handler_port(get.port.as_ref(), &format!("{field}.httpGet.port"), causes);
        causes.one_of(format!("{field}.httpGet.scheme"), &get.scheme, SCHEMES);
    }
    if let Some(socket) = &handler.tcp_socket
        && is_next("tcpSocket", causes)
    {
        validate_handler_port(socket.port.as_ref(), &format!("{field}.tcpSocket.port"), causes);
    }
    if let Some(grpc) = &handler.grpc
        && is_next("grpc", causes)
    {
        for problem in validate::port(i64::from(grpc.port)) {
            causes.invalid_number(format!("{field}.grpc.port"), i64::from(grpc.port), problem);
        }
    }
    if handlers == 0 {
        causes.required(field, "must specify a handler type");
    }
}

fn validate_handler_port(port: Option<&IntOrString>, field: &str, causes: &mut Causes) {
    match port {
        Some(IntOrString { r#type: 1, str_val, .. }) => {
            causes.invalid_each(field, str_val, validate::port_name(str_val));
        }
        port => {
            let number = port.map_or(0, |port| i64::from(port.int_val));
            for problem in validate::port(number) {
                causes.invalid_number(field, number, problem);
            }
        }
    }
}

fn validate_resources(resources: &ResourceRequirements, field: &str, causes: &mut Causes) {
    for (list, amounts) in [("limits", &resources.limits), ("requests", &resources.requests)] {
        for (name, amount) in amounts {
            let field = format!("{field}.{list}[{name}]");
            causes.invalid_each(&field, name, validate::qualified_name(name));
            let is_standard = matches!(name.as_str(), "cpu" | "memory" | "ephemeral-storage");
            if !is_standard && !name.contains('/') && !name.starts_with("hugepages-") {
                causes.invalid(&field, name, "must be a standard resource for containers");
            }
            match quantity::parse(&amount.string) {
                Ok(parsed) if parsed.is_negative() => {
                    causes.invalid(&field, &amount.string, "must be greater than or equal to 0");
                }
                Ok(_) => {}
                Err(error) => causes.invalid(&field, &amount.string, error.to_string()),
            }
        }
    }
    for (name, request) in &resources.requests {
        let field = format!("{field}.requests");
        match resources.limits.get(name) {
            Some(limit) if request.amount() > limit.amount() => {
                let detail = format!("must be less than or equal to {name} limit of {}", limit.string);
                causes.invalid(field, &request.string, detail);
            }
            None if name.contains('/') => causes.required(field, &format!("limit must be set for {name}")),
            _ => {}
        }
    }
}
