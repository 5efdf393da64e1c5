//! Namespaces: the finalizer `kubernetes` keeps one until everything in it is gone.

use proto::k8s::{core::v1::Namespace, meta::v1::Time};

use crate::registry::{Causes, Strategy, meta};

const FINALIZER: &str = "kubernetes";
/// Selects a namespace by its name, in selectors that know only labels.
const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) struct Namespaces;

impl Strategy for Namespaces {
    type Object = Namespace;

    fn prepare_create(&self, namespace: &mut Namespace, _now: Time) {
        let spec = namespace.spec.get_or_insert_default();
        if !spec.finalizers.iter().any(|name| name == FINALIZER) {
            spec.finalizers.push(FINALIZER.to_owned());
        }
        namespace.status.get_or_insert_default().phase = "Active".to_owned();
        label(namespace);
    }

    fn prepare_update(&self, new: &mut Namespace, old: &Namespace) {
        // Finalizers change through the subresource finalize alone.
        new.spec.clone_from(&old.spec);
        label(new);
    }

    fn validate(&self, namespace: &Namespace, causes: &mut Causes) {
        let finalizers = namespace.spec.as_ref().map(|spec| spec.finalizers.as_slice()).unwrap_or_default();
        meta::validate_finalizers(finalizers, "spec.finalizers", causes);
    }

    fn validate_name(&self, name: &str) -> Vec<String> {
        model::validate::dns_label(name)
    }

    fn mark_deleted(&self, namespace: &mut Namespace) {
        namespace.status.get_or_insert_default().phase = "Terminating".to_owned();
    }

    fn is_held(&self, namespace: &Namespace) -> bool {
        namespace.spec.as_ref().is_some_and(|spec| !spec.finalizers.is_empty())
    }
}

fn label(namespace: &mut Namespace) {
    let meta = proto::Kind::meta_mut(namespace);
    if !meta.name.is_empty() {
        meta.labels.insert(NAME_LABEL.to_owned(), meta.name.clone());
    }
}
