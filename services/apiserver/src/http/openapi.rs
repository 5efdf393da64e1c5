//! OpenAPI v3, a document per group and version, made from the messages' descriptors.
//!
//! Enough for what clients read it for: whether the server validates fields, the keys of strategic merge patches, and
//! `explain`. Everything the documents say comes from the tables that the codec and the patches run on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::OnceLock,
};

use bytes::Bytes;
use prost::encoding;
use proto::{
    codec::{Cardinality, Field, FieldType, MessageId, ResourceInfo, Scalar, schema},
    schema::Form,
};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::accept;

const TITLE: &str = "Forestay, a Kubernetes API";

/// A rendered document and the hash that names its content.
pub struct Document {
    pub hash: String,
    pub body: Bytes,
}

/// Every document by its path below `/openapi/v3/`, rendered at first use.
pub fn documents() -> &'static BTreeMap<String, Document> {
    static DOCUMENTS: OnceLock<BTreeMap<String, Document>> = OnceLock::new();
    DOCUMENTS.get_or_init(|| {
        let path = |group: &str, version: &str| match group {
            "" => format!("api/{version}"),
            group => format!("apis/{group}/{version}"),
        };
        group_versions().into_iter().map(|(group, version)| (path(group, version), rendered(group, version))).collect()
    })
}

/// `/openapi/v3`: where the documents are; the hash lets clients keep them for ever.
pub fn index() -> Value {
    let entry = |(path, document): (&String, &Document)| {
        (path.clone(), json!({ "serverRelativeURL": format!("/openapi/v3/{path}?hash={}", document.hash) }))
    };
    json!({ "paths": documents().iter().map(entry).collect::<Map<_, _>>() })
}

/// The one form in which `/openapi/v2` is served.
pub const V2_MEDIA_TYPE: &str = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";

/// What that form is called in the answer: the name clients ask by is none that Go's media type parser reads.
pub const V2_ANSWER_TYPE: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";

/// An OpenAPI v2 document that defines nothing, as gnostic's `Document { swagger = 1, info = 2 }`.
///
/// kubectl 1.27 and 1.28 stop without one before they turn to the v3 documents, which have what they look for.
pub fn v2_document() -> Bytes {
    let (mut info, mut document) = (Vec::new(), Vec::new());
    encoding::string::encode(1, &TITLE.to_owned(), &mut info);
    encoding::string::encode(2, &crate::git_version(), &mut info);
    encoding::string::encode(1, &"2.0".to_owned(), &mut document);
    encoding::bytes::encode(2, &info, &mut document);
    document.into()
}

fn group_versions() -> BTreeSet<(&'static str, &'static str)> {
    schema().resources().iter().map(|info| (info.resource.group.as_str(), info.resource.version.as_str())).collect()
}

fn rendered(group: &str, version: &str) -> Document {
    let body = document(group, version).to_string();
    let hash = Sha256::digest(body.as_bytes()).iter().map(|byte| format!("{byte:02X}")).collect();
    Document { hash, body: body.into() }
}

fn document(group: &str, version: &str) -> Value {
    let mut paths = Map::new();
    let mut schemas = Schemas::default();
    let here = |info: &&ResourceInfo| info.resource.group == group && info.resource.version == version;
    for info in schema().resources().iter().filter(here) {
        schemas.reach(info.message);
        let list = format!("{}List", schema()[info.message].full_name);
        if let Some(list) = schema().message(&list) {
            schemas.reach(list);
        }
        add_paths(info, &mut paths);
    }
    for named in ["DeleteOptions", "Status"] {
        if let Some(message) = schema().message(&format!("k8s.api.meta.v1.{named}")) {
            schemas.reach(message);
        }
    }
    json!({
        "openapi": "3.0.0",
        "info": { "title": TITLE, "version": crate::git_version() },
        "paths": paths,
        "components": { "schemas": schemas.rendered() },
    })
}

fn add_paths(info: &ResourceInfo, paths: &mut Map<String, Value>) {
    let resource = &info.resource;
    let base = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    let place = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{base}{place}/{}", resource.plural);
    let operations = |verbs: &[(&str, &str)]| {
        let served = verbs.iter().filter(|(_, verb)| resource.verbs.iter().any(|served| served == verb));
        served.map(|(method, verb)| ((*method).to_owned(), operation(info, verb))).collect::<Map<_, _>>()
    };
    let many = operations(&[("get", "list"), ("post", "create"), ("delete", "deletecollection")]);
    let one = operations(&[("get", "get"), ("put", "update"), ("patch", "patch"), ("delete", "delete")]);
    if resource.namespaced {
        let everywhere = operations(&[("get", "list")]);
        insert(paths, format!("{base}/{}", resource.plural), everywhere);
    }
    insert(paths, format!("{collection}/{{name}}"), one);
    insert(paths, collection, many);
}

fn insert(paths: &mut Map<String, Value>, path: String, operations: Map<String, Value>) {
    if !operations.is_empty() {
        paths.insert(path, Value::Object(operations));
    }
}

