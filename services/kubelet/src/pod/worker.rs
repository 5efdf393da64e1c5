//! One actor for each pod: looks, plans, sets the hands to work, tells the API, sleeps until something happens.
//!
//! Nothing one pod waits for holds up another. Dropping a worker touches no container.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use kit::life::Shutdown;
use proto::{
    Kind as _,
    k8s::core::v1::{Pod, PodStatus},
};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::{
    backoff::BackOff,
    hands::{Failed, Hands},
    plan::{self, Action},
    snapshot::{self, Failure, Snapshot, Target, Verdict, Verdicts},
    status,
};
use crate::{
    probe::{Kind, Subject, Told},
    runtime::{Container, PodState},
    volume::payload::shows_own_fields,
};

/// A first status waits this long for the first actions: what is quick is then told once.
const FIRST_STATUS_DELAY: Duration = Duration::from_millis(30);
/// Between tries where the runtime or the API did not answer.
const RETRY: Duration = Duration::from_millis(500);
/// How long the runtime may take to describe one pod.
const OBSERVE_MAX: Duration = Duration::from_secs(10);

/// What the API says of the pod.
#[derive(Clone)]
pub struct Desired {
    pub pod: Arc<Pod>,
    /// The API does not have it any more.
    pub orphaned: bool,
}

/// What a worker is told from outside, besides the pod itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nudge {
    /// The runtime has news of this pod.
    Look,
    /// A configMap or secret it shows has changed.
    Refresh,
}

/// How the kubelet reaches a worker.
pub struct Handle {
    pub desired: watch::Sender<Desired>,
    nudge: mpsc::Sender<Nudge>,
}

impl Handle {
    /// Never waits: a full queue already holds a reason to look.
    pub fn nudge(&self, nudge: Nudge) {
        let _ = self.nudge.try_send(nudge);
    }
}

/// Starts the worker of one pod; it sends its uid to `done` when nothing of the pod is left.
pub fn spawn(
    hands: Arc<Hands>,
    back_off: BackOff,
    desired: Desired,
    done: mpsc::UnboundedSender<String>,
    shutdown: Shutdown,
) -> Handle {
    let (sender, receiver) = watch::channel(desired);
    let (nudge, nudges) = mpsc::channel(8);
    let (tell, told) = mpsc::channel(32);
    let first = receiver.borrow().clone();
    let worker = Worker {
        hands,
        back_off,
        pod: first.pod,
        orphaned: first.orphaned,
        desired: receiver,
        nudges,
        tell,
        told,
        state: PodState::default(),
        must_look: true,
        is_adopted: false,
        probes: BTreeMap::new(),
        probing: HashMap::new(),
        failures: BTreeMap::new(),
        messages: BTreeMap::new(),
        busy: BTreeSet::new(),
        starting: BTreeSet::new(),
        kill_at: None,
        ending: CancellationToken::new(),
        waits: BTreeMap::new(),
        work: JoinSet::new(),
        sent: None,
        publish_at: Some(Instant::now() + FIRST_STATUS_DELAY),
        is_publishing: false,
        retry_at: None,
    };
    tokio::spawn(async move {
        let uid = worker.pod.meta().uid.clone();
        tokio::select! {
            () = shutdown.triggered() => {}
            () = worker.run() => {
                let _ = done.send(uid);
            }
        }
    });
    Handle { desired: sender, nudge }
}

enum Done {
    Action(Target, Action, Result<(), Failed>),
    Published(Box<Result<Pod, client::Error>>),
}

struct Worker {
    hands: Arc<Hands>,
    back_off: BackOff,
    pod: Arc<Pod>,
    orphaned: bool,
    desired: watch::Receiver<Desired>,
    nudges: mpsc::Receiver<Nudge>,
    tell: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    state: PodState,
    must_look: bool,
    is_adopted: bool,
    probes: BTreeMap<String, Verdicts>,
    /// Running probe loops, by container id and kind.
    probing: HashMap<(String, Kind), AbortHandle>,
    failures: BTreeMap<String, Failure>,
    messages: BTreeMap<String, String>,
    busy: BTreeSet<Target>,
    starting: BTreeSet<String>,
    kill_at: Option<Timestamp>,
    /// Cuts short what a pod that is to go need not wait for.
    ending: CancellationToken,
    /// Containers that wait for their next try, as users were told last.
    waits: BTreeMap<String, &'static str>,
    work: JoinSet<Done>,
    /// The last status sent, and the resource version it led to.
    sent: Option<(PodStatus, String)>,
    publish_at: Option<Instant>,
    is_publishing: bool,
    retry_at: Option<Instant>,
}

