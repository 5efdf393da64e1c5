//! The cluster as scheduling sees it, kept up to date change by change.
//!
//! A pod counts towards its node from the moment it is assumed there, before the API has said so: the next decision
//! must already see it. Nothing here waits, writes or reads a clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use proto::{
    Kind,
    k8s::core::v1::{Node, Taint},
};

use crate::{
    demand::{Demand, HostPort, PodKey},
    load::Load,
    resources::{Nominal, PODS, Resources, units},
};

/// What the pods of one node occupy together.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pub requested: Resources,
    pub nominal: Nominal,
    pub pods: i64,
    pub host_ports: Vec<HostPort>,
    /// Pods placed since the last and the last but one measurement: they do not show in it yet.
    unmeasured: [Nominal; 2],
}

impl Usage {
    fn add(&mut self, pod: &Placed) {
        self.requested.add(&pod.requests);
        self.nominal.add(pod.nominal);
        self.pods += 1;
        self.host_ports.extend(pod.host_ports.iter().cloned());
    }

    fn subtract(&mut self, pod: &Placed) {
        self.requested.subtract(&pod.requests);
        self.nominal.subtract(pod.nominal);
        self.pods -= 1;
        for port in &pod.host_ports {
            if let Some(at) = self.host_ports.iter().position(|held| held == port) {
                self.host_ports.swap_remove(at);
            }
        }
    }

    /// Nominal use of the pods no measurement shows yet.
    pub fn unmeasured(&self) -> Nominal {
        let mut sum = self.unmeasured[0];
        sum.add(self.unmeasured[1]);
        sum
    }
}

/// A node as filters and scores see it.
#[derive(Clone, Debug)]
pub struct NodeView {
    pub name: Arc<str>,
    pub labels: BTreeMap<String, String>,
    pub taints: Vec<Taint>,
    pub unschedulable: bool,
    pub allocatable: Resources,
    pub pods_max: i64,
    pub usage: Usage,
    /// The node's measured use; absent until its kubelet has reported one.
    pub load: Option<Load>,
}

impl NodeView {
    fn of(node: &Node, usage: Usage, load: Option<Load>) -> Self {
        let spec = node.spec.clone().unwrap_or_default();
        let offered = node.status.as_ref().map(|status| {
            // A node that reports capacity only offers all of it.
            if status.allocatable.is_empty() { &status.capacity } else { &status.allocatable }
        });
        Self {
            name: node.meta().name.as_str().into(),
            labels: node.meta().labels.clone(),
            taints: spec.taints,
            unschedulable: spec.unschedulable,
            allocatable: offered.map(Resources::of).unwrap_or_default(),
            pods_max: offered.and_then(|list| list.get(PODS)).map(units).unwrap_or_default(),
            usage,
            load,
        }
    }

    /// Whether a pod that did not fit `before` could fit now, or prefer this node now.
    fn differs(&self, before: &Self) -> bool {
        self.labels != before.labels
            || self.taints != before.taints
            || self.unschedulable != before.unschedulable
            || self.allocatable != before.allocatable
            || self.pods_max != before.pods_max
    }
}

/// A pod that counts towards a node.
#[derive(Clone, Debug)]
struct Placed {
    uid: String,
    node: Arc<str>,
    requests: Resources,
    nominal: Nominal,
    host_ports: Vec<HostPort>,
    /// Decided here, not yet seen in the API.
    assumed: bool,
}

/// Nodes, and the pods that count towards them.
#[derive(Clone, Debug, Default)]
pub struct ClusterView {
    nodes: Vec<NodeView>,
    index: HashMap<Arc<str>, usize>,
    pods: HashMap<PodKey, Placed>,
    /// Pods on nodes that are not known (yet, or any more).
    strangers: HashMap<Arc<str>, Usage>,
    loads: HashMap<Arc<str>, Load>,
}