fn operation(info: &ResourceInfo, verb: &str) -> Value {
    let resource = &info.resource;
    let parameter =
        |name: &&str| json!({ "name": name, "in": "query", "schema": { "type": "string", "uniqueItems": true } });
    let parameters: &[&str] = match verb {
        "create" | "update" | "patch" => &["dryRun", "fieldManager", "fieldValidation"],
        "list" | "deletecollection" => &["labelSelector", "fieldSelector", "limit", "continue", "resourceVersion"],
        "delete" => &["dryRun", "gracePeriodSeconds", "propagationPolicy"],
        _ => &[],
    };
    let answer = match verb {
        "list" => schema().message(&format!("{}List", schema()[info.message].full_name)).unwrap_or(info.message),
        _ => info.message,
    };
    let mut operation = json!({
        "tags": [resource.plural],
        "parameters": parameters.iter().map(parameter).collect::<Vec<_>>(),
        "responses": { "200": { "description": "OK", "content": { accept::JSON: { "schema": reference(answer) } } } },
        "x-kubernetes-action": action(verb),
        "x-kubernetes-group-version-kind":
            { "group": resource.group, "version": resource.version, "kind": resource.kind },
    });
    let body =
        |media_type: &str, schema: Value| json!({ "content": { media_type: { "schema": schema } }, "required": true });
    match verb {
        "create" | "update" => operation["requestBody"] = body("*/*", reference(info.message)),
        "patch" => {
            let media_types = ["json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml"];
            let content = |name: &str| (format!("application/{name}"), json!({ "schema": { "type": "object" } }));
            let content: Map<String, Value> = media_types.into_iter().map(content).collect();
            operation["requestBody"] = json!({ "content": content, "required": true });
        }
        _ => {}
    }
    operation
}

/// The name Kubernetes' documents have for a verb.
fn action(verb: &str) -> &str {
    match verb {
        "create" => "post",
        "update" => "put",
        other => other,
    }
}

fn reference(message: MessageId) -> Value {
    json!({ "$ref": format!("#/components/schemas/{}", name(message)) })
}

/// The name a message has in Kubernetes' documents.
fn name(message: MessageId) -> String {
    let message = &schema()[message];
    let package = message.package.trim_start_matches("k8s.api.");
    match package {
        "meta.v1" => format!("io.k8s.apimachinery.pkg.apis.meta.v1.{}", message.name),
        "resource" => format!("io.k8s.apimachinery.pkg.api.resource.{}", message.name),
        "runtime" => format!("io.k8s.apimachinery.pkg.runtime.{}", message.name),
        "intstr" => format!("io.k8s.apimachinery.pkg.util.intstr.{}", message.name),
        "apiextensions.v1" => format!("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.{}", message.name),
        package => format!("io.k8s.api.{package}.{}", message.name),
    }
}

/// The messages one document speaks of, found by following fields.
#[derive(Default)]
struct Schemas {
    reached: BTreeSet<MessageId>,
}

impl Schemas {
    fn reach(&mut self, message: MessageId) {
        if !self.reached.insert(message) || schema()[message].form != Form::Plain {
            return;
        }
        for field in schema().json_fields(message) {
            if let FieldType::Message(inner) = field.field_type {
                self.reach(inner);
            }
        }
    }

    fn rendered(&self) -> Map<String, Value> {
        let kinds = kinds();
        self.reached.iter().map(|message| (name(*message), message_schema(*message, &kinds))).collect()
    }
}

/// apiVersion and kind of every message that is a resource's object or list.
fn kinds() -> BTreeMap<MessageId, (&'static str, &'static str)> {
    let mut kinds = BTreeMap::new();
    for info in schema().resources() {
        let version = (info.resource.group.as_str(), info.resource.version.as_str());
        kinds.insert(info.message, version);
        if let Some(list) = schema().message(&format!("{}List", schema()[info.message].full_name)) {
            kinds.insert(list, version);
        }
    }
    kinds
}

fn message_schema(message: MessageId, kinds: &BTreeMap<MessageId, (&'static str, &'static str)>) -> Value {
    let id = message;
    let message = &schema()[id];
    let mut value = match message.form {
        Form::Plain => json!({ "type": "object" }),
        Form::Time | Form::MicroTime => json!({ "type": "string", "format": "date-time" }),
        Form::Duration => json!({ "type": "string" }),
        Form::Quantity => json!({ "oneOf": [{ "type": "string" }, { "type": "number" }] }),
        Form::IntOrString => {
            json!({ "format": "int-or-string", "oneOf": [{ "type": "integer" }, { "type": "string" }] })
        }
        Form::RawJson => json!({ "type": "object" }),
        Form::Items => json!({ "type": "array", "items": { "type": "string", "default": "" } }),
        Form::SchemaOrArray | Form::SchemaOrBool | Form::SchemaOrStrings => json!({}),
    };
    if !message.comment.is_empty() {
        value["description"] = message.comment.into();
    }
    if message.form != Form::Plain {
        return value;
    }
    let mut properties = Map::new();
    if message.is_object {
        let text = |description: &str| json!({ "type": "string", "description": description });
        properties.insert("apiVersion".to_owned(), text("Group and version of this object's schema: apps/v1."));
        properties.insert("kind".to_owned(), text("What this object is: Pod."));
    }
    let fields = schema().json_fields(id);
    let required: Vec<&str> =
        fields.iter().filter(|field| field.schema.required).map(|field| field.json_name).collect();
    properties.extend(fields.iter().map(|field| (field.json_name.to_owned(), field_schema(field))));
    value["properties"] = Value::Object(properties);
    if !required.is_empty() {
        value["required"] = json!(required);
    }
    if let Some((group, version)) = kinds.get(&id) {
        value["x-kubernetes-group-version-kind"] =
            json!([{ "group": group, "version": version, "kind": message.name }]);
    }
    value
}

