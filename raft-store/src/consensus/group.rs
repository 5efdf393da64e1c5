//! One member's part in the group: propose, read linearizably, follow its standing.

use std::{
    collections::BTreeMap,
    future::Future,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Context;
use bytes::Bytes;
use futures::StreamExt;
use openraft::{
    Config, Raft, RaftNetworkFactory, ReadPolicy, SnapshotPolicy,
    async_runtime::watch::WatchReceiver,
    errors::{ClientWriteError, InitializeError, LinearizableReadError, RaftError},
    network::NetSnapshot,
};
use prost::Message;
use proto::forestay::raft::v1::{Command, LeaseResponse, Peer};
use tokio::{runtime::Runtime, sync::watch, time::Instant};

use super::{
    Outcome, Proposal, Types,
    alone::Alone,
    log::Log,
    peers::Peers,
    relay::{Agreed, Relay, Reply},
    standing::{self, Heard},
    state::{Audience, Stage, State},
};
use crate::{
    engine::{Checkpoint, Home},
    machine::{Refusal, Response},
};

/// How quickly a lost leader is noticed. All members of a group need the same.
#[derive(Clone, Debug)]
pub struct Timing {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// Entries between snapshots; the log before the last one is dropped, except `log_kept` entries for slow members.
    pub snapshot_entries: u64,
    pub log_kept: u64,
}

impl Default for Timing {
    fn default() -> Timing {
        Timing {
            heartbeat: Duration::from_millis(100),
            election_min: Duration::from_millis(300),
            election_max: Duration::from_millis(600),
            snapshot_entries: 20_000,
            log_kept: 5_000,
        }
    }
}

/// How a member without a log begins.
#[derive(Clone, Debug)]
pub enum Founding {
    /// As the only member of a new group.
    Alone(Peer),
    /// As one of several, each of which begins with the same members.
    Together(BTreeMap<u64, Peer>),
    /// It waits to be told by the others.
    Join,
}

/// Longest wait for a proposal or a read to be confirmed; etcd's request timeout at its default timing.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// How long to wait for a new leader before looking again: a change of leader is heard of, the end of its doubts is not.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where consensus stands on this member.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    pub term: u64,
    pub leader: Option<u64>,
    pub last_index: u64,
    pub applied_index: u64,
    pub is_learner: bool,
}

/// A handle to this member's consensus; clones are the same member.
#[derive(Clone)]
pub struct Group {
    inner: Arc<Inner>,
}

