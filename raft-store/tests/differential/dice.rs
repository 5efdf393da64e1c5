//! Random requests.

use bytes::Bytes;
use proto::etcdserverpb::{
    CompactionRequest, Compare, DeleteRangeRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest,
    LeaseTimeToLiveRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, WatchCreateRequest, compare::TargetUnion,
    request_op::Request,
};
use rand::{Rng, SeedableRng, rngs::StdRng};

#[derive(Clone, Debug)]
pub enum Ask {
    Range(RangeRequest),
    Put(PutRequest),
    Delete(DeleteRangeRequest),
    Txn(TxnRequest),
    Compact(CompactionRequest),
    Grant(LeaseGrantRequest),
    /// Revoked again at once, so that a short lease does not end in the middle of a run.
    GrantForNow(LeaseGrantRequest),
    Revoke(LeaseRevokeRequest),
    KeepAlive(LeaseKeepAliveRequest),
    TimeToLive(LeaseTimeToLiveRequest),
    Leases,
    /// With the revision compacted last.
    Watch(WatchCreateRequest, i64),
}

/// Makes requests from a seed, about few keys, so that they meet.
pub struct Dice {
    rng: StdRng,
    pub revision: i64,
    /// What was compacted last.
    pub compacted: i64,
}

impl Dice {
    pub fn new(seed: u64) -> Dice {
        Dice { rng: StdRng::seed_from_u64(seed), revision: 1, compacted: 0 }
    }

    fn one_in(&mut self, sides: u32) -> bool {
        self.rng.random_range(0..sides) == 0
    }

    fn key(&mut self) -> Bytes {
        if self.one_in(60) {
            return Bytes::new();
        }
        let len = self.rng.random_range(1..=2);
        (0..len)
            .map(|_| {
                b"abcd\0\xff"[if self.one_in(12) { self.rng.random_range(4..6) } else { self.rng.random_range(0..4) }]
            })
            .collect()
    }

    fn end(&mut self) -> Bytes {
        match self.rng.random_range(0..4) {
            0 | 1 => Bytes::new(),
            2 => Bytes::from_static(&[0]),
            _ => self.key(),
        }
    }

    fn some_revision(&mut self) -> i64 {
        match self.rng.random_range(0..12) {
            0 => self.revision + self.rng.random_range(1..3),
            1 => -1,
            2..=5 => (self.revision - self.rng.random_range(0..40)).max(1),
            _ => 0,
        }
    }

    fn lease(&mut self) -> i64 {
        if self.one_in(3) { self.rng.random_range(1..6) } else { 0 }
    }

    fn range(&mut self) -> RangeRequest {
        let mut request = RangeRequest {
            key: self.key(),
            range_end: self.end(),
            revision: self.some_revision(),
            ..RangeRequest::default()
        };
        request.serializable = self.one_in(4);
        request.keys_only = self.one_in(6);
        request.count_only = self.one_in(8);
        if self.one_in(2) {
            request.sort_order = self.rng.random_range(0..3);
            request.sort_target = if self.one_in(2) { 0 } else { self.rng.random_range(0..5) };
        }
        if self.one_in(2) {
            request.limit = self.rng.random_range(-1..6);
        }
        if self.one_in(5) {
            request.min_mod_revision = self.some_revision();
        }
        if self.one_in(5) {
            request.max_mod_revision = self.some_revision();
        }
        if self.one_in(8) {
            request.min_create_revision = self.some_revision();
        }
        if self.one_in(8) {
            request.max_create_revision = self.some_revision();
        }
        request
    }

    fn put(&mut self) -> PutRequest {
        let mut put = PutRequest {
            key: self.key(),
            value: format!("{}", self.rng.random_range(0..6)).into(),
            lease: self.lease(),
            ..PutRequest::default()
        };
        put.prev_kv = self.one_in(3);
        if self.one_in(10) {
            put.ignore_value = true;
            if !self.one_in(4) {
                put.value.clear();
            }
        }
        if self.one_in(10) {
            put.ignore_lease = true;
            if !self.one_in(4) {
                put.lease = 0;
            }
        }
        if self.one_in(40) {
            // Too large to stand in the row of the key.
            put.value = vec![b'x'; 6000].into();
        }
        if self.one_in(400) {
            // Above etcd's limit of a request, below that of a message.
            put.value = vec![b'x'; 1_700_000].into();
        }
        put
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = if self.one_in(4) { self.end() } else { Bytes::new() };
        DeleteRangeRequest { key: self.key(), range_end, prev_kv: self.one_in(2) }
    }

