//! What to do next for one pod. PURE: the same snapshot always gives the same actions.
//!
//! Actions for different targets may run side by side; nothing is planned for a target that is being worked on. A plan
//! is never stale in a harmful way: every action names ids and attempts, and the runtime refuses what no longer fits.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use proto::k8s::core::v1::Container as ContainerSpec;

use super::{
    snapshot::{Failure, RestartPolicy, Snapshot, Target, Verdict, container, is_sidecar, restart_policy},
    spec::container_hash,
    status,
};
use crate::runtime::{Container, Sandbox};

/// Under which failed tries to start the sandbox are noted; no container may be named so.
pub const SANDBOX: &str = "(sandbox)";
/// Under which failed tries to take the pod down are noted.
pub const REMOVAL: &str = "(removal)";
/// A container gets at least these seconds to end, even where others have used up the pod's grace period.
pub const LAST_SECONDS: i64 = 2;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make volumes and files, take an address, start the pause container, wire it.
    StartSandbox { attempt: u32 },
    /// Get the image, make and start the container, run its postStart hook.
    StartContainer { name: String, attempt: u32, failures: u32 },
    /// Run the preStop hook, ask it to end, kill it after the grace period.
    StopContainer { name: String, id: String, grace_seconds: i64, why: StopReason },
    /// The grace period of a stop under way is over, or has been taken back.
    KillContainer { id: String },
    /// A dead attempt that nobody can ask for any more.
    RemoveRemains { id: String },
    /// All containers have ended for good: free address and memory, keep the dead containers for their logs.
    StopSandbox,
    /// Remove everything, then tell the API that the pod is gone.
    RemovePod,
    /// Nothing until then, unless something changes.
    WakeAt(Timestamp),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    Deleted,
    FailedLiveness,
    FailedStartup,
    Changed,
    /// The sandbox it lives in is gone, or another one has taken its place.
    LostSandbox,
    /// The pod is over: its deadline passed, or only sidecars are left.
    Over,
}

impl Action {
    pub fn target(&self) -> Option<Target> {
        match self {
            Self::StartSandbox { .. } | Self::StopSandbox => Some(Target::Sandbox),
            Self::StartContainer { name, .. } | Self::StopContainer { name, .. } => {
                Some(Target::Container(name.clone()))
            }
            Self::KillContainer { id } | Self::RemoveRemains { id } => Some(Target::Remains(id.clone())),
            Self::RemovePod => Some(Target::Pod),
            Self::WakeAt(_) => None,
        }
    }
}

/// Steps from what is to what is wanted; empty once they agree.
pub fn plan(snapshot: &Snapshot) -> Vec<Action> {
    let mut actions = if snapshot.is_deleted() {
        remove(snapshot)
    } else if status::is_over(snapshot) {
        wind_down(snapshot)
    } else {
        run(snapshot)
    };
    actions.retain(|action| action.target().is_none_or(|target| !snapshot.is_busy(&target)));
    actions
}

/// The earliest moment a plan asks to be woken at.
pub fn wake_at(actions: &[Action]) -> Option<Timestamp> {
    let times = actions.iter().filter_map(|action| match action {
        Action::WakeAt(at) => Some(*at),
        _ => None,
    });
    times.min()
}

fn remove(snapshot: &Snapshot) -> Vec<Action> {
    let mut actions = stop_all(snapshot, StopReason::Deleted);
    if actions.is_empty() && snapshot.busy.is_empty() {
        actions.push(wait_after(snapshot, REMOVAL).unwrap_or(Action::RemovePod));
    }
    let mut stopping = running(snapshot).filter(|c| snapshot.is_busy(&Target::Container(c.name.clone()))).peekable();
    if stopping.peek().is_some() {
        match overdue_at(snapshot) {
            Some(at) if at > snapshot.now => actions.push(Action::WakeAt(at)),
            Some(_) => actions.extend(stopping.map(|c| Action::KillContainer { id: c.id.clone() })),
            None => {}
        }
    }
    actions
}

/// When what still runs is killed, whatever its stop is waiting for: the grace period may have been cut short since.
fn overdue_at(snapshot: &Snapshot) -> Option<Timestamp> {
    if snapshot.grace_seconds() == 0 {
        return Some(snapshot.now);
    }
    snapshot.kill_at.map(|at| at + SignedDuration::from_secs(LAST_SECONDS + 1))
}

