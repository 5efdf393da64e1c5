//! Writing YAML as kubectl does: block style, lists not indented, quotes only where a reader would take the text for something else.

use std::fmt::Write as _;

use serde_json::Value;

/// A document, with its last line ended.
pub fn text(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Object(fields) if !fields.is_empty() => write_fields(&mut text, value, 0, false),
        Value::Array(values) if !values.is_empty() => write_list(&mut text, values, 0, false),
        scalar => {
            write_scalar(&mut text, scalar, 0);
            text.push('\n');
        }
    }
    text
}

fn write_fields(text: &mut String, value: &Value, indent: usize, is_started: bool) {
    let mut is_started = is_started;
    for (name, value) in value.as_object().into_iter().flatten() {
        if !is_started {
            pad(text, indent);
        }
        is_started = false;
        write_text(text, name, indent);
        text.push(':');
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                text.push('\n');
                write_fields(text, value, indent + 2, false);
            }
            Value::Array(values) if !values.is_empty() => {
                text.push('\n');
                write_list(text, values, indent, false);
            }
            scalar => {
                text.push(' ');
                write_scalar(text, scalar, indent + 2);
                text.push('\n');
            }
        }
    }
}

fn write_list(text: &mut String, values: &[Value], indent: usize, is_started: bool) {
    let mut is_started = is_started;
    for value in values {
        if !is_started {
            pad(text, indent);
        }
        is_started = false;
        text.push_str("- ");
        match value {
            Value::Object(fields) if !fields.is_empty() => write_fields(text, value, indent + 2, true),
            Value::Array(values) if !values.is_empty() => write_list(text, values, indent + 2, true),
            scalar => {
                write_scalar(text, scalar, indent + 2);
                text.push('\n');
            }
        }
    }
}

fn write_scalar(text: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(string) => write_text(text, string, indent),
        Value::Array(_) => text.push_str("[]"),
        Value::Object(_) => text.push_str("{}"),
        other => _ = write!(text, "{other}"),
    }
}

fn write_text(text: &mut String, string: &str, indent: usize) {
    let is_printable =
        string.chars().all(|c| c == '\n' || !(c.is_control() || matches!(c, '\u{feff}' | '\u{2028}' | '\u{2029}')));
    if is_printable && string.contains('\n') && !string.starts_with([' ', '\n', '\t']) && !has_trailing_space(string) {
        write_block(text, string, indent);
    } else if !is_printable || string.contains('\n') {
        _ = write!(text, "{}", Value::from(string));
    } else if needs_quotes(string) {
        // Text that reads as another type is quoted doubly, text with marks of YAML's singly.
        if is_other_type(string) {
            _ = write!(text, "{}", Value::from(string))
        } else {
            _ = write!(text, "'{}'", string.replace('\'', "''"))
        }
    } else {
        text.push_str(string);
    }
}

fn write_block(text: &mut String, string: &str, indent: usize) {
    let body = string.trim_end_matches('\n');
    let chomping = match string.len() - body.len() {
        0 => "-",
        1 => "",
        _ => "+",
    };
    text.push('|');
    text.push_str(chomping);
    let lines = if chomping == "+" { &string[..string.len() - 1] } else { body };
    for line in lines.split('\n') {
        text.push('\n');
        if !line.is_empty() {
            pad(text, indent.max(2));
            text.push_str(line);
        }
    }
}

fn pad(text: &mut String, indent: usize) {
    text.extend(std::iter::repeat_n(' ', indent));
}

fn has_trailing_space(string: &str) -> bool {
    string.split('\n').any(|line| line.ends_with([' ', '\t']))
}

/// Plain, it would be read as a boolean, a number, null.
fn is_other_type(string: &str) -> bool {
    let read = model::yaml::parse(&format!("v: {string}\n"), "");
    let value = read.ok().and_then(|documents| documents.first().map(|document| document.value["v"].clone()));
    matches!(string, "" | "~" | "null" | "Null" | "NULL")
        || value.is_some_and(|value| value.is_boolean() || value.is_number())
        || is_date(string)
}

/// Go's YAML quotes dates, since older readers take them for timestamps.
fn is_date(string: &str) -> bool {
    let bytes = string.as_bytes();
    bytes.len() >= 8
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b'-'
        && bytes[5].is_ascii_digit()
        && string.chars().all(|c| c.is_ascii_digit() || matches!(c, '-' | ':' | 'T' | 't' | 'Z' | '.' | '+' | ' '))
}

fn needs_quotes(string: &str) -> bool {
    is_other_type(string)
        || string.starts_with([
            '-', '?', ':', ',', '[', ']', '{', '}', '#', '&', '*', '!', '|', '>', '\'', '"', '%', '@', '`', ' ', '=',
        ]) && !is_plain_dash(string)
        || string.ends_with([' ', ':'])
        || string.contains(": ")
        || string.contains(" #")
        || string == "<<"
}

/// `-x` is text; `- x` would be a list.
fn is_plain_dash(string: &str) -> bool {
    matches!(string.as_bytes(), [b'-' | b'?' | b':', next, ..] if *next != b' ') && string != "---"
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_written_as_kubectl_writes_them() {
        let value = json!({
            "apiVersion": "v1", "empty": {}, "none": [], "null": null, "number": 3, "ok": true,
            "list": [{"name": "a", "args": ["-c", "x: y", "*"]}, [1, 2]],
            "text": {"bool": "true", "number": "8", "date": "2026-01-01T00:00:00Z", "empty": "", "colon": "a: b", "quote": "it's",
                "lines": "one\ntwo\n", "cut": "one\ntwo", "tab": "a\tb", "plain": "it is: fine", "hash": "#x", "y": "y"},
        });
        expect![[r##"
            apiVersion: v1
            empty: {}
            none: []
            "null": null
            number: 3
            ok: true
            list:
            - name: a
              args:
              - -c
              - 'x: y'
              - '*'
            - - 1
              - 2
            text:
              bool: "true"
              number: "8"
              date: "2026-01-01T00:00:00Z"
              empty: ""
              colon: 'a: b'
              quote: it's
              lines: |
                one
                two
              cut: |-
                one
                two
              tab: "a\tb"
              plain: 'it is: fine'
              hash: '#x'
              "y": "y"
        "##]]
        .assert_eq(&text(&value));
    }

    #[test]
    fn what_is_written_reads_back() {
        for string in [
            "a", "", " a", "a ", "- a", "-a", "a:", "a: b", "a #b", "0x1", "1e3", "~", "null", "|", "a\n", "a\n\n",
            "\na", "a\n b \n", "é", "'", "\"", "%", "[x", "{", "<<", "=", "\u{7f}", "1_0", "---", "yes", "---a",
        ] {
            let value = json!({"v": string, "l": [string]});
            let written = text(&value);
            let read = model::yaml::parse(&written, "x")
                .unwrap_or_else(|error| panic!("{string:?} written as {written:?}: {error}"));
            assert_eq!(read[0].value, value, "{written}");
        }
    }
}
