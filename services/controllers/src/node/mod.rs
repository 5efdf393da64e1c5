//! Node life: a node that went silent is not ready, is tainted, and loses its pods after a while.

mod plan;

use std::{collections::HashMap, time::Duration};

use client::{Action, Controller, Key, Reflector, controller::Watches};
use jiff::Timestamp;
use parking_lot::Mutex;
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
};

pub use plan::{Patience, Snapshot, plan};

/// Pods by the node they are bound to.
pub const BY_NODE: &str = "node";
const LEASES: &str = "kube-node-lease";

pub struct Nodes {
    patience: Patience,
    /// When each node was last seen to have renewed, by this machine's clock; the nodes' own are not trusted.
    heard: Mutex<HashMap<String, Heard>>,
}

struct Heard {
    /// What changes with every sign of life: the lease's renewal.
    sign: String,
    at: Timestamp,
}

impl Nodes {
    pub fn new(grace: Duration, eviction_after: Duration) -> Self {
        let signed = |duration: Duration| duration.try_into().unwrap_or(jiff::SignedDuration::MAX);
        let patience = Patience { grace: signed(grace), eviction_after: signed(eviction_after) };
        Self { patience, heard: Mutex::default() }
    }

    fn heard_at(&self, name: &str, sign: String, now: Timestamp) -> Timestamp {
        let mut heard = self.heard.lock();
        let known = heard.entry(name.to_owned()).or_insert_with(|| Heard { sign: sign.clone(), at: now });
        if known.sign != sign {
            *known = Heard { sign, at: now };
        }
        known.at
    }
}

impl Controller for Nodes {
    type Snapshot = Snapshot;
    const NAME: &'static str = "node";

    fn watches(&self, watches: Watches) -> Watches {
        watches
            .each::<Node>()
            .map::<Lease>(|_, lease| {
                let is_node = lease.meta().namespace == LEASES;
                is_node.then(|| Key::new("", &lease.meta().name)).into_iter().collect()
            })
            .index::<Pod>(BY_NODE, |pod| {
                let node = &model::pod::spec(pod).node_name;
                (!node.is_empty()).then(|| node.clone()).into_iter().collect()
            })
            .map::<Pod>(|_, pod| {
                let node = &model::pod::spec(pod).node_name;
                (!node.is_empty()).then(|| Key::new("", node)).into_iter().collect()
            })
    }

    fn observe(&self, caches: &Reflector, key: &Key, now: Timestamp) -> Option<Snapshot> {
        let node = caches.cache::<Node>().get("", &key.name);
        let pods = caches.cache::<Pod>().by_index(BY_NODE, &key.name);
        if node.is_none() && pods.is_empty() {
            self.heard.lock().remove(&key.name);
            return None;
        }
        let lease = caches.cache::<Lease>().get(LEASES, &key.name);
        // A node's absence counts as its silence, from when it was first noticed.
        let sign = match (&node, &lease) {
            (None, _) => "absent".to_owned(),
            (Some(_), Some(lease)) => format!("lease {:?}", lease.spec.as_ref().and_then(|spec| spec.renew_time)),
            (Some(node), None) => format!("status {:?}", plan::heartbeat(node)),
        };
        let heard_at = self.heard_at(&key.name, sign, now);
        Some(Snapshot { node, pods, heard_at, now, patience: self.patience })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

#[cfg(test)]
mod tests;
