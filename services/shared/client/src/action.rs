//! [`Action`]: everything a controller can want done. Plain values, so that a plan can be read, compared and explained.

use std::fmt;

use bytes::Bytes;
use jiff::Timestamp;
use proto::{
    Kind, Object, Resource,
    k8s::{
        core::v1::ObjectReference,
        meta::v1::{DeleteOptions, ObjectMeta, Preconditions},
    },
};

use crate::{Partial, PatchKind, Target, target};

/// One step towards what is wanted.
///
/// The actions of one plan are independent of each other and may be done in any order. What must follow on another
/// step is planned when that step can be observed.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    Create(Write),
    /// Replaces the object, or the subresource its target names.
    Update(Write),
    UpdateStatus(Write),
    Patch(Patch),
    Delete(Deletion),
    /// Deletes all objects of a resource in a namespace, unseen: for what no plan looks at one by one.
    Clear(Target),
    /// Tells people what is being done.
    Event(Note),
    /// Look again at this time, even if nothing changes.
    WakeAt(Timestamp),
}

/// An object to write. Its metadata's uid and resourceVersion are preconditions where they are set.
#[derive(Clone, Debug, PartialEq)]
pub struct Write {
    pub target: Target,
    pub object: Object,
    /// What a transcript says of it beside its name.
    pub remark: String,
    /// What people are told once it is done or has failed.
    pub telling: Option<Telling>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Patch {
    pub target: Target,
    pub object_kind: String,
    pub kind: PatchKind,
    pub body: Bytes,
}

/// An object to delete: this one, in this state, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Deletion {
    pub target: Target,
    pub object_kind: String,
    pub options: DeleteOptions,
    /// What people are told once it is done or has failed.
    pub telling: Option<Telling>,
}

/// The event of a write, told by its outcome: the name of what was created is not known before.
#[derive(Clone, Debug, PartialEq)]
pub struct Telling {
    pub regarding: ObjectReference,
    /// Reason and message of success; the object's name follows the message.
    pub done: (&'static str, &'static str),
    /// Reason and message of failure; the error follows the message.
    pub failed: (&'static str, &'static str),
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub struct Note {
    pub regarding: ObjectReference,
    /// "Normal" or "Warning".
    pub r#type: String,
    pub reason: String,
    pub message: String,
}

impl Note {
    pub fn new<K: Kind>(regarding: &K, r#type: &str, reason: &str, message: impl Into<String>) -> Self {
        let regarding = reference(regarding);
        Self { regarding, r#type: r#type.to_owned(), reason: reason.to_owned(), message: message.into() }
    }
}

/// A reference to an object by everything that identifies it.
pub fn reference<K: Kind>(object: &K) -> ObjectReference {
    let meta = object.meta();
    ObjectReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        ..Default::default()
    }
}

impl Action {
    pub fn create<K: Resource>(object: &K) -> Self {
        Self::Create(Write::of(object))
    }

    pub fn update<K: Resource>(object: &K) -> Self {
        Self::Update(Write::of(object))
    }

    /// Updates through a subresource other than the status, as "finalize".
    pub fn update_part<K: Resource>(object: &K, subresource: &str) -> Self {
        let mut write = Write::of(object);
        write.target.subresource = subresource.to_owned();
        Self::Update(write)
    }

    pub fn update_status<K: Resource>(object: &K) -> Self {
        Self::UpdateStatus(Write::of(object))
    }

    /// Deletes the object in the state it was observed in.
    pub fn delete<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self::Delete(Deletion {
            target: target::<K>(&meta.namespace, &meta.name),
            object_kind: K::KIND.to_owned(),
            options: DeleteOptions { preconditions: Some(preconditions(meta)), ..Default::default() },
            telling: None,
        })
    }

    /// Deletes the object at once, without a grace period, whatever became of it since it was observed.
    pub fn remove<K: Resource>(object: &K) -> Self {
        let Self::Delete(mut deletion) = Self::delete(object) else { unreachable!("delete makes a deletion") };
        deletion.options.grace_period_seconds = Some(0);
        deletion.options.preconditions =
            Some(Preconditions { uid: Some(object.meta().uid.clone()), resource_version: None });
        Self::Delete(deletion)
    }

    /// Deletes an object of any resource, of which only the metadata is known.
    pub fn delete_partial(group: &str, plural: &str, object: &Partial) -> Self {
        let meta = &object.metadata;
        let target = partial_target(group, plural, meta);
        let options = DeleteOptions { preconditions: Some(preconditions(meta)), ..Default::default() };
        Self::Delete(Deletion { target, object_kind: object.kind.clone(), options, telling: None })
    }

