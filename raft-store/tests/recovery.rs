//! What a power cut leaves on disk, and what a member makes of it.
#![allow(clippy::unwrap_used)]

use std::{
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use prost::Message;
use proto::{
    etcdserverpb::{PutRequest, RangeRequest},
    forestay::raft::v1::Identity,
};
use raft_store::{
    Node, Options,
    engine::{Batch, Checkpoint, Durability, Engine, Fault, Home, Inbox, Look, MemoryHome, View, Visit},
};

fn put(key: String, bytes: usize) -> PutRequest {
    PutRequest { key: key.into(), value: vec![b'v'; bytes].into(), ..PutRequest::default() }
}

async fn keys(node: &Node) -> Vec<String> {
    let all =
        RangeRequest { key: vec![0].into(), range_end: vec![0].into(), keys_only: true, ..RangeRequest::default() };
    node.range(all).await.unwrap().kvs.into_iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()).collect()
}

/// A folder as a crash leaves it: a copy taken while the member runs.
async fn crashed(count: usize) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(options(&folder.path().join("live"))).await.unwrap();
    for number in 0..count {
        node.put(put(format!("k{number:03}"), 200)).await.unwrap();
    }
    copy(&folder.path().join("live"), &folder.path().join("crashed"));
    node.shutdown().await.unwrap();
    folder
}

fn options(folder: &Path) -> Options {
    Options { data_dir: folder.to_owned(), ..Options::default() }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path()).unwrap(), target).unwrap();
        } else if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// The newest write-ahead file of the raft log, and the length of what is written in it.
fn newest(folder: &Path) -> (PathBuf, u64) {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    files.sort();
    let file = files.pop().unwrap();
    let bytes = fs::read(&file).unwrap();
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    (file, written as u64)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_loses_nothing_acknowledged() {
    let folder = crashed(60).await;
    let node = Node::start(options(&folder.path().join("crashed"))).await.unwrap();
    assert_eq!(keys(&node).await.len(), 60);
    node.shutdown().await.unwrap();
}

/// Spoils the last `bytes` of the log and tells how many of 60 keys are there after a restart.
async fn after_spoiling(spoil: impl Fn(&Path, u64)) -> Vec<String> {
    let folder = crashed(60).await;
    let place = folder.path().join("crashed");
    let (file, written) = newest(&place);
    spoil(&file, written);
    let node = Node::start(options(&place)).await.unwrap();
    let found = keys(&node).await;
    node.put(put("after".to_owned(), 10)).await.unwrap();
    node.shutdown().await.unwrap();
    drop(node);
    let again = Node::start(options(&place)).await.unwrap();
    assert_eq!(keys(&again).await.len(), found.len() + 1);
    again.shutdown().await.unwrap();
    found
}

fn write_at(file: &Path, offset: u64, bytes: &[u8]) {
    OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, offset).unwrap();
}

