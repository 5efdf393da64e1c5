//! `forestay.scheduler.v1`: every node's verdict on a pod, from the present view.

use std::sync::Arc;

use client::Cache;
use parking_lot::RwLock;
use proto::{
    forestay::scheduler::v1::{
        ExplainRequest, ExplainResponse, NodeVerdict, Placement, SimulateRequest, SimulateResponse,
        scheduler_server::Scheduler,
    },
    k8s::core::v1::Pod,
};
use tonic::{Request, Response, Status};

use crate::{
    demand::Demand,
    schedule::{Verdict, explain, simulate, wait_of},
    view::ClusterView,
};

/// Copies one simulation places at most: more than a cluster holds, few enough to be answered in a second or so.
const COPIES_MAX: u32 = 100_000;

pub struct Explain {
    pub pods: Cache<Pod>,
    /// Absent where this scheduler does not lead.
    pub view: Arc<RwLock<Option<ClusterView>>>,
}

#[tonic::async_trait]
impl Scheduler for Explain {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { namespace, name } = request.into_inner();
        let pod = self
            .pods
            .get(&namespace, &name)
            .ok_or_else(|| Status::not_found(format!("pods \"{name}\" not found in namespace \"{namespace}\"")))?;
        let view = self.view.read();
        let verdicts = explain(view.as_ref().ok_or_else(follower)?, &Demand::of(&pod));
        Ok(Response::new(answer(&pod, verdicts)))
    }

    async fn simulate(&self, request: Request<SimulateRequest>) -> Result<Response<SimulateResponse>, Status> {
        let SimulateRequest { pod, copies } = request.into_inner();
        let pod = pod.ok_or_else(|| Status::invalid_argument("pod: name the pod to simulate"))?;
        if copies > COPIES_MAX {
            return Err(Status::invalid_argument(format!("copies: {copies} is more than the most, {COPIES_MAX}")));
        }
        // A copy: deciding goes on meanwhile.
        let mut view = self.view.read().as_ref().ok_or_else(follower)?.clone();
        let simulate = move || simulate(&mut view, &Demand::of(&pod), copies.max(1));
        let simulated = tokio::task::spawn_blocking(simulate)
            .await
            .map_err(|error| Status::internal(format!("the simulation failed: {error}")))?;
        let placement = |(node, copies): (Arc<str>, u32)| Placement { node: node.to_string(), copies };
        Ok(Response::new(SimulateResponse {
            placements: simulated.placed.into_iter().map(placement).collect(),
            message: simulated.wait.map(|wait| wait.to_string()).unwrap_or_default(),
        }))
    }
}

fn follower() -> Status {
    Status::failed_precondition("this scheduler does not lead: ask the holder of the lease kube-system/kube-scheduler")
}

fn answer(pod: &Pod, verdicts: Vec<Verdict>) -> ExplainResponse {
    let bound_to = pod.spec.as_ref().map(|spec| spec.node_name.clone()).unwrap_or_default();
    let best = verdicts.first().filter(|verdict| verdict.points.is_some()).map(|verdict| verdict.node.to_string());
    let message = match (&best, bound_to.is_empty()) {
        (_, false) => format!("bound to {bound_to}"),
        (Some(best), true) => format!("would be bound to {best}"),
        (None, true) => wait_of(&verdicts).to_string(),
    };
    let node = if bound_to.is_empty() { best.unwrap_or_default() } else { bound_to };
    ExplainResponse { node, message, verdicts: verdicts.into_iter().map(verdict).collect() }
}

fn verdict(Verdict { node, reasons, points }: Verdict) -> NodeVerdict {
    let points = points.unwrap_or_default();
    NodeVerdict {
        node: node.to_string(),
        reasons,
        scores: points.rules.into_iter().map(|(rule, points)| (rule.to_owned(), points)).collect(),
        total: points.total,
    }
}
