//! JSON to protobuf.

use std::borrow::Cow;

use base64::{
    DecodeError, Engine,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};

use super::{
    DEPTH_MAX, Decoded, Error, ISSUES_MAX, Issue, IssueKind,
    json::{Reader, quoted},
    schema::{Cardinality, Field, FieldType, Message, MessageId, Scalar, Schema, schema},
    text,
};
use crate::{k8s::runtime::TypeMeta, quantity, schema::Form, time, wire};

/// Reads one object's JSON as protobuf. apiVersion and kind are accepted and not stored.
///
/// Unknown and duplicate fields do not fail it: they are reported, and whoever asked decides.
///
/// # Errors
/// Where the text is not JSON, a value has the wrong type or form, or it nests too deep.
pub fn json_to_proto(message: MessageId, json: &[u8]) -> Result<Decoded, Error> {
    let mut decoder = Decoder {
        schema: schema(),
        reader: Reader::new(json)?,
        path: Vec::new(),
        parts: Vec::new(),
        scratch: Vec::new(),
        issues: Vec::new(),
        depth: 0,
    };
    let mut bytes = Vec::with_capacity(json.len() / 2);
    if !decoder.message(message, &mut bytes)? {
        let expected = decoder.schema[message].type_name().to_owned();
        return Err(Error::Type { path: String::new(), found: "null".to_owned(), expected });
    }
    decoder.reader.end()?;
    Ok(Decoded { bytes, issues: decoder.issues })
}

/// As [`json_to_proto`], for a document that is a value already.
///
/// # Errors
/// As [`json_to_proto`].
pub fn value_to_proto(message: MessageId, value: &serde_json::Value) -> Result<Decoded, Error> {
    json_to_proto(message, value.to_string().as_bytes())
}

/// The apiVersion and kind that a JSON document names; empty where it names none. Reads no further than it must.
///
/// # Errors
/// Where the text is not a JSON object, or names them in another type than string.
pub fn type_meta(json: &[u8]) -> Result<TypeMeta, Error> {
    let mut reader = Reader::new(json)?;
    if reader.peek()? != b'{' {
        let found = reader.describe()?;
        return Err(Error::Type { path: String::new(), found, expected: "object".to_owned() });
    }
    reader.open()?;
    let (mut api_version, mut kind) = (None, None);
    let mut first = true;
    while let Some(key) = reader.next_key(&mut first)? {
        let place = match &*key {
            "apiVersion" => &mut api_version,
            "kind" => &mut kind,
            _ => {
                reader.skip()?;
                continue;
            }
        };
        *place = Some(type_meta_text(&mut reader, &key)?.into_owned());
        if api_version.is_some() && kind.is_some() {
            break;
        }
    }
    Ok(TypeMeta { api_version: api_version.unwrap_or_default(), kind: kind.unwrap_or_default() })
}

fn type_meta_text<'a>(reader: &mut Reader<'a>, key: &str) -> Result<Cow<'a, str>, Error> {
    match reader.peek()? {
        b'"' => reader.string(),
        b'n' => reader.literal("null").map(|()| Cow::Borrowed("")),
        _ => Err(Error::Type { path: key.to_owned(), found: reader.describe()?, expected: "string".to_owned() }),
    }
}

/// The content of the quantity `0`.
const QUANTITY_ZERO: &[u8] = &[0x0a, 1, b'0'];

struct Decoder<'a> {
    schema: &'static Schema,
    reader: Reader<'a>,
    path: Vec<Segment<'a>>,
    /// The fields of all open objects, as far as they are read; a stack.
    parts: Vec<Part>,
    scratch: Vec<u8>,
    issues: Vec<Issue>,
    depth: usize,
}