fn assert_all_but_the_last(found: &[String]) {
    assert!(found.len() >= 59, "more than the last batch was lost: {} of 60 left", found.len());
    assert!(found.iter().enumerate().all(|(number, key)| *key == format!("k{number:03}")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_torn_tail_loses_the_last_batch_only() {
    let found = after_spoiling(|file, written| {
        OpenOptions::new().write(true).open(file).unwrap().set_len(written - 40).unwrap()
    })
    .await;
    assert_all_but_the_last(&found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zeroed_tail_loses_the_last_batch_only() {
    let found = after_spoiling(|file, written| write_at(file, written - 40, &[0; 40])).await;
    assert_all_but_the_last(&found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_garbled_tail_loses_the_last_batch_only() {
    let found = after_spoiling(|file, written| write_at(file, written - 40, &[0xa5; 40])).await;
    assert_all_but_the_last(&found);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flip_in_the_middle_of_the_log_refuses_to_start() {
    let folder = crashed(60).await;
    let place = folder.path().join("crashed");
    let (file, written) = newest(&place);
    let bytes = fs::read(&file).unwrap();
    let middle = written / 2;
    write_at(&file, middle, &[bytes[middle as usize] ^ 0x40]);
    let refused = format!("{:#}", Node::start(options(&place)).await.err().expect("a damaged log was opened"));
    assert!(
        refused.contains("is damaged at byte") && refused.contains("acknowledged writes would be lost"),
        "{refused}"
    );
    // Nothing was changed: the repaired file opens and holds everything.
    write_at(&file, middle, &[bytes[middle as usize]]);
    let node = Node::start(options(&place)).await.unwrap();
    assert_eq!(keys(&node).await.len(), 60);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_format_refuses_to_start() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("store");
    Node::start(options(&place)).await.unwrap().shutdown().await.unwrap();
    let identity = Identity::decode(fs::read(place.join("IDENTITY")).unwrap().as_slice()).unwrap();
    fs::write(place.join("IDENTITY"), Identity { format: 9, ..identity }.encode_to_vec()).unwrap();
    let refused = Node::start(options(&place)).await.err().expect("an unknown format was opened").to_string();
    assert!(refused.contains("format 9"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(options(folder.path())).await.unwrap();
    let refused =
        format!("{:#}", Node::start(options(folder.path())).await.err().expect("the folder was opened twice"));
    assert!(refused.contains("is in use by another process"), "{refused}");
    node.shutdown().await.unwrap();
}

/// A log that notes when a sync returned.
#[derive(Debug)]
struct Traced {
    inner: Arc<dyn Engine>,
    trace: Arc<Trace>,
}

#[derive(Debug, Default)]
struct Trace {
    clock: AtomicU64,
    /// When each row of the log became durable.
    durable: Mutex<Vec<(u64, usize)>>,
}

impl View for Traced {
    fn get(&self, key: &[u8]) -> std::io::Result<Option<bytes::Bytes>> {
        self.inner.get(key)
    }

    fn scan(&self, from: &[u8], to: &[u8], visit: Visit<'_>) -> std::io::Result<()> {
        self.inner.scan(from, to, visit)
    }
}

impl Engine for Traced {
    fn write(&self, batch: Batch, durability: Durability) -> std::io::Result<()> {
        let entries = batch
            .ops
            .iter()
            .filter(|op| matches!(op, raft_store::engine::Op::Put(key, _) if key.starts_with(b"l")))
            .count();
        self.inner.write(batch, durability)?;
        if durability == Durability::Synced && entries > 0 {
            let now = self.trace.clock.fetch_add(1, Ordering::SeqCst);
            self.trace.durable.lock().push((now, entries));
        }
        Ok(())
    }

    fn view(&self, look: Look<'_>) -> std::io::Result<()> {
        self.inner.view(look)
    }

    fn flush(&self) -> std::io::Result<()> {
        self.inner.flush()
    }

    fn size(&self) -> (u64, u64) {
        self.inner.size()
    }
}

#[derive(Debug)]
struct TracedHome {
    home: MemoryHome,
    trace: Arc<Trace>,
}

impl Home for TracedHome {
    fn log(&self) -> Arc<dyn Engine> {
        Arc::new(Traced { inner: self.home.log(), trace: self.trace.clone() })
    }

    fn state(&self) -> Arc<dyn Engine> {
        self.home.state()
    }

    fn checkpoint(&self) -> std::io::Result<Checkpoint> {
        self.home.checkpoint()
    }

    fn inbox(&self) -> Inbox {
        self.home.inbox()
    }

    fn install(&self, checkpoint: Checkpoint) -> std::io::Result<Arc<dyn Engine>> {
        self.home.install(checkpoint)
    }

    fn identity(&self) -> std::io::Result<Option<bytes::Bytes>> {
        self.home.identity()
    }

    fn set_identity(&self, identity: bytes::Bytes) -> std::io::Result<()> {
        self.home.set_identity(identity)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_write_is_acknowledged_before_its_sync_returned() {
    let trace = Arc::new(Trace::default());
    let node =
        Node::start_in(Arc::new(TracedHome { home: MemoryHome::new(), trace: trace.clone() }), Options::default())
            .await
            .unwrap();
    let before: usize = trace.durable.lock().iter().map(|(_, entries)| entries).sum();
    let mut acknowledged = 0;
    for round in 0..50 {
        let writes = (0..8).map(|number| node.put(put(format!("{round}-{number}"), 8)));
        for answer in futures::future::join_all(writes).await {
            answer.unwrap();
            acknowledged += 1;
        }
        // Every acknowledged write is one entry that was synced by now.
        let durable: usize = trace.durable.lock().iter().map(|(_, entries)| entries).sum();
        assert!(durable - before >= acknowledged, "{acknowledged} writes acknowledged, {} durable", durable - before);
    }
    let syncs = trace.durable.lock().len();
    assert!(syncs < acknowledged, "{syncs} syncs for {acknowledged} writes: nothing was batched");
    node.shutdown().await.unwrap();
}

/// Writes, loses power, and counts what is left of the acknowledged writes.
async fn left_after_power_cut(fault: Option<Fault>) -> (usize, usize) {
    let home = MemoryHome::new();
    let node = Node::start_in(Arc::new(home.clone()), Options::default()).await.unwrap();
    home.log.plant(fault);
    for number in 0..20 {
        node.put(put(format!("k{number}"), 8)).await.unwrap();
    }
    home.cut_power();
    home.log.plant(Some(Fault::FailWrites));
    // The process goes down with the machine; its last words reach no disk.
    let _ = node.shutdown().await;
    drop(node);
    home.cut_power();
    home.log.plant(None);
    let node = Node::start_in(Arc::new(home), Options::default()).await.unwrap();
    let left = keys(&node).await.len();
    node.shutdown().await.unwrap();
    (20, left)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_power_cut_loses_nothing_acknowledged() {
    let (written, left) = left_after_power_cut(None).await;
    assert_eq!(left, written);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_planted_missing_sync_is_caught() {
    let (written, left) = left_after_power_cut(Some(Fault::SkipSync)).await;
    assert!(left < written, "the net has a hole: writes that were never synced survived a power cut");
}
