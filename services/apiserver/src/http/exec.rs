//! Commands in containers over a WebSocket: `pods/x/exec` and `pods/x/attach`.
//!
//! The protocol is `v5.channel.k8s.io` (or v4): binary messages whose first byte is a channel. The streams themselves are
//! those of the node's gRPC service.

use axum::{
    extract::{
        FromRequestParts,
        ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code},
    },
    response::Response,
};
use bytes::Bytes;
use futures::{SinkExt, Stream, StreamExt, stream::SplitStream};
use http::{header, request::Parts};
use proto::{
    forestay::node::v1::{
        StreamRequest, StreamResponse, StreamStart, TerminalSize, stream_request::Input, stream_response::Output,
    },
    k8s::meta::v1::{Status, StatusCause, StatusDetails},
};
use serde_json::Value;
use tokio::sync::mpsc;

use super::{answer, path::ObjectPath, query::Query, text};
use crate::{
    api::{Api, RequestContext},
    grpc::nodes::{OnNode, refused},
    refusal::{Refusal, Result},
};

/// The protocols spoken, best first.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Input on its way to the node; a fast typist or a copied file waits here.
const INPUT_QUEUE: usize = 32;

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;
/// v5: the next byte names a channel that carries no more.
const CLOSE: u8 = 255;

pub async fn serve(
    api: &Api,
    context: &RequestContext,
    path: &ObjectPath,
    mut parts: Parts,
    query: &Query,
) -> Result<Response> {
    let start = start(query)?;
    let is_exec = path.subresource == "exec";
    if is_exec && start.command.is_empty() {
        return Err(Refusal::bad_request("you must specify at least one command for the container"));
    }
    // Refused before the protocol is looked at: kubectl tries the older one next, and shows what that is told.
    let OnNode { mut client, target, node } = api.node_of(context, path.target(), &query.text("container")).await?;
    check_protocol(&parts)?;
    let upgrade = WebSocketUpgrade::from_request_parts(&mut parts, &())
        .await
        .map_err(|rejection| Refusal::bad_request(format!("upgrade to a WebSocket: {rejection}")))?;
    let (sender, input) = mpsc::channel(INPUT_QUEUE);
    let start = StreamRequest { input: Some(Input::Start(StreamStart { target: Some(target), ..start })) };
    let requests = futures::stream::once(async { start }).chain(tokio_stream::wrappers::ReceiverStream::new(input));
    let answer = if is_exec { client.exec(requests).await } else { client.attach(requests).await };
    // For the same reason a node's refusal travels on the error channel of a WebSocket that is open.
    let output = match answer {
        Ok(answer) => answer.into_inner().map(move |part| part.map_err(|status| refused(&node, status))).boxed(),
        Err(status) => futures::stream::iter([Err(refused(&node, status))]).boxed(),
    };
    Ok(upgrade.protocols(PROTOCOLS).on_upgrade(move |socket| run(socket, sender, output)))
}

/// What is to run, and which streams are carried.
fn start(query: &Query) -> Result<StreamStart> {
    let flag = |name: &str| query.flag(name).map(Option::unwrap_or_default);
    let tty = flag("tty")?;
    Ok(StreamStart {
        target: None,
        command: query.all("command").map(str::to_owned).collect(),
        stdin: flag("stdin")?,
        stdout: flag("stdout")?,
        // A terminal has one stream for both.
        stderr: flag("stderr")? && !tty,
        tty,
    })
}

