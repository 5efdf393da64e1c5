//! `proto::Object` against the typed message that every other language sees.

#![allow(clippy::unwrap_used)]

use std::fmt::Write;

use bytes::Bytes;
use expect_test::expect_file;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};
use proto::{
    Kind, Object, ObjectError, Resource,
    codec::schema,
    k8s::{
        core::v1::{Pod, PodSpec, Service},
        meta::v1::ObjectMeta,
    },
};

fn descriptor() -> MessageDescriptor {
    DescriptorPool::decode(proto::DESCRIPTORS).unwrap().get_message_by_name("forestay.api.v1.Object").unwrap()
}

fn pod() -> Pod {
    let metadata = ObjectMeta { name: "web".into(), namespace: "default".into(), ..Default::default() };
    Pod { metadata: Some(metadata), spec: Some(PodSpec { node_name: "n1".into(), ..Default::default() }), status: None }
}

/// Through the typed oneof, as a client in another language would send it back.
fn through_typed(object: &Object) -> Object {
    let typed = DynamicMessage::decode(descriptor(), object.encode_to_vec().as_slice()).unwrap();
    assert_eq!(typed.unknown_fields().count(), 0);
    Object::decode(typed.encode_to_vec().as_slice()).unwrap()
}

#[test]
fn arm_numbers_never_change() {
    let mut table = String::new();
    let oneof = descriptor().oneofs().next().unwrap();
    let mut arms: Vec<_> = oneof.fields().collect();
    arms.sort_by_key(|arm| arm.number());
    for arm in arms {
        let message = arm.kind().as_message().unwrap().full_name().to_owned();
        writeln!(table, "{} {} {message}", arm.number(), arm.name()).unwrap();
    }
    // A new line is a new kind. A changed one breaks every client that is out there.
    expect_file!["../testdata/arms.txt"].assert_eq(&table);
}

#[test]
fn every_arm_passes_through_as_the_bytes_it_had() {
    for (arm, message, api_version, kind) in proto::ARMS {
        // Metadata with a name, in any kind: field 1, field 1.
        let object = Object::from_raw(api_version, kind, *arm, Bytes::from_static(b"\x0a\x05\x0a\x03web"));
        let again = through_typed(&object);
        assert_eq!(again, object, "{message}");
    }
}

#[test]
fn a_typed_object_comes_back_as_it_went() {
    let object = Object::of(&pod());
    assert_eq!((object.api_version.as_str(), object.kind.as_str(), object.arm), ("v1", "Pod", Pod::ARM));
    assert_eq!(through_typed(&object).decode_as::<Pod>().unwrap(), pod());
    assert_eq!(object.encoded_len(), object.encode_to_vec().len());
}

#[test]
fn another_kind_is_refused_by_name() {
    let error = Object::of(&pod()).decode_as::<Service>().unwrap_err();
    assert_eq!(error.to_string(), "the object is not a Service but v1 Pod (arm 12)");
    let broken = Object { raw: Bytes::from_static(b"\xff"), ..Object::of(&pod()) };
    assert!(matches!(broken.decode_as::<Pod>(), Err(ObjectError::Bytes(_))));
}

#[test]
fn a_metadata_view_has_no_arm() {
    let view = Object { metadata: pod().metadata, api_version: "v1".into(), kind: "Pod".into(), ..Object::default() };
    assert_eq!(through_typed(&view), view);
    assert!(view.decode_as::<Pod>().is_err());
}

#[test]
fn an_arm_in_parts_is_merged_and_another_arm_replaces() {
    let name = Object::from_raw("v1", "Pod", Pod::ARM, Bytes::from_static(b"\x0a\x05\x0a\x03web")).encode_to_vec();
    let node = Object::from_raw("", "", Pod::ARM, Bytes::from_static(b"\x12\x04\x52\x02n1")).encode_to_vec();
    let merged = Object::decode([name.as_slice(), &node].concat().as_slice()).unwrap();
    let merged = merged.decode_as::<Pod>().unwrap();
    assert_eq!((merged.meta().name.as_str(), merged.spec.as_ref().unwrap().node_name.as_str()), ("web", "n1"));

    let service = Object::of(&Service::default()).encode_to_vec();
    let replaced = Object::decode([name.as_slice(), &service].concat().as_slice()).unwrap();
    assert_eq!(replaced, Object::of(&Service::default()));
}

#[test]
fn fields_of_a_newer_server_are_passed_over() {
    let mut bytes = Object::of(&pod()).encode_to_vec();
    bytes.extend_from_slice(b"\x28\x07\x35\x01\x02\x03\x04"); // 5: varint, 6: fixed32
    assert_eq!(Object::decode(bytes.as_slice()).unwrap().decode_as::<Pod>().unwrap(), pod());
}

#[test]
fn kinds_and_the_schema_agree() {
    fn same<K: Resource>() {
        let info = schema().resource(K::GROUP, K::PLURAL).unwrap();
        assert_eq!((info.arm, schema()[info.message].full_name), (K::ARM, K::MESSAGE));
        assert_eq!((info.resource.namespaced, info.api_version().as_str()), (K::NAMESPACED, K::API_VERSION));
        assert_eq!(schema().kind(K::API_VERSION, K::KIND), Some(info.message));
    }
    same::<Pod>();
    same::<proto::k8s::core::v1::Node>();
    same::<proto::k8s::apps::v1::Deployment>();
    same::<proto::k8s::networking::v1::IpAddress>();
    let arms: Vec<u32> = schema().resources().iter().map(|info| info.arm).collect();
    assert!(arms.is_sorted() && arms.len() > 60);
    for (arm, message, api_version, kind) in proto::ARMS {
        assert_eq!(schema().kind(api_version, kind), schema().message(message), "arm {arm}");
    }
}
