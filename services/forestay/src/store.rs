//! The in-process form of the apiserver's store: the same messages as over the wire, without the wire.

use apiserver::storage::Store;
use async_trait::async_trait;
use futures::stream::BoxStream;
use proto::etcdserverpb::{
    RangeRequest, RangeResponse, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchResponse,
};
use raft_store::Node;
use tonic::{Code, Status};

/// A member of the store that runs in this process.
pub struct InProcess(pub Node);

#[async_trait]
impl Store for InProcess {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.0.range(request).await
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        self.0.txn(request).await
    }

    async fn compact(&self, revision: i64) -> Result<(), Status> {
        self.0.compact(revision).await.map(drop)
    }

    async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        self.0.watch(create).await
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, Status> {
        self.0.lease_grant(ttl_seconds).await
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<i64, Status> {
        match self.0.lease_keep_alive(id).await {
            // Over the wire, too, a lease that is gone has no time left and is no error.
            Err(status) if status.code() == Code::NotFound => Ok(0),
            answer => answer,
        }
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Status> {
        self.0.lease_revoke(id).await
    }

    async fn status(&self) -> Result<StatusResponse, Status> {
        self.0.status().await
    }
}
