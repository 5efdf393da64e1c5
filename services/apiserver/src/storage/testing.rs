//! A store for tests: one ordered map, every revision kept, watches that replay and follow.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicI64},
};

use async_trait::async_trait;
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use proto::{
    etcdserverpb::{
        Compare, DeleteRangeRequest, DeleteRangeResponse, PutResponse, RangeRequest, RangeResponse, RequestOp,
        ResponseHeader, ResponseOp, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
        compare::{CompareResult, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::{Event, KeyValue, event::EventType},
};
use tokio::sync::watch;
use tonic::Status;

use super::Store;

/// Everything in memory; nothing is ever refused but what is compacted.
#[derive(Clone)]
pub struct MemoryStore(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    head: watch::Sender<i64>,
    leases: AtomicI64,
}

#[derive(Default)]
struct State {
    revision: i64,
    compacted: i64,
    keys: BTreeMap<Bytes, KeyValue>,
    history: Vec<Vec<Event>>,
}

impl MemoryStore {
    pub fn new() -> Self {
        let state = State { revision: 1, ..State::default() };
        Self(Arc::new(Inner { state: Mutex::new(state), head: watch::Sender::new(1), leases: AtomicI64::new(1) }))
    }

    pub fn revision(&self) -> i64 {
        self.0.state.lock().revision
    }
}

impl State {
    fn header(&self) -> Option<ResponseHeader> {
        Some(ResponseHeader { revision: self.revision, ..ResponseHeader::default() })
    }

    fn holds(&self, compare: &Compare) -> bool {
        let found = self.keys.get(&compare.key);
        let of = |pick: fn(&KeyValue) -> i64| found.map_or(0, pick);
        let (actual, wanted) = match &compare.target_union {
            Some(TargetUnion::ModRevision(wanted)) => (of(|pair| pair.mod_revision), *wanted),
            Some(TargetUnion::CreateRevision(wanted)) => (of(|pair| pair.create_revision), *wanted),
            Some(TargetUnion::Version(wanted)) => (of(|pair| pair.version), *wanted),
            _ => return false,
        };
        match compare.result() {
            CompareResult::Equal => actual == wanted,
            CompareResult::Greater => actual > wanted,
            CompareResult::Less => actual < wanted,
            CompareResult::NotEqual => actual != wanted,
        }
    }

    /// The keys as they stood at a revision.
    fn at(&self, revision: i64) -> BTreeMap<Bytes, KeyValue> {
        if revision == 0 || revision == self.revision {
            return self.keys.clone();
        }
        let mut keys = BTreeMap::new();
        for event in self.history.iter().flatten() {
            let pair = event.kv.clone().unwrap_or_default();
            if pair.mod_revision > revision {
                break;
            }
            match event.r#type() {
                EventType::Put => drop(keys.insert(pair.key.clone(), pair)),
                EventType::Delete => drop(keys.remove(&pair.key)),
            }
        }
        keys
    }

    fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Status> {
        if request.revision > self.revision {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision is a future revision"));
        }
        if request.revision > 0 && request.revision < self.compacted {
            return Err(Status::out_of_range("etcdserver: mvcc: required revision has been compacted"));
        }
        let keys = self.at(request.revision);
        let mut found: Vec<KeyValue> =
            keys.into_values().filter(|pair| covers(&request.key, &request.range_end, &pair.key)).collect();
        let count = found.len() as i64;
        let more = request.limit > 0 && count > request.limit;
        if more {
            found.truncate(request.limit as usize);
        }
        if request.count_only {
            found.clear();
        }
        if request.keys_only {
            found.iter_mut().for_each(|pair| pair.value = Bytes::new());
        }
        Ok(RangeResponse { header: self.header(), kvs: found, more, count })
    }

    fn write(&mut self, request: Request, events: &mut Vec<Event>, next: i64) -> Result<Response, Status> {
        match request {
            Request::RequestRange(range) => self.range(&range).map(Response::ResponseRange),
            Request::RequestPut(put) => {
                let previous = self.keys.get(&put.key).cloned();
                let pair = KeyValue {
                    key: put.key.clone(),
                    value: put.value,
                    create_revision: previous.as_ref().map_or(next, |pair| pair.create_revision),
                    version: previous.as_ref().map_or(1, |pair| pair.version + 1),
                    mod_revision: next,
                    lease: put.lease,
                };
                self.keys.insert(put.key, pair.clone());
                events.push(Event { r#type: EventType::Put.into(), kv: Some(pair), prev_kv: previous });
                Ok(Response::ResponsePut(PutResponse::default()))
            }
            Request::RequestDeleteRange(delete) => {
                let previous = self.keys.remove(&delete.key);
                if previous.is_some() {
                    let pair = KeyValue { key: delete.key, mod_revision: next, ..KeyValue::default() };
                    events.push(Event { r#type: EventType::Delete.into(), kv: Some(pair), prev_kv: previous });
                }
                Ok(Response::ResponseDeleteRange(DeleteRangeResponse::default()))
            }
            Request::RequestTxn(_) => Err(Status::unimplemented("nested transactions")),
        }
    }
}

fn covers(from: &Bytes, end: &Bytes, key: &Bytes) -> bool {
    match end.as_ref() {
        b"" => key == from,
        b"\0" => key >= from,
        end => key >= from && key.as_ref() < end,
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.0.state.lock().range(&request)
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        let mut state = self.0.state.lock();
        let succeeded = request.compare.iter().all(|compare| state.holds(compare));
        let (mut events, mut responses, next) = (Vec::new(), Vec::new(), state.revision + 1);
        for op in if succeeded { request.success } else { request.failure } {
            let response = op.request.map(|request| state.write(request, &mut events, next)).transpose()?;
            responses.push(ResponseOp { response });
        }
        if !events.is_empty() {
            state.revision = next;
            state.history.push(events);
        }
        let header = state.header();
        drop(state);
        self.0.head.send_replace(self.revision());
        Ok(TxnResponse { header, succeeded, responses })
    }

    async fn compact(&self, revision: i64) -> Result<(), Status> {
        self.0.state.lock().compacted = revision;
        Ok(())
    }

    async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let compacted = self.0.state.lock().compacted;
        let created = WatchResponse { created: true, ..WatchResponse::default() };
        if create.start_revision > 0 && create.start_revision < compacted {
            let canceled = WatchResponse { canceled: true, compact_revision: compacted, ..WatchResponse::default() };
            return Ok(futures::stream::iter([Ok(created), Ok(canceled)]).boxed());
        }
        let (store, heads) = (self.clone(), self.0.head.subscribe());
        let follow =
            futures::stream::unfold((store, heads, 0, create), |(store, mut heads, mut at, create)| async move {
                loop {
                    heads.borrow_and_update();
                    let batch = store.0.state.lock().history.get(at).cloned();
                    let Some(mut events) = batch else {
                        heads.changed().await.ok()?;
                        continue;
                    };
                    at += 1;
                    let pair = |event: &Event| event.kv.clone().unwrap_or_default();
                    events.retain(|event| {
                        pair(event).mod_revision >= create.start_revision
                            && covers(&create.key, &create.range_end, &pair(event).key)
                    });
                    if !events.is_empty() {
                        let response = WatchResponse { events, ..WatchResponse::default() };
                        return Some((Ok(response), (store, heads, at, create)));
                    }
                }
            });
        Ok(futures::stream::iter([Ok(created)]).chain(follow).boxed())
    }

    async fn lease_grant(&self, _ttl_seconds: i64) -> Result<i64, Status> {
        Ok(self.0.leases.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
    }

    async fn lease_keep_alive(&self, _id: i64) -> Result<i64, Status> {
        Ok(15)
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Status> {
        let held = |pair: &&KeyValue| pair.lease == id;
        let keys: Vec<Bytes> = self.0.state.lock().keys.values().filter(held).map(|pair| pair.key.clone()).collect();
        let delete = |key| Request::RequestDeleteRange(DeleteRangeRequest { key, ..DeleteRangeRequest::default() });
        let success = keys.into_iter().map(|key| RequestOp { request: Some(delete(key)) }).collect();
        self.txn(TxnRequest { success, ..TxnRequest::default() }).await.map(drop)
    }

    async fn status(&self) -> Result<StatusResponse, Status> {
        Ok(StatusResponse::default())
    }
}
