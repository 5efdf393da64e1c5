//! What the API is told about one pod. PURE.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use proto::{
    Kind,
    k8s::{
        core::v1::{
            Container as ContainerSpec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
            ContainerStateWaiting, ContainerStatus, HostIp, Pod, PodCondition, PodIp, PodStatus,
        },
        meta::v1::Time,
    },
};

use super::{
    backoff::BackOff,
    resources,
    snapshot::{
        Failure, FailureReason, RestartPolicy, Snapshot, Target, Verdict, Verdicts, is_sidecar, restart_policy,
        status as known_status,
    },
};
use crate::runtime::{Container, PodState, Sandbox};

/// A container that ended waits for its next attempt.
pub const CRASH_LOOP: &str = "CrashLoopBackOff";
/// A container waits for the next try to get its image.
pub const IMAGE_PULL: &str = "ImagePullBackOff";
const PENDING: &str = "Pending";
const RUNNING: &str = "Running";
const SUCCEEDED: &str = "Succeeded";
const FAILED: &str = "Failed";

/// The whole status, as the API should have it now.
pub fn status(snapshot: &Snapshot) -> PodStatus {
    let known = known_status(snapshot.pod);
    let spec = snapshot.spec();
    let (reason, message) = match snapshot.is_past_deadline() || known.reason == "DeadlineExceeded" {
        true => {
            ("DeadlineExceeded".to_owned(), "Pod was active on the node longer than the specified deadline".to_owned())
        }
        false => (known.reason.clone(), known.message.clone()),
    };
    let phase = told_phase(snapshot);
    let ips = pod_ips(snapshot);
    let mut status = PodStatus {
        observed_generation: snapshot.pod.meta().generation,
        phase: phase.to_owned(),
        reason,
        message,
        host_ip: snapshot.node.ips.first().map(ToString::to_string).unwrap_or_default(),
        host_ips: snapshot.node.ips.iter().map(|ip| HostIp { ip: ip.to_string() }).collect(),
        pod_ip: ips.first().cloned().unwrap_or_default(),
        pod_ips: ips.into_iter().map(|ip| PodIp { ip }).collect(),
        start_time: known.start_time.or_else(|| Some(time(snapshot.now))),
        init_container_statuses: spec
            .init_containers
            .iter()
            .map(|c| container_status(snapshot, c, Role::Init))
            .collect(),
        container_statuses: spec.containers.iter().map(|c| container_status(snapshot, c, Role::Main)).collect(),
        qos_class: resources::qos_class(spec).as_str().to_owned(),
        nominated_node_name: known.nominated_node_name.clone(),
        ..known.clone()
    };
    status.conditions = conditions(snapshot, &status);
    status
}

const UNKNOWN_END: &str = "ContainerStatusUnknown";

/// The pod has come to its end and will never run again.
pub fn is_over(snapshot: &Snapshot) -> bool {
    snapshot.is_past_deadline() || is_terminal(snapshot.known_phase()) || is_terminal(phase(snapshot))
}

pub fn is_terminal(phase: &str) -> bool {
    phase == SUCCEEDED || phase == FAILED
}

/// Its init containers have done their work in the sandbox the pod has now.
pub fn is_initialized(snapshot: &Snapshot) -> bool {
    let spec = snapshot.spec();
    let sandbox = current_sandbox(snapshot);
    let main_ran = spec.containers.iter().any(|main| {
        let mut attempts = snapshot.state.attempts(&main.name);
        attempts.any(|container| sandbox.is_none_or(|sandbox| container.sandbox_id == sandbox.id))
    });
    main_ran || spec.init_containers.iter().all(|container| is_init_complete(snapshot, container))
}

