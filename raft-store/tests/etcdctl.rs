//! etcd's own command line against this store.
#![allow(clippy::unwrap_used)]

use std::{
    io::{BufRead, BufReader, Write},
    process::{Command, Stdio},
};

use raft_store::{Node, Options};
use tokio::net::TcpListener;

struct Store {
    endpoint: String,
    node: Node,
    _folder: tempfile::TempDir,
}

async fn store() -> Store {
    let folder = tempfile::tempdir().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    // Without a scheme: etcdctl 3.4 sends "http://..." as the authority of Status, which the h2 library refuses.
    let endpoint = listener.local_addr().unwrap().to_string();
    let options = Options {
        data_dir: folder.path().join("store"),
        advertise_client_urls: vec![format!("http://{endpoint}")],
        ..Options::default()
    };
    let node = Node::start(options).await.unwrap();
    let serving = node.clone();
    tokio::spawn(async move { serving.serve(listener, None).await.unwrap() });
    Store { endpoint, node, _folder: folder }
}

impl Store {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg("--endpoints").arg(&self.endpoint).args(args).stdin(Stdio::null());
        command
    }

    fn run(&self, args: &[&str]) -> String {
        self.run_with(args, "")
    }

    fn run_with(&self, args: &[&str], input: &str) -> String {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("run etcdctl: install Debian's etcd-client");
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_get_and_del_work() {
    let store = store().await;
    assert_eq!(store.run(&["put", "a/1", "one"]), "OK\n");
    assert_eq!(store.run(&["put", "a/2", "two"]), "OK\n");
    assert_eq!(store.run(&["get", "--prefix", "a/"]), "a/1\none\na/2\ntwo\n");
    assert_eq!(store.run(&["get", "--prefix", "a/", "--order", "DESCEND", "--keys-only", "--limit", "1"]), "a/2\n\n");
    assert_eq!(store.run(&["get", "a/1", "--rev", "2", "--print-value-only"]), "one\n");
    assert_eq!(store.run(&["del", "--prefix", "a/"]), "2\n");
    assert_eq!(store.run(&["get", "--prefix", "a/"]), "");
    store.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn txn_takes_the_path_its_compares_choose() {
    let store = store().await;
    store.run(&["put", "key", "1"]);
    let answer = store.run_with(&["txn"], "value(\"key\") = \"1\"\n\nput key 2\nget key\n\nput key 3\n\n");
    assert_eq!(answer, "SUCCESS\n\nOK\n\nkey\n2\n");
    let answer = store.run_with(&["txn"], "create(\"key\") = \"0\"\n\nput key 4\n\nget key\n\n");
    assert_eq!(answer, "FAILURE\n\nkey\n2\n");
    store.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn watch_hears_old_and_new_changes() {
    let store = store().await;
    store.run(&["put", "w", "1"]);
    let mut watch = store.command(&["watch", "w", "--rev", "2", "--prev-kv"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut hear = |count: usize| lines.by_ref().take(count).collect::<Vec<_>>();
    assert_eq!(hear(3), ["PUT", "w", "1"]);
    store.run(&["put", "w", "2"]);
    assert_eq!(hear(5), ["PUT", "w", "1", "w", "2"]);
    store.run(&["del", "w"]);
    assert_eq!(hear(5), ["DELETE", "w", "2", "w", ""]);
    watch.kill().unwrap();
    watch.wait().unwrap();
    store.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn leases_are_granted_kept_listed_and_revoked() {
    let store = store().await;
    let granted = store.run(&["lease", "grant", "60"]);
    let id = granted.split_whitespace().nth(1).unwrap().to_owned();
    assert_eq!(granted, format!("lease {id} granted with TTL(60s)\n"));
    assert_eq!(store.run(&["put", "leased", "1", "--lease", &id]), "OK\n");
    assert!(store.run(&["lease", "list"]).contains(&id));
    assert!(store.run(&["lease", "timetolive", "--keys", &id]).contains("attached keys([leased])"));
    assert_eq!(store.run(&["lease", "keep-alive", "--once", &id]), format!("lease {id} keepalived with TTL(60)\n"));
    assert_eq!(store.run(&["lease", "revoke", &id]), format!("lease {id} revoked\n"));
    assert_eq!(store.run(&["get", "leased"]), "");
    assert!(store.run(&["put", "x", "1", "--lease", &id]).contains("etcdserver: requested lease not found"));
    store.node.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn compaction_status_members_and_hash_answer() {
    let store = store().await;
    for value in ["1", "2", "3"] {
        store.run(&["put", "c", value]);
    }
    assert_eq!(store.run(&["compaction", "3", "--physical"]), "compacted revision 3\n");
    assert!(store.run(&["get", "c", "--rev", "2"]).contains("etcdserver: mvcc: required revision has been compacted"));
    let status = store.run(&["endpoint", "status", "-w", "fields"]);
    assert!(status.contains("\"Version\" : \"3.6.0\"") && status.contains("\"Revision\" : 4"), "{status}");
    assert!(status.contains(&format!("\"Leader\" : {}", store.node.member_id())), "{status}");
    assert!(store.run(&["endpoint", "health"]).contains("is healthy"));
    assert!(store.run(&["endpoint", "hashkv"]).contains(&store.endpoint));
    assert!(store.run(&["member", "list"]).contains(&format!("{:x}, started, default", store.node.member_id())));
    assert!(store.run(&["defrag"]).contains("Finished defragmenting"));
    assert_eq!(store.run(&["alarm", "list"]), "");
    assert!(store.run(&["member", "remove", "1"]).contains("not enough started members"));
    store.node.shutdown().await.unwrap();
}
