//! What follows from a node's silence. Pure.

use std::sync::Arc;

use client::{
    Action,
    events::{NORMAL, WARNING},
};
use jiff::{SignedDuration, Timestamp};
use model::pod::{is_deleting, is_ready, is_terminal, spec};
use proto::{
    Kind,
    k8s::{
        core::v1::{Node, NodeCondition, Pod, PodCondition, Taint, Toleration},
        meta::v1::Time,
    },
};

use crate::time::{api_time, instant};

const NOT_READY: &str = "node.kubernetes.io/not-ready";
const UNREACHABLE: &str = "node.kubernetes.io/unreachable";
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// Conditions that become a taint while they are true.
const PRESSURES: [(&str, &str); 4] = [
    ("MemoryPressure", "node.kubernetes.io/memory-pressure"),
    ("DiskPressure", "node.kubernetes.io/disk-pressure"),
    ("PIDPressure", "node.kubernetes.io/pid-pressure"),
    ("NetworkUnavailable", "node.kubernetes.io/network-unavailable"),
];
/// Conditions that nobody knows any more once the node is silent.
const REPORTED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// How long silence is borne.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    pub grace: SignedDuration,
    pub eviction_after: SignedDuration,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    /// None where it was deleted, or never was.
    pub node: Option<Arc<Node>>,
    /// The pods bound to it.
    pub pods: Vec<Arc<Pod>>,
    /// When it last gave a sign of life.
    pub heard_at: Timestamp,
    pub now: Timestamp,
    pub patience: Patience,
}

/// Steps from what is to what is wanted.
///
/// Status and taints are two writes of one object, so they follow each other in two plans.
pub fn plan(snapshot: &Snapshot) -> Vec<Action> {
    let Some(node) = &snapshot.node else { return abandoned(snapshot) };
    let silent_at = snapshot.heard_at + snapshot.patience.grace;
    let is_silent = silent_at <= snapshot.now;
    let mut actions = Vec::new();
    if !is_silent {
        actions.push(Action::WakeAt(silent_at));
    }
    let unknown = if is_silent { unknown(node, snapshot.now) } else { None };
    let tainted = tainted(node, snapshot.now);
    if let Some(unknown) = unknown {
        actions.push(Action::update_status(unknown.as_ref()).remark("Ready=Unknown"));
        actions.push(Action::event(
            unknown.as_ref(),
            NORMAL,
            "NodeNotReady",
            format!("Node {} status is now: NodeNotReady", node.meta().name),
        ));
    } else if let Some((tainted, remark)) = tainted {
        actions.push(Action::update(&tainted).remark(remark));
    }
    if ready_status(node).is_some_and(|status| status != "True") {
        actions.extend(snapshot.pods.iter().filter(|pod| is_ready(pod)).map(|pod| unready(pod, snapshot.now)));
    }
    actions.extend(evictions(node, snapshot));
    actions
}

/// The last heartbeat that stands in the node's status.
pub fn heartbeat(node: &Node) -> Option<Time> {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    model::condition::find(conditions, "Ready").and_then(|ready| ready.last_heartbeat_time)
}

/// Nobody will ever report these pods' ends: they are removed once the node has been away for the grace time.
fn abandoned(snapshot: &Snapshot) -> Vec<Action> {
    let gone_at = snapshot.heard_at + snapshot.patience.grace;
    if gone_at > snapshot.now {
        return vec![Action::WakeAt(gone_at)];
    }
    snapshot.pods.iter().map(|pod| Action::remove(pod.as_ref())).collect()
}

fn ready_status(node: &Node) -> Option<&str> {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    model::condition::find(conditions, "Ready").map(|ready| ready.status.as_str())
}

