//! Rows in memory that behave like a disk at a power cut: what was not synced is gone.
//!
//! For tests, hollow clusters and the simulation. Faults are planted, never random, so that a failing run repeats.

use std::{collections::BTreeMap, io, ops::Bound, sync::Arc};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Batch, Checkpoint, Durability, Engine, Home, Inbox, Look, Op, View, Visit};

type Rows = BTreeMap<Bytes, Bytes>;

/// A lie or a failure of the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Synced writes return without being durable: what a forgotten fsync looks like.
    SkipSync,
    /// Every write fails.
    FailWrites,
}

/// An instance whose handle can be lost and found again, as a process and its disk.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    visible: Arc<Rows>,
    durable: Arc<Rows>,
    /// Written after `durable`, in order.
    unsynced: Vec<Batch>,
    fault: Option<Fault>,
}

impl Memory {
    pub fn new() -> Memory {
        Memory::default()
    }

    pub fn from_rows(rows: Arc<BTreeMap<Bytes, Bytes>>) -> Memory {
        let disk = Disk { visible: rows.clone(), durable: rows, ..Disk::default() };
        Memory { disk: Arc::new(Mutex::new(disk)) }
    }

    pub fn plant(&self, fault: Option<Fault>) {
        self.disk.lock().fault = fault;
    }

    /// The power goes: rows that were not synced are forgotten.
    pub fn cut_power(&self) {
        let mut disk = self.disk.lock();
        disk.visible = disk.durable.clone();
        disk.unsynced.clear();
    }

    pub fn rows(&self) -> Arc<BTreeMap<Bytes, Bytes>> {
        self.disk.lock().visible.clone()
    }
}

fn apply(rows: &mut Rows, batch: &Batch) {
    for op in &batch.ops {
        match op {
            Op::Put(key, value) => {
                rows.insert(key.clone(), value.clone());
            }
            Op::Delete(key) => {
                rows.remove(key);
            }
            Op::DeleteRange(from, to) => {
                let doomed: Vec<Bytes> = rows.range(from.clone()..to.clone()).map(|(key, _)| key.clone()).collect();
                for key in doomed {
                    rows.remove(&key);
                }
            }
        }
    }
}

impl View for Rows {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(BTreeMap::get(self, key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        for (key, value) in self.range::<[u8], _>((Bound::Included(from), Bound::Excluded(to))) {
            if visit(key, value)?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl View for Memory {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        View::get(&*self.rows(), key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        self.rows().scan(from, to, visit)
    }
}

impl Engine for Memory {
    fn write(&self, batch: Batch, durability: Durability) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.fault == Some(Fault::FailWrites) {
            return Err(io::Error::other("write rows: the planted fault of this disk"));
        }
        apply(Arc::make_mut(&mut disk.visible), &batch);
        disk.unsynced.push(batch);
        if durability == Durability::Synced && disk.fault != Some(Fault::SkipSync) {
            disk.sync();
        }
        Ok(())
    }

    fn view(&self, look: Look<'_>) -> io::Result<()> {
        look(&*self.rows())
    }

    fn flush(&self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        if disk.fault != Some(Fault::SkipSync) {
            disk.sync();
        }
        Ok(())
    }

    fn size(&self) -> (u64, u64) {
        let bytes = self.rows().iter().map(|(key, value)| (key.len() + value.len()) as u64).sum();
        (bytes, bytes)
    }
}

impl Disk {
    fn sync(&mut self) {
        let unsynced = std::mem::take(&mut self.unsynced);
        let durable = Arc::make_mut(&mut self.durable);
        for batch in &unsynced {
            apply(durable, batch);
        }
    }
}

/// A member's place in memory. Clones are the same place: start a member on a clone to restart it.
#[derive(Clone, Debug, Default)]
pub struct MemoryHome {
    pub log: Memory,
    state: Arc<Mutex<Memory>>,
    identity: Arc<Mutex<Option<Bytes>>>,
}

impl MemoryHome {
    pub fn new() -> MemoryHome {
        MemoryHome::default()
    }

    pub fn cut_power(&self) {
        self.log.cut_power();
        self.state.lock().cut_power();
    }
}

impl Home for MemoryHome {
    fn log(&self) -> Arc<dyn Engine> {
        Arc::new(self.log.clone())
    }

    fn state(&self) -> Arc<dyn Engine> {
        Arc::new(self.state.lock().clone())
    }

    fn checkpoint(&self) -> io::Result<Checkpoint> {
        let state = self.state.lock().clone();
        state.flush()?;
        Ok(Checkpoint::Rows(state.rows()))
    }

    fn inbox(&self) -> Inbox {
        Inbox::Memory
    }

    fn install(&self, checkpoint: Checkpoint) -> io::Result<Arc<dyn Engine>> {
        let Checkpoint::Rows(rows) = checkpoint else {
            return Err(io::Error::other(
                "install a snapshot: its files are for RocksDB, this member keeps rows in memory",
            ));
        };
        let state = Memory::from_rows(rows);
        *self.state.lock() = state.clone();
        Ok(Arc::new(state))
    }

    fn identity(&self) -> io::Result<Option<Bytes>> {
        Ok(self.identity.lock().clone())
    }

    fn set_identity(&self, identity: Bytes) -> io::Result<()> {
        *self.identity.lock() = Some(identity);
        Ok(())
    }
}
