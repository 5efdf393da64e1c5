//! The replicated state as openraft drives it: committed entries in, one batch out, events and answers after it.

use std::{io, sync::Arc};

use futures::{FutureExt, Stream, StreamExt};
use openraft::{
    EntryPayload, OptionalSend, RaftSnapshotBuilder,
    alias::*,
    storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta},
};
use parking_lot::{Mutex, RwLock};
use prost::Message;
use proto::{
    forestay::raft::v1::{Command, Position},
    mvccpb::Event,
};
use tokio::sync::watch;

use super::{Outcome, Proposal, Types, record};
use crate::{
    engine::{Checkpoint, Durability, Engine, Home, Overlay, View},
    machine::{self, LeaseChange, Response, layout},
};

/// Entries applied as one batch: enough to share its cost, few enough to answer soon.
const BATCH_ENTRIES_MAX: usize = 256;
const BATCH_BYTES_MAX: usize = 1 << 20;

/// Hears what was applied, once it can be read, in revision order.
pub trait Audience: Send + Sync + 'static {
    /// Events of one revision, together.
    fn events(&self, revision: i64, events: Vec<Event>);
    fn leases(&self, changes: &[LeaseChange]);
    /// Revisions before this one may not be read any more.
    fn compacted(&self, revision: i64);
    /// A snapshot replaced everything.
    fn replaced(&self, position: &Position, engine: &dyn Engine);
}

/// What readers share with apply.
pub struct Stage {
    engine: RwLock<Arc<dyn Engine>>,
    position: RwLock<Position>,
    /// The index of the last entry whose outcome can be read.
    applied: watch::Sender<u64>,
}

impl Stage {
    /// Returns once the entry at `index` can be read here.
    pub async fn applied(&self, index: u64) {
        if *self.applied.borrow() < index {
            // The sender is ours: it cannot be gone.
            let _ = self.applied.subscribe().wait_for(|applied| *applied >= index).await;
        }
    }

    pub fn engine(&self) -> Arc<dyn Engine> {
        self.engine.read().clone()
    }

    pub fn position(&self) -> Position {
        self.position.read().clone()
    }

    pub fn revision(&self) -> i64 {
        self.position.read().revision
    }

    /// Runs `read` on one consistent look at the rows and at how far they have come.
    pub fn read<T>(&self, read: impl FnOnce(&dyn View, &Position) -> io::Result<T>) -> io::Result<T> {
        crate::engine::read(&*self.engine(), |view| {
            let position = layout::read_position(view)?.unwrap_or_else(machine::origin);
            read(view, &position)
        })
    }
}

/// The state machine of one member.
#[derive(Clone)]
pub struct State {
    home: Arc<dyn Home>,
    pub stage: Arc<Stage>,
    audience: Arc<dyn Audience>,
    snapshot: Arc<Mutex<Option<SnapshotOf<Types, Checkpoint>>>>,
}

impl State {
    /// # Errors
    /// The rows are of a format or machine version this build does not know.
    pub fn open(home: Arc<dyn Home>, audience: Arc<dyn Audience>) -> io::Result<State> {
        let engine = home.state();
        let position = known(layout::read_position(&*engine)?)?;
        audience.replaced(&position, &*engine);
        let applied = watch::Sender::new(applied_index(&position));
        let stage = Arc::new(Stage { engine: RwLock::new(engine), position: RwLock::new(position), applied });
        Ok(State { home, stage, audience, snapshot: Arc::default() })
    }

    fn apply_batch(&self, entries: Vec<EntryResponder<Types>>) -> io::Result<()> {
        let engine = self.stage.engine();
        let mut position = self.stage.position();
        let mut rows = Overlay::new(&*engine);
        let mut told: Vec<(i64, Vec<Event>)> = Vec::new();
        let mut leases = Vec::new();
        let mut answers = Vec::with_capacity(entries.len());
        for (entry, responder) in entries {
            let outcome = match entry.payload {
                EntryPayload::Blank => Ok(Response::Done),
                EntryPayload::Membership(membership) => {
                    let stored = StoredMembershipOf::<Types>::new(Some(entry.log_id), membership);
                    position.membership = Some(record::stored_out(&stored));
                    Ok(Response::Done)
                }
                EntryPayload::Normal(Proposal(command)) => {
                    let command: Command = layout::decode("a command of the log", command)?;
                    let applied = machine::apply(&mut rows, &mut position, command)?;
                    if !applied.events.is_empty() {
                        told.push((position.revision, applied.events));
                    }
                    leases.extend(applied.leases);
                    applied.answer
                }
            };
            position.applied = Some(record::log_id_out(&entry.log_id));
            answers.push((responder, outcome));
        }
        rows.put(layout::POSITION.into(), position.encode_to_vec().into());
        engine.write(rows.into_batch(), Durability::Buffered)?;
        let (compacted, applied) = (position.compacted_revision, applied_index(&position));
        let was_compacted = std::mem::replace(&mut *self.stage.position.write(), position).compacted_revision;
        for (revision, events) in told {
            self.audience.events(revision, events);
        }
        self.audience.leases(&leases);
        if compacted > was_compacted {
            self.audience.compacted(compacted);
        }
        self.stage.applied.send_replace(applied);
        for (responder, outcome) in answers {
            if let Some(responder) = responder {
                responder.send(Outcome(outcome));
            }
        }
        Ok(())
    }
}

