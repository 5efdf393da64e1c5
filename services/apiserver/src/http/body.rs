//! Request bodies: read within a bound, and turned into a message's bytes.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use proto::{
    codec::{self, MessageId},
    envelope,
};

use super::accept::Encoding;
use crate::{
    api::{FieldValidation, Form},
    refusal::{Refusal, Result},
};

/// The largest body that is read.
pub const SIZE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What is read of a body that is too large, and thrown away: a client of HTTP/1.1 looks for an answer only once it has
/// sent everything, and would otherwise see nothing but a broken connection.
const DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What is read over of a body that the answer does not depend on, and how long that may take.
const LEFTOVER_BYTES_MAX: usize = 256 * 1024;
const LEFTOVER_BOUND: Duration = Duration::from_secs(1);

/// A message in a request, and what its form said that the message cannot hold.
#[derive(Debug)]
pub struct Received {
    pub raw: Bytes,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
}

/// Reads a body.
///
/// # Errors
/// 413 beyond [`SIZE_BYTES_MAX`]; 400 where the client breaks off.
pub async fn read(headers: &HeaderMap, body: &mut Body) -> Result<Bytes> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let waits_for_consent = headers.contains_key(header::EXPECT);
    if let Some(length) = announced.filter(|length: &usize| waits_for_consent && *length > SIZE_BYTES_MAX) {
        return Err(Refusal::too_large(length, SIZE_BYTES_MAX));
    }
    let mut kept = BytesMut::new();
    let mut size = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| Refusal::bad_request(format!("read the request's body: {error}")))?;
        let Ok(chunk) = frame.into_data() else { continue };
        size += chunk.len();
        if size <= SIZE_BYTES_MAX {
            kept.extend_from_slice(&chunk);
        } else if size > DISCARDED_BYTES_MAX {
            break;
        }
    }
    if size > SIZE_BYTES_MAX {
        return Err(Refusal::too_large(announced.unwrap_or(size).max(size), SIZE_BYTES_MAX));
    }
    Ok(kept.freeze())
}

