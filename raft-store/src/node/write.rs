//! Writes: checked, agreed on, applied, answered.

use prost::Message;
use proto::{
    etcdserverpb::{
        AlarmRequest, AlarmResponse, CompactionRequest, CompactionResponse, DeleteRangeRequest, DeleteRangeResponse,
        LeaseGrantRequest, LeaseGrantResponse, LeaseRevokeRequest, LeaseRevokeResponse, PutRequest, PutResponse,
        ResponseHeader, TxnRequest, TxnResponse, alarm_request::AlarmAction,
    },
    forestay::raft::v1::{Command, LeaseResponse, command::Action},
};
use tonic::Status;

use super::Node;
use crate::machine::{self, Refusal, Response};

impl Node {
    /// # Errors
    /// etcd's: empty key, value or lease provided, key or lease not found, too large, no space.
    pub async fn put(&self, request: PutRequest) -> Result<PutResponse, Status> {
        machine::check_put(&request)?;
        match self.agree(Action::Put(request)).await? {
            Response::Put(mut response) => {
                self.complete(&mut response.header);
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// etcd's: empty key.
    pub async fn delete_range(&self, request: DeleteRangeRequest) -> Result<DeleteRangeResponse, Status> {
        machine::check_delete(&request)?;
        match self.agree(Action::DeleteRange(request)).await? {
            Response::DeleteRange(mut response) => {
                self.complete(&mut response.header);
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// etcd's: malformed or too many operations, duplicate key, and those of its parts.
    pub async fn txn(&self, request: TxnRequest) -> Result<TxnResponse, Status> {
        machine::check_txn(&request, self.inner.options.txn_ops_max)?;
        let mut response = if machine::is_read_only(&request) {
            self.read_txn(request).await?
        } else {
            match self.agree(Action::Txn(request)).await? {
                Response::Txn(response) => response,
                other => return Err(unexpected(&other)),
            }
        };
        self.complete(&mut response.header);
        Ok(response)
    }

    /// Forgets versions superseded before `revision`; returns once they can no longer be read.
    ///
    /// # Errors
    /// etcd's: compacted, future revision.
    pub async fn compact(&self, revision: i64) -> Result<(), Status> {
        self.compaction(CompactionRequest { revision, physical: false }).await.map(|_| ())
    }

    /// As [`Node::compact`]; with `physical` it also waits until the versions are deleted.
    ///
    /// # Errors
    /// etcd's: compacted, future revision.
    pub async fn compaction(&self, request: CompactionRequest) -> Result<CompactionResponse, Status> {
        let (revision, physical) = (request.revision, request.physical);
        match self.agree(Action::Compact(request)).await? {
            Response::Compact(mut response) => {
                if physical {
                    let mut swept = self.inner.swept.clone();
                    swept.wait_for(|swept| *swept >= revision).await.map_err(|_| Refusal::Stopped)?;
                }
                self.complete(&mut response.header);
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Grants a lease of `ttl` seconds and gives its id.
    ///
    /// # Errors
    /// etcd's: TTL too large.
    pub async fn lease_grant(&self, ttl: i64) -> Result<i64, Status> {
        Ok(self.grant(LeaseGrantRequest { ttl, id: 0 }).await?.id)
    }

    /// # Errors
    /// etcd's: TTL too large, lease already exists.
    pub async fn grant(&self, mut request: LeaseGrantRequest) -> Result<LeaseGrantResponse, Status> {
        if request.ttl > machine::MAX_LEASE_TTL {
            return Err(Refusal::LeaseTtlTooLarge.into());
        }
        let chosen = request.id != 0;
        loop {
            if !chosen {
                // Chosen here and not in the machine: every member has to come to the same id.
                request.id = (rand::random::<u64>() >> 1).max(1) as i64;
            }
            match self.agree(Action::LeaseGrant(request)).await {
                Ok(Response::LeaseGrant(mut response)) => {
                    self.complete(&mut response.header);
                    return Ok(response);
                }
                Ok(other) => return Err(unexpected(&other)),
                Err(status) if !chosen && status.message() == Refusal::LeaseExists.to_string() => {}
                Err(status) => return Err(status),
            }
        }
    }

    /// Gives a lease its full time again; its length in seconds.
    ///
    /// # Errors
    /// etcd's: lease not found.
    pub async fn lease_keep_alive(&self, id: i64) -> Result<i64, Status> {
        let lease = self.lease(id, true).await?;
        if !lease.in_force {
            return Err(Refusal::LeaseNotFound.into());
        }
        Ok(lease.granted_seconds)
    }

    /// What the leader says of a lease, renewed first where asked for.
    pub(super) async fn lease(&self, id: i64, renew: bool) -> Result<LeaseResponse, Refusal> {
        if let Some(told) = self.group().lease(id, renew).await? {
            return Ok(told);
        }
        self.inner.keeper.lead(self.group().leading_term());
        Ok(self.inner.keeper.tell(id, renew))
    }

    /// Ends a lease and deletes its keys.
    ///
    /// # Errors
    /// etcd's: lease not found.
    pub async fn lease_revoke(&self, id: i64) -> Result<(), Status> {
        self.revoke(LeaseRevokeRequest { id }).await.map(|_| ())
    }

    /// # Errors
    /// etcd's: lease not found.
    pub async fn revoke(&self, request: LeaseRevokeRequest) -> Result<LeaseRevokeResponse, Status> {
        match self.agree(Action::LeaseRevoke(request)).await? {
            Response::LeaseRevoke(mut response) => {
                self.complete(&mut response.header);
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    /// # Errors
    /// No leader.
    pub async fn alarm(&self, request: AlarmRequest) -> Result<AlarmResponse, Status> {
        if request.action() == AlarmAction::Get {
            self.group().catch_up().await?;
            let position = self.group().stage().position();
            let wanted = |kind: i32| request.alarm == 0 || kind == request.alarm;
            let alarms = position.alarms.into_iter().filter(|alarm| wanted(alarm.alarm)).collect();
            return Ok(AlarmResponse { header: Some(self.header(position.revision)), alarms });
        }
        match self.agree(Action::Alarm(request)).await? {
            Response::Alarm(mut response) => {
                self.complete(&mut response.header);
                Ok(response)
            }
            other => Err(unexpected(&other)),
        }
    }

    async fn agree(&self, action: Action) -> Result<Response, Status> {
        let command = Command { action: Some(action) };
        if command.encoded_len() > self.inner.options.request_bytes_max {
            return Err(Refusal::RequestTooLarge.into());
        }
        if self.inner.shutdown.is_triggered() {
            return Err(Refusal::Stopped.into());
        }
        Ok(self.group().propose(&command).await?)
    }

    /// Adds to the revision what only the member knows.
    fn complete(&self, header: &mut Option<ResponseHeader>) {
        let revision = header.as_ref().map_or(0, |header| header.revision);
        *header = Some(self.header(revision));
    }
}

/// The machine answers each command in kind; anything else is a fault of this build, told and not hidden.
fn unexpected(response: &Response) -> Status {
    Status::internal(format!("etcdserver: the machine answered with {response:?}"))
}
