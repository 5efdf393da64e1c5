//! Who the first members of a store are: read from etcd's flags, named by a function of them alone.
//!
//! Every member computes the same ids from the same flags, so that all of them found the same store.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use proto::forestay::raft::v1::Peer;
use sha2::{Digest, Sha256};

use crate::machine;

/// The members a store is founded with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Tells stores apart whose members have the same addresses.
    pub token: String,
    /// Peer URLs by name.
    pub members: BTreeMap<String, Vec<String>>,
}

impl Cluster {
    /// Reads `n1=http://10.0.0.1:2380,n2=http://10.0.0.2:2380`; a name may come several times.
    ///
    /// # Errors
    /// A part is not of this form, or two members have one address.
    pub fn parse(text: &str, token: &str) -> anyhow::Result<Cluster> {
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (name, url) = part.split_once('=').filter(|(name, _)| !name.is_empty()).with_context(|| {
                format!("--initial-cluster has {part:?}: write <name>=<peer URL>, as in n1=http://10.0.0.1:2380")
            })?;
            let url = url.trim_end_matches('/');
            ensure!(
                url.starts_with("http://") || url.starts_with("https://"),
                "--initial-cluster gives {name} the peer URL {url:?}: it begins with http:// or https://"
            );
            ensure!(seen.insert(url.to_owned()), "--initial-cluster names the peer URL {url} twice");
            members.entry(name.to_owned()).or_default().push(url.to_owned());
        }
        ensure!(!members.is_empty(), "--initial-cluster names no member");
        members.values_mut().for_each(|urls| urls.sort());
        Ok(Cluster { token: token.to_owned(), members })
    }

    /// The id of the store: that of all its first members.
    pub fn id(&self) -> u64 {
        let mut ids: Vec<u64> = self.members.keys().filter_map(|name| self.member_id(name)).collect();
        ids.sort_unstable();
        named(b"cluster", ids.iter().map(|id| id.to_be_bytes().to_vec()))
    }

    pub fn member_id(&self, name: &str) -> Option<u64> {
        let urls = self.members.get(name)?;
        let parts = urls.iter().map(|url| url.clone().into_bytes());
        Some(named(b"member", parts.chain([self.token.clone().into_bytes()])))
    }

    /// All members as the first entry of the log names them: the same on each of them, to the byte.
    pub fn peers(&self) -> BTreeMap<u64, Peer> {
        let known = self.members.iter().filter_map(|(name, urls)| {
            let peer = Peer {
                name: name.clone(),
                peer_urls: urls.clone(),
                client_urls: Vec::new(),
                machine_version_max: machine::MACHINE_VERSION,
                votes_once_ready: false,
            };
            Some((self.member_id(name)?, peer))
        });
        known.collect()
    }

    /// # Errors
    /// The member `name` is not among the members, or not under the URLs it tells the others.
    pub fn check_member(&self, name: &str, advertised: &[String]) -> anyhow::Result<()> {
        let Some(urls) = self.members.get(name) else {
            let names: Vec<&str> = self.members.keys().map(String::as_str).collect();
            bail!("--name is {name:?}, and --initial-cluster names {}: add it there", names.join(", "));
        };
        let mut advertised: Vec<&str> = advertised.iter().map(|url| url.trim_end_matches('/')).collect();
        advertised.sort_unstable();
        ensure!(
            urls.iter().map(String::as_str).eq(advertised.iter().copied()),
            "--initial-cluster gives {name} the peer URLs {}, and --initial-advertise-peer-urls is {}: make them the same",
            urls.join(", "),
            advertised.join(", ")
        );
        Ok(())
    }
}

fn named(kind: &[u8], parts: impl Iterator<Item = Vec<u8>>) -> u64 {
    let mut hasher = Sha256::new();
    hasher.update(kind);
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    let first = hasher.finalize().iter().take(8).fold(0u64, |id, byte| id << 8 | u64::from(*byte));
    // Zero means unset in every message.
    first.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THREE: &str = "n1=http://127.0.0.1:1,n2=http://127.0.0.1:2,n3=http://127.0.0.1:3";

    #[test]
    fn ids_depend_on_urls_and_token_and_not_on_the_order_of_the_flag() {
        let one = Cluster::parse(THREE, "a").unwrap();
        let turned = Cluster::parse("n3=http://127.0.0.1:3/,n1=http://127.0.0.1:1,n2=http://127.0.0.1:2", "a").unwrap();
        assert_eq!((one.id(), one.peers()), (turned.id(), turned.peers()));
        let other = Cluster::parse(THREE, "b").unwrap();
        assert_ne!(one.id(), other.id());
        assert_ne!(one.member_id("n1"), other.member_id("n1"));
        assert_eq!(one.peers().len(), 3);
    }

    #[test]
    fn flags_that_cannot_be_meant_are_refused_with_the_reason() {
        let refused = |text: &str| Cluster::parse(text, "t").unwrap_err().to_string();
        assert!(refused("n1").contains("write <name>=<peer URL>"));
        assert!(refused("n1=127.0.0.1:1").contains("http:// or https://"));
        assert!(refused("n1=http://a:1,n2=http://a:1").contains("twice"));
        assert!(refused("").contains("names no member"));
        let three = Cluster::parse(THREE, "t").unwrap();
        assert!(three.check_member("n4", &[]).unwrap_err().to_string().contains("names n1, n2, n3"));
        let moved = three.check_member("n1", &["http://127.0.0.1:9".to_owned()]).unwrap_err().to_string();
        assert!(moved.contains("make them the same"), "{moved}");
        three.check_member("n1", &["http://127.0.0.1:1/".to_owned()]).unwrap();
    }
}
