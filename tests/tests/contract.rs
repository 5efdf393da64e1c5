//! The real server keeps the contract that the fake keeps, so that tests over the fake say something about the house.
#![allow(clippy::unwrap_used)]

use tests::cluster::Cluster;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apiserver_keeps_the_contract() {
    let cluster = Cluster::start(&[]).await;
    client::contract::all(&cluster.client).await;
    cluster.stop().await.unwrap();
}
