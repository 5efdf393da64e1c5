//! What may change once a pod is made: images, deadlines and tolerations; nothing else of its spec.

use proto::k8s::core::v1::{Pod, PodSpec};

use super::{defaults::GRACE, validation};
use crate::registry::Causes;

const FORBIDDEN: &str = "pod updates may not change fields other than `spec.containers[*].image`,\
                         `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions \
                         to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it \
                         was previously negative)";

pub(super) fn validate(new: &Pod, old: &Pod, causes: &mut Causes) {
    let (new, old) = (model::pod::spec(new), model::pod::spec(old));
    if new == old {
        return;
    }
    validation::validate_spec(new, "spec", causes);
    if new.containers.len() != old.containers.len() {
        causes.forbidden("spec.containers", "pod updates may not add or remove containers");
        return;
    }
    if new.init_containers.len() != old.init_containers.len() {
        causes.forbidden("spec.initContainers", "pod updates may not add or remove containers");
        return;
    }
    check_deadline(new, old, causes);
    if old.tolerations.iter().any(|kept| !new.tolerations.contains(kept)) {
        causes.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
    let gates = |spec: &PodSpec| spec.scheduling_gates.iter().map(|gate| gate.name.clone()).collect::<Vec<_>>();
    if gates(new).iter().any(|gate| !gates(old).contains(gate)) {
        causes.forbidden("spec.schedulingGates", "only deletion is allowed, but found new scheduling gates");
    }
    if alike(new.clone(), old) != *old {
        causes.forbidden("spec", FORBIDDEN);
    }
}

/// The new spec with all that may change put back.
fn alike(mut new: PodSpec, old: &PodSpec) -> PodSpec {
    for (new, old) in new.containers.iter_mut().zip(&old.containers) {
        new.image.clone_from(&old.image);
    }
    for (new, old) in new.init_containers.iter_mut().zip(&old.init_containers) {
        new.image.clone_from(&old.image);
    }
    new.active_deadline_seconds = old.active_deadline_seconds;
    new.tolerations.clone_from(&old.tolerations);
    new.scheduling_gates.clone_from(&old.scheduling_gates);
    if old.termination_grace_period_seconds.unwrap_or(GRACE) < 0 && new.termination_grace_period_seconds == Some(1) {
        new.termination_grace_period_seconds = old.termination_grace_period_seconds;
    }
    new
}

fn check_deadline(new: &PodSpec, old: &PodSpec, causes: &mut Causes) {
    match (new.active_deadline_seconds, old.active_deadline_seconds) {
        (Some(new), Some(old)) if new > old => {
            causes.invalid_number(
                "spec.activeDeadlineSeconds",
                new,
                format!("must be less than or equal to previous value {old}"),
            );
        }
        (None, Some(_)) => causes.invalid("spec.activeDeadlineSeconds", "null", "must not update from a value to nil"),
        _ => {}
    }
}
