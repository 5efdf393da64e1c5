//! Time to put services into the kernel, and to change one:
//! `cargo build --release -p proxy --example load && unshare --net <target>/release/examples/load`.

use std::{net::SocketAddrV4, time::Instant};

use proxy::{
    backend::Backend as _,
    diff::diff,
    nftables::{Nftables, Ranges},
    rules::{Backend, Key, Protocol, Rule, RuleSet, ServiceKey},
};

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let ranges = Ranges { services: "10.96.0.0/14".parse()?, pods: Some("10.128.0.0/9".parse()?) };
    for services in [1_000, 10_000] {
        let rules: RuleSet = (0..services).map(|n| rule(n, 3)).collect();
        let mut backend = Nftables::probe(ranges).await?;
        let began = Instant::now();
        backend.rebuild(&rules).await?;
        println!("{services} services x 3 endpoints: {:?}", began.elapsed());

        let mut now = rules.clone();
        let mut times = Vec::new();
        for n in 0..5 {
            let mut next = now.clone();
            next.extend([rule(n, 4)]);
            let changes = diff(&now, &next);
            let began = Instant::now();
            backend.apply(&changes).await?;
            times.push(began.elapsed());
            now = next;
        }
        times.sort();
        println!("{services} services, one endpoint more: median {:?} of {times:?}", times[2]);
        backend.remove().await?;
    }
    Ok(())
}

fn rule(n: u32, endpoints: u32) -> (Key, Rule) {
    let key = Key { address: Some((0x0a60_0000 + n + 1).into()), protocol: Protocol::Tcp, port: 80 };
    let backends = (0..endpoints)
        .map(|e| Backend { address: SocketAddrV4::new((0x0a80_0000 + n * 8 + e + 1).into(), 8080), is_local: false });
    let service = ServiceKey { namespace: "default".to_owned(), name: format!("service-{n}") };
    let rule = Rule {
        service,
        port_name: String::new(),
        backends: backends.collect(),
        affinity_seconds: None,
        masquerade: false,
    };
    (key, rule)
}
