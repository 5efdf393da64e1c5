//! ResourceQuota: use is counted on the quota itself, in the transaction that stores the object.
//!
//! A quota's `status.used` is compared and swapped together with the create, so that any number of creates at once
//! cannot exceed it. What is deleted is counted off by the quota controller.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use model::resources::{Amount, Resources, pod_limits, pod_requests};
use parking_lot::Mutex;
use prost::Message;
use proto::{
    codec::ResourceInfo,
    k8s::core::v1::{Pod, ResourceQuota, ResourceQuotaStatus, Service},
};
use tokio::sync::OwnedMutexGuard;

use crate::{
    api::{Api, Form},
    gate::cluster::Quota,
    refusal::{Refusal, Result},
    registry::Record,
    storage::{Outcome, Write, keys},
};

/// Tries to count on a quota that others count on, too.
const ATTEMPTS: usize = 64;

/// One creator at a time per namespace with quotas: others would only lose against each other.
#[derive(Default)]
pub struct QuotaLocks(Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>);

/// What an object adds to the quotas of its namespace, as one write beside its own.
#[derive(Default)]
pub(crate) struct Charge {
    namespace: String,
    /// Counted together with the object.
    beside: Option<(String, i64, ResourceQuota)>,
    /// Counted before it, one transaction each: no transaction writes two objects of one resource.
    ahead: Vec<(String, Resources)>,
    cluster: Option<Arc<crate::gate::cluster::Cluster>>,
    _turn: Option<OwnedMutexGuard<()>>,
}

impl QuotaLocks {
    async fn turn(&self, namespace: &str) -> OwnedMutexGuard<()> {
        let lock = self.0.lock().entry(namespace.to_owned()).or_default().clone();
        lock.lock_owned().await
    }

    /// Counts a new object on the quotas of its namespace, or what a changed one uses more than the `old`.
    ///
    /// # Errors
    /// 403 where one of them does not allow it.
    pub(crate) async fn charge(
        &self,
        api: &Api,
        info: &ResourceInfo,
        record: &dyn Record,
        old: Option<&dyn Record>,
        is_dry: bool,
    ) -> Result<Charge> {
        let namespace = &record.meta().namespace;
        if namespace.is_empty() || api.cluster.quotas(namespace).is_empty() {
            return Ok(Charge::default());
        }
        let use_of = match old {
            None => usage(info, record),
            Some(old) => grown(usage(info, record), &usage(info, old)),
        };
        if use_of.0.is_empty() {
            return Ok(Charge::default());
        }
        let turn = self.turn(namespace).await;
        let mut charge = Charge {
            namespace: namespace.clone(),
            cluster: Some(api.cluster.clone()),
            _turn: Some(turn),
            ..Charge::default()
        };
        let mut concerned = Vec::new();
        for (name, quota) in api.cluster.quotas(namespace) {
            if !covers(&quota.object, record) {
                continue;
            }
            let delta = on(&quota.object, &use_of);
            if old.is_none() {
                check_said(info, &name, &quota.object, record)?;
            }
            if !delta.0.is_empty() {
                concerned.push((name, quota, delta));
            }
        }
        let last = concerned.len().saturating_sub(1);
        for (index, (name, quota, delta)) in concerned.into_iter().enumerate() {
            let quota = counted(api, namespace, &name, quota).await?;
            let wanted = raised(info, &record.meta().name, &name, &quota.object, &delta)?;
            // A quota that is itself counted must not be written beside another: both are quotas.
            if index == last && info.resource.plural != "resourcequotas" {
                charge.beside = Some((name, quota.revision, wanted));
            } else if !is_dry {
                reserve(api, namespace, &name, info, &record.meta().name, &delta).await?;
                charge.ahead.push((name, delta));
            }
        }
        Ok(charge)
    }
}

impl Charge {
    /// The quota's write that goes with the object's.
    pub(crate) fn take_write(&self) -> Option<(String, i64, Bytes)> {
        let (name, revision, quota) = self.beside.as_ref()?;
        Some((key(&self.namespace, name), *revision, sealed(quota)))
    }

    /// The object is stored, and so is the quota at the same revision.
    pub(crate) fn keep(&mut self, revision: i64) {
        if let (Some((name, _, quota)), Some(cluster)) = (self.beside.take(), &self.cluster) {
            cluster.keep_quota(&self.namespace, &name, revision, Arc::new(quota));
        }
        self.ahead.clear();
    }

    /// The object was not stored: takes back what was counted ahead, and reads the quota anew that had changed.
    pub(crate) async fn give_back(&mut self, api: &Api) {
        for (name, delta) in std::mem::take(&mut self.ahead) {
            let key = key(&self.namespace, &name);
            for _ in 0..ATTEMPTS {
                let Ok(Some(quota)) = read(api, &self.namespace, &name).await else { break };
                let mut object = (*quota.object).clone();
                let status = object.status.get_or_insert_default();
                let mut used = Resources::of(&status.used);
                used.subtract(&delta);
                status.used = used.quantities();
                match swap(api, &key, quota.revision, &object).await {
                    Ok(Outcome::Done { .. }) | Err(_) => break,
                    Ok(_) => {}
                }
            }
        }
        if let Some((name, ..)) = self.beside.take() {
            // Whatever was lost, the next try starts from what is stored.
            let _ = read(api, &self.namespace, &name).await;
        }
    }
}

