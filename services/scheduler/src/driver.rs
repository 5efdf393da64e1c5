//! The loop around the decision: takes in what changed, decides for the pods whose turn it is, hands bindings on.
//!
//! It is the only writer of the view and the queue. It never waits for a write: a pod is assumed on its node and the
//! next decision is made while the binding is on its way.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use client::{Cache, Change, Changes, Client, events::Recorder};
use kit::life::{Shutdown, Tasks};
use parking_lot::RwLock;
use proto::{
    Kind,
    k8s::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
};
use tokio::sync::mpsc;
use tracing::info;

use crate::{
    bind::{Binding, Outcome, bind},
    demand::{Demand, PodKey},
    filter, load,
    queue::Queue,
    report::Desk,
    schedule::{Decision, Sample, schedule},
    view::ClusterView,
};

/// Bindings per call: enough that the store's one fsync is shared by many, too few to be felt as latency.
const BATCH_MAX: usize = 128;
/// Decisions are made in a row for this long at most before news is looked at again.
const BATCH_TIME: Duration = Duration::from_millis(4);
/// Calls on their way at once; more would only queue up in the server.
const CALLS_MAX: usize = 8;

/// What the loop works with.
pub struct Driver {
    pub scheduler_name: String,
    pub feasible_max: usize,
    pub client: Client,
    pub pods: Cache<Pod>,
    pub nodes: Cache<Node>,
    pub leases: Cache<Lease>,
    /// Present while this driver runs.
    pub view: Arc<RwLock<Option<ClusterView>>>,
    pub recorder: Recorder,
    pub desk: Desk,
    pub tasks: Tasks,
}

/// What may let a waiting pod fit.
#[derive(Default)]
struct Relief {
    nodes: BTreeSet<Arc<str>>,
}

