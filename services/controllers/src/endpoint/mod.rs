//! Endpoints and EndpointSlices: the addresses behind a service, in the old form and in the new one.

mod backend;
mod plan;
mod slices;

use std::sync::Arc;

use client::{Action, Controller, Key, Reflector, controller::Watches};
use jiff::Timestamp;
use proto::{
    Kind,
    k8s::{
        core::v1::{Endpoints, Pod, Service},
        discovery::v1::EndpointSlice,
    },
};

pub use plan::{Snapshot, plan};

const BY_SERVICE: &str = "service";
/// On a slice: the service it is of.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

pub struct EndpointsOfServices;

impl Controller for EndpointsOfServices {
    type Snapshot = Snapshot;
    const NAME: &'static str = "endpoint";

    fn watches(&self, watches: Watches) -> Watches {
        watches
            .each::<Service>()
            .each::<Endpoints>()
            .map::<Pod>(|caches, pod| {
                let services: Vec<Arc<Service>> = caches.cache().list_in(&pod.meta().namespace);
                services
                    .iter()
                    .filter(|service| backend::selects(service, pod))
                    .map(|it| Key::of(it.as_ref()))
                    .collect()
            })
            .index::<EndpointSlice>(BY_SERVICE, |slice| {
                service_of(slice).map(|key| key.to_string()).into_iter().collect()
            })
            .map::<EndpointSlice>(|_, slice| service_of(slice).into_iter().collect())
    }

    fn observe(&self, caches: &Reflector, key: &Key, _: Timestamp) -> Option<Snapshot> {
        let service = caches.cache::<Service>().get(&key.namespace, &key.name);
        let pods = service.iter().flat_map(|service| {
            let pods = caches.cache::<Pod>().list_in(&key.namespace);
            pods.into_iter().filter(|pod| backend::selects(service, pod))
        });
        Some(Snapshot {
            pods: pods.collect(),
            endpoints: caches.cache().get(&key.namespace, &key.name),
            slices: caches.cache().by_index(BY_SERVICE, &key.to_string()),
            service,
        })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let service = slice.meta().labels.get(SERVICE_NAME)?;
    Some(Key::new(&slice.meta().namespace, service))
}

#[cfg(test)]
mod tests;
