//! Objects on the store: read by key or range, written by one transaction that compares and swaps.

use std::sync::Arc;

use bytes::Bytes;
use proto::{
    envelope,
    etcdserverpb::{
        Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, ResponseOp, TxnRequest,
        compare::{CompareResult, CompareTarget, TargetUnion},
        request_op::Request,
        response_op::Response,
    },
    mvccpb::KeyValue,
};
use tonic::Code;

use super::{Store, keys};
use crate::refusal::{Refusal, Result};

/// A stored object: its message without resourceVersion, and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    pub key: String,
    pub revision: i64,
    pub raw: Bytes,
}

impl Entry {
    fn read(pair: KeyValue) -> Result<Self> {
        let key = String::from_utf8(pair.key.to_vec()).map_err(Refusal::internal)?;
        let (_, raw) = envelope::unwrap(&pair.value)
            .map_err(|error| Refusal::internal(format!("read the stored object {key}: {error}")))?;
        Ok(Self { key, revision: pair.mod_revision, raw })
    }
}

/// One page of a range.
#[derive(Debug)]
pub struct Page {
    pub revision: i64,
    pub entries: Vec<Entry>,
    /// Keys after this page.
    pub remaining: i64,
}

/// Values an object holds for itself alone, one key each, created and deleted with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claims {
    pub take: Vec<Held>,
    pub release: Vec<String>,
}

/// A claimed value's key, and who holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub key: String,
    pub holder: String,
}

/// A write of one object, and what must go with it or not at all.
#[derive(Clone, Debug, Default)]
pub struct Write {
    pub key: String,
    /// The revision the object must stand at; 0: it must not exist.
    pub expected: i64,
    /// The new envelope; `None` deletes.
    pub value: Option<Bytes>,
    /// A key that must exist: the object's namespace.
    pub within: Option<String>,
    pub claims: Claims,
    /// One object of another resource that is written in the same revision: key, expected revision, envelope.
    pub beside: Option<(String, i64, Bytes)>,
    /// Expires the key; 0 for none.
    pub lease: i64,
}

/// What became of a [`Write`]. All but `Done` wrote nothing.
#[derive(Debug)]
pub enum Outcome {
    Done {
        revision: i64,
    },
    /// The object is not at the expected revision: here it is now.
    Changed(Option<Entry>),
    /// The key it must lie within is gone.
    Homeless,
    /// Another object holds this key.
    Claimed(String),
    /// The object beside it is not at the expected revision.
    BesideChanged,
}

/// Objects on a store.
#[derive(Clone)]
pub struct Objects {
    store: Arc<dyn Store>,
}

impl Objects {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// The newest state of one object.
    pub async fn get(&self, key: &str) -> Result<Option<Entry>> {
        let request = RangeRequest { key: key.as_bytes().to_vec().into(), ..RangeRequest::default() };
        let answer = self.store.range(request).await.map_err(refused)?;
        answer.kvs.into_iter().next().map(Entry::read).transpose()
    }

    /// Objects whose keys begin with `prefix`, after `after`, in key order; all of them where `limit` is 0, and at
    /// the newest revision where `revision` is 0.
    pub async fn list(&self, prefix: &str, after: &str, limit: i64, revision: i64) -> Result<Page> {
        let key = if after.is_empty() {
            Bytes::copy_from_slice(prefix.as_bytes())
        } else {
            let mut key = after.as_bytes().to_vec();
            key.push(0);
            key.into()
        };
        let range_end = keys::prefix_end(prefix.as_bytes());
        let request = RangeRequest { key, range_end, limit, revision, ..RangeRequest::default() };
        let answer = self.store.range(request).await.map_err(refused)?;
        let head = answer.header.map_or(0, |header| header.revision);
        let remaining = if answer.more { answer.count - answer.kvs.len() as i64 } else { 0 };
        let entries = answer.kvs.into_iter().map(Entry::read).collect::<Result<Vec<_>>>()?;
        Ok(Page { revision: if revision > 0 { revision } else { head }, entries, remaining: remaining.max(0) })
    }

    /// Keys alone, below a prefix.
    pub async fn keys(&self, prefix: &str) -> Result<Vec<String>> {
        let request = RangeRequest {
            key: Bytes::copy_from_slice(prefix.as_bytes()),
            range_end: keys::prefix_end(prefix.as_bytes()),
            keys_only: true,
            ..RangeRequest::default()
        };
        let answer = self.store.range(request).await.map_err(refused)?;
        Ok(answer.kvs.into_iter().filter_map(|pair| String::from_utf8(pair.key.to_vec()).ok()).collect())
    }

