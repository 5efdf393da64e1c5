//! etcd's flags and their ETCD_* names, read into what the store takes.

use std::{net::ToSocketAddrs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, bail, ensure};
use clap::{Parser, ValueEnum};
use raft_store::{Cluster, Founding, Options, PeerTls, Peering, ServerConfig};

/// Consistent, versioned bytes behind the etcd v3 API.
#[derive(Parser, Debug)]
#[command(version, args_override_self = true)]
pub struct Flags {
    /// Name of this member
    #[arg(long, env = "ETCD_NAME", default_value = "default")]
    pub name: String,
    /// Folder of this member's data; <name>.etcd where it is not given
    #[arg(long, env = "ETCD_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Addresses to listen on for clients
    #[arg(long, env = "ETCD_LISTEN_CLIENT_URLS", value_delimiter = ',', default_value = "http://localhost:2379")]
    pub listen_client_urls: Vec<String>,
    /// Addresses told to clients; those listened on where they are not given
    #[arg(long, env = "ETCD_ADVERTISE_CLIENT_URLS", value_delimiter = ',')]
    advertise_client_urls: Vec<String>,
    /// Addresses to listen on for other members; those told to them where they are not given
    #[arg(long, env = "ETCD_LISTEN_PEER_URLS", value_delimiter = ',')]
    listen_peer_urls: Vec<String>,
    /// Addresses told to other members
    #[arg(
        long,
        env = "ETCD_INITIAL_ADVERTISE_PEER_URLS",
        value_delimiter = ',',
        default_value = "http://localhost:2380"
    )]
    initial_advertise_peer_urls: Vec<String>,
    /// First members of the store, the same on each: n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380. Without it this
    /// member is the only one
    #[arg(long, env = "ETCD_INITIAL_CLUSTER")]
    initial_cluster: Option<String>,
    /// Whether a member without data founds the store with the others, or joins one that exists
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_STATE", value_enum, default_value = "new")]
    initial_cluster_state: State,
    /// Tells stores apart whose members have the same addresses
    #[arg(long, env = "ETCD_INITIAL_CLUSTER_TOKEN", default_value = "etcd-cluster")]
    initial_cluster_token: String,
    /// Server certificate, PEM
    #[arg(long, env = "ETCD_CERT_FILE", requires = "key_file")]
    cert_file: Option<PathBuf>,
    /// Key of the server certificate, PEM
    #[arg(long, env = "ETCD_KEY_FILE", requires = "cert_file")]
    key_file: Option<PathBuf>,
    /// CA whose client certificates are let in, PEM; with it, a client certificate is required
    #[arg(long, env = "ETCD_TRUSTED_CA_FILE", requires = "cert_file")]
    trusted_ca_file: Option<PathBuf>,
    /// Certificate shown to other members, as server and as client, PEM
    #[arg(long, env = "ETCD_PEER_CERT_FILE", requires = "peer_key_file", requires = "peer_trusted_ca_file")]
    peer_cert_file: Option<PathBuf>,
    /// Key of the certificate shown to other members, PEM
    #[arg(long, env = "ETCD_PEER_KEY_FILE", requires = "peer_cert_file")]
    peer_key_file: Option<PathBuf>,
    /// CA of all members' certificates, PEM; nobody else is let in
    #[arg(long, env = "ETCD_PEER_TRUSTED_CA_FILE", requires = "peer_cert_file")]
    peer_trusted_ca_file: Option<PathBuf>,
    /// Milliseconds between heartbeats; the same on all members
    #[arg(long, env = "ETCD_HEARTBEAT_INTERVAL")]
    heartbeat_interval: Option<u64>,
    /// Milliseconds without a heartbeat after which another leader is elected; the same on all members
    #[arg(long, env = "ETCD_ELECTION_TIMEOUT")]
    election_timeout: Option<u64>,
    /// Entries of the log between snapshots
    #[arg(long, env = "ETCD_SNAPSHOT_COUNT")]
    snapshot_count: Option<u64>,
    /// Entries kept behind a snapshot for members that lag
    #[arg(long, env = "ETCD_SNAPSHOT_CATCHUP_ENTRIES")]
    snapshot_catchup_entries: Option<u64>,
    /// More log lines; may be repeated
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum State {
    New,
    Existing,
}

/// Where to listen for clients.
pub struct Address {
    pub host: String,
    pub secure: bool,
}

