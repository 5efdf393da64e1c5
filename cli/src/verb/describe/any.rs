//! Any object in full: its fields as a tree.

use serde_json::Value;

use super::{head, labels};
use crate::output::{Found, sheet::Sheet};

pub fn describe(sheet: &mut Sheet, found: &Found) -> anyhow::Result<()> {
    let meta = found.meta()?;
    head(sheet, &meta);
    labels(sheet, &meta);
    sheet.field(0, "API Version", found.info.api_version());
    sheet.field(0, "Kind", &found.info.resource.kind);
    let mut value = found.shown_value(false)?;
    if let Some(fields) = value.as_object_mut() {
        fields.shift_remove("apiVersion");
        fields.shift_remove("kind");
        if let Some(meta) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for told in ["name", "namespace", "labels", "annotations"] {
                meta.shift_remove(told);
            }
        }
    }
    fields(sheet, &value, 0);
    Ok(())
}

fn fields(sheet: &mut Sheet, value: &Value, level: usize) {
    for (name, value) in value.as_object().into_iter().flatten() {
        let title = title(name);
        match value {
            Value::Null => {}
            Value::Object(inner) if inner.is_empty() => {}
            Value::Object(_) => {
                sheet.heading(level, &title);
                fields(sheet, value, level + 1);
            }
            Value::Array(values) => {
                sheet.heading(level, &title);
                for value in values {
                    match value {
                        Value::Object(_) => fields(sheet, value, level + 1),
                        scalar => sheet.line(level + 1, [text(scalar)]),
                    }
                }
            }
            scalar => sheet.field(level, &title, text(scalar)),
        }
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.replace('\n', " "),
        other => other.to_string(),
    }
}

/// "creationTimestamp" reads "Creation Timestamp"; keys that are no field names stay as they are.
fn title(name: &str) -> String {
    if name.contains(['.', '/', '-', '_', '$']) {
        return name.to_owned();
    }
    // "uid" and "apiVersion" begin with words that are spoken letter by letter.
    let spoken = ["api", "uid", "url"].into_iter().find(|word| name.strip_prefix(word).is_some_and(is_words_end));
    if let Some(word) = spoken {
        let rest = title(&name[word.len()..]);
        return format!("{} {rest}", word.to_uppercase()).trim_end().to_owned();
    }
    let mut title = String::new();
    let mut was_lower = false;
    for (at, c) in name.chars().enumerate() {
        if at == 0 {
            title.extend(c.to_uppercase());
        } else {
            if c.is_uppercase() && was_lower {
                title.push(' ');
            }
            title.push(c);
        }
        was_lower = c.is_lowercase() || c.is_ascii_digit();
    }
    title
}

fn is_words_end(rest: &str) -> bool {
    rest.chars().next().is_none_or(char::is_uppercase)
}
