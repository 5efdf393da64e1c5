//! The tables that JSON coding, patches, validation, OpenAPI and `explain` are driven by.

use std::{collections::HashMap, fmt, ops::Index, sync::LazyLock};

use prost::Message as _;

use super::descriptor::{self, FieldDescriptor, LABEL_REPEATED, MessageDescriptor};
use crate::schema::{FieldSchema, Form, MessageSchema, Resource};

/// The tables of every `k8s.api` message, built at first use from the embedded descriptors.
pub fn schema() -> &'static Schema {
    static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::load(crate::DESCRIPTORS));
    &SCHEMA
}

/// Every message and resource. Index it by [`MessageId`].
pub struct Schema {
    messages: Vec<Message>,
    by_name: HashMap<&'static str, MessageId>,
    /// "apps/v1 Deployment"
    by_kind: HashMap<String, MessageId>,
    resources: Vec<ResourceInfo>,
}

/// A message of the [`Schema`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId(u16);

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(schema()[*self].full_name)
    }
}

/// One message and its fields.
pub struct Message {
    /// "k8s.api.core.v1.Pod"
    pub full_name: &'static str,
    /// "Pod"
    pub name: &'static str,
    /// "k8s.api.core.v1"
    pub package: &'static str,
    /// What it is, from the .proto file; may be empty.
    pub comment: &'static str,
    /// Its form in JSON.
    pub form: Form,
    /// Carries apiVersion and kind in JSON.
    pub is_object: bool,
    /// In the order they stand in, which is the order JSON has.
    pub fields: Vec<Field>,
    /// Index into `fields` by field number; [`NONE`] where there is none.
    by_number: Vec<u16>,
    /// Ordered by length, then bytes.
    json_fields: Vec<JsonField>,
}

const NONE: u16 = u16::MAX;

/// One field.
#[derive(Debug)]
pub struct Field {
    /// "termination_grace_period_seconds"
    pub name: &'static str,
    /// "terminationGracePeriodSeconds"
    pub json_name: &'static str,
    pub number: u32,
    pub field_type: FieldType,
    pub cardinality: Cardinality,
    /// What it means, from the .proto file; may be empty.
    pub comment: &'static str,
    /// Flags, patch and apply keys.
    pub schema: FieldSchema,
    /// `"name":`, ready to be written.
    pub(super) json_key: String,
}

impl Field {
    /// A struct value: an empty one is the same as none.
    pub(super) fn is_struct_value(&self) -> bool {
        self.schema.object || self.schema.inlined
    }
}

/// The type of a field, of a list's elements or of a map's values. Map keys are strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FieldType {
    Scalar(Scalar),
    Message(MessageId),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
}

impl Scalar {
    /// The name it has in errors and in `explain`.
    pub fn name(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Bytes => "bytes",
            Self::Bool => "bool",
            Self::Int32 => "int32",
            Self::Int64 => "int64",
            Self::Double => "float64",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cardinality {
    /// A scalar whose zero is the same as its absence, or a message.
    Single,
    /// A scalar whose zero is told from its absence: a pointer in Go.
    Optional,
    List,
    Map,
}

/// A field as a message's JSON has it: inlined messages' fields stand beside the others.
pub struct JsonField {
    pub json_name: &'static str,
    /// The message that declares it.
    pub message: MessageId,
    /// Its index in that message's fields.
    pub index: u16,
    /// Numbers of the inlined fields on the way and its own, sixteen bits each, the first in front.
    pub(super) key: u64,
    /// How many numbers `key` has.
    pub(super) steps: u8,
}

/// A resource, the message of its objects, and that message's arm in `forestay.api.v1.Object`.
pub struct ResourceInfo {
    pub resource: Resource,
    pub message: MessageId,
    pub arm: u32,
}

impl ResourceInfo {
    /// "v1", "apps/v1"
    pub fn api_version(&self) -> String {
        group_version(&self.resource.group, &self.resource.version)
    }
}

fn group_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") }
}

impl Schema {
    /// By full name: "k8s.api.core.v1.Pod".
    pub fn message(&self, full_name: &str) -> Option<MessageId> {
        self.by_name.get(full_name).copied()
    }

    pub fn messages(&self) -> impl Iterator<Item = (MessageId, &Message)> {
        self.messages.iter().enumerate().map(|(index, message)| (MessageId(index as u16), message))
    }

    /// Every resource, in the order of arm numbers.
    pub fn resources(&self) -> &[ResourceInfo] {
        &self.resources
    }