enum Segment<'a> {
    Field(&'static str),
    Index(usize),
    Key(Cow<'a, str>),
}

/// A field that was read: its place in the message, and where its encoding stands.
#[derive(Clone, Copy)]
struct Part {
    key: u64,
    steps: u8,
    from: usize,
    to: usize,
}

impl<'a> Decoder<'a> {
    /// Writes a message's content; false for `null`.
    fn message(&mut self, id: MessageId, out: &mut Vec<u8>) -> Result<bool, Error> {
        let message = &self.schema[id];
        let first = self.reader.peek()?;
        if first == b'n' {
            return self.reader.literal("null").map(|()| false);
        }
        match (message.form, first) {
            (Form::Plain, b'{') => self.object(message, out)?,
            (Form::Time, b'"') => return self.time(false, out),
            (Form::MicroTime, b'"') => return self.time(true, out),
            (Form::Duration, b'"') => {
                let text = self.reader.string()?;
                let Some(nanos) = text::parse_duration(&text) else {
                    return self.invalid(&text, "not a duration like 1h30m or 500ms");
                };
                put_integer(1, nanos, out);
            }
            (Form::Quantity, b'"' | b'-' | b'0'..=b'9') => self.quantity(first, out)?,
            (Form::IntOrString, b'"') => {
                let text = self.reader.string()?;
                put_integer(1, 1, out);
                put_text(3, &text, out);
            }
            (Form::IntOrString, b'-' | b'0'..=b'9') => {
                let value = self.integer(Scalar::Int32)?;
                put_integer(2, value, out);
            }
            (Form::RawJson, _) => {
                let from = out.len();
                self.reader.copy(out)?;
                wire::wrap(1, from, out);
            }
            (Form::Items, b'[') => self.elements(1, FieldType::Scalar(Scalar::String), out)?,
            (Form::SchemaOrArray | Form::SchemaOrStrings, b'{') => self.wrapped(message, 1, out)?,
            (Form::SchemaOrArray | Form::SchemaOrStrings, b'[') => {
                let element = message.field(2).expect("the second field has the list").field_type;
                self.elements(2, element, out)?;
            }
            (Form::SchemaOrBool, b't' | b'f') => self.scalar(Scalar::Bool, 1, false, out)?,
            (Form::SchemaOrBool, b'{') => {
                put_integer(1, 1, out);
                self.wrapped(message, 2, out)?;
            }
            _ => return self.wrong_type(message.type_name()),
        }
        Ok(true)
    }

    /// The object is the content of the field `number` of a message that JSON does not show.
    fn wrapped(&mut self, message: &Message, number: u32, out: &mut Vec<u8>) -> Result<(), Error> {
        let Some(FieldType::Message(inner)) = message.field(number).map(|field| field.field_type) else {
            unreachable!("field {number} of {} is a message", message.full_name)
        };
        self.deeper()?;
        let from = out.len();
        self.message(inner, out)?;
        wire::wrap(number, from, out);
        self.depth -= 1;
        Ok(())
    }

    fn object(&mut self, message: &'static Message, out: &mut Vec<u8>) -> Result<(), Error> {
        self.deeper()?;
        self.reader.open()?;
        let (base, start) = (self.parts.len(), out.len());
        let mut in_order = true;
        let mut newest = 0;
        let mut first = true;
        while let Some(key) = self.reader.next_key(&mut first)? {
            let Some(found) = message.json_field(&key) else {
                self.other_field(message, key)?;
                continue;
            };
            if self.parts[base..].iter().any(|part| part.key == found.key) {
                self.issue(IssueKind::DuplicateField, message, &key);
            }
            let from = out.len();
            let field = self.schema.field_of(found);
            self.path.push(Segment::Field(field.json_name));
            self.field(field, out)?;
            self.path.pop();
            in_order &= found.key > newest && found.steps == 1;
            newest = found.key;
            self.parts.push(Part { key: found.key, steps: found.steps, from, to: out.len() });
        }
        if !in_order {
            self.arrange(base, start, out);
        }
        self.parts.truncate(base);
        self.depth -= 1;
        Ok(())
    }

    /// A key that is no field of the message: its apiVersion or kind, or unknown.
    fn other_field(&mut self, message: &'static Message, key: Cow<'a, str>) -> Result<(), Error> {
        if (message.is_object || self.depth == 1) && (key == "apiVersion" || key == "kind") {
            return type_meta_text(&mut self.reader, &key).map(drop).map_err(|error| match self.path.is_empty() {
                true => error,
                false => error.within(format_args!("{}", self.place())),
            });
        }
        self.issue(IssueKind::UnknownField, message, &key);
        self.reader.skip()
    }

    /// Puts the fields that were read since `base` into number order, the inlined ones into their messages.
    fn arrange(&mut self, base: usize, start: usize, out: &mut Vec<u8>) {
        let parts = &mut self.parts[base..];
        // Stable: of a duplicate, the last one stays last.
        parts.sort_by_key(|part| part.key);
        let mut kept = 0;
        for index in 0..parts.len() {
            if parts.get(index + 1).is_none_or(|next| next.key != parts[index].key) {
                parts[kept] = parts[index];
                kept += 1;
            }
        }
        self.scratch.clear();
        self.scratch.extend_from_slice(&out[start..]);
        out.truncate(start);
        assemble(&parts[..kept], 0, start, &self.scratch, out);
    }

    fn field(&mut self, field: &Field, out: &mut Vec<u8>) -> Result<(), Error> {
        match (field.cardinality, field.field_type) {
            (Cardinality::Single, FieldType::Scalar(scalar)) => self.scalar(scalar, field.number, false, out),
            (Cardinality::Optional, FieldType::Scalar(scalar)) => self.scalar(scalar, field.number, true, out),
            (Cardinality::Single | Cardinality::Optional, FieldType::Message(id)) => {
                let from = out.len();
                let present = self.message(id, out)?;
                // The zero of a struct value is the same as its absence, and has one form: none.
                let is_zero = matches!(&out[from..], b"" | QUANTITY_ZERO) && field.is_struct_value();
                if present && !is_zero {
                    wire::wrap(field.number, from, out);
                } else {
                    out.truncate(from);
                }
                Ok(())
            }
            (Cardinality::List, element) => match self.reader.peek()? {
                b'[' => self.elements(field.number, element, out),
                b'n' => self.reader.literal("null"),
                _ => self.wrong_type(&format!("[]{}", self.name_of(element))),
            },
            (Cardinality::Map, value) => match self.reader.peek()? {
                b'{' => self.map(field.number, value, out),
                b'n' => self.reader.literal("null"),
                _ => self.wrong_type(&format!("map[string]{}", self.name_of(value))),
            },
        }
    }

    fn elements(&mut self, number: u32, element: FieldType, out: &mut Vec<u8>) -> Result<(), Error> {
        self.deeper()?;
        self.reader.open()?;
        let mut first = true;
        let mut index = 0;
        while self.reader.next_element(&mut first)? {
            self.path.push(Segment::Index(index));
            let from = out.len();
            match element {
                FieldType::Scalar(scalar) => {
                    self.scalar(scalar, number, true, out)?;
                    if out.len() == from {
                        // null stands for the zero value, so that the others keep their places.
                        put_zero(scalar, number, out);
                    }
                }
                FieldType::Message(id) => {
                    self.message(id, out)?;
                    wire::wrap(number, from, out);
                }
            }
            self.path.pop();
            index += 1;
        }
        self.depth -= 1;
        Ok(())
    }

    fn map(&mut self, number: u32, value: FieldType, out: &mut Vec<u8>) -> Result<(), Error> {
        self.deeper()?;
        self.reader.open()?;
        let start = out.len();
        let mut entries: Vec<(Cow<'a, str>, usize, usize)> = Vec::new();
        let mut first = true;
        while let Some(key) = self.reader.next_key(&mut first)? {
            let from = out.len();
            put_text(1, &key, out);
            self.path.push(Segment::Key(key));
            match value {
                FieldType::Scalar(scalar) => self.scalar(scalar, 2, false, out)?,
                FieldType::Message(id) => {
                    let from = out.len();
                    if self.message(id, out)? && out.len() > from {
                        wire::wrap(2, from, out);
                    }
                }
            }
            wire::wrap(number, from, out);
            if let Some(Segment::Key(key)) = self.path.pop() {
                entries.push((key, from, out.len()));
            }
        }
        if !entries.is_sorted_by(|a, b| a.0 < b.0) {
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            self.scratch.clear();
            self.scratch.extend_from_slice(&out[start..]);
            out.truncate(start);
            let mut entries = entries.into_iter().peekable();
            while let Some((key, from, to)) = entries.next() {
                if entries.peek().is_some_and(|next| next.0 == key) {
                    self.report(IssueKind::DuplicateField, None, &key);
                } else {
                    out.extend_from_slice(&self.scratch[from - start..to - start]);
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Writes a field; nothing for `null`, nor for a zero that is not to be kept.
    fn scalar(&mut self, scalar: Scalar, number: u32, keep_zero: bool, out: &mut Vec<u8>) -> Result<(), Error> {
        let first = self.reader.peek()?;
        match (scalar, first) {
            (_, b'n') => self.reader.literal("null")?,
            (Scalar::String, b'"') => {
                let text = self.reader.string()?;
                if keep_zero || !text.is_empty() {
                    wire::put_bytes(number, text.as_bytes(), out);
                }
            }
            (Scalar::Bytes, b'"') => {
                let bytes = self.base64()?;
                if keep_zero || !bytes.is_empty() {
                    wire::put_bytes(number, &bytes, out);
                }
            }
            (Scalar::Bool, b't' | b'f') => {
                let value = first == b't';
                self.reader.literal(if value { "true" } else { "false" })?;
                if keep_zero || value {
                    wire::put_tag(number, 0, out);
                    out.push(u8::from(value));
                }
            }
            (Scalar::Int32 | Scalar::Int64, b'-' | b'0'..=b'9') => {
                let value = self.integer(scalar)?;
                if keep_zero || value != 0 {
                    wire::put_tag(number, 0, out);
                    wire::put_varint(value as u64, out);
                }
            }
            (Scalar::Double, b'-' | b'0'..=b'9') => {
                let text = self.reader.number()?;
                let value = text.parse::<f64>().ok().filter(|value| value.is_finite());
                let Some(value) = value else { return self.mismatch(format!("number {text}"), scalar.name()) };
                if keep_zero || value.to_bits() != 0 {
                    wire::put_tag(number, 1, out);
                    out.extend_from_slice(&value.to_le_bytes());
                }
            }
            _ => return self.wrong_type(scalar.name()),
        }
        Ok(())
    }

    fn integer(&mut self, scalar: Scalar) -> Result<i64, Error> {
        let text = self.reader.number()?;
        let value = text.parse::<i64>().ok();
        let in_range = |value: &i64| scalar == Scalar::Int64 || i32::try_from(*value).is_ok();
        match value.filter(in_range) {
            Some(value) => Ok(value),
            None => self.mismatch(format!("number {text}"), scalar.name()),
        }
    }

    fn base64(&mut self) -> Result<Vec<u8>, Error> {
        /// Go's decoder does not look at the bits behind the last byte.
        const LENIENT: GeneralPurpose =
            GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
        let text = self.reader.string()?;
        // Line breaks are allowed anywhere, as in Go.
        let joined = if text.contains(['\n', '\r']) {
            Cow::Owned(text.replace(['\n', '\r'], ""))
        } else {
            Cow::Borrowed(&*text)
        };
        LENIENT.decode(joined.as_bytes()).or_else(|error| {
            let at = match error {
                DecodeError::InvalidByte(at, _) | DecodeError::InvalidLastSymbol(at, _) => at,
                DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => joined.len(),
            };
            self.invalid(&text, &format!("illegal base64 data at input byte {at}"))
        })
    }

    fn time(&mut self, micro: bool, out: &mut Vec<u8>) -> Result<bool, Error> {
        let text = self.reader.string()?;
        let Ok((seconds, nanos)) = time::parse(&text) else {
            return self.invalid(&text, "not an RFC 3339 time like 2006-01-02T15:04:05Z");
        };
        let nanos = if micro { nanos / 1000 * 1000 } else { 0 };
        if time::is_zero(seconds, nanos) {
            return Ok(false);
        }
        if (seconds, nanos) == (0, 0) {
            // The first second of 1970 says so; without it, the message would be empty and mean "no time".
            out.extend_from_slice(&[8, 0]);
        }
        put_integer(1, seconds, out);
        put_integer(2, i64::from(nanos), out);
        Ok(true)
    }

    fn quantity(&mut self, first: u8, out: &mut Vec<u8>) -> Result<(), Error> {
        let (text, canonical) = if first == b'"' {
            let text = self.reader.string()?;
            let canonical = quantity::canonical(text.trim());
            (text, canonical)
        } else {
            // A number has no suffix to keep: 1e3 is one thousand, however it was written.
            let text = self.reader.number()?;
            (Cow::Borrowed(text), quantity::parse(text).map(|amount| amount.in_decimal().to_string()))
        };
        match canonical {
            Ok(canonical) => put_text(1, &canonical, out),
            Err(error) => {
                let reason = error.to_string();
                let reason = reason.split_once(": ").map_or(reason.as_str(), |(_, rule)| rule);
                return self.invalid(&text, reason);
            }
        }
        Ok(())
    }

    fn deeper(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::Depth { path: self.place() });
        }
        Ok(())
    }

    fn wrong_type<T>(&mut self, expected: &str) -> Result<T, Error> {
        let found = self.reader.describe()?;
        self.mismatch(found, expected)
    }

    fn mismatch<T>(&self, found: String, expected: &str) -> Result<T, Error> {
        Err(Error::Type { path: self.place(), found, expected: expected.to_owned() })
    }

    fn invalid<T>(&self, found: &str, reason: &str) -> Result<T, Error> {
        Err(Error::Value { path: self.place(), found: quoted(found), reason: reason.to_owned() })
    }

    fn name_of(&self, element: FieldType) -> &'static str {
        match element {
            FieldType::Scalar(scalar) => scalar.name(),
            FieldType::Message(id) => self.schema[id].type_name(),
        }
    }

    fn issue(&mut self, kind: IssueKind, message: &'static Message, name: &str) {
        let id = self.schema.message(message.full_name);
        self.report(kind, id, name);
    }

    fn report(&mut self, kind: IssueKind, message: Option<MessageId>, name: &str) {
        if self.issues.len() == ISSUES_MAX {
            return;
        }
        let mut path = self.place();
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(name);
        self.issues.push(Issue { path, kind, message, name: name.to_owned() });
    }

    /// The path of the field that is being read.
    fn place(&self) -> String {
        use std::fmt::Write;
        let mut place = String::new();
        for segment in &self.path {
            let dot = if place.is_empty() { "" } else { "." };
            let written = match segment {
                Segment::Field(name) => write!(place, "{dot}{name}"),
                Segment::Key(key) => write!(place, "{dot}{key}"),
                Segment::Index(index) => write!(place, "[{index}]"),
            };
            written.expect("a String takes every text");
        }
        place
    }
}

/// Writes sorted parts; those that share an inlined field become that field's message. An empty one is left out.
fn assemble(parts: &[Part], step: u8, start: usize, read: &[u8], out: &mut Vec<u8>) {
    let number = |part: &Part| part.key >> (48 - 16 * u32::from(step)) & 0xffff;
    let mut rest = parts;
    while let Some(part) = rest.first() {
        if part.steps == step + 1 {
            out.extend_from_slice(&read[part.from - start..part.to - start]);
            rest = &rest[1..];
            continue;
        }
        let inlined = number(part);
        let count = rest.iter().take_while(|other| number(other) == inlined).count();
        let from = out.len();
        assemble(&rest[..count], step + 1, start, read, out);
        if out.len() > from {
            wire::wrap(inlined as u32, from, out);
        }
        rest = &rest[count..];
    }
}

fn put_integer(number: u32, value: i64, out: &mut Vec<u8>) {
    if value != 0 {
        wire::put_tag(number, 0, out);
        wire::put_varint(value as u64, out);
    }
}

fn put_text(number: u32, text: &str, out: &mut Vec<u8>) {
    if !text.is_empty() {
        wire::put_bytes(number, text.as_bytes(), out);
    }
}

fn put_zero(scalar: Scalar, number: u32, out: &mut Vec<u8>) {
    match scalar {
        Scalar::String | Scalar::Bytes => wire::put_bytes(number, b"", out),
        Scalar::Bool | Scalar::Int32 | Scalar::Int64 => {
            wire::put_tag(number, 0, out);
            out.push(0);
        }
        Scalar::Double => {
            wire::put_tag(number, 1, out);
            out.extend_from_slice(&[0; 8]);
        }
    }
}
