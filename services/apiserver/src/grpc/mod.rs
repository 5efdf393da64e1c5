//! The typed door: `forestay.api.v1.Objects` and `forestay.node.v1.Node` over gRPC.
//!
//! A method is three lines: understand, act, answer. It decides nothing.

mod answer;
mod node;
pub(crate) mod nodes;
mod objects;
mod target;

use std::sync::Arc;

use proto::forestay::{api::v1::objects_server::ObjectsServer, node::v1::node_server::NodeServer};
use tonic::service::Routes;

use crate::api::Api;

/// Largest message of either direction: a page of a list is many objects.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Both services with health and reflection. Requests carry their caller as an `Arc<RequestContext>` extension.
pub async fn routes(api: Arc<Api>) -> Routes {
    let (health, health_service) = tonic_health::server::health_reporter();
    let objects = ObjectsServer::new(objects::Door::new(api.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let node = NodeServer::new(node::Door::new(api)).max_decoding_message_size(MESSAGE_BYTES_MAX);
    health.set_serving::<ObjectsServer<objects::Door>>().await;
    health.set_serving::<NodeServer<node::Door>>().await;
    let mut routes = Routes::new(objects).add_service(node).add_service(health_service);
    if let Ok(reflection) = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
    {
        routes = routes.add_service(reflection);
    }
    routes
}

/// Who asks: put into the request by the server.
fn caller<T>(request: &tonic::Request<T>) -> Arc<crate::api::RequestContext> {
    request
        .extensions()
        .get::<Arc<crate::api::RequestContext>>()
        .cloned()
        .unwrap_or_else(|| Arc::new(crate::api::RequestContext::anonymous()))
}
