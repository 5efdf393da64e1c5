//! etcd's v3 gRPC API in front of a member. A method understands, asks the member, and answers; it decides nothing.

mod cluster;
mod kv;
mod lease;
mod maintenance;
mod peer;
mod watch;

use std::{pin::Pin, sync::Arc, time::Duration};

use anyhow::Context;
use kit::life::Shutdown;
use proto::etcdserverpb::{
    cluster_server::ClusterServer, kv_server::KvServer, lease_server::LeaseServer,
    maintenance_server::MaintenanceServer, watch_server::WatchServer,
};
use tokio::net::TcpListener;
use tokio_stream::Stream;
use tonic::{
    Request, Status,
    metadata::MetadataMap,
    service::{Interceptor, Routes, RoutesBuilder, interceptor::InterceptedService},
    transport::{
        Server,
        server::{Router, TcpIncoming},
    },
};

pub(crate) use peer::PeerDoor;
pub use rustls::ServerConfig;

use crate::{machine::Refusal, node::Node};

/// What a message may have beside the request it carries; etcd's allowance.
const OVERHEAD_BYTES: usize = 512 << 10;

/// An answer in many parts.
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// One member behind all of etcd's services.
#[derive(Clone)]
struct Door {
    node: Node,
}

impl Node {
    /// Serves etcd's API until the member is shut down: on TLS where a configuration is given, else in the clear.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(&self, listener: TcpListener, tls: Option<Arc<ServerConfig>>) -> anyhow::Result<()> {
        let routes = self.routes().await?;
        let shutdown = self.until_shutdown();
        let server = Server::builder()
            .http2_keepalive_interval(Some(Duration::from_secs(10)))
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20)
            .tcp_nodelay(true)
            .add_routes(routes);
        until_stopped(server, listener, tls, shutdown).await.context("serve the store")
    }

    async fn routes(&self) -> anyhow::Result<Routes> {
        let door = Door { node: self.clone() };
        let bytes_max = self.options().request_bytes_max + OVERHEAD_BYTES;
        let (health, health_service) = tonic_health::server::health_reporter();
        health.set_serving::<KvServer<Door>>().await;
        health.set_service_status("", tonic_health::ServingStatus::Serving).await;
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
            .build_v1()
            .context("describe the services of the store")?;
        let led = Led { node: self.clone() };
        let kv = KvServer::new(door.clone()).max_decoding_message_size(bytes_max).max_encoding_message_size(usize::MAX);
        let watch =
            WatchServer::new(door.clone()).max_decoding_message_size(bytes_max).max_encoding_message_size(usize::MAX);
        let mut routes = RoutesBuilder::default();
        routes
            .add_service(health_service)
            .add_service(reflection)
            .add_service(InterceptedService::new(kv, led.clone()))
            .add_service(InterceptedService::new(watch, led.clone()))
            .add_service(InterceptedService::new(LeaseServer::new(door.clone()), led.clone()))
            .add_service(InterceptedService::new(ClusterServer::new(door.clone()), led))
            .add_service(MaintenanceServer::new(door));
        Ok(routes.routes())
    }
}

/// Answers on `listener` until `shutdown`: over mutual TLS, or plainly without it.
async fn until_stopped(
    server: Router,
    listener: TcpListener,
    tls: Option<Arc<ServerConfig>>,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let stop = shutdown.clone();
    let stop = async move { stop.triggered().await };
    match tls {
        Some(tls) => server.serve_with_incoming_shutdown(kit::grpc::accept(listener, tls, shutdown), stop).await,
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            server.serve_with_incoming_shutdown(incoming, stop).await
        }
    }
}

/// Turns away, while nobody leads, the clients that would rather ask another member.
#[derive(Clone)]
struct Led {
    node: Node,
}

impl Interceptor for Led {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        if wants_leader(request.metadata()) && self.node.group().leader().is_none() {
            return Err(Refusal::NoLeader.into());
        }
        Ok(request)
    }
}

/// etcd's way for a client to say that it does not want to wait for a leader.
fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata.get("hasleader").is_some_and(|value| value == "true")
}

/// A part of etcd's API that this store does not serve.
fn unserved(what: &str) -> Status {
    Status::unimplemented(format!("etcdserver: {what} is not served by this store"))
}
