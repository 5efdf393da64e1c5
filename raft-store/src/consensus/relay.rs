//! What a follower asks of the leader for its own clients: to have commands agreed on, and how far to read.
//!
//! Whatever waits goes together: commands that arrive while others are on their way share the next message, and all
//! reads that wait share one round of the leader's.

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use openraft::{Raft, async_runtime::watch::WatchReceiver};
use proto::forestay::raft::v1::{
    ChangeMembersRequest, LeaseRequest, LeaseResponse, ProposeRequest, Proposed, ReadIndexRequest,
    change_members_request::Change, proposed::Outcome as Told, raft_client::RaftClient,
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc, oneshot},
};
use tonic::{Code, Status, transport::Channel};

use super::{
    Types,
    group::REQUEST_TIMEOUT,
    peers::{Lane, Peers},
    record,
    state::State,
};
use crate::machine::{Refusal, Response};

/// Commands that wait here; more are refused, so that a burst waits with the clients and not in memory.
const WAITING_MAX: usize = 4_096;

/// What one message carries: as much as apply takes at once.
const BATCH_COMMANDS: usize = 256;
const BATCH_BYTES: usize = 1 << 20;

/// Messages on their way at once. Few, so that commands gather into batches under load.
const MESSAGES_MAX: usize = 4;

/// A leader answers a read after one round to the others, or not at all.
const READ_TIMEOUT: Duration = Duration::from_secs(2);

/// What came of asking the leader.
#[derive(Clone, Copy, Debug)]
pub enum Reply<T> {
    /// The leader's answer.
    Told(T),
    /// Nothing was done: there is no leader, or another one. It may be asked again.
    Unasked,
}

/// A command's answer, and the index that has to be applied here before it is passed on; 0 where there is none.
pub type Agreed = (Result<Response, Refusal>, u64);

#[derive(Clone)]
pub struct Relay {
    proposals: mpsc::Sender<Proposal>,
    reads: mpsc::Sender<Reader>,
    way: Way,
}

/// One who waits to read.
type Reader = oneshot::Sender<Result<Reply<u64>, Refusal>>;

struct Proposal {
    command: Bytes,
    reply: oneshot::Sender<Reply<Agreed>>,
}

/// The way to whoever leads now.
#[derive(Clone)]
struct Way {
    raft: Raft<Types, State>,
    peers: Peers,
}

impl Way {
    fn leader(&self) -> Option<(u64, RaftClient<Channel>)> {
        let (leader, peer) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let leader = metrics.current_leader.filter(|leader| *leader != self.peers.id())?;
            (leader, metrics.membership_config.membership().get_node(&leader)?.clone())
        };
        match self.peers.client(leader, &peer, Lane::Requests) {
            Ok(client) => Some((leader, client)),
            Err(error) => {
                tracing::warn!(error, "the leader cannot be asked");
                None
            }
        }
    }
}

impl Relay {
    /// Starts the tasks that gather; they end with the last handle.
    pub fn start(raft: Raft<Types, State>, peers: Peers, runtime: &Handle) -> Relay {
        let way = Way { raft, peers };
        let (proposals, waiting) = mpsc::channel(WAITING_MAX);
        let (reads, readers) = mpsc::channel(WAITING_MAX);
        runtime.spawn(forward(way.clone(), waiting));
        runtime.spawn(rounds(way.clone(), readers));
        Relay { proposals, reads, way }
    }

    /// Has the leader agree on `command`.
    ///
    /// # Errors
    /// Too many commands wait; or the leader was lost, and nobody knows whether the command was agreed on.
    pub async fn propose(&self, command: Bytes) -> Result<Reply<Agreed>, Refusal> {
        let (reply, told) = oneshot::channel();
        self.proposals.try_send(Proposal { command, reply }).map_err(|_| Refusal::TooManyRequests)?;
        told.await.map_err(|_| Refusal::Stopped)
    }

    /// The index that has to be applied here before a linearizable read.
    ///
    /// # Errors
    /// This member is none any more, or consensus has stopped.
    pub async fn read_index(&self) -> Result<Reply<u64>, Refusal> {
        let (reply, told) = oneshot::channel();
        self.reads.send(reply).await.map_err(|_| Refusal::Stopped)?;
        told.await.map_err(|_| Refusal::Stopped)?
    }

    /// What is left of a lease, renewed first where asked for.
    ///
    /// # Errors
    /// The leader is there, but could not answer.
    pub async fn lease(&self, id: i64, renew: bool) -> Result<Reply<LeaseResponse>, Refusal> {
        let Some((leader, mut client)) = self.way.leader() else { return Ok(Reply::Unasked) };
        let request = LeaseRequest { route: Some(self.way.peers.route(leader)), id, renew };
        match tokio::time::timeout(READ_TIMEOUT, client.lease(request)).await {
            Ok(Ok(response)) => Ok(Reply::Told(response.into_inner())),
            // A renewal may be made twice.
            Ok(Err(status)) if is_about_leading(&status) || status.code() == Code::Unavailable => Ok(Reply::Unasked),
            Ok(Err(status)) => Err(Refusal::from_text(status.message()).unwrap_or(Refusal::LeaderChanged)),
            Err(_) => Ok(Reply::Unasked),
        }
    }

