//! What objects use, under every name a quota may know it by. Pure; the apiserver's admission counts by the same rules.

use model::{
    pod::is_terminal,
    resources::{Amount, Resources, pod_limits, pod_requests},
};
use proto::k8s::core::v1::{Pod, Service};

use super::{COUNTED, amount};

/// A number of objects of one resource: "pods" and "count/pods", "count/jobs.batch".
pub fn count(group: &str, plural: &str, count: usize) -> Resources {
    let mut used = Resources::default();
    if group.is_empty() {
        used.set(plural, amount(count));
        used.set(&format!("count/{plural}"), amount(count));
    } else {
        used.set(&format!("count/{plural}.{group}"), amount(count));
    }
    used
}

/// A pod that has ended uses nothing but its place in the store.
pub fn of_pod(pod: &Pod) -> Resources {
    let mut used = Resources::default();
    if is_terminal(pod) {
        return used;
    }
    used.add(&count("", "pods", 1));
    for (name, amount) in pod_requests(pod).0 {
        used.set(&format!("requests.{name}"), amount);
        used.set(&name, amount);
    }
    for (name, amount) in pod_limits(pod).0 {
        used.set(&format!("limits.{name}"), amount);
    }
    used
}

pub fn of_service(service: &Service) -> Resources {
    let mut used = count("", "services", 1);
    let Some(spec) = &service.spec else { return used };
    if spec.r#type == "LoadBalancer" {
        used.set("services.loadbalancers", Amount::count(1));
    }
    if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") {
        used.set("services.nodeports", amount(spec.ports.len()));
    }
    used
}

/// Whether this controller counts a name; what it does not count it must not call zero.
pub fn is_known(name: &str) -> bool {
    let core = ["pods", "services", "replicationcontrollers", "configmaps", "serviceaccounts", "resourcequotas"];
    let Some(counted) = name.strip_prefix("count/") else {
        let is_counted =
            core.contains(&name) || COUNTED.iter().any(|(group, plural)| group.is_empty() && *plural == name);
        let is_compute =
            matches!(name, "cpu" | "memory" | "ephemeral-storage" | "services.nodeports" | "services.loadbalancers");
        return is_counted || is_compute || name.starts_with("limits.") || name.starts_with("requests.");
    };
    let (plural, group) = counted.split_once('.').unwrap_or((counted, ""));
    (group.is_empty() && core.contains(&plural)) || COUNTED.contains(&(group, plural))
}
