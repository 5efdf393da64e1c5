//! `stay`: the command line of Forestay, with kubectl's habits, over gRPC.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod args;
mod failure;
mod kubeconfig;
mod last_applied;
mod manifest;
mod output;
mod resource;
mod session;
mod verb;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use args::{Args, Verb};
use output::Streams;
use session::Session;

fn main() -> ExitCode {
    let args = match args::parse(std::env::args_os()) {
        Ok(args) => args,
        Err(told) => {
            told.print().ok();
            // kubectl's code for a command line that is none; help that was asked for is no failure.
            return ExitCode::from(u8::from(told.use_stderr()));
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let (mut out, mut err) = (io::BufWriter::new(io::stdout()), io::stderr());
    let mut streams = Streams { out: &mut out, err: &mut err };
    let outcome = runtime.block_on(run(args, &mut streams));
    // A read of standard input may never end; nothing waits for it.
    runtime.shutdown_background();
    let code = match outcome {
        Ok(code) => code,
        Err(error) if failure::is_closed_pipe(&error) => return ExitCode::SUCCESS,
        Err(error) => {
            out.flush().ok();
            if !failure::is_told(&error) {
                eprintln!("{}", failure::describe(&error));
            }
            1
        }
    };
    match out.flush() {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            eprintln!("error: write standard output: {error}");
            ExitCode::FAILURE
        }
        _ => ExitCode::from(code),
    }
}

/// Runs one verb; gives the process's exit code.
async fn run(args: Args, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    run_verb(args.verb, &Session::new(args.connection), streams).await
}

async fn run_verb(verb: Verb, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
    match verb {
        Verb::Apply(apply) => apply.run(session, streams).await?,
        Verb::Create(create) => create.run(session, streams).await?,
        Verb::Get(get) => return get.run(session, streams).await,
        Verb::Describe(describe) => describe.run(session, streams).await?,
        Verb::Delete(delete) => delete.run(session, streams).await?,
        Verb::Scale(scale) => scale.run(session, streams).await?,
        Verb::Logs(logs) => logs.run(session, streams).await?,
        Verb::Exec(exec) => return exec.run(session, streams).await,
        Verb::Explain(explain) => explain.run(streams)?,
        Verb::ApiResources(resources) => resources.run(session, streams).await?,
        Verb::Version(version) => version.run(session, streams).await?,
        Verb::Completion(completion) => completion.run(streams)?,
    }
    Ok(0)
}
