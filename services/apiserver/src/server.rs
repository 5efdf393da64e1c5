//! [`Server`]: one TLS port for both doors, and the tasks behind them.

use std::{convert::Infallible, future::Future, pin::Pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use futures::StreamExt;
use http::{Request, Response, header};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::{conn::auto, graceful::GracefulShutdown},
};
use kit::{
    clock,
    grpc::accept,
    life::{Shutdown, Tasks},
};
use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::OnceCell,
};
use tonic::transport::{Channel, Endpoint};
use tower::{Service, ServiceExt};
use tracing::{debug, info, warn};

use crate::{
    Options,
    api::{Api, RequestContext},
    bootstrap,
    gate::authn,
    grpc, http as rest,
    registry::{self, Catalog, Settings},
    storage::{Ended, Hub, Objects, Store},
};

/// Requests that still run when the server stops are given this long.
const GRACE: Duration = Duration::from_secs(5);
/// The store may still be electing when the apiserver starts.
const STORE_RETRY: Duration = Duration::from_millis(200);
/// In-process connections: bytes in flight each way.
const DUPLEX_BYTES: usize = 256 << 10;
/// HTTP/2 streams of one connection: watches and calls of a busy controller.
const STREAMS_MAX: u32 = 1000;

/// An apiserver.
#[derive(Clone)]
pub struct Server {
    api: Arc<Api>,
    doors: Arc<OnceCell<(Router, Router)>>,
    tasks: Tasks,
}

impl Server {
    pub fn new(options: Options, store: Arc<dyn Store>) -> Self {
        let settings = Settings::from(&options);
        let api = Api {
            objects: Objects::new(store.clone()),
            hub: Arc::new(Hub::new(store, registry::resource_of())),
            catalog: Catalog::new(settings),
            cluster: Arc::default(),
            quotas: Default::default(),
            leases: Default::default(),
            nodes: Default::default(),
            options,
            clock: clock::system(),
            shutdown: Shutdown::new(),
        };
        let tasks = Tasks::of(&api.shutdown);
        Self { api: Arc::new(api), doors: Arc::default(), tasks }
    }

    pub fn api(&self) -> &Arc<Api> {
        &self.api
    }

    /// Reads what admission needs, and begins to follow the store and to keep the cluster's own objects in place.
    /// Waits for a store that does not answer yet. Does nothing where it has been done.
    pub async fn start(&self) {
        self.doors
            .get_or_init(|| async {
                load(&self.api).await;
                self.tasks.spawn("hub", follow(self.api.clone()));
                self.tasks.spawn("bootstrap", bootstrap::keep(self.api.clone()));
                self.tasks.spawn("compaction", bootstrap::compact(self.api.clone()));
                (rest::router(self.api.clone()), grpc::routes(self.api.clone()).await.into_axum_router())
            })
            .await;
    }

    /// Serves both doors until `shutdown`, gives running requests a few seconds to end, and stops.
    ///
    /// # Errors
    /// Where the listener fails, or a part of the server does.
    pub async fn serve(&self, listener: TcpListener, tls: Arc<ServerConfig>, shutdown: Shutdown) -> anyhow::Result<()> {
        tokio::select! {
            () = shutdown.triggered() => return Ok(()),
            () = self.start() => {}
        }
        info!(address = %listener.local_addr()?, "serving the API");
        let graceful = GracefulShutdown::new();
        let mut connections = Box::pin(accept(listener, tls, shutdown.clone()));
        loop {
            let connection = tokio::select! {
                () = shutdown.triggered() => break,
                // A part of it failed: what is left must not look like an apiserver.
                () = self.api.shutdown.triggered() => break,
                connection = connections.next() => connection,
            };
            match connection {
                Some(Ok(connection)) => {
                    let context = authn::identify(connection.info().peer.as_ref());
                    self.spawn(connection, context, Some(&graceful));
                }
                Some(Err(error)) => warn!(%error, "accept failed"),
                None => break,
            }
        }
        // Watches end at once; the rest finishes or is cut off.
        self.api.shutdown.trigger();
        if tokio::time::timeout(GRACE, graceful.shutdown()).await.is_err() {
            warn!("requests were cut off at the end of the grace period");
        }
        self.tasks.join(GRACE).await;
        Ok(self.tasks.check()?)
    }

    /// Stops what [`Server::start`] began, where nothing is served over a socket.
    pub async fn stop(&self) {
        self.api.shutdown.trigger();
        self.tasks.join(GRACE).await;
    }

    /// A channel of this process to the API, as `context`: the same door as over a socket, without one.
    pub fn channel_as(&self, context: RequestContext) -> Channel {
        let server = self.clone();
        let connector = tower::service_fn(move |_: http::Uri| {
            let (server, context) = (server.clone(), context.clone());
            async move {
                server.start().await;
                let (near, far) = tokio::io::duplex(DUPLEX_BYTES);
                server.spawn(far, context, None);
                Ok::<_, Infallible>(TokioIo::new(near))
            }
        });
        Endpoint::from_static("http://apiserver.in-process").connect_with_connector_lazy(connector)
    }

    fn spawn(
        &self,
        connection: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
        context: RequestContext,
        graceful: Option<&GracefulShutdown>,
    ) {
        let Some((rest, grpc)) = self.doors.get().cloned() else { return };
        let doors = Doors { rest, grpc, context: Arc::new(context) };
        let mut builder = auto::Builder::new(TokioExecutor::new());
        builder.http1().timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(30));
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Some(Duration::from_secs(30)))
            .max_concurrent_streams(STREAMS_MAX)
            .initial_stream_window_size(1 << 20)
            .initial_connection_window_size(4 << 20);
        let serving = builder.serve_connection_with_upgrades(TokioIo::new(connection), doors).into_owned();
        let serving: Pin<Box<dyn Future<Output = _> + Send>> = match graceful {
            Some(graceful) => Box::pin(graceful.watch(serving)),
            None => Box::pin(serving),
        };
        tokio::spawn(async move {
            if let Err(error) = serving.await {
                debug!(%error, "connection ended");
            }
        });
    }
}

/// Which door a request goes through: gRPC says what it is in its content type.
#[derive(Clone)]
struct Doors {
    rest: Router,
    grpc: Router,
    context: Arc<RequestContext>,
}

impl hyper::service::Service<Request<hyper::body::Incoming>> for Doors {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<hyper::body::Incoming>) -> Self::Future {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(self.context.clone());
        let is_grpc = request
            .headers()
            .get(header::CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
        let mut door = if is_grpc { self.grpc.clone() } else { self.rest.clone() };
        Box::pin(async move {
            let door: &mut Router = ServiceExt::<Request<Body>>::ready(&mut door).await?;
            door.call(request).await
        })
    }
}

/// Reads what admission needs, as soon as the store answers.
async fn load(api: &Api) {
    while !api.shutdown.is_triggered() {
        match api.cluster.load(&api.objects).await {
            Ok(revision) => return api.hub.restart_at(revision),
            Err(refusal) => debug!(%refusal, "the store does not answer yet"),
        }
        tokio::select! {
            () = api.shutdown.triggered() => {}
            () = tokio::time::sleep(STORE_RETRY) => {}
        }
    }
}

async fn follow(api: Arc<Api>) {
    while api.hub.follow(|event| api.cluster.observe(event), &api.shutdown).await == Ended::Lost {
        load(&api).await;
    }
}
