//! One `local` route makes every service address this node's own: no interface carries thousands of addresses, an
//! address nobody serves never leaves the machine, and the node's own clients get the node's address as their source.

use std::net::Ipv4Addr;

use anyhow::{Context as _, bail};
use futures::TryStreamExt;
use ipnet::Ipv4Net;
use netlink_packet_route::{
    AddressFamily,
    address::AddressAttribute,
    route::{RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType},
};
use rtnetlink::{Handle, RouteMessageBuilder};
use tracing::info;

/// Marks our routes as ours ("fs"): a number no routing daemon uses.
const PROTOCOL: RouteProtocol = RouteProtocol::Other(0xf5);
/// The kernel's table of a machine's own addresses.
const LOCAL_TABLE: u32 = 255;

/// Routes of the network namespace this process runs in.
pub struct Routes(Handle);

impl Routes {
    /// # Errors
    /// Where there is no route netlink.
    pub fn open() -> anyhow::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection().context("open route netlink")?;
        // Ends with the handle.
        tokio::spawn(connection);
        Ok(Self(handle))
    }

    /// Checks that nothing else uses addresses of the service range.
    ///
    /// # Errors
    /// Names what is in the way and the remedy.
    pub async fn check_free(&self, services: Ipv4Net) -> anyhow::Result<()> {
        for route in self.routes().await? {
            let Some(taken) = destination(&route) else { continue };
            let is_default = taken.prefix_len() == 0;
            if !is_default && !is_ours(&route) && overlaps(taken, services) {
                bail!(
                    "the service range {services} overlaps the route {taken} of this machine: choose another range with --service-cidr"
                );
            }
        }
        let mut addresses = self.0.address().get().execute();
        while let Some(address) = addresses.try_next().await.context("list addresses")? {
            for attribute in &address.attributes {
                if let AddressAttribute::Address(std::net::IpAddr::V4(ip))
                | AddressAttribute::Local(std::net::IpAddr::V4(ip)) = attribute
                    && services.contains(ip)
                {
                    bail!(
                        "the service range {services} holds this machine's address {ip}: choose another range with --service-cidr"
                    );
                }
            }
        }
        Ok(())
    }

    /// Makes the range local, with the node's address as the source of the node's own connections.
    pub async fn install(&self, services: Ipv4Net, node: Ipv4Addr) -> anyhow::Result<()> {
        let mut links = self.0.link().get().match_name("lo").execute();
        let loopback = links.try_next().await.context("find lo")?.context("find lo")?.header.index;
        let route = RouteMessageBuilder::<Ipv4Addr>::new()
            .destination_prefix(services.network(), services.prefix_len())
            .output_interface(loopback)
            .pref_source(node)
            .table_id(LOCAL_TABLE)
            .scope(RouteScope::Host)
            .kind(RouteType::Local)
            .protocol(PROTOCOL)
            .build();
        let add = self.0.route().add(route).replace();
        add.execute().await.with_context(|| format!("make {services} local with source {node}"))?;
        info!(%services, source = %node, "service range is local");
        Ok(())
    }

    /// Removes every route of ours; those of another range than `kept` only, where one is given.
    pub async fn remove(&self, kept: Option<Ipv4Net>) -> anyhow::Result<()> {
        for route in self.routes().await?.into_iter().filter(is_ours) {
            let range = destination(&route);
            if range.is_some() && range == kept {
                continue;
            }
            self.0.route().del(route).execute().await.with_context(|| format!("remove the local route {range:?}"))?;
        }
        Ok(())
    }

    async fn routes(&self) -> anyhow::Result<Vec<RouteMessage>> {
        let wanted = RouteMessageBuilder::<Ipv4Addr>::new().build();
        self.0.route().get(wanted).execute().try_collect().await.context("list routes")
    }
}

fn is_ours(route: &RouteMessage) -> bool {
    route.header.kind == RouteType::Local && route.header.protocol == PROTOCOL
}

fn destination(route: &RouteMessage) -> Option<Ipv4Net> {
    if route.header.address_family != AddressFamily::Inet {
        return None;
    }
    let address = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(*address),
        _ => None,
    });
    Ipv4Net::new(address.unwrap_or(Ipv4Addr::UNSPECIFIED), route.header.destination_prefix_length).ok()
}

fn overlaps(one: Ipv4Net, other: Ipv4Net) -> bool {
    one.contains(&other) || other.contains(&one)
}
