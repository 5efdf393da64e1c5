//! The REST door: Kubernetes' HTTP API as kubectl, Helm and client libraries speak it.
//!
//! It translates requests into the registry's verbs and their answers into the form a client reads: JSON, YAML, protobuf,
//! tables, metadata alone. It decides nothing: whatever is a rule stands behind [`Api`], where the gRPC door finds it too.

mod accept;
mod answer;
mod body;
mod discovery;
mod exec;
mod logs;
mod metrics;
mod objects;
mod openapi;
mod path;
mod query;
mod status;
#[cfg(test)]
mod tests;
mod version;
mod watch;
mod yaml;

use std::sync::Arc;

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::Response,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use serde_json::Value;

use self::{accept::Discovery as Form, answer::Wanted, discovery::Discovery, path::Path, query::Query};
use crate::{
    api::{Api, RequestContext},
    gate::{authn::acting, authz::decide_path},
    refusal::{Refusal, Result},
};

/// What all requests share.
#[derive(Clone)]
struct Door {
    api: Arc<Api>,
    metrics: Arc<metrics::Metrics>,
}

/// The whole REST API. Requests carry their peer as an `Arc<RequestContext>` extension; without it they are anonymous.
pub fn router(api: Arc<Api>) -> Router {
    let door = Door { api, metrics: Arc::default() };
    Router::new().fallback(serve).with_state(door)
}

async fn serve(State(door): State<Door>, request: Request) -> Response {
    let encoding = Wanted::for_refusal(request.headers());
    let counted = metrics::Counted::of(&request);
    let (parts, mut body) = request.into_parts();
    let response = match dispatch(&door, parts, &mut body).await {
        Ok(response) => response,
        Err(refusal) => {
            body::discard(&mut body).await;
            answer::refusal(&refusal, encoding)
        }
    };
    door.metrics.count(counted, response.status());
    response
}

async fn dispatch(door: &Door, parts: Parts, body: &mut Body) -> Result<Response> {
    let context = parts.extensions.get::<Arc<RequestContext>>().cloned();
    let context = context.unwrap_or_else(|| Arc::new(RequestContext::anonymous()));
    let context = match acting(&context, &parts.headers)? {
        Some(other) => Arc::new(other),
        None => context,
    };
    match path::parse(parts.uri.path()) {
        Some(Path::Object(object)) => objects::serve(&door.api, &context, &object, parts, body).await,
        Some(path) => {
            read_only(&parts)?;
            decide_path(&context, "get", parts.uri.path())?;
            document(door, &path, &parts).await
        }
        None if parts.uri.path() == "/" => {
            read_only(&parts)?;
            decide_path(&context, "get", "/")?;
            json(&discovery(&door.api).root_paths(), &parts, door)
        }
        None => Err(Refusal::unknown_resource()),
    }
}

/// Seconds since 1970.
fn now(api: &Api) -> i64 {
    api.clock.now().as_second()
}

fn read_only(parts: &Parts) -> Result<()> {
    match parts.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => {
            let message = format!("{} is not supported at {}: only GET is", parts.method, parts.uri.path());
            Err(Refusal::new(405, "MethodNotAllowed", message))
        }
    }
}

fn discovery(api: &Api) -> Discovery {
    Discovery::of(api.resources())
}

async fn document(door: &Door, path: &Path, parts: &Parts) -> Result<Response> {
    let asked = accept::discovery(text(&parts.headers, header::ACCEPT));
    let served = || discovery(&door.api);
    let found = match (path, asked) {
        (Path::CoreVersions, Form::Aggregated(version)) => {
            return aggregated(&served().aggregated(true, version), version);
        }
        (Path::Groups, Form::Aggregated(version)) => return aggregated(&served().aggregated(false, version), version),
        (Path::CoreVersions, Form::Legacy) => {
            let host = text(&parts.headers, header::HOST).or(parts.uri.authority().map(|authority| authority.as_str()));
            Some(discovery::core_versions(host.unwrap_or_default()))
        }
        (Path::Groups, Form::Legacy) => Some(served().legacy_groups()),
        (Path::Group(group), _) => served().legacy_group(group),
        (Path::Resources { group, version }, _) => served().legacy_resources(group, version),
        (Path::OpenApiV2, _)
            if text(&parts.headers, header::ACCEPT).is_some_and(|accept| accept.contains(openapi::V2_MEDIA_TYPE)) =>
        {
            return Ok(answer::response(StatusCode::OK, openapi::V2_ANSWER_TYPE, openapi::v2_document()));
        }
        (Path::OpenApiV2, _) => None,
        (Path::OpenApiIndex, _) => Some(openapi::index()),
        (Path::OpenApi(name), _) => return openapi_document(name, parts),
        (Path::Version, _) => Some(version::document()),
        (Path::Health, _) => return status::health(&door.api, parts).await,
        (Path::Metrics, _) => return Ok(plain(StatusCode::OK, door.metrics.rendered())),
        (Path::Object(_), _) => None,
    };
    json(&found.ok_or_else(Refusal::unknown_resource)?, parts, door)
}

fn json(value: &Value, parts: &Parts, door: &Door) -> Result<Response> {
    let query = Query::of(&parts.uri)?;
    // Discovery is JSON whatever else a client reads.
    let wanted = Wanted::of(&parts.headers, &query, now(&door.api));
    match wanted {
        Ok(wanted) => answer::document(StatusCode::OK, value, wanted),
        Err(_) => Ok(answer::response(StatusCode::OK, accept::JSON, value.to_string())),
    }
}

fn aggregated(value: &Value, version: &str) -> Result<Response> {
    let media_type = format!("{};g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList", accept::JSON);
    let mut response = answer::response(StatusCode::OK, &media_type, value.to_string());
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    Ok(response)
}

/// A document that its hash names may be kept for ever.
fn openapi_document(name: &str, parts: &Parts) -> Result<Response> {
    let document = openapi::documents().get(name).ok_or_else(Refusal::unknown_resource)?;
    let tag = format!("\"{}\"", document.hash);
    let is_known = text(&parts.headers, header::IF_NONE_MATCH).is_some_and(|known| known == tag);
    let query = Query::of(&parts.uri)?;
    let (code, body) = if is_known {
        (StatusCode::NOT_MODIFIED, Body::empty())
    } else {
        (StatusCode::OK, document.body.clone().into())
    };
    let mut response = answer::response(code, accept::JSON, body);
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(header::ETAG, tag);
    }
    let cache = match query.get("hash") {
        Some(hash) if hash == document.hash => "public, immutable, max-age=31536000",
        _ => "no-cache, private",
    };
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    Ok(response)
}

fn plain(code: StatusCode, text: String) -> Response {
    answer::response(code, "text/plain; charset=utf-8", text)
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