impl Worker {
    async fn run(mut self) {
        self.note_deletion();
        loop {
            if self.must_look {
                self.look().await;
            }
            self.keep_probing();
            let now = self.hands.now();
            let (wanted, actions) = {
                let snapshot = self.snapshot(now);
                (status::status(&snapshot), plan::plan(&snapshot))
            };
            self.tell_waits(&wanted);
            let has_news = self.has_news(&wanted);
            let wake = plan::wake_at(&actions);
            for action in actions {
                // The last state is told before the pod is forgotten.
                if action != Action::RemovePod || !has_news {
                    self.start(action);
                }
            }
            if has_news && !self.is_publishing {
                self.publish(wanted);
            }
            if self.wait(now, wake).await {
                return;
            }
        }
    }

    fn snapshot(&self, now: Timestamp) -> Snapshot<'_> {
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
            node: &self.hands.facts,
            back_off: &self.back_off,
            now,
        }
    }

    /// Asks the runtime how the pod stands.
    async fn look(&mut self) {
        let uid = self.pod.meta().uid.clone();
        match tokio::time::timeout(OBSERVE_MAX, self.hands.runtime.pod(&uid)).await {
            Ok(Ok(state)) => {
                self.must_look = false;
                self.state = state;
            }
            Ok(Err(error)) => {
                debug!(pod = %snapshot::key(&self.pod), %error, "the runtime does not say how the pod stands");
                self.retry_soon();
                return;
            }
            Err(_) => {
                warn!(pod = %snapshot::key(&self.pod), "the runtime does not answer for this pod");
                self.retry_soon();
                return;
            }
        }
        if !self.is_adopted {
            self.is_adopted = true;
            self.probes = status::known_verdicts(&self.pod, &self.state);
            self.hands.adopt(&self.pod, &self.state).await;
        }
        self.messages.retain(|id, _| self.state.containers.iter().any(|container| container.id == *id));
        let unheard: Vec<Container> = self
            .state
            .containers
            .iter()
            .filter(|container| container.is_dead() && !self.messages.contains_key(&container.id))
            .cloned()
            .collect();
        for dead in unheard {
            let said = self.hands.last_words(&self.pod, &dead).await;
            self.messages.insert(dead.id, said);
        }
    }

    fn retry_soon(&mut self) {
        self.retry_at = Some(Instant::now() + RETRY);
    }

    fn start(&mut self, action: Action) {
        let Some(target) = action.target() else { return };
        self.busy.insert(target.clone());
        if let Action::StartContainer { name, .. } = &action {
            self.starting.insert(name.clone());
        }
        let (hands, pod, state, orphaned) = (self.hands.clone(), self.pod.clone(), self.state.clone(), self.orphaned);
        let ending = self.ending.clone();
        self.work.spawn(async move {
            let outcome = hands.perform(&pod, &state, orphaned, &action, &ending).await;
            Done::Action(target, action, outcome)
        });
    }

    /// The API does not know this status yet, or may not.
    fn has_news(&self, wanted: &PodStatus) -> bool {
        if self.orphaned || self.is_publishing {
            return !self.orphaned;
        }
        let is_known = self.pod.status.as_ref() == Some(wanted);
        // What the API made of our last status is its last word on it, unless somebody else changed the pod since.
        let is_sent = self
            .sent
            .as_ref()
            .is_some_and(|(sent, version)| sent == wanted && *version == self.pod.meta().resource_version);
        !is_known && !is_sent
    }

    fn publish(&mut self, wanted: PodStatus) {
        if self.publish_at.is_some_and(|at| at > Instant::now()) {
            return;
        }
        self.publish_at = None;
        self.is_publishing = true;
        let mut pod = Pod::clone(&self.pod);
        pod.status = Some(wanted.clone());
        self.sent = Some((wanted, String::new()));
        let client = self.hands.client.clone();
        self.work.spawn(async move { Done::Published(Box::new(client.update_status(&pod).await)) });
    }

    /// Waits for any reason to plan again; true where nothing is left to do for this pod.
    async fn wait(&mut self, now: Timestamp, wake: Option<Timestamp>) -> bool {
        let wake = wake.map(|at| Instant::now() + at.duration_since(now).try_into().unwrap_or(Duration::ZERO));
        let alarm = [wake, self.publish_at, self.retry_at].into_iter().flatten().min();
        tokio::select! {
            changed = self.desired.changed() => {
                // Without its kubelet a worker has nobody to work for.
                if changed.is_err() {
                    return true;
                }
                self.take_desired();
            }
            Some(nudge) = self.nudges.recv() => match nudge {
                Nudge::Look => self.must_look = true,
                Nudge::Refresh => self.refresh_files(),
            },
            Some(told) = self.told.recv() => self.hear(told),
            Some(done) = self.work.join_next(), if !self.work.is_empty() => match done {
                Ok(done) => return self.finish(done),
                Err(error) => {
                    // An action that panicked has left its target busy: start afresh from what is there.
                    warn!(pod = %snapshot::key(&self.pod), %error, "an action broke");
                    self.busy.clear();
                    self.starting.clear();
                    self.must_look = true;
                    self.retry_soon();
                }
            },
            () = sleep_until(alarm) => {
                if self.publish_at.is_some_and(|at| at <= Instant::now()) {
                    self.publish_at = None;
                }
                if self.retry_at.is_some_and(|at| at <= Instant::now()) {
                    self.retry_at = None;
                    self.must_look = true;
                }
            }
        }
        false
    }

    fn take_desired(&mut self) {
        let Desired { pod, orphaned } = self.desired.borrow_and_update().clone();
        let version = |pod: &Pod| pod.meta().resource_version.parse::<u64>().unwrap_or(0);
        let has_new_fields =
            pod.meta().labels != self.pod.meta().labels || pod.meta().annotations != self.pod.meta().annotations;
        // Our own write may be newer than what the watch has brought so far.
        if orphaned || version(&pod) >= version(&self.pod) {
            self.pod = pod;
            if has_new_fields && shows_own_fields(&self.pod) {
                self.refresh_files();
            }
        }
        self.orphaned |= orphaned;
        self.note_deletion();
    }

    /// The clock of a deletion runs from when this node hears of it; a later, shorter grace period counts from then.
    fn note_deletion(&mut self) {
        let now = self.hands.now();
        let snapshot = self.snapshot(now);
        if snapshot.is_deleted() {
            let at = now + SignedDuration::from_secs(snapshot.grace_seconds());
            self.kill_at = Some(self.kill_at.map_or(at, |known| known.min(at)));
            self.ending.cancel();
        }
    }

    /// Tells of containers that have begun to wait for their next try.
    fn tell_waits(&mut self, wanted: &PodStatus) {
        let waits = status::back_offs(wanted);
        for (name, reason) in waits.iter().filter(|(name, reason)| self.waits.get(*name) != Some(*reason)) {
            if let Some(container) = snapshot::container(snapshot::spec(&self.pod), name) {
                self.hands.events.back_off(&self.pod, container, reason);
            }
        }
        self.waits = waits;
    }

    fn refresh_files(&self) {
        let Some(sandbox) = self.state.live_sandbox() else { return };
        let (hands, pod, ip) = (self.hands.clone(), self.pod.clone(), sandbox.ip);
        tokio::spawn(async move { hands.refresh_files(&pod, ip).await });
    }

    fn finish(&mut self, done: Done) -> bool {
        match done {
            Done::Action(target, action, outcome) => {
                self.busy.remove(&target);
                if let Action::StartContainer { name, .. } = &action {
                    self.starting.remove(name);
                }
                self.must_look = true;
                let name = match (&target, &action) {
                    (Target::Container(name), _) => name.as_str(),
                    (_, Action::StartSandbox { .. }) => plan::SANDBOX,
                    _ => plan::REMOVAL,
                };
                let name = name.to_owned();
                match outcome {
                    Ok(()) if action == Action::RemovePod => {
                        self.hands.objects.forget(&self.pod.meta().uid);
                        return true;
                    }
                    Ok(()) => {
                        self.failures.remove(&name);
                    }
                    Err(failed) => self.note_failure(name, failed),
                }
            }
            Done::Published(answer) => {
                self.is_publishing = false;
                match *answer {
                    Ok(pod) => {
                        if let Some((_, version)) = &mut self.sent {
                            version.clone_from(&pod.meta().resource_version);
                        }
                        self.pod = Arc::new(pod);
                    }
                    Err(error) => {
                        self.sent = None;
                        self.publish_at = Some(Instant::now() + RETRY);
                        if error.is_not_found() {
                            // The watch will say so too; until then there is nobody to tell.
                            debug!(pod = %snapshot::key(&self.pod), "the pod is gone from the API");
                        } else if !error.is_conflict() {
                            warn!(pod = %snapshot::key(&self.pod), %error, "update of the pod's status failed");
                        }
                    }
                }
            }
        }
        false
    }

    fn note_failure(&mut self, name: String, failed: Failed) {
        let count = self.failures.get(&name).map_or(1, |before| before.count.saturating_add(1));
        debug!(pod = %snapshot::key(&self.pod), container = name, message = failed.message, "try failed");
        let failure = Failure { reason: failed.reason, message: failed.message, at: self.hands.now(), count };
        self.failures.insert(name, failure);
    }

    /// Starts the probe loops that should run now, and ends those whose container is gone.
    fn keep_probing(&mut self) {
        let running: BTreeMap<&str, &Container> =
            self.state.containers.iter().filter(|c| c.is_running()).map(|c| (c.id.as_str(), c)).collect();
        let is_deleted = self.orphaned || self.pod.meta().deletion_timestamp.is_some();
        self.probing.retain(|(id, kind), task| {
            // Whoever is asked to end may fail its probes: only readiness is still of interest.
            let counts = running.contains_key(id.as_str()) && (!is_deleted || *kind == Kind::Readiness);
            if !counts {
                task.abort();
            }
            counts
        });
        self.probes.retain(|id, _| running.contains_key(id.as_str()));
        let ip = self.state.live_sandbox().and_then(|sandbox| sandbox.ip);
        for (id, container) in running {
            let Some(spec) = snapshot::container(snapshot::spec(&self.pod), &container.name) else { continue };
            let is_started = spec.startup_probe.is_none()
                || self.probes.get(id).is_some_and(|verdicts| verdicts.startup == Verdict::Success);
            let wanted = if is_started { &[Kind::Liveness, Kind::Readiness][..] } else { &[Kind::Startup][..] };
            let is_hooked = status::has_post_start(spec) && self.starting.contains(&spec.name);
            let asks = |kind: &Kind| kind.of(spec).is_some() && (!is_deleted || *kind == Kind::Readiness);
            for kind in wanted.iter().copied().filter(|kind| !is_hooked && asks(kind)) {
                self.probing.entry((id.to_owned(), kind)).or_insert_with(|| {
                    let subject = Subject { container: spec.clone(), id: id.to_owned(), ip };
                    tokio::spawn(self.hands.prober.clone().watch(kind, subject, self.tell.clone())).abort_handle()
                });
            }
        }
    }

    fn hear(&mut self, told: Told) {
        let Told { container_id, container, kind, verdict, message } = told;
        if !message.is_empty()
            && let Some(spec) = snapshot::container(snapshot::spec(&self.pod), &container)
        {
            let message = format!("{} probe failed: {message}", kind.as_str());
            self.hands.events.container_warning(&self.pod, spec, "Unhealthy", &message);
        }
        if let Some(verdict) = verdict {
            let verdicts = self.probes.entry(container_id).or_default();
            match kind {
                Kind::Startup => verdicts.startup = verdict,
                Kind::Liveness => verdicts.liveness = verdict,
                Kind::Readiness => verdicts.readiness = verdict,
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.probing.values().for_each(AbortHandle::abort);
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
