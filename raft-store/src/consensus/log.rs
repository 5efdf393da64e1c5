//! The log as openraft wants it: readable as soon as it is appended, durable when the writer thread says so.
//!
//! Rows: `l` + index -> entry, `m/vote`, `m/committed`, `m/purged`, `m/format`; all our own messages.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    io,
    ops::{Bound, ControlFlow, RangeBounds},
    sync::{Arc, mpsc},
};

use bytes::Bytes;
use openraft::{
    LogState, OptionalSend, RaftLogReader,
    alias::*,
    storage::{IOFlushed, RaftLogStorage},
};
use parking_lot::Mutex;
use prost::Message;
use proto::forestay::raft::v1 as wire;
use tokio::sync::oneshot;

use super::{
    Types, record,
    writer::{self, Request, entry_key},
};
use crate::engine::{Durability, Engine, Op, after_prefix};

const VOTE: &[u8] = b"m/vote";
const COMMITTED: &[u8] = b"m/committed";
const PURGED: &[u8] = b"m/purged";
const LOG_FORMAT: &[u8] = b"m/format";
const FORMAT: u8 = 1;

/// Entries kept in memory for followers and for apply; older ones are read from disk.
const TAIL_BYTES_MAX: usize = 8 << 20;

/// One answer to a reader, so that a far-behind follower does not load the whole log.
const READ_BYTES_MAX: usize = 4 << 20;

/// A handle to the log; clones are the same log.
#[derive(Clone)]
pub struct Log {
    shared: Arc<Shared>,
    queue: mpsc::Sender<Request>,
}

struct Shared {
    engine: Arc<dyn Engine>,
    tail: Mutex<Tail>,
}

#[derive(Default)]
struct Tail {
    /// The newest entries, without a gap, up to `last`.
    entries: BTreeMap<u64, (EntryOf<Types>, usize)>,
    bytes: usize,
    durable: u64,
    last: Option<LogIdOf<Types>>,
    purged: Option<LogIdOf<Types>>,
    vote: Option<VoteOf<Types>>,
}

