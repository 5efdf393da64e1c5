//! A container's output as plain text: `pods/x/log`.

use axum::{body::Body, response::Response};
use futures::StreamExt;
use http::StatusCode;
use proto::{forestay::node::v1::LogsRequest, k8s::meta::v1::Time, time};

use super::{answer, query::Query};
use crate::{
    api::{Api, RequestContext, Target},
    grpc::nodes::{OnNode, refused},
    refusal::{Refusal, Result},
};

pub async fn serve(api: &Api, context: &RequestContext, target: Target<'_>, query: &Query) -> Result<Response> {
    let options = options(query)?;
    let OnNode { mut client, target, node } = api.node_of(context, target, &query.text("container")).await?;
    let request = LogsRequest { target: Some(target), ..options };
    let answer = client.logs(request).await.map_err(|status| refused(&node, status))?;
    // A break on the way ends the text: its status has been sent long ago.
    let chunks = answer.into_inner().map(|part| part.map(|response| response.chunk).map_err(std::io::Error::other));
    Ok(answer::response(StatusCode::OK, "text/plain", Body::from_stream(chunks)))
}

/// What of the output is asked for.
fn options(query: &Query) -> Result<LogsRequest> {
    let since_time = match query.get("sinceTime") {
        None => None,
        Some(text) => {
            let (seconds, nanos) = time::parse(text).map_err(|error| {
                Refusal::bad_request(format!("invalid value {text:?} of query parameter sinceTime: {error}"))
            })?;
            Some(Time { seconds, nanos })
        }
    };
    let since_seconds = query.number("sinceSeconds")?;
    if since_time.is_some() && since_seconds.is_some() {
        return Err(Refusal::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
    }
    Ok(LogsRequest {
        target: None,
        follow: query.flag("follow")?.unwrap_or_default(),
        previous: query.flag("previous")?.unwrap_or_default(),
        timestamps: query.flag("timestamps")?.unwrap_or_default(),
        tail_lines: query.number("tailLines")?,
        since_seconds,
        since_time,
        limit_bytes: query.number("limitBytes")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<LogsRequest> {
        let uri = format!("/api/v1/namespaces/a/pods/web/log?{text}").parse().unwrap();
        options(&Query::of(&uri).unwrap())
    }

    #[test]
    fn every_option_reaches_the_node() {
        let asked = read(
            "container=c&follow=true&previous=true&timestamps=true&tailLines=0&limitBytes=9\
             &sinceTime=2026-01-02T03:04:05Z",
        )
        .unwrap();
        assert!(asked.follow && asked.previous && asked.timestamps);
        assert_eq!((asked.tail_lines, asked.limit_bytes, asked.since_seconds), (Some(0), Some(9), None));
        assert_eq!(asked.since_time.unwrap().seconds, 1_767_323_045);
    }

    #[test]
    fn times_that_are_none_are_refused() {
        assert_eq!(read("sinceTime=yesterday").unwrap_err().code(), 400);
        assert_eq!(read("sinceTime=2026-01-02T03:04:05Z&sinceSeconds=5").unwrap_err().code(), 400);
        assert_eq!(read("tailLines=-1").unwrap_err().code(), 400);
    }
}
