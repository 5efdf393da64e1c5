//! Carries what was applied to those who wait for it.

use std::sync::Arc;

use proto::{forestay::raft::v1::Position, mvccpb::Event};
use tokio::sync::watch;

use crate::{
    consensus::Audience,
    engine::Engine,
    lease::Keeper,
    machine::{self, LeaseChange},
    watch::Hub,
};

pub struct Ears {
    hub: Arc<Hub>,
    keeper: Arc<Keeper>,
    compacted: watch::Sender<i64>,
}

impl Ears {
    pub fn new(hub: Arc<Hub>, keeper: Arc<Keeper>) -> (Ears, watch::Receiver<i64>) {
        let (compacted, compactions) = watch::channel(-1);
        (Ears { hub, keeper, compacted }, compactions)
    }
}

impl Audience for Ears {
    fn events(&self, revision: i64, events: Vec<Event>) {
        self.hub.publish(revision, events);
    }

    fn leases(&self, changes: &[LeaseChange]) {
        self.keeper.learn(changes);
    }

    fn compacted(&self, revision: i64) {
        self.compacted.send_replace(revision);
    }

    fn replaced(&self, position: &Position, engine: &dyn Engine) {
        match machine::leases(engine) {
            Ok(leases) => self.keeper.restart(leases.into_iter().map(|(id, record)| (id, record.ttl_seconds))),
            Err(error) => {
                tracing::error!(%error, "the leases cannot be read; those there are will not end on this member")
            }
        }
        self.hub.restart(position.revision);
        self.compacted.send_replace(position.compacted_revision);
    }
}
