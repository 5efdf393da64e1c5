//! Pods: readiness, the one word that says how they are, restarts.

use prost::Message;
use proto::{
    Kind,
    k8s::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodSpec, PodStatus},
};

use super::{AGE, Column, NAME, Row, Sheet, age, or, span, text};

pub static SHEET: Sheet = sheet!(COLUMNS, Pod, row);

const COLUMNS: &[Column] = &[
    NAME,
    Column::text("Ready", "Containers that are ready, of all that should be."),
    Column::text("Status", "The pod in one word: its phase, or what holds it up."),
    Column::text("Restarts", "How often its containers were restarted, and when last."),
    AGE,
    Column::text("IP", "The pod's address.").wide(),
    Column::text("Node", "The node it runs on.").wide(),
    Column::text("Nominated Node", "The node being freed for it by preemption.").wide(),
    Column::text("Readiness Gates", "Extra readiness conditions that hold, of all it names.").wide(),
];

fn row(pod: &Pod, now: i64) -> Row {
    let (spec, status) = (pod.spec.clone().unwrap_or_default(), pod.status.clone().unwrap_or_default());
    let Summary { ready, total, word, restarts } = summary(pod, &spec, &status);
    let address = status.pod_ips.first().map_or(status.pod_ip.as_str(), |address| &address.ip);
    Row {
        completed: match status.phase.as_str() {
            "Succeeded" => Some("Succeeded"),
            "Failed" => Some("Failed"),
            _ => None,
        },
        cells: vec![
            text(&pod.meta().name),
            format!("{ready}/{total}").into(),
            word.into(),
            restarts.display(now).into(),
            age(pod.meta().creation_timestamp.as_ref(), now).into(),
            text(or(address, "<none>")),
            text(or(&spec.node_name, "<none>")),
            text(or(&status.nominated_node_name, "<none>")),
            gates(&spec, &status).into(),
        ],
    }
}

struct Summary {
    ready: usize,
    total: usize,
    word: String,
    restarts: Restarts,
}

#[derive(Clone, Copy, Default)]
struct Restarts {
    count: i64,
    last: Option<i64>,
}

impl Restarts {
    fn add(&mut self, container: &ContainerStatus) {
        self.count += i64::from(container.restart_count);
        let ended = container.last_state.as_ref().and_then(|state| state.terminated.as_ref()?.finished_at);
        self.last = self.last.max(ended.map(|time| time.seconds));
    }

    fn display(self, now: i64) -> String {
        match self.last {
            Some(last) if self.count > 0 => format!("{} ({} ago)", self.count, span(now.saturating_sub(last))),
            _ => self.count.to_string(),
        }
    }
}

/// Reads a pod the way kubectl's users expect: init containers first, then what the containers wait for or ended with.
fn summary(pod: &Pod, spec: &PodSpec, status: &PodStatus) -> Summary {
    let mut restarts = Restarts::default();
    let mut sidecar_restarts = Restarts::default();
    let sidecars = spec.init_containers.iter().filter(|container| is_sidecar(container)).count();
    let mut ready = 0;
    let mut word = first_word(status);

    let mut initializing = false;
    for (index, container) in status.init_container_statuses.iter().enumerate() {
        let sidecar = spec.init_containers.iter().any(|init| init.name == container.name && is_sidecar(init));
        restarts.add(container);
        if sidecar {
            sidecar_restarts.add(container);
        }
        if sidecar && container.started == Some(true) {
            ready += usize::from(container.ready);
        } else if let Some(holds) = init_word(container, index, spec.init_containers.len()) {
            (word, initializing) = (holds, true);
            break;
        }
    }

    if !initializing || condition(status, "Initialized") {
        restarts = sidecar_restarts;
        status.container_statuses.iter().for_each(|container| restarts.add(container));
        let running = |container: &&ContainerStatus| container.ready && state(container).running.is_some();
        let running = status.container_statuses.iter().filter(running).count();
        ready += running;
        // The first container's word wins.
        if let Some(holds) = status.container_statuses.iter().find_map(container_word) {
            word = holds;
        }
        if word == "Completed" && running > 0 {
            word = if condition(status, "Ready") { "Running".into() } else { "NotReady".into() };
        }
    }

    if pod.meta().deletion_timestamp.is_some() {
        if status.reason == "NodeLost" {
            word = "Unknown".into();
        } else if !matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            word = "Terminating".into();
        }
    }
    Summary { ready, total: spec.containers.len() + sidecars, word, restarts }
}

