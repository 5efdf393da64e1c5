//! What a member promises, on both engines.
#![allow(clippy::unwrap_used)]

use futures::StreamExt;
use proto::{
    etcdserverpb::{
        CompactionRequest, Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
        WatchCreateRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
    },
    mvccpb::event::EventType,
};
use raft_store::{Engine, Node, Options};
use tonic::Code;

async fn each<F: Future<Output = ()>>(test: impl Fn(Node) -> F) {
    for engine in [Engine::Memory, Engine::RocksDb] {
        let folder = tempfile::tempdir().unwrap();
        let options = Options { data_dir: folder.path().join("store"), engine, ..Options::default() };
        let node = Node::start(options).await.unwrap();
        test(node.clone()).await;
        node.shutdown().await.unwrap();
    }
}

fn put(key: &str, value: &str) -> PutRequest {
    PutRequest { key: key.as_bytes().to_vec().into(), value: value.as_bytes().to_vec().into(), ..PutRequest::default() }
}

fn get(key: &str) -> RangeRequest {
    RangeRequest { key: key.as_bytes().to_vec().into(), ..RangeRequest::default() }
}

fn prefix(key: &str, end: &str) -> RangeRequest {
    RangeRequest {
        key: key.as_bytes().to_vec().into(),
        range_end: end.as_bytes().to_vec().into(),
        ..RangeRequest::default()
    }
}

