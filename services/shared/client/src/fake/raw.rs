//! Changes one top-level field of an encoded message and leaves the others' bytes as they are.

use bytes::{Buf, Bytes};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, decode_key, encode_key, encode_varint, skip_field},
};
use proto::k8s::meta::v1::ObjectMeta;

pub(super) const META: u32 = 1;
pub(super) const SPEC: u32 = 2;
pub(super) const STATUS: u32 = 3;

/// Top-level fields: number and whole encoding, tag included.
fn fields(raw: &Bytes) -> Result<Vec<(u32, Bytes)>, DecodeError> {
    let mut rest = raw.clone();
    let mut fields = Vec::new();
    while rest.has_remaining() {
        let start = raw.len() - rest.remaining();
        let (tag, wire_type) = decode_key(&mut rest)?;
        skip_field(wire_type, tag, &mut rest, DecodeContext::default())?;
        fields.push((tag, raw.slice(start..raw.len() - rest.remaining())));
    }
    Ok(fields)
}

/// The encoding of one field, empty where it is absent.
pub(super) fn field(raw: &Bytes, tag: u32) -> Result<Bytes, DecodeError> {
    let parts: Vec<Bytes> = fields(raw)?.into_iter().filter(|(found, _)| *found == tag).map(|(_, part)| part).collect();
    Ok(parts.concat().into())
}

/// The message with one field's encoding replaced; fields stay in number order.
pub(super) fn with_field(raw: &Bytes, tag: u32, encoding: &[u8]) -> Result<Bytes, DecodeError> {
    let mut parts: Vec<(u32, Bytes)> = fields(raw)?.into_iter().filter(|(found, _)| *found != tag).collect();
    parts.push((tag, Bytes::copy_from_slice(encoding)));
    parts.sort_by_key(|(tag, _)| *tag);
    Ok(parts.into_iter().map(|(_, part)| part).collect::<Vec<_>>().concat().into())
}

pub(super) fn with_meta(raw: &Bytes, meta: &ObjectMeta) -> Result<Bytes, DecodeError> {
    let mut encoding = Vec::new();
    encode_key(META, WireType::LengthDelimited, &mut encoding);
    encode_varint(meta.encoded_len() as u64, &mut encoding);
    encoding.extend(meta.encode_to_vec());
    with_field(raw, META, &encoding)
}
