//! Metadata: what the server stamps on every object, and the rules it must keep.

use std::collections::BTreeMap;

use model::validate;
use proto::k8s::meta::v1::{ObjectMeta, Time};
use uuid::Uuid;

use super::Causes;
use crate::{
    api::Target,
    refusal::{Refusal, Result},
};

/// Keys and values of an object's annotations together.
const ANNOTATIONS_BYTES_MAX: usize = 256 << 10;
const FINALIZERS: &[&str] = &["kubernetes", "orphan", "foregroundDeletion"];
/// Letters of generated names: no vowels and nothing that reads like another.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;

/// Gives a sent object the namespace and name it was sent to.
///
/// # Errors
/// 400 where the object names others.
pub fn place(meta: &mut ObjectMeta, target: &Target<'_>) -> Result<()> {
    if target.resource.resource.namespaced {
        if meta.namespace.is_empty() {
            meta.namespace = target.namespace.to_owned();
        } else if meta.namespace != target.namespace {
            return Err(Refusal::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request: \
                 metadata.namespace is {:?}, the request says {:?}",
                meta.namespace, target.namespace
            )));
        }
        if meta.namespace.is_empty() {
            return Err(Refusal::bad_request("an empty namespace may not be set during creation"));
        }
    } else {
        meta.namespace.clear();
    }
    if meta.name.is_empty() {
        meta.name = target.name.to_owned();
    } else if !target.name.is_empty() && meta.name != target.name {
        return Err(Refusal::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            meta.name, target.name
        )));
    }
    Ok(())
}

/// Stamps a new object.
pub fn stamp_new(meta: &mut ObjectMeta, has_generation: bool, now: Time) {
    meta.uid = Uuid::new_v4().to_string();
    meta.creation_timestamp = Some(now);
    meta.deletion_timestamp = None;
    meta.deletion_grace_period_seconds = None;
    meta.generation = i64::from(has_generation);
    clear_unstored(meta);
}

/// Carries over what no update may change.
pub fn stamp_changed(new: &mut ObjectMeta, old: &ObjectMeta) {
    new.name.clone_from(&old.name);
    new.namespace.clone_from(&old.namespace);
    new.generate_name.clone_from(&old.generate_name);
    new.uid.clone_from(&old.uid);
    new.creation_timestamp = old.creation_timestamp;
    new.deletion_timestamp = old.deletion_timestamp;
    new.deletion_grace_period_seconds = old.deletion_grace_period_seconds;
    new.generation = old.generation;
    clear_unstored(new);
}

/// resourceVersion is the store's to say; ownership of fields is not kept.
fn clear_unstored(meta: &mut ObjectMeta) {
    meta.resource_version.clear();
    meta.self_link.clear();
    meta.managed_fields.clear();
}

/// A name out of `generateName`.
pub fn generate_name(base: &str) -> String {
    let letter = |_| char::from(SUFFIX_LETTERS[rand::random_range(0..SUFFIX_LETTERS.len())]);
    let suffix: String = (0..SUFFIX_LENGTH).map(letter).collect();
    model::meta::generated_name(base, &suffix)
}

/// Checks the rules every kind's metadata keeps.
pub fn validate(meta: &ObjectMeta, name_problems: impl Fn(&str) -> Vec<String>, causes: &mut Causes) {
    if meta.name.is_empty() {
        causes.required("metadata.name", "name or generateName is required");
    } else {
        causes.invalid_each("metadata.name", &meta.name, name_problems(&meta.name));
    }
    if !meta.namespace.is_empty() {
        causes.invalid_each("metadata.namespace", &meta.namespace, validate::dns_label(&meta.namespace));
    }
    validate_labels(&meta.labels, "metadata.labels", causes);
    validate_annotations(&meta.annotations, "metadata.annotations", causes);
    for (index, owner) in meta.owner_references.iter().enumerate() {
        let field = format!("metadata.ownerReferences[{index}]");
        for (name, value) in
            [("apiVersion", &owner.api_version), ("kind", &owner.kind), ("name", &owner.name), ("uid", &owner.uid)]
        {
            if value.is_empty() {
                causes.required(format!("{field}.{name}"), "must not be empty");
            }
        }
    }
    if meta.owner_references.iter().filter(|owner| owner.controller == Some(true)).count() > 1 {
        causes.invalid("metadata.ownerReferences", "", "only one reference can have controller set to true");
    }
    validate_finalizers(&meta.finalizers, "metadata.finalizers", causes);
}

/// Names of those who must let go before an object is gone: a domain's, or one that Kubernetes has.
pub fn validate_finalizers(finalizers: &[String], field: &str, causes: &mut Causes) {
    for (index, finalizer) in finalizers.iter().enumerate() {
        let field = format!("{field}[{index}]");
        causes.invalid_each(&field, finalizer, validate::qualified_name(finalizer));
        if !finalizer.contains('/') && !FINALIZERS.contains(&finalizer.as_str()) {
            let detail = "name is neither a standard finalizer name nor is it fully qualified";
            causes.invalid(&field, finalizer, detail);
        }
    }
}

/// Checks what an update of an object may do to its metadata.
pub fn validate_update(new: &ObjectMeta, old: &ObjectMeta, causes: &mut Causes) {
    if old.deletion_timestamp.is_some() {
        let added: Vec<&str> =
            new.finalizers.iter().filter(|name| !old.finalizers.contains(name)).map(String::as_str).collect();
        if !added.is_empty() {
            causes.forbidden(
                "metadata.finalizers",
                format!(
                    "no new finalizers can be added if the object is being deleted, found new finalizers {added:?}"
                ),
            );
        }
    }
}

pub fn validate_labels(labels: &BTreeMap<String, String>, field: &str, causes: &mut Causes) {
    for (key, value) in labels {
        causes.invalid_each(field, key, validate::qualified_name(key));
        causes.invalid_each(field, value, validate::label_value(value));
    }
}

pub fn validate_annotations(annotations: &BTreeMap<String, String>, field: &str, causes: &mut Causes) {
    let mut total = 0;
    for (key, value) in annotations {
        causes.invalid_each(field, key, validate::qualified_name(&key.to_lowercase()));
        total += key.len() + value.len();
    }
    if total > ANNOTATIONS_BYTES_MAX {
        causes.too_long(field, ANNOTATIONS_BYTES_MAX);
    }
}
