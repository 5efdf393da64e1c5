//! Where a member lives: its identity, its log, its state, and how a snapshot replaces the state whole.
//!
//! ```text
//! <data-dir>/IDENTITY       who this is (our own message; an unknown format refuses to start)
//! <data-dir>/log/           RocksDB, write-ahead log on
//! <data-dir>/CURRENT-STATE  link to the state in use, replaced by one rename
//! <data-dir>/state-<n>/     RocksDB, write-ahead log off
//! <data-dir>/snapshot-<n>/  a checkpoint of the state, being sent or kept for the next member that lags
//! ```

use std::{
    collections::BTreeMap,
    fmt, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Engine, Inbox, Recovery, Rocks, Tuning, recovery};

/// A copy of the state at one moment, cheap to make.
#[derive(Clone, Debug)]
pub enum Checkpoint {
    /// A folder of RocksDB files; removed with the last owner.
    Files(Arc<Folder>),
    Rows(Arc<BTreeMap<Bytes, Bytes>>),
}

/// A folder that goes when nobody needs it any more.
#[derive(Debug)]
pub struct Folder {
    pub path: PathBuf,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // Best effort: the next start clears what stayed.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// What consensus needs of a member's place.
pub trait Home: Send + Sync + fmt::Debug + 'static {
    fn log(&self) -> Arc<dyn Engine>;

    fn state(&self) -> Arc<dyn Engine>;

    /// Flushes the state and copies it.
    fn checkpoint(&self) -> io::Result<Checkpoint>;

    /// One row of a copy.
    fn read_checkpoint(&self, checkpoint: &Checkpoint, key: &[u8]) -> io::Result<Option<Bytes>> {
        match checkpoint {
            Checkpoint::Rows(rows) => Ok(rows.get(key).cloned()),
            Checkpoint::Files(files) => Rocks::read_row(&files.path, key),
        }
    }

    /// Where a copy from another member is put together.
    fn inbox(&self) -> Inbox;

    /// Replaces the state by the copy, all or nothing, and opens it.
    fn install(&self, checkpoint: Checkpoint) -> io::Result<Arc<dyn Engine>>;

    /// Ends background work: a process that exits in the middle of it crashes in the library's own clean-up.
    fn close(&self) {}

    fn identity(&self) -> io::Result<Option<Bytes>>;

    /// Durable on return.
    fn set_identity(&self, identity: Bytes) -> io::Result<()>;
}

/// A member's folder, with RocksDB.
#[derive(Debug)]
pub struct RocksHome {
    folder: PathBuf,
    log: Arc<Rocks>,
    state: Mutex<Arc<Rocks>>,
    tuning: Tuning,
    /// Numbers the folders of states and snapshots.
    next: Mutex<u64>,
    /// Held while this process owns the folder.
    _lock: fs::File,
}

const IDENTITY: &str = "IDENTITY";
const CURRENT: &str = "CURRENT-STATE";

impl RocksHome {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// Another process has it open; the log is damaged other than by a power cut; the disk fails.
    pub fn open(folder: &Path, log: &Tuning, state: &Tuning) -> io::Result<RocksHome> {
        fs::create_dir_all(folder).map_err(at("make the data directory", folder))?;
        let lock = fs::OpenOptions::new().create(true).truncate(false).write(true).open(folder.join("LOCK"))?;
        lock.try_lock().map_err(|_| {
            io::Error::other(format!("the data directory {} is in use by another process", folder.display()))
        })?;
        let opened = recovery::open_log(&folder.join("log"), log)?;
        let (current, next) = tidy(folder)?;
        let rocks = Rocks::open(&folder.join(&current), state, Recovery::Tolerant).map_err(|error| {
            io::Error::other(format!("open the state {}: {error}", folder.join(&current).display()))
        })?;
        point(folder, &current)?;
        Ok(RocksHome {
            folder: folder.to_owned(),
            log: Arc::new(opened),
            state: Mutex::new(Arc::new(rocks)),
            tuning: state.clone(),
            next: Mutex::new(next),
            _lock: lock,
        })
    }

