//! The kinds: one line each, and a file where a kind differs.

mod config;
mod endpoints;
mod event;
mod lease;
mod namespace;
mod node;
mod pod;
mod quota;
mod replication;
mod service;

use std::{collections::HashMap, ops::RangeInclusive, sync::LazyLock};

use ipnet::Ipv4Net;
use proto::{
    codec::ResourceInfo,
    k8s::{
        admissionregistration::v1 as admissionregistration, apiextensions::v1 as apiextensions, apps::v1 as apps,
        autoscaling::v2 as autoscaling, batch::v1 as batch, certificates::v1 as certificates,
        coordination::v1 as coordination, core::v1 as core, discovery::v1 as discovery, flowcontrol::v1 as flowcontrol,
        networking::v1 as networking, node::v1 as runtime, policy::v1 as policy, rbac::v1 as rbac,
        resource::v1 as resource, scheduling::v1 as scheduling, storage::v1 as storage,
    },
};

use super::{
    record::{Shape, shape},
    strategy::{FreelyNamed, Plain, Rules, Strategy, Typed},
};

shape! {
    core::ConfigMap: whole,
    core::Endpoints: whole,
    core::Event: whole,
    core::LimitRange: whole,
    core::Namespace: status,
    core::Node: status,
    core::PersistentVolume: status,
    core::PersistentVolumeClaim: status,
    core::Pod: both,
    core::PodTemplate: whole,
    core::ReplicationController: both,
    core::ResourceQuota: status,
    core::Secret: whole,
    core::Service: status,
    core::ServiceAccount: whole,
    admissionregistration::MutatingAdmissionPolicy: generation,
    admissionregistration::MutatingAdmissionPolicyBinding: generation,
    admissionregistration::MutatingWebhookConfiguration: whole,
    admissionregistration::ValidatingAdmissionPolicy: both,
    admissionregistration::ValidatingAdmissionPolicyBinding: generation,
    admissionregistration::ValidatingWebhookConfiguration: whole,
    apiextensions::CustomResourceDefinition: both,
    apps::ControllerRevision: whole,
    apps::DaemonSet: both,
    apps::Deployment: both,
    apps::ReplicaSet: both,
    apps::StatefulSet: both,
    autoscaling::HorizontalPodAutoscaler: status,
    batch::CronJob: both,
    batch::Job: both,
    certificates::CertificateSigningRequest: status,
    coordination::Lease: whole,
    discovery::EndpointSlice: whole,
    flowcontrol::FlowSchema: both,
    flowcontrol::PriorityLevelConfiguration: both,
    networking::Ingress: both,
    networking::IngressClass: generation,
    networking::IpAddress: whole,
    networking::NetworkPolicy: generation,
    networking::ServiceCidr: status,
    policy::PodDisruptionBudget: both,
    rbac::ClusterRole: whole,
    rbac::ClusterRoleBinding: whole,
    rbac::Role: whole,
    rbac::RoleBinding: whole,
    resource::DeviceClass: generation,
    resource::ResourceClaim: status,
    resource::ResourceClaimTemplate: whole,
    resource::ResourceSlice: generation,
    runtime::RuntimeClass: whole,
    scheduling::PriorityClass: whole,
    storage::CsiDriver: whole,
    storage::CsiNode: whole,
    storage::CsiStorageCapacity: whole,
    storage::StorageClass: whole,
    storage::VolumeAttachment: status,
    storage::VolumeAttributesClass: whole,
}

/// What strategies are told about the cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    pub service_cidr: Ipv4Net,
    pub node_ports: RangeInclusive<u16>,
    pub lost_node_seconds: i64,
}

impl From<&crate::Options> for Settings {
    fn from(options: &crate::Options) -> Self {
        Self {
            service_cidr: options.service_cidr,
            node_ports: options.node_ports.clone(),
            lost_node_seconds: options.lost_node_seconds,
        }
    }
}

type ByArm = HashMap<u32, Box<dyn Rules>>;

