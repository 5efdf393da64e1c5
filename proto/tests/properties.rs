//! Nothing that comes from outside may panic the codec, and whatever it writes it reads back as the same.

#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use proptest::prelude::*;
use prost::Message;
use proto::{
    codec::{self, Cardinality, FieldType, MessageId, Scalar, schema},
    envelope,
    k8s::core::v1::Pod,
    schema::Form,
};

fn any_message() -> impl Strategy<Value = MessageId> {
    let ids: Vec<MessageId> = schema().messages().map(|(id, _)| id).collect();
    proptest::sample::select(ids)
}

/// A document that fits the message, mostly; `depth` bounds it.
fn document(id: MessageId, depth: u32) -> BoxedStrategy<serde_json::Value> {
    let message = &schema()[id];
    let text = "[a-z\"\\\\\u{e9}\u{1}]{0,4}";
    match message.form {
        Form::Plain => {}
        Form::Time | Form::MicroTime => {
            return (-62_135_596_800i64..253_402_300_799, 0i32..1_000_000)
                .prop_map(|(seconds, micros)| proto::time::format_micros(seconds, micros * 1000).into())
                .boxed();
        }
        Form::Duration => return "[1-9][0-9]{0,3}(ms|s|m|h)".prop_map(Into::into).boxed(),
        Form::Quantity => {
            return "[-+]?[0-9]{1,6}(\\.[0-9]{1,12})?(n|u|m||k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|e[0-9]|E-[0-9])"
                .prop_map(Into::into)
                .boxed();
        }
        Form::IntOrString => return prop_oneof![any::<i32>().prop_map(Into::into), text.prop_map(Into::into)].boxed(),
        Form::RawJson => {
            return prop_oneof![Just(serde_json::json!({"a": [1, null, {"b": 1.5}]})), text.prop_map(Into::into)]
                .boxed();
        }
        Form::Items => return prop::collection::vec(text, 0..3).prop_map(Into::into).boxed(),
        Form::SchemaOrBool => return any::<bool>().prop_map(Into::into).boxed(),
        Form::SchemaOrArray | Form::SchemaOrStrings => return Just(serde_json::json!([])).boxed(),
    }
    let fields: Vec<_> = schema().json_fields(id).into_iter().filter(|_| depth > 0).collect();
    if fields.is_empty() {
        return Just(serde_json::json!({})).boxed();
    }
    let chosen = proptest::sample::subsequence(fields.clone(), 0..=fields.len().min(6));
    let filled = chosen.prop_flat_map(move |fields| {
        let values: Vec<_> = fields
            .into_iter()
            .map(|field| {
                let one = match field.field_type {
                    FieldType::Message(inner) => document(inner, depth - 1),
                    FieldType::Scalar(Scalar::String) => text.prop_map(Into::into).boxed(),
                    FieldType::Scalar(Scalar::Bytes) => prop_oneof![Just("".into()), Just("AAEC/w==".into())].boxed(),
                    FieldType::Scalar(Scalar::Bool) => any::<bool>().prop_map(Into::into).boxed(),
                    FieldType::Scalar(Scalar::Int32) => any::<i32>().prop_map(Into::into).boxed(),
                    FieldType::Scalar(Scalar::Int64) => any::<i64>().prop_map(Into::into).boxed(),
                    FieldType::Scalar(Scalar::Double) => any::<i32>().prop_map(|n| (f64::from(n) / 8.0).into()).boxed(),
                };
                let value = match field.cardinality {
                    Cardinality::List => prop::collection::vec(one, 0..3).prop_map(Into::into).boxed(),
                    Cardinality::Map => prop::collection::hash_map("[a-z.]{0,3}", one, 0..3)
                        .prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect()))
                        .boxed(),
                    _ => one,
                };
                (Just(field.json_name.to_owned()), value)
            })
            .collect();
        values.prop_shuffle().prop_map(|entries| serde_json::Value::Object(entries.into_iter().collect()))
    });
    filled.boxed()
}

fn any_document() -> impl Strategy<Value = (MessageId, serde_json::Value)> {
    any_message().prop_flat_map(|id| (Just(id), document(id, 4)))
}

