//! Faults chosen by a seed, one after the other, under writes and reads: nothing acknowledged is lost, no read is stale.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering},
    },
};

use proto::etcdserverpb::RangeRequest;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{
    super::Timing,
    lossy::{Sea, Weather},
    three::{Fleet, others, seed},
};
use crate::{
    engine::MemoryHome,
    machine::{self, Counted},
};

const ROUNDS: usize = 10;

/// How many keys there are on a member, once it has been confirmed to be up to date.
async fn keys_read(sea: &Sea, member: usize) -> Option<i64> {
    let members = sea.members();
    let group = members.get(member % members.len().max(1))?;
    group.catch_up().await.ok()?;
    let all = RangeRequest { key: vec![0].into(), range_end: vec![0].into(), count_only: true, ..Default::default() };
    let read = group.stage().read(|view, position| machine::range(view, position, &all, &Counted::default()));
    Some(read.unwrap().unwrap().count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_makes_no_read_stale_and_loses_no_write() {
    let seed = seed();
    let homes: BTreeMap<u64, MemoryHome> = (1..=3).map(|id| (id, MemoryHome::new())).collect();
    // Short, so that members that were away are filled by snapshots too.
    let timing = Timing { snapshot_entries: 40, log_kept: 10, ..Timing::default() };
    let mut fleet = Fleet::launch(seed, timing, |id| Arc::new(homes[&id].clone())).await;
    // Before that, the others do not know that they are members.
    fleet.settled().await;
    let mut dice = StdRng::seed_from_u64(seed);

    let (acknowledged, is_over) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicBool::new(false)));
    let reads = Arc::new(AtomicUsize::new(0));
    let reader = tokio::spawn({
        let (sea, acknowledged, is_over, reads) =
            (fleet.sea.clone(), acknowledged.clone(), is_over.clone(), reads.clone());
        async move {
            for turn in 0.. {
                if is_over.load(Ordering::SeqCst) {
                    return;
                }
                let floor = acknowledged.load(Ordering::SeqCst);
                if let Some(found) = keys_read(&sea, turn).await {
                    assert!(found >= floor, "a read found {found} keys where {floor} were acknowledged before it");
                    reads.fetch_add(1, Ordering::SeqCst);
                }
                tokio::task::yield_now().await;
            }
        }
    });

    for round in 0..ROUNDS {
        let victim = match dice.random_range(0..2) {
            0 => fleet.leader_among(&[1, 2, 3]).await,
            _ => dice.random_range(1..=3),
        };
        let loses_power = dice.random_range(0..2) == 0;
        println!("round {round}: member {victim} {}", if loses_power { "loses power" } else { "is parted" });
        if loses_power {
            fleet.sea.leave(victim);
            let group = fleet.groups.remove(&victim).unwrap();
            group.raft().shutdown().await.unwrap();
            homes[&victim].cut_power();
        } else {
            fleet.sea.part(victim);
        }
        let bad = Weather { drop_percent: dice.random_range(0..10), delay_ms_max: dice.random_range(0..6) };
        fleet.sea.weather(bad);
        for burst in 0..3 {
            fleet.write(&others(victim), &format!("r{round}-{burst}-"), 16).await;
            acknowledged.store(fleet.acknowledged.len() as i64, Ordering::SeqCst);
        }
        if loses_power {
            fleet.start(victim).await;
        }
        fleet.sea.heal();
    }
    fleet.sea.weather(Weather::default());
    is_over.store(true, Ordering::SeqCst);
    reader.await.unwrap();
    assert!(reads.load(Ordering::SeqCst) > ROUNDS, "hardly anything was read");
    assert!(fleet.sea.snapshots_sent() > 0, "nobody was filled by a snapshot");
    fleet.settled().await;
    fleet.check();
    fleet.stop().await;
}
