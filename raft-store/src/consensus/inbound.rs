//! What other members ask of this one, in the messages of the wire.

use std::{io, sync::Arc};

use futures::{Stream, StreamExt, future};
use openraft::{raft::StreamAppendError, storage::Snapshot};
use parking_lot::Mutex;
use proto::forestay::raft::v1::{
    AppendRequest, AppendResponse, SnapshotHeader, SnapshotResponse, TransferLeaderRequest, VoteRequest, VoteResponse,
};

use super::{Group, record};
use crate::engine::Arriving;

/// A snapshot that another member is sending.
pub struct Delivery {
    header: SnapshotHeader,
    arriving: Arriving,
}

impl Group {
    /// Takes in appends as they come; the answers keep their order and end with the first refusal.
    ///
    /// An item that cannot be read ends both, and is told last.
    pub fn append<S>(&self, requests: S) -> impl Stream<Item = io::Result<AppendResponse>> + Send + 'static
    where
        S: Stream<Item = io::Result<AppendRequest>> + Send + 'static,
    {
        let fault = Arc::new(Mutex::new(None));
        let found = fault.clone();
        let readable = requests.map(|request| request.and_then(record::append_in)).scan((), move |(), request| {
            let request = request.map_err(|error| *found.lock() = Some(error));
            future::ready(request.ok())
        });
        let heard = self.heard().clone();
        let answers = self.raft().stream_append(readable).map(move |appended| match appended {
            Ok(appended) => {
                if !matches!(appended, Err(StreamAppendError::HigherVote(_))) {
                    heard.now();
                }
                Ok(record::appended_out(&appended))
            }
            Err(fatal) => Err(io::Error::other(fatal.to_string())),
        });
        let last = futures::stream::once(async move { fault.lock().take() }).filter_map(future::ready).map(Err);
        answers.chain(last)
    }

    /// # Errors
    /// The request cannot be read, or consensus has stopped.
    pub async fn vote(&self, request: &VoteRequest) -> io::Result<VoteResponse> {
        let response = self.raft().vote(record::vote_request_in(request)?).await.map_err(io::Error::other)?;
        Ok(record::vote_response_out(&response))
    }

    /// # Errors
    /// The request cannot be read, or consensus has stopped.
    pub async fn pre_vote(&self, request: &VoteRequest) -> io::Result<VoteResponse> {
        let response = self.raft().pre_vote(record::vote_request_in(request)?).await.map_err(io::Error::other)?;
        Ok(record::vote_response_out(&response))
    }

    /// # Errors
    /// The leader or the log moved on meanwhile, or consensus has stopped.
    pub async fn take_lead(&self, request: &TransferLeaderRequest) -> io::Result<()> {
        let taken = self.raft().handle_transfer_leader(record::transfer_in(request)?).await;
        taken.map_err(io::Error::other)?.map_err(io::Error::other)
    }

    /// Makes room for a snapshot.
    ///
    /// # Errors
    /// It is of a format that is not known here, or the disk fails.
    pub fn expect(&self, mut header: SnapshotHeader) -> io::Result<Delivery> {
        let meta = header.meta.as_mut();
        let files = std::mem::take(&mut meta.ok_or_else(|| io::Error::other("the snapshot has no manifest"))?.files);
        Ok(Delivery { header, arriving: Arriving::begin(self.home().inbox(), files)? })
    }

    /// Puts a snapshot that arrived whole in the place of the state.
    ///
    /// # Errors
    /// It cannot be read, or the disk fails.
    pub async fn install(&self, delivery: Delivery) -> io::Result<SnapshotResponse> {
        let vote = delivery.header.vote.as_ref().map(record::vote_in);
        let vote = vote.ok_or_else(|| io::Error::other("the snapshot has no vote"))?;
        let meta = record::snapshot_in(&delivery.header.meta.unwrap_or_default())?;
        let snapshot = Snapshot { meta, snapshot: delivery.arriving.finish()? };
        let response = self.raft().install_full_snapshot(vote, snapshot).await.map_err(io::Error::other)?;
        Ok(SnapshotResponse { vote: Some(record::vote_out(&response.vote)) })
    }
}

impl Delivery {
    /// # Errors
    /// More came than was announced, a checksum differs, or the disk fails.
    pub fn take(&mut self, bytes: bytes::Bytes) -> io::Result<()> {
        self.arriving.write(bytes)
    }
}
