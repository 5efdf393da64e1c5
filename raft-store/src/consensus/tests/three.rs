//! Three members in one process: what was acknowledged is on all of them in the end, whatever the link does.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proto::{
    etcdserverpb::{PutRequest, RangeRequest},
    forestay::raft::v1::{Command, Peer, command::Action},
};

use super::{
    super::{Founding, Group, Timing},
    lossy::{Sea, Weather},
    suite::Deaf,
};
use crate::{
    engine::{Home, MemoryHome, RocksHome, Tuning},
    machine::{self, Counted},
};

/// Waits that only end a test that has gone wrong.
const PATIENCE: Duration = Duration::from_secs(60);

pub(super) struct Fleet {
    pub sea: Sea,
    pub groups: BTreeMap<u64, Group>,
    homes: BTreeMap<u64, Arc<dyn Home>>,
    timing: Timing,
    pub acknowledged: Vec<String>,
}

impl Fleet {
    pub async fn launch(seed: u64, timing: Timing, home: impl Fn(u64) -> Arc<dyn Home>) -> Fleet {
        println!("SEED={seed}");
        let sea = Sea::new(seed);
        let homes = (1..=3).map(|id| (id, home(id))).collect();
        let mut fleet = Fleet { sea, groups: BTreeMap::new(), homes, timing, acknowledged: Vec::new() };
        for id in 1..=3 {
            fleet.start(id).await;
        }
        let peers: BTreeMap<u64, Peer> =
            (1..=3).map(|id| (id, Peer { name: format!("m{id}"), ..Peer::default() })).collect();
        fleet.groups[&1].raft().initialize(peers).await.unwrap();
        fleet
    }

    pub async fn start(&mut self, id: u64) {
        let group =
            Group::start(id, self.homes[&id].clone(), Founding::Join, &self.timing, Arc::new(Deaf), self.sea.link(id))
                .await
                .unwrap();
        self.sea.join(&group);
        self.groups.insert(id, group);
    }