    /// The store's newest revision, read from a quorum.
    pub async fn revision(&self) -> Result<i64> {
        let request =
            RangeRequest { key: Bytes::from_static(b"\0"), count_only: true, limit: 1, ..RangeRequest::default() };
        let answer = self.store.range(request).await.map_err(refused)?;
        Ok(answer.header.map_or(0, |header| header.revision))
    }

    /// Writes one object, or tells why not.
    pub async fn commit(&self, write: &Write) -> Result<Outcome> {
        let answer = self.store.txn(transaction(write)).await.map_err(refused)?;
        let revision = answer.header.as_ref().map_or(0, |header| header.revision);
        if answer.succeeded {
            return Ok(Outcome::Done { revision });
        }
        let mut found = answer.responses.into_iter().map(|op| match op {
            ResponseOp { response: Some(Response::ResponseRange(range)) } => range.kvs.into_iter().next(),
            _ => None,
        });
        let object = found.next().flatten();
        if object.as_ref().map_or(0, |pair| pair.mod_revision) != write.expected {
            return Ok(Outcome::Changed(object.map(Entry::read).transpose()?));
        }
        if write.within.is_some() && found.next().flatten().is_none() {
            return Ok(Outcome::Homeless);
        }
        for held in &write.claims.take {
            if found.next().flatten().is_some() {
                return Ok(Outcome::Claimed(held.key.clone()));
            }
        }
        Ok(Outcome::BesideChanged)
    }
}

fn transaction(write: &Write) -> TxnRequest {
    let mut compare = vec![is_at(&write.key, write.expected)];
    let mut failure = vec![look(&write.key, false)];
    if let Some(home) = &write.within {
        compare.push(Compare {
            result: CompareResult::Greater.into(),
            target: CompareTarget::Create.into(),
            key: home.clone().into(),
            target_union: Some(TargetUnion::CreateRevision(0)),
            range_end: Bytes::new(),
        });
        failure.push(look(home, true));
    }
    let mut success = vec![match &write.value {
        Some(value) => put(&write.key, value.clone(), write.lease),
        None => delete(&write.key),
    }];
    for held in &write.claims.take {
        compare.push(is_at(&held.key, 0));
        failure.push(look(&held.key, true));
        success.push(put(&held.key, held.holder.clone().into(), 0));
    }
    success.extend(write.claims.release.iter().map(|key| delete(key)));
    if let Some((key, expected, value)) = &write.beside {
        compare.push(is_at(key, *expected));
        success.push(put(key, value.clone(), 0));
    }
    TxnRequest { compare, success, failure }
}

fn is_at(key: &str, revision: i64) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Mod.into(),
        key: Bytes::copy_from_slice(key.as_bytes()),
        target_union: Some(TargetUnion::ModRevision(revision)),
        range_end: Bytes::new(),
    }
}

fn look(key: &str, keys_only: bool) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    RequestOp { request: Some(Request::RequestRange(RangeRequest { key, keys_only, ..RangeRequest::default() })) }
}

fn put(key: &str, value: Bytes, lease: i64) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    RequestOp { request: Some(Request::RequestPut(PutRequest { key, value, lease, ..PutRequest::default() })) }
}

fn delete(key: &str) -> RequestOp {
    let key = Bytes::copy_from_slice(key.as_bytes());
    RequestOp { request: Some(Request::RequestDeleteRange(DeleteRangeRequest { key, ..Default::default() })) }
}

/// A store's error as the caller of the API sees it.
pub(crate) fn refused(status: tonic::Status) -> Refusal {
    match status.code() {
        Code::OutOfRange if status.message().contains("compacted") => Refusal::expired(
            "The resourceVersion for the provided list or watch is too old; start again from a fresh list",
        ),
        Code::OutOfRange => Refusal::timeout(format!("Too large resource version: {}", status.message())),
        Code::Unavailable => Refusal::unavailable(format!("the store does not answer: {}", status.message())),
        Code::DeadlineExceeded | Code::Cancelled => {
            Refusal::timeout(format!("the store did not answer in time: {}", status.message()))
        }
        Code::ResourceExhausted => Refusal::too_many_requests(format!("the store: {}", status.message()), 1),
        _ => Refusal::internal(format!("the store: {}", status.message())),
    }
}
