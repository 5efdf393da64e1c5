//! Protobuf to JSON.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    DEPTH_MAX, Error,
    json::Reader,
    schema::{Cardinality, Field, FieldType, Message, MessageId, Scalar, Schema, schema},
    text,
};
use crate::{
    envelope,
    schema::Form,
    time,
    wire::{Fields, Malformed, Value},
};

/// Writes an object as JSON, compact, with `type_meta` (apiVersion, kind) in front.
///
/// What it wrote before an error stays in `out`.
///
/// # Errors
/// Where the bytes are not the message. Fields the message does not have are passed over.
pub fn proto_to_json(
    message: MessageId,
    bytes: &[u8],
    type_meta: Option<(&str, &str)>,
    out: &mut Vec<u8>,
) -> Result<(), Error> {
    let encoder = Encoder { schema: schema() };
    match encoder.schema[message].form {
        Form::Plain => encoder.object(message, bytes, type_meta, 1, out),
        _ => encoder.message(message, bytes, 1, out),
    }
}

/// As [`proto_to_json`], as a value.
///
/// # Errors
/// As [`proto_to_json`].
pub fn proto_to_value(
    message: MessageId,
    bytes: &[u8],
    type_meta: Option<(&str, &str)>,
) -> Result<serde_json::Value, Error> {
    let mut json = Vec::with_capacity(bytes.len() * 3);
    proto_to_json(message, bytes, type_meta, &mut json)?;
    // Raw JSON inside may have numbers no float can hold.
    serde_json::from_slice(&json).map_err(|error| Error::Protobuf { path: String::new(), reason: error.to_string() })
}

/// A message inside one that JSON does not show.
type Inner<'b> = (MessageId, Cow<'b, [u8]>);

struct Encoder {
    schema: &'static Schema,
}

impl From<Malformed> for Error {
    fn from(malformed: Malformed) -> Self {
        Self::Protobuf { path: String::new(), reason: malformed.to_string() }
    }
}

fn wrong(reason: &str) -> Error {
    Error::Protobuf { path: String::new(), reason: reason.to_owned() }
}

