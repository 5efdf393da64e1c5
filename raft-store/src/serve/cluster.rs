//! Cluster: who the members are.

use proto::{
    etcdserverpb::{
        MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse, MemberPromoteRequest,
        MemberPromoteResponse, MemberRemoveRequest, MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
        cluster_server::Cluster,
    },
    forestay::raft::v1::change_members_request::Change,
};
use tonic::{Request, Response, Status};

use super::Door;

#[tonic::async_trait]
impl Cluster for Door {
    async fn member_list(&self, request: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        if request.into_inner().linearizable {
            self.node.group().catch_up().await?;
        }
        let members = self.node.members()?;
        Ok(Response::new(MemberListResponse { header: Some(self.node.header_now()), members }))
    }

    async fn member_add(&self, request: Request<MemberAddRequest>) -> Result<Response<MemberAddResponse>, Status> {
        let request = request.into_inner();
        let id = self.node.add_member(request.peer_ur_ls, request.is_learner).await?;
        let members = self.node.members()?;
        let member = members.iter().find(|member| member.id == id).cloned();
        Ok(Response::new(MemberAddResponse { header: Some(self.node.header_now()), member, members }))
    }

    async fn member_remove(
        &self,
        request: Request<MemberRemoveRequest>,
    ) -> Result<Response<MemberRemoveResponse>, Status> {
        self.node.change_members(Change::Remove(request.into_inner().id)).await?;
        let members = self.node.members()?;
        Ok(Response::new(MemberRemoveResponse { header: Some(self.node.header_now()), members }))
    }

    async fn member_update(
        &self,
        request: Request<MemberUpdateRequest>,
    ) -> Result<Response<MemberUpdateResponse>, Status> {
        let request = request.into_inner();
        self.node.update_member(request.id, request.peer_ur_ls).await?;
        let members = self.node.members()?;
        Ok(Response::new(MemberUpdateResponse { header: Some(self.node.header_now()), members }))
    }

    async fn member_promote(
        &self,
        request: Request<MemberPromoteRequest>,
    ) -> Result<Response<MemberPromoteResponse>, Status> {
        self.node.change_members(Change::Promote(request.into_inner().id)).await?;
        let members = self.node.members()?;
        Ok(Response::new(MemberPromoteResponse { header: Some(self.node.header_now()), members }))
    }
}