    /// Changes an object of any resource by a merge patch, in the state it was observed in.
    pub fn patch_partial(group: &str, plural: &str, object: &Partial, metadata: serde_json::Value) -> Self {
        let meta = &object.metadata;
        let mut body = serde_json::json!({ "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version } });
        if let (Some(fields), serde_json::Value::Object(changed)) = (body["metadata"].as_object_mut(), metadata) {
            fields.extend(changed);
        }
        Self::Patch(Patch {
            target: partial_target(group, plural, meta),
            object_kind: object.kind.clone(),
            kind: PatchKind::Merge,
            body: body.to_string().into(),
        })
    }

    pub fn event<K: Kind>(regarding: &K, r#type: &str, reason: &str, message: impl Into<String>) -> Self {
        Self::Event(Note::new(regarding, r#type, reason, message))
    }

    /// Adds what a transcript should say.
    #[must_use]
    pub fn remark(mut self, remark: impl Into<String>) -> Self {
        if let Self::Create(write) | Self::Update(write) | Self::UpdateStatus(write) = &mut self {
            write.remark = remark.into();
        }
        self
    }

    /// Tells people of the outcome of a creation or a deletion.
    #[must_use]
    pub fn telling<K: Kind>(
        mut self,
        regarding: &K,
        done: (&'static str, &'static str),
        failed: (&'static str, &'static str),
    ) -> Self {
        if let Self::Create(Write { telling, .. }) | Self::Delete(Deletion { telling, .. }) = &mut self {
            *telling = Some(Telling { regarding: reference(regarding), done, failed });
        }
        self
    }

    /// Whether doing it again makes a second one: a creation under a name of the server's choice, which nothing guards.
    pub fn would_double(&self) -> bool {
        matches!(self, Self::Create(write) if write.target.name.is_empty())
    }

    /// Whether it changes the cluster; events and wake-ups do not count.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Event(_) | Self::WakeAt(_))
    }
}

impl Write {
    fn of<K: Resource>(object: &K) -> Self {
        let meta = object.meta();
        Self {
            target: target::<K>(&meta.namespace, &meta.name),
            object: Object::of(object),
            remark: String::new(),
            telling: None,
        }
    }

    fn name(&self) -> String {
        if !self.target.name.is_empty() {
            return self.target.name.clone();
        }
        let meta = crate::cache::meta_of_raw(&self.object.raw).unwrap_or_default();
        format!("{}*", meta.generate_name)
    }
}

fn partial_target(group: &str, plural: &str, meta: &ObjectMeta) -> Target {
    Target {
        group: group.to_owned(),
        resource: plural.to_owned(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        subresource: String::new(),
    }
}

fn preconditions(meta: &ObjectMeta) -> Preconditions {
    let set = |text: &String| (!text.is_empty()).then(|| text.clone());
    Preconditions { uid: set(&meta.uid), resource_version: set(&meta.resource_version) }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let write = |f: &mut fmt::Formatter<'_>, verb: &str, write: &Write| {
            write!(f, "{verb} {}/{}", write.object.kind.to_lowercase(), write.name())?;
            if write.remark.is_empty() { Ok(()) } else { write!(f, " {}", write.remark) }
        };
        match self {
            Self::Create(created) => write(f, "create", created),
            Self::Update(updated) if !updated.target.subresource.is_empty() => {
                write(f, &updated.target.subresource, updated)
            }
            Self::Update(updated) => write(f, "update", updated),
            Self::UpdateStatus(updated) => write(f, "status", updated),
            Self::Patch(Patch { target, object_kind, body, .. }) => {
                write!(f, "patch {}/{} {}", object_kind.to_lowercase(), target.name, String::from_utf8_lossy(body))
            }
            Self::Delete(Deletion { target, object_kind, options, .. }) => {
                write!(f, "delete {}/{}", object_kind.to_lowercase(), target.name)?;
                if options.grace_period_seconds == Some(0) { f.write_str(" now") } else { Ok(()) }
            }
            Self::Clear(target) => write!(f, "clear {} of {}", target.resource, target.namespace),
            Self::Event(Note { regarding, r#type, reason, message }) => {
                write!(f, "event {}/{} {type} {reason}: {message}", regarding.kind.to_lowercase(), regarding.name)
            }
            Self::WakeAt(time) => write!(f, "wake at {time}"),
        }
    }
}
