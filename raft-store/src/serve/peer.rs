//! `forestay.raft.v1` in front of a member: what the other members of its store ask of it.
//!
//! It is served on the threads of consensus. A connection is trusted by its certificate; a request that is meant for
//! another store or another member is refused.

use std::{io, net, sync::Arc};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt};
use kit::life::Shutdown;
use proto::forestay::raft::v1::{
    AppendRequest, AppendResponse, ChangeMembersRequest, ChangeMembersResponse, LeaseRequest, LeaseResponse,
    MembersRequest, MembersResponse, ProposeRequest, ProposeResponse, Proposed, ReadIndexRequest, ReadIndexResponse,
    RecognizeRequest, RecognizeResponse, Route, SnapshotChunk, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
    proposed::Outcome,
    raft_server::{Raft, RaftServer},
    snapshot_chunk::Part,
};
use rustls::ServerConfig;
use tokio::{net::TcpListener, sync::mpsc};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::Answers;
use crate::{
    consensus::{Group, MESSAGE_BYTES_MAX, answer_out},
    lease::Keeper,
    machine::{self, Refusal},
};

/// Pieces of a snapshot between the network and the disk.
const PIECES_MAX: usize = 4;

/// One member as the others see it.
#[derive(Clone)]
pub struct PeerDoor {
    pub group: Group,
    pub keeper: Arc<Keeper>,
    pub cluster_id: u64,
}

impl PeerDoor {
    /// Serves until `shutdown`, on the threads of consensus.
    pub fn open(self, listener: net::TcpListener, tls: Option<Arc<ServerConfig>>, shutdown: Shutdown) {
        let group = self.group.clone();
        group.spawn(async move {
            if let Err(error) = self.serve(listener, tls, shutdown).await {
                tracing::error!(error = format!("{error:#}"), "the other members cannot reach this one any more");
            }
        });
    }

    async fn serve(
        self,
        listener: net::TcpListener,
        tls: Option<Arc<ServerConfig>>,
        shutdown: Shutdown,
    ) -> anyhow::Result<()> {
        let listener = TcpListener::from_std(listener).context("listen for the other members")?;
        let service = RaftServer::new(self)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let server = Server::builder()
            .initial_stream_window_size(4 << 20)
            .initial_connection_window_size(8 << 20)
            .tcp_nodelay(true)
            .add_service(service);
        super::until_stopped(server, listener, tls, shutdown).await.context("serve the other members")
    }

    fn check(&self, route: Option<&Route>) -> Result<u64, Status> {
        let route = route.ok_or_else(|| Status::invalid_argument("the request has no route"))?;
        if route.cluster_id != self.cluster_id {
            return Err(Status::failed_precondition(format!(
                "this member is of the cluster {:x}, the request is for the cluster {:x}: give all members the same --initial-cluster and --initial-cluster-token",
                self.cluster_id, route.cluster_id
            )));
        }
        if route.to_member != self.group.id() {
            return Err(Status::failed_precondition(format!(
                "this is member {:x}, the request is for member {:x}: check the peer URLs in --initial-cluster",
                self.group.id(),
                route.to_member
            )));
        }
        Ok(route.from_member)
    }

    /// What only a leader answers, and only to those that are members as far as it knows. Appends and votes are
    /// taken from anybody: a member that lags may not know a new one yet.
    fn check_member(&self, route: Option<&Route>) -> Result<(), Status> {
        let from = self.check(route)?;
        if self.group.is_leader() && !self.group.is_member(from) {
            return Err(Refusal::MemberRemoved.into());
        }
        Ok(())
    }
}

fn refused(error: io::Error) -> Status {
    match error.downcast::<Status>() {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Status::data_loss(error.to_string()),
        Err(error) => Status::unavailable(error.to_string()),
    }
}

#[tonic::async_trait]
impl Raft for PeerDoor {
    type AppendStream = Answers<AppendResponse>;

    async fn append(&self, request: Request<Streaming<AppendRequest>>) -> Result<Response<Self::AppendStream>, Status> {
        let door = self.clone();
        let requests = request.into_inner().map(move |request| {
            let request = request.map_err(io::Error::other)?;
            door.check(request.route.as_ref()).map_err(io::Error::other)?;
            Ok(request)
        });
        Ok(Response::new(Box::pin(self.group.append(requests).map_err(refused))))
    }

