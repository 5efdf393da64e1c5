//! One `forestay up` process, and what it uses.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use client::{Client, WatchRequest, WatchSet};
use forestay::{certificates::Holder, role::House, settings::Settings};
use futures::StreamExt;
use proto::{
    Resource,
    forestay::api::v1::watch_event::Type,
    k8s::core::v1::{Namespace, Node},
};
use tempfile::TempDir;
use tests::cluster::{Process, QUIET, arguments, binary, settings};

/// What the node of the cluster does to its machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// Nothing: the runtime is fake, the proxy keeps its rules to itself.
    Spared,
    /// All of it, with Docker and nftables, as `forestay up` does by itself. Only one at a time can.
    Used,
}

pub struct Server {
    pub settings: Settings,
    pub client: Client,
    /// From the start of the process to the first answer of the API.
    pub answers_after: Duration,
    /// From the start of the process to the node being Ready.
    pub ready_after: Duration,
    machine: Machine,
    process: Process,
    _folder: TempDir,
}

impl Server {
    pub async fn start(machine: Machine, more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let flags = if machine == Machine::Spared { [&QUIET, more].concat() } else { more.to_vec() };
        let settings = settings(folder.path(), &flags);
        let began = Instant::now();
        let process = Process::forestay(&arguments("up", &settings, &flags), &folder.path().join("log"));
        while !settings.directories().admin_kubeconfig().exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let client = House::new(settings.clone()).client_as(&Holder::Admin).unwrap();
        client.get::<Namespace>("", "default").await.unwrap();
        let answers_after = began.elapsed();
        let ready = |node: Option<&Node>| {
            let conditions = node.and_then(|node| node.status.as_ref()).map(|status| status.conditions.as_slice());
            conditions.unwrap_or_default().iter().any(|is| is.r#type == "Ready" && is.status == "True")
        };
        until(&client, "", "n1", ready).await;
        let ready_after = began.elapsed();
        Self { settings, client, answers_after, ready_after, machine, process, _folder: folder }
    }

    pub fn rss_mib(&self) -> f64 {
        self.memory_mib("VmRSS:")
    }

    /// The most that was resident at any time.
    pub fn peak_rss_mib(&self) -> f64 {
        self.memory_mib("VmHWM:")
    }

    fn memory_mib(&self, row: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with(row)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
    }

    /// User and system time of all threads so far.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.process.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // Clock ticks are hundredths of a second on every Linux of today.
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.machine == Machine::Used {
            // Containers, links and rules would outlive the process.
            self.process.terminate();
            let reset = Command::new(binary("forestay"))
                .args(arguments("reset", &self.settings, &[]))
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status();
            if !reset.is_ok_and(|status| status.success()) {
                eprintln!("forestay reset failed: the cluster may have left something on this machine");
            }
        }
    }
}

/// Follows one object until `wanted` holds of it, or of its absence.
pub async fn until<K: Resource>(client: &Client, namespace: &str, name: &str, wanted: impl Fn(Option<&K>) -> bool) {
    let set = WatchSet { target: Some(client::target::<K>(namespace, name)), ..WatchSet::default() };
    let mut changes = client.watch(WatchRequest { sets: vec![set] }).await.unwrap();
    let mut object: Option<K> = None;
    let mut is_synced = false;
    while let Some(response) = changes.next().await {
        let response = response.unwrap();
        is_synced |= response.synced;
        for event in response.events {
            let is_there = event.r#type() != Type::Deleted;
            object = event.object.filter(|_| is_there).map(|object| object.decode_as().unwrap());
        }
        if is_synced && wanted(object.as_ref()) {
            return;
        }
    }
    panic!("the watch of {name} ended");
}