impl Encoder {
    fn object(
        &self,
        id: MessageId,
        bytes: &[u8],
        type_meta: Option<(&str, &str)>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::Depth { path: String::new() });
        }
        out.push(b'{');
        let mut first = true;
        if let Some((api_version, kind)) = type_meta {
            for (key, value) in [("\"kind\":", kind), ("\"apiVersion\":", api_version)] {
                if !value.is_empty() {
                    start(key, &mut first, out);
                    text::push_string(value, out);
                }
            }
        }
        self.fields(&self.schema[id], bytes, depth, &mut first, out)?;
        out.push(b'}');
        Ok(())
    }

    fn fields(
        &self,
        message: &Message,
        bytes: &[u8],
        depth: usize,
        first: &mut bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let mut values: Vec<(u16, Value<'_>)> = Vec::with_capacity(16);
        let mut in_order = true;
        let mut fields = Fields::new(bytes);
        while let Some((number, value)) = fields.next()? {
            if let Some(index) = message.index_of(number) {
                in_order &= values.last().is_none_or(|last| last.0 <= index);
                values.push((index, value));
            }
        }
        if !in_order {
            values.sort_by_key(|value| value.0);
        }
        let mut rest = values.as_slice();
        for (index, field) in message.fields.iter().enumerate() {
            let count = rest.iter().take_while(|value| usize::from(value.0) == index).count();
            let (present, behind) = rest.split_at(count);
            rest = behind;
            self.field(field, present, depth, first, out).map_err(|error| match field.schema.inlined {
                true => error,
                false => error.within(format_args!("{}", field.json_name)),
            })?;
        }
        Ok(())
    }

    fn field(
        &self,
        field: &Field,
        present: &[(u16, Value<'_>)],
        depth: usize,
        first: &mut bool,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        match (field.cardinality, field.field_type) {
            (Cardinality::Single | Cardinality::Optional, FieldType::Message(id)) => {
                let message = &self.schema[id];
                let content = joined(present)?;
                if field.schema.inlined {
                    return self.fields(message, &content, depth, first, out);
                }
                if present.is_empty() && !field.schema.object {
                    if field.schema.required {
                        start(&field.json_key, first, out);
                        out.extend_from_slice(b"null");
                    }
                    return Ok(());
                }
                let is_no_time = matches!(message.form, Form::Time | Form::MicroTime) && no_time(&content)?;
                if is_no_time && !field.schema.object && !field.schema.required {
                    return Ok(());
                }
                start(&field.json_key, first, out);
                self.message(id, &content, depth, out)
            }
            (Cardinality::Single | Cardinality::Optional, FieldType::Scalar(scalar)) => {
                let keep_zero =
                    field.schema.required || (field.cardinality == Cardinality::Optional && !present.is_empty());
                let value = match present.last() {
                    Some((_, value)) => *value,
                    None if keep_zero => zero(scalar),
                    None => return Ok(()),
                };
                if !keep_zero && is_zero(value) {
                    return Ok(());
                }
                start(&field.json_key, first, out);
                self.scalar(scalar, value, out)
            }
            (Cardinality::List, element) => {
                if present.is_empty() {
                    return self.no_elements(field, first, out);
                }
                start(&field.json_key, first, out);
                self.list(element, present, depth, out)
            }
            (Cardinality::Map, value) => {
                if present.is_empty() {
                    return self.no_elements(field, first, out);
                }
                start(&field.json_key, first, out);
                self.map(value, present, depth, out)
            }
        }
    }

    fn no_elements(&self, field: &Field, first: &mut bool, out: &mut Vec<u8>) -> Result<(), Error> {
        if field.schema.required {
            start(&field.json_key, first, out);
            out.extend_from_slice(b"null");
        }
        Ok(())
    }

    fn list(
        &self,
        element: FieldType,
        present: &[(u16, Value<'_>)],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if depth >= DEPTH_MAX {
            return Err(Error::Depth { path: String::new() });
        }
        out.push(b'[');
        let mut index = 0;
        let mut separate = |out: &mut Vec<u8>| {
            if index > 0 {
                out.push(b',');
            }
            index += 1;
            index - 1
        };
        for (_, value) in present {
            match (element, *value) {
                (FieldType::Message(id), Value::Bytes(bytes)) => {
                    let at = separate(out);
                    self.message(id, bytes, depth + 1, out).map_err(|error| error.within(format_args!("[{at}]")))?;
                }
                // Numbers may come packed.
                (FieldType::Scalar(scalar @ (Scalar::Bool | Scalar::Int32 | Scalar::Int64)), Value::Bytes(packed)) => {
                    let mut numbers = Fields::new(packed);
                    while !numbers.is_empty() {
                        separate(out);
                        self.scalar(scalar, Value::Varint(numbers.varint()?), out)?;
                    }
                }
                (FieldType::Scalar(scalar), value) => {
                    let at = separate(out);
                    self.scalar(scalar, value, out).map_err(|error| error.within(format_args!("[{at}]")))?;
                }
                _ => return Err(wrong("a number where a message should be")),
            }
        }
        out.push(b']');
        Ok(())
    }

    fn map(
        &self,
        value_type: FieldType,
        present: &[(u16, Value<'_>)],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        if depth >= DEPTH_MAX {
            return Err(Error::Depth { path: String::new() });
        }
        let mut entries: Vec<(&[u8], Option<Value<'_>>)> = Vec::with_capacity(present.len());
        for (_, entry) in present {
            let Value::Bytes(entry) = entry else { return Err(wrong("a number where a map entry should be")) };
            let (mut key, mut value) = (&b""[..], None);
            let mut fields = Fields::new(entry);
            while let Some(field) = fields.next()? {
                match field {
                    (1, Value::Bytes(bytes)) => key = bytes,
                    (2, any) => value = Some(any),
                    _ => {}
                }
            }
            entries.push((key, value));
        }
        // Stable: of two entries with one key, the last one counts.
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            entries.sort_by(|a, b| a.0.cmp(b.0));
        }
        out.push(b'{');
        let mut first = true;
        for (index, (key, value)) in entries.iter().enumerate() {
            if entries.get(index + 1).is_some_and(|next| next.0 == *key) {
                continue;
            }
            let key = utf8(key)?;
            if !first {
                out.push(b',');
            }
            first = false;
            text::push_string(key, out);
            out.push(b':');
            let written = match (value_type, value) {
                (FieldType::Message(id), None) => self.message(id, b"", depth + 1, out),
                (FieldType::Message(id), Some(Value::Bytes(bytes))) => self.message(id, bytes, depth + 1, out),
                (FieldType::Message(_), Some(_)) => Err(wrong("a number where a message should be")),
                (FieldType::Scalar(scalar), value) => self.scalar(scalar, value.unwrap_or(zero(scalar)), out),
            };
            written.map_err(|error| error.within(format_args!("{key}")))?;
        }
        out.push(b'}');
        Ok(())
    }

    fn message(&self, id: MessageId, bytes: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        let message = &self.schema[id];
        match message.form {
            Form::Plain => return self.object(id, bytes, None, depth + 1, out),
            Form::Time | Form::MicroTime => {
                if no_time(bytes)? {
                    out.extend_from_slice(b"null");
                } else {
                    let (seconds, nanos) = timestamp(bytes)?;
                    let mut text = String::with_capacity(32);
                    time::push(seconds, (message.form == Form::MicroTime).then_some(nanos), &mut text);
                    text::push_string(&text, out);
                }
            }
            Form::Duration => {
                let nanos = varint(bytes, 1)?;
                text::push_string(&text::duration(nanos as i64), out);
            }
            Form::Quantity => match utf8(content(bytes, 1)?)? {
                "" => out.extend_from_slice(b"\"0\""),
                text => text::push_string(text, out),
            },
            Form::IntOrString => match varint(bytes, 1)? {
                0 => text::push_integer(i64::from(varint(bytes, 2)? as i32), out),
                _ => text::push_string(utf8(content(bytes, 3)?)?, out),
            },
            Form::RawJson => self.raw_json(content(bytes, 1)?, depth, out)?,
            Form::Items => self.only_list(message, 1, bytes, depth, out)?,
            Form::SchemaOrBool => match self.inner(message, 2, bytes)? {
                Some((inner, schema)) => return self.message(inner, &schema, depth + 1, out),
                None if varint(bytes, 1)? != 0 => out.extend_from_slice(b"true"),
                None => out.extend_from_slice(b"false"),
            },
            Form::SchemaOrArray | Form::SchemaOrStrings => match self.inner(message, 1, bytes)? {
                Some((inner, schema)) => return self.message(inner, &schema, depth + 1, out),
                None => self.only_list(message, 2, bytes, depth, out)?,
            },
        }
        Ok(())
    }

    /// The message in field `number`, where there is one.
    fn inner<'b>(&self, message: &Message, number: u32, bytes: &'b [u8]) -> Result<Option<Inner<'b>>, Error> {
        let present = occurrences(bytes, number)?;
        match message.field(number).map(|field| field.field_type) {
            Some(FieldType::Message(id)) if !present.is_empty() => Ok(Some((id, joined(&present)?))),
            _ => Ok(None),
        }
    }

    /// The list in field `number`, as the whole message.
    fn only_list(
        &self,
        message: &Message,
        number: u32,
        bytes: &[u8],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let field = message.field(number).expect("messages of this form have a list there");
        self.list(field.field_type, &occurrences(bytes, number)?, depth, out)
    }

    /// JSON as it was stored. Clients that speak protobuf may put an object in its envelope here.
    fn raw_json(&self, raw: &[u8], depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if raw.is_empty() {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        if raw.starts_with(envelope::MAGIC) {
            let (api_version, kind, object) = envelope::parts(raw).map_err(|error| wrong(&error.to_string()))?;
            let id = self.schema.kind(api_version, kind);
            let id = id.ok_or_else(|| wrong(&format!("an object of the unknown kind {kind:?} of {api_version:?}")))?;
            return self.object(id, object, Some((api_version, kind)), depth + 1, out);
        }
        let copied = Reader::new(raw).and_then(|mut reader| reader.copy(out).and_then(|()| reader.end()));
        copied.map_err(|error| wrong(&format!("bytes that are not JSON: {error}")))
    }

    fn scalar(&self, scalar: Scalar, value: Value<'_>, out: &mut Vec<u8>) -> Result<(), Error> {
        match (scalar, value) {
            (Scalar::String, Value::Bytes(bytes)) => text::push_string(utf8(bytes)?, out),
            (Scalar::Bytes, Value::Bytes(bytes)) => {
                out.push(b'"');
                let from = out.len();
                out.resize(from + base64::encoded_len(bytes.len(), true).ok_or_else(|| wrong("bytes too long"))?, 0);
                let written = STANDARD.encode_slice(bytes, &mut out[from..]);
                out.truncate(from + written.expect("the length was asked for"));
                out.push(b'"');
            }
            (Scalar::Bool, Value::Varint(value)) => out.extend_from_slice(if value != 0 { b"true" } else { b"false" }),
            (Scalar::Int32, Value::Varint(value)) => text::push_integer(i64::from(value as i32), out),
            (Scalar::Int64, Value::Varint(value)) => text::push_integer(value as i64, out),
            (Scalar::Double, Value::Fixed64(bits)) => {
                let value = f64::from_bits(bits);
                let text =
                    text::float(value).ok_or_else(|| wrong(&format!("the float {value}, which JSON cannot say")))?;
                out.extend_from_slice(text.as_bytes());
            }
            _ => return Err(wrong(&format!("another wire type than {} has", scalar.name()))),
        }
        Ok(())
    }
}

fn start(key: &str, first: &mut bool, out: &mut Vec<u8>) {
    if !*first {
        out.push(b',');
    }
    *first = false;
    out.extend_from_slice(key.as_bytes());
}

fn zero(scalar: Scalar) -> Value<'static> {
    match scalar {
        Scalar::String | Scalar::Bytes => Value::Bytes(b""),
        Scalar::Double => Value::Fixed64(0),
        Scalar::Bool | Scalar::Int32 | Scalar::Int64 => Value::Varint(0),
    }
}

fn is_zero(value: Value<'_>) -> bool {
    match value {
        Value::Varint(value) | Value::Fixed64(value) => value == 0,
        Value::Fixed32(value) => value == 0,
        Value::Bytes(bytes) => bytes.is_empty(),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Error> {
    std::str::from_utf8(bytes).map_err(|_| wrong("a string that is not UTF-8"))
}

/// A message that came in several parts is their concatenation, which is protobuf's merge.
fn joined<'b>(present: &[(u16, Value<'b>)]) -> Result<Cow<'b, [u8]>, Error> {
    let bytes = |value: &Value<'b>| match value {
        Value::Bytes(bytes) => Ok(*bytes),
        _ => Err(wrong("a number where a message should be")),
    };
    match present {
        [] => Ok(Cow::Borrowed(b"")),
        [(_, only)] => bytes(only).map(Cow::Borrowed),
        several => {
            let parts: Result<Vec<&[u8]>, Error> = several.iter().map(|(_, value)| bytes(value)).collect();
            Ok(Cow::Owned(parts?.concat()))
        }
    }
}