/// One init container is done in the present sandbox; a sidecar: is up.
pub fn is_init_complete(snapshot: &Snapshot, spec: &ContainerSpec) -> bool {
    let Some(newest) = snapshot.state.newest(&spec.name) else { return false };
    let is_here = current_sandbox(snapshot).is_none_or(|sandbox| newest.sandbox_id == sandbox.id);
    let is_done = match is_sidecar(spec) {
        true => is_up(snapshot, spec, newest) && is_started(snapshot, spec, newest),
        false => newest.is_dead() && newest.exit_code == 0,
    };
    is_here && is_done
}

/// What the API knows of the containers' probes: it holds for a kubelet that begins, until its own probes say otherwise.
pub fn known_verdicts(pod: &Pod, state: &PodState) -> BTreeMap<String, Verdicts> {
    let known = known_status(pod);
    let good = |holds: bool| if holds { Verdict::Success } else { Verdict::Unknown };
    let of = |told: &ContainerStatus| {
        let newest = state.newest(&told.name)?;
        let is_same = newest.is_running() && container_id(newest) == told.container_id;
        let verdicts =
            Verdicts { startup: good(told.started()), readiness: good(told.ready), liveness: Verdict::Unknown };
        is_same.then(|| (newest.id.clone(), verdicts))
    };
    known.init_container_statuses.iter().chain(&known.container_statuses).filter_map(of).collect()
}

/// Containers that wait for their next try, and why: what users are told of once each time it begins.
pub fn back_offs(status: &PodStatus) -> BTreeMap<String, &'static str> {
    let of = |container: &ContainerStatus| {
        let waiting = container.state.as_ref()?.waiting.as_ref()?;
        let reason = [CRASH_LOOP, IMAGE_PULL].into_iter().find(|reason| *reason == waiting.reason)?;
        Some((container.name.clone(), reason))
    };
    status.init_container_statuses.iter().chain(&status.container_statuses).filter_map(of).collect()
}

/// When a failed try changes from "it failed" to "it waits".
pub fn retold_at(failure: &Failure, back_off: &BackOff) -> Timestamp {
    const FRESH_MAX: std::time::Duration = std::time::Duration::from_secs(5);
    failure.at + (back_off.delay(failure.count) / 2).min(FRESH_MAX)
}

fn current_sandbox<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Sandbox> {
    snapshot.state.live_sandbox().or(snapshot.state.sandboxes.first())
}

/// The live sandbox once it has its network: one that is being made runs before it is wired.
fn wired_sandbox<'a>(snapshot: &Snapshot<'a>) -> Option<&'a Sandbox> {
    let has_run = |sandbox: &Sandbox| snapshot.state.containers.iter().any(|c| c.sandbox_id == sandbox.id);
    snapshot.state.live_sandbox().filter(|sandbox| !snapshot.is_busy(&Target::Sandbox) || has_run(sandbox))
}

fn pod_ips(snapshot: &Snapshot) -> Vec<String> {
    if snapshot.spec().host_network {
        return snapshot.node.ips.iter().map(ToString::to_string).collect();
    }
    let ip = wired_sandbox(snapshot).and_then(|sandbox| sandbox.ip);
    match ip {
        Some(ip) => vec![ip.to_string()],
        // A pod that is over keeps the address it had in its record, as its logs and events speak of it.
        None if is_terminal(snapshot.known_phase()) => {
            known_status(snapshot.pod).pod_ips.iter().map(|ip| ip.ip.clone()).collect()
        }
        None => Vec::new(),
    }
}

/// How the containers stand, counted.
#[derive(Default)]
struct Tally {
    waiting: usize,
    running: usize,
    stopped: usize,
    succeeded: usize,
}

/// The phase as the API has it: a pod is not over while anything of it, such as a sidecar, still runs.
fn told_phase(snapshot: &Snapshot) -> &'static str {
    let phase = phase(snapshot);
    let is_new = is_terminal(phase) && !is_terminal(snapshot.known_phase());
    if is_new && snapshot.state.containers.iter().any(Container::is_running) { RUNNING } else { phase }
}

