//! The network of a group of one: it reaches nobody.

use std::future::Future;

use openraft::{
    AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::*,
    errors::{RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use proto::forestay::raft::v1::Peer;

use super::Types;
use crate::engine::Checkpoint;

/// The network of a member without peers.
#[derive(Clone, Debug, Default)]
pub struct Alone;

impl RaftNetworkFactory<Types> for Alone {
    type Network = Nobody;

    async fn new_client(&mut self, target: u64, _: &Peer) -> Nobody {
        Nobody { target }
    }
}

pub struct Nobody {
    target: u64,
}

impl Nobody {
    fn unreachable(&self) -> Unreachable<Types> {
        Unreachable::new(&AnyError::error(format!("member {:x} has no link to this one", self.target)))
    }
}

impl RaftNetworkV2<Types> for Nobody {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        _: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn pre_vote(&mut self, _: VoteRequest<Types>, _: RPCOption) -> Result<VoteResponse<Types>, RPCError<Types>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _: VoteOf<Types>,
        _: SnapshotOf<Types, Checkpoint>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
