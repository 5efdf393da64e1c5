//! etcd's messages and services against the table of facts about its v3 API (`testdata/etcd-*.tsv`): each row, and nothing
//! beside them.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, sync::LazyLock};

use prost_reflect::{DescriptorPool, FieldDescriptor, Kind};

static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| DescriptorPool::decode(proto::DESCRIPTORS).unwrap());

const PACKAGES: [&str; 5] = ["authpb", "etcdserverpb", "mvccpb", "v3electionpb", "v3lockpb"];

/// The rows of a table, without its head.
fn rows(table: &'static str) -> BTreeSet<String> {
    table.lines().skip(1).map(|row| row.trim_end().to_owned()).collect()
}

fn is_ours(package: &str) -> bool {
    PACKAGES.contains(&package)
}

fn type_name(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(of) => of.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

fn assert_same(found: BTreeSet<String>, facts: BTreeSet<String>) {
    let missing: Vec<_> = facts.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&facts).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "missing {missing:#?}, surplus {surplus:#?}");
}

#[test]
fn messages_have_the_fields_of_etcd() {
    let mut found = BTreeSet::new();
    for message in POOL.all_messages().filter(|message| is_ours(message.package_name()) && !message.is_map_entry()) {
        if message.fields().len() == 0 {
            found.insert(format!("{}\t\t\t\tempty", message.full_name()));
        }
        for field in message.fields() {
            let flags = match field.containing_oneof() {
                Some(oneof) => format!("oneof:{}", oneof.name()),
                None if field.is_list() => "repeated".to_owned(),
                None => String::new(),
            };
            let (message, number, name) = (message.full_name(), field.number(), field.name());
            found.insert(format!("{message}\t{number}\t{name}\t{}\t{flags}", type_name(&field)).trim_end().to_owned());
        }
    }
    assert_same(found, rows(include_str!("../testdata/etcd-fields.tsv")));
}

#[test]
fn enums_have_the_values_of_etcd() {
    let enums = POOL.all_enums().filter(|of| is_ours(of.package_name()));
    let found = enums.flat_map(|of| {
        let values: Vec<_> = of.values().collect();
        values.into_iter().map(move |value| format!("{}\t{}\t{}", of.full_name(), value.number(), value.name()))
    });
    assert_same(found.collect(), rows(include_str!("../testdata/etcd-enums.tsv")));
}

#[test]
fn services_have_the_methods_of_etcd() {
    let services = POOL.services().filter(|service| is_ours(service.parent_file().package_name()));
    let found = services.flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods.into_iter().map(move |method| {
            let stream = match (method.is_client_streaming(), method.is_server_streaming()) {
                (true, true) => "client server",
                (true, false) => "client",
                (false, true) => "server",
                (false, false) => "",
            };
            let (request, response) = (method.input(), method.output());
            let names = [service.full_name(), method.name(), request.full_name(), response.full_name(), stream];
            names.join("\t").trim_end().to_owned()
        })
    });
    assert_same(found.collect(), rows(include_str!("../testdata/etcd-methods.tsv")));
}
