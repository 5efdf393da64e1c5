//! One member's way to another, as openraft uses it.
//!
//! Appends go over one stream that stays open, up to a window of them at once; answers come in the order of the
//! requests. A stream that broke, or answered with a refusal, is replaced by the next append.

use std::{collections::VecDeque, future::Future, pin::pin, time::Duration};

use futures::{Stream, StreamExt, stream};
use openraft::{
    OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::*,
    base::{BoxFuture, BoxStream},
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Timeout, Unreachable},
    network::{RPCOption, RPCTypes},
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
        TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
    },
};
use prost::Message;
use proto::forestay::raft::v1::{self as wire, Peer, raft_client::RaftClient, snapshot_chunk::Part};
use tokio::{sync::mpsc, time::Instant};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use super::{
    Types,
    peers::{Lane, Peers},
    record,
};
use crate::engine::{self, Checkpoint};

/// Appends on their way at once: enough to fill a round trip, few enough to be forgotten when the stream breaks.
const WINDOW: usize = 64;
const WINDOW_BYTES: usize = 16 << 20;

/// A follower that answers nothing for so long, with its connection up, has a disk that hangs.
const STALL: Duration = Duration::from_secs(5);

/// One piece of a snapshot, and how many of them wait for the network.
const PIECE_BYTES: usize = 1 << 20;
const PIECES_MAX: usize = 4;

/// Longest wait for the answer to a snapshot: the other member may have to copy and open all of it.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(300);

impl RaftNetworkFactory<Types> for Peers {
    type Network = Link;

    async fn new_client(&mut self, target: u64, peer: &Peer) -> Link {
        Link::new(self.clone(), target, peer, Lane::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, peer: &Peer) -> Link {
        Link::new(self.clone(), target, peer, Lane::Urgent)
    }

    async fn new_snapshot_client(&mut self, target: u64, peer: &Peer) -> Link {
        Link::new(self.clone(), target, peer, Lane::Snapshot)
    }
}

pub struct Link {
    peers: Peers,
    to: u64,
    peer: Peer,
    appends: Lane,
    session: Option<Session>,
}

/// A stream of appends that is open.
struct Session {
    requests: mpsc::Sender<wire::AppendRequest>,
    answers: Streaming<wire::AppendResponse>,
}

impl Link {
    fn new(peers: Peers, to: u64, peer: &Peer, appends: Lane) -> Link {
        Link { peers, to, peer: peer.clone(), appends, session: None }
    }

    fn client(&self, lane: Lane) -> Result<RaftClient<Channel>, Unreachable<Types>> {
        self.peers.client(self.to, &self.peer, lane).map_err(Unreachable::from_string)
    }

    fn route(&self) -> wire::Route {
        self.peers.route(self.to)
    }

    /// Makes sure that a stream of appends is open.
    async fn open(&mut self, within: Duration) -> Result<(), RPCError<Types>> {
        if self.session.as_ref().is_some_and(|session| !session.requests.is_closed()) {
            return Ok(());
        }
        let mut client = self.client(self.appends)?;
        let (requests, queue) = mpsc::channel(WINDOW);
        let answers = self.answered(RPCTypes::AppendEntries, within, client.append(ReceiverStream::new(queue))).await?;
        self.session = Some(Session { requests, answers });
        Ok(())
    }

