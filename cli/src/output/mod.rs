//! Printing objects: tables, YAML, JSON, names.

pub mod columns;
mod jsonpath;
pub mod sheet;
mod yaml;

use std::{io::Write, str::FromStr};

use proto::{
    Object,
    codec::{ResourceInfo, proto_to_value},
    envelope,
    k8s::meta::v1::ObjectMeta,
};
use serde::Serialize as _;
use serde_json::{Map, Value};

use crate::resource::line_name;
use jsonpath::JsonPath;

/// Where a command writes: what was asked for, and what is said beside it.
pub struct Streams<'a> {
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
}

/// `-o`.
#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    Wide,
    Yaml,
    Json,
    Name,
    JsonPath(JsonPath),
}

impl FromStr for Format {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "wide" => Ok(Self::Wide),
            "yaml" => Ok(Self::Yaml),
            "json" => Ok(Self::Json),
            "name" => Ok(Self::Name),
            template if template.starts_with("jsonpath=") => {
                let path = JsonPath::parse(&template["jsonpath=".len()..]);
                path.map(Self::JsonPath).map_err(|problem| problem.to_string())
            }
            other => Err(format!(
                "unable to match a printer suitable for the output format {other:?}, allowed formats are: json,jsonpath=,name,wide,yaml"
            )),
        }
    }
}

/// An object with the resource it is of.
#[derive(Clone)]
pub struct Found {
    pub info: &'static ResourceInfo,
    pub object: Object,
}

impl Found {
    pub fn meta(&self) -> anyhow::Result<ObjectMeta> {
        Ok(envelope::metadata(&self.object.raw)?)
    }

    /// As JSON, with apiVersion and kind.
    pub fn value(&self) -> anyhow::Result<Value> {
        let api_version = self.info.api_version();
        Ok(proto_to_value(self.info.message, &self.object.raw, Some((&api_version, &self.info.resource.kind)))?)
    }

    /// As people want to see it: fields by name, without what only servers read.
    pub fn shown_value(&self, with_managed_fields: bool) -> anyhow::Result<Value> {
        let mut value = self.value()?;
        if !with_managed_fields {
            without_managed_fields(&mut value);
        }
        Ok(sorted(value))
    }
}

pub fn without_managed_fields(value: &mut Value) {
    if let Some(meta) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        meta.shift_remove("managedFields");
    }
}

/// Prints one object in a format that is no table.
pub fn print_one(out: &mut dyn Write, format: &Format, found: &Found, with_managed_fields: bool) -> anyhow::Result<()> {
    match format {
        Format::Name | Format::Wide => writeln!(out, "{}/{}", line_name(found.info), found.meta()?.name)?,
        Format::Yaml => out.write_all(yaml::text(&found.shown_value(with_managed_fields)?).as_bytes())?,
        Format::Json => writeln!(out, "{}", json(&found.shown_value(with_managed_fields)?))?,
        Format::JsonPath(path) => write!(out, "{}", path.text(&found.shown_value(true)?))?,
    }
    Ok(())
}

/// Prints several objects: as a `List` in YAML and JSON.
pub fn print_list(
    out: &mut dyn Write,
    format: &Format,
    found: &[Found],
    with_managed_fields: bool,
) -> anyhow::Result<()> {
    if matches!(format, Format::Name | Format::Wide) {
        return found.iter().try_for_each(|one| print_one(out, format, one, with_managed_fields));
    }
    let items = found.iter().map(|one| one.shown_value(with_managed_fields)).collect::<anyhow::Result<Vec<_>>>()?;
    print_value(out, format, &list(items))
}

/// Several objects as one.
pub fn list(items: Vec<Value>) -> Value {
    serde_json::json!({"apiVersion": "v1", "items": items, "kind": "List", "metadata": {"resourceVersion": ""}})
}

/// Between objects that are printed one after another: in YAML each is a document of its own.
pub fn separate(out: &mut dyn Write, format: &Format, is_first: bool) -> std::io::Result<()> {
    if *format == Format::Yaml && !is_first { writeln!(out, "---") } else { Ok(()) }
}

/// Prints a value in YAML or JSON.
pub fn print_value(out: &mut dyn Write, format: &Format, value: &Value) -> anyhow::Result<()> {
    match format {
        Format::Json => writeln!(out, "{}", json(value))?,
        Format::JsonPath(path) => write!(out, "{}", path.text(value))?,
        _ => out.write_all(yaml::text(value).as_bytes())?,
    }
    Ok(())
}

/// The value with every object's fields by name, as kubectl writes them.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<(String, Value)> = fields.into_iter().collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().map(|(name, value)| (name, sorted(value))).collect::<Map<_, _>>())
        }
        Value::Array(values) => Value::Array(values.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// JSON with four spaces.
fn json(value: &Value) -> String {
    let mut text = Vec::new();
    let mut serializer =
        serde_json::Serializer::with_formatter(&mut text, serde_json::ser::PrettyFormatter::with_indent(b"    "));
    value.serialize(&mut serializer).expect("a value has a text, and memory takes it");
    escaped(&String::from_utf8(text).expect("JSON is UTF-8"))
}

/// JSON in one line.
pub fn compact(value: &Value) -> String {
    escaped(&value.to_string())
}

/// Go's JSON escapes what HTML or JavaScript could misread; kubectl's texts are compared byte by byte.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' => text.push_str("\\u003c"),
            '>' => text.push_str("\\u003e"),
            '&' => text.push_str("\\u0026"),
            '\u{2028}' => text.push_str("\\u2028"),
            '\u{2029}' => text.push_str("\\u2029"),
            c => text.push(c),
        }
    }
    text
}
