//! One GET for a probe: any answer from 200 to 399 is good.

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proto::k8s::core::v1::HttpHeader;

/// What of a bad answer's body is shown to the user.
const SHOWN_BYTES_MAX: usize = 256;

/// # Errors
/// Says what was wrong: no connection, or a status outside 200-399.
pub async fn get(host: &str, port: u16, path: &str, headers: &[HttpHeader]) -> Result<(), String> {
    let path = match path {
        "" => "/",
        path => path,
    };
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let failed = |error: &dyn std::fmt::Display| format!("Get \"http://{host}:{port}{path}\": {error}");
    let stream = tokio::net::TcpStream::connect((host, port)).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let mut request = http::Request::get(&path);
    for header in headers {
        request = request.header(&header.name, &header.value);
    }
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("host")) {
        request = request.header("Host", format!("{host}:{port}"));
    }
    if !headers.iter().any(|header| header.name.eq_ignore_ascii_case("user-agent")) {
        request = request.header("User-Agent", "kube-probe/1.36");
    }
    let request = request.header("Connection", "close").body(Empty::<Bytes>::new()).map_err(|error| failed(&error))?;
    let answer = async {
        let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
        let status = response.status();
        if (200..400).contains(&status.as_u16()) {
            return Ok(());
        }
        let body = response.into_body().collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
        let shown = String::from_utf8_lossy(&body[..body.len().min(SHOWN_BYTES_MAX)]).trim().to_owned();
        let said = if shown.is_empty() { String::new() } else { format!(": {shown}") };
        Err(format!("HTTP probe failed with statuscode: {}{said}", status.as_u16()))
    };
    tokio::pin!(answer);
    tokio::pin!(connection);
    tokio::select! {
        answer = &mut answer => answer,
        // The connection's end may carry the last part of the answer.
        _ = &mut connection => answer.await,
    }
}
