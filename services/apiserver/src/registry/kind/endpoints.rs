//! Endpoints and EndpointSlices: the addresses behind a Service.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use model::validate;
use proto::k8s::{core::v1::Endpoints, discovery::v1::EndpointSlice};

use crate::registry::{Causes, Strategy};

const PROTOCOLS: &[&str] = &["TCP", "UDP", "SCTP"];
const ENDPOINTS_MAX: usize = 1000;
const ADDRESSES_MAX: usize = 100;
const PORTS_MAX: usize = 20_000;

pub(super) struct AllEndpoints;

impl Strategy for AllEndpoints {
    type Object = Endpoints;

    fn fill_in(&self, endpoints: &mut Endpoints) {
        for port in endpoints.subsets.iter_mut().flat_map(|subset| &mut subset.ports) {
            if port.protocol.is_empty() {
                port.protocol = "TCP".to_owned();
            }
        }
    }

    fn validate(&self, endpoints: &Endpoints, causes: &mut Causes) {
        for (index, subset) in endpoints.subsets.iter().enumerate() {
            let field = format!("subsets[{index}]");
            if subset.addresses.is_empty() && subset.not_ready_addresses.is_empty() {
                causes.required(&field, "must specify `addresses` or `notReadyAddresses`");
            }
            for (name, addresses) in
                [("addresses", &subset.addresses), ("notReadyAddresses", &subset.not_ready_addresses)]
            {
                for (at, address) in addresses.iter().enumerate() {
                    check_address(&address.ip, &format!("{field}.{name}[{at}].ip"), causes);
                }
            }
            for (at, port) in subset.ports.iter().enumerate() {
                let field = format!("{field}.ports[{at}]");
                if subset.ports.len() > 1 && port.name.is_empty() {
                    causes.required(format!("{field}.name"), "");
                }
                for problem in validate::port(i64::from(port.port)) {
                    causes.invalid_number(format!("{field}.port"), i64::from(port.port), problem);
                }
                causes.one_of(format!("{field}.protocol"), &port.protocol, PROTOCOLS);
            }
        }
    }
}

pub(super) struct EndpointSlices;

impl Strategy for EndpointSlices {
    type Object = EndpointSlice;

    fn fill_in(&self, slice: &mut EndpointSlice) {
        for port in &mut slice.ports {
            port.name.get_or_insert_default();
            port.protocol.get_or_insert_with(|| "TCP".to_owned());
        }
    }

    fn validate(&self, slice: &EndpointSlice, causes: &mut Causes) {
        causes.one_of("addressType", &slice.address_type, &["IPv4", "IPv6", "FQDN"]);
        if slice.endpoints.len() > ENDPOINTS_MAX {
            causes.invalid("endpoints", "", format!("must have at most {ENDPOINTS_MAX} items"));
        }
        if slice.ports.len() > PORTS_MAX {
            causes.invalid("ports", "", format!("must have at most {PORTS_MAX} items"));
        }
        for (index, endpoint) in slice.endpoints.iter().enumerate() {
            let field = format!("endpoints[{index}].addresses");
            if endpoint.addresses.is_empty() {
                causes.required(&field, "must contain at least 1 address");
            }
            if endpoint.addresses.len() > ADDRESSES_MAX {
                causes.invalid(&field, "", format!("must have at most {ADDRESSES_MAX} items"));
            }
            for (at, address) in endpoint.addresses.iter().enumerate() {
                let field = format!("{field}[{at}]");
                match slice.address_type.as_str() {
                    "IPv4" if address.parse::<Ipv4Addr>().is_err() => {
                        causes.invalid(&field, address, "must be a valid IPv4 address");
                    }
                    "IPv6" if address.parse::<Ipv6Addr>().is_err() => {
                        causes.invalid(&field, address, "must be a valid IPv6 address");
                    }
                    "FQDN" => causes.invalid_each(&field, address, validate::dns_subdomain(address)),
                    _ => check_address(address, &field, causes),
                }
            }
        }
        let mut names: Vec<&str> = slice.ports.iter().map(|port| port.name.as_deref().unwrap_or_default()).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            causes.duplicate("ports.name", twice[0]);
        }
    }

    fn validate_update(&self, new: &EndpointSlice, old: &EndpointSlice, causes: &mut Causes) {
        self.validate(new, causes);
        if new.address_type != old.address_type {
            causes.immutable("addressType", &new.address_type);
        }
    }
}

/// Addresses through which a Service would reach into the node or nowhere are refused.
fn check_address(address: &str, field: &str, causes: &mut Causes) {
    let Ok(parsed) = address.parse::<IpAddr>() else {
        causes.invalid_each(field, address, validate::ip(address));
        return;
    };
    let is_link_local = match parsed {
        IpAddr::V4(v4) => v4.is_link_local() || v4.octets()[..3] == [224, 0, 0],
        IpAddr::V6(v6) => v6.segments()[0] & 0xffc0 == 0xfe80,
    };
    if parsed.is_unspecified() {
        causes.invalid(field, address, "may not be unspecified (0.0.0.0 or ::)");
    } else if parsed.is_loopback() {
        causes.invalid(field, address, "may not be in the loopback range (127.0.0.0/8, ::1/128)");
    } else if is_link_local {
        causes.invalid(field, address, "may not be in the link-local range (169.254.0.0/16, fe80::/10)");
    }
}
