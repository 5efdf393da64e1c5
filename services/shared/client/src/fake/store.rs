//! The fake's objects and its history: what each verb makes of what is stored. No I/O.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use proto::{
    Kind, Object, codec,
    forestay::api::v1::View,
    k8s::{
        core::v1 as core,
        meta::v1::{DeleteOptions, ObjectMeta, Status, Time},
    },
};

use super::{raw, refusal};
use crate::{Target, cache::meta_of_raw};

type ResourceId = (String, String);
type Name = (String, String);

/// One object as it stood at one revision.
#[derive(Clone, Debug)]
pub(super) struct Stored {
    pub(super) object: Object,
    pub(super) meta: ObjectMeta,
}

impl Stored {
    pub(super) fn view(&self, view: View) -> Object {
        match view {
            View::Full => self.object.clone(),
            View::Metadata => {
                Object { metadata: Some(self.meta.clone()), arm: 0, raw: Bytes::new(), ..self.object.clone() }
            }
        }
    }
}

/// One revision's change.
#[derive(Clone, Debug)]
pub(super) struct Event {
    pub(super) revision: u64,
    pub(super) resource: ResourceId,
    pub(super) before: Option<Arc<Stored>>,
    /// For a deletion the last state, with the deletion's revision.
    pub(super) after: Arc<Stored>,
    pub(super) is_deletion: bool,
}

#[derive(Default)]
pub(super) struct Store {
    pub(super) revision: u64,
    pub(super) compacted: u64,
    objects: BTreeMap<ResourceId, BTreeMap<Name, Arc<Stored>>>,
    pub(super) history: VecDeque<Event>,
}

impl Store {
    pub(super) fn get(&self, target: &Target) -> Result<&Arc<Stored>, Status> {
        self.find(target).ok_or_else(|| refusal::not_found(target))
    }

    fn find(&self, target: &Target) -> Option<&Arc<Stored>> {
        let objects = self.objects.get(&(target.group.clone(), target.resource.clone()))?;
        objects.get(&(target.namespace.clone(), target.name.clone()))
    }

    pub(super) fn all(&self, resource: &ResourceId) -> impl Iterator<Item = &Arc<Stored>> {
        self.objects.get(resource).into_iter().flat_map(BTreeMap::values)
    }

    /// Forgets the history up to the present.
    pub(super) fn compact(&mut self) {
        self.compacted = self.revision;
        self.history.clear();
    }

    pub(super) fn create(&mut self, target: &Target, object: Object, now: Time) -> Result<Arc<Stored>, Status> {
        let mut meta = read_meta(&object.raw)?;
        let mut target = target.clone();
        if meta.namespace.is_empty() {
            meta.namespace.clone_from(&target.namespace);
        }
        if !is_namespaced(&target) {
            meta.namespace.clear();
        } else if meta.namespace.is_empty() {
            return Err(refusal::bad_request("an empty namespace may not be set during creation"));
        }
        target.namespace.clone_from(&meta.namespace);
        if !meta.resource_version.is_empty() {
            return Err(refusal::bad_request("resourceVersion should not be set on objects to be created"));
        }
        if meta.name.is_empty() && meta.generate_name.is_empty() {
            return Err(refusal::invalid(&target, "metadata.name: Required value: name or generateName is required"));
        }
        if meta.name.is_empty() {
            meta.name = model::meta::generated_name(&meta.generate_name, &suffix());
        }
        target.name.clone_from(&meta.name);
        self.admit_to_namespace(&target)?;
        if self.find(&target).is_some() {
            return Err(refusal::already_exists(&target, &meta.name));
        }
        meta.uid = uuid::Uuid::new_v4().to_string();
        meta.creation_timestamp = Some(now);
        meta.generation = i64::from(has_status(&target));
        let raw = defaults(&object, &meta)?;
        Ok(self.put(&target, meta, Object { raw, ..object }))
    }

    fn admit_to_namespace(&self, target: &Target) -> Result<(), Status> {
        if target.namespace.is_empty() {
            return Ok(());
        }
        let namespace = crate::target::<core::Namespace>("", &target.namespace);
        if self.get(&namespace)?.meta.deletion_timestamp.is_some() {
            return Err(refusal::terminating(target, &target.name));
        }
        Ok(())
    }