fn wind_down(snapshot: &Snapshot) -> Vec<Action> {
    let mut actions = stop_all(snapshot, StopReason::Over);
    let is_quiet = actions.is_empty() && snapshot.busy.is_empty();
    if is_quiet && snapshot.state.live_sandbox().is_some() {
        actions.push(wait_after(snapshot, REMOVAL).unwrap_or(Action::StopSandbox));
    }
    actions
}

/// Stops the containers; sidecars outlive the others, and the first of them ends last.
fn stop_all(snapshot: &Snapshot, why: StopReason) -> Vec<Action> {
    let sidecars: Vec<&str> =
        snapshot.spec().init_containers.iter().filter(|c| is_sidecar(c)).map(|c| c.name.as_str()).collect();
    let is_sidecar = |container: &&Container| sidecars.contains(&container.name.as_str());
    let (late, early): (Vec<_>, Vec<_>) = running(snapshot).partition(is_sidecar);
    if !early.is_empty() {
        return early.into_iter().map(|container| stop(snapshot, container, why)).collect();
    }
    let rank = |container: &&Container| sidecars.iter().position(|name| *name == container.name);
    late.into_iter().max_by_key(rank).map(|container| stop(snapshot, container, why)).into_iter().collect()
}

fn run(snapshot: &Snapshot) -> Vec<Action> {
    // A sandbox that is being made runs before it is wired.
    if snapshot.is_busy(&Target::Sandbox) {
        return Vec::new();
    }
    let Some(sandbox) = snapshot.state.live_sandbox() else { return replace_sandbox(snapshot) };
    let mut actions: Vec<Action> = running(snapshot)
        .filter(|container| container.sandbox_id != sandbox.id)
        .map(|container| stop(snapshot, container, StopReason::LostSandbox))
        .collect();
    if start_init_containers(snapshot, sandbox, &mut actions) {
        for container in &snapshot.spec().containers {
            keep_running(snapshot, sandbox, container, restart_policy(snapshot.spec()), &mut actions);
        }
    }
    remains(snapshot, &mut actions);
    actions.extend(snapshot.deadline().map(Action::WakeAt));
    actions
}

fn replace_sandbox(snapshot: &Snapshot) -> Vec<Action> {
    let left: Vec<Action> = running(snapshot).map(|c| stop(snapshot, c, StopReason::LostSandbox)).collect();
    if !left.is_empty() {
        return left;
    }
    if let Some(wait) = wait_after(snapshot, SANDBOX) {
        return vec![wait];
    }
    let attempt = snapshot.state.sandboxes.first().map_or(0, |sandbox| sandbox.attempt + 1);
    vec![Action::StartSandbox { attempt }]
}

/// Brings init containers forward in order; true once the others may run.
fn start_init_containers(snapshot: &Snapshot, sandbox: &Sandbox, actions: &mut Vec<Action>) -> bool {
    let spec = snapshot.spec();
    let initialized = status::is_initialized(snapshot);
    let policy = match restart_policy(spec) {
        RestartPolicy::Never => RestartPolicy::Never,
        RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
    };
    for container in &spec.init_containers {
        if is_sidecar(container) {
            keep_running(snapshot, sandbox, container, RestartPolicy::Always, actions);
        } else if !initialized && !status::is_init_complete(snapshot, container) {
            keep_running(snapshot, sandbox, container, policy, actions);
        }
        if !initialized && !status::is_init_complete(snapshot, container) {
            return false;
        }
    }
    true
}

