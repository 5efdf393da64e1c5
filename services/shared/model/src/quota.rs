//! Which objects a ResourceQuota counts: all of its namespace, or the pods that its scopes describe.

use proto::k8s::core::v1::{Pod, PodAffinityTerm, ResourceQuota};

use crate::pod::{Qos, qos, spec};

/// What must hold for a pod to be counted.
struct Requirement<'a> {
    scope: &'a str,
    operator: &'a str,
    values: &'a [String],
}

/// A quota without scopes counts objects of all kinds; one with scopes counts pods alone.
pub fn covers_all(quota: &ResourceQuota) -> bool {
    requirements(quota).next().is_none()
}

/// Whether the quota counts this pod.
pub fn covers(quota: &ResourceQuota, pod: &Pod) -> bool {
    requirements(quota).all(|requirement| holds(&requirement, pod))
}

fn requirements(quota: &ResourceQuota) -> impl Iterator<Item = Requirement<'_>> {
    let spec = quota.spec.as_ref();
    let scopes = spec.into_iter().flat_map(|spec| &spec.scopes);
    let selected = spec.and_then(|spec| spec.scope_selector.as_ref()).into_iter();
    let scopes = scopes.map(|scope| Requirement { scope, operator: "Exists", values: &[] });
    scopes.chain(selected.flat_map(|selector| &selector.match_expressions).map(|rule| Requirement {
        scope: &rule.scope_name,
        operator: &rule.operator,
        values: &rule.values,
    }))
}

fn holds(Requirement { scope, operator, values }: &Requirement<'_>, pod: &Pod) -> bool {
    let class = &spec(pod).priority_class_name;
    match (*scope, *operator) {
        ("PriorityClass", "In") => values.contains(class),
        ("PriorityClass", "NotIn") => !values.contains(class),
        (scope, "DoesNotExist") => !is_in_scope(scope, pod),
        (scope, _) => is_in_scope(scope, pod),
    }
}

fn is_in_scope(scope: &str, pod: &Pod) -> bool {
    match scope {
        "BestEffort" => qos(pod) == Qos::BestEffort,
        "NotBestEffort" => qos(pod) != Qos::BestEffort,
        "Terminating" => spec(pod).active_deadline_seconds.is_some(),
        "NotTerminating" => spec(pod).active_deadline_seconds.is_none(),
        "PriorityClass" => !spec(pod).priority_class_name.is_empty(),
        "CrossNamespacePodAffinity" => looks_beyond_its_namespace(pod),
        _ => false,
    }
}

fn looks_beyond_its_namespace(pod: &Pod) -> bool {
    let affinity = spec(pod).affinity.clone().unwrap_or_default();
    let (near, apart) = (affinity.pod_affinity.unwrap_or_default(), affinity.pod_anti_affinity.unwrap_or_default());
    let preferred = near.preferred_during_scheduling_ignored_during_execution;
    let preferred = preferred.into_iter().chain(apart.preferred_during_scheduling_ignored_during_execution);
    let required = near.required_during_scheduling_ignored_during_execution;
    let required = required.into_iter().chain(apart.required_during_scheduling_ignored_during_execution);
    let is_beyond = |term: PodAffinityTerm| !term.namespaces.is_empty() || term.namespace_selector.is_some();
    required.chain(preferred.filter_map(|weighted| weighted.pod_affinity_term)).any(is_beyond)
}

#[cfg(test)]
mod tests {
    use proto::k8s::core::v1::{PodSpec, ResourceQuotaSpec, ScopeSelector, ScopedResourceSelectorRequirement};

    use super::*;

    fn quota(scopes: &[&str], rules: &[(&str, &str, &[&str])]) -> ResourceQuota {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let rule = |(scope, operator, values): &(&str, &str, &[&str])| ScopedResourceSelectorRequirement {
            scope_name: (*scope).to_owned(),
            operator: (*operator).to_owned(),
            values: texts(values),
        };
        let scope_selector =
            (!rules.is_empty()).then(|| ScopeSelector { match_expressions: rules.iter().map(rule).collect() });
        let spec = ResourceQuotaSpec { scopes: texts(scopes), scope_selector, ..Default::default() };
        ResourceQuota { spec: Some(spec), ..Default::default() }
    }

    fn pod(class: &str, deadline: Option<i64>) -> Pod {
        let spec =
            PodSpec { priority_class_name: class.into(), active_deadline_seconds: deadline, ..Default::default() };
        Pod { spec: Some(spec), ..Default::default() }
    }

    #[test]
    fn scopes_and_rules_must_all_hold() {
        let plain = quota(&[], &[]);
        assert!(covers_all(&plain) && covers(&plain, &pod("", None)));
        let ending = quota(&["Terminating", "BestEffort"], &[]);
        assert!(!covers_all(&ending) && covers(&ending, &pod("", Some(5))) && !covers(&ending, &pod("", None)));
        let urgent = quota(&["Terminating"], &[("PriorityClass", "In", &["high", "top"])]);
        assert!(covers(&urgent, &pod("top", Some(5))));
        assert!(!covers(&urgent, &pod("low", Some(5))) && !covers(&urgent, &pod("top", None)));
    }

    #[test]
    fn a_selector_alone_makes_a_quota_count_pods_only() {
        let classless = quota(&[], &[("PriorityClass", "DoesNotExist", &[])]);
        assert!(!covers_all(&classless));
        assert!(covers(&classless, &pod("", None)) && !covers(&classless, &pod("high", None)));
        assert!(covers(&quota(&[], &[("PriorityClass", "NotIn", &["high"])]), &pod("low", None)));
    }
}
