//! Patches of the fake, through the JSON form.

use model::patch;
use proto::{Object, codec, k8s::meta::v1::Status};

use super::{
    refusal,
    store::{Stored, unreadable},
};
use crate::PatchKind;

/// The stored object after a patch.
pub(super) fn patched(stored: &Stored, kind: PatchKind, patch: &[u8]) -> Result<Object, Status> {
    let object = &stored.object;
    let message = codec::schema()
        .kind(&object.api_version, &object.kind)
        .ok_or_else(|| refusal::bad_request(format!("{} {} has no schema", object.api_version, object.kind)))?;
    let document = codec::proto_to_value(message, &object.raw, None).map_err(unreadable)?;
    let document = match kind {
        PatchKind::Json => patch::json(&document, patch),
        PatchKind::Merge => patch::merge(&document, patch),
        PatchKind::Strategic => patch::strategic(message, &document, patch),
        PatchKind::Apply | PatchKind::Unknown => {
            return Err(refusal::bad_request("the fake knows JSON, merge and strategic patches"));
        }
    };
    let decoded = codec::value_to_proto(message, &document.map_err(unreadable)?).map_err(unreadable)?;
    Ok(Object { raw: decoded.bytes.into(), ..object.clone() })
}
