//! The forms a store has behind the apiserver: each started for one test, in a folder that goes with it.

use std::{
    fs::{self, File},
    net::TcpListener as StdListener,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Arc,
};

use apiserver::storage::{EtcdStore, Store};
use forestay::store::InProcess;
use proto::etcdserverpb::RangeRequest;
use raft_store::{Engine, Node, Options};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::transport::Channel;

use crate::eventually;

/// Where Debian's etcd-server puts it.
const ETCD: &str = "/usr/bin/etcd";
/// Free ports are another's a moment later, rarely.
const STARTS_MAX: usize = 5;

/// Where the store is, seen from the apiserver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// raft-store in the same process, in memory.
    InMemory,
    /// raft-store in the same process, on RocksDB.
    OnRocksDb,
    /// raft-store behind its gRPC door.
    OverGrpc,
    /// A real etcd: the oracle.
    Etcd,
}

/// A store that runs.
pub struct Standing {
    pub store: Arc<dyn Store>,
    behind: Behind,
    _folder: TempDir,
}

enum Behind {
    Member { node: Node, serving: Option<JoinHandle<anyhow::Result<()>>> },
    Process(#[expect(dead_code, reason = "ends with its owner")] Etcd),
}

impl Form {
    /// Starts a store of this form; `None`, and a loud word, where etcd is not installed.
    pub async fn start(self) -> Option<Standing> {
        let folder = tempfile::tempdir().unwrap();
        match self {
            Self::InMemory => Some(Standing::in_process(Engine::Memory, folder).await),
            Self::OnRocksDb => Some(Standing::in_process(Engine::RocksDb, folder).await),
            Self::OverGrpc => Some(Standing::over_grpc(folder).await),
            Self::Etcd if Path::new(ETCD).exists() => Some(Standing::etcd(folder).await),
            Self::Etcd => {
                eprintln!(
                    "\n*** SKIPPED: {ETCD} is missing, so nothing was held against a real etcd. Install etcd-server. ***\n"
                );
                None
            }
        }
    }
}

impl Standing {
    async fn in_process(engine: Engine, folder: TempDir) -> Self {
        let node = member(engine, &folder).await;
        let store = Arc::new(InProcess(node.clone()));
        Self { store, behind: Behind::Member { node, serving: None }, _folder: folder }
    }

    async fn over_grpc(folder: TempDir) -> Self {
        let node = member(Engine::Memory, &folder).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let store = store_at(&format!("http://{}", listener.local_addr().unwrap()));
        let serving = tokio::spawn({
            let node = node.clone();
            async move { node.serve(listener, None).await }
        });
        Self { store, behind: Behind::Member { node, serving: Some(serving) }, _folder: folder }
    }

    async fn etcd(folder: TempDir) -> Self {
        let (etcd, store) = Etcd::start(folder.path()).await;
        Self { store, behind: Behind::Process(etcd), _folder: folder }
    }

    /// Stops the store; those who still hold it are turned away.
    pub async fn stop(self) -> Arc<dyn Store> {
        if let Behind::Member { node, serving } = self.behind {
            node.shutdown().await.unwrap();
            if let Some(serving) = serving {
                serving.await.unwrap().unwrap();
            }
        }
        self.store
    }
}

async fn member(engine: Engine, folder: &TempDir) -> Node {
    let options = Options { data_dir: folder.path().join("store"), engine, ..Options::default() };
    Node::start(options).await.unwrap()
}

fn store_at(address: &str) -> Arc<dyn Store> {
    let channel = Channel::from_shared(address.to_owned()).unwrap().tcp_nodelay(true).connect_lazy();
    Arc::new(EtcdStore::new(channel))
}

/// An etcd process that does not outlive its test.
struct Etcd(Child);

impl Etcd {
    /// Starts etcd on free ports, and waits until it has elected itself.
    async fn start(folder: &Path) -> (Self, Arc<dyn Store>) {
        let log = folder.join("etcd.log");
        for start in 0..STARTS_MAX {
            let (mut etcd, address) = Self::spawn(&folder.join(format!("etcd-{start}")), &log);
            let store = store_at(&address);
            let answers = eventually("etcd answers", || {
                let (has_ended, store) = (etcd.0.try_wait().unwrap().is_some(), store.clone());
                async move {
                    let read = RangeRequest { key: "a".into(), ..RangeRequest::default() };
                    if has_ended { Some(false) } else { store.range(read).await.ok().map(|_| true) }
                }
            })
            .await;
            if answers {
                return (etcd, store);
            }
        }
        panic!("etcd ended at each start: {}", fs::read_to_string(log).unwrap())
    }

    fn spawn(data: &Path, log: &Path) -> (Self, String) {
        // Both are held until both are known: the kernel then cannot give one out twice.
        let held = [(); 2].map(|()| StdListener::bind("127.0.0.1:0").unwrap());
        let [client, peer] = held.each_ref().map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        drop(held);
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(ETCD)
            .arg(format!("--data-dir={}", data.display()))
            .args([format!("--listen-client-urls={client}"), format!("--advertise-client-urls={client}")])
            .args([format!("--listen-peer-urls={peer}"), format!("--initial-advertise-peer-urls={peer}")])
            .arg(format!("--initial-cluster=default={peer}"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        (Self(child), client)
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
