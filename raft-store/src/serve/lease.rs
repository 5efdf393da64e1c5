//! Lease: grant, revoke, keep alive, time to live, leases.

use futures::StreamExt;
use proto::etcdserverpb::{
    LeaseGrantRequest, LeaseGrantResponse, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseLeasesResponse, LeaseRevokeRequest, LeaseRevokeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    lease_server::Lease,
};
use tonic::{Code, Request, Response, Status, Streaming};

use super::{Answers, Door};

#[tonic::async_trait]
impl Lease for Door {
    type LeaseKeepAliveStream = Answers<LeaseKeepAliveResponse>;

    async fn lease_grant(&self, request: Request<LeaseGrantRequest>) -> Result<Response<LeaseGrantResponse>, Status> {
        Ok(Response::new(self.node.grant(request.into_inner()).await?))
    }

    async fn lease_revoke(
        &self,
        request: Request<LeaseRevokeRequest>,
    ) -> Result<Response<LeaseRevokeResponse>, Status> {
        Ok(Response::new(self.node.revoke(request.into_inner()).await?))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let node = self.node.clone();
        let shutdown = node.until_shutdown();
        let renewals = request.into_inner().then(move |request| {
            let node = node.clone();
            async move {
                let id = request?.id;
                let ttl = match node.lease_keep_alive(id).await {
                    Ok(ttl) => ttl,
                    // etcd's way to say that the lease is gone, without ending the stream for the others.
                    Err(status) if status.code() == Code::NotFound => 0,
                    Err(status) => return Err(status),
                };
                Ok(LeaseKeepAliveResponse { header: Some(node.header_now()), id, ttl })
            }
        });
        let stop = async move { shutdown.triggered().await };
        Ok(Response::new(Box::pin(renewals.take_until(Box::pin(stop)))))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<LeaseTimeToLiveRequest>,
    ) -> Result<Response<LeaseTimeToLiveResponse>, Status> {
        Ok(Response::new(self.node.lease_time_to_live(request.into_inner()).await?))
    }

    async fn lease_leases(&self, _: Request<LeaseLeasesRequest>) -> Result<Response<LeaseLeasesResponse>, Status> {
        Ok(Response::new(self.node.lease_leases().await?))
    }
}