/// The phase by Kubernetes' rules. A terminal one never changes.
pub fn phase(snapshot: &Snapshot) -> &'static str {
    match snapshot.known_phase() {
        SUCCEEDED => return SUCCEEDED,
        FAILED => return FAILED,
        _ => {}
    }
    let spec = snapshot.spec();
    let policy = restart_policy(spec);
    let mut tally = Tally::default();
    for container in &spec.containers {
        match snapshot.state.newest(&container.name) {
            Some(newest) if is_up(snapshot, container, newest) => tally.running += 1,
            Some(container) if container.is_dead() => {
                tally.stopped += 1;
                tally.succeeded += usize::from(container.exit_code == 0);
            }
            // The next attempt stands ready or is being made; the one before it ended.
            Some(container) if container.attempt > 0 => tally.stopped += 1,
            Some(_) => tally.waiting += 1,
            None => match end_of_gone(snapshot, &container.name) {
                Some(told) => {
                    tally.stopped += 1;
                    tally.succeeded += usize::from(end_in(&told).is_some_and(|end| end.exit_code == 0));
                }
                None => tally.waiting += 1,
            },
        }
    }
    if snapshot.is_past_deadline() && tally.running == 0 {
        return FAILED;
    }
    if !is_initialized(snapshot) && !spec.init_containers.is_empty() {
        let failed = spec.init_containers.iter().filter(|container| !is_sidecar(container)).any(|container| {
            let newest = snapshot.state.newest(&container.name);
            newest.is_some_and(|newest| newest.is_dead() && newest.exit_code != 0)
        });
        return if failed && policy == RestartPolicy::Never { FAILED } else { PENDING };
    }
    if tally.waiting > 0 && !snapshot.is_deleted() {
        return PENDING;
    }
    if tally.running > 0 {
        return RUNNING;
    }
    // Only where nothing will be started again do stopped containers end the pod.
    let is_last_word = |policy: RestartPolicy| match policy {
        RestartPolicy::Always => false,
        RestartPolicy::OnFailure => tally.succeeded == tally.stopped,
        RestartPolicy::Never => true,
    };
    if tally.stopped > 0 {
        let ends = snapshot.is_deleted() || is_last_word(policy);
        return match (ends, tally.succeeded == tally.stopped) {
            (false, _) => RUNNING,
            (true, true) => SUCCEEDED,
            (true, false) => FAILED,
        };
    }
    PENDING
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    Init,
    Main,
}

fn container_status(snapshot: &Snapshot, spec: &ContainerSpec, role: Role) -> ContainerStatus {
    if let Some(told) = end_of_gone(snapshot, &spec.name) {
        return told;
    }
    let mut attempts = snapshot.state.attempts(&spec.name);
    let newest = attempts.next();
    let previous = attempts.find(|container| container.is_dead());
    let (state, last) = states(snapshot, spec, role, newest, previous);
    let is_started = newest.is_some_and(|c| is_up(snapshot, spec, c) && is_started(snapshot, spec, c));
    let is_ready = match (role, newest) {
        (Role::Init, Some(c)) if !is_sidecar(spec) => c.is_dead() && c.exit_code == 0,
        (_, Some(c)) => is_started && is_probed_ready(snapshot, spec, c),
        (_, None) => false,
    };
    ContainerStatus {
        name: spec.name.clone(),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        ready: is_ready,
        restart_count: newest.map_or(0, |container| i32::try_from(container.attempt).unwrap_or(i32::MAX)),
        image: newest.map_or(&spec.image, |container| &container.image).clone(),
        image_id: newest.map(|container| container.image_id.clone()).unwrap_or_default(),
        container_id: newest.map(container_id).unwrap_or_default(),
        started: Some(is_started),
        allocated_resources: spec.resources.as_ref().map(|r| r.requests.clone()).unwrap_or_default(),
        resources: spec.resources.clone().filter(|r| !r.requests.is_empty() || !r.limits.is_empty()),
        ..Default::default()
    }
}

