//! The figures of `docs/benchmarks.md`, printed: `tests/bench/run [start|idle|pod|creates|crowd|lines]... [--runs N]`
//!
//! Every figure is the median of five runs, each on a fresh cluster of one `forestay up` process from `bin/`. Nothing here
//! fails because it is slow.
#![allow(clippy::unwrap_used)]

mod creates;
mod lines;
mod pod;
mod server;

use std::time::Duration;

use server::{Machine, Server};

const ALL: [&str; 6] = ["lines", "start", "idle", "pod", "creates", "crowd"];

#[tokio::main]
async fn main() {
    let mut runs = 5;
    let mut wanted = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--runs" => {
                runs = arguments.next().and_then(|n| n.parse().ok()).filter(|n| *n > 0).expect("--runs takes a number")
            }
            name if ALL.contains(&name) => wanted.push(argument),
            other => panic!("{other:?} is no benchmark: use {}, or none for all", ALL.join(", ")),
        }
    }
    if wanted.is_empty() {
        wanted = ALL.map(str::to_owned).to_vec();
    }
    for name in &wanted {
        match name.as_str() {
            "start" => start(runs).await,
            "idle" => idle(runs).await,
            "pod" => pod::run(runs).await,
            "creates" => creates::run(runs).await,
            "crowd" => crowd(runs).await,
            _ => lines::print(),
        }
    }
}

/// Process start on a fresh folder to the first answer of the API, and to a Ready node.
async fn start(runs: usize) {
    let (mut answers, mut ready) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(Machine::Used, &[]).await;
        answers.push(server.answers_after.as_secs_f64() * 1e3);
        ready.push(server.ready_after.as_secs_f64() * 1e3);
    }
    println!("start to the API's first answer: {:.0} ms", median(&mut answers));
    println!("start to a Ready node: {:.0} ms", median(&mut ready));
}

/// Memory and processor time of a cluster nobody uses, over a minute that starts ten seconds in.
async fn idle(runs: usize) {
    let (mut memory, mut load) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(Machine::Used, &[]).await;
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
    let (mut memory, mut peak, mut seconds) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let server = Server::start(Machine::Spared, &["--hollow-nodes=30"]).await;
        seconds.push(creates::crowd(&server, 3000).await.as_secs_f64());
        memory.push(server.rss_mib());
        peak.push(server.peak_rss_mib());
    }
    println!(
        "3,000 pods on 30 hollow nodes: running after {:.1} s, RSS {:.0} MiB (peak {:.0} MiB)",
        median(&mut seconds),
        median(&mut memory),
        median(&mut peak)
    );
}

pub fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
