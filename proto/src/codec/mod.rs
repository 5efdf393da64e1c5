//! One transcoder between JSON and protobuf for every kind, driven by the embedded descriptors.
//!
//! Protobuf is the truth; JSON is a form of it. Bytes go to bytes, no object is built in between. Written bytes are
//! canonical: fields in number order, map keys sorted, zero scalars left out where the field is not `optional`, empty
//! struct values left out, quantities in their one form. They are the bytes prost writes for the same object.

mod decode;
mod descriptor;
mod duplicates;
mod encode;
mod json;
mod schema;
mod text;

use std::fmt;

pub use decode::{json_to_proto, type_meta, value_to_proto};
pub use duplicates::duplicate_keys;
pub use encode::{proto_to_json, proto_to_value};
pub use schema::{Cardinality, Field, FieldType, JsonField, Message, MessageId, ResourceInfo, Scalar, Schema, schema};

/// Nested objects and arrays that the codec follows; prost's own limit is 100.
pub const DEPTH_MAX: usize = 90;

/// Strictness issues that are reported for one document; Kubernetes has the same bound.
pub const ISSUES_MAX: usize = 100;

/// An object in protobuf, and what was odd about its JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    pub bytes: Vec<u8>,
    /// In the order of the document; at most [`ISSUES_MAX`].
    pub issues: Vec<Issue>,
}

/// A field that strict validation refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issue {
    /// `spec.containers[0].imagee`
    pub path: String,
    pub kind: IssueKind,
    /// The message that has no such field, or has it twice; `None` for a key of a map.
    pub message: Option<MessageId>,
    /// The last part of the path: `imagee`.
    pub name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IssueKind {
    /// Dropped.
    UnknownField,
    /// The last one counts.
    DuplicateField,
}

impl fmt::Display for Issue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            IssueKind::UnknownField => "unknown",
            IssueKind::DuplicateField => "duplicate",
        };
        write!(f, "{what} field \"{}\"", self.path)
    }
}

/// Why a document or an object could not be transcoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not JSON.
    #[error("invalid JSON at line {line}, column {column}: {reason}")]
    Syntax { line: usize, column: usize, reason: String },
    /// Another JSON type than the field has.
    #[error("cannot unmarshal {found}{} of type {expected}", into_field(path))]
    Type { path: String, found: String, expected: String },
    /// The right JSON type, but not a value of the field.
    #[error("{}invalid value {found}: {reason}", in_field(path))]
    Value { path: String, found: String, reason: String },
    #[error("{}nested deeper than {DEPTH_MAX} levels", in_field(path))]
    Depth { path: String },
    /// Stored or sent protobuf that is not the message it should be.
    #[error("{}{reason}", in_field(path))]
    Protobuf { path: String, reason: String },
}

/// The canonical bytes of an object that someone else encoded: what [`json_to_proto`] would have written for it.
///
/// Fields in number order, quantities and embedded JSON in their one form, unknown fields dropped. Bytes of clients pass
/// through here before they are stored, so that equal objects are equal bytes.
///
/// # Errors
/// Where the bytes are not the message, or a quantity or embedded JSON in them is none.
pub fn canonical(message: MessageId, bytes: &[u8]) -> Result<Vec<u8>, Error> {
    let mut json = Vec::with_capacity(bytes.len() * 3);
    proto_to_json(message, bytes, None, &mut json)?;
    Ok(json_to_proto(message, &json)?.bytes)
}

fn into_field(path: &str) -> String {
    if path.is_empty() { " into an object".to_owned() } else { format!(" into field {path}") }
}

fn in_field(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("{path}: ") }
}

impl Error {
    /// The field it is about: `spec.containers[0].image`; empty for the whole document.
    pub fn path(&self) -> &str {
        match self {
            Self::Syntax { .. } => "",
            Self::Type { path, .. } | Self::Value { path, .. } | Self::Depth { path } | Self::Protobuf { path, .. } => {
                path
            }
        }
    }

    /// Puts an outer path in front, while an error leaves the nested messages.
    fn within(mut self, outer: fmt::Arguments<'_>) -> Self {
        match &mut self {
            Self::Syntax { .. } => {}
            Self::Type { path, .. } | Self::Value { path, .. } | Self::Depth { path } | Self::Protobuf { path, .. } => {
                let dot = if path.is_empty() || path.starts_with('[') { "" } else { "." };
                *path = format!("{outer}{dot}{path}");
            }
        }
        self
    }
}
