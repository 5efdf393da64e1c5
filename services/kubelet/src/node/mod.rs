//! The node itself: its object, its lease, its conditions, its measured use.

pub mod facts;
pub mod lease;
pub mod usage;

use std::{collections::BTreeMap, sync::Arc};

use client::Client;
use jiff::Timestamp;
use proto::{
    Kind,
    k8s::{
        core::v1::{
            ContainerImage, DaemonEndpoint, Node, NodeAddress, NodeCondition, NodeDaemonEndpoints, NodeSpec,
            NodeStatus, NodeSystemInfo,
        },
        resource::Quantity,
    },
};
use tokio::sync::watch;

use crate::{
    Options, RuntimeChoice,
    events::Events,
    pod::status::time,
    runtime::{Image, Version},
};
use facts::Machine;

/// What the kubelet calls itself.
pub const KUBELET_VERSION: &str = "v1.36.0+forestay";

/// How the node is, as its conditions tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why pods cannot run; None where they can.
    pub not_ready: Option<String>,
    pub memory_pressure: bool,
    pub disk_pressure: bool,
    pub pid_pressure: bool,
}

impl Health {
    /// How the machine is now; a hollow node has no disk and no memory that could run out.
    pub fn of(options: &Options, runtime_trouble: Option<String>) -> Self {
        match options.runtime {
            RuntimeChoice::Docker { .. } => facts::health(runtime_trouble, &options.root_dir),
            RuntimeChoice::Fake(_) => {
                Self { not_ready: runtime_trouble, memory_pressure: false, disk_pressure: false, pid_pressure: false }
            }
        }
    }
}

/// What the node's object is made from.
#[derive(Clone, Debug)]
pub struct Profile {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub machine: Machine,
    pub version: Version,
    pub port: u16,
    pub pods_max: u32,
    pub capacity: BTreeMap<String, Quantity>,
    pub allocatable: BTreeMap<String, Quantity>,
}

