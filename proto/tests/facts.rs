//! The messages against the table of facts about Kubernetes 1.36 (`testdata/k8s-fields.tsv`): one row, one field.
//!
//! The golden fixtures fill every field with something; the zeros, whose fate hangs on Go's pointers, are made here.

#![allow(clippy::unwrap_used)]

use std::collections::HashSet;

use proto::{
    codec::{self, Cardinality, Field, FieldType, MessageId, Scalar, schema},
    schema::Form,
};
use serde_json::json;

struct Fact {
    message: &'static str,
    number: u32,
    json_name: &'static str,
    field_type: &'static str,
    flags: HashSet<&'static str>,
    merge_key: &'static str,
    strategy: Vec<&'static str>,
    list_type: &'static str,
    map_keys: Vec<&'static str>,
}

fn facts() -> Vec<Fact> {
    let words = |text: &'static str| text.split([' ', ',']).filter(|word| !word.is_empty());
    let rows = include_str!("../testdata/k8s-fields.tsv").lines().skip(1).filter(|row| !row.contains("(no fields)"));
    let facts: Vec<Fact> = rows
        .map(|row| {
            let mut columns = row.split('\t').chain(std::iter::repeat(""));
            let mut next = || columns.next().unwrap();
            Fact {
                message: next(),
                number: next().parse().unwrap(),
                json_name: next(),
                field_type: next(),
                flags: words(next()).collect(),
                merge_key: next(),
                strategy: words(next()).collect(),
                list_type: next(),
                map_keys: words(next()).collect(),
            }
        })
        .collect();
    assert_eq!(facts.len(), 2355);
    facts
}

/// "meta/v1.ObjectMeta" is "k8s.api.meta.v1.ObjectMeta".
fn full_name(name: &str) -> String {
    format!("k8s.api.{}", name.replace('/', "."))
}

impl Fact {
    fn id(&self) -> MessageId {
        schema().message(&full_name(self.message)).unwrap_or_else(|| panic!("{} is missing", self.message))
    }

    fn field(&self) -> &'static Field {
        let field = schema()[self.id()].field(self.number);
        field.unwrap_or_else(|| panic!("{} has no field {}", self.message, self.number))
    }

    fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }
}

fn type_text(field: &Field) -> String {
    let element = match field.field_type {
        FieldType::Scalar(Scalar::Double) => "double".to_owned(),
        FieldType::Scalar(scalar) => scalar.name().to_owned(),
        FieldType::Message(id) => schema()[id].full_name.to_owned(),
    };
    if field.cardinality == Cardinality::Map { format!("map<string,{element}>") } else { element }
}

