//! Builds pods at one moment for the tests of plans and statuses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use proto::{
    Kind,
    k8s::{
        core::v1::{Container as ContainerSpec, Lifecycle, LifecycleHandler, Pod, PodSpec, PodStatus, Probe},
        meta::v1::Time,
    },
};

use super::{
    backoff::BackOff,
    plan::{self, Action},
    snapshot::{Failure, FailureReason, NodeFacts, Snapshot, Target, Verdict, Verdicts},
    spec::container_hash,
    status,
};
use crate::runtime::{Container, Phase, PodState, Sandbox};

#[derive(Debug)]
pub struct World {
    pub pod: Pod,
    pub orphaned: bool,
    pub state: PodState,
    pub probes: BTreeMap<String, Verdicts>,
    pub failures: BTreeMap<String, Failure>,
    pub busy: BTreeSet<Target>,
    pub starting: BTreeSet<String>,
    pub kill_at: Option<Timestamp>,
    pub messages: BTreeMap<String, String>,
    pub node: NodeFacts,
    pub now: Timestamp,
}

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

/// A pod with containers of these names, nothing of it running yet, seen at second 100.
pub fn pod(containers: &[&str]) -> World {
    let container = |name: &&str| ContainerSpec { name: (*name).into(), image: "img:1".into(), ..Default::default() };
    let mut pod = Pod {
        spec: Some(PodSpec { containers: containers.iter().map(container).collect(), ..Default::default() }),
        status: Some(PodStatus::default()),
        ..Default::default()
    };
    pod.meta_mut().name = "web".into();
    pod.meta_mut().namespace = "shop".into();
    pod.meta_mut().uid = "u1".into();
    World {
        pod,
        orphaned: false,
        state: PodState::default(),
        probes: BTreeMap::new(),
        failures: BTreeMap::new(),
        busy: BTreeSet::new(),
        starting: BTreeSet::new(),
        kill_at: None,
        messages: BTreeMap::new(),
        node: NodeFacts { name: "n1".into(), ips: vec![[192, 0, 2, 1].into()] },
        now: at(100),
    }
}

impl World {
    pub fn spec(&mut self) -> &mut PodSpec {
        self.pod.spec.as_mut().unwrap()
    }

    pub fn policy(mut self, policy: &str) -> Self {
        self.spec().restart_policy = policy.into();
        self
    }

    pub fn init(mut self, name: &str) -> Self {
        let container = ContainerSpec { name: name.into(), image: "img:1".into(), ..Default::default() };
        self.spec().init_containers.push(container);
        self
    }

    pub fn sidecar(mut self, name: &str) -> Self {
        self = self.init(name);
        self.spec().init_containers.last_mut().unwrap().restart_policy = Some("Always".into());
        self
    }

    pub fn readiness(mut self, name: &str) -> Self {
        let spec = self.spec().containers.iter_mut().find(|container| container.name == name).unwrap();
        spec.readiness_probe = Some(Probe::default());
        self
    }

    pub fn liveness(mut self, name: &str) -> Self {
        let spec = self.spec().containers.iter_mut().find(|container| container.name == name).unwrap();
        spec.liveness_probe = Some(Probe::default());
        self
    }

    pub fn sandbox(mut self) -> Self {
        let attempt = self.state.sandboxes.len() as u32;
        self.state.sandboxes.iter_mut().for_each(|sandbox| sandbox.running = false);
        self.state.sandboxes.insert(
            0,
            Sandbox {
                id: format!("s{attempt}"),
                attempt,
                running: true,
                pid: 1,
                ip: Some([10, 244, 0, 5].into()),
                created_at: at(0),
            },
        );
        self
    }

    fn container(mut self, name: &str, edit: impl FnOnce(&mut Container)) -> Self {
        let attempt = self.state.newest(name).map_or(0, |newest| newest.attempt + 1);
        let spec = self.pod.spec.as_ref().unwrap();
        let hash = super::snapshot::container(spec, name).map(container_hash).unwrap_or_default();
        let mut container = Container {
            id: format!("{name}{attempt}"),
            name: name.into(),
            attempt,
            sandbox_id: self.state.sandboxes[0].id.clone(),
            image: "img:1".into(),
            image_id: "docker://sha256:1".into(),
            phase: Phase::Running,
            created_at: at(10),
            started_at: Some(at(10)),
            hash,
            failures: attempt,
            ..Default::default()
        };
        edit(&mut container);
        self.state.containers.insert(0, container);
        self
    }

    pub fn running(self, name: &str) -> Self {
        self.container(name, |_| {})
    }

    /// Ended at second 20.
    pub fn exited(self, name: &str, code: i32) -> Self {
        self.container(name, |container| {
            container.phase = Phase::Exited;
            container.exit_code = code;
            container.finished_at = Some(at(20));
        })
    }

    pub fn oom_killed(mut self, name: &str) -> Self {
        self = self.exited(name, 137);
        self.state.containers[0].oom_killed = true;
        self
    }

    pub fn probed(mut self, id: &str, verdicts: Verdicts) -> Self {
        self.probes.insert(id.into(), verdicts);
        self
    }

    pub fn ready(self, id: &str) -> Self {
        self.probed(id, Verdicts { readiness: Verdict::Success, ..Default::default() })
    }

    pub fn failed(mut self, name: &str, reason: FailureReason, message: &str, second: i64) -> Self {
        let failure = Failure { reason, message: message.into(), at: at(second), count: 1 };
        self.failures.insert(name.into(), failure);
        self
    }

