//! The arrows of ARCHITECTURE.md, held against what the manifests say.
#![allow(clippy::unwrap_used)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Which rooms a room may use; dev-dependencies are free.
const ARROWS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("kit", &[]),
    ("ipvs-rs", &[]),
    ("pause", &[]),
    ("model", &["proto"]),
    ("client", &["kit", "model", "proto"]),
    ("raft-store", &["kit", "proto"]),
    ("apiserver", &["kit", "model", "proto"]),
    ("scheduler", &["client", "kit", "model", "proto"]),
    ("controllers", &["client", "kit", "model", "proto"]),
    ("kubelet", &["client", "kit", "model", "proto"]),
    ("proxy", &["client", "ipvs-rs", "kit", "model", "proto"]),
    ("stay", &["client", "kit", "model", "proto"]),
];
/// These may use all.
const FREE: &[&str] = &["forestay", "tests"];

fn packages() -> Vec<Value> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap()
}

fn dependencies(package: &Value) -> impl Iterator<Item = &str> {
    package["dependencies"].as_array().unwrap().iter().filter(|dependency| dependency["kind"].is_null()).map(name)
}

#[test]
fn every_room_uses_only_the_rooms_its_arrows_point_to() {
    let packages = packages();
    let rooms: BTreeSet<&str> = packages.iter().map(name).collect();
    let arrows: BTreeMap<&str, &[&str]> = ARROWS.iter().copied().collect();
    for package in packages.iter().filter(|package| !FREE.contains(&name(package))) {
        let allowed = arrows.get(name(package)).unwrap_or_else(|| panic!("{} has no arrows: add it", name(package)));
        for used in dependencies(package).filter(|used| rooms.contains(used)) {
            assert!(allowed.contains(&used), "{} may not use {used}", name(package));
        }
    }
}

#[test]
fn the_consensus_and_storage_engines_stand_in_one_manifest() {
    for package in packages().iter().filter(|package| name(package) != "raft-store") {
        let found: Vec<&str> = dependencies(package).filter(|used| ["openraft", "rocksdb"].contains(used)).collect();
        assert!(found.is_empty(), "{} names {found:?}", name(package));
    }
}
