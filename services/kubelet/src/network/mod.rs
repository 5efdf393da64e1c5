//! Pod addresses and the wires to them.
//!
//! A pod has one /32 address of the node's pod CIDR on its own veth; there is no bridge. [`Network::attach`] is
//! idempotent, so that a restarted kubelet may call it for every pod it finds.

pub mod firewall;
pub mod pool;
pub mod veth;

use std::{net::IpAddr, path::PathBuf};

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::runtime::{PodKey, Record};
use pool::Pool;
use veth::Wiring;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Exhausted(#[from] pool::Exhausted),
    #[error("{what}: {source}")]
    Netlink { what: String, source: rtnetlink::Error },
    #[error("{what}: {source}")]
    System { what: String, source: std::io::Error },
    #[error("{0}")]
    Refused(String),
}

/// What all wires of a node have in common.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The addresses of all pods of the cluster.
    pub cluster: Ipv4Net,
    pub mtu: Option<u32>,
    /// Where it is remembered that this machine did not forward packets before us.
    pub memory: PathBuf,
}

/// The pod network of one node.
pub struct Network {
    pool: Mutex<Pool>,
    /// None on hollow nodes: addresses without wires.
    wiring: Option<Wiring>,
}

impl Network {
    /// Addresses only.
    pub fn hollow(net: Ipv4Net) -> Self {
        Self { pool: Mutex::new(Pool::new(net)), wiring: None }
    }

    /// Addresses and wires; makes what all pods share on this node.
    ///
    /// # Errors
    /// Where the CIDR overlaps a route of the node, or the kernel refuses.
    pub async fn wired(net: Ipv4Net, setup: &Setup) -> Result<Self, Error> {
        let wiring = Wiring::install(net, setup).await?;
        Ok(Self { pool: Mutex::new(Pool::new(net)), wiring: Some(wiring) })
    }

    pub fn net(&self) -> Ipv4Net {
        self.pool.lock().net()
    }

    /// Takes over the addresses of pods that are there already.
    pub fn adopt(&self, records: &[Record]) {
        let mut pool = self.pool.lock();
        for record in records.iter().filter(|record| record.running) {
            if let Some(ip) = record.ip
                && !pool.hold(&record.pod.uid, ip)
            {
                tracing::warn!(pod = %record.pod, %ip, net = %pool.net(), "a running pod's address is not ours to give");
            }
        }
    }

    /// The pod's address.
    ///
    /// # Errors
    /// Where none is free.
    pub fn reserve(&self, pod: &PodKey) -> Result<IpAddr, Error> {
        Ok(self.pool.lock().take(&pod.uid)?)
    }

    /// Connects the network namespace of a process.
    ///
    /// # Errors
    /// Where the kernel refuses; nothing is left half-made that a second call would not repair.
    pub async fn attach(&self, pod: &PodKey, pid: u32, ip: IpAddr) -> Result<(), Error> {
        match (&self.wiring, ip) {
            (Some(wiring), IpAddr::V4(ip)) => wiring.attach(&pod.uid, pid, ip).await,
            _ => Ok(()),
        }
    }

    /// Cuts a pod's wire and gives its address back.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn detach(&self, pod: &PodKey) -> Result<(), Error> {
        if let Some(wiring) = &self.wiring {
            wiring.detach(&pod.uid).await?;
        }
        self.pool.lock().release(&pod.uid);
        Ok(())
    }

    /// Cuts the wires of pods that are not among `uids`.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn retain(&self, uids: &[String]) -> Result<(), Error> {
        match &self.wiring {
            Some(wiring) => wiring.retain(uids).await,
            None => Ok(()),
        }
    }
}

/// Removes everything this room ever makes on a node: wires, routes, rules, and the forwarding of packets where it
/// was off before.
///
/// # Errors
/// Where the kernel refuses.
pub async fn clean_up(setup: &Setup) -> Result<(), Error> {
    veth::clean_up(setup).await?;
    firewall::remove(setup.cluster).await
}
