//! A gRPC server on mutual TLS: what every role serves its own package with.

use std::{net::SocketAddr, pin::Pin, sync::Arc, task, time::Duration};

use futures::{Stream, StreamExt, stream::FuturesUnordered};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tonic::{
    Request, Status,
    service::RoutesBuilder,
    transport::{Server, server::Connected},
};
use tracing::debug;

use crate::{
    life::Shutdown,
    tls::{Peer, peer_subject},
};

/// A client that does not finish its handshake in this time is dropped.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Handshakes at once; more wait in the listener's queue.
const HANDSHAKES_MAX: usize = 64;

/// Serves gRPC routes until `shutdown`. Every request carries [`Option<Peer>`] as an extension.
///
/// # Errors
/// Where the server cannot go on accepting.
pub async fn serve(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    routes: RoutesBuilder,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let incoming = accept(listener, tls, shutdown.clone());
    Server::builder()
        .http2_keepalive_interval(Some(Duration::from_secs(10)))
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_routes(routes.routes())
        .serve_with_incoming_shutdown(incoming, async move { shutdown.triggered().await })
        .await
}

/// Accepts connections and makes their handshakes side by side, so that a slow client holds up nobody.
pub fn accept(
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    shutdown: Shutdown,
) -> impl Stream<Item = std::io::Result<Connection>> + Send {
    let acceptor = TlsAcceptor::from(tls);
    let (sender, receiver) = tokio::sync::mpsc::channel(HANDSHAKES_MAX);
    tokio::spawn(async move {
        let mut handshakes = FuturesUnordered::new();
        loop {
            tokio::select! {
                () = shutdown.triggered() => return,
                accepted = listener.accept(), if handshakes.len() < HANDSHAKES_MAX => match accepted {
                    Ok((stream, address)) => handshakes.push(handshake(acceptor.clone(), stream, address)),
                    // Out of descriptors or a connection gone while it waited: neither ends the server.
                    Err(error) => {
                        debug!(%error, "accept failed");
                        tokio::time::sleep(Duration::from_millis(10)).await;
                    }
                },
                Some(done) = handshakes.next() => {
                    if let Some(connection) = done
                        && sender.send(Ok(connection)).await.is_err() {
                            return;
                        }
                }
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

async fn handshake(acceptor: TlsAcceptor, stream: TcpStream, address: SocketAddr) -> Option<Connection> {
    let _ = stream.set_nodelay(true);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = stream.get_ref().1.peer_certificates().and_then(|chain| peer_subject(chain.first()?));
            Some(Connection { stream, info: ConnectInfo { address, peer } })
        }
        Ok(Err(error)) => {
            debug!(%address, %error, "TLS handshake failed");
            None
        }
        Err(_) => {
            debug!(%address, "TLS handshake took too long");
            None
        }
    }
}

/// The group whose members may see and do everything.
const OPERATORS: &str = "system:masters";

/// An interceptor that lets in the administrators' group only: for services that show every object to whoever asks.
///
/// # Errors
/// Names what is missing.
pub fn only_operators(request: Request<()>) -> Result<Request<()>, Status> {
    let info = request.extensions().get::<ConnectInfo>();
    let Some(peer) = info.and_then(|info| info.peer.as_ref()) else {
        return Err(Status::unauthenticated("this service needs a client certificate"));
    };
    if !peer.organizations.iter().any(|group| group == OPERATORS) {
        let user = &peer.common_name;
        return Err(Status::permission_denied(format!("{user} is not in the group {OPERATORS}")));
    }
    Ok(request)
}

/// An accepted connection and who is at its other end.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    info: ConnectInfo,
}

/// Carried by every request of a connection, as an extension.
#[derive(Clone, Debug)]
pub struct ConnectInfo {
    pub address: SocketAddr,
    /// The owner of the verified client certificate, where one was shown.
    pub peer: Option<Peer>,
}

impl Connection {
    pub fn info(&self) -> &ConnectInfo {
        &self.info
    }

    /// The protocol both sides agreed on.
    pub fn alpn(&self) -> Option<&[u8]> {
        self.stream.get_ref().1.alpn_protocol()
    }
}

impl Connected for Connection {
    type ConnectInfo = ConnectInfo;

    fn connect_info(&self) -> ConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut task::Context<'_>,
        buf: &[u8],
    ) -> task::Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut task::Context<'_>) -> task::Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_by(peer: Option<Peer>) -> Result<(), tonic::Code> {
        let mut request = Request::new(());
        request.extensions_mut().insert(ConnectInfo { address: ([127, 0, 0, 1], 1).into(), peer });
        only_operators(request).map(drop).map_err(|status| status.code())
    }

    #[test]
    fn only_administrators_are_let_in() {
        let of = |group: &str| Some(Peer { common_name: "someone".to_owned(), organizations: vec![group.to_owned()] });
        assert_eq!(asked_by(of("system:masters")), Ok(()));
        assert_eq!(asked_by(of("system:nodes")), Err(tonic::Code::PermissionDenied));
        assert_eq!(asked_by(None), Err(tonic::Code::Unauthenticated));
    }
}
