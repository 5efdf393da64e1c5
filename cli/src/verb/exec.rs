//! `stay exec`: a command in a running container, with this terminal as its own where asked.

use anyhow::{Context as _, bail};
use client::Error;
use proto::forestay::node::v1::{
    StreamRequest, StreamStart, TerminalSize, stream_request::Input, stream_response::Output,
};
use rustix::termios::{self, OptionalActions, Termios};
use tokio::{
    io::AsyncReadExt as _,
    signal::unix::{SignalKind, signal},
    sync::mpsc,
};

use super::logs::{address, container_of, pod_of};
use crate::{output::Streams, session::Session};

/// Run a command in a container: `stay exec -it web -- sh`
#[derive(Debug, clap::Args)]
pub struct Exec {
    /// POD, or TYPE/NAME of what has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    pub target: String,
    /// In this container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Pass standard input on
    #[arg(short = 'i', long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub stdin: bool,
    /// Standard input is a terminal
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub tty: bool,
    /// Only the command's own output
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub quiet: bool,
    /// The command and its arguments, after --
    #[arg(last = true, required = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Requests that wait for the network: input is read no faster than it is taken.
const QUEUED_MAX: usize = 16;

impl Exec {
    /// Gives the command's exit code.
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
        let pod = pod_of(session, &self.target).await?;
        let meta = pod.metadata.clone().unwrap_or_default();
        if model::pod::is_terminal(&pod) {
            bail!("cannot exec into a container in a completed pod; current phase is {}", model::pod::phase(&pod));
        }
        let container = container_of(&pod, self.container.as_ref(), streams)?;
        let has_terminal = self.tty && self.stdin && termios::isatty(rustix::stdio::stdin());
        if self.tty && !has_terminal && !self.quiet {
            writeln!(streams.err, "Unable to use a TTY - input is not a terminal or the right kind of file")?;
        }
        let start = StreamStart {
            target: Some(address(session, &meta.name, &meta.uid, &container)),
            command: self.command.clone(),
            stdin: self.stdin,
            stdout: true,
            stderr: !has_terminal,
            tty: has_terminal,
        };
        let (requests, queue) = mpsc::channel(QUEUED_MAX);
        requests.send(StreamRequest { input: Some(Input::Start(start)) }).await.context("start the command")?;
        let queue = tokio_stream::wrappers::ReceiverStream::new(queue);
        let mut answers = session.node_client()?.exec(queue).await.map_err(Error::from)?.into_inner();

        let terminal = if has_terminal { Some(RawTerminal::enter()?) } else { None };
        if has_terminal {
            tokio::spawn(send_sizes(requests.clone()));
        }
        if self.stdin {
            tokio::spawn(send_input(requests.clone()));
        }
        let mut code = None;
        while code.is_none() {
            match answers.message().await.map_err(Error::from)? {
                Some(answer) => match answer.output {
                    Some(Output::Stdout(bytes)) => {
                        streams.out.write_all(&bytes)?;
                        streams.out.flush()?;
                    }
                    Some(Output::Stderr(bytes)) => streams.err.write_all(&bytes)?,
                    Some(Output::ExitCode(ended)) => code = Some(ended),
                    None => {}
                },
                None => break,
            }
        }
        drop((terminal, requests));
        match code {
            Some(0) => Ok(0),
            Some(code) => {
                if !self.quiet {
                    writeln!(streams.err, "command terminated with exit code {code}")?;
                }
                // Codes of processes fit a byte; what does not is a failure all the same.
                Ok(u8::try_from(code).unwrap_or(1))
            }
            None => bail!("the connection to the container ended before the command did"),
        }
    }
}

async fn send_input(requests: mpsc::Sender<StreamRequest>) {
    let (mut input, mut buffer) = (tokio::io::stdin(), vec![0; 16 << 10]);
    loop {
        let sent = match input.read(&mut buffer).await {
            Ok(0) | Err(_) => {
                // Nobody listens any more where this fails.
                requests.send(StreamRequest { input: Some(Input::CloseStdin(true)) }).await.ok();
                return;
            }
            Ok(read) => {
                requests.send(StreamRequest { input: Some(Input::Stdin(buffer[..read].to_vec().into())) }).await
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The terminal's size now, and whenever it changes.
async fn send_sizes(requests: mpsc::Sender<StreamRequest>) {
    let Ok(mut changes) = signal(SignalKind::window_change()) else { return };
    loop {
        if let Ok(size) = termios::tcgetwinsize(rustix::stdio::stdout()) {
            let size = TerminalSize { width: size.ws_col.into(), height: size.ws_row.into() };
            if requests.send(StreamRequest { input: Some(Input::Resize(size)) }).await.is_err() {
                return;
            }
        }
        if changes.recv().await.is_none() {
            return;
        }
    }
}

/// The terminal passes every key on as it is; as it was before once this is dropped.
struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    fn enter() -> anyhow::Result<Self> {
        let before = termios::tcgetattr(rustix::stdio::stdin()).context("read the terminal's settings")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &raw).context("set the terminal to raw")?;
        Ok(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        termios::tcsetattr(rustix::stdio::stdin(), OptionalActions::Now, &self.before).ok();
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn a_command_runs_and_its_exit_code_is_passed_on() {
        let stage = Stage::new().await;
        stage
            .given("apiVersion: v1\nkind: Pod\nmetadata: {name: web}\nspec: {containers: [{name: a, image: i}, {name: b, image: i}]}\n")
            .await;
        stage
            .check(
                "exec web -c b -- echo hello",
                expect![[r#"
            echo hello in b
            stderr: done
        "#]],
            )
            .await;
        stage
            .check(
                "exec pod/web -- exit 7",
                expect![[r#"
            exit 7 in a
            stderr: Defaulted container "a" out of: a, b
            stderr: done
            stderr: command terminated with exit code 7
            exit code 7
        "#]],
            )
            .await;
        stage
            .check(
                "exec nope -- sh",
                expect![[r#"
            stderr: Error from server (NotFound): pods "nope" not found
            exit code 1
        "#]],
            )
            .await;
    }
}
