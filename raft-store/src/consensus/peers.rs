//! Connections to the other members: one per lane, so that a long log or a snapshot does not hold up a vote.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use kit::tls::{ClientTls, Connector};
use parking_lot::Mutex;
use proto::forestay::raft::v1::{Peer, Route, raft_client::RaftClient};
use tonic::transport::{Channel, Endpoint};

/// A message between members: a piece of log as it is read, and what it is wrapped in.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// A peer on the same network answers in milliseconds or not at all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// A peer that fell silent is found out in two of these, also where the kernel still holds the connection.
const PROBE: Duration = Duration::from_secs(1);

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Votes and heartbeats.
    Urgent,
    Log,
    Snapshot,
    /// What clients of a follower asked for.
    Requests,
}

/// A handle to the connections of this member; clones share them.
#[derive(Clone, Debug)]
pub struct Peers {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    cluster_id: u64,
    id: u64,
    tls: Option<ClientTls>,
    open: Mutex<BTreeMap<(u64, Lane), Open>>,
    /// Whether each member answered last time, so that a change is told once.
    answering: Mutex<BTreeMap<u64, bool>>,
}

#[derive(Debug)]
struct Open {
    urls: Vec<String>,
    client: RaftClient<Channel>,
}

impl Peers {
    pub fn new(cluster_id: u64, id: u64, tls: Option<ClientTls>) -> Peers {
        Peers { inner: Arc::new(Inner { cluster_id, id, tls, open: Mutex::default(), answering: Mutex::default() }) }
    }

    pub fn id(&self) -> u64 {
        self.inner.id
    }

    pub fn route(&self, to: u64) -> Route {
        Route { cluster_id: self.inner.cluster_id, from_member: self.inner.id, to_member: to }
    }

    /// Notes whether a member answered.
    pub fn answered(&self, to: u64, peer: &Peer, failure: Option<&dyn fmt::Display>) {
        let is_new = self.inner.answering.lock().insert(to, failure.is_none()) != Some(failure.is_none());
        match failure {
            _ if !is_new => {}
            None => tracing::info!(member = peer.name, id = format!("{to:x}"), "member answers"),
            Some(error) => {
                tracing::warn!(member = peer.name, id = format!("{to:x}"), %error, "member does not answer");
            }
        }
    }

    /// A client of the member `to`; it connects on first use, and again after a failure.
    ///
    /// # Errors
    /// The member has no address that can be used.
    pub fn client(&self, to: u64, peer: &Peer, lane: Lane) -> Result<RaftClient<Channel>, String> {
        let mut open = self.inner.open.lock();
        if let Some(known) = open.get(&(to, lane))
            && known.urls == peer.peer_urls
        {
            return Ok(known.client.clone());
        }
        let channel = connect(&peer.peer_urls, self.inner.tls.as_ref())
            .map_err(|error| format!("reach member {to:x} ({}): {error}", peer.name))?;
        let client = RaftClient::new(channel)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        open.insert((to, lane), Open { urls: peer.peer_urls.clone(), client: client.clone() });
        Ok(client)
    }
}

fn connect(urls: &[String], tls: Option<&ClientTls>) -> Result<Channel, String> {
    let first = urls.first().ok_or("it has no peer URL")?;
    let endpoint = Endpoint::from_shared(first.clone())
        .map_err(|error| format!("read the peer URL {first:?}: {error}"))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(PROBE)
        .keep_alive_timeout(PROBE)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(4 << 20)
        .initial_connection_window_size(8 << 20);
    if !first.starts_with("https://") {
        return Ok(endpoint.connect_lazy());
    }
    let tls = tls.ok_or_else(|| {
        format!(
            "the peer URL {first:?} needs certificates: set --peer-cert-file, --peer-key-file and --peer-trusted-ca-file"
        )
    })?;
    let connector = Connector::new(urls, tls).map_err(|error| error.to_string())?;
    Ok(endpoint.connect_with_connector_lazy(connector))
}