    /// By group ("" for core) and plural.
    pub fn resource(&self, group: &str, plural: &str) -> Option<&ResourceInfo> {
        self.resources.iter().find(|info| info.resource.plural == plural && info.resource.group == group)
    }

    /// By apiVersion and kind. Lists are kinds too, and so are `Status`, `DeleteOptions` and their like, in every group.
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<MessageId> {
        let find = |api_version: &str| self.by_kind.get(&format!("{api_version} {kind}")).copied();
        find(api_version).or_else(|| find("meta.k8s.io/v1"))
    }

    /// A message's field by its JSON name; inlined messages' fields are found too.
    pub fn json_field(&self, message: MessageId, json_name: &str) -> Option<&Field> {
        self[message].json_field(json_name).map(|found| self.field_of(found))
    }

    /// All fields of a message as its JSON has them, in the order they are declared in.
    pub fn json_fields(&self, message: MessageId) -> Vec<&Field> {
        let mut fields = Vec::new();
        for field in &self[message].fields {
            match field.field_type {
                FieldType::Message(inner) if field.schema.inlined => fields.extend(self.json_fields(inner)),
                _ => fields.push(field),
            }
        }
        fields
    }

    pub(super) fn field_of(&self, found: &JsonField) -> &Field {
        &self[found.message].fields[usize::from(found.index)]
    }
}

impl Index<MessageId> for Schema {
    type Output = Message;

    fn index(&self, id: MessageId) -> &Message {
        &self.messages[usize::from(id.0)]
    }
}

impl Message {
    #[inline]
    pub(super) fn json_field(&self, json_name: &str) -> Option<&JsonField> {
        let order = |field: &JsonField| {
            field
                .json_name
                .len()
                .cmp(&json_name.len())
                .then_with(|| field.json_name.as_bytes().cmp(json_name.as_bytes()))
        };
        self.json_fields.binary_search_by(order).ok().map(|found| &self.json_fields[found])
    }

    /// The index of the field of this number.
    #[inline]
    pub(super) fn index_of(&self, number: u32) -> Option<u16> {
        self.by_number.get(number as usize).copied().filter(|index| *index != NONE)
    }

    /// The field of this number.
    pub fn field(&self, number: u32) -> Option<&Field> {
        self.index_of(number).map(|index| &self.fields[usize::from(index)])
    }

    /// Its JSON form in words, for errors.
    pub(super) fn type_name(&self) -> &'static str {
        match self.form {
            Form::Plain => self.name,
            Form::Time | Form::MicroTime => "time",
            Form::Duration => "duration",
            Form::Quantity => "quantity",
            Form::IntOrString => "integer or string",
            Form::RawJson => "JSON",
            Form::Items => "list of strings",
            Form::SchemaOrArray => "schema or list of schemas",
            Form::SchemaOrBool => "schema or bool",
            Form::SchemaOrStrings => "schema or list of strings",
        }
    }
}

impl Schema {
    fn load(descriptors: &'static [u8]) -> Self {
        let declared = descriptor::messages(descriptors, |package| package.starts_with("k8s.api"));
        let (entries, plain): (Vec<_>, Vec<_>) = declared.into_iter().partition(|message| message.is_map_entry);
        let ids: HashMap<&str, MessageId> = plain
            .iter()
            .enumerate()
            .map(|(index, message)| (message.full_name.as_str(), MessageId(index as u16)))
            .collect();
        let map_values: HashMap<&str, &FieldDescriptor> = entries
            .iter()
            .map(|entry| {
                let value = entry.fields.iter().find(|field| field.number == 2);
                (entry.full_name.as_str(), value.expect("a map entry has a value"))
            })
            .collect();

        let mut options = Vec::new();
        let messages: Vec<Message> = plain.iter().map(|m| message(m, &ids, &map_values, &mut options)).collect();
        let by_name = messages.iter().enumerate().map(|(i, m)| (m.full_name, MessageId(i as u16))).collect();
        let mut schema = Self { messages, by_name, by_kind: HashMap::new(), resources: Vec::new() };
        for index in 0..schema.messages.len() {
            let mut json_fields = Vec::new();
            schema.collect_json_fields(MessageId(index as u16), 0, 0, &mut json_fields);
            json_fields.sort_by_key(|field| (field.json_name.len(), field.json_name));
            schema.messages[index].json_fields = json_fields;
        }
        schema.load_kinds(options);
        schema
    }

