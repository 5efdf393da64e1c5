//! `-o jsonpath=...`: texts with fields of the object in braces, as kubectl's users write them:
//! `{.metadata.name}`, `{.items[*].status.podIP}`, `{.metadata.annotations.a\.b}`, `{range .items[*]}{.metadata.name}{"\n"}{end}`.

use anyhow::{anyhow, bail};
use serde_json::Value;

/// A template that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct JsonPath {
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Text(String),
    Values(Vec<Step>),
    Range(Vec<Step>, Vec<Part>),
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Field(String),
    /// Negative ones count from the end.
    Index(i64),
    Every,
}

impl JsonPath {
    /// # Errors
    /// Names the part that is not understood.
    pub fn parse(template: &str) -> anyhow::Result<Self> {
        let mut rest = template;
        let parts = parts(&mut rest, false)?;
        Ok(Self { parts })
    }

    /// The template's text for a value; fields that are not there are nothing.
    pub fn text(&self, value: &Value) -> String {
        let mut text = String::new();
        write_parts(&self.parts, value, &mut text);
        text
    }
}

fn parts(rest: &mut &str, is_in_range: bool) -> anyhow::Result<Vec<Part>> {
    let mut parts = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            parts.push(Part::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if open > 0 {
            parts.push(Part::Text(rest[..open].to_owned()));
        }
        let close = closing(&rest[open..]).ok_or_else(|| anyhow!("unclosed action in the template: {rest:?}"))? + open;
        let action = rest[open + 1..close].trim();
        *rest = &rest[close + 1..];
        if action == "end" {
            return if is_in_range { Ok(parts) } else { Err(anyhow!("{{end}} without {{range}} in the template")) };
        }
        if let Some(path) = action.strip_prefix("range ") {
            let steps = steps(path.trim())?;
            parts.push(Part::Range(steps, self::parts(rest, true)?));
        } else if action.starts_with(['"', '\'']) {
            parts.push(Part::Text(quoted(action)?));
        } else {
            parts.push(Part::Values(steps(action)?));
        }
    }
    if is_in_range { bail!("{{range}} without {{end}} in the template") } else { Ok(parts) }
}

/// Where the action that starts here ends; braces in quotes do not count.
fn closing(text: &str) -> Option<usize> {
    let (mut quote, mut is_escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if is_escaped => is_escaped = false,
            (_, '\\') => is_escaped = true,
            (Some(open), c) if c == open => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') => return Some(at),
            _ => {}
        }
    }
    None
}

fn quoted(text: &str) -> anyhow::Result<String> {
    let inner = text.get(1..text.len().saturating_sub(1)).unwrap_or_default();
    let json = format!("\"{}\"", inner.replace("\\'", "'").replace('"', "\\\"").replace("\\\\\"", "\\\""));
    serde_json::from_str(&json).map_err(|_| anyhow!("the template's text {text} is not understood"))
}

fn steps(path: &str) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    if rest.starts_with(|c: char| c.is_alphanumeric()) {
        bail!("the path {path:?} must begin with a dot");
    }
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = inside.find(']').ok_or_else(|| anyhow!("unterminated array in {path:?}"))?;
            steps.push(match inside[..end].trim() {
                "*" => Step::Every,
                name if name.starts_with(['\'', '"']) => Step::Field(name.trim_matches(['\'', '"']).to_owned()),
                number => Step::Index(
                    number
                        .parse()
                        .map_err(|_| anyhow!("invalid array index {number:?} in {path:?}: use a number or *"))?,
                ),
            });
            rest = &inside[end + 1..];
        } else if let Some(inside) = rest.strip_prefix('.') {
            let mut name = String::new();
            let mut chars = inside.char_indices();
            let mut end = inside.len();
            while let Some((at, c)) = chars.next() {
                match c {
                    '\\' => name.extend(chars.next().map(|(_, c)| c)),
                    '.' | '[' => {
                        end = at;
                        break;
                    }
                    c => name.push(c),
                }
            }
            match name.as_str() {
                "" => {}
                "*" => steps.push(Step::Every),
                _ => steps.push(Step::Field(name)),
            }
            if inside.starts_with('.') {
                bail!("recursive descent is not understood in {path:?}: name the fields on the way");
            }
            rest = &inside[end..];
        } else {
            bail!("the path {path:?} is not understood at {rest:?}");
        }
    }
    Ok(steps)
}

fn write_parts(parts: &[Part], value: &Value, text: &mut String) {
    for part in parts {
        match part {
            Part::Text(plain) => text.push_str(plain),
            Part::Values(steps) => {
                let shown: Vec<String> = found(steps, value).into_iter().map(shown).collect();
                text.push_str(&shown.join(" "));
            }
            Part::Range(steps, inner) => found(steps, value).into_iter().for_each(|one| write_parts(inner, one, text)),
        }
    }
}

fn found<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let mut values = vec![value];
    for step in steps {
        values = values
            .into_iter()
            .flat_map(|value| match (step, value) {
                (Step::Field(name), Value::Object(fields)) => fields.get(name).into_iter().collect::<Vec<_>>(),
                (Step::Every, Value::Array(list)) => list.iter().collect(),
                (Step::Every, Value::Object(fields)) => fields.values().collect(),
                (Step::Index(index), Value::Array(list)) => {
                    let at = if *index < 0 { list.len() as i64 + index } else { *index };
                    usize::try_from(at).ok().and_then(|at| list.get(at)).into_iter().collect()
                }
                _ => Vec::new(),
            })
            .collect();
    }
    values
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => super::compact(&super::sorted(other.clone())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn templates_give_what_kubectl_gives() {
        let value = json!({"items": [{"metadata": {"name": "a", "labels": {"x.y/z": "1"}}, "n": 1}, {"metadata": {"name": "b"}}]});
        for (template, expected) in [
            ("{.items[0].metadata.name}", "a"),
            ("{.items[*].metadata.name}", "a b"),
            ("{.items[-1:].metadata.name}", ""),
            ("{.items[-1].metadata.name}", "b"),
            (r"{.items[0].metadata.labels.x\.y/z}", "1"),
            ("{.items[0].metadata.labels['x.y/z']}", "1"),
            ("{range .items[*]}{.metadata.name}{\"\\n\"}{end}", "a\nb\n"),
            ("name={.items[0].metadata.name};", "name=a;"),
            ("{.items[0].metadata}", r#"{"labels":{"x.y/z":"1"},"name":"a"}"#),
            ("{$.items[0].n}{.nope}", "1"),
        ] {
            match JsonPath::parse(template) {
                Ok(path) => assert_eq!(path.text(&value), expected, "{template}"),
                Err(_) => assert_eq!(expected, "", "{template}"),
            }
        }
        for template in ["{.a", "{end}", "{range .a}", "{a}", "{..a}", "{.a[x]}"] {
            assert!(JsonPath::parse(template).is_err(), "{template}");
        }
    }
}
