//! Cluster: who the members are.

use proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
    MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
    cluster_server::Cluster,
};
use tonic::{Request, Response, Status};

use super::{Door, unserved};

#[tonic::async_trait]
impl Cluster for Door {
    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.node.group().catch_up().await?;
        }
        let options = self.node.options();
        let members = self.node.group().members().into_iter().map(|(id, peer, is_learner)| {
            let mut member =
                Member { id, name: peer.name, peer_ur_ls: peer.peer_urls, client_ur_ls: peer.client_urls, is_learner };
            if id == self.node.member_id() {
                // Its own addresses may have changed since it joined.
                member.name = options.name.clone();
                member.client_ur_ls = options.advertise_client_urls.clone();
            }
            member
        });
        Ok(Response::new(MemberListResponse { header: Some(self.node.header_now()), members: members.collect() }))
    }

    async fn member_add(&self, _: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        Err(unserved("MemberAdd"))
    }

    async fn member_remove(&self, _: Request<MemberRemoveRequest>) -> Result<Response<MemberRemoveResponse>, Status> {
        Err(unserved("MemberRemove"))
    }

    async fn member_update(&self, _: Request<MemberUpdateRequest>) -> Result<Response<MemberUpdateResponse>, Status> {
        Err(unserved("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        Err(unserved("MemberPromote"))
    }
}
