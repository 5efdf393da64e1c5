//! A kubelet on a real Docker Engine, in a network namespace of its own, against the fake API.
//!
//! Each test starts its own dockerd and leaves nothing behind. Where Docker cannot run, the tests say so and pass.
#![allow(clippy::unwrap_used)]

mod lab;

use lab::{Lab, in_lab, pod, sh};
use proto::{
    Kind,
    k8s::{
        core::v1::{
            EmptyDirVolumeSource, ExecAction, HttpGetAction, Pod, Probe, ProbeHandler, SecretVolumeSource, Volume,
            VolumeMount, VolumeSource,
        },
        intstr::IntOrString,
        meta::v1::DeleteOptions,
    },
};

fn volume(name: &str, source: VolumeSource) -> Volume {
    Volume { name: name.into(), volume_source: Some(source) }
}

fn share(pod: &mut Pod, name: &str, source: VolumeSource, path: &str) {
    let spec = pod.spec.as_mut().unwrap();
    spec.volumes.push(volume(name, source));
    for container in &mut spec.containers {
        let mount = VolumeMount { name: name.into(), mount_path: path.into(), ..Default::default() };
        container.volume_mounts.push(mount);
    }
}

#[test]
fn two_containers_share_an_empty_dir_and_localhost() {
    in_lab(async |lab: &Lab| {
        let mut both = pod(
            "both",
            &[
                (
                    "writer",
                    "mkdir -p /shared/www && echo hello from $POD > /shared/www/index.html && httpd -f -p 8080 -h /shared/www",
                ),
                (
                    "reader",
                    "while true; do wget -q -O /shared/answer http://127.0.0.1:8080/ && sleep 1000; sleep 0.05; done",
                ),
            ],
        );
        share(
            &mut both,
            "shared",
            VolumeSource { empty_dir: Some(EmptyDirVolumeSource::default()), ..Default::default() },
            "/shared",
        );
        lab.client.create(&both).await.unwrap();
        let both = lab.until_ready("both").await;
        lab.until_said("both", "reader", "cat /shared/answer", "hello from").await;
        // And the node reaches the pod.
        let ip = both.status.unwrap().pod_ip;
        assert!(lab.get(&format!("{ip}:8080")).await.contains("hello from"));
    });
}

#[test]
fn a_killed_container_is_restarted_and_counted() {
    in_lab(async |lab: &Lab| {
        lab.client.create(&pod("web", &[("a", "sleep 1000")])).await.unwrap();
        let before = lab.until_ready("web").await.status.unwrap().container_statuses[0].container_id.clone();
        lab.docker(&["kill", before.strip_prefix("docker://").unwrap()]);
        let after = lab
            .until_pod("web", "the container is restarted", |pod| {
                let status = &pod.status.as_ref().unwrap().container_statuses[0];
                status.restart_count == 1 && status.ready
            })
            .await;
        let status = &after.status.unwrap().container_statuses[0];
        assert_ne!(status.container_id, before);
        let last = status.last_state.clone().unwrap().terminated.unwrap();
        assert_eq!((last.exit_code, last.reason.as_str()), (137, "Error"));
    });
}

#[test]
fn pods_reach_each_other_and_a_dead_pods_address_fails_at_once() {
    in_lab(async |lab: &Lab| {
        lab.client
            .create(&pod("one", &[("a", "mkdir /www; echo one > /www/index.html; httpd -f -p 80 -h /www")]))
            .await
            .unwrap();
        lab.client.create(&pod("two", &[("a", "sleep 1000")])).await.unwrap();
        let one = lab.until_ready("one").await.status.unwrap().pod_ip;
        lab.until_ready("two").await;
        lab.until_said("two", "a", &format!("wget -q -O - http://{one}/"), "one").await;
        lab.client.delete::<Pod>("default", "one", DeleteOptions::default()).await.unwrap();
        lab.until_gone("one").await;
        let failed = tokio::net::TcpStream::connect((one.as_str(), 80)).await.unwrap_err();
        assert!(matches!(failed.raw_os_error(), Some(libc::EHOSTUNREACH | libc::ENETUNREACH)), "{failed}");
    });
}