fn key(namespace: &str, name: &str) -> String {
    format!("{}resourcequotas/{namespace}/{name}", keys::ROOT)
}

fn sealed(quota: &ResourceQuota) -> Bytes {
    let form = Form::of_arm(<ResourceQuota as proto::Kind>::ARM).expect("ResourceQuota is an arm of Object");
    proto::envelope::wrap(form.api_version, form.kind, &stripped(quota).encode_to_vec()).into()
}

/// The hub's objects carry their resourceVersion, stored ones do not.
fn stripped(quota: &ResourceQuota) -> ResourceQuota {
    let mut quota = quota.clone();
    if let Some(meta) = &mut quota.metadata {
        meta.resource_version.clear();
    }
    quota
}

async fn swap(api: &Api, key: &str, revision: i64, quota: &ResourceQuota) -> Result<Outcome> {
    let write = Write { key: key.to_owned(), expected: revision, value: Some(sealed(quota)), ..Write::default() };
    api.objects.commit(&write).await
}

/// The quota as it is stored now; `None` where it is gone.
async fn read(api: &Api, namespace: &str, name: &str) -> Result<Option<Quota>> {
    let Some(entry) = api.objects.get(&key(namespace, name)).await? else {
        api.cluster.remove_quota(namespace, name);
        return Ok(None);
    };
    api.cluster.set_quota(namespace, name, entry.revision, &entry.raw);
    let object = ResourceQuota::decode(entry.raw).map_err(Refusal::internal)?;
    Ok(Some(Quota { revision: entry.revision, object: Arc::new(object) }))
}

/// Counts on a quota in a transaction of its own.
async fn reserve(
    api: &Api,
    namespace: &str,
    name: &str,
    info: &ResourceInfo,
    object: &str,
    delta: &Resources,
) -> Result<()> {
    for _ in 0..ATTEMPTS {
        let Some(quota) = read(api, namespace, name).await? else { return Ok(()) };
        let quota = counted(api, namespace, name, quota).await?;
        let wanted = raised(info, object, name, &quota.object, delta)?;
        if let Outcome::Done { revision } = swap(api, &key(namespace, name), quota.revision, &wanted).await? {
            api.cluster.keep_quota(namespace, name, revision, Arc::new(wanted));
            return Ok(());
        }
    }
    Err(Refusal::too_many_requests(format!("too many others count on the quota {name:?}: try again"), 1))
}

/// The quota with every amount counted: a new one has no `used` yet, and is counted from what is stored.
async fn counted(api: &Api, namespace: &str, name: &str, quota: Quota) -> Result<Quota> {
    let hard = hard(&quota.object);
    let known = quota.object.status.as_ref().map(|status| Resources::of(&status.used)).unwrap_or_default();
    if hard.0.keys().all(|resource| known.0.contains_key(resource)) {
        return Ok(quota);
    }
    let Some(stored) = read(api, namespace, name).await? else { return Ok(quota) };
    let mut used = Resources(hard.0.keys().map(|resource| (resource.clone(), Amount::default())).collect());
    for served in api.catalog.all().filter(|served| served.info.resource.namespaced) {
        if !is_counted(served.info, &hard) {
            continue;
        }
        let page = api.objects.list(&keys::prefix(served.info, namespace), "", 0, 0).await?;
        for entry in page.entries {
            let record = served.rules.decode(&entry.raw).map_err(Refusal::internal)?;
            if covers(&stored.object, &*record) && !is_finished(&*record) {
                used.add(&on(&stored.object, &usage(served.info, &*record)));
            }
        }
    }
    let mut object = (*stored.object).clone();
    let status = object.status.get_or_insert_default();
    status.used = used.quantities();
    Ok(Quota { revision: stored.revision, object: Arc::new(object) })
}

fn is_finished(record: &dyn Record) -> bool {
    record.as_kind::<Pod>().is_some_and(model::pod::is_terminal)
}

/// Whether objects of the resource add to any of these amounts.
fn is_counted(info: &ResourceInfo, hard: &Resources) -> bool {
    let named = &info.resource;
    let count = count_name(info);
    hard.0.keys().any(|name| {
        let name = name.as_str();
        name == count
            || (named.group.is_empty() && name == named.plural)
            || (named.plural == "services" && name.starts_with("services."))
            || (named.plural == "pods" && is_compute(name))
    })
}

fn is_compute(name: &str) -> bool {
    matches!(name, "cpu" | "memory" | "ephemeral-storage")
        || name.starts_with("requests.")
        || name.starts_with("limits.")
}

