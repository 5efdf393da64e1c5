//! Nodes: whether they are ready and take pods, their roles, addresses and versions.

use prost::Message;
use proto::{
    Kind,
    k8s::core::v1::{Node, NodeStatus},
};

use super::{AGE, Column, NAME, Row, Sheet, age, or, text};

pub static SHEET: Sheet = sheet!(COLUMNS, Node, row);

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Status", "Whether the node answers, and whether it takes new pods."),
    Column::text("Roles", "The roles its labels give it."),
    AGE,
    Column::text("Version", "The version its kubelet reports."),
    Column::text("Internal-IP", "Its address inside the cluster.").wide(),
    Column::text("External-IP", "Its address outside the cluster.").wide(),
    Column::text("OS-Image", "The operating system it reports.").wide(),
    Column::text("Kernel-Version", "The kernel it reports.").wide(),
    Column::text("Container-Runtime", "The container runtime and its version.").wide(),
];

const ROLE_LABEL_PREFIX: &str = "node-role.kubernetes.io/";
const ROLE_LABEL: &str = "kubernetes.io/role";

fn row(node: &Node, now: i64) -> Row {
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.clone().unwrap_or_default();
    Row::of([
        text(&node.meta().name),
        condition(node, &status).into(),
        roles(node).into(),
        age(node.meta().creation_timestamp.as_ref(), now).into(),
        text(&info.kubelet_version),
        text(address(&status, "InternalIP")),
        text(address(&status, "ExternalIP")),
        text(or(&info.os_image, "<unknown>")),
        text(or(&info.kernel_version, "<unknown>")),
        text(or(&info.container_runtime_version, "<unknown>")),
    ])
}

fn condition(node: &Node, status: &NodeStatus) -> String {
    let ready = status.conditions.iter().find(|condition| condition.r#type == "Ready");
    let word = match ready {
        Some(condition) if condition.status == "True" => "Ready",
        Some(_) => "NotReady",
        None => "Unknown",
    };
    let closed = node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
    format!("{word}{}", if closed { ",SchedulingDisabled" } else { "" })
}

fn roles(node: &Node) -> String {
    let mut roles: Vec<&str> = Vec::new();
    for (label, value) in &node.meta().labels {
        match label.strip_prefix(ROLE_LABEL_PREFIX) {
            Some(role) if !role.is_empty() => roles.push(role),
            None if label == ROLE_LABEL && !value.is_empty() => roles.push(value),
            _ => {}
        }
    }
    roles.sort_unstable();
    roles.dedup();
    or(&roles.join(","), "<none>").to_owned()
}

fn address<'a>(status: &'a NodeStatus, kind: &str) -> &'a str {
    status.addresses.iter().find(|address| address.r#type == kind).map_or("<none>", |address| &address.address)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::core::v1::{NodeAddress, NodeCondition, NodeSpec, NodeSystemInfo};

    use super::*;

    #[test]
    fn a_cordoned_ready_node_says_both() {
        let mut node = Node {
            spec: Some(NodeSpec { unschedulable: true, ..Default::default() }),
            status: Some(NodeStatus {
                conditions: vec![NodeCondition { r#type: "Ready".into(), status: "True".into(), ..Default::default() }],
                addresses: vec![NodeAddress { r#type: "InternalIP".into(), address: "10.0.0.5".into() }],
                node_info: Some(NodeSystemInfo {
                    kubelet_version: "v1.36.0+forestay".into(),
                    os_image: "Debian GNU/Linux 12".into(),
                    container_runtime_version: "docker://26.1".into(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        node.meta_mut().name = "n1".into();
        node.meta_mut().labels.insert("node-role.kubernetes.io/control-plane".into(), String::new());
        node.meta_mut().labels.insert("kubernetes.io/role".into(), "edge".into());
        expect![[r#"
            Name               n1
            Status             Ready,SchedulingDisabled
            Roles              control-plane,edge
            Age                <unknown>
            Version            v1.36.0+forestay
            Internal-IP        10.0.0.5
            External-IP        <none>
            OS-Image           Debian GNU/Linux 12
            Kernel-Version     <unknown>
            Container-Runtime  docker://26.1
        "#]]
        .assert_eq(&super::super::show::row(&SHEET, &row(&node, 0)));
    }

    #[test]
    fn a_node_that_never_reported_is_unknown() {
        assert_eq!(row(&Node::default(), 0).cells[1], "Unknown".into());
        let mut node = Node::default();
        let condition = NodeCondition { r#type: "Ready".into(), status: "Unknown".into(), ..Default::default() };
        node.status.get_or_insert_default().conditions.push(condition);
        assert_eq!(row(&node, 0).cells[1], "NotReady".into());
    }
}
