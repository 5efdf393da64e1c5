//! What a pod that does not say otherwise gets.

use proto::k8s::core::v1::{
    Container, ContainerPort, EnvVar, PodSpec, Probe, ResourceRequirements, Toleration, Volume, VolumeSource,
};

/// Seconds a pod has between SIGTERM and SIGKILL.
pub(super) const GRACE: i64 = 30;
/// rw-r--r--
const FILE_MODE: i32 = 0o644;

/// Fills in a pod's spec; a template's, too.
pub(in crate::registry::kind) fn default_spec(spec: &mut PodSpec) {
    text(&mut spec.restart_policy, "Always");
    text(&mut spec.dns_policy, "ClusterFirst");
    text(&mut spec.scheduler_name, "default-scheduler");
    spec.termination_grace_period_seconds.get_or_insert(GRACE);
    spec.enable_service_links.get_or_insert(true);
    spec.security_context.get_or_insert_default();
    let is_host_network = spec.host_network;
    for container in spec.init_containers.iter_mut().chain(&mut spec.containers) {
        default_container(container);
        for port in container.ports.iter_mut().filter(|port| is_host_network && port.host_port == 0) {
            port.host_port = port.container_port;
        }
    }
    for volume in &mut spec.volumes {
        default_volume(volume);
    }
}

/// A pod that says nothing about it leaves a node so many seconds after that was lost.
pub(super) fn tolerate_lost_nodes(spec: &mut PodSpec, seconds: i64) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let is_covered = spec.tolerations.iter().any(|toleration| {
            (toleration.key == key || (toleration.key.is_empty() && toleration.operator == "Exists"))
                && matches!(toleration.effect.as_str(), "" | "NoExecute")
        });
        if !is_covered {
            spec.tolerations.push(Toleration {
                key: key.to_owned(),
                operator: "Exists".to_owned(),
                effect: "NoExecute".to_owned(),
                toleration_seconds: Some(seconds),
                ..Toleration::default()
            });
        }
    }
}

fn default_container(container: &mut Container) {
    text(&mut container.termination_message_path, "/dev/termination-log");
    text(&mut container.termination_message_policy, "File");
    text(&mut container.image_pull_policy, pull_policy(&container.image));
    container.ports.iter_mut().for_each(default_port);
    container.env.iter_mut().for_each(default_env);
    container.resources.as_mut().into_iter().for_each(default_resources);
    for probe in [&mut container.liveness_probe, &mut container.readiness_probe, &mut container.startup_probe]
        .into_iter()
        .flatten()
    {
        default_probe(probe);
    }
    let hooks = container.lifecycle.as_mut().map(|hooks| [&mut hooks.post_start, &mut hooks.pre_stop]);
    for get in hooks.into_iter().flatten().flatten().filter_map(|hook| hook.http_get.as_mut()) {
        text(&mut get.path, "/");
        text(&mut get.scheme, "HTTP");
    }
}

/// An image without a tag, or tagged `latest`, may have changed.
fn pull_policy(image: &str) -> &'static str {
    let name = image.rsplit('/').next().unwrap_or(image);
    let is_digest = image.contains('@');
    let tag = name.split_once(':').map(|(_, tag)| tag);
    if !is_digest && tag.is_none_or(|tag| tag == "latest") { "Always" } else { "IfNotPresent" }
}

fn default_port(port: &mut ContainerPort) {
    text(&mut port.protocol, "TCP");
}

fn default_env(variable: &mut EnvVar) {
    if let Some(field) = variable.value_from.as_mut().and_then(|from| from.field_ref.as_mut()) {
        text(&mut field.api_version, "v1");
    }
}

/// Who names a limit and no request asks for as much as it may use.
fn default_resources(resources: &mut ResourceRequirements) {
    for (name, limit) in &resources.limits {
        resources.requests.entry(name.clone()).or_insert_with(|| limit.clone());
    }
}

fn default_probe(probe: &mut Probe) {
    number(&mut probe.timeout_seconds, 1);
    number(&mut probe.period_seconds, 10);
    number(&mut probe.success_threshold, 1);
    number(&mut probe.failure_threshold, 3);
    let Some(handler) = &mut probe.handler else { return };
    if let Some(get) = &mut handler.http_get {
        text(&mut get.path, "/");
        text(&mut get.scheme, "HTTP");
    }
    if let Some(grpc) = &mut handler.grpc {
        grpc.service.get_or_insert_default();
    }
}

fn default_volume(volume: &mut Volume) {
    let source = volume.volume_source.get_or_insert_default();
    if *source == VolumeSource::default() {
        source.empty_dir = Some(Default::default());
    }
    if let Some(secret) = &mut source.secret {
        secret.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(map) = &mut source.config_map {
        map.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(fields) = &mut source.downward_api {
        fields.default_mode.get_or_insert(FILE_MODE);
        for field in fields.items.iter_mut().filter_map(|item| item.field_ref.as_mut()) {
            text(&mut field.api_version, "v1");
        }
    }
    if let Some(projected) = &mut source.projected {
        projected.default_mode.get_or_insert(FILE_MODE);
    }
    if let Some(path) = &mut source.host_path {
        path.r#type.get_or_insert_default();
    }
}

fn text(field: &mut String, value: &str) {
    if field.is_empty() {
        value.clone_into(field);
    }
}

fn number(field: &mut i32, value: i32) {
    if *field == 0 {
        *field = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_may_change_is_pulled_each_time() {
        for (image, policy) in [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.27", "IfNotPresent"),
            ("registry:5000/nginx", "Always"),
            ("registry:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:00", "IfNotPresent"),
        ] {
            assert_eq!(pull_policy(image), policy, "{image}");
        }
    }
}
