//! A member of a store, as a process uses it: started from options, asked with etcd's messages, stopped.

mod audience;
mod background;
mod options;
mod read;
mod write;

use std::{io, sync::Arc, time::Duration};

use anyhow::Context;
use futures::{StreamExt, stream, stream::BoxStream};
use kit::life::{Shutdown, Tasks};
use parking_lot::Mutex;
use prost::Message;
use proto::{
    etcdserverpb::{ResponseHeader, StatusResponse, WatchCreateRequest, WatchResponse},
    forestay::raft::v1::{Command, Found, Identity, Peer, command::Action},
};
use tokio::sync::Semaphore;
use tonic::Status;

pub use options::{Engine, Options};

use crate::{
    consensus::{Group, Progress},
    engine::{Home, MemoryHome, RocksHome},
    lease::{self, Keeper},
    machine::{self, Refusal},
    watch::{Heard, Hub, Interest, Watcher},
};

/// The version of etcd whose API this store speaks; clients turn features on by it.
pub const ETCD_VERSION: &str = "3.6.0";

/// The format of a data directory that this build knows.
const IDENTITY_FORMAT: u32 = 1;

/// How long the first leader of a group of one may take: it has only to vote for itself and to sync that.
const LEAD_WITHIN: Duration = Duration::from_secs(60);

/// A running member. Clones are the same member.
#[derive(Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

struct Inner {
    options: Options,
    group: Group,
    hub: Arc<Hub>,
    keeper: Arc<Keeper>,
    identity: Identity,
    counts: Mutex<read::Counts>,
    /// Ranges over many keys at once: each may hold its whole answer in memory.
    wide_reads: Arc<Semaphore>,
    tasks: Tasks,
    shutdown: Shutdown,
    swept: tokio::sync::watch::Receiver<i64>,
}

impl Node {
    /// Starts a member: opens its folder, or founds a store there, and returns once it can be asked.
    ///
    /// # Errors
    /// The folder is in use, damaged, or of a format this build does not know.
    pub async fn start(options: Options) -> anyhow::Result<Node> {
        let home: Arc<dyn Home> = match options.engine {
            Engine::Memory => Arc::new(MemoryHome::new()),
            Engine::RocksDb => {
                let (folder, log, state) =
                    (options.data_dir.clone(), options.log_tuning.clone(), options.state_tuning.clone());
                let opened = tokio::task::spawn_blocking(move || RocksHome::open(&folder, &log, &state)).await?;
                Arc::new(opened.with_context(|| format!("open the data directory {}", options.data_dir.display()))?)
            }
        };
        Node::start_in(home, options).await
    }

    /// Starts a member in a place that is open already: a restart in memory, or a test's own engine.
    ///
    /// # Errors
    /// What is there is damaged, or of a format this build does not know.
    pub async fn start_in(home: Arc<dyn Home>, options: Options) -> anyhow::Result<Node> {
        let identity = identify(&*home)?;
        let hub = Arc::new(Hub::new(options.ring));
        let keeper = Arc::new(Keeper::default());
        let (audience, compactions) = audience::Ears::new(hub.clone(), keeper.clone());
        let peer = Peer {
            name: options.name.clone(),
            peer_urls: options.advertise_peer_urls.clone(),
            client_urls: options.advertise_client_urls.clone(),
            machine_version_max: machine::MACHINE_VERSION,
        };
        let group = Group::start_alone(identity.member_id, home, peer, &options.timing, Arc::new(audience)).await?;
        group.lead(LEAD_WITHIN).await.context("become the leader of a group of one")?;
        if group.stage().position().cluster_id == 0 {
            let found = Command { action: Some(Action::Found(Found { cluster_id: identity.cluster_id })) };
            group.propose(&found).await.context("name the store")?;
        }
        group.catch_up().await.context("apply what was agreed on before")?;
        let shutdown = Shutdown::new();
        let tasks = Tasks::of(&shutdown);
        tasks.spawn("lease expiry", lease::expire(keeper.clone(), group.clone(), shutdown.clone()));
        let (sweeper, swept) = background::Sweeper::new(group.stage().clone(), compactions);
        tasks.spawn("compaction sweep", sweeper.run(shutdown.clone()));
        let wide_reads = Arc::new(Semaphore::new(options.wide_reads_max));
        let counts = Mutex::default();
        tracing::info!(
            name = options.name,
            member = format!("{:x}", identity.member_id),
            revision = group.stage().revision(),
            "store serving"
        );
        Ok(Node {
            inner: Arc::new(Inner {
                options,
                group,
                hub,
                keeper,
                identity,
                counts,
                wide_reads,
                tasks,
                shutdown,
                swept,
            }),
        })
    }

