//! Watch streams, step by step: ids, cancels, progress, requests that are refused.

use std::time::Duration;

use bytes::Bytes;
use proto::etcdserverpb::{
    PutRequest, WatchCancelRequest, WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse,
    kv_client::KvClient, watch_client::WatchClient, watch_request::RequestUnion,
};
use raft_store::Engine;
use tonic::transport::Channel;

use crate::servers::{etcd, ours};

/// What a client does on its stream.
#[derive(Clone, Debug)]
enum Step {
    Ask(RequestUnion),
    Put(&'static str),
    /// Waits for so many answers.
    Hear(usize),
}

fn create(key: &'static str, watch_id: i64) -> WatchCreateRequest {
    WatchCreateRequest { key: key.into(), watch_id, ..WatchCreateRequest::default() }
}

fn ask(create: WatchCreateRequest) -> Step {
    Step::Ask(RequestUnion::CreateRequest(create))
}

fn cancel(watch_id: i64) -> Step {
    Step::Ask(RequestUnion::CancelRequest(WatchCancelRequest { watch_id }))
}

fn progress() -> Step {
    Step::Ask(RequestUnion::ProgressRequest(WatchProgressRequest {}))
}

fn show(response: &WatchResponse) -> String {
    let events = response.events.iter().map(|event| {
        let kv = event.kv.as_ref().unwrap();
        format!("{:?} {:?} mod={}", event.r#type(), kv.key, kv.mod_revision)
    });
    format!(
        "id={} rev={} created={} canceled={} compact={} fragment={} {:?} {:?}",
        response.watch_id,
        response.header.as_ref().map_or(0, |header| header.revision),
        response.created,
        response.canceled,
        response.compact_revision,
        response.fragment,
        response.cancel_reason,
        events.collect::<Vec<_>>()
    )
}

async fn play(channel: &Channel, steps: &[Step]) -> Vec<String> {
    let (requests, stream) = tokio::sync::mpsc::channel(8);
    let mut stream = Some(tokio_stream::wrappers::ReceiverStream::new(stream));
    let mut answers = None;
    let mut heard = Vec::new();
    for step in steps {
        match step {
            Step::Ask(union) => requests.send(WatchRequest { request_union: Some(union.clone()) }).await.unwrap(),
            Step::Put(key) => {
                let put = PutRequest { key: Bytes::from_static(key.as_bytes()), ..PutRequest::default() };
                KvClient::new(channel.clone()).put(put).await.unwrap();
            }
            Step::Hear(count) => {
                // Opened only now: etcd does not accept a stream before it has something to answer.
                if let Some(stream) = stream.take() {
                    answers = Some(WatchClient::new(channel.clone()).watch(stream).await.unwrap().into_inner());
                }
                let answers = answers.as_mut().unwrap();
                for _ in 0..*count {
                    let answer = tokio::time::timeout(Duration::from_secs(20), answers.message()).await;
                    let answer = answer.unwrap_or_else(|_| panic!("no more answers after {heard:?}"));
                    heard.push(show(&answer.unwrap().expect("the stream goes on")));
                }
            }
        }
    }
    heard
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_streams_go_as_those_of_etcd() {
    let (_etcd, theirs) = etcd().await;
    let (node, _folder, ours) = ours(Engine::Memory).await;
    let sessions: Vec<(&str, Vec<Step>)> = vec![
        (
            "ids are chosen from 0 on, past those in use",
            vec![ask(create("a", 1)), Step::Hear(1), ask(create("b", 0)), ask(create("c", 0)), Step::Hear(2)],
        ),
        ("an id in use is refused", vec![ask(create("a", 5)), ask(create("a", 5)), Step::Hear(2)]),
        (
            "a canceled watch says so and its id is free again",
            vec![ask(create("a", 5)), cancel(5), Step::Hear(2), ask(create("a", 5)), Step::Hear(1)],
        ),
        (
            "an unknown id is canceled in silence",
            vec![ask(create("a", 0)), cancel(9), Step::Hear(1), Step::Put("a"), Step::Hear(1)],
        ),
        (
            "an interval that holds no key is refused",
            vec![
                ask(WatchCreateRequest { range_end: "a".into(), ..create("b", 0) }),
                ask(WatchCreateRequest { range_end: "b".into(), ..create("b", 7) }),
                Step::Hear(2),
            ],
        ),
        (
            "progress is told for the stream as a whole",
            vec![ask(create("a", 0)), Step::Hear(1), Step::Put("a"), Step::Hear(1), progress(), Step::Hear(1)],
        ),
        (
            "a revision of the future is waited for",
            vec![
                ask(WatchCreateRequest { start_revision: 7, ..create("a", 0) }),
                Step::Hear(1),
                Step::Put("a"),
                Step::Put("a"),
                Step::Put("a"),
                Step::Put("a"),
                Step::Hear(1),
            ],
        ),
    ];
    for (name, steps) in sessions {
        let expected = play(&theirs, &steps).await;
        assert_eq!(play(&ours, &steps).await, expected, "{name}");
    }
    node.shutdown().await.unwrap();
}
