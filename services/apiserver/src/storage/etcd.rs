//! [`EtcdStore`]: the store over gRPC - raft-store as its own service, or a real etcd.

use std::{error::Error, iter::successors, time::Duration};

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
use tonic::{Request, Status, Streaming, TimeoutExpired, transport::Channel};

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

/// What a failed call says of the store. tonic tells a broken connection under many codes, with its cause; an answer of
/// the store itself has none.
fn outage(status: Status) -> Status {
    let Some(cause) = status.source() else { return status };
    if successors(Some(cause), |&cause| cause.source()).any(|cause| cause.is::<TimeoutExpired>()) {
        return Status::deadline_exceeded(format!("no answer within {} s", DEADLINE.as_secs()));
    }
    Status::unavailable(format!("the connection broke: {cause}"))
}

/// The answers of one watch. etcd keeps the stream of a canceled watch open for others, and here are none: nothing more
/// would come, and whoever reads on would wait forever.
fn until_canceled(answers: Streaming<WatchResponse>) -> BoxStream<'static, Result<WatchResponse, Status>> {
    stream::unfold(Some(answers), |answers| async move {
        let mut answers = answers?;
        let answer = answers.message().await.transpose()?.map_err(outage);
        let goes_on = answer.as_ref().is_ok_and(|answer| !answer.canceled);
        Some((answer, goes_on.then_some(answers)))
    })
    .boxed()
}

#[async_trait]
impl Store for EtcdStore {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(self.kv.clone().range(with_deadline(request)).await.map_err(outage)?.into_inner())
    }

    async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        Ok(self.kv.clone().txn(with_deadline(request)).await.map_err(outage)?.into_inner())
    }

    async fn compact(&self, revision: i64) -> Result<(), Status> {
        let request = CompactionRequest { revision, physical: false };
        self.kv.clone().compact(with_deadline(request)).await.map(drop).map_err(outage)
    }

    async fn watch(
        &self,
        create: WatchCreateRequest,
    ) -> Result<BoxStream<'static, Result<WatchResponse, Status>>, Status> {
        let first = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
        // etcd ends a watch whose request stream ends, so the stream stays open as long as the answer is read.
        let requests = stream::iter([first]).chain(stream::pending());
        Ok(until_canceled(self.watch.clone().watch(requests).await.map_err(outage)?.into_inner()))
    }

    async fn lease_grant(&self, ttl_seconds: i64) -> Result<i64, Status> {
        let request = LeaseGrantRequest { ttl: ttl_seconds, id: 0 };
        Ok(self.lease.clone().lease_grant(with_deadline(request)).await.map_err(outage)?.into_inner().id)
    }

    async fn lease_keep_alive(&self, id: i64) -> Result<i64, Status> {
        let requests = stream::iter([LeaseKeepAliveRequest { id }]);
        let answers = self.lease.clone().lease_keep_alive(with_deadline(requests)).await.map_err(outage)?;
        let answer = answers.into_inner().message().await.map_err(outage)?;
        // Silence says nothing of the lease: the store stopped before it could answer.
        answer.map(|answer| answer.ttl).ok_or_else(|| Status::unavailable("the store left before it answered"))
    }

    async fn lease_revoke(&self, id: i64) -> Result<(), Status> {
        self.lease.clone().lease_revoke(with_deadline(LeaseRevokeRequest { id })).await.map(drop).map_err(outage)
    }

    async fn status(&self) -> Result<StatusResponse, Status> {
        Ok(self.maintenance.clone().status(with_deadline(StatusRequest {})).await.map_err(outage)?.into_inner())
    }
}
