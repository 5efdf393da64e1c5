//! A kubelet on a real Docker Engine, in a network namespace of its own, against the fake API.
//!
//! Each test starts its own dockerd and leaves nothing behind. Where Docker cannot run, the tests say so and pass.
#![allow(clippy::unwrap_used)]

mod lab;
mod registry;

use std::{collections::BTreeMap, path::Path};

use lab::{Lab, in_lab, pod, sh};
use proto::{
    Kind,
    forestay::node::v1::{Container as Target, ImportImageRequest, PodStats, PortForwardRequest, StatsRequest},
    k8s::{
        core::v1::{
            ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, DownwardApiVolumeFile, DownwardApiVolumeSource,
            EmptyDirVolumeSource, Event, ExecAction, HostPathVolumeSource, HttpGetAction, Lifecycle, LifecycleHandler,
            LocalObjectReference, Node, ObjectFieldSelector, Pod, Probe, ProbeHandler, ResourceRequirements,
            SecretVolumeSource, TcpSocketAction, Volume, VolumeMount, VolumeSource,
        },
        intstr::IntOrString,
        meta::v1::DeleteOptions,
        resource::Quantity,
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

fn host_path(path: &Path) -> VolumeSource {
    let host_path = Some(HostPathVolumeSource { path: path.display().to_string(), r#type: None });
    VolumeSource { host_path, ..Default::default() }
}

fn command(line: &str) -> Option<ExecAction> {
    Some(ExecAction { command: ["/bin/sh", "-c", line].map(str::to_owned).to_vec() })
}

fn exec(line: &str) -> ProbeHandler {
    ProbeHandler { exec: command(line), ..Default::default() }
}

fn hook(line: &str) -> Option<LifecycleHandler> {
    Some(LifecycleHandler { exec: command(line), ..Default::default() })
}

/// Asks every second, and once is enough.
fn probe(handler: ProbeHandler) -> Probe {
    Probe { handler: Some(handler), period_seconds: 1, failure_threshold: 1, timeout_seconds: 5, ..Default::default() }
}

fn first(pod: &mut Pod) -> &mut Container {
    &mut pod.spec.as_mut().unwrap().containers[0]
}

fn quantities(list: &[(&str, &str)]) -> BTreeMap<String, Quantity> {
    list.iter().map(|(name, value)| ((*name).to_owned(), Quantity { string: (*value).to_owned() })).collect()
}

fn phase(pod: &Pod) -> &str {
    pod.status.as_ref().map_or("", |status| status.phase.as_str())
}

/// Why the pod's first container waits.
fn waits_for(pod: &Pod) -> String {
    let status = pod.status.as_ref().and_then(|status| status.container_statuses.first());
    let waiting = status.and_then(|status| status.state.clone()?.waiting);
    waiting.map(|waiting| waiting.reason).unwrap_or_default()
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
fn a_lost_sandbox_is_replaced_under_the_same_address() {
    in_lab(async |lab: &Lab| {
        let script = "mkdir /www; echo here > /www/index.html; httpd -f -p 80 -h /www";
        lab.client.create(&pod("web", &[("a", script)])).await.unwrap();
        let before = lab.until_ready("web").await.status.unwrap();
        let sandbox = lab.docker(&["ps", "-q", "--filter", "label=io.kubernetes.docker.type=podsandbox"]);
        lab.docker(&["kill", sandbox.trim()]);
        let after = lab
            .until_pod("web", "the pod runs again", |pod| {
                let status = &pod.status.as_ref().unwrap().container_statuses[0];
                status.restart_count == 1 && status.ready
            })
            .await;
        assert_eq!(after.status.unwrap().pod_ip, before.pod_ip);
        assert!(lab.get(&format!("{}:80", before.pod_ip)).await.contains("here"));
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
        let mut sick = pod("sick", &[("a", "mkdir /www; echo up > /www/index.html; httpd -p 80 -h /www; sleep 1000")]);
        let container = &mut sick.spec.as_mut().unwrap().containers[0];
        container.liveness_probe = Some(probe(exec("test ! -e /sick")));
        let port = IntOrString { int_val: 80, ..Default::default() };
        let get = HttpGetAction { path: "/index.html".into(), port: Some(port), ..Default::default() };
        container.readiness_probe = Some(probe(ProbeHandler { http_get: Some(get), ..Default::default() }));
        lab.client.create(&sick).await.unwrap();
        lab.until_ready("sick").await;
        lab.said("sick", "a", "touch /sick").await;
        lab.until_pod("sick", "the sick container is restarted", |pod| {
            let status = &pod.status.as_ref().unwrap().container_statuses[0];
            status.restart_count == 1 && status.ready
        })
        .await;
        lab.until_event("Killing", "Container a failed liveness probe, will be restarted").await;
        // It failed once, which was enough: a container on its way out is not asked any more.
        let told = lab.api.list::<Event>();
        let failed = told.iter().filter(|event| event.message.starts_with("Liveness probe failed"));
        assert_eq!(failed.map(|event| event.count).collect::<Vec<_>>(), [1]);
    });
}

#[test]
fn deletion_lets_a_container_finish_and_leaves_nothing() {
    in_lab(async |lab: &Lab| {
        let script = "trap 'echo bye > /shared/last; exit 0' TERM; while true; do sleep 0.1; done";
        let mut web = pod("web", &[("a", script)]);
        let kept = lab.dir().join("kept");
        share(&mut web, "kept", host_path(&kept), "/shared");
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
fn a_restarted_kubelet_keeps_its_containers_and_their_readiness() {
    in_lab(async |lab: &Lab| {
        let mut web = pod("web", &[("a", "sleep 1000"), ("b", "sleep 1000")]);
        web.spec.as_mut().unwrap().containers[0].readiness_probe = Some(probe(exec("true")));
        web.spec.as_mut().unwrap().containers[1].startup_probe = Some(probe(exec("true")));
        lab.client.create(&web).await.unwrap();
        let before = lab.until_ready("web").await;
        let ids = lab.docker(&["ps", "-aq", "--no-trunc"]);
        lab.restart_kubelet().await;
        // It is at work again once it runs another pod.
        lab.client.create(&pod("later", &[("a", "sleep 1000")])).await.unwrap();
        let later = lab.until_ready("later").await.status.unwrap();
        let after = lab.api.get::<Pod>("default", "web").unwrap();
        // Not even for a moment was it anything else: nothing was written.
        assert_eq!(before.meta().resource_version, after.meta().resource_version);
        let after = after.status.unwrap();
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

#[test]
fn requests_and_limits_land_in_the_cgroups_and_an_oom_kill_is_told() {
    in_lab(async |lab: &Lab| {
        let mut web = pod("web", &[("a", "sleep 1000")]);
        first(&mut web).resources = Some(ResourceRequirements {
            requests: quantities(&[("cpu", "250m"), ("memory", "32Mi")]),
            limits: quantities(&[("cpu", "500m"), ("memory", "64Mi")]),
            ..Default::default()
        });
        lab.client.create(&web).await.unwrap();
        lab.client.create(&pod("free", &[("a", "sleep 1000")])).await.unwrap();
        let web = lab.until_ready("web").await;
        lab.until_ready("free").await;
        let id = web.status.as_ref().unwrap().container_statuses[0].container_id.trim_start_matches("docker://");
        let of_pod = format!("burstable/pod{}", web.meta().uid);
        let cpu = |path: &str| lab.cgroup(path, "cpu", "cpu.shares", "cpu.weight");
        for cgroup in [of_pod.clone(), format!("{of_pod}/{id}")] {
            assert!(["256", "10"].contains(&cpu(&cgroup).as_str()), "{cgroup} {}", cpu(&cgroup));
            let quota = lab.cgroup(&cgroup, "cpu", "cpu.cfs_quota_us", "cpu.max");
            assert!(["50000", "50000 100000"].contains(&quota.as_str()), "{cgroup} {quota}");
            let memory = lab.cgroup(&cgroup, "memory", "memory.limit_in_bytes", "memory.max");
            assert_eq!(memory, (64 << 20).to_string(), "{cgroup}");
        }
        assert!(["256", "10"].contains(&cpu("burstable").as_str()), "{}", cpu("burstable"));
        assert!(["2", "1"].contains(&cpu("besteffort").as_str()), "{}", cpu("besteffort"));

        let mut glutton = pod("glutton", &[("a", "tail /dev/zero")]);
        glutton.spec.as_mut().unwrap().restart_policy = "Never".into();
        let limits = quantities(&[("memory", "16Mi")]);
        first(&mut glutton).resources = Some(ResourceRequirements { limits, ..Default::default() });
        lab.client.create(&glutton).await.unwrap();
        let glutton = lab.until_pod("glutton", "it is killed", |pod| phase(pod) == "Failed").await;
        let ended = glutton.status.unwrap().container_statuses[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_str()), (137, "OOMKilled"));
    });
}

#[test]
fn hooks_frame_a_containers_life_and_its_stop_signal_comes_once() {
    in_lab(async |lab: &Lab| {
        let kept = lab.dir().join("kept");
        let script = "trap 'echo signal >> /kept/log' USR1; echo main >> /kept/log; while true; do sleep 0.1; done";
        let mut web = pod("web", &[("a", script)]);
        web.spec.as_mut().unwrap().termination_grace_period_seconds = Some(3);
        share(&mut web, "kept", host_path(&kept), "/kept");
        first(&mut web).lifecycle = Some(Lifecycle {
            post_start: hook("while ! test -e /kept/go; do sleep 0.05; done; echo started >> /kept/log"),
            pre_stop: hook("echo leaving >> /kept/log"),
            stop_signal: Some("SIGUSR1".into()),
        });
        lab.client.create(&web).await.unwrap();
        let log = || std::fs::read_to_string(kept.join("log")).unwrap_or_default();
        lab.until_event("Started", "Container started: a").await;
        lab.until_pod("web", "the container waits for its hook", |pod| waits_for(pod) == "ContainerCreating").await;
        while log() != "main\n" {
            tokio::task::yield_now().await;
        }
        assert_eq!(waits_for(&lab.api.get("default", "web").unwrap()), "ContainerCreating");
        std::fs::write(kept.join("go"), "").unwrap();
        lab.until_ready("web").await;
        let asked = std::time::Instant::now();
        lab.client.delete::<Pod>("default", "web", DeleteOptions::default()).await.unwrap();
        lab.until_gone("web").await;
        // It ignores its signal, and gets all of its grace period.
        assert!(asked.elapsed().as_secs() >= 2, "{:?}", asked.elapsed());
        assert_eq!(log(), "main\nstarted\nleaving\nsignal\n");
    });
}

/// A stop under way went on for its whole grace period, whatever came after it.
#[test]
fn a_second_deletion_with_less_grace_shortens_the_first() {
    in_lab(async |lab: &Lab| {
        let mut deaf = pod("deaf", &[("a", "trap '' TERM; while true; do sleep 0.1; done")]);
        deaf.spec.as_mut().unwrap().termination_grace_period_seconds = Some(3600);
        lab.client.create(&deaf).await.unwrap();
        lab.until_ready("deaf").await;
        lab.client.delete::<Pod>("default", "deaf", DeleteOptions::default()).await.unwrap();
        lab.until_event("Killing", "Stopping container a").await;
        let sooner = DeleteOptions { grace_period_seconds: Some(1), ..Default::default() };
        lab.client.delete::<Pod>("default", "deaf", sooner).await.unwrap();
        lab.until_gone("deaf").await;
    });
}

#[test]
fn a_sidecar_is_up_before_the_others_and_ends_after_them() {
    in_lab(async |lab: &Lab| {
        let kept = lab.dir().join("kept");
        let mut job = pod("job", &[("main", "echo main >> /kept/log; while ! test -e /kept/go; do sleep 0.05; done")]);
        let spec = job.spec.as_mut().unwrap();
        spec.restart_policy = "Never".into();
        let mut sidecar = pod(
            "x",
            &[(
                "side",
                "trap 'echo side ends >> /kept/log; exit 0' TERM; sleep 0.3; touch /up; \
                                       while true; do sleep 0.05; done",
            )],
        );
        let mut sidecar = sidecar.spec.take().unwrap().containers.remove(0);
        sidecar.restart_policy = Some("Always".into());
        sidecar.startup_probe =
            Some(Probe { failure_threshold: 60, ..probe(exec("test -e /up && echo side up >> /kept/log")) });
        spec.containers.push(sidecar);
        share(&mut job, "kept", host_path(&kept), "/kept");
        let spec = job.spec.as_mut().unwrap();
        spec.init_containers = spec.containers.split_off(1);
        lab.client.create(&job).await.unwrap();
        let running = lab.until_ready("job").await.status.unwrap();
        assert!(running.init_container_statuses[0].ready && running.init_container_statuses[0].started());
        std::fs::write(kept.join("go"), "").unwrap();
        let done = lab.until_pod("job", "the job ends", |pod| phase(pod) == "Succeeded").await.status.unwrap();
        assert_eq!(std::fs::read_to_string(kept.join("log")).unwrap(), "side up\nmain\nside ends\n");
        let side = done.init_container_statuses[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!((side.exit_code, side.reason.as_str()), (0, "Completed"));
        let reasons: Vec<&str> = done.conditions.iter().map(|condition| condition.reason.as_str()).collect();
        assert_eq!(reasons, ["", "PodCompleted", "PodCompleted", "PodCompleted", ""]);
    });
}

#[test]
fn a_tcp_probe_follows_a_named_port() {
    in_lab(async |lab: &Lab| {
        let script = "while true; do test -e /closed || httpd -f -p 8080; sleep 0.1; done";
        let mut web = pod("web", &[("a", script)]);
        let container = first(&mut web);
        container.ports.push(ContainerPort { name: "http".into(), container_port: 8080, ..Default::default() });
        let port = IntOrString { r#type: 1, str_val: "http".into(), ..Default::default() };
        let socket = TcpSocketAction { port: Some(port), ..Default::default() };
        container.readiness_probe = Some(probe(ProbeHandler { tcp_socket: Some(socket), ..Default::default() }));
        lab.client.create(&web).await.unwrap();
        let ip = lab.until_ready("web").await.status.unwrap().pod_ip;
        lab.said("web", "a", "touch /closed; killall httpd").await;
        let is_ready = |pod: &Pod| pod.status.as_ref().unwrap().container_statuses[0].ready;
        lab.until_pod("web", "nobody listens", |pod| !is_ready(pod)).await;
        lab.until_event("Unhealthy", &format!("Readiness probe failed: dial tcp {ip}:8080")).await;
        lab.said("web", "a", "rm /closed").await;
        let web = lab.until_ready("web").await.status.unwrap();
        assert_eq!(web.container_statuses[0].restart_count, 0);
    });
}

/// Docker leaves such a command running; every further probe would put another one beside it.
#[test]
fn a_probe_that_hangs_is_ended_and_leaves_no_process() {
    in_lab(async |lab: &Lab| {
        let mut web = pod("web", &[("a", "sleep 1000")]);
        first(&mut web).readiness_probe = Some(Probe { timeout_seconds: 1, ..probe(exec("sleep 777; true")) });
        lab.client.create(&web).await.unwrap();
        lab.until_event("Unhealthy", "took longer than 1s").await;
        lab.until_said("web", "a", "ps | grep -c '[s]leep 777' || true; echo end", "0\nend").await;
    });
}

#[test]
fn volumes_follow_their_sources_while_the_pod_runs() {
    in_lab(async |lab: &Lab| {
        let mut settings = ConfigMap { data: [("color".to_owned(), "red".to_owned())].into(), ..Default::default() };
        settings.meta_mut().name = "settings".into();
        settings.meta_mut().namespace = "default".into();
        lab.client.create(&settings).await.unwrap();
        let mut web = pod("web", &[("a", "sleep 1000")]);
        web.meta_mut().labels.insert("tier".into(), "one".into());
        let reference = Some(LocalObjectReference { name: "settings".into() });
        let source = ConfigMapVolumeSource { local_object_reference: reference, ..Default::default() };
        share(&mut web, "settings", VolumeSource { config_map: Some(source), ..Default::default() }, "/settings");
        let field_ref = Some(ObjectFieldSelector { field_path: "metadata.labels".into(), ..Default::default() });
        let item = DownwardApiVolumeFile { path: "labels".into(), field_ref, ..Default::default() };
        let source = DownwardApiVolumeSource { items: vec![item], ..Default::default() };
        share(&mut web, "own", VolumeSource { downward_api: Some(source), ..Default::default() }, "/own");
        let frozen = VolumeMount {
            name: "settings".into(),
            mount_path: "/frozen".into(),
            sub_path: "color".into(),
            ..Default::default()
        };
        first(&mut web).volume_mounts.push(frozen);
        lab.client.create(&web).await.unwrap();
        lab.until_ready("web").await;
        assert_eq!(lab.said("web", "a", "cat /settings/color /own/labels").await, "redtier=\"one\"");
        lab.api.edit::<ConfigMap>("default", "settings", |map| {
            map.data = [("color".to_owned(), "blue".to_owned()), ("shape".to_owned(), "round".to_owned())].into();
        });
        lab.until_said("web", "a", "cat /settings/color /settings/shape", "blueround").await;
        // A subPath stays what it was, and so does the environment.
        assert_eq!(lab.said("web", "a", "cat /frozen").await, "red");
        lab.api.edit::<Pod>("default", "web", |pod| _ = pod.meta_mut().labels.insert("tier".into(), "two".into()));
        lab.until_said("web", "a", "cat /own/labels", "tier=\"two\"").await;
    });
}

#[test]
fn an_image_from_nowhere_is_waited_for_and_pulled_when_its_registry_comes() {
    in_lab(async |lab: &Lab| {
        let address = registry::free_address();
        let mut web = pod("web", &[("a", "sleep 1000")]);
        (first(&mut web).image, first(&mut web).image_pull_policy) = (format!("{address}/web:1"), "Always".into());
        lab.client.create(&web).await.unwrap();
        lab.until_pod("web", "the failed pull is told", |pod| waits_for(pod) == "ErrImagePull").await;
        lab.until_pod("web", "the wait is told", |pod| waits_for(pod) == "ImagePullBackOff").await;
        for (reason, message) in [
            ("Pulling", format!("Pulling image \"{address}/web:1\"")),
            ("Failed", format!("Failed to pull image \"{address}/web:1\": ")),
            ("Failed", "Error: ErrImagePull".to_owned()),
            ("BackOff", format!("Back-off pulling image \"{address}/web:1\"")),
            ("Failed", "Error: ImagePullBackOff".to_owned()),
        ] {
            lab.until_event(reason, &message).await;
        }
        let registry = registry::serve(&address, lab::busybox(lab.dir())).await;
        let status = lab.until_ready("web").await.status.unwrap();
        assert_eq!(status.container_statuses[0].restart_count, 0);
        lab.until_event("Pulled", &format!("Successfully pulled image \"{address}/web:1\"")).await;
        // What is on the node is enough for `IfNotPresent`, whatever became of the registry.
        registry.abort();
        let mut later = pod("later", &[("a", "sleep 1000")]);
        (first(&mut later).image, first(&mut later).image_pull_policy) =
            (format!("{address}/web:1"), "IfNotPresent".into());
        lab.client.create(&later).await.unwrap();
        lab.until_ready("later").await;
    });
}

#[test]
fn a_program_or_image_that_is_not_there_is_told_as_such() {
    in_lab(async |lab: &Lab| {
        let mut once = pod("once", &[("a", "")]);
        once.spec.as_mut().unwrap().restart_policy = "Never".into();
        first(&mut once).command = vec!["/no/such/program".into()];
        lab.client.create(&once).await.unwrap();
        let once = lab.until_pod("once", "the pod fails", |pod| phase(pod) == "Failed").await;
        let ended = once.status.unwrap().container_statuses[0].state.clone().unwrap().terminated.unwrap();
        assert_eq!((ended.exit_code, ended.reason.as_str()), (127, "ContainerCannotRun"));
        assert!(ended.message.contains("/no/such/program"), "{}", ended.message);
        lab.until_event("Failed", "/no/such/program").await;

        let mut again = pod("again", &[("a", "")]);
        first(&mut again).command = vec!["/no/such/program".into()];
        lab.client.create(&again).await.unwrap();
        let is_tried_again = |pod: &Pod| {
            let status = pod.status.as_ref().and_then(|status| status.container_statuses.first());
            status.is_some_and(|status| status.restart_count > 1)
        };
        lab.until_pod("again", "it is tried again", is_tried_again).await;
        lab.until_pod("again", "it says why", |pod| waits_for(pod) == "RunContainerError").await;

        let mut never = pod("never", &[("a", "sleep 1000")]);
        first(&mut never).image = "nowhere/web:1".into();
        lab.client.create(&never).await.unwrap();
        lab.until_pod("never", "it says why", |pod| waits_for(pod) == "ErrImageNeverPull").await;
        lab.until_event("ErrImageNeverPull", "is not present with pull policy of Never").await;
    });
}

#[test]
fn a_docker_that_hangs_makes_the_node_not_ready_and_touches_no_container() {
    use nix::sys::signal::{Signal, kill};
    in_lab(async |lab: &Lab| {
        lab.client.create(&pod("web", &[("a", "sleep 1000")])).await.unwrap();
        let before = lab.until_ready("web").await;
        let is_ready = |api: &client::fake::FakeApi| {
            let conditions = api.get::<Node>("", "n1").unwrap().status.unwrap().conditions;
            conditions.into_iter().find(|condition| condition.r#type == "Ready").unwrap().status == "True"
        };
        lab.until_api("the node is ready", is_ready).await;
        kill(lab.dockerd(), Signal::SIGSTOP).unwrap();
        lab.until_api("the node is not ready", |api| !is_ready(api)).await;
        kill(lab.dockerd(), Signal::SIGCONT).unwrap();
        lab.until_api("the node is ready again", is_ready).await;
        lab.client.create(&pod("later", &[("a", "sleep 1000")])).await.unwrap();
        lab.until_ready("later").await;
        let after = lab.api.get::<Pod>("default", "web").unwrap();
        assert_eq!(before.meta().resource_version, after.meta().resource_version);
    });
}

#[test]
fn what_a_kubelet_missed_while_it_was_away_is_cleaned_when_it_is_back() {
    in_lab(async |lab: &Lab| {
        for name in ["orphan", "pruned"] {
            let mut web = pod(name, &[("a", "sleep 1000")]);
            let memory = EmptyDirVolumeSource { medium: "Memory".into(), ..Default::default() };
            share(&mut web, "fast", VolumeSource { empty_dir: Some(memory), ..Default::default() }, "/fast");
            let requests = quantities(&[("cpu", "10m")]);
            first(&mut web).resources = Some(ResourceRequirements { requests, ..Default::default() });
            lab.client.create(&web).await.unwrap();
            lab.until_ready(name).await;
        }
        lab.stop_kubelet().await;
        let pruned = lab.api.get::<Pod>("default", "pruned").unwrap().meta().uid.clone();
        let ids = lab.docker(&["ps", "-aq", "--filter", &format!("label=io.kubernetes.pod.uid={pruned}")]);
        lab.docker(&[&["rm", "-f"][..], &ids.split_whitespace().collect::<Vec<_>>()].concat());
        for name in ["orphan", "pruned"] {
            assert!(lab.api.remove::<Pod>("default", name));
        }
        lab.start_kubelet();
        let pods = lab.options().root_dir.join("pods");
        let is_clean = || {
            let files = std::fs::read_dir(&pods).unwrap().count();
            files == 0 && lab.docker(&["ps", "-aq"]).is_empty() && !sh("ip -o link").contains("fsp")
        };
        let wait = async {
            while !is_clean() {
                tokio::task::yield_now().await
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), wait).await.unwrap_or_else(|_| {
            panic!("{:?} {} {}", std::fs::read_dir(&pods), lab.docker(&["ps", "-a"]), sh("ip -o link"))
        });
        let left = sh(&format!("find /sys/fs/cgroup -type d -path '*{}*pod*'", lab.options().cgroup_root));
        assert_eq!(left, "");
    });
}

#[test]
fn the_node_forwards_ports_measures_use_and_takes_images() {
    in_lab(async |lab: &Lab| {
        let mut node = lab.node().await;
        let archive = lab::busybox(lab.dir());
        let (head, tail) = archive.split_at(1000);
        let first_part =
            ImportImageRequest { image: "given:1".into(), chunk: head.to_vec().into(), ..Default::default() };
        let rest = tail
            .chunks(64 * 1024)
            .map(|chunk| ImportImageRequest { chunk: chunk.to_vec().into(), ..Default::default() });
        let parts: Vec<ImportImageRequest> = std::iter::once(first_part).chain(rest).collect();
        let id = node.import_image(futures::stream::iter(parts)).await.unwrap().into_inner().id;
        assert!(id.starts_with("sha256:"), "{id}");

        let script = "mkdir /www; echo here > /www/index.html; httpd -p 127.0.0.1:8080 -h /www; while true; do :; done";
        let mut web = pod("web", &[("a", script)]);
        first(&mut web).image = "given:1".into();
        lab.client.create(&web).await.unwrap();
        lab.until_ready("web").await;

        // It listens on its own localhost only.
        let target = Some(Target { namespace: "default".into(), pod: "web".into(), ..Default::default() });
        let ask = |port: u32| PortForwardRequest {
            target: target.clone(),
            port,
            payload: b"GET / HTTP/1.0\r\n\r\n".to_vec().into(),
            ..Default::default()
        };
        let said = loop {
            let asked = futures::StreamExt::chain(futures::stream::iter([ask(8080)]), futures::stream::pending());
            let Ok(answer) = node.port_forward(asked).await else { continue };
            let mut answer = answer.into_inner();
            let mut said = Vec::new();
            while let Some(part) = answer.message().await.unwrap() {
                said.extend_from_slice(&part.payload);
            }
            break String::from_utf8(said).unwrap();
        };
        assert!(said.ends_with("here\n"), "{said}");
        let refused = node.port_forward(futures::stream::iter([ask(9)])).await.unwrap_err();
        assert!(refused.message().contains("connect to port 9 in the pod"), "{refused}");

        let stats = node.stats(StatsRequest {}).await.unwrap().into_inner();
        let of_web: &PodStats = stats.pods.iter().find(|pod| pod.name == "web").unwrap();
        let used = of_web.r#use.unwrap();
        // It spins: a good part of a core, however busy the machine is.
        assert!(used.cpu_nanocores > 20_000_000 && used.memory_bytes > 100_000, "{used:?}");
        assert_eq!(of_web.containers[0].r#use, of_web.r#use);
        assert!(stats.node.unwrap().memory_bytes > used.memory_bytes);
    });
}
