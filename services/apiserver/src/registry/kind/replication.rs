//! Replication controllers: so many pods of one template.

use model::selector::Labels;
use proto::k8s::core::v1::ReplicationController;

use super::pod;
use crate::registry::{Causes, Strategy};

pub(super) struct ReplicationControllers;

impl Strategy for ReplicationControllers {
    type Object = ReplicationController;

    fn fill_in(&self, controller: &mut ReplicationController) {
        let spec = controller.spec.get_or_insert_default();
        spec.replicas.get_or_insert(1);
        let mut labels = Default::default();
        if let Some(template) = &mut spec.template {
            pod::default_spec(template.spec.get_or_insert_default());
            labels = template.metadata.as_ref().map(|meta| meta.labels.clone()).unwrap_or_default();
            if spec.selector.is_empty() {
                spec.selector.clone_from(&labels);
            }
        }
        let meta = proto::Kind::meta_mut(controller);
        if meta.labels.is_empty() {
            meta.labels = labels;
        }
    }

    fn validate(&self, controller: &ReplicationController, causes: &mut Causes) {
        let spec = controller.spec.clone().unwrap_or_default();
        for (field, number) in [("replicas", spec.replicas.unwrap_or(0)), ("minReadySeconds", spec.min_ready_seconds)] {
            if number < 0 {
                let detail = "must be greater than or equal to 0";
                causes.invalid_number(format!("spec.{field}"), i64::from(number), detail);
            }
        }
        if spec.selector.is_empty() {
            causes.required("spec.selector", "");
        }
        let Some(template) = &spec.template else {
            causes.required("spec.template", "");
            return;
        };
        let labels = template.metadata.as_ref().map(|meta| meta.labels.clone()).unwrap_or_default();
        if !spec.selector.is_empty() && !Labels::exactly(&spec.selector).matches(&labels) {
            let shown = labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",");
            causes.invalid("spec.template.metadata.labels", &shown, "`selector` does not match template `labels`");
        }
        pod::validate_template(template, "spec.template", causes);
        let pod_spec = template.spec.clone().unwrap_or_default();
        if pod_spec.restart_policy != "Always" {
            causes.not_supported("spec.template.spec.restartPolicy", &pod_spec.restart_policy, &["Always"]);
        }
        if pod_spec.active_deadline_seconds.is_some() {
            let detail = "activeDeadlineSeconds in ReplicationController is not Supported";
            causes.forbidden("spec.template.spec.activeDeadlineSeconds", detail);
        }
    }
}