fn count_name(info: &ResourceInfo) -> String {
    let named = &info.resource;
    if named.group.is_empty() {
        format!("count/{}", named.plural)
    } else {
        format!("count/{}.{}", named.plural, named.group)
    }
}

fn hard(quota: &ResourceQuota) -> Resources {
    quota.spec.as_ref().map(|spec| Resources::of(&spec.hard)).unwrap_or_default()
}

/// What an object uses, under every name a quota may know it by.
fn usage(info: &ResourceInfo, record: &dyn Record) -> Resources {
    let mut used = Resources::default();
    used.set(&count_name(info), Amount::count(1));
    if info.resource.group.is_empty() {
        used.set(&info.resource.plural, Amount::count(1));
    }
    if let Some(pod) = record.as_kind::<Pod>() {
        for (name, amount) in pod_requests(pod).0 {
            used.set(&format!("requests.{name}"), amount);
            used.set(&name, amount);
        }
        for (name, amount) in pod_limits(pod).0 {
            used.set(&format!("limits.{name}"), amount);
        }
    }
    if let Some(spec) = record.as_kind::<Service>().and_then(|service| service.spec.as_ref()) {
        if spec.r#type == "LoadBalancer" {
            used.set("services.loadbalancers", Amount::count(1));
        }
        if matches!(spec.r#type.as_str(), "NodePort" | "LoadBalancer") {
            used.set("services.nodeports", Amount::count(i64::try_from(spec.ports.len()).unwrap_or(i64::MAX)));
        }
    }
    used
}

/// What a use is above another; what shrinks is counted off by the quota controller.
fn grown(mut used: Resources, old: &Resources) -> Resources {
    used.subtract(old);
    used.0.retain(|_, amount| *amount > Amount::default());
    used
}

/// The part of a use that a quota counts.
fn on(quota: &ResourceQuota, used: &Resources) -> Resources {
    let hard = hard(quota);
    Resources(
        used.0
            .iter()
            .filter(|(name, _)| hard.0.contains_key(*name))
            .map(|(name, amount)| (name.clone(), *amount))
            .collect(),
    )
}

/// Whether the quota's scopes cover the object.
fn covers(quota: &ResourceQuota, record: &dyn Record) -> bool {
    match record.as_kind::<Pod>() {
        Some(pod) => model::quota::covers(quota, pod),
        None => model::quota::covers_all(quota),
    }
}

/// A quota on requests or limits demands that every container says its own.
fn check_said(info: &ResourceInfo, name: &str, quota: &ResourceQuota, record: &dyn Record) -> Result<()> {
    let Some(pod) = record.as_kind::<Pod>() else { return Ok(()) };
    let mut missing = Vec::new();
    for resource in hard(quota).0.keys().filter(|resource| is_compute(resource)) {
        let (is_limit, plain) = match resource.split_once('.') {
            Some(("limits", plain)) => (true, plain),
            Some(("requests", plain)) => (false, plain),
            _ => (false, resource.as_str()),
        };
        let silent: Vec<&str> = model::pod::containers(pod)
            .filter(|container| {
                let said = container.resources.clone().unwrap_or_default();
                !(said.limits.contains_key(plain) || (!is_limit && said.requests.contains_key(plain)))
            })
            .map(|container| container.name.as_str())
            .collect();
        if !silent.is_empty() {
            missing.push(format!("{resource} for: {}", silent.join(",")));
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let why = format!("failed quota: {name}: must specify {}", missing.join("; "));
    Err(Refusal::forbidden(info, &record.meta().name, &why))
}

/// The quota with the use added.
fn raised(
    info: &ResourceInfo,
    object: &str,
    name: &str,
    quota: &ResourceQuota,
    delta: &Resources,
) -> Result<ResourceQuota> {
    let hard = hard(quota);
    let used = quota.status.as_ref().map(|status| Resources::of(&status.used)).unwrap_or_default();
    let mut wanted = used.clone();
    wanted.add(delta);
    let exceeded: Vec<&str> = wanted.above(&hard).filter(|resource| delta.0.contains_key(*resource)).collect();
    if !exceeded.is_empty() {
        let list = |amounts: &Resources| -> String {
            let each =
                exceeded.iter().map(|resource| format!("{resource}={}", amounts.get(resource).quantity().string));
            each.collect::<Vec<_>>().join(",")
        };
        let why = format!(
            "exceeded quota: {name}, requested: {}, used: {}, limited: {}",
            list(delta),
            list(&used),
            list(&hard)
        );
        return Err(Refusal::forbidden(info, object, &why));
    }
    let mut raised = quota.clone();
    let status = raised.status.get_or_insert_with(ResourceQuotaStatus::default);
    status.hard = quota.spec.as_ref().map(|spec| spec.hard.clone()).unwrap_or_default();
    let listed = wanted.0.into_iter().filter(|(resource, _)| hard.0.contains_key(resource)).collect();
    status.used = Resources(listed).quantities();
    Ok(raised)
}
