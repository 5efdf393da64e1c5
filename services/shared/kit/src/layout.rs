//! The one table of ports and directories.
//!
//! Everything that listens or keeps files takes its place from here, so that two cannot want the same one unnoticed.

use std::{
    collections::HashMap,
    fmt,
    net::{IpAddr, SocketAddr, TcpListener},
    path::PathBuf,
};

/// A port with its owner and its default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    pub name: &'static str,
    pub flag: &'static str,
    pub default: u16,
}

pub const API: Port = Port { name: "apiserver (gRPC and REST)", flag: "--api-port", default: 6443 };
pub const STORE_CLIENT: Port = Port { name: "raft-store clients", flag: "--store-port", default: 2379 };
pub const STORE_PEER: Port = Port { name: "raft-store members", flag: "--store-peer-port", default: 2380 };
pub const KUBELET: Port = Port { name: "kubelet", flag: "--kubelet-port", default: 10250 };
pub const PROXY: Port = Port { name: "proxy", flag: "--proxy-port", default: 10256 };
pub const CONTROLLERS: Port = Port { name: "controllers", flag: "--controllers-port", default: 10257 };
pub const SCHEDULER: Port = Port { name: "scheduler", flag: "--scheduler-port", default: 10259 };

/// Every port of a machine that runs all roles.
pub const PORTS: [Port; 7] = [API, STORE_CLIENT, STORE_PEER, KUBELET, PROXY, CONTROLLERS, SCHEDULER];

/// Why a set of ports cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Collision {
    #[error("{0} and {1} both want port {2}: give one of them another with {3} or {4}")]
    Double(&'static str, &'static str, u16, &'static str, &'static str),
    #[error("port {port} for the {owner} is taken ({reason}): stop what listens there, or choose another with {flag}")]
    Taken { owner: &'static str, port: u16, flag: &'static str, reason: String },
}

/// Checks that no two owners want the same port; port 0 (any free one) never collides.
///
/// # Errors
/// Names both owners and the flags that settle it.
pub fn check_distinct(chosen: &[(Port, u16)]) -> Result<(), Collision> {
    let mut owners: HashMap<u16, Port> = HashMap::new();
    for &(port, number) in chosen.iter().filter(|(_, number)| *number != 0) {
        if let Some(first) = owners.insert(number, port) {
            return Err(Collision::Double(first.name, port.name, number, first.flag, port.flag));
        }
    }
    Ok(())
}

/// Checks that a port can be listened on now.
///
/// # Errors
/// Names the owner, the port, the reason and the flag that chooses another.
pub fn check_free(port: Port, address: IpAddr, number: u16) -> Result<(), Collision> {
    TcpListener::bind(SocketAddr::new(address, number)).map(drop).map_err(|error| Collision::Taken {
        owner: port.name,
        port: number,
        flag: port.flag,
        reason: error.to_string(),
    })
}

/// Where a server keeps its files unless `--data-dir` names another place.
pub const DATA_DIR: &str = "/var/lib/forestay";

/// Where a process keeps its files, all below one directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directories {
    pub root: PathBuf,
}

impl Directories {
    pub fn below(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Certificate authorities and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }

    /// The store's log and state; only the raft-store role opens files here.
    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Pod volumes, logs and sandboxes of the kubelet.
    pub fn kubelet(&self) -> PathBuf {
        self.root.join("kubelet")
    }

    /// What the proxy must remember to clean up.
    pub fn proxy(&self) -> PathBuf {
        self.root.join("proxy")
    }

    /// The administrator's kubeconfig.
    pub fn admin_kubeconfig(&self) -> PathBuf {
        self.root.join("admin.kubeconfig")
    }

    /// The lock that keeps a second process off this directory.
    pub fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

impl fmt::Display for Directories {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.display().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_ports_are_distinct() {
        assert_eq!(check_distinct(&PORTS.map(|port| (port, port.default))), Ok(()));
    }

    #[test]
    fn a_double_port_names_both_owners_and_flags() {
        let error = check_distinct(&[(API, 7000), (KUBELET, 7000)]).unwrap_err().to_string();
        assert!(error.contains("7000") && error.contains("--api-port") && error.contains("--kubelet-port"), "{error}");
    }

    #[test]
    fn a_taken_port_names_its_flag() {
        let holder = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = holder.local_addr().unwrap();
        let error = check_free(API, address.ip(), address.port()).unwrap_err().to_string();
        assert!(error.contains("--api-port"), "{error}");
    }
}
