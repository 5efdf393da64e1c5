//! What can be said about a request without looking at the store.

use std::collections::BTreeSet;

use bytes::Bytes;
use proto::etcdserverpb::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, request_op::Request};

use super::Refusal;

/// Seconds; etcd's bound.
pub const MAX_LEASE_TTL: i64 = 9_000_000_000;

/// # Errors
/// The key is missing or the sort option is not one.
pub fn check_range(request: &RangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if !(0..=2).contains(&request.sort_order) || !(0..=4).contains(&request.sort_target) {
        return Err(Refusal::InvalidSortOption);
    }
    Ok(())
}

/// # Errors
/// The key is missing, or a part is given that is to be kept.
pub fn check_put(request: &PutRequest) -> Result<(), Refusal> {
    if request.key.is_empty() {
        return Err(Refusal::EmptyKey);
    }
    if request.ignore_value && !request.value.is_empty() {
        return Err(Refusal::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(Refusal::LeaseProvided);
    }
    Ok(())
}

/// # Errors
/// The key is missing.
pub fn check_delete(request: &DeleteRangeRequest) -> Result<(), Refusal> {
    if request.key.is_empty() { Err(Refusal::EmptyKey) } else { Ok(()) }
}

/// # Errors
/// A part is malformed, there are too many operations, or one key would be changed twice.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    check_ops(request, ops_max)?;
    intervals(&request.success)?;
    intervals(&request.failure)?;
    Ok(())
}

fn check_ops(request: &TxnRequest, ops_max: usize) -> Result<(), Refusal> {
    let ops = request.compare.len().max(request.success.len()).max(request.failure.len());
    if ops > ops_max {
        return Err(Refusal::TooManyOps);
    }
    if request.compare.iter().any(|compare| compare.key.is_empty()) {
        return Err(Refusal::EmptyKey);
    }
    for op in request.success.iter().chain(&request.failure) {
        match &op.request {
            Some(Request::RequestRange(range)) => check_range(range)?,
            Some(Request::RequestPut(put)) => check_put(put)?,
            Some(Request::RequestDeleteRange(delete)) => check_delete(delete)?,
            // Depth is bounded with it: every level takes at least one operation.
            Some(Request::RequestTxn(txn)) => check_ops(txn, ops_max - ops)?,
            None => return Err(Refusal::KeyNotFound),
        }
    }
    Ok(())
}

#[derive(Default)]
struct Touched {
    puts: BTreeSet<Bytes>,
    deletes: Vec<(Bytes, Bytes)>,
}

impl Touched {
    fn deletes_hit(&self, key: &Bytes) -> bool {
        self.deletes.iter().any(|(from, end)| match end.as_ref() {
            [] => from == key,
            // etcd reads an end of zero literally here, so that an unbounded delete forbids no put; so do we.
            end => from <= key && key.as_ref() < end,
        })
    }
}

/// No key may be put twice, or put and deleted, on one path; `then` and `else` of a nested Txn exclude each other.
fn intervals(ops: &[RequestOp]) -> Result<Touched, Refusal> {
    let mut touched = Touched::default();
    for op in ops {
        if let Some(Request::RequestDeleteRange(delete)) = &op.request {
            touched.deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let Some(Request::RequestTxn(txn)) = &op.request else { continue };
        let (then, otherwise) = (intervals(&txn.success)?, intervals(&txn.failure)?);
        for key in &then.puts {
            if touched.puts.contains(key) || touched.deletes_hit(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        touched.puts.extend(then.puts.iter().cloned());
        for key in &otherwise.puts {
            if (touched.puts.contains(key) && !then.puts.contains(key)) || touched.deletes_hit(key) {
                return Err(Refusal::DuplicateKey);
            }
        }
        touched.puts.extend(otherwise.puts);
        touched.deletes.extend(then.deletes);
        touched.deletes.extend(otherwise.deletes);
    }
    for op in ops {
        let Some(Request::RequestPut(put)) = &op.request else { continue };
        if touched.puts.contains(&put.key) || touched.deletes_hit(&put.key) {
            return Err(Refusal::DuplicateKey);
        }
        touched.puts.insert(put.key.clone());
    }
    Ok(touched)
}
