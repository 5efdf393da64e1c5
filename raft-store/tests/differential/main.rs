//! The same random requests to a real etcd and to this store; every answer compared, field by field.
//!
//! `SEED=<number>` repeats a run, `SEED=random` makes a new one, `REQUESTS=<number>` makes it longer. Without them the runs are
//! the same each time. What may differ stands in `docs/etcd.md`, and nowhere else.
#![allow(clippy::unwrap_used)]

mod dice;
mod servers;
mod sessions;
mod show;

use std::collections::BTreeMap;

use proto::etcdserverpb::PutRequest;
use raft_store::Engine;

use dice::{Ask, Dice};
use servers::{etcd, ours};
use show::{answer, within};

#[tokio::test(flavor = "multi_thread")]
async fn answers_equal_those_of_etcd() {
    match std::env::var("SEED") {
        Ok(seed) => compare_answers(seed.parse().unwrap_or_else(|_| rand::random::<u64>())).await,
        Err(_) => {
            for seed in SEEDS {
                compare_answers(seed).await;
            }
        }
    }
}

/// An even one for RocksDB, an odd one for the engine in memory.
const SEEDS: [u64; 2] = [3492711646188362558, 4066070780061593873];

async fn compare_answers(seed: u64) {
    let requests: usize = std::env::var("REQUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(1500);
    println!("SEED={seed}");
    let (_etcd, theirs) = etcd().await;
    let (node, _folder, ours) = ours(if seed.is_multiple_of(2) { Engine::RocksDb } else { Engine::Memory }).await;
    let mut dice = Dice::new(seed);
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..requests {
        let ask = dice.ask();
        let expected = within(number, "etcd", &ask, answer(&theirs, ask.clone())).await;
        let actual = within(number, "this store", &ask, answer(&ours, ask.clone())).await;
        assert_eq!(actual, expected, "request {number} of SEED={seed}: {ask:?}");
        *counts.entry(kind(&expected)).or_default() += 1;
        if let Ask::Compact(compaction) = ask
            && expected.starts_with("compact")
        {
            dice.compacted = compaction.revision;
        }
        let mark = || Ask::Put(PutRequest { key: "revision".into(), ..PutRequest::default() });
        let current = answer(&theirs, mark()).await;
        assert_eq!(answer(&ours, mark()).await, current);
        dice.revision = revision_of(&current);
    }
    println!("{counts:#?}");
    node.shutdown().await.unwrap();
}

/// The first word of an answer, or the whole error.
fn kind(answer: &str) -> String {
    let line = answer.lines().next().unwrap_or_default();
    if line.contains("etcdserver:") { line.to_owned() } else { line.split(' ').next().unwrap_or_default().to_owned() }
}

fn revision_of(put: &str) -> i64 {
    let number = put.split("Some(").nth(1).and_then(|rest| rest.split(')').next());
    number.and_then(|number| number.parse().ok()).expect("a put names its revision")
}
