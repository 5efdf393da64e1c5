//! What compaction leaves on disk.
#![allow(clippy::unwrap_used)]

use std::{ops::ControlFlow, sync::Arc};

use proto::etcdserverpb::{CompactionRequest, DeleteRangeRequest, HashKvRequest, PutRequest};
use raft_store::{
    Node, Options,
    engine::{Home, MemoryHome},
};

/// Rows of the history and of the index of versions.
fn rows(home: &MemoryHome) -> (usize, usize) {
    let count = |from: &[u8], to: &[u8]| {
        let mut rows = 0;
        let mut visit = |_: &[u8], _: &[u8]| {
            rows += 1;
            Ok(ControlFlow::Continue(()))
        };
        home.state().scan(from, to, &mut visit).unwrap();
        rows
    };
    (count(b"r", b"s"), count(b"v", b"w"))
}

async fn hash(node: &Node, revision: i64) -> u32 {
    node.hash_kv(HashKvRequest { revision }).await.unwrap().hash
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_leaves_what_can_be_read_and_nothing_else() {
    let home = MemoryHome::new();
    let node = Node::start_in(Arc::new(home.clone()), Options::default()).await.unwrap();
    // More changes than one slice of the sweep, with large values, which stand in the history only.
    for round in 0..400 {
        for key in 0..7 {
            let value = vec![b'v'; if key == 3 { 5_000 } else { 10 }];
            let put = PutRequest { key: format!("k{key}").into(), value: value.into(), ..PutRequest::default() };
            node.put(put).await.unwrap();
        }
        if round % 50 == 49 {
            let delete = DeleteRangeRequest { key: "k5".into(), range_end: "k7".into(), ..Default::default() };
            node.delete_range(delete).await.unwrap();
        }
    }
    let revision = node.status().await.unwrap().header.unwrap().revision;
    // Keys 0 to 4 live; 5 and 6 were deleted by the last change.
    let before = (hash(&node, revision - 30).await, hash(&node, revision).await);
    node.compaction(CompactionRequest { revision: revision - 30, physical: true }).await.unwrap();
    assert_eq!((hash(&node, revision - 30).await, hash(&node, revision).await), before);
    let (history, versions) = rows(&home);
    // All seven as they stood at the compacted revision, and what came after.
    assert_eq!((history, versions), (7 + 31, 7 + 31));

    node.compaction(CompactionRequest { revision, physical: true }).await.unwrap();
    assert_eq!(hash(&node, revision).await, before.1);
    // The two ends stand at the compacted revision itself, and can still be heard by a watch.
    assert_eq!(rows(&home), (5 + 2, 5 + 2));

    let last = node.put(PutRequest { key: "k0".into(), ..PutRequest::default() }).await.unwrap();
    let revision = last.header.unwrap().revision;
    node.compaction(CompactionRequest { revision, physical: true }).await.unwrap();
    assert_eq!(rows(&home), (5, 5));
    node.shutdown().await.unwrap();
}