/// How a container of a pod on its way out ended, where nothing is left of it here: what the API was told stays, and one
/// that ran when it was last heard of ended unseen. None where there is something left, or never was.
fn end_of_gone(snapshot: &Snapshot, name: &str) -> Option<ContainerStatus> {
    let will_not_run = snapshot.is_deleted() || is_terminal(snapshot.known_phase());
    if !will_not_run || snapshot.state.newest(name).is_some() {
        return None;
    }
    let known = known_status(snapshot.pod);
    let mut told = known.init_container_statuses.iter().chain(&known.container_statuses);
    let mut told = told.find(|status| status.name == name)?.clone();
    let state = told.state.take()?;
    told.state = match (state.terminated, state.running) {
        (Some(ended), _) => Some(ContainerState { terminated: Some(ended), ..Default::default() }),
        (None, Some(_)) => Some(unseen_end(&told.container_id)),
        (None, None) => return None,
    };
    if end_in(&told).is_some_and(|end| end.reason == UNKNOWN_END) {
        (told.ready, told.started) = (false, Some(false));
    }
    Some(told)
}

fn end_in(status: &ContainerStatus) -> Option<&ContainerStateTerminated> {
    status.state.as_ref()?.terminated.as_ref()
}

/// Kubernetes' words for a container that nobody saw end.
fn unseen_end(container_id: &str) -> ContainerState {
    let terminated = ContainerStateTerminated {
        exit_code: 137,
        reason: UNKNOWN_END.to_owned(),
        message: "The container could not be located when the pod was terminated".to_owned(),
        container_id: container_id.to_owned(),
        ..Default::default()
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

/// The present state, and the one before where it still tells something.
fn states(
    snapshot: &Snapshot,
    spec: &ContainerSpec,
    role: Role,
    newest: Option<&Container>,
    previous: Option<&Container>,
) -> (ContainerState, Option<ContainerState>) {
    let last = previous.map(|container| terminated(snapshot, container));
    let newest = match newest {
        Some(container) if is_up(snapshot, spec, container) => {
            let running = ContainerStateRunning { started_at: container.started_at.map(time) };
            return (ContainerState { running: Some(running), ..Default::default() }, last);
        }
        Some(container) if container.is_dead() => container,
        Some(_) | None => return (waiting(why_waiting(snapshot, spec, role)), last),
    };
    let ended = terminated(snapshot, newest);
    let restarts = !snapshot.is_deleted() && !is_over(snapshot) && restarts(snapshot, spec, role, newest);
    if let Some(failure) = snapshot.failures.get(&spec.name).filter(|_| restarts) {
        return (waiting(told(failure, spec, snapshot)), Some(ended));
    }
    // It waits until the next attempt runs, the moments in which that is made included.
    let (_, delay) = snapshot.back_off.next_attempt(newest);
    if restarts && !delay.is_zero() {
        let message = format!(
            "back-off {} restarting failed container={} pod={}_{}({})",
            go_duration(delay),
            spec.name,
            snapshot.pod.meta().name,
            snapshot.pod.meta().namespace,
            snapshot.pod.meta().uid
        );
        return (waiting((CRASH_LOOP.into(), message)), Some(ended));
    }
    (ended, last)
}

fn restarts(snapshot: &Snapshot, spec: &ContainerSpec, role: Role, dead: &Container) -> bool {
    let policy = match (role, restart_policy(snapshot.spec())) {
        (Role::Init, _) if is_sidecar(spec) => RestartPolicy::Always,
        (Role::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    };
    policy.restarts_after(dead.exit_code)
}

/// Why a container that never ran is not running.
fn why_waiting(snapshot: &Snapshot, spec: &ContainerSpec, role: Role) -> (String, String) {
    if let Some(failure) = snapshot.failures.get(&spec.name) {
        return told(failure, spec, snapshot);
    }
    let has_inits = !snapshot.spec().init_containers.is_empty();
    let is_behind = role == Role::Main && has_inits || is_later_init(snapshot, spec, role);
    let reason = if is_behind && !is_initialized(snapshot) { "PodInitializing" } else { "ContainerCreating" };
    (reason.to_owned(), String::new())
}

fn is_later_init(snapshot: &Snapshot, spec: &ContainerSpec, role: Role) -> bool {
    role == Role::Init && snapshot.spec().init_containers.first().is_none_or(|first| first.name != spec.name)
}

/// A failed try in words: what failed while it is fresh, that it waits later on.
fn told(failure: &Failure, spec: &ContainerSpec, snapshot: &Snapshot) -> (String, String) {
    let is_fresh = snapshot.now < retold_at(failure, snapshot.back_off);
    match failure.reason {
        FailureReason::ImagePull if !is_fresh => {
            (IMAGE_PULL.into(), format!("Back-off pulling image \"{}\": {}", spec.image, failure.message))
        }
        reason => (reason.as_str().into(), failure.message.clone()),
    }
}

fn waiting((reason, message): (String, String)) -> ContainerState {
    ContainerState { waiting: Some(ContainerStateWaiting { reason, message }), ..Default::default() }
}

fn terminated(snapshot: &Snapshot, container: &Container) -> ContainerState {
    let reason = match container {
        c if c.oom_killed => "OOMKilled",
        c if !c.error.is_empty() && c.started_at.is_none() => "ContainerCannotRun",
        c if c.exit_code == 0 => "Completed",
        _ => "Error",
    };
    let said = snapshot.messages.get(&container.id).cloned().unwrap_or_default();
    let terminated = ContainerStateTerminated {
        exit_code: container.exit_code,
        signal: 0,
        reason: reason.to_owned(),
        message: if said.is_empty() { container.error.clone() } else { said },
        // One that could not start has no times of its own.
        started_at: Some(time(container.started_at.unwrap_or(container.created_at))),
        finished_at: Some(time(container.finished_at.unwrap_or(container.created_at))),
        container_id: container_id(container),
    };
    ContainerState { terminated: Some(terminated), ..Default::default() }
}

fn container_id(container: &Container) -> String {
    format!("docker://{}", container.id)
}

fn verdicts(snapshot: &Snapshot, container: &Container) -> Verdicts {
    snapshot.probes.get(&container.id).copied().unwrap_or_default()
}

/// It runs, and its postStart hook is behind it.
fn is_up(snapshot: &Snapshot, spec: &ContainerSpec, container: &Container) -> bool {
    container.is_running() && !(has_post_start(spec) && snapshot.starting.contains(&spec.name))
}

pub fn has_post_start(spec: &ContainerSpec) -> bool {
    spec.lifecycle.as_ref().is_some_and(|lifecycle| lifecycle.post_start.is_some())
}

fn is_started(snapshot: &Snapshot, spec: &ContainerSpec, container: &Container) -> bool {
    spec.startup_probe.is_none() || verdicts(snapshot, container).startup == Verdict::Success
}

fn is_probed_ready(snapshot: &Snapshot, spec: &ContainerSpec, container: &Container) -> bool {
    spec.readiness_probe.is_none() || verdicts(snapshot, container).readiness == Verdict::Success
}

/// A condition's content, without its times.
struct Verdicted {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdicted {
    fn yes() -> Self {
        Self { holds: true, reason: "", message: String::new() }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Self { holds: false, reason, message }
    }
}

fn conditions(snapshot: &Snapshot, status: &PodStatus) -> Vec<PodCondition> {
    let containers_ready = containers_ready(snapshot, status);
    let ready = ready(snapshot, &containers_ready);
    let sandbox = match wired_sandbox(snapshot) {
        Some(_) => Verdicted::yes(),
        None => Verdicted::no("", String::new()),
    };
    let own = [
        ("PodReadyToStartContainers", sandbox),
        ("Initialized", initialized(snapshot, status)),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", Verdicted::yes()),
    ];
    let names: Vec<&str> = own.iter().map(|(name, _)| *name).collect();
    let known = &known_status(snapshot.pod).conditions;
    let others = known.iter().filter(|condition| !names.contains(&condition.r#type.as_str())).cloned();
    let own = own.into_iter().map(|(name, verdict)| condition(snapshot, known, name, verdict));
    own.chain(others).collect()
}

/// One condition; its transition time moves only when its status does.
fn condition(snapshot: &Snapshot, known: &[PodCondition], name: &str, verdict: Verdicted) -> PodCondition {
    let status = if verdict.holds { "True" } else { "False" };
    let before = known.iter().find(|condition| condition.r#type == name && condition.status == status);
    PodCondition {
        r#type: name.to_owned(),
        observed_generation: snapshot.pod.meta().generation,
        status: status.to_owned(),
        last_probe_time: None,
        last_transition_time: before
            .and_then(|condition| condition.last_transition_time)
            .or_else(|| Some(time(snapshot.now))),
        reason: verdict.reason.to_owned(),
        message: verdict.message,
    }
}

fn initialized(snapshot: &Snapshot, status: &PodStatus) -> Verdicted {
    if status.phase == SUCCEEDED {
        return Verdicted { reason: "PodCompleted", ..Verdicted::yes() };
    }
    if is_initialized(snapshot) {
        return Verdicted::yes();
    }
    let open: Vec<&str> = snapshot
        .spec()
        .init_containers
        .iter()
        .filter(|container| !is_init_complete(snapshot, container))
        .map(|container| container.name.as_str())
        .collect();
    Verdicted::no("ContainersNotInitialized", format!("containers with incomplete status: [{}]", open.join(" ")))
}

fn containers_ready(snapshot: &Snapshot, status: &PodStatus) -> Verdicted {
    match status.phase.as_str() {
        SUCCEEDED => return Verdicted::no("PodCompleted", String::new()),
        FAILED => return Verdicted::no("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = snapshot.spec().init_containers.iter().zip(&status.init_container_statuses);
    let sidecars = sidecars.filter(|(spec, _)| is_sidecar(spec)).map(|(_, status)| status);
    let unready: Vec<&str> = sidecars
        .chain(&status.container_statuses)
        .filter(|status| !status.ready)
        .map(|status| status.name.as_str())
        .collect();
    match unready.is_empty() {
        true => Verdicted::yes(),
        false => {
            Verdicted::no("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" ")))
        }
    }
}

fn ready(snapshot: &Snapshot, containers: &Verdicted) -> Verdicted {
    if !containers.holds {
        return Verdicted::no(containers.reason, containers.message.clone());
    }
    let known: BTreeMap<&str, &str> =
        known_status(snapshot.pod).conditions.iter().map(|c| (c.r#type.as_str(), c.status.as_str())).collect();
    let gates = snapshot.spec().readiness_gates.iter().map(|gate| gate.condition_type.as_str());
    let closed: Vec<String> = gates
        .filter_map(|gate| match known.get(gate) {
            Some(&"True") => None,
            Some(_) => Some(format!("the status of pod readiness gate \"{gate}\" is not \"True\"")),
            None => Some(format!("corresponding condition of pod readiness gate \"{gate}\" does not exist.")),
        })
        .collect();
    if closed.is_empty() { Verdicted::yes() } else { Verdicted::no("ReadinessGatesNotReady", closed.join(", ")) }
}

/// Whole seconds: what the API keeps.
pub fn time(at: Timestamp) -> Time {
    Time { seconds: at.as_second(), nanos: 0 }
}

/// "10s", "1m20s", "5m0s": as the words of a back-off have always been written.
fn go_duration(delay: std::time::Duration) -> String {
    let signed = SignedDuration::try_from(delay).unwrap_or(SignedDuration::MAX);
    let (minutes, seconds, millis) = (signed.as_secs() / 60, signed.as_secs() % 60, signed.subsec_millis());
    match (minutes, seconds) {
        (0, 0) => format!("{millis}ms"),
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