/// Starts, restarts or stops one container so that it runs as its spec says.
fn keep_running(
    snapshot: &Snapshot,
    sandbox: &Sandbox,
    spec: &ContainerSpec,
    policy: RestartPolicy,
    actions: &mut Vec<Action>,
) {
    let newest = snapshot.state.newest(&spec.name);
    let action = match newest {
        Some(container) if container.is_running() => {
            let in_place = container.sandbox_id == sandbox.id;
            in_place.then(|| stop_reason(snapshot, container, spec)).flatten().map(|why| stop(snapshot, container, why))
        }
        // Made by a kubelet that ended before it could start it.
        Some(made) if !made.is_dead() && made.sandbox_id == sandbox.id => {
            Some(start(spec, made.attempt, made.failures))
        }
        // A new sandbox runs everything again, whatever became of it in the old one.
        Some(other) if other.sandbox_id != sandbox.id => {
            Some(start(spec, other.attempt + 1, snapshot.back_off.failures_after(other)))
        }
        Some(dead) if policy.restarts_after(dead.exit_code) => {
            let (at, _) = snapshot.back_off.next_attempt(dead);
            let next = start(spec, dead.attempt + 1, snapshot.back_off.failures_after(dead));
            Some(if at <= snapshot.now { next } else { Action::WakeAt(at) })
        }
        Some(_) => None,
        None => Some(start(spec, 0, 0)),
    };
    let waits =
        matches!(action, Some(Action::StartContainer { .. })).then(|| wait_after(snapshot, &spec.name)).flatten();
    actions.extend(waits.or(action));
}

/// Where the last try failed: the wait until the next one, and until then the moment its reason is told differently.
fn wait_after(snapshot: &Snapshot, name: &str) -> Option<Action> {
    let failure: &Failure = snapshot.failures.get(name)?;
    let retry = failure.retry_at(snapshot.back_off);
    let retold = status::retold_at(failure, snapshot.back_off);
    (retry > snapshot.now).then(|| Action::WakeAt(if retold > snapshot.now { retold } else { retry }))
}

fn stop_reason(snapshot: &Snapshot, container: &Container, spec: &ContainerSpec) -> Option<StopReason> {
    let verdicts = snapshot.probes.get(&container.id).copied().unwrap_or_default();
    if verdicts.startup == Verdict::Failure {
        Some(StopReason::FailedStartup)
    } else if verdicts.liveness == Verdict::Failure {
        Some(StopReason::FailedLiveness)
    } else if !container.hash.is_empty() && container.hash != container_hash(spec) {
        Some(StopReason::Changed)
    } else {
        None
    }
}

/// Keeps the newest attempt of each container and the one before it, for `logs --previous`; drops older ones.
fn remains(snapshot: &Snapshot, actions: &mut Vec<Action>) {
    let state = snapshot.state;
    let names: BTreeSet<&str> = state.containers.iter().map(|container| container.name.as_str()).collect();
    let dead = names.iter().flat_map(|name| state.attempts(name).skip(2)).filter(|container| container.is_dead());
    actions.extend(dead.map(|container| Action::RemoveRemains { id: container.id.clone() }));
    let old = state.sandboxes.iter().skip(1).filter(|sandbox| !sandbox.running);
    actions.extend(old.map(|sandbox| Action::RemoveRemains { id: sandbox.id.clone() }));
}

fn running<'a>(snapshot: &Snapshot<'a>) -> impl Iterator<Item = &'a Container> + use<'a> {
    snapshot.state.containers.iter().filter(|container| container.is_running())
}

fn start(spec: &ContainerSpec, attempt: u32, failures: u32) -> Action {
    Action::StartContainer { name: spec.name.clone(), attempt, failures }
}

fn stop(snapshot: &Snapshot, running: &Container, why: StopReason) -> Action {
    let spec = container(snapshot.spec(), &running.name);
    let probe = spec.and_then(|spec| match why {
        StopReason::FailedLiveness => spec.liveness_probe.as_ref(),
        StopReason::FailedStartup => spec.startup_probe.as_ref(),
        _ => None,
    });
    let own = probe.and_then(|probe| probe.termination_grace_period_seconds);
    Action::StopContainer {
        name: running.name.clone(),
        id: running.id.clone(),
        grace_seconds: own.unwrap_or_else(|| grace_left(snapshot)),
        why,
    }
}

/// Seconds of the pod's grace period that are left: what stops later, such as a sidecar, shares it with what stopped before.
fn grace_left(snapshot: &Snapshot) -> i64 {
    let whole = snapshot.grace_seconds();
    match snapshot.kill_at {
        Some(at) => {
            let left = at.duration_since(snapshot.now).as_secs_f64().ceil() as i64;
            left.max(LAST_SECONDS).min(whole)
        }
        None => whole,
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