impl Profile {
    pub fn new(options: &Options, machine: Machine, version: Version, port: u16) -> Self {
        let quantity = |string: String| Quantity { string };
        let mut capacity: BTreeMap<String, Quantity> = [
            ("cpu".to_owned(), quantity(machine.cpus.to_string())),
            ("memory".to_owned(), quantity(format!("{}Ki", machine.memory_bytes / 1024))),
            ("ephemeral-storage".to_owned(), quantity(format!("{}Ki", machine.disk_bytes / 1024))),
            ("pods".to_owned(), quantity(options.pods_max.to_string())),
        ]
        .into();
        capacity.extend(options.capacity.iter().map(|(name, value)| (name.clone(), quantity(value.clone()))));
        let mut allocatable = capacity.clone();
        for (name, reserved) in &options.reserved {
            let reserved = quantity(reserved.clone());
            if let Some(whole) = allocatable.get_mut(name) {
                *whole = match name.as_str() {
                    "cpu" => quantity(format!("{}m", (whole.milli() - reserved.milli()).max(0))),
                    _ => quantity(format!("{}", (whole.value() - reserved.value()).max(0))),
                };
            }
        }
        Self {
            name: options.node_name.clone(),
            labels: options.labels.clone(),
            machine,
            version,
            port,
            pods_max: options.pods_max,
            capacity,
            allocatable,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        let mut labels = self.labels.clone();
        let own = [
            ("kubernetes.io/hostname", self.name.as_str()),
            ("kubernetes.io/os", "linux"),
            ("kubernetes.io/arch", self.machine.architecture),
            ("beta.kubernetes.io/os", "linux"),
            ("beta.kubernetes.io/arch", self.machine.architecture),
        ];
        labels.extend(own.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())));
        labels
    }

    /// The node as it registers for the first time.
    pub fn node(&self, health: &Health, now: Timestamp) -> Node {
        let mut node = Node {
            spec: Some(NodeSpec::default()),
            status: Some(self.status(&NodeStatus::default(), health, &[], now)),
            ..Default::default()
        };
        node.meta_mut().name = self.name.clone();
        node.meta_mut().labels = self.labels();
        node
    }

    /// The status as it should be, made from the one the API has.
    pub fn status(&self, known: &NodeStatus, health: &Health, images: &[Image], now: Timestamp) -> NodeStatus {
        let address = |kind: &str, address: String| NodeAddress { r#type: kind.to_owned(), address };
        let mut addresses: Vec<NodeAddress> =
            self.machine.ips.iter().map(|ip| address("InternalIP", ip.to_string())).collect();
        addresses.push(address("Hostname", self.name.clone()));
        NodeStatus {
            capacity: self.capacity.clone(),
            allocatable: self.allocatable.clone(),
            conditions: conditions(&known.conditions, health, now),
            addresses,
            daemon_endpoints: Some(NodeDaemonEndpoints {
                kubelet_endpoint: Some(DaemonEndpoint { port: i32::from(self.port) }),
            }),
            node_info: Some(self.node_info()),
            images: images.iter().map(image).collect(),
            ..known.clone()
        }
    }

    fn node_info(&self) -> NodeSystemInfo {
        NodeSystemInfo {
            machine_id: self.machine.machine_id.clone(),
            system_uuid: self.machine.system_uuid.clone(),
            boot_id: self.machine.boot_id.clone(),
            kernel_version: self.machine.kernel.clone(),
            os_image: self.machine.os_image.clone(),
            container_runtime_version: format!("{}://{}", self.version.name, self.version.version),
            kubelet_version: KUBELET_VERSION.to_owned(),
            kube_proxy_version: KUBELET_VERSION.to_owned(),
            operating_system: "linux".to_owned(),
            architecture: self.machine.architecture.to_owned(),
            swap: None,
        }
    }

    /// Registers the node, or takes over the object that is there.
    ///
    /// # Errors
    /// Where the API refuses.
    pub async fn register(&self, client: &Client, health: &Health) -> Result<Node, client::Error> {
        let node = self.node(health, Timestamp::now());
        match client.create(&node).await {
            Ok(created) if created.status == node.status => return Ok(created),
            Ok(_) => {}
            Err(error) if error.is_already_exists() => self.update_labels(client).await?,
            Err(error) => return Err(error),
        }
        self.update_status(client, health, &[]).await
    }

    async fn update_labels(&self, client: &Client) -> Result<(), client::Error> {
        let mut known = client.get::<Node>("", &self.name).await?;
        let missing = self.labels().into_iter().filter(|(key, value)| known.meta().labels.get(key) != Some(value));
        let missing: BTreeMap<String, String> = missing.collect();
        if missing.is_empty() {
            return Ok(());
        }
        known.meta_mut().labels.extend(missing);
        client.update(&known).await.map(drop)
    }

    /// Writes the status where it differs from the one the API has by more than heartbeats.
    ///
    /// # Errors
    /// Where the API refuses.
    pub async fn update_status(
        &self,
        client: &Client,
        health: &Health,
        images: &[Image],
    ) -> Result<Node, client::Error> {
        let mut known = client.get::<Node>("", &self.name).await?;
        let before = known.status.clone().unwrap_or_default();
        known.status = Some(self.status(&before, health, images, Timestamp::now()));
        client.update_status(&known).await
    }
}

fn image(image: &Image) -> ContainerImage {
    ContainerImage { names: image.names.clone(), size_bytes: image.size_bytes }
}

