//! A wire for each pod: a veth pair between the node and the pod's network namespace, with point-to-point routes.
//!
//! Inside, the default route goes to 169.254.1.1, an address nobody has: a permanent neighbour entry gives it the
//! node end's hardware address, so nothing is ever asked on the wire. Outside, one /32 route leads to the pod. Under
//! all of them lies an `unreachable` route for the whole cluster's pod CIDR, so that a dead pod's address fails at once.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, Ipv4Addr},
    os::fd::AsFd,
    path::Path,
};

use futures::TryStreamExt;
use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, setns};
use rtnetlink::{
    Handle, LinkMessageBuilder, LinkUnspec, LinkVeth, RouteMessageBuilder, new_connection,
    packet_route::{
        link::{InfoData, InfoVeth, LinkAttribute, LinkMessage},
        neighbour::NeighbourState,
        route::{RouteAttribute, RouteHeader, RouteMessage, RouteScope, RouteType},
    },
};
use sha2::{Digest, Sha256};
use tracing::{debug, info, warn};

use super::{Error, Setup, firewall};

/// The pods' next hop: link-local, and the same in every pod.
const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);
/// The node's end of every wire: each is a network of two, so one address serves them all.
const NODE_MAC: [u8; 6] = [0x0e, 0xfe, 0xee, 0xee, 0xee, 0x01];
const POD_INTERFACE: &str = "eth0";
/// How the node's ends are named, before a digest of the pod's uid.
const PREFIX: &str = "fsp";
/// Less preferred than any route an operator sets, and more specific than the default route.
const UNREACHABLE_METRIC: u32 = 4_278_198_272;
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Remembers, over restarts, that forwarding was off before us.
const FORWARDING_WAS_OFF: &str = "ip-forward-was-off";

/// The wires of one node.
pub struct Wiring {
    handle: Handle,
    net: Ipv4Net,
    mtu: Option<u32>,
}

fn refused(what: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> Error {
    let what = what.into();
    move |source| Error::Netlink { what, source }
}

fn broken(what: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let what = what.into();
    move |source| Error::System { what, source }
}

/// A netlink socket of this task's namespace.
fn connect() -> Result<Handle, Error> {
    let (connection, handle, _) = new_connection().map_err(broken("open a netlink socket"))?;
    tokio::spawn(connection);
    Ok(handle)
}

/// A netlink socket inside another network namespace: it stays there when the thread that made it ends.
async fn connect_in(pid: u32) -> Result<Handle, Error> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(broken(format!("open {path}")))?;
    let runtime = tokio::runtime::Handle::current();
    let open = move || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
        let _context = runtime.enter();
        let (connection, handle, _) = new_connection()?;
        runtime.spawn(connection);
        Ok(handle)
    };
    // A thread of its own: one that has changed its namespace must not serve anything else.
    let (sender, receiver) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("pod netns".to_owned())
        .spawn(move || {
            let _ = sender.send(open());
        })
        .map_err(broken("start a thread for the pod's namespace"))?;
    let opened = receiver.await.map_err(|_| Error::Refused(format!("the thread for {path} broke")))?;
    opened.map_err(broken(format!("enter {path}")))
}

fn is_missing(error: &rtnetlink::Error) -> bool {
    let code = match error {
        rtnetlink::Error::NetlinkError(message) => message.raw_code().abs(),
        _ => return false,
    };
    [libc::ENODEV, libc::ENOENT, libc::ESRCH].contains(&code)
}

fn interface_name(uid: &str) -> String {
    let digest = Sha256::digest(uid.as_bytes());
    let hex: String = digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    format!("{PREFIX}{}", &hex[..11])
}

fn is_interface_name(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|hex| hex.len() == 11 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

fn pod_mac(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

fn name(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.as_str()),
        _ => None,
    })
}

fn alias(link: &LinkMessage) -> Option<&str> {
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfAlias(alias) => Some(alias.as_str()),
        _ => None,
    })
}

async fn link(handle: &Handle, name: &str) -> Result<Option<LinkMessage>, Error> {
    match handle.link().get().match_name(name.to_owned()).execute().try_next().await {
        Ok(link) => Ok(link),
        Err(error) if is_missing(&error) => Ok(None),
        Err(error) => Err(refused(format!("look up {name}"))(error)),
    }
}

impl Wiring {
    /// Makes what all wires of the node need: forwarding, the floor under pod routes, the firewall's consent.
    ///
    /// # Errors
    /// Where the pods' CIDR overlaps a route of the node, or the kernel refuses.
    pub async fn install(net: Ipv4Net, setup: &Setup) -> Result<Self, Error> {
        let cluster = setup.cluster;
        let wiring = Self { handle: connect()?, net, mtu: setup.mtu };
        wiring.check_overlap(cluster).await?;
        forward_packets(&setup.memory)?;
        let floor = unreachable(cluster);
        let added = wiring.handle.route().add(floor).replace().execute().await;
        added.map_err(refused(format!("add the unreachable route for {cluster}")))?;
        firewall::install(cluster).await?;
        Ok(wiring)
    }