impl Log {
    /// Reads what the log holds.
    ///
    /// # Errors
    /// The format is not known to this build, or a row cannot be read.
    pub fn open(name: &str, engine: Arc<dyn Engine>) -> io::Result<Log> {
        match engine.get(LOG_FORMAT)? {
            None => {
                let ops = vec![Op::Put(Bytes::from_static(LOG_FORMAT), Bytes::from_static(&[FORMAT]))];
                engine.write(crate::engine::Batch { ops }, Durability::Synced)?;
            }
            Some(format) if format.as_ref() == [FORMAT] => {}
            Some(format) => {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "the raft log has format {format:?}, this build knows {FORMAT}: start the build that wrote it"
                    ),
                ));
            }
        }
        let purged = row::<wire::LogId>(&*engine, PURGED)?.map(|id| record::log_id_in(&id));
        let vote = row::<wire::Vote>(&*engine, VOTE)?.map(|vote| record::vote_in(&vote));
        let last = last_entry(&*engine, purged.map_or(0, |id| id.index() + 1))?.or(purged);
        let durable = last.map_or(0, |id| id.index());
        let tail = Tail { durable, last, purged, vote, ..Tail::default() };
        let shared = Arc::new(Shared { engine: engine.clone(), tail: Mutex::new(tail) });
        let told = shared.clone();
        let queue = writer::start(name, engine, move |durable| told.tail.lock().settle(durable))?;
        Ok(Log { shared, queue })
    }

    /// Ends the writer thread once everything queued is durable.
    pub async fn stop(&self) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Request::Stop { reply }).is_err() {
            return Ok(());
        }
        answer.await.unwrap_or(Ok(()))
    }

    async fn durably(&self, ops: Vec<Op>) -> io::Result<()> {
        let (reply, answer) = oneshot::channel();
        self.queue.send(Request::Durable { ops, reply }).map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> io::Result<Vec<EntryOf<Types>>> {
        let (mut found, disk_to) = {
            let tail = self.shared.tail.lock();
            let from = from.max(tail.purged.map_or(0, |id| id.index() + 1));
            let to = to.min(tail.last.map_or(0, |id| id.index() + 1));
            if from >= to {
                return Ok(Vec::new());
            }
            let in_memory = tail.entries.range(from..to);
            let first = tail.entries.first_key_value().map_or(to, |(index, _)| *index).clamp(from, to);
            let mut bytes = 0;
            let mut entries = Vec::new();
            if first == from {
                for (_, (entry, size)) in in_memory {
                    if bytes > bytes_max {
                        break;
                    }
                    bytes += size;
                    entries.push(entry.clone());
                }
            }
            (entries, if first == from { from } else { to })
        };
        if disk_to > from {
            let mut bytes = 0;
            let floor = self.shared.tail.lock().purged.map_or(0, |id| id.index() + 1).max(from);
            self.shared.engine.scan(&entry_key(floor), &entry_key(disk_to), &mut |_, row| {
                found.push(record::entry_in(decode(row)?)?);
                bytes += row.len();
                Ok(if bytes > bytes_max { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            // Newer entries may still be on their way to the disk.
            let next = found.last().map_or(floor, |entry| entry.log_id.index() + 1);
            if bytes <= bytes_max && next < disk_to {
                let tail = self.shared.tail.lock();
                found.extend(tail.entries.range(next..disk_to).map(|(_, (entry, _))| entry.clone()));
            }
        }
        Ok(found)
    }
}

impl Tail {
    fn push(&mut self, entry: EntryOf<Types>, size: usize) {
        self.last = Some(entry.log_id);
        self.bytes += size;
        self.entries.insert(entry.log_id.index(), (entry, size));
    }

    fn settle(&mut self, durable: u64) {
        self.durable = self.durable.max(durable);
        while self.bytes > TAIL_BYTES_MAX
            && let Some(oldest) = self.entries.first_entry()
            && *oldest.key() <= self.durable
        {
            let (_, size) = oldest.remove();
            self.bytes -= size;
        }
    }

    fn drop_entries(&mut self, doomed: impl RangeBounds<u64>) {
        let indexes: Vec<u64> = self.entries.range(doomed).map(|(index, _)| *index).collect();
        for index in indexes {
            if let Some((_, size)) = self.entries.remove(&index) {
                self.bytes -= size;
            }
        }
    }
}

fn stopped() -> io::Error {
    io::Error::other("the writer of the raft log has stopped")
}

fn decode<M: Message + Default>(row: &[u8]) -> io::Result<M> {
    M::decode(row)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("decode a row of the raft log: {error}")))
}

fn row<M: Message + Default>(engine: &dyn Engine, key: &[u8]) -> io::Result<Option<M>> {
    engine.get(key)?.map(|row| decode(&row)).transpose()
}

/// The last entry, found by doubling and halving: reading the whole log at each start would be slow.
fn last_entry(engine: &dyn Engine, first: u64) -> io::Result<Option<LogIdOf<Types>>> {
    let at_or_after = |index: u64| -> io::Result<Option<wire::Entry>> {
        let mut found = None;
        engine.scan(&entry_key(index), &after_prefix(b"l"), &mut |_, row| {
            found = Some(decode(row)?);
            Ok(ControlFlow::Break(()))
        })?;
        Ok(found)
    };
    let index_of = |entry: &wire::Entry| entry.log_id.as_ref().map_or(0, |id| id.index);
    let Some(mut best) = at_or_after(first)? else { return Ok(None) };
    let mut step = 1u64;
    loop {
        match at_or_after(index_of(&best).saturating_add(step))? {
            Some(further) => {
                best = further;
                step = step.saturating_mul(2);
            }
            None if step == 1 => return Ok(best.log_id.as_ref().map(record::log_id_in)),
            None => step = 1.max(step / 4),
        }
    }
}

fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for Log {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> io::Result<Vec<EntryOf<Types>>> {
        let (from, to) = bounds(&range);
        self.read(from, to, usize::MAX)
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<EntryOf<Types>>> {
        self.read(start, end, READ_BYTES_MAX)
    }

    async fn read_vote(&mut self) -> io::Result<Option<VoteOf<Types>>> {
        Ok(self.shared.tail.lock().vote)
    }
}

impl RaftLogStorage<Types> for Log {
    type LogReader = Log;

    async fn get_log_state(&mut self) -> io::Result<LogState<Types>> {
        let tail = self.shared.tail.lock();
        Ok(LogState { last_purged_log_id: tail.purged, last_log_id: tail.last })
    }

    async fn get_log_reader(&mut self) -> Log {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &VoteOf<Types>) -> io::Result<()> {
        let row = record::vote_out(vote).encode_to_vec();
        self.durably(vec![Op::Put(Bytes::from_static(VOTE), row.into())]).await?;
        self.shared.tail.lock().vote = Some(*vote);
        Ok(())
    }

    async fn save_committed(&mut self, committed: Option<LogIdOf<Types>>) -> io::Result<()> {
        let op = match committed {
            Some(id) => Op::Put(Bytes::from_static(COMMITTED), record::log_id_out(&id).encode_to_vec().into()),
            None => Op::Delete(Bytes::from_static(COMMITTED)),
        };
        self.queue.send(Request::Note { ops: vec![op] }).map_err(|_| stopped())
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogIdOf<Types>>> {
        Ok(row::<wire::LogId>(&*self.shared.engine, COMMITTED)?.map(|id| record::log_id_in(&id)))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> io::Result<()>
    where
        I: IntoIterator<Item = EntryOf<Types>> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let mut ops = Vec::new();
        let mut bytes = 0;
        let mut last = 0;
        let entries: Vec<EntryOf<Types>> = entries.into_iter().collect();
        {
            let mut tail = self.shared.tail.lock();
            for entry in entries {
                let row = record::entry_out(&entry).encode_to_vec();
                last = entry.log_id.index();
                bytes += row.len();
                tail.push(entry, row.len());
                ops.push(Op::Put(entry_key(last), row.into()));
            }
        }
        self.queue.send(Request::Append { ops, bytes, last, flushed: callback }).map_err(|_| stopped())
    }

    async fn truncate_after(&mut self, last_log_id: Option<LogIdOf<Types>>) -> io::Result<()> {
        let first_gone = last_log_id.map_or(0, |id| id.index() + 1);
        {
            let mut tail = self.shared.tail.lock();
            tail.drop_entries(first_gone..);
            if tail.last.is_some_and(|last| last.index() >= first_gone) {
                tail.last = last_log_id.or(tail.purged);
            }
            tail.durable = tail.durable.min(first_gone.saturating_sub(1));
        }
        // Awaited, so that no reader finds an old entry on disk behind a new one in memory.
        self.durably(vec![Op::DeleteRange(entry_key(first_gone), after_prefix(b"l").into())]).await
    }

    async fn purge(&mut self, log_id: LogIdOf<Types>) -> io::Result<()> {
        {
            let mut tail = self.shared.tail.lock();
            tail.purged = Some(log_id);
            tail.drop_entries(..=log_id.index());
            if tail.last.is_none_or(|last| last.index() < log_id.index()) {
                tail.last = Some(log_id);
            }
        }
        // Marked first: a log that begins later than its mark says would look like a log with a hole.
        let ops = vec![
            Op::Put(Bytes::from_static(PURGED), record::log_id_out(&log_id).encode_to_vec().into()),
            Op::DeleteRange(entry_key(0), entry_key(log_id.index() + 1)),
        ];
        self.queue.send(Request::Note { ops }).map_err(|_| stopped())
    }
}