fn first_word(status: &PodStatus) -> String {
    let gated = status.conditions.iter().any(|c| c.r#type == "PodScheduled" && c.reason == "SchedulingGated");
    if gated { "SchedulingGated".into() } else { or(&status.reason, &status.phase).to_owned() }
}

/// What an init container holds the pod up with; `None` once it is through.
fn init_word(container: &ContainerStatus, index: usize, total: usize) -> Option<String> {
    let state = state(container);
    if let Some(ended) = &state.terminated {
        return (ended.exit_code != 0).then(|| format!("Init:{}", end_word(ended)));
    }
    match state.waiting {
        Some(waiting) if !waiting.reason.is_empty() && waiting.reason != "PodInitializing" => {
            Some(format!("Init:{}", waiting.reason))
        }
        _ => Some(format!("Init:{index}/{total}")),
    }
}

/// What a container waits for or ended with; `None` while it runs.
fn container_word(container: &ContainerStatus) -> Option<String> {
    let state = state(container);
    match (state.waiting, state.terminated) {
        (Some(waiting), _) if !waiting.reason.is_empty() => Some(waiting.reason),
        (_, Some(ended)) => Some(end_word(&ended)),
        _ => None,
    }
}

fn end_word(ended: &ContainerStateTerminated) -> String {
    match ended {
        ended if !ended.reason.is_empty() => ended.reason.clone(),
        ended if ended.signal != 0 => format!("Signal:{}", ended.signal),
        ended => format!("ExitCode:{}", ended.exit_code),
    }
}

fn state(container: &ContainerStatus) -> proto::k8s::core::v1::ContainerState {
    container.state.clone().unwrap_or_default()
}

/// An init container that keeps running beside the others.
fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn condition(status: &PodStatus, kind: &str) -> bool {
    status.conditions.iter().any(|condition| condition.r#type == kind && condition.status == "True")
}

fn gates(spec: &PodSpec, status: &PodStatus) -> String {
    if spec.readiness_gates.is_empty() {
        return "<none>".to_owned();
    }
    let open = spec.readiness_gates.iter().filter(|gate| condition(status, &gate.condition_type)).count();
    format!("{open}/{}", spec.readiness_gates.len())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use proto::k8s::{
        core::v1::{
            ContainerState, ContainerStateRunning, ContainerStateWaiting, PodCondition, PodIp, PodReadinessGate,
        },
        meta::v1::{ObjectMeta, Time},
    };

    use super::*;

    const NOW: i64 = 1_000_000;

    fn pod(containers: usize) -> Pod {
        let container = |index| Container { name: format!("c{index}"), ..Default::default() };
        let created = Some(Time { seconds: NOW - 90, nanos: 0 });
        Pod {
            metadata: Some(ObjectMeta { name: "web-1".into(), creation_timestamp: created, ..Default::default() }),
            spec: Some(PodSpec { containers: (0..containers).map(container).collect(), ..Default::default() }),
            status: Some(PodStatus { phase: "Running".into(), ..Default::default() }),
        }
    }

    fn with(mut pod: Pod, change: impl FnOnce(&mut PodSpec, &mut PodStatus)) -> Pod {
        change(pod.spec.get_or_insert_default(), pod.status.get_or_insert_default());
        pod
    }

    fn container(name: &str, state: ContainerState) -> ContainerStatus {
        let ready = state.running.is_some();
        ContainerStatus { name: name.into(), state: Some(state), ready, ..Default::default() }
    }

    fn running() -> ContainerState {
        ContainerState { running: Some(ContainerStateRunning::default()), ..Default::default() }
    }

    fn waiting(reason: &str) -> ContainerState {
        let waiting = Some(ContainerStateWaiting { reason: reason.into(), ..Default::default() });
        ContainerState { waiting, ..Default::default() }
    }

    fn ended(exit_code: i32, signal: i32, reason: &str) -> ContainerState {
        let finished_at = Some(Time { seconds: NOW - 300, nanos: 0 });
        let terminated = Some(ContainerStateTerminated {
            exit_code,
            signal,
            reason: reason.into(),
            finished_at,
            ..Default::default()
        });
        ContainerState { terminated, ..Default::default() }
    }

    fn words(pod: &Pod) -> String {
        row(pod, NOW).cells[1..4].iter().map(ToString::to_string).collect::<Vec<_>>().join(" | ")
    }

    fn check(pod: Pod, expected: Expect) {
        expected.assert_eq(&words(&pod));
    }

    #[test]
    fn a_running_pod_shows_all_columns() {
        let pod = with(pod(2), |spec, status| {
            spec.node_name = "n1".into();
            spec.readiness_gates = vec![PodReadinessGate { condition_type: "lb".into() }];
            status.pod_ips = vec![PodIp { ip: "10.244.0.7".into() }];
            status.container_statuses = vec![container("c0", running()), container("c1", running())];
            status.container_statuses[0].restart_count = 2;
            status.container_statuses[0].last_state = Some(ended(1, 0, "Error"));
        });
        expect![[r#"
            Name             web-1
            Ready            2/2
            Status           Running
            Restarts         2 (5m ago)
            Age              90s
            IP               10.244.0.7
            Node             n1
            Nominated Node   <none>
            Readiness Gates  0/1
        "#]]
        .assert_eq(&super::super::show::row(&SHEET, &row(&pod, NOW)));
    }

    #[test]
    fn a_waiting_container_names_what_holds_the_pod_up() {
        let states = |states: Vec<ContainerState>| {
            with(pod(states.len()), |_, status| {
                status.container_statuses =
                    states.into_iter().enumerate().map(|(i, state)| container(&format!("c{i}"), state)).collect();
            })
        };
        check(states(vec![waiting("CrashLoopBackOff")]), expect!["0/1 | CrashLoopBackOff | 0"]);
        check(states(vec![running(), waiting("ImagePullBackOff")]), expect!["1/2 | ImagePullBackOff | 0"]);
        check(states(vec![waiting("ErrImagePull"), ended(1, 0, "Error")]), expect!["0/2 | ErrImagePull | 0"]);
        check(states(vec![ended(1, 0, "Error"), running()]), expect!["1/2 | Error | 0"]);
        check(states(vec![ended(137, 9, "")]), expect!["0/1 | Signal:9 | 0"]);
        check(states(vec![ended(3, 0, "")]), expect!["0/1 | ExitCode:3 | 0"]);
        check(states(vec![waiting("")]), expect!["0/1 | Running | 0"]);
    }

    #[test]
    fn one_finished_container_beside_a_running_one_is_no_completed_pod() {
        let mixed = with(pod(2), |_, status| {
            status.container_statuses = vec![container("c0", ended(0, 0, "Completed")), container("c1", running())];
        });
        check(mixed.clone(), expect!["1/2 | NotReady | 0"]);
        let ready = with(mixed, |_, status| {
            status.conditions =
                vec![PodCondition { r#type: "Ready".into(), status: "True".into(), ..Default::default() }];
        });
        check(ready, expect!["1/2 | Running | 0"]);
    }

    #[test]
    fn init_containers_come_first() {
        let init = |states: Vec<ContainerState>| {
            with(pod(1), |spec, status| {
                spec.init_containers =
                    (0..2).map(|i| Container { name: format!("i{i}"), ..Default::default() }).collect();
                status.phase = "Pending".into();
                status.init_container_statuses =
                    states.into_iter().enumerate().map(|(i, state)| container(&format!("i{i}"), state)).collect();
                status.container_statuses = vec![container("c0", waiting("PodInitializing"))];
            })
        };
        check(init(vec![running(), waiting("PodInitializing")]), expect!["0/1 | Init:0/2 | 0"]);
        check(init(vec![ended(0, 0, "Completed"), running()]), expect!["0/1 | Init:1/2 | 0"]);
        check(init(vec![ended(1, 0, "Error")]), expect!["0/1 | Init:Error | 0"]);
        check(init(vec![ended(2, 0, "")]), expect!["0/1 | Init:ExitCode:2 | 0"]);
        check(init(vec![waiting("CrashLoopBackOff")]), expect!["0/1 | Init:CrashLoopBackOff | 0"]);
        let done = vec![ended(0, 0, "Completed"), ended(0, 0, "Completed")];
        check(init(done), expect!["0/1 | PodInitializing | 0"]);
    }

    #[test]
    fn a_sidecar_counts_as_a_container_once_it_started() {
        let pod = with(pod(1), |spec, status| {
            spec.init_containers =
                vec![Container { name: "s".into(), restart_policy: Some("Always".into()), ..Default::default() }];
            status.init_container_statuses =
                vec![ContainerStatus { started: Some(true), restart_count: 1, ..container("s", running()) }];
            status.container_statuses = vec![container("c0", running())];
        });
        check(pod, expect!["2/2 | Running | 1"]);
    }

    #[test]
    fn a_pod_being_deleted_is_terminating_until_it_is_through() {
        let mut deleted = pod(1);
        deleted.meta_mut().deletion_timestamp = Some(Time::default());
        check(deleted.clone(), expect!["0/1 | Terminating | 0"]);
        check(with(deleted.clone(), |_, status| status.phase = "Succeeded".into()), expect!["0/1 | Succeeded | 0"]);
        check(with(deleted, |_, status| status.reason = "NodeLost".into()), expect!["0/1 | Unknown | 0"]);
    }

    #[test]
    fn the_pods_own_reason_stands_over_its_phase() {
        let evicted = with(pod(1), |_, status| (status.phase, status.reason) = ("Failed".into(), "Evicted".into()));
        assert_eq!(row(&evicted, NOW).completed, Some("Failed"));
        check(evicted, expect!["0/1 | Evicted | 0"]);
        let gated = with(pod(1), |_, status| {
            status.phase = "Pending".into();
            let reason = "SchedulingGated".into();
            status.conditions = vec![PodCondition { r#type: "PodScheduled".into(), reason, ..Default::default() }];
        });
        check(gated, expect!["0/1 | SchedulingGated | 0"]);
    }
}
