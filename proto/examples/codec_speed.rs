//! Microseconds per transcoding of one Pod: `cargo run --release -p proto --example codec_speed`.

use std::{hint::black_box, time::Instant};

use anyhow::Context;
use bytes::Bytes;
use prost::Message;
use proto::{
    codec::{self, schema},
    envelope,
    k8s::core::v1::Pod,
};

const POD: &str = include_str!("../testdata/pod.json");

fn main() -> anyhow::Result<()> {
    let started = Instant::now();
    let id = schema().message("k8s.api.core.v1.Pod").context("find Pod")?;
    println!("{:8.2} us  schema tables, once", started.elapsed().as_secs_f64() * 1e6);

    let compact = serde_json::from_str::<serde_json::Value>(POD)?.to_string();
    let pb = Bytes::from(codec::json_to_proto(id, compact.as_bytes())?.bytes);
    let pod = Pod::decode(&pb[..])?;
    println!("a Pod of {} bytes of JSON is {} bytes of protobuf", compact.len(), pb.len());

    time("JSON to protobuf", || codec::json_to_proto(id, compact.as_bytes()).map(|decoded| decoded.bytes.len()));
    time("protobuf to JSON", || {
        let mut out = Vec::with_capacity(4096);
        codec::proto_to_json(id, &pb, Some(("v1", "Pod")), &mut out).map(|()| out.len())
    });
    time("splice a resource version", || envelope::splice_resource_version(&pb, 12_345_678).map(|bytes| bytes.len()));
    time("prost decode", || Pod::decode(&pb[..]).map(|pod| pod.encoded_len()));
    time("prost encode", || Ok::<_, ()>(pod.encode_to_vec().len()));
    time("serde_json parse, for scale", || {
        serde_json::from_str::<serde_json::Value>(&compact).map(|value| value.is_object())
    });
    Ok(())
}

/// The fastest of ten rounds, so that a busy neighbour does not count.
fn time<T, E>(what: &str, mut operation: impl FnMut() -> Result<T, E>) {
    const OPERATIONS: u32 = 5_000;
    let round = |operation: &mut dyn FnMut() -> Result<T, E>| {
        let started = Instant::now();
        for _ in 0..OPERATIONS {
            let _ = black_box(operation());
        }
        started.elapsed().as_secs_f64() * 1e6 / f64::from(OPERATIONS)
    };
    let best = (0..10).map(|_| round(&mut operation)).fold(f64::MAX, f64::min);
    println!("{best:8.2} us  {what}");
}
