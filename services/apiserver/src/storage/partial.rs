//! Reads what generic code needs of stored objects without decoding the rest.

use bytes::Bytes;
use prost::{DecodeError, Message};
use proto::k8s::meta::v1::ObjectMeta;

/// Every kind has its metadata in field 1; prost skips all others.
#[derive(Clone, PartialEq, Message)]
struct Partial {
    #[prost(message, optional, tag = "1")]
    metadata: Option<ObjectMeta>,
}

/// Metadata of an object's message.
///
/// # Errors
/// Where the bytes are not a protobuf message with metadata in field 1.
pub fn metadata(raw: &Bytes) -> Result<ObjectMeta, DecodeError> {
    Ok(Partial::decode(raw.clone())?.metadata.unwrap_or_default())
}