impl Flags {
    /// # Errors
    /// A flag cannot be read, or contradicts another one.
    pub fn options(&self) -> anyhow::Result<Options> {
        let advertised =
            if self.advertise_client_urls.is_empty() { &self.listen_client_urls } else { &self.advertise_client_urls };
        let mut options = Options {
            name: self.name.clone(),
            data_dir: self.data_dir.clone().unwrap_or_else(|| PathBuf::from(format!("{}.etcd", self.name))),
            advertise_client_urls: advertised.clone(),
            advertise_peer_urls: self.initial_advertise_peer_urls.clone(),
            founding: self.founding()?,
            peering: self.peering()?,
            ..Options::default()
        };
        let timing = &mut options.timing;
        if let Some(heartbeat) = self.heartbeat_interval {
            timing.heartbeat = Duration::from_millis(heartbeat);
        }
        if let Some(election) = self.election_timeout {
            timing.election_min = Duration::from_millis(election);
            timing.election_max = 2 * timing.election_min;
        }
        ensure!(
            3 * timing.heartbeat <= timing.election_min,
            "--election-timeout is {} ms, and --heartbeat-interval {} ms: it has to be at least three of them",
            timing.election_min.as_millis(),
            timing.heartbeat.as_millis()
        );
        timing.snapshot_entries = self.snapshot_count.unwrap_or(timing.snapshot_entries);
        timing.log_kept = self.snapshot_catchup_entries.unwrap_or(timing.log_kept);
        Ok(options)
    }

    fn founding(&self) -> anyhow::Result<Founding> {
        let Some(members) = &self.initial_cluster else {
            ensure!(
                self.initial_cluster_state == State::New,
                "--initial-cluster-state is existing, and --initial-cluster is missing: it names the members to join"
            );
            return Ok(Founding::Alone);
        };
        let cluster = Cluster::parse(members, &self.initial_cluster_token)?;
        Ok(match self.initial_cluster_state {
            State::New => Founding::Together(cluster),
            State::Existing => Founding::Join(cluster),
        })
    }

    /// A member that was named no others, and no address to listen on for them, stays the only one.
    fn peering(&self) -> anyhow::Result<Option<Peering>> {
        if self.initial_cluster.is_none() && self.listen_peer_urls.is_empty() {
            return Ok(None);
        }
        let listen_urls = if self.listen_peer_urls.is_empty() {
            self.initial_advertise_peer_urls.clone()
        } else {
            self.listen_peer_urls.clone()
        };
        let tls = match &self.peer_cert_file {
            None => None,
            Some(_) => Some(PeerTls {
                identity: kit::tls::Identity {
                    cert_pem: read(&self.peer_cert_file, "--peer-cert-file")?,
                    key_pem: read(&self.peer_key_file, "--peer-key-file")?,
                },
                authority_pem: read(&self.peer_trusted_ca_file, "--peer-trusted-ca-file")?,
            }),
        };
        Ok(Some(Peering { listen_urls, tls }))
    }

    /// # Errors
    /// A file is missing, or is not what its flag says.
    pub fn client_tls(&self) -> anyhow::Result<Arc<ServerConfig>> {
        let identity = kit::tls::Identity {
            cert_pem: read(&self.cert_file, "--cert-file")?,
            key_pem: read(&self.key_file, "--key-file")?,
        };
        let clients = read(&self.trusted_ca_file, "--trusted-ca-file")?;
        kit::tls::server_config(&identity, &clients, kit::tls::Clients::Certified, &["h2"])
            .context("read the certificates")
    }
}

impl Address {
    /// # Errors
    /// The URL is of no form that can be listened on, or would let everybody in.
    pub fn parse(url: &str) -> anyhow::Result<Address> {
        let (scheme, host) = url.split_once("://").with_context(|| {
            format!("--listen-client-urls {url:?} has no scheme: write http://{url} or https://{url}")
        })?;
        let secure = match scheme {
            "http" => false,
            "https" => true,
            other => bail!("--listen-client-urls {url:?} has the scheme {other:?}: http and https are known"),
        };
        let host = host.trim_end_matches('/').to_owned();
        let loopback = host.to_socket_addrs().is_ok_and(|mut found| found.all(|address| address.ip().is_loopback()));
        if !secure && !loopback {
            bail!(
                "--listen-client-urls {url:?} would serve everybody without a password: use https with --cert-file, --key-file and --trusted-ca-file, or a loopback address"
            );
        }
        Ok(Address { host, secure })
    }
}

fn read(path: &Option<PathBuf>, flag: &str) -> anyhow::Result<String> {
    let path = path.as_ref().with_context(|| format!("an https address needs {flag}"))?;
    std::fs::read_to_string(path).with_context(|| format!("read {flag} {}", path.display()))
}
