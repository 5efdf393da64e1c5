//! gRPC channels over mutual TLS that hold all addresses of a service and go on to the next when one fails.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::transport::{Channel, Endpoint, Uri};
use tower::Service;

use super::{Error, Identity, client_config};

/// One address must answer within this time, or the next is tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A silent connection is probed this often, and given up when a probe is not answered in the same time.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// What a client needs to trust and to be trusted.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub ca_pem: String,
    pub identity: Option<Identity>,
}

/// A lazy channel to whichever of the addresses (`https://host:port`) answers.
///
/// # Errors
/// Where an address or a certificate cannot be read. Connecting happens on first use.
pub fn channel(addresses: &[String], tls: &ClientTls) -> Result<Channel, Error> {
    let connector = Connector::new(addresses, tls)?;
    let first = addresses.first().cloned().unwrap_or_default();
    let endpoint = Endpoint::from_shared(first.clone())
        .map_err(|_| Error::Address { address: first })?
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE)
        .keep_alive_while_idle(true)
        // Lists and watches are long: a window per stream that does not stall on one round trip.
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20);
    Ok(endpoint.connect_with_connector_lazy(connector))
}

/// Reads addresses of the form `https://host:port` into host and port.
///
/// # Errors
/// Names the first address that is not of this form, or says that there is none.
pub fn endpoints(addresses: &[String]) -> Result<Vec<(String, u16)>, Error> {
    let read = |address: &String| {
        let uri: Uri = address.parse().ok()?;
        (uri.scheme_str() == Some("https")).then_some(())?;
        Some((uri.host()?.trim_matches(['[', ']']).to_owned(), uri.port_u16()?))
    };
    if addresses.is_empty() {
        return Err(Error::Address { address: String::new() });
    }
    addresses.iter().map(|address| read(address).ok_or_else(|| Error::Address { address: address.clone() })).collect()
}

/// Connects to the address that worked last, then to the others in turn.
#[derive(Clone)]
pub struct Connector {
    addresses: Arc<[(String, u16)]>,
    /// Index of the address that worked last.
    current: Arc<AtomicUsize>,
    tls: TlsConnector,
}

impl Connector {
    /// # Errors
    /// Where an address or a certificate cannot be read.
    pub fn new(addresses: &[String], tls: &ClientTls) -> Result<Self, Error> {
        let config = client_config(&tls.ca_pem, tls.identity.as_ref())?;
        let addresses = endpoints(addresses)?.into();
        Ok(Self { addresses, current: Arc::default(), tls: TlsConnector::from(config) })
    }

    async fn connect_any(self) -> std::io::Result<TlsStream<TcpStream>> {
        let start = self.current.load(Ordering::Relaxed);
        let mut failure = std::io::Error::from(std::io::ErrorKind::NotConnected);
        for step in 0..self.addresses.len() {
            let index = (start + step) % self.addresses.len();
            let (host, port) = &self.addresses[index];
            match self.connect_one(host, *port).await {
                Ok(stream) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(stream);
                }
                Err(error) => failure = std::io::Error::new(error.kind(), format!("connect to {host}:{port}: {error}")),
            }
        }
        Err(failure)
    }

    async fn connect_one(&self, host: &str, port: u16) -> std::io::Result<TlsStream<TcpStream>> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        let connect = async {
            let stream = TcpStream::connect((host, port)).await?;
            stream.set_nodelay(true)?;
            self.tls.connect(name, stream).await
        };
        tokio::time::timeout(CONNECT_TIMEOUT, connect).await?
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect_any().await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_with_ipv6_hosts() {
        let read = endpoints(&["https://[::1]:6443".into(), "https://m1:1".into()]).unwrap();
        assert_eq!(read, [("::1".to_owned(), 6443), ("m1".to_owned(), 1)]);
    }

    #[test]
    fn an_address_without_a_port_is_refused_by_name() {
        let error = endpoints(&["https://m1".into()]).unwrap_err().to_string();
        assert!(error.contains("https://m1"), "{error}");
    }
}
