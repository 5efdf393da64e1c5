//! Reads the embedded `FileDescriptorSet` by hand: names and comments are borrowed from it, nothing else is built.
//!
//! A general descriptor library takes tens of milliseconds for this set, in every process and in every test.

use crate::wire::{Fields, Value};

/// A message as declared.
pub(super) struct MessageDescriptor {
    /// "k8s.api.core.v1.Pod"
    pub full_name: String,
    pub name: &'static str,
    pub package: &'static str,
    pub comment: &'static str,
    pub fields: Vec<FieldDescriptor>,
    /// The encoded `k8s.MessageSchema`; empty without one.
    pub schema: &'static [u8],
    /// The value field of a map entry.
    pub is_map_entry: bool,
}

/// A field as declared; the numbers are descriptor.proto's.
#[derive(Clone, Default)]
pub(super) struct FieldDescriptor {
    pub name: &'static str,
    pub json_name: &'static str,
    pub comment: &'static str,
    pub number: u32,
    pub label: u64,
    pub type_number: u64,
    /// Without the leading dot.
    pub type_name: &'static str,
    pub is_optional: bool,
    /// The encoded `k8s.FieldSchema`; empty without one.
    pub schema: &'static [u8],
}

pub(super) const LABEL_REPEATED: u64 = 3;

/// `(k8s.field)` and `(k8s.message)`.
const SCHEMA_OPTION: u32 = 51_000;

/// Every message of the packages that `wanted` names, map entries included.
pub(super) fn messages(set: &'static [u8], wanted: impl Fn(&str) -> bool) -> Vec<MessageDescriptor> {
    let mut all = Vec::new();
    for (number, file) in fields(set) {
        if let (1, Value::Bytes(file)) = (number, file) {
            file_messages(file, &wanted, &mut all);
        }
    }
    all
}

fn file_messages(file: &'static [u8], wanted: impl Fn(&str) -> bool, all: &mut Vec<MessageDescriptor>) {
    let (mut package, mut declared, mut source_info) = ("", Vec::new(), &b""[..]);
    for field in fields(file) {
        match field {
            (2, Value::Bytes(name)) => package = text(name),
            (4, Value::Bytes(message)) => declared.push(message),
            (9, Value::Bytes(info)) => source_info = info,
            _ => {}
        }
    }
    if wanted(package) {
        let comments = comments(source_info);
        for (index, message) in declared.into_iter().enumerate() {
            message_tree(message, package, package, &[4, index as u32], &comments, all);
        }
    }
}

fn message_tree(
    message: &'static [u8],
    package: &'static str,
    parent: &str,
    path: &[u32],
    comments: &[Comment],
    all: &mut Vec<MessageDescriptor>,
) {
    let (mut name, mut declared, mut nested, mut options) = ("", Vec::new(), Vec::new(), &b""[..]);
    for field in fields(message) {
        match field {
            (1, Value::Bytes(bytes)) => name = text(bytes),
            (2, Value::Bytes(field)) => declared.push(field),
            (3, Value::Bytes(message)) => nested.push(message),
            (7, Value::Bytes(bytes)) => options = bytes,
            _ => {}
        }
    }
    let full_name = format!("{parent}.{name}");
    let below = |kind: u32, index: usize| [path, &[kind, index as u32]].concat();
    for (index, inner) in nested.into_iter().enumerate() {
        message_tree(inner, package, &full_name, &below(3, index), comments, all);
    }
    let is_map_entry = fields(options).any(|option| matches!(option, (7, Value::Varint(1))));
    let comment = comment(comments, path);
    let fields = declared.into_iter().enumerate();
    let fields = fields.map(|(index, bytes)| field(bytes, self::comment(comments, &below(2, index)))).collect();
    all.push(MessageDescriptor {
        name,
        package,
        comment,
        fields,
        schema: schema_option(options),
        is_map_entry,
        full_name,
    });
}

fn field(bytes: &'static [u8], comment: &'static str) -> FieldDescriptor {
    let mut field = FieldDescriptor { comment, ..FieldDescriptor::default() };
    for part in fields(bytes) {
        match part {
            (1, Value::Bytes(name)) => field.name = text(name),
            (3, Value::Varint(number)) => field.number = number as u32,
            (4, Value::Varint(label)) => field.label = label,
            (5, Value::Varint(number)) => field.type_number = number,
            (6, Value::Bytes(name)) => field.type_name = text(name).trim_start_matches('.'),
            (8, Value::Bytes(options)) => field.schema = schema_option(options),
            (10, Value::Bytes(name)) => field.json_name = text(name),
            (17, Value::Varint(optional)) => field.is_optional = optional != 0,
            _ => {}
        }
    }
    field
}

fn schema_option(options: &'static [u8]) -> &'static [u8] {
    let schema = fields(options).find_map(|option| match option {
        (SCHEMA_OPTION, Value::Bytes(schema)) => Some(schema),
        _ => None,
    });
    schema.unwrap_or_default()
}

/// The path of a declaration (field numbers and indexes of descriptor.proto) and the comment in front of it.
type Comment = (Vec<u32>, &'static str);

/// The comments of a file, ordered by path.
fn comments(source_info: &'static [u8]) -> Vec<Comment> {
    let mut found: Vec<Comment> = Vec::new();
    for location in fields(source_info) {
        let (1, Value::Bytes(location)) = location else { continue };
        let (mut leading, mut trailing, mut place) = (&b""[..], &b""[..], &b""[..]);
        for part in fields(location) {
            match part {
                (1, Value::Bytes(packed)) => place = packed,
                (3, Value::Bytes(comment)) => leading = comment,
                (4, Value::Bytes(comment)) => trailing = comment,
                _ => {}
            }
        }
        let comment = if leading.is_empty() { trailing } else { leading };
        if !comment.is_empty() {
            found.push((path(place), text(comment)));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn path(packed: &'static [u8]) -> Vec<u32> {
    let mut path = Vec::new();
    let mut numbers = Fields::new(packed);
    while !numbers.is_empty() {
        path.push(numbers.varint().expect("the embedded descriptors are well-formed") as u32);
    }
    path
}

fn comment(comments: &[Comment], path: &[u32]) -> &'static str {
    comments.binary_search_by(|(at, _)| at.as_slice().cmp(path)).map_or("", |found| comments[found].1.trim())
}

fn fields(bytes: &'static [u8]) -> impl Iterator<Item = (u32, Value<'static>)> {
    let mut fields = Fields::new(bytes);
    std::iter::from_fn(move || fields.next().expect("the embedded descriptors are well-formed"))
}

fn text(bytes: &'static [u8]) -> &'static str {
    std::str::from_utf8(bytes).expect("the embedded descriptors are UTF-8")
}
