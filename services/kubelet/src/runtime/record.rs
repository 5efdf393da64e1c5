//! How a pod's identity is written on its containers: in their names and labels.
//!
//! Names are the idempotency keys: a runtime refuses a second container of the same name. Labels rebuild all state
//! after a restart. Both are those that Docker-based nodes have always used, so their tools read ours.

use std::{collections::HashMap, net::IpAddr};

use super::{ContainerConfig, PodKey, SandboxConfig};

pub const POD_NAME: &str = "io.kubernetes.pod.name";
pub const POD_NAMESPACE: &str = "io.kubernetes.pod.namespace";
pub const POD_UID: &str = "io.kubernetes.pod.uid";
pub const CONTAINER_NAME: &str = "io.kubernetes.container.name";
pub const CONTAINER_HASH: &str = "io.kubernetes.container.hash";
pub const RESTART_COUNT: &str = "io.kubernetes.container.restartCount";
pub const TYPE: &str = "io.kubernetes.docker.type";
pub const SANDBOX_ID: &str = "io.kubernetes.sandbox.id";
pub const POD_IP: &str = "forestay.dev/pod-ip";
pub const FAILURES: &str = "forestay.dev/failures";
/// The kubelet that made it, so that several can share one runtime.
pub const NODE: &str = "forestay.dev/node";
pub const IS_SANDBOX: &str = "podsandbox";
pub const IS_CONTAINER: &str = "container";

/// One labelled container, as a list shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub id: String,
    pub pod: PodKey,
    /// None for a sandbox.
    pub container: Option<String>,
    pub attempt: u32,
    pub running: bool,
    pub ip: Option<IpAddr>,
}

impl Record {
    /// Reads the labels; none where they are not a kubelet's.
    pub fn read(id: &str, running: bool, labels: &HashMap<String, String>) -> Option<Self> {
        let text = |key: &str| labels.get(key).cloned();
        let kind = text(TYPE)?;
        Some(Self {
            id: id.to_owned(),
            pod: PodKey { namespace: text(POD_NAMESPACE)?, name: text(POD_NAME)?, uid: text(POD_UID)? },
            container: if kind == IS_CONTAINER { Some(text(CONTAINER_NAME)?) } else { None },
            attempt: number(labels, RESTART_COUNT),
            running,
            ip: text(POD_IP).and_then(|ip| ip.parse().ok()),
        })
    }
}

/// A number from a label; 0 where it is missing or not one.
pub fn number(labels: &HashMap<String, String>, key: &str) -> u32 {
    labels.get(key).and_then(|value| value.parse().ok()).unwrap_or_default()
}

fn pod_labels(node: &str, pod: &PodKey) -> HashMap<String, String> {
    [(POD_NAME, &pod.name), (POD_NAMESPACE, &pod.namespace), (POD_UID, &pod.uid)]
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.clone()))
        .chain([(NODE.to_owned(), node.to_owned())])
        .collect()
}

pub fn sandbox_labels(node: &str, config: &SandboxConfig) -> HashMap<String, String> {
    let mut labels = pod_labels(node, &config.pod);
    labels.insert(TYPE.into(), IS_SANDBOX.into());
    labels.insert(RESTART_COUNT.into(), config.attempt.to_string());
    if let Some(ip) = config.ip {
        labels.insert(POD_IP.into(), ip.to_string());
    }
    labels
}

pub fn container_labels(node: &str, config: &ContainerConfig) -> HashMap<String, String> {
    let mut labels = pod_labels(node, &config.pod);
    labels.insert(TYPE.into(), IS_CONTAINER.into());
    labels.insert(CONTAINER_NAME.into(), config.name.clone());
    labels.insert(CONTAINER_HASH.into(), config.hash.clone());
    labels.insert(RESTART_COUNT.into(), config.attempt.to_string());
    labels.insert(FAILURES.into(), config.failures.to_string());
    labels.insert(SANDBOX_ID.into(), config.sandbox_id.clone());
    labels
}

pub fn sandbox_name(config: &SandboxConfig) -> String {
    name("POD", &config.pod, config.attempt)
}

pub fn container_name(config: &ContainerConfig) -> String {
    name(&config.name, &config.pod, config.attempt)
}

fn name(container: &str, pod: &PodKey, attempt: u32) -> String {
    format!("k8s_{container}_{}_{}_{}_{attempt}", pod.name, pod.namespace, pod.uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_give_back_the_pod_and_its_address() {
        let pod = PodKey { namespace: "default".into(), name: "web".into(), uid: "u-1".into() };
        let config =
            SandboxConfig { pod: pod.clone(), attempt: 3, ip: Some([10, 244, 0, 7].into()), ..Default::default() };
        let record = Record::read("id", true, &sandbox_labels("n1", &config)).unwrap();
        assert_eq!((record.pod, record.attempt, record.ip), (pod, 3, config.ip));
        assert_eq!(sandbox_name(&config), "k8s_POD_web_default_u-1_3");
    }

    #[test]
    fn containers_of_others_are_not_read() {
        assert_eq!(Record::read("id", true, &HashMap::new()), None);
    }
}
