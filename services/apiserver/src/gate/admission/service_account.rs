//! A pod that names no service account runs as its namespace's `default`.

use proto::k8s::core::v1::Pod;

use crate::registry::Record;

const DEFAULT: &str = "default";

pub(super) fn mutate(record: &mut dyn Record) {
    let Some(pod) = record.as_kind_mut::<Pod>() else { return };
    let spec = pod.spec.get_or_insert_default();
    if spec.service_account_name.is_empty() {
        let old_name = std::mem::take(&mut spec.service_account);
        spec.service_account_name = if old_name.is_empty() { DEFAULT.to_owned() } else { old_name };
    }
    // The field's former name; clients of old read it.
    spec.service_account.clone_from(&spec.service_account_name);
}
