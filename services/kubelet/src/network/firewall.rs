//! The firewall's consent to pod traffic, and the masquerade of what leaves the cluster.
//!
//! Docker sets the FORWARD policy to DROP, and an accept in a table of ours cannot override that: the accepts must stand
//! in Docker's own `DOCKER-USER` chain (or in FORWARD, where there is none). The masquerade is a table of ours.

use std::process::Stdio;

use ipnet::Ipv4Net;
use tokio::{io::AsyncWriteExt, process::Command};
use tracing::{debug, warn};

use super::Error;

const TABLE: &str = "forestay_pods";
const COMMENT: &str = "forestay pods";

/// Lets packets from and to pods pass, and gives those that leave the cluster the node's address.
///
/// # Errors
/// Where nft refuses the table.
pub async fn install(cluster: Ipv4Net) -> Result<(), Error> {
    accept(cluster).await;
    let script = format!(
        "add table ip {TABLE}\n\
         delete table ip {TABLE}\n\
         table ip {TABLE} {{\n\
         chain postrouting {{\n\
         type nat hook postrouting priority 100;\n\
         ip saddr {cluster} ip daddr != {cluster} ip daddr != 224.0.0.0/4 masquerade\n\
         }}\n\
         }}\n"
    );
    nft(&script).await
}

/// Removes all of it.
///
/// # Errors
/// Where nft refuses.
pub async fn remove(cluster: Ipv4Net) -> Result<(), Error> {
    for chain in ["DOCKER-USER", "FORWARD"] {
        for rule in rules(cluster) {
            // Each rule may stand there more than once, after a crash between check and insert.
            while iptables("-C", chain, &rule).await && iptables("-D", chain, &rule).await {}
        }
    }
    nft(&format!("add table ip {TABLE}\ndelete table ip {TABLE}\n")).await
}

fn rules(cluster: Ipv4Net) -> [Vec<String>; 2] {
    ["-s", "-d"].map(|side| {
        let words = [side, &cluster.to_string(), "-m", "comment", "--comment", COMMENT, "-j", "ACCEPT"];
        words.map(str::to_owned).to_vec()
    })
}

/// Puts the accepts where the machine's firewall will see them. A machine without iptables has no Docker rules either.
async fn accept(cluster: Ipv4Net) {
    let has_chain = run("iptables", &["-w", "-n", "-L", "DOCKER-USER"]).await;
    let chain = if has_chain { "DOCKER-USER" } else { "FORWARD" };
    if !has_chain && forwards_everything().await {
        // The first rule would make a table that stays behind when the rule goes.
        return;
    }
    for rule in rules(cluster) {
        if iptables("-C", chain, &rule).await {
            continue;
        }
        if !iptables("-I", chain, &rule).await {
            debug!(chain, "iptables did not take the rule for pods; without iptables none is needed");
        }
    }
}

/// Whether the machine's firewall lets everything pass: no rule, and a policy that accepts.
async fn forwards_everything() -> bool {
    let listed = Command::new("iptables").args(["-w", "-S", "FORWARD"]).stdin(Stdio::null()).output().await;
    listed.is_ok_and(|listed| is_open(&String::from_utf8_lossy(&listed.stdout)))
}

fn is_open(rules: &str) -> bool {
    rules.trim() == "-P FORWARD ACCEPT"
}

async fn iptables(verb: &str, chain: &str, rule: &[String]) -> bool {
    let words: Vec<&str> = ["-w", verb, chain].into_iter().chain(rule.iter().map(String::as_str)).collect();
    run("iptables", &words).await
}

async fn run(program: &str, words: &[&str]) -> bool {
    let status = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await;
    status.is_ok_and(|status| status.success())
}

/// Applies one transaction.
async fn nft(script: &str) -> Result<(), Error> {
    let failed = |source| Error::System { what: "run nft (Debian: apt install nftables)".to_owned(), source };
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take()
        && let Err(error) = input.write_all(script.as_bytes()).await
    {
        // nft says below why it did not read on.
        warn!(%error, "nft did not take the whole script");
    }
    let output = child.wait_with_output().await.map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Refused(format!("nft refused the pods' table: {}", String::from_utf8_lossy(&output.stderr).trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_chain_that_accepts_needs_no_rule_for_pods() {
        assert!(is_open("-P FORWARD ACCEPT\n"));
        assert!(!is_open("-P FORWARD DROP\n"));
        assert!(!is_open("-P FORWARD ACCEPT\n-A FORWARD -j DOCKER-USER\n"));
        assert!(!is_open(""));
    }
}
