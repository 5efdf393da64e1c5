//! openraft's storage suite on both engines.

use std::{io, sync::Arc};

use openraft::{
    StorageError,
    testing::log::{StoreBuilder, Suite},
};
use proto::{forestay::raft::v1::Position, mvccpb::Event};

use super::super::{
    Types,
    log::Log,
    state::{Audience, State},
};
use crate::{
    engine::{Engine, Home, MemoryHome, RocksHome, Tuning},
    machine::LeaseChange,
};

pub struct Deaf;

impl Audience for Deaf {
    fn events(&self, _: i64, _: Vec<Event>) {}
    fn leases(&self, _: &[LeaseChange]) {}
    fn compacted(&self, _: i64) {}
    fn replaced(&self, _: &Position, _: &dyn Engine) {}
}

fn stores(home: Arc<dyn Home>) -> io::Result<(Log, State)> {
    Ok((Log::open("suite", home.log())?, State::open(home, Arc::new(Deaf))?))
}

struct OnRocks;

impl StoreBuilder<Types, Log, State, tempfile::TempDir> for OnRocks {
    async fn build(&self) -> Result<(tempfile::TempDir, Log, State), StorageError<Types>> {
        let folder = tempfile::tempdir().unwrap();
        let home = RocksHome::open(folder.path(), &Tuning::log(), &Tuning::state()).unwrap();
        let (log, state) = stores(Arc::new(home)).unwrap();
        Ok((folder, log, state))
    }
}

struct InMemory;

impl StoreBuilder<Types, Log, State> for InMemory {
    async fn build(&self) -> Result<((), Log, State), StorageError<Types>> {
        let (log, state) = stores(Arc::new(MemoryHome::new())).unwrap();
        Ok(((), log, state))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rocksdb_passes_the_storage_suite_of_openraft() {
    Suite::test_all(OnRocks).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_passes_the_storage_suite_of_openraft() {
    Suite::test_all(InMemory).await.unwrap();
}
