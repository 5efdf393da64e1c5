//! Resource quotas.

use proto::{
    k8s::core::v1::{ResourceQuota, ResourceQuotaSpec, ScopedResourceSelectorRequirement},
    quantity,
};

use crate::registry::{Causes, Strategy};

const SCOPES: &[&str] =
    &["Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"];
const OPERATORS: &[&str] = &["In", "NotIn", "Exists", "DoesNotExist"];
/// Scopes of which a pod is in one or the other.
const OPPOSITES: &[(&str, &str)] = &[("BestEffort", "NotBestEffort"), ("Terminating", "NotTerminating")];
/// Names without a domain that a quota may bound, besides `count/...` and what stands behind `requests.` and `limits.`.
const STANDARD: &[&str] = &[
    "pods",
    "services",
    "services.nodeports",
    "services.loadbalancers",
    "replicationcontrollers",
    "resourcequotas",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
];

pub(super) struct ResourceQuotas;

impl Strategy for ResourceQuotas {
    type Object = ResourceQuota;

    fn validate(&self, object: &ResourceQuota, causes: &mut Causes) {
        let Some(spec) = &object.spec else { return };
        for (name, amount) in &spec.hard {
            let field = format!("spec.hard[{name}]");
            causes.invalid_each(&field, name, model::validate::qualified_name(name));
            if !name.contains('/') && !is_standard(name) {
                causes.invalid(&field, name, "must be a standard resource for quota");
            }
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
        for (index, rule) in spec.scope_selector.iter().flat_map(|selector| &selector.match_expressions).enumerate() {
            validate_rule(rule, &format!("spec.scopeSelector.matchExpressions[{index}]"), causes);
        }
        validate_scopes(spec, causes);
    }

    fn validate_update(&self, new: &ResourceQuota, old: &ResourceQuota, causes: &mut Causes) {
        self.validate(new, causes);
        let spec = |quota: &ResourceQuota| quota.spec.clone().unwrap_or_default();
        let (new, old) = (spec(new), spec(old));
        if new.scopes != old.scopes {
            causes.immutable("spec.scopes", &new.scopes.join(","));
        }
        if new.scope_selector != old.scope_selector {
            causes.immutable("spec.scopeSelector", "");
        }
    }
}

fn validate_rule(rule: &ScopedResourceSelectorRequirement, field: &str, causes: &mut Causes) {
    causes.one_of(format!("{field}.scopeName"), &rule.scope_name, SCOPES);
    causes.one_of(format!("{field}.operator"), &rule.operator, OPERATORS);
    let values = format!("{field}.values");
    match rule.operator.as_str() {
        "In" | "NotIn" if rule.scope_name != "PriorityClass" => {
            let detail = "must be 'Exists' or 'DoesNotExist' for every scope but PriorityClass";
            causes.invalid(format!("{field}.operator"), &rule.operator, detail);
        }
        "In" | "NotIn" if rule.values.is_empty() => {
            causes.required(values, "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector");
        }
        "Exists" | "DoesNotExist" if !rule.values.is_empty() => {
            causes.invalid(
                values,
                &rule.values.join(","),
                "must be no value when `operator` is 'Exists' or 'DoesNotExist'",
            );
        }
        _ => {}
    }
}

/// Scopes describe pods: they cannot bound other objects, nor contradict each other.
fn validate_scopes(spec: &ResourceQuotaSpec, causes: &mut Causes) {
    let selected = spec.scope_selector.iter().flat_map(|selector| &selector.match_expressions);
    let scopes: Vec<&str> =
        spec.scopes.iter().chain(selected.map(|rule| &rule.scope_name)).map(String::as_str).collect();
    if let Some(scope) = scopes.first() {
        for name in spec.hard.keys().filter(|name| !is_of_pods(name)) {
            let detail = "unsupported scope applied to resource";
            causes.invalid("spec.scopes", scope, format!("{detail} {name}"));
        }
    }
    for (one, other) in OPPOSITES {
        if scopes.contains(one) && scopes.contains(other) {
            causes.invalid("spec.scopes", &format!("{one},{other}"), "conflicting scopes");
        }
    }
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || name.starts_with("requests.hugepages-") || name.starts_with("limits.hugepages-")
}

/// What of a quota is counted of pods.
fn is_of_pods(name: &str) -> bool {
    matches!(name, "pods" | "count/pods" | "cpu" | "memory" | "ephemeral-storage")
        || (name.starts_with("requests.") && name != "requests.storage")
        || name.starts_with("limits.")
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proto::k8s::{core::v1::ScopeSelector, resource::Quantity};

    use super::*;

    fn check(hard: &[&str], scopes: &[&str], rules: &[(&str, &str, &[&str])], expected: Expect) {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rule = |(scope, operator, values): &(&str, &str, &[&str])| ScopedResourceSelectorRequirement {
            scope_name: (*scope).to_owned(),
            operator: (*operator).to_owned(),
            values: texts(values),
        };
        let spec = ResourceQuotaSpec {
            hard: hard.iter().map(|name| ((*name).to_owned(), Quantity { string: "1".to_owned() })).collect(),
            scopes: texts(scopes),
            scope_selector: Some(ScopeSelector { match_expressions: rules.iter().map(rule).collect() }),
        };
        let mut causes = Causes::default();
        ResourceQuotas.validate(&ResourceQuota { spec: Some(spec), ..Default::default() }, &mut causes);
        expected.assert_eq(&causes.lines());
    }

    #[test]
    fn a_quota_bounds_what_there_is_to_count() {
        let real = ["pods", "count/jobs.batch", "requests.example.com/gpu", "limits.hugepages-2Mi", "example.com/x"];
        check(&real, &[], &[], expect![""]);
        check(
            &["pod", "requests.gpu"],
            &[],
            &[],
            expect![[r#"
            spec.hard[pod]: Invalid value: "pod": must be a standard resource for quota
            spec.hard[requests.gpu]: Invalid value: "requests.gpu": must be a standard resource for quota
        "#]],
        );
    }

    #[test]
    fn scopes_describe_pods_and_agree() {
        check(&["pods", "requests.cpu"], &["Terminating"], &[("PriorityClass", "In", &["high"])], expect![""]);
        check(
            &["pods", "configmaps"],
            &["BestEffort", "NotBestEffort"],
            &[],
            expect![[r#"
            spec.scopes: Invalid value: "BestEffort": unsupported scope applied to resource configmaps
            spec.scopes: Invalid value: "BestEffort,NotBestEffort": conflicting scopes
        "#]],
        );
        let rules: &[(&str, &str, &[&str])] =
            &[("PriorityClass", "In", &[]), ("BestEffort", "In", &["x"]), ("Class", "Is", &[])];
        check(
            &["pods"],
            &[],
            rules,
            expect![[r#"
            spec.scopeSelector.matchExpressions[0].values: Required value: must be at least one value when `operator` is 'In' or 'NotIn' for scope selector
            spec.scopeSelector.matchExpressions[1].operator: Invalid value: "In": must be 'Exists' or 'DoesNotExist' for every scope but PriorityClass
            spec.scopeSelector.matchExpressions[2].scopeName: Unsupported value: "Class": supported values: "Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass", "CrossNamespacePodAffinity"
            spec.scopeSelector.matchExpressions[2].operator: Unsupported value: "Is": supported values: "In", "NotIn", "Exists", "DoesNotExist"
        "#]],
        );
    }
}
