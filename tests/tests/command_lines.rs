//! `stay` and an unmodified `kubectl` on one cluster: what one of them wrote the other understands, and both say the same.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

use proto::k8s::core::v1::ReplicationController;
use serde_json::Value;
use tempfile::TempDir;
use tests::{
    cluster::{Cluster, binary},
    eventually,
};

/// A cluster with both command lines in front of it, and a folder with manifests.
struct Desk {
    cluster: Cluster,
    folder: TempDir,
}

impl Desk {
    /// None where there is no kubectl to compare with.
    async fn set_up() -> Option<Self> {
        if Command::new("kubectl").args(["version", "--client"]).output().is_err() {
            eprintln!("SKIPPED: kubectl is not installed");
            return None;
        }
        Some(Self { cluster: Cluster::start(&[]).await, folder: tempfile::tempdir().unwrap() })
    }

    fn file(&self, name: &str, text: &str) {
        fs::write(self.folder.path().join(name), text).unwrap();
    }

    /// Runs `stay` or `kubectl` among the manifests.
    fn run(&self, tool: &str, line: &str) -> Output {
        let program = if tool == "stay" { binary("stay").canonicalize().unwrap() } else { PathBuf::from(tool) };
        let mut command = Command::new(program);
        command.args(line.split_whitespace()).current_dir(self.folder.path());
        tokio::task::block_in_place(|| command.env("KUBECONFIG", self.cluster.kubeconfig()).output().unwrap())
    }