/// The node with everything it reported made unknown; none where that is so already.
fn unknown(node: &Arc<Node>, now: Timestamp) -> Option<Arc<Node>> {
    let mut unknown = Node::clone(node);
    let conditions = &mut unknown.status.get_or_insert_default().conditions;
    let mut is_news = false;
    for name in REPORTED {
        let known = model::condition::find(conditions, name);
        if known.is_some_and(|known| known.status == "Unknown") {
            continue;
        }
        let (reason, message) = match known {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let condition = NodeCondition {
            r#type: name.into(),
            status: "Unknown".into(),
            reason: reason.into(),
            message: message.into(),
            last_heartbeat_time: known.and_then(|known| known.last_heartbeat_time),
            ..Default::default()
        };
        is_news |= model::condition::set(conditions, condition, api_time(now));
    }
    is_news.then(|| Arc::new(unknown))
}

/// The taints a node's state asks for: name and effect.
fn wanted_taints(node: &Node) -> Vec<(&'static str, &'static str)> {
    let conditions = node.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    let mut wanted = Vec::new();
    match ready_status(node) {
        Some("True") => {}
        Some("False") => wanted.extend([(NOT_READY, NO_SCHEDULE), (NOT_READY, NO_EXECUTE)]),
        Some(_) => wanted.extend([(UNREACHABLE, NO_SCHEDULE), (UNREACHABLE, NO_EXECUTE)]),
        // It has not reported yet: nothing may be placed there, and nothing is there to evict.
        None => wanted.push((NOT_READY, NO_SCHEDULE)),
    }
    for (condition, taint) in PRESSURES {
        if model::condition::is_true(conditions, condition) {
            wanted.push((taint, NO_SCHEDULE));
        }
    }
    if node.spec.as_ref().is_some_and(|spec| spec.unschedulable) {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    wanted
}

/// The node with the taints that are ours to set; none where it has them. Others' taints stay.
fn tainted(node: &Arc<Node>, now: Timestamp) -> Option<(Node, String)> {
    let wanted = wanted_taints(node);
    let mut tainted = Node::clone(node);
    let taints = &mut tainted.spec.get_or_insert_default().taints;
    let is_ours = |key: &str| {
        [NOT_READY, UNREACHABLE, UNSCHEDULABLE].contains(&key) || PRESSURES.iter().any(|(_, taint)| *taint == key)
    };
    let before = taints.clone();
    taints.retain(|taint| !is_ours(&taint.key) || wanted.contains(&(taint.key.as_str(), taint.effect.as_str())));
    for (key, effect) in wanted {
        if !taints.iter().any(|taint| taint.key == key && taint.effect == effect) {
            let time_added = (effect == NO_EXECUTE).then(|| api_time(now));
            taints.push(Taint { key: key.into(), effect: effect.into(), value: String::new(), time_added });
        }
    }
    // Others set theirs without a time; how long a pod tolerates one is counted from it.
    for taint in taints.iter_mut().filter(|taint| taint.effect == NO_EXECUTE) {
        taint.time_added.get_or_insert(api_time(now));
    }
    if *taints == before {
        return None;
    }
    let named: Vec<String> = taints.iter().map(|taint| format!("{}:{}", taint.key, taint.effect)).collect();
    let remark = format!("taints=[{}]", named.join(" "));
    Some((tainted, remark))
}

/// A pod whose node does not answer must not get traffic.
fn unready(pod: &Arc<Pod>, now: Timestamp) -> Action {
    let mut unready = Pod::clone(pod);
    let condition = PodCondition {
        r#type: "Ready".into(),
        status: "False".into(),
        reason: "NodeNotReady".into(),
        ..Default::default()
    };
    model::condition::set(&mut unready.status.get_or_insert_default().conditions, condition, api_time(now));
    Action::update_status(&unready).remark("Ready=False")
}

/// Deletes what the node's NoExecute taints drive out, and wakes for what they will.
fn evictions(node: &Node, snapshot: &Snapshot) -> Vec<Action> {
    let taints = node.spec.as_ref().map(|spec| spec.taints.as_slice()).unwrap_or_default();
    let driving: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == NO_EXECUTE).collect();
    if driving.is_empty() {
        return Vec::new();
    }
    let mut actions = Vec::new();
    for pod in snapshot.pods.iter().filter(|pod| !is_deleting(pod) && !is_terminal(pod)) {
        let limit = driving.iter().filter_map(|taint| driven_out_at(pod, taint, snapshot)).min();
        match limit {
            Some(time) if time <= snapshot.now => {
                let message = format!("Marking for deletion Pod {}", model::meta::key(pod.meta()));
                actions.push(Action::event(pod.as_ref(), WARNING, "TaintManagerEviction", message));
                actions.push(Action::delete(pod.as_ref()));
            }
            Some(time) => actions.push(Action::WakeAt(time)),
            None => {}
        }
    }
    actions
}

/// When a taint drives a pod out; never where the pod tolerates it without an end.
fn driven_out_at(pod: &Pod, taint: &Taint, snapshot: &Snapshot) -> Option<Timestamp> {
    let since = taint.time_added.as_ref().map_or(snapshot.heard_at, instant);
    let tolerations: Vec<&Toleration> =
        spec(pod).tolerations.iter().filter(|toleration| tolerates(toleration, taint)).collect();
    if tolerations.is_empty() {
        let is_silence = [NOT_READY, UNREACHABLE].contains(&taint.key.as_str());
        return Some(if is_silence { since + snapshot.patience.eviction_after } else { since });
    }
    let seconds =
        tolerations.iter().map(|toleration| toleration.toleration_seconds).min_by_key(|it| it.unwrap_or(i64::MAX));
    seconds.flatten().map(|seconds| since + SignedDuration::from_secs(seconds.max(0)))
}

/// An empty key with `Exists` tolerates every taint, an empty effect every effect.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    let is_effect = toleration.effect.is_empty() || toleration.effect == taint.effect;
    let is_key = toleration.key == taint.key || (toleration.key.is_empty() && toleration.operator == "Exists");
    is_effect && is_key && (toleration.operator == "Exists" || toleration.value == taint.value)
}
