//! `stay explain`: what a field means and which type it has, from the schema; no server is asked.

use anyhow::{anyhow, bail};
use proto::{
    codec::{Cardinality, Field, FieldType, MessageId, ResourceInfo, Scalar, schema},
    schema::Form,
};

use crate::{output::Streams, resource};

/// Explain a resource or a field of it: `stay explain pod.spec.containers`
#[derive(Debug, clap::Args)]
pub struct Explain {
    /// TYPE, or TYPE.field.field
    #[arg(value_name = "TYPE[.FIELD]...")]
    pub path: String,
    /// Show the fields of fields, without texts
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub recursive: bool,
    /// Of this version: apps/v1
    #[arg(long)]
    pub api_version: Option<String>,
}

/// Width of texts.
const WIDTH: usize = 80;

impl Explain {
    pub fn run(self, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let (mut info, path) = resource_of(&self.path)?;
        if let Some(version) = &self.api_version {
            info = resource::of_kind(version, &info.resource.kind)
                .ok_or_else(|| anyhow!("couldn't find resource for {version:?}, Kind={}", info.resource.kind))?;
        }
        let mut message = Some(info.message);
        let mut field: Option<&Field> = None;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let inside = message
                .ok_or_else(|| anyhow!("field {part:?} does not exist: {} is no object", type_of_field(field)))?;
            let found = schema().json_field(inside, part).ok_or_else(|| unknown(inside, part))?;
            (field, message) = (Some(found), message_of(found));
        }

        let out = &mut *streams.out;
        if !info.resource.group.is_empty() {
            writeln!(out, "GROUP:      {}", info.resource.group)?;
        }
        writeln!(out, "KIND:       {}", info.resource.kind)?;
        writeln!(out, "VERSION:    {}\n", info.resource.version)?;
        if let Some(field) = field {
            writeln!(out, "FIELD: {} <{}>{}\n\n", field.json_name, type_of(field), required(field))?;
        }
        let own = field.map_or("", |field| field.comment.trim());
        let of_message = message.map_or("", |message| schema()[message].comment.trim());
        writeln!(out, "DESCRIPTION:")?;
        match (own, of_message) {
            ("", "") => writeln!(out, "    <empty>")?,
            (text, "") | ("", text) => wrapped(out, text, 4)?,
            (own, of_message) => {
                wrapped(out, own, 4)?;
                wrapped(out, of_message, 4)?;
            }
        }
        if let Some(message) = message.filter(|message| schema()[*message].form == Form::Plain) {
            writeln!(out, "    \nFIELDS:")?;
            self.print_fields(out, message, field.is_none(), 2, &mut vec![message])?;
        }
        writeln!(out)?;
        Ok(())
    }

    fn print_fields(
        &self,
        out: &mut dyn std::io::Write,
        message: MessageId,
        is_top: bool,
        indent: usize,
        inside: &mut Vec<MessageId>,
    ) -> anyhow::Result<()> {
        let pad = " ".repeat(indent);
        let mut fields: Vec<(&str, String, &str, Option<&Field>)> = schema()
            .json_fields(message)
            .into_iter()
            .map(|field| {
                (field.json_name, format!("<{}>{}", type_of(field), required(field)), field.comment.trim(), Some(field))
            })
            .collect();
        if is_top {
            fields.push((
                "apiVersion",
                "<string>".to_owned(),
                "Group and version of this object's schema: apps/v1.",
                None,
            ));
            fields.push(("kind", "<string>".to_owned(), "What this object is: Pod.", None));
        }
        fields.sort_by_key(|(name, ..)| *name);
        for (name, of_type, text, field) in fields {
            writeln!(out, "{pad}{name}\t{of_type}")?;
            if !self.recursive {
                if !text.is_empty() {
                    wrapped(out, text, indent + 2)?;
                }
                writeln!(out)?;
                continue;
            }
            let inner = field
                .and_then(message_of)
                .filter(|inner| schema()[*inner].form == Form::Plain && !inside.contains(inner));
            if let Some(inner) = inner {
                inside.push(inner);
                self.print_fields(out, inner, false, indent + 2, inside)?;
                inside.pop();
            }
        }
        Ok(())
    }
}

/// The resource that a path starts with, and the fields behind it: `pod.spec`, `deployments.apps.spec`.
fn resource_of(path: &str) -> anyhow::Result<(&'static ResourceInfo, &str)> {
    let ends = path.match_indices('.').map(|(at, _)| at).chain([path.len()]);
    // A group has dots itself: the longest beginning that is a resource counts.
    let mut known = ends.filter_map(|end| Some((resource::lookup(&path[..end]).ok()?, &path[end..])));
    match known.next_back() {
        Some(found) => Ok(found),
        None => resource::lookup(path.split('.').next().unwrap_or_default()).map(|info| (info, "")),
    }
}

fn message_of(field: &Field) -> Option<MessageId> {
    match field.field_type {
        FieldType::Message(message) => Some(message),
        FieldType::Scalar(_) => None,
    }
}

