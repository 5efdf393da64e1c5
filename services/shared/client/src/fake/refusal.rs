//! The fake's refusals, worded as Kubernetes' clients know them.

use proto::k8s::meta::v1::{Status, StatusDetails};

use crate::{Target, error::failure};

fn about(code: i32, reason: &str, target: &Target, name: &str, message: String) -> Status {
    let details = StatusDetails {
        name: name.to_owned(),
        group: target.group.clone(),
        kind: target.resource.clone(),
        ..Default::default()
    };
    Status { details: Some(details), ..failure(code, reason, message) }
}

/// "pods", "deployments.apps"
fn qualified(target: &Target) -> String {
    if target.group.is_empty() { target.resource.clone() } else { format!("{}.{}", target.resource, target.group) }
}

pub(super) fn not_found(target: &Target) -> Status {
    let message = format!("{} \"{}\" not found", qualified(target), target.name);
    about(404, "NotFound", target, &target.name, message)
}

pub(super) fn already_exists(target: &Target, name: &str) -> Status {
    about(409, "AlreadyExists", target, name, format!("{} \"{name}\" already exists", qualified(target)))
}

pub(super) fn stale(target: &Target) -> Status {
    conflict(target, "the object has been modified; please apply your changes to the latest version and try again")
}

pub(super) fn other_uid(target: &Target, wanted: &str, found: &str) -> Status {
    conflict(target, &format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {found}"))
}

pub(super) fn conflict(target: &Target, why: &str) -> Status {
    let message = format!("Operation cannot be fulfilled on {} \"{}\": {why}", qualified(target), target.name);
    about(409, "Conflict", target, &target.name, message)
}

pub(super) fn invalid(target: &Target, why: &str) -> Status {
    let message = format!("{} \"{}\" is invalid: {why}", qualified(target), target.name);
    about(422, "Invalid", target, &target.name, message)
}

pub(super) fn bad_request(why: impl Into<String>) -> Status {
    failure(400, "BadRequest", why)
}

pub(super) fn terminating(target: &Target, name: &str) -> Status {
    let message = format!(
        "{} \"{name}\" is forbidden: unable to create new content in namespace {} because it is being terminated",
        qualified(target),
        target.namespace
    );
    about(403, "Forbidden", target, name, message)
}

pub(super) fn expired(wanted: u64, oldest: u64) -> Status {
    failure(410, "Expired", format!("The resourceVersion for the provided watch is too old: {wanted} ({oldest})"))
}
