//! The door as clients meet it: requests over the whole router, on a real registry and an in-memory store.

use std::{sync::Arc, time::Duration};

use axum::{Router, body::Body};
use bytes::Bytes;
use expect_test::expect;
use futures::StreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt;
use prost::Message;
use proto::{envelope, k8s::core::v1::Namespace};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Options, Server, api::RequestContext, storage::testing::MemoryStore};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// The router with a master as the peer, on a cluster that has its first namespaces.
struct Door {
    router: Router,
    /// Keeps the tasks behind the door running.
    _server: Server,
}

impl Door {
    async fn open() -> Self {
        let server = Server::new(Options::default(), Arc::new(MemoryStore::new()));
        server.start().await;
        let door = Self { router: super::router(server.api().clone()), _server: server };
        let mut namespaces = Lines::of(door.send("GET", "/api/v1/namespaces?watch=true", &[], "").await);
        while namespaces.show().await != "ADDED default" {}
        door
    }

    async fn send(&self, method: &str, uri: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(uri).extension(Arc::new(RequestContext::own()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let router: Router = self.router.clone();
        router.oneshot(request.body(body.into()).unwrap()).await.unwrap()
    }

    async fn json(&self, method: &str, uri: &str, body: Value) -> (u16, Value) {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        read(self.send(method, uri, &[("content-type", "application/json")], body).await).await
    }

    async fn get(&self, uri: &str) -> (u16, Value) {
        self.json("GET", uri, Value::Null).await
    }

    async fn patch(&self, uri: &str, media_type: &str, body: Value) -> (u16, Value) {
        read(self.send("PATCH", uri, &[("content-type", media_type)], body.to_string()).await).await
    }

    async fn map(&self, name: &str) -> Value {
        let (code, map) = self.json("POST", MAPS, config_map(name)).await;
        assert_eq!(code, 201, "{map}");
        map
    }
}

fn config_map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": { "app": name } }, "data": { "k": "v" } })
}

async fn bytes(response: Response<Body>) -> Bytes {
    response.into_body().collect().await.unwrap().to_bytes()
}

async fn read(response: Response<Body>) -> (u16, Value) {
    let code = response.status().as_u16();
    (code, serde_json::from_slice(&bytes(response).await).unwrap())
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

fn refused((code, status): (u16, Value)) -> String {
    assert_eq!(status["kind"], "Status", "{status}");
    assert_eq!(status["code"], code);
    format!("{code} {}: {}", status["reason"].as_str().unwrap(), status["message"].as_str().unwrap())
}

#[tokio::test]
async fn an_object_lives_from_create_to_delete() {
    let door = Door::open().await;
    let made = door.map("a").await;
    assert!(made["metadata"]["uid"].is_string() && made["metadata"]["creationTimestamp"].is_string(), "{made}");
    let one = format!("{MAPS}/a");
    assert_eq!(door.get(&one).await, (200, made.clone()));
    let mut changed = made.clone();
    changed["data"]["k"] = "w".into();
    let (code, changed) = door.json("PUT", &one, changed).await;
    assert_eq!((code, &changed["data"]["k"]), (200, &json!("w")));
    assert!(revision(&changed) > revision(&made));
    let (code, gone) = door.json("DELETE", &one, json!({ "propagationPolicy": "Background" })).await;
    assert_eq!((code, &gone["status"], &gone["details"]["uid"]), (200, &json!("Success"), &made["metadata"]["uid"]));
    expect![[r#"404 NotFound: configmaps "a" not found"#]].assert_eq(&refused(door.get(&one).await));
}

#[tokio::test]
async fn refusals_carry_kubernetes_words() {
    let door = Door::open().await;
    let made = door.map("a").await;
    expect![[r#"409 AlreadyExists: configmaps "a" already exists"#]]
        .assert_eq(&refused(door.json("POST", MAPS, config_map("a")).await));
    let mut stale = made.clone();
    stale["data"]["k"] = "w".into();
    door.json("PUT", &format!("{MAPS}/a"), stale.clone()).await;
    expect![[
        r#"409 Conflict: Operation cannot be fulfilled on configmaps "a": the object has been modified; please apply your changes to the latest version and try again"#
    ]]
    .assert_eq(&refused(door.json("PUT", &format!("{MAPS}/a"), stale).await));
    expect!["404 NotFound: the server could not find the requested resource"]
        .assert_eq(&refused(door.get("/api/v1/namespaces/default/nosuch").await));
    expect!["404 NotFound: the server could not find the requested resource"]
        .assert_eq(&refused(door.get("/apis/nobody.example/v1").await));
    assert_eq!(
        refused(door.json("POST", "/api/v1/configmaps", config_map("b")).await).split(':').next(),
        Some("405 MethodNotAllowed")
    );
    assert_eq!(
        refused(door.json("POST", &format!("{MAPS}/a"), config_map("a")).await).split(':').next(),
        Some("405 MethodNotAllowed")
    );
    let answer = read(door.send("POST", MAPS, &[("content-type", "text/csv")], "a,b").await).await;
    assert_eq!(refused(answer).split(':').next(), Some("415 UnsupportedMediaType"));
    let answer = door.send("GET", MAPS, &[("accept", "image/png")], "").await;
    assert_eq!(refused(read(answer).await).split(':').next(), Some("406 NotAcceptable"));
    let answer = read(
        door.send("POST", MAPS, &[("content-type", "application/json")], vec![b' '; super::body::SIZE_BYTES_MAX + 1])
            .await,
    )
    .await;
    assert!(refused(answer).starts_with("413 RequestEntityTooLarge"));
}

#[tokio::test]
async fn strangers_are_refused_with_a_status() {
    let door = Door::open().await;
    let request = Request::get("/api/v1/namespaces/default/secrets").body(Body::empty()).unwrap();
    let answer = read(door.router.clone().oneshot(request).await.unwrap()).await;
    expect![[
        r#"403 Forbidden: secrets is forbidden: User "system:anonymous" cannot list resource "secrets" in API group "" in the namespace "default""#
    ]]
    .assert_eq(&refused(answer));
    let request = Request::get("/apis").body(Body::empty()).unwrap();
    assert_eq!(door.router.clone().oneshot(request).await.unwrap().status(), StatusCode::FORBIDDEN);
    let request = Request::get("/healthz").body(Body::empty()).unwrap();
    assert_eq!(bytes(door.router.clone().oneshot(request).await.unwrap()).await, "ok");
}

#[tokio::test]
async fn unknown_fields_are_refused_or_warned_of() {
    let door = Door::open().await;
    let mut odd = config_map("a");
    odd["dat"] = json!({});
    expect![[
        r#"400 BadRequest: ConfigMap in version "v1" cannot be handled as a ConfigMap: strict decoding error: unknown field "dat""#
    ]]
    .assert_eq(&refused(door.json("POST", &format!("{MAPS}?fieldValidation=Strict"), odd.clone()).await));
    let response = door.send("POST", MAPS, &[("content-type", "application/json")], odd.to_string()).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    assert_eq!(response.headers()[header::WARNING], r#"299 - "unknown field \"dat\"""#);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let door = Door::open().await;
    let (code, _) = door.json("POST", &format!("{MAPS}?dryRun=All"), config_map("a")).await;
    assert_eq!(code, 201);
    assert_eq!(door.get(&format!("{MAPS}/a")).await.0, 404);
}

#[tokio::test]
async fn patches_of_every_kind_change_the_object() {
    let door = Door::open().await;
    door.map("a").await;
    let one = format!("{MAPS}/a");
    let add = json!([{ "op": "add", "path": "/data/j", "value": "1" }]);
    let (code, map) = door.patch(&one, "application/json-patch+json", add).await;
    assert_eq!((code, &map["data"]), (200, &json!({ "j": "1", "k": "v" })));
    let (_, map) = door.patch(&one, "application/merge-patch+json", json!({ "data": { "k": null } })).await;
    assert_eq!(map["data"], json!({ "j": "1" }));
    let (_, map) = door
        .patch(&one, "application/strategic-merge-patch+json", json!({ "metadata": { "labels": { "x": "y" } } }))
        .await;
    assert_eq!(map["metadata"]["labels"], json!({ "app": "a", "x": "y" }));
    let before = revision(&map);
    let (_, map) = door.patch(&one, "application/merge-patch+json", json!({ "data": { "j": "1" } })).await;
    assert_eq!(revision(&map), before, "a patch that changes nothing writes nothing");
    assert_eq!(
        refused(door.patch(&one, "application/json", json!({})).await).split(':').next(),
        Some("415 UnsupportedMediaType")
    );
}

#[tokio::test]
async fn a_list_comes_in_pages_of_one_revision() {
    let door = Door::open().await;
    for name in ["a", "b", "c"] {
        door.map(name).await;
    }
    let (_, first) = door.get(&format!("{MAPS}?limit=2&labelSelector=app%20in%20(a,b,c)")).await;
    assert_eq!(first["kind"], "ConfigMapList");
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    door.map("d").await;
    let token = first["metadata"]["continue"].as_str().unwrap();
    let (_, second) = door.get(&format!("{MAPS}?limit=2&labelSelector=app%20in%20(a,b,c,d)&continue={token}")).await;
    let names: Vec<&str> =
        second["items"].as_array().unwrap().iter().map(|map| map["metadata"]["name"].as_str().unwrap()).collect();
    assert_eq!((names, revision(&second)), (vec!["c"], revision(&first)));
    let (_, one) = door.get(&format!("{MAPS}?fieldSelector=metadata.name%3Db")).await;
    assert_eq!(one["items"].as_array().unwrap().len(), 1);
    assert_eq!(door.get(&format!("{MAPS}?fieldSelector=data.k%3Dv")).await.0, 400);
}

#[tokio::test]
async fn kubectl_gets_a_table() {
    let door = Door::open().await;
    door.map("a").await;
    let (_, table) =
        read(door.send("GET", &format!("{MAPS}?labelSelector=app%3Da"), &[("accept", TABLE)], "").await).await;
    assert_eq!(table["kind"], "Table");
    let names: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["Name", "Data", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn protobuf_goes_in_and_comes_out() {
    let door = Door::open().await;
    let mut namespace = Namespace::default();
    proto::Kind::meta_mut(&mut namespace).name = "team".to_owned();
    let body = envelope::wrap("v1", "Namespace", &namespace.encode_to_vec());
    let headers = [("content-type", PROTOBUF), ("accept", "application/vnd.kubernetes.protobuf,application/json")];
    let response = door.send("POST", "/api/v1/namespaces", &headers, body).await;
    assert_eq!(
        (response.status(), &response.headers()[header::CONTENT_TYPE]),
        (StatusCode::CREATED, &PROTOBUF.parse().unwrap())
    );
    let (meta, raw) = envelope::unwrap(&bytes(response).await).unwrap();
    assert_eq!(meta.kind, "Namespace");
    assert_eq!(Namespace::decode(raw).unwrap().status.unwrap().phase, "Active");
    let refusal = door.send("GET", "/api/v1/namespaces/none", &[("accept", PROTOBUF)], "").await;
    assert_eq!(envelope::unwrap(&bytes(refusal).await).unwrap().0.kind, "Status");
}

#[tokio::test]
async fn yaml_goes_in_and_comes_out() {
    let door = Door::open().await;
    let body = "kind: ConfigMap\nmetadata:\n  name: a\ndata:\n  mode: \"0440\"\n";
    let headers = [("content-type", "application/yaml"), ("accept", "application/yaml")];
    let response = door.send("POST", MAPS, &headers, body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let text = String::from_utf8(bytes(response).await.to_vec()).unwrap();
    assert!(text.contains("data:\n  mode: \"0440\"\n"), "{text}");
}

/// Lines of a running watch.
struct Lines {
    body: axum::body::BodyDataStream,
    read: Vec<u8>,
}

impl Lines {
    fn of(response: Response<Body>) -> Self {
        assert_eq!(response.status(), StatusCode::OK);
        Self { body: response.into_body().into_data_stream(), read: Vec::new() }
    }

    async fn next(&mut self) -> Value {
        loop {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                return serde_json::from_slice(&line).unwrap();
            }
            let more = tokio::time::timeout(Duration::from_secs(20), self.body.next()).await.expect("an event comes");
            self.read.extend_from_slice(&more.expect("the watch goes on").unwrap());
        }
    }

    async fn show(&mut self) -> String {
        let event = self.next().await;
        format!(
            "{} {}",
            event["type"].as_str().unwrap(),
            event["object"]["metadata"]["name"].as_str().unwrap_or_default()
        )
    }
}

#[tokio::test]
async fn a_watch_tells_what_follows_a_list() {
    let door = Door::open().await;
    let first = door.map("a").await;
    let mut lines = Lines::of(
        door.send("GET", &format!("{MAPS}?watch=true&resourceVersion={}&labelSelector=app", revision(&first)), &[], "")
            .await,
    );
    door.map("b").await;
    door.patch(&format!("{MAPS}/b"), "application/merge-patch+json", json!({ "data": { "k": "w" } })).await;
    door.patch(
        &format!("{MAPS}/a"),
        "application/merge-patch+json",
        json!({ "metadata": { "labels": { "app": null } } }),
    )
    .await;
    door.json("DELETE", &format!("{MAPS}/b"), Value::Null).await;
    let told = [lines.show().await, lines.show().await, lines.show().await, lines.show().await];
    assert_eq!(told, ["ADDED b", "MODIFIED b", "DELETED a", "DELETED b"]);
}

#[tokio::test]
async fn a_watch_list_ends_its_present_state_with_a_marked_bookmark() {
    let door = Door::open().await;
    door.map("a").await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&labelSelector=app%3Da";
    let mut lines = Lines::of(door.send("GET", &format!("{MAPS}?{query}"), &[], "").await);
    assert_eq!(lines.show().await, "ADDED a");
    let bookmark = lines.next().await;
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert!(revision(&bookmark["object"]) > 0);
}

#[tokio::test]
async fn a_watch_ends_after_its_seconds_with_a_bookmark() {
    let door = Door::open().await;
    let made = door.map("a").await;
    let query = format!("watch=true&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion={}", revision(&made));
    let response = door.send("GET", &format!("{MAPS}?{query}"), &[], "").await;
    let text = String::from_utf8(bytes(response).await.to_vec()).unwrap();
    assert!(text.lines().last().unwrap().starts_with(r#"{"type":"BOOKMARK""#), "{text}");
}

#[tokio::test]
async fn scale_is_a_kind_of_its_own() {
    let door = Door::open().await;
    let template = json!({
        "metadata": { "labels": { "app": "web" } },
        "spec": { "containers": [{ "name": "c", "image": "web:1" }] },
    });
    let spec = json!({ "replicas": 2, "selector": { "app": "web" }, "template": template });
    let body = json!({ "metadata": { "name": "web" }, "spec": spec });
    let collection = "/api/v1/namespaces/default/replicationcontrollers";
    let (code, made) = door.json("POST", collection, body).await;
    assert_eq!(code, 201, "{made}");
    let scale = format!("{collection}/web/scale");
    let (_, present) = door.get(&scale).await;
    assert_eq!((&present["kind"], &present["spec"]["replicas"]), (&json!("Scale"), &json!(2)));
    let (code, changed) =
        door.patch(&scale, "application/merge-patch+json", json!({ "spec": { "replicas": 5 } })).await;
    assert_eq!((code, &changed["spec"]["replicas"]), (200, &json!(5)), "{changed}");
    assert_eq!(door.get(&format!("{collection}/web")).await.1["spec"]["replicas"], 5);
}

#[tokio::test]
async fn a_patch_that_does_not_suit_is_invalid_and_changes_nothing() {
    let door = Door::open().await;
    let made = door.map("a").await;
    let one = format!("{MAPS}/a");
    for media_type in ["application/merge-patch+json", "application/strategic-merge-patch+json"] {
        expect![[r#"422 Invalid: ConfigMap "a" is invalid: patch: cannot unmarshal number 7 into field data.k of type string"#]]
            .assert_eq(&refused(door.patch(&one, media_type, json!({ "data": { "k": 7 } })).await));
        let patch = r#"{"dataa":{},"data":{"k":"1","k":"2"}}"#;
        let send = |query: &str| {
            let uri = format!("{one}?{query}");
            let door = &door;
            async move { door.send("PATCH", &uri, &[("content-type", media_type)], patch).await }
        };
        expect![[r#"422 Invalid: ConfigMap "a" is invalid: [patch: strict decoding error: duplicate field "data.k", patch: strict decoding error: unknown field "dataa"]"#]]
            .assert_eq(&refused(read(send("fieldValidation=Strict").await).await));
        let warned = send("dryRun=All").await;
        assert_eq!(warned.status(), 200);
        let warnings: Vec<_> = warned.headers().get_all(header::WARNING).iter().collect();
        assert_eq!(warnings, [r#"299 - "duplicate field \"data.k\"""#, r#"299 - "unknown field \"dataa\"""#]);
    }
    assert_eq!(door.get(&one).await.1, made);
}

#[tokio::test]
async fn the_old_path_of_a_watch_watches_one_object_too() {
    let door = Door::open().await;
    door.map("a").await;
    door.map("b").await;
    let uri = "/api/v1/watch/namespaces/default/configmaps/b";
    let mut lines = Lines::of(door.send("GET", uri, &[], "").await);
    assert_eq!(lines.show().await, "ADDED b");
}

#[tokio::test]
async fn only_checks_that_are_made_are_answered() {
    let door = Door::open().await;
    for path in ["/healthz", "/livez/ping", "/readyz", "/readyz/store", "/healthz/etcd"] {
        assert_eq!(door.send("GET", path, &[], "").await.status(), 200, "{path}");
    }
    assert_eq!(door.get("/healthz/nosuch").await.0, 404);
}

#[tokio::test]
async fn a_misspelt_wish_deletes_nothing() {
    let door = Door::open().await;
    door.map("a").await;
    let one = format!("{MAPS}/a");
    expect![[
        r#"422 Invalid: DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Orphans": supported values: "Background", "Foreground", "Orphan""#
    ]]
    .assert_eq(&refused(door.json("DELETE", &one, json!({ "propagationPolicy": "Orphans" })).await));
    let both = json!({ "propagationPolicy": "Orphan", "orphanDependents": true });
    assert_eq!(door.json("DELETE", &one, both).await.0, 422);
    assert_eq!(door.json("DELETE", &one, json!({ "dryRun": ["all"] })).await.0, 422);
    assert_eq!(door.json("DELETE", &one, json!({ "kind": "ConfigMap", "apiVersion": "v1" })).await.0, 400);
    assert_eq!(door.json("DELETE", MAPS, json!({ "propagationPolicy": "Orphans" })).await.0, 422);
    assert_eq!(door.json("DELETE", &one, json!({ "dryRun": ["All"] })).await.0, 200);
    assert_eq!(door.get(&one).await.0, 200);
}

#[tokio::test]
async fn who_acts_as_another_may_what_the_other_may() {
    let door = Door::open().await;
    let as_jane = [("impersonate-user", "jane"), ("impersonate-group", "devs")];
    expect![[
        r#"403 Forbidden: configmaps is forbidden: User "jane" cannot list resource "configmaps" in API group "" in the namespace "default""#
    ]]
    .assert_eq(&refused(read(door.send("GET", MAPS, &as_jane, "").await).await));
    let review = door.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &as_jane, "{}").await;
    let (_, review) = read(review).await;
    assert_eq!(review["status"]["userInfo"]["username"], "jane", "{review}");
    // Who is nobody has nothing to ask about.
    let as_nobody = [("impersonate-user", "system:anonymous")];
    let review = door.send("POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", &as_nobody, "{}").await;
    assert_eq!(review.status(), 403);
}

#[tokio::test]
async fn a_pod_is_bound_to_a_node_and_evicted_by_its_own_name() {
    let door = Door::open().await;
    let body = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let pods = "/api/v1/namespaces/default/pods";
    assert_eq!(door.json("POST", pods, body).await.0, 201);
    let binding = format!("{pods}/p/binding");
    expect![[r#"422 Invalid: Binding "p" is invalid: [target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>", target.name: Required value]"#]]
        .assert_eq(&refused(door.json("POST", &binding, json!({ "target": { "kind": "Pod" } })).await));
    let bound = door.json("POST", &binding, json!({ "target": { "kind": "Node", "name": "n1" } })).await;
    assert_eq!(bound.0, 201, "{}", bound.1);
    let eviction = format!("{pods}/p/eviction");
    let other = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": "q" } });
    expect!["400 BadRequest: the name of the object (q) does not match the name on the URL (p)"]
        .assert_eq(&refused(door.json("POST", &eviction, other).await));
    assert!(door.get(&format!("{pods}/p")).await.1["metadata"]["deletionTimestamp"].is_null());
}

#[tokio::test]
async fn a_collection_is_deleted_by_its_labels() {
    let door = Door::open().await;
    for name in ["a", "b"] {
        door.map(name).await;
    }
    let (code, deleted) = door.json("DELETE", &format!("{MAPS}?labelSelector=app%3Da"), Value::Null).await;
    assert_eq!((code, deleted["items"].as_array().unwrap().len()), (200, 1));
    assert_eq!((door.get(&format!("{MAPS}/a")).await.0, door.get(&format!("{MAPS}/b")).await.0), (404, 200));
}

#[tokio::test]
async fn discovery_names_only_what_is_served() {
    let door = Door::open().await;
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let response = door.send("GET", "/api", &[("accept", accept)], "").await;
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    );
    let (_, core) = read(response).await;
    for resource in core["items"][0]["versions"][0]["resources"].as_array().unwrap() {
        let verbs = resource["verbs"].as_array().unwrap();
        if verbs.contains(&json!("list")) {
            let path = format!("/api/v1/{}", resource["resource"].as_str().unwrap());
            assert_eq!(door.get(&path).await.0, 200, "{path}");
        }
    }
    let (_, version) = door.get("/version").await;
    assert_eq!((&version["major"], &version["minor"]), (&json!("1"), &json!("36")));
}

#[tokio::test]
async fn openapi_documents_may_be_kept_for_ever() {
    let door = Door::open().await;
    let (_, index) = door.get("/openapi/v3").await;
    let url = index["paths"]["api/v1"]["serverRelativeURL"].as_str().unwrap();
    let response = door.send("GET", url, &[], "").await;
    assert_eq!(response.headers()[header::CACHE_CONTROL], "public, immutable, max-age=31536000");
    let tag = response.headers()[header::ETAG].to_str().unwrap().to_owned();
    let known = door.send("GET", url, &[("if-none-match", &tag)], "").await;
    assert_eq!(known.status(), StatusCode::NOT_MODIFIED);
    assert_eq!(door.get("/openapi/v2").await.0, 404);
    let older = door.send("GET", "/openapi/v2", &[("accept", super::openapi::V2_MEDIA_TYPE)], "").await;
    assert_eq!(older.headers()[header::CONTENT_TYPE], super::openapi::V2_ANSWER_TYPE);
}

#[tokio::test]
async fn clients_ask_what_they_may() {
    let door = Door::open().await;
    let body =
        json!({ "spec": { "resourceAttributes": { "verb": "get", "resource": "pods", "namespace": "default" } } });
    let (code, review) = door.json("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", body).await;
    assert_eq!((code, &review["status"]["allowed"]), (201, &json!(true)), "{review}");
}

#[tokio::test]
async fn logs_of_a_pod_without_a_node_are_refused() {
    let door = Door::open().await;
    let body = json!({ "metadata": { "name": "p" }, "spec": { "containers": [{ "name": "c", "image": "i" }] } });
    let (code, pod) = door.json("POST", "/api/v1/namespaces/default/pods", body).await;
    assert_eq!(code, 201, "{pod}");
    expect!["400 BadRequest: pod p does not have a host assigned"]
        .assert_eq(&refused(door.get("/api/v1/namespaces/default/pods/p/log").await));
    let exec = "/api/v1/namespaces/default/pods/p/exec?command=ls";
    expect!["400 BadRequest: pod p does not have a host assigned"].assert_eq(&refused(door.get(exec).await));
}
