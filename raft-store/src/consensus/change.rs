//! Other members: what may be changed is decided from what the leader knows, then agreed on like anything else.

use std::collections::{BTreeMap, BTreeSet};

use openraft::{
    ChangeMembers,
    async_runtime::watch::WatchReceiver,
    errors::{ChangeMembershipError, ClientWriteError, RaftError},
};
use proto::forestay::raft::v1::{Membership, Peer, change_members_request::Change};

use super::{Group, group::Search, record, relay::Reply};
use crate::machine::Refusal;

/// The members as the leader knows them.
#[derive(Clone, Debug, Default)]
struct Roll {
    voters: BTreeSet<u64>,
    peers: BTreeMap<u64, Peer>,
    /// How much of the log each member has.
    matched: BTreeMap<u64, u64>,
    last_index: u64,
}

impl Roll {
    /// etcd's rule: nine tenths of the log.
    fn is_ready(&self, learner: u64) -> bool {
        self.matched.get(&learner).is_some_and(|matched| matched.saturating_mul(10) >= self.last_index * 9)
    }

    fn has_urls_of(&self, joiner: &Peer, except: u64) -> bool {
        let taken = |url: &String| self.peers.iter().any(|(id, peer)| *id != except && peer.peer_urls.contains(url));
        joiner.peer_urls.iter().any(taken)
    }
}

/// What is to be agreed on for `change`.
fn decide(roll: &Roll, change: Change) -> Result<ChangeMembers<u64, Peer>, Refusal> {
    match change {
        Change::Add(joiner) => {
            let peer = joiner.peer.unwrap_or_default();
            if roll.peers.contains_key(&joiner.member_id) {
                return Err(Refusal::MemberExists);
            }
            if roll.has_urls_of(&peer, joiner.member_id) {
                return Err(Refusal::PeerUrlExists);
            }
            Ok(ChangeMembers::AddNodes(BTreeMap::from([(joiner.member_id, peer)])))
        }
        Change::Promote(id) if !roll.peers.contains_key(&id) => Err(Refusal::MemberNotFound),
        Change::Promote(id) if roll.voters.contains(&id) => Err(Refusal::MemberNotLearner),
        Change::Promote(id) if !roll.is_ready(id) => Err(Refusal::LearnerNotReady),
        Change::Promote(id) => Ok(ChangeMembers::AddVoterIds(BTreeSet::from([id]))),
        Change::Remove(id) if !roll.peers.contains_key(&id) => Err(Refusal::MemberNotFound),
        Change::Remove(id) if roll.voters == BTreeSet::from([id]) => Err(Refusal::NotEnoughStarted),
        Change::Remove(id) if roll.voters.contains(&id) => Ok(ChangeMembers::RemoveVoters(BTreeSet::from([id]))),
        Change::Remove(id) => Ok(ChangeMembers::RemoveNodes(BTreeSet::from([id]))),
        Change::Update(joiner) => {
            let known = roll.peers.get(&joiner.member_id).ok_or(Refusal::MemberNotFound)?;
            let peer_urls = joiner.peer.unwrap_or_default().peer_urls;
            let peer = Peer { peer_urls, ..known.clone() };
            if roll.has_urls_of(&peer, joiner.member_id) {
                return Err(Refusal::PeerUrlExists);
            }
            Ok(ChangeMembers::SetNodes(BTreeMap::from([(joiner.member_id, peer)])))
        }
    }
}

impl Group {
    /// Changes the members, whoever leads; returns once the change is agreed on.
    ///
    /// # Errors
    /// etcd's: member not found, member or peer URL exists, learner not ready, not enough members left.
    pub async fn change_members(&self, change: Change) -> Result<(), Refusal> {
        // A member that reaches nobody cannot be one of several.
        let relay = self.relay().ok_or(Refusal::NotEnoughStarted)?;
        let search = Search::of(self);
        loop {
            let asked = async {
                if self.is_leader() {
                    return Ok(self.change_here(change.clone()).await?.map_or(Reply::Unasked, Reply::Told));
                }
                relay.change_members(change.clone()).await
            };
            if let Reply::Told(index) = search.within(asked).await? {
                self.stage().applied(index).await;
                return Ok(());
            }
            search.pause().await;
        }
    }

