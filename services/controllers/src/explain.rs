//! `forestay.controllers.v1`: what a controller sees, and would do, for one key.

use std::sync::Arc;

use anyhow::Context;
use client::{Key, controller::Running};
use parking_lot::Mutex;
use proto::forestay::controllers::v1::{
    ExplainRequest, ExplainResponse,
    controllers_server::{Controllers, ControllersServer},
};
use tonic::{Request, Response, Status, service::RoutesBuilder};

/// The controllers that run here, if this process leads.
#[derive(Clone, Default)]
pub struct Explained(Arc<Mutex<Vec<Running>>>);

impl Explained {
    pub fn show(&self, running: Vec<Running>) {
        *self.0.lock() = running;
    }

    pub fn hide(&self) {
        self.0.lock().clear();
    }
}

#[tonic::async_trait]
impl Controllers for Explained {
    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let ExplainRequest { controller, namespace, name } = request.into_inner();
        let key = Key::new(&namespace, &name);
        let hosts = self.0.lock();
        if hosts.is_empty() {
            return Err(Status::unavailable("another process leads the controllers: ask that one"));
        }
        let explanation = hosts.iter().find_map(|host| host.explain(&controller, &key)).ok_or_else(|| {
            let names: Vec<&str> = hosts.iter().flat_map(Running::names).collect();
            Status::invalid_argument(format!("no controller is called {controller:?}; there are {}", names.join(", ")))
        })?;
        Ok(Response::new(ExplainResponse {
            snapshot: explanation.snapshot,
            plan: explanation.plan,
            next_wake: explanation.next_wake.map(|time| time.to_string()).unwrap_or_default(),
            error: explanation.error,
        }))
    }
}

/// The package itself, with health and reflection.
pub async fn routes(explained: Explained) -> anyhow::Result<RoutesBuilder> {
    let (reporter, health) = tonic_health::server::health_reporter();
    reporter.set_serving::<ControllersServer<Explained>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(proto::DESCRIPTORS)
        .build_v1()
        .context("build reflection")?;
    let mut routes = RoutesBuilder::default();
    routes
        .add_service(health)
        .add_service(reflection)
        .add_service(ControllersServer::with_interceptor(explained, kit::grpc::only_operators));
    Ok(routes)
}