#[test]
fn a_failing_liveness_probe_restarts_and_a_readiness_probe_gates() {
    in_lab(async |lab: &Lab| {
        let mut sick =
            pod("sick", &[("a", "touch /ok; mkdir /www; echo up > /www/index.html; httpd -p 80 -h /www; sleep 1000")]);
        let container = &mut sick.spec.as_mut().unwrap().containers[0];
        let probe = |handler| Probe {
            handler: Some(handler),
            period_seconds: 1,
            failure_threshold: 1,
            timeout_seconds: 5,
            ..Default::default()
        };
        let command = ["/bin/sh", "-c", "test -e /ok"].map(str::to_owned).to_vec();
        container.liveness_probe =
            Some(probe(ProbeHandler { exec: Some(ExecAction { command }), ..Default::default() }));
        let port = IntOrString { int_val: 80, ..Default::default() };
        let get = HttpGetAction { path: "/index.html".into(), port: Some(port), ..Default::default() };
        container.readiness_probe = Some(probe(ProbeHandler { http_get: Some(get), ..Default::default() }));
        lab.client.create(&sick).await.unwrap();
        lab.until_ready("sick").await;
        lab.said("sick", "a", "rm /ok").await;
        lab.until_pod("sick", "the sick container is restarted", |pod| {
            let status = &pod.status.as_ref().unwrap().container_statuses[0];
            status.restart_count == 1 && status.ready
        })
        .await;
    });
}

#[test]
fn deletion_lets_a_container_finish_and_leaves_nothing() {
    in_lab(async |lab: &Lab| {
        let script = "trap 'echo bye > /shared/last; exit 0' TERM; while true; do sleep 0.1; done";
        let mut web = pod("web", &[("a", script)]);
        let kept = lab.dir().join("kept");
        let host = proto::k8s::core::v1::HostPathVolumeSource { path: kept.display().to_string(), r#type: None };
        share(&mut web, "kept", VolumeSource { host_path: Some(host), ..Default::default() }, "/shared");
        web.spec.as_mut().unwrap().termination_grace_period_seconds = Some(20);
        lab.client.create(&web).await.unwrap();
        let web = lab.until_ready("web").await;
        lab.client.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap();
        lab.until_gone("web").await;
        assert_eq!(std::fs::read_to_string(kept.join("last")).unwrap(), "bye\n");
        assert_eq!(lab.docker(&["ps", "-aq"]), "");
        assert!(!lab.options().root_dir.join("pods").join(&web.meta().uid).exists());
        assert!(!sh("ip -o link").contains("fsp"), "{}", sh("ip -o link"));
    });
}

#[test]
fn a_restarted_kubelet_keeps_its_containers() {
    in_lab(async |lab: &Lab| {
        lab.client.create(&pod("web", &[("a", "sleep 1000"), ("b", "sleep 1000")])).await.unwrap();
        let before = lab.until_ready("web").await.status.unwrap();
        let ids = lab.docker(&["ps", "-aq", "--no-trunc"]);
        lab.restart_kubelet().await;
        // It is at work again once it runs another pod.
        lab.client.create(&pod("later", &[("a", "sleep 1000")])).await.unwrap();
        let later = lab.until_ready("later").await.status.unwrap();
        let after = lab.until_ready("web").await.status.unwrap();
        assert_eq!(before.container_statuses, after.container_statuses);
        assert_ne!(later.pod_ip, after.pod_ip);
        let now = lab.docker(&["ps", "-aq", "--no-trunc"]);
        assert!(ids.lines().all(|id| now.contains(id)));
        assert!(lab.said("web", "a", &format!("ping -c 1 -W 2 {}", later.pod_ip)).await.contains("0% packet loss"));
    });
}

#[test]
fn secrets_and_environment_reach_the_container_and_its_end_is_told() {
    in_lab(async |lab: &Lab| {
        let mut secret = proto::k8s::core::v1::Secret {
            data: [("password".to_owned(), b"hunter2".to_vec())].into(),
            ..Default::default()
        };
        secret.meta_mut().name = "login".into();
        secret.meta_mut().namespace = "default".into();
        lab.client.create(&secret).await.unwrap();
        let mut job =
            pod("job", &[("a", "cat /login/password; echo; echo $POD; echo failed > /dev/termination-log; exit 3")]);
        let source = SecretVolumeSource { secret_name: "login".into(), ..Default::default() };
        share(&mut job, "login", VolumeSource { secret: Some(source), ..Default::default() }, "/login");
        job.spec.as_mut().unwrap().restart_policy = "Never".into();
        lab.client.create(&job).await.unwrap();
        let job =
            lab.until_pod("job", "the job ends", |pod| pod.status.as_ref().is_some_and(|s| s.phase == "Failed")).await;
        let ended = job.status.unwrap().container_statuses[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_str(), ended.message.as_str()), (3, "Error", "failed\n"));
        let id = ended.container_id.strip_prefix("docker://").unwrap().to_owned();
        assert_eq!(lab.docker(&["logs", &id]), "hunter2\njob\n");
    });
}
