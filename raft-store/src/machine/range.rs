//! Reading keys: etcd's Range with every option, at the current or an earlier revision.

use std::{cmp::Ordering, io, ops::ControlFlow};

use bytes::BytesMut;
use proto::{
    etcdserverpb::{
        RangeRequest, RangeResponse, ResponseHeader,
        range_request::{SortOrder, SortTarget},
    },
    forestay::raft::v1::Position,
    mvccpb::KeyValue,
};

use super::{
    Refusal,
    layout::{self, Latest},
    mvcc,
};
use crate::engine::{View, after_prefix};

/// What is known about the number of keys, and what was found out.
///
/// A client that reads page by page at one revision asks for the number of keys left each time. It is counted on the
/// first page and subtracted from on the others: what stands at a revision does not change.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Keys of the range at that revision, where a page before told.
    pub known: Option<i64>,
}

/// The interval `[key, end)` of a request; `None` is without end.
pub fn single_key(range_end: &[u8]) -> bool {
    range_end.is_empty()
}

fn unbounded(range_end: &[u8]) -> bool {
    range_end == [0]
}

/// Reads keys as `request` says. The header carries the revision of the view.
pub fn range(
    view: &dyn View,
    position: &Position,
    request: &RangeRequest,
    counted: &Counted,
) -> io::Result<Result<RangeResponse, Refusal>> {
    if request.revision > position.revision {
        return Ok(Err(Refusal::FutureRevision));
    }
    let revision = if request.revision > 0 { request.revision } else { position.revision };
    if revision < position.compacted_revision {
        return Ok(Err(Refusal::Compacted));
    }
    let prunes = request.min_mod_revision != 0
        || request.max_mod_revision != 0
        || request.min_create_revision != 0
        || request.max_create_revision != 0;
    let order = sort_order(request);
    // Sorting and pruning need all keys first.
    let fetches_all = request.sort_order() != SortOrder::None || prunes;
    let fetch = if request.count_only {
        Some(0)
    } else if fetches_all || request.limit <= 0 {
        None
    } else {
        Some(request.limit as usize + 1)
    };
    let gather = Gather { view, request, fetch, kvs: Vec::new(), count: 0, known: counted.known };
    let Found { mut kvs, count } =
        if revision == position.revision { gather.current()? } else { gather.at(revision)? };

    if prunes {
        let keep = |revision: i64, min: i64, max: i64| (max == 0 || revision <= max) && (min == 0 || revision >= min);
        kvs.retain(|kv| {
            keep(kv.mod_revision, request.min_mod_revision, request.max_mod_revision)
                && keep(kv.create_revision, request.min_create_revision, request.max_create_revision)
        });
    }
    match order {
        SortOrder::None => {}
        SortOrder::Ascend => kvs.sort_by(|a, b| compare(request.sort_target(), a, b)),
        SortOrder::Descend => kvs.sort_by(|a, b| compare(request.sort_target(), b, a)),
    }
    let more = request.limit > 0 && kvs.len() > request.limit as usize;
    if more {
        kvs.truncate(request.limit as usize);
    }
    if request.keys_only {
        for kv in &mut kvs {
            kv.value.clear();
        }
    }
    let header = ResponseHeader { revision: position.revision, ..ResponseHeader::default() };
    Ok(Ok(RangeResponse { header: Some(header), kvs, more, count }))
}

fn sort_order(request: &RangeRequest) -> SortOrder {
    match request.sort_order() {
        // Keys come in their order anyway; any other target is sorted upwards unless said otherwise.
        SortOrder::None if request.sort_target() != SortTarget::Key => SortOrder::Ascend,
        order => order,
    }
}

fn compare(target: SortTarget, a: &KeyValue, b: &KeyValue) -> Ordering {
    match target {
        SortTarget::Key => a.key.cmp(&b.key),
        SortTarget::Version => a.version.cmp(&b.version),
        SortTarget::Create => a.create_revision.cmp(&b.create_revision),
        SortTarget::Mod => a.mod_revision.cmp(&b.mod_revision),
        SortTarget::Value => a.value.cmp(&b.value),
    }
}

struct Found {
    kvs: Vec<KeyValue>,
    count: i64,
}

struct Gather<'a> {
    view: &'a dyn View,
    request: &'a RangeRequest,
    /// How many key-values are needed; `None` is all.
    fetch: Option<usize>,
    kvs: Vec<KeyValue>,
    count: i64,
    known: Option<i64>,
}

impl Gather<'_> {
    fn wants_more(&self) -> bool {
        self.fetch.is_none_or(|fetch| self.kvs.len() < fetch)
    }

    /// Nothing is left to fetch, and the count is known already.
    fn is_done(&self) -> bool {
        !self.wants_more() && self.known.is_some()
    }

    fn found(self) -> Found {
        Found { count: self.known.unwrap_or(self.count), kvs: self.kvs }
    }

    fn needs_value(&self) -> bool {
        !self.request.keys_only || self.request.sort_target() == SortTarget::Value
    }

    fn current(mut self) -> io::Result<Found> {
        let (key, end) = (&self.request.key, &self.request.range_end);
        if single_key(end) {
            if let Some(latest) = layout::read_latest(self.view, key)? {
                self.count = 1;
                if self.wants_more() {
                    self.kvs.push(layout::whole(self.view, latest)?);
                }
            }
            return Ok(self.found());
        }
        let from = layout::latest_key(key);
        let to = if unbounded(end) { after_prefix(b"k") } else { layout::latest_key(end).to_vec() };
        let view = self.view;
        view.scan(&from, &to, &mut |_, row| {
            self.count += 1;
            if self.wants_more() {
                let latest: Latest = layout::decode("a key", row)?;
                let kv = if self.needs_value() { layout::whole(view, latest)? } else { latest.kv.unwrap_or_default() };
                self.kvs.push(kv);
            }
            Ok(if self.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(self.found())
    }

    fn at(mut self, revision: i64) -> io::Result<Found> {
        let (key, end) = (&self.request.key, &self.request.range_end);
        if single_key(end) {
            if let Some(kv) = mvcc::version_at(self.view, key, revision)? {
                self.count = 1;
                if self.wants_more() {
                    self.kvs.push(kv);
                }
            }
            return Ok(self.found());
        }
        let bound = |key: &[u8]| {
            let mut row = BytesMut::from(&b"v"[..]);
            layout::escape(key, &mut row);
            row.to_vec()
        };
        let to = if unbounded(end) { after_prefix(b"v") } else { bound(end) };
        let view = self.view;
        // Versions of a key stand together, newest first: the first one that is old enough decides.
        let mut decided: Vec<u8> = Vec::new();
        view.scan(&bound(key), &to, &mut |row, version| {
            let Some((user_key, row_revision)) = layout::split_version_key(row) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a row of the version index has no revision"));
            };
            let versions_of = &row[..row.len() - 8];
            if row_revision > revision || decided == versions_of || user_key.as_slice() < key.as_ref() {
                return Ok(ControlFlow::Continue(()));
            }
            decided.clear();
            decided.extend_from_slice(versions_of);
            let version = layout::decode_version(version)?;
            if !version.deleted {
                self.count += 1;
                if self.wants_more() {
                    let change = layout::read_change(view, row_revision, version.sub)?;
                    self.kvs.extend(change.and_then(|change| change.kv));
                }
            }
            Ok(if self.is_done() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(self.found())
    }
}