    fn compare(&mut self) -> Compare {
        let number = self.some_revision();
        let target_union = Some(match self.rng.random_range(0..5) {
            0 => TargetUnion::Version(self.rng.random_range(0..3)),
            1 => TargetUnion::CreateRevision(number),
            2 => TargetUnion::ModRevision(number),
            3 => TargetUnion::Value(format!("{}", self.rng.random_range(0..6)).into()),
            _ => TargetUnion::Lease(self.lease()),
        });
        let target = match target_union.as_ref().unwrap() {
            TargetUnion::Version(_) => 0,
            TargetUnion::CreateRevision(_) => 1,
            TargetUnion::ModRevision(_) => 2,
            TargetUnion::Value(_) => 3,
            TargetUnion::Lease(_) => 4,
        };
        let range_end = if self.one_in(5) { self.end() } else { Bytes::new() };
        let mut compare =
            Compare { result: self.rng.random_range(0..4), target, key: self.key(), target_union, range_end };
        if self.one_in(20) {
            // Another target than the value is for, or one that is not known.
            compare.target = self.rng.random_range(-1..7);
        }
        if self.one_in(30) {
            compare.target_union = None;
        }
        if self.one_in(40) {
            compare.result = [-1, 4][self.rng.random_range(0..2)];
        }
        compare
    }

    fn ops(&mut self, depth: u32) -> Vec<RequestOp> {
        (0..self.rng.random_range(0..4))
            .map(|_| {
                let request = match self.rng.random_range(0..12) {
                    0..=3 => Some(Request::RequestRange(self.range())),
                    4..=7 => Some(Request::RequestPut(self.put())),
                    8 | 9 => Some(Request::RequestDeleteRange(self.delete())),
                    10 if depth > 0 => Some(Request::RequestTxn(self.txn(depth - 1))),
                    10 => None,
                    _ => Some(Request::RequestPut(self.put())),
                };
                RequestOp { request }
            })
            .collect()
    }

    fn txn(&mut self, depth: u32) -> TxnRequest {
        if self.one_in(150) {
            let range = RangeRequest { key: self.key(), ..RangeRequest::default() };
            let many = vec![RequestOp { request: Some(Request::RequestRange(range)) }; self.rng.random_range(128..130)];
            return TxnRequest { success: many, ..TxnRequest::default() };
        }
        let compare = (0..self.rng.random_range(0..3)).map(|_| self.compare()).collect();
        TxnRequest { compare, success: self.ops(depth), failure: self.ops(depth) }
    }

    pub fn ask(&mut self) -> Ask {
        match self.rng.random_range(0..100) {
            0..30 => Ask::Range(self.range()),
            30..55 => Ask::Put(self.put()),
            55..63 => Ask::Delete(self.delete()),
            63..85 => Ask::Txn(spare_etcd(self.txn(2))),
            85..88 => Ask::Compact(CompactionRequest { revision: self.some_revision(), physical: self.one_in(2) }),
            88..90 => {
                let ttl = [1000, 2000, 9_000_000_000, 9_000_000_001][self.rng.random_range(0..4)];
                Ask::Grant(LeaseGrantRequest { id: self.lease_id(), ttl })
            }
            90 => {
                let ttl = [0, -5, 1, 2, 3][self.rng.random_range(0..5)];
                Ask::GrantForNow(LeaseGrantRequest { id: 77, ttl })
            }
            91 => Ask::Leases,
            92 => Ask::KeepAlive(LeaseKeepAliveRequest { id: self.lease_id() }),
            93 => Ask::Revoke(LeaseRevokeRequest { id: self.lease_id() }),
            94..96 => Ask::TimeToLive(LeaseTimeToLiveRequest { id: self.lease_id(), keys: self.one_in(2) }),
            _ => {
                let filters = (0..2).filter(|_| self.one_in(4)).collect();
                Ask::Watch(
                    WatchCreateRequest {
                        key: self.key(),
                        range_end: self.end(),
                        start_revision: (self.revision + 1 - self.rng.random_range(0..60)).max(1),
                        filters,
                        prev_kv: self.one_in(2),
                        ..WatchCreateRequest::default()
                    },
                    self.compacted,
                )
            }
        }
    }

    fn lease_id(&mut self) -> i64 {
        if self.one_in(10) { -3 } else { self.rng.random_range(1..7) }
    }
}

/// etcd checks before a Txn that the keys of `ignore_value` and `ignore_lease` exist; where the Txn itself deletes such a
/// key first, etcd 3.4 panics and its process is gone. Such puts are made plain: there is no answer to compare with.
fn spare_etcd(mut txn: TxnRequest) -> TxnRequest {
    if ops_of(&mut txn).iter().any(|request| matches!(request, Request::RequestDeleteRange(_))) {
        for request in ops_of(&mut txn) {
            if let Request::RequestPut(put) = request {
                (put.ignore_value, put.ignore_lease) = (false, false);
            }
        }
    }
    txn
}

/// Every operation of a Txn and of those inside it, of both branches.
fn ops_of(txn: &mut TxnRequest) -> Vec<&mut Request> {
    let mut found = Vec::new();
    for request in txn.success.iter_mut().chain(&mut txn.failure).filter_map(|op| op.request.as_mut()) {
        match request {
            Request::RequestTxn(inner) => found.extend(ops_of(inner)),
            other => found.push(other),
        }
    }
    found
}