    /// Changes the members as the leader; the index of the change, or `None` where this member does not lead.
    ///
    /// # Errors
    /// As [`Group::change_members`].
    pub async fn change_here(&self, change: Change) -> Result<Option<u64>, Refusal> {
        let roll = self.roll();
        if !self.is_leader() {
            return Ok(None);
        }
        match self.raft().change_membership(decide(&roll, change)?, false).await {
            Ok(changed) => Ok(Some(changed.log_id.index())),
            Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_))) => Ok(None),
            Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(error))) => {
                tracing::info!(%error, "the members cannot be changed now");
                Err(match error {
                    ChangeMembershipError::LearnerNotFound(_) => Refusal::MemberNotFound,
                    ChangeMembershipError::EmptyMembership(_) => Refusal::NotEnoughStarted,
                    _ => Refusal::Unhealthy,
                })
            }
            Err(RaftError::APIError(_)) => Err(Refusal::LeaderChanged),
            Err(RaftError::Fatal(_)) => Err(Refusal::Stopped),
        }
    }

    /// Makes voters of the learners that were added to become some, as far as they have caught up.
    pub async fn promote_ready(&self) {
        let roll = self.roll();
        let ready = roll
            .peers
            .iter()
            .filter(|(id, peer)| peer.votes_once_ready && !roll.voters.contains(id) && roll.is_ready(**id));
        for (id, peer) in ready {
            match self.change_here(Change::Promote(*id)).await {
                Ok(_) => tracing::info!(member = format!("{id:x}"), urls = ?peer.peer_urls, "votes from now on"),
                Err(refusal) => tracing::debug!(%refusal, member = format!("{id:x}"), "not promoted yet"),
            }
        }
    }

    /// The members as they are kept and sent.
    pub fn membership(&self) -> Membership {
        record::membership_out(self.raft().metrics().borrow_watched().membership_config.membership())
    }

    fn roll(&self) -> Roll {
        let metrics = self.raft().metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let matched = metrics.replication.iter().flatten();
        Roll {
            voters: membership.voter_ids().collect(),
            peers: membership.nodes().map(|(id, peer)| (*id, peer.clone())).collect(),
            matched: matched.filter_map(|(id, matched)| Some((*id, matched.as_ref()?.index()))).collect(),
            last_index: metrics.last_log_index.unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::forestay::raft::v1::Joiner;

    use super::*;

    fn peer(url: &str) -> Peer {
        Peer { peer_urls: vec![url.to_owned()], ..Peer::default() }
    }

    fn joiner(member_id: u64, url: &str) -> Joiner {
        Joiner { member_id, peer: Some(peer(url)) }
    }

    /// Voters 1 and 2, and a learner 3 that has a third of the log.
    fn roll() -> Roll {
        Roll {
            voters: BTreeSet::from([1, 2]),
            peers: BTreeMap::from([(1, peer("a")), (2, peer("b")), (3, peer("c"))]),
            matched: BTreeMap::from([(1, 90), (2, 90), (3, 30)]),
            last_index: 90,
        }
    }

    #[test]
    fn a_learner_is_promoted_only_once_it_has_caught_up() {
        assert_eq!(decide(&roll(), Change::Promote(3)), Err(Refusal::LearnerNotReady));
        let mut ready = roll();
        ready.matched.insert(3, 81);
        assert_eq!(decide(&ready, Change::Promote(3)), Ok(ChangeMembers::AddVoterIds(BTreeSet::from([3]))));
        assert_eq!(decide(&ready, Change::Promote(1)), Err(Refusal::MemberNotLearner));
        assert_eq!(decide(&ready, Change::Promote(9)), Err(Refusal::MemberNotFound));
    }

    #[test]
    fn two_members_never_share_an_address() {
        assert_eq!(decide(&roll(), Change::Add(joiner(4, "a"))), Err(Refusal::PeerUrlExists));
        assert_eq!(decide(&roll(), Change::Add(joiner(3, "d"))), Err(Refusal::MemberExists));
        assert_eq!(decide(&roll(), Change::Update(joiner(1, "b"))), Err(Refusal::PeerUrlExists));
        assert!(decide(&roll(), Change::Update(joiner(1, "a"))).is_ok());
        assert!(decide(&roll(), Change::Add(joiner(4, "d"))).is_ok());
    }

    #[test]
    fn the_last_voter_stays() {
        let mut alone = roll();
        alone.voters.remove(&2);
        assert_eq!(decide(&alone, Change::Remove(1)), Err(Refusal::NotEnoughStarted));
        assert_eq!(decide(&alone, Change::Remove(3)), Ok(ChangeMembers::RemoveNodes(BTreeSet::from([3]))));
        assert_eq!(decide(&roll(), Change::Remove(1)), Ok(ChangeMembers::RemoveVoters(BTreeSet::from([1]))));
    }
}