    /// `key` and `steps` lead to this message through inlined fields.
    fn collect_json_fields(&self, id: MessageId, key: u64, steps: u8, found: &mut Vec<JsonField>) {
        assert!(steps < 4, "inlined messages nest at most three deep");
        for (index, field) in self[id].fields.iter().enumerate() {
            let key = key | u64::from(field.number) << (48 - 16 * u32::from(steps));
            match field.field_type {
                FieldType::Message(inner) if field.schema.inlined => {
                    self.collect_json_fields(inner, key, steps + 1, found)
                }
                _ => found.push(JsonField {
                    json_name: field.json_name,
                    message: id,
                    index: index as u16,
                    key,
                    steps: steps + 1,
                }),
            }
        }
    }

    fn load_kinds(&mut self, options: Vec<(&'static str, Resource)>) {
        let mut groups: HashMap<&'static str, String> = HashMap::from([
            ("k8s.api.admission.v1", "admission.k8s.io/v1".to_owned()),
            ("k8s.api.meta.v1", "meta.k8s.io/v1".to_owned()),
        ]);
        for (full_name, resource) in options {
            let message = self.by_name[full_name];
            groups.insert(self[message].package, group_version(&resource.group, &resource.version));
            let arm = crate::ARMS.iter().find(|arm| arm.1 == full_name);
            let arm = arm.unwrap_or_else(|| panic!("{full_name} is a resource without an arm in Object")).0;
            self.resources.push(ResourceInfo { resource, message, arm });
        }
        self.resources.sort_by_key(|info| info.arm);
        for (index, message) in self.messages.iter().enumerate().filter(|(_, message)| message.is_object) {
            if let Some(api_version) = groups.get(message.package) {
                self.by_kind.insert(format!("{api_version} {}", message.name), MessageId(index as u16));
            }
        }
    }
}

fn message(
    declared: &MessageDescriptor,
    ids: &HashMap<&str, MessageId>,
    map_values: &HashMap<&str, &FieldDescriptor>,
    resources: &mut Vec<(&'static str, Resource)>,
) -> Message {
    // Lives as long as the schema, which lives as long as the process.
    let full_name: &'static str = declared.full_name.clone().leak();
    let options = MessageSchema::decode(declared.schema).expect("the embedded options are well-formed");
    let form = options.form();
    if let Some(resource) = options.resource {
        resources.push((full_name, resource));
    }
    let fields: Vec<Field> = declared.fields.iter().map(|f| field(f, ids, map_values)).collect();
    let numbers = fields.iter().map(|field| field.number as usize + 1).max().unwrap_or(0);
    assert!(numbers <= 4096, "{full_name}: the table of field numbers is made for small ones");
    let mut by_number = vec![NONE; numbers];
    for (index, field) in fields.iter().enumerate() {
        by_number[field.number as usize] = index as u16;
    }
    Message {
        full_name,
        name: declared.name,
        package: declared.package,
        comment: declared.comment,
        form,
        is_object: options.object,
        fields,
        by_number,
        json_fields: Vec::new(),
    }
}

fn field(
    declared: &FieldDescriptor,
    ids: &HashMap<&str, MessageId>,
    map_values: &HashMap<&str, &FieldDescriptor>,
) -> Field {
    let field_type = |descriptor: &FieldDescriptor| match descriptor.type_number {
        1 => FieldType::Scalar(Scalar::Double),
        3 => FieldType::Scalar(Scalar::Int64),
        5 => FieldType::Scalar(Scalar::Int32),
        8 => FieldType::Scalar(Scalar::Bool),
        9 => FieldType::Scalar(Scalar::String),
        11 => FieldType::Message(ids[descriptor.type_name]),
        12 => FieldType::Scalar(Scalar::Bytes),
        other => panic!("{}: Kubernetes' messages have no fields of type {other}", descriptor.name),
    };
    let (field_type, cardinality) = match map_values.get(declared.type_name) {
        Some(value) => (field_type(value), Cardinality::Map),
        None if declared.label == LABEL_REPEATED => (field_type(declared), Cardinality::List),
        None if declared.is_optional => (field_type(declared), Cardinality::Optional),
        None => (field_type(declared), Cardinality::Single),
    };
    Field {
        name: declared.name,
        json_name: declared.json_name,
        number: declared.number,
        field_type,
        cardinality,
        comment: declared.comment,
        schema: FieldSchema::decode(declared.schema).expect("the embedded options are well-formed"),
        json_key: format!("\"{}\":", declared.json_name),
    }
}
