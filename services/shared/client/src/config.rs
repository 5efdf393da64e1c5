//! [`Config`]: where the servers are, whom to trust, and who we are.

use tonic::transport::Channel;

use crate::{Error, error::failure};

/// How to reach the API.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// "https://127.0.0.1:6443"; all are equal, the first that answers is used.
    pub servers: Vec<String>,
    /// The authority that signed the servers' certificates.
    pub ca_pem: String,
    /// The certificate to authenticate with; anonymous without one.
    pub identity: Option<kit::tls::Identity>,
}

impl Config {
    /// A lazy channel over mutual TLS; other services than the API's can be called over it too.
    ///
    /// # Errors
    /// Where an address or a certificate cannot be read.
    pub fn channel(&self) -> Result<Channel, Error> {
        let tls = kit::tls::ClientTls { ca_pem: self.ca_pem.clone(), identity: self.identity.clone() };
        kit::tls::channel(&self.servers, &tls)
            .map_err(|error| Error::from_status(failure(400, "BadRequest", format!("configure the client: {error}"))))
    }
}
