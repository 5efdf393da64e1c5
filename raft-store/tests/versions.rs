//! What another build wrote is refused by name, and left as it is.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use prost::Message;
use proto::{etcdserverpb::PutRequest, forestay::raft::v1::Position};
use raft_store::{
    Node, Options,
    engine::{Batch, Durability, Engine, Home, MemoryHome},
    machine::{self, layout},
};

/// The place of a member that has written something, with one row replaced.
async fn with_row(engine: impl Fn(&MemoryHome) -> Arc<dyn Engine>, key: &'static [u8], row: Vec<u8>) -> MemoryHome {
    let home = MemoryHome::new();
    let node = Node::start_in(Arc::new(home.clone()), Options::default()).await.unwrap();
    node.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap();
    node.shutdown().await.unwrap();
    let mut batch = Batch::default();
    batch.put(key, row);
    engine(&home).write(batch, Durability::Synced).unwrap();
    home
}

async fn refusal(home: &MemoryHome) -> String {
    let refused = Node::start_in(Arc::new(home.clone()), Options::default()).await.err();
    format!("{:#}", refused.expect("it was opened"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_a_newer_machine_refuses_to_start() {
    let newer = Position { machine_version: machine::MACHINE_VERSION + 1, ..machine::origin() };
    let home = with_row(|home| home.state(), layout::POSITION, newer.encode_to_vec()).await;
    let told = refusal(&home).await;
    assert!(told.contains("format 1 and machine version 2; this build knows format 1 and versions up to 1"), "{told}");
    assert_eq!(home.state().get(layout::POSITION).unwrap().unwrap(), newer.encode_to_vec());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_of_another_format_refuses_to_start() {
    let other = Position { format: 7, ..machine::origin() };
    let home = with_row(|home| home.state(), layout::POSITION, other.encode_to_vec()).await;
    let told = refusal(&home).await;
    assert!(told.contains("the state has format 7"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_raft_log_of_another_format_refuses_to_start() {
    let home = with_row(|home| home.log(), b"m/format", vec![7]).await;
    let told = refusal(&home).await;
    assert!(told.contains("the raft log has format") && told.contains("start the build that wrote it"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_whose_identity_is_lost_is_not_founded_anew() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { data_dir: folder.path().to_owned(), ..Options::default() };
    let node = Node::start(options.clone()).await.unwrap();
    node.put(PutRequest { key: "a".into(), ..PutRequest::default() }).await.unwrap();
    node.shutdown().await.unwrap();
    drop(node);
    std::fs::remove_file(folder.path().join("IDENTITY")).unwrap();
    let told = format!("{:#}", Node::start(options).await.err().expect("a second store was founded"));
    assert!(told.contains("has a state but no file IDENTITY: put the file back"), "{told}");
}
