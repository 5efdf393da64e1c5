//! Certificates and mutual TLS: authorities, identities, and the rustls configurations made from them.

mod authority;
mod channel;

use std::sync::Arc;

use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

pub use authority::{Ca, Subject, Usage, write_private};
pub use channel::{ClientTls, Connector, channel, endpoints};

/// Why certificates could not be made, read or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{action} {path}: {source}")]
    File { action: &'static str, path: String, source: std::io::Error },
    #[error("make a certificate for {subject}: {source}")]
    Issue { subject: String, source: rcgen::Error },
    #[error("read {what}: {reason}")]
    Pem { what: &'static str, reason: String },
    #[error("set up TLS: {0}")]
    Rustls(#[from] rustls::Error),
    #[error("the server address {address:?} is not of the form https://host:port")]
    Address { address: String },
}

/// A certificate chain with its private key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    pub cert_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("key_pem", &"(secret)").finish_non_exhaustive()
    }
}

impl Identity {
    fn parts(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), Error> {
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|error| Error::Pem { what: "a private key", reason: error.to_string() })?;
        Ok((certificates(&self.cert_pem)?, key))
    }
}

/// What a server's clients must speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clients {
    /// No certificate needed; one that is shown must verify.
    Welcome,
    /// Refused in the handshake without a valid certificate.
    Certified,
}

/// A server's side of mutual TLS. `alpn` lists protocols by preference: `h2`, `http/1.1`.
///
/// # Errors
/// Where a PEM text does not hold what it should.
pub fn server_config(
    identity: &Identity,
    client_ca_pem: &str,
    clients: Clients,
    alpn: &[&str],
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(client_ca_pem)?), provider());
    let verifier = match clients {
        Clients::Welcome => verifier.allow_unauthenticated(),
        Clients::Certified => verifier,
    };
    let verifier =
        verifier.build().map_err(|error| Error::Pem { what: "the client authority", reason: error.to_string() })?;
    let (chain, key) = identity.parts()?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)?;
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(Arc::new(config))
}

/// A client's side of mutual TLS over HTTP/2.
///
/// # Errors
/// Where a PEM text does not hold what it should.
pub fn client_config(ca_pem: &str, identity: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots(ca_pem)?);
    let mut config = match identity {
        Some(identity) => {
            let (chain, key) = identity.parts()?;
            builder.with_client_auth_cert(chain, key)?
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Arc::new(config))
}

/// Who a verified certificate says its owner is; `None` where it is not a readable X.509 certificate.
pub fn peer_subject(certificate: &[u8]) -> Option<Peer> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let subject = certificate.subject();
    let common_name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
    let organizations = subject.iter_organization().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect();
    Some(Peer { common_name, organizations })
}

/// The owner of a client certificate: user name and groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    pub common_name: String,
    pub organizations: Vec<String>,
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match found {
        Ok(chain) if !chain.is_empty() => Ok(chain),
        Ok(_) => Err(Error::Pem { what: "certificates", reason: "the text holds none".to_owned() }),
        Err(error) => Err(Error::Pem { what: "certificates", reason: error.to_string() }),
    }
}

fn roots(pem: &str) -> Result<RootCertStore, Error> {
    let mut store = RootCertStore::empty();
    for certificate in certificates(pem)? {
        store.add(certificate)?;
    }
    Ok(store)
}
