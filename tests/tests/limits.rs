//! What is too large is refused by the rule that names the limit, and by no other.
#![allow(clippy::unwrap_used)]

use proto::k8s::{
    core::v1::{Container, Pod, PodSpec},
    meta::v1::ObjectMeta,
};
use tests::cluster::Cluster;

const OBJECT_BYTES_MAX: usize = 1_572_864;

/// A pod for a scheduler that is not there, with so much to say to its container.
fn pod(name: String, bytes: usize) -> Pod {
    let metadata = ObjectMeta { name, namespace: "default".into(), ..ObjectMeta::default() };
    let args = vec!["v".repeat(bytes)];
    let container = Container { name: "c".into(), image: "c:1".into(), args, ..Container::default() };
    let spec = PodSpec { containers: vec![container], scheduler_name: "nobody".into(), ..PodSpec::default() };
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}

/// The store once refused, in words of its own, what was just below the apiserver's limit.
#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_stored_up_to_the_limit_and_refused_with_413_above_it() {
    let cluster = Cluster::start(&[]).await;
    let (mut stored, mut refused) = (0, 0);
    // The server adds a few hundred bytes of metadata to what is sent.
    for bytes in (OBJECT_BYTES_MAX - 1280..=OBJECT_BYTES_MAX).step_by(64) {
        match cluster.client.create(&pod(format!("p{bytes}"), bytes)).await {
            Ok(_) => {
                assert_eq!(refused, 0, "{bytes} bytes were stored, fewer were not");
                stored += 1;
            }
            Err(error) => {
                let told = error.to_string();
                assert!(told.contains("the limit is 1572864 bytes"), "{bytes} bytes: {told}");
                refused += 1;
            }
        }
    }
    assert!(stored > 0 && refused > 0, "{stored} stored, {refused} refused");
    cluster.stop().await.unwrap();
}
