//! Virtual services and their destinations, to and from attributes.

use std::net::IpAddr;

use crate::wire::{self, Attributes, Writer};

const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

mod service_attribute {
    pub const FAMILY: u16 = 1;
    pub const PROTOCOL: u16 = 2;
    pub const ADDRESS: u16 = 3;
    pub const PORT: u16 = 4;
    pub const FIREWALL_MARK: u16 = 5;
    pub const SCHEDULER: u16 = 6;
    pub const FLAGS: u16 = 7;
    pub const TIMEOUT: u16 = 8;
    pub const NETMASK: u16 = 9;
    pub const STATS64: u16 = 12;
}

mod destination_attribute {
    pub const ADDRESS: u16 = 1;
    pub const PORT: u16 = 2;
    pub const FORWARD: u16 = 3;
    pub const WEIGHT: u16 = 4;
    pub const UPPER_THRESHOLD: u16 = 5;
    pub const LOWER_THRESHOLD: u16 = 6;
    pub const ACTIVE: u16 = 7;
    pub const INACTIVE: u16 = 8;
    pub const PERSISTENT: u16 = 9;
    pub const FAMILY: u16 = 11;
    pub const STATS64: u16 = 12;
}

/// Where a virtual service listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Address {
    pub ip: IpAddr,
    /// IP protocol number: 6, 17, 132.
    pub protocol: u16,
    pub port: u16,
}

/// What names a virtual service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    Address(Address),
    /// Packets with a firewall mark, of IPv4 or IPv6.
    Mark {
        mark: u32,
        is_v6: bool,
    },
}

/// How a virtual service behaves; bits as in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(pub u32);

impl Flags {
    /// A client keeps its destination.
    pub const PERSISTENT: Self = Self(0x1);
    /// Each UDP packet is scheduled by itself.
    pub const ONE_PACKET: Self = Self(0x4);

    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// A virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub target: Target,
    /// "rr", "wrr", "lc", "sh", ...
    pub scheduler: String,
    pub flags: Flags,
    /// Persistence in seconds.
    pub timeout_seconds: u32,
}

impl Service {
    /// Names the service to the kernel.
    pub(crate) fn write_key(&self, out: &mut Writer) {
        use service_attribute as at;
        out.u16(at::FAMILY, self.target.family());
        match self.target {
            Target::Address(Address { ip, protocol, port }) => {
                out.u16(at::PROTOCOL, protocol);
                out.bytes(at::ADDRESS, &wire_address(ip));
                out.u16_be(at::PORT, port);
            }
            Target::Mark { mark, .. } => out.u32(at::FIREWALL_MARK, mark),
        }
    }

    pub(crate) fn write(&self, out: &mut Writer) {
        use service_attribute as at;
        self.write_key(out);
        out.text(at::SCHEDULER, &self.scheduler);
        // The flags and the mask of those that are meant.
        let mut flags = [0; 8];
        flags[..4].copy_from_slice(&self.flags.0.to_ne_bytes());
        flags[4..].copy_from_slice(&u32::MAX.to_ne_bytes());
        out.bytes(at::FLAGS, &flags);
        out.u32(at::TIMEOUT, self.timeout_seconds);
        // Clients by their whole address: a mask in IPv4, a prefix length in IPv6.
        out.u32(at::NETMASK, if self.target.family() == AF_INET { u32::MAX } else { 128 });
    }

    /// Reads a service a kernel lists; nothing where it is not one.
    pub fn read(attributes: Attributes<'_>) -> Option<Listed<Self>> {
        use service_attribute as at;
        let family = attributes.u16(at::FAMILY)?;
        let target = match attributes.u32(at::FIREWALL_MARK) {
            Some(mark) => Target::Mark { mark, is_v6: family == AF_INET6 },
            None => Target::Address(Address {
                ip: address(family, attributes.get(at::ADDRESS)?)?,
                protocol: attributes.u16(at::PROTOCOL)?,
                port: attributes.u16_be(at::PORT)?,
            }),
        };
        let object = Self {
            target,
            scheduler: attributes.text(at::SCHEDULER)?,
            flags: Flags(attributes.u32(at::FLAGS)?),
            timeout_seconds: attributes.u32(at::TIMEOUT)?,
        };
        Some(Listed { object, stats: Stats::read(attributes.nested(at::STATS64)) })
    }
}

