//! Reads: linearizable unless asked otherwise, from one look at the rows.

use std::{collections::BTreeMap, io};

use bytes::{BufMut, Bytes, BytesMut};
use proto::{
    etcdserverpb::{
        HashKvRequest, HashKvResponse, LeaseLeasesResponse, LeaseStatus, LeaseTimeToLiveRequest,
        LeaseTimeToLiveResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse, range_request::SortOrder,
    },
    forestay::raft::v1::Position,
};
use tonic::Status;

use super::{Node, failed};
use crate::{
    engine::View,
    machine::{self, Counted, Refusal},
};

/// Limits up to which a range is read on the spot: it costs less than handing it to another thread.
const NARROW: i64 = 16;

/// Paged lists remembered at once.
const COUNTS_MAX: usize = 512;

/// How many keys are left of lists that are read page by page: (end, revision, next key) -> keys from there on.
#[derive(Debug, Default)]
pub(super) struct Counts {
    left: BTreeMap<(Bytes, i64, Bytes), i64>,
}

impl Counts {
    fn known(&mut self, request: &RangeRequest) -> Option<i64> {
        self.left.remove(&(request.range_end.clone(), request.revision, request.key.clone()))
    }

    fn remember(&mut self, request: &RangeRequest, response: &RangeResponse) {
        let plain = request.sort_order() == SortOrder::None
            && request.sort_target == 0
            && request.min_mod_revision == 0
            && request.max_mod_revision == 0
            && request.min_create_revision == 0
            && request.max_create_revision == 0;
        let Some(last) = response.kvs.last() else { return };
        if !plain || !response.more {
            return;
        }
        if self.left.len() >= COUNTS_MAX {
            self.left.pop_first();
        }
        let revision = if request.revision > 0 {
            request.revision
        } else {
            response.header.as_ref().map_or(0, |header| header.revision)
        };
        let mut next = BytesMut::from(last.key.as_ref());
        next.put_u8(0);
        self.left
            .insert((request.range_end.clone(), revision, next.freeze()), response.count - response.kvs.len() as i64);
    }
}

impl Node {
    /// # Errors
    /// etcd's: compacted, future revision, empty key; no leader where the read is linearizable.
    pub async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        machine::check_range(&request)?;
        if !request.serializable {
            self.group().catch_up().await?;
        }
        let counted =
            Counted { known: if request.revision > 0 { self.inner.counts.lock().known(&request) } else { None } };
        let narrow = machine::single_key(&request.range_end);
        let asked = request.clone();
        let mut response =
            self.look(narrow, move |view, position| machine::range(view, position, &asked, &counted)).await??;
        if request.limit > 0 {
            self.inner.counts.lock().remember(&request, &response);
        }
        response.header = response.header.map(|header| self.header(header.revision));
        Ok(response)
    }

    /// A Txn that writes nothing needs no entry in the log.
    pub(super) async fn read_txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        if !machine::is_serializable(&request) {
            self.group().catch_up().await?;
        }
        let narrow = request.success.len() + request.failure.len() <= NARROW as usize && only_single_keys(&request);
        Ok(self.look(narrow, move |view, position| machine::read_txn(view, position, request)).await??)
    }

    /// # Errors
    /// etcd's: compacted, future revision.
    pub async fn hash_kv(&self, request: HashKvRequest) -> Result<HashKvResponse, Status> {
        let (hash, position) = self
            .look(false, move |view, position| {
                Ok((machine::hash_kv(view, position, request.revision)?, position.clone()))
            })
            .await?;
        let hash_revision = if request.revision > 0 { request.revision } else { position.revision };
        Ok(HashKvResponse {
            header: Some(self.header(position.revision)),
            hash: hash?,
            compact_revision: position.compacted_revision,
            hash_revision,
        })
    }

    /// # Errors
    /// The rows cannot be read.
    pub async fn lease_time_to_live(&self, request: LeaseTimeToLiveRequest) -> Result<LeaseTimeToLiveResponse, Status> {
        let id = request.id;
        let lease = self.lease(id, false).await?;
        if !lease.in_force {
            return Ok(LeaseTimeToLiveResponse {
                header: Some(self.header_now()),
                id,
                ttl: -1,
                ..LeaseTimeToLiveResponse::default()
            });
        }
        let keys = if request.keys {
            self.group().catch_up().await?;
            self.look(false, move |view, _| machine::keys_of(view, id)).await?
        } else {
            Vec::new()
        };
        Ok(LeaseTimeToLiveResponse {
            header: Some(self.header_now()),
            id,
            ttl: lease.remaining_seconds,
            granted_ttl: lease.granted_seconds,
            keys,
        })
    }

    /// # Errors
    /// No leader.
    pub async fn lease_leases(&self) -> Result<LeaseLeasesResponse, Status> {
        self.group().catch_up().await?;
        let leases = self.inner.keeper.ids().into_iter().map(|id| LeaseStatus { id }).collect();
        Ok(LeaseLeasesResponse { header: Some(self.header_now()), leases })
    }

    /// Reads on the spot where it is sure to be short, else on a thread where waiting is allowed.
    async fn look<T: Send + 'static>(
        &self,
        narrow: bool,
        read: impl FnOnce(&dyn View, &Position) -> io::Result<T> + Send + 'static,
    ) -> Result<T, Status> {
        let stage = self.group().stage().clone();
        if narrow {
            return stage.read(read).map_err(failed);
        }
        let permit = self.inner.wide_reads.clone().acquire_owned().await.map_err(|_| Refusal::Stopped)?;
        let looked = tokio::task::spawn_blocking(move || {
            let found = stage.read(read);
            drop(permit);
            found
        });
        looked.await.map_err(|error| failed(io::Error::other(error)))?.map_err(failed)
    }
}

fn only_single_keys(txn: &TxnRequest) -> bool {
    use proto::etcdserverpb::request_op::Request;
    txn.compare.iter().all(|compare| compare.range_end.is_empty())
        && txn.success.iter().chain(&txn.failure).all(
            |op| matches!(&op.request, Some(Request::RequestRange(range)) if machine::single_key(&range.range_end)),
        )
}
