//! Storage: what the apiserver asks of a store, in etcd v3's words, and objects kept on it.
//!
//! This room knows keys, envelopes and revisions. It must never look at what an object means.

mod etcd;
mod hub;
pub mod keys;
mod leases;
mod objects;
mod paging;
pub(crate) mod partial;
#[cfg(test)]
pub(crate) mod testing;

use async_trait::async_trait;
use futures::stream::BoxStream;
use proto::etcdserverpb::{
    RangeRequest, RangeResponse, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use tonic::Status;

pub use etcd::EtcdStore;
pub use hub::{Ended, Event, Hub, Position, ResourceOf, Revision};
pub(crate) use leases::ExpiryLeases;
pub(crate) use objects::refused;
pub use objects::{Claims, Entry, Held, Objects, Outcome, Write};
pub use paging::Token;

/// A consistent, versioned store of bytes that speaks etcd v3's vocabulary.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status>;
    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status>;
    async fn compact(&self, revision: i64) -> Result<(), Status>;
    /// The first message says `created` or `canceled`; all events of a revision come in one message.
    async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status>;
    /// Answers the lease's id.
    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, Status>;
    /// Answers the time to live, in seconds; 0 where the lease is gone.
    async fn lease_keep_alive(&self, id: i64) -> Result<i64, Status>;
    async fn lease_revoke(&self, id: i64) -> Result<(), Status>;
    async fn status(&self) -> Result<StatusResponse, Status>;
}
