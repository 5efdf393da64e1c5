//! Everything a decision about one pod is made from. Plain data: no clock, no I/O.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use jiff::Timestamp;
use proto::{
    Kind,
    k8s::core::v1::{Container as ContainerSpec, Pod, PodSpec, PodStatus},
};

use super::backoff::BackOff;
use crate::runtime::{PodKey, PodState};

/// One pod at one moment.
#[derive(Clone, Copy)]
pub struct Snapshot<'a> {
    pub pod: &'a Pod,
    /// The API no longer has it (or has another of its name): it must go, and nobody wants to hear of it.
    pub orphaned: bool,
    pub state: &'a PodState,
    /// By container id: a new attempt starts with no verdict.
    pub probes: &'a BTreeMap<String, Verdicts>,
    /// Why the last try did not succeed: by container name, `plan::SANDBOX` or `plan::REMOVAL`.
    pub failures: &'a BTreeMap<String, Failure>,
    /// What is being worked on; no second action is planned for it.
    pub busy: &'a BTreeSet<Target>,
    /// Containers whose start, with its postStart hook, is under way.
    pub starting: &'a BTreeSet<String>,
    /// When the grace period of the pod's deletion is over, by this node's clock.
    pub kill_at: Option<Timestamp>,
    /// Last words of dead containers, by container id.
    pub messages: &'a BTreeMap<String, String>,
    pub node: &'a NodeFacts,
    pub back_off: &'a BackOff,
    pub now: Timestamp,
}

/// What the pod's status says about its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeFacts {
    pub name: String,
    pub ips: Vec<IpAddr>,
}

/// What is worked on: one action at a time for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    Sandbox,
    Container(String),
    /// The removal of one dead container, by id.
    Remains(String),
    /// The whole pod: its removal.
    Pod,
}

/// What the probes of one container say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Verdicts {
    pub startup: Verdict,
    pub liveness: Verdict,
    pub readiness: Verdict,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Not asked yet, or not often enough.
    #[default]
    Unknown,
    Success,
    Failure,
}

/// A try that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub reason: FailureReason,
    pub message: String,
    pub at: Timestamp,
    /// Tries in a row that ended so.
    pub count: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureReason {
    ImagePull,
    ImageNeverPull,
    InvalidImageName,
    Config,
    Create,
    /// The runtime took the container and could not run it.
    Run,
    Sandbox,
    Mount,
}

impl FailureReason {
    /// As it stands in a waiting container's status just after the try.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ImagePull => "ErrImagePull",
            Self::ImageNeverPull => "ErrImageNeverPull",
            Self::InvalidImageName => "InvalidImageName",
            Self::Config => "CreateContainerConfigError",
            Self::Create => "CreateContainerError",
            Self::Run => "RunContainerError",
            Self::Sandbox | Self::Mount => "ContainerCreating",
        }
    }
}

impl Failure {
    /// When it may be tried again.
    pub fn retry_at(&self, back_off: &BackOff) -> Timestamp {
        self.at + back_off.delay(self.count)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub fn restarts_after(self, exit_code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => exit_code != 0,
            Self::Never => false,
        }
    }
}

impl<'a> Snapshot<'a> {
    pub fn spec(&self) -> &'a PodSpec {
        spec(self.pod)
    }

    pub fn is_deleted(&self) -> bool {
        self.orphaned || self.pod.meta().deletion_timestamp.is_some()
    }

    pub fn is_busy(&self, target: &Target) -> bool {
        self.busy.contains(target) || self.busy.contains(&Target::Pod)
    }

    /// Seconds a container gets to end by itself.
    pub fn grace_seconds(&self) -> i64 {
        let meta = self.pod.meta();
        // Gone although it was still ending: somebody has forced it.
        if self.orphaned && meta.deletion_timestamp.is_some() {
            return 0;
        }
        let own = self.spec().termination_grace_period_seconds.unwrap_or(30);
        meta.deletion_grace_period_seconds.unwrap_or(own).max(0)
    }

    /// The phase the API has; terminal ones never change again.
    pub fn known_phase(&self) -> &'a str {
        status(self.pod).phase.as_str()
    }

    pub fn started_at(&self) -> Option<Timestamp> {
        let start = status(self.pod).start_time.as_ref()?;
        Timestamp::new(start.seconds, start.nanos).ok()
    }

    /// When `activeDeadlineSeconds` is over.
    pub fn deadline(&self) -> Option<Timestamp> {
        let seconds = self.spec().active_deadline_seconds?;
        self.started_at()?.checked_add(jiff::SignedDuration::from_secs(seconds)).ok()
    }

    pub fn is_past_deadline(&self) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= self.now)
    }
}

pub fn spec(pod: &Pod) -> &PodSpec {
    static EMPTY: std::sync::LazyLock<PodSpec> = std::sync::LazyLock::new(PodSpec::default);
    pod.spec.as_ref().unwrap_or(&EMPTY)
}

pub fn status(pod: &Pod) -> &PodStatus {
    static EMPTY: std::sync::LazyLock<PodStatus> = std::sync::LazyLock::new(PodStatus::default);
    pod.status.as_ref().unwrap_or(&EMPTY)
}

pub fn key(pod: &Pod) -> PodKey {
    let meta = pod.meta();
    PodKey { namespace: meta.namespace.clone(), name: meta.name.clone(), uid: meta.uid.clone() }
}

pub fn restart_policy(spec: &PodSpec) -> RestartPolicy {
    match spec.restart_policy.as_str() {
        "Never" => RestartPolicy::Never,
        "OnFailure" => RestartPolicy::OnFailure,
        _ => RestartPolicy::Always,
    }
}

/// An init container that stays: started in order, then kept running beside the others.
pub fn is_sidecar(container: &ContainerSpec) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A container of the pod by its name, init containers included.
pub fn container<'a>(spec: &'a PodSpec, name: &str) -> Option<&'a ContainerSpec> {
    spec.init_containers.iter().chain(&spec.containers).find(|container| container.name == name)
}
