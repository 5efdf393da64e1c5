//! `forestay.scheduler.v1`: every node's verdict on a pod, from the present view.

use std::sync::Arc;

use client::Cache;
use parking_lot::RwLock;
use proto::{
    forestay::scheduler::v1::{ExplainRequest, ExplainResponse, NodeVerdict, scheduler_server::Scheduler},
    k8s::core::v1::Pod,
};
use tonic::{Request, Response, Status};

use crate::{
    demand::Demand,
    schedule::{Verdict, explain, wait_of},
    view::ClusterView,
};

pub struct Explain {
    pub pods: Cache<Pod>,
    pub view: Arc<RwLock<ClusterView>>,
}

#[tonic::async_trait]
impl Scheduler for Explain {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { namespace, name } = request.into_inner();
        let pod = self
            .pods
            .get(&namespace, &name)
            .ok_or_else(|| Status::not_found(format!("pods \"{name}\" not found in namespace \"{namespace}\"")))?;
        let verdicts = explain(&self.view.read(), &Demand::of(&pod));
        Ok(Response::new(answer(&pod, verdicts)))
    }
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
