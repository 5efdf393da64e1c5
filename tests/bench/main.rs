//! Figures of the control plane, printed: `cargo run --release -p tests --bin bench -- [start|idle|creates|crowd]...`
//!
//! Every figure is the median of five runs (`--runs N`) on a fresh cluster of one `forestay up` process from
//! `bin/`. Nothing here fails because it is slow.
#![allow(clippy::unwrap_used)]

mod creates;
mod server;

use std::time::Duration;

use server::Server;

#[tokio::main]
async fn main() {
    let mut runs = 5;
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => runs = arguments.next().and_then(|n| n.parse().ok()).expect("--runs takes a number"),
            _ => wanted.push(argument),
        }
    }
    if wanted.is_empty() {
        wanted = ["start", "idle", "creates", "crowd"].map(str::to_owned).to_vec();
    }
    for name in &wanted {
        match name.as_str() {
            "start" => start(runs).await,
            "idle" => idle(runs).await,
            "creates" => creates::run(runs).await,
            "crowd" => crowd(runs.min(3)).await,
            other => panic!("{other:?} is no benchmark: use start, idle, creates or crowd"),
        }
    }
}

/// Process start on a fresh folder to the first answer of the API.
async fn start(runs: usize) {
    let mut times = Vec::new();
    for _ in 0..runs {
        let server = Server::start(&[]).await;
        times.push(server.ready_after.as_secs_f64() * 1e3);
    }
    println!("start to ready: {:.0} ms (all {times:.0?})", median(&mut times));
}

/// Memory and processor time of a cluster nobody uses, over a minute that starts ten seconds in.
async fn idle(runs: usize) {
    let (mut memory, mut load) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(&[]).await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let before = server.cpu_seconds();
        tokio::time::sleep(Duration::from_secs(60)).await;
        load.push((server.cpu_seconds() - before) / 60.0 * 100.0);
        memory.push(server.rss_mib());
    }
    println!("idle: RSS {:.0} MiB, {:.2} % of a core", median(&mut memory), median(&mut load));
}

/// Three thousand pods on hollow nodes: time until all are Running, and what the server weighs then.
async fn crowd(runs: usize) {
    let (mut memory, mut seconds) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(&["--hollow-nodes=30"]).await;
        seconds.push(creates::crowd(&server, 3000).await.as_secs_f64());
        memory.push(server.rss_mib());
    }
    println!(
        "3,000 pods on 30 hollow nodes: running after {:.1} s, RSS {:.0} MiB",
        median(&mut seconds),
        median(&mut memory)
    );
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
