//! Resource quotas.

use proto::{k8s::core::v1::ResourceQuota, quantity};

use crate::registry::{Causes, Strategy};

const SCOPES: &[&str] =
    &["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"];

pub(super) struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    type Object = ResourceQuota;

    fn validate(&self, object: &ResourceQuota, causes: &mut Causes) {
        let Some(spec) = &object.spec else { return };
        for (name, amount) in &spec.hard {
            let field = format!("spec.hard[{name}]");
            causes.invalid_each(&field, name, model::validate::qualified_name(name));
            let Ok(parsed) = quantity::parse(&amount.string) else {
                causes.invalid(&field, &amount.string, "must be a quantity, such as 4, 500m or 1Gi");
                continue;
            };
            if parsed.is_negative() {
                causes.invalid(&field, &amount.string, "must be greater than or equal to 0");
            }
            if is_counted(name) && parsed.milli() % 1000 != 0 {
                causes.invalid(&field, &amount.string, "must be an integer");
            }
        }
        for (index, scope) in spec.scopes.iter().enumerate() {
            causes.one_of(format!("spec.scopes[{index}]"), scope, SCOPES);
        }
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota, causes: &mut Causes) {
        self.validate(new, causes);
        let scopes = |quota: &ResourceQuota| quota.spec.as_ref().map(|spec| spec.scopes.clone()).unwrap_or_default();
        if scopes(new) != scopes(old) {
            causes.immutable("spec.scopes", &scopes(new).join(","));
        }
    }
}

fn is_counted(name: &str) -> bool {
    name.starts_with("count/")
        || matches!(
            name,
            "pods"
                | "services"
                | "services.nodeports"
                | "services.loadbalancers"
                | "replicationcontrollers"
                | "resourcequotas"
                | "secrets"
                | "configmaps"
                | "persistentvolumeclaims"
        )
}