/// Reads over what nobody wanted of a body, a little and not for long: only then can the connection of an HTTP/1.1 client
/// carry its next request.
pub async fn discard(body: &mut Body) {
    let rest = async {
        let mut size = 0;
        while let Some(Ok(frame)) = body.frame().await {
            size += frame.data_ref().map_or(0, Bytes::len);
            if size > LEFTOVER_BYTES_MAX {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LEFTOVER_BOUND, rest).await;
}

/// Turns a body into the message of the kind that is written at its path.
///
/// # Errors
/// 400 for another kind, for what is no such object, and, where strictness is asked for, for fields it does not have;
/// 415 for a form that is not read.
pub fn object(content_type: Option<&str>, body: &Bytes, form: Form, validation: FieldValidation) -> Result<Received> {
    let encoding = Encoding::of_body(content_type)?;
    if encoding == Encoding::Protobuf {
        let (named, raw) = envelope::unwrap(body).map_err(|error| unreadable(form, &error))?;
        check_kind(&named.api_version, &named.kind, form)?;
        let raw = codec::canonical(form.message, &raw).map_err(|error| unreadable(form, &error))?;
        return Ok(Received { raw: raw.into(), warnings: Vec::new() });
    }
    let json = as_json(encoding, body)?;
    let named = codec::type_meta(&json).map_err(|error| unreadable(form, &error))?;
    check_kind(&named.api_version, &named.kind, form)?;
    message(&json, form.message, validation, |error| unreadable(form, error))
}

/// Turns the body of a request that carries options into their message; an empty one has none.
///
/// # Errors
/// 400 for a body that is not such a message; 415 for a form that is not read.
pub fn options(content_type: Option<&str>, body: &Bytes, message_name: &str) -> Result<Bytes> {
    if body.is_empty() {
        return Ok(Bytes::new());
    }
    let unreadable = |error: &dyn std::fmt::Display| Refusal::bad_request(format!("read the {message_name}: {error}"));
    let check_kind = |kind: &str| match kind {
        kind if kind.is_empty() || kind == message_name => Ok(()),
        other => Err(Refusal::bad_request(format!("{other} cannot be handled as {message_name}"))),
    };
    let encoding = Encoding::of_body(content_type)?;
    if encoding == Encoding::Protobuf {
        let (named, raw) = envelope::unwrap(body).map_err(|error| unreadable(&error))?;
        return check_kind(&named.kind).map(|()| raw);
    }
    let id = codec::schema().message(&format!("k8s.api.meta.v1.{message_name}"));
    let id = id.ok_or_else(|| Refusal::internal(format!("the schema has no {message_name}")))?;
    let json = as_json(encoding, body)?;
    check_kind(&codec::type_meta(&json).map_err(|error| unreadable(&error))?.kind)?;
    message(&json, id, FieldValidation::Ignore, |error| unreadable(error)).map(|received| received.raw)
}

fn message(
    json: &[u8],
    id: MessageId,
    validation: FieldValidation,
    unreadable: impl Fn(&dyn std::fmt::Display) -> Refusal,
) -> Result<Received> {
    let decoded = codec::json_to_proto(id, json).map_err(|error| unreadable(&error))?;
    let issues: Vec<String> = decoded.issues.iter().map(ToString::to_string).collect();
    match validation {
        FieldValidation::Strict if !issues.is_empty() => {
            Err(unreadable(&format_args!("strict decoding error: {}", issues.join(", "))))
        }
        FieldValidation::Ignore => Ok(Received { raw: decoded.bytes.into(), warnings: Vec::new() }),
        FieldValidation::Strict | FieldValidation::Warn => Ok(Received { raw: decoded.bytes.into(), warnings: issues }),
    }
}

/// A text body as JSON.
///
/// # Errors
/// 400 for what is not exactly one document.
pub fn as_json(encoding: Encoding, body: &Bytes) -> Result<Bytes> {
    if encoding != Encoding::Yaml {
        return Ok(body.clone());
    }
    let text =
        std::str::from_utf8(body).map_err(|error| Refusal::bad_request(format!("read the YAML body: {error}")))?;
    let documents =
        model::yaml::parse(text, "body").map_err(|error| Refusal::bad_request(format!("read the YAML {error}")))?;
    match documents.as_slice() {
        [document] => Ok(document.value.to_string().into()),
        documents => {
            let message = format!("the body has {} YAML documents; exactly one is wanted", documents.len());
            Err(Refusal::bad_request(message))
        }
    }
}

/// A body may leave apiVersion and kind out, since the path says them; it may not say others.
fn check_kind(api_version: &str, kind: &str, form: Form) -> Result<()> {
    if !kind.is_empty() && kind != form.kind {
        let version = if api_version.is_empty() { form.api_version } else { api_version };
        let message = format!(
            "{kind} in version {version:?} cannot be handled as a {}: this path takes a {}",
            form.kind, form.kind
        );
        return Err(Refusal::bad_request(message));
    }
    if !api_version.is_empty() && api_version != form.api_version {
        let message = format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            form.api_version
        );
        return Err(Refusal::bad_request(message));
    }
    Ok(())
}

fn unreadable(form: Form, error: &dyn std::fmt::Display) -> Refusal {
    let Form { api_version, kind, .. } = form;
    let version = api_version.rsplit('/').next().unwrap_or(api_version);
    Refusal::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use prost::Message;
    use proto::k8s::{core::v1::ConfigMap, meta::v1::DeleteOptions};

    use super::*;

    fn config_map() -> Form {
        Form::of(super::super::path::resource("", "v1", "configmaps").unwrap())
    }

    fn take(content_type: &str, body: &str, validation: FieldValidation) -> Result<Received> {
        object(Some(content_type), &Bytes::copy_from_slice(body.as_bytes()), config_map(), validation)
    }

    fn refused(content_type: &str, body: &str, validation: FieldValidation, expected: Expect) {
        let refusal = take(content_type, body, validation).unwrap_err();
        expected.assert_eq(&format!("{} {}", refusal.code(), refusal.message()));
    }

    #[test]
    fn the_same_object_is_read_from_every_form() {
        let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"v"}}"#;
        let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata:\n  k: v\n";
        let from_json = take("application/json", json, FieldValidation::Strict).unwrap().raw;
        assert_eq!(take("application/yaml", yaml, FieldValidation::Strict).unwrap().raw, from_json);
        let wrapped = Bytes::from(envelope::wrap("v1", "ConfigMap", &from_json));
        let protobuf =
            object(Some("application/vnd.kubernetes.protobuf"), &wrapped, config_map(), FieldValidation::Warn);
        assert_eq!(protobuf.unwrap().raw, from_json);
        assert_eq!(ConfigMap::decode(from_json).unwrap().data["k"], "v");
    }

    #[test]
    fn unknown_fields_are_refused_warned_of_or_passed_over() {
        let body = r#"{"metadata":{"name":"a","labells":{}},"dataa":{}}"#;
        refused(
            "application/json",
            body,
            FieldValidation::Strict,
            expect![[
                r#"400 ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "metadata.labells", unknown field "dataa""#
            ]],
        );
        let warned = take("application/json", body, FieldValidation::Warn).unwrap().warnings;
        expect![[r#"unknown field "metadata.labells" | unknown field "dataa""#]].assert_eq(&warned.join(" | "));
        assert!(take("application/json", body, FieldValidation::Ignore).unwrap().warnings.is_empty());
    }

    #[test]
    fn another_kind_is_refused() {
        refused(
            "application/json",
            r#"{"apiVersion":"v1","kind":"Secret"}"#,
            FieldValidation::Warn,
            expect![[r#"400 Secret in version "v1" cannot be handled as a ConfigMap: this path takes a ConfigMap"#]],
        );
        refused(
            "application/json",
            r#"{"apiVersion":"v2","kind":"ConfigMap"}"#,
            FieldValidation::Warn,
            expect!["400 the API version in the data (v2) does not match the expected API version (v1)"],
        );
    }

    #[test]
    fn what_is_no_object_is_refused_with_the_place() {
        refused(
            "application/json",
            r#"{"metadata":{"name":7}}"#,
            FieldValidation::Warn,
            expect![[
                r#"400 ConfigMap in version "v1" cannot be handled as a ConfigMap: cannot unmarshal number 7 into field metadata.name of type string"#
            ]],
        );
        refused(
            "application/yaml",
            "a: 1\n---\nb: 2\n",
            FieldValidation::Warn,
            expect!["400 the body has 2 YAML documents; exactly one is wanted"],
        );
        assert_eq!(take("application/json", "[", FieldValidation::Warn).unwrap_err().code(), 400);
        assert_eq!(take("application/xml", "<a/>", FieldValidation::Warn).unwrap_err().code(), 415);
        assert_eq!(take(super::super::accept::PROTOBUF, "{}", FieldValidation::Warn).unwrap_err().code(), 400);
    }

    #[test]
    fn options_may_be_left_out() {
        assert!(options(None, &Bytes::new(), "DeleteOptions").unwrap().is_empty());
        let body =
            Bytes::from_static(br#"{"kind":"DeleteOptions","apiVersion":"v1","propagationPolicy":"Background"}"#);
        let raw = options(Some("application/json"), &body, "DeleteOptions").unwrap();
        assert_eq!(DeleteOptions::decode(raw).unwrap().propagation_policy.as_deref(), Some("Background"));
        assert_eq!(options(None, &Bytes::from_static(b"{]"), "DeleteOptions").unwrap_err().code(), 400);
        let other = Bytes::from_static(br#"{"kind":"ConfigMap","apiVersion":"v1"}"#);
        assert_eq!(
            options(None, &other, "DeleteOptions").unwrap_err().message(),
            "ConfigMap cannot be handled as DeleteOptions"
        );
        let wrapped = Bytes::from(envelope::wrap("v1", "ConfigMap", &[]));
        let protobuf = Some("application/vnd.kubernetes.protobuf");
        assert_eq!(options(protobuf, &wrapped, "DeleteOptions").unwrap_err().code(), 400);
    }

    #[tokio::test]
    async fn a_body_beyond_the_bound_is_read_to_its_end_and_named_by_size_and_limit() {
        let mut sent =
            Body::from_stream(futures::stream::iter((0..4).map(|_| Ok::<_, std::io::Error>(vec![b'x'; 1 << 20]))));
        let refusal = read(&HeaderMap::new(), &mut sent).await.unwrap_err();
        assert_eq!(refusal.code(), 413);
        assert!(refusal.message().contains("4194304") && refusal.message().contains("3145728"), "{refusal}");
        let all = read(&HeaderMap::new(), &mut Body::from(vec![b'x'; SIZE_BYTES_MAX])).await.unwrap();
        assert_eq!(all.len(), SIZE_BYTES_MAX);
        // Nobody reads without end: beyond the bound the announced size is believed.
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_LENGTH, "1000000000".parse().unwrap());
        let mut endless =
            Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 1 << 20])));
        let refusal = read(&headers, &mut endless).await.unwrap_err();
        assert!(refusal.message().contains("1000000000"), "{refusal}");
        // Who asks first need not send at all.
        headers.insert(header::EXPECT, "100-continue".parse().unwrap());
        let mut never = Body::from_stream(futures::stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(&headers, &mut never).await.unwrap_err().code(), 413);
    }
}
