//! The decision: which node a pod goes to, or why it waits. A pure function of view, pod and where to begin.

use std::{collections::BTreeMap, fmt, sync::Arc};

use crate::{
    demand::Demand,
    filter::{self, Refusal},
    score::{self, Points},
    view::{ClusterView, NodeView},
};

/// Enough feasible nodes to choose well from; looking at more costs more than it gains.
pub const SAMPLE_DEFAULT: usize = 128;

/// Where to begin looking and when enough was seen.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Index of the first node looked at. Moving it on spreads equal choices over the nodes.
    pub start: usize,
    /// Nodes that fit, at most.
    pub feasible_max: usize,
}

impl Default for Sample {
    fn default() -> Self {
        Self { start: 0, feasible_max: SAMPLE_DEFAULT }
    }
}

/// What becomes of a pod.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    Bind {
        node: Arc<str>,
        /// Nodes looked at, for the next sample's start.
        examined: usize,
    },
    Wait(Wait),
}

/// Why no node fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wait {
    pub nodes: usize,
    /// Reason to number of nodes.
    pub reasons: BTreeMap<String, usize>,
}

impl fmt::Display for Wait {
    /// The sentence users of Kubernetes know: `0/3 nodes are available: 1 Insufficient cpu, 2 Too many pods.`
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nodes == 0 {
            return out.write_str("no nodes available to schedule pods");
        }
        let mut counted: Vec<_> = self.reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        counted.sort();
        write!(out, "0/{} nodes are available: {}.", self.nodes, counted.join(", "))
    }
}

/// Chooses the best of the nodes that fit; of equals the first one looked at.
pub fn schedule(view: &ClusterView, pod: &Demand, sample: Sample) -> Decision {
    let nodes = view.nodes();
    let mut feasible: Vec<&NodeView> = Vec::new();
    let mut refusals = Vec::new();
    let mut examined = 0;
    for at in 0..nodes.len() {
        let node = &nodes[(sample.start + at) % nodes.len()];
        examined += 1;
        if filter::fits(pod, node, &mut refusals) {
            feasible.push(node);
            // Nobody asks why the others do not fit once one does.
            refusals.clear();
            if feasible.len() >= sample.feasible_max.max(1) {
                break;
            }
        }
    }
    let best = match feasible.as_slice() {
        [] => return Decision::Wait(Wait { nodes: nodes.len(), reasons: counted(&refusals) }),
        [only] => only,
        several => several[first_highest(&score::totals(pod, several))],
    };
    Decision::Bind { node: best.name.clone(), examined }
}

/// One node's verdict on a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub node: Arc<str>,
    /// Empty where it fits.
    pub reasons: Vec<String>,
    /// Present where it fits.
    pub points: Option<Points>,
}

/// Every node's verdict on a pod: those that fit first, best first.
pub fn explain(view: &ClusterView, pod: &Demand) -> Vec<Verdict> {
    let (mut feasible, mut verdicts) = (Vec::new(), Vec::new());
    for node in view.nodes() {
        let mut refusals = Vec::new();
        if filter::fits(pod, node, &mut refusals) {
            feasible.push(node);
        } else {
            let reasons = refusals.iter().map(Refusal::to_string).collect();
            verdicts.push(Verdict { node: node.name.clone(), reasons, points: None });
        }
    }
    let mut fitting: Vec<_> = score::explain(pod, &feasible)
        .into_iter()
        .zip(&feasible)
        .map(|(points, node)| Verdict { node: node.name.clone(), reasons: Vec::new(), points: Some(points) })
        .collect();
    fitting.sort_by_key(|verdict| std::cmp::Reverse(verdict.points.as_ref().map(|points| points.total)));
    fitting.append(&mut verdicts);
    fitting
}

/// Where copies of a pod would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Simulated {
    /// Nodes and how many copies each would get.
    pub placed: BTreeMap<Arc<str>, u32>,
    /// Why the next copy would wait; none where all find a place.
    pub wait: Option<Wait>,
}

/// Places copies of a pod one after another, as the driver would, until one has to wait.
pub fn simulate(view: &mut ClusterView, pod: &Demand, copies: u32) -> Simulated {
    let (mut simulated, mut start) = (Simulated::default(), 0);
    for copy in 0..copies {
        let mut pod = pod.clone();
        // A name no object can have: the pods in the view stay as they are.
        pod.key.name = format!("{} {copy}", pod.key.name).into();
        match schedule(view, &pod, Sample { start, ..Sample::default() }) {
            Decision::Bind { node, examined } => {
                start = (start + examined + 1) % view.nodes().len().max(1);
                view.assume(&pod, &node);
                *simulated.placed.entry(node).or_default() += 1;
            }
            Decision::Wait(wait) => {
                simulated.wait = Some(wait);
                break;
            }
        }
    }
    simulated
}

/// Sums up what a list of verdicts says for a pod none fits.
pub fn wait_of(verdicts: &[Verdict]) -> Wait {
    let mut wait = Wait { nodes: verdicts.len(), reasons: BTreeMap::new() };
    for reason in verdicts.iter().flat_map(|verdict| &verdict.reasons) {
        *wait.reasons.entry(reason.clone()).or_default() += 1;
    }
    wait
}

fn counted(refusals: &[Refusal]) -> BTreeMap<String, usize> {
    let mut by_refusal: BTreeMap<&Refusal, usize> = BTreeMap::new();
    for refusal in refusals {
        *by_refusal.entry(refusal).or_default() += 1;
    }
    by_refusal.into_iter().map(|(refusal, count)| (refusal.to_string(), count)).collect()
}

fn first_highest(totals: &[i64]) -> usize {
    let mut best = 0;
    for (at, total) in totals.iter().enumerate() {
        if *total > totals[best] {
            best = at;
        }
    }
    best
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
