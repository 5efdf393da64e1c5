//! `forestay.scheduler.v1`: every node's verdict on a pod, from the present view.

use std::sync::Arc;

use client::Cache;
use kit::grpc::ConnectInfo;
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
    /// Absent where this scheduler does not lead.
    pub view: Arc<RwLock<Option<ClusterView>>>,
}

/// Lets in who may see every pod and node: the administrators' group.
///
/// # Errors
/// Names what is missing.
pub fn only_operators(request: Request<()>) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<ConnectInfo>();
    let Some(peer) = info.and_then(|info| info.peer.as_ref()) else {
        return Err(Status::unauthenticated("forestay.scheduler.v1 needs a client certificate"));
    };
    if !peer.organizations.iter().any(|group| group == "system:masters") {
        let user = &peer.common_name;
        return Err(Status::permission_denied(format!("{user} is not in the group system:masters")));
    }
    Ok(request)
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
        let view = view.as_ref().ok_or_else(|| {
            Status::failed_precondition("this scheduler does not lead: ask the holder of kube-system/kube-scheduler")
        })?;
        let verdicts = explain(view, &Demand::of(&pod));
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

#[cfg(test)]
mod tests {
    use kit::tls::Peer;

    use super::*;

    fn asked_by(peer: Option<Peer>) -> Result<(), tonic::Code> {
        let mut request = Request::new(());
        request.extensions_mut().insert(ConnectInfo { address: ([127, 0, 0, 1], 1).into(), peer });
        only_operators(request).map(drop).map_err(|status| status.code())
    }

    #[test]
    fn only_administrators_are_let_in() {
        let of = |group: &str| Some(Peer { common_name: "someone".to_owned(), organizations: vec![group.to_owned()] });
        assert_eq!(asked_by(of("system:masters")), Ok(()));
        assert_eq!(asked_by(of("system:nodes")), Err(tonic::Code::PermissionDenied));
        assert_eq!(asked_by(None), Err(tonic::Code::Unauthenticated));
    }
}
