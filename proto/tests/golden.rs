//! Every v1 kind against Kubernetes 1.36's own fixtures, a `.json` and a `.pb` of one object each, in both directions.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, fs, path::PathBuf, sync::LazyLock};

use bytes::Bytes;
use prost_reflect::{Cardinality, DescriptorPool, DynamicMessage, Kind, Value};
use proto::{
    codec::{self, MessageId, schema},
    envelope,
};

/// Fixtures that may differ, each with its reason. It is empty, and a difference needs a very good reason.
const ACCEPTED: &[(&str, &str)] = &[];

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());

struct Fixture {
    name: String,
    message: MessageId,
    json: Vec<u8>,
    pb: Bytes,
}

impl Fixture {
    fn value(&self) -> serde_json::Value {
        serde_json::from_slice(&self.json).unwrap()
    }

    fn full_name(&self) -> &'static str {
        schema()[self.message].full_name
    }
}

fn fixtures() -> Vec<Fixture> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata/k8s-golden");
    let mut fixtures = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (group_version, kind) = name.rsplit_once('.').unwrap();
        let (group, version) = group_version.rsplit_once('.').unwrap();
        let api_version = if group == "core" { version.to_owned() } else { format!("{group}/{version}") };
        // The one golden document without apiVersion and kind.
        let message = match kind {
            "WatchEvent" => schema().message("k8s.api.meta.v1.WatchEvent"),
            _ => schema().kind(&api_version, kind),
        };
        let message = message.unwrap_or_else(|| panic!("{name} is not in the schema"));
        let pb = fs::read(path.with_extension("pb")).unwrap().into();
        fixtures.push(Fixture { message, json: fs::read(&path).unwrap(), pb, name });
    }
    assert_eq!(fixtures.len(), 89);
    fixtures.sort_by(|a, b| a.name.cmp(&b.name));
    fixtures
}

/// Runs `differs` over all fixtures and compares what it finds with the accepted list.
fn check(differs: impl Fn(&Fixture) -> Option<String>) {
    let found: BTreeMap<String, String> =
        fixtures().iter().filter_map(|f| Some((f.name.clone(), differs(f)?))).collect();
    let unexpected: Vec<_> =
        found.iter().filter(|(name, _)| !ACCEPTED.iter().any(|(accepted, _)| accepted == name)).collect();
    assert!(unexpected.is_empty(), "{} fixtures differ: {unexpected:#?}", unexpected.len());
}

fn type_meta(fixture: &Fixture) -> Option<(String, String)> {
    let value = fixture.value();
    let text = |key: &str| value.get(key).and_then(|text| text.as_str()).map(str::to_owned);
    Some((text("apiVersion")?, text("kind")?))
}

fn to_json(fixture: &Fixture, raw: &[u8]) -> serde_json::Value {
    let type_meta = type_meta(fixture);
    let type_meta = type_meta.as_ref().map(|(api_version, kind)| (api_version.as_str(), kind.as_str()));
    codec::proto_to_value(fixture.message, raw, type_meta).unwrap_or_else(|error| panic!("{}: {error}", fixture.name))
}

/// Where two documents differ first.
fn difference(found: &serde_json::Value, wanted: &serde_json::Value) -> Option<String> {
    use serde_json::Value::{Array, Object};
    match (found, wanted) {
        (Object(found), Object(wanted)) => {
            let keys = found.keys().chain(wanted.keys());
            keys.into_iter().find_map(|key| match (found.get(key), wanted.get(key)) {
                (Some(found), Some(wanted)) => difference(found, wanted).map(|inner| format!("{key}.{inner}")),
                (found, wanted) => Some(format!("{key}: {found:?}, not {wanted:?}")),
            })
        }
        (Array(found), Array(wanted)) if found.len() == wanted.len() => {
            let pairs = found.iter().zip(wanted).enumerate();
            pairs
                .into_iter()
                .find_map(|(i, (found, wanted))| difference(found, wanted).map(|inner| format!("[{i}].{inner}")))
        }
        _ => (found != wanted).then(|| format!("{found}, not {wanted}")),
    }
}

