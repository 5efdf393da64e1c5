//! Which backend each client is remembered to use, as the kernel reports it. Pure.
//!
//! Only the kernel knows these entries: packets make them. They are read when an endpoint of a sticky service goes,
//! since an entry that outlives its endpoint would send its client nowhere.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::Context as _;
use serde_json::Value;

use super::script::nft_protocol;
use crate::{
    diff::Changes,
    rules::{Key, Protocol, Rule},
};

/// One client of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    client: Ipv4Addr,
    asked: Ipv4Addr,
    protocol: Protocol,
    port: u16,
    backend: SocketAddrV4,
}

/// What clients are remembered to use.
#[derive(Debug, Default)]
pub struct Memory(Vec<Entry>);

impl Memory {
    /// Whether a change can make entries stale, so that they must be read first.
    pub fn is_needed_for(changes: &Changes) -> bool {
        changes.0.values().any(|change| {
            change.before.as_ref().is_some_and(|before| {
                before.affinity_seconds.is_some()
                    && before.backends.iter().any(|was| !keeps(change.after.as_ref(), was.address))
            })
        })
    }

    /// Reads `nft --json list map`.
    ///
    /// # Errors
    /// Where that is not what it looks like.
    pub fn parse(json: &[u8]) -> anyhow::Result<Self> {
        let listing: Value = serde_json::from_slice(json).context("read nft's list of remembered clients")?;
        let objects = listing["nftables"].as_array().context("read nft's list of remembered clients: no `nftables`")?;
        let elements = objects.iter().filter_map(|object| object["map"]["elem"].as_array()).flatten();
        elements
            .map(|element| entry(element).with_context(|| format!("read a remembered client from {element}")))
            .collect::<anyhow::Result<_>>()
            .map(Self)
    }

    /// Entries that lead to a backend their service no longer has, as the map spells them.
    pub fn stale(&self, changes: &Changes) -> impl Iterator<Item = (String, SocketAddrV4)> {
        self.0.iter().filter(|entry| is_stale(entry, changes)).map(|entry| {
            let protocol = nft_protocol(entry.protocol);
            (format!("{} . {} . {protocol} . {}", entry.client, entry.asked, entry.port), entry.backend)
        })
    }
}

fn is_stale(entry: &Entry, changes: &Changes) -> bool {
    let key = Key { address: Some(entry.asked), protocol: entry.protocol, port: entry.port };
    // What is no service's address was asked of the node itself.
    let change = changes.0.get(&key).or_else(|| changes.0.get(&Key { address: None, ..key }));
    change.is_some_and(|change| {
        let had = change.before.as_ref().is_some_and(|rule| keeps(Some(rule), entry.backend));
        had && !keeps(change.after.as_ref(), entry.backend)
    })
}

/// Whether a rule still sends a client to this backend.
fn keeps(rule: Option<&Rule>, backend: SocketAddrV4) -> bool {
    rule.is_some_and(|rule| rule.affinity_seconds.is_some() && rule.backends.iter().any(|held| held.address == backend))
}

fn entry(element: &Value) -> Option<Entry> {
    let [key, value] = element.as_array()?.as_slice() else { return None };
    // With a timeout the key is wrapped once more.
    let key = if key["elem"].is_object() { &key["elem"]["val"] } else { key };
    let [client, asked, protocol, port] = key["concat"].as_array()?.as_slice() else { return None };
    let [ip, backend_port] = value["concat"].as_array()?.as_slice() else { return None };
    let protocol = Protocol::ALL.into_iter().find(|known| protocol.as_str() == Some(nft_protocol(*known)))?;
    Some(Entry {
        client: client.as_str()?.parse().ok()?,
        asked: asked.as_str()?.parse().ok()?,
        protocol,
        port: port_of(port)?,
        backend: SocketAddrV4::new(ip.as_str()?.parse().ok()?, port_of(backend_port)?),
    })
}

fn port_of(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}
