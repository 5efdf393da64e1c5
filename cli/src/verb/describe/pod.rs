//! A pod in full.

use model::pod::{spec, status};
use proto::k8s::{
    core::v1::{Container, ContainerState, ContainerStatus, EnvVar, Pod, PodTemplateSpec, Probe, Toleration, Volume},
    intstr::IntOrString,
    resource::Quantity,
};

use super::{head, joined, labels, moment, or, pairs};
use crate::output::sheet::Sheet;

pub fn describe(sheet: &mut Sheet, pod: &Pod) {
    let meta = pod.metadata.clone().unwrap_or_default();
    let (spec, status) = (spec(pod), status(pod));
    head(sheet, &meta);
    if let Some(priority) = spec.priority {
        sheet.field(0, "Priority", priority.to_string());
    }
    sheet.field_if(0, "Priority Class Name", &spec.priority_class_name);
    sheet.field(0, "Service Account", &spec.service_account_name);
    let node =
        if spec.node_name.is_empty() { "<none>".to_owned() } else { format!("{}/{}", spec.node_name, status.host_ip) };
    sheet.field(0, "Node", node);
    if status.start_time.is_some() {
        sheet.field(0, "Start Time", moment(status.start_time.as_ref()));
    }
    labels(sheet, &meta);
    if meta.deletion_timestamp.is_some() {
        sheet.field(0, "Status", "Terminating");
        sheet.field(0, "Termination Grace Period", format!("{}s", meta.deletion_grace_period_seconds.unwrap_or(0)));
    } else {
        sheet.field(0, "Status", model::pod::phase(pod));
    }
    sheet.field_if(0, "Reason", &status.reason);
    sheet.field_if(0, "Message", &status.message);
    sheet.field(0, "IP", &status.pod_ip);
    if status.pod_ips.is_empty() {
        sheet.field(0, "IPs", "<none>");
    } else {
        sheet.heading(0, "IPs");
        status.pod_ips.iter().for_each(|ip| sheet.field(1, "IP", &ip.ip));
    }
    if let Some(owner) = model::meta::controller_of(&meta) {
        sheet.field(0, "Controlled By", format!("{}/{}", owner.kind, owner.name));
    }
    containers(sheet, 0, "Init Containers", &spec.init_containers, &status.init_container_statuses);
    containers(sheet, 0, "Containers", &spec.containers, &status.container_statuses);
    if !status.conditions.is_empty() {
        sheet.heading(0, "Conditions");
        sheet.line(1, ["Type", "Status"]);
        for condition in &status.conditions {
            // kubectl's tables have this blank; eyes and scripts are used to the widths.
            sheet.line(1, [format!("{} ", condition.r#type), condition.status.clone()]);
        }
    }
    volumes(sheet, 0, &spec.volumes);
    sheet.field(0, "QoS Class", or(&status.qos_class, model::pod::qos(pod).as_str()));
    sheet.field(0, "Node-Selectors", joined(&spec.node_selector));
    sheet.values(0, "Tolerations", spec.tolerations.iter().map(toleration));
}

/// What the pods of a template will be.
pub fn template(sheet: &mut Sheet, template: &PodTemplateSpec) {
    let meta = template.metadata.clone().unwrap_or_default();
    let spec = template.spec.clone().unwrap_or_default();
    sheet.heading(0, "Pod Template");
    sheet.values(1, "Labels", pairs(&meta.labels, "="));
    if !meta.annotations.is_empty() {
        sheet.values(1, "Annotations", pairs(&meta.annotations, ": "));
    }
    sheet.field_if(1, "Service Account", &spec.service_account_name);
    containers(sheet, 1, "Init Containers", &spec.init_containers, &[]);
    containers(sheet, 1, "Containers", &spec.containers, &[]);
    volumes(sheet, 1, &spec.volumes);
    sheet.field(1, "Node-Selectors", joined(&spec.node_selector));
    sheet.values(1, "Tolerations", spec.tolerations.iter().map(toleration));
}

/// The containers of a pod or of a template: without statuses there is nothing to say of their lives.
fn containers(sheet: &mut Sheet, level: usize, title: &str, containers: &[Container], statuses: &[ContainerStatus]) {
    if containers.is_empty() {
        return;
    }
    sheet.heading(level, title);
    for container in containers {
        // What is inside stands at one place, with and without a title to the left of it.
        sheet.heading(1, &format!("{}{}", " ".repeat(level), container.name));
        let status = statuses.iter().find(|status| status.name == container.name);
        if let Some(status) = status {
            sheet.field(2, "Container ID", &status.container_id);
        }
        sheet.field(2, "Image", &container.image);
        if let Some(status) = status {
            sheet.field(2, "Image ID", &status.image_id);
        }
        ports(sheet, container);
        lines(sheet, "Command", &container.command);
        lines(sheet, "Args", &container.args);
        if let Some(status) = status {
            life(sheet, status);
        }
        let resources = container.resources.clone().unwrap_or_default();
        quantities(sheet, "Limits", &resources.limits);
        quantities(sheet, "Requests", &resources.requests);
        for (name, found) in [
            ("Liveness", &container.liveness_probe),
            ("Readiness", &container.readiness_probe),
            ("Startup", &container.startup_probe),
        ] {
            if let Some(found) = found {
                sheet.field(2, name, probe(found));
            }
        }
        environment(sheet, container);
        mounts(sheet, container);
    }
}

fn ports(sheet: &mut Sheet, container: &Container) {
    let several = if container.ports.len() > 1 { "s" } else { "" };
    let list = |number: fn(&proto::k8s::core::v1::ContainerPort) -> i32| {
        let ports: Vec<String> =
            container.ports.iter().map(|port| format!("{}/{}", number(port), or(&port.protocol, "TCP"))).collect();
        or(&ports.join(", "), "<none>").to_owned()
    };
    sheet.field(2, &format!("Port{several}"), list(|port| port.container_port));
    sheet.field(2, &format!("Host Port{several}"), list(|port| port.host_port));
}

fn lines(sheet: &mut Sheet, name: &str, words: &[String]) {
    if words.is_empty() {
        return;
    }
    sheet.heading(2, name);
    for line in words.iter().flat_map(|word| word.lines()) {
        sheet.line(3, [line]);
    }
}

fn life(sheet: &mut Sheet, status: &ContainerStatus) {
    state(sheet, "State", status.state.as_ref());
    if status.last_state.as_ref().is_some_and(|last| last.terminated.is_some()) {
        state(sheet, "Last State", status.last_state.as_ref());
    }
    sheet.field(2, "Ready", if status.ready { "True" } else { "False" });
    sheet.field(2, "Restart Count", status.restart_count.to_string());
}

fn state(sheet: &mut Sheet, name: &str, state: Option<&ContainerState>) {
    let state = state.cloned().unwrap_or_default();
    if let Some(running) = state.running {
        sheet.field(2, name, "Running");
        sheet.field(3, "Started", moment(running.started_at.as_ref()));
    } else if let Some(terminated) = state.terminated {
        sheet.field(2, name, "Terminated");
        sheet.field_if(3, "Reason", &terminated.reason);
        sheet.field_if(3, "Message", terminated.message.trim());
        sheet.field(3, "Exit Code", terminated.exit_code.to_string());
        if terminated.signal > 0 {
            sheet.field(3, "Signal", terminated.signal.to_string());
        }
        sheet.field(3, "Started", moment(terminated.started_at.as_ref()));
        sheet.field(3, "Finished", moment(terminated.finished_at.as_ref()));
    } else {
        sheet.field(2, name, "Waiting");
        let waiting = state.waiting.unwrap_or_default();
        sheet.field_if(3, "Reason", &waiting.reason);
        sheet.field_if(3, "Message", waiting.message.trim());
    }
}

fn quantities(sheet: &mut Sheet, name: &str, list: &std::collections::BTreeMap<String, Quantity>) {
    if !list.is_empty() {
        sheet.heading(2, name);
        list.iter().for_each(|(name, quantity)| sheet.field(3, name, &quantity.string));
    }
}

pub fn probe(probe: &Probe) -> String {
    let port = |port: &Option<IntOrString>| match port {
        Some(port) if port.r#type == 1 => port.str_val.clone(),
        Some(port) => port.int_val.to_string(),
        None => String::new(),
    };
    let handler = probe.handler.clone().unwrap_or_default();
    let action = if let Some(exec) = handler.exec {
        format!("exec [{}]", exec.command.join(" "))
    } else if let Some(http) = handler.http_get {
        format!(
            "http-get {}://{}:{}{}",
            or(&http.scheme, "http").to_lowercase(),
            http.host,
            port(&http.port),
            http.path
        )
    } else if let Some(tcp) = handler.tcp_socket {
        format!("tcp-socket {}:{}", tcp.host, port(&tcp.port))
    } else if let Some(grpc) = handler.grpc {
        format!("grpc <pod>:{} {}", grpc.port, grpc.service.unwrap_or_default())
    } else {
        "unknown".to_owned()
    };
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        probe.initial_delay_seconds,
        probe.timeout_seconds,
        probe.period_seconds,
        probe.success_threshold,
        probe.failure_threshold
    )
}

fn environment(sheet: &mut Sheet, container: &Container) {
    if !container.env_from.is_empty() {
        sheet.heading(2, "Environment Variables from");
        for source in &container.env_from {
            let (kind, reference) = match (&source.config_map_ref, &source.secret_ref) {
                (Some(map), _) => ("ConfigMap", map.local_object_reference.clone()),
                (_, Some(secret)) => ("Secret", secret.local_object_reference.clone()),
                _ => continue,
            };
            sheet.line(3, [reference.unwrap_or_default().name, kind.to_owned()]);
        }
    }
    if container.env.is_empty() {
        sheet.field(2, "Environment", "<none>");
        return;
    }
    sheet.heading(2, "Environment");
    for variable in &container.env {
        sheet.field(3, &variable.name, value_of(variable));
    }
}

fn value_of(variable: &EnvVar) -> String {
    let name =
        |reference: &Option<proto::k8s::core::v1::LocalObjectReference>| reference.clone().unwrap_or_default().name;
    let Some(from) = &variable.value_from else {
        return variable.value.replace('\n', " ");
    };
    if let Some(field) = &from.field_ref {
        format!("({}:{})", or(&field.api_version, "v1"), field.field_path)
    } else if let Some(resource) = &from.resource_field_ref {
        resource.resource.clone()
    } else if let Some(key) = &from.config_map_key_ref {
        format!("<set to the key '{}' of config map '{}'>", key.key, name(&key.local_object_reference))
    } else if let Some(key) = &from.secret_key_ref {
        format!("<set to the key '{}' in secret '{}'>", key.key, name(&key.local_object_reference))
    } else {
        String::new()
    }
}

fn mounts(sheet: &mut Sheet, container: &Container) {
    if container.volume_mounts.is_empty() {
        sheet.field(2, "Mounts", "<none>");
        return;
    }
    sheet.heading(2, "Mounts");
    let mut mounts = container.volume_mounts.clone();
    mounts.sort_by(|a, b| a.mount_path.cmp(&b.mount_path));
    for mount in mounts {
        let access = if mount.read_only { "ro" } else { "rw" };
        let path = if mount.sub_path.is_empty() { String::new() } else { format!(",path={:?}", mount.sub_path) };
        sheet.line(3, [format!("{} from {} ({access}{path})", mount.mount_path, mount.name)]);
    }
}

fn volumes(sheet: &mut Sheet, level: usize, volumes: &[Volume]) {
    if volumes.is_empty() {
        sheet.field(level, "Volumes", "<none>");
        return;
    }
    sheet.heading(level, "Volumes");
    for volume in volumes {
        sheet.heading(1, &format!("{}{}", " ".repeat(level), volume.name));
        let source = volume.volume_source.clone().unwrap_or_default();
        if let Some(dir) = source.empty_dir {
            sheet.field(2, "Type", "EmptyDir (a temporary directory that shares a pod's lifetime)");
            sheet.field(2, "Medium", dir.medium);
            sheet.field(2, "SizeLimit", dir.size_limit.map_or("<unset>".to_owned(), |limit| limit.string));
        } else if let Some(path) = source.host_path {
            sheet.field(2, "Type", "HostPath (bare host directory volume)");
            sheet.field(2, "Path", path.path);
            sheet.field(2, "HostPathType", path.r#type.unwrap_or_default());
        } else if let Some(map) = source.config_map {
            sheet.field(2, "Type", "ConfigMap (a volume populated by a ConfigMap)");
            sheet.field(2, "Name", map.local_object_reference.unwrap_or_default().name);
            sheet.field(2, "Optional", map.optional.unwrap_or(false).to_string());
        } else if let Some(secret) = source.secret {
            sheet.field(2, "Type", "Secret (a volume populated by a Secret)");
            sheet.field(2, "SecretName", secret.secret_name);
            sheet.field(2, "Optional", secret.optional.unwrap_or(false).to_string());
        } else if let Some(claim) = source.persistent_volume_claim {
            sheet.field(
                2,
                "Type",
                "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            );
            sheet.field(2, "ClaimName", claim.claim_name);
            sheet.field(2, "ReadOnly", claim.read_only.to_string());
        } else if source.projected.is_some() {
            sheet.field(2, "Type", "Projected (a volume that contains injected data from multiple sources)");
        } else if source.downward_api.is_some() {
            sheet.field(2, "Type", "DownwardAPI (a volume populated by information about the pod)");
        } else {
            sheet.field(2, "Type", "see `stay get -o yaml`");
        }
    }
}

fn toleration(toleration: &Toleration) -> String {
    let mut text = toleration.key.clone();
    if !toleration.value.is_empty() {
        text += &format!("={}", toleration.value);
    }
    if !toleration.effect.is_empty() {
        text += &format!(":{}", toleration.effect);
    }
    if toleration.operator == "Exists" {
        text += if text.is_empty() { "op=Exists" } else { " op=Exists" };
    }
    if let Some(seconds) = toleration.toleration_seconds {
        text += &format!(" for {seconds}s");
    }
    text
}
