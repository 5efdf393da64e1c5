//! Who this member is: read from its folder, or settled once and for ever before it takes part in anything.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context, bail, ensure};
use futures::future;
use prost::Message;
use proto::forestay::raft::v1::{Identity, MembersRequest, MembersResponse, Peer, RecognizeRequest};

use super::{Cluster, Founding, Options};
use crate::{
    consensus::{Lane, Peers},
    engine::Home,
    machine,
};

/// The format of a data directory that this build knows.
const FORMAT: u32 = 1;

/// How long the other members may take to say whether they know this one.
const RECOGNIZE_WITHIN: Duration = Duration::from_secs(2);

/// # Errors
/// The folder is of a format this build does not know, was another member's, or was emptied.
pub async fn identify(home: &dyn Home, options: &Options) -> anyhow::Result<Identity> {
    if let Founding::Together(cluster) | Founding::Join(cluster) = &options.founding {
        cluster.check_member(&options.name, &options.advertise_peer_urls)?;
    }
    if let Some(stored) = home.identity().context("read the file IDENTITY")? {
        let identity = Identity::decode(stored).context("decode the file IDENTITY")?;
        ensure!(
            identity.format == FORMAT,
            "the data directory has format {}, this build knows {FORMAT}: start the build that wrote it",
            identity.format
        );
        check(&identity, options)?;
        return Ok(identity);
    }
    // A log without an identity is one whose identity was lost: founding a second store in it would mix the two.
    ensure!(
        machine::layout::read_position(&*home.state())?.is_none(),
        "the data directory has a state but no file IDENTITY: put the file back from a copy, or empty the directory"
    );
    let identity = match &options.founding {
        Founding::Alone => Identity { format: FORMAT, cluster_id: named(), member_id: named(), name: String::new() },
        Founding::Together(cluster) => {
            let identity = founder(cluster, &options.name)?;
            unknown_to_others(&identity, cluster, options).await?;
            identity
        }
        Founding::Join(cluster) => joiner(cluster, options).await?,
    };
    home.set_identity(identity.encode_to_vec().into()).context("write the file IDENTITY")?;
    Ok(identity)
}

fn founder(cluster: &Cluster, name: &str) -> anyhow::Result<Identity> {
    let member_id = cluster.member_id(name).with_context(|| format!("--initial-cluster does not name {name}"))?;
    Ok(Identity { format: FORMAT, cluster_id: cluster.id(), member_id, name: name.to_owned() })
}

/// Flags that say something else than the folder are a mistake: following either would make two stores of one.
fn check(identity: &Identity, options: &Options) -> anyhow::Result<()> {
    let folder = options.data_dir.display();
    let cluster = match &options.founding {
        Founding::Alone => return Ok(()),
        Founding::Together(cluster) | Founding::Join(cluster) => cluster,
    };
    if identity.name.is_empty() && options.founding == Founding::Together(cluster.clone()) {
        ensure!(
            cluster.members.len() == 1,
            "the data directory {folder} holds a store of one member, and --initial-cluster names {}: start it without --initial-cluster, or with an empty --data-dir",
            cluster.members.len()
        );
        return Ok(());
    }
    if identity.name != options.name {
        bail!(
            "the data directory {folder} belongs to the member {:?}, and --name is {:?}: correct one of them",
            identity.name,
            options.name
        );
    }
    if matches!(options.founding, Founding::Join(_)) {
        return Ok(());
    }
    let flags = founder(cluster, &options.name)?;
    ensure!(
        (flags.cluster_id, flags.member_id) == (identity.cluster_id, identity.member_id),
        "the data directory {folder} belongs to member {:x} of cluster {:x}, and --initial-cluster with --initial-cluster-token makes it member {:x} of cluster {:x}: use the flags the store was founded with, or an empty --data-dir",
        identity.member_id,
        identity.cluster_id,
        flags.member_id,
        flags.cluster_id
    );
    Ok(())
}

/// A member whose folder was emptied has forgotten its votes and acknowledgements; under its old id it would make a
/// quorum forget them too.
async fn unknown_to_others(identity: &Identity, cluster: &Cluster, options: &Options) -> anyhow::Result<()> {
    let tls = options.peering.as_ref().and_then(|peering| peering.client_tls());
    let peers = Peers::new(identity.cluster_id, identity.member_id, tls);
    let others: BTreeMap<u64, Peer> = cluster.peers().into_iter().filter(|(id, _)| *id != identity.member_id).collect();
    let asked = others.iter().map(|(id, peer)| recognized(&peers, *id, peer));
    if let Some(other) = future::join_all(asked).await.into_iter().flatten().next() {
        bail!(
            "{} knows this member ({}, {:x}) from before, and its data directory {} is empty: put the directory back, or remove the member from the store and add it again",
            other,
            options.name,
            identity.member_id,
            options.data_dir.display()
        );
    }
    Ok(())
}

/// The identity that was given to this member when it was added, from those that are there already.
async fn joiner(cluster: &Cluster, options: &Options) -> anyhow::Result<Identity> {
    let own = cluster.members.get(&options.name).cloned().unwrap_or_default();
    let tls = options.peering.as_ref().and_then(|peering| peering.client_tls());
    let peers = Peers::new(0, 0, tls);
    let others = cluster.peers().into_iter().filter(|(_, peer)| peer.name != options.name);
    let mut failures = Vec::new();
    for (id, peer) in others {
        let store = match asked(&peers, id, &peer).await {
            Ok(store) => store,
            Err(failure) => {
                failures.push(failure);
                continue;
            }
        };
        let members = store.membership.unwrap_or_default().peers;
        let Some(member_id) = members.iter().find(|(_, known)| known.peer_urls == own).map(|(id, _)| *id) else {
            bail!(
                "{} knows no member with the peer URLs {}: add it first, with etcdctl member add {} --peer-urls={}",
                peer.name,
                own.join(", "),
                options.name,
                own.join(",")
            );
        };
        ensure!(
            !store.published.contains(&member_id),
            "{} knows this member ({}, {member_id:x}) from before, and its data directory {} is empty: put the directory back, or remove the member from the store and add it again",
            peer.name,
            options.name,
            options.data_dir.display()
        );
        return Ok(Identity { format: FORMAT, cluster_id: store.cluster_id, member_id, name: options.name.clone() });
    }
    bail!("no member named in --initial-cluster can be asked for the store to join: {}", failures.join("; "))
}

async fn asked(peers: &Peers, id: u64, peer: &Peer) -> Result<MembersResponse, String> {
    let mut client = peers.client(id, peer, Lane::Requests)?;
    match tokio::time::timeout(RECOGNIZE_WITHIN, client.members(MembersRequest {})).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(format!("{}: {}", peer.name, status.message())),
        Err(_) => Err(format!("{} did not answer within {RECOGNIZE_WITHIN:?}", peer.name)),
    }
}

/// The name of the member asked, if it knows this one.
async fn recognized(peers: &Peers, id: u64, peer: &Peer) -> Option<String> {
    let mut client = peers.client(id, peer, Lane::Requests).ok()?;
    let question = client.recognize(RecognizeRequest { route: Some(peers.route(id)) });
    let answer = tokio::time::timeout(RECOGNIZE_WITHIN, question).await.ok()?.ok()?;
    answer.into_inner().published.then(|| peer.name.clone())
}

fn named() -> u64 {
    // Zero means unset in every message.
    rand::random::<u64>().max(1)
}