fn conditions(known: &[NodeCondition], health: &Health, now: Timestamp) -> Vec<NodeCondition> {
    let pressure = |kind, is_pressed, [pressed, relaxed]: [(&'static str, &'static str); 2]| {
        let (reason, message) = if is_pressed { pressed } else { relaxed };
        (kind, is_pressed, reason, message.to_owned())
    };
    let ready = match &health.not_ready {
        None => ("Ready", true, "KubeletReady", "kubelet is posting ready status".to_owned()),
        Some(why) => ("Ready", false, "KubeletNotReady", why.clone()),
    };
    let own = [
        pressure(
            "MemoryPressure",
            health.memory_pressure,
            [
                ("KubeletHasInsufficientMemory", "kubelet has insufficient memory available"),
                ("KubeletHasSufficientMemory", "kubelet has sufficient memory available"),
            ],
        ),
        pressure(
            "DiskPressure",
            health.disk_pressure,
            [
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            ],
        ),
        pressure(
            "PIDPressure",
            health.pid_pressure,
            [
                ("KubeletHasInsufficientPID", "kubelet has insufficient PID available"),
                ("KubeletHasSufficientPID", "kubelet has sufficient PID available"),
            ],
        ),
        ready,
    ];
    let others = known.iter().filter(|condition| own.iter().all(|(kind, ..)| condition.r#type != *kind)).cloned();
    let others: Vec<NodeCondition> = others.collect();
    let own = own.into_iter().map(|(kind, holds, reason, message)| {
        let status = if holds { "True" } else { "False" };
        let before = known.iter().find(|condition| condition.r#type == kind && condition.status == status);
        NodeCondition {
            r#type: kind.to_owned(),
            status: status.to_owned(),
            last_heartbeat_time: Some(time(now)),
            last_transition_time: before.and_then(|c| c.last_transition_time).or_else(|| Some(time(now))),
            reason: reason.to_owned(),
            message,
        }
    });
    own.chain(others).collect()
}

/// What a node's events say of a change of its health, by the reasons users know. Pure.
fn told_changes(before: Option<&Health>, now: &Health) -> Vec<&'static str> {
    let reasons = |health: &Health| {
        let either = |holds, [yes, no]: [&'static str; 2]| if holds { yes } else { no };
        [
            either(health.memory_pressure, ["NodeHasInsufficientMemory", "NodeHasSufficientMemory"]),
            either(health.disk_pressure, ["NodeHasDiskPressure", "NodeHasNoDiskPressure"]),
            either(health.pid_pressure, ["NodeHasInsufficientPID", "NodeHasSufficientPID"]),
            either(health.not_ready.is_none(), ["NodeReady", "NodeNotReady"]),
        ]
    };
    let known = before.map(reasons);
    let is_new = |(at, reason): (usize, &'static str)| known.is_none_or(|known| known[at] != reason).then_some(reason);
    reasons(now).into_iter().enumerate().filter_map(is_new).collect()
}

/// The runtime's state as the node's conditions see it; None where all is well.
pub type RuntimeTrouble = watch::Receiver<Option<String>>;

/// Keeps the node's status true until shutdown: at once when health changes, otherwise now and then.
pub async fn keep_status(
    profile: Arc<Profile>,
    client: Client,
    runtime: Arc<dyn crate::runtime::Runtime>,
    mut trouble: RuntimeTrouble,
    options: Options,
    events: Events,
    shutdown: kit::life::Shutdown,
) {
    let mut told: Option<(Health, Vec<Image>)> = None;
    let mut told_at = tokio::time::Instant::now();
    loop {
        let health = Health::of(&options, trouble.borrow().clone());
        let known = told.as_ref().map(|(_, images)| images.clone()).unwrap_or_default();
        let images = match health.not_ready {
            Some(_) => known,
            // A runtime that stops answering must not keep that from being told.
            None => tokio::select! {
                images = runtime.images() => images.unwrap_or(known),
                changed = trouble.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            },
        };
        let is_news = told.as_ref().is_none_or(|told| *told != (health.clone(), images.clone()));
        if is_news || told_at.elapsed() >= options.status_interval {
            match profile.update_status(&client, &health, &images).await {
                Ok(node) => {
                    for reason in told_changes(told.as_ref().map(|(health, _)| health), &health) {
                        let message = format!("Node {} status is now: {reason}", profile.name);
                        events.node(&node, reason, &message);
                    }
                    told = Some((health, images));
                    told_at = tokio::time::Instant::now();
                }
                Err(error) if error.is_not_found() => {
                    tracing::warn!(node = profile.name, "the node's object is gone, registering it again");
                    if let Err(error) = profile.register(&client, &health).await {
                        tracing::warn!(node = profile.name, %error, "register the node failed");
                    }
                }
                Err(error) if error.is_conflict() => {}
                Err(error) => tracing::warn!(node = profile.name, %error, "update of the node's status failed"),
            }
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            changed = trouble.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(options.lease_interval) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_tell_only_what_changed_of_a_nodes_health() {
        let well = Health { not_ready: None, memory_pressure: false, disk_pressure: false, pid_pressure: false };
        let all = ["NodeHasSufficientMemory", "NodeHasNoDiskPressure", "NodeHasSufficientPID", "NodeReady"];
        assert_eq!(told_changes(None, &well), all);
        assert!(told_changes(Some(&well), &well).is_empty());
        let ill = Health { not_ready: Some("docker is down".into()), disk_pressure: true, ..well.clone() };
        assert_eq!(told_changes(Some(&well), &ill), ["NodeHasDiskPressure", "NodeNotReady"]);
    }
}
