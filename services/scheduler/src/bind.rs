//! Carries out bindings: many in one call, each standing or falling by itself.

use std::sync::Arc;

use client::{Client, PodBinding};
use proto::k8s::core::v1::Pod;
use tracing::{debug, info, warn};

use crate::demand::Demand;

/// A decision to carry out.
#[derive(Clone, Debug)]
pub struct Binding {
    pub pod: Arc<Demand>,
    pub node: Arc<str>,
}

/// What became of one binding.
#[derive(Debug)]
pub struct Outcome {
    pub binding: Binding,
    /// Why it did not work out.
    pub failure: Option<String>,
}

/// Binds, and says what became of each, in order.
///
/// Where the call itself fails nobody knows which bindings were made: each pod is looked up, so that what is assumed of
/// a node is let go only if the pod is not there.
pub async fn bind(client: &Client, bindings: Vec<Binding>) -> Vec<Outcome> {
    let request = bindings.iter().map(|Binding { pod, node }| PodBinding {
        namespace: pod.key.namespace.to_string(),
        name: pod.key.name.to_string(),
        uid: pod.uid.clone(),
        node: node.to_string(),
    });
    match client.bind(request.collect()).await {
        Ok(results) => {
            let failures = results.into_iter().map(|status| (status.status != "Success").then_some(status.message));
            let unanswered = std::iter::repeat(Some("the server gave no answer for this binding".to_owned()));
            bindings
                .into_iter()
                .zip(failures.chain(unanswered))
                .map(|(binding, failure)| outcome(binding, failure))
                .collect()
        }
        Err(error) => {
            warn!(%error, bindings = bindings.len(), "bind");
            let mut outcomes = Vec::with_capacity(bindings.len());
            for binding in bindings {
                let failure = (!is_bound(client, &binding).await).then(|| error.to_string());
                outcomes.push(outcome(binding, failure));
            }
            outcomes
        }
    }
}

fn outcome(binding: Binding, failure: Option<String>) -> Outcome {
    match &failure {
        None => debug!(pod = %binding.pod.key, node = %binding.node, "bound"),
        Some(failure) => info!(pod = %binding.pod.key, node = %binding.node, failure, "not bound"),
    }
    Outcome { binding, failure }
}

async fn is_bound(client: &Client, Binding { pod, node }: &Binding) -> bool {
    let found: Result<Pod, _> = client.get(&pod.key.namespace, &pod.key.name).await;
    let bound_to = found.ok().and_then(|found| found.spec).map(|spec| spec.node_name);
    bound_to.as_deref() == Some(&**node)
}
