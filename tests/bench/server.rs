//! One `forestay up` process, and what it uses.

use std::{
    fs,
    time::{Duration, Instant},
};

use client::Client;
use forestay::{certificates::Holder, role::House, settings::Settings};
use proto::k8s::core::v1::Namespace;
use tempfile::TempDir;
use tests::cluster::{Process, quiet_settings, up_arguments};

pub struct Server {
    pub settings: Settings,
    pub client: Client,
    pub ready_after: Duration,
    process: Process,
    _folder: TempDir,
}

impl Server {
    pub async fn start(more: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = quiet_settings(folder.path(), more);
        let began = Instant::now();
        let process = Process::forestay(&up_arguments(&settings, more), &folder.path().join("log"));
        while !settings.directories().admin_kubeconfig().exists() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let client = House::new(settings.clone()).client_as(&Holder::Admin).unwrap();
        client.get::<Namespace>("", "default").await.unwrap();
        let ready_after = began.elapsed();
        Self { settings, client, ready_after, process, _folder: folder }
    }

    pub fn rss_mib(&self) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
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
