//! Field selectors: which fields of a kind can be selected by, and how they are read without decoding the object.

use model::selector::{Fields, Labels};
use proto::codec::{FieldType, ResourceInfo, Scalar, schema};

use crate::{
    api::Selection,
    refusal::{Refusal, Result},
    storage::partial::{self, Leaf},
};

/// Fields that can be selected by, besides metadata.name and metadata.namespace. Paths as users write them, and as
/// they stand in the object where that differs.
const SELECTABLE: &[(&str, &str, &[&str])] = &[
    (
        "",
        "pods",
        &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    ),
    (
        "",
        "events",
        &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    ),
    ("", "nodes", &["spec.unschedulable"]),
    ("", "namespaces", &["status.phase"]),
    ("", "secrets", &["type"]),
    ("", "services", &["spec.clusterIP", "spec.type"]),
    ("", "replicationcontrollers", &["status.replicas"]),
    ("apps", "replicasets", &["status.replicas"]),
    ("batch", "jobs", &["status.successful"]),
    ("certificates.k8s.io", "certificatesigningrequests", &["spec.signerName"]),
];

/// Where a selectable path leads in the object.
fn place(path: &str) -> &str {
    match path {
        "source" => "source.component",
        "status.successful" => "status.succeeded",
        path => path,
    }
}

/// A compiled [`Selection`].
#[derive(Clone, Debug)]
pub struct Filter {
    labels: Labels,
    fields: Fields,
    paths: Vec<Path>,
}

#[derive(Clone, Debug)]
struct Path {
    name: String,
    numbers: Vec<u32>,
    scalar: Scalar,
}

impl Filter {
    /// # Errors
    /// 400 where a selector does not parse, or selects by a field that the kind does not offer.
    pub fn compile(resource: &ResourceInfo, selection: &Selection) -> Result<Self> {
        let labels = Labels::parse(&selection.labels).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let fields = Fields::parse(&selection.fields).map_err(|error| Refusal::bad_request(error.to_string()))?;
        let paths = fields.terms().iter().map(|term| path(resource, &term.path)).collect::<Result<Vec<_>>>()?;
        Ok(Self { labels, fields, paths })
    }

    pub fn is_everything(&self) -> bool {
        self.labels.is_everything() && self.fields.is_everything()
    }

    /// The one name that is asked for, where the fields say so.
    pub fn required_name(&self) -> Option<&str> {
        self.fields.required("metadata.name")
    }

    /// The one namespace that is asked for, where the fields say so.
    pub fn required_namespace(&self) -> Option<&str> {
        self.fields.required("metadata.namespace")
    }

    pub fn needs_labels(&self) -> bool {
        !self.labels.is_everything()
    }

    /// `labels` is asked for only where the selector needs them.
    pub fn matches<'a>(
        &self,
        labels: impl FnOnce() -> &'a std::collections::BTreeMap<String, String>,
        raw: &[u8],
    ) -> bool {
        (!self.needs_labels() || self.labels.matches(labels())) && self.matches_fields(raw)
    }

    /// As [`Filter::matches`], reading the labels from the object.
    pub fn matches_object(&self, raw: &[u8]) -> bool {
        if !self.matches_fields(raw) {
            return false;
        }
        !self.needs_labels() || proto::envelope::metadata(raw).is_ok_and(|meta| self.labels.matches(&meta.labels))
    }

    fn matches_fields(&self, raw: &[u8]) -> bool {
        self.fields.is_everything()
            || self.fields.matches(|name| {
                self.paths.iter().find(|path| path.name == name).map(|path| path.read(raw)).unwrap_or_default()
            })
    }
}

impl Path {
    fn read(&self, raw: &[u8]) -> String {
        match (partial::field(raw, &self.numbers), self.scalar) {
            (Some(Leaf::Bytes(text)), _) => String::from_utf8_lossy(text).into_owned(),
            (Some(Leaf::Number(number)), Scalar::Bool) => (number != 0).to_string(),
            (Some(Leaf::Number(number)), _) => number.cast_signed().to_string(),
            (None, Scalar::Bool) => "false".to_owned(),
            (None, Scalar::Int32 | Scalar::Int64) => "0".to_owned(),
            (None, _) => String::new(),
        }
    }
}

fn path(resource: &ResourceInfo, name: &str) -> Result<Path> {
    let named = &resource.resource;
    let is_known = matches!(name, "metadata.name" | "metadata.namespace")
        || SELECTABLE
            .iter()
            .any(|(group, plural, paths)| *group == named.group && *plural == named.plural && paths.contains(&name));
    if !is_known {
        return Err(Refusal::bad_request(format!("field label not supported: {name}")));
    }
    let mut message = resource.message;
    let mut numbers = Vec::new();
    let mut scalar = Scalar::String;
    for part in place(name).split('.') {
        let field = schema()
            .json_field(message, part)
            .ok_or_else(|| Refusal::internal(format!("the selectable field {name} is not in {}", named.kind)))?;
        numbers.push(field.number);
        match field.field_type {
            FieldType::Message(inner) => message = inner,
            FieldType::Scalar(found) => scalar = found,
        }
    }
    Ok(Path { name: name.to_owned(), numbers, scalar })
}
