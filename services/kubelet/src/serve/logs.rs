//! What a container has said, as it was asked for.

use std::sync::Arc;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use proto::forestay::node::v1::{LogsRequest, LogsResponse};
use tonic::Status;

use super::{Answers, refuse};
use crate::runtime::{Container, LogOptions, Runtime};

pub async fn read(
    runtime: &Arc<dyn Runtime>,
    container: &Container,
    request: &LogsRequest,
) -> Result<Answers<LogsResponse>, Status> {
    let options = LogOptions {
        follow: request.follow && container.is_running(),
        timestamps: request.timestamps,
        tail_lines: request.tail_lines,
        since: since(request, Timestamp::now()),
    };
    let log = runtime.logs(&container.id, &options).await.map_err(|error| refuse(&error))?;
    let log = log.map(|chunk| chunk.map_err(|error| refuse(&error)));
    Ok(limited(log, request.limit_bytes).map(|chunk| Ok(LogsResponse { chunk: chunk? })).boxed())
}

fn since(request: &LogsRequest, now: Timestamp) -> Option<Timestamp> {
    let relative = request.since_seconds.and_then(|seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok());
    let absolute = request.since_time.as_ref().and_then(|at| Timestamp::new(at.seconds, at.nanos).ok());
    relative.or(absolute)
}

/// Ends the stream after so many bytes.
fn limited(log: impl Stream<Item = Result<Bytes, Status>> + Send + 'static, limit: Option<i64>) -> Answers<Bytes> {
    let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { return log.boxed() };
    let cut = stream::unfold((log.boxed(), limit), |(mut log, left)| async move {
        if left == 0 {
            return None;
        }
        match log.next().await? {
            Ok(chunk) => {
                let chunk = chunk.slice(..chunk.len().min(left));
                let left = left - chunk.len();
                Some((Ok(chunk), (log, left)))
            }
            Err(error) => Some((Err(error), (log, 0))),
        }
    });
    cut.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_limit_cuts_the_log_at_its_byte() {
        let log = || stream::iter(["abc", "def"].map(|text| Ok(Bytes::from(text))));
        let text = |limit| async move { limited(log(), limit).map(Result::unwrap).collect::<Vec<_>>().await.concat() };
        assert_eq!(text(Some(4)).await, b"abcd");
        assert_eq!(text(None).await, b"abcdef");
        assert_eq!(text(Some(0)).await, b"");
    }
}
