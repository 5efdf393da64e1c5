//! Three members of a store in three processes, and the clients that ask them.

use std::{
    collections::BTreeMap,
    fs,
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use proto::etcdserverpb::{
    HashKvRequest, MemberListRequest, PutRequest, PutResponse, RangeRequest, RangeResponse, StatusRequest,
    StatusResponse, cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use tonic::{
    Status,
    transport::{Channel, Endpoint},
};

/// Waits that only end a test that has gone wrong.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
pub const LOOK: Duration = Duration::from_millis(20);

pub struct Fleet {
    pub folder: tempfile::TempDir,
    pub members: BTreeMap<usize, Member>,
    /// Client and peer ports.
    ports: Vec<(u16, u16)>,
    scheme: &'static str,
    flags: Vec<String>,
}

pub struct Member {
    process: Child,
}

/// What a process came to that did not stay.
pub struct Ended {
    pub status: ExitStatus,
    pub said: String,
}

impl Fleet {
    pub fn new() -> Fleet {
        Fleet::with(&[])
    }

    /// Three members, not started yet, with flags for each.
    pub fn with(flags: &[&str]) -> Fleet {
        let ports = free_ports(6);
        let mut fleet = Fleet {
            folder: tempfile::tempdir().unwrap(),
            members: BTreeMap::new(),
            ports: ports.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
            scheme: "http",
            flags: Vec::new(),
        };
        fleet.flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        fleet
    }

    pub fn with_tls(flags: Vec<String>) -> Fleet {
        let mut fleet = Fleet::new();
        (fleet.scheme, fleet.flags) = ("https", flags);
        fleet
    }

    pub async fn started() -> Fleet {
        Fleet::started_with(&[]).await
    }

    pub async fn started_with(flags: &[&str]) -> Fleet {
        let mut fleet = Fleet::with(flags);
        for number in 1..=3 {
            fleet.start(number);
        }
        fleet.leader().await;
        fleet
    }

    pub fn data(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("n{number}"))
    }

    fn log(&self, number: usize) -> PathBuf {
        self.folder.path().join(format!("n{number}.log"))
    }

    /// What a member has logged in all its lives.
    pub fn said(&self, number: usize) -> String {
        fs::read_to_string(self.log(number)).unwrap_or_default()
    }

    /// The client address of a member, without a scheme.
    pub fn endpoint(&self, number: usize) -> String {
        format!("127.0.0.1:{}", self.ports[number - 1].0)
    }

    pub fn cluster(&self) -> String {
        let members = (1..=3).map(|number| format!("n{number}={}", self.peer_url(number)));
        members.collect::<Vec<_>>().join(",")
    }

    pub fn peer_url(&self, number: usize) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.ports[number - 1].1)
    }

    /// The command that starts a member, as its unit file has it.
    pub fn command(&self, number: usize) -> Command {
        let client = format!("http://{}", self.endpoint(number));
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log(number)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_raft-store"));
        command
            .env_clear()
            .env("FORESTAY_LOG", std::env::var("FORESTAY_LOG").unwrap_or("info,openraft=warn".to_owned()))
            .arg(format!("--name=n{number}"))
            .arg(format!("--data-dir={}", self.data(number).display()))
            .arg(format!("--listen-client-urls={client}"))
            .arg(format!("--advertise-client-urls={client}"))
            .arg(format!("--listen-peer-urls={}", self.peer_url(number)))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url(number)))
            .arg(format!("--initial-cluster={}", self.cluster()))
            .args(["--initial-cluster-state=new", "--initial-cluster-token=three"])
            // etcd's own: machines that run tests are busy.
            .args(["--heartbeat-interval=100", "--election-timeout=1000"])
            .args(&self.flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        command
    }

    pub fn start(&mut self, number: usize) {
        self.start_as(number, &[]);
    }

    /// Starts a member with flags of its own; the last one of a kind counts.
    pub fn start_as(&mut self, number: usize, flags: &[String]) {
        let process = self.command(number).args(flags).spawn().unwrap();
        self.members.insert(number, Member { process });
    }

    /// Runs a command that is expected to end by itself.
    pub fn run(&self, mut command: Command) -> Ended {
        let output = command.stderr(Stdio::piped()).output().unwrap();
        Ended { status: output.status, said: String::from_utf8_lossy(&output.stderr).into_owned() }
    }

    /// Sends a signal to a member's process: `KILL`, `STOP`, `CONT`, `TERM`.
    pub fn signal(&self, number: usize, name: &str) {
        let pid = self.members[&number].process.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    pub fn kill(&mut self, number: usize) {
        self.signal(number, "KILL");
        self.members.remove(&number).unwrap().process.wait().unwrap();
    }

    /// Asks a member to stop, and waits until it has.
    pub async fn stop(&mut self, number: usize) -> ExitStatus {
        self.signal(number, "TERM");
        let mut member = self.members.remove(&number).unwrap();
        tokio::task::spawn_blocking(move || member.process.wait().unwrap()).await.unwrap()
    }

    pub fn channel(&self, number: usize) -> Channel {
        Endpoint::from_shared(format!("http://{}", self.endpoint(number))).unwrap().connect_lazy()
    }

    pub async fn put(&self, number: usize, key: &str, value: &str) -> Result<PutResponse, Status> {
        let request = PutRequest { key: bytes(key), value: bytes(value), ..PutRequest::default() };
        Ok(KvClient::new(self.channel(number)).put(request).await?.into_inner())
    }

    pub async fn range(&self, number: usize, request: RangeRequest) -> Result<RangeResponse, Status> {
        Ok(KvClient::new(self.channel(number)).range(request).await?.into_inner())
    }

    /// The value of a key, read linearizably.
    pub async fn get(&self, number: usize, key: &str) -> Result<Option<String>, Status> {
        let found = self.range(number, RangeRequest { key: bytes(key), ..RangeRequest::default() }).await?;
        Ok(found.kvs.first().map(|kv| String::from_utf8(kv.value.to_vec()).unwrap()))
    }

    pub async fn status(&self, number: usize) -> Result<StatusResponse, Status> {
        Ok(MaintenanceClient::new(self.channel(number)).status(StatusRequest {}).await?.into_inner())
    }

    /// The member that leads, once all that run agree on one of them.
    pub async fn leader(&self) -> usize {
        let mut leader = None;
        eventually("all members that run name one leader", async || {
            let mut ids = BTreeMap::new();
            let mut leaders = Vec::new();
            for number in self.members.keys() {
                let Ok(status) = self.status(*number).await else { return false };
                ids.insert(status.header.unwrap().member_id, *number);
                leaders.push(status.leader);
            }
            leaders.dedup();
            leader = ids.get(&leaders[0]).copied().filter(|_| leaders.len() == 1);
            leader.is_some()
        })
        .await;
        leader.unwrap()
    }

    pub async fn followers(&self) -> Vec<usize> {
        let leader = self.leader().await;
        self.members.keys().copied().filter(|number| *number != leader).collect()
    }

    /// Every member has told the others of itself.
    pub async fn introduced(&self) {
        eventually("all members have introduced themselves", async || {
            let mut cluster = ClusterClient::new(self.channel(1));
            let list = cluster.member_list(MemberListRequest { linearizable: true }).await;
            list.is_ok_and(|list| list.into_inner().members.iter().all(|member| !member.client_ur_ls.is_empty()))
        })
        .await;
    }

    /// All three have applied the same and read the same.
    pub async fn alike(&self) {
        eventually("all members hold the same", async || {
            let mut seen = Vec::new();
            for number in 1..=3 {
                let Ok(status) = self.status(number).await else { return false };
                let mut maintenance = MaintenanceClient::new(self.channel(number));
                let Ok(hash) = maintenance.hash_kv(HashKvRequest::default()).await else { return false };
                let hash = hash.into_inner();
                seen.push((status.raft_applied_index, status.header.unwrap().revision, hash.hash, hash.hash_revision));
            }
            seen.windows(2).all(|pair| pair[0] == pair[1])
        })
        .await;
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in self.members.values_mut() {
            // One that has ended already is as good as killed.
            let _ = member.process.kill();
            let _ = member.process.wait();
        }
        if std::thread::panicking() {
            for number in 1..=3 {
                eprintln!("--- n{number}\n{}", self.said(number));
            }
        }
    }
}

/// Ports nobody listens on, below those the kernel gives to whoever connects: a member that is down keeps its own.
fn free_ports(count: usize) -> Vec<u16> {
    let mut ports = BTreeMap::new();
    while ports.len() < count {
        let port = rand::random_range(10_000..30_000);
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            ports.insert(port, listener);
        }
    }
    ports.into_keys().collect()
}

/// Waits for a condition.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !holds().await {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waited).await.unwrap_or_else(|_| panic!("waited in vain: {what}"));
}

pub fn bytes(text: &str) -> bytes::Bytes {
    text.as_bytes().to_vec().into()
}

pub fn everything() -> RangeRequest {
    RangeRequest { key: vec![0].into(), range_end: vec![0].into(), ..RangeRequest::default() }
}
