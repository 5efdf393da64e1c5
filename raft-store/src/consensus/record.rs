//! Between openraft's types and the messages that are kept and sent: the only place where the two meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use openraft::{
    EntryPayload, Membership,
    alias::*,
    impls::leader_id_std::LeaderId,
    raft::{
        AppendEntriesRequest, StreamAppendError, StreamAppendResult, TransferLeaderRequest, VoteRequest, VoteResponse,
    },
    storage::SnapshotMeta,
    vote::RaftLeaderId,
};
use proto::forestay::raft::v1 as wire;

use super::{Proposal, Types};
use crate::machine::Response;

/// The format of a snapshot on its way that this build knows.
const SNAPSHOT_FORMAT: u32 = 1;

pub fn log_id_out(id: &LogIdOf<Types>) -> wire::LogId {
    wire::LogId { term: id.committed_leader_id().term, index: id.index() }
}

pub fn log_id_in(id: &wire::LogId) -> LogIdOf<Types> {
    LogIdOf::<Types>::new(id.term.into(), id.index)
}

pub fn vote_out(vote: &VoteOf<Types>) -> wire::Vote {
    wire::Vote { term: vote.leader_id().term, member: *vote.leader_id().node_id(), committed: vote.is_committed() }
}

pub fn vote_in(vote: &wire::Vote) -> VoteOf<Types> {
    if vote.committed {
        VoteOf::<Types>::new_committed(vote.term, vote.member)
    } else {
        VoteOf::<Types>::new(vote.term, vote.member)
    }
}

pub fn membership_out(membership: &Membership<u64, wire::Peer>) -> wire::Membership {
    wire::Membership {
        voters: membership
            .get_joint_config()
            .iter()
            .map(|set| wire::Voters { members: set.iter().copied().collect() })
            .collect(),
        peers: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
    }
}

fn membership_in(membership: &wire::Membership) -> io::Result<Membership<u64, wire::Peer>> {
    if membership.voters.is_empty() && membership.peers.is_empty() {
        return Ok(Membership::default());
    }
    let sets: Vec<BTreeSet<u64>> =
        membership.voters.iter().map(|voters| voters.members.iter().copied().collect()).collect();
    let peers: BTreeMap<u64, wire::Peer> = membership.peers.iter().map(|(id, peer)| (*id, peer.clone())).collect();
    Membership::new(sets, peers).map_err(|error| invalid(format!("read a membership: {error}")))
}

pub fn stored_out(stored: &StoredMembershipOf<Types>) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_out),
        membership: Some(membership_out(stored.membership())),
    }
}

pub fn stored_in(stored: Option<&wire::StoredMembership>) -> io::Result<StoredMembershipOf<Types>> {
    let Some(stored) = stored else { return Ok(StoredMembershipOf::<Types>::default()) };
    let membership = stored.membership.as_ref().map(membership_in).transpose()?.unwrap_or_default();
    Ok(StoredMembershipOf::<Types>::new(stored.log_id.as_ref().map(log_id_in), membership))
}

pub fn entry_out(entry: &EntryOf<Types>) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(true),
        EntryPayload::Normal(Proposal(command)) => wire::entry::Payload::Command(command.clone()),
        EntryPayload::Membership(membership) => wire::entry::Payload::Membership(membership_out(membership)),
    };
    wire::Entry { log_id: Some(log_id_out(&entry.log_id)), payload: Some(payload) }
}

pub fn entry_in(entry: wire::Entry) -> io::Result<EntryOf<Types>> {
    let log_id =
        entry.log_id.as_ref().map(log_id_in).ok_or_else(|| invalid("an entry of the log has no id".to_owned()))?;
    let payload = match entry.payload {
        Some(wire::entry::Payload::Blank(_)) => EntryPayload::Blank,
        Some(wire::entry::Payload::Command(command)) => EntryPayload::Normal(Proposal(command)),
        Some(wire::entry::Payload::Membership(membership)) => EntryPayload::Membership(membership_in(&membership)?),
        None => {
            return Err(invalid(format!(
                "entry {} of the log is of a kind this build does not know: start a newer build",
                log_id.index()
            )));
        }
    };
    Ok(EntryOf::<Types> { log_id, payload })
}

pub fn append_out(route: wire::Route, request: &AppendEntriesRequest<Types>) -> wire::AppendRequest {
    wire::AppendRequest {
        route: Some(route),
        vote: Some(vote_out(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_out),
        entries: request.entries.iter().map(entry_out).collect(),
        leader_commit: request.leader_commit.as_ref().map(log_id_out),
    }
}

pub fn append_in(request: wire::AppendRequest) -> io::Result<AppendEntriesRequest<Types>> {
    Ok(AppendEntriesRequest {
        vote: said(request.vote.as_ref(), "an append", "vote").map(vote_in)?,
        prev_log_id: request.previous.as_ref().map(log_id_in),
        entries: request.entries.into_iter().map(entry_in).collect::<io::Result<_>>()?,
        leader_commit: request.leader_commit.as_ref().map(log_id_in),
    })
}

pub fn appended_out(appended: &StreamAppendResult<Types>) -> wire::AppendResponse {
    use wire::append_response::Answer;
    let answer = match appended {
        Ok(Some(matching)) => Answer::Matching(log_id_out(matching)),
        Ok(None) => Answer::Empty(true),
        Err(StreamAppendError::Conflict(at)) => Answer::Conflict(log_id_out(at)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(vote_out(vote)),
    };
    wire::AppendResponse { answer: Some(answer) }
}

pub fn appended_in(response: &wire::AppendResponse) -> io::Result<StreamAppendResult<Types>> {
    use wire::append_response::Answer;
    Ok(match said(response.answer.as_ref(), "the answer to an append", "kind")? {
        Answer::Matching(matching) => Ok(Some(log_id_in(matching))),
        Answer::Empty(_) => Ok(None),
        Answer::Conflict(at) => Err(StreamAppendError::Conflict(log_id_in(at))),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(vote))),
    })
}

