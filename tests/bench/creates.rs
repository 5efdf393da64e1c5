//! Pod creates per second, over both doors.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use client::{Client, WatchRequest, WatchSet};
use forestay::certificates::{Certificates, Holder};
use futures::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use proto::{
    Kind,
    k8s::{
        core::v1::{Container, Pod, PodSpec},
        meta::v1::ObjectMeta,
    },
};

use crate::{
    median,
    server::{Machine, Server},
};

/// How long each load lasts.
const LASTS: Duration = Duration::from_secs(3);

fn pod(name: String) -> Pod {
    let container = Container { name: "web".into(), image: "web:1".into(), ..Container::default() };
    let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
    let metadata = ObjectMeta { name, namespace: "default".into(), ..ObjectMeta::default() };
    Pod { metadata: Some(metadata), spec: Some(spec), status: None }
}

/// A pod that waits for a scheduler that is not there, so that only its creation is measured.
fn unscheduled(name: String) -> Pod {
    let mut pod = pod(name);
    pod.spec.get_or_insert_default().scheduler_name = "nobody".into();
    pod
}

pub async fn run(runs: usize) {
    for door in ["gRPC", "REST"] {
        for clients in [1, 16, 64] {
            let (mut rates, mut costs, mut p50, mut p99) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
            for _ in 0..runs {
                let server = Server::start(Machine::Spared, &[]).await;
                let before = server.cpu_seconds();
                let mut times =
                    if door == "gRPC" { over_grpc(&server, clients).await } else { over_rest(&server, clients).await };
                let spent = server.cpu_seconds() - before;
                times.sort_unstable();
                rates.push(times.len() as f64 / LASTS.as_secs_f64());
                costs.push(spent * 1e3 / times.len() as f64);
                p50.push(f64::from(times[times.len() / 2]) / 1e3);
                p99.push(f64::from(times[times.len() * 99 / 100]) / 1e3);
            }
            println!(
                "pod creates over {door}, {clients} clients: {:.0}/s, p50 {:.2} ms, p99 {:.2} ms, {:.2} CPU-ms each",
                median(&mut rates),
                median(&mut p50),
                median(&mut p99),
                median(&mut costs)
            );
        }
    }
}

/// Microseconds of each create.
async fn over_grpc(server: &Server, clients: usize) -> Vec<u32> {
    let workers = (0..clients).map(|worker| {
        let client = server.client.clone();
        tokio::spawn(async move {
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < LASTS {
                let sent = Instant::now();
                client.create(&unscheduled(format!("p-{worker}-{}", times.len()))).await.unwrap();
                times.push(sent.elapsed().as_micros() as u32);
            }
            times
        })
    });
    join(workers.collect()).await
}

async fn over_rest(server: &Server, clients: usize) -> Vec<u32> {
    let certificates = Certificates::of(&server.settings.directories());
    let identity = certificates.identity(&Holder::Admin).unwrap();
    let config = kit::tls::client_config(&certificates.cluster_ca().unwrap(), Some(&identity)).unwrap();
    let address = server.settings.local_server().trim_start_matches("https://").to_owned();
    let workers = (0..clients).map(|worker| {
        let (config, address) = (config.clone(), address.clone());
        tokio::spawn(async move {
            let stream = tokio::net::TcpStream::connect(&address).await.unwrap();
            stream.set_nodelay(true).unwrap();
            let name = rustls::pki_types::ServerName::try_from("127.0.0.1").unwrap();
            let stream = tokio_rustls::TlsConnector::from(config).connect(name, stream).await.unwrap();
            let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            let uri = format!("https://{address}/api/v1/namespaces/default/pods");
            let (began, mut times) = (Instant::now(), Vec::new());
            while began.elapsed() < LASTS {
                let pod = unscheduled(format!("p-{worker}-{}", times.len()));
                let mut body = Vec::new();
                let message = proto::codec::schema().message(Pod::MESSAGE).unwrap();
                proto::codec::proto_to_json(
                    message,
                    &prost::Message::encode_to_vec(&pod),
                    Some(("v1", "Pod")),
                    &mut body,
                )
                .unwrap();
                let request =
                    Request::post(&uri).header("content-type", "application/json").body(Full::new(Bytes::from(body)));
                let sent = Instant::now();
                let response = sender.send_request(request.unwrap()).await.unwrap();
                assert_eq!(response.status(), 201);
                response.into_body().collect().await.unwrap();
                times.push(sent.elapsed().as_micros() as u32);
            }
            times
        })
    });
    join(workers.collect()).await
}

async fn join(workers: Vec<tokio::task::JoinHandle<Vec<u32>>>) -> Vec<u32> {
    let mut all = Vec::new();
    for worker in workers {
        all.extend(worker.await.unwrap());
    }
    all
}

/// Creates `count` pods for hollow nodes with 64 clients; answers the time until all of them run.
pub async fn crowd(server: &Server, count: usize) -> Duration {
    let (began, next) = (Instant::now(), Arc::new(AtomicUsize::new(0)));
    let running = tokio::spawn(all_running(server.client.clone(), count));
    let workers: Vec<_> = (0..64)
        .map(|_| {
            let (client, next) = (server.client.clone(), next.clone());
            tokio::spawn(async move {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    let mut pod = pod(format!("p-{number}"));
                    pod.spec.get_or_insert_default().node_selector =
                        [("forestay.dev/hollow".to_owned(), "true".to_owned())].into();
                    client.create(&pod).await.unwrap();
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.unwrap();
    }
    running.await.unwrap();
    began.elapsed()
}

/// Follows the pods with one watch, so that the counting costs the server next to nothing.
async fn all_running(client: Client, count: usize) {
    let set = WatchSet { target: Some(client::target::<Pod>("default", "")), ..WatchSet::default() };
    let mut changes = client.watch(WatchRequest { sets: vec![set] }).await.unwrap();
    let mut running = HashSet::new();
    while running.len() < count {
        let response = changes.next().await.expect("the watch goes on").unwrap();
        for object in response.events.into_iter().filter_map(|event| event.object) {
            let pod: Pod = object.decode_as().unwrap();
            if pod.status.as_ref().is_some_and(|status| status.phase == "Running") {
                running.insert(pod.meta().name.clone());
            }
        }
    }
}