fn to_json(id: MessageId, bytes: &[u8]) -> Result<Vec<u8>, codec::Error> {
    let mut out = Vec::new();
    codec::proto_to_json(id, bytes, None, &mut out).map(|()| out)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_was_written_reads_back_as_the_same((id, document) in any_document()) {
        let first = codec::value_to_proto(id, &document).unwrap();
        prop_assert!(first.issues.is_empty());
        let json = to_json(id, &first.bytes).unwrap();
        let second = codec::json_to_proto(id, &json).unwrap();
        prop_assert!(second.issues.is_empty());
        prop_assert_eq!(&second.bytes, &first.bytes);
        prop_assert_eq!(to_json(id, &second.bytes).unwrap(), json);
    }

    #[test]
    fn canonical_bytes_are_their_own_canonical_form((id, document) in any_document(), bytes in prop::collection::vec(any::<u8>(), 0..60)) {
        let written = codec::value_to_proto(id, &document).unwrap().bytes;
        prop_assert_eq!(codec::canonical(id, &written).unwrap(), &written[..]);
        if let Ok(canonical) = codec::canonical(id, &bytes) {
            prop_assert_eq!(codec::canonical(id, &canonical).unwrap(), canonical);
        }
    }

    #[test]
    fn damaged_bytes_never_panic((id, document) in any_document(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = codec::value_to_proto(id, &document).unwrap().bytes;
        if bytes.is_empty() {
            return Ok(());
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = to_json(id, &bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = to_json(id, &bytes);
    }

    #[test]
    fn damaged_documents_never_panic((id, document) in any_document(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut json = document.to_string().into_bytes();
        let at = at.index(json.len());
        json[at] = byte;
        let _ = codec::json_to_proto(id, &json);
        let _ = codec::type_meta(&json);
    }

    #[test]
    fn arbitrary_bytes_never_panic(id in any_message(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::json_to_proto(id, &bytes);
        let _ = codec::type_meta(&bytes);
        // What can be shown as JSON can be read from it.
        if let Ok(json) = to_json(id, &bytes) {
            prop_assert!(codec::json_to_proto(id, &json).is_ok(), "{}", String::from_utf8_lossy(&json));
        }
        let bytes = Bytes::from(bytes);
        let _ = envelope::unwrap(&bytes);
        let _ = envelope::unwrap(&Bytes::from([envelope::MAGIC.as_slice(), &bytes].concat()));
        let _ = envelope::metadata(&bytes);
        let _ = envelope::splice_resource_version(&bytes, 7);
        let _ = proto::Object::decode(bytes);
    }

    #[test]
    fn texts_read_as_json_are_json_to_others_too(text in "[\\[\\]{}:,\"\\\\ntfu0-9.eE+ \u{e9}-]{0,12}") {
        // Read as raw JSON: with the grammar alone. serde_json refuses numbers no float can hold, and half surrogates.
        let id = schema().message("k8s.api.runtime.RawExtension").unwrap();
        let ours = codec::json_to_proto(id, text.as_bytes());
        match serde_json::from_str::<serde_json::Value>(&text) {
            Ok(value) if !value.is_null() => {
                let json = to_json(id, &ours.unwrap().bytes).unwrap();
                prop_assert_eq!(serde_json::from_slice::<serde_json::Value>(&json).unwrap(), value);
            }
            Ok(_) => prop_assert!(ours.is_err()),
            Err(error) => prop_assert!(ours.is_err() || error.to_string().contains("out of range") || text.contains("\\u"), "{}", error),
        }
    }

    #[test]
    fn a_spliced_object_is_the_same_object_with_its_resource_version(pod in document(schema().message(<Pod as proto::Kind>::MESSAGE).unwrap(), 4), revision in any::<u64>()) {
        let id = schema().message(<Pod as proto::Kind>::MESSAGE).unwrap();
        let stored = Bytes::from(codec::value_to_proto(id, &pod).unwrap().bytes);
        let spliced = envelope::splice_resource_version(&stored, revision).unwrap();
        let mut wanted = Pod::decode(stored).unwrap();
        wanted.metadata.get_or_insert_default().resource_version = revision.to_string();
        prop_assert_eq!(&Pod::decode(spliced.clone()).unwrap(), &wanted);
        // One metadata field, at its place: the bytes are those of the object with the version set.
        prop_assert_eq!(&spliced[..], wanted.encode_to_vec());
        prop_assert_eq!(envelope::metadata(&spliced).unwrap(), wanted.metadata.unwrap());
        let again = envelope::splice_resource_version(&spliced, revision.wrapping_add(1)).unwrap();
        prop_assert_eq!(envelope::metadata(&again).unwrap().resource_version, revision.wrapping_add(1).to_string());
    }

    #[test]
    fn envelopes_give_back_what_was_wrapped(api_version in "[a-z/0-9.]{0,20}", kind in "[A-Za-z]{0,12}", raw in prop::collection::vec(any::<u8>(), 0..300)) {
        let (read, unwrapped) = envelope::unwrap(&envelope::wrap(&api_version, &kind, &raw).into()).unwrap();
        prop_assert_eq!((read.api_version, read.kind, unwrapped.to_vec()), (api_version, kind, raw));
    }
}