fn add<S: Strategy>(kinds: &mut ByArm, strategy: S) {
    kinds.insert(<S::Object as proto::Kind>::ARM, Box::new(Typed(strategy)));
}

fn plain<K: Shape>(kinds: &mut ByArm) {
    add(kinds, Plain::<K>::default());
}

fn freely_named<K: Shape>(kinds: &mut ByArm) {
    add(kinds, FreelyNamed::<K>::default());
}

/// Every stored kind with its rules, by arm of `forestay.api.v1.Object`.
pub(super) fn all(settings: Settings) -> ByArm {
    let mut kinds = ByArm::new();
    let k = &mut kinds;
    add(k, pod::Pods { lost_node_seconds: settings.lost_node_seconds });
    add(k, service::Services(settings));
    add(k, replication::ReplicationControllers);
    add(k, namespace::Namespaces);
    add(k, node::Nodes);
    add(k, quota::ResourceQuotas);
    add(k, config::ConfigMaps);
    add(k, config::Secrets);
    add(k, endpoints::AllEndpoints);
    add(k, endpoints::EndpointSlices);
    add(k, event::Events);
    add(k, lease::Leases);

    plain::<core::LimitRange>(k);
    plain::<core::PersistentVolume>(k);
    plain::<core::PersistentVolumeClaim>(k);
    plain::<core::PodTemplate>(k);
    plain::<core::ServiceAccount>(k);
    plain::<admissionregistration::MutatingAdmissionPolicy>(k);
    plain::<admissionregistration::MutatingAdmissionPolicyBinding>(k);
    plain::<admissionregistration::MutatingWebhookConfiguration>(k);
    plain::<admissionregistration::ValidatingAdmissionPolicy>(k);
    plain::<admissionregistration::ValidatingAdmissionPolicyBinding>(k);
    plain::<admissionregistration::ValidatingWebhookConfiguration>(k);
    plain::<apiextensions::CustomResourceDefinition>(k);
    plain::<apps::ControllerRevision>(k);
    plain::<apps::DaemonSet>(k);
    plain::<apps::Deployment>(k);
    plain::<apps::ReplicaSet>(k);
    plain::<apps::StatefulSet>(k);
    plain::<autoscaling::HorizontalPodAutoscaler>(k);
    plain::<batch::CronJob>(k);
    plain::<batch::Job>(k);
    plain::<certificates::CertificateSigningRequest>(k);
    plain::<flowcontrol::FlowSchema>(k);
    plain::<flowcontrol::PriorityLevelConfiguration>(k);
    plain::<networking::Ingress>(k);
    plain::<networking::IngressClass>(k);
    plain::<networking::IpAddress>(k);
    plain::<networking::NetworkPolicy>(k);
    plain::<networking::ServiceCidr>(k);
    plain::<policy::PodDisruptionBudget>(k);
    freely_named::<rbac::ClusterRole>(k);
    freely_named::<rbac::ClusterRoleBinding>(k);
    freely_named::<rbac::Role>(k);
    freely_named::<rbac::RoleBinding>(k);
    plain::<resource::DeviceClass>(k);
    plain::<resource::ResourceClaim>(k);
    plain::<resource::ResourceClaimTemplate>(k);
    plain::<resource::ResourceSlice>(k);
    plain::<runtime::RuntimeClass>(k);
    plain::<scheduling::PriorityClass>(k);
    plain::<storage::CsiDriver>(k);
    plain::<storage::CsiNode>(k);
    plain::<storage::CsiStorageCapacity>(k);
    plain::<storage::StorageClass>(k);
    plain::<storage::VolumeAttachment>(k);
    plain::<storage::VolumeAttributesClass>(k);
    kinds
}

/// Whether objects of this resource are stored under their own kind.
pub(super) fn is_stored(info: &ResourceInfo) -> bool {
    static ARMS: LazyLock<Vec<u32>> =
        LazyLock::new(|| all(Settings::from(&crate::Options::default())).into_keys().collect());
    ARMS.contains(&info.arm)
}
