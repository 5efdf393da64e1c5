//! The door for the other members, and the certificates on both sides of it.

use std::{
    net::{TcpListener, ToSocketAddrs},
    sync::Arc,
};

use anyhow::{Context, bail};
use kit::tls::{ClientTls, Clients, Identity};
use rustls::ServerConfig;

/// How a member reaches the others, and is reached by them.
#[derive(Clone, Debug)]
pub struct Peering {
    /// `http://host:port` on loopback only, else `https://host:port`.
    pub listen_urls: Vec<String>,
    pub tls: Option<PeerTls>,
}

/// One certificate for both directions; only those of the same authority are let in.
#[derive(Clone, Debug)]
pub struct PeerTls {
    pub identity: Identity,
    pub authority_pem: String,
}

impl Peering {
    pub(super) fn client_tls(&self) -> Option<ClientTls> {
        let PeerTls { identity, authority_pem } = self.tls.clone()?;
        Some(ClientTls { ca_pem: authority_pem, identity: Some(identity) })
    }

    /// Listens on every URL.
    ///
    /// # Errors
    /// An address is not free, or needs certificates that were not given.
    pub(super) fn listen(&self) -> anyhow::Result<Vec<(TcpListener, Option<Arc<ServerConfig>>)>> {
        self.listen_urls.iter().map(|url| self.listen_on(url)).collect()
    }

    fn listen_on(&self, url: &str) -> anyhow::Result<(TcpListener, Option<Arc<ServerConfig>>)> {
        let (host, tls) = match url.split_once("://") {
            Some(("http", host)) => (host, None),
            Some(("https", host)) => (host, Some(self.server_config(url)?)),
            _ => bail!("--listen-peer-urls {url:?} has no scheme: write http://{url} or https://{url}"),
        };
        let host = host.trim_end_matches('/');
        let addresses =
            host.to_socket_addrs().with_context(|| format!("read --listen-peer-urls {url:?}"))?.collect::<Vec<_>>();
        if tls.is_none() && !addresses.iter().all(|address| address.ip().is_loopback()) {
            bail!(
                "--listen-peer-urls {url:?} would let everybody vote: use https with --peer-cert-file, --peer-key-file and --peer-trusted-ca-file, or a loopback address"
            );
        }
        let listener = TcpListener::bind(&addresses[..])
            .with_context(|| format!("listen for other members on {url} (--listen-peer-urls)"))?;
        listener.set_nonblocking(true)?;
        Ok((listener, tls))
    }

    fn server_config(&self, url: &str) -> anyhow::Result<Arc<ServerConfig>> {
        let tls = self.tls.as_ref().with_context(|| {
            format!("--listen-peer-urls {url:?} needs --peer-cert-file, --peer-key-file and --peer-trusted-ca-file")
        })?;
        kit::tls::server_config(&tls.identity, &tls.authority_pem, Clients::Certified, &["h2"])
            .context("read the certificates for other members")
    }
}
