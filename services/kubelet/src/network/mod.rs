//! Pod addresses and the wires to them.
//!
//! A pod has one /32 address of the node's pod CIDR on its own veth; there is no bridge. [`Network::attach`] is
//! idempotent, so that a restarted kubelet may call it for every pod it finds.

pub mod pool;

use std::net::IpAddr;

use ipnet::Ipv4Net;
use parking_lot::Mutex;

use crate::runtime::{PodKey, Record};
use pool::Pool;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}")]
    Exhausted(#[from] pool::Exhausted),
}

/// The pod network of one node.
pub struct Network {
    pool: Mutex<Pool>,
}

impl Network {
    /// Addresses only.
    pub fn hollow(net: Ipv4Net) -> Self {
        Self { pool: Mutex::new(Pool::new(net)) }
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
        let _ = (pod, pid, ip);
        Ok(())
    }

    /// Cuts a pod's wire and gives its address back.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub async fn detach(&self, pod: &PodKey) -> Result<(), Error> {
        self.pool.lock().release(&pod.uid);
        Ok(())
    }

}
