//! Between openraft's types and the messages that are kept and sent: the only place where the two meet.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use openraft::{EntryPayload, Membership, alias::*, impls::leader_id_std::LeaderId, vote::RaftLeaderId};
use proto::forestay::raft::v1 as wire;

use super::{Proposal, Types};

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

fn membership_out(membership: &Membership<u64, wire::Peer>) -> wire::Membership {
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

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

// The leader of a term is unique, so the term alone names it once it is elected.
const _: fn() = || {
    fn one_leader_per_term<L: RaftLeaderId>() {}
    one_leader_per_term::<LeaderId<u64, u64>>();
};
