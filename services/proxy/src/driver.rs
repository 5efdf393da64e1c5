//! The loop around the rules: works out anew the services that changed, and has the backend apply the difference.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use client::{Cache, Change, Changes as News, Reflector};
use kit::life::Shutdown;
use parking_lot::RwLock;
use proto::{
    Kind,
    k8s::{core::v1::Service, discovery::v1::EndpointSlice},
};
use tokio::{sync::watch, time::Instant};
use tracing::{debug, warn};

use crate::{
    backend::Backend,
    conntrack,
    diff::Changes,
    door::InForce,
    rules::{RuleSet, SERVICE_LABEL, ServiceKey, Snapshot, rules},
};

/// Changes that come together are applied together: long enough for one roll-out step, too short to be noticed.
const COALESCE: Duration = Duration::from_millis(5);
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Index of slices by "namespace/service".
pub const BY_SERVICE: &str = "service";

pub struct Driver {
    pub node_name: String,
    pub reflector: Reflector,
    pub services: Cache<Service>,
    pub slices: Cache<EndpointSlice>,
    pub backend: Box<dyn Backend>,
    pub in_force: Arc<RwLock<InForce>>,
    pub synced: watch::Sender<bool>,
}

/// Whether the kernel holds what we think it holds.
enum Standing {
    Sure,
    /// A call failed: the next one builds everything anew, not before this time.
    Unsure {
        retry_at: Instant,
        delay: Duration,
    },
}

impl Driver {
    /// Runs until `shutdown`; hands the backend back.
    pub async fn run(mut self, mut news: News, shutdown: Shutdown) -> Box<dyn Backend> {
        // A slice that is gone no longer says whose it was.
        let mut owners = HashMap::new();
        self.begin(&mut owners);
        let mut standing = self.rebuild(RETRY_FIRST).await;
        loop {
            let retry_at = match standing {
                Standing::Sure => None,
                Standing::Unsure { retry_at, .. } => Some(retry_at),
            };
            let batch = tokio::select! {
                () = shutdown.triggered() => break,
                () = tokio::time::sleep_until(retry_at.unwrap_or_else(Instant::now)), if retry_at.is_some() => Vec::new(),
                first = news.recv() => {
                    let Some(first) = first else { break };
                    tokio::time::sleep(COALESCE).await;
                    std::iter::once(first).chain(news.take()).collect()
                }
            };
            let changes = self.observe(&batch, &mut owners);
            standing = match standing {
                Standing::Sure => self.apply(&changes).await,
                Standing::Unsure { retry_at, delay } if retry_at <= Instant::now() => self.rebuild(delay * 2).await,
                unsure => unsure,
            };
        }
        self.backend
    }

    fn begin(&self, owners: &mut HashMap<(String, String), ServiceKey>) {
        for slice in self.slices.list() {
            owners.extend(owner(&slice).map(|owner| (name_of(&*slice), owner)));
        }
        let services: BTreeSet<ServiceKey> = self.services.list().iter().map(|service| key_of(&**service)).collect();
        self.recompute(services);
    }

    /// Works out anew what the news concern.
    fn observe(&self, batch: &[Change], owners: &mut HashMap<(String, String), ServiceKey>) -> Changes {
        let mut concerned = BTreeSet::new();
        for change in batch {
            if change.is::<Service>() {
                concerned.insert(ServiceKey { namespace: change.namespace.clone(), name: change.name.clone() });
            } else if change.is::<EndpointSlice>() {
                let name = (change.namespace.clone(), change.name.clone());
                let slice = self.slices.get(&change.namespace, &change.name);
                let now = slice.as_deref().and_then(owner);
                let before = match now.clone() {
                    Some(owner) => owners.insert(name, owner),
                    None => owners.remove(&name),
                };
                concerned.extend(now.into_iter().chain(before));
            }
        }
        self.recompute(concerned)
    }

    fn recompute(&self, concerned: BTreeSet<ServiceKey>) -> Changes {
        let mut changes = Changes::default();
        let revision = self.reflector.revision();
        let computed: Vec<_> = concerned.into_iter().map(|key| (self.rules_of(&key), key)).collect();
        let mut in_force = self.in_force.write();
        for (rules, key) in computed {
            in_force.claims.replace(&key, rules, &mut changes);
        }
        in_force.revision = revision;
        changes
    }

    fn rules_of(&self, key: &ServiceKey) -> RuleSet {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return RuleSet::new() };
        let slices = self.slices.by_index(BY_SERVICE, &key.to_string());
        let slices: Vec<&EndpointSlice> = slices.iter().map(|slice| &**slice).collect();
        rules(&Snapshot { node: &self.node_name, service: &service, slices: &slices })
    }

    async fn apply(&mut self, changes: &Changes) -> Standing {
        if changes.is_empty() {
            return Standing::Sure;
        }
        let began = Instant::now();
        match self.backend.apply(changes).await {
            Ok(()) => {
                debug!(keys = changes.0.len(), took = ?began.elapsed(), "rules changed");
                conntrack::forget(&conntrack::stale(changes)).await;
                Standing::Sure
            }
            Err(error) => {
                warn!(error = format!("{error:#}"), "rules cannot be changed, building all of them anew");
                self.rebuild(RETRY_FIRST).await
            }
        }
    }

    async fn rebuild(&mut self, delay: Duration) -> Standing {
        let rules = self.in_force.read().claims.rules().clone();
        match self.backend.rebuild(&rules).await {
            Ok(()) => {
                debug!(keys = rules.len(), "rules built");
                self.synced.send_replace(true);
                Standing::Sure
            }
            Err(error) => {
                let delay = delay.min(RETRY_MAX);
                warn!(error = format!("{error:#}"), retry_in = ?delay, "rules cannot be built");
                self.synced.send_replace(false);
                Standing::Unsure { retry_at: Instant::now() + delay, delay }
            }
        }
    }
}

/// The index value of a slice.
pub fn service_of(slice: &EndpointSlice) -> Vec<String> {
    owner(slice).map(|owner| owner.to_string()).into_iter().collect()
}

fn owner(slice: &EndpointSlice) -> Option<ServiceKey> {
    let name = slice.meta().labels.get(SERVICE_LABEL)?.clone();
    Some(ServiceKey { namespace: slice.meta().namespace.clone(), name })
}

fn key_of(object: &impl Kind) -> ServiceKey {
    ServiceKey { namespace: object.meta().namespace.clone(), name: object.meta().name.clone() }
}

fn name_of(object: &impl Kind) -> (String, String) {
    (object.meta().namespace.clone(), object.meta().name.clone())
}
