//! What the tests of the whole share: a cluster of one's own, and waiting for conditions.
#![allow(clippy::unwrap_used, clippy::expect_used)]

pub mod cluster;
pub mod stores;

use std::{future::Future, time::Duration};

use client::{Client, Selection};
use proto::{
    Kind,
    k8s::core::v1::{Event, Node, Pod},
};

/// Longest wait for any condition: far beyond what a loaded machine needs, so that only a failure meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `condition` gives a value.
///
/// # Panics
/// With `what` where it does not come true.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, condition: impl FnMut() -> F) -> T {
    within(PATIENCE, condition).await.unwrap_or_else(|| panic!("{what} did not come true"))
}

/// Waits until `condition` gives a value, for so long at most.
pub async fn within<T, F: Future<Output = Option<T>>>(
    patience: Duration,
    mut condition: impl FnMut() -> F,
) -> Option<T> {
    let waiting = async {
        loop {
            if let Some(value) = condition().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(patience, waiting).await.ok()
}

/// How a cluster's nodes and pods stand, and what its events say: what a failed test tells besides its name.
pub async fn scene(client: &Client) -> String {
    let mut told = Vec::new();
    for node in client.list::<Node>("", Selection::default()).await.map(|(nodes, _)| nodes).unwrap_or_default() {
        let taints = node.spec.iter().flat_map(|spec| &spec.taints).map(|taint| taint.key.clone());
        let conditions = node.status.iter().flat_map(|status| &status.conditions);
        let conditions = conditions.map(|condition| format!("{}={}", condition.r#type, condition.status));
        told.push(format!(
            "node {}: {:?}, taints {:?}",
            node.meta().name,
            conditions.collect::<Vec<_>>(),
            taints.collect::<Vec<_>>()
        ));
    }
    for pod in client.list::<Pod>("", Selection::default()).await.map(|(pods, _)| pods).unwrap_or_default() {
        let node = pod.spec.as_ref().map_or("", |spec| spec.node_name.as_str());
        let phase = pod.status.as_ref().map_or("", |status| status.phase.as_str());
        let messages = pod.status.iter().flat_map(|status| &status.conditions).map(|condition| &condition.message);
        let messages: Vec<_> = messages.filter(|message| !message.is_empty()).collect();
        told.push(format!("pod {} on \"{node}\": {phase} {messages:?}", pod.meta().name));
    }
    for event in client.list::<Event>("", Selection::default()).await.map(|(events, _)| events).unwrap_or_default() {
        told.push(format!("event {}: {}", event.reason, event.message));
    }
    told.join("\n")
}