    /// Pod addresses must not be addresses of something else this machine reaches.
    async fn check_overlap(&self, cluster: Ipv4Net) -> Result<(), Error> {
        let mut routes = self.handle.route().get(RouteMessageBuilder::<Ipv4Addr>::new().build()).execute();
        while let Some(route) = routes.try_next().await.map_err(refused("list routes"))? {
            let is_main = route.header.table == RouteHeader::RT_TABLE_MAIN;
            if let Some(other) = destination(&route)
                && is_main
                && other.prefix_len() > 0
                && route.header.kind == RouteType::Unicast
                && !cluster.contains(&other)
                && other.contains(&cluster.network())
            {
                return Err(Error::Refused(format!(
                    "the pod CIDR {cluster} overlaps the node's route to {other}: choose another with --pod-cidr"
                )));
            }
        }
        Ok(())
    }

    /// Wires a pod; where it is wired already, nothing changes.
    pub async fn attach(&self, uid: &str, pid: u32, ip: Ipv4Addr) -> Result<(), Error> {
        let node_end = interface_name(uid);
        let inside = connect_in(pid).await?;
        if let Some(link) = link(&self.handle, &node_end).await? {
            let is_finished = alias(&link) == Some(self.alias(uid).as_str());
            if is_finished && self::link(&inside, POD_INTERFACE).await?.is_some() {
                return self.route(link.header.index, ip).await;
            }
            // The other end died with an earlier sandbox, or a kubelet ended while it made the wire.
            self.remove(&link).await?;
        }
        self.add_pair(&node_end, pid, ip).await?;
        let made = link(&self.handle, &node_end).await?;
        let made = made.ok_or_else(|| Error::Refused(format!("{node_end} is gone again: was the sandbox stopped?")))?;
        let index = made.header.index;
        let up = LinkUnspec::new_with_index(index).up().build();
        self.handle.link().set(up).execute().await.map_err(refused(format!("bring {node_end} up")))?;
        configure_inside(&inside, ip).await?;
        self.route(index, ip).await?;
        let finished = LinkUnspec::new_with_index(index).alias(self.alias(uid)).build();
        self.handle.link().set(finished).execute().await.map_err(refused(format!("mark {node_end} as ours")))?;
        debug!(uid, %ip, interface = node_end, "wired");
        Ok(())
    }

    /// Marks a wire as finished, and as ours: several kubelets may share a machine in tests, each with its own CIDR.
    fn alias(&self, uid: &str) -> String {
        format!("{}{uid}", self.alias_prefix())
    }

    fn alias_prefix(&self) -> String {
        format!("forestay pod {} ", self.net)
    }

    async fn add_pair(&self, node_end: &str, pid: u32, ip: Ipv4Addr) -> Result<(), Error> {
        let with_mtu = |builder: LinkMessageBuilder<LinkUnspec>| match self.mtu {
            Some(mtu) => builder.mtu(mtu),
            None => builder,
        };
        let peer = LinkMessageBuilder::<LinkUnspec>::new().name(POD_INTERFACE).address(pod_mac(ip).to_vec());
        // Made where it belongs: moving a finished interface costs the kernel tens of milliseconds.
        let peer = with_mtu(peer).setns_by_pid(pid).build();
        let mut pair = LinkMessageBuilder::<LinkVeth>::new(node_end, POD_INTERFACE)
            .address(NODE_MAC.to_vec())
            .set_info_data(InfoData::Veth(InfoVeth::Peer(peer)));
        if let Some(mtu) = self.mtu {
            pair = pair.mtu(mtu);
        }
        let added = self.handle.link().add(pair.build()).execute().await;
        added.map_err(refused(format!("make the wire {node_end}")))
    }

    /// The node's way to the pod.
    async fn route(&self, index: u32, ip: Ipv4Addr) -> Result<(), Error> {
        let neighbour = self.handle.neighbours().add(index, IpAddr::V4(ip)).link_layer_address(&pod_mac(ip));
        let neighbour = neighbour.state(NeighbourState::Permanent).replace().execute().await;
        neighbour.map_err(refused(format!("set the neighbour {ip}")))?;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(ip, 32)
            .output_interface(index)
            .scope(RouteScope::Link)
            .build();
        self.handle.route().add(route).replace().execute().await.map_err(refused(format!("add the route to {ip}")))
    }

    async fn remove(&self, link: &LinkMessage) -> Result<(), Error> {
        match self.handle.link().del(link.header.index).execute().await {
            Err(error) if !is_missing(&error) => {
                Err(refused(format!("remove {}", name(link).unwrap_or("a wire")))(error))
            }
            _ => Ok(()),
        }
    }

    /// Cuts a pod's wire; one that is gone with its namespace is no error.
    pub async fn detach(&self, uid: &str) -> Result<(), Error> {
        match link(&self.handle, &interface_name(uid)).await? {
            Some(link) => self.remove(&link).await,
            None => Ok(()),
        }
    }

