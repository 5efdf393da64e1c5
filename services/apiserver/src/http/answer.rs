//! Answers: objects, lists, tables and refusals in the form the client reads.

use axum::{body::Body, response::Response};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use model::table::{self, Cell, Sheet};
use prost::{Message, encoding};
use proto::{
    codec::{self, schema},
    envelope,
    k8s::meta::v1::{ListMeta, PartialObjectMetadata, Status},
};
use serde_json::{Value, json};

use super::{
    accept::{self, Accepted, Encoding, View},
    query::Query,
    yaml,
};
use crate::{
    api::{Form, Listed, Stored},
    refusal::{Refusal, Result},
};

/// Which part of an object goes with its row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Include {
    Nothing,
    Metadata,
    Object,
}

/// The form one client reads.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    pub encoding: Encoding,
    pub view: View,
    pub include: Include,
    pretty: bool,
    /// Seconds since 1970, for ages.
    pub now: i64,
}

impl Wanted {
    /// # Errors
    /// 406 where we have no form the client reads; 400 for parameters that are none.
    pub fn of(headers: &HeaderMap, query: &Query, now: i64) -> Result<Self> {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        let Accepted { encoding, view } = accept::negotiate(accept)?;
        let include = match query.get("includeObject") {
            None | Some("Metadata") => Include::Metadata,
            Some("None") => Include::Nothing,
            Some("Object") => Include::Object,
            Some(other) => {
                let message = format!(
                    "invalid value {other:?} of query parameter includeObject: must be None, Metadata or Object"
                );
                return Err(Refusal::bad_request(message));
            }
        };
        let agent = headers.get(header::USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let by_hand = ["curl", "Wget", "Mozilla/5.0"].iter().any(|name| agent.starts_with(name));
        let pretty = query.flag("pretty")?.unwrap_or(by_hand);
        Ok(Self { encoding, view, include, pretty, now })
    }

    /// The same at another time.
    pub fn at(self, now: i64) -> Self {
        Self { now, ..self }
    }

    #[cfg(test)]
    pub fn new(encoding: Encoding, view: View, include: Include) -> Self {
        Self { encoding, view, include, pretty: false, now: 0 }
    }

    /// For refusals: whatever was asked, a Status is shown whole.
    pub fn for_refusal(headers: &HeaderMap) -> Encoding {
        let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
        accept::negotiate(accept).map_or(Encoding::Json, |accepted| accepted.encoding)
    }
}

/// One object.
///
/// # Errors
/// Where its stored bytes are not its kind's message.
pub fn object(code: StatusCode, stored: &Stored, wanted: Wanted) -> Result<Response> {
    let bytes = match (wanted.view, wanted.encoding) {
        (View::Table, _) => {
            let mut out = table_head(sheet(stored.form), &list_meta(stored.revision, "", None));
            out.extend_from_slice(&row(stored, wanted)?);
            out.extend_from_slice(b"]}");
            out.into()
        }
        (View::Full, Encoding::Protobuf) => {
            envelope::wrap(stored.form.api_version, stored.form.kind, &stored.raw).into()
        }
        (View::Full, _) => stored.json()?,
        (View::Metadata, Encoding::Protobuf) => {
            envelope::wrap(META, "PartialObjectMetadata", &partial(stored)?.encode_to_vec()).into()
        }
        (View::Metadata, _) => partial_json(stored)?.into(),
    };
    finished(code, bytes, wanted)
}

const META: &str = "meta.k8s.io/v1";

/// A list, with the revision it stands at.
///
/// # Errors
/// Where stored bytes are not their kind's message.
pub fn list(form: Form, listed: &Listed, wanted: Wanted) -> Result<Response> {
    let meta = list_meta(listed.revision, &listed.continue_, listed.remaining);
    let bytes = match (wanted.view, wanted.encoding) {
        (View::Table, _) => {
            let rows = listed.items.iter().map(|stored| row(stored, wanted));
            joined(table_head(sheet(form), &meta), rows)?
        }
        (View::Full, Encoding::Protobuf) => {
            let kind = format!("{}List", form.kind);
            protobuf_list(form.api_version, &kind, &meta, listed.items.iter().map(|stored| Ok(stored.raw.clone())))?
        }
        (View::Full, _) => {
            let head = list_head(&format!("{}List", form.kind), form.api_version, &meta, "items");
            joined(head, listed.items.iter().map(Stored::json))?
        }
        (View::Metadata, Encoding::Protobuf) => {
            let items = listed.items.iter().map(|stored| Ok(partial(stored)?.encode_to_vec().into()));
            protobuf_list(META, "PartialObjectMetadataList", &meta, items)?
        }
        (View::Metadata, _) => {
            let head = list_head("PartialObjectMetadataList", META, &meta, "items");
            joined(head, listed.items.iter().map(|stored| partial_json(stored).map(Bytes::from)))?
        }
    };
    finished(StatusCode::OK, bytes.into(), wanted)
}

/// Any other document there is only a JSON form of; YAML where that is asked for.
///
/// # Errors
/// Never for a document that is JSON.
pub fn document(code: StatusCode, value: &Value, wanted: Wanted) -> Result<Response> {
    finished(code, value.to_string().into(), Wanted { encoding: text_encoding(wanted.encoding), ..wanted })
}

fn text_encoding(encoding: Encoding) -> Encoding {
    if encoding == Encoding::Protobuf { Encoding::Json } else { encoding }
}

/// A refusal as the Status it carries.
pub fn refusal(refusal: &Refusal, encoding: Encoding) -> Response {
    let code = StatusCode::from_u16(refusal.code()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut shown = refusal.status().clone();
    // kubectl reads details without asking whether there are any.
    shown.details.get_or_insert_default();
    let mut response = status(code, &shown, encoding);
    let retry = refusal.status().details.as_ref().map(|details| details.retry_after_seconds);
    if let Some(seconds) = retry.filter(|seconds| *seconds > 0) {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A Status, of success or of failure.
pub fn status(code: StatusCode, status: &Status, encoding: Encoding) -> Response {
    let bytes: Bytes = match encoding {
        Encoding::Protobuf => envelope::wrap("v1", "Status", &status.encode_to_vec()).into(),
        Encoding::Json => status_json(status).into(),
        Encoding::Yaml => yaml_of(&status_json(status)).unwrap_or_default().into(),
    };
    response(code, encoding.media_type(), bytes)
}

/// A Status as JSON.
pub fn status_json(status: &Status) -> Vec<u8> {
    let mut out = Vec::new();
    let message = schema().message("k8s.api.meta.v1.Status").expect("Status is in the schema");
    codec::proto_to_json(message, &status.encode_to_vec(), Some(("v1", "Status")), &mut out)
        .expect("an encoded Status is a Status");
    out
}

/// A response of bytes in a form.
pub fn response(code: StatusCode, media_type: &str, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = code;
    let media_type = HeaderValue::from_str(media_type).unwrap_or(HeaderValue::from_static(accept::JSON));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    response
}

/// Texts as `Warning` headers, each `299 - "..."`.
pub fn warn(response: &mut Response, warnings: &[String]) {
    for text in warnings {
        let mut value = String::from("299 - \"");
        for char in text.chars() {
            match char {
                '"' | '\\' => value.extend(['\\', char]),
                ' '..='~' => value.push(char),
                other => value.extend(other.escape_unicode()),
            }
        }
        value.push('"');
        if let Ok(value) = HeaderValue::from_str(&value) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

fn finished(code: StatusCode, bytes: Bytes, wanted: Wanted) -> Result<Response> {
    let bytes = match wanted.encoding {
        Encoding::Yaml => yaml_of(&bytes)?.into(),
        Encoding::Json if wanted.pretty => {
            let value: Value = serde_json::from_slice(&bytes).map_err(Refusal::internal)?;
            let mut text = serde_json::to_vec_pretty(&value).map_err(Refusal::internal)?;
            text.push(b'\n');
            text.into()
        }
        _ => bytes,
    };
    Ok(response(code, wanted.encoding.media_type(), bytes))
}

fn yaml_of(json: &[u8]) -> Result<String> {
    Ok(yaml::document(&serde_json::from_slice(json).map_err(Refusal::internal)?))
}

fn list_meta(revision: u64, continue_: &str, remaining: Option<i64>) -> ListMeta {
    ListMeta {
        resource_version: revision.to_string(),
        r#continue: continue_.to_owned(),
        remaining_item_count: remaining,
        ..ListMeta::default()
    }
}

fn list_meta_json(meta: &ListMeta) -> Value {
    let mut value = json!({ "resourceVersion": meta.resource_version });
    if !meta.r#continue.is_empty() {
        value["continue"] = meta.r#continue.as_str().into();
    }
    if let Some(remaining) = meta.remaining_item_count {
        value["remainingItemCount"] = remaining.into();
    }
    value
}

/// A list's beginning, up to and with the bracket of its elements.
fn list_head(kind: &str, api_version: &str, meta: &ListMeta, elements: &str) -> Vec<u8> {
    let meta = list_meta_json(meta);
    format!("{{\"kind\":\"{kind}\",\"apiVersion\":\"{api_version}\",\"metadata\":{meta},\"{elements}\":[").into_bytes()
}

fn joined(mut out: Vec<u8>, elements: impl Iterator<Item = Result<Bytes>>) -> Result<Vec<u8>> {
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(b',');
        }
        out.extend_from_slice(&element?);
    }
    out.extend_from_slice(b"]}");
    Ok(out)
}

/// Every list's message has its metadata at 1 and its items at 2.
fn protobuf_list(
    api_version: &str,
    kind: &str,
    meta: &ListMeta,
    items: impl Iterator<Item = Result<Bytes>>,
) -> Result<Vec<u8>> {
    let mut raw = Vec::new();
    encoding::message::encode(1, meta, &mut raw);
    for item in items {
        encoding::bytes::encode(2, &item?, &mut raw);
    }
    Ok(envelope::wrap(api_version, kind, &raw))
}

/// The object's metadata alone, as a message.
///
/// # Errors
/// Where its stored bytes are not its kind's message.
pub fn partial(stored: &Stored) -> Result<PartialObjectMetadata> {
    Ok(PartialObjectMetadata { metadata: Some(stored.metadata()?) })
}

/// The object's metadata alone, as JSON.
///
/// # Errors
/// As [`partial`].
pub fn partial_json(stored: &Stored) -> Result<Vec<u8>> {
    let message = schema().message("k8s.api.meta.v1.PartialObjectMetadata");
    let message = message.expect("PartialObjectMetadata is in the schema");
    let mut out = Vec::with_capacity(512);
    codec::proto_to_json(message, &stored.raw, Some((META, "PartialObjectMetadata")), &mut out)
        .map_err(Refusal::internal)?;
    Ok(out)
}

/// How the objects of a kind are shown.
pub fn sheet(form: Form) -> &'static Sheet {
    table::sheet(form.api_version, form.kind)
}

/// A Table's beginning, up to and with the bracket of its rows.
pub fn table_head(sheet: &Sheet, meta: &ListMeta) -> Vec<u8> {
    let column = |column: &table::Column| {
        json!({
            "name": column.name,
            "type": column.cell.type_name(),
            "format": column.cell.format(),
            "description": column.description,
            "priority": i32::from(column.wide),
        })
    };
    let columns: Value = sheet.columns.iter().map(column).collect();
    let meta = list_meta_json(meta);
    format!(
        "{{\"kind\":\"Table\",\"apiVersion\":\"{META}\",\"metadata\":{meta},\"columnDefinitions\":{columns},\"rows\":["
    )
    .into_bytes()
}

/// As [`table_head`], for a client that has the columns already.
pub fn table_head_without_columns(meta: &ListMeta) -> Vec<u8> {
    let meta = list_meta_json(meta);
    format!("{{\"kind\":\"Table\",\"apiVersion\":\"{META}\",\"metadata\":{meta},\"columnDefinitions\":null,\"rows\":[")
        .into_bytes()
}

/// One object as a Table's row; the usual form is rendered once for all who watch it.
///
/// # Errors
/// Where its stored bytes are not its kind's message.
pub fn row(stored: &Stored, wanted: Wanted) -> Result<Bytes> {
    if wanted.include == Include::Metadata {
        let shared = stored.row(|stored| rendered_row(stored, wanted).unwrap_or_default());
        if !shared.is_empty() {
            return Ok(shared);
        }
    }
    rendered_row(stored, wanted)
}

fn rendered_row(stored: &Stored, wanted: Wanted) -> Result<Bytes> {
    let row = sheet(stored.form).row(&stored.raw, wanted.now).map_err(Refusal::internal)?;
    let cell = |cell| match cell {
        Cell::Text(text) => Value::String(text),
        Cell::Integer(number) => number.into(),
    };
    let cells: Value = row.cells.into_iter().map(cell).collect();
    let mut out = format!("{{\"cells\":{cells}").into_bytes();
    if let Some(reason) = row.completed {
        let message = "The pod has run to its end.";
        let conditions = json!([{ "type": "Completed", "status": "True", "reason": reason, "message": message }]);
        out.extend_from_slice(format!(",\"conditions\":{conditions}").as_bytes());
    }
    let object: Bytes = match wanted.include {
        Include::Nothing => Bytes::from_static(b"null"),
        Include::Metadata => partial_json(stored)?.into(),
        Include::Object => stored.json()?,
    };
    out.extend_from_slice(b",\"object\":");
    out.extend_from_slice(&object);
    out.push(b'}');
    Ok(out.into())
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use http_body_util::BodyExt;
    use proto::k8s::core::v1::{Pod, PodStatus};

    use super::{super::path, *};

    fn pod(name: &str, phase: &str) -> Stored {
        let status = Some(PodStatus { phase: phase.to_owned(), ..Default::default() });
        let mut pod = Pod { status, ..Default::default() };
        let meta = proto::Kind::meta_mut(&mut pod);
        (meta.name, meta.namespace, meta.resource_version) = (name.to_owned(), "a".to_owned(), "7".to_owned());
        Stored::new(path::resource("", "v1", "pods").unwrap(), 7, pod.encode_to_vec().into())
    }

    async fn body(response: Response) -> Bytes {
        response.into_body().collect().await.unwrap().to_bytes()
    }

    async fn shown(encoding: Encoding, view: View, include: Include) -> Bytes {
        let listed = Listed {
            revision: 9,
            items: vec![pod("one", "Running"), pod("two", "Succeeded")],
            continue_: "next".to_owned(),
            remaining: Some(3),
        };
        let form = Form::of(path::resource("", "v1", "pods").unwrap());
        body(list(form, &listed, Wanted::new(encoding, view, include)).unwrap()).await
    }

    #[tokio::test]
    async fn a_list_stands_at_one_revision_and_says_what_is_left() {
        let text = shown(Encoding::Yaml, View::Metadata, Include::Metadata).await;
        expect![[r#"
            kind: PartialObjectMetadataList
            apiVersion: meta.k8s.io/v1
            metadata:
              resourceVersion: "9"
              continue: next
              remainingItemCount: 3
            items:
            - kind: PartialObjectMetadata
              apiVersion: meta.k8s.io/v1
              metadata:
                name: one
                namespace: a
                resourceVersion: "7"
            - kind: PartialObjectMetadata
              apiVersion: meta.k8s.io/v1
              metadata:
                name: two
                namespace: a
                resourceVersion: "7"
        "#]]
        .assert_eq(std::str::from_utf8(&text).unwrap());
    }

    #[tokio::test]
    async fn a_table_has_rows_with_as_much_of_the_object_as_asked_for() {
        let rows = |bytes: Bytes| {
            let table: Value = serde_json::from_slice(&bytes).unwrap();
            table["rows"].as_array().unwrap().iter().map(|row| format!("{row}\n")).collect::<String>()
        };
        expect![[r#"
            {"cells":["one","0/0","Running","0","<unknown>","<none>","<none>","<none>","<none>"],"object":null}
            {"cells":["two","0/0","Succeeded","0","<unknown>","<none>","<none>","<none>","<none>"],"conditions":[{"type":"Completed","status":"True","reason":"Succeeded","message":"The pod has run to its end."}],"object":null}
        "#]]
        .assert_eq(&rows(shown(Encoding::Json, View::Table, Include::Nothing).await));
        let with_metadata = rows(shown(Encoding::Json, View::Table, Include::Metadata).await);
        assert!(with_metadata.contains(r#""object":{"kind":"PartialObjectMetadata","#), "{with_metadata}");
        let with_object = rows(shown(Encoding::Json, View::Table, Include::Object).await);
        assert!(with_object.contains(r#""object":{"kind":"Pod","#), "{with_object}");
    }

    #[tokio::test]
    async fn protobuf_lists_are_enveloped_and_pass_stored_bytes_through() {
        let bytes = shown(Encoding::Protobuf, View::Full, Include::Metadata).await;
        let (meta, raw) = envelope::unwrap(&bytes).unwrap();
        assert_eq!((meta.api_version.as_str(), meta.kind.as_str()), ("v1", "PodList"));
        let list = proto::k8s::core::v1::PodList::decode(raw).unwrap();
        assert_eq!(list.metadata.unwrap().remaining_item_count, Some(3));
        assert_eq!(list.items[1].encode_to_vec(), pod("two", "Succeeded").raw);
    }

    #[tokio::test]
    async fn refusals_are_statuses_in_the_clients_form() {
        let busy = Refusal::too_many_requests("try later", 4);
        let response = refusal(&busy, Encoding::Json);
        assert_eq!(
            (response.status(), &response.headers()["retry-after"]),
            (StatusCode::TOO_MANY_REQUESTS, &HeaderValue::from(4))
        );
        expect![[
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"try later","reason":"TooManyRequests","details":{"retryAfterSeconds":4},"code":429}"#
        ]]
        .assert_eq(std::str::from_utf8(&body(response).await).unwrap());
        let (meta, raw) = envelope::unwrap(&body(refusal(&busy, Encoding::Protobuf)).await).unwrap();
        assert_eq!((meta.kind.as_str(), Status::decode(raw).unwrap().code), ("Status", 429));
    }

    #[test]
    fn warnings_are_quoted() {
        let mut response = response(StatusCode::OK, accept::JSON, "");
        warn(&mut response, &["unknown field \"spec.x\"".to_owned(), "naïve\n".to_owned()]);
        let values: Vec<_> =
            response.headers().get_all(header::WARNING).iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(values, [r#"299 - "unknown field \"spec.x\"""#, r#"299 - "na\u{ef}ve\u{a}""#]);
    }
}
