//! Transactions: which path is taken, whether it may be, and what it changes at one revision.

use std::{cmp::Ordering, io};

use bytes::Bytes;
use proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse, RangeRequest, RequestOp,
        ResponseHeader, ResponseOp, TxnRequest, TxnResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response as OpResponse,
    },
    forestay::raft::v1::Position,
    mvccpb::KeyValue,
};

use super::{
    Applied, Refusal, Response, layout,
    mvcc::Writer,
    range::{Counted, range},
};
use crate::engine::{Overlay, View};

/// Whether nothing can be written on any path.
pub fn is_read_only(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestRange(_)) => true,
        Some(Request::RequestTxn(txn)) => is_read_only(txn),
        _ => false,
    })
}

/// Whether no path puts anything: allowed while space has run out.
pub(super) fn only_frees(txn: &TxnRequest) -> bool {
    txn.success.iter().chain(&txn.failure).all(|op| match &op.request {
        Some(Request::RequestPut(_)) => false,
        Some(Request::RequestTxn(txn)) => only_frees(txn),
        _ => true,
    })
}

/// Whether all reads may be served from what this member has.
pub fn is_serializable(txn: &TxnRequest) -> bool {
    txn.success
        .iter()
        .chain(&txn.failure)
        .all(|op| matches!(&op.request, Some(Request::RequestRange(range)) if range.serializable))
}

/// Runs a read-only Txn.
pub fn read_txn(view: &dyn View, position: &Position, txn: TxnRequest) -> io::Result<Result<TxnResponse, Refusal>> {
    let mut rows = Overlay::new(view);
    let mut unchanged = position.clone();
    Ok(apply(&mut rows, &mut unchanged, txn)?.answer.map(|response| match response {
        Response::Txn(txn) => txn,
        _ => TxnResponse::default(),
    }))
}

pub(super) fn put(rows: &mut Overlay<'_>, position: &mut Position, request: PutRequest) -> io::Result<Applied> {
    if request.lease != 0 && layout::read_lease(rows, request.lease)?.is_none() {
        return Ok(Applied::refused(Refusal::LeaseNotFound));
    }
    if (request.ignore_value || request.ignore_lease) && layout::read_latest(rows, &request.key)?.is_none() {
        return Ok(Applied::refused(Refusal::KeyNotFound));
    }
    let mut writer = Writer { rows, revision: position.revision + 1, events: Vec::new() };
    let response = run_put(&mut writer, request)?;
    let events = writer.events;
    position.revision += 1;
    Ok(Applied { answer: Ok(Response::Put(response)), events, leases: Vec::new() })
}

pub(super) fn delete_range(
    rows: &mut Overlay<'_>,
    position: &mut Position,
    request: DeleteRangeRequest,
) -> io::Result<Applied> {
    let mut writer = Writer { rows, revision: position.revision + 1, events: Vec::new() };
    let response = run_delete(&mut writer, position, request)?;
    let events = writer.events;
    position.revision += i64::from(!events.is_empty());
    Ok(Applied { answer: Ok(Response::DeleteRange(response)), events, leases: Vec::new() })
}

pub(super) fn apply(rows: &mut Overlay<'_>, position: &mut Position, txn: TxnRequest) -> io::Result<Applied> {
    let path = choose(rows, position, txn)?;
    if let Err(refusal) = may_put(rows, &path)? {
        return Ok(Applied::refused(refusal));
    }
    if let Err(refusal) = may_range(position, &path) {
        return Ok(Applied::refused(refusal));
    }
    let mut writer = Writer { rows, revision: position.revision + 1, events: Vec::new() };
    let mut response = run(&mut writer, position, path)?;
    let events = writer.events;
    position.revision += i64::from(!events.is_empty());
    response.header = header(position.revision);
    Ok(Applied { answer: Ok(Response::Txn(response)), events, leases: Vec::new() })
}

fn header(revision: i64) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision, ..ResponseHeader::default() })
}

/// The operations that will run, with nested transactions decided on the state before any of them.
struct Path {
    succeeded: bool,
    steps: Vec<Step>,
}

enum Step {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(Path),
}

fn choose(view: &dyn View, position: &Position, txn: TxnRequest) -> io::Result<Path> {
    let mut succeeded = true;
    for compare in &txn.compare {
        if !holds(view, position, compare)? {
            succeeded = false;
            break;
        }
    }
    let taken = if succeeded { txn.success } else { txn.failure };
    let steps = taken.into_iter().map(|RequestOp { request }| {
        Ok(match request {
            Some(Request::RequestPut(put)) => Step::Put(put),
            Some(Request::RequestDeleteRange(delete)) => Step::Delete(delete),
            Some(Request::RequestTxn(txn)) => Step::Txn(choose(view, position, txn)?),
            Some(Request::RequestRange(range)) => Step::Range(range),
            // Refused before it is proposed; here only to be total.
            None => Step::Txn(Path { succeeded: false, steps: Vec::new() }),
        })
    });
    Ok(Path { succeeded, steps: steps.collect::<io::Result<_>>()? })
}

fn holds(view: &dyn View, position: &Position, compare: &Compare) -> io::Result<bool> {
    let all =
        RangeRequest { key: compare.key.clone(), range_end: compare.range_end.clone(), ..RangeRequest::default() };
    let Ok(found) = range(view, position, &all, &Counted::default())? else { return Ok(false) };
    if found.kvs.is_empty() {
        // There is no way to say "a value that is absent", so any comparison of values fails.
        return Ok(compare.target() != CompareTarget::Value && matches(compare, &KeyValue::default()));
    }
    Ok(found.kvs.iter().all(|kv| matches(compare, kv)))
}