#[test]
fn every_fact_is_a_field() {
    for fact in facts() {
        let (field, at) = (fact.field(), format!("{} {}", fact.message, fact.json_name));
        assert_eq!(field.json_name, fact.json_name, "{at}");
        let wanted = match fact.field_type.strip_prefix("map<string,").and_then(|value| value.strip_suffix('>')) {
            Some(value) if value.contains('.') => format!("map<string,{}>", full_name(value)),
            None if fact.field_type.contains('.') => full_name(fact.field_type),
            _ => fact.field_type.to_owned(),
        };
        assert_eq!(type_text(field), wanted, "{at}");
        assert_eq!(field.cardinality == Cardinality::List, fact.has("repeated"), "{at}");
        let is_scalar = matches!(field.field_type, FieldType::Scalar(_));
        assert_eq!(field.cardinality == Cardinality::Optional, fact.has("pointer") && is_scalar, "{at}");
        let schema = &field.schema;
        let flags = (schema.required, schema.object, schema.inlined);
        assert_eq!(flags, (fact.has("required"), fact.has("object"), fact.has("inlined")), "{at}");
        assert_eq!(
            (schema.patch_merge_key.as_str(), schema.list_type.as_str()),
            (fact.merge_key, fact.list_type),
            "{at}"
        );
        assert_eq!(
            (&schema.patch_strategy, &schema.list_map_keys),
            (&owned(&fact.strategy), &owned(&fact.map_keys)),
            "{at}"
        );
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// Fields whose JSON sits in an object of their own message: not those of messages with a form of their own.
fn plain_facts() -> impl Iterator<Item = Fact> {
    facts().into_iter().filter(|fact| schema()[fact.id()].form == Form::Plain && !fact.has("inlined"))
}

/// What becomes of a document in which only this field stands: whether bytes were written, and the field in JSON.
fn there_and_back(fact: &Fact, value: serde_json::Value) -> (bool, Option<serde_json::Value>) {
    let decoded = codec::value_to_proto(fact.id(), &json!({ fact.json_name: value })).unwrap();
    assert_eq!(decoded.issues, []);
    let json = codec::proto_to_value(fact.id(), &decoded.bytes, None).unwrap();
    (!decoded.bytes.is_empty(), json.get(fact.json_name).cloned())
}

#[test]
fn an_explicit_zero_survives_where_go_has_a_pointer_and_only_there() {
    let mut pointers = 0;
    for fact in plain_facts() {
        let zero = match fact.field().field_type {
            FieldType::Scalar(Scalar::String | Scalar::Bytes) => json!(""),
            FieldType::Scalar(Scalar::Bool) => json!(false),
            FieldType::Scalar(_) => json!(0),
            FieldType::Message(_) => continue,
        };
        if matches!(fact.field().cardinality, Cardinality::List | Cardinality::Map) {
            continue;
        }
        let shown = (fact.has("pointer") || fact.has("required")).then_some(zero.clone());
        let found = there_and_back(&fact, zero);
        assert_eq!(found, (fact.has("pointer"), shown), "{} {}", fact.message, fact.json_name);
        pointers += u32::from(fact.has("pointer"));
    }
    assert!(pointers > 250, "{pointers}");
}

#[test]
fn null_is_unset_everywhere() {
    for fact in plain_facts() {
        let (written, _) = there_and_back(&fact, json!(null));
        assert!(!written, "{} {}", fact.message, fact.json_name);
    }
}

#[test]
fn empty_lists_and_maps_are_unset_and_shown_where_required() {
    for fact in plain_facts() {
        let empty = match fact.field().cardinality {
            Cardinality::List => json!([]),
            Cardinality::Map => json!({}),
            _ => continue,
        };
        let shown = fact.has("required").then_some(json!(null));
        assert_eq!(there_and_back(&fact, empty), (false, shown), "{} {}", fact.message, fact.json_name);
    }
}

#[test]
fn an_empty_message_survives_where_go_has_a_pointer_and_only_there() {
    for fact in plain_facts() {
        let FieldType::Message(inner) = fact.field().field_type else { continue };
        if schema()[inner].form != Form::Plain || fact.field().cardinality != Cardinality::Single {
            continue;
        }
        let (written, shown) = there_and_back(&fact, json!({}));
        assert_eq!(written, !fact.has("object"), "{} {}", fact.message, fact.json_name);
        assert!(shown.is_some_and(|shown| shown.is_object()), "{} {}", fact.message, fact.json_name);
    }
}

#[test]
fn struct_values_are_shown_when_unset() {
    for message in schema().messages().filter(|(_, message)| message.form == Form::Plain) {
        let json = codec::proto_to_value(message.0, b"", None).unwrap();
        for field in message.1.fields.iter().filter(|field| field.schema.object && !field.schema.inlined) {
            let FieldType::Message(inner) = field.field_type else { panic!("{} is a scalar", field.name) };
            let shown = json.get(field.json_name).unwrap();
            let wanted = match schema()[inner].form {
                Form::Plain => shown.is_object(),
                Form::Quantity => *shown == json!("0"),
                Form::IntOrString => *shown == json!(0),
                Form::Items => *shown == json!([]),
                _ => shown.is_null(),
            };
            assert!(wanted, "{} {} is {shown}", message.1.full_name, field.json_name);
        }
    }
}