fn applied_index(position: &Position) -> u64 {
    position.applied.as_ref().map_or(0, |id| id.index)
}

fn known(position: Option<Position>) -> io::Result<Position> {
    let Some(position) = position else { return Ok(machine::origin()) };
    if position.format != machine::FORMAT || position.machine_version > machine::MACHINE_VERSION {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!(
                "the state has format {} and machine version {}; this build knows format {} and versions up to {}: start the build that wrote it, or a newer one",
                position.format,
                position.machine_version,
                machine::FORMAT,
                machine::MACHINE_VERSION
            ),
        ));
    }
    Ok(position)
}

fn meta_of(position: &Position) -> io::Result<SnapshotMetaOf<Types>> {
    Ok(SnapshotMeta {
        last_log_id: position.applied.as_ref().map(record::log_id_in),
        last_membership: record::stored_in(position.membership.as_ref())?,
    })
}

impl RaftStateMachine<Types> for State {
    type SnapshotData = Checkpoint;
    type SnapshotBuilder = State;

    async fn applied_state(&mut self) -> io::Result<(Option<LogIdOf<Types>>, StoredMembershipOf<Types>)> {
        let meta = meta_of(&self.stage.position())?;
        Ok((meta.last_log_id, meta.last_membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> io::Result<()>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some(first) = entries.next().await {
            let mut batch = vec![first?];
            let mut bytes = size_of(&batch[0]);
            while batch.len() < BATCH_ENTRIES_MAX
                && bytes < BATCH_BYTES_MAX
                && let Some(Some(entry)) = entries.next().now_or_never()
            {
                let entry = entry?;
                bytes += size_of(&entry);
                batch.push(entry);
            }
            self.apply_batch(batch)?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> State {
        self.clone()
    }

    async fn install_snapshot(&mut self, meta: &SnapshotMetaOf<Types>, snapshot: Checkpoint) -> io::Result<()> {
        let home = self.home.clone();
        let installed = snapshot.clone();
        let engine = blocking(move || home.install(installed)).await?;
        let position = known(layout::read_position(&*engine)?)?;
        *self.stage.engine.write() = engine.clone();
        *self.stage.position.write() = position.clone();
        self.audience.replaced(&position, &*engine);
        self.stage.applied.send_replace(applied_index(&position));
        *self.snapshot.lock() = Some(Snapshot { meta: meta.clone(), snapshot });
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> io::Result<Option<SnapshotOf<Types, Checkpoint>>> {
        Ok(self.snapshot.lock().clone())
    }
}

impl RaftSnapshotBuilder<Types> for State {
    type SnapshotData = Checkpoint;

    async fn build_snapshot(&mut self) -> io::Result<SnapshotOf<Types, Checkpoint>> {
        let home = self.home.clone();
        let (checkpoint, position) = blocking(move || {
            let checkpoint = home.checkpoint()?;
            let position = home.read_checkpoint(&checkpoint, layout::POSITION)?;
            Ok((checkpoint, position))
        })
        .await?;
        let position = position.map(|row| layout::decode("the position of a snapshot", row)).transpose()?;
        let snapshot = Snapshot { meta: meta_of(&known(position)?)?, snapshot: checkpoint };
        *self.snapshot.lock() = Some(snapshot.clone());
        Ok(snapshot)
    }
}

fn size_of(entry: &EntryResponder<Types>) -> usize {
    match &entry.0.payload {
        EntryPayload::Normal(Proposal(command)) => command.len(),
        _ => 0,
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}