impl ClusterView {
    /// All nodes. The order is stable while no node comes or goes.
    pub fn nodes(&self) -> &[NodeView] {
        &self.nodes
    }

    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.index.get(name).map(|&at| &self.nodes[at])
    }

    /// Takes in a node's present state. True where waiting pods may fit now that did not before.
    pub fn observe_node(&mut self, node: &Node) -> bool {
        let name = node.meta().name.as_str();
        if let Some(&at) = self.index.get(name) {
            let now = NodeView::of(node, std::mem::take(&mut self.nodes[at].usage), self.nodes[at].load);
            let differs = now.differs(&self.nodes[at]);
            self.nodes[at] = now;
            return differs;
        }
        let usage = self.strangers.remove(name).unwrap_or_default();
        let view = NodeView::of(node, usage, self.loads.get(name).copied());
        self.index.insert(view.name.clone(), self.nodes.len());
        self.nodes.push(view);
        true
    }

    /// Forgets a node; its pods stay known for the case that it comes back.
    pub fn remove_node(&mut self, name: &str) {
        let Some(at) = self.index.remove(name) else { return };
        let gone = self.nodes.swap_remove(at);
        if let Some(moved) = self.nodes.get(at) {
            self.index.insert(moved.name.clone(), at);
        }
        if gone.usage.pods > 0 {
            self.strangers.insert(gone.name, gone.usage);
        }
    }

    /// Takes in a node's measured use.
    pub fn observe_load(&mut self, name: &str, load: Option<Load>) {
        match load {
            Some(load) => self.loads.insert(name.into(), load),
            None => self.loads.remove(name),
        };
        if let Some(&at) = self.index.get(name) {
            let node = &mut self.nodes[at];
            if node.load != load {
                node.usage.unmeasured = [Nominal::default(), node.usage.unmeasured[0]];
            }
            node.load = load;
        }
    }

    /// Counts a pod the API shows on `node`. Returns the node it was counted towards before, where that was another.
    pub fn observe_placed(&mut self, demand: &Demand, node: &str) -> Option<Arc<str>> {
        let before = self.pods.get(&demand.key);
        if let Some(before) = before
            && *before.node == *node
            && before.uid == demand.uid
            && before.requests == demand.requests
        {
            if let Some(placed) = self.pods.get_mut(&demand.key) {
                placed.assumed = false;
            }
            return None;
        }
        let left = self.remove_pod(&demand.key);
        self.place(demand, node, false);
        left.filter(|left| **left != *node)
    }

    /// Counts a pod towards the node that was just decided for it.
    pub fn assume(&mut self, demand: &Demand, node: &str) {
        self.remove_pod(&demand.key);
        self.place(demand, node, true);
    }

    /// Takes an assumed pod back, where it is still only assumed. Returns its node.
    pub fn forget(&mut self, key: &PodKey, uid: &str) -> Option<Arc<str>> {
        let assumed = self.pods.get(key).is_some_and(|placed| placed.assumed && placed.uid == uid);
        if assumed { self.remove_pod(key) } else { None }
    }

    pub fn is_assumed(&self, key: &PodKey, uid: &str) -> bool {
        self.pods.get(key).is_some_and(|placed| placed.assumed && placed.uid == uid)
    }

    /// Stops counting a pod that ended or is gone. Returns the node it leaves.
    pub fn remove_pod(&mut self, key: &PodKey) -> Option<Arc<str>> {
        let placed = self.pods.remove(key)?;
        if let Some(&at) = self.index.get(&placed.node) {
            self.nodes[at].usage.subtract(&placed);
        } else if let Some(usage) = self.strangers.get_mut(&placed.node) {
            usage.subtract(&placed);
            if usage.pods == 0 {
                self.strangers.remove(&placed.node);
            }
        }
        Some(placed.node)
    }

    fn place(&mut self, demand: &Demand, node: &str, assumed: bool) {
        let node = self.index.get_key_value(node).map_or_else(|| node.into(), |(name, _)| name.clone());
        let placed = Placed {
            uid: demand.uid.clone(),
            node,
            requests: demand.requests.clone(),
            nominal: demand.nominal,
            host_ports: demand.host_ports.clone(),
            assumed,
        };
        if let Some(&at) = self.index.get(&placed.node) {
            self.nodes[at].usage.add(&placed);
            self.nodes[at].usage.unmeasured[0].add(placed.nominal);
        } else {
            self.strangers.entry(placed.node.clone()).or_default().add(&placed);
        }
        self.pods.insert(demand.key.clone(), placed);
    }
}
