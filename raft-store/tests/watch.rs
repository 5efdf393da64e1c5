//! What a watcher hears when it is slow, quiet, or asks for a lot at once.
#![allow(clippy::unwrap_used)]

use futures::{StreamExt, stream::BoxStream};
use proto::{
    etcdserverpb::{
        DeleteRangeRequest, PutRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchRequest, WatchResponse,
        request_op::Request, watch_client::WatchClient, watch_request::RequestUnion,
    },
    mvccpb::Event,
};
use raft_store::{Engine, Node, Options, watch::Bounds};
use tokio::net::TcpListener;
use tonic::{Status, transport::Channel};

async fn node(ring: Bounds) -> Node {
    Node::start(Options { engine: Engine::Memory, ring, ..Options::default() }).await.unwrap()
}

fn put(key: &str, value: impl Into<bytes::Bytes>) -> PutRequest {
    PutRequest { key: key.as_bytes().to_vec().into(), value: value.into(), ..PutRequest::default() }
}

fn everything(start_revision: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: vec![0].into(),
        range_end: vec![0].into(),
        start_revision,
        prev_kv: true,
        ..WatchCreateRequest::default()
    }
}

type Watch = BoxStream<'static, Result<WatchResponse, Status>>;

/// Answers up to the one that holds `revision`.
async fn up_to(revision: i64, watch: &mut Watch) -> Vec<WatchResponse> {
    let mut heard = Vec::new();
    loop {
        let response = watch.next().await.unwrap().unwrap();
        let is_last = response.events.iter().any(|event| event.kv.as_ref().unwrap().mod_revision >= revision);
        heard.push(response);
        if is_last {
            return heard;
        }
    }
}

