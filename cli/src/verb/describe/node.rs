//! A node in full, with the pods on it and what they ask for.

use model::{
    resources::{Amount, Quantities, Resources, pod_limits, pod_requests},
    table::age,
};
use proto::k8s::{
    coordination::v1::Lease,
    core::v1::{Node, Pod},
};

use super::{head, labels, moment, second};
use crate::output::sheet::Sheet;

const ROLE: &str = "node-role.kubernetes.io/";

pub fn describe(sheet: &mut Sheet, node: &Node, lease: Option<&Lease>, pods: &[Pod], now: i64) {
    let meta = node.metadata.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let status = node.status.clone().unwrap_or_default();
    head(sheet, &meta);
    let roles: Vec<&str> = meta.labels.keys().filter_map(|key| key.strip_prefix(ROLE)).collect();
    sheet.field(0, "Roles", if roles.is_empty() { "<none>".to_owned() } else { roles.join(",") });
    labels(sheet, &meta);
    sheet.field(0, "CreationTimestamp", moment(meta.creation_timestamp.as_ref()));
    let taints = spec.taints.iter().map(|taint| {
        let value = if taint.value.is_empty() { String::new() } else { format!("={}", taint.value) };
        format!("{}{value}:{}", taint.key, taint.effect)
    });
    sheet.values(0, "Taints", taints);
    sheet.field(0, "Unschedulable", spec.unschedulable.to_string());
    if let Some(lease) = lease.and_then(|lease| lease.spec.as_ref()) {
        sheet.heading(0, "Lease");
        sheet.field(1, "HolderIdentity", lease.holder_identity.as_deref().unwrap_or("<unset>"));
        sheet.field(1, "RenewTime", second(lease.renew_time.map_or(0, |time| time.seconds)));
    }
    if !status.conditions.is_empty() {
        sheet.heading(0, "Conditions");
        sheet.line(1, ["Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"]);
        sheet.line(1, ["----", "------", "-----------------", "------------------", "------", "-------"]);
        for condition in &status.conditions {
            let (beat, change) =
                (moment(condition.last_heartbeat_time.as_ref()), moment(condition.last_transition_time.as_ref()));
            let cells = [&condition.r#type, &condition.status, &beat, &change, &condition.reason, &condition.message];
            // kubectl's tables have these blanks; eyes and scripts are used to the widths.
            sheet.line(1, cells.map(|cell| format!("{cell} ")));
        }
    }
    sheet.heading(0, "Addresses");
    status.addresses.iter().for_each(|address| sheet.field(1, &address.r#type, &address.address));
    quantities(sheet, "Capacity", &status.capacity);
    quantities(sheet, "Allocatable", &status.allocatable);
    let info = status.node_info.clone().unwrap_or_default();
    sheet.heading(0, "System Info");
    for (name, value) in [
        ("Machine ID", &info.machine_id),
        ("System UUID", &info.system_uuid),
        ("Boot ID", &info.boot_id),
        ("Kernel Version", &info.kernel_version),
        ("OS Image", &info.os_image),
        ("Operating System", &info.operating_system),
        ("Architecture", &info.architecture),
        ("Container Runtime Version", &info.container_runtime_version),
        ("Kubelet Version", &info.kubelet_version),
    ] {
        sheet.field(1, name, value);
    }
    sheet.field_if(0, "PodCIDR", &spec.pod_cidr);
    sheet.field_if(0, "PodCIDRs", &spec.pod_cidrs.join(","));
    describe_pods(sheet, &Resources::of(&status.allocatable), pods, now);
}

fn describe_pods(sheet: &mut Sheet, allocatable: &Resources, pods: &[Pod], now: i64) {
    let percent = |amount: Amount, name: &str| format!("{amount} ({}%)", amount.percent_of(allocatable.get(name)));
    sheet.line(0, ["Non-terminated Pods:".to_owned(), format!("({} in total)", pods.len())]);
    sheet.line(1, ["Namespace", "Name", "CPU Requests", "CPU Limits", "Memory Requests", "Memory Limits", "Age"]);
    sheet.line(1, ["---------", "----", "------------", "----------", "---------------", "-------------", "---"]);
    let (mut all_requests, mut all_limits) = (Resources::default(), Resources::default());
    for pod in pods {
        let meta = pod.metadata.clone().unwrap_or_default();
        let (requests, limits) = (pod_requests(pod), pod_limits(pod));
        let of = |resources: &Resources, name: &str| percent(resources.get(name), name);
        let (cpu, memory) =
            ((of(&requests, "cpu"), of(&limits, "cpu")), (of(&requests, "memory"), of(&limits, "memory")));
        sheet.line(
            1,
            [meta.namespace, meta.name, cpu.0, cpu.1, memory.0, memory.1, age(meta.creation_timestamp.as_ref(), now)],
        );
        all_requests.add(&requests);
        all_limits.add(&limits);
    }
    sheet.heading(0, "Allocated resources");
    sheet.line(1, ["(Total limits may be over 100 percent, i.e., overcommitted.)"]);
    sheet.line(1, ["Resource", "Requests", "Limits"]);
    sheet.line(1, ["--------", "--------", "------"]);
    let mut names: Vec<&str> = vec!["cpu", "memory", "ephemeral-storage"];
    names.extend(
        all_requests.0.keys().map(String::as_str).filter(|name| !["cpu", "memory", "ephemeral-storage"].contains(name)),
    );
    for name in names {
        let (requests, limits) = (percent(all_requests.get(name), name), percent(all_limits.get(name), name));
        sheet.line(1, [name.to_owned(), requests, limits]);
    }
}

fn quantities(sheet: &mut Sheet, name: &str, list: &Quantities) {
    if !list.is_empty() {
        sheet.heading(0, name);
        list.iter().for_each(|(name, quantity)| sheet.field(1, name, &quantity.string));
    }
}