    /// Has the leader change the members; the index of the change.
    ///
    /// # Errors
    /// The leader's refusal; or it was lost, and nobody knows what became of the change.
    pub async fn change_members(&self, change: Change) -> Result<Reply<u64>, Refusal> {
        let Some((leader, mut client)) = self.way.leader() else { return Ok(Reply::Unasked) };
        let request = ChangeMembersRequest { route: Some(self.way.peers.route(leader)), change: Some(change) };
        match tokio::time::timeout(REQUEST_TIMEOUT, client.change_members(request)).await {
            Ok(Ok(response)) => Ok(Reply::Told(response.into_inner().index)),
            Ok(Err(status)) if is_about_leading(&status) || never_left(&status) => Ok(Reply::Unasked),
            Ok(Err(status)) => Err(Refusal::from_text(status.message()).unwrap_or(Refusal::TimeoutConnectionLost)),
            Err(_) => Err(Refusal::Timeout),
        }
    }
}

/// Sends what waits, together, a few messages at once.
async fn forward(way: Way, mut waiting: mpsc::Receiver<Proposal>) {
    let free = Arc::new(Semaphore::new(MESSAGES_MAX));
    while let Some(first) = waiting.recv().await {
        let Ok(permit) = free.clone().acquire_owned().await else { return };
        let mut bytes = first.command.len();
        let mut batch = vec![first];
        while batch.len() < BATCH_COMMANDS
            && bytes < BATCH_BYTES
            && let Ok(next) = waiting.try_recv()
        {
            bytes += next.command.len();
            batch.push(next);
        }
        let way = way.clone();
        tokio::spawn(async move {
            send(&way, batch).await;
            drop(permit);
        });
    }
}

async fn send(way: &Way, batch: Vec<Proposal>) {
    let (commands, replies): (Vec<Bytes>, Vec<_>) =
        batch.into_iter().map(|proposal| (proposal.command, proposal.reply)).unzip();
    let count = commands.len();
    let outcomes = match way.leader() {
        None => Vec::new(),
        Some((leader, mut client)) => {
            let request = ProposeRequest { route: Some(way.peers.route(leader)), commands };
            match tokio::time::timeout(REQUEST_TIMEOUT, client.propose(request)).await {
                Ok(Ok(response)) => response.into_inner().outcomes.into_iter().map(agreed).collect(),
                Ok(Err(status)) if is_about_leading(&status) || never_left(&status) => Vec::new(),
                Ok(Err(status)) => {
                    tracing::debug!(%status, "the leader was lost while it was asked");
                    let refusal = Refusal::from_text(status.message()).unwrap_or(Refusal::TimeoutConnectionLost);
                    (0..count).map(|_| Reply::Told((Err(refusal), 0))).collect()
                }
                Err(_) => (0..count).map(|_| Reply::Told((Err(Refusal::Timeout), 0))).collect(),
            }
        }
    };
    let unasked = std::iter::repeat_with(|| Reply::Unasked);
    for (reply, outcome) in replies.into_iter().zip(outcomes.into_iter().chain(unasked)) {
        // A client that went away does not wait any more.
        let _ = reply.send(outcome);
    }
}

fn agreed(proposed: Proposed) -> Reply<Agreed> {
    let outcome = match proposed.outcome {
        Some(Told::Answer(answer)) => record::answer_in(answer).map_err(|error| {
            tracing::error!(%error, "the leader's answer cannot be read");
            Refusal::LeaderChanged
        }),
        Some(Told::Refusal(text)) => Err(Refusal::from_text(&text).unwrap_or(Refusal::LeaderChanged)),
        None => Err(Refusal::LeaderChanged),
    };
    match outcome {
        Err(Refusal::NotLeader) => Reply::Unasked,
        outcome => Reply::Told((outcome, proposed.index)),
    }
}

/// One question to the leader for all who wait; who comes meanwhile waits for the next one.
async fn rounds(way: Way, mut readers: mpsc::Receiver<Reader>) {
    while let Some(first) = readers.recv().await {
        let mut round = vec![first];
        while let Ok(next) = readers.try_recv() {
            round.push(next);
        }
        let index = ask(&way).await;
        for reader in round {
            let _ = reader.send(index);
        }
    }
}

async fn ask(way: &Way) -> Result<Reply<u64>, Refusal> {
    let Some((leader, mut client)) = way.leader() else { return Ok(Reply::Unasked) };
    let request = ReadIndexRequest { route: Some(way.peers.route(leader)) };
    match tokio::time::timeout(READ_TIMEOUT, client.read_index(request)).await {
        Ok(Ok(response)) => Ok(Reply::Told(response.into_inner().index)),
        Ok(Err(status)) if Refusal::from_text(status.message()) == Some(Refusal::MemberRemoved) => {
            Err(Refusal::MemberRemoved)
        }
        Ok(Err(status)) => {
            tracing::debug!(%status, "the leader did not say how far to read");
            Ok(Reply::Unasked)
        }
        Err(_) => Ok(Reply::Unasked),
    }
}

/// The one asked does not lead, or does not take this member for one of its own: it did nothing.
fn is_about_leading(status: &Status) -> bool {
    status.code() == Code::FailedPrecondition
        && Refusal::from_text(status.message()).is_none_or(|refusal| refusal == Refusal::NotLeader)
}

/// No connection was made, so nothing can have been asked.
fn never_left(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(error) = cause {
        if error.is::<tonic::ConnectError>() {
            return true;
        }
        cause = error.source();
    }
    false
}
