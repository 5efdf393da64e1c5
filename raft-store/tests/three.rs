//! A store of three members in three processes: one store to its clients, whatever happens to one of them.
#![allow(clippy::unwrap_used)]

mod fleet;

use std::{
    collections::BTreeMap,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use fleet::{Fleet, bytes, eventually, everything};
use kit::tls::{Ca, Subject, Usage};
use proto::{
    etcdserverpb::{
        LeaseGrantRequest, LeaseKeepAliveRequest, LeaseTimeToLiveRequest, MemberListRequest, MoveLeaderRequest,
        PutRequest, RangeRequest, WatchCreateRequest, WatchRequest, WatchResponse, cluster_client::ClusterClient,
        kv_client::KvClient, lease_client::LeaseClient, maintenance_client::MaintenanceClient,
        watch_client::WatchClient, watch_request::RequestUnion,
    },
    forestay::raft::v1::{RecognizeRequest, Route, raft_client::RaftClient},
    mvccpb::event::EventType,
};
use tonic::{Code, Request, Status, Streaming, transport::Endpoint};

fn etcdctl(fleet: &Fleet, number: usize, args: &[&str]) -> String {
    let mut command = Command::new("etcdctl");
    let output = command
        .env("ETCDCTL_API", "3")
        .args(["--endpoints", &fleet.endpoint(number)])
        .args(args)
        .output()
        .expect("run etcdctl: install Debian's etcd-client");
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_member_takes_every_request() {
    let fleet = Fleet::started().await;
    for number in 1..=3 {
        let (key, value) = (format!("k{number}"), format!("v{number}"));
        fleet.put(number, &key, &value).await.unwrap();
        for other in 1..=3 {
            assert_eq!(fleet.get(other, &key).await.unwrap(), Some(value.clone()), "{key} on n{other}");
        }
        assert_eq!(etcdctl(&fleet, number, &["put", "ctl", &value]), "OK\n");
        assert_eq!(etcdctl(&fleet, number, &["get", "ctl", "--print-value-only"]), format!("{value}\n"));
        assert!(etcdctl(&fleet, number, &["endpoint", "health"]).contains("is healthy"));
    }
    fleet.introduced().await;
    let mut lists = Vec::new();
    for number in 1..=3 {
        let mut cluster = ClusterClient::new(fleet.channel(number));
        lists.push(cluster.member_list(MemberListRequest { linearizable: true }).await.unwrap().into_inner().members);
    }
    let list = lists.pop().unwrap();
    assert!(lists.iter().all(|other| *other == list), "{lists:?}");
    assert_eq!(list.iter().map(|member| member.name.as_str()).collect::<std::collections::BTreeSet<_>>().len(), 3);
    for member in &list {
        let number: usize = member.name[1..].parse().unwrap();
        assert_eq!(member.peer_ur_ls, [fleet.peer_url(number)]);
        assert_eq!(member.client_ur_ls, [format!("http://{}", fleet.endpoint(number))]);
        assert_eq!(member.id, fleet.status(number).await.unwrap().header.unwrap().member_id);
    }
    assert_eq!(etcdctl(&fleet, 1, &["member", "list"]).matches("started").count(), 3);
    fleet.alike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_reads_what_it_answered_for_and_what_others_did() {
    let fleet = Fleet::started().await;
    let followers = fleet.followers().await;
    let writers = (0..8).map(|writer| {
        let fleet = &fleet;
        let (here, there) = (followers[writer % 2], followers[(writer + 1) % 2]);
        async move {
            for value in 0..25 {
                let key = format!("w{writer}");
                let put = fleet.put(here, &key, &value.to_string()).await.unwrap().header.unwrap();
                let local = RangeRequest { key: bytes(&key), serializable: true, ..RangeRequest::default() };
                let own = fleet.range(here, local).await.unwrap();
                assert!(own.kvs[0].mod_revision >= put.revision, "n{here} answered before it had applied");
                assert_eq!(fleet.get(there, &key).await.unwrap(), Some(value.to_string()), "stale read on n{there}");
            }
        }
    });
    futures::future::join_all(writers).await;
    fleet.alike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_on_one_member_hears_writes_on_another() {
    let fleet = Fleet::started().await;
    let followers = fleet.followers().await;
    let create = WatchCreateRequest { key: bytes("w"), start_revision: 1, ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
    let mut watch = WatchClient::new(fleet.channel(followers[0])).watch(requests).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    for value in ["1", "2", "3"] {
        fleet.put(followers[1], "w", value).await.unwrap();
    }
    let mut heard = Vec::new();
    while heard.len() < 3 {
        let events = watch.message().await.unwrap().unwrap().events;
        assert!(events.iter().all(|event| event.r#type() == EventType::Put));
        heard.extend(events.into_iter().map(|event| event.kv.unwrap().value));
    }
    assert_eq!(heard, ["1", "2", "3"]);
}

/// Writers on all members; each key is written once, so that what was acknowledged can be counted.
struct Writers {
    stop: Arc<AtomicBool>,
    acknowledged: Arc<AtomicUsize>,
    tasks: Vec<tokio::task::JoinHandle<Vec<String>>>,
}

impl Writers {
    fn start(fleet: &Fleet) -> Writers {
        let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let tasks = (0..9).map(|writer| {
            let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
            let mut kv = KvClient::new(fleet.channel(writer % 3 + 1));
            tokio::spawn(async move {
                let mut written = Vec::new();
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let key = format!("w{writer}/{number:06}");
                    let put = PutRequest { key: bytes(&key), value: bytes("v"), ..PutRequest::default() };
                    match tokio::time::timeout(Duration::from_secs(10), kv.put(put)).await {
                        Ok(Ok(_)) => {
                            acknowledged.fetch_add(1, Ordering::Relaxed);
                            written.push(key);
                        }
                        // The member is down, or does not know what became of the write.
                        _ => tokio::time::sleep(Duration::from_millis(20)).await,
                    }
                }
                written
            })
        });
        Writers { tasks: tasks.collect(), stop, acknowledged }
    }

    /// Returns once `count` more writes were acknowledged.
    async fn more(&self, count: usize) {
        let goal = self.acknowledged.load(Ordering::Relaxed) + count;
        eventually("writes go on", async || self.acknowledged.load(Ordering::Relaxed) >= goal).await;
    }

    async fn finish(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Vec::new();
        for task in self.tasks {
            all.extend(task.await.unwrap());
        }
        all
    }
}

async fn check_written(fleet: &Fleet, written: &[String]) {
    fleet.alike().await;
    for number in 1..=3 {
        let found = fleet.range(number, RangeRequest { keys_only: true, ..everything() }).await.unwrap();
        let keys: std::collections::BTreeSet<Vec<u8>> = found.kvs.into_iter().map(|kv| kv.key.to_vec()).collect();
        let lost: Vec<_> = written.iter().filter(|key| !keys.contains(key.as_bytes())).collect();
        assert!(lost.is_empty(), "n{number} lost {} acknowledged writes: {lost:?}", lost.len());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_leader_takes_no_acknowledged_write_with_it() {
    let mut fleet = Fleet::started().await;
    let writers = Writers::start(&fleet);
    writers.more(200).await;
    for _ in 0..2 {
        let leader = fleet.leader().await;
        fleet.kill(leader);
        let killed = Instant::now();
        writers.more(200).await;
        println!("200 writes after {:?}", killed.elapsed());
        fleet.start(leader);
        eventually("the killed member is back", async || fleet.status(leader).await.is_ok()).await;
        writers.more(100).await;
    }
    let written = writers.finish().await;
    check_written(&fleet, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_for_long_is_filled_by_a_snapshot() {
    let mut fleet = Fleet::started_with(&["--snapshot-count=100", "--snapshot-catchup-entries=20"]).await;
    fleet.put(1, "early", "1").await.unwrap();
    fleet.alike().await;
    let away = fleet.followers().await[0];
    fleet.kill(away);
    let up: Vec<usize> = fleet.members.keys().copied().collect();
    let mut written = Vec::new();
    for number in 0..600 {
        let key = format!("late{number:04}");
        fleet.put(up[number % 2], &key, &"v".repeat(2_000)).await.unwrap();
        written.push(key);
    }
    // A leader that was restarted has dropped the log as well, and has to make the snapshot anew.
    for number in &up {
        fleet.kill(*number);
    }
    for number in &up {
        fleet.start(*number);
    }
    fleet.leader().await;
    fleet.start(away);
    check_written(&fleet, &written).await;
    assert!(fleet.said(away).contains("snapshot installed"), "n{away} caught up without a snapshot");
    // What came by snapshot has to last as well.
    fleet.kill(away);
    fleet.start(away);
    fleet.put(away, "again", "1").await.unwrap_or_default();
    check_written(&fleet, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_was_paused_reads_nothing_stale() {
    let fleet = Fleet::started().await;
    let paused = fleet.leader().await;
    fleet.put(paused, "k", "old").await.unwrap();
    let others: Vec<usize> = (1..=3).filter(|number| *number != paused).collect();
    let mut there = KvClient::new(
        Endpoint::from_shared(format!("http://{}", fleet.endpoint(paused))).unwrap().connect().await.unwrap(),
    );
    fleet.signal(paused, "STOP");
    eventually("the others write without it", async || fleet.put(others[0], "k", "new").await.is_ok()).await;
    // Asked before it runs again, so that it is the first thing it does.
    let question =
        tokio::spawn(async move { there.range(RangeRequest { key: bytes("k"), ..RangeRequest::default() }).await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    fleet.signal(paused, "CONT");
    if let Ok(answer) = question.await.unwrap() {
        assert_eq!(answer.into_inner().kvs[0].value, "new", "a stale read of the paused leader");
    }
    for _ in 0..50 {
        if let Ok(value) = fleet.get(paused, "k").await {
            assert_eq!(value.as_deref(), Some("new"), "a stale read after the pause");
        }
    }
    fleet.alike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_stopped_gives_the_lead_away_first() {
    let mut fleet = Fleet::started().await;
    let writers = Writers::start(&fleet);
    writers.more(100).await;
    let leader = fleet.leader().await;
    let term = fleet.status(leader).await.unwrap().raft_term;
    assert!(fleet.stop(leader).await.success());
    assert!(fleet.said(leader).contains("the lead was given to another member"));
    let next = fleet.leader().await;
    assert_eq!(fleet.status(next).await.unwrap().raft_term, term + 1, "it took more than one election");
    writers.more(100).await;
    fleet.start(leader);
    let written = writers.finish().await;
    check_written(&fleet, &written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_moves_where_it_is_told_to() {
    let fleet = Fleet::started().await;
    let leader = fleet.leader().await;
    let next = fleet.followers().await[0];
    let target_id = fleet.status(next).await.unwrap().header.unwrap().member_id;
    let refused = MaintenanceClient::new(fleet.channel(next)).move_leader(MoveLeaderRequest { target_id }).await;
    assert_eq!(refused.unwrap_err().message(), "etcdserver: not leader");
    let mut maintenance = MaintenanceClient::new(fleet.channel(leader));
    let nobody = maintenance.move_leader(MoveLeaderRequest { target_id: 1 }).await.unwrap_err();
    assert_eq!((nobody.code(), nobody.message()), (Code::FailedPrecondition, "etcdserver: bad leader transferee"));
    maintenance.move_leader(MoveLeaderRequest { target_id }).await.unwrap();
    assert_eq!(fleet.leader().await, next);
    fleet.put(leader, "k", "1").await.unwrap();
    fleet.alike().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_is_kept_on_any_member_and_outlives_the_leader() {
    let mut fleet = Fleet::started().await;
    let followers = fleet.followers().await;
    let mut leases = LeaseClient::new(fleet.channel(followers[0]));
    let grant = |ttl| LeaseGrantRequest { ttl, id: 0 };
    let (kept, left) = (
        leases.lease_grant(grant(5)).await.unwrap().into_inner().id,
        leases.lease_grant(grant(2)).await.unwrap().into_inner().id,
    );
    for (key, lease) in [("kept", kept), ("left", left)] {
        let put = PutRequest { key: bytes(key), value: bytes("1"), lease, ..PutRequest::default() };
        KvClient::new(fleet.channel(followers[1])).put(put).await.unwrap();
    }
    let keep = async |leases: &mut LeaseClient<_>| -> Result<i64, Status> {
        let once = futures::stream::iter([LeaseKeepAliveRequest { id: kept }]);
        let mut answers = leases.lease_keep_alive(once).await?.into_inner();
        Ok(answers.message().await?.map_or(0, |answer| answer.ttl))
    };
    assert_eq!(keep(&mut leases).await.unwrap(), 5);
    let asked = LeaseTimeToLiveRequest { id: kept, keys: true };
    let told = leases.lease_time_to_live(asked).await.unwrap().into_inner();
    assert_eq!((told.granted_ttl, told.keys), (5, vec![bytes("kept")]));
    let leader = fleet.leader().await;
    fleet.kill(leader);
    eventually("the new leader ends the lease nobody keeps", async || {
        // One that was killed answers nothing; one that leads has to know the lease.
        if let Ok(ttl) = keep(&mut leases).await {
            assert_eq!(ttl, 5, "a lease that was kept has ended");
        }
        matches!(fleet.get(followers[1], "left").await, Ok(None))
    })
    .await;
    assert_eq!(fleet.get(followers[0], "kept").await.unwrap(), Some("1".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_nothing_is_written_and_serializable_reads_go_on() {
    let mut fleet = Fleet::started().await;
    fleet.put(1, "k", "1").await.unwrap();
    fleet.alike().await;
    let (mut patient, mut impatient) = (watching(&fleet, 1, false).await, watching(&fleet, 1, true).await);
    for number in [2, 3] {
        fleet.kill(number);
    }
    let canceled = impatient.message().await.unwrap_err();
    assert_eq!((canceled.code(), canceled.message()), (Code::Unavailable, "etcdserver: no leader"));
    let refused = fleet.put(1, "k", "2").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().starts_with("etcdserver: request timed out"), "{refused}");
    let refused = fleet.get(1, "k").await.unwrap_err();
    assert!(refused.message().starts_with("etcdserver: request timed out"), "{refused}");
    let local = RangeRequest { key: bytes("k"), serializable: true, ..RangeRequest::default() };
    assert_eq!(fleet.range(1, local).await.unwrap().kvs[0].value, "1");
    eventually("the member says that nobody leads", async || {
        let status = fleet.status(1).await.unwrap();
        status.leader == 0 && status.errors == ["etcdserver: no leader"]
    })
    .await;
    let mut request = Request::new(RangeRequest { key: bytes("k"), serializable: true, ..RangeRequest::default() });
    request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    let refused = KvClient::new(fleet.channel(1)).range(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: no leader"));
    for number in [2, 3] {
        fleet.start(number);
    }
    fleet.leader().await;
    fleet.put(1, "k", "3").await.unwrap();
    let heard = patient.message().await.unwrap().unwrap().events;
    assert!(heard.iter().all(|event| event.kv.as_ref().unwrap().value != "1"), "{heard:?}");
    fleet.alike().await;
}

/// A watch on one key that has begun.
async fn watching(fleet: &Fleet, number: usize, wants_leader: bool) -> Streaming<WatchResponse> {
    let create = WatchCreateRequest { key: bytes("k"), ..WatchCreateRequest::default() };
    let create = WatchRequest { request_union: Some(RequestUnion::CreateRequest(create)) };
    let requests = futures::StreamExt::chain(futures::stream::iter([create]), futures::stream::pending());
    let mut request = Request::new(requests);
    if wants_leader {
        request.metadata_mut().insert("hasleader", "true".parse().unwrap());
    }
    let mut watch = WatchClient::new(fleet.channel(number)).watch(request).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().unwrap().created);
    watch
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_for_another_store_or_another_member_is_refused() {
    let fleet = Fleet::started().await;
    let header = fleet.status(1).await.unwrap().header.unwrap();
    let peer = Endpoint::from_shared(fleet.peer_url(1)).unwrap().connect_lazy();
    let right = Route { cluster_id: header.cluster_id, from_member: 1, to_member: header.member_id };
    let ask = async |route| {
        let asked = RaftClient::new(peer.clone()).recognize(RecognizeRequest { route: Some(route) }).await;
        asked.map(|answer| answer.into_inner().published)
    };
    assert!(!ask(right).await.unwrap());
    let elsewhere = ask(Route { cluster_id: 1, ..right }).await.unwrap_err();
    assert_eq!(elsewhere.code(), Code::FailedPrecondition);
    assert!(elsewhere.message().contains("the request is for the cluster 1:"), "{elsewhere}");
    let astray = ask(Route { to_member: 1, ..right }).await.unwrap_err();
    assert!(astray.message().contains("the request is for member 1:"), "{astray}");
}

#[tokio::test(flavor = "multi_thread")]
async fn flags_that_contradict_the_data_directory_are_refused() {
    let mut fleet = Fleet::started().await;
    fleet.introduced().await;
    fleet.kill(1);
    let refused = |change: &dyn Fn(&mut Command)| {
        let mut command = fleet.command(1);
        change(&mut command);
        let ended = fleet.run(command);
        assert!(!ended.status.success(), "it started");
        ended.said
    };
    let said = refused(&|command| {
        command.arg("--initial-cluster-token=other");
    });
    assert!(said.contains("use the flags the store was founded with"), "{said}");
    let said = refused(&|command| {
        command.arg(format!("--data-dir={}", fleet.data(2).display()));
    });
    assert!(said.contains("in use by another process"), "{said}");
    let said = refused(&|command| {
        command.arg("--initial-cluster=n9=http://127.0.0.1:1");
    });
    assert!(said.contains("--name is \"n1\""), "{said}");
    // A member whose disk was wiped has forgotten its votes.
    std::fs::rename(fleet.data(1), fleet.folder.path().join("kept")).unwrap();
    let said = refused(&|_| {});
    assert!(said.contains("knows this member") && said.contains("is empty"), "{said}");
    std::fs::remove_dir_all(fleet.data(1)).unwrap();
    std::fs::rename(fleet.folder.path().join("kept"), fleet.data(1)).unwrap();
    fleet.start(1);
    fleet.alike().await;
}

/// The flags of a member that joins those that are there.
fn joining(fleet: &Fleet, members: &[usize]) -> Vec<String> {
    let members: Vec<String> = members.iter().map(|number| format!("n{number}={}", fleet.peer_url(*number))).collect();
    vec![format!("--initial-cluster={}", members.join(",")), "--initial-cluster-state=existing".to_owned()]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_of_one_grows_to_three_while_it_serves_and_shrinks_back() {
    let mut fleet = Fleet::new();
    fleet.start_as(1, &[format!("--initial-cluster=n1={}", fleet.peer_url(1))]);
    fleet.leader().await;
    let writers = Writers::start(&fleet);
    writers.more(50).await;

    let unknown = fleet.run({
        let mut command = fleet.command(2);
        command.args(joining(&fleet, &[1, 2]));
        command
    });
    assert!(!unknown.status.success() && unknown.said.contains("add it first"), "{}", unknown.said);

    // As a learner, promoted by hand.
    let added = etcdctl(&fleet, 1, &["member", "add", "n2", "--learner", "--peer-urls", &fleet.peer_url(2)]);
    assert!(added.contains("added to cluster"), "{added}");
    fleet.start_as(2, &joining(&fleet, &[1, 2]));
    let id = |number: usize| {
        let fleet = &fleet;
        async move { fleet.status(number).await.unwrap().header.unwrap().member_id }
    };
    eventually("the learner answers", async || fleet.status(2).await.is_ok()).await;
    let second = format!("{:x}", id(2).await);
    eventually("the learner has caught up", async || {
        etcdctl(&fleet, 1, &["member", "promote", &second]).contains("promoted in cluster")
    })
    .await;

    // As a member that votes as soon as it can.
    let added = etcdctl(&fleet, 2, &["member", "add", "n3", "--peer-urls", &fleet.peer_url(3)]);
    assert!(added.contains("added to cluster"), "{added}");
    fleet.start_as(3, &joining(&fleet, &[1, 2, 3]));
    eventually("all three vote", async || {
        let list = etcdctl(&fleet, 1, &["member", "list"]);
        list.matches("started").count() == 3 && list.matches("false").count() == 3
    })
    .await;
    writers.more(50).await;
    fleet.kill(1);
    writers.more(50).await;
    fleet.start_as(1, &[format!("--initial-cluster=n1={}", fleet.peer_url(1))]);
    eventually("the first member is back", async || fleet.status(1).await.is_ok()).await;
    writers.more(50).await;
    let written = writers.finish().await;
    check_written(&fleet, &written).await;

    for number in [2, 3] {
        let id = format!("{:x}", fleet.status(number).await.unwrap().header.unwrap().member_id);
        let removed = etcdctl(&fleet, 1, &["member", "remove", &id]);
        assert!(removed.contains("removed from cluster"), "{removed}");
        // One that led leads for a moment longer.
        eventually("a removed member writes no more", async || fleet.put(number, "zombie", "1").await.is_err()).await;
        fleet.kill(number);
    }
    fleet.put(1, "alone", "1").await.unwrap();
    assert_eq!(etcdctl(&fleet, 1, &["member", "list"]).lines().count(), 1);
    let found = fleet.range(1, RangeRequest { keys_only: true, ..everything() }).await.unwrap();
    assert!(found.count as usize > written.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn members_know_each_other_by_certificates_of_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Ca::create("peers").unwrap(), Ca::create("strangers").unwrap());
    let subject = Subject {
        common_name: "member".to_owned(),
        organizations: Vec::new(),
        names: vec!["127.0.0.1".to_owned()],
        usage: Usage::Both,
    };
    let flags = |ca: &Ca, name: &str| -> Vec<String> {
        let identity = ca.issue(&subject, Duration::from_secs(3_600)).unwrap();
        let files = [("cert", &identity.cert_pem), ("key", &identity.key_pem)];
        let mut flags = Vec::new();
        for (kind, pem) in files {
            let path = folder.path().join(format!("{name}.{kind}"));
            std::fs::write(&path, pem).unwrap();
            flags.push(format!("--peer-{kind}-file={}", path.display()));
        }
        let path = folder.path().join(format!("{name}.ca"));
        std::fs::write(&path, ca.cert_pem()).unwrap();
        flags.push(format!("--peer-trusted-ca-file={}", path.display()));
        flags
    };
    let mut fleet = Fleet::with_tls(flags(&ours, "ours"));
    for number in [1, 2] {
        fleet.start(number);
    }
    let mut stranger = fleet.command(3);
    let process = stranger.args(flags(&theirs, "theirs")).spawn().unwrap();
    let mut members = BTreeMap::from([(3, process)]);
    fleet.leader().await;
    fleet.put(1, "k", "1").await.unwrap();
    let local = RangeRequest { key: bytes("k"), serializable: true, ..RangeRequest::default() };
    eventually("the stranger serves", async || fleet.range(3, local.clone()).await.is_ok()).await;
    assert_eq!(fleet.range(3, local).await.unwrap().count, 0, "a member of another authority was let in");
    assert_eq!(fleet.status(3).await.unwrap().leader, 0);
    let mut process = members.remove(&3).unwrap();
    process.kill().unwrap();
    process.wait().unwrap();
    fleet.start(3);
    fleet.alike().await;
    assert_eq!(fleet.get(3, "k").await.unwrap(), Some("1".to_owned()));
}
