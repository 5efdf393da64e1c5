//! What a YAML scalar means: the rules of YAML 1.1 as Go's parser applies them, since that is what kubectl's users write for.

use base64::Engine as _;
use serde_json::{Number, Value};

/// The meaning of an unquoted scalar.
///
/// # Errors
/// For infinities and NaN, which JSON lacks.
pub fn plain(text: &str) -> Result<Value, String> {
    Ok(match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" | "-.inf" | "-.Inf" | "-.INF" | ".nan" | ".NaN"
        | ".NAN" => {
            return Err(format!("{text} has no form in JSON: quote it if it is meant as text"));
        }
        _ => number(text).unwrap_or_else(|| Value::String(text.to_owned())),
    })
}

/// The meaning of a scalar with a tag of the core schema, such as `!!str 123`.
///
/// # Errors
/// Where the text is not what the tag says.
pub fn tagged(tag: &str, text: &str) -> Result<Value, String> {
    let value = match tag {
        "str" => return Ok(Value::String(text.to_owned())),
        "binary" => {
            let packed: String = text.split_whitespace().collect();
            let bytes = base64::engine::general_purpose::STANDARD.decode(packed).ok();
            let text = bytes.and_then(|bytes| String::from_utf8(bytes).ok());
            return text.map(Value::String).ok_or_else(|| "!!binary value is not base64 of text".to_owned());
        }
        _ => plain(text)?,
    };
    let suits = match tag {
        "int" => value.is_i64() || value.is_u64(),
        "float" => value.is_number(),
        "bool" => value.is_boolean(),
        "null" => value.is_null(),
        _ => true,
    };
    if suits { Ok(value) } else { Err(format!("cannot read {text:?} as !!{tag}")) }
}

fn number(text: &str) -> Option<Value> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    integer(&digits).or_else(|| float(&digits))
}

/// Decimal, `0x`, `0b`, `0o`, and octal by a leading zero.
fn integer(text: &str) -> Option<Value> {
    let (is_negative, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (radix, digits) = match unsigned.get(..2) {
        Some("0x" | "0X") => (16, &unsigned[2..]),
        Some("0b" | "0B") => (2, &unsigned[2..]),
        Some("0o" | "0O") => (8, &unsigned[2..]),
        Some(_) if unsigned.starts_with('0') => (8, &unsigned[1..]),
        _ => (10, unsigned),
    };
    if digits.starts_with(['+', '-']) {
        return None;
    }
    let magnitude = u64::from_str_radix(digits, radix).ok()?;
    if is_negative {
        return Some(Value::from(0i64.checked_sub_unsigned(magnitude)?));
    }
    Some(Value::from(magnitude))
}

/// A decimal fraction. What is whole and fits becomes an integer: JSON made by Go writes `1.0` as `1`.
fn float(text: &str) -> Option<Value> {
    let is_plain = |c: char| c.is_ascii_digit() || matches!(c, '.' | 'e' | 'E' | '+' | '-');
    if !text.chars().all(is_plain) || !text.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let value: f64 = text.parse().ok().filter(|value: &f64| value.is_finite())?;
    // Above 1e21 Go writes an exponent; below it every whole number is written out.
    if value.fract() == 0.0 && value.abs() < 9.0e15 {
        return Some(Value::from(value as i64));
    }
    Number::from_f64(value).map(Value::Number)
}

/// A key as text: JSON has no other keys.
pub fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}
