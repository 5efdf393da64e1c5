//! Events: about an object of their own namespace, and forgotten after an hour.

use proto::k8s::core::v1::Event;

use crate::registry::{Causes, Strategy};

const TTL_SECONDS: i64 = 3600;

pub(super) struct Events;

impl Strategy for Events {
    type Object = Event;

    fn validate(&self, event: &Event, causes: &mut Causes) {
        let about = event.involved_object.as_ref().map(|about| about.namespace.as_str()).unwrap_or_default();
        let own = proto::Kind::meta(event).namespace.as_str();
        // What is about a cluster-scoped object stands in "default".
        let is_placed = if about.is_empty() { matches!(own, "default" | "kube-system") } else { about == own };
        if !is_placed {
            causes.invalid("involvedObject.namespace", about, "does not match event.namespace");
        }
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        model::validate::path_segment(name)
    }

    fn ttl_seconds(&self) -> i64 {
        TTL_SECONDS
    }
}