    /// What was printed by a command that must succeed.
    fn does(&self, tool: &str, line: &str) -> String {
        let output = self.run(tool, line);
        assert!(output.status.success(), "{tool} {line}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

const BEFORE: &str = "
apiVersion: v1
kind: ReplicationController
metadata:
  name: web
  labels: {app: web, tier: front}
  annotations: {note: first}
spec:
  replicas: 1
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:1
        env: [{name: A, value: '1'}, {name: B, value: '2'}]
        ports: [{containerPort: 80}, {containerPort: 81}]
      - {name: side, image: side:1}
      volumes: [{name: scratch, emptyDir: {}}]
      nodeSelector: {disk: fast}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, name: a}, {port: 81, name: b}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {a: '1', b: '2'}
";

const AFTER: &str = "
apiVersion: v1
kind: ReplicationController
metadata:
  name: web
  labels: {app: web}
spec:
  selector: {app: web}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: web:2
        env: [{name: B, value: '3'}]
        ports: [{containerPort: 81}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 81, name: b}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: web}
data: {b: '3'}
";

/// What is left of an object when all is gone that differs between two of the same making.
fn comparable(mut object: Value, namespace: &str) -> Value {
    for (path, fields) in [
        ("", &["status"][..]),
        ("/metadata", &["uid", "resourceVersion", "creationTimestamp", "managedFields"]),
        ("/spec", &["clusterIP", "clusterIPs"]),
    ] {
        if let Some(inside) = object.pointer_mut(path).and_then(Value::as_object_mut) {
            fields.iter().for_each(|field| drop(inside.shift_remove(*field)));
        }
    }
    serde_json::from_str(&object.to_string().replace(namespace, "NAMESPACE")).unwrap()
}

/// Applies one state with `first` and the next with `second`, with other people's changes between; gives what is there then.
fn applied(desk: &Desk, first: &str, second: &str) -> Vec<Value> {
    let namespace = format!("{first}-then-{second}");
    desk.does("kubectl", &format!("create namespace {namespace}"));
    let apply = |tool: &str, file: &str| desk.does(tool, &format!("apply -n {namespace} -f {file}"));
    apply(first, "before.yaml");
    desk.does("kubectl", &format!("label -n {namespace} rc web owner=me"));
    desk.does("kubectl", &format!(r#"patch -n {namespace} cm web --type=merge -p {{"data":{{"c":"other"}}}}"#));

    let lines = |done: &str| format!("replicationcontroller/web {done}\nservice/web {done}\nconfigmap/web {done}\n");
    assert_eq!(apply(second, "after.yaml"), lines("configured"), "{namespace}");
    for tool in [second, first] {
        assert_eq!(apply(tool, "after.yaml"), lines("unchanged"), "{namespace}, again with {tool}");
    }
    let list = desk.does("kubectl", &format!("get -n {namespace} rc,svc,cm web -o json"));
    let mut list: Value = serde_json::from_str(&list).unwrap();
    let objects = list["items"].as_array_mut().unwrap().drain(..);
    objects.map(|object| comparable(object, &namespace)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_sees_what_the_other_applied_and_no_longer_declares() {
    let Some(desk) = Desk::set_up().await else { return };
    desk.file("before.yaml", BEFORE);
    desk.file("after.yaml", AFTER);

    let expected = applied(&desk, "kubectl", "kubectl");
    let [controller, service, map] = &expected[..] else { panic!("{expected:?}") };
    assert_eq!(controller["metadata"]["labels"], serde_json::json!({"app": "web", "owner": "me"}));
    assert_eq!(controller["spec"]["template"]["spec"]["containers"].as_array().unwrap().len(), 1);
    assert_eq!(controller["spec"]["template"]["spec"]["nodeSelector"], Value::Null);
    assert_eq!(service["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(map["data"], serde_json::json!({"b": "3", "c": "other"}));

    for (first, second) in [("kubectl", "stay"), ("stay", "kubectl"), ("stay", "stay")] {
        assert_eq!(applied(&desk, first, second), expected, "{first}, then {second}");
    }
}

/// Words of an output: widths follow the ages, and ages go on between two commands. Each tool calls itself by its name.
fn words(text: &[u8]) -> Vec<Vec<String>> {
    let is_age = |word: &str| {
        word.ends_with(['s', 'm', 'h']) && word.starts_with(|c: char| c.is_ascii_digit()) && word.len() <= 6
    };
    let word = |word: &str| if is_age(word) { "AGE".to_owned() } else { word.to_owned() };
    let text = String::from_utf8_lossy(text).replace("kubectl", "stay");
    let lines = text.lines().map(|line| line.split_whitespace().map(word).collect::<Vec<_>>());
    lines.filter(|line| !line.is_empty()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_say_the_same_with_the_same_exit_code() {
    let Some(desk) = Desk::set_up().await else { return };
    desk.file(
        "web.yaml",
        &AFTER.replace(
            "spec:\n  selector: {app: web}\n  template",
            "spec:\n  replicas: 2\n  selector: {app: web}\n  template",
        ),
    );
    desk.does("stay", "apply -f web.yaml");
    eventually("the controller is ready", || async {
        let controller = desk.cluster.client.get::<ReplicationController>("default", "web").await.unwrap();
        (controller.status.unwrap_or_default().ready_replicas == 2).then_some(())
    })
    .await;

    let mut differ = Vec::new();
    for line in [
        "get pods",
        "get po,svc,rc -o wide",
        "get pods -A",
        "get rc/web svc/web",
        "get rc,svc,ep -o name",
        "get rc/web -o yaml",
        "get svc web -o json",
        "get cm -o yaml",
        "get pods -l app=web --show-labels -L app",
        "get pods -l app=none",
        "get pods -l none=none -o json",
        "get pods --field-selector status.phase=Running --no-headers",
        "get nodes -o wide",
        "get ns",
        "get events",
        "get -f web.yaml",
        "get cm nope",
        "get cm web nope",
        "get cm nope --ignore-not-found",
        "get rc web nope svc/web",
        "get cm web -A",
        "get cm web -l a=b",
        "get nothing-like-it",
        "-n elsewhere get pods",
        "apply -f web.yaml",
        "apply -f web.yaml --dry-run=server",
        "apply -f web.yaml -o name",
        "create -f web.yaml",
        "create -f web.yaml --dry-run=client -o yaml",
        "create -f web.yaml --dry-run=client -o json",
        "delete pods --all --dry-run=client",
        "delete pods,svc -l app=web --dry-run=server",
        "delete cm web --dry-run=client -o name",
        "delete cm web --grace-period=0 --dry-run=client",
        "delete cm nope",
        "delete cm nope --ignore-not-found",
        "delete cm",
        "scale rc/web --replicas=2",
        "scale rc web --replicas=2 -o name",
        "scale rc/web rc/nope --replicas=2",
        "scale --current-replicas=9 --replicas=1 rc/web",
        "exec rc/web -- ls",
        "api-resources --no-headers",
        "api-resources --categories=all -o name",
        "explain rc.spec.replicas",
        "explain deployments.apps.spec.replicas",
        "describe svc web",
        "describe rc web",
        "describe cm web",
        "describe ep web",
        "describe ns default",
        "describe pods -l app=none",
    ] {
        let (ours, theirs) = (desk.run("stay", line), desk.run("kubectl", line));
        let told = |output: &Output| (words(&output.stdout), words(&output.stderr), output.status.code());
        if told(&ours) != told(&theirs) {
            differ.push(format!("{line}\n{:?}\n{:?}", told(&ours), told(&theirs)));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}
