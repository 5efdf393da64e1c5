//! The configMaps and secrets that pods of this node refer to: read when needed, then followed for changes.
//!
//! A node asks for the objects it needs by name and for no others.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use client::{Client, Selection, WatchRequest, WatchSet, target};
use futures::StreamExt;
use kit::life::Shutdown;
use parking_lot::Mutex;
use proto::{
    Kind, Resource,
    k8s::core::v1::{ConfigMap, Pod, Secret},
};
use tokio::sync::{Notify, mpsc};
use tracing::debug;

use crate::{
    pod::snapshot::key,
    volume::payload::{References, references},
};

/// What a pod refers to, as far as it is there.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    pub config_maps: BTreeMap<String, ConfigMap>,
    pub secrets: BTreeMap<String, Secret>,
}

/// One referred-to object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Name {
    is_secret: bool,
    namespace: String,
    name: String,
}

/// A handle; clones share what is known.
#[derive(Clone)]
pub struct Objects {
    client: Client,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Who refers to what, by pod uid.
    pods: Mutex<HashMap<String, BTreeSet<Name>>>,
    changed: Notify,
}

impl Objects {
    pub fn new(client: Client) -> Self {
        Self { client, shared: Arc::default() }
    }

    /// Reads all that the pod refers to. What does not exist is left out: whether that matters, its user knows.
    ///
    /// # Errors
    /// Where the API does not answer, or refuses.
    pub async fn of_pod(&self, pod: &Pod) -> Result<Wanted, String> {
        let References { config_maps, secrets } = references(pod);
        let mut wanted = Wanted::default();
        if config_maps.is_empty() && secrets.is_empty() {
            return Ok(wanted);
        }
        let namespace = pod.meta().namespace.as_str();
        self.follow(pod, namespace, &config_maps, &secrets);
        for name in config_maps {
            if let Some(found) = self.get::<ConfigMap>(namespace, &name).await? {
                wanted.config_maps.insert(name, found);
            }
        }
        for name in secrets {
            if let Some(found) = self.get::<Secret>(namespace, &name).await? {
                wanted.secrets.insert(name, found);
            }
        }
        Ok(wanted)
    }

    async fn get<K: Resource>(&self, namespace: &str, name: &str) -> Result<Option<K>, String> {
        match self.client.get::<K>(namespace, name).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(format!("get {} {namespace}/{name}: {error}", K::PLURAL)),
        }
    }

    fn follow(&self, pod: &Pod, namespace: &str, config_maps: &BTreeSet<String>, secrets: &BTreeSet<String>) {
        let name =
            |is_secret| move |name: &String| Name { is_secret, namespace: namespace.to_owned(), name: name.clone() };
        let names: BTreeSet<Name> = config_maps.iter().map(name(false)).chain(secrets.iter().map(name(true))).collect();
        let before = self.shared.pods.lock().insert(key(pod).uid, names.clone());
        if before.as_ref() != Some(&names) {
            self.shared.changed.notify_one();
        }
    }

    /// The pod is gone: nothing is followed for its sake any more.
    pub fn forget(&self, uid: &str) {
        if self.shared.pods.lock().remove(uid).is_some() {
            self.shared.changed.notify_one();
        }
    }

    /// Follows what pods refer to, and sends the uids of pods for which something changed.
    pub async fn run(self, changed: mpsc::Sender<String>, shutdown: Shutdown) {
        while !shutdown.is_triggered() {
            let names: BTreeSet<Name> = self.shared.pods.lock().values().flatten().cloned().collect();
            tokio::select! {
                () = shutdown.triggered() => return,
                () = self.shared.changed.notified() => {}
                () = self.watch(&names, &changed) => {
                    tokio::select! {
                        () = shutdown.triggered() => return,
                        () = tokio::time::sleep(Duration::from_millis(500)) => {}
                    }
                }
            }
        }
    }

    /// Watches one set of names until the stream ends.
    async fn watch(&self, names: &BTreeSet<Name>, changed: &mpsc::Sender<String>) {
        if names.is_empty() {
            return std::future::pending().await;
        }
        let names: Vec<&Name> = names.iter().collect();
        let set = |name: &&Name| WatchSet {
            target: Some(match name.is_secret {
                true => target::<Secret>(&name.namespace, &name.name),
                false => target::<ConfigMap>(&name.namespace, &name.name),
            }),
            selection: Some(Selection::default()),
            ..Default::default()
        };
        let mut stream = match self.client.watch(WatchRequest { sets: names.iter().map(set).collect() }).await {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "watch of configMaps and secrets failed, trying again"),
        };
        // The initial state is told too: it may differ from what was read before the watch began.
        while let Some(Ok(message)) = stream.next().await {
            let told: BTreeSet<&Name> =
                message.events.iter().filter_map(|event| names.get(event.set as usize).copied()).collect();
            let uids: Vec<String> = {
                let pods = self.shared.pods.lock();
                let cares = |names: &BTreeSet<Name>| told.iter().any(|name| names.contains(*name));
                pods.iter().filter(|(_, names)| cares(names)).map(|(uid, _)| uid.clone()).collect()
            };
            for uid in uids {
                if changed.send(uid).await.is_err() {
                    return;
                }
            }
        }
    }
}