    fn fresh(&self, kind: &str) -> PathBuf {
        let mut next = self.next.lock();
        let path = self.folder.join(format!("{kind}-{}", *next));
        *next += 1;
        path
    }
}

/// Removes states and snapshots nobody points at; names the state in use and the next free number.
fn tidy(folder: &Path) -> io::Result<(String, u64)> {
    let current = match fs::read_link(folder.join(CURRENT)) {
        Ok(target) => Some(target.to_string_lossy().into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => return Err(error),
    };
    let mut next = 1;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((kind @ ("state" | "snapshot"), number)) = name.split_once('-') else { continue };
        next = next.max(number.parse::<u64>().unwrap_or(0) + 1);
        if kind == "snapshot" || current.as_ref() != Some(&name) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(match current {
        Some(current) => (current, next),
        None => (format!("state-{next}"), next + 1),
    })
}

/// Makes `CURRENT-STATE` name `target`, durably and at once.
fn point(folder: &Path, target: &str) -> io::Result<()> {
    if fs::read_link(folder.join(CURRENT)).is_ok_and(|link| link == Path::new(target)) {
        return Ok(());
    }
    let fresh = folder.join("CURRENT-STATE.new");
    let _ = fs::remove_file(&fresh);
    symlink(target, &fresh)?;
    fs::rename(&fresh, folder.join(CURRENT))?;
    sync_folder(folder)
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    fs::File::open(folder)?.sync_all()
}

fn at(doing: &'static str, path: &Path) -> impl Fn(io::Error) -> io::Error {
    let path = path.display().to_string();
    move |error| io::Error::new(error.kind(), format!("{doing} {path}: {error}"))
}

impl Home for RocksHome {
    fn log(&self) -> Arc<dyn Engine> {
        self.log.clone()
    }

    fn state(&self) -> Arc<dyn Engine> {
        self.state.lock().clone()
    }

    fn checkpoint(&self) -> io::Result<Checkpoint> {
        let state = self.state.lock().clone();
        state.flush()?;
        let path = self.fresh("snapshot");
        state.checkpoint(&path)?;
        Ok(Checkpoint::Files(Arc::new(Folder { path })))
    }

    fn inbox(&self) -> Inbox {
        Inbox::Folder(self.fresh("snapshot"))
    }

    fn install(&self, checkpoint: Checkpoint) -> io::Result<Arc<dyn Engine>> {
        let target = self.fresh("state");
        match checkpoint {
            Checkpoint::Files(files) => copy_folder(&files.path, &target)?,
            Checkpoint::Rows(rows) => {
                let rocks = Rocks::open(&target, &self.tuning, Recovery::Tolerant).map_err(io::Error::other)?;
                let mut batch = super::Batch::default();
                for (key, value) in rows.iter() {
                    batch.put(key.clone(), value.clone());
                }
                rocks.write(batch, super::Durability::Synced)?;
            }
        }
        let rocks = Arc::new(Rocks::open(&target, &self.tuning, Recovery::Tolerant).map_err(io::Error::other)?);
        let name = target.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        point(&self.folder, &name)?;
        // The old folder stays until the next start: readers may still hold it open.
        *self.state.lock() = rocks.clone();
        Ok(rocks)
    }

    fn close(&self) {
        self.log.close();
        self.state.lock().close();
    }

    fn identity(&self) -> io::Result<Option<Bytes>> {
        match fs::read(self.folder.join(IDENTITY)) {
            Ok(bytes) => Ok(Some(Bytes::from(bytes))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_identity(&self, identity: Bytes) -> io::Result<()> {
        let fresh = self.folder.join("IDENTITY.new");
        fs::write(&fresh, &identity)?;
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, self.folder.join(IDENTITY))?;
        sync_folder(&self.folder)
    }
}

/// Copies and syncs every file: the source may be on another disk, or go away.
fn copy_folder(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        fs::copy(entry.path(), &target)?;
        fs::File::open(&target)?.sync_all()?;
    }
    sync_folder(to)
}