/// Refuses what cannot become one of our WebSockets, and says what can.
fn check_protocol(parts: &Parts) -> Result<()> {
    let upgrade = text(&parts.headers, header::UPGRADE).unwrap_or_default();
    if upgrade.to_ascii_uppercase().starts_with("SPDY") {
        return Err(Refusal::bad_request(
            "streams over SPDY/3.1 are not served: use a client that speaks the WebSocket protocol v5.channel.k8s.io \
             (kubectl 1.30 or newer; 1.29 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)",
        ));
    }
    if !upgrade.eq_ignore_ascii_case("websocket") {
        return Err(Refusal::bad_request(
            "Upgrade request required: commands in containers need a WebSocket (Upgrade: websocket, \
             Sec-WebSocket-Protocol: v5.channel.k8s.io)",
        ));
    }
    let asked = parts.headers.get_all(header::SEC_WEBSOCKET_PROTOCOL);
    let mut asked =
        asked.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',').map(str::trim));
    if !asked.any(|protocol| PROTOCOLS.contains(&protocol)) {
        let message = format!("none of the WebSocket protocols asked for is spoken here: {}", PROTOCOLS.join(", "));
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

/// Carries bytes both ways until the command ends or the client leaves.
async fn run(
    socket: WebSocket,
    input: mpsc::Sender<StreamRequest>,
    mut output: impl Stream<Item = Result<StreamResponse>> + Unpin,
) {
    let (mut to_client, from_client) = socket.split();
    let reader = read_input(from_client, input);
    tokio::pin!(reader);
    loop {
        tokio::select! {
            // Without a client nobody waits for the output: dropping it ends the command's streams.
            () = &mut reader => return,
            next = output.next() => {
                let (messages, is_over) = outgoing(next);
                for message in messages {
                    if to_client.send(message).await.is_err() {
                        return;
                    }
                }
                if is_over {
                    let frame = CloseFrame { code: close_code::NORMAL, reason: "".into() };
                    // The client may be gone already.
                    let _ = to_client.send(Message::Close(Some(frame))).await;
                    return;
                }
            }
        }
    }
}

/// Hands input to the node; returns once the client has gone.
async fn read_input(mut from_client: SplitStream<WebSocket>, input: mpsc::Sender<StreamRequest>) {
    while let Some(Ok(message)) = from_client.next().await {
        let bytes = match message {
            Message::Binary(bytes) => bytes,
            Message::Text(text) => Bytes::copy_from_slice(text.as_bytes()),
            Message::Close(_) => return,
            Message::Ping(_) | Message::Pong(_) => continue,
        };
        // A command that has ended takes no input; its output still comes.
        if let Some(request) = incoming(&bytes) {
            let _ = input.send(StreamRequest { input: Some(request) }).await;
        }
    }
}

/// One message of the client.
fn incoming(bytes: &Bytes) -> Option<Input> {
    match *bytes.first()? {
        STDIN => Some(Input::Stdin(bytes.slice(1..))),
        RESIZE => {
            let size: Value = serde_json::from_slice(&bytes[1..]).ok()?;
            let side = |name: &str| size.get(name)?.as_u64().and_then(|side| u32::try_from(side).ok());
            Some(Input::Resize(TerminalSize { width: side("Width")?, height: side("Height")? }))
        }
        CLOSE if bytes.get(1) == Some(&STDIN) => Some(Input::CloseStdin(true)),
        _ => None,
    }
}

/// What the node's next answer, or its end, is for the client; true at the end.
fn outgoing(next: Option<Result<StreamResponse>>) -> (Vec<Message>, bool) {
    match next {
        Some(Ok(StreamResponse { output: Some(Output::Stdout(bytes)) })) => (vec![channel(STDOUT, &bytes)], false),
        Some(Ok(StreamResponse { output: Some(Output::Stderr(bytes)) })) => (vec![channel(STDERR, &bytes)], false),
        Some(Ok(StreamResponse { output: Some(Output::ExitCode(code)) })) => (vec![ended(&exit_status(code))], true),
        Some(Ok(StreamResponse { output: None })) => (Vec::new(), false),
        Some(Err(refusal)) => (vec![ended(refusal.status())], true),
        None => {
            let refusal = Refusal::internal("the node broke off before the command ended");
            (vec![ended(refusal.status())], true)
        }
    }
}

fn channel(number: u8, bytes: &[u8]) -> Message {
    let mut message = Vec::with_capacity(bytes.len() + 1);
    message.push(number);
    message.extend_from_slice(bytes);
    Message::Binary(message.into())
}

fn ended(status: &Status) -> Message {
    channel(ERROR, &answer::status_json(status))
}

/// How a command's exit code is told.
fn exit_status(code: i32) -> Status {
    if code == 0 {
        return Status { status: "Success".to_owned(), ..Status::default() };
    }
    let cause = StatusCause { reason: "ExitCode".to_owned(), message: code.to_string(), ..StatusCause::default() };
    Status {
        status: "Failure".to_owned(),
        reason: "NonZeroExitCode".to_owned(),
        message: format!("command terminated with non-zero exit code: exit status {code}"),
        details: Some(StatusDetails { causes: vec![cause], ..StatusDetails::default() }),
        ..Status::default()
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn parts(uri: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::get(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_query_says_what_to_run_and_which_streams_to_carry() {
        let uri = "/api/v1/namespaces/a/pods/web/exec?command=sh&command=-c&command=echo%20hi&container=c&stdin=true&stdout=true\
                   &stderr=true&tty=true";
        let start = start(&Query::of(&uri.parse().unwrap()).unwrap()).unwrap();
        assert_eq!(start.command, ["sh", "-c", "echo hi"]);
        assert!(start.stdin && start.stdout && start.tty && !start.stderr);
    }

    #[test]
    fn other_protocols_are_told_which_one_is_spoken() {
        let check = |headers: &[(&str, &str)]| match check_protocol(&parts("/", headers)) {
            Ok(()) => "spoken".to_owned(),
            Err(refusal) => refusal.message().to_owned(),
        };
        let texts = [
            check(&[("upgrade", "SPDY/3.1")]),
            check(&[]),
            check(&[("upgrade", "websocket"), ("sec-websocket-protocol", "base64.channel.k8s.io")]),
            check(&[("upgrade", "websocket"), ("sec-websocket-protocol", "v5.channel.k8s.io, v4.channel.k8s.io")]),
        ];
        expect![[r#"
            streams over SPDY/3.1 are not served: use a client that speaks the WebSocket protocol v5.channel.k8s.io (kubectl 1.30 or newer; 1.29 with KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true)
            Upgrade request required: commands in containers need a WebSocket (Upgrade: websocket, Sec-WebSocket-Protocol: v5.channel.k8s.io)
            none of the WebSocket protocols asked for is spoken here: v5.channel.k8s.io, v4.channel.k8s.io
            spoken"#]]
        .assert_eq(&texts.join("\n"));
    }

    #[test]
    fn channels_are_told_apart_by_their_first_byte() {
        let read = |bytes: &'static [u8]| incoming(&Bytes::from_static(bytes));
        assert_eq!(read(b"\x00ls\n"), Some(Input::Stdin(Bytes::from_static(b"ls\n"))));
        assert_eq!(read(b"\xff\x00"), Some(Input::CloseStdin(true)));
        let size = TerminalSize { width: 80, height: 24 };
        assert_eq!(read(b"\x04{\"Width\":80,\"Height\":24}"), Some(Input::Resize(size)));
        for ignored in [&b""[..], b"\xff", b"\xff\x01", b"\x04nonsense", b"\x09x"] {
            assert_eq!(read(ignored), None);
        }
    }

    #[test]
    fn an_exit_code_arrives_as_a_status() {
        let text = |next| match outgoing(next) {
            (messages, true) => match messages.as_slice() {
                [Message::Binary(bytes)] => String::from_utf8_lossy(&bytes[1..]).into_owned(),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let code = |code| Some(Ok(StreamResponse { output: Some(Output::ExitCode(code)) }));
        expect![[r#"
            {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}
            {"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#]]
        .assert_eq(&[text(code(0)), text(code(3))].join("\n"));
        assert!(text(None).contains("broke off"));
    }
}
