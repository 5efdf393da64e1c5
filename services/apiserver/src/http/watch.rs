//! Watches: one event after another, as lines of JSON or frames of protobuf, until the client or the time ends it.

use std::{convert::Infallible, sync::Arc, time::Duration};

use axum::{body::Body, response::Response};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::StatusCode;
use kit::clock::Clock;
use prost::{Message, encoding};
use proto::{
    envelope,
    k8s::meta::v1::{ListMeta, ObjectMeta, PartialObjectMetadata},
};
use serde_json::json;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep_until};

use super::{
    accept::{Encoding, View},
    answer::{self, Wanted},
    query::{Initial, Watch},
};
use crate::{
    api::{Batch, ChangeKind, Form, Stored, Watching},
    refusal::{Refusal, Result},
};

/// How often a client that asks for it learns how far its watch has come.
const BOOKMARK_PERIOD: Duration = Duration::from_secs(60);
/// How long a watch lasts where the client does not say; up to twice this, so that not all end at once.
const LIFETIME_MIN: Duration = Duration::from_secs(30 * 60);
/// The mark on the bookmark that ends the present state (KEP-3157).
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Answers a watch.
pub fn response(watching: Watching, watch: &Watch, form: Form, wanted: Wanted, clock: Arc<dyn Clock>) -> Response {
    let media_type = match wanted.encoding {
        Encoding::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        Encoding::Json | Encoding::Yaml => super::accept::JSON,
    };
    let lifetime =
        watch.timeout_seconds.map_or_else(|| LIFETIME_MIN.mul_f64(1.0 + rand::random::<f64>()), Duration::from_secs);
    let chunks = chunks(watching, watch.clone(), Writer::new(form, wanted, clock), lifetime);
    answer::response(StatusCode::OK, media_type, Body::from_stream(chunks.map(Ok::<_, Infallible>)))
}

struct Running {
    watching: Watching,
    watch: Watch,
    writer: Writer,
    /// What the client has seen all of; none before the present state is complete.
    seen: Option<u64>,
    bookmarks: Interval,
    ends: Instant,
    is_over: bool,
}

fn chunks(watching: Watching, watch: Watch, writer: Writer, lifetime: Duration) -> impl Stream<Item = Bytes> {
    let now = Instant::now();
    let mut bookmarks = interval_at(now + BOOKMARK_PERIOD, BOOKMARK_PERIOD);
    bookmarks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let seen = (watch.from > 0).then_some(watch.from);
    let running = Running { watching, watch, writer, seen, bookmarks, ends: now + lifetime, is_over: false };
    stream::unfold(running, |mut running| async move {
        let chunk = running.next().await?;
        Some((chunk, running))
    })
}

impl Running {
    /// The next bytes there are to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let mut out = Vec::new();
        while out.is_empty() && !self.is_over {
            tokio::select! {
                biased;
                batch = self.watching.next() => match batch {
                    Some(Ok(batch)) => self.take(&batch, &mut out),
                    Some(Err(refusal)) => self.fail(&refusal, &mut out),
                    None => self.is_over = true,
                },
                _ = self.bookmarks.tick() => self.bookmark(&mut out),
                () = sleep_until(self.ends) => {
                    self.bookmark(&mut out);
                    self.is_over = true;
                }
            }
        }
        (!out.is_empty()).then(|| out.into())
    }

    fn take(&mut self, batch: &Batch, out: &mut Vec<u8>) {
        let is_skipped = batch.initial && self.watch.initial == Initial::Skipped;
        for change in batch.changes.iter().filter(|_| !is_skipped) {
            let kind = match change.kind {
                ChangeKind::Added => "ADDED",
                ChangeKind::Modified => "MODIFIED",
                ChangeKind::Deleted => "DELETED",
            };
            if let Err(refusal) = self.writer.event(kind, &change.object, out) {
                return self.fail(&refusal, out);
            }
        }
        if !batch.initial {
            self.seen = Some(batch.revision);
        }
        if batch.synced && self.watch.initial == Initial::SentAndMarked {
            self.writer.bookmark(batch.revision, true, out);
        }
    }

    fn bookmark(&mut self, out: &mut Vec<u8>) {
        if let (true, Some(revision)) = (self.watch.bookmarks, self.seen) {
            self.writer.bookmark(revision, false, out);
        }
    }

    fn fail(&mut self, refusal: &Refusal, out: &mut Vec<u8>) {
        self.writer.error(refusal, out);
        self.is_over = true;
    }
}