    pub fn deleted(mut self, grace_seconds: i64) -> Self {
        self.pod.meta_mut().deletion_timestamp = Some(Time { seconds: 1, nanos: 0 });
        self.pod.meta_mut().deletion_grace_period_seconds = Some(grace_seconds);
        self
    }

    /// The API has been told how the pod stands now.
    pub fn told(mut self) -> Self {
        self.pod.status = Some(super::status::status(&self.snapshot()));
        self
    }

    /// Nothing of the pod is left on the node.
    pub fn gone(mut self) -> Self {
        self.state = PodState::default();
        self
    }

    pub fn orphaned(mut self) -> Self {
        self.orphaned = true;
        self
    }

    pub fn busy(mut self, target: Target) -> Self {
        self.busy.insert(target);
        self
    }

    pub fn killed_at(mut self, second: i64) -> Self {
        self.kill_at = Some(at(second));
        self
    }

    /// Its start is under way: it runs already, and its postStart hook does too.
    pub fn hooked(mut self, name: &str) -> Self {
        let hook = Lifecycle { post_start: Some(LifecycleHandler::default()), ..Default::default() };
        let spec = self.spec();
        let mut containers = spec.init_containers.iter_mut().chain(&mut spec.containers);
        containers.find(|container| container.name == name).unwrap().lifecycle = Some(hook);
        self.starting.insert(name.into());
        self
    }

    pub fn started(mut self, second: i64) -> Self {
        self.pod.status.as_mut().unwrap().start_time = Some(Time { seconds: at(second).as_second(), nanos: 0 });
        self
    }

    pub fn seen_at(mut self, second: i64) -> Self {
        self.now = at(second);
        self
    }

    pub fn snapshot(&self) -> Snapshot<'_> {
        static BACK_OFF: std::sync::LazyLock<BackOff> = std::sync::LazyLock::new(BackOff::default);
        Snapshot {
            pod: &self.pod,
            orphaned: self.orphaned,
            state: &self.state,
            probes: &self.probes,
            failures: &self.failures,
            busy: &self.busy,
            starting: &self.starting,
            kill_at: self.kill_at,
            messages: &self.messages,
            node: &self.node,
            back_off: &BACK_OFF,
            now: self.now,
        }
    }

    /// The plan, one action a line.
    pub fn plan(&self) -> String {
        let line = |action: &Action| match action {
            Action::StartSandbox { attempt } => format!("start sandbox {attempt}"),
            Action::StartContainer { name, attempt, failures } => format!("start {name} {attempt} after {failures}"),
            Action::StopContainer { name, grace_seconds, why, .. } => {
                format!("stop {name} in {grace_seconds}s {why:?}")
            }
            Action::KillContainer { id } => format!("kill {id}"),
            Action::RemoveRemains { id } => format!("remove {id}"),
            Action::StopSandbox => "stop sandbox".to_owned(),
            Action::RemovePod => "remove pod".to_owned(),
            Action::WakeAt(time) => format!("wake at {}", time.duration_since(at(0)).as_secs()),
        };
        plan::plan(&self.snapshot()).iter().map(line).collect::<Vec<_>>().join("\n")
    }

    /// Phase, conditions and containers, each on a line.
    pub fn status(&self) -> String {
        let status = status::status(&self.snapshot());
        let mut lines = vec![format!("{} {}", status.phase, status.reason).trim().to_owned()];
        for condition in &status.conditions {
            let line = format!("{}={} {} {}", condition.r#type, condition.status, condition.reason, condition.message);
            lines.push(line.trim().to_owned());
        }
        for container in status.init_container_statuses.iter().chain(&status.container_statuses) {
            let state = |state: &Option<proto::k8s::core::v1::ContainerState>| {
                let state = state.clone().unwrap_or_default();
                if let Some(waiting) = state.waiting {
                    format!("waiting {} {}", waiting.reason, waiting.message).trim().to_owned()
                } else if let Some(ended) = state.terminated {
                    format!("terminated {} {}", ended.exit_code, ended.reason)
                } else if state.running.is_some() {
                    "running".to_owned()
                } else {
                    "-".to_owned()
                }
            };
            lines.push(format!(
                "{}: {}; last {}; ready={} restarts={}",
                container.name,
                state(&container.state),
                state(&container.last_state),
                container.ready,
                container.restart_count
            ));
        }
        lines.join("\n")
    }

    /// What the runtime would be after these actions have been done.
    pub fn after(mut self, seconds: i64) -> Self {
        let actions = plan::plan(&self.snapshot());
        for action in actions {
            self = match action {
                Action::StartSandbox { .. } => self.sandbox(),
                Action::StartContainer { name, failures, .. } => self.container(&name, |c| c.failures = failures),
                Action::StopContainer { id, .. } | Action::KillContainer { id } => {
                    let now = self.now;
                    let stopped = self.state.containers.iter_mut().find(|container| container.id == id).unwrap();
                    stopped.phase = Phase::Exited;
                    stopped.exit_code = 143;
                    stopped.finished_at = Some(now);
                    self
                }
                Action::RemoveRemains { id } => {
                    self.state.containers.retain(|container| container.id != id);
                    self.state.sandboxes.retain(|sandbox| sandbox.id != id);
                    self
                }
                Action::StopSandbox => {
                    self.state.sandboxes.iter_mut().for_each(|sandbox| sandbox.running = false);
                    self
                }
                Action::RemovePod => {
                    self.state = PodState::default();
                    self.orphaned = true;
                    self
                }
                Action::WakeAt(_) => self,
            };
        }
        self.now += SignedDuration::from_secs(seconds);
        self
    }
}
