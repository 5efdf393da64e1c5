//! What an apiserver keeps in place by itself: the first namespaces, the `kubernetes` Service with the living
//! apiservers behind it, and a store history of bounded length.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use proto::{
    Kind, Resource,
    etcdserverpb::{
        Compare, PutRequest, RangeRequest, RequestOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    k8s::{
        core::v1::{
            EndpointAddress, EndpointPort, EndpointSubset, Endpoints, Namespace, Service, ServicePort, ServiceSpec,
        },
        discovery::v1::{Endpoint, EndpointConditions, EndpointPort as SlicePort, EndpointSlice},
        intstr::IntOrString,
    },
};
use tracing::{debug, warn};

use crate::{
    api::Api,
    refusal::{Refusal, Result},
    registry::{Change, Mode},
    storage::{keys, refused},
};

const NAMESPACES: &[&str] = &["default", "kube-system", "kube-public", "kube-node-lease"];
const DEFAULT: &str = "default";
const KUBERNETES: &str = "kubernetes";
/// An apiserver that is silent this long is taken out of the endpoints.
const LEASE_SECONDS: i64 = 15;
const RENEWAL: Duration = Duration::from_secs(5);
const RETRY: Duration = Duration::from_millis(250);
const SECURE_PORT: i32 = 443;

