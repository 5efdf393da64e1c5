//! `forestay.node.v1` for this node's pods: logs, exec, attach, measured use, image import.
//!
//! Only the apiserver and administrators are let in; who may do what with which pod has been decided before.

mod logs;
mod sessions;

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use client::Cache;
use futures::{Stream, StreamExt, stream};
use kit::{grpc::ConnectInfo, life::Shutdown};
use parking_lot::Mutex;
use proto::{
    Kind,
    forestay::node::v1::{
        Container as Target, ContainerStats, ImportImageRequest, ImportImageResponse, LogsRequest, LogsResponse,
        PodStats, PortForwardRequest, PortForwardResponse, StatsRequest, StatsResponse, StreamRequest, StreamResponse,
        Usage,
        node_server::{Node, NodeServer},
    },
    k8s::core::v1::Pod,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status, Streaming, service::RoutesBuilder};
use tracing::info;

use crate::{
    ServerTls,
    node::usage::Meter,
    pod::snapshot::{key, spec},
    runtime::{Container, Error, Runtime},
};

/// Whose client certificates are let in.
const ADMINISTRATORS: &str = "system:masters";

/// The pods of this node, as others may ask about them.
#[derive(Clone)]
pub struct Service {
    runtime: Arc<dyn Runtime>,
    pods: Cache<Pod>,
    meter: Arc<Mutex<Meter>>,
    /// Whether callers must show a certificate of an administrator.
    is_guarded: bool,
}

impl Service {
    pub fn new(runtime: Arc<dyn Runtime>, pods: Cache<Pod>, is_guarded: bool) -> Self {
        Self { runtime, pods, meter: Arc::default(), is_guarded }
    }

    /// Serves until shutdown.
    ///
    /// # Errors
    /// Where TLS cannot be set up, or the server breaks.
    pub async fn serve(
        self,
        listener: TcpListener,
        tls: Option<Arc<ServerTls>>,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        info!(address = %listener.local_addr()?, "serving forestay.node.v1");
        let mut routes = RoutesBuilder::default();
        let (health, health_server) = tonic_health::server::health_reporter();
        health.set_serving::<NodeServer<Self>>().await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()?;
        routes.add_service(health_server).add_service(reflection).add_service(NodeServer::new(self));
        match tls {
            Some(tls) => {
                let clients = kit::tls::Clients::Certified;
                let config = kit::tls::server_config(&tls.identity, &tls.client_ca_pem, clients, &["h2"])?;
                kit::grpc::serve(listener, config, routes, shutdown).await?;
            }
            None => {
                let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
                let stopped = async move { shutdown.triggered().await };
                let server = tonic::transport::Server::builder().add_routes(routes.routes());
                server.serve_with_incoming_shutdown(incoming, stopped).await?;
            }
        }
        Ok(())
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        if !self.is_guarded {
            return Ok(());
        }
        let peer = request.extensions().get::<ConnectInfo>().and_then(|info| info.peer.as_ref());
        match peer {
            Some(peer) if peer.organizations.iter().any(|organization| organization == ADMINISTRATORS) => Ok(()),
            Some(peer) => Err(Status::permission_denied(format!(
                "\"{}\" may not use the kubelet: ask the apiserver, which decides who may",
                peer.common_name
            ))),
            None => Err(Status::unauthenticated("show a client certificate of the apiserver or of an administrator")),
        }
    }

    fn pod(&self, target: &Target) -> Result<Arc<Pod>, Status> {
        let Target { namespace, pod: name, uid, .. } = target;
        let pod = self.pods.get(namespace, name);
        let pod = pod.filter(|pod| uid.is_empty() || pod.meta().uid == *uid);
        pod.ok_or_else(|| Status::not_found(format!("pod \"{namespace}/{name}\" is not on this node")))
    }

    /// An attempt of the container that is meant: the newest, or the one before it.
    async fn container(&self, target: &Target, is_previous: bool) -> Result<Container, Status> {
        let pod = self.pod(target)?;
        let name = container_name(&pod, target)?;
        let state = self.runtime.pod(&pod.meta().uid).await.map_err(|error| refuse(&error))?;
        let mut attempts = state.attempts(&name).filter(|container| container.started_at.is_some());
        let found = if is_previous { attempts.nth(1) } else { attempts.next() };
        found.cloned().ok_or_else(|| {
            let pod = &pod.meta().name;
            Status::failed_precondition(match is_previous {
                true => format!("previous terminated container \"{name}\" in pod \"{pod}\" not found"),
                false => format!("container \"{name}\" in pod \"{pod}\" is waiting to start: ContainerCreating"),
            })
        })
    }

    async fn running(&self, target: &Target) -> Result<Container, Status> {
        let container = self.container(target, false).await?;
        if container.is_running() {
            return Ok(container);
        }
        Err(Status::failed_precondition(format!("container \"{}\" is not running", container.name)))
    }
}

/// The container asked for; without a name the pod's default one, or its only one.
fn container_name(pod: &Pod, target: &Target) -> Result<String, Status> {
    const DEFAULT: &str = "kubectl.kubernetes.io/default-container";
    let spec = spec(pod);
    let names: Vec<&str> = spec.init_containers.iter().chain(&spec.containers).map(|c| c.name.as_str()).collect();
    let wanted = match target.container.as_str() {
        "" => match (pod.meta().annotations.get(DEFAULT), spec.containers.as_slice()) {
            (Some(name), _) => name.as_str(),
            (None, [first, ..]) => first.name.as_str(),
            (None, []) => "",
        },
        name => name,
    };
    if names.contains(&wanted) {
        return Ok(wanted.to_owned());
    }
    let message =
        format!("container {wanted} is not valid for pod {}: choose one of [{}]", pod.meta().name, names.join(" "));
    Err(Status::invalid_argument(message))
}