struct Inner {
    id: u64,
    raft: Raft<Types, State>,
    stage: Arc<Stage>,
    log: Log,
    home: Arc<dyn Home>,
    /// Who leads, where anybody does.
    leader: watch::Receiver<Option<u64>>,
    heard: Heard,
    /// The way to a leader elsewhere; none for a group of one.
    relay: Option<Relay>,
    /// The term of the last answer, for headers: reading the metrics costs a lock each time.
    term: AtomicU64,
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Group {
    /// Starts a group of one, or the only member's next life.
    pub async fn start_alone(
        id: u64,
        home: Arc<dyn Home>,
        founding: Peer,
        timing: &Timing,
        audience: Arc<dyn Audience>,
    ) -> anyhow::Result<Group> {
        Group::start(id, home, Founding::Alone(founding), timing, audience, Alone).await
    }

    /// Starts one member of several.
    pub async fn start_among(
        peers: Peers,
        home: Arc<dyn Home>,
        founding: Founding,
        timing: &Timing,
        audience: Arc<dyn Audience>,
    ) -> anyhow::Result<Group> {
        let (raft, parts) = Group::build(peers.id(), home, timing, audience, peers.clone()).await?;
        let relay = Relay::start(raft.clone(), peers, parts.runtime.handle());
        Group::begin(raft, parts, Some(relay), founding).await
    }

    /// Starts this member on threads of its own.
    pub async fn start<N>(
        id: u64,
        home: Arc<dyn Home>,
        founding: Founding,
        timing: &Timing,
        audience: Arc<dyn Audience>,
        links: N,
    ) -> anyhow::Result<Group>
    where
        N: RaftNetworkFactory<Types>,
        N::Network: NetSnapshot<Types, SnapshotData = Checkpoint>,
    {
        let (raft, parts) = Group::build(id, home, timing, audience, links).await?;
        Group::begin(raft, parts, None, founding).await
    }

    async fn build<N>(
        id: u64,
        home: Arc<dyn Home>,
        timing: &Timing,
        audience: Arc<dyn Audience>,
        links: N,
    ) -> anyhow::Result<(Raft<Types, State>, Parts)>
    where
        N: RaftNetworkFactory<Types>,
        N::Network: NetSnapshot<Types, SnapshotData = Checkpoint>,
    {
        let name = format!("{id:x}");
        let log = Log::open(&name, home.log()).context("open the raft log")?;
        let state = State::open(home.clone(), audience).context("open the state")?;
        let stage = state.stage.clone();
        let config = Arc::new(config(timing).validate().context("read the timing of consensus")?);
        // After all that may refuse: a runtime cannot be dropped here.
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name(format!("raft {name}"))
            .enable_all()
            .build()
            .context("start the threads of consensus")?;
        let of_raft = log.clone();
        let raft = runtime.spawn(async move { Raft::new(id, config, links, of_raft, state).await }).await??;
        let (heard, (found, leader)) = (Heard::new(), watch::channel(None));
        runtime.spawn(standing::follow(raft.clone(), heard.clone(), 2 * timing.election_max, found));
        Ok((raft, Parts { id, stage, log, home, leader, heard, runtime }))
    }

    async fn begin(
        raft: Raft<Types, State>,
        Parts { id, stage, log, home, leader, heard, runtime }: Parts,
        relay: Option<Relay>,
        founding: Founding,
    ) -> anyhow::Result<Group> {
        let (term, runtime) = (AtomicU64::new(0), Some(runtime));
        let group =
            Group { inner: Arc::new(Inner { id, raft, stage, log, home, leader, heard, relay, term, runtime }) };
        match founding {
            Founding::Alone(peer) => group.found(BTreeMap::from([(id, peer)])).await?,
            Founding::Together(members) => group.found(members).await?,
            Founding::Join => {}
        }
        Ok(group)
    }

    async fn found(&self, members: BTreeMap<u64, Peer>) -> anyhow::Result<()> {
        let raft = &self.inner.raft;
        if !raft.is_initialized().await? {
            match raft.initialize(members).await {
                // Another member was quicker, and asked this one for its vote already.
                Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => {}
                Err(error) => return Err(error).context("found the group"),
            }
        }
        if self.is_alone().await? && !raft.is_leader() {
            // Nobody else can win: there is nothing to wait for.
            raft.trigger().elect(false).await?;
        }
        Ok(())
    }

    /// Whether this member decides by itself.
    ///
    /// # Errors
    /// Consensus has stopped.
    pub async fn is_alone(&self) -> anyhow::Result<bool> {
        let id = self.inner.id;
        // Asked of consensus itself: what it publishes lags behind.
        let alone =
            self.inner.raft.with_raft_state(move |state| state.membership_state.effective().voter_ids().eq([id]));
        alone.await.context("ask who the members are")
    }

    /// Runs `task` on the threads of consensus, which no client's request can hold up.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.inner.runtime {
            runtime.spawn(task);
        }
    }

    pub fn id(&self) -> u64 {
        self.inner.id
    }

    pub fn stage(&self) -> &Arc<Stage> {
        &self.inner.stage
    }

    pub fn term(&self) -> u64 {
        self.inner.term.load(Ordering::Relaxed)
    }

    pub fn is_leader(&self) -> bool {
        self.inner.raft.is_leader()
    }

    /// The term this member leads in.
    pub fn leading_term(&self) -> Option<u64> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.state.is_leader().then_some(metrics.current_term)
    }

    /// Has `command` agreed on and applied here, whoever leads.
    ///
    /// # Errors
    /// The machine's refusal, or that of consensus: leader lost, timed out.
    pub async fn propose(&self, command: &Command) -> Result<Response, Refusal> {
        let command = Bytes::from(command.encode_to_vec());
        let Some(relay) = &self.inner.relay else {
            return match self.write(command).await? {
                Reply::Told(response) => Ok(response),
                Reply::Unasked => Err(self.unled()),
            };
        };
        let search = Search::of(self);
        loop {
            let asked = self.propose_once(relay, command.clone());
            if let Reply::Told(response) = search.within(asked).await? {
                return Ok(response);
            }
            search.pause().await;
        }
    }

    async fn propose_once(&self, relay: &Relay, command: Bytes) -> Result<Reply<Response>, Refusal> {
        if self.is_leader() {
            return self.write(command).await;
        }
        let Reply::Told((outcome, index)) = relay.propose(command).await? else { return Ok(Reply::Unasked) };
        // A client that reads what it wrote may ask this member again.
        self.inner.stage.applied(index).await;
        outcome.map(Reply::Told)
    }

    /// Has `command` agreed on while this member leads, and by nobody else.
    ///
    /// # Errors
    /// As [`Group::propose`]; not leader.
    pub async fn propose_leading(&self, command: &Command) -> Result<Response, Refusal> {
        match self.write(command.encode_to_vec().into()).await? {
            Reply::Told(response) => Ok(response),
            Reply::Unasked => Err(self.unled()),
        }
    }

    async fn write(&self, command: Bytes) -> Result<Reply<Response>, Refusal> {
        let write = self.inner.raft.client_write(Proposal(command));
        match tokio::time::timeout(REQUEST_TIMEOUT, write).await {
            Err(_) => Err(Refusal::Timeout),
            Ok(Ok(written)) => {
                self.led_by(written.log_id.committed_leader_id().term);
                let Outcome(outcome) = written.data;
                outcome.map(Reply::Told)
            }
            // Turned away at the door; what got into the log and was lost is told apart from it.
            Ok(Err(RaftError::APIError(ClientWriteError::ForwardToLeader(_)))) => Ok(Reply::Unasked),
            Ok(Err(RaftError::APIError(_))) => Err(Refusal::LeaderChanged),
            Ok(Err(RaftError::Fatal(_))) => Err(Refusal::Stopped),
        }
    }

    /// Has commands of another member's clients agreed on, in this order; `None` where this member does not lead.
    pub async fn propose_many(&self, commands: Vec<Bytes>) -> Option<Vec<Agreed>> {
        let count = commands.len();
        let stopped = || Some(vec![(Err(Refusal::Stopped), 0); count]);
        let Ok(mut written) = self.inner.raft.client_write_many(commands.into_iter().map(Proposal)).await else {
            return stopped();
        };
        let mut outcomes = Vec::with_capacity(count);
        while let Some(result) = written.next().await {
            match result {
                Ok(Ok(written)) => {
                    let Outcome(outcome) = written.response;
                    outcomes.push((outcome, written.log_id.index()));
                }
                Ok(Err(ClientWriteError::ForwardToLeader(_))) if outcomes.is_empty() => return None,
                Ok(Err(ClientWriteError::ForwardToLeader(_))) => outcomes.push((Err(Refusal::NotLeader), 0)),
                Ok(Err(_)) => outcomes.push((Err(Refusal::LeaderChanged), 0)),
                Err(_) => return stopped(),
            }
        }
        Some(outcomes)
    }

    /// Returns once everything acknowledged before the call can be read here (ReadIndex).
    ///
    /// # Errors
    /// No leader with a quorum behind it was found in time.
    pub async fn catch_up(&self) -> Result<(), Refusal> {
        let Some(relay) = &self.inner.relay else {
            return match self.read_index().await? {
                Some(index) => {
                    self.inner.stage.applied(index).await;
                    Ok(())
                }
                None => Err(self.unled()),
            };
        };
        let search = Search::of(self);
        loop {
            if let Reply::Told(()) = search.within(self.catch_up_once(relay)).await? {
                return Ok(());
            }
            search.pause().await;
        }
    }

    async fn catch_up_once(&self, relay: &Relay) -> Result<Reply<()>, Refusal> {
        let index = if self.is_leader() {
            self.read_index().await?
        } else {
            match relay.read_index().await? {
                Reply::Told(index) => Some(index),
                Reply::Unasked => None,
            }
        };
        let Some(index) = index else { return Ok(Reply::Unasked) };
        self.inner.stage.applied(index).await;
        Ok(Reply::Told(()))
    }

    /// The index to read at, from a leader that has just heard from a quorum; `None` where this member is none.
    ///
    /// # Errors
    /// Consensus has stopped.
    pub async fn read_index(&self) -> Result<Option<u64>, Refusal> {
        let confirmed = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
        match tokio::time::timeout(REQUEST_TIMEOUT, confirmed).await {
            Err(_) => Ok(None),
            Ok(Ok(linearizer)) => Ok(Some(linearizer.read_log_id().index())),
            Ok(Err(RaftError::APIError(
                LinearizableReadError::ForwardToLeader(_) | LinearizableReadError::QuorumNotEnough(_),
            ))) => Ok(None),
            Ok(Err(RaftError::Fatal(_))) => Err(Refusal::Stopped),
        }
    }

    /// What the leader says of a lease, renewed first where asked for; `None` where this member is to say it itself.
    ///
    /// # Errors
    /// No leader with a quorum behind it was found in time.
    pub async fn lease(&self, id: i64, renew: bool) -> Result<Option<LeaseResponse>, Refusal> {
        let Some(relay) = &self.inner.relay else {
            // Without a quorum behind it this member may be deposed, and the lease ended elsewhere.
            self.catch_up().await?;
            return Ok(None);
        };
        let search = Search::of(self);
        loop {
            if let Reply::Told(lease) = search.within(self.lease_once(relay, id, renew)).await? {
                return Ok(lease);
            }
            search.pause().await;
        }
    }

    async fn lease_once(&self, relay: &Relay, id: i64, renew: bool) -> Result<Reply<Option<LeaseResponse>>, Refusal> {
        if !self.is_leader() {
            return Ok(match relay.lease(id, renew).await? {
                Reply::Told(lease) => Reply::Told(Some(lease)),
                Reply::Unasked => Reply::Unasked,
            });
        }
        let Some(index) = self.read_index().await? else { return Ok(Reply::Unasked) };
        self.inner.stage.applied(index).await;
        Ok(Reply::Told(None))
    }

    fn unled(&self) -> Refusal {
        if self.leader().is_some() { Refusal::NotLeader } else { Refusal::NoLeader }
    }

    fn led_by(&self, term: u64) {
        self.inner.term.fetch_max(term, Ordering::Relaxed);
    }

    /// Who leads, as far as this member knows.
    pub fn leader(&self) -> Option<u64> {
        *self.inner.leader.borrow()
    }

    /// Returns once another member leads, or nobody does, or `within` has passed.
    pub async fn leader_other_than(&self, known: Option<u64>, within: Duration) {
        let mut leader = self.inner.leader.clone();
        let changed = async {
            if leader.wait_for(|leader| *leader != known).await.is_err() {
                // Consensus has stopped: there will be no other.
                std::future::pending::<()>().await;
            }
        };
        let _ = tokio::time::timeout(within, changed).await;
    }

    /// Gives the lead to the member `to`, or to the one that has most of the log; returns once it has taken it.
    ///
    /// # Errors
    /// Not leader, no such voter, or it did not take the lead in time.
    pub async fn hand_over(&self, to: Option<u64>, within: Duration) -> Result<(), Refusal> {
        let deadline = Instant::now() + within;
        if !self.is_leader() {
            return Err(Refusal::NotLeader);
        }
        let voters: Vec<u64> = self.inner.raft.voter_ids().filter(|id| *id != self.inner.id).collect();
        let to = match to {
            Some(to) if to == self.inner.id => return Ok(()),
            Some(to) => voters.contains(&to).then_some(to),
            None => self.most_advanced(&voters),
        };
        let to = to.ok_or(Refusal::BadTransferee)?;
        self.inner.raft.trigger().transfer_leader(to).await.map_err(|_| Refusal::Stopped)?;
        loop {
            let leader = self.leader();
            let left = deadline.saturating_duration_since(Instant::now());
            if leader == Some(to) {
                return Ok(());
            }
            if left.is_zero() {
                return Err(Refusal::TransferTimeout);
            }
            self.leader_other_than(leader, left).await;
        }
    }

    fn most_advanced(&self, voters: &[u64]) -> Option<u64> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let matched = metrics.replication.unwrap_or_default();
        voters.iter().copied().max_by_key(|id| matched.get(id).and_then(|at| at.as_ref().map(|at| at.index())))
    }

    pub fn progress(&self) -> Progress {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        self.led_by(metrics.current_term);
        Progress {
            term: metrics.current_term,
            leader: self.leader(),
            last_index: metrics.last_log_index.unwrap_or_default(),
            applied_index: metrics.last_applied.map_or(0, |id| id.index()),
            is_learner: metrics.membership_config.membership().learner_ids().any(|id| id == self.inner.id),
        }
    }

    pub fn is_member(&self, id: u64) -> bool {
        self.inner.raft.metrics().borrow_watched().membership_config.membership().get_node(&id).is_some()
    }

    /// Members of the group: id, what is known of it, whether it is a learner.
    pub fn members(&self) -> Vec<(u64, Peer, bool)> {
        let metrics = self.inner.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: Vec<u64> = membership.voter_ids().collect();
        membership.nodes().map(|(id, peer)| (*id, peer.clone(), !voters.contains(id))).collect()
    }

    /// Returns once this member leads.
    ///
    /// # Errors
    /// `within` has passed, or consensus has stopped.
    pub async fn lead(&self, within: Duration) -> anyhow::Result<()> {
        let (id, mut leader) = (Some(self.inner.id), self.inner.leader.clone());
        tokio::time::timeout(within, leader.wait_for(|leader| *leader == id)).await??;
        Ok(())
    }

    /// Returns when consensus has stopped for good: a failed disk, or a shutdown.
    pub async fn stopped(&self) -> Option<String> {
        let mut metrics = self.inner.raft.metrics();
        loop {
            if let Err(fatal) = &metrics.borrow_watched().running_state {
                return Some(fatal.to_string());
            }
            if metrics.changed().await.is_err() {
                return None;
            }
        }
    }

    /// Stops consensus and makes log and state durable, so that the next start has nothing to replay.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        self.inner.raft.shutdown().await.context("stop consensus")?;
        self.inner.log.stop().await.context("finish the raft log")?;
        let home = self.inner.home.clone();
        let close = move || -> io::Result<()> {
            let flushed = home.state().flush();
            home.close();
            flushed
        };
        tokio::task::spawn_blocking(close).await?.context("flush the state")
    }

    pub(in crate::consensus) fn heard(&self) -> &Heard {
        &self.inner.heard
    }

    pub(in crate::consensus) fn relay(&self) -> Option<&Relay> {
        self.inner.relay.as_ref()
    }

    pub(in crate::consensus) fn home(&self) -> &Arc<dyn Home> {
        &self.inner.home
    }

    pub(in crate::consensus) fn raft(&self) -> &Raft<Types, State> {
        &self.inner.raft
    }
}

