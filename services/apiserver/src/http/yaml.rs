//! JSON values as YAML, for clients that ask for it.

use serde_json::Value;

/// A value as a YAML document.
pub fn document(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => mapping(value, 0, &mut out),
        Value::Array(values) if !values.is_empty() => sequence(values, 0, &mut out),
        scalar => {
            write_scalar(scalar, 0, &mut out);
            out.push('\n');
        }
    }
    out
}

fn mapping(value: &Value, indent: usize, out: &mut String) {
    for (index, (key, value)) in value.as_object().into_iter().flatten().enumerate() {
        // The first key of a list's element stands behind the dash.
        if index > 0 || indent == 0 || out.ends_with('\n') {
            pad(indent, out);
        }
        plain_or_quoted(key, out);
        out.push(':');
        nested(value, indent, out);
    }
}

fn sequence(values: &[Value], indent: usize, out: &mut String) {
    for value in values {
        pad(indent, out);
        out.push('-');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                out.push(' ');
                mapping(value, indent + 1, out);
            }
            other => nested(other, indent + 1, out),
        }
    }
}

/// What follows a key's colon or a list's dash.
fn nested(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            out.push('\n');
            mapping(value, indent + 1, out);
        }
        // Lists stand under their key without further indentation, as kubectl writes them.
        Value::Array(values) if !values.is_empty() => {
            out.push('\n');
            sequence(values, indent, out);
        }
        scalar => {
            out.push(' ');
            write_scalar(scalar, indent + 1, out);
            out.push('\n');
        }
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n("  ", indent));
}

fn write_scalar(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::String(text) if is_block(text) => block(text, indent, out),
        Value::String(text) => plain_or_quoted(text, out),
        Value::Object(_) => out.push_str("{}"),
        Value::Array(_) => out.push_str("[]"),
        other => out.push_str(&other.to_string()),
    }
}

/// Text of several lines that a literal block shows as it is.
fn is_block(text: &str) -> bool {
    text.contains('\n')
        && !text.starts_with([' ', '\n'])
        && text.chars().all(|char| char == '\n' || !char.is_control())
        && text.lines().all(|line| !line.ends_with(' '))
}

fn block(text: &str, indent: usize, out: &mut String) {
    let ends = text.len() - text.trim_end_matches('\n').len();
    out.push_str(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    let body = text.strip_suffix('\n').unwrap_or(text);
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
    }
}

fn plain_or_quoted(text: &str, out: &mut String) {
    if is_plain(text) {
        out.push_str(text);
    } else {
        // JSON's strings are YAML's double-quoted ones.
        out.push_str(&Value::String(text.to_owned()).to_string());
    }
}

/// Text that every YAML reader takes for exactly that text.
fn is_plain(text: &str) -> bool {
    const WORDS: [&str; 12] = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~", "nan", "inf"];
    let first = text.chars().next();
    let starts = first.is_some_and(|char| char.is_ascii_alphabetic() || matches!(char, '/' | '_'));
    let safe = |char: char| char.is_ascii_alphanumeric() || "/_-.:+ ,;@()=*<>$~^".contains(char);
    starts
        && text.chars().all(safe)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !WORDS.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_reads_as_kubectl_would_write_it() {
        let value = json!({
            "kind": "Pod",
            "metadata": { "name": "web", "labels": { "app": "web", "on": "yes", "n": "1" }, "annotations": {} },
            "spec": {
                "containers": [
                    { "name": "a", "args": ["-c", "echo: hi"], "ports": [{ "containerPort": 80 }] },
                    { "name": "b", "tty": true, "command": [] },
                ],
                "script": "one\ntwo\n",
                "unfinished": "one\n  two",
                "odd": "\tx\n",
                "empty": "",
                "none": null,
            },
        });
        expect![[r#"
            kind: Pod
            metadata:
              name: web
              labels:
                app: web
                "on": "yes"
                "n": "1"
              annotations: {}
            spec:
              containers:
              - name: a
                args:
                - "-c"
                - "echo: hi"
                ports:
                - containerPort: 80
              - name: b
                tty: true
                command: []
              script: |
                one
                two
              unfinished: |-
                one
                  two
              odd: "\tx\n"
              empty: ""
              none: null
        "#]]
        .assert_eq(&document(&value));
    }

    #[test]
    fn what_is_written_reads_back_the_same() {
        let texts =
            ["", " x", "x ", "a: b", "0440", "1e3", "null", "~", "- x", "#c", "a #c", "é", "x\n\n", "\n", "{}", "a:b"];
        for text in texts {
            let value = json!({ "key": text, "list": [text, { text: text }] });
            let read = model::yaml::parse(&document(&value), "test").unwrap();
            assert_eq!(read[0].value, value, "{}", document(&value));
        }
    }
}