    /// Cuts the wires of all pods but these.
    pub async fn retain(&self, uids: &[String]) -> Result<(), Error> {
        let wanted: Vec<String> = uids.iter().map(|uid| interface_name(uid)).collect();
        for link in wires(&self.handle).await? {
            let is_ours = alias(&link).is_some_and(|alias| alias.starts_with(&self.alias_prefix()));
            let is_wanted = name(&link).is_some_and(|name| wanted.iter().any(|wanted| wanted == name));
            if is_ours && !is_wanted {
                info!(interface = name(&link).unwrap_or_default(), "cutting the wire of a pod that is gone");
                self.remove(&link).await?;
            }
        }
        Ok(())
    }
}

async fn configure_inside(inside: &Handle, ip: Ipv4Addr) -> Result<(), Error> {
    let link = link(inside, POD_INTERFACE).await?;
    let index = link.ok_or_else(|| Error::Refused(format!("the pod has no {POD_INTERFACE}")))?.header.index;
    if let Some(loopback) = self::link(inside, "lo").await? {
        let up = LinkUnspec::new_with_index(loopback.header.index).up().build();
        inside.link().set(up).execute().await.map_err(refused("bring lo up"))?;
    }
    let added = inside.address().add(index, IpAddr::V4(ip), 32).replace().execute().await;
    added.map_err(refused(format!("give the pod {ip}")))?;
    let up = LinkUnspec::new_with_index(index).up().build();
    inside.link().set(up).execute().await.map_err(refused(format!("bring {POD_INTERFACE} up")))?;
    let neighbour = inside.neighbours().add(index, IpAddr::V4(GATEWAY)).link_layer_address(&NODE_MAC);
    let neighbour = neighbour.state(NeighbourState::Permanent).replace().execute().await;
    neighbour.map_err(refused("set the pod's gateway"))?;
    let to_gateway = RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(GATEWAY, 32)
        .output_interface(index)
        .scope(RouteScope::Link)
        .build();
    let default = RouteMessageBuilder::<Ipv4Addr>::new().gateway(GATEWAY).output_interface(index).build();
    for route in [to_gateway, default] {
        inside.route().add(route).replace().execute().await.map_err(refused("add the pod's routes"))?;
    }
    Ok(())
}

fn unreachable(net: Ipv4Net) -> RouteMessage {
    RouteMessageBuilder::<Ipv4Addr>::new()
        .destination_prefix(net.network(), net.prefix_len())
        .kind(RouteType::Unreachable)
        .priority(UNREACHABLE_METRIC)
        .build()
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(rtnetlink::packet_route::route::RouteAddress::Inet(ip)) => Some(*ip),
        _ => None,
    });
    Ipv4Net::new(address?, route.header.destination_prefix_length).ok()
}

async fn wires(handle: &Handle) -> Result<Vec<LinkMessage>, Error> {
    let links: Vec<LinkMessage> = handle.link().get().execute().try_collect().await.map_err(refused("list links"))?;
    Ok(links.into_iter().filter(|link| name(link).is_some_and(is_interface_name)).collect())
}

fn forward_packets(memory: &Path) -> Result<(), Error> {
    let now = fs::read_to_string(FORWARDING).map_err(broken(format!("read {FORWARDING}")))?;
    if now.trim() == "0" {
        let mark = memory.join(FORWARDING_WAS_OFF);
        let marked = fs::create_dir_all(memory).and_then(|()| fs::write(&mark, ""));
        marked.map_err(broken(format!("write {}", mark.display())))?;
        fs::write(FORWARDING, "1").map_err(broken(format!("write {FORWARDING}")))?;
    }
    Ok(())
}

/// Removes all wires of pods and the floor under them, and turns forwarding off where we turned it on.
pub async fn clean_up(setup: &Setup) -> Result<(), Error> {
    let handle = connect()?;
    for link in wires(&handle).await? {
        if let Err(error) = handle.link().del(link.header.index).execute().await {
            warn!(interface = name(&link).unwrap_or_default(), %error, "remove a pod's wire failed");
        }
    }
    match handle.route().del(unreachable(setup.cluster)).execute().await {
        Err(error) if !is_missing(&error) => {
            return Err(refused(format!("remove the route for {}", setup.cluster))(error));
        }
        _ => {}
    }
    let mark = setup.memory.join(FORWARDING_WAS_OFF);
    if mark.exists() {
        fs::write(FORWARDING, "0").map_err(broken(format!("write {FORWARDING}")))?;
        fs::remove_file(&mark).map_err(broken(format!("remove {}", mark.display())))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interface_names_fit_the_kernel_and_are_recognised() {
        let name = interface_name("0f2e4a52-8f0e-4c7d-9f3e-0a1b2c3d4e5f");
        assert!(name.len() <= 15 && is_interface_name(&name), "{name}");
        assert!(!is_interface_name("fsprivate") && !is_interface_name("eth0"));
    }
}
