//! A stage for the verbs' tests: a fake server, a fake node, a folder for files, and the command line as people type it.

use std::{
    fs,
    io::Write,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use client::{Client, fake::FakeApi};
use expect_test::Expect;
use futures::{Stream, StreamExt as _};
use proto::forestay::node::v1::{
    self as node_api, LogsRequest, LogsResponse, StreamRequest, StreamResponse,
    node_server::{Node, NodeServer},
    stream_request::Input,
    stream_response::Output,
};
use tokio::sync::Notify;
use tonic::{Request, Response, Status, Streaming};

use crate::{args, failure, output::Streams, session::Session};

/// A test that waits longer than this for something hangs.
const WAIT_MAX: Duration = Duration::from_secs(20);

pub struct Stage {
    pub client: Client,
    pub fake: FakeApi,
    folder: tempfile::TempDir,
    node: String,
}

impl Stage {
    pub async fn new() -> Self {
        let (client, fake) = FakeApi::start().await;
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = format!("http://{}", listener.local_addr().unwrap());
        let server = tonic::transport::Server::builder().add_service(NodeServer::new(FakeNode));
        tokio::spawn(server.serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)));
        Self { client, fake, folder: tempfile::tempdir().unwrap(), node }
    }

    /// Writes a file; gives its path.
    pub fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Creates the objects of a manifest.
    pub async fn given(&self, text: &str) {
        let told = self.run(&format!("create -f {}", self.file("given.yaml", text))).await;
        assert!(!told.contains("stderr"), "{told}");
    }

    /// Runs a command line without quoting; gives what it printed, with errors and a code other than 0 behind it.
    pub async fn run(&self, line: &str) -> String {
        let (out, mut err) = (Paper::default(), Vec::new());
        let outcome = self.play(line, &mut out.clone(), &mut err).await;
        let mut text = out.text();
        let code = match &outcome {
            Ok(code) => *code,
            Err(error) => {
                if !failure::is_told(error) {
                    err.extend(format!("{}\n", failure::describe(error)).into_bytes());
                }
                1
            }
        };
        for line in String::from_utf8(err).unwrap().lines() {
            text += &format!("stderr: {line}\n");
        }
        if code != 0 {
            text += &format!("exit code {code}\n");
        }
        text.replace(&format!("{}/", self.folder.path().display()), "")
    }

    pub async fn check(&self, line: &str, expected: Expect) {
        expected.assert_eq(&self.run(line).await);
    }

    /// Starts a command that does not end by itself; gives what it writes on.
    pub async fn follow<'a>(&'a self, line: &'a str) -> (Paper, Pin<Box<dyn Future<Output = ()> + 'a>>) {
        let out = Paper::default();
        let mut paper = out.clone();
        let running = async move {
            let mut err = Vec::new();
            let outcome = self.play(line, &mut paper, &mut err).await;
            panic!("{line} ended: {outcome:?} {}", String::from_utf8_lossy(&err));
        };
        (out, Box::pin(running))
    }

    async fn play(&self, line: &str, out: &mut Paper, err: &mut Vec<u8>) -> anyhow::Result<u8> {
        let args = args::parse(std::iter::once("stay").chain(line.split_whitespace()))?;
        let namespace = args.connection.namespace.clone().unwrap_or_else(|| "default".to_owned());
        let session = Session::of_fake(&self.fake).with_node(&self.node).in_namespace(&namespace);
        crate::run_verb(args.verb, &session, &mut Streams { out, err }).await
    }
}

/// What a command writes on; others may wait for words on it.
#[derive(Clone, Default)]
pub struct Paper {
    text: Arc<Mutex<Vec<u8>>>,
    written: Arc<Notify>,
}

impl Paper {
    pub fn text(&self) -> String {
        String::from_utf8(self.text.lock().unwrap().clone()).unwrap()
    }

    pub async fn shows(&self, words: &str) {
        let shown = async {
            while !self.text().contains(words) {
                self.written.notified().await;
            }
        };
        tokio::time::timeout(WAIT_MAX, shown)
            .await
            .unwrap_or_else(|_| panic!("{words:?} never came:\n{}", self.text()));
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.text.lock().unwrap().extend_from_slice(bytes);
        self.written.notify_one();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A node whose containers log what they were asked for, and whose commands print themselves and end with the code
/// that `exit` names.
struct FakeNode;

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Node for FakeNode {
    type LogsStream = Answers<LogsResponse>;
    type ExecStream = Answers<StreamResponse>;
    type AttachStream = Answers<StreamResponse>;
    type PortForwardStream = Answers<node_api::PortForwardResponse>;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let request = request.into_inner();
        let target = request.target.clone().unwrap_or_default();
        let line = format!(
            "{}/{}/{} follow={} tail={:?} since={:?}\n",
            target.namespace, target.pod, target.container, request.follow, request.tail_lines, request.since_seconds
        );
        let chunks = vec![line[..4].to_owned(), line[4..].to_owned()];
        let answers = chunks.into_iter().map(|chunk| Ok(LogsResponse { chunk: chunk.into() }));
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn exec(&self, request: Request<Streaming<StreamRequest>>) -> Result<Response<Self::ExecStream>, Status> {
        let mut requests = request.into_inner();
        let Some(StreamRequest { input: Some(Input::Start(start)) }) = requests.message().await? else {
            return Err(Status::invalid_argument("the first request must start the command"));
        };
        let told = format!("{} in {}\n", start.command.join(" "), start.target.unwrap_or_default().container);
        let code = if start.command[0] == "exit" { start.command[1].parse().unwrap_or(1) } else { 0 };
        let outputs = [Output::Stdout(told.into()), Output::Stderr("done\n".into()), Output::ExitCode(code)];
        let answers = outputs.into_iter().map(|output| Ok(StreamResponse { output: Some(output) }));
        Ok(Response::new(futures::stream::iter(answers).boxed()))
    }

    async fn attach(&self, _: Request<Streaming<StreamRequest>>) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("no test attaches"))
    }

    async fn port_forward(
        &self,
        _: Request<Streaming<node_api::PortForwardRequest>>,
    ) -> Result<Response<Self::PortForwardStream>, Status> {
        Err(Status::unimplemented("no test forwards ports"))
    }

    async fn stats(&self, _: Request<node_api::StatsRequest>) -> Result<Response<node_api::StatsResponse>, Status> {
        Err(Status::unimplemented("no test measures"))
    }

    async fn import_image(
        &self,
        _: Request<Streaming<node_api::ImportImageRequest>>,
    ) -> Result<Response<node_api::ImportImageResponse>, Status> {
        Err(Status::unimplemented("no test imports images"))
    }
}
