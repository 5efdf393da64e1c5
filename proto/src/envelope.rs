//! The form objects are stored in and sent in as `application/vnd.kubernetes.protobuf`: `k8s\0`, then
//! `Unknown{typeMeta{apiVersion, kind}, raw}`. Nothing here decodes the object itself.

use bytes::Bytes;
use prost::Message;

use crate::{
    k8s::{meta::v1::ObjectMeta, runtime::TypeMeta},
    wire::{self, Fields, Malformed, Value},
};

/// The four bytes in front.
pub const MAGIC: &[u8; 4] = b"k8s\0";

/// Field numbers of `ObjectMeta`.
const RESOURCE_VERSION: u32 = 6;
/// Metadata is field 1 of every kind.
const METADATA: u32 = 1;

/// Why bytes are not an object in its envelope.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the object does not start with Kubernetes' protobuf prefix \"k8s\\0\"")]
    Magic,
    #[error("read the object's envelope: {0}")]
    Envelope(Malformed),
    #[error("read the object's envelope: its {0} is not UTF-8")]
    Text(&'static str),
    #[error("read the object's metadata: {0}")]
    Object(Malformed),
    #[error("read the object's metadata: {0}")]
    Metadata(#[from] prost::DecodeError),
}

/// Puts an object's bytes into the envelope.
pub fn wrap(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(raw.len() + api_version.len() + kind.len() + 32);
    out.extend_from_slice(MAGIC);
    let type_meta = out.len();
    for (number, text) in [(1, api_version), (2, kind)] {
        if !text.is_empty() {
            wire::put_bytes(number, text.as_bytes(), &mut out);
        }
    }
    wire::wrap(1, type_meta, &mut out);
    wire::put_bytes(2, raw, &mut out);
    out
}

/// Takes an object out of its envelope, sharing the bytes.
///
/// # Errors
/// Where the prefix is missing or the envelope is not protobuf. The object itself is not looked at.
pub fn unwrap(bytes: &Bytes) -> Result<(TypeMeta, Bytes), Error> {
    let (api_version, kind, raw) = parts(bytes)?;
    let type_meta = TypeMeta { api_version: api_version.to_owned(), kind: kind.to_owned() };
    Ok((type_meta, bytes.slice_ref(raw)))
}

/// apiVersion, kind and the object's bytes, all borrowed.
///
/// # Errors
/// As [`unwrap`].
pub fn parts(bytes: &[u8]) -> Result<(&str, &str, &[u8]), Error> {
    let unknown = bytes.strip_prefix(MAGIC).ok_or(Error::Magic)?;
    let (mut api_version, mut kind, mut raw) = ("", "", &unknown[..0]);
    let mut fields = Fields::new(unknown);
    while let Some((number, value)) = fields.next().map_err(Error::Envelope)? {
        match (number, value) {
            (1, Value::Bytes(type_meta)) => {
                let mut names = Fields::new(type_meta);
                while let Some((number, value)) = names.next().map_err(Error::Envelope)? {
                    match (number, value) {
                        (1, Value::Bytes(text)) => api_version = utf8(text, "apiVersion")?,
                        (2, Value::Bytes(text)) => kind = utf8(text, "kind")?,
                        _ => {}
                    }
                }
            }
            (2, Value::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    Ok((api_version, kind, raw))
}

fn utf8<'a>(text: &'a [u8], name: &'static str) -> Result<&'a str, Error> {
    std::str::from_utf8(text).map_err(|_| Error::Text(name))
}

/// The metadata of an object of any kind, decoded; the rest is skipped.
///
/// # Errors
/// Where the bytes are not protobuf, or the metadata is not an `ObjectMeta`.
pub fn metadata(raw: &[u8]) -> Result<ObjectMeta, Error> {
    let mut metadata = ObjectMeta::default();
    let mut fields = Fields::new(raw);
    while let Some((number, value)) = fields.next().map_err(Error::Object)? {
        if let (METADATA, Value::Bytes(bytes)) = (number, value) {
            metadata.merge(bytes)?;
        }
    }
    Ok(metadata)
}

/// Puts `revision` into an object's metadata as its resource version, in place of one that is there.
///
/// The metadata's length header is rewritten and the number spliced *inside* it: two copies, no decoding. A second
/// metadata field behind the object would merge by protobuf's rules, but protobufjs 7 and ts-proto keep only the last one.
///
/// # Errors
/// Where the object or its metadata is not protobuf.
pub fn splice_resource_version(raw: &Bytes, revision: u64) -> Result<Bytes, Error> {
    let mut digits = Vec::with_capacity(20);
    {
        use std::io::Write;
        let _ = write!(digits, "{revision}");
    }
    let (before, metadata, after) = around_metadata(raw)?;
    let (head, tail) = around_resource_version(metadata)?;

    let length = head.len() + 2 + digits.len() + tail.len();
    let mut out = Vec::with_capacity(before.len() + 11 + length + after.len());
    out.extend_from_slice(before);
    wire::put_tag(METADATA, 2, &mut out);
    wire::put_varint(length as u64, &mut out);
    out.extend_from_slice(head);
    wire::put_bytes(RESOURCE_VERSION, &digits, &mut out);
    out.extend_from_slice(tail);
    out.extend_from_slice(after);
    Ok(out.into())
}

/// Before, inside, behind.
type Around<'a> = (&'a [u8], &'a [u8], &'a [u8]);

/// What stands before the last metadata field, its content, and what stands behind it.
fn around_metadata(raw: &[u8]) -> Result<Around<'_>, Error> {
    let mut fields = Fields::new(raw);
    let mut found = (&raw[..0], &raw[..0], raw);
    let mut start = 0;
    while let Some((number, value)) = fields.next().map_err(Error::Object)? {
        if let (METADATA, Value::Bytes(metadata)) = (number, value) {
            found = (&raw[..start], metadata, &raw[fields.offset()..]);
        }
        start = fields.offset();
    }
    Ok(found)
}

/// What stands before and behind the place of field 6, in number order.
fn around_resource_version(metadata: &[u8]) -> Result<(&[u8], &[u8]), Error> {
    let mut fields = Fields::new(metadata);
    let mut start = 0;
    let mut place = None;
    let mut old = None;
    while let Some((number, _)) = fields.next().map_err(Error::Object)? {
        if number == RESOURCE_VERSION {
            // The last one counts for every decoder, so it is the one to replace.
            old = Some((start, fields.offset()));
        } else if number > RESOURCE_VERSION && place.is_none() {
            place = Some((start, start));
        }
        start = fields.offset();
    }
    let (end, next) = old.or(place).unwrap_or((metadata.len(), metadata.len()));
    Ok((&metadata[..end], &metadata[next..]))
}