    async fn vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route.as_ref())?;
        Ok(Response::new(self.group.vote(&request).await.map_err(refused)?))
    }

    async fn pre_vote(&self, request: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route.as_ref())?;
        Ok(Response::new(self.group.pre_vote(&request).await.map_err(refused)?))
    }

    async fn install_snapshot(
        &self,
        request: Request<Streaming<SnapshotChunk>>,
    ) -> Result<Response<SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let Some(Part::Header(header)) = chunks.message().await?.and_then(|chunk| chunk.part) else {
            return Err(Status::invalid_argument("the snapshot does not begin with its header"));
        };
        let from = self.check(header.route.as_ref())?;
        let group = self.group.clone();
        let (pieces, mut queue) = mpsc::channel(PIECES_MAX);
        // The disk has a thread of its own: consensus must not wait for it.
        let taking = tokio::task::spawn_blocking(move || {
            let mut delivery = group.expect(header)?;
            while let Some(bytes) = queue.blocking_recv() {
                delivery.take(bytes)?;
            }
            io::Result::Ok(delivery)
        });
        while let Some(chunk) = chunks.message().await? {
            let Some(Part::Bytes(bytes)) = chunk.part else {
                return Err(Status::invalid_argument("the snapshot has a second header"));
            };
            if pieces.send(bytes).await.is_err() {
                // The taker gives the reason.
                break;
            }
        }
        drop(pieces);
        let delivery = taking.await.map_err(|error| Status::internal(error.to_string()))?.map_err(refused)?;
        let installed = self.group.install(delivery).await.map_err(refused)?;
        tracing::info!(from = format!("{from:x}"), "snapshot installed");
        Ok(Response::new(installed))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        self.check(request.route.as_ref())?;
        self.group.take_lead(&request).await.map_err(refused)?;
        Ok(Response::new(TransferLeaderResponse {}))
    }

    async fn read_index(&self, request: Request<ReadIndexRequest>) -> Result<Response<ReadIndexResponse>, Status> {
        self.check_member(request.into_inner().route.as_ref())?;
        let index = self.group.read_index().await?.ok_or(Refusal::NotLeader)?;
        Ok(Response::new(ReadIndexResponse { index }))
    }

    async fn propose(&self, request: Request<ProposeRequest>) -> Result<Response<ProposeResponse>, Status> {
        let request = request.into_inner();
        self.check_member(request.route.as_ref())?;
        let agreed = self.group.propose_many(request.commands).await.ok_or(Refusal::NotLeader)?;
        let outcomes = agreed.into_iter().map(|(outcome, index)| {
            let outcome = match outcome {
                Ok(response) => Outcome::Answer(answer_out(response)),
                Err(refusal) => Outcome::Refusal(refusal.to_string()),
            };
            Proposed { outcome: Some(outcome), index }
        });
        Ok(Response::new(ProposeResponse { outcomes: outcomes.collect() }))
    }

    async fn lease(&self, request: Request<LeaseRequest>) -> Result<Response<LeaseResponse>, Status> {
        let request = request.into_inner();
        self.check_member(request.route.as_ref())?;
        let index = self.group.read_index().await?.ok_or(Refusal::NotLeader)?;
        self.group.stage().applied(index).await;
        self.keeper.lead(self.group.leading_term());
        Ok(Response::new(self.keeper.tell(request.id, request.renew)))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<ChangeMembersResponse>, Status> {
        let request = request.into_inner();
        self.check_member(request.route.as_ref())?;
        let change = request.change.ok_or_else(|| Status::invalid_argument("the request has no change"))?;
        let index = self.group.change_here(change).await?.ok_or(Refusal::NotLeader)?;
        Ok(Response::new(ChangeMembersResponse { index }))
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersResponse>, Status> {
        let published = machine::published(&*self.group.stage().engine()).map_err(refused)?;
        Ok(Response::new(MembersResponse {
            cluster_id: self.cluster_id,
            membership: Some(self.group.membership()),
            published: published.into_iter().map(|(member, _)| member).collect(),
        }))
    }

    async fn recognize(&self, request: Request<RecognizeRequest>) -> Result<Response<RecognizeResponse>, Status> {
        let from = self.check(request.into_inner().route.as_ref())?;
        let published = machine::published(&*self.group.stage().engine())
            .map_err(refused)?
            .into_iter()
            .any(|(member, _)| member == from);
        Ok(Response::new(RecognizeResponse { published }))
    }
}
