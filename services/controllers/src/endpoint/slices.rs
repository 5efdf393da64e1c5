//! The new form: slices of at most 100 endpoints, rewritten as little as possible. Pure.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use client::Action;
use proto::{
    Kind,
    k8s::{
        core::v1::{EndpointAddress, Endpoints, Service},
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice},
        meta::v1::OwnerReference,
    },
};

use super::{
    SERVICE_NAME,
    backend::{Backend, Family, Port, is_headless, wants},
    plan::is_mirrored,
};

/// Endpoints in one slice: what a change of one of them costs every watcher.
pub const SLICE_MAX: usize = 100;

const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const OF_PODS: &str = "endpointslice-controller.k8s.io";
const MIRRORED: &str = "endpointslicemirroring-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";

/// The endpoints wanted for one set of ports.
type Wanted = BTreeMap<(Family, Vec<Port>), Vec<Endpoint>>;

pub fn is_ours(slice: &EndpointSlice) -> bool {
    let by = slice.meta().labels.get(MANAGED_BY).map(String::as_str);
    by == Some(OF_PODS) || by == Some(MIRRORED)
}

/// Slices of the pods that a service selects.
pub fn of_pods(
    service: &Service,
    backends: &BTreeMap<(Family, Vec<Port>), Vec<Backend>>,
    slices: &[Arc<EndpointSlice>],
) -> Vec<Action> {
    let wanted = backends.iter().map(|(group, backends)| (group.clone(), backends.iter().map(endpoint).collect()));
    reconcile(service, OF_PODS, wanted.collect(), slices)
}

/// Slices that say what Endpoints written by hand say.
pub fn mirror(service: &Service, endpoints: Option<&Endpoints>, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    let mut wanted = Wanted::new();
    let subsets = endpoints.filter(|it| is_mirrored(it)).map(|it| it.subsets.as_slice()).unwrap_or_default();
    for subset in subsets {
        let port = |port: &proto::k8s::core::v1::EndpointPort| Port {
            name: port.name.clone(),
            protocol: if port.protocol.is_empty() { "TCP".into() } else { port.protocol.clone() },
            number: port.port,
            app_protocol: port.app_protocol.clone(),
        };
        let ports: Vec<Port> = subset.ports.iter().map(port).collect();
        let ready = subset.addresses.iter().map(|address| (address, true));
        for (address, is_ready) in ready.chain(subset.not_ready_addresses.iter().map(|address| (address, false))) {
            let family = if address.ip.contains(':') { Family::V6 } else { Family::V4 };
            wanted.entry((family, ports.clone())).or_default().push(mirrored(address, is_ready));
        }
    }
    let mine: Vec<&Arc<EndpointSlice>> = slices.iter().filter(|slice| is_managed_by(slice, MIRRORED)).collect();
    if wanted.is_empty() {
        return mine.into_iter().map(|slice| Action::delete(slice.as_ref())).collect();
    }
    reconcile(service, MIRRORED, wanted, slices)
}

fn is_managed_by(slice: &EndpointSlice, manager: &str) -> bool {
    slice.meta().labels.get(MANAGED_BY).is_some_and(|by| by == manager)
}

fn endpoint(backend: &Backend) -> Endpoint {
    Endpoint {
        addresses: vec![backend.ip.clone()],
        conditions: Some(EndpointConditions {
            ready: Some(backend.is_ready),
            serving: Some(backend.is_serving),
            terminating: Some(backend.is_terminating),
        }),
        hostname: (!backend.hostname.is_empty()).then(|| backend.hostname.clone()),
        target_ref: Some(backend.target.clone()),
        node_name: (!backend.node.is_empty()).then(|| backend.node.clone()),
        ..Default::default()
    }
}

fn mirrored(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: Some(EndpointConditions { ready: Some(is_ready), ..Default::default() }),
        hostname: (!address.hostname.is_empty()).then(|| address.hostname.clone()),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        ..Default::default()
    }
}

/// Brings the slices of one manager to what is wanted, touching as few as possible.
fn reconcile(service: &Service, manager: &str, mut wanted: Wanted, slices: &[Arc<EndpointSlice>]) -> Vec<Action> {
    if wanted.is_empty() {
        // An empty slice says that there is nothing, which no slice would not.
        let family = if wants(service, Family::V4) { Family::V4 } else { Family::V6 };
        wanted.insert((family, Vec::new()), Vec::new());
    }
    let mut present: BTreeMap<(Family, Vec<Port>), Vec<&Arc<EndpointSlice>>> = BTreeMap::new();
    for slice in slices.iter().filter(|slice| is_managed_by(slice, manager)) {
        present.entry(group_of(slice)).or_default().push(slice);
    }
    let mut actions = Vec::new();
    for (group, slices) in &present {
        if !wanted.contains_key(group) {
            actions.extend(slices.iter().map(|slice| Action::delete(slice.as_ref())));
        }
    }
    for (group, endpoints) in wanted {
        let slices = present.remove(&group).unwrap_or_default();
        actions.extend(fill(service, manager, group, endpoints, slices));
    }
    actions
}