fn mod_revision_is(key: &str, revision: i64) -> Compare {
    Compare {
        key: key.as_bytes().to_vec().into(),
        target: CompareTarget::Mod as i32,
        result: CompareResult::Equal as i32,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_reads_as_it_was_written_at_each_revision() {
    each(|node| async move {
        let first = node.put(put("a", "1")).await.unwrap().header.unwrap().revision;
        let second = node.put(put("a", "2")).await.unwrap().header.unwrap().revision;
        assert_eq!((first, second), (2, 3));
        let now = node.range(get("a")).await.unwrap();
        assert_eq!(
            (now.kvs[0].value.as_ref(), now.kvs[0].version, now.kvs[0].create_revision, now.count),
            (&b"2"[..], 2, 2, 1)
        );
        let then = node.range(RangeRequest { revision: first, ..get("a") }).await.unwrap();
        assert_eq!(then.kvs[0].value.as_ref(), b"1");
        assert_eq!(then.header.unwrap().revision, second);
        for sorted in [RangeRequest { sort_order: 3, ..get("a") }, RangeRequest { sort_target: -1, ..get("a") }] {
            let unknown = node.range(sorted).await.unwrap_err();
            assert_eq!((unknown.code(), unknown.message()), (Code::InvalidArgument, "etcdserver: invalid sort option"));
        }
        let future = node.range(RangeRequest { revision: 99, ..get("a") }).await.unwrap_err();
        assert_eq!(
            (future.code(), future.message()),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision")
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_counts_what_is_left_at_its_revision() {
    each(|node| async move {
        for number in 0..25 {
            node.put(put(&format!("k{number:02}"), "v")).await.unwrap();
        }
        let (mut from, mut revision, mut seen) = ("k".to_owned(), 0, Vec::new());
        loop {
            let page = node.range(RangeRequest { limit: 10, revision, ..prefix(&from, "l") }).await.unwrap();
            assert_eq!(page.count, 25 - seen.len() as i64);
            if revision == 0 {
                revision = page.header.unwrap().revision;
                node.put(put("k001", "later")).await.unwrap();
                node.delete_range(DeleteRangeRequest { key: "k24".into(), ..DeleteRangeRequest::default() })
                    .await
                    .unwrap();
            }
            seen.extend(page.kvs.iter().map(|kv| String::from_utf8(kv.key.to_vec()).unwrap()));
            from = format!("{}\0", seen.last().unwrap());
            if !page.more {
                break;
            }
        }
        assert_eq!(seen, (0..25).map(|number| format!("k{number:02}")).collect::<Vec<_>>());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_txn_writes_at_one_revision_and_reads_its_own_writes() {
    each(|node| async move {
        let create = |value: &str| TxnRequest {
            compare: vec![mod_revision_is("a", 0)],
            success: vec![
                op(Request::RequestPut(put("a", value))),
                op(Request::RequestPut(put("b", value))),
                op(Request::RequestRange(get("a"))),
            ],
            failure: vec![op(Request::RequestRange(get("a")))],
        };
        let made = node.txn(create("1")).await.unwrap();
        assert!(made.succeeded);
        let again = node.txn(create("2")).await.unwrap();
        assert!(!again.succeeded);
        assert_eq!(again.header.unwrap().revision, 2);
        let both = node.range(prefix("a", "c")).await.unwrap();
        assert!(both.kvs.iter().all(|kv| kv.mod_revision == 2 && kv.value.as_ref() == b"1"));
        let twice = TxnRequest {
            success: vec![op(Request::RequestPut(put("a", "x"))), op(Request::RequestPut(put("a", "y")))],
            ..TxnRequest::default()
        };
        assert_eq!(node.txn(twice).await.unwrap_err().message(), "etcdserver: duplicate key given in txn request");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_hears_every_revision_whole_and_in_order_from_any_start() {
    each(|node| async move {
        node.put(put("a", "1")).await.unwrap();
        node.put(put("a", "2")).await.unwrap();
        let create = WatchCreateRequest {
            key: "a".into(),
            range_end: "c".into(),
            start_revision: 2,
            prev_kv: true,
            ..WatchCreateRequest::default()
        };
        let mut watch = node.watch(create).await.unwrap();
        assert!(watch.next().await.unwrap().unwrap().created);
        let both = TxnRequest {
            success: vec![
                op(Request::RequestPut(put("b", "3"))),
                op(Request::RequestDeleteRange(DeleteRangeRequest {
                    key: "a".into(),
                    ..DeleteRangeRequest::default()
                })),
            ],
            ..TxnRequest::default()
        };
        node.txn(both).await.unwrap();
        let mut heard = Vec::new();
        while heard.len() < 4 {
            let response = watch.next().await.unwrap().unwrap();
            let last = response.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
            assert!(response.header.unwrap().revision >= last);
            heard.extend(response.events.into_iter().map(|event| {
                let kind = event.r#type();
                let kv = event.kv.unwrap();
                (kv.mod_revision, kind, kv.key, event.prev_kv.map(|kv| kv.value))
            }));
        }
        assert_eq!(
            heard,
            vec![
                (2, EventType::Put, "a".into(), None),
                (3, EventType::Put, "a".into(), Some("1".into())),
                (4, EventType::Put, "b".into(), None),
                (4, EventType::Delete, "a".into(), Some("2".into())),
            ]
        );
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_refuses_older_reads_and_keeps_the_rest() {
    each(|node| async move {
        for value in ["1", "2", "3"] {
            node.put(put("a", value)).await.unwrap();
        }
        node.delete_range(DeleteRangeRequest { key: "a".into(), ..DeleteRangeRequest::default() }).await.unwrap();
        node.put(put("b", "5")).await.unwrap();
        node.compaction(CompactionRequest { revision: 5, physical: true }).await.unwrap();
        let old = node.range(RangeRequest { revision: 3, ..get("a") }).await.unwrap_err();
        assert_eq!(
            (old.code(), old.message()),
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted")
        );
        assert_eq!(node.range(RangeRequest { revision: 5, ..get("a") }).await.unwrap().count, 0);
        assert_eq!(node.range(get("b")).await.unwrap().count, 1);
        // The event that stands at the compacted revision can still be heard.
        let create = WatchCreateRequest { key: "a".into(), start_revision: 5, ..WatchCreateRequest::default() };
        let mut watch = node.watch(create).await.unwrap();
        watch.next().await.unwrap().unwrap();
        assert_eq!(watch.next().await.unwrap().unwrap().events[0].r#type(), EventType::Delete);
        let mut gone = node
            .watch(WatchCreateRequest { key: "a".into(), start_revision: 3, ..WatchCreateRequest::default() })
            .await
            .unwrap();
        assert!(gone.next().await.unwrap().unwrap().created);
        let canceled = gone.next().await.unwrap().unwrap();
        assert_eq!((canceled.canceled, canceled.compact_revision), (true, 5));
        assert!(gone.next().await.is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_takes_its_keys_along() {
    each(|node| async move {
        let lease = node.lease_grant(2).await.unwrap();
        node.put(PutRequest { lease, ..put("a", "1") }).await.unwrap();
        node.put(PutRequest { lease, ..put("b", "1") }).await.unwrap();
        let mut watch = node
            .watch(WatchCreateRequest { key: "a".into(), range_end: "c".into(), ..WatchCreateRequest::default() })
            .await
            .unwrap();
        watch.next().await.unwrap().unwrap();
        let deleted = watch.next().await.unwrap().unwrap();
        assert_eq!(deleted.events.len(), 2);
        assert!(deleted.events.iter().all(|event| event.r#type() == EventType::Delete));
        assert_eq!(node.lease_keep_alive(lease).await.unwrap_err().message(), "etcdserver: requested lease not found");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_finds_everything_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    let options = Options { data_dir: folder.path().join("store"), ..Options::default() };
    let mut revision = 1;
    for round in 0..3 {
        let node = Node::start(options.clone()).await.unwrap();
        assert_eq!(node.range(get("a")).await.unwrap().header.unwrap().revision, revision);
        for value in 0..20 {
            revision = node.put(put("a", &format!("{round}-{value}"))).await.unwrap().header.unwrap().revision;
        }
        assert_eq!(node.range(get("a")).await.unwrap().kvs[0].value, format!("{round}-19"));
        node.shutdown().await.unwrap();
        drop(node);
    }
}
