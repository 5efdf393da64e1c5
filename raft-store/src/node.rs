//! A member of a store, as a process uses it: started from options, asked with etcd's messages, stopped.

mod audience;
mod background;
mod cluster;
mod identity;
mod members;
mod options;
mod peering;
mod read;
mod write;

use std::{io, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use futures::{StreamExt, stream, stream::BoxStream};
use kit::life::{Shutdown, Tasks};
use parking_lot::Mutex;
use proto::{
    etcdserverpb::{ResponseHeader, StatusResponse, WatchCreateRequest, WatchResponse},
    forestay::raft::v1::{Command, Found, Identity, command::Action},
};
use tokio::sync::Semaphore;
use tonic::Status;

pub use cluster::Cluster;
pub use options::{Engine, Founding, Options};
pub use peering::{PeerTls, Peering};

use crate::{
    consensus::{Group, Peers, Progress},
    engine::{Home, MemoryHome, RocksHome},
    lease::{self, Keeper},
    machine::Refusal,
    serve::PeerDoor,
    watch::{Heard, Hub, Interest, Watcher},
};

/// The version of etcd whose API this store speaks; clients turn features on by it.
pub const ETCD_VERSION: &str = "3.6.0";

/// How long the first leader of a group of one may take: it has only to vote for itself and to sync that.
const LEAD_WITHIN: Duration = Duration::from_secs(60);

/// How long a member that stops waits for another one to take the lead.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(3);

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
        ensure!(
            options.peering.is_some() || options.founding == Founding::Alone,
            "the store is to have several members, and none of them can be reached: give --listen-peer-urls"
        );
        let identity = identity::identify(&*home, &options).await?;
        let hub = Arc::new(Hub::new(options.ring));
        let keeper = Arc::new(Keeper::default());
        let (audience, compactions) = audience::Ears::new(hub.clone(), keeper.clone());
        let shutdown = Shutdown::new();
        let audience = Arc::new(audience);
        let group = match &options.peering {
            None => {
                let peer = members::this(&options);
                Group::start_alone(identity.member_id, home, peer, &options.timing, audience).await?
            }
            Some(peering) => {
                let listeners = peering.listen()?;
                let peers = Peers::new(identity.cluster_id, identity.member_id, peering.client_tls());
                let founding = members::founding(&options);
                let group = Group::start_among(peers, home, founding, &options.timing, audience).await?;
                let door = PeerDoor { group: group.clone(), keeper: keeper.clone(), cluster_id: identity.cluster_id };
                for (listener, tls) in listeners {
                    door.clone().open(listener, tls, shutdown.clone());
                }
                group
            }
        };
        let is_alone = group.is_alone().await?;
        if is_alone {
            group.lead(LEAD_WITHIN).await.context("become the leader of a group of one")?;
            if group.stage().position().cluster_id == 0 {
                let found = Command { action: Some(Action::Found(Found { cluster_id: identity.cluster_id })) };
                group.propose(&found).await.context("name the store")?;
            }
            group.catch_up().await.context("apply what was agreed on before")?;
        }
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
        let node = Node {
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
        };
        if node.inner.options.peering.is_some() {
            node.inner.tasks.spawn("promotion", members::promote(node.clone()));
        }
        if is_alone {
            node.settle_urls().await.context("tell under which peer URLs this member is reached")?;
        } else {
            node.inner.tasks.spawn("introduction", members::introduce(node.clone()));
        }
        Ok(node)
    }

    /// Gives the lead away, stops taking requests, then makes everything durable, so that the next start has nothing to replay.
    ///
    /// # Errors
    /// The disk failed at the end; nothing acknowledged is lost by it.
    pub async fn shutdown(&self) -> anyhow::Result<()> {
        let group = &self.inner.group;
        if group.is_leader() && !group.is_alone().await? {
            // While this member still serves: its clients are answered by way of the new leader.
            match group.hand_over(None, HAND_OVER_WITHIN).await {
                Ok(()) => tracing::info!("the lead was given to another member"),
                Err(refusal) => tracing::warn!(%refusal, "nobody took the lead; the others have to elect"),
            }
        }
        self.inner.shutdown.trigger();
        self.inner.tasks.join(Duration::from_secs(5)).await;
        self.inner.group.shutdown().await
    }

    /// Gives the lead to the member `to`; returns once it has taken it.
    ///
    /// # Errors
    /// etcd's: not leader, bad leader transferee, leader transfer took too long.
    pub async fn move_leader(&self, to: u64) -> Result<(), Status> {
        Ok(self.inner.group.hand_over(Some(to), HAND_OVER_WITHIN).await?)
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
        self.inner.identity.cluster_id
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
        ResponseHeader {
            cluster_id: self.inner.identity.cluster_id,
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
        let mut errors: Vec<String> = alarms
            .iter()
            .map(|alarm| format!("memberID:{} alarm:{} ", alarm.member_id, alarm.alarm().as_str_name()))
            .collect();
        if leader.is_none() {
            errors.push(Refusal::NoLeader.to_string());
        }
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
            errors,
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

/// A disk that cannot be read.
pub(crate) fn failed(error: io::Error) -> Status {
    tracing::error!(%error, "the store cannot read its rows");
    Status::internal(format!("etcdserver: {error}"))
}
