//! What is served, as clients discover it: one aggregated document, or the older lists.
//!
//! All of it comes from the resource options of the messages; nothing is written down twice.

use std::{cmp::Reverse, collections::BTreeSet};

use proto::{codec::ResourceInfo, schema::Resource};
use serde_json::{Value, json};

use super::path::is_served;

/// A group with its versions, the preferred one first.
struct Group {
    name: &'static str,
    versions: Vec<Version>,
}

struct Version {
    name: &'static str,
    resources: Vec<&'static Resource>,
}

/// Everything served, in groups: core first, the others in the order their kinds stand in.
pub struct Discovery {
    groups: Vec<Group>,
}

impl Discovery {
    pub fn of(resources: impl Iterator<Item = &'static ResourceInfo>) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for info in resources {
            let resource = &info.resource;
            let at = groups.iter().position(|group| group.name == resource.group).unwrap_or_else(|| {
                groups.push(Group { name: &resource.group, versions: Vec::new() });
                groups.len() - 1
            });
            let versions = &mut groups[at].versions;
            match versions.iter_mut().find(|version| version.name == resource.version) {
                Some(version) => version.resources.push(resource),
                None => versions.push(Version { name: &resource.version, resources: vec![resource] }),
            }
        }
        for group in &mut groups {
            group.versions.sort_by_key(|version| Reverse(version.name));
        }
        Self { groups }
    }

    /// `/apis`: every group but core.
    pub fn legacy_groups(&self) -> Value {
        let named = self.groups.iter().filter(|group| !group.name.is_empty());
        let groups: Vec<Value> = named.map(api_group).collect();
        json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
    }

    /// `/apis/apps`; `None` for a group nobody serves.
    pub fn legacy_group(&self, name: &str) -> Option<Value> {
        let group = self.groups.iter().find(|group| group.name == name && !name.is_empty())?;
        let mut value = json!({ "kind": "APIGroup", "apiVersion": "v1" });
        value.as_object_mut()?.extend(api_group(group).as_object()?.clone());
        Some(value)
    }

    /// `/api/v1`, `/apis/apps/v1`; `None` for a version nobody serves.
    pub fn legacy_resources(&self, group: &str, version: &str) -> Option<Value> {
        let group = self.groups.iter().find(|candidate| candidate.name == group)?;
        let found = group.versions.iter().find(|candidate| candidate.name == version)?;
        let mut resources = Vec::new();
        for resource in &found.resources {
            resources.push(legacy_resource(resource));
            resources.extend(parts(resource).map(|part| part.legacy(resource)));
        }
        let name = group_version(group.name, version);
        Some(json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": resources }))
    }

    /// `/api` (core) or `/apis` (all others) as one `APIGroupDiscoveryList`.
    pub fn aggregated(&self, core: bool, version: &str) -> Value {
        let groups = self.groups.iter().filter(|group| group.name.is_empty() == core);
        let items: Vec<Value> = groups.map(aggregated_group).collect();
        json!({
            "kind": "APIGroupDiscoveryList",
            "apiVersion": format!("apidiscovery.k8s.io/{version}"),
            "metadata": {},
            "items": items,
        })
    }

    /// Every path that has no parameters, for `/`.
    pub fn root_paths(&self) -> Value {
        let mut paths: BTreeSet<String> =
            ["/apis", "/healthz", "/livez", "/metrics", "/openapi/v3", "/readyz", "/version"].map(String::from).into();
        for group in &self.groups {
            let base = if group.name.is_empty() { "/api".to_owned() } else { format!("/apis/{}", group.name) };
            paths.extend(group.versions.iter().map(|version| format!("{base}/{}", version.name)));
            paths.insert(base);
        }
        json!({ "paths": paths })
    }
}

/// `/api`: the core group's versions.
pub fn core_versions(server_address: &str) -> Value {
    json!({
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{ "clientCIDR": "0.0.0.0/0", "serverAddress": server_address }],
    })
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

fn api_group(group: &Group) -> Value {
    let version =
        |version: &Version| json!({ "groupVersion": group_version(group.name, version.name), "version": version.name });
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    json!({ "name": group.name, "preferredVersion": versions.first(), "versions": versions })
}

fn legacy_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": resource.verbs,
    });
    add_lists(&mut value, resource);
    value
}

fn add_lists(value: &mut Value, resource: &Resource) {
    if !resource.short_names.is_empty() {
        value["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        value["categories"] = json!(resource.categories);
    }
}

/// A part of an object, and the kind it speaks.
struct Part<'a> {
    name: &'a str,
    group: &'a str,
    version: &'a str,
    kind: String,
    verbs: &'a [String],
}

fn parts(resource: &Resource) -> impl Iterator<Item = Part<'_>> {
    resource.subresources.iter().filter(|part| is_served(&part.name)).map(|part| {
        let (group, version) = match part.kind.as_str() {
            "" => (&resource.group, &resource.version),
            _ => (&part.group, &part.version),
        };
        Part {
            name: &part.name,
            group,
            version,
            kind: spoken_kind(&part.name, &part.kind, resource),
            verbs: &part.verbs,
        }
    })
}