    pub(super) fn update(&mut self, target: &Target, object: Object) -> Result<Arc<Stored>, Status> {
        let stored = self.get(target)?.clone();
        let incoming = read_meta(&object.raw)?;
        check_preconditions(target, &stored.meta, &incoming.uid, &incoming.resource_version)?;
        let mut meta = ObjectMeta {
            labels: incoming.labels,
            annotations: incoming.annotations,
            owner_references: incoming.owner_references,
            finalizers: incoming.finalizers,
            ..stored.meta.clone()
        };
        let mut raw = object.raw;
        if has_status(target) {
            let status = raw::field(&stored.object.raw, raw::STATUS).map_err(unreadable)?;
            raw = raw::with_field(&raw, raw::STATUS, &status).map_err(unreadable)?;
            let spec_of = |raw| raw::field(raw, raw::SPEC).map_err(unreadable);
            if spec_of(&raw)? != spec_of(&stored.object.raw)? {
                meta.generation += 1;
            }
        }
        self.replace(target, &stored, meta, raw)
    }

    pub(super) fn update_status(&mut self, target: &Target, object: Object) -> Result<Arc<Stored>, Status> {
        let stored = self.get(target)?.clone();
        let incoming = read_meta(&object.raw)?;
        check_preconditions(target, &stored.meta, &incoming.uid, &incoming.resource_version)?;
        if !has_status(target) {
            return Err(refusal::not_found(target));
        }
        let status = raw::field(&object.raw, raw::STATUS).map_err(unreadable)?;
        let raw = raw::with_field(&stored.object.raw, raw::STATUS, &status).map_err(unreadable)?;
        self.replace(target, &stored, stored.meta.clone(), raw)
    }

    /// Replaces a namespace's spec.finalizers; the last one gone removes a terminating namespace.
    pub(super) fn finalize(&mut self, target: &Target, object: Object) -> Result<Arc<Stored>, Status> {
        let stored = self.get(target)?.clone();
        let incoming = read_meta(&object.raw)?;
        check_preconditions(target, &stored.meta, &incoming.uid, &incoming.resource_version)?;
        let spec = raw::field(&object.raw, raw::SPEC).map_err(unreadable)?;
        let raw = raw::with_field(&stored.object.raw, raw::SPEC, &spec).map_err(unreadable)?;
        self.replace(target, &stored, stored.meta.clone(), raw)
    }

    /// Stores what differs; removes what was only kept by finalizers that are gone now.
    fn replace(
        &mut self,
        target: &Target,
        stored: &Arc<Stored>,
        meta: ObjectMeta,
        raw: Bytes,
    ) -> Result<Arc<Stored>, Status> {
        let raw = raw::with_meta(&raw, &meta).map_err(unreadable)?;
        let object = Object { raw, ..stored.object.clone() };
        if object.raw == stored.object.raw {
            return Ok(stored.clone());
        }
        let updated = self.put(target, meta, object);
        if updated.meta.deletion_timestamp.is_some() && !is_kept(&updated)? {
            return Ok(self.remove(target, &updated));
        }
        Ok(updated)
    }

    /// Whether the object is gone, and its last state.
    pub(super) fn delete(
        &mut self,
        target: &Target,
        options: &DeleteOptions,
        now: Time,
    ) -> Result<(Arc<Stored>, bool), Status> {
        let stored = self.get(target)?.clone();
        let preconditions = options.preconditions.clone().unwrap_or_default();
        check_preconditions(target, &stored.meta, preconditions.uid(), preconditions.resource_version())?;
        let mut meta = stored.meta.clone();
        match options.propagation_policy() {
            "Foreground" => drop(model::meta::add_finalizer(&mut meta, "foregroundDeletion")),
            "Orphan" => drop(model::meta::add_finalizer(&mut meta, "orphan")),
            _ => {}
        }
        let grace = grace_seconds(&stored, options)?;
        let is_shorter = meta.deletion_grace_period_seconds.is_none_or(|present| grace < present);
        if meta.deletion_timestamp.is_none() || is_shorter {
            meta.deletion_timestamp = Some(Time { seconds: now.seconds + grace, nanos: 0 });
            meta.deletion_grace_period_seconds = Some(grace);
        }
        let mut raw = stored.object.raw.clone();
        if stored.object.arm == core::Namespace::ARM {
            let mut namespace: core::Namespace = stored.object.decode_as().map_err(unreadable)?;
            namespace.status.get_or_insert_default().phase = "Terminating".into();
            raw = Object::of(&namespace).raw;
        }
        let raw = raw::with_meta(&raw, &meta).map_err(unreadable)?;
        let marked = Stored { object: Object { raw: raw.clone(), ..stored.object.clone() }, meta: meta.clone() };
        if !is_kept(&marked)? {
            return Ok((self.remove(target, &stored), true));
        }
        if raw == stored.object.raw {
            return Ok((stored, false));
        }
        Ok((self.put(target, meta, marked.object), false))
    }

