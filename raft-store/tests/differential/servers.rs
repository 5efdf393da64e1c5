//! The two stores that are compared: a real etcd, and this one.

use std::{
    net::TcpListener as StdListener,
    process::{Child, Command, Stdio},
};

use proto::etcdserverpb::{RangeRequest, kv_client::KvClient};
use raft_store::{Engine, Node, Options};
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// An etcd that ends with its test.
pub struct Etcd {
    process: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub async fn etcd() -> (Etcd, Channel) {
    let folder = tempfile::tempdir().unwrap();
    let free = || StdListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (client, peer) = (format!("http://{}", free()), format!("http://{}", free()));
    let process = Command::new("etcd")
        .args([
            "--data-dir",
            folder.path().join("etcd").to_str().unwrap(),
            "--listen-client-urls",
            &client,
            "--advertise-client-urls",
            &client,
        ])
        .args([
            "--listen-peer-urls",
            &peer,
            "--initial-advertise-peer-urls",
            &peer,
            "--initial-cluster",
            &format!("default={peer}"),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run etcd: install Debian's etcd-server");
    let etcd = Etcd { process, _folder: folder };
    let channel = Channel::from_shared(client).unwrap().connect_lazy();
    // It answers once it has elected itself.
    let mut kv = KvClient::new(channel.clone());
    while kv.range(RangeRequest { key: "a".into(), ..RangeRequest::default() }).await.is_err() {
        tokio::task::yield_now().await;
    }
    (etcd, channel)
}

pub async fn ours(engine: Engine) -> (Node, tempfile::TempDir, Channel) {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap().connect_lazy();
    let node =
        Node::start(Options { data_dir: folder.path().join("store"), engine, ..Options::default() }).await.unwrap();
    let serving = node.clone();
    tokio::spawn(async move { serving.serve(listener, None).await.unwrap() });
    (node, folder, channel)
}
