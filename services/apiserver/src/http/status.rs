//! Whether the server is well: `/healthz`, `/livez`, `/readyz`.

use std::time::Duration;

use axum::response::Response;
use http::{StatusCode, request::Parts};

use super::{plain, query::Query};
use crate::{api::Api, refusal::Refusal};

/// How long a store may take to answer and still count as ready.
const STORE_BOUND: Duration = Duration::from_secs(2);

/// The checks that can be asked for one by one: `/readyz/store`. `etcd` is what other clusters call the store.
const CHECKS: &[&str] = &["ping", "store", "etcd"];

/// Live as long as it answers; ready once its store does.
///
/// # Errors
/// 404 for a check that is not made here.
pub async fn health(api: &Api, parts: &Parts) -> Result<Response, Refusal> {
    let path = parts.uri.path().trim_matches('/');
    let (word, check) = path.split_once('/').unwrap_or((path, ""));
    if !check.is_empty() && !CHECKS.contains(&check) {
        return Err(Refusal::unknown_resource());
    }
    let is_readiness = match check {
        "" => word == "readyz",
        check => check != "ping",
    };
    let store = if is_readiness { store_answers(api).await } else { Ok(()) };
    let verbose = Query::of(&parts.uri).is_ok_and(|query| query.flag("verbose").ok().flatten() == Some(true));
    let code = if store.is_ok() { StatusCode::OK } else { StatusCode::INTERNAL_SERVER_ERROR };
    let text = match (&store, verbose) {
        (Ok(()), false) => "ok".to_owned(),
        (Ok(()), true) if is_readiness => format!("[+]ping ok\n[+]store ok\n{word} check passed\n"),
        (Ok(()), true) => format!("[+]ping ok\n{word} check passed\n"),
        (Err(why), _) => format!("[+]ping ok\n[-]store failed: {why}\n{word} check failed\n"),
    };
    Ok(plain(code, text))
}

async fn store_answers(api: &Api) -> Result<(), Refusal> {
    match tokio::time::timeout(STORE_BOUND, api.objects.revision()).await {
        Ok(answer) => answer.map(drop),
        Err(_) => Err(Refusal::timeout(format!("no answer within {} s", STORE_BOUND.as_secs()))),
    }
}
