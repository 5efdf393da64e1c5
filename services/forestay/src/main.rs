//! `forestay`: the server.

use anyhow::Result;
use clap::{Parser, Subcommand};
use forestay::{
    reset::reset,
    role::{House, Role},
    settings::Settings,
    up,
};
use kit::{life::Shutdown, telemetry};

/// Forestay: a Kubernetes in Rust. Each role runs as its own process, or all in one with `up`.
#[derive(Parser)]
#[command(name = "forestay", version, arg_required_else_help = true)]
struct Arguments {
    /// Say more: once for debugging, twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a one-node cluster: every role in this process
    Up(Box<Settings>),
    /// Make this machine's certificates, for roles that run one by one
    Init(Box<Settings>),
    /// Run the store
    RaftStore(Box<Settings>),
    /// Run the API
    Apiserver(Box<Settings>),
    /// Run the controllers
    Controllers(Box<Settings>),
    /// Run the scheduler
    Scheduler(Box<Settings>),
    /// Run this machine's pods
    Kubelet(Box<Settings>),
    /// Keep this machine's service rules
    Proxy(Box<Settings>),
    /// Remove what a stopped node left: containers, network, service rules, and all data
    Reset(Box<Settings>),
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    telemetry::init(arguments.verbose);
    let shutdown = Shutdown::on_signals()?;
    let (role, settings) = match arguments.command {
        Command::Up(settings) => return up::up(*settings, shutdown).await,
        Command::Init(settings) => return up::init(&settings),
        Command::Reset(settings) => return reset(&settings).await,
        Command::RaftStore(settings) => (Role::RaftStore, settings),
        Command::Apiserver(settings) => (Role::Apiserver, settings),
        Command::Controllers(settings) => (Role::Controllers, settings),
        Command::Scheduler(settings) => (Role::Scheduler, settings),
        Command::Kubelet(settings) => (Role::Kubelet, settings),
        Command::Proxy(settings) => (Role::Proxy, settings),
    };
    settings.check(role.port(&settings).as_slice())?;
    House::new(*settings).run(&role, shutdown).await
}
