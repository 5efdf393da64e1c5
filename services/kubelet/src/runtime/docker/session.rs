//! Commands inside containers, and containers' own streams.

use bollard::{
    Docker as Engine,
    container::LogOutput,
    exec::{CreateExecOptions, ResizeExecOptions, StartExecOptions, StartExecResults},
    query_parameters::{AttachContainerOptions, InspectContainerOptions, ResizeContainerTTYOptions},
};
use futures::{Stream, StreamExt};

use super::convert::refused;
use crate::runtime::{Error, ExecResult, Output, Session, SessionId, Streams};

fn output(said: Result<LogOutput, bollard::errors::Error>) -> Result<Output, Error> {
    said.map_err(refused).map(|said| match said {
        LogOutput::StdErr { message } => Output::Stderr(message),
        LogOutput::StdOut { message } | LogOutput::StdIn { message } | LogOutput::Console { message } => {
            Output::Stdout(message)
        }
    })
}

fn outputs(
    said: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send + 'static,
) -> futures::stream::BoxStream<'static, Result<Output, Error>> {
    said.map(output).boxed()
}

pub async fn exec(engine: &Engine, id: &str, command: &[String], streams: &Streams) -> Result<Session, Error> {
    let options = CreateExecOptions {
        attach_stdin: Some(streams.stdin),
        attach_stdout: Some(streams.stdout || streams.tty),
        attach_stderr: Some(streams.stderr && !streams.tty),
        tty: Some(streams.tty),
        cmd: Some(command.to_vec()),
        ..Default::default()
    };
    let exec = engine.create_exec(id, options).await.map_err(refused)?.id;
    let start = StartExecOptions { detach: false, tty: streams.tty, output_capacity: None };
    match engine.start_exec(&exec, Some(start)).await.map_err(refused)? {
        StartExecResults::Attached { output, input } => {
            Ok(Session { output: outputs(output), input: streams.stdin.then_some(input), id: SessionId::Exec(exec) })
        }
        StartExecResults::Detached => Err(Error::Refused("the command runs, but Docker did not attach to it".into())),
    }
}

pub async fn attach(engine: &Engine, id: &str, streams: &Streams) -> Result<Session, Error> {
    let options = AttachContainerOptions {
        stream: true,
        stdin: streams.stdin,
        stdout: streams.stdout || streams.tty,
        stderr: streams.stderr && !streams.tty,
        ..Default::default()
    };
    let attached = engine.attach_container(id, Some(options)).await.map_err(refused)?;
    Ok(Session {
        output: outputs(attached.output),
        input: streams.stdin.then_some(attached.input),
        id: SessionId::Container(id.to_owned()),
    })
}

/// Waits for a command's end and keeps the beginning of what it says.
pub async fn collect(engine: &Engine, session: &mut Session) -> Result<ExecResult, Error> {
    const KEPT_BYTES_MAX: usize = 10 * 1024;
    let mut output = Vec::new();
    while let Some(said) = session.output.next().await {
        let (Output::Stdout(bytes) | Output::Stderr(bytes)) = said?;
        let room = KEPT_BYTES_MAX - output.len();
        output.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }
    Ok(ExecResult { exit_code: exit_code(engine, &session.id).await?, output })
}

/// Ends a command that took too long. Docker would leave it running, and every further probe another one beside it.
pub async fn kill(engine: &Engine, container: &str, session: &SessionId) {
    let SessionId::Exec(exec) = session else { return };
    let found = engine.inspect_exec(exec).await.ok().filter(|found| found.running == Some(true));
    let Some(pid) = found.and_then(|found| found.pid).and_then(|pid| i32::try_from(pid).ok()) else { return };
    // The number is only good where Docker counts processes as we do; the container's cgroup shows whether it does.
    let cgroups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    if pid > 1 && cgroups.contains(container) {
        // It leads a group of its own, with all it has started; and it may have ended by itself just now.
        let _ = nix::sys::signal::killpg(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL);
    }
}

pub async fn resize(engine: &Engine, session: &SessionId, width: u16, height: u16) -> Result<(), Error> {
    let resized = match session {
        SessionId::Exec(id) => engine.resize_exec(id, ResizeExecOptions { width, height }).await,
        SessionId::Container(id) => {
            let options = ResizeContainerTTYOptions { w: i32::from(width), h: i32::from(height) };
            engine.resize_container_tty(id, options).await
        }
    };
    resized.map_err(refused)
}

pub async fn exit_code(engine: &Engine, session: &SessionId) -> Result<i32, Error> {
    let code = match session {
        SessionId::Exec(id) => engine.inspect_exec(id).await.map_err(refused)?.exit_code,
        SessionId::Container(id) => {
            let found = engine.inspect_container(id, None::<InspectContainerOptions>).await.map_err(refused)?;
            found.state.and_then(|state| state.exit_code)
        }
    };
    Ok(code.and_then(|code| i32::try_from(code).ok()).unwrap_or_default())
}
