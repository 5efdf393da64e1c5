//! A link between members of one process that drops, delays (and so reorders) and parts, by a seed.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use openraft::{
    AnyError, OptionalSend, RaftNetworkFactory, RaftNetworkV2,
    alias::*,
    errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable},
    network::RPCOption,
    raft::{AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse},
};
use parking_lot::Mutex;
use proto::forestay::raft::v1::Peer;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::super::{Group, Types};
use crate::engine::Checkpoint;

/// What the link does to a message, in percent and milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Weather {
    pub drop_percent: u32,
    pub delay_ms_max: u64,
}

#[derive(Clone)]
pub struct Sea {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    groups: BTreeMap<u64, Group>,
    cut: BTreeSet<(u64, u64)>,
    weather: Weather,
    rng: StdRng,
    snapshots: u64,
}

impl Sea {
    pub fn new(seed: u64) -> Sea {
        let inner = Inner {
            groups: BTreeMap::new(),
            cut: BTreeSet::new(),
            weather: Weather::default(),
            rng: StdRng::seed_from_u64(seed),
            snapshots: 0,
        };
        Sea { inner: Arc::new(Mutex::new(inner)) }
    }

    pub fn link(&self, from: u64) -> Links {
        Links { sea: self.clone(), from }
    }

    pub fn join(&self, group: &Group) {
        self.inner.lock().groups.insert(group.id(), group.clone());
    }

    pub fn leave(&self, id: u64) {
        self.inner.lock().groups.remove(&id);
    }

    pub fn members(&self) -> Vec<Group> {
        self.inner.lock().groups.values().cloned().collect()
    }

    pub fn weather(&self, weather: Weather) {
        self.inner.lock().weather = weather;
    }

    /// Nothing passes between `id` and the others, in either direction.
    pub fn part(&self, id: u64) {
        for other in 1..=3 {
            self.inner.lock().cut.extend([(id, other), (other, id)]);
        }
    }

    pub fn heal(&self) {
        self.inner.lock().cut.clear();
    }

    pub fn snapshots_sent(&self) -> u64 {
        self.inner.lock().snapshots
    }

    /// The peer, if the message gets through; after its delay.
    async fn pass(&self, from: u64, to: u64) -> Result<Group, RPCError<Types>> {
        let (group, dropped, delay) = {
            let mut inner = self.inner.lock();
            let weather = inner.weather;
            let dropped = inner.cut.contains(&(from, to)) || inner.rng.random_range(0..100) < weather.drop_percent;
            let delay = if weather.delay_ms_max > 0 { inner.rng.random_range(0..=weather.delay_ms_max) } else { 0 };
            (inner.groups.get(&to).cloned(), dropped, delay)
        };
        if delay > 0 {
            tokio::time::sleep(Duration::from_millis(delay)).await;
        }
        match group {
            Some(group) if !dropped => Ok(group),
            Some(_) => Err(RPCError::Network(NetworkError::new(&AnyError::error("the message was lost")))),
            None => Err(RPCError::Unreachable(Unreachable::new(&AnyError::error("the member is down")))),
        }
    }
}

#[derive(Clone)]
pub struct Links {
    sea: Sea,
    from: u64,
}

impl RaftNetworkFactory<Types> for Links {
    type Network = Link;

    async fn new_client(&mut self, target: u64, _: &Peer) -> Link {
        Link { sea: self.sea.clone(), from: self.from, to: target }
    }
}

pub struct Link {
    sea: Sea,
    from: u64,
    to: u64,
}

impl Link {
    async fn there(&self) -> Result<Group, RPCError<Types>> {
        self.sea.pass(self.from, self.to).await
    }

    /// The answer has to cross as well.
    async fn back(&self) -> Result<(), RPCError<Types>> {
        self.sea.pass(self.to, self.from).await.map(|_| ())
    }
}

fn remote<E: std::error::Error + 'static>(error: E) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&error))
}

impl RaftNetworkV2<Types> for Link {
    type SnapshotData = Checkpoint;

    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        _: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let answer = self.there().await?.raft().append_entries(request).await.map_err(remote)?;
        self.back().await?;
        Ok(answer)
    }

    async fn vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.there().await?.raft().vote(request).await.map_err(remote)?;
        self.back().await?;
        Ok(answer)
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<Types>,
        _: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.there().await?.raft().pre_vote(request).await.map_err(remote)?;
        self.back().await?;
        Ok(answer)
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Checkpoint>,
        _: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let group = self.there().await.map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
        self.sea.inner.lock().snapshots += 1;
        group
            .raft()
            .install_full_snapshot(vote, snapshot)
            .await
            .map_err(|error| StreamingError::Network(NetworkError::new(&error)))
    }
}
