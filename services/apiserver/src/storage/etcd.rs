//! [`EtcdStore`]: the store over gRPC - raft-store as its own service, or a real etcd.

use std::time::Duration;

use async_trait::async_trait;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use proto::etcdserverpb::{
    CompactionRequest, LeaseGrantRequest, LeaseKeepAliveRequest, LeaseRevokeRequest, RangeRequest, RangeResponse,
    StatusRequest, StatusResponse, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest, WatchResponse,
    kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient, watch_client::WatchClient,
    watch_request::RequestUnion,
};
use tonic::{Request, Status, Streaming, transport::Channel};

use super::Store;

/// No call of the store may hold a request longer than this.
const DEADLINE: Duration = Duration::from_secs(15);
/// Lists of many large objects are one message.
const MESSAGE_BYTES_MAX: usize = 512 << 20;

/// A store behind etcd v3's gRPC services.
#[derive(Clone, Debug)]
pub struct EtcdStore {
    kv: KvClient<Channel>,
    watch: WatchClient<Channel>,
    lease: LeaseClient<Channel>,
    maintenance: MaintenanceClient<Channel>,
}

impl EtcdStore {
    pub fn new(channel: Channel) -> Self {
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            watch: WatchClient::new(channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX),
            lease: LeaseClient::new(channel.clone()),
            maintenance: MaintenanceClient::new(channel),
        }
    }
}

fn with_deadline<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// The answers of one watch. etcd keeps the stream of a canceled watch open for others, and here are none: nothing more
/// would come, and whoever reads on would wait forever.
fn until_canceled(answers: Streaming<WatchResponse>) -> BoxStream<'static, Result<WatchResponse, Status>> {
    stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let answer = answers.message().await.transpose()?;
        let goes_on = answer.as_ref().is_ok_and(|answer| !answer.canceled);
        Some((answer, goes_on.then_some(answers)))
    })
    .boxed()
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(self.kv.clone().range(with_deadline(request)).await?.into_inner())
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(self.kv.clone().txn(with_deadline(request)).await?.into_inner())
    }

    async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: false };
        self.kv.clone().compact(with_deadline(request)).await.map(drop)
    }

    async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // etcd ends a watch whose request stream ends, so the stream stays open as long as the answer is read.
        let requests = stream::iter([first]).chain(stream::pending());
        Ok(until_canceled(self.watch.clone().watch(requests).await?.into_inner()))
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, Status> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        Ok(self.lease.clone().lease_grant(with_deadline(request)).await?.into_inner().id)
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = stream::iter([LeaseKeepAliveRequest { id }]);
        let mut answers = self.lease.clone().lease_keep_alive(with_deadline(requests)).await?.into_inner();
        Ok(answers.message().await?.map_or(0, |answer| answer.ttl))
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Status> {
        self.lease.clone().lease_revoke(with_deadline(LeaseRevokeRequest { id })).await.map(drop)
    }

    async fn status(&self) -> Result<StatusResponse, Status> {
        Ok(self.maintenance.clone().status(with_deadline(StatusRequest {})).await?.into_inner())
    }
}
