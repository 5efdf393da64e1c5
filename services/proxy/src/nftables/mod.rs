//! nftables: one table of our own, one `nft -f -` transaction per change.

mod affinity;
mod script;

use std::{process::Stdio, time::Duration};

use anyhow::{Context as _, bail};
use async_trait::async_trait;
use tokio::{io::AsyncWriteExt, process::Command};
use tracing::debug;

pub use script::{Ranges, TABLE};

use self::{affinity::Memory, script::Programmed};
use crate::{backend::Backend, diff::Changes, rules::RuleSet};

/// The largest transaction measured took three seconds; one that takes this long hangs.
const NFT_TIMEOUT: Duration = Duration::from_secs(60);

pub struct Nftables {
    ranges: Ranges,
    programmed: Programmed,
}

impl Nftables {
    /// Checks that the kernel and nft take our table, without changing anything.
    ///
    /// # Errors
    /// Where they do not.
    pub async fn probe(ranges: Ranges) -> anyhow::Result<Self> {
        let (script, _) = script::rebuild(&ranges, &RuleSet::new());
        nft(&["--check", "--file", "-"], &script)
            .await
            .context("try nftables (Debian: apt-get install nftables; it needs root or CAP_NET_ADMIN)")?;
        Ok(Self { ranges, programmed: Programmed::default() })
    }
}

#[async_trait]
impl Backend for Nftables {
    fn name(&self) -> &'static str {
        "nftables"
    }

    async fn rebuild(&mut self, rules: &RuleSet) -> anyhow::Result<()> {
        let (script, programmed) = script::rebuild(&self.ranges, rules);
        nft(&["--file", "-"], &script).await.context("build the service table")?;
        self.programmed = programmed;
        Ok(())
    }

    async fn apply(&mut self, changes: &Changes) -> anyhow::Result<()> {
        let may_be_stale = Memory::is_needed_for(changes);
        let memory = if may_be_stale { remembered().await? } else { Memory::default() };
        let script = script::change(&self.ranges, &mut self.programmed, changes, &memory);
        if !script.is_empty() {
            nft(&["--file", "-"], &script).await.context("change the service table")?;
        }
        if may_be_stale {
            // A client that came between the listing and the change may have been given the backend that went, and
            // every further try would keep that alive. From now on nobody is given it.
            let script = script::forget(changes, &remembered().await?);
            if !script.is_empty() {
                nft(&["--file", "-"], &script).await.context("forget clients of backends that are gone")?;
            }
        }
        Ok(())
    }

    async fn remove(&mut self) -> anyhow::Result<()> {
        remove().await?;
        self.programmed = Programmed::default();
        Ok(())
    }
}

async fn remembered() -> anyhow::Result<Memory> {
    let listing = nft(&["--json", "list", "map", "ip", TABLE, "affinity"], "").await;
    Memory::parse(&listing.context("list remembered clients")?)
}

/// Takes our table out; does nothing where there is none, or no nft.
pub async fn remove() -> anyhow::Result<()> {
    match nft(&["--file", "-"], &script::remove()).await {
        Err(error) if is_missing(&error) => Ok(()),
        other => other.map(drop).context("remove the service table"),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

/// Runs nft on a script; its output.
async fn nft(arguments: &[&str], script: &str) -> anyhow::Result<Vec<u8>> {
    debug!(bytes = script.len(), ?arguments, "nft");
    let mut child = Command::new("nft")
        .args(arguments)
        // Ports and protocols by their usual spelling, whatever the user's language.
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("run nft")?;
    let mut input = child.stdin.take().context("open nft's input")?;
    let whole = async {
        let feed = async {
            // nft that ends early says why on its error output.
            let _ = input.write_all(script.as_bytes()).await;
            drop(input);
        };
        tokio::join!(feed, child.wait_with_output()).1
    };
    let output = tokio::time::timeout(NFT_TIMEOUT, whole)
        .await
        .with_context(|| format!("nft did not end within {NFT_TIMEOUT:?}"))?
        .context("wait for nft")?;
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!("nft: {}", complaint.lines().take(4).collect::<Vec<_>>().join(" | "));
    }
    Ok(output.stdout)
}
