//! What becomes of one object by the state of its owners and its dependents. Pure.

use std::sync::Arc;

use client::{Action, Partial};
use model::meta::{has_finalizer, is_deleting};
use proto::k8s::meta::v1::OwnerReference;
use serde_json::json;

/// An owner with it waits until its dependents are gone.
pub const FOREGROUND: &str = "foregroundDeletion";
/// An owner with it lets its dependents go before it leaves.
pub const ORPHAN: &str = "orphan";

/// An object and where it is found.
#[derive(Clone, Debug)]
pub struct Found {
    pub group: String,
    pub plural: String,
    pub partial: Arc<Partial>,
}

/// What became of an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    Present,
    /// It is being deleted and waits for its dependents.
    Waiting,
    Gone,
    /// Of a kind that is not followed here: nothing is concluded.
    Unknown,
}

#[derive(Clone, Debug)]
pub struct Snapshot {
    pub object: Found,
    pub owners: Vec<(OwnerReference, Owner)>,
    /// Filled in only where the object waits for them.
    pub dependents: Vec<Found>,
}

/// Whether the object cannot leave before something happens to its dependents.
pub fn waits(object: &Partial) -> bool {
    is_deleting(&object.metadata)
        && (has_finalizer(&object.metadata, FOREGROUND) || has_finalizer(&object.metadata, ORPHAN))
}

pub fn is_in_foreground(object: &Partial) -> bool {
    is_deleting(&object.metadata) && has_finalizer(&object.metadata, FOREGROUND)
}

/// Steps from what is to what ownership asks for; empty once they agree.
pub fn plan(snapshot: &Snapshot) -> Vec<Action> {
    let Snapshot { object, owners, dependents } = snapshot;
    let meta = &object.partial.metadata;
    if is_deleting(meta) {
        if has_finalizer(meta, ORPHAN) {
            return let_go(object, dependents);
        }
        let is_blocked = || dependents.iter().any(|dependent| blocks(dependent, &meta.uid));
        if has_finalizer(meta, FOREGROUND) && !is_blocked() {
            return vec![without_finalizer(object, FOREGROUND)];
        }
        return Vec::new();
    }
    let (gone, kept): (Vec<_>, Vec<_>) = owners.iter().partition(|(_, owner)| *owner == Owner::Gone);
    let is_awaited = kept.iter().any(|(_, owner)| *owner == Owner::Waiting);
    let is_wanted = kept.iter().any(|(_, owner)| matches!(owner, Owner::Present | Owner::Unknown));
    if !owners.is_empty() && !is_wanted {
        return vec![delete(object, is_awaited)];
    }
    if !gone.is_empty() {
        let kept = kept.iter().map(|(owner, _)| owner).collect::<Vec<_>>();
        return vec![with_owners(object, &kept)];
    }
    Vec::new()
}

/// Only a dependent that says so keeps its owner.
fn blocks(dependent: &Found, owner: &str) -> bool {
    let references = &dependent.partial.metadata.owner_references;
    references.iter().any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

/// Takes the owner out of its dependents; once none names it, it may leave.
fn let_go(object: &Found, dependents: &[Found]) -> Vec<Action> {
    if dependents.is_empty() {
        return vec![without_finalizer(object, ORPHAN)];
    }
    let uid = &object.partial.metadata.uid;
    dependents
        .iter()
        .map(|dependent| {
            let others = dependent.partial.metadata.owner_references.iter().filter(|owner| owner.uid != *uid);
            with_owners(dependent, &others.collect::<Vec<_>>())
        })
        .collect()
}

/// A dependent of an owner that waits takes its own dependents with it before it leaves.
fn delete(object: &Found, is_awaited: bool) -> Action {
    let mut action = Action::delete_partial(&object.group, &object.plural, &object.partial);
    if let Action::Delete(deletion) = &mut action {
        let policy = if is_awaited { "Foreground" } else { "Background" };
        deletion.options.propagation_policy = Some(policy.to_owned());
    }
    action
}

fn without_finalizer(object: &Found, finalizer: &str) -> Action {
    let left: Vec<&String> = object.partial.metadata.finalizers.iter().filter(|it| *it != finalizer).collect();
    Action::patch_partial(&object.group, &object.plural, &object.partial, json!({ "finalizers": left }))
}

fn with_owners(object: &Found, owners: &[&OwnerReference]) -> Action {
    let owners: Vec<serde_json::Value> = owners
        .iter()
        .map(|owner| {
            let mut reference = json!({
                "apiVersion": owner.api_version,
                "kind": owner.kind,
                "name": owner.name,
                "uid": owner.uid,
            });
            for (name, value) in [("controller", owner.controller), ("blockOwnerDeletion", owner.block_owner_deletion)]
            {
                if let Some(value) = value {
                    reference[name] = value.into();
                }
            }
            reference
        })
        .collect();
    Action::patch_partial(&object.group, &object.plural, &object.partial, json!({ "ownerReferences": owners }))
}
