//! Where each fact stands among the rows of the state: one-byte prefixes, big-endian numbers, our own messages.
//!
//! | prefix | key | value |
//! |---|---|---|
//! | `a` | lease id, user key | nothing: the key is attached to the lease |
//! | `k` | user key | [`Latest`]: the newest version of a live key |
//! | `l` | lease id | [`LeaseRecord`] |
//! | `m` | member id | [`Peer`]: what a member told of itself |
//! | `p` | | [`Position`] |
//! | `r` | revision, sub | [`Change`]: the history |
//! | `s` | | revision up to which the background sweep has come |
//! | `v` | escaped user key, inverted revision | [`Version`]: newest first |

use std::{io, ops::ControlFlow};

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;
use proto::{
    forestay::raft::v1::{Change, LeaseRecord, Peer, Position, Version},
    mvccpb::KeyValue,
};

pub use proto::forestay::raft::v1::Latest;

use crate::engine::{View, after_prefix};

pub const POSITION: &[u8] = b"p";
pub const SWEPT: &[u8] = b"s";

/// Values up to this size stand in the row of the key too; larger ones in the history only.
pub const INLINE_BYTES_MAX: usize = 4096;

pub fn change_key(revision: i64, sub: u32) -> Bytes {
    let mut key = BytesMut::with_capacity(13);
    key.put_u8(b'r');
    key.put_u64(revision as u64);
    key.put_u32(sub);
    key.freeze()
}

pub fn split_change_key(key: &[u8]) -> Option<(i64, u32)> {
    let revision = key.get(1..9)?.try_into().ok()?;
    let sub = key.get(9..13)?.try_into().ok()?;
    Some((u64::from_be_bytes(revision) as i64, u32::from_be_bytes(sub)))
}

pub fn latest_key(key: &[u8]) -> Bytes {
    prefixed(b'k', key)
}

pub fn lease_key(id: i64) -> Bytes {
    prefixed(b'l', &id.to_be_bytes())
}

pub fn split_lease_key(key: &[u8]) -> Option<i64> {
    Some(i64::from_be_bytes(key.get(1..9)?.try_into().ok()?))
}

pub fn member_key(id: u64) -> Bytes {
    prefixed(b'm', &id.to_be_bytes())
}

/// What members told of themselves.
pub fn members(view: &dyn View) -> io::Result<Vec<(u64, Peer)>> {
    let mut found = Vec::new();
    view.scan(b"m", &after_prefix(b"m"), &mut |row, peer| {
        if let Some(id) = row.get(1..9).and_then(|id| id.try_into().ok()) {
            found.push((u64::from_be_bytes(id), decode("a member", peer)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}

pub fn attachment_key(lease: i64, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(9 + key.len());
    row.put_u8(b'a');
    row.put_i64(lease);
    row.put_slice(key);
    row.freeze()
}

/// All versions of one key, without the revision.
pub fn versions_prefix(key: &[u8]) -> BytesMut {
    let mut row = BytesMut::with_capacity(11 + key.len());
    row.put_u8(b'v');
    escape(key, &mut row);
    row.put_slice(&[0, 1]);
    row
}

pub fn version_key(key: &[u8], revision: i64) -> Bytes {
    let mut row = versions_prefix(key);
    row.put_u64(!(revision as u64));
    row.freeze()
}

/// User key and revision of a row of the version index.
pub fn split_version_key(row: &[u8]) -> Option<(Vec<u8>, i64)> {
    let (escaped, revision) = row.get(1..)?.split_last_chunk::<8>()?;
    let escaped = escaped.strip_suffix(&[0, 1])?;
    let mut key = Vec::with_capacity(escaped.len());
    let mut bytes = escaped.iter();
    while let Some(byte) = bytes.next() {
        key.push(*byte);
        if *byte == 0 {
            bytes.next();
        }
    }
    Some((key, !u64::from_be_bytes(*revision) as i64))
}

/// Zero becomes zero and 255, so that the end mark, zero and one, sorts before every longer key.
pub fn escape(key: &[u8], row: &mut BytesMut) {
    for byte in key {
        row.put_u8(*byte);
        if *byte == 0 {
            row.put_u8(0xff);
        }
    }
}

fn prefixed(prefix: u8, key: &[u8]) -> Bytes {
    let mut row = BytesMut::with_capacity(1 + key.len());
    row.put_u8(prefix);
    row.put_slice(key);
    row.freeze()
}

pub fn decode<M: Message + Default>(what: &str, bytes: impl bytes::Buf) -> io::Result<M> {
    M::decode(bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("decode {what} of the state: {error}")))
}

pub fn read_position(view: &dyn View) -> io::Result<Option<Position>> {
    view.get(POSITION)?.map(|bytes| decode::<Position>("the position", bytes)).transpose()
}

pub fn read_latest(view: &dyn View, key: &[u8]) -> io::Result<Option<Latest>> {
    view.get(&latest_key(key))?.map(|bytes| decode("a key", bytes)).transpose()
}

pub fn read_change(view: &dyn View, revision: i64, sub: u32) -> io::Result<Option<Change>> {
    view.get(&change_key(revision, sub))?.map(|bytes| decode("a change", bytes)).transpose()
}

pub fn read_lease(view: &dyn View, id: i64) -> io::Result<Option<LeaseRecord>> {
    view.get(&lease_key(id))?.map(|bytes| decode("a lease", bytes)).transpose()
}

pub fn decode_version(bytes: &[u8]) -> io::Result<Version> {
    decode("a version", bytes)
}

/// The whole key-value of a newest version, its value fetched from the history where it is large.
pub fn whole(view: &dyn View, latest: Latest) -> io::Result<KeyValue> {
    let kv = latest.kv.unwrap_or_default();
    if !latest.value_in_change {
        return Ok(kv);
    }
    read_change(view, kv.mod_revision, latest.sub)?.and_then(|change| change.kv).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the change of revision {} is missing from the history", kv.mod_revision),
        )
    })
}
