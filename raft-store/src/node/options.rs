//! What a member is started with.

use std::path::PathBuf;

use super::{Cluster, Peering};
use crate::{consensus::Timing, engine::Tuning, watch::Bounds};

/// Where rows are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engine {
    #[default]
    RocksDb,
    /// Gone with the process.
    Memory,
}

/// How a member without data begins; one with data goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Founding {
    /// As the only member of a new store, under ids drawn at random.
    #[default]
    Alone,
    /// As one of the first members of a new store, each of which is started with the same ones.
    Together(Cluster),
    /// As a member that was added to a store, found by the addresses of the others.
    Join(Cluster),
}

/// Everything has a default; a process sets `name` and `data_dir`.
#[derive(Clone, Debug)]
pub struct Options {
    pub name: String,
    pub data_dir: PathBuf,
    pub engine: Engine,
    /// Told to clients that ask for members.
    pub advertise_client_urls: Vec<String>,
    pub advertise_peer_urls: Vec<String>,
    pub founding: Founding,
    /// None for a member that will stay the only one.
    pub peering: Option<Peering>,
    pub timing: Timing,
    pub log_tuning: Tuning,
    pub state_tuning: Tuning,
    pub ring: Bounds,
    /// Bytes of one request; etcd's default.
    pub request_bytes_max: usize,
    /// Operations of one Txn; etcd's default.
    pub txn_ops_max: usize,
    /// Reads of many keys that run at once; others wait.
    pub wide_reads_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            name: "default".to_owned(),
            data_dir: PathBuf::from("default.etcd"),
            engine: Engine::RocksDb,
            advertise_client_urls: vec!["http://localhost:2379".to_owned()],
            advertise_peer_urls: vec!["http://localhost:2380".to_owned()],
            founding: Founding::Alone,
            peering: None,
            timing: Timing::default(),
            log_tuning: Tuning::log(),
            state_tuning: Tuning::state(),
            ring: Bounds::default(),
            request_bytes_max: 3 << 19,
            txn_ops_max: 128,
            wide_reads_max: 8,
        }
    }
}
