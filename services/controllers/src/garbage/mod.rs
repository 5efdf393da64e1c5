//! Garbage: what belonged to an owner that is gone goes too, and owners wait for their dependents where asked to.
//!
//! Ownership is read from one consistent cut over the metadata of all resources, so an owner that is not there has
//! been deleted; it cannot be one that has not arrived yet.

mod plan;

use std::sync::Arc;

use client::{Action, Controller, Key, Partial, Reflector, controller::Watches};
use jiff::Timestamp;
use proto::k8s::meta::v1::OwnerReference;

use crate::catalog::Catalog;

pub use plan::{Found, Owner, Snapshot, plan};

const BY_UID: &str = "uid";
const BY_OWNER: &str = "owner";

pub struct Garbage {
    pub catalog: Arc<Catalog>,
}

impl Controller for Garbage {
    type Snapshot = Snapshot;
    /// Its keys are uids.
    const NAME: &'static str = "garbage";

    fn watches(&self, mut watches: Watches) -> Watches {
        for (group, plural) in self.catalog.all() {
            let (catalog, place) = (self.catalog.clone(), (group.to_owned(), plural.to_owned()));
            watches = watches
                .index_metadata(group, plural, BY_UID, |object| vec![object.metadata.uid.clone()])
                .index_metadata(group, plural, BY_OWNER, |object| {
                    object.metadata.owner_references.iter().map(|owner| owner.uid.clone()).collect()
                })
                .map_metadata(group, plural, move |caches, object| concerned(&catalog, &place, caches, object));
        }
        watches
    }

    fn observe(&self, caches: &Reflector, key: &Key, _: Timestamp) -> Option<Snapshot> {
        let object = self.found(caches, BY_UID, &key.name).into_iter().next()?;
        let owners = object.partial.metadata.owner_references.iter();
        let namespace = &object.partial.metadata.namespace;
        Some(Snapshot {
            owners: owners.map(|owner| (owner.clone(), self.owner(caches, namespace, owner))).collect(),
            dependents: if plan::waits(&object.partial) { self.found(caches, BY_OWNER, &key.name) } else { Vec::new() },
            object,
        })
    }

    fn plan(snapshot: &Snapshot) -> Vec<Action> {
        plan(snapshot)
    }
}

impl Garbage {
    /// Every object under an index value, in all resources.
    fn found(&self, caches: &Reflector, index: &str, value: &str) -> Vec<Found> {
        found(&self.catalog, caches, index, value)
    }

    fn owner(&self, caches: &Reflector, namespace: &str, owner: &OwnerReference) -> Owner {
        let Some(resource) = self.catalog.of_kind(&owner.api_version, &owner.kind) else { return Owner::Unknown };
        let Some(cache) = caches.metadata(&resource.group, &resource.plural) else { return Owner::Unknown };
        let namespace = if resource.namespaced { namespace } else { "" };
        match cache.get(namespace, &owner.name) {
            Some(present) if present.metadata.uid == owner.uid => {
                if plan::is_in_foreground(&present) {
                    Owner::Waiting
                } else {
                    Owner::Present
                }
            }
            _ => Owner::Gone,
        }
    }
}

fn found(catalog: &Catalog, caches: &Reflector, index: &str, value: &str) -> Vec<Found> {
    let in_one = |(group, plural): (&str, &str)| {
        let objects = caches.metadata(group, plural).map(|cache| cache.by_index(index, value)).unwrap_or_default();
        let (group, plural) = (group.to_owned(), plural.to_owned());
        objects.into_iter().map(move |partial| Found { group: group.clone(), plural: plural.clone(), partial })
    };
    catalog.all().flat_map(in_one).collect()
}

/// An object concerns itself where it has owners or waits; its owners where they may wait for it; and, once it is
/// leaving or gone, its dependents.
fn concerned(catalog: &Catalog, place: &(String, String), caches: &Reflector, object: &Partial) -> Vec<Key> {
    let meta = &object.metadata;
    let mut keys: Vec<Key> = meta.owner_references.iter().map(|owner| Key::new("", &owner.uid)).collect();
    if !keys.is_empty() || plan::waits(object) {
        keys.push(Key::new("", &meta.uid));
    }
    let present = caches.metadata(&place.0, &place.1).and_then(|cache| cache.get(&meta.namespace, &meta.name));
    let is_staying = present.is_some_and(|it| it.metadata.uid == meta.uid && !model::meta::is_deleting(&it.metadata));
    if !is_staying {
        let dependents = found(catalog, caches, BY_OWNER, &meta.uid);
        keys.extend(dependents.iter().map(|dependent| Key::new("", &dependent.partial.metadata.uid)));
    }
    keys
}

#[cfg(test)]
mod tests;