pub fn vote_request_out(route: wire::Route, request: &VoteRequest<Types>) -> wire::VoteRequest {
    wire::VoteRequest {
        route: Some(route),
        vote: Some(vote_out(&request.vote)),
        last_log_id: request.last_log_id.as_ref().map(log_id_out),
        leadership_transfer: request.leadership_transfer,
    }
}

pub fn vote_request_in(request: &wire::VoteRequest) -> io::Result<VoteRequest<Types>> {
    Ok(VoteRequest {
        vote: said(request.vote.as_ref(), "a request for a vote", "vote").map(vote_in)?,
        last_log_id: request.last_log_id.as_ref().map(log_id_in),
        leadership_transfer: request.leadership_transfer,
    })
}

pub fn vote_response_out(response: &VoteResponse<Types>) -> wire::VoteResponse {
    wire::VoteResponse {
        vote: Some(vote_out(&response.vote)),
        granted: response.vote_granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_out),
    }
}

pub fn vote_response_in(response: &wire::VoteResponse) -> io::Result<VoteResponse<Types>> {
    Ok(VoteResponse {
        vote: said(response.vote.as_ref(), "the answer to a request for a vote", "vote").map(vote_in)?,
        vote_granted: response.granted,
        last_log_id: response.last_log_id.as_ref().map(log_id_in),
    })
}

pub fn transfer_out(route: wire::Route, request: &TransferLeaderRequest<Types>) -> wire::TransferLeaderRequest {
    wire::TransferLeaderRequest {
        route: Some(route),
        from_leader: Some(vote_out(request.from_leader())),
        to_member: *request.to_node_id(),
        last_log_id: request.last_log_id().map(log_id_out),
    }
}

pub fn transfer_in(request: &wire::TransferLeaderRequest) -> io::Result<TransferLeaderRequest<Types>> {
    let from = said(request.from_leader.as_ref(), "a transfer of leadership", "vote").map(vote_in)?;
    Ok(TransferLeaderRequest::new(from, request.to_member, request.last_log_id.as_ref().map(log_id_in)))
}

pub fn snapshot_out(meta: &SnapshotMetaOf<Types>, files: Vec<wire::SnapshotFile>) -> wire::SnapshotMeta {
    wire::SnapshotMeta {
        format: SNAPSHOT_FORMAT,
        last_log_id: meta.last_log_id.as_ref().map(log_id_out),
        membership: Some(stored_out(&meta.last_membership)),
        files,
    }
}

pub fn snapshot_in(meta: &wire::SnapshotMeta) -> io::Result<SnapshotMetaOf<Types>> {
    if meta.format != SNAPSHOT_FORMAT {
        return Err(invalid(format!(
            "the snapshot has format {}, this build knows {SNAPSHOT_FORMAT}: start a build that knows both",
            meta.format
        )));
    }
    Ok(SnapshotMeta {
        last_log_id: meta.last_log_id.as_ref().map(log_id_in),
        last_membership: stored_in(meta.membership.as_ref())?,
    })
}

/// What the replicated state answered, for the member whose client asked.
pub fn answer_out(response: Response) -> wire::Answer {
    use wire::answer::Answer;
    let answer = match response {
        Response::Done => Answer::Done(true),
        Response::Put(response) => Answer::Put(response),
        Response::DeleteRange(response) => Answer::DeleteRange(response),
        Response::Txn(response) => Answer::Txn(response),
        Response::Compact(response) => Answer::Compact(response),
        Response::LeaseGrant(response) => Answer::LeaseGrant(response),
        Response::LeaseRevoke(response) => Answer::LeaseRevoke(response),
        Response::LeaseCheckpoint(response) => Answer::LeaseCheckpoint(response),
        Response::Alarm(response) => Answer::Alarm(response),
    };
    wire::Answer { answer: Some(answer) }
}

pub fn answer_in(answer: wire::Answer) -> io::Result<Response> {
    use wire::answer::Answer;
    Ok(match answer.answer {
        Some(Answer::Done(_)) => Response::Done,
        Some(Answer::Put(response)) => Response::Put(response),
        Some(Answer::DeleteRange(response)) => Response::DeleteRange(response),
        Some(Answer::Txn(response)) => Response::Txn(response),
        Some(Answer::Compact(response)) => Response::Compact(response),
        Some(Answer::LeaseGrant(response)) => Response::LeaseGrant(response),
        Some(Answer::LeaseRevoke(response)) => Response::LeaseRevoke(response),
        Some(Answer::LeaseCheckpoint(response)) => Response::LeaseCheckpoint(response),
        Some(Answer::Alarm(response)) => Response::Alarm(response),
        None => return Err(invalid("the leader's answer is of a kind this build does not know".to_owned())),
    })
}

fn said<'a, T>(part: Option<&'a T>, what: &str, name: &str) -> io::Result<&'a T> {
    part.ok_or_else(|| invalid(format!("{what} has no {name}")))
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

// The leader of a term is unique, so the term alone names it once it is elected.
const _: fn() = || {
    fn one_leader_per_term<L: RaftLeaderId>() {}
    one_leader_per_term::<LeaderId<u64, u64>>();
};
