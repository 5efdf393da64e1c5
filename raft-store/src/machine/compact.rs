//! Forgetting superseded versions: the log says from when on they may not be read, a background sweep deletes them.

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use proto::{
    etcdserverpb::{CompactionRequest, CompactionResponse, ResponseHeader},
    forestay::raft::v1::{Change, Position},
};

use super::{Applied, Refusal, Response, layout};
use crate::engine::{Batch, View, after_prefix};

pub(super) fn apply(position: &mut Position, request: &CompactionRequest) -> Applied {
    if request.revision <= position.compacted_revision {
        return Applied::refused(Refusal::Compacted);
    }
    if request.revision > position.revision {
        return Applied::refused(Refusal::FutureRevision);
    }
    position.compacted_revision = request.revision;
    let header = Some(ResponseHeader { revision: position.revision, ..ResponseHeader::default() });
    Applied::answer(Response::Compact(CompactionResponse { header }))
}

/// One slice of the sweep.
pub struct Sweep {
    /// Rows nobody may read any more, and the mark of how far the sweep came.
    pub batch: Batch,
    /// The revision the next slice begins with.
    pub next: i64,
    pub is_done: bool,
}

/// Finds rows that no read at `compacted` or later can reach, looking at `changes_max` changes from revision `from` on.
///
/// Each change up to `compacted` makes the version before it unreachable; an end of a key is itself unreachable once
/// `compacted` has passed it (a watch from `compacted` must still see the one that stands there).
pub fn sweep(view: &dyn View, from: i64, compacted: i64, changes_max: usize) -> io::Result<Sweep> {
    let mut changes: Vec<(i64, u32, Bytes, bool)> = Vec::new();
    let mut next = compacted;
    let mut is_done = true;
    let mut last = from;
    view.scan(&layout::change_key(from, 0), &layout::change_key(compacted + 1, 0), &mut |row, change| {
        let Some((revision, sub)) = layout::split_change_key(row) else { return Ok(ControlFlow::Continue(())) };
        if changes.len() >= changes_max && revision != last {
            next = revision;
            is_done = false;
            return Ok(ControlFlow::Break(()));
        }
        last = revision;
        let change: Change = layout::decode("a change", change)?;
        changes.push((revision, sub, change.kv.unwrap_or_default().key, change.deleted));
        Ok(ControlFlow::Continue(()))
    })?;
    let mut batch = Batch::default();
    for (revision, sub, key, deleted) in changes {
        let older = layout::version_key(&key, revision - 1);
        view.scan(&older, &after_prefix(&layout::versions_prefix(&key)), &mut |row, version| {
            if let Some((_, superseded)) = layout::split_version_key(row) {
                batch.delete(Bytes::copy_from_slice(row));
                batch.delete(layout::change_key(superseded, layout::decode_version(version)?.sub));
            }
            Ok(ControlFlow::Continue(()))
        })?;
        // A transaction that deletes and puts one key leaves two changes at one revision; the index names the last.
        let version =
            view.get(&layout::version_key(&key, revision))?.map(|row| layout::decode_version(&row)).transpose()?;
        let is_last = version.is_none_or(|version| version.sub == sub);
        if revision < compacted && (deleted || !is_last) {
            batch.delete(layout::change_key(revision, sub));
            if is_last {
                batch.delete(layout::version_key(&key, revision));
            }
        }
    }
    batch.put(layout::SWEPT, Bytes::copy_from_slice(&next.to_be_bytes()));
    Ok(Sweep { batch, next, is_done })
}