/// Puts in place what must be there, and keeps it so.
pub async fn keep(api: Arc<Api>) {
    let (mut lease, mut retry) = (0, RETRY);
    if api.options.advertise.is_some_and(|(address, _)| address.is_loopback()) {
        warn!("the advertised address is on loopback: the kubernetes Service stays without endpoints");
    }
    loop {
        let pause = match once(&api, &mut lease).await {
            Ok(()) => RENEWAL,
            Err(refusal) => {
                debug!(%refusal, "not everything is in place yet");
                retry = (retry * 2).min(RENEWAL);
                retry
            }
        };
        tokio::select! {
            () = api.shutdown.triggered() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    if lease != 0 {
        // Leaves the endpoints at once instead of after the lease.
        let _ = api.objects.store().lease_revoke(lease).await;
    }
}

async fn once(api: &Api, lease: &mut i64) -> Result<()> {
    for name in NAMESPACES {
        let mut namespace = Namespace::default();
        namespace.meta_mut().name = (*name).to_owned();
        ensure(api, namespace, |_, _| false).await?;
    }
    ensure(api, service(api), |wanted, found| {
        let (Some(wanted), Some(found)) = (&wanted.spec, &mut found.spec) else { return false };
        let is_other = wanted.ports != found.ports;
        found.ports.clone_from(&wanted.ports);
        is_other
    })
    .await?;
    // An endpoint on loopback would be another machine's own loopback: none is better.
    let advertised = api.options.advertise.filter(|(address, _)| !address.is_loopback());
    if let Some((address, port)) = advertised {
        announce(api, &address.to_string(), port, lease).await?;
    }
    let addresses = living(api).await?;
    match advertised {
        Some((_, port)) => point_to(api, &addresses, port).await,
        // Those that stood there before are gone; where others live, they keep the endpoints.
        None if addresses.is_empty() && has_endpoints(api).await? => point_to(api, &[], 0).await,
        None => Ok(()),
    }
}

async fn has_endpoints(api: &Api) -> Result<bool> {
    let served = api.catalog.find(Endpoints::GROUP, Endpoints::PLURAL).ok_or_else(Refusal::unknown_resource)?;
    Ok(api.objects.get(&keys::object(served.info, DEFAULT, KUBERNETES)).await?.is_some())
}

/// Puts these apiservers, and no others, behind the `kubernetes` Service.
async fn point_to(api: &Api, addresses: &[String], port: u16) -> Result<()> {
    ensure(api, endpoints(addresses, port), |wanted, found| {
        let is_other = wanted.subsets != found.subsets;
        found.subsets.clone_from(&wanted.subsets);
        is_other
    })
    .await?;
    ensure(api, slice(addresses, port), |wanted, found| {
        let is_other = wanted.endpoints != found.endpoints || wanted.ports != found.ports;
        found.endpoints.clone_from(&wanted.endpoints);
        found.ports.clone_from(&wanted.ports);
        is_other
    })
    .await
}

/// Creates an object that is missing; changes one that is there where `amend` says that it must be.
async fn ensure<K: Resource>(api: &Api, wanted: K, amend: impl Fn(&K, &mut K) -> bool + Send + Sync) -> Result<()> {
    let served = api.catalog.find(K::GROUP, K::PLURAL).ok_or_else(Refusal::unknown_resource)?;
    let (namespace, name) = (wanted.meta().namespace.clone(), wanted.meta().name.clone());
    let key = keys::object(served.info, &namespace, &name);
    let Some(entry) = api.objects.get(&key).await? else {
        return match api.create_record(served, Box::new(wanted), false).await {
            Ok(_) => Ok(()),
            Err(refusal) if refusal.reason() == "AlreadyExists" => Ok(()),
            Err(refusal) => Err(refusal),
        };
    };
    let mut found = K::decode(entry.raw).map_err(Refusal::internal)?;
    if !amend(&wanted, &mut found) {
        return Ok(());
    }
    let change = Change { served, namespace: &namespace, name: &name, mode: Mode::Main, dry_run: false };
    let changed = api.change(change, |old, _| {
        let mut new = old.duplicate();
        if let Some(object) = new.as_kind_mut::<K>() {
            amend(&wanted, object);
        }
        Ok(new)
    });
    changed.await.map(drop)
}

/// Says under a lease that this apiserver lives.
async fn announce(api: &Api, address: &str, port: u16, lease: &mut i64) -> Result<()> {
    let store = api.objects.store();
    if *lease != 0 && store.lease_keep_alive(*lease).await.unwrap_or(0) > 0 {
        return Ok(());
    }
    *lease = store.lease_grant(LEASE_SECONDS).await.map_err(refused)?;
    let put = PutRequest {
        key: format!("{}{address}", keys::MASTER_LEASES).into(),
        value: format!("{address}:{port}").into(),
        lease: *lease,
        ..PutRequest::default()
    };
    let success = vec![RequestOp { request: Some(Request::RequestPut(put)) }];
    store.txn(TxnRequest { success, ..TxnRequest::default() }).await.map_err(refused).map(drop)
}

/// The addresses of all living apiservers.
async fn living(api: &Api) -> Result<Vec<String>> {
    let found = api.objects.keys(keys::MASTER_LEASES).await?;
    Ok(found.iter().filter_map(|key| key.strip_prefix(keys::MASTER_LEASES)).map(str::to_owned).collect())
}

fn service(api: &Api) -> Service {
    let port = api.options.advertise.map_or(6443, |(_, port)| i32::from(port));
    let mut service = Service {
        spec: Some(ServiceSpec {
            r#type: "ClusterIP".to_owned(),
            cluster_ip: api.options.first_service_address().to_string(),
            ports: vec![ServicePort {
                name: "https".to_owned(),
                protocol: "TCP".to_owned(),
                port: SECURE_PORT,
                target_port: Some(IntOrString { int_val: port, ..IntOrString::default() }),
                ..ServicePort::default()
            }],
            ..ServiceSpec::default()
        }),
        ..Service::default()
    };
    let meta = service.meta_mut();
    (meta.namespace, meta.name) = (DEFAULT.to_owned(), KUBERNETES.to_owned());
    meta.labels.insert("component".to_owned(), "apiserver".to_owned());
    meta.labels.insert("provider".to_owned(), KUBERNETES.to_owned());
    service
}

fn endpoints(addresses: &[String], port: u16) -> Endpoints {
    let subset = EndpointSubset {
        addresses: addresses
            .iter()
            .map(|ip| EndpointAddress { ip: ip.clone(), ..EndpointAddress::default() })
            .collect(),
        ports: vec![EndpointPort {
            name: "https".to_owned(),
            port: i32::from(port),
            protocol: "TCP".to_owned(),
            ..EndpointPort::default()
        }],
        ..EndpointSubset::default()
    };
    let subsets = if addresses.is_empty() { Vec::new() } else { vec![subset] };
    let mut endpoints = Endpoints { subsets, ..Endpoints::default() };
    let meta = endpoints.meta_mut();
    (meta.namespace, meta.name) = (DEFAULT.to_owned(), KUBERNETES.to_owned());
    meta.labels.insert("endpointslice.kubernetes.io/skip-mirror".to_owned(), "true".to_owned());
    endpoints
}

fn slice(addresses: &[String], port: u16) -> EndpointSlice {
    let https = SlicePort {
        name: Some("https".to_owned()),
        protocol: Some("TCP".to_owned()),
        port: Some(i32::from(port)),
        ..SlicePort::default()
    };
    let is_v6 = addresses.first().is_some_and(|address| address.contains(':'));
    let mut slice = EndpointSlice {
        address_type: if is_v6 { "IPv6" } else { "IPv4" }.to_owned(),
        endpoints: addresses
            .iter()
            .map(|address| Endpoint {
                addresses: vec![address.clone()],
                conditions: Some(EndpointConditions { ready: Some(true), ..EndpointConditions::default() }),
                ..Endpoint::default()
            })
            .collect(),
        ports: if addresses.is_empty() { Vec::new() } else { vec![https] },
        ..EndpointSlice::default()
    };
    let meta = slice.meta_mut();
    (meta.namespace, meta.name) = (DEFAULT.to_owned(), KUBERNETES.to_owned());
    meta.labels.insert("kubernetes.io/service-name".to_owned(), KUBERNETES.to_owned());
    slice
}

/// Compacts the store's history at every interval to where it stood an interval before.
///
/// All apiservers of a cluster, kube-apiserver included, agree through one key: who raises its version compacts.
pub async fn compact(api: Arc<Api>) {
    let (mut version, mut revision) = (0, 0);
    loop {
        tokio::select! {
            () = api.shutdown.triggered() => return,
            () = tokio::time::sleep(api.options.compaction_interval) => {}
        }
        match compact_once(&api, version, revision).await {
            Ok(next) => (version, revision) = next,
            Err(refusal) => warn!(%refusal, "the store's history was not compacted"),
        }
    }
}

/// One turn: answers the key's version and the revision to compact to at the next one.
pub(crate) async fn compact_once(api: &Api, version: i64, revision: i64) -> Result<(i64, i64)> {
    let store = api.objects.store();
    let key = Bytes::from_static(keys::COMPACTION.as_bytes());
    let turn = TxnRequest {
        compare: vec![Compare {
            result: CompareResult::Equal.into(),
            target: CompareTarget::Version.into(),
            key: key.clone(),
            target_union: Some(TargetUnion::Version(version)),
            range_end: Bytes::new(),
        }],
        success: vec![RequestOp {
            request: Some(Request::RequestPut(PutRequest {
                key: key.clone(),
                value: revision.to_string().into(),
                ..PutRequest::default()
            })),
        }],
        failure: vec![RequestOp {
            request: Some(Request::RequestRange(RangeRequest { key, ..RangeRequest::default() })),
        }],
    };
    let answer = store.txn(turn).await.map_err(refused)?;
    let now = answer.header.map_or(0, |header| header.revision);
    if !answer.succeeded {
        let found = answer.responses.into_iter().next().and_then(|op| op.response);
        let version = match found {
            Some(Response::ResponseRange(range)) => range.kvs.first().map_or(0, |pair| pair.version),
            _ => 0,
        };
        return Ok((version, now));
    }
    if revision > 0 {
        store.compact(revision).await.map_err(refused)?;
    }
    Ok((version + 1, now))
}
