//! An [`Engine`] on RocksDB: one instance, one column family.

use std::{fmt, io, ops::ControlFlow, path::Path, sync::Arc};

use bytes::Bytes;
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompressionType, DBRecoveryMode, Options, ReadOptions, WriteBatch, WriteOptions,
};

use super::{Batch, Durability, Engine, Look, Op, View, Visit};

/// How much memory and disk an instance may use.
#[derive(Clone, Debug)]
pub struct Tuning {
    pub write_buffer_bytes: usize,
    pub block_cache_bytes: usize,
    pub wal_bytes_max: u64,
    /// Rows go to a write-ahead log; without it only flushes are durable.
    pub wal: bool,
    pub compression: bool,
}

impl Tuning {
    /// Short-lived rows, read from memory mostly.
    pub fn log() -> Tuning {
        Tuning {
            write_buffer_bytes: 8 << 20,
            block_cache_bytes: 1 << 20,
            wal_bytes_max: 32 << 20,
            wal: true,
            compression: false,
        }
    }

    /// The raft log is its write-ahead log.
    pub fn state() -> Tuning {
        Tuning {
            write_buffer_bytes: 8 << 20,
            block_cache_bytes: 16 << 20,
            wal_bytes_max: 0,
            wal: false,
            compression: true,
        }
    }
}

/// An open RocksDB folder.
pub struct Rocks {
    db: Arc<DB>,
    wal: bool,
}

impl fmt::Debug for Rocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rocks").field("path", &self.db.path()).finish()
    }
}

impl Rocks {
    pub fn open(path: &Path, tuning: &Tuning, recovery: Recovery) -> Result<Rocks, rocksdb::Error> {
        let mut options = options(tuning);
        options.set_wal_recovery_mode(match recovery {
            Recovery::Tolerant => DBRecoveryMode::TolerateCorruptedTailRecords,
            Recovery::PointInTime => DBRecoveryMode::PointInTime,
        });
        let db = DB::open(&options, path)?;
        Ok(Rocks { db: Arc::new(db), wal: tuning.wal })
    }

    /// Waits for flushes and compactions, and starts no more of them.
    pub fn close(&self) {
        self.db.cancel_all_background_work(true);
    }

    /// One row of a folder that nobody has open for writing.
    pub fn read_row(path: &Path, key: &[u8]) -> io::Result<Option<Bytes>> {
        let db = DB::open_for_read_only(&Options::default(), path, false).map_err(failed("open a checkpoint"))?;
        Ok(db.get(key).map_err(failed("read a row of a checkpoint"))?.map(Bytes::from))
    }

    /// Hard links of everything flushed, in a folder that must not exist yet.
    pub fn checkpoint(&self, folder: &Path) -> io::Result<()> {
        let checkpoint = rocksdb::checkpoint::Checkpoint::new(&self.db).map_err(failed("prepare a checkpoint"))?;
        checkpoint.create_checkpoint(folder).map_err(failed("write a checkpoint"))
    }
}

/// What to do with a log file that ends badly.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recovery {
    /// A record cut short at the end is dropped; anything else refuses to open.
    Tolerant,
    /// Everything from the first bad record on is dropped.
    PointInTime,
}

fn options(tuning: &Tuning) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_paranoid_checks(true);
    options.set_write_buffer_size(tuning.write_buffer_bytes);
    options.set_max_write_buffer_number(2);
    options.set_max_open_files(256);
    options.set_max_background_jobs(2);
    options.set_keep_log_file_num(2);
    options.set_max_log_file_size(1 << 20);
    options.set_stats_dump_period_sec(0);
    options.set_stats_persist_period_sec(0);
    options.set_max_manifest_file_size(4 << 20);
    options.set_table_cache_num_shard_bits(2);
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bytes_per_sync(1 << 20);
    if tuning.wal_bytes_max > 0 {
        options.set_max_total_wal_size(tuning.wal_bytes_max);
    }
    options.set_compression_type(if tuning.compression { DBCompressionType::Lz4 } else { DBCompressionType::None });
    let mut table = BlockBasedOptions::default();
    if let Ok(cache) = Cache::new_lru_cache(tuning.block_cache_bytes) {
        table.set_block_cache(&cache);
    }
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    options.set_block_based_table_factory(&table);
    options
}

fn failed(doing: &'static str) -> impl Fn(rocksdb::Error) -> io::Error {
    move |error| io::Error::other(format!("{doing}: {error}"))
}

fn bounded(to: &[u8]) -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_iterate_upper_bound(to);
    options
}

fn walk<D: rocksdb::DBAccess>(
    mut rows: rocksdb::DBRawIteratorWithThreadMode<'_, D>,
    from: &[u8],
    visit: Visit<'_>,
) -> io::Result<()> {
    rows.seek(from);
    while let Some((key, value)) = rows.item() {
        if visit(key, value)? == ControlFlow::Break(()) {
            return Ok(());
        }
        rows.next();
    }
    rows.status().map_err(failed("read rows"))
}

impl View for Rocks {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.db.get(key).map_err(failed("read a row"))?.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        walk(self.db.raw_iterator_opt(bounded(to)), from, visit)
    }
}

struct Frozen<'a>(rocksdb::Snapshot<'a>);

impl View for Frozen<'_> {
    fn get(&self, key: &[u8]) -> io::Result<Option<Bytes>> {
        Ok(self.0.get(key).map_err(failed("read a row"))?.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> io::Result<()> {
        if from >= to {
            return Ok(());
        }
        walk(self.0.raw_iterator_opt(bounded(to)), from, visit)
    }
}

impl Engine for Rocks {
    fn write(&self, batch: Batch, durability: Durability) -> io::Result<()> {
        let mut rows = WriteBatch::default();
        for op in &batch.ops {
            match op {
                Op::Put(key, value) => rows.put(key, value),
                Op::Delete(key) => rows.delete(key),
                Op::DeleteRange(from, to) => rows.delete_range(from, to),
            }
        }
        let mut options = WriteOptions::default();
        if self.wal {
            options.set_sync(durability == Durability::Synced);
        } else {
            options.disable_wal(true);
        }
        self.db.write_opt(rows, &options).map_err(failed("write rows"))?;
        if !self.wal && durability == Durability::Synced {
            self.flush()?;
        }
        Ok(())
    }

    fn view(&self, look: Look<'_>) -> io::Result<()> {
        look(&Frozen(self.db.snapshot()))
    }

    fn flush(&self) -> io::Result<()> {
        if self.wal {
            self.db.flush_wal(true).map_err(failed("sync the write-ahead log"))
        } else {
            self.db.flush().map_err(failed("flush rows"))
        }
    }

    fn size(&self) -> (u64, u64) {
        let of = |name: &str| self.db.property_int_value(name).ok().flatten().unwrap_or_default();
        let memory = of("rocksdb.cur-size-all-mem-tables");
        (of("rocksdb.total-sst-files-size") + memory, of("rocksdb.estimate-live-data-size") + memory)
    }
}
