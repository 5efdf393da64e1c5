//! The members of the store as clients see them, and what this one tells of itself.

use std::{collections::BTreeMap, time::Duration};

use proto::{
    etcdserverpb::Member,
    forestay::raft::v1::{Command, Found, Peer, Publish, command::Action},
};
use tonic::Status;

use super::{Founding, Node, Options, failed};
use crate::{consensus, machine};

/// How soon a member whose introduction failed tries again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the others are to know of this member.
pub(super) fn this(options: &Options) -> Peer {
    Peer {
        name: options.name.clone(),
        peer_urls: options.advertise_peer_urls.clone(),
        client_urls: options.advertise_client_urls.clone(),
        machine_version_max: machine::MACHINE_VERSION,
    }
}

pub(super) fn founding(options: &Options) -> consensus::Founding {
    match &options.founding {
        Founding::Alone => consensus::Founding::Alone(this(options)),
        Founding::Together(cluster) => consensus::Founding::Together(cluster.peers()),
    }
}

/// Tells the others what they cannot know from the flags, once there is a leader; again where it has changed.
pub(super) async fn introduce(node: Node) {
    let shutdown = node.until_shutdown();
    loop {
        tokio::select! {
            introduced = node.introduced() => match introduced {
                Ok(()) => return,
                Err(status) => tracing::debug!(%status, "this member could not introduce itself yet"),
            },
            () = shutdown.triggered() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.triggered() => return,
        }
    }
}

impl Node {
    async fn introduced(&self) -> Result<(), Status> {
        let group = self.group();
        group.catch_up().await?;
        if group.stage().position().cluster_id == 0 {
            let found = Command { action: Some(Action::Found(Found { cluster_id: self.cluster_id() })) };
            group.propose(&found).await?;
        }
        let peer = this(self.options());
        let published = machine::published(&*group.stage().engine()).map_err(failed)?;
        if published.iter().any(|(id, known)| *id == self.member_id() && *known == peer) {
            return Ok(());
        }
        let publish = Publish { member_id: self.member_id(), peer: Some(peer) };
        group.propose(&Command { action: Some(Action::Publish(publish)) }).await?;
        tracing::info!(member = format!("{:x}", self.member_id()), "introduced to the other members");
        Ok(())
    }

    /// The members of the store: addresses for peers are agreed on, the rest is what each told of itself.
    ///
    /// # Errors
    /// The rows cannot be read.
    pub fn members(&self) -> Result<Vec<Member>, Status> {
        let mut published: BTreeMap<u64, Peer> =
            machine::published(&*self.group().stage().engine()).map_err(failed)?.into_iter().collect();
        // Its own addresses may have changed since it told them.
        published.insert(self.member_id(), this(self.options()));
        let members = self.group().members().into_iter().map(|(id, agreed, is_learner)| {
            let told = published.remove(&id).unwrap_or(agreed.clone());
            Member { id, name: told.name, peer_ur_ls: agreed.peer_urls, client_ur_ls: told.client_urls, is_learner }
        });
        Ok(members.collect())
    }
}
