//! The addresses of a node's pod CIDR: which are taken. PURE.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
};

use ipnet::Ipv4Net;

/// One bit for each address, and who holds which.
#[derive(Clone, Debug)]
pub struct Pool {
    net: Ipv4Net,
    taken: Vec<u64>,
    holders: HashMap<String, u32>,
    /// Where the next search starts: a freed address rests as long as others are free.
    next: u32,
}

#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("no address is left in the node's pod CIDR {0}: delete pods, or give nodes a wider CIDR")]
pub struct Exhausted(pub Ipv4Net);

impl Pool {
    /// Network, first and last address are not given out.
    pub fn new(net: Ipv4Net) -> Self {
        let size = 1_u64 << (32 - u32::from(net.prefix_len())).min(20);
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let mut pool = Self { net, taken: vec![0; size.div_ceil(64) as usize], holders: HashMap::new(), next: 2 };
        for reserved in [0, 1, size - 1] {
            pool.mark(reserved);
        }
        // Bits past the end of a small network.
        (size..size.div_ceil(64) * 64).for_each(|index| pool.mark(index));
        pool
    }

    pub fn net(&self) -> Ipv4Net {
        self.net
    }

    /// The holder's address: the one it has, or a free one.
    ///
    /// # Errors
    /// Where none is free.
    pub fn take(&mut self, holder: &str) -> Result<IpAddr, Exhausted> {
        if let Some(index) = self.holders.get(holder) {
            return Ok(self.address(*index));
        }
        let size = u32::try_from(self.taken.len() * 64).unwrap_or(u32::MAX);
        let mut indices = (self.next..size).chain(0..self.next.min(size));
        let index = indices.find(|index| !self.is_taken(*index)).ok_or(Exhausted(self.net))?;
        self.mark(index);
        self.holders.insert(holder.to_owned(), index);
        self.next = index + 1;
        Ok(self.address(index))
    }

    /// Notes an address that is in use already; false where it is not of this network, or is another's.
    pub fn hold(&mut self, holder: &str, ip: IpAddr) -> bool {
        let IpAddr::V4(v4) = ip else { return false };
        if !self.net.contains(&v4) {
            return false;
        }
        let index = u32::from(v4) - u32::from(self.net.network());
        if self.is_taken(index) {
            return self.holders.get(holder) == Some(&index);
        }
        self.mark(index);
        self.holders.insert(holder.to_owned(), index);
        true
    }

    pub fn release(&mut self, holder: &str) {
        if let Some(index) = self.holders.remove(holder) {
            self.taken[index as usize / 64] &= !(1 << (index % 64));
        }
    }

    fn address(&self, index: u32) -> IpAddr {
        Ipv4Addr::from(u32::from(self.net.network()) + index).into()
    }

    fn is_taken(&self, index: u32) -> bool {
        self.taken.get(index as usize / 64).is_none_or(|word| word & (1 << (index % 64)) != 0)
    }

    fn mark(&mut self, index: u32) {
        if let Some(word) = self.taken.get_mut(index as usize / 64) {
            *word |= 1 << (index % 64);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(net: &str) -> Pool {
        Pool::new(net.parse().unwrap())
    }

    #[test]
    fn every_usable_address_is_given_out_once() {
        let mut pool = pool("10.244.3.0/29");
        let mut given: Vec<String> = (0..5).map(|n| pool.take(&n.to_string()).unwrap().to_string()).collect();
        assert!(pool.take("late").unwrap_err().to_string().contains("10.244.3.0/29"));
        given.sort();
        assert_eq!(given, ["10.244.3.2", "10.244.3.3", "10.244.3.4", "10.244.3.5", "10.244.3.6"]);
        pool.release("2");
        assert_eq!(pool.take("late").unwrap().to_string(), "10.244.3.4");
    }

    #[test]
    fn a_freed_address_rests_while_others_are_free() {
        let mut pool = pool("10.244.3.0/24");
        let first = pool.take("a").unwrap();
        pool.release("a");
        assert_ne!(pool.take("b").unwrap(), first);
    }

    #[test]
    fn addresses_found_in_use_are_not_given_out() {
        let mut pool = pool("10.244.3.0/24");
        assert!(pool.hold("old", [10, 244, 3, 2].into()));
        assert!(!pool.hold("other", [10, 244, 3, 2].into()));
        assert!(!pool.hold("far", [10, 244, 9, 2].into()));
        assert_eq!(pool.take("old").unwrap().to_string(), "10.244.3.2");
        assert_eq!(pool.take("new").unwrap().to_string(), "10.244.3.3");
    }
}
