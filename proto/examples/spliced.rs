//! Writes stored objects, and the same with a spliced resource version, for the decoders of other languages:
//! `cargo run -p proto --example spliced -- <folder>`, then `tests/clients/run`.
//!
//! Per case: `<case>.stored.bin`, `<case>.spliced.bin` and `<case>.json` (message, name, resource version).

use std::{fs, path::PathBuf};

use anyhow::Context;
use bytes::Bytes;
use prost::Message;
use proto::{
    Object,
    codec::{self, schema},
    envelope,
};
use serde_json::{Value, json};

const REVISION: u64 = 123_456_789;

/// Kubernetes' fixtures fill every field.
const CASES: &[(&str, &str)] = &[
    ("pod", include_str!("../testdata/pod.json")),
    ("golden-pod", include_str!("../testdata/k8s-golden/core.v1.Pod.json")),
    ("golden-node", include_str!("../testdata/k8s-golden/core.v1.Node.json")),
    ("golden-service", include_str!("../testdata/k8s-golden/core.v1.Service.json")),
    ("golden-config-map", include_str!("../testdata/k8s-golden/core.v1.ConfigMap.json")),
    ("golden-deployment", include_str!("../testdata/k8s-golden/apps.v1.Deployment.json")),
    ("bare", r#"{"apiVersion":"v1","kind":"Pod"}"#),
];

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("usage: spliced <folder>")?);
    fs::create_dir_all(&folder).context("make the folder")?;
    for (case, json) in CASES {
        let mut document: Value = serde_json::from_str(json)?;
        let meta = codec::type_meta(json.as_bytes())?;
        // As the store keeps it: without a resource version.
        if let Some(metadata) = document["metadata"].as_object_mut() {
            metadata.remove("resourceVersion");
        }
        let id = schema().kind(&meta.api_version, &meta.kind).context("find the kind")?;
        let stored = Bytes::from(codec::value_to_proto(id, &document)?.bytes);
        let spliced = envelope::splice_resource_version(&stored, REVISION)?;

        let arm = proto::ARMS.iter().find(|arm| arm.1 == schema()[id].full_name).context("find the arm")?.0;
        let object = Object::from_raw(&meta.api_version, &meta.kind, arm, spliced.clone()).encode_to_vec();
        let facts = json!({
            "message": schema()[id].full_name,
            "name": document["metadata"]["name"].as_str().unwrap_or_default(),
            "labels": document["metadata"]["labels"].as_object().map_or(0, serde_json::Map::len),
            "resourceVersion": REVISION.to_string(),
        });
        fs::write(folder.join(format!("{case}.stored.bin")), &stored)?;
        fs::write(folder.join(format!("{case}.spliced.bin")), &spliced)?;
        fs::write(folder.join(format!("{case}.object.bin")), object)?;
        fs::write(folder.join(format!("{case}.json")), facts.to_string())?;
    }
    println!("{} cases in {}", CASES.len(), folder.display());
    Ok(())
}