fn events(responses: Vec<WatchResponse>) -> Vec<Event> {
    responses.into_iter().flat_map(|response| response.events).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn history_tells_what_was_told_live() {
    let node = node(Bounds { events_max: 8, bytes_max: 1 << 20 }).await;
    let mut live = node.watch(everything(0)).await.unwrap();
    // Behind the ring from the second round on: it hears the rest from history.
    let mut slow = node.watch(everything(2)).await.unwrap();
    let mut revision = 0;
    let mut told = Vec::new();
    for round in 0..50 {
        let key = format!("k{}", round % 7);
        revision = if round % 5 == 4 {
            let delete = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
            let deleted = node.delete_range(delete).await.unwrap();
            if deleted.deleted == 0 {
                continue;
            }
            deleted.header.unwrap().revision
        } else {
            node.put(put(&key, format!("{round}"))).await.unwrap().header.unwrap().revision
        };
        told.extend(events(up_to(revision, &mut live).await));
    }
    assert_eq!(events(up_to(revision, &mut slow).await), told);
    let mut late = node.watch(everything(2)).await.unwrap();
    assert_eq!(events(up_to(revision, &mut late).await), told);
    node.shutdown().await.unwrap();
}

fn delete_from(key: &str) -> Request {
    Request::RequestDeleteRange(DeleteRangeRequest {
        key: key.as_bytes().to_vec().into(),
        range_end: vec![0].into(),
        ..DeleteRangeRequest::default()
    })
}

/// Events of one Txn, as those hear them who listen, and as those who come later; both have to be the same.
async fn told_of(node: &Node, requests: Vec<Request>) -> Vec<String> {
    let mut live = node.watch(everything(0)).await.unwrap();
    let success = requests.into_iter().map(|request| RequestOp { request: Some(request) }).collect();
    let txn = node.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let revision = txn.header.unwrap().revision;
    node.put(put("z", "pushes the ring on")).await.unwrap();
    let of_txn = |responses| {
        let mut events = events(responses);
        events.retain(|event| event.kv.as_ref().unwrap().mod_revision == revision);
        events
    };
    let told = of_txn(up_to(revision, &mut live).await);
    let mut late = node.watch(everything(revision)).await.unwrap();
    assert_eq!(of_txn(up_to(revision, &mut late).await), told);
    let show = |event: &Event| {
        let before = event.prev_kv.as_ref().map_or("nothing".into(), |kv| String::from_utf8_lossy(&kv.value));
        let key = String::from_utf8_lossy(&event.kv.as_ref().unwrap().key);
        format!("{} {key} before: {before}", event.r#type().as_str_name())
    };
    told.iter().map(show).collect()
}

/// One Txn may write a key twice, with a delete of an interval without end, as in etcd. This store once told live watchers
/// what the Txn itself had put, and those that came later what stood before.
#[tokio::test(flavor = "multi_thread")]
async fn the_version_before_is_that_of_the_revision_before() {
    for ring in [Bounds::default(), Bounds { events_max: 1, bytes_max: 1 }] {
        let node = node(ring).await;
        node.put(put("old", "1")).await.unwrap();
        let own = |key| Request::RequestPut(put(key, "own"));
        assert_eq!(
            told_of(&node, vec![own("new"), own("old"), delete_from("a")]).await,
            ["PUT new before: nothing", "PUT old before: 1", "DELETE new before: nothing", "DELETE old before: 1"]
        );
        node.put(put("old", "2")).await.unwrap();
        assert_eq!(
            told_of(&node, vec![delete_from("a"), own("old")]).await,
            ["DELETE old before: 2", "DELETE z before: pushes the ring on", "PUT old before: nothing"]
        );
        node.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_asked_for_progress_hears_of_revisions_that_brought_it_nothing() {
    let node = node(Bounds::default()).await;
    let create = WatchCreateRequest { key: "mine".into(), progress_notify: true, ..WatchCreateRequest::default() };
    let mut watch = node.watch(create).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().created);
    let revision = node.put(put("another's", "1")).await.unwrap().header.unwrap().revision;
    let progress = watch.next().await.unwrap().unwrap();
    assert_eq!((progress.events.len(), progress.header.unwrap().revision), (0, revision));
    let revision = node.put(put("mine", "1")).await.unwrap().header.unwrap().revision;
    assert_eq!(events(up_to(revision, &mut watch).await).len(), 1);
    node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_from_a_negative_revision_ends_at_once() {
    let node = node(Bounds::default()).await;
    let mut watch = node.watch(everything(-1)).await.unwrap();
    assert!(watch.next().await.unwrap().unwrap().created);
    assert!(watch.next().await.unwrap().unwrap().canceled);
    assert!(watch.next().await.is_none());
    node.shutdown().await.unwrap();
}

/// Every message of a stream, in order, over gRPC.
async fn over_grpc(node: &Node, create: WatchCreateRequest) -> tonic::Streaming<WatchResponse> {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", listener.local_addr().unwrap())).unwrap().connect_lazy();
    let serving = node.clone();
    tokio::spawn(async move { serving.serve(listener, None).await.unwrap() });
    let request = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = tokio_stream::iter([request]).chain(tokio_stream::pending());
    WatchClient::new(channel).max_decoding_message_size(64 << 20).watch(requests).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_too_large_for_one_message_comes_in_fragments_where_asked() {
    let node = node(Bounds::default()).await;
    node.put(put("a", vec![b'a'; 900_000])).await.unwrap();
    node.put(put("b", vec![b'b'; 1_400_000])).await.unwrap();
    for fragment in [true, false] {
        let mut watch = over_grpc(&node, WatchCreateRequest { fragment, ..everything(2) }).await;
        assert!(watch.message().await.unwrap().unwrap().created);
        let mut parts = Vec::new();
        while parts.iter().map(|part: &WatchResponse| part.events.len()).sum::<usize>() < 2 {
            parts.push(watch.message().await.unwrap().unwrap());
        }
        let shape: Vec<_> = parts.iter().map(|part| (part.events.len(), part.fragment)).collect();
        assert_eq!(shape, if fragment { vec![(1, true), (1, false)] } else { vec![(2, false)] });
    }
    node.shutdown().await.unwrap();
}
