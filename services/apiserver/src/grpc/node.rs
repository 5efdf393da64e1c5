//! `forestay.node.v1.Node` for all pods: each call is passed on to the kubelet of the pod's node.

use std::sync::Arc;

use futures::{Stream, StreamExt, stream::BoxStream};
use proto::forestay::node::v1 as wire;
use tonic::{Request, Response, Status, Streaming};

use super::{answer::status, caller, nodes::OnNode};
use crate::{
    api::{Api, RequestContext, Target},
    refusal::{Refusal, Result},
};

pub struct Door {
    api: Arc<Api>,
}

impl Door {
    pub fn new(api: Arc<Api>) -> Self {
        Self { api }
    }

    /// The kubelet of the pod that a call is about.
    async fn find(
        &self,
        context: &RequestContext,
        asked: Option<wire::Container>,
        subresource: &str,
    ) -> Result<OnNode> {
        let asked = asked.filter(|asked| !asked.namespace.is_empty() && !asked.pod.is_empty());
        let asked = asked.ok_or_else(|| Refusal::bad_request("target.namespace and target.pod are required"))?;
        let pods = self.api.find("", "pods").ok_or_else(Refusal::unknown_resource)?;
        let target = Target { resource: pods, namespace: &asked.namespace, name: &asked.pod, subresource };
        let found = self.api.node_of(context, target, &asked.container).await?;
        if !asked.uid.is_empty() && asked.uid != found.target.uid {
            let why = format!("the pod of that name has the uid {}, not {}", found.target.uid, asked.uid);
            return Err(Refusal::conflict(pods, &asked.pod, &why));
        }
        Ok(found)
    }
}

type Answer<T> = std::result::Result<Response<T>, Status>;
type Answers<T> = BoxStream<'static, std::result::Result<T, Status>>;

#[tonic::async_trait]
impl wire::node_server::Node for Door {
    type LogsStream = Answers<wire::LogsResponse>;

    async fn logs(&self, request: Request<wire::LogsRequest>) -> Answer<Self::LogsStream> {
        let context = caller(&request);
        let request = request.into_inner();
        let mut found = self.find(&context, request.target.clone(), "log").await.map_err(status)?;
        let request = wire::LogsRequest { target: Some(found.target), ..request };
        let answers = found.client.logs(request).await?.into_inner();
        Ok(Response::new(answers.boxed()))
    }

    type ExecStream = Answers<wire::StreamResponse>;

    async fn exec(&self, request: Request<Streaming<wire::StreamRequest>>) -> Answer<Self::ExecStream> {
        let (mut found, requests) = self.started(request, "exec").await?;
        Ok(Response::new(found.client.exec(requests).await?.into_inner().boxed()))
    }

    type AttachStream = Answers<wire::StreamResponse>;

    async fn attach(&self, request: Request<Streaming<wire::StreamRequest>>) -> Answer<Self::AttachStream> {
        let (mut found, requests) = self.started(request, "attach").await?;
        Ok(Response::new(found.client.attach(requests).await?.into_inner().boxed()))
    }

    type PortForwardStream = Answers<wire::PortForwardResponse>;

    async fn port_forward(
        &self,
        request: Request<Streaming<wire::PortForwardRequest>>,
    ) -> Answer<Self::PortForwardStream> {
        let context = caller(&request);
        let mut requests = request.into_inner();
        let mut first = requests.message().await?.unwrap_or_default();
        let mut found = self.find(&context, first.target.take(), "portforward").await.map_err(status)?;
        first.target = Some(found.target.clone());
        let requests = futures::stream::iter([first]).chain(until_error(requests));
        Ok(Response::new(found.client.port_forward(requests).await?.into_inner().boxed()))
    }

    async fn stats(&self, _request: Request<wire::StatsRequest>) -> Answer<wire::StatsResponse> {
        Err(Status::unimplemented("each kubelet serves its own node's stats: ask the node's address"))
    }

    async fn import_image(
        &self,
        _request: Request<Streaming<wire::ImportImageRequest>>,
    ) -> Answer<wire::ImportImageResponse> {
        Err(Status::unimplemented("images are imported on one node: ask the node's address"))
    }
}

impl Door {
    async fn started(
        &self,
        request: Request<Streaming<wire::StreamRequest>>,
        subresource: &str,
    ) -> std::result::Result<(OnNode, impl Stream<Item = wire::StreamRequest> + Send + 'static), Status> {
        use wire::stream_request::Input;
        let context = caller(&request);
        let mut requests = request.into_inner();
        let Some(wire::StreamRequest { input: Some(Input::Start(mut start)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first message must carry `start`"));
        };
        let found = self.find(&context, start.target.take(), subresource).await.map_err(status)?;
        start.target = Some(found.target.clone());
        let first = wire::StreamRequest { input: Some(Input::Start(start)) };
        Ok((found, futures::stream::iter([first]).chain(until_error(requests))))
    }
}

/// A client that breaks off ends the stream towards the node.
fn until_error<T: Send + 'static>(requests: Streaming<T>) -> impl Stream<Item = T> + Send + 'static {
    requests
        .take_while(|request| futures::future::ready(request.is_ok()))
        .filter_map(|request| futures::future::ready(request.ok()))
}