impl Target {
    fn family(&self) -> u16 {
        let is_v6 = match self {
            Self::Address(address) => address.ip.is_ipv6(),
            Self::Mark { is_v6, .. } => *is_v6,
        };
        if is_v6 { AF_INET6 } else { AF_INET }
    }
}

/// How packets reach a destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Forward {
    /// Address translation.
    #[default]
    Masquerade,
    Local,
    Tunnel,
    Route,
}

impl Forward {
    fn number(self) -> u32 {
        self as u32
    }

    fn of(number: u32) -> Option<Self> {
        // The upper bits say more about connections, not about the way.
        [Self::Masquerade, Self::Local, Self::Tunnel, Self::Route].into_iter().find(|way| way.number() == number & 0x7)
    }
}

/// A server behind a virtual service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub ip: IpAddr,
    pub port: u16,
    pub forward: Forward,
    /// 0: present connections stay, new ones go elsewhere.
    pub weight: u32,
    /// Connections at most; 0: no bound.
    pub connections_max: u32,
    /// Connections below which a full one takes new ones again.
    pub connections_again: u32,
}

impl Destination {
    pub(crate) fn write(&self, out: &mut Writer) {
        use destination_attribute as at;
        out.bytes(at::ADDRESS, &wire_address(self.ip));
        out.u16_be(at::PORT, self.port);
        out.u32(at::FORWARD, self.forward.number());
        out.u32(at::WEIGHT, self.weight);
        out.u32(at::UPPER_THRESHOLD, self.connections_max);
        out.u32(at::LOWER_THRESHOLD, self.connections_again);
        out.u16(at::FAMILY, if self.ip.is_ipv6() { AF_INET6 } else { AF_INET });
    }

    /// Reads a destination a kernel lists; nothing where it is not one.
    pub fn read(attributes: Attributes<'_>) -> Option<Listed<Self>> {
        use destination_attribute as at;
        let family = attributes.u16(at::FAMILY).unwrap_or(AF_INET);
        let object = Self {
            ip: address(family, attributes.get(at::ADDRESS)?)?,
            port: attributes.u16_be(at::PORT)?,
            forward: Forward::of(attributes.u32(at::FORWARD)?)?,
            weight: attributes.u32(at::WEIGHT)?,
            connections_max: attributes.u32(at::UPPER_THRESHOLD).unwrap_or_default(),
            connections_again: attributes.u32(at::LOWER_THRESHOLD).unwrap_or_default(),
        };
        let mut stats = Stats::read(attributes.nested(at::STATS64));
        stats.active = attributes.u32(at::ACTIVE).unwrap_or_default();
        stats.inactive = attributes.u32(at::INACTIVE).unwrap_or_default();
        stats.persistent = attributes.u32(at::PERSISTENT).unwrap_or_default();
        Some(Listed { object, stats })
    }
}

/// An object as the kernel has it, with its counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed<T> {
    pub object: T,
    pub stats: Stats,
}

/// Counters. The kernel refreshes all but the present connections every two seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    pub connections: u64,
    pub packets_in: u64,
    pub packets_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Present connections of a destination.
    pub active: u32,
    pub inactive: u32,
    pub persistent: u32,
}

impl Stats {
    fn read(attributes: Attributes<'_>) -> Self {
        let count = |number| attributes.u64(number).unwrap_or_default();
        Self {
            connections: count(1),
            packets_in: count(2),
            packets_out: count(3),
            bytes_in: count(4),
            bytes_out: count(5),
            ..Self::default()
        }
    }
}

/// Addresses of both families take sixteen bytes.
fn wire_address(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn address(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => wire::array::<4>(bytes).map(IpAddr::from),
        AF_INET6 => wire::array::<16>(bytes).map(IpAddr::from),
        _ => None,
    }
}
