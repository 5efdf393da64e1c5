//! Ordered rows of bytes that survive: the only room that knows RocksDB.
//!
//! A member keeps two instances. `log` is durable on every synced write; `state` loses what was not flushed and is
//! filled again from the log. This room knows nothing of Raft, revisions or keys of users.

mod home;
mod memory;
mod overlay;
mod parcel;
mod recovery;
mod rocks;

use std::{fmt, io, ops::ControlFlow};

use bytes::Bytes;

pub use home::{Checkpoint, Folder, Home, RocksHome};
pub use memory::{Fault, Memory, MemoryHome};
pub use overlay::Overlay;
pub use parcel::{Arriving, Inbox, manifest, unpack};
pub use recovery::Damage;
pub use rocks::{Recovery, Rocks, Tuning};

/// One change of one row, or of a range of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Put(Bytes, Bytes),
    Delete(Bytes),
    /// From the first key up to, not including, the second.
    DeleteRange(Bytes, Bytes),
}

/// Changes that become visible together, in their order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    pub ops: Vec<Op>,
}

impl Batch {
    pub fn put(&mut self, key: impl Into<Bytes>, value: impl Into<Bytes>) {
        self.ops.push(Op::Put(key.into(), value.into()));
    }

    pub fn delete(&mut self, key: impl Into<Bytes>) {
        self.ops.push(Op::Delete(key.into()));
    }

    pub fn delete_range(&mut self, from: impl Into<Bytes>, to: impl Into<Bytes>) {
        self.ops.push(Op::DeleteRange(from.into(), to.into()));
    }

    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }
}

/// What a write has survived once it returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A power cut.
    Synced,
    /// Nothing yet: a later synced write or a flush takes it along, in order.
    Buffered,
}

/// A consistent look at the rows.
pub trait View {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>>;

    /// Visits the rows of `[from, to)` in order until told to stop.
    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()>;
}

/// Called with key and value of each row.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> io::Result<ControlFlow<()>>;

/// Work done on one consistent look.
pub type Look<'a> = &'a mut dyn FnMut(&dyn View) -> io::Result<()>;

/// One instance of a row store.
pub trait Engine: View + Send + Sync + fmt::Debug + 'static {
    fn write(&self, batch: Batch, durability: Durability) -> io::Result<()>;

    /// Runs `look` on the rows as they are now; later writes do not show in it.
    fn view(&self, look: Look<'_>) -> io::Result<()>;

    /// Makes everything written so far durable.
    fn flush(&self) -> io::Result<()>;

    /// Bytes on disk, and of them in use, both estimates.
    fn size(&self) -> (u64, u64);
}

/// Runs `read` on one consistent look at `engine`.
pub fn read<T>(engine: &dyn Engine, read: impl FnOnce(&dyn View) -> io::Result<T>) -> io::Result<T> {
    let mut read = Some(read);
    let mut found = None;
    engine.view(&mut |view| {
        if let Some(read) = read.take() {
            found = Some(read(view)?);
        }
        Ok(())
    })?;
    found.ok_or_else(|| io::Error::other("the engine did not offer a view"))
}

/// The first key after every key that starts with `prefix`.
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < 0xff {
            end.push(last + 1);
            return end;
        }
    }
    // No key is this long: keys are bounded by the request limit.
    vec![0xff; 64]
}