fn occurrences(bytes: &[u8], number: u32) -> Result<Vec<(u16, Value<'_>)>, Error> {
    let mut found = Vec::new();
    let mut fields = Fields::new(bytes);
    while let Some((n, value)) = fields.next()? {
        if n == number {
            found.push((0, value));
        }
    }
    Ok(found)
}

fn varint(bytes: &[u8], number: u32) -> Result<u64, Error> {
    let mut found = 0;
    let mut fields = Fields::new(bytes);
    while let Some((n, value)) = fields.next()? {
        if n == number {
            let Value::Varint(value) = value else { return Err(wrong("another wire type than a number has")) };
            found = value;
        }
    }
    Ok(found)
}

fn content(bytes: &[u8], number: u32) -> Result<&[u8], Error> {
    let mut found = &bytes[..0];
    let mut fields = Fields::new(bytes);
    while let Some((n, value)) = fields.next()? {
        if n == number {
            let Value::Bytes(value) = value else { return Err(wrong("a number where bytes should be")) };
            found = value;
        }
    }
    Ok(found)
}

fn timestamp(bytes: &[u8]) -> Result<(i64, i32), Error> {
    Ok((varint(bytes, 1)? as i64, varint(bytes, 2)? as i32))
}

/// An empty time, or the first second of year one, is none.
fn no_time(bytes: &[u8]) -> Result<bool, Error> {
    if bytes.is_empty() {
        return Ok(true);
    }
    let (seconds, nanos) = timestamp(bytes)?;
    Ok(time::is_zero(seconds, nanos))
}
