//! Manifests: YAML as kubectl reads it (YAML 1.1 scalars: `0440` is octal, `yes` is true) and JSON, with the line and
//! column of every field, so that an error can point at it.

mod build;
mod json;
mod scalar;

use std::collections::HashMap;

use serde_json::Value;

/// One document of a source, as JSON, with the places of its fields.
#[derive(Clone, Debug)]
pub struct Document {
    pub value: Value,
    source: String,
    start: Place,
    places: HashMap<String, Places>,
}

/// Where something stands, both counted from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    pub line: usize,
    pub column: usize,
}

#[derive(Clone, Copy, Debug)]
struct Places {
    key: Place,
    value: Place,
}

/// Text that is not a manifest, and where it stops being one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}:{line}:{column}: {message}")]
pub struct Error {
    pub file: String,
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// How deep values may nest.
const DEPTH_MAX: usize = 200;
/// How many values all aliases of a source may stand for: what a "billion laughs" runs into.
const ALIASED_MAX: usize = 400_000;

/// Reads every document of a source; empty ones are left out.
///
/// # Errors
/// The first place that cannot be read: syntax, an unknown alias, a key that is there twice, a value JSON does not have.
pub fn parse(text: &str, source: &str) -> Result<Vec<Document>, Error> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim_start().starts_with(['{', '[']) {
        match json::parse(text, source) {
            Ok(documents) => return Ok(documents),
            // Braces also open YAML's flow style; where that reads it, it is fine.
            Err(problem) => return build::parse(text, source).map_err(|_| problem),
        }
    }
    build::parse(text, source)
}

impl Document {
    /// The name of the file, or of whatever was read.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Where the document begins.
    pub fn start(&self) -> Place {
        self.start
    }

    /// Where the field's name stands: `spec.containers[0].image`; for an element of a list, where it begins.
    /// A path that is not there gives its nearest ancestor's place.
    pub fn position_of(&self, path: &str) -> Place {
        self.nearest(path).map_or(self.start, |places| places.key)
    }

    /// Where the field's value begins; like [`Self::position_of`] for a path that is not there.
    pub fn value_position_of(&self, path: &str) -> Place {
        self.nearest(path).map_or(self.start, |places| places.value)
    }

    /// An error that points into this document.
    pub fn error(&self, place: Place, message: impl Into<String>) -> Error {
        Error { file: self.source.clone(), line: place.line, column: place.column, message: message.into() }
    }

    /// One element of a list that the document holds (`kind: List`), as a document of its own.
    pub fn element(&self, path: &str, value: Value) -> Document {
        let prefix = format!("{path}.");
        let places =
            self.places.iter().filter_map(|(at, places)| Some((at.strip_prefix(&prefix)?.to_owned(), *places)));
        Document { value, source: self.source.clone(), start: self.value_position_of(path), places: places.collect() }
    }

    fn nearest(&self, path: &str) -> Option<&Places> {
        let mut path = path;
        loop {
            if let Some(places) = self.places.get(path) {
                return Some(places);
            }
            path = &path[..path.rfind(['.', '['])?];
        }
    }
}

/// The path of a field below `parent`.
fn field_path(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

fn error(source: &str, place: Place, message: impl Into<String>) -> Error {
    Error { file: source.to_owned(), line: place.line, column: place.column, message: message.into() }
}

#[cfg(test)]
mod tests;