/// The object as any protobuf library sees it, without what means the same set or unset: zero scalars without
/// presence, empty struct values and zero quantities of that kind (upstream writes all three).
fn normal(message: &DynamicMessage) -> String {
    let field_option = POOL.get_extension_by_name("k8s.field").unwrap();
    let mut text = String::new();
    for (field, value) in message.fields() {
        let options = field.options();
        let is_struct = options.has_extension(&field_option) && {
            let schema = options.get_extension(&field_option).as_message().unwrap().clone();
            ["object", "inlined"].iter().any(|flag| schema.get_field_by_name(flag).unwrap().as_bool().unwrap())
        };
        let one = |value: &Value| match value {
            Value::Message(inner) => format!("{{{}}}", normal(inner)),
            scalar => format!("{scalar:?}"),
        };
        let written = match value {
            Value::List(values) if field.cardinality() == Cardinality::Repeated => {
                values.iter().map(one).collect::<Vec<_>>().join(",")
            }
            Value::Map(entries) => {
                let sorted: BTreeMap<String, String> =
                    entries.iter().map(|(key, value)| (format!("{key:?}"), one(value))).collect();
                format!("{sorted:?}")
            }
            value => one(value),
        };
        let is_scalar = !matches!(field.kind(), Kind::Message(_));
        let is_zero = is_scalar && !field.is_list() && !field.supports_presence() && value.is_default(&field.kind());
        let is_empty_struct = is_struct && ["{}", "{string=String(\"0\");}"].contains(&written.as_str());
        if !(is_zero || is_empty_struct) {
            text.push_str(&format!("{}={written};", field.name()));
        }
    }
    text
}

fn decoded(fixture: &Fixture, raw: &[u8]) -> String {
    let descriptor = POOL.get_message_by_name(fixture.full_name()).unwrap();
    let message = DynamicMessage::decode(descriptor, raw).unwrap();
    assert_eq!(message.unknown_fields().count(), 0, "{}", fixture.name);
    normal(&message)
}

#[test]
fn json_becomes_the_protobuf_that_kubernetes_writes() {
    check(|fixture| {
        let ours = match codec::json_to_proto(fixture.message, &fixture.json) {
            Ok(ours) => ours,
            Err(error) => return Some(error.to_string()),
        };
        if let Some(issue) = ours.issues.first() {
            return Some(issue.to_string());
        }
        let theirs = envelope::unwrap(&fixture.pb).unwrap().1;
        let (ours, theirs) = (decoded(fixture, &ours.bytes), decoded(fixture, &theirs));
        (ours != theirs).then(|| {
            let at = ours.bytes().zip(theirs.bytes()).take_while(|(a, b)| a == b).count();
            let from = at.saturating_sub(60);
            format!("ours: {:.160} theirs: {:.160}", &ours[from..], &theirs[from..])
        })
    });
}

#[test]
fn kubernetes_protobuf_becomes_the_json_that_kubernetes_writes() {
    check(|fixture| difference(&to_json(fixture, &envelope::unwrap(&fixture.pb).unwrap().1), &fixture.value()));
}

#[test]
fn our_protobuf_becomes_the_json_it_came_from() {
    check(|fixture| {
        let ours = codec::json_to_proto(fixture.message, &fixture.json).unwrap();
        difference(&to_json(fixture, &ours.bytes), &fixture.value())
    });
}

#[test]
fn envelopes_name_the_same_kind_as_the_json() {
    for fixture in fixtures() {
        let (read, raw) = envelope::unwrap(&fixture.pb).unwrap();
        let wanted = type_meta(&fixture).unwrap_or_default();
        assert_eq!((read.api_version.clone(), read.kind.clone()), wanted, "{}", fixture.name);
        let again = envelope::unwrap(&envelope::wrap(&read.api_version, &read.kind, &raw).into()).unwrap();
        assert_eq!(again, (read, raw));
    }
}

#[test]
fn what_is_written_is_what_prost_writes() {
    use prost::Message;
    use proto::k8s::{apps::v1::Deployment, batch::v1::CronJob, core::v1::*, rbac::v1::ClusterRole};

    fn same<M: Message + Default>(name: &str) {
        let fixture = fixtures().into_iter().find(|fixture| fixture.name == name).unwrap();
        let ours = codec::json_to_proto(fixture.message, &fixture.json).unwrap().bytes;
        assert_eq!(M::decode(ours.as_slice()).unwrap().encode_to_vec(), ours, "{name}");
    }
    same::<Pod>("core.v1.Pod");
    same::<Node>("core.v1.Node");
    same::<Service>("core.v1.Service");
    same::<Secret>("core.v1.Secret");
    same::<PersistentVolume>("core.v1.PersistentVolume");
    same::<ResourceQuota>("core.v1.ResourceQuota");
    same::<Deployment>("apps.v1.Deployment");
    same::<CronJob>("batch.v1.CronJob");
    same::<ClusterRole>("rbac.authorization.k8s.io.v1.ClusterRole");
}