    /// The answer to a call, within its time.
    async fn answered<T>(
        &self,
        action: RPCTypes,
        within: Duration,
        call: impl Future<Output = Result<tonic::Response<T>, Status>>,
    ) -> Result<T, RPCError<Types>> {
        match tokio::time::timeout(within, call).await {
            Ok(Ok(response)) => {
                self.peers.answered(self.to, &self.peer, None);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => {
                self.peers.answered(self.to, &self.peer, Some(&told(&status)));
                Err(failed(&status))
            }
            Err(_) => Err(self.late(action, within)),
        }
    }

    fn late(&self, action: RPCTypes, timeout: Duration) -> RPCError<Types> {
        RPCError::Timeout(Timeout { action, id: self.peers.id(), target: self.to, timeout })
    }
}

/// A peer that is away, or does not accept this member, is asked again after a while; anything else at once.
fn failed(status: &Status) -> RPCError<Types> {
    match status.code() {
        Code::Unavailable | Code::FailedPrecondition | Code::Unauthenticated | Code::PermissionDenied => {
            RPCError::Unreachable(Unreachable::from_string(told(status)))
        }
        _ => RPCError::Network(NetworkError::from_string(told(status))),
    }
}

fn told(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn unread(error: std::io::Error) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

/// Requests of one call of `stream_append` on their way over the session.
struct Exchange<'s, S> {
    link: &'s mut Link,
    input: Option<S>,
    /// Sizes of the requests that were not answered yet.
    sent: VecDeque<usize>,
    bytes: usize,
    deadline: Instant,
    is_open: bool,
    open_within: Duration,
}

type Appended = Result<StreamAppendResult<Types>, RPCError<Types>>;

enum Step {
    Request(Option<AppendEntriesRequest<Types>>),
    Answer(Result<Option<wire::AppendResponse>, Status>),
    Stalled,
}

impl<S> Exchange<'_, S>
where
    S: Stream<Item = AppendEntriesRequest<Types>> + Unpin,
{
    /// The next answer, sending what there is to send meanwhile; `None` once all is sent and answered.
    async fn next(&mut self) -> Option<Appended> {
        loop {
            let has_room = self.sent.len() < WINDOW && self.bytes < WINDOW_BYTES;
            if self.input.is_none() && self.sent.is_empty() {
                return None;
            }
            if !self.is_open {
                // Openraft holds back the first request where the member did not answer before.
                let first = self.input.as_mut()?.next().await?;
                if let Err(error) = self.begin(&first).await {
                    return self.broken(error);
                }
                continue;
            }
            let session = self.link.session.as_mut()?;
            let input = self.input.as_mut().filter(|_| has_room);
            let wants_more = input.is_some();
            let step = tokio::select! {
                answer = session.answers.message(), if !self.sent.is_empty() => Step::Answer(answer),
                request = next_of(input), if wants_more => Step::Request(request),
                () = tokio::time::sleep_until(self.deadline), if !self.sent.is_empty() => Step::Stalled,
            };
            match step {
                Step::Request(None) => self.input = None,
                Step::Request(Some(request)) => {
                    if let Err(error) = self.send(&request) {
                        return self.broken(error);
                    }
                }
                Step::Answer(Ok(Some(response))) => return self.answered(&response),
                Step::Answer(Ok(None)) => {
                    return self.broken(RPCError::Network(NetworkError::from_string("the stream of appends ended")));
                }
                Step::Answer(Err(status)) => return self.broken(failed(&status)),
                Step::Stalled => {
                    let late = self.link.late(RPCTypes::AppendEntries, STALL);
                    return self.broken(late);
                }
            }
        }
    }

    async fn begin(&mut self, first: &AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        self.link.open(self.open_within).await?;
        self.is_open = true;
        self.send(first)
    }

    fn send(&mut self, request: &AppendEntriesRequest<Types>) -> Result<(), RPCError<Types>> {
        let message = record::append_out(self.link.route(), request);
        let size = message.encoded_len();
        let gone = || RPCError::Network(NetworkError::from_string("the stream of appends broke"));
        // As many fit as the window allows, so a queue that is full is one that nobody empties any more.
        self.link.session.as_ref().ok_or_else(gone)?.requests.try_send(message).map_err(|_| gone())?;
        if self.sent.is_empty() {
            self.deadline = Instant::now() + STALL;
        }
        self.sent.push_back(size);
        self.bytes += size;
        Ok(())
    }

    fn answered(&mut self, response: &wire::AppendResponse) -> Option<Appended> {
        self.deadline = Instant::now() + STALL;
        self.bytes -= self.sent.pop_front().unwrap_or_default();
        match record::appended_in(response) {
            // The other side ends the stream with a refusal.
            Ok(Err(refused @ (StreamAppendError::Conflict(_) | StreamAppendError::HigherVote(_)))) => {
                self.end();
                Some(Ok(Err(refused)))
            }
            Ok(appended) => Some(Ok(appended)),
            Err(error) => self.broken(unread(error)),
        }
    }

    fn broken(&mut self, error: RPCError<Types>) -> Option<Appended> {
        self.end();
        Some(Err(error))
    }

    fn end(&mut self) {
        self.link.session = None;
        self.input = None;
        self.sent.clear();
    }
}

impl<S> Drop for Exchange<'_, S> {
    fn drop(&mut self) {
        // Answers that were not waited for would be taken for those of the next requests.
        if !self.sent.is_empty() {
            self.link.session = None;
        }
    }
}

async fn next_of<S: Stream + Unpin>(input: Option<&mut S>) -> Option<S::Item> {
    match input {
        Some(input) => input.next().await,
        None => None,
    }
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let last = request.entries.last().map(|entry| entry.log_id).or(request.prev_log_id);
        let mut answers = self.stream_append(Box::pin(stream::once(async { request })), option).await?;
        let answer = answers.next().await.unwrap_or_else(|| {
            Err(RPCError::Network(NetworkError::from_string("the stream of appends ended without an answer")))
        })?;
        Ok(match answer {
            Ok(matching) if matching == last => AppendEntriesResponse::Success,
            Ok(matching) => AppendEntriesResponse::PartialSuccess(matching),
            Err(StreamAppendError::Conflict(_)) => AppendEntriesResponse::Conflict,
            Err(StreamAppendError::HigherVote(vote)) => AppendEntriesResponse::HigherVote(vote),
        })
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, Appended>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let exchange = Exchange {
                link: self,
                input: Some(input),
                sent: VecDeque::with_capacity(WINDOW),
                bytes: 0,
                deadline: Instant::now() + STALL,
                is_open: false,
                open_within: option.soft_ttl(),
            };
            let answers: BoxStream<'s, Appended> = Box::pin(stream::unfold(exchange, |mut exchange| async move {
                exchange.next().await.map(|answer| (answer, exchange))
            }));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Urgent)?;
        let call = client.vote(record::vote_request_out(self.route(), &request));
        let response = self.answered(RPCTypes::Vote, option.soft_ttl(), call).await?;
        record::vote_response_in(&response).map_err(unread)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Urgent)?;
        let call = client.pre_vote(record::vote_request_out(self.route(), &request));
        let response = self.answered(RPCTypes::Vote, option.soft_ttl(), call).await?;
        record::vote_response_in(&response).map_err(unread)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Checkpoint>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let mut client = self.client(Lane::Snapshot)?;
        let (pieces, queue) = mpsc::channel(PIECES_MAX);
        let (route, meta, copy) = (self.route(), snapshot.meta, snapshot.snapshot);
        let reading = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let files = engine::manifest(&copy)?;
            let header = wire::SnapshotHeader {
                route: Some(route),
                vote: Some(record::vote_out(&vote)),
                meta: Some(record::snapshot_out(&meta, files.clone())),
            };
            let send = |part| pieces.blocking_send(wire::SnapshotChunk { part: Some(part) }).is_ok();
            if send(Part::Header(header)) {
                engine::unpack(&copy, &files, PIECE_BYTES, &mut |piece| send(Part::Bytes(piece)))?;
            }
            Ok(())
        });
        let call = client.install_snapshot(ReceiverStream::new(queue));
        let installed = {
            let sending = pin!(self.answered(RPCTypes::InstallSnapshot, INSTALL_TIMEOUT, call));
            tokio::select! {
                installed = sending => installed,
                closed = cancel => return Err(StreamingError::Closed(closed)),
            }
        };
        // A copy that cannot be read ends the stream early, and the other side refuses what came of it.
        if let Ok(Err(error)) = reading.await {
            tracing::error!(%error, "a snapshot for another member cannot be read");
        }
        let vote = installed?.vote.ok_or_else(|| {
            StreamingError::Network(NetworkError::from_string("the answer to a snapshot has no vote"))
        })?;
        Ok(SnapshotResponse::new(record::vote_in(&vote)))
    }

    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let mut client = self.client(Lane::Urgent)?;
        let call = client.transfer_leader(record::transfer_out(self.route(), &request));
        self.answered(RPCTypes::TransferLeader, option.soft_ttl(), call).await?;
        Ok(Ok(()))
    }
}
