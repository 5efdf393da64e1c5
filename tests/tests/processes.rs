//! Roles as processes of their own, and what happens when one is killed.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeSet, fs, path::Path};

use client::{Client, Selection};
use forestay::{certificates::Holder, role::House, settings::Settings, up};
use proto::{
    Kind,
    k8s::{
        core::v1::{ConfigMap, Container, Namespace, Pod, PodSpec},
        meta::v1::{DeleteOptions, ObjectMeta},
    },
};
use tests::{
    PATIENCE,
    cluster::{Process, quiet_settings, role_arguments, up_arguments},
    eventually, scene, within,
};

/// A client of a server that has just been started: its certificates are being made, and its API opened.
async fn answering(settings: &Settings) -> Client {
    eventually("the API answers", || async {
        let client = House::new(settings.clone()).client_as(&Holder::Admin).ok()?;
        client.get::<Namespace>("", "default").await.ok()?;
        Some(client)
    })
    .await
}

fn pod(name: &str) -> Pod {
    let container = Container { name: "web".into(), image: "web:1".into(), ..Container::default() };
    let metadata = ObjectMeta { name: name.into(), namespace: "default".into(), ..ObjectMeta::default() };
    Pod {
        metadata: Some(metadata),
        spec: Some(PodSpec { containers: vec![container], ..PodSpec::default() }),
        status: None,
    }
}

async fn runs(client: &Client, name: &str) -> Pod {
    let found = within(PATIENCE, || async {
        let pod = client.get::<Pod>("default", name).await.ok()?;
        model::pod::is_ready(&pod).then_some(pod)
    })
    .await;
    match found {
        Some(pod) => pod,
        None => panic!("the pod does not run:\n{}", scene(client).await),
    }
}

/// Files a process holds open below a folder.
fn open_files(process: u32, folder: &Path) -> Vec<String> {
    let links = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let open = links.filter_map(|link| fs::read_link(link.ok()?.path()).ok());
    open.filter(|path| path.starts_with(folder)).map(|path| path.display().to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn roles_of_their_own_processes_keep_the_contract_and_only_the_store_opens_its_files() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    up::init(&settings).unwrap();
    let store = format!("--store=https://127.0.0.1:{}", settings.ports.store_port);
    let roles = ["raft-store", "apiserver", "controllers", "scheduler", "kubelet", "proxy"];
    let mut processes: Vec<(&str, Process)> = roles
        .iter()
        .map(|&role| {
            let more: &[&str] = if role == "apiserver" { &[&store] } else { &[] };
            let log = folder.path().join(format!("{role}.log"));
            (role, Process::forestay(&role_arguments(role, &settings, more), &log))
        })
        .collect();

    let client = answering(&settings).await;
    client::contract::all(&client).await;
    client.create(&pod("lonely")).await.unwrap();
    let placed = runs(&client, "lonely").await;
    assert_eq!(placed.spec.unwrap().node_name, "n1");

    let data = settings.directories().store();
    for (role, process) in &mut processes {
        assert!(
            process.is_running(),
            "{role} ended: {}",
            fs::read_to_string(folder.path().join(format!("{role}.log"))).unwrap()
        );
        let open = open_files(process.id(), &data);
        assert_eq!(*role == "raft-store", !open.is_empty(), "{role} has open: {open:?}");
    }
    client.delete::<Pod>("default", "lonely", DeleteOptions::default()).await.unwrap();
    eventually("the pod is gone", || async { client.get::<Pod>("default", "lonely").await.is_err().then_some(()) })
        .await;
    for (role, process) in processes.iter_mut().rev() {
        assert_eq!(process.terminate(), Some(0), "{role} did not stop cleanly");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_when_the_server_is_killed_during_writes() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    let log = folder.path().join("log");
    let mut acknowledged = BTreeSet::new();
    for round in 0..3 {
        let mut process = Process::forestay(&up_arguments(&settings, &[]), &log);
        let client = answering(&settings).await;
        let writers: Vec<_> = (0..8)
            .map(|writer| tokio::spawn(write_until_failure(client.clone(), format!("r{round}-w{writer}"))))
            .collect();
        eventually("enough is written", || async {
            let (maps, _) = client.list::<ConfigMap>("default", Selection::default()).await.ok()?;
            (maps.len() > acknowledged.len() + 100).then_some(())
        })
        .await;
        process.kill();
        for writer in writers {
            acknowledged.extend(writer.await.unwrap());
        }
    }
    let mut process = Process::forestay(&up_arguments(&settings, &[]), &log);
    let client = answering(&settings).await;
    let (maps, _) = client.list::<ConfigMap>("default", Selection::default()).await.unwrap();
    let found: BTreeSet<String> = maps.iter().map(|map| map.meta().name.clone()).collect();
    let lost: Vec<_> = acknowledged.difference(&found).collect();
    assert!(lost.is_empty(), "{} of {} acknowledged writes are lost: {lost:?}", lost.len(), acknowledged.len());
    assert_eq!(process.terminate(), Some(0));
}

/// Creates objects until the server is gone; answers the names of those it acknowledged.
async fn write_until_failure(client: Client, prefix: String) -> Vec<String> {
    let mut written = Vec::new();
    loop {
        let name = format!("{prefix}-{}", written.len());
        let metadata = ObjectMeta { name: name.clone(), namespace: "default".into(), ..ObjectMeta::default() };
        let map = ConfigMap { metadata: Some(metadata), ..ConfigMap::default() };
        match client.create(&map).await {
            Ok(_) => written.push(name),
            Err(_) => return written,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_whose_port_is_taken_names_the_flag_that_chooses_another() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    up::init(&settings).unwrap();
    let ports = &settings.ports;
    for (role, port) in [("scheduler", ports.scheduler_port), ("kubelet", ports.kubelet_port)] {
        let _holder = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        let log = folder.path().join(role);
        let mut process = Process::forestay(&role_arguments(role, &settings, &[]), &log);
        eventually("it gives up", || std::future::ready((!process.is_running()).then_some(()))).await;
        let said = fs::read_to_string(&log).unwrap();
        assert!(said.contains(&format!("choose another with --{role}-port")), "{said}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_the_same_folder_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let settings = quiet_settings(folder.path(), &[]);
    let mut first = Process::forestay(&up_arguments(&settings, &[]), &folder.path().join("first"));
    answering(&settings).await;
    let log = folder.path().join("second");
    let mut second = Process::forestay(&up_arguments(&settings, &[]), &log);
    eventually("the second gives up", || std::future::ready((!second.is_running()).then_some(()))).await;
    let said = fs::read_to_string(&log).unwrap();
    assert!(said.contains("in use by another forestay"), "{said}");
    assert_eq!(first.terminate(), Some(0));
}