/// Writes events in one client's form.
struct Writer {
    form: Form,
    wanted: Wanted,
    /// Ages are those at the moment of the event.
    clock: Arc<dyn Clock>,
    /// A Table's columns are sent with its first event only.
    has_columns: bool,
}

impl Writer {
    fn new(form: Form, wanted: Wanted, clock: Arc<dyn Clock>) -> Self {
        Self { form, wanted, clock, has_columns: false }
    }

    fn event(&mut self, kind: &str, object: &Stored, out: &mut Vec<u8>) -> Result<()> {
        match (self.wanted.view, self.wanted.encoding) {
            (View::Full, Encoding::Protobuf) => {
                let Form { api_version, kind: object_kind, .. } = object.form;
                frame(kind, &envelope::wrap(api_version, object_kind, &object.raw), out);
            }
            (View::Metadata, Encoding::Protobuf) => {
                let partial = answer::partial(object)?.encode_to_vec();
                frame(kind, &envelope::wrap("meta.k8s.io/v1", "PartialObjectMetadata", &partial), out);
            }
            (View::Full, _) => line(kind, &object.json()?, out),
            (View::Metadata, _) => line(kind, &answer::partial_json(object)?, out),
            (View::Table, _) => {
                let mut table = self.table_head(object.revision);
                table.extend_from_slice(&answer::row(object, self.wanted.at(self.clock.now().as_second()))?);
                table.extend_from_slice(b"]}");
                line(kind, &table, out);
            }
        }
        Ok(())
    }

    fn table_head(&mut self, revision: u64) -> Vec<u8> {
        let meta = ListMeta { resource_version: revision.to_string(), ..ListMeta::default() };
        if std::mem::replace(&mut self.has_columns, true) {
            return answer::table_head_without_columns(&meta);
        }
        answer::table_head(answer::sheet(self.form), &meta)
    }

    /// An object of the kind with nothing but a revision.
    fn bookmark(&mut self, revision: u64, ends_initial: bool, out: &mut Vec<u8>) {
        let Form { api_version, kind, .. } = self.form;
        let (api_version, kind) = if self.wanted.view == View::Metadata {
            ("meta.k8s.io/v1", "PartialObjectMetadata")
        } else {
            (api_version, kind)
        };
        if self.wanted.encoding == Encoding::Protobuf {
            let mut meta = ObjectMeta { resource_version: revision.to_string(), ..ObjectMeta::default() };
            if ends_initial {
                meta.annotations.insert(INITIAL_EVENTS_END.to_owned(), "true".to_owned());
            }
            // Metadata is field 1 of every kind.
            let raw = PartialObjectMetadata { metadata: Some(meta) }.encode_to_vec();
            return frame("BOOKMARK", &envelope::wrap(api_version, kind, &raw), out);
        }
        let mut metadata = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
        if ends_initial {
            metadata["annotations"] = json!({ INITIAL_EVENTS_END: "true" });
        }
        let mut object =
            json!({ "kind": kind, "apiVersion": api_version, "metadata": metadata }).to_string().into_bytes();
        if self.wanted.view == View::Table {
            let mut table = self.table_head(revision);
            // The mark travels on the row's object, where clients of tables look for it.
            if ends_initial {
                table.extend_from_slice(b"{\"cells\":[],\"object\":");
                table.append(&mut object);
                table.push(b'}');
            }
            table.extend_from_slice(b"]}");
            object = table;
        }
        line("BOOKMARK", &object, out);
    }