    /// Stops taking requests, then makes everything durable, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// The disk failed at the end; nothing acknowledged is lost by it.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        self.inner.shutdown.trigger();
        self.inner.tasks.join(Duration::from_secs(5)).await;
        self.inner.group.shutdown().await
    }

    /// Returns when this member has stopped for good, and why where it was not asked to.
    pub async fn stopped(&self) -> Option<String> {
        tokio::select! {
            failure = self.inner.group.stopped() => failure,
            () = self.inner.shutdown.triggered() => self.inner.tasks.check().err().map(|panicked| panicked.to_string()),
        }
    }

    pub fn options(&self) -> &Options {
        &self.inner.options
    }

    pub fn member_id(&self) -> u64 {
        self.inner.identity.member_id
    }

    pub fn cluster_id(&self) -> u64 {
        self.inner.group.stage().position().cluster_id
    }

    /// Equal for members that applied the same commands.
    pub fn digest(&self) -> u64 {
        self.inner.group.stage().position().digest
    }

    pub(crate) fn group(&self) -> &Group {
        &self.inner.group
    }

    pub(crate) fn until_shutdown(&self) -> Shutdown {
        self.inner.shutdown.clone()
    }

    /// The header of an answer made at `revision`.
    pub(crate) fn header(&self, revision: i64) -> ResponseHeader {
        let position_cluster = self.inner.identity.cluster_id;
        ResponseHeader {
            cluster_id: position_cluster,
            member_id: self.inner.identity.member_id,
            revision,
            raft_term: self.inner.group.term(),
        }
    }

    pub(crate) fn header_now(&self) -> ResponseHeader {
        self.header(self.inner.group.stage().revision())
    }

    /// # Errors
    /// Never at present; the signature is that of every request.
    pub async fn status(&self) -> Result<StatusResponse, Status> {
        let Progress { term, leader, last_index, applied_index, is_learner } = self.inner.group.progress();
        let (db_size, db_size_in_use) = self.inner.group.stage().engine().size();
        let alarms = self.inner.group.stage().position().alarms;
        Ok(StatusResponse {
            header: Some(self.header_now()),
            version: ETCD_VERSION.to_owned(),
            storage_version: "3.6.0".to_owned(),
            db_size: db_size as i64,
            db_size_in_use: db_size_in_use as i64,
            leader: leader.unwrap_or_default(),
            raft_index: last_index,
            raft_term: term,
            raft_applied_index: applied_index,
            is_learner,
            errors: alarms
                .iter()
                .map(|alarm| format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name()))
                .collect(),
            ..StatusResponse::default()
        })
    }

    /// Changes of a range of keys, from any revision that was not compacted. The first message says `created`; all
    /// events of a revision stand in one message.
    ///
    /// # Errors
    /// Never at present: what is wrong with a watch is told in it.
    pub async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let (first, watcher) = self.open_watch(&create);
        let node = self.clone();
        let rest = stream::unfold((node, watcher), |(node, watcher)| async move {
            let mut watcher = watcher?;
            let heard = tokio::select! {
                heard = watcher.next() => heard,
                () = node.inner.shutdown.triggered() => return Some((Err(Refusal::Stopped.into()), (node, None))),
            };
            Some(match node.watch_response(heard) {
                Ok(response) if response.canceled => (Ok(response), (node, None)),
                Ok(response) => (Ok(response), (node, Some(watcher))),
                Err(status) => (Err(status), (node, None)),
            })
        });
        Ok(stream::iter(first.into_iter().map(Ok)).chain(rest).boxed())
    }

    /// The first answers of a watch, and the watcher unless it ended with them.
    pub(crate) fn open_watch(&self, create: &WatchCreateRequest) -> (Vec<WatchResponse>, Option<Watcher>) {
        let position = self.inner.group.stage().position();
        let created =
            WatchResponse { header: Some(self.header(position.revision)), created: true, ..WatchResponse::default() };
        let interest = Interest::of(create);
        if interest.is_empty() {
            let cancel_reason = "mvcc: watcher range is empty".to_owned();
            return (vec![WatchResponse { canceled: true, cancel_reason, ..created }], None);
        }
        if create.start_revision < 0
            || (create.start_revision > 0 && create.start_revision < position.compacted_revision)
        {
            return (vec![created, self.compacted(position.compacted_revision)], None);
        }
        let next = if create.start_revision == 0 { position.revision + 1 } else { create.start_revision };
        let watcher = Watcher::new(self.inner.hub.clone(), self.inner.group.stage().clone(), interest, next);
        (vec![created], Some(watcher))
    }

    fn compacted(&self, compact_revision: i64) -> WatchResponse {
        WatchResponse {
            header: Some(self.header_now()),
            canceled: true,
            // No reason in words: etcd gives none, the revision says it.
            compact_revision,
            ..WatchResponse::default()
        }
    }

    pub(crate) fn watch_response(&self, heard: io::Result<Heard>) -> Result<WatchResponse, Status> {
        Ok(match heard.map_err(failed)? {
            Heard::Events { revision, events } => {
                WatchResponse { header: Some(self.header(revision)), events, ..WatchResponse::default() }
            }
            Heard::Progress { revision } => {
                WatchResponse { header: Some(self.header(revision)), ..WatchResponse::default() }
            }
            Heard::Compacted { compacted } => self.compacted(compacted),
        })
    }
}

/// Reads who this member is, or makes it somebody.
fn identify(home: &dyn Home) -> anyhow::Result<Identity> {
    if let Some(stored) = home.identity().context("read the file IDENTITY")? {
        let identity = Identity::decode(stored).context("decode the file IDENTITY")?;
        anyhow::ensure!(
            identity.format == IDENTITY_FORMAT,
            "the data directory has format {}, this build knows {IDENTITY_FORMAT}: start the build that wrote it",
            identity.format
        );
        return Ok(identity);
    }
    // A log without an identity is one whose identity was lost: founding a second store in it would mix the two.
    anyhow::ensure!(
        machine::layout::read_position(&*home.state())?.is_none(),
        "the data directory has a state but no file IDENTITY: put the file back from a copy, or empty the directory"
    );
    let identity = Identity { format: IDENTITY_FORMAT, cluster_id: named(), member_id: named() };
    home.set_identity(identity.encode_to_vec().into()).context("write the file IDENTITY")?;
    Ok(identity)
}

fn named() -> u64 {
    // Zero means unset in every message.
    rand::random::<u64>().max(1)
}

/// A disk that cannot be read.
pub(crate) fn failed(error: io::Error) -> Status {
    tracing::error!(%error, "the store cannot read its rows");
    Status::internal(format!("etcdserver: {error}"))
}
