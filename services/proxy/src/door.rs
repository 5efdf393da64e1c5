//! `forestay.proxy.v1`: the rules in force.

use std::sync::Arc;

use parking_lot::RwLock;
use proto::forestay::proxy::v1::{self as api, proxy_server::Proxy};
use tonic::{Request, Response, Status};

use crate::{
    diff::Claims,
    rules::{Key, Rule},
};

/// What is in force, and the revision it comes from.
#[derive(Default)]
pub struct InForce {
    pub claims: Claims,
    pub revision: u64,
}

pub struct Door {
    pub backend: &'static str,
    pub in_force: Arc<RwLock<InForce>>,
}

#[tonic::async_trait]
impl Proxy for Door {
    async fn rules(&self, request: Request<api::RulesRequest>) -> Result<Response<api::RulesResponse>, Status> {
        let api::RulesRequest { namespace, service } = request.into_inner();
        let in_force = self.in_force.read();
        let rules = in_force
            .claims
            .rules()
            .iter()
            .filter(|(_, rule)| namespace.is_empty() || rule.service.namespace == namespace)
            .filter(|(_, rule)| service.is_empty() || rule.service.name == service)
            .map(|(key, rule)| shown(key, rule))
            .collect();
        let backend = self.backend.to_owned();
        Ok(Response::new(api::RulesResponse { revision: in_force.revision, backend, rules }))
    }
}

fn shown(key: &Key, rule: &Rule) -> api::Rule {
    api::Rule {
        namespace: rule.service.namespace.clone(),
        service: rule.service.name.clone(),
        port_name: rule.port_name.clone(),
        // Every address of the node.
        address: key.address.map_or_else(|| "0.0.0.0".to_owned(), |address| address.to_string()),
        port: key.port.into(),
        protocol: key.protocol.name().to_owned(),
        backends: rule.backends.iter().map(|backend| backend.address.to_string()).collect(),
        affinity_seconds: rule.affinity_seconds.unwrap_or_default(),
    }
}
