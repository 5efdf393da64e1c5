//! What this machine is called and where it is reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};

use nix::{ifaddrs::getifaddrs, net::if_::InterfaceFlags, sys::socket::SockaddrLike, unistd};

/// The host's name in the form node names have: lower case.
pub fn host_name() -> String {
    let name = unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let name: String =
        name.to_lowercase().chars().filter(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.')).collect();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The IPv4 addresses of all interfaces that are up, loopback included.
pub fn addresses() -> Vec<IpAddr> {
    let mut found = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    for interface in getifaddrs().into_iter().flatten() {
        let address = interface.address.as_ref().filter(|address| address.family().is_some());
        if let Some(address) = address.and_then(|address| address.as_sockaddr_in())
            && interface.flags.contains(InterfaceFlags::IFF_UP)
            && !found.contains(&IpAddr::V4(address.ip()))
        {
            found.push(IpAddr::V4(address.ip()));
        }
    }
    found
}

/// The address others reach this machine by: the one its default route leaves from, else its first, else loopback.
pub fn advertised_address() -> IpAddr {
    let loopback = IpAddr::V4(Ipv4Addr::LOCALHOST);
    // Connecting a datagram socket chooses a source address and sends nothing; the target is TEST-NET-1 (RFC 5737).
    let by_route = UdpSocket::bind(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))).and_then(|socket| {
        socket.connect(SocketAddr::from(([192, 0, 2, 1], 9)))?;
        socket.local_addr()
    });
    match by_route {
        Ok(address) if !address.ip().is_unspecified() && !address.ip().is_loopback() => address.ip(),
        _ => addresses().into_iter().find(|address| !address.is_loopback()).unwrap_or(loopback),
    }
}
