//! Streams in both directions: exec, attach and port-forward.

use std::{fs::File, os::fd::AsFd, sync::Arc};

use bytes::Bytes;
use futures::StreamExt;
use nix::sched::{CloneFlags, setns};
use proto::forestay::node::v1::{
    PortForwardRequest, PortForwardResponse, StreamRequest, StreamResponse, StreamStart, TerminalSize,
    stream_request::Input, stream_response::Output as Said,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Answers, refuse};
use crate::runtime::{Output, Runtime, Session, SessionId, Streams};

/// Messages on their way to a slow client; then the container waits.
const WAITING_MAX: usize = 16;

/// Takes the first request, which says what is wanted.
pub async fn start(mut input: Streaming<StreamRequest>) -> Result<(StreamStart, Streaming<StreamRequest>), Status> {
    match input.message().await?.and_then(|request| request.input) {
        Some(Input::Start(start)) => Ok((start, input)),
        _ => Err(Status::invalid_argument("the first request carries `start`")),
    }
}

pub fn streams(start: &StreamStart) -> Streams {
    let is_silent = !start.stdin && !start.stdout && !start.stderr;
    Streams { stdin: start.stdin, stdout: start.stdout || is_silent, stderr: start.stderr || is_silent, tty: start.tty }
}

/// Carries input in and output out until the command ends; its exit code is the last message.
pub fn run(runtime: Arc<dyn Runtime>, session: Session, input: Streaming<StreamRequest>) -> Answers<StreamResponse> {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let Session { mut output, input: stdin, id } = session;
    let feeder = tokio::spawn(feed(runtime.clone(), id.clone(), stdin, input));
    tokio::spawn(async move {
        let answer = |said| Ok(StreamResponse { output: Some(said) });
        while let Some(said) = output.next().await {
            let message = match said {
                Ok(Output::Stdout(bytes)) => answer(Said::Stdout(bytes)),
                Ok(Output::Stderr(bytes)) => answer(Said::Stderr(bytes)),
                Err(error) => Err(refuse(&error)),
            };
            if sender.send(message).await.is_err() {
                break;
            }
        }
        feeder.abort();
        let code = runtime.exit_code(&id).await;
        // The client may be gone; then nobody asks for the code.
        let _ = sender.send(code.map_err(|error| refuse(&error)).and_then(|code| answer(Said::ExitCode(code)))).await;
    });
    Box::pin(ReceiverStream::new(receiver))
}

async fn feed(
    runtime: Arc<dyn Runtime>,
    id: SessionId,
    mut stdin: Option<std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>>,
    mut input: Streaming<StreamRequest>,
) {
    while let Ok(Some(request)) = input.message().await {
        match request.input {
            Some(Input::Stdin(bytes)) => {
                if let Some(writer) = &mut stdin
                    && (writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err())
                {
                    stdin = None;
                }
            }
            Some(Input::CloseStdin(_)) => close(stdin.take()).await,
            Some(Input::Resize(TerminalSize { width, height })) => {
                let side = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
                // A command that has just ended has no terminal to resize.
                if let Err(error) = runtime.resize(&id, side(width), side(height)).await {
                    tracing::debug!(%error, "the terminal keeps its size");
                }
            }
            Some(Input::Start(_)) | None => {}
        }
    }
    close(stdin).await;
}

async fn close(stdin: Option<std::pin::Pin<Box<dyn tokio::io::AsyncWrite + Send>>>) {
    if let Some(mut stdin) = stdin
        && let Err(error) = stdin.shutdown().await
    {
        tracing::debug!(%error, "the command's input was closed before");
    }
}

/// Connects to a port on the pod's own localhost.
pub async fn connect_in(pid: u32, port: u32) -> Result<TcpStream, Status> {
    let port = u16::try_from(port).map_err(|_| Status::invalid_argument(format!("port {port} is not a port")))?;
    let broken = |error: std::io::Error| Status::unavailable(format!("connect to port {port} in the pod: {error}"));
    let connect = move || {
        if pid != 0 {
            let namespace = File::open(format!("/proc/{pid}/ns/net"))?;
            setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from)?;
        }
        std::net::TcpStream::connect(("127.0.0.1", port))
    };
    // A thread of its own: one that has changed its namespace must not serve anything else.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("port forward".to_owned())
        .spawn(move || {
            let _ = sender.send(connect());
        })
        .map_err(broken)?;
    let connected = receiver.await.map_err(|_| Status::internal("the connecting thread broke"))?.map_err(broken)?;
    connected.set_nonblocking(true).map_err(broken)?;
    TcpStream::from_std(connected).map_err(broken)
}

/// Carries bytes in both directions until either side ends.
pub fn forward(
    connection: TcpStream,
    first: PortForwardRequest,
    mut input: Streaming<PortForwardRequest>,
) -> Answers<PortForwardResponse> {
    const CHUNK_BYTES: usize = 32 * 1024;
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    let (mut from, mut to) = connection.into_split();
    tokio::spawn(async move {
        let mut request = Some(first);
        while let Some(PortForwardRequest { payload, close, .. }) = request {
            if to.write_all(&payload).await.is_err() || close {
                break;
            }
            request = input.message().await.ok().flatten();
        }
        if let Err(error) = to.shutdown().await {
            tracing::debug!(%error, "the pod's end was closed before");
        }
    });
    tokio::spawn(async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            let payload = Bytes::copy_from_slice(&buffer[..read]);
            if sender.send(Ok(PortForwardResponse { payload })).await.is_err() {
                break;
            }
        }
    });
    Box::pin(ReceiverStream::new(receiver))
}
