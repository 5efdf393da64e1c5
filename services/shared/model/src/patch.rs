//! Patches over objects as JSON values: JSON patch (RFC 6902), merge patch (RFC 7386), Kubernetes' strategic merge, and
//! the three-way difference that `apply` sends.
//!
//! Lists merge by the keys that stand in the schema's field options; a custom object has no schema, so its lists are
//! replaced as a whole.

mod shape;
mod strategic;
mod three_way;

use proto::codec::MessageId;
use serde_json::Value;

use shape::Shape;

/// Why a patch was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The patch is not one: the sender's fault whatever the object is (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch does not suit this object (422).
    #[error("{0}")]
    Inapplicable(String),
}

/// Operations in one JSON patch.
const OPERATIONS_MAX: usize = 10_000;
/// Bytes that the copy operations of one JSON patch may add: each could double the object.
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// Applies a JSON patch.
///
/// # Errors
/// Where it is not a JSON patch, too large, or one of its operations fails: then nothing of it is applied.
pub fn json(object: &Value, patch: &[u8]) -> Result<Value, Error> {
    let patch: json_patch::Patch =
        serde_json::from_slice(patch).map_err(|problem| Error::Malformed(format!("the JSON patch: {problem}")))?;
    if patch.0.len() > OPERATIONS_MAX {
        let problem = format!("the JSON patch has {} operations, at most {OPERATIONS_MAX} are allowed", patch.0.len());
        return Err(Error::Malformed(problem));
    }
    let (mut result, mut copied) = (object.clone(), 0);
    for (at, operation) in patch.0.iter().enumerate() {
        if let json_patch::PatchOperation::Copy(copy) = operation {
            copied += result.pointer(copy.from.as_str()).map_or(0, |value| value.to_string().len());
            if copied > COPIED_BYTES_MAX {
                return Err(Error::Malformed(format!("the JSON patch copies more than {COPIED_BYTES_MAX} bytes")));
            }
        }
        json_patch::patch(&mut result, std::slice::from_ref(operation))
            .map_err(|problem| Error::Inapplicable(format!("the JSON patch's operation {at}: {}", problem.kind)))?;
    }
    Ok(result)
}

/// Applies a merge patch.
///
/// # Errors
/// Where the patch is not a JSON object.
pub fn merge(object: &Value, patch: &[u8]) -> Result<Value, Error> {
    let mut result = object.clone();
    json_patch::merge(&mut result, &parsed(patch)?);
    Ok(result)
}

/// Applies a strategic merge patch to an object of the given message.
///
/// # Errors
/// Where the patch is not a JSON object, or a directive in it is unknown or misplaced.
pub fn strategic(message: MessageId, object: &Value, patch: &[u8]) -> Result<Value, Error> {
    strategic::apply(Shape::Message(message), object, &parsed(patch)?)
}

/// The strategic merge patch that makes `current` what `modified` declares: what was declared in `original` (the last
/// applied state) and is so no longer is removed, and what others have set stays. Empty where nothing has to change.
///
/// Without a message (a custom object) the result is a merge patch.
///
/// # Errors
/// Where a list that merges by key holds an element without it.
pub fn three_way(
    message: Option<MessageId>,
    original: Option<&Value>,
    modified: &Value,
    current: &Value,
) -> Result<Value, Error> {
    three_way::difference(message.map_or(Shape::Free, Shape::Message), original, modified, current)
}

fn parsed(patch: &[u8]) -> Result<Value, Error> {
    match serde_json::from_slice(patch) {
        Ok(patch @ Value::Object(_)) => Ok(patch),
        Ok(_) => Err(Error::Malformed("the patch must be a JSON object".to_owned())),
        Err(problem) => Err(Error::Malformed(format!("the patch is not JSON: {problem}"))),
    }
}

#[cfg(test)]
mod tests;
