//! What every form of the store keeps behind the apiserver's trait, with a real etcd as the oracle: a rule that holds
//! in one form only would let the apiserver depend on where its store runs.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use apiserver::{
    Options, Server,
    api::RequestContext,
    storage::{EtcdStore, Store},
};
use bytes::Bytes;
use client::Client;
use forestay::{
    certificates::Holder,
    role::{House, Role},
    up,
};
use futures::{StreamExt, future::join_all, stream::BoxStream};
use kit::{
    life::Shutdown,
    tls::{self, ClientTls, Identity},
};
use proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, RequestOp, ResponseHeader, TxnRequest,
        TxnResponse, WatchCreateRequest, WatchResponse,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{KeyValue, event::EventType},
};
use rustls::{AlertDescription, pki_types::ServerName};
use tests::{
    PATIENCE,
    cluster::quiet_settings,
    eventually,
    stores::{Form, Standing},
};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};

const COMPACTED: &str = "etcdserver: mvcc: required revision has been compacted";
const FUTURE: &str = "etcdserver: mvcc: required revision is a future revision";
const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

async fn keeps_the_contract(form: Form) {
    let Some(standing) = form.start().await else { return };
    let store = &*standing.store;
    macro_rules! rules {
        ($($rule:ident),* $(,)?) => {$(
            eprintln!("{form:?}: {}", stringify!($rule));
            $rule(store).await;
        )*};
    }
    rules!(
        a_key_is_created_once,
        an_update_needs_the_revision_it_has_seen,
        a_deletion_needs_the_revision_it_has_seen,
        of_many_writers_one_wins,
        a_txn_that_changes_nothing_makes_no_revision,
        a_range_says_how_many_there_are_and_whether_more_follow,
        pages_are_of_one_revision,
        an_old_revision_reads_as_it_was,
        answers_may_be_large,
        malformed_requests_are_refused_in_etcds_words,
        a_watch_from_now_says_created_and_hears_what_follows,
        a_watch_from_an_old_revision_hears_what_was,
        a_watch_from_a_later_revision_skips_what_comes_before,
        the_events_of_a_txn_come_in_one_message,
        a_watch_hears_concurrent_writes_in_their_order,
        a_compacted_revision_is_refused_in_etcds_words,
        a_watch_from_a_compacted_revision_is_canceled_and_ends,
        a_revoked_lease_takes_its_keys_along,
        a_key_written_without_its_lease_outlives_it,
        a_lease_is_kept_until_it_is_gone,
        a_lease_ends_by_itself,
        the_status_names_leader_and_revision,
    );
    a_store_that_stops_lets_nobody_wait(standing).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_keeps_the_contract() {
    keeps_the_contract(Form::InMemory).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_rocksdb_keeps_the_contract() {
    keeps_the_contract(Form::OnRocksDb).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_over_grpc_keeps_the_contract() {
    keeps_the_contract(Form::OverGrpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn etcd_keeps_the_contract() {
    keeps_the_contract(Form::Etcd).await;
}

// The whole apiserver on each store that is reached over gRPC.

async fn the_apiserver_keeps_its_contract_on(form: Form) {
    let Some(standing) = form.start().await else { return };
    let server = Server::new(Options::default(), standing.store.clone());
    let admin = RequestContext { user: "kubernetes-admin".into(), groups: vec!["system:masters".into()] };
    client::contract::all(&Client::from_channel(server.channel_as(admin))).await;
    server.stop().await;
    standing.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apiserver_keeps_its_contract_on_a_store_of_its_own_process() {
    the_apiserver_keeps_its_contract_on(Form::OverGrpc).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_apiserver_keeps_its_contract_on_etcd() {
    the_apiserver_keeps_its_contract_on(Form::Etcd).await;
}

// Who may come in.

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_lets_in_nobody_of_the_cluster_authority() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    up::init(&settings).unwrap();
    let (house, shutdown) = (House::new(settings), Shutdown::new());
    let running = tokio::spawn({
        let (house, shutdown) = (house.clone(), shutdown.clone());
        async move { house.run(&Role::RaftStore, shutdown).await }
    });
    let certificates = house.certificates();
    let (ca_pem, port) = (certificates.store_ca().unwrap(), house.settings.ports.store_port);
    let store_as = |identity: Option<Identity>| {
        let tls = ClientTls { ca_pem: ca_pem.clone(), identity };
        EtcdStore::new(tls::channel(&[format!("https://127.0.0.1:{port}")], &tls).unwrap())
    };

    let apiserver = store_as(Some(certificates.identity(&Holder::StoreClient).unwrap()));
    eventually("the apiserver is let in", || async { apiserver.status().await.ok() }).await;

    let node = Holder::Node(house.settings.node_name());
    for holder in [node, Holder::Admin, Holder::ApiServerClient, Holder::Scheduler, Holder::Controllers] {
        let identity = certificates.identity(&holder).unwrap();
        let alert = handshake(port, &ca_pem, Some(&identity)).await;
        assert_eq!(alert, Err(AlertDescription::UnknownCA), "{holder:?}");
        assert!(store_as(Some(identity)).status().await.is_err(), "{holder:?} reads the store");
    }
    assert_eq!(handshake(port, &ca_pem, None).await, Err(AlertDescription::CertificateRequired));
    assert!(store_as(None).status().await.is_err(), "a stranger reads the store");

    shutdown.trigger();
    running.await.unwrap().unwrap();
}

/// The alert by which the store on `port` refuses a client, where it does.
async fn handshake(port: u16, ca_pem: &str, identity: Option<&Identity>) -> Result<(), AlertDescription> {
    let connector = TlsConnector::from(tls::client_config(ca_pem, identity).unwrap());
    let stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    // In TLS 1.3 the client is done before the server has seen its certificate: the verdict is the first thing read.
    let verdict = match connector.connect(name, stream).await {
        Ok(mut stream) => stream.read_u8().await.map(drop),
        Err(error) => Err(error),
    };
    let Err(error) = verdict else { return Ok(()) };
    match error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Err(*alert),
        _ => panic!("the connection broke without a word: {error}"),
    }
}

// Keys and transactions.

async fn a_key_is_created_once(store: &dyn Store) {
    let made = store.txn(create("once/a", "1")).await.unwrap();
    assert!(made.succeeded);
    let revision = revision(&made.header);
    let again = store.txn(create("once/a", "2")).await.unwrap();
    assert!(!again.succeeded);
    let held = ranged(&again).kvs[0].clone();
    let expected = KeyValue {
        key: "once/a".into(),
        value: "1".into(),
        create_revision: revision,
        mod_revision: revision,
        version: 1,
        lease: 0,
    };
    assert_eq!(held, expected);
    assert_eq!(again.header.unwrap().revision, revision, "a refused txn makes no revision");
    assert_eq!(read(store, "once/a").await, Some(expected));
}

async fn an_update_needs_the_revision_it_has_seen(store: &dyn Store) {
    let first = put(store, "update/a", "1").await;
    let updated = store.txn(at("update/a", first, put_op("update/a", "2", 0))).await.unwrap();
    assert!(updated.succeeded);
    let second = revision(&updated.header);
    assert_eq!(second, first + 1);
    let stale = store.txn(at("update/a", first, put_op("update/a", "3", 0))).await.unwrap();
    assert!(!stale.succeeded);
    assert_eq!(ranged(&stale).kvs[0].mod_revision, second);
    let held = read(store, "update/a").await.unwrap();
    assert_eq!(
        (held.value.as_ref(), held.create_revision, held.mod_revision, held.version),
        (&b"2"[..], first, second, 2)
    );
}

async fn a_deletion_needs_the_revision_it_has_seen(store: &dyn Store) {
    let first = put(store, "delete/a", "1").await;
    let second = put(store, "delete/a", "2").await;
    assert!(!store.txn(at("delete/a", first, delete_op("delete/a"))).await.unwrap().succeeded);
    let deleted = store.txn(at("delete/a", second, delete_op("delete/a"))).await.unwrap();
    assert!(deleted.succeeded);
    assert_eq!(revision(&deleted.header), second + 1);
    let Some(Response::ResponseDeleteRange(answer)) = &deleted.responses[0].response else { panic!("{deleted:?}") };
    assert_eq!((answer.deleted, answer.prev_kvs[0].value.as_ref()), (1, &b"2"[..]));
    assert_eq!(read(store, "delete/a").await, None);

    let made = store.txn(create("delete/a", "3")).await.unwrap();
    assert!(made.succeeded, "a deleted key can be created");
    let held = read(store, "delete/a").await.unwrap();
    assert_eq!((held.version, held.create_revision), (1, second + 2));
}

async fn of_many_writers_one_wins(store: &dyn Store) {
    let writers = (0..16).map(|writer| store.txn(create("race/a", &writer.to_string())));
    let won: Vec<usize> = join_all(writers)
        .await
        .into_iter()
        .enumerate()
        .filter_map(|(writer, answer)| answer.unwrap().succeeded.then_some(writer))
        .collect();
    assert_eq!(won.len(), 1, "{won:?}");
    assert_eq!(read(store, "race/a").await.unwrap().value, won[0].to_string());
}

async fn a_txn_that_changes_nothing_makes_no_revision(store: &dyn Store) {
    let before = put(store, "nothing/a", "1").await;
    let absent = TxnRequest { success: vec![delete_op("nothing/b")], ..TxnRequest::default() };
    let reading = TxnRequest { success: vec![range_op("nothing/a")], ..TxnRequest::default() };
    for request in [absent, reading] {
        let answer = store.txn(request).await.unwrap();
        assert!(answer.succeeded);
        assert_eq!(revision(&answer.header), before);
    }
    assert_eq!(put(store, "nothing/a", "1").await, before + 1, "writing the same value is a change");
}

// Reading.

async fn a_range_says_how_many_there_are_and_whether_more_follow(store: &dyn Store) {
    for name in ["a", "b", "c", "d", "e"] {
        put(store, &format!("range/{name}"), name).await;
    }
    let all = below("range/");
    for (limit, found, more) in [(0, 5, false), (2, 2, true), (4, 4, true), (5, 5, false), (6, 5, false)] {
        let page = store.range(RangeRequest { limit, ..all.clone() }).await.unwrap();
        assert_eq!((page.kvs.len(), page.more, page.count), (found, more, 5), "limit {limit}");
    }
    let counted = store.range(RangeRequest { count_only: true, ..all.clone() }).await.unwrap();
    assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 5));
    let keys = store.range(RangeRequest { keys_only: true, ..all }).await.unwrap();
    let told = keys.kvs.iter().map(|held| (held.key.as_ref(), held.value.len())).collect::<Vec<_>>();
    assert_eq!(told[..2], [(&b"range/a"[..], 0), (&b"range/b"[..], 0)]);
    // The end is not part of a range.
    let part = RangeRequest { key: "range/b".into(), range_end: "range/d".into(), ..RangeRequest::default() };
    assert_eq!(keys_of(&store.range(part).await.unwrap()), ["range/b", "range/c"]);
    let nothing = store.range(below("range/x/")).await.unwrap();
    assert_eq!((nothing.kvs.len(), nothing.more, nothing.count), (0, false, 0));
}

async fn pages_are_of_one_revision(store: &dyn Store) {
    for number in 0..7 {
        put(store, &format!("page/{number}"), "old").await;
    }
    let mut request = RangeRequest { limit: 3, ..below("page/") };
    let first = store.range(request.clone()).await.unwrap();
    request.revision = revision(&first.header);
    put(store, "page/4", "new").await;
    put(store, "page/41", "new").await;
    delete(store, "page/5").await;
    let newest = delete(store, "page/0").await;

    let (mut page, mut seen, mut counts) = (first, Vec::new(), Vec::new());
    loop {
        assert!(page.kvs.iter().all(|held| held.value == "old"));
        counts.push(page.count);
        seen.extend(keys_of(&page));
        if !page.more {
            break;
        }
        request.key = format!("{}\0", seen.last().unwrap()).into();
        page = store.range(request.clone()).await.unwrap();
        assert_eq!(revision(&page.header), newest, "the header tells the store's revision, not the page's");
    }
    assert_eq!(seen, (0..7).map(|number| format!("page/{number}")).collect::<Vec<_>>());
    assert_eq!(counts, [7, 4, 1]);
}

async fn an_old_revision_reads_as_it_was(store: &dyn Store) {
    let first = put(store, "old/a", "1").await;
    let second = put(store, "old/a", "2").await;
    let third = delete(store, "old/a").await;
    let fourth = put(store, "old/a", "4").await;
    for (revision, value) in
        [(first - 1, None), (first, Some("1")), (second, Some("2")), (third, None), (fourth, Some("4"))]
    {
        let single = store.range(RangeRequest { revision, ..key("old/a") }).await.unwrap();
        let listed = store.range(RangeRequest { revision, ..below("old/") }).await.unwrap();
        for answer in [single, listed] {
            let found = answer.kvs.first().map(|held| held.value.clone());
            assert_eq!(found.as_deref(), value.map(str::as_bytes), "at {revision}");
            assert_eq!(answer.count, i64::from(value.is_some()));
        }
    }
    let refused = store.range(RangeRequest { revision: fourth + 1, ..key("old/a") }).await;
    assert_eq!(refusal(refused), (Code::OutOfRange, FUTURE.to_owned()));
}

async fn answers_may_be_large(store: &dyn Store) {
    let value = "v".repeat(1 << 20);
    let first = put(store, "large/0", &value).await;
    for number in 1..6 {
        put(store, &format!("large/{number}"), &value).await;
    }
    let listed = store.range(below("large/")).await.unwrap();
    assert_eq!(listed.kvs.iter().map(|held| held.value.len()).sum::<usize>(), 6 << 20);
    let mut watch = watch(store, WatchCreateRequest { start_revision: first, ..watching("large/") }).await;
    let heard = hear(&mut watch, 6).await;
    assert!(heard.iter().flat_map(|message| &message.events).all(|event| event.kv.as_ref().unwrap().value == value));
}

async fn malformed_requests_are_refused_in_etcds_words(store: &dyn Store) {
    let doing = |success: Vec<RequestOp>| TxnRequest { success, ..TxnRequest::default() };
    let invalid = |text: &str| (Code::InvalidArgument, format!("etcdserver: {text}"));
    assert_eq!(refusal(store.range(key("")).await), invalid("key is not provided"));
    assert_eq!(refusal(store.txn(doing(vec![put_op("", "1", 0)])).await), invalid("key is not provided"));
    let twice = vec![put_op("twice/a", "1", 0), put_op("twice/a", "2", 0)];
    assert_eq!(refusal(store.txn(doing(twice)).await), invalid("duplicate key given in txn request"));
    let many = (0..129).map(|number| put_op(&format!("many/{number}"), "1", 0)).collect();
    assert_eq!(refusal(store.txn(doing(many)).await), invalid("too many operations in txn request"));
    let long = "v".repeat((3 << 19) + 1);
    assert_eq!(refusal(store.txn(create("long/a", &long)).await), invalid("request is too large"));
    let leased = store.txn(doing(vec![put_op("leased/a", "1", i64::MAX)])).await;
    assert_eq!(refusal(leased), (Code::NotFound, LEASE_NOT_FOUND.to_owned()));
    for prefix in ["twice/", "many/", "long/", "leased/"] {
        assert_eq!(store.range(below(prefix)).await.unwrap().count, 0, "a refused txn wrote {prefix}");
    }
}

// Watching.

async fn a_watch_from_now_says_created_and_hears_what_follows(store: &dyn Store) {
    let before = put(store, "now/a", "1").await;
    let mut stream = store.watch(watching("now/")).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created && !created.canceled && created.events.is_empty(), "{created:?}");
    assert_eq!(revision(&created.header), before);

    put(store, "elsewhere/a", "1").await;
    let changed = put(store, "now/a", "2").await;
    let deleted = delete(store, "now/a").await;
    let heard = hear(&mut stream, 2).await;
    assert_eq!(told(&heard), [format!("{changed} PUT now/a=2"), format!("{deleted} DELETE now/a=")]);
    for message in &heard {
        let newest = message.events.last().unwrap().kv.as_ref().unwrap().mod_revision;
        assert!(revision(&message.header) >= newest);
    }
    let silent = heard.iter().flat_map(|message| &message.events).all(|event| event.prev_kv.is_none());
    assert!(silent, "what was before is told to those who ask");
}

async fn a_watch_from_an_old_revision_hears_what_was(store: &dyn Store) {
    let first = put(store, "was/a", "1").await;
    let second = put(store, "was/a", "2").await;
    let third = delete(store, "was/a").await;
    let fourth = put(store, "was/a", "4").await;
    let request = WatchCreateRequest { start_revision: second, prev_kv: true, ..watching("was/") };
    let mut stream = watch(store, request).await;
    let fifth = put(store, "was/a", "5").await;
    let heard = hear(&mut stream, 4).await;
    assert_eq!(
        told(&heard),
        [
            format!("{second} PUT was/a=2 after 1@{first}"),
            format!("{third} DELETE was/a= after 2@{second}"),
            format!("{fourth} PUT was/a=4"),
            format!("{fifth} PUT was/a=5 after 4@{fourth}"),
        ]
    );
}

async fn a_watch_from_a_later_revision_skips_what_comes_before(store: &dyn Store) {
    let now = put(store, "later/a", "1").await;
    let mut stream = watch(store, WatchCreateRequest { start_revision: now + 2, ..watching("later/") }).await;
    put(store, "later/a", "2").await;
    let later = put(store, "later/a", "3").await;
    assert_eq!(told(&hear(&mut stream, 1).await), [format!("{later} PUT later/a=3")]);
}

async fn the_events_of_a_txn_come_in_one_message(store: &dyn Store) {
    let first = put(store, "whole/c", "old").await;
    let mut live = watch(store, watching("whole/")).await;
    let success =
        vec![put_op("whole/b", "1", 0), put_op("whole/a", "1", 0), delete_op("whole/c"), put_op("beside/a", "1", 0)];
    let written = store.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let revision = revision(&written.header);
    let whole = [
        format!("{revision} PUT whole/b=1"),
        format!("{revision} PUT whole/a=1"),
        format!("{revision} DELETE whole/c="),
    ];
    assert_eq!(told(&[next(&mut live).await]), whole);

    let mut late = watch(store, WatchCreateRequest { start_revision: first, ..watching("whole/") }).await;
    let heard = hear(&mut late, 4).await;
    assert_eq!(told(&heard)[1..], whole);
    let parts =
        heard.iter().filter(|message| told(std::slice::from_ref(message)).iter().any(|event| whole.contains(event)));
    assert_eq!(parts.count(), 1, "one revision, one message");
}

async fn a_watch_hears_concurrent_writes_in_their_order(store: &dyn Store) {
    const WRITES: usize = 64;
    let mut stream = watch(store, watching("order/")).await;
    let writes = (0..WRITES).map(|number| async move { put(store, &format!("order/{number}"), "1").await });
    let mut written = join_all(writes).await;
    written.sort_unstable();
    let heard = hear(&mut stream, WRITES).await;
    let heard: Vec<i64> =
        heard.iter().flat_map(|message| &message.events).map(|event| event.kv.as_ref().unwrap().mod_revision).collect();
    assert_eq!(heard, written);
}

// Compaction.

async fn a_compacted_revision_is_refused_in_etcds_words(store: &dyn Store) {
    let first = put(store, "compact/a", "1").await;
    let second = put(store, "compact/a", "2").await;
    let third = put(store, "compact/b", "3").await;
    assert_eq!(refusal(store.compact(third + 1).await), (Code::OutOfRange, FUTURE.to_owned()));
    store.compact(second).await.unwrap();
    let compacted = (Code::OutOfRange, COMPACTED.to_owned());
    assert_eq!(refusal(store.range(RangeRequest { revision: first, ..key("compact/a") }).await), compacted);
    assert_eq!(refusal(store.range(RangeRequest { revision: first, ..below("compact/") }).await), compacted);
    assert_eq!(refusal(store.compact(second).await), compacted);
    assert_eq!(refusal(store.compact(first).await), compacted);
    let kept = store.range(RangeRequest { revision: second, ..below("compact/") }).await.unwrap();
    assert_eq!(keys_of(&kept), ["compact/a"], "the compacted revision itself can be read");
    assert_eq!(read(store, "compact/a").await.unwrap().create_revision, first);
}

async fn a_watch_from_a_compacted_revision_is_canceled_and_ends(store: &dyn Store) {
    let first = put(store, "cancel/a", "1").await;
    let second = put(store, "cancel/a", "2").await;
    let third = put(store, "cancel/a", "3").await;
    store.compact(second).await.unwrap();
    let mut stream = store.watch(WatchCreateRequest { start_revision: first, ..watching("cancel/") }).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created && !created.canceled, "{created:?}");
    let canceled = next(&mut stream).await;
    assert!(canceled.canceled && canceled.events.is_empty(), "{canceled:?}");
    assert_eq!(canceled.compact_revision, second);
    let after = tokio::time::timeout(PATIENCE, stream.next()).await.expect("a canceled watch ends its stream");
    assert!(after.is_none(), "{after:?}");
    // What stands at the compacted revision was the newest then, and is still told.
    let mut kept = watch(store, WatchCreateRequest { start_revision: second, ..watching("cancel/") }).await;
    assert_eq!(
        told(&hear(&mut kept, 2).await),
        [format!("{second} PUT cancel/a=2"), format!("{third} PUT cancel/a=3")]
    );
}

// Leases.

async fn a_revoked_lease_takes_its_keys_along(store: &dyn Store) {
    let lease = store.lease_grant(600).await.unwrap();
    assert!(lease > 0);
    let success = vec![put_op("revoke/b", "1", lease), put_op("revoke/a", "1", lease), put_op("revoke/c", "1", 0)];
    let written = store.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let made = revision(&written.header);
    assert_eq!(read(store, "revoke/a").await.unwrap().lease, lease);
    let mut stream = watch(store, WatchCreateRequest { prev_kv: true, ..watching("revoke/") }).await;
    store.lease_revoke(lease).await.unwrap();
    let gone = made + 1;
    assert_eq!(
        told(&[next(&mut stream).await]),
        [format!("{gone} DELETE revoke/a= after 1@{made}"), format!("{gone} DELETE revoke/b= after 1@{made}")]
    );
    let left = store.range(below("revoke/")).await.unwrap();
    assert_eq!(keys_of(&left), ["revoke/c"]);
    assert_eq!(revision(&left.header), gone);
    assert_eq!(refusal(store.lease_revoke(lease).await), (Code::NotFound, LEASE_NOT_FOUND.to_owned()));
}

async fn a_key_written_without_its_lease_outlives_it(store: &dyn Store) {
    let lease = store.lease_grant(600).await.unwrap();
    let success = vec![put_op("detach/a", "1", lease)];
    store.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let detached = put(store, "detach/a", "2").await;
    store.lease_revoke(lease).await.unwrap();
    let held = read(store, "detach/a").await.unwrap();
    assert_eq!((held.mod_revision, held.lease), (detached, 0));
}

async fn a_lease_is_kept_until_it_is_gone(store: &dyn Store) {
    let lease = store.lease_grant(600).await.unwrap();
    assert_eq!(store.lease_keep_alive(lease).await.unwrap(), 600);
    assert_eq!(store.lease_keep_alive(lease).await.unwrap(), 600);
    store.lease_revoke(lease).await.unwrap();
    assert_eq!(store.lease_keep_alive(lease).await.unwrap(), 0);
    let too_long = (Code::OutOfRange, "etcdserver: too large lease TTL".to_owned());
    assert_eq!(refusal(store.lease_grant(9_000_000_001).await), too_long);
}

async fn a_lease_ends_by_itself(store: &dyn Store) {
    let lease = store.lease_grant(1).await.unwrap();
    let success = vec![put_op("expire/a", "1", lease)];
    let written = store.txn(TxnRequest { success, ..TxnRequest::default() }).await.unwrap();
    let mut stream = watch(store, watching("expire/")).await;
    let gone = revision(&written.header) + 1;
    assert_eq!(told(&hear(&mut stream, 1).await), [format!("{gone} DELETE expire/a=")]);
    assert_eq!(store.lease_keep_alive(lease).await.unwrap(), 0);
}

// The store itself.

async fn the_status_names_leader_and_revision(store: &dyn Store) {
    let newest = put(store, "status/a", "1").await;
    let status = store.status().await.unwrap();
    let header = status.header.unwrap();
    assert_eq!(header.revision, newest);
    assert_eq!(status.leader, header.member_id, "a store of one leads itself: {status:?}");
    assert!(header.cluster_id != 0 && header.member_id != 0 && status.raft_term > 0, "{status:?}");
    assert!(0 < status.raft_applied_index && status.raft_applied_index <= status.raft_index, "{status:?}");
    assert!(status.version.starts_with("3."), "{status:?}");
    assert!(status.errors.is_empty() && !status.is_learner, "{status:?}");
    let read = store.range(key("status/a")).await.unwrap().header.unwrap();
    assert_eq!((read.cluster_id, read.member_id), (header.cluster_id, header.member_id));
}

async fn a_store_that_stops_lets_nobody_wait(standing: Standing) {
    let mut stream = watch(&*standing.store, watching("stop/")).await;
    let lease = standing.store.lease_grant(600).await.unwrap();
    let writers: Vec<_> =
        (0..8).map(|writer| tokio::spawn(write_until_refused(standing.store.clone(), writer))).collect();
    next(&mut stream).await;

    let store = standing.stop().await;
    for writer in writers {
        let (code, text) = writer.await.unwrap();
        assert_eq!(code, Code::Unavailable, "to a request under way: {text}");
    }
    let rest = async { while let Some(Ok(_)) = stream.next().await {} };
    tokio::time::timeout(PATIENCE, rest).await.expect("a watch ends with its store");
    assert_eq!(refusal(store.txn(create("stop/a", "1")).await).0, Code::Unavailable);
    assert_eq!(refusal(store.range(key("stop/a")).await).0, Code::Unavailable);
    assert_eq!(refusal(store.lease_keep_alive(lease).await).0, Code::Unavailable, "a store that is away ends no lease");
}

async fn write_until_refused(store: Arc<dyn Store>, writer: usize) -> (Code, String) {
    let name = format!("stop/{writer}");
    loop {
        let request = TxnRequest { success: vec![put_op(&name, "1", 0)], ..TxnRequest::default() };
        if let Err(status) = store.txn(request).await {
            return (status.code(), status.message().to_owned());
        }
    }
}

// Words for the above.

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// The first key behind all that begin with `prefix`, which ends in a slash.
fn end_of(prefix: &str) -> Bytes {
    bytes(&format!("{}0", prefix.strip_suffix('/').unwrap()))
}

fn key(key: &str) -> RangeRequest {
    RangeRequest { key: bytes(key), ..RangeRequest::default() }
}

fn below(prefix: &str) -> RangeRequest {
    RangeRequest { range_end: end_of(prefix), ..key(prefix) }
}

fn watching(prefix: &str) -> WatchCreateRequest {
    WatchCreateRequest { key: bytes(prefix), range_end: end_of(prefix), ..WatchCreateRequest::default() }
}

fn op(request: Request) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put_op(key: &str, value: &str, lease: i64) -> RequestOp {
    op(Request::RequestPut(PutRequest { key: bytes(key), value: bytes(value), lease, ..PutRequest::default() }))
}

fn delete_op(key: &str) -> RequestOp {
    op(Request::RequestDeleteRange(DeleteRangeRequest {
        key: bytes(key),
        prev_kv: true,
        ..DeleteRangeRequest::default()
    }))
}

fn range_op(name: &str) -> RequestOp {
    op(Request::RequestRange(key(name)))
}

/// Does `change` where the key stands at `revision` (0: where there is none), else reads it.
fn at(key: &str, revision: i64, change: RequestOp) -> TxnRequest {
    let compare = Compare {
        key: bytes(key),
        target: CompareTarget::Mod as i32,
        result: CompareResult::Equal as i32,
        target_union: Some(TargetUnion::ModRevision(revision)),
        ..Compare::default()
    };
    TxnRequest { compare: vec![compare], success: vec![change], failure: vec![range_op(key)] }
}

fn create(key: &str, value: &str) -> TxnRequest {
    at(key, 0, put_op(key, value, 0))
}

fn revision(header: &Option<ResponseHeader>) -> i64 {
    header.as_ref().unwrap().revision
}

/// Writes, and answers the revision, which is the key's.
async fn put(store: &dyn Store, name: &str, value: &str) -> i64 {
    let request = TxnRequest { success: vec![put_op(name, value, 0), range_op(name)], ..TxnRequest::default() };
    let written = store.txn(request).await.unwrap();
    let Some(Response::ResponseRange(read)) = &written.responses[1].response else { panic!("{written:?}") };
    assert_eq!(read.kvs[0].mod_revision, revision(&written.header), "a txn reads its own writes");
    revision(&written.header)
}

async fn delete(store: &dyn Store, key: &str) -> i64 {
    let request = TxnRequest { success: vec![delete_op(key)], ..TxnRequest::default() };
    revision(&store.txn(request).await.unwrap().header)
}

async fn read(store: &dyn Store, name: &str) -> Option<KeyValue> {
    store.range(key(name)).await.unwrap().kvs.into_iter().next()
}

/// What a refused txn read instead.
fn ranged(answer: &TxnResponse) -> &RangeResponse {
    match &answer.responses[0].response {
        Some(Response::ResponseRange(range)) => range,
        other => panic!("not a range: {other:?}"),
    }
}

fn keys_of(answer: &RangeResponse) -> Vec<String> {
    answer.kvs.iter().map(|held| String::from_utf8(held.key.to_vec()).unwrap()).collect()
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> (Code, String) {
    let status = answer.unwrap_err();
    (status.code(), status.message().to_owned())
}

type Watching = BoxStream<'static, Result<WatchResponse, Status>>;

/// A watch that has said that it is there.
async fn watch(store: &dyn Store, create: WatchCreateRequest) -> Watching {
    let mut stream = store.watch(create).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created && !created.canceled, "{created:?}");
    stream
}

async fn next(stream: &mut Watching) -> WatchResponse {
    tokio::time::timeout(PATIENCE, stream.next()).await.expect("a message in time").expect("the watch goes on").unwrap()
}

/// The messages that bring the next `events` events, and no event more.
async fn hear(stream: &mut Watching, events: usize) -> Vec<WatchResponse> {
    let mut heard: Vec<WatchResponse> = Vec::new();
    while heard.iter().map(|message| message.events.len()).sum::<usize>() < events {
        heard.push(next(stream).await);
    }
    assert_eq!(heard.iter().map(|message| message.events.len()).sum::<usize>(), events, "{heard:?}");
    heard
}

/// "7 PUT a=2 after 1@6", "8 DELETE a=", ...
fn told(messages: &[WatchResponse]) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let tell = |event: &proto::mvccpb::Event| {
        let held = event.kv.as_ref().unwrap();
        let kind = if event.r#type() == EventType::Put { "PUT" } else { "DELETE" };
        let before = event.prev_kv.as_ref().map(|held| format!(" after {}@{}", text(&held.value), held.mod_revision));
        format!("{} {kind} {}={}{}", held.mod_revision, text(&held.key), text(&held.value), before.unwrap_or_default())
    };
    messages.iter().flat_map(|message| &message.events).map(tell).collect()
}
