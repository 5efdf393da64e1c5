//! Pods: defaults, rules, what may change once one is made, and how one ends.

mod container;
mod defaults;
mod placement;
#[cfg(test)]
mod tests;
mod update;
mod validation;
mod volume;

use proto::k8s::{
    core::v1::{Pod, PodCondition, PodStatus},
    meta::v1::Time,
};

pub(super) use defaults::default_spec;
pub(super) use validation::validate_template;

use crate::registry::{Causes, Strategy};

pub(super) struct Pods {
    /// How long a pod that does not say so itself stays bound to a lost node.
    pub lost_node_seconds: i64,
}

impl Strategy for Pods {
    type Object = Pod;

    fn fill_in(&self, pod: &mut Pod) {
        default_spec(pod.spec.get_or_insert_default());
    }

    fn prepare_create(&self, pod: &mut Pod, now: Time) {
        let is_gated = pod.spec.as_ref().is_some_and(|spec| !spec.scheduling_gates.is_empty());
        if let Some(spec) = &mut pod.spec {
            defaults::tolerate_lost_nodes(spec, self.lost_node_seconds);
        }
        let mut status = PodStatus {
            phase: "Pending".to_owned(),
            qos_class: model::pod::qos(pod).as_str().to_owned(),
            ..PodStatus::default()
        };
        if is_gated {
            status.conditions.push(PodCondition {
                r#type: "PodScheduled".to_owned(),
                status: "False".to_owned(),
                reason: "SchedulingGated".to_owned(),
                message: "Scheduling is blocked due to non-empty scheduling gates".to_owned(),
                last_transition_time: Some(now),
                ..PodCondition::default()
            });
        }
        pod.status = Some(status);
    }

    fn prepare_update(&self, new: &mut Pod, _old: &Pod) {
        if let Some(spec) = &mut new.spec {
            defaults::tolerate_lost_nodes(spec, self.lost_node_seconds);
        }
    }

    fn prepare_status(&self, new: &mut Pod, old: &Pod) {
        // Computed once, from a spec that does not change it.
        let class = old.status.as_ref().map(|status| status.qos_class.clone()).unwrap_or_default();
        new.status.get_or_insert_default().qos_class = class;
    }

    fn validate(&self, pod: &Pod, causes: &mut Causes) {
        let spec = model::pod::spec(pod);
        validation::validate_spec(spec, "spec", causes);
        if !spec.ephemeral_containers.is_empty() {
            causes.forbidden("spec.ephemeralContainers", "cannot be set on create");
        }
    }

    fn validate_update(&self, new: &Pod, old: &Pod, causes: &mut Causes) {
        update::validate(new, old, causes);
    }

    fn grace_seconds(&self, pod: &Pod, asked: Option<i64>) -> Option<i64> {
        // Nothing runs where no node has it, or where it has ended: there is nobody to wait for.
        if !model::pod::is_scheduled(pod) || model::pod::is_terminal(pod) {
            return Some(0);
        }
        let own = pod.spec.as_ref().and_then(|spec| spec.termination_grace_period_seconds).unwrap_or(defaults::GRACE);
        let grace = asked.unwrap_or(own);
        // A negative period means "at once, but orderly".
        Some(if grace < 0 { 1 } else { grace })
    }
}
