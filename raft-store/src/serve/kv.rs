//! KV: Range, Put, DeleteRange, Txn, Compact.

use futures::stream;
use proto::etcdserverpb::{
    CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, RangeStreamResponse, TxnRequest, TxnResponse, kv_server::Kv, range_request::SortOrder,
};
use tonic::{Request, Response, Status};

use super::{Answers, Door, unserved};
use crate::node::Node;

/// Keys of one part of a streamed range.
const PART: i64 = 500;

#[tonic::async_trait]
impl Kv for Door {
    type RangeStreamStream = Answers<RangeStreamResponse>;

    async fn range(&self, request: Request<RangeRequest>) -> Result<Response<RangeResponse>, Status> {
        Ok(Response::new(self.node.range(request.into_inner()).await?))
    }

    async fn range_stream(&self, request: Request<RangeRequest>) -> Result<Response<Self::RangeStreamStream>, Status> {
        let request = request.into_inner();
        let plain = request.sort_order() == SortOrder::None
            && request.sort_target == 0
            && request.min_mod_revision == 0
            && request.max_mod_revision == 0
            && request.min_create_revision == 0
            && request.max_create_revision == 0;
        if !plain {
            return Err(unserved("a sorted or filtered RangeStream"));
        }
        let parts = Parts {
            node: self.node.clone(),
            left: (request.limit > 0).then_some(request.limit),
            next: Some(request),
            sent: 0,
        };
        let parts = stream::try_unfold(parts, |parts| async move { parts.next().await });
        Ok(Response::new(Box::pin(parts)))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(self.node.put(request.into_inner()).await?))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        Ok(Response::new(self.node.delete_range(request.into_inner()).await?))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        Ok(Response::new(self.node.txn(request.into_inner()).await?))
    }

    async fn compact(&self, request: Request<CompactionRequest>) -> Result<Response<CompactionResponse>, Status> {
        Ok(Response::new(self.node.compaction(request.into_inner()).await?))
    }
}

/// A range read part by part at one revision; header, count and `more` stand in the last part.
struct Parts {
    node: Node,
    next: Option<RangeRequest>,
    left: Option<i64>,
    sent: i64,
}

impl Parts {
    async fn next(mut self) -> Result<Option<(RangeStreamResponse, Parts)>, Status> {
        let Some(mut request) = self.next.take() else { return Ok(None) };
        request.limit = self.left.map_or(PART, |left| left.min(PART));
        let mut part = self.node.range(request.clone()).await?;
        let revision = part.header.as_ref().map_or(0, |header| header.revision);
        let found = part.kvs.len() as i64;
        self.left = self.left.map(|left| left - found);
        self.sent += found;
        if part.more
            && self.left != Some(0)
            && let Some(last) = part.kvs.last()
        {
            let mut key = last.key.to_vec();
            key.push(0);
            // Later parts read what the first one did, also when writes go on.
            let revision = if request.revision > 0 { request.revision } else { revision };
            self.next = Some(RangeRequest { key: key.into(), revision, serializable: true, ..request });
            (part.header, part.more, part.count) = (None, false, 0);
        } else {
            part.count += self.sent - found;
        }
        Ok(Some((RangeStreamResponse { range_response: Some(part) }, self)))
    }
}
