//! Measures puts of one member in this process: `cargo run --release -p raft-store --example puts -- <folder> [seconds]`.
//!
//! Prints writes per second and latencies at 1, 64 and 256 clients, through the member itself and without gRPC.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context;
use proto::etcdserverpb::PutRequest;
use raft_store::{Node, Options};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut args = std::env::args().skip(1);
    let folder: PathBuf = args.next().context("give a folder that may be written to")?.into();
    let seconds: u64 = args.next().map_or(Ok(3), |text| text.parse()).context("read the number of seconds")?;
    let node = Node::start(Options { data_dir: folder, ..Options::default() }).await?;
    for clients in [1, 64, 256] {
        let start = Instant::now();
        let end = start + Duration::from_secs(seconds);
        let cpu = cpu_seconds();
        let writers = (0..clients).map(|client| {
            let node = node.clone();
            tokio::spawn(async move {
                let mut latencies = Vec::new();
                let mut number = 0u64;
                while Instant::now() < end {
                    let begin = Instant::now();
                    let key = format!("/bench/{client:04}/{:05}", number % 1_000);
                    let put = PutRequest { key: key.into(), value: vec![b'v'; 256].into(), ..PutRequest::default() };
                    node.put(put).await?;
                    latencies.push(begin.elapsed());
                    number += 1;
                }
                Ok::<_, tonic::Status>(latencies)
            })
        });
        let mut latencies = Vec::new();
        for writer in futures::future::join_all(writers).await {
            latencies.extend(writer??);
        }
        latencies.sort();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        let per_second = latencies.len() as f64 / start.elapsed().as_secs_f64();
        let cpu = (cpu_seconds() - cpu) / latencies.len() as f64 * 10_000.0;
        println!(
            "clients={clients} puts/s={per_second:.0} p50={:?} p99={:?} cpu-s/10k={cpu:.2} rss={} KiB",
            at(50),
            at(99),
            rss_kib()
        );
    }
    node.shutdown().await
}

/// User and system time of this process, from the kernel's table (fields 14 and 15, in hundredths).
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    (ticks(11) + ticks(12)) / 100.0
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or_default()
}