    pub(super) fn bind(&mut self, target: &Target, uid: &str, node: &str, now: Time) -> Result<Arc<Stored>, Status> {
        let stored = self.get(target)?.clone();
        check_preconditions(target, &stored.meta, uid, "")?;
        let mut pod: core::Pod = stored.object.decode_as().map_err(unreadable)?;
        let bound = &model::pod::spec(&pod).node_name;
        if !bound.is_empty() {
            return Err(refusal::conflict(
                target,
                &format!("pod {} is already assigned to node \"{bound}\"", target.name),
            ));
        }
        if model::pod::is_deleting(&pod) {
            return Err(refusal::conflict(
                target,
                &format!("pod {} is being deleted, cannot be assigned to a host", target.name),
            ));
        }
        pod.spec.get_or_insert_default().node_name = node.to_owned();
        let scheduled =
            core::PodCondition { r#type: "PodScheduled".into(), status: "True".into(), ..Default::default() };
        model::condition::set(&mut pod.status.get_or_insert_default().conditions, scheduled, now);
        self.replace(target, &stored, stored.meta.clone(), Object::of(&pod).raw)
    }

    /// Stores an object as a new revision.
    pub(super) fn put(&mut self, target: &Target, mut meta: ObjectMeta, object: Object) -> Arc<Stored> {
        self.revision += 1;
        meta.resource_version = self.revision.to_string();
        let raw = raw::with_meta(&object.raw, &meta).unwrap_or(object.raw);
        let stored = Arc::new(Stored { object: Object { raw, metadata: None, ..object }, meta });
        let resource = (target.group.clone(), target.resource.clone());
        let name = (stored.meta.namespace.clone(), stored.meta.name.clone());
        let before = self.objects.entry(resource.clone()).or_default().insert(name, stored.clone());
        let event = Event { revision: self.revision, resource, before, after: stored.clone(), is_deletion: false };
        self.history.push_back(event);
        stored
    }

    pub(super) fn force_remove(&mut self, target: &Target) -> Result<(), Status> {
        let stored = self.get(target)?.clone();
        self.remove(target, &stored);
        Ok(())
    }

    fn remove(&mut self, target: &Target, stored: &Arc<Stored>) -> Arc<Stored> {
        self.revision += 1;
        let mut last = Stored::clone(stored);
        last.meta.resource_version = self.revision.to_string();
        last.object.raw = raw::with_meta(&last.object.raw, &last.meta).unwrap_or(last.object.raw);
        let (last, resource) = (Arc::new(last), (target.group.clone(), target.resource.clone()));
        let name = (stored.meta.namespace.clone(), stored.meta.name.clone());
        let before = self.objects.get_mut(&resource).and_then(|objects| objects.remove(&name));
        let event = Event { revision: self.revision, resource, before, after: last.clone(), is_deletion: true };
        self.history.push_back(event);
        last
    }
}

fn is_namespaced(target: &Target) -> bool {
    let known = codec::schema().resource(&target.group, &target.resource);
    known.is_none_or(|known| known.resource.namespaced)
}

/// Whether the status is a part of its own, written through its own verb; it is field 3 wherever there is one.
fn has_status(target: &Target) -> bool {
    let known = codec::schema().resource(&target.group, &target.resource);
    known.is_some_and(|known| known.resource.subresources.iter().any(|part| part.name == "status"))
}

fn check_preconditions(target: &Target, stored: &ObjectMeta, uid: &str, revision: &str) -> Result<(), Status> {
    if !uid.is_empty() && uid != stored.uid {
        return Err(refusal::other_uid(target, uid, &stored.uid));
    }
    if !revision.is_empty() && revision != stored.resource_version {
        return Err(refusal::stale(target));
    }
    Ok(())
}

/// Seconds a deleted object keeps living by its own right: only a pod that may be running has any.
fn grace_seconds(stored: &Stored, options: &DeleteOptions) -> Result<i64, Status> {
    if stored.object.arm != core::Pod::ARM {
        return Ok(0);
    }
    let pod: core::Pod = stored.object.decode_as().map_err(unreadable)?;
    if !model::pod::is_scheduled(&pod) || model::pod::is_terminal(&pod) {
        return Ok(0);
    }
    let own = model::pod::spec(&pod).termination_grace_period_seconds.unwrap_or(30);
    Ok(options.grace_period_seconds.unwrap_or(own).max(0))
}

/// Whether a deleted object must stay.
fn is_kept(stored: &Stored) -> Result<bool, Status> {
    if !stored.meta.finalizers.is_empty() || stored.meta.deletion_grace_period_seconds.unwrap_or(0) > 0 {
        return Ok(true);
    }
    if stored.object.arm != core::Namespace::ARM {
        return Ok(false);
    }
    let namespace: core::Namespace = stored.object.decode_as().map_err(unreadable)?;
    Ok(namespace.spec.is_some_and(|spec| !spec.finalizers.is_empty()))
}

/// What the server fills in on creation, as far as our services rely on it.
fn defaults(object: &Object, meta: &ObjectMeta) -> Result<Bytes, Status> {
    let raw = raw::with_meta(&object.raw, meta).map_err(unreadable)?;
    let object = Object { raw, ..object.clone() };
    Ok(match object.arm {
        core::Pod::ARM => {
            let mut pod: core::Pod = object.decode_as().map_err(unreadable)?;
            let spec = pod.spec.get_or_insert_default();
            spec.termination_grace_period_seconds.get_or_insert(30);
            or(&mut spec.restart_policy, "Always");
            or(&mut spec.dns_policy, "ClusterFirst");
            or(&mut spec.scheduler_name, "default-scheduler");
            or(&mut spec.service_account_name, "default");
            or(&mut pod.status.get_or_insert_default().phase, "Pending");
            Object::of(&pod).raw
        }
        core::Namespace::ARM => {
            let mut namespace: core::Namespace = object.decode_as().map_err(unreadable)?;
            let spec = namespace.spec.get_or_insert_default();
            if spec.finalizers.is_empty() {
                spec.finalizers.push("kubernetes".into());
            }
            namespace.status.get_or_insert_default().phase = "Active".into();
            let name = namespace.meta().name.clone();
            namespace.meta_mut().labels.insert("kubernetes.io/metadata.name".into(), name);
            Object::of(&namespace).raw
        }
        core::ReplicationController::ARM => {
            let mut controller: core::ReplicationController = object.decode_as().map_err(unreadable)?;
            let spec = controller.spec.get_or_insert_default();
            spec.replicas.get_or_insert(1);
            let labels = spec.template.as_ref().map(|template| template.metadata.clone().unwrap_or_default().labels);
            if spec.selector.is_empty() {
                spec.selector = labels.unwrap_or_default();
            }
            Object::of(&controller).raw
        }
        core::Service::ARM => {
            let mut service: core::Service = object.decode_as().map_err(unreadable)?;
            let spec = service.spec.get_or_insert_default();
            or(&mut spec.r#type, "ClusterIP");
            or(&mut spec.session_affinity, "None");
            spec.ports.iter_mut().for_each(|port| or(&mut port.protocol, "TCP"));
            Object::of(&service).raw
        }
        _ => object.raw,
    })
}

fn or(text: &mut String, default: &str) {
    if text.is_empty() {
        text.push_str(default);
    }
}

fn suffix() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).map(|_| char::from(LETTERS[rand::random_range(0..LETTERS.len())])).collect()
}

pub(super) fn read_meta(raw: &Bytes) -> Result<ObjectMeta, Status> {
    meta_of_raw(raw).map_err(|error| error.status().clone())
}

pub(super) fn unreadable(error: impl std::fmt::Display) -> Status {
    refusal::bad_request(format!("the object provided is unrecognized: {error}"))
}
