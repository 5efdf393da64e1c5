//! Leases as the log sees them: granted, revoked, checkpointed. Deadlines are kept outside; expiry is a revoke in the log.

use std::{io, ops::ControlFlow};

use bytes::Bytes;
use prost::Message;
use proto::{
    etcdserverpb::{
        LeaseCheckpointRequest, LeaseCheckpointResponse, LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeResponse,
        ResponseHeader,
    },
    forestay::raft::v1::{LeaseRecord, Position},
};

use super::{Applied, LeaseChange, MAX_LEASE_TTL, Refusal, Response, layout, mvcc::Writer};
use crate::engine::{Overlay, View, after_prefix};

/// Seconds. A shorter lease could end during one election.
const MIN_LEASE_TTL: i64 = 2;

fn header(position: &Position) -> Option<ResponseHeader> {
    Some(ResponseHeader { revision: position.revision, ..ResponseHeader::default() })
}

pub(super) fn grant(rows: &mut Overlay<'_>, position: &Position, request: LeaseGrantRequest) -> io::Result<Applied> {
    if request.ttl > MAX_LEASE_TTL {
        return Ok(Applied::refused(Refusal::LeaseTtlTooLarge));
    }
    if layout::read_lease(rows, request.id)?.is_some() {
        return Ok(Applied::refused(Refusal::LeaseExists));
    }
    let ttl_seconds = request.ttl.max(MIN_LEASE_TTL);
    let record = LeaseRecord { ttl_seconds, remaining_seconds: 0 };
    rows.put(layout::lease_key(request.id), record.encode_to_vec().into());
    let response =
        LeaseGrantResponse { header: header(position), id: request.id, ttl: ttl_seconds, error: String::new() };
    Ok(Applied {
        answer: Ok(Response::LeaseGrant(response)),
        events: Vec::new(),
        leases: vec![LeaseChange::Granted { id: request.id, ttl_seconds }],
    })
}

pub(super) fn revoke(rows: &mut Overlay<'_>, position: &mut Position, id: i64) -> io::Result<Applied> {
    if layout::read_lease(rows, id)?.is_none() {
        return Ok(Applied::refused(Refusal::LeaseNotFound));
    }
    let keys = keys_of(rows, id)?;
    rows.delete(layout::lease_key(id));
    let mut writer = Writer { rows, revision: position.revision + 1, events: Vec::new() };
    for key in &keys {
        writer.delete(key)?;
    }
    let events = writer.events;
    position.revision += i64::from(!events.is_empty());
    Ok(Applied {
        answer: Ok(Response::LeaseRevoke(LeaseRevokeResponse { header: header(position) })),
        events,
        leases: vec![LeaseChange::Revoked { id }],
    })
}

pub(super) fn checkpoint(
    rows: &mut Overlay<'_>,
    position: &Position,
    request: LeaseCheckpointRequest,
) -> io::Result<Applied> {
    for checkpoint in request.checkpoints {
        if let Some(record) = layout::read_lease(rows, checkpoint.id)? {
            let record = LeaseRecord { remaining_seconds: checkpoint.remaining_ttl, ..record };
            rows.put(layout::lease_key(checkpoint.id), record.encode_to_vec().into());
        }
    }
    Ok(Applied::answer(Response::LeaseCheckpoint(LeaseCheckpointResponse { header: header(position) })))
}

/// Keys attached to a lease, in their order.
pub fn keys_of(view: &dyn View, id: i64) -> io::Result<Vec<Bytes>> {
    let prefix = layout::attachment_key(id, &[]);
    let mut keys = Vec::new();
    view.scan(&prefix, &after_prefix(&prefix), &mut |row, _| {
        keys.push(Bytes::copy_from_slice(&row[prefix.len()..]));
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(keys)
}

/// All leases that are in force.
pub fn leases(view: &dyn View) -> io::Result<Vec<(i64, LeaseRecord)>> {
    let mut found = Vec::new();
    view.scan(b"l", &after_prefix(b"l"), &mut |row, record| {
        if let Some(id) = layout::split_lease_key(row) {
            found.push((id, layout::decode("a lease", record)?));
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(found)
}
