//! Fingerprints: one folded over every row written, one over what can be read at a revision; and the alarms.

use std::io;

use proto::{
    etcdserverpb::{
        AlarmMember, AlarmRequest, AlarmResponse, AlarmType, RangeRequest, ResponseHeader, alarm_request::AlarmAction,
    },
    forestay::raft::v1::Position,
};

use super::{
    Applied, Refusal, Response,
    range::{Counted, range},
};
use crate::engine::{Op, View};

/// Members that applied the same commands have the same digest, however they were batched.
pub(super) fn fold(digest: u64, ops: &[Op]) -> u64 {
    ops.iter().fold(digest, |digest, op| {
        let (kind, key, value) = match op {
            Op::Put(key, value) => (1u64, key, value),
            Op::Delete(key) => (2, key, key),
            Op::DeleteRange(from, to) => (3, from, to),
        };
        let row = u64::from(crc32fast::hash(key)) << 32 | u64::from(crc32fast::hash(value));
        (digest.rotate_left(7) ^ row ^ kind).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    })
}

/// A checksum of all key-values readable at `revision` (0: now); it does not depend on how far a sweep came.
pub fn hash_kv(view: &dyn View, position: &Position, revision: i64) -> io::Result<Result<u32, Refusal>> {
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), revision, ..RangeRequest::default() };
    Ok(range(view, position, &all, &Counted::default())?.map(|found| {
        let mut hasher = crc32fast::Hasher::new();
        for kv in &found.kvs {
            hasher.update(&prost::Message::encode_length_delimited_to_vec(kv));
        }
        hasher.finalize()
    }))
}

pub(super) fn alarm(position: &mut Position, request: AlarmRequest) -> Applied {
    let alarm = AlarmMember { member_id: request.member_id, alarm: request.alarm };
    let of_kind = |known: &AlarmMember| request.alarm == AlarmType::None as i32 || known.alarm == request.alarm;
    let alarms = match request.action() {
        AlarmAction::Get => position.alarms.iter().filter(|known| of_kind(known)).cloned().collect(),
        AlarmAction::Activate => {
            if !position.alarms.contains(&alarm) {
                position.alarms.push(alarm);
            }
            vec![alarm]
        }
        AlarmAction::Deactivate => {
            let (gone, kept) = position
                .alarms
                .drain(..)
                .partition(|known| of_kind(known) && (request.member_id == 0 || known.member_id == request.member_id));
            position.alarms = kept;
            gone
        }
    };
    let header = Some(ResponseHeader { revision: position.revision, ..ResponseHeader::default() });
    Applied::answer(Response::Alarm(AlarmResponse { header, alarms }))
}
