//! What a committed command changes: a function of the rows and the command, and of nothing else.
//!
//! Every replica runs this on the same rows and must reach the same bytes, so time, randomness, I/O of its own and
//! map order stay outside. A refused command is an answer, not an error; an error means that the rows could not be read.

mod check;
mod compact;
mod hash;
pub mod layout;
mod lease;
mod mvcc;
mod range;
mod refusal;
mod txn;

use std::io;

use proto::{
    etcdserverpb::{
        AlarmResponse, AlarmType, CompactionResponse, DeleteRangeResponse, LeaseCheckpointResponse, LeaseGrantResponse,
        LeaseRevokeResponse, PutResponse, TxnResponse,
    },
    forestay::raft::v1::{Command, Position, command::Action},
    mvccpb::Event,
};

use crate::engine::Overlay;

pub use check::{MAX_LEASE_TTL, check_delete, check_put, check_range, check_txn};
pub use compact::{Sweep, sweep};
pub use hash::hash_kv;
pub use layout::members as published;
pub use lease::{keys_of, leases};
pub use mvcc::changes_between;
pub use range::{Counted, range, single_key};
pub use refusal::Refusal;
pub use txn::{is_read_only, is_serializable, read_txn};

/// The newest machine this build can run. A store runs an older one until every member can run the newer.
pub const MACHINE_VERSION: u32 = 1;

/// The layout of rows this build reads and writes.
pub const FORMAT: u32 = 1;

/// A store before its first command. Revisions begin at 1, as in etcd.
pub fn origin() -> Position {
    Position { format: FORMAT, machine_version: 1, revision: 1, compacted_revision: -1, ..Position::default() }
}

/// The answer to a command that was not refused. Headers carry the revision only.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    Put(PutResponse),
    DeleteRange(DeleteRangeResponse),
    Txn(TxnResponse),
    Compact(CompactionResponse),
    LeaseGrant(LeaseGrantResponse),
    LeaseRevoke(LeaseRevokeResponse),
    LeaseCheckpoint(LeaseCheckpointResponse),
    Alarm(AlarmResponse),
    /// A command of the store itself, or no command.
    Done,
}

/// What the keeper of deadlines has to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseChange {
    Granted { id: i64, ttl_seconds: i64 },
    Revoked { id: i64 },
}

/// What one command did.
#[derive(Debug)]
pub struct Applied {
    pub answer: Result<Response, Refusal>,
    /// All events of the one revision this command made, or none.
    pub events: Vec<Event>,
    pub leases: Vec<LeaseChange>,
}

impl Applied {
    fn answer(response: Response) -> Applied {
        Applied { answer: Ok(response), events: Vec::new(), leases: Vec::new() }
    }

    fn refused(refusal: Refusal) -> Applied {
        Applied { answer: Err(refusal), events: Vec::new(), leases: Vec::new() }
    }
}

/// Works out what one committed command changes; the changes are left in `rows` and `position`.
///
/// # Errors
/// The rows could not be read, or do not decode: the member must stop.
pub fn apply(rows: &mut Overlay<'_>, position: &mut Position, command: Command) -> io::Result<Applied> {
    match position.machine_version {
        1 => v1(rows, position, command),
        unknown => Err(io::Error::other(format!(
            "machine version {unknown} is not known to this build, which runs up to {MACHINE_VERSION}: start a newer build"
        ))),
    }
}

fn v1(rows: &mut Overlay<'_>, position: &mut Position, command: Command) -> io::Result<Applied> {
    let before = rows.len();
    let full = position.alarms.iter().any(|alarm| alarm.alarm == AlarmType::Nospace as i32);
    let applied = match command.action {
        Some(Action::Put(_) | Action::LeaseGrant(_)) if full => Applied::refused(Refusal::NoSpace),
        Some(Action::Txn(txn)) if full && !txn::only_frees(&txn) => Applied::refused(Refusal::NoSpace),
        Some(Action::Put(put)) => txn::put(rows, position, put)?,
        Some(Action::DeleteRange(delete)) => txn::delete_range(rows, position, delete)?,
        Some(Action::Txn(txn)) => txn::apply(rows, position, txn)?,
        Some(Action::Compact(compaction)) => compact::apply(position, &compaction),
        Some(Action::LeaseGrant(grant)) => lease::grant(rows, position, grant)?,
        Some(Action::LeaseRevoke(revoke)) => lease::revoke(rows, position, revoke.id)?,
        Some(Action::LeaseCheckpoint(checkpoint)) => lease::checkpoint(rows, position, checkpoint)?,
        Some(Action::Alarm(alarm)) => hash::alarm(position, alarm),
        Some(Action::Found(found)) => {
            if position.cluster_id == 0 {
                position.cluster_id = found.cluster_id;
            }
            Applied::answer(Response::Done)
        }
        Some(Action::RaiseMachineVersion(raise)) => {
            position.machine_version = position.machine_version.max(raise.version);
            Applied::answer(Response::Done)
        }
        Some(Action::Publish(publish)) => {
            let peer = publish.peer.unwrap_or_default();
            rows.put(layout::member_key(publish.member_id), prost::Message::encode_to_vec(&peer).into());
            Applied::answer(Response::Done)
        }
        // A command of a newer build; it may be proposed only once the machine version says that all know it.
        None => Applied::answer(Response::Done),
    };
    position.digest = hash::fold(position.digest, rows.since(before));
    Ok(applied)
}
