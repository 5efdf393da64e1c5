//! Builders for tests.

use std::collections::BTreeMap;

use proto::{
    Kind,
    k8s::{
        core::v1::{
            Container, ContainerPort, Node, NodeSpec, NodeStatus, Pod, PodSpec, ResourceRequirements, Taint, Toleration,
        },
        resource::Quantity,
    },
};

use crate::{demand::Demand, view::ClusterView};

pub fn list(amounts: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    amounts.iter().map(|(name, text)| (name.to_string(), Quantity { string: text.to_string() })).collect()
}

#[derive(Debug)]
pub struct PodBuilder(Pod);

pub fn pod(name: &str) -> PodBuilder {
    let mut pod = Pod { spec: Some(PodSpec::default()), ..Pod::default() };
    pod.meta_mut().namespace = "default".to_owned();
    pod.meta_mut().name = name.to_owned();
    pod.meta_mut().uid = format!("uid-{name}");
    PodBuilder(pod)
}

impl PodBuilder {
    pub fn spec(mut self, change: impl FnOnce(&mut PodSpec)) -> Self {
        change(self.0.spec.get_or_insert_default());
        self
    }

    pub fn asks(self, amounts: &[(&str, &str)]) -> Self {
        let resources = ResourceRequirements { requests: list(amounts), ..Default::default() };
        self.spec(|spec| spec.containers.push(Container { resources: Some(resources), ..Container::default() }))
    }

    pub fn starts_with(self, restart: Option<&str>, amounts: &[(&str, &str)]) -> Self {
        let resources = ResourceRequirements { requests: list(amounts), ..Default::default() };
        let restart_policy = restart.map(str::to_owned);
        self.spec(|spec| {
            spec.init_containers.push(Container { resources: Some(resources), restart_policy, ..Container::default() });
        })
    }

    pub fn host_port(self, port: i32, address: &str) -> Self {
        let port = ContainerPort { host_port: port, host_ip: address.to_owned(), ..ContainerPort::default() };
        self.spec(|spec| spec.containers.push(Container { ports: vec![port], ..Container::default() }))
    }

    pub fn tolerates(self, key: &str, operator: &str, value: &str, effect: &str) -> Self {
        let toleration = Toleration {
            key: key.to_owned(),
            operator: operator.to_owned(),
            value: value.to_owned(),
            effect: effect.to_owned(),
            ..Toleration::default()
        };
        self.spec(|spec| spec.tolerations.push(toleration))
    }

    pub fn selects(self, key: &str, value: &str) -> Self {
        self.spec(|spec| _ = spec.node_selector.insert(key.to_owned(), value.to_owned()))
    }

    pub fn priority(self, priority: i32) -> Self {
        self.spec(|spec| spec.priority = Some(priority))
    }

    pub fn build(self) -> Pod {
        self.0
    }

    pub fn demand(self) -> Demand {
        Demand::of(&self.0)
    }
}

#[derive(Debug)]
pub struct NodeBuilder(Node);

/// A node of 4 CPUs, 8 GiB and 110 pods.
pub fn node(name: &str) -> NodeBuilder {
    let mut node = Node { spec: Some(NodeSpec::default()), ..Node::default() };
    node.meta_mut().name = name.to_owned();
    NodeBuilder(node).offers(&[("cpu", "4"), ("memory", "8Gi"), ("pods", "110")])
}

impl NodeBuilder {
    pub fn offers(mut self, amounts: &[(&str, &str)]) -> Self {
        self.0.status = Some(NodeStatus { allocatable: list(amounts), ..NodeStatus::default() });
        self
    }

    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.0.meta_mut().labels.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn taint(mut self, key: &str, value: &str, effect: &str) -> Self {
        let taint = Taint { key: key.to_owned(), value: value.to_owned(), effect: effect.to_owned(), time_added: None };
        self.0.spec.get_or_insert_default().taints.push(taint);
        self
    }

    pub fn cordoned(mut self) -> Self {
        self.0.spec.get_or_insert_default().unschedulable = true;
        self
    }

    pub fn build(self) -> Node {
        self.0
    }
}

pub fn view(nodes: impl IntoIterator<Item = NodeBuilder>) -> ClusterView {
    let mut view = ClusterView::default();
    for node in nodes {
        view.observe_node(&node.build());
    }
    view
}
