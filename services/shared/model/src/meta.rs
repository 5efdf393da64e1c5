//! Rules over `ObjectMeta`: who owns an object, whether it is on its way out, how it is named.

use proto::k8s::meta::v1::{ObjectMeta, OwnerReference, Time};

/// The owner that controls this object: at most one.
pub fn controller_of(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.iter().find(|owner| owner.controller == Some(true))
}

pub fn is_controlled_by(meta: &ObjectMeta, uid: &str) -> bool {
    controller_of(meta).is_some_and(|owner| owner.uid == uid)
}

pub fn is_owned_by(meta: &ObjectMeta, uid: &str) -> bool {
    meta.owner_references.iter().any(|owner| owner.uid == uid)
}

/// The reference by which `owner` controls what it makes.
pub fn controlled_by<K: proto::Kind>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::API_VERSION.to_owned(),
        kind: K::KIND.to_owned(),
        name: owner.meta().name.clone(),
        uid: owner.meta().uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Deletion has been asked for; finalizers or a grace period may still keep the object.
pub fn is_deleting(meta: &ObjectMeta) -> bool {
    meta.deletion_timestamp.is_some()
}

pub fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|present| present == finalizer)
}

/// Adds a finalizer; false where it was there.
pub fn add_finalizer(meta: &mut ObjectMeta, finalizer: &str) -> bool {
    let is_missing = !has_finalizer(meta, finalizer);
    if is_missing {
        meta.finalizers.push(finalizer.to_owned());
    }
    is_missing
}

/// Removes a finalizer; false where it was not there.
pub fn remove_finalizer(meta: &mut ObjectMeta, finalizer: &str) -> bool {
    let before = meta.finalizers.len();
    meta.finalizers.retain(|present| present != finalizer);
    meta.finalizers.len() != before
}

/// "namespace/name", or the name alone for cluster-scoped objects.
pub fn key(meta: &ObjectMeta) -> String {
    if meta.namespace.is_empty() { meta.name.clone() } else { format!("{}/{}", meta.namespace, meta.name) }
}

/// Seconds from the object's creation until `now`; none where it was not stored yet.
pub fn age_seconds(meta: &ObjectMeta, now: Time) -> Option<i64> {
    meta.creation_timestamp.as_ref().map(|created| (now.seconds - created.seconds).max(0))
}

/// The revision as a number; 0 where the object was not stored yet.
pub fn revision(meta: &ObjectMeta) -> u64 {
    meta.resource_version.parse().unwrap_or(0)
}

/// The name the server gives to an object that asks for a generated one: base cut to fit, and a suffix of five.
pub fn generated_name(base: &str, suffix: &str) -> String {
    const NAME_BYTES_MAX: usize = 63;
    let mut keep = base.len().min(NAME_BYTES_MAX - suffix.len().min(NAME_BYTES_MAX));
    while !base.is_char_boundary(keep) {
        keep -= 1;
    }
    format!("{}{suffix}", &base[..keep])
}

#[cfg(test)]
mod tests {
    use proto::{Kind, k8s::core::v1::ReplicationController};

    use super::*;

    #[test]
    fn what_a_controller_makes_names_it_as_controller() {
        let mut web = ReplicationController::default();
        web.meta_mut().name = "web".into();
        web.meta_mut().uid = "u1".into();
        let pod = ObjectMeta { owner_references: vec![controlled_by(&web)], ..Default::default() };
        assert!(is_controlled_by(&pod, "u1"));
        assert!(!is_controlled_by(&pod, "u2"));
        assert_eq!(controller_of(&pod).unwrap().kind, "ReplicationController");
    }

    #[test]
    fn generated_names_keep_the_suffix_whole() {
        assert_eq!(generated_name("web-", "x7k2p"), "web-x7k2p");
        let long = generated_name(&"a".repeat(80), "x7k2p");
        assert_eq!(long.len(), 63);
        assert!(long.ends_with("x7k2p"));
    }

    #[test]
    fn finalizers_are_added_and_removed_once() {
        let mut meta = ObjectMeta::default();
        assert!(add_finalizer(&mut meta, "a/b"));
        assert!(!add_finalizer(&mut meta, "a/b"));
        assert!(remove_finalizer(&mut meta, "a/b"));
        assert!(!remove_finalizer(&mut meta, "a/b"));
    }
}