pub(crate) fn refuse(error: &Error) -> Status {
    match error {
        Error::NotFound(message) => Status::not_found(message),
        Error::Conflict(message) => Status::failed_precondition(message),
        Error::Refused(message) => Status::internal(message),
        Error::Timeout { .. } => Status::deadline_exceeded(error.to_string()),
        Error::Unavailable(message) => Status::unavailable(message),
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Service {
    type LogsStream = Answers<LogsResponse>;
    type ExecStream = Answers<StreamResponse>;
    type AttachStream = Answers<StreamResponse>;
    type PortForwardStream = Answers<PortForwardResponse>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        self.admit(&request)?;
        let request = request.into_inner();
        let target = request.target.clone().ok_or_else(|| Status::invalid_argument("target: name a container"))?;
        let container = self.container(&target, request.previous).await?;
        Ok(Response::new(logs::read(&self.runtime, &container, &request).await?))
    }

    async fn exec(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        self.admit(&request)?;
        let (start, input) = sessions::start(request.into_inner()).await?;
        if start.command.is_empty() {
            return Err(Status::invalid_argument("command: name a program to run"));
        }
        let container = self.running(&start.target.clone().unwrap_or_default()).await?;
        let session = self.runtime.exec(&container.id, &start.command, &sessions::streams(&start)).await;
        let session = session.map_err(|error| refuse(&error))?;
        Ok(Response::new(sessions::run(self.runtime.clone(), session, input)))
    }

    async fn attach(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        self.admit(&request)?;
        let (start, input) = sessions::start(request.into_inner()).await?;
        let container = self.running(&start.target.clone().unwrap_or_default()).await?;
        let session = self.runtime.attach(&container.id, &sessions::streams(&start)).await;
        let session = session.map_err(|error| refuse(&error))?;
        Ok(Response::new(sessions::run(self.runtime.clone(), session, input)))
    }

    async fn port_forward(
        &self,
        request: Request<Streaming<PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        self.admit(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the first request names the pod and the port"))?;
        let pod = self.pod(&first.target.clone().unwrap_or_default())?;
        let state = self.runtime.pod(&pod.meta().uid).await.map_err(|error| refuse(&error))?;
        let sandbox = state.live_sandbox();
        let sandbox = sandbox.ok_or_else(|| Status::failed_precondition("the pod is not running"))?;
        let connected = sessions::connect_in(sandbox.pid, first.port).await?;
        Ok(Response::new(sessions::forward(connected, first, input)))
    }

    async fn stats(&self, request: Request<StatsRequest>) -> Result<Response<StatsResponse>, Status> {
        self.admit(&request)?;
        let use_now = self.meter.lock().read();
        let node = Usage { cpu_nanocores: use_now.cpu_milli * 1_000_000, memory_bytes: use_now.memory_bytes };
        let pods: Vec<PodStats> = stream::iter(self.pods.list())
            .map(|pod| {
                let runtime = self.runtime.clone();
                async move { pod_stats(&runtime, &pod).await }
            })
            .buffer_unordered(STATS_AT_ONCE)
            .collect()
            .await;
        Ok(Response::new(StatsResponse { node: Some(node), pods }))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Response<ImportImageResponse>, Status> {
        self.admit(&request)?;
        let mut input = request.into_inner();
        let first = input.message().await?;
        let first = first.ok_or_else(|| Status::invalid_argument("the first request names the image"))?;
        if first.image.is_empty() {
            return Err(Status::invalid_argument("image: name it, as \"name:tag\""));
        }
        let rest = input.filter_map(async |request| request.ok().map(|request| request.chunk));
        let archive = stream::iter([first.chunk]).chain(rest).filter(|chunk| std::future::ready(!chunk.is_empty()));
        let id = self.runtime.import_image(&first.image, &first.changes, archive.boxed()).await;
        Ok(Response::new(ImportImageResponse { id: id.map_err(|error| refuse(&error))? }))
    }
}

/// Pods that are measured at once.
const STATS_AT_ONCE: usize = 4;
/// Between the two looks that give a rate.
const STATS_WINDOW: std::time::Duration = std::time::Duration::from_millis(500);

async fn pod_stats(runtime: &Arc<dyn Runtime>, pod: &Pod) -> PodStats {
    let key = key(pod);
    let state = runtime.pod(&key.uid).await.unwrap_or_default();
    let running: Vec<&Container> = state.containers.iter().filter(|container| container.is_running()).collect();
    let look = || async {
        let mut seen = BTreeMap::new();
        for container in &running {
            if let Ok(stats) = runtime.stats(&container.id).await {
                seen.insert(container.name.clone(), stats);
            }
        }
        seen
    };
    let (before, start) = (look().await, std::time::Instant::now());
    if !before.is_empty() {
        tokio::time::sleep(STATS_WINDOW).await;
    }
    let after = look().await;
    let window = start.elapsed().as_secs_f64().max(f64::MIN_POSITIVE);
    let containers: Vec<ContainerStats> = after
        .into_iter()
        .map(|(name, now)| {
            let used = before.get(&name).map_or(0, |before| now.cpu_ns.saturating_sub(before.cpu_ns));
            let cpu_nanocores = (used as f64 / window) as u64;
            ContainerStats { name, r#use: Some(Usage { cpu_nanocores, memory_bytes: now.memory_bytes }) }
        })
        .collect();
    let uses = || containers.iter().filter_map(|container| container.r#use);
    let total = Usage {
        cpu_nanocores: uses().map(|one| one.cpu_nanocores).sum(),
        memory_bytes: uses().map(|one| one.memory_bytes).sum(),
    };
    PodStats { namespace: key.namespace, name: key.name, uid: key.uid, r#use: Some(total), containers }
}
