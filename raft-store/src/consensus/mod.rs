//! Agreement between members: the only room that names openraft.
//!
//! Everything durable passes through [`record`] into our own messages. The log is written by one thread of its own;
//! consensus and apply run on a runtime of their own, so that no request of a client can hold up a heartbeat.

mod alone;
mod change;
mod group;
mod inbound;
mod link;
mod log;
mod peers;
mod record;
mod relay;
mod standing;
mod state;
mod writer;

#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use proto::forestay::raft::v1::Peer;

pub use alone::Alone;
pub use group::{Founding, Group, Progress, Timing};
pub use inbound::Delivery;
pub use peers::{Lane, MESSAGE_BYTES_MAX, Peers};
pub use record::answer_out;
pub use state::{Audience, Stage};

use crate::machine::{Refusal, Response};

openraft::declare_raft_types!(
    pub Types:
        D = Proposal,
        R = Outcome,
        NodeId = u64,
        Node = Peer,
        Term = u64,
        LeaderId = openraft::impls::leader_id_std::LeaderId<Self::Term, Self::NodeId>,
);

/// An encoded [`proto::forestay::raft::v1::Command`], as it stands in the log.
#[derive(Clone, PartialEq, Eq)]
pub struct Proposal(pub Bytes);

impl fmt::Display for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.0.len())
    }
}

impl fmt::Debug for Proposal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What applying an entry came to.
#[derive(Clone, Debug)]
pub struct Outcome(pub Result<Response, Refusal>);