/// The time a request has to find a leader that answers it.
pub(super) struct Search<'a> {
    group: &'a Group,
    led_by: Option<u64>,
    deadline: Instant,
}

impl Search<'_> {
    pub(super) fn of(group: &Group) -> Search<'_> {
        Search { group, led_by: group.leader(), deadline: Instant::now() + REQUEST_TIMEOUT }
    }

    pub(super) async fn within<T>(
        &self,
        asked: impl Future<Output = Result<Reply<T>, Refusal>>,
    ) -> Result<Reply<T>, Refusal> {
        match tokio::time::timeout_at(self.deadline, asked).await {
            Ok(reply) => reply,
            Err(_) if self.group.leader() != self.led_by => Err(Refusal::TimeoutLeaderFailed),
            Err(_) => Err(Refusal::Timeout),
        }
    }

    pub(super) async fn pause(&self) {
        self.group.leader_other_than(self.group.leader(), LOOK_AGAIN).await;
    }
}

/// What a member is made of before it takes part.
struct Parts {
    id: u64,
    stage: Arc<Stage>,
    log: Log,
    home: Arc<dyn Home>,
    leader: watch::Receiver<Option<u64>>,
    heard: Heard,
    runtime: Runtime,
}

fn config(timing: &Timing) -> Config {
    let millis = |duration: Duration| duration.as_millis() as u64;
    Config {
        cluster_name: "forestay".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        enable_pre_vote: Some(true),
        // A leader that restarts must be elected again: its state may be older than what it acknowledged.
        enable_leader_restore: Some(false),
        allow_log_reversion: Some(false),
        snapshot_policy: SnapshotPolicy::LogsSinceLast(timing.snapshot_entries),
        max_in_snapshot_log_to_keep: timing.log_kept,
        purge_batch_size: timing.log_kept.clamp(1, 1_000),
        max_payload_entries: 1_000,
        // Bounded queues: a burst waits at the door, not in memory.
        api_channel_size: Some(4_096),
        ..Config::default()
    }
}