    /// A member that leads, among those given.
    pub async fn leader_among(&self, ids: &[u64]) -> u64 {
        let found = async {
            loop {
                for id in ids {
                    if self.groups[id].is_leader() && self.groups[id].catch_up().await.is_ok() {
                        return *id;
                    }
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, found).await.expect("a leader is elected")
    }

    /// Writes until `count` writes are acknowledged; those that are not may or may not have happened.
    pub async fn write(&mut self, ids: &[u64], prefix: &str, count: usize) {
        let mut number = 0;
        let goal = self.acknowledged.len() + count;
        while self.acknowledged.len() < goal {
            let leader = self.leader_among(ids).await;
            let keys: Vec<String> = (0..16).map(|offset| format!("{prefix}{:05}", number + offset)).collect();
            number += 16;
            let group = &self.groups[&leader];
            let writes = keys.iter().map(|key| async move { (key.clone(), group.propose(&put(key)).await) });
            for (key, outcome) in futures::future::join_all(writes).await {
                if outcome.is_ok() {
                    self.acknowledged.push(key);
                }
            }
        }
    }

    pub async fn settled(&self) {
        let leader = self.leader_among(&[1, 2, 3]).await;
        let index = self.groups[&leader].progress().last_index;
        for group in self.groups.values() {
            group.raft().wait(Some(PATIENCE)).applied_index_at_least(Some(index), "all caught up").await.unwrap();
        }
    }

    /// Nothing acknowledged is missing anywhere, and all members hold the same bytes.
    pub fn check(&self) {
        let mut seen = Vec::new();
        for group in self.groups.values() {
            let (keys, hash, position) = group
                .stage()
                .read(|view, position| {
                    let all = RangeRequest {
                        key: vec![0].into(),
                        range_end: vec![0].into(),
                        keys_only: true,
                        ..RangeRequest::default()
                    };
                    let found = machine::range(view, position, &all, &Counted::default())?.unwrap();
                    let keys: std::collections::BTreeSet<Vec<u8>> =
                        found.kvs.into_iter().map(|kv| kv.key.to_vec()).collect();
                    Ok((keys, machine::hash_kv(view, position, 0)?.unwrap(), position.clone()))
                })
                .unwrap();
            for key in &self.acknowledged {
                assert!(keys.contains(key.as_bytes()), "member {} lost the acknowledged write {key}", group.id());
            }
            seen.push((position.revision, position.digest, hash, position.applied));
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "members differ: {seen:?}");
    }

    pub async fn stop(self) {
        for group in self.groups.values() {
            group.shutdown().await.unwrap();
        }
    }
}

fn put(key: &str) -> Command {
    Command {
        action: Some(Action::Put(PutRequest {
            key: key.as_bytes().to_vec().into(),
            value: "v".into(),
            ..PutRequest::default()
        })),
    }
}

fn memory(_: u64) -> Arc<dyn Home> {
    Arc::new(MemoryHome::new())
}

pub(super) fn seed() -> u64 {
    std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(rand::random)
}

pub(super) fn others(id: u64) -> Vec<u64> {
    (1..=3).filter(|other| *other != id).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_survive_a_link_that_drops_and_delays() {
    let mut fleet = Fleet::launch(seed(), Timing::default(), memory).await;
    fleet.sea.weather(Weather { drop_percent: 5, delay_ms_max: 8 });
    fleet.write(&[1, 2, 3], "w", 300).await;
    fleet.sea.weather(Weather::default());
    fleet.settled().await;
    fleet.check();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deposed_leader_gives_up_what_was_never_agreed_on() {
    let mut fleet = Fleet::launch(seed(), Timing::default(), memory).await;
    fleet.write(&[1, 2, 3], "before", 32).await;
    let deposed = fleet.leader_among(&[1, 2, 3]).await;
    fleet.sea.part(deposed);
    // These reach the log of the parted leader only.
    let group = fleet.groups[&deposed].clone();
    let doomed: Vec<_> = (0..8)
        .map(|number| {
            let group = group.clone();
            tokio::spawn(async move { group.propose(&put(&format!("doomed{number}"))).await })
        })
        .collect();
    fleet.write(&others(deposed), "after", 32).await;
    fleet.sea.heal();
    fleet.settled().await;
    for outcome in doomed {
        assert!(outcome.await.unwrap().is_err(), "a write was acknowledged without a quorum");
    }
    let left = fleet.groups[&deposed]
        .stage()
        .read(|view, position| {
            let doomed = RangeRequest { key: "doomed".into(), range_end: "doomee".into(), ..RangeRequest::default() };
            Ok(machine::range(view, position, &doomed, &Counted::default())?.unwrap().count)
        })
        .unwrap();
    assert_eq!(left, 0);
    fleet.check();
    fleet.stop().await;
}

/// The log is purged before the member comes back, so that it can only be filled by a snapshot.
async fn lagging(home: impl Fn(u64) -> Arc<dyn Home>) {
    let timing = Timing { snapshot_entries: 50, log_kept: 10, ..Timing::default() };
    let mut fleet = Fleet::launch(seed(), timing, home).await;
    fleet.write(&[1, 2, 3], "early", 16).await;
    let leader = fleet.leader_among(&[1, 2, 3]).await;
    let lagging = others(leader)[0];
    fleet.sea.part(lagging);
    fleet.write(&others(lagging), "late", 300).await;
    let leader = fleet.leader_among(&others(lagging)).await;
    let known = fleet.groups[&lagging].progress().last_index;
    fleet.groups[&leader]
        .raft()
        .wait(Some(PATIENCE))
        .metrics(|metrics| metrics.purged.is_some_and(|purged| purged.index() > known), "the log is purged")
        .await
        .unwrap();
    fleet.sea.heal();
    fleet.settled().await;
    assert!(fleet.sea.snapshots_sent() > 0, "the member caught up without a snapshot");
    fleet.check();
    fleet.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_member_is_filled_by_a_snapshot_in_memory() {
    lagging(memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lagging_member_is_filled_by_a_snapshot_on_rocksdb() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_owned();
    lagging(move |id| Arc::new(RocksHome::open(&path.join(id.to_string()), &Tuning::log(), &Tuning::state()).unwrap()))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_members_losing_power_lose_nothing_acknowledged() {
    let homes: BTreeMap<u64, MemoryHome> = (1..=3).map(|id| (id, MemoryHome::new())).collect();
    let mut fleet = Fleet::launch(seed(), Timing::default(), |id| Arc::new(homes[&id].clone())).await;
    fleet.write(&[1, 2, 3], "w", 100).await;
    for id in 1..=3 {
        fleet.sea.leave(id);
        let group = fleet.groups.remove(&id).unwrap();
        group.raft().shutdown().await.unwrap();
        homes[&id].cut_power();
    }
    for id in 1..=3 {
        fleet.start(id).await;
    }
    fleet.write(&[1, 2, 3], "x", 16).await;
    fleet.settled().await;
    fleet.check();
    fleet.stop().await;
}
