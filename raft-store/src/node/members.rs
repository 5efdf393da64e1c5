//! The members of the store as clients see them, and what this one tells of itself.

use std::{collections::BTreeMap, time::Duration};

use proto::{
    etcdserverpb::Member,
    forestay::raft::v1::{Command, Found, Joiner, Peer, Publish, change_members_request::Change, command::Action},
};
use tonic::Status;

use super::{Founding, Node, Options, failed};
use crate::{
    consensus,
    machine::{self, Refusal},
};

/// Peer URLs as they are compared.
fn checked(mut urls: Vec<String>) -> Result<Vec<String>, Refusal> {
    for url in &mut urls {
        url.truncate(url.trim_end_matches('/').len());
    }
    urls.sort();
    let known = urls.iter().all(|url| url.starts_with("http://") || url.starts_with("https://"));
    if urls.is_empty() || !known { Err(Refusal::BadUrls) } else { Ok(urls) }
}

/// How soon a member whose introduction failed tries again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the others are to know of this member.
pub(super) fn this(options: &Options) -> Peer {
    Peer {
        name: options.name.clone(),
        peer_urls: options.advertise_peer_urls.clone(),
        client_urls: options.advertise_client_urls.clone(),
        machine_version_max: machine::MACHINE_VERSION,
        votes_once_ready: false,
    }
}

pub(super) fn founding(options: &Options) -> consensus::Founding {
    match &options.founding {
        Founding::Alone => consensus::Founding::Alone(this(options)),
        Founding::Together(cluster) => consensus::Founding::Together(cluster.peers()),
        Founding::Join(_) => consensus::Founding::Join,
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

/// While this member leads, makes voters of those that were added to become some.
pub(super) async fn promote(node: Node) {
    let shutdown = node.until_shutdown();
    loop {
        tokio::select! {
            () = tokio::time::sleep(AGAIN) => {}
            () = shutdown.triggered() => return,
        }
        if node.group().is_leader() {
            node.group().promote_ready().await;
        }
    }
}

impl Node {
    /// Adds a member that is not there yet: as a learner, which votes once it has caught up unless it is to stay one.
    ///
    /// # Errors
    /// etcd's: invalid or taken URLs.
    pub async fn add_member(&self, peer_urls: Vec<String>, stays_learner: bool) -> Result<u64, Status> {
        let peer = Peer { peer_urls: checked(peer_urls)?, votes_once_ready: !stays_learner, ..Peer::default() };
        // Drawn anew each time: what was removed does not come back under its old id.
        let member_id = rand::random::<u64>().max(1);
        self.change_members(Change::Add(Joiner { member_id, peer: Some(peer) })).await?;
        Ok(member_id)
    }

    /// # Errors
    /// etcd's: invalid or taken URLs, member not found.
    pub async fn update_member(&self, member_id: u64, peer_urls: Vec<String>) -> Result<(), Status> {
        let peer = Peer { peer_urls: checked(peer_urls)?, ..Peer::default() };
        self.change_members(Change::Update(Joiner { member_id, peer: Some(peer) })).await
    }

    /// # Errors
    /// etcd's, as the change has them.
    pub async fn change_members(&self, change: Change) -> Result<(), Status> {
        Ok(self.group().change_members(change).await?)
    }

    /// A store of one may have moved; the others that are to come have to find it.
    pub(super) async fn settle_urls(&self) -> Result<(), Status> {
        let urls = checked(self.options().advertise_peer_urls.clone())?;
        let agreed = self.group().members().into_iter().find(|(id, ..)| *id == self.member_id());
        if self.options().peering.is_some() && agreed.is_some_and(|(_, peer, _)| peer.peer_urls != urls) {
            self.update_member(self.member_id(), urls).await?;
        }
        Ok(())
    }

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