fn unknown(message: MessageId, part: &str) -> anyhow::Error {
    let names = schema().json_fields(message).into_iter().map(|field| field.json_name.to_owned());
    match resource::nearest(part, names) {
        Some(near) => anyhow!("field {part:?} does not exist: did you mean {near:?}?"),
        None => anyhow!("field {part:?} does not exist"),
    }
}

fn required(field: &Field) -> &'static str {
    if field.schema.required { " -required-" } else { "" }
}

fn type_of_field(field: Option<&Field>) -> String {
    field.map(type_of).unwrap_or_default()
}

/// `string`, `[]Container`, `map[string]Quantity`
fn type_of(field: &Field) -> String {
    let element = match field.field_type {
        FieldType::Scalar(Scalar::Bool) => "boolean".to_owned(),
        FieldType::Scalar(Scalar::Int32 | Scalar::Int64) => "integer".to_owned(),
        FieldType::Scalar(Scalar::Double) => "number".to_owned(),
        FieldType::Scalar(Scalar::String | Scalar::Bytes) => "string".to_owned(),
        FieldType::Message(message) => match schema()[message].form {
            Form::Time | Form::MicroTime => "string".to_owned(),
            Form::Items => "[]string".to_owned(),
            _ => schema()[message].name.to_owned(),
        },
    };
    match field.cardinality {
        Cardinality::List => format!("[]{element}"),
        Cardinality::Map => format!("map[string]{element}"),
        _ => element,
    }
}

fn wrapped(out: &mut dyn std::io::Write, text: &str, indent: usize) -> anyhow::Result<()> {
    let pad = " ".repeat(indent);
    for paragraph in text.split("\n\n") {
        let mut line = String::new();
        for word in paragraph.split_whitespace() {
            if !line.is_empty() && indent + line.len() + 1 + word.len() > WIDTH {
                writeln!(out, "{pad}{line}")?;
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        if line.is_empty() {
            bail!("a text of the schema has an empty paragraph");
        }
        writeln!(out, "{pad}{line}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use expect_test::expect;

    use super::*;
    use crate::verb::stage::Stage;

    #[test]
    fn the_kinds_that_live_here_are_explained_throughout() {
        let kinds = "ns no po svc rc quota ep endpointslices cm secrets sa events leases";
        let mut open: Vec<MessageId> = kinds.split(' ').map(|kind| resource::lookup(kind).unwrap().message).collect();
        let (mut seen, mut silent) = (HashSet::new(), Vec::new());
        while let Some(message) = open.pop() {
            if schema()[message].form != Form::Plain || !seen.insert(message) {
                continue;
            }
            let name = schema()[message].name;
            if schema()[message].comment.trim().is_empty() {
                silent.push(name.to_owned());
            }
            for field in schema().json_fields(message) {
                if field.comment.trim().is_empty() {
                    silent.push(format!("{name}.{}", field.json_name));
                }
                open.extend(message_of(field));
            }
        }
        assert_eq!(silent, [""; 0]);
    }

    #[tokio::test]
    async fn a_field_is_explained_with_its_type() {
        let stage = Stage::new().await;
        let text = stage.run("explain pod.spec.containers").await;
        assert!(
            text.starts_with(
                "KIND:       Pod\nVERSION:    v1\n\nFIELD: containers <[]Container> -required-\n\n\nDESCRIPTION:\n"
            ),
            "{text}"
        );
        assert!(text.contains("\nFIELDS:\n  args\t<[]string>\n"), "{text}");
        assert!(text.contains("  name\t<string> -required-\n"), "{text}");
        assert!(text.contains("  resources\t<ResourceRequirements>\n"), "{text}");
    }

    #[tokio::test]
    async fn an_unknown_field_is_answered_with_a_near_one() {
        let stage = Stage::new().await;
        stage
            .check(
                "explain pod.spec.container",
                expect![[r#"
            stderr: error: field "container" does not exist: did you mean "containers"?
            exit code 1
        "#]],
            )
            .await;
        stage
            .check(
                "explain pod.spec.nodeName.x",
                expect![[r#"
            stderr: error: field "x" does not exist: string is no object
            exit code 1
        "#]],
            )
            .await;
    }

    #[tokio::test]
    async fn a_resource_may_be_named_with_its_group() {
        let stage = Stage::new().await;
        let spec = stage.run("explain deployment.spec").await;
        assert!(spec.starts_with("GROUP:      apps\nKIND:       Deployment\n"), "{spec}");
        for path in ["deployments.apps.spec", "deployments.v1.apps.spec"] {
            assert_eq!(stage.run(&format!("explain {path}")).await, spec, "{path}");
        }
    }

    #[tokio::test]
    async fn fields_of_fields_are_listed() {
        let stage = Stage::new().await;
        let text = stage.run("explain deployment --recursive").await;
        assert!(text.starts_with("GROUP:      apps\nKIND:       Deployment\n"), "{text}");
        assert!(text.contains("      spec\t<PodSpec>\n"), "{text}");
    }
}
