//! Kubernetes' paths, read: what is meant, before anybody asks how.

use proto::codec::{ResourceInfo, schema};

/// What a path names.
#[derive(Debug)]
pub enum Path {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/apps`
    Group(String),
    /// `/api/v1`, `/apis/apps/v1`
    Resources {
        group: String,
        version: String,
    },
    /// A collection, an object or a subresource.
    Object(ObjectPath),
    /// `/openapi/v2`
    OpenApiV2,
    /// `/openapi/v3`
    OpenApiIndex,
    /// `/openapi/v3/api/v1`: what follows the prefix.
    OpenApi(String),
    Version,
    Health,
    Metrics,
}

/// A collection, one object, or a part of one.
pub struct ObjectPath {
    pub resource: &'static ResourceInfo,
    /// Empty for cluster-scoped resources, and for all namespaces.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// Empty for the object itself.
    pub subresource: String,
    /// The old form of a watch: `/api/v1/watch/pods`.
    pub is_watch: bool,
}

impl std::fmt::Debug for ObjectPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { resource, namespace, name, subresource, is_watch } = self;
        let watch = if *is_watch { "watch " } else { "" };
        write!(f, "{watch}{} in {namespace:?} name {name:?} part {subresource:?}", crate::refusal::qualified(resource))
    }
}

/// Parts of a namespace that would otherwise read as resources in it.
const NAMESPACE_SUBRESOURCES: [&str; 2] = ["status", "finalize"];

/// Reads a path; `None` where nothing is served there.
pub fn parse(path: &str) -> Option<Path> {
    let segments = segments(path)?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    Some(match segments.as_slice() {
        ["api"] => Path::CoreVersions,
        ["apis"] => Path::Groups,
        ["apis", group] => Path::Group((*group).to_owned()),
        ["api", version] => Path::Resources { group: String::new(), version: (*version).to_owned() },
        ["apis", group, version] => Path::Resources { group: (*group).to_owned(), version: (*version).to_owned() },
        ["api", version, rest @ ..] => Path::Object(object("", version, rest)?),
        ["apis", group, version, rest @ ..] => Path::Object(object(group, version, rest)?),
        ["openapi", "v2"] => Path::OpenApiV2,
        ["openapi", "v3"] => Path::OpenApiIndex,
        ["openapi", "v3", rest @ ..] => Path::OpenApi(rest.join("/")),
        ["version"] => Path::Version,
        ["healthz" | "livez" | "readyz", ..] => Path::Health,
        ["metrics"] => Path::Metrics,
        _ => return None,
    })
}

/// One trailing slash is as good as none; two in a row are a mistake.
fn segments(path: &str) -> Option<Vec<String>> {
    let path = path.strip_prefix('/')?;
    let path = path.strip_suffix('/').unwrap_or(path);
    path.split('/').map(|segment| if segment.is_empty() { None } else { percent_decoded(segment) }).collect()
}

/// `system%3Anode` is `system:node`.
pub(super) fn percent_decoded(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        bytes.push(u8::try_from(digit(0)? * 16 + digit(1)?).ok()?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).ok()
}

fn object(group: &str, version: &str, rest: &[&str]) -> Option<ObjectPath> {
    let (is_watch, rest) = match rest {
        ["watch", rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (namespace, rest) = match rest {
        ["namespaces", name, part] if NAMESPACE_SUBRESOURCES.contains(part) && group.is_empty() => {
            ("", &["namespaces", name, part][..])
        }
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
        rest => ("", rest),
    };
    let (plural, name, subresource) = match rest {
        [plural] => (plural, "", ""),
        [plural, name] => (plural, *name, ""),
        [plural, name, subresource] => (plural, *name, *subresource),
        _ => return None,
    };
    let resource = resource(group, version, plural)?;
    let namespaced = resource.resource.namespaced;
    // An object of a namespaced kind lives in a namespace; one of another kind in none.
    if (!namespaced && !namespace.is_empty()) || (namespaced && namespace.is_empty() && !name.is_empty()) {
        return None;
    }
    let subresources = &resource.resource.subresources;
    if !subresource.is_empty() && !subresources.iter().any(|part| part.name == subresource && is_served(&part.name)) {
        return None;
    }
    let owned = str::to_owned;
    Some(ObjectPath {
        resource,
        namespace: owned(namespace),
        name: owned(name),
        subresource: owned(subresource),
        is_watch,
    })
}

/// The resource of a group, version and plural, where it is served.
pub fn resource(group: &str, version: &str, plural: &str) -> Option<&'static ResourceInfo> {
    let named = |info: &&ResourceInfo| {
        let resource = &info.resource;
        resource.plural == plural && resource.group == group && resource.version == version
    };
    schema().resources().iter().find(named)
}

/// The parts of objects that are answered; discovery names no others, since clients believe it.
pub fn is_served(subresource: &str) -> bool {
    matches!(subresource, "status" | "scale" | "binding" | "eviction" | "finalize" | "log" | "exec" | "attach")
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(path: &str, expected: Expect) {
        let text = match parse(path) {
            None => "nothing".to_owned(),
            Some(Path::Object(object)) => format!("{object:?}"),
            Some(other) => format!("{other:?}"),
        };
        expected.assert_eq(&text);
    }

    #[test]
    fn a_path_names_a_collection_an_object_or_a_part_of_one() {
        check("/api/v1/pods", expect![[r#"pods in "" name "" part """#]]);
        check("/api/v1/namespaces/a/pods/", expect![[r#"pods in "a" name "" part """#]]);
        check("/api/v1/namespaces/a/pods/web-1/log", expect![[r#"pods in "a" name "web-1" part "log""#]]);
        check(
            "/apis/apps/v1/namespaces/a/deployments/d/scale",
            expect![[r#"deployments.apps in "a" name "d" part "scale""#]],
        );
        check("/api/v1/nodes/n1", expect![[r#"nodes in "" name "n1" part """#]]);
        check("/api/v1/watch/namespaces/a/pods", expect![[r#"watch pods in "a" name "" part """#]]);
    }

    #[test]
    fn a_namespace_is_an_object_and_a_place() {
        check("/api/v1/namespaces", expect![[r#"namespaces in "" name "" part """#]]);
        check("/api/v1/namespaces/a", expect![[r#"namespaces in "" name "a" part """#]]);
        check("/api/v1/namespaces/a/finalize", expect![[r#"namespaces in "" name "a" part "finalize""#]]);
        check("/api/v1/namespaces/a/status", expect![[r#"namespaces in "" name "a" part "status""#]]);
        check("/api/v1/namespaces/a/services", expect![[r#"services in "a" name "" part """#]]);
    }

    #[test]
    fn names_may_be_escaped() {
        check(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
            expect![[r#"clusterroles.rbac.authorization.k8s.io in "" name "system:node" part """#]],
        );
        check("/api/v1/nodes/n%", expect!["nothing"]);
        check("/api/v1/nodes/n%zz", expect!["nothing"]);
        check("/api/v1/nodes/%ff", expect!["nothing"]);
    }

    #[test]
    fn what_is_not_served_is_nothing() {
        check("/api/v1/namespaces/a/nodes", expect!["nothing"]);
        check("/api/v1/pods/web", expect!["nothing"]);
        check("/api/v1/namespaces/a/pods/web/shell", expect!["nothing"]);
        check("/api/v2/pods", expect!["nothing"]);
        check("/apis/apps/v1/pods", expect!["nothing"]);
        check("/api//v1/pods", expect!["nothing"]);
        check("/favicon.ico", expect!["nothing"]);
        check("/", expect!["nothing"]);
    }

    #[test]
    fn discovery_and_documents_have_their_paths() {
        check("/api", expect!["CoreVersions"]);
        check("/apis", expect!["Groups"]);
        check("/apis/apps", expect![[r#"Group("apps")"#]]);
        check("/api/v1", expect![[r#"Resources { group: "", version: "v1" }"#]]);
        check("/apis/apps/v1", expect![[r#"Resources { group: "apps", version: "v1" }"#]]);
        check("/openapi/v3/apis/apps/v1", expect![[r#"OpenApi("apis/apps/v1")"#]]);
        check("/readyz/etcd", expect!["Health"]);
    }

    #[test]
    fn both_versions_of_a_resource_are_found() {
        check(
            "/apis/autoscaling/v1/horizontalpodautoscalers",
            expect![[r#"horizontalpodautoscalers.autoscaling in "" name "" part """#]],
        );
        assert_eq!(resource("autoscaling", "v2", "horizontalpodautoscalers").unwrap().resource.version, "v2");
        assert_eq!(resource("autoscaling", "v1", "horizontalpodautoscalers").unwrap().resource.version, "v1");
    }
}
