//! The old form, and what both forms have in common. Pure.

use std::{collections::BTreeMap, sync::Arc};

use client::Action;
use proto::{
    Kind,
    k8s::{
        core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};

use super::{
    backend::{Backend, Family, Port, backends, is_headless, spec_of},
    slices,
};

/// The old form holds no more addresses; what is above is only in slices.
const ADDRESSES_MAX: usize = 1000;
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// On Endpoints: whoever wrote them writes slices, too.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// On Endpoints that this controller wrote, so that it deletes only its own.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
const OURS: &str = "endpoint-controller";

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub service: Option<Arc<Service>>,
    /// The pods it selects.
    pub pods: Vec<Arc<Pod>>,
    pub endpoints: Option<Arc<Endpoints>>,
    /// All slices of the service, whoever wrote them.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// Steps from what is to what is wanted; empty once they agree.
pub fn plan(snapshot: &Snapshot) -> Vec<Action> {
    let Some(service) = &snapshot.service else { return orphaned(snapshot) };
    if model::meta::is_deleting(service.meta()) || spec_of(service).r#type == "ExternalName" {
        return Vec::new();
    }
    if spec_of(service).selector.is_empty() {
        return slices::mirror(service, snapshot.endpoints.as_deref(), &snapshot.slices);
    }
    let backends = backends(service, snapshot.pods.iter().map(AsRef::as_ref));
    let mut actions: Vec<Action> = endpoints(service, &backends, snapshot.endpoints.as_ref()).into_iter().collect();
    actions.extend(slices::of_pods(service, &backends, &snapshot.slices));
    actions
}

/// The service is gone, and so must be what was made for it.
fn orphaned(snapshot: &Snapshot) -> Vec<Action> {
    let is_ours = |endpoints: &&Arc<Endpoints>| endpoints.meta().labels.get(MANAGED_BY).is_some_and(|by| by == OURS);
    let endpoints = snapshot.endpoints.iter().filter(is_ours).map(|endpoints| Action::delete(endpoints.as_ref()));
    let slices = snapshot.slices.iter().filter(|slice| slices::is_ours(slice));
    endpoints.chain(slices.map(|slice| Action::delete(slice.as_ref()))).collect()
}

/// Writes the Endpoints where they are not what they should be.
fn endpoints(
    service: &Service,
    backends: &BTreeMap<(Family, Vec<Port>), Vec<Backend>>,
    present: Option<&Arc<Endpoints>>,
) -> Option<Action> {
    let mut wanted = present.map(|present| Endpoints::clone(present)).unwrap_or_default();
    let primary = spec_of(service)
        .ip_families
        .first()
        .map_or(Family::V4, |family| if family == "IPv6" { Family::V6 } else { Family::V4 });
    let mut room = ADDRESSES_MAX;
    let of_family = backends.iter().filter(|((family, _), _)| *family == primary);
    wanted.subsets =
        of_family.filter_map(|((_, ports), backends)| subset(service, ports, backends, &mut room)).collect();
    let meta = wanted.meta_mut();
    meta.name.clone_from(&service.meta().name);
    meta.namespace.clone_from(&service.meta().namespace);
    let mut labels = service.meta().labels.clone();
    labels.insert(MANAGED_BY.to_owned(), OURS.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    meta.labels = labels;
    if room == 0 {
        meta.annotations.insert(OVER_CAPACITY.to_owned(), "truncated".to_owned());
    } else {
        meta.annotations.remove(OVER_CAPACITY);
    }
    let count = |of: fn(&EndpointSubset) -> usize| wanted.subsets.iter().map(of).sum::<usize>();
    let ready = count(|subset| subset.addresses.len());
    let remark = format!("ready={ready} notReady={}", count(|subset| subset.not_ready_addresses.len()));
    match present {
        None => Some(Action::create(&wanted).remark(remark)),
        Some(present) if **present != wanted => Some(Action::update(&wanted).remark(remark)),
        Some(_) => None,
    }
}

fn subset(service: &Service, ports: &[Port], backends: &[Backend], room: &mut usize) -> Option<EndpointSubset> {
    // The old form has no word for a pod on its way out: such a pod is left out, unless readiness does not count.
    let is_published = spec_of(service).publish_not_ready_addresses;
    let shown = backends.iter().filter(|backend| is_published || !backend.is_terminating);
    let mut subset = EndpointSubset { ports: ports.iter().map(port).collect(), ..Default::default() };
    for backend in shown.take(*room) {
        *room -= 1;
        let address = EndpointAddress {
            ip: backend.ip.clone(),
            hostname: backend.hostname.clone(),
            node_name: (!backend.node.is_empty()).then(|| backend.node.clone()),
            target_ref: Some(backend.target.clone()),
        };
        if backend.is_ready {
            subset.addresses.push(address);
        } else {
            subset.not_ready_addresses.push(address);
        }
    }
    (!subset.addresses.is_empty() || !subset.not_ready_addresses.is_empty()).then_some(subset)
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: port.name.clone(),
        port: port.number,
        protocol: port.protocol.clone(),
        app_protocol: port.app_protocol.clone(),
    }
}

/// Whether somebody else's Endpoints should be mirrored into slices.
pub fn is_mirrored(endpoints: &Endpoints) -> bool {
    let labels = &endpoints.meta().labels;
    labels.get(SKIP_MIRROR).is_none_or(|skip| skip != "true") && !labels.contains_key(MANAGED_BY)
}
