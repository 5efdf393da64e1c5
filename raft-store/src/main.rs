//! The store as a process of its own, with etcd's flag names.

mod flags;

use std::time::Duration;

use anyhow::{Context, bail};
use clap::Parser;
use flags::{Address, Flags};
use kit::life::{Shutdown, Tasks};
use raft_store::Node;
use tokio::net::TcpListener;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let flags = Flags::parse();
    kit::telemetry::init(flags.verbose);
    let shutdown = Shutdown::on_signals().context("listen for signals")?;
    let options = flags.options()?;
    let mut listeners = Vec::new();
    for url in &flags.listen_client_urls {
        let address = Address::parse(url)?;
        let tls = if address.secure { Some(flags.client_tls()?) } else { None };
        let listener = TcpListener::bind(&address.host)
            .await
            .with_context(|| format!("listen on {url} (--listen-client-urls)"))?;
        listeners.push((listener, tls));
    }
    let node = Node::start(options).await?;
    let tasks = Tasks::new();
    for (listener, tls) in listeners {
        let (node, shutdown) = (node.clone(), shutdown.clone());
        tasks.spawn("serve", async move {
            if let Err(error) = node.serve(listener, tls).await {
                tracing::error!(error = format!("{error:#}"), "the store cannot go on serving");
                shutdown.trigger();
            }
        });
    }
    let failure = tokio::select! {
        () = shutdown.triggered() => None,
        failure = node.stopped() => failure,
    };
    if let Some(failure) = failure {
        // What the disk holds is unknown now: another life of this process has to find out.
        bail!("consensus stopped: {failure}");
    }
    node.shutdown().await?;
    tasks.join(Duration::from_secs(5)).await;
    Ok(())
}
