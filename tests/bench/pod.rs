//! One pod of two containers, from `stay apply` to Ready, beside plain Docker starting the same two; turn and turn about.

use std::{
    collections::HashMap,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use bollard::{
    Docker,
    models::ContainerCreateBody,
    query_parameters::{CreateContainerOptions, ListContainersOptions, RemoveContainerOptions, StartContainerOptions},
};
use client::Client;
use proto::k8s::{core::v1::Pod, meta::v1::DeleteOptions};
use tests::cluster::binary;
use tokio::{io::AsyncWriteExt, process::Command};

use crate::{
    median,
    server::{Machine, Server, until},
};

const IMAGE: &str = "forestay/hello:1";

const MANIFEST: &str = r#"
apiVersion: v1
kind: Pod
metadata: {name: pair}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: one, image: "forestay/hello:1", imagePullPolicy: Never, command: [sleep, "3600"]}
  - {name: two, image: "forestay/hello:1", imagePullPolicy: Never, command: [sleep, "3600"]}
"#;

pub async fn run(runs: usize) {
    make_image().await;
    let docker = Docker::connect_with_unix_defaults().expect("connect to Docker");
    let server = Server::start(Machine::Used, &[]).await;
    let (mut plain, mut whole, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    // The first turn makes the image of pause, and is not counted.
    for turn in 0..=runs {
        let (by_docker, by_forestay) = (plain_docker(&docker).await, apply_to_ready(&server, &docker).await);
        if turn > 0 {
            plain.push(by_docker.as_secs_f64() * 1e3);
            whole.push(by_forestay.as_secs_f64() * 1e3);
            ratios.push(by_forestay.as_secs_f64() / by_docker.as_secs_f64());
        }
    }
    println!(
        "one pod of two containers, apply to Ready: {:.0} ms; plain Docker, the same two: {:.0} ms; ratio {:.2}",
        median(&mut whole),
        median(&mut plain),
        median(&mut ratios)
    );
}

/// As `deploy/quickstart` makes it.
async fn make_image() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = format!(". deploy/lib/machine.sh; . deploy/lib/hello-image.sh; hello_image {IMAGE}");
    let made = Command::new("bash").arg("-ec").arg(script).current_dir(root).status().await.unwrap();
    assert!(made.success(), "the image {IMAGE} could not be made");
}

/// Create and start, one container after the other, as two `docker run -d` would.
async fn plain_docker(docker: &Docker) -> Duration {
    let began = Instant::now();
    let mut ids = Vec::new();
    for _ in 0..2 {
        let command = ["sleep", "3600"].map(str::to_owned).to_vec();
        let body =
            ContainerCreateBody { image: Some(IMAGE.to_owned()), cmd: Some(command), ..ContainerCreateBody::default() };
        let id = docker.create_container(None::<CreateContainerOptions>, body).await.expect("create a container").id;
        docker.start_container(&id, None::<StartContainerOptions>).await.expect("start a container");
        ids.push(id);
    }
    let took = began.elapsed();
    for id in ids {
        let options = RemoveContainerOptions { force: true, ..RemoveContainerOptions::default() };
        docker.remove_container(&id, Some(options)).await.expect("remove a container");
    }
    took
}

async fn apply_to_ready(server: &Server, docker: &Docker) -> Duration {
    let client = server.client.clone();
    let ready = tokio::spawn(async move {
        until::<Pod>(&client, "default", "pair", |pod| pod.is_some_and(is_ready)).await;
        Instant::now()
    });
    let began = Instant::now();
    let mut stay = Command::new(binary("stay"))
        .arg("--kubeconfig")
        .arg(server.settings.directories().admin_kubeconfig())
        .args(["apply", "-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    stay.stdin.take().unwrap().write_all(MANIFEST.as_bytes()).await.unwrap();
    assert!(stay.wait().await.unwrap().success(), "stay apply failed");
    let took = ready.await.unwrap() - began;
    remove(&server.client, docker).await;
    took
}

fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    conditions.iter().any(|is| is.r#type == "Ready" && is.status == "True")
}

/// Deletes the pod, and waits until Docker has none of its containers: the next turn has the machine for itself.
async fn remove(client: &Client, docker: &Docker) {
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    client.delete::<Pod>("default", "pair", options).await.unwrap();
    until::<Pod>(client, "default", "pair", |pod| pod.is_none()).await;
    let label = "io.kubernetes.pod.name=pair".to_owned();
    loop {
        let filters = HashMap::from([("label".to_owned(), vec![label.clone()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        if docker.list_containers(Some(options)).await.expect("list containers").is_empty() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
