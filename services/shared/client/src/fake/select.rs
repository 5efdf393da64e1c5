//! Which objects a watch or a list of the fake means.

use model::selector::{Fields, Labels};
use proto::{
    Kind,
    k8s::{core::v1 as core, meta::v1::Status},
};

use super::{refusal, store::Stored};
use crate::{Selection, Target};

/// A parsed selection over one resource.
#[derive(Clone)]
pub(super) struct Filter {
    pub(super) resource: (String, String),
    namespace: String,
    name: String,
    labels: Labels,
    fields: Fields,
}

impl Filter {
    pub(super) fn new(target: &Target, selection: Option<&Selection>) -> Result<Self, Status> {
        let selection = selection.cloned().unwrap_or_default();
        let labels = Labels::parse(&selection.labels).map_err(|error| refusal::bad_request(error.to_string()))?;
        let fields = Fields::parse(&selection.fields).map_err(|error| refusal::bad_request(error.to_string()))?;
        Ok(Self {
            resource: (target.group.clone(), target.resource.clone()),
            namespace: target.namespace.clone(),
            name: target.name.clone(),
            labels,
            fields,
        })
    }

    pub(super) fn matches(&self, stored: &Stored) -> bool {
        let meta = &stored.meta;
        (self.namespace.is_empty() || self.namespace == meta.namespace)
            && (self.name.is_empty() || self.name == meta.name)
            && self.labels.matches(&meta.labels)
            && self.fields.matches(|path| field(stored, path))
    }
}

fn field(stored: &Stored, path: &str) -> String {
    match path {
        "metadata.name" => return stored.meta.name.clone(),
        "metadata.namespace" => return stored.meta.namespace.clone(),
        _ => {}
    }
    match stored.object.arm {
        core::Pod::ARM => stored.object.decode_as().map(|pod| pod_field(&pod, path)),
        core::Event::ARM => stored.object.decode_as().map(|event| event_field(&event, path)),
        core::Secret::ARM => stored.object.decode_as().map(|secret: core::Secret| secret.r#type),
        core::Node::ARM => {
            stored.object.decode_as().map(|node: core::Node| node.spec.unwrap_or_default().unschedulable.to_string())
        }
        _ => Ok(String::new()),
    }
    .unwrap_or_default()
}

fn pod_field(pod: &core::Pod, path: &str) -> String {
    let (spec, status) = (model::pod::spec(pod), model::pod::status(pod));
    match path {
        "spec.nodeName" => spec.node_name.clone(),
        "spec.restartPolicy" => spec.restart_policy.clone(),
        "spec.schedulerName" => spec.scheduler_name.clone(),
        "spec.serviceAccountName" => spec.service_account_name.clone(),
        "status.phase" => status.phase.clone(),
        "status.podIP" => status.pod_ip.clone(),
        _ => String::new(),
    }
}

fn event_field(event: &core::Event, path: &str) -> String {
    let object = event.involved_object.clone().unwrap_or_default();
    match path {
        "involvedObject.kind" => object.kind,
        "involvedObject.namespace" => object.namespace,
        "involvedObject.name" => object.name,
        "involvedObject.uid" => object.uid,
        "reason" => event.reason.clone(),
        "type" => event.r#type.clone(),
        _ => String::new(),
    }
}