/// Most parts speak their object's kind; the ones that connect to a pod speak of the connection.
fn spoken_kind(part: &str, declared: &str, resource: &Resource) -> String {
    match (part, declared) {
        (_, kind) if !kind.is_empty() => kind.to_owned(),
        ("binding", _) => "Binding".to_owned(),
        ("exec", _) => "PodExecOptions".to_owned(),
        ("attach", _) => "PodAttachOptions".to_owned(),
        _ => resource.kind.clone(),
    }
}

impl Part<'_> {
    fn legacy(&self, resource: &Resource) -> Value {
        let mut value = json!({
            "name": format!("{}/{}", resource.plural, self.name),
            "singularName": "",
            "namespaced": resource.namespaced,
            "kind": self.kind,
            "verbs": self.verbs,
        });
        if (self.group, self.version) != (resource.group.as_str(), resource.version.as_str()) {
            (value["group"], value["version"]) = (self.group.into(), self.version.into());
        }
        value
    }
}

fn aggregated_group(group: &Group) -> Value {
    let version = |version: &Version| {
        let resources: Vec<Value> = version.resources.iter().map(|resource| aggregated_resource(resource)).collect();
        json!({ "version": version.name, "resources": resources, "freshness": "Current" })
    };
    let versions: Vec<Value> = group.versions.iter().map(version).collect();
    let metadata = if group.name.is_empty() { json!({}) } else { json!({ "name": group.name }) };
    json!({ "metadata": metadata, "versions": versions })
}

fn aggregated_resource(resource: &Resource) -> Value {
    let mut value = json!({
        "resource": resource.plural,
        "responseKind": { "group": resource.group, "version": resource.version, "kind": resource.kind },
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular,
        "verbs": resource.verbs,
    });
    add_lists(&mut value, resource);
    let part = |part: Part<'_>| {
        json!({
            "subresource": part.name,
            "responseKind": { "group": part.group, "version": part.version, "kind": part.kind },
            "verbs": part.verbs,
        })
    };
    let parts: Vec<Value> = parts(resource).map(part).collect();
    if !parts.is_empty() {
        value["subresources"] = Value::Array(parts);
    }
    value
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use proto::codec::schema;

    use super::*;

    fn all() -> Discovery {
        Discovery::of(schema().resources().iter())
    }

    #[test]
    fn the_newest_version_of_a_group_is_preferred() {
        let group = all().legacy_group("autoscaling").unwrap();
        expect![[
            r#"{"kind":"APIGroup","apiVersion":"v1","name":"autoscaling","preferredVersion":{"groupVersion":"autoscaling/v2","version":"v2"},"versions":[{"groupVersion":"autoscaling/v2","version":"v2"},{"groupVersion":"autoscaling/v1","version":"v1"}]}"#
        ]]
        .assert_eq(&group.to_string());
        assert!(all().legacy_group("").is_none() && all().legacy_group("nobody").is_none());
    }

    #[test]
    fn a_resource_is_listed_with_its_parts() {
        let list = all().legacy_resources("", "v1").unwrap();
        let lines: Vec<String> = list["resources"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|resource| resource["name"].as_str().unwrap().starts_with("pods"))
            .map(|resource| format!("{} {} {}", resource["name"], resource["kind"], resource["verbs"]))
            .collect();
        expect![[r#"
            "pods" "Pod" ["create","delete","deletecollection","get","list","patch","update","watch"]
            "pods/attach" "PodAttachOptions" ["create","get"]
            "pods/binding" "Binding" ["create"]
            "pods/eviction" "Eviction" ["create"]
            "pods/exec" "PodExecOptions" ["create","get"]
            "pods/log" "Pod" ["get"]
            "pods/status" "Pod" ["get","patch","update"]"#]]
        .assert_eq(&lines.join("\n"));
        assert!(all().legacy_resources("apps", "v2").is_none());
    }

    #[test]
    fn the_aggregated_document_has_core_apart() {
        let core = all().aggregated(true, "v2");
        assert_eq!(core["items"].as_array().unwrap().len(), 1);
        assert_eq!(core["items"][0]["metadata"], json!({}));
        let others = all().aggregated(false, "v2beta1");
        assert_eq!(others["apiVersion"], "apidiscovery.k8s.io/v2beta1");
        let apps = others["items"].as_array().unwrap().iter().find(|item| item["metadata"]["name"] == "apps").unwrap();
        let resources = apps["versions"][0]["resources"].as_array().unwrap();
        let deployments = resources.iter().find(|resource| resource["resource"] == "deployments").unwrap();
        expect![[
            r#"{"resource":"deployments","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"scope":"Namespaced","singularResource":"deployment","verbs":["create","delete","deletecollection","get","list","patch","update","watch"],"shortNames":["deploy"],"categories":["all"],"subresources":[{"subresource":"scale","responseKind":{"group":"autoscaling","version":"v1","kind":"Scale"},"verbs":["get","patch","update"]},{"subresource":"status","responseKind":{"group":"apps","version":"v1","kind":"Deployment"},"verbs":["get","patch","update"]}]}"#
        ]]
        .assert_eq(&deployments.to_string());
    }

    #[test]
    fn every_resource_is_in_its_groups_list() {
        for info in schema().resources() {
            let list = all().legacy_resources(&info.resource.group, &info.resource.version).unwrap();
            assert!(list.to_string().contains(&format!("\"name\":\"{}\"", info.resource.plural)));
        }
        let paths = all().root_paths().to_string();
        assert!(paths.contains("\"/apis/apps/v1\"") && paths.contains("\"/api/v1\""), "{paths}");
    }
}
