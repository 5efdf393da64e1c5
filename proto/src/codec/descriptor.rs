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
#[derive(Clone)]
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
            let package = text(last(file, 2));
            if wanted(package) {
                file_messages(file, package, &mut all);
            }
        }
    }
    all
}

fn file_messages(file: &'static [u8], package: &'static str, all: &mut Vec<MessageDescriptor>) {
    let comments = comments(file);
    let declared = fields(file).filter_map(|(number, value)| matched(number == 4, value));
    for (index, message) in declared.enumerate() {
        message_tree(message, package, package, &[4, index as u32], &comments, all);
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
    let name = text(last(message, 1));
    let full_name = format!("{parent}.{name}");
    let options = last(message, 7);
    let below = |kind: u32, index: usize| [path, &[kind, index as u32]].concat();

    let nested = fields(message).filter_map(|(number, value)| matched(number == 3, value));
    for (index, inner) in nested.enumerate() {
        message_tree(inner, package, &full_name, &below(3, index), comments, all);
    }
    let declared = fields(message).filter_map(|(number, value)| matched(number == 2, value));
    let fields = declared.enumerate().map(|(index, bytes)| field(bytes, comment(comments, &below(2, index)))).collect();
    all.push(MessageDescriptor {
        name,
        package,
        comment: comment(comments, path),
        fields,
        schema: last(options, SCHEMA_OPTION),
        is_map_entry: last_varint(options, 7) != 0,
        full_name,
    });
}

fn field(bytes: &'static [u8], comment: &'static str) -> FieldDescriptor {
    FieldDescriptor {
        name: text(last(bytes, 1)),
        json_name: text(last(bytes, 10)),
        comment,
        number: last_varint(bytes, 3) as u32,
        label: last_varint(bytes, 4),
        type_number: last_varint(bytes, 5),
        type_name: text(last(bytes, 6)).trim_start_matches('.'),
        is_optional: last_varint(bytes, 17) != 0,
        schema: last(last(bytes, 8), SCHEMA_OPTION),
    }
}

/// The path of a declaration (field numbers and indexes of descriptor.proto) and the comment in front of it.
type Comment = (Vec<u32>, &'static str);

/// The comments of a file, ordered by path.
fn comments(file: &'static [u8]) -> Vec<Comment> {
    let mut found: Vec<Comment> = Vec::new();
    for location in fields(last(file, 9)).filter_map(|(number, value)| matched(number == 1, value)) {
        let (leading, trailing) = (text(last(location, 3)), text(last(location, 4)));
        let comment = if leading.is_empty() { trailing } else { leading };
        if !comment.is_empty() {
            found.push((path(location), comment));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn path(location: &'static [u8]) -> Vec<u32> {
    let mut path = Vec::new();
    for (number, value) in fields(location) {
        match (number, value) {
            (1, Value::Bytes(packed)) => {
                let mut numbers = Fields::new(packed);
                while !numbers.is_empty() {
                    path.push(numbers.varint().expect("the embedded descriptors are well-formed") as u32);
                }
            }
            (1, Value::Varint(step)) => path.push(step as u32),
            _ => {}
        }
    }
    path
}

fn comment(comments: &[Comment], path: &[u32]) -> &'static str {
    comments.binary_search_by(|(at, _)| at.as_slice().cmp(path)).map_or("", |found| comments[found].1)
}

fn fields(bytes: &'static [u8]) -> impl Iterator<Item = (u32, Value<'static>)> {
    let mut fields = Fields::new(bytes);
    std::iter::from_fn(move || fields.next().expect("the embedded descriptors are well-formed"))
}

fn matched(wanted: bool, value: Value<'static>) -> Option<&'static [u8]> {
    match value {
        Value::Bytes(bytes) if wanted => Some(bytes),
        _ => None,
    }
}

fn last(bytes: &'static [u8], number: u32) -> &'static [u8] {
    fields(bytes).filter_map(|(n, value)| matched(n == number, value)).last().unwrap_or_default()
}

fn last_varint(bytes: &'static [u8], number: u32) -> u64 {
    let varints = fields(bytes).filter_map(|(n, value)| match value {
        Value::Varint(value) if n == number => Some(value),
        _ => None,
    });
    varints.last().unwrap_or_default()
}

fn text(bytes: &'static [u8]) -> &'static str {
    std::str::from_utf8(bytes).expect("the embedded descriptors are UTF-8")
}
