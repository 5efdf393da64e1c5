//! Services, what is behind them, and replication controllers in full.

use model::pod;
use proto::k8s::{
    core::v1::{EndpointAddress, Endpoints, Pod, ReplicationController, Service, ServicePort},
    discovery::v1::EndpointSlice,
};

use super::{head, joined, labels, or};
use crate::output::sheet::Sheet;

pub fn describe_service(sheet: &mut Sheet, service: &Service, slices: &[EndpointSlice]) {
    let meta = service.metadata.clone().unwrap_or_default();
    let spec = service.spec.clone().unwrap_or_default();
    head(sheet, &meta);
    labels(sheet, &meta);
    sheet.field(0, "Selector", joined(&spec.selector));
    sheet.field(0, "Type", or(&spec.r#type, "ClusterIP"));
    sheet.field_if(0, "IP Family Policy", spec.ip_family_policy.as_deref().unwrap_or_default());
    sheet.field_if(0, "IP Families", &spec.ip_families.join(","));
    sheet.field(0, "IP", &spec.cluster_ip);
    sheet.field(0, "IPs", or(&spec.cluster_ips.join(","), "<none>"));
    sheet.field_if(0, "External IPs", &spec.external_ips.join(","));
    sheet.field_if(0, "External Name", &spec.external_name);
    for port in &spec.ports {
        let protocol = or(&port.protocol, "TCP");
        let name = or(&port.name, "<unset>");
        sheet.line(0, ["Port:".to_owned(), name.to_owned(), format!("{}/{protocol}", port.port)]);
        sheet.field(0, "TargetPort", format!("{}/{protocol}", target_port(port)));
        if port.node_port != 0 {
            sheet.line(0, ["NodePort:".to_owned(), name.to_owned(), format!("{}/{protocol}", port.node_port)]);
        }
        sheet.field(0, "Endpoints", endpoints(slices, &port.name));
    }
    sheet.field(0, "Session Affinity", or(&spec.session_affinity, "None"));
    sheet.field_if(0, "External Traffic Policy", &spec.external_traffic_policy);
    sheet.field_if(0, "Internal Traffic Policy", spec.internal_traffic_policy.as_deref().unwrap_or_default());
}

fn target_port(port: &ServicePort) -> String {
    match &port.target_port {
        Some(target) if target.r#type == 1 => target.str_val.clone(),
        Some(target) if target.int_val != 0 => target.int_val.to_string(),
        _ => port.port.to_string(),
    }
}

/// The ready addresses behind a port: the first three, and how many more.
fn endpoints(slices: &[EndpointSlice], name: &str) -> String {
    const SHOWN: usize = 3;
    let mut addresses = Vec::new();
    for slice in slices {
        let Some(port) = slice.ports.iter().find(|port| port.name.as_deref().unwrap_or_default() == name) else {
            continue;
        };
        let is_ready = |endpoint: &&proto::k8s::discovery::v1::Endpoint| {
            endpoint.conditions.as_ref().is_none_or(|conditions| conditions.ready != Some(false))
        };
        for endpoint in slice.endpoints.iter().filter(is_ready) {
            addresses.extend(endpoint.addresses.iter().map(|address| format!("{address}:{}", port.port.unwrap_or(0))));
        }
    }
    addresses.sort();
    let more = addresses.len().saturating_sub(SHOWN);
    addresses.truncate(SHOWN);
    match (addresses.join(","), more) {
        (list, _) if list.is_empty() => "<none>".to_owned(),
        (list, 0) => list,
        (list, more) => format!("{list} + {more} more..."),
    }
}

pub fn describe_controller(sheet: &mut Sheet, controller: &ReplicationController, pods: &[Pod]) {
    let meta = controller.metadata.clone().unwrap_or_default();
    let spec = controller.spec.clone().unwrap_or_default();
    head(sheet, &meta);
    sheet.field(0, "Selector", joined(&spec.selector));
    labels(sheet, &meta);
    let replicas = controller.status.as_ref().map_or(0, |status| status.replicas);
    sheet.field(0, "Replicas", format!("{replicas} current / {} desired", spec.replicas.unwrap_or(1)));
    let count = |phase: &str| pods.iter().filter(|pod| pod::phase(pod) == phase).count();
    let counts = [count("Running"), count("Pending"), count("Succeeded"), count("Failed")];
    sheet.field(
        0,
        "Pods Status",
        format!("{} Running / {} Waiting / {} Succeeded / {} Failed", counts[0], counts[1], counts[2], counts[3]),
    );
    super::pod::template(sheet, &spec.template.unwrap_or_default());
}

/// The addresses behind a service, ready or not, and their ports.
pub fn describe_endpoints(sheet: &mut Sheet, endpoints: &Endpoints) {
    let meta = endpoints.metadata.clone().unwrap_or_default();
    head(sheet, &meta);
    labels(sheet, &meta);
    sheet.heading(0, "Subsets");
    let list = |addresses: &[EndpointAddress]| {
        let addresses: Vec<&str> = addresses.iter().map(|address| address.ip.as_str()).collect();
        or(&addresses.join(","), "<none>").to_owned()
    };
    for subset in &endpoints.subsets {
        sheet.field(1, "Addresses", list(&subset.addresses));
        sheet.field(1, "NotReadyAddresses", list(&subset.not_ready_addresses));
        if !subset.ports.is_empty() {
            sheet.heading(1, "Ports");
            sheet.line(2, ["Name", "Port", "Protocol"]);
            sheet.line(2, ["----", "----", "--------"]);
        }
        for port in &subset.ports {
            sheet.line(2, [or(&port.name, "<unset>").to_owned(), port.port.to_string(), port.protocol.clone()]);
        }
        sheet.line(0, [""]);
    }
}