/// Brings the slices of one set of ports to the endpoints wanted for it.
fn fill(
    service: &Service,
    manager: &str,
    group: (Family, Vec<Port>),
    endpoints: Vec<Endpoint>,
    slices: Vec<&Arc<EndpointSlice>>,
) -> Vec<Action> {
    let is_placeholder = endpoints.is_empty();
    let mut waiting: Vec<Option<Endpoint>> = endpoints.into_iter().map(Some).collect();
    let places: HashMap<(String, String), usize> =
        waiting.iter().flatten().enumerate().map(|(at, endpoint)| (identity(endpoint), at)).collect();
    let mut kept: Vec<(&Arc<EndpointSlice>, EndpointSlice)> = Vec::new();
    for slice in slices {
        let mut updated = dressed(service, manager, EndpointSlice::clone(slice));
        let stays = |endpoint: &Endpoint| waiting[*places.get(&identity(endpoint))?].take();
        updated.endpoints = slice.endpoints.iter().filter_map(stays).take(SLICE_MAX).collect();
        kept.push((slice, updated));
    }
    let mut waiting: Vec<Endpoint> = waiting.into_iter().flatten().collect();
    // Slices that are rewritten anyway take new endpoints first, then the fullest of the others.
    kept.sort_by_key(|(before, after)| (***before == *after, std::cmp::Reverse(after.endpoints.len())));
    for (_, slice) in &mut kept {
        let room = SLICE_MAX.saturating_sub(slice.endpoints.len()).min(waiting.len());
        slice.endpoints.extend(waiting.drain(..room));
    }
    let mut actions = Vec::new();
    let mut is_left = false;
    for (before, after) in kept {
        if after.endpoints.is_empty() && (!is_placeholder || is_left) {
            actions.push(Action::delete(before.as_ref()));
        } else {
            is_left = true;
            if **before != after {
                actions.push(Action::update(&after).remark(said(&after)));
            }
        }
    }
    let mut fresh = |endpoints: Vec<Endpoint>| {
        let mut slice = dressed(service, manager, EndpointSlice::default());
        let meta = slice.meta_mut();
        meta.generate_name = format!("{}-", service.meta().name);
        meta.namespace.clone_from(&service.meta().namespace);
        slice.address_type = match group.0 {
            Family::V4 => "IPv4".to_owned(),
            Family::V6 => "IPv6".to_owned(),
        };
        slice.ports = group.1.iter().map(port).collect();
        slice.endpoints = endpoints;
        actions.push(Action::create(&slice).remark(said(&slice)));
    };
    if is_placeholder && !is_left {
        fresh(Vec::new());
    }
    for chunk in waiting.chunks(SLICE_MAX) {
        fresh(chunk.to_vec());
    }
    actions
}

/// An endpoint stays the same while its address and its pod do.
fn identity(endpoint: &Endpoint) -> (String, String) {
    let address = endpoint.addresses.first().cloned().unwrap_or_default();
    (address, endpoint.target_ref.as_ref().map(|target| target.uid.clone()).unwrap_or_default())
}

/// The slice with the labels and the owner it should have.
fn dressed(service: &Service, manager: &str, mut slice: EndpointSlice) -> EndpointSlice {
    let mut labels = service.meta().labels.clone();
    labels.insert(SERVICE_NAME.to_owned(), service.meta().name.clone());
    labels.insert(MANAGED_BY.to_owned(), manager.to_owned());
    if is_headless(service) {
        labels.insert(HEADLESS.to_owned(), String::new());
    }
    let meta = slice.meta_mut();
    meta.labels = labels;
    let owner: OwnerReference = model::meta::controlled_by(service);
    meta.owner_references = vec![owner];
    slice
}

fn group_of(slice: &EndpointSlice) -> (Family, Vec<Port>) {
    let family = if slice.address_type == "IPv6" { Family::V6 } else { Family::V4 };
    let port = |port: &EndpointPort| Port {
        name: port.name.clone().unwrap_or_default(),
        protocol: port.protocol.clone().unwrap_or_else(|| "TCP".to_owned()),
        number: port.port.unwrap_or_default(),
        app_protocol: port.app_protocol.clone(),
    };
    (family, slice.ports.iter().map(port).collect())
}

fn port(port: &Port) -> EndpointPort {
    EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.number),
        app_protocol: port.app_protocol.clone(),
    }
}

fn said(slice: &EndpointSlice) -> String {
    let is_ready = |endpoint: &&Endpoint| endpoint.conditions.as_ref().and_then(|it| it.ready) != Some(false);
    let ready = slice.endpoints.iter().filter(is_ready).count();
    format!("endpoints={} ready={ready}", slice.endpoints.len())
}
