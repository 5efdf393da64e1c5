//! What admission looks at: namespaces and quotas, kept up to date by the hub.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::RwLock;
use prost::Message;
use proto::k8s::core::v1::ResourceQuota;
use tracing::warn;

use crate::{
    refusal::Result,
    storage::{Entry, Event, Objects, keys},
};

const PAGE: i64 = 1000;

/// A quota and the revision it stands at.
#[derive(Clone, Debug)]
pub struct Quota {
    pub revision: i64,
    pub object: Arc<ResourceQuota>,
}

/// Namespaces and quotas by name.
#[derive(Default)]
pub struct Cluster {
    /// Namespace -> whether it is on its way out.
    namespaces: RwLock<HashMap<String, bool>>,
    quotas: RwLock<HashMap<String, BTreeMap<String, Quota>>>,
}

impl Cluster {
    /// Reads everything at one revision, and answers it.
    pub async fn load(&self, objects: &Objects) -> Result<u64> {
        let namespaces_below = format!("{}namespaces/", keys::ROOT);
        let quotas_below = format!("{}resourcequotas/", keys::ROOT);
        let (namespaces, revision) = all(objects, &namespaces_below, 0).await?;
        let (quotas, _) = all(objects, &quotas_below, revision).await?;

        let mut terminating = HashMap::new();
        for entry in &namespaces {
            let name = entry.key[namespaces_below.len()..].to_owned();
            let meta = proto::envelope::metadata(&entry.raw).unwrap_or_default();
            terminating.insert(name, meta.deletion_timestamp.is_some());
        }
        *self.namespaces.write() = terminating;

        self.quotas.write().clear();
        for entry in &quotas {
            if let Some((namespace, name)) = entry.key[quotas_below.len()..].split_once('/') {
                self.set_quota(namespace, name, entry.revision, &entry.raw);
            }
        }
        Ok(revision.unsigned_abs())
    }

    /// Takes note of a change.
    pub fn observe(&self, event: &Event) {
        if !event.resource.resource.group.is_empty() {
            return;
        }
        match event.resource.resource.plural.as_str() {
            "namespaces" => self.observe_namespace(event),
            "resourcequotas" => self.observe_quota(event),
            _ => {}
        }
    }

    fn observe_namespace(&self, event: &Event) {
        let Some(object) = event.present() else {
            self.namespaces.write().remove(&event.name);
            return;
        };
        let is_terminating = object.metadata().is_ok_and(|meta| meta.deletion_timestamp.is_some());
        self.namespaces.write().insert(event.name.clone(), is_terminating);
    }

    fn observe_quota(&self, event: &Event) {
        match event.present() {
            Some(object) => {
                let revision = i64::try_from(event.revision).unwrap_or(i64::MAX);
                self.set_quota(&event.namespace, &event.name, revision, &object.raw);
            }
            None => self.remove_quota(&event.namespace, &event.name),
        }
    }

    /// Replaces a quota, unless a newer state of it is known.
    pub fn set_quota(&self, namespace: &str, name: &str, revision: i64, raw: &[u8]) {
        match ResourceQuota::decode(raw) {
            Ok(object) => self.keep_quota(namespace, name, revision, Arc::new(object)),
            Err(error) => warn!(namespace, name, %error, "unreadable quota"),
        }
    }

    pub fn keep_quota(&self, namespace: &str, name: &str, revision: i64, object: Arc<ResourceQuota>) {
        let mut quotas = self.quotas.write();
        let quotas = quotas.entry(namespace.to_owned()).or_default();
        if quotas.get(name).is_none_or(|known| known.revision < revision) {
            quotas.insert(name.to_owned(), Quota { revision, object });
        }
    }

    pub fn remove_quota(&self, namespace: &str, name: &str) {
        let mut quotas = self.quotas.write();
        if let Some(of_namespace) = quotas.get_mut(namespace) {
            of_namespace.remove(name);
            if of_namespace.is_empty() {
                quotas.remove(namespace);
            }
        }
    }

    /// Whether a namespace is on its way out; `None` where it is not known.
    pub fn is_terminating(&self, namespace: &str) -> Option<bool> {
        self.namespaces.read().get(namespace).copied()
    }

    /// The quotas of a namespace, by name.
    pub fn quotas(&self, namespace: &str) -> Vec<(String, Quota)> {
        let quotas = self.quotas.read();
        let Some(of_namespace) = quotas.get(namespace) else { return Vec::new() };
        of_namespace.iter().map(|(name, quota)| (name.clone(), quota.clone())).collect()
    }
}

async fn all(objects: &Objects, prefix: &str, mut revision: i64) -> Result<(Vec<Entry>, i64)> {
    let (mut entries, mut after) = (Vec::new(), String::new());
    loop {
        let page = objects.list(prefix, &after, PAGE, revision).await?;
        revision = page.revision;
        entries.extend(page.entries);
        if page.remaining == 0 {
            return Ok((entries, revision));
        }
        after = entries.last().map(|entry: &Entry| entry.key.clone()).unwrap_or_default();
    }
}