impl Driver {
    pub async fn run(self, mut changes: Changes, shutdown: Shutdown) {
        let mut queue = Queue::default();
        let mut start = 0;
        let (report, mut outcomes) = mpsc::channel::<Vec<Outcome>>(CALLS_MAX);
        let mut calls = 0;
        self.begin(&mut queue);
        info!(nodes = self.nodes.len(), "scheduling");
        loop {
            let may_decide = queue.has_active() && calls < CALLS_MAX;
            let release = queue.next_release().map_or_else(far_future, tokio::time::Instant::from_std);
            tokio::select! {
                biased;
                () = shutdown.triggered() => return,
                Some(settled) = outcomes.recv() => {
                    calls -= 1;
                    self.settle(&mut queue, settled);
                }
                news = changes.recv_all() => {
                    if news.is_empty() {
                        return;
                    }
                    self.observe(&mut queue, &news);
                }
                () = tokio::time::sleep_until(release) => queue.release(Instant::now()),
                () = std::future::ready(()), if may_decide => {
                    let bindings = self.decide(&mut queue, &mut start);
                    if !bindings.is_empty() {
                        calls += 1;
                        let (client, report) = (self.client.clone(), report.clone());
                        self.tasks.spawn("bind", async move {
                            // Refused only where the loop has ended.
                            let _ = report.send(bind(&client, bindings).await).await;
                        });
                    }
                    // News and outcomes get their turn even where a long queue would keep this branch busy.
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    /// Takes in everything the caches hold.
    fn begin(&self, queue: &mut Queue) {
        let mut shared = self.view.write();
        let view = shared.insert(ClusterView::default());
        let mut relief = Relief::default();
        for lease in self.leases.list() {
            view.observe_load(&lease.meta().name, load::measured(&lease));
        }
        for node in self.nodes.list() {
            view.observe_node(&node);
        }
        for pod in self.pods.list() {
            let key = PodKey::new(&pod.meta().namespace, &pod.meta().name);
            self.observe_pod(view, queue, &mut relief, key, Some(&pod));
        }
    }

    fn observe(&self, queue: &mut Queue, news: &[Change]) {
        let mut shared = self.view.write();
        let view = shared.get_or_insert_default();
        let mut relief = Relief::default();
        for change in news {
            if change.is::<Pod>() {
                let key = PodKey::new(&change.namespace, &change.name);
                let pod = self.pods.get(&change.namespace, &change.name);
                self.observe_pod(view, queue, &mut relief, key, pod.as_deref());
            } else if change.is::<Node>() {
                match self.nodes.get("", &change.name) {
                    Some(node) => {
                        if view.observe_node(&node) {
                            relief.nodes.insert(change.name.as_str().into());
                        }
                    }
                    None => view.remove_node(&change.name),
                }
            } else if change.is::<Lease>() {
                let lease = self.leases.get(&change.namespace, &change.name);
                view.observe_load(&change.name, lease.as_deref().and_then(load::measured));
            }
        }
        relief.wake(view, queue);
    }

    fn observe_pod(
        &self,
        view: &mut ClusterView,
        queue: &mut Queue,
        relief: &mut Relief,
        key: PodKey,
        pod: Option<&Pod>,
    ) {
        let Some(pod) = pod.filter(|pod| !has_ended(pod)) else {
            queue.remove(&key);
            relief.nodes.extend(view.remove_pod(&key));
            return;
        };
        let demand = Demand::of(pod);
        let empty = Default::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        if !spec.node_name.is_empty() {
            queue.remove(&key);
            relief.nodes.extend(view.observe_placed(&demand, &spec.node_name));
            return;
        }
        if view.is_assumed(&key, &demand.uid) {
            return;
        }
        // Another pod of this name may have been on a node.
        relief.nodes.extend(view.remove_pod(&key));
        let is_ours = spec.scheduler_name.is_empty() || spec.scheduler_name == self.scheduler_name;
        let may_run = pod.meta().deletion_timestamp.is_none() && spec.scheduling_gates.is_empty();
        if is_ours && may_run {
            if queue.get(&key).is_some_and(|known| known.uid != demand.uid) {
                queue.remove(&key);
            }
            queue.offer(demand);
        } else {
            queue.remove(&key);
        }
    }

    /// Decides for the pods whose turn it is, and assumes each on its node.
    fn decide(&self, queue: &mut Queue, start: &mut usize) -> Vec<Binding> {
        let began = Instant::now();
        let mut bindings = Vec::new();
        let mut shared = self.view.write();
        let view = shared.get_or_insert_default();
        while bindings.len() < BATCH_MAX && began.elapsed() < BATCH_TIME {
            let Some(pod) = queue.take() else { break };
            match schedule(view, &pod, Sample { start: *start, feasible_max: self.feasible_max }) {
                Decision::Bind { node, examined } => {
                    *start = (*start + examined + 1) % view.nodes().len().max(1);
                    view.assume(&pod, &node);
                    bindings.push(Binding { pod, node });
                }
                Decision::Wait(wait) => {
                    queue.refused(&pod.key, Instant::now());
                    self.desk.unschedulable(&pod.key, &pod.uid, wait.to_string());
                }
            }
        }
        bindings
    }

    fn settle(&self, queue: &mut Queue, outcomes: Vec<Outcome>) {
        let mut shared = self.view.write();
        let view = shared.get_or_insert_default();
        let mut relief = Relief::default();
        for Outcome { binding: Binding { pod, node }, failure } in outcomes {
            let is_same = queue.get(&pod.key).is_some_and(|known| known.uid == pod.uid);
            let about = self.pods.get(&pod.key.namespace, &pod.key.name);
            match failure {
                None => {
                    if is_same {
                        queue.remove(&pod.key);
                    }
                    if let Some(about) = about {
                        let message = format!("Successfully assigned {} to {node}", pod.key);
                        self.recorder.event(&*about, "Normal", "Scheduled", &message);
                    }
                }
                Some(failure) => {
                    relief.nodes.extend(view.forget(&pod.key, &pod.uid));
                    if is_same {
                        queue.failed(&pod.key, Instant::now());
                    }
                    if let Some(about) = about {
                        let message = format!("binding rejected: {failure}");
                        self.recorder.event(&*about, "Warning", "FailedScheduling", &message);
                    }
                }
            }
        }
        relief.wake(view, queue);
    }
}

impl Relief {
    /// Looks again at the waiting pods that fit one of the nodes which changed.
    fn wake(&self, view: &ClusterView, queue: &mut Queue) {
        if self.nodes.is_empty() || !queue.has_unschedulable() {
            return;
        }
        let changed: Vec<_> = self.nodes.iter().filter_map(|name| view.node(name)).collect();
        queue.wake(Instant::now(), |pod| {
            let mut refusals = Vec::new();
            changed.iter().any(|node| filter::fits(pod, node, &mut refusals))
        });
    }
}

fn has_ended(pod: &Pod) -> bool {
    pod.status.as_ref().is_some_and(|status| status.phase == "Succeeded" || status.phase == "Failed")
}

fn far_future() -> tokio::time::Instant {
    tokio::time::Instant::now() + Duration::from_secs(3600)
}
