//! The system calls of a real member: what it answers, it has synced before.
#![allow(clippy::unwrap_used)]

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use tonic::transport::Channel;

/// A member under strace; it does not outlive its test.
struct Member(Child);

impl Drop for Member {
    fn drop(&mut self) {
        // strace ends with the member; without strace the member would go on.
        self.signal("-KILL");
        let _ = self.0.wait();
    }
}

impl Member {
    fn start(folder: &Path, url: &str) -> Member {
        let child = Command::new("strace")
            .args(["-f", "-qq", "-y", "-s", "1024"])
            .args(["-e", "trace=write,pwrite64,writev,sendto,sendmsg,fdatasync,fsync", "-o"])
            .arg(folder.join("trace"))
            .arg(env!("CARGO_BIN_EXE_raft-store"))
            .arg("--data-dir")
            .arg(folder.join("store"))
            .args(["--listen-client-urls", url])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr")).unwrap())
            .spawn()
            .expect("run strace: install Debian's strace");
        Member(child)
    }

    /// Ends the member in order; strace ends with it.
    fn stop(&mut self) {
        self.signal("-TERM");
        self.0.wait().unwrap();
    }

    /// To the member, the only child of strace.
    fn signal(&self, signal: &str) {
        let id = self.0.id();
        let members = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
        let _ = Command::new("kill").arg(signal).args(members.split_whitespace()).stderr(Stdio::null()).status();
    }
}

fn mark(number: usize) -> String {
    format!("mark-{number:04}-")
}

/// Puts one value after the other on one key; each answer carries the value before.
async fn traced_puts(count: usize) -> String {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("http://{}", TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
    let mut member = Member::start(folder.path(), &url);
    let mut kv = KvClient::new(Channel::from_shared(url).unwrap().connect_lazy());
    let request =
        |value: String| PutRequest { key: "k".into(), value: value.into(), prev_kv: true, ..Default::default() };
    let started = async {
        while kv.put(request(mark(0))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    if tokio::time::timeout(Duration::from_secs(60), started).await.is_err() {
        panic!("the member does not answer: {}", fs::read_to_string(folder.path().join("stderr")).unwrap());
    }
    for number in 1..=count {
        let answer = kv.put(request(mark(number))).await.unwrap().into_inner();
        assert_eq!(answer.prev_kv.unwrap().value, mark(number - 1));
    }
    member.stop();
    fs::read_to_string(folder.path().join("trace")).unwrap()
}

/// One system call: the lines of the trace between which it ran, and what it was given.
struct Call {
    begun: usize,
    ended: usize,
    name: String,
    /// The file's path, or `socket:[...]`.
    file: String,
    text: String,
}

/// Reads a trace, in which a call that others overtake stands in two lines.
fn calls(trace: &str) -> Vec<Call> {
    let mut unfinished: BTreeMap<&str, Call> = BTreeMap::new();
    let mut calls = Vec::new();
    for (number, line) in trace.lines().enumerate() {
        let Some((thread, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        if rest.starts_with("<... ") {
            calls.extend(unfinished.remove(thread).map(|call| Call { ended: number, ..call }));
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let file = arguments.split_once('<').and_then(|(_, file)| file.split_once('>')).map_or("", |(file, _)| file);
        let call = Call { begun: number, ended: number, name: name.into(), file: file.into(), text: arguments.into() };
        if rest.ends_with("<unfinished ...>") {
            unfinished.insert(thread, call);
        } else {
            calls.push(call);
        }
    }
    calls
}

/// Puts whose answer was sent before the log had been written and synced; the trace must hold all three steps.
fn answered_too_early(trace: &str, count: usize) -> Vec<usize> {
    let calls = calls(trace);
    let is_log = |call: &&Call| call.file.contains("/store/log/") && call.file.ends_with(".log");
    (1..=count)
        .filter(|number| {
            let logged = calls.iter().filter(is_log).find(|call| call.text.contains(&mark(*number)));
            let logged = logged.unwrap_or_else(|| panic!("put {number} was never written to the log"));
            let answered = calls
                .iter()
                .find(|call| call.file.starts_with("socket:") && call.text.contains(&mark(number - 1)))
                .unwrap_or_else(|| panic!("put {number} was never answered"));
            !calls.iter().any(|call| {
                call.name == "fdatasync"
                    && call.file == logged.file
                    && logged.ended < call.begun
                    && call.ended < answered.begun
            })
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_is_written_and_synced_before_each_answer() {
    let trace = traced_puts(20).await;
    assert_eq!(answered_too_early(&trace, 20), Vec::<usize>::new());
    // The same trace as a member would leave that forgot to sync: this test would see it.
    let forgetful: Vec<&str> = trace.lines().filter(|line| !line.contains("fdatasync")).collect();
    assert_eq!(answered_too_early(&forgetful.join("\n"), 20), (1..=20).collect::<Vec<_>>());
}