fn field_schema(field: &Field) -> Value {
    let mut value = match field.cardinality {
        Cardinality::Single | Cardinality::Optional => type_schema(field.field_type),
        Cardinality::List => json!({ "type": "array", "items": type_schema(field.field_type) }),
        Cardinality::Map => json!({ "type": "object", "additionalProperties": type_schema(field.field_type) }),
    };
    let options = &field.schema;
    if options.object && field.cardinality == Cardinality::Single {
        value["default"] = json!({});
    }
    if !field.comment.is_empty() {
        value["description"] = field.comment.into();
    }
    if !options.patch_merge_key.is_empty() {
        value["x-kubernetes-patch-merge-key"] = options.patch_merge_key.as_str().into();
    }
    if !options.patch_strategy.is_empty() {
        value["x-kubernetes-patch-strategy"] = options.patch_strategy.join(",").into();
    }
    if !options.list_type.is_empty() {
        value["x-kubernetes-list-type"] = options.list_type.as_str().into();
    }
    if !options.list_map_keys.is_empty() {
        value["x-kubernetes-list-map-keys"] = json!(options.list_map_keys);
    }
    value
}

fn type_schema(field_type: FieldType) -> Value {
    match field_type {
        // A bare reference may not have words of its own beside it.
        FieldType::Message(message) => json!({ "allOf": [reference(message)] }),
        FieldType::Scalar(Scalar::String) => json!({ "type": "string" }),
        FieldType::Scalar(Scalar::Bytes) => json!({ "type": "string", "format": "byte" }),
        FieldType::Scalar(Scalar::Bool) => json!({ "type": "boolean" }),
        FieldType::Scalar(Scalar::Int32) => json!({ "type": "integer", "format": "int32" }),
        FieldType::Scalar(Scalar::Int64) => json!({ "type": "integer", "format": "int64" }),
        FieldType::Scalar(Scalar::Double) => json!({ "type": "number", "format": "double" }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn core() -> Value {
        document("", "v1")
    }

    #[test]
    fn a_patch_says_that_the_server_validates_fields() {
        let patch = &core()["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"], json!({ "group": "", "version": "v1", "kind": "Pod" }));
        let names: Vec<&str> =
            patch["parameters"].as_array().unwrap().iter().filter_map(|parameter| parameter["name"].as_str()).collect();
        assert!(names.contains(&"fieldValidation"), "{names:?}");
        assert!(patch["requestBody"]["content"]["application/strategic-merge-patch+json"].is_object());
    }

    #[test]
    fn merge_keys_stand_beside_the_fields_they_are_for() {
        let spec = &core()["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"];
        assert_eq!(spec["containers"]["x-kubernetes-patch-merge-key"], "name");
        assert_eq!(spec["volumes"]["x-kubernetes-patch-strategy"], "merge,retainKeys");
        assert_eq!(
            spec["containers"]["items"]["allOf"][0]["$ref"],
            "#/components/schemas/io.k8s.api.core.v1.Container"
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        for (group, version) in group_versions() {
            let document = document(group, version);
            let schemas = document["components"]["schemas"].as_object().unwrap();
            check_references(&document, schemas);
        }
    }

    fn check_references(value: &Value, schemas: &Map<String, Value>) {
        match value {
            Value::Object(fields) => {
                if let Some(target) = fields.get("$ref").and_then(Value::as_str) {
                    let name = target.trim_start_matches("#/components/schemas/");
                    assert!(schemas.contains_key(name), "{target} leads nowhere");
                }
                fields.values().for_each(|value| check_references(value, schemas));
            }
            Value::Array(values) => values.iter().for_each(|value| check_references(value, schemas)),
            _ => {}
        }
    }

    #[test]
    fn inlined_fields_are_fields_of_their_parent() {
        let probe = &core()["components"]["schemas"]["io.k8s.api.core.v1.Probe"]["properties"];
        assert!(probe["httpGet"].is_object() && probe["periodSeconds"].is_object());
    }

    #[test]
    fn the_index_names_each_documents_content() {
        let index = index();
        let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
        assert!(url.starts_with("/openapi/v3/api/v1?hash=") && url.len() > 60, "{url}");
        assert!(index["paths"]["apis/apps/v1"].is_object());
    }
}