fn matches(compare: &Compare, kv: &KeyValue) -> bool {
    let number = |wanted: Option<i64>, actual: i64| actual.cmp(&wanted.unwrap_or_default());
    let union = compare.target_union.as_ref();
    // As in etcd, a target that is not known compares as equal, and a result that is not known holds.
    let (target, result) = (CompareTarget::try_from(compare.target), CompareResult::try_from(compare.result));
    let order = match target {
        Err(_) => Ordering::Equal,
        Ok(CompareTarget::Value) => {
            let wanted = match union {
                Some(TargetUnion::Value(value)) => value.as_ref(),
                _ => &[],
            };
            kv.value.as_ref().cmp(wanted)
        }
        Ok(CompareTarget::Create) => number(
            if let Some(TargetUnion::CreateRevision(wanted)) = union { Some(*wanted) } else { None },
            kv.create_revision,
        ),
        Ok(CompareTarget::Mod) => number(
            if let Some(TargetUnion::ModRevision(wanted)) = union { Some(*wanted) } else { None },
            kv.mod_revision,
        ),
        Ok(CompareTarget::Version) => {
            number(if let Some(TargetUnion::Version(wanted)) = union { Some(*wanted) } else { None }, kv.version)
        }
        Ok(CompareTarget::Lease) => {
            number(if let Some(TargetUnion::Lease(wanted)) = union { Some(*wanted) } else { None }, kv.lease)
        }
    };
    match result {
        Ok(CompareResult::Equal) => order == Ordering::Equal,
        Ok(CompareResult::NotEqual) => order != Ordering::Equal,
        Ok(CompareResult::Greater) => order == Ordering::Greater,
        Ok(CompareResult::Less) => order == Ordering::Less,
        Err(_) => true,
    }
}

fn may_put(view: &dyn View, path: &Path) -> io::Result<Result<(), Refusal>> {
    for step in &path.steps {
        let allowed = match step {
            Step::Put(put)
                if (put.ignore_value || put.ignore_lease) && layout::read_latest(view, &put.key)?.is_none() =>
            {
                Err(Refusal::KeyNotFound)
            }
            Step::Put(put) if put.lease != 0 && layout::read_lease(view, put.lease)?.is_none() => {
                Err(Refusal::LeaseNotFound)
            }
            Step::Txn(path) => may_put(view, path)?,
            _ => Ok(()),
        };
        if allowed.is_err() {
            return Ok(allowed);
        }
    }
    Ok(Ok(()))
}

fn may_range(position: &Position, path: &Path) -> Result<(), Refusal> {
    path.steps.iter().try_for_each(|step| match step {
        Step::Range(range) if range.revision > position.revision => Err(Refusal::FutureRevision),
        Step::Range(range) if range.revision != 0 && range.revision < position.compacted_revision => {
            Err(Refusal::Compacted)
        }
        Step::Txn(path) => may_range(position, path),
        _ => Ok(()),
    })
}

fn run(writer: &mut Writer<'_, '_>, position: &Position, path: Path) -> io::Result<TxnResponse> {
    let mut responses = Vec::with_capacity(path.steps.len());
    for step in path.steps {
        let response = match step {
            Step::Range(request) => {
                // Reads see the writes before them in the same transaction.
                let now =
                    Position { revision: position.revision + i64::from(!writer.events.is_empty()), ..position.clone() };
                OpResponse::ResponseRange(
                    range(&*writer.rows, &now, &request, &Counted::default())?.unwrap_or_default(),
                )
            }
            Step::Put(put) => OpResponse::ResponsePut(run_put(writer, put)?),
            Step::Delete(delete) => OpResponse::ResponseDeleteRange(run_delete(writer, position, delete)?),
            Step::Txn(path) => OpResponse::ResponseTxn(run(writer, position, path)?),
        };
        responses.push(ResponseOp { response: Some(response) });
    }
    Ok(TxnResponse { header: Some(ResponseHeader::default()), succeeded: path.succeeded, responses })
}

fn run_put(writer: &mut Writer<'_, '_>, request: PutRequest) -> io::Result<PutResponse> {
    let (mut value, mut lease) = (request.value, request.lease);
    if (request.ignore_value || request.ignore_lease)
        && let Some(latest) = layout::read_latest(&*writer.rows, &request.key)?
    {
        let kept = layout::whole(&*writer.rows, latest)?;
        if request.ignore_value {
            value = kept.value;
        }
        if request.ignore_lease {
            lease = kept.lease;
        }
    }
    let previous = writer.put(request.key, value, lease)?;
    Ok(PutResponse { header: header(writer.revision), prev_kv: previous.filter(|_| request.prev_kv) })
}

fn run_delete(
    writer: &mut Writer<'_, '_>,
    position: &Position,
    request: DeleteRangeRequest,
) -> io::Result<DeleteRangeResponse> {
    let doomed: Vec<Bytes> = {
        let keys =
            RangeRequest { key: request.key, range_end: request.range_end, keys_only: true, ..RangeRequest::default() };
        let now = Position { revision: writer.revision, compacted_revision: -1, ..Position::default() };
        let found = range(&*writer.rows, &now, &keys, &Counted::default())?.unwrap_or_default();
        found.kvs.into_iter().map(|kv| kv.key).collect()
    };
    let mut prev_kvs = Vec::new();
    for key in &doomed {
        let previous = writer.delete(key)?;
        if request.prev_kv {
            prev_kvs.extend(previous);
        }
    }
    let revision = if writer.events.is_empty() { position.revision } else { writer.revision };
    Ok(DeleteRangeResponse { header: header(revision), deleted: doomed.len() as i64, prev_kvs })
}