    fn error(&self, refusal: &Refusal, out: &mut Vec<u8>) {
        match self.wanted.encoding {
            Encoding::Protobuf => {
                frame("ERROR", &envelope::wrap("v1", "Status", &refusal.status().encode_to_vec()), out);
            }
            Encoding::Json | Encoding::Yaml => line("ERROR", &answer::status_json(refusal.status()), out),
        }
    }
}

fn line(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    out.reserve(object.len() + 40);
    out.extend_from_slice(b"{\"type\":\"");
    out.extend_from_slice(kind.as_bytes());
    out.extend_from_slice(b"\",\"object\":");
    out.extend_from_slice(object);
    out.extend_from_slice(b"}\n");
}

/// Four bytes of length, then `WatchEvent { type = 1, object = 2 { raw = 1 } }` without an envelope of its own.
fn frame(kind: &str, object: &[u8], out: &mut Vec<u8>) {
    let raw_len = 1 + encoding::encoded_len_varint(object.len() as u64) + object.len();
    let event_len = 1
        + encoding::encoded_len_varint(kind.len() as u64)
        + kind.len()
        + 1
        + encoding::encoded_len_varint(raw_len as u64)
        + raw_len;
    out.reserve(event_len + 4);
    // No object is near 4 GiB: the store bounds them.
    out.extend_from_slice(&(event_len as u32).to_be_bytes());
    encoding::string::encode(1, &kind.to_owned(), out);
    encoding::encode_key(2, encoding::WireType::LengthDelimited, out);
    encoding::encode_varint(raw_len as u64, out);
    encoding::encode_key(1, encoding::WireType::LengthDelimited, out);
    encoding::encode_varint(object.len() as u64, out);
    out.extend_from_slice(object);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use proto::k8s::{core::v1::ConfigMap, meta::v1::WatchEvent};

    use super::{
        super::{answer::Include, path},
        *,
    };
    use crate::api::Change;

    fn form() -> Form {
        Form::of(path::resource("", "v1", "configmaps").unwrap())
    }

    fn wanted(encoding: Encoding, view: View) -> Wanted {
        Wanted::new(encoding, view, Include::Nothing)
    }

    fn map(name: &str, revision: u64) -> Arc<Stored> {
        let mut object = ConfigMap::default();
        let meta = proto::Kind::meta_mut(&mut object);
        meta.name = name.to_owned();
        meta.resource_version = revision.to_string();
        let resource = path::resource("", "v1", "configmaps").unwrap();
        Arc::new(Stored::new(resource, revision, object.encode_to_vec().into()))
    }

    fn batch(revision: u64, changes: &[(ChangeKind, &str)]) -> Batch {
        let change = |(kind, name): &(ChangeKind, &str)| Change { kind: *kind, set: 0, object: map(name, revision) };
        Batch { revision, changes: changes.iter().map(change).collect(), initial: false, synced: false }
    }

    fn present(revision: u64) -> Vec<Result<Batch>> {
        let initial = Batch { initial: true, ..batch(revision, &[(ChangeKind::Added, "old")]) };
        vec![Ok(initial), Ok(Batch { synced: true, ..batch(revision, &[]) })]
    }

    async fn sent(batches: Vec<Result<Batch>>, watch: Watch, wanted: Wanted) -> Vec<u8> {
        let watching: Watching = stream::iter(batches).boxed();
        let writer = Writer::new(form(), wanted, kit::clock::system());
        chunks(watching, watch, writer, Duration::from_secs(9)).map(|chunk| chunk.to_vec()).concat().await
    }

    fn watch(from: u64, initial: Initial, bookmarks: bool) -> Watch {
        Watch { selection: crate::api::Selection::default(), from, initial, bookmarks, timeout_seconds: None }
    }

    #[tokio::test]
    async fn events_are_lines_of_json() {
        let batches = vec![
            Ok(batch(4, &[(ChangeKind::Added, "a")])),
            Ok(batch(5, &[])),
            Ok(batch(6, &[(ChangeKind::Modified, "a"), (ChangeKind::Deleted, "b")])),
        ];
        let lines = sent(batches, watch(3, Initial::Sent, false), wanted(Encoding::Json, View::Full)).await;
        expect![[r#"
            {"type":"ADDED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"4"}}}
            {"type":"MODIFIED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"a","resourceVersion":"6"}}}
            {"type":"DELETED","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"name":"b","resourceVersion":"6"}}}
        "#]]
        .assert_eq(&String::from_utf8(lines).unwrap());
    }

    #[tokio::test]
    async fn the_present_state_ends_with_a_marked_bookmark() {
        let lines =
            sent(present(7), watch(0, Initial::SentAndMarked, true), wanted(Encoding::Json, View::Metadata)).await;
        expect![[r#"
            {"type":"ADDED","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"name":"old","resourceVersion":"7"}}}
            {"type":"BOOKMARK","object":{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7","creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}}}}
        "#]]
        .assert_eq(&String::from_utf8(lines).unwrap());
        let skipped = sent(present(7), watch(0, Initial::Skipped, false), wanted(Encoding::Json, View::Full)).await;
        assert_eq!(String::from_utf8(skipped).unwrap(), "");
    }

    #[tokio::test]
    async fn compacted_history_is_an_error_event() {
        let batches = vec![Err(Refusal::expired("too old resource version: 3 (9)"))];
        let lines = sent(batches, watch(3, Initial::Sent, false), wanted(Encoding::Json, View::Table)).await;
        expect![[r#"
            {"type":"ERROR","object":{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"too old resource version: 3 (9)","reason":"Expired","code":410}}
        "#]]
        .assert_eq(&String::from_utf8(lines).unwrap());
    }

    #[tokio::test]
    async fn a_tables_columns_come_with_its_first_event() {
        let batches = vec![Ok(batch(4, &[(ChangeKind::Added, "a"), (ChangeKind::Added, "b")]))];
        let lines = sent(batches, watch(3, Initial::Sent, false), wanted(Encoding::Json, View::Table)).await;
        let lines = String::from_utf8(lines).unwrap();
        let tables: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(tables[0]["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
        assert!(tables[1]["object"]["columnDefinitions"].is_null());
        assert_eq!(tables[1]["object"]["rows"][0]["cells"], json!(["b", 0, "<unknown>"]));
    }

    #[tokio::test]
    async fn frames_of_protobuf_carry_enveloped_objects() {
        let batches = vec![Ok(batch(4, &[(ChangeKind::Added, "a")]))];
        let bytes = sent(batches, watch(3, Initial::Sent, false), wanted(Encoding::Protobuf, View::Full)).await;
        let length = u32::from_be_bytes(bytes[..4].try_into().unwrap());
        assert_eq!(length as usize, bytes.len() - 4);
        let event = WatchEvent::decode(&bytes[4..]).unwrap();
        assert_eq!(event.r#type, "ADDED");
        let (meta, raw) = envelope::unwrap(&event.object.unwrap().raw.into()).unwrap();
        assert_eq!(
            (meta.kind.as_str(), proto::Kind::meta(&ConfigMap::decode(raw).unwrap()).name.as_str()),
            ("ConfigMap", "a")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_ends_at_its_time_with_a_bookmark() {
        let watching: Watching = stream::iter(vec![Ok(batch(8, &[]))]).chain(stream::pending()).boxed();
        let writer = Writer::new(form(), wanted(Encoding::Json, View::Full), kit::clock::system());
        let chunks = chunks(watching, watch(3, Initial::Sent, true), writer, Duration::from_secs(130));
        let lines = chunks.map(|chunk| chunk.to_vec()).concat().await;
        let bookmark = r#"{"type":"BOOKMARK","object":{"kind":"ConfigMap","apiVersion":"v1","metadata":{"resourceVersion":"8","creationTimestamp":null}}}"#;
        assert_eq!(String::from_utf8(lines).unwrap(), format!("{bookmark}\n{bookmark}\n{bookmark}\n"));
    }
}
