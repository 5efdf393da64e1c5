//! Does what a plan says, one action at a time, and decides nothing.
//!
//! [`Hands`] are shared by all pods of a node. An action that fails says for whom and why; the worker writes it down,
//! and the next plan takes it from there.

use std::{collections::BTreeMap, net::IpAddr, path::Path, sync::Arc, time::Duration};

use client::{Cache, Client};
use jiff::Timestamp;
use proto::k8s::{
    core::v1::{Container as ContainerSpec, Pod, Service},
    meta::v1::{DeleteOptions, Preconditions},
    resource::Quantity,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    env::Sources,
    plan::{self, Action, StopReason},
    resources::{self, QosClass},
    snapshot::{FailureReason, NodeFacts, container, key, spec},
    spec::{Attempt, NodeSetup, PullPolicy, container_config, pull_policy, sandbox_config, volume_mounts},
};
use crate::{
    cgroup,
    events::Events,
    network::Network,
    objects::{Objects, Wanted},
    probe::Prober,
    runtime::{self, Image, Mount, PodState, Runtime, SandboxConfig},
    volume::{self, PodFiles, Volumes},
};

/// Everything an action may touch.
pub struct Hands {
    pub client: Client,
    pub runtime: Arc<dyn Runtime>,
    pub network: Network,
    /// None on hollow nodes, whose pods have no files.
    pub volumes: Option<Volumes>,
    pub objects: Objects,
    /// None on hollow nodes.
    pub services: Option<Cache<Service>>,
    /// Those of this node.
    pub pods: Cache<Pod>,
    pub events: Events,
    pub prober: Prober,
    /// Bounds how many containers start at once: more in flight than cores only makes each slower.
    pub starts: Semaphore,
    pub setup: NodeSetup,
    pub facts: NodeFacts,
    pub allocatable: BTreeMap<String, Quantity>,
}

/// A postStart hook that takes longer has failed.
const POST_START_MAX: Duration = Duration::from_secs(600);

/// What a container gets to end after a hook that took the whole grace period.
const LAST_MOMENT: Duration = Duration::from_secs(plan::LAST_SECONDS.unsigned_abs());

/// A try that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub reason: FailureReason,
    pub message: String,
}

fn failed(reason: FailureReason) -> impl Fn(String) -> Failed {
    move |message| Failed { reason, message }
}

impl Hands {
    /// Does one action to its end; a start that `ending` cuts short has done what it has done so far.
    ///
    /// # Errors
    /// Says what failed, in the words of a container's waiting state.
    pub async fn perform(
        &self,
        pod: &Pod,
        state: &PodState,
        orphaned: bool,
        action: &Action,
        ending: &CancellationToken,
    ) -> Result<(), Failed> {
        match action {
            Action::StartSandbox { attempt } => self.start_sandbox(pod, *attempt).await,
            Action::StartContainer { name, attempt, failures } => {
                let Some(sandbox) = state.live_sandbox() else { return Ok(()) };
                let Some(container) = container(spec(pod), name) else { return Ok(()) };
                let attempt = Attempt { number: *attempt, failures: *failures, sandbox_id: sandbox.id.clone() };
                self.start_container(pod, container, attempt, sandbox.ip, ending).await
            }
            Action::StopContainer { name, id, grace_seconds, why } => {
                let ip = state.live_sandbox().and_then(|sandbox| sandbox.ip);
                self.stop_container(pod, name, id, *grace_seconds, *why, ip).await;
                Ok(())
            }
            Action::KillContainer { id } => {
                self.log(pod, self.runtime.stop_container(id, Duration::ZERO).await, "kill container");
                Ok(())
            }
            Action::RemoveRemains { id } => {
                self.log(pod, self.runtime.remove_container(id).await, "remove dead container");
                Ok(())
            }
            Action::StopSandbox => self.stop_sandbox(pod, state).await,
            Action::RemovePod => self.remove_pod(pod, state, orphaned).await,
            Action::WakeAt(_) => Ok(()),
        }
    }

    fn log(&self, pod: &Pod, outcome: Result<(), runtime::Error>, what: &str) {
        if let Err(error) = outcome {
            warn!(pod = %key(pod), %error, "{what} failed, will try again");
        }
    }

    /// Makes the pod's files and gathers what they and its environment are made from.
    async fn prepare(&self, pod: &Pod, ips: &[IpAddr]) -> Result<(Gathered, PodFiles), Failed> {
        let wanted = self.objects.of_pod(pod).await.map_err(failed(FailureReason::Config))?;
        let gathered = Gathered { wanted, services: self.services.as_ref().map(Cache::list).unwrap_or_default() };
        let Some(volumes) = &self.volumes else { return Ok((gathered, PodFiles::default())) };
        match volumes.prepare(&self.sources(pod, ips, &gathered)) {
            Ok(files) => Ok((gathered, files)),
            Err(error) => {
                let message = error.to_string();
                self.events.warning(pod, "FailedMount", &message);
                Err(Failed { reason: FailureReason::Mount, message })
            }
        }
    }

    fn sources<'a>(&'a self, pod: &'a Pod, pod_ips: &'a [IpAddr], gathered: &'a Gathered) -> Sources<'a> {
        Sources {
            pod,
            node: &self.facts,
            pod_ips,
            config_maps: &gathered.wanted.config_maps,
            secrets: &gathered.wanted.secrets,
            services: &gathered.services,
            allocatable: &self.allocatable,
        }
    }

    /// Brings the files of a running pod up to what their sources say now.
    pub async fn refresh_files(&self, pod: &Pod, ip: Option<IpAddr>) {
        if self.volumes.is_some()
            && let Err(refused) = self.prepare(pod, ip.as_slice()).await
        {
            debug!(pod = %key(pod), message = refused.message, "files of the pod stay as they are");
        }
    }

    async fn start_sandbox(&self, pod: &Pod, attempt: u32) -> Result<(), Failed> {
        let pod_key = key(pod);
        let refused = |message: String| {
            self.events.warning(pod, "FailedCreatePodSandBox", &format!("Failed to create pod sandbox: {message}"));
            Failed { reason: FailureReason::Sandbox, message }
        };
        let ip = match spec(pod).host_network {
            true => None,
            false => Some(self.network.reserve(&pod_key).map_err(|error| refused(error.to_string()))?),
        };
        self.prepare(pod, ip.as_slice()).await?;
        let config = sandbox_config(pod, &self.setup, attempt, ip);
        let _slot = self.starts.acquire().await;
        self.run_sandbox(&config).await.map_err(refused)?;
        self.bound(pod);
        Ok(())
    }

    /// Gives the pod's cgroup, which its sandbox has brought into being, and those of the classes their limits.
    fn bound(&self, pod: &Pod) {
        if self.volumes.is_none() {
            return;
        }
        cgroup::limit(&sandbox_config(pod, &self.setup, 0, None).cgroup_parent, &resources::pod_limits(pod));
        self.weigh_classes();
    }

    /// In every class: of a pod that is gone from the API nothing says which it had.
    fn remove_cgroups(&self, uid: &str) {
        let NodeSetup { cgroup_driver, cgroup_root, .. } = &self.setup;
        for class in [QosClass::Guaranteed, QosClass::Burstable, QosClass::BestEffort] {
            cgroup::remove(&resources::cgroup_parent(*cgroup_driver, cgroup_root, class, uid));
        }
        self.weigh_classes();
    }

    /// Removes the files and cgroups of pods that nobody knows any more.
    pub fn sweep(&self, is_known: impl Fn(&str) -> bool) {
        let Some(volumes) = &self.volumes else { return };
        for uid in volumes.uids().iter().filter(|uid| !is_known(uid)) {
            info!(uid, "files left over from a pod that is gone, removing");
            self.remove_cgroups(uid);
            if let Err(error) = volumes.remove(uid) {
                warn!(uid, %error, "remove the files of a pod that is gone failed, will try again");
            }
        }
    }

    fn weigh_classes(&self) {
        let pods = self.pods.list();
        let burstable = resources::burstable_limits(pods.iter().map(|pod| &**pod));
        for (class, limits) in [(QosClass::Burstable, burstable), (QosClass::BestEffort, resources::BEST_EFFORT)] {
            let cgroup = resources::class_cgroup(self.setup.cgroup_driver, &self.setup.cgroup_root, class);
            cgroup.iter().for_each(|cgroup| cgroup::limit(cgroup, &limits));
        }
    }

    async fn run_sandbox(&self, config: &SandboxConfig) -> Result<(), String> {
        let sandbox = self.runtime.start_sandbox(config).await.map_err(|error| error.to_string())?;
        let Some(ip) = config.ip else { return Ok(()) };
        if let Err(error) = self.network.attach(&config.pod, sandbox.pid, ip).await {
            // A sandbox without its wire must not be taken for a working one.
            if let Err(error) = self.runtime.remove_container(&sandbox.id).await {
                warn!(pod = %config.pod, %error, "remove the unwired sandbox failed");
            }
            return Err(format!("network: {error}"));
        }
        Ok(())
    }

    /// After a restart of the kubelet: the pod's wire is checked, and mended where it is broken.
    pub async fn adopt(&self, pod: &Pod, state: &PodState) {
        let Some(sandbox) = state.live_sandbox() else { return };
        self.bound(pod);
        if let Some(ip) = sandbox.ip
            && let Err(error) = self.network.attach(&key(pod), sandbox.pid, ip).await
        {
            warn!(pod = %key(pod), %ip, %error, "mend the pod's wire failed");
        }
    }

    async fn start_container(
        &self,
        pod: &Pod,
        container: &ContainerSpec,
        attempt: Attempt,
        ip: Option<IpAddr>,
        ending: &CancellationToken,
    ) -> Result<(), Failed> {
        // A pull may take for ever.
        let Some(image) = ending.run_until_cancelled(self.image(pod, container)).await else { return Ok(()) };
        let image = image?;
        let (gathered, files) = self.prepare(pod, ip.as_slice()).await?;
        let number = attempt.number;
        let refuse = |reason: FailureReason, message: String| {
            self.events.container_warning(pod, container, "Failed", &format!("Error: {message}"));
            Failed { reason, message }
        };
        let mut config = container_config(
            &self.sources(pod, ip.as_slice(), &gathered),
            container,
            &image,
            &self.setup,
            attempt,
            vec![],
        )
        .map_err(|error| refuse(FailureReason::Config, error.to_string()))?;
        if let Some(volumes) = &self.volumes {
            let termination_log = volumes.termination_log(&key(pod).uid, &container.name, number);
            config.mounts = mounts(container, &config.env, &files, &termination_log)
                .map_err(|message| refuse(FailureReason::Config, message))?;
        }
        let _slot = self.starts.acquire().await;
        let id = self.runtime.create_container(&config).await;
        let id = id.map_err(|error| refuse(FailureReason::Create, error.to_string()))?;
        self.events.container(pod, container, "Created", &format!("Container created: {}", container.name));
        let started = self.runtime.start_container(&id).await;
        started.map_err(|error| refuse(FailureReason::Run, error.to_string()))?;
        self.events.container(pod, container, "Started", &format!("Container started: {}", container.name));
        drop(_slot);
        // So may a hook.
        ending.run_until_cancelled(self.post_start(pod, container, &id, ip)).await;
        Ok(())
    }

    /// Finds the image on the node, or brings it there, as the container's policy says.
    async fn image(&self, pod: &Pod, container: &ContainerSpec) -> Result<Image, Failed> {
        let name = container.image.as_str();
        let refuse = |event: &str, reason: FailureReason, message: String| {
            self.events.container_warning(pod, container, event, &message);
            self.events.container_warning(pod, container, "Failed", &format!("Error: {}", reason.as_str()));
            Failed { reason, message }
        };
        if name.is_empty() || name.contains(char::is_whitespace) || name != name.trim() {
            let message = format!("Failed to apply default image tag \"{name}\": invalid reference format");
            return Err(refuse("InspectFailed", FailureReason::InvalidImageName, message));
        }
        let policy = pull_policy(container);
        let ask = || async { self.runtime.image(name).await.map_err(|error| error.to_string()) };
        let present = ask().await.map_err(failed(FailureReason::ImagePull))?;
        match (present, policy) {
            (Some(image), PullPolicy::IfNotPresent | PullPolicy::Never) => {
                let message = format!("Container image \"{name}\" already present on machine");
                self.events.container(pod, container, "Pulled", &message);
                return Ok(image);
            }
            (None, PullPolicy::Never) => {
                let message = format!("Container image \"{name}\" is not present with pull policy of Never");
                return Err(refuse("ErrImageNeverPull", FailureReason::ImageNeverPull, message));
            }
            _ => {}
        }
        self.events.container(pod, container, "Pulling", &format!("Pulling image \"{name}\""));
        let start = std::time::Instant::now();
        if let Err(error) = self.runtime.pull_image(name).await {
            let message = format!("Failed to pull image \"{name}\": {error}");
            return Err(refuse("Failed", FailureReason::ImagePull, message));
        }
        let took = start.elapsed();
        self.events.container(pod, container, "Pulled", &format!("Successfully pulled image \"{name}\" in {took:.1?}"));
        let image = ask().await.map_err(failed(FailureReason::ImagePull))?;
        image.ok_or_else(|| failed(FailureReason::ImagePull)(format!("image \"{name}\" is gone after its pull")))
    }

    async fn post_start(&self, pod: &Pod, container: &ContainerSpec, id: &str, ip: Option<IpAddr>) {
        let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref()) else {
            return;
        };
        if let Err(message) = self.prober.run_hook(hook, container, id, ip, POST_START_MAX).await {
            let message = format!("PostStartHook failed: {message}");
            self.events.container_warning(pod, container, "FailedPostStartHook", &message);
            let grace = u64::try_from(spec(pod).termination_grace_period_seconds.unwrap_or(30)).unwrap_or(0);
            self.log(pod, self.runtime.stop_container(id, Duration::from_secs(grace)).await, "stop container");
        }
    }

    async fn stop_container(
        &self,
        pod: &Pod,
        name: &str,
        id: &str,
        grace_seconds: i64,
        why: StopReason,
        ip: Option<IpAddr>,
    ) {
        let container = container(spec(pod), name)
            .cloned()
            .unwrap_or_else(|| ContainerSpec { name: name.to_owned(), ..Default::default() });
        let message = match why {
            StopReason::Deleted | StopReason::Over | StopReason::LostSandbox => format!("Stopping container {name}"),
            StopReason::FailedLiveness => format!("Container {name} failed liveness probe, will be restarted"),
            StopReason::FailedStartup => format!("Container {name} failed startup probe, will be restarted"),
            StopReason::Changed => format!("Container {name} definition changed, will be restarted"),
        };
        self.events.container(pod, &container, "Killing", &message);
        let mut grace = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
        if let Some(hook) = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.pre_stop.as_ref())
            && !grace.is_zero()
        {
            let start = std::time::Instant::now();
            if let Err(message) = self.prober.run_hook(hook, &container, id, ip, grace).await {
                self.events.container_warning(
                    pod,
                    &container,
                    "FailedPreStopHook",
                    &format!("PreStopHook failed: {message}"),
                );
            }
            // The hook's time is part of the grace period.
            grace = grace.saturating_sub(start.elapsed()).max(LAST_MOMENT);
        }
        self.log(pod, self.runtime.stop_container(id, grace).await, "stop container");
    }

    /// Ends the pod's sandbox and frees its address; its dead containers stay for their logs.
    async fn stop_sandbox(&self, pod: &Pod, state: &PodState) -> Result<(), Failed> {
        for sandbox in state.sandboxes.iter().filter(|sandbox| sandbox.running) {
            let stopped = self.runtime.stop_container(&sandbox.id, Duration::ZERO).await;
            stopped.map_err(|error| failed(FailureReason::Sandbox)(error.to_string()))?;
        }
        self.network.detach(&key(pod)).await.map_err(|error| failed(FailureReason::Sandbox)(error.to_string()))
    }

    /// Leaves nothing of the pod on the node, then lets the API forget it.
    async fn remove_pod(&self, pod: &Pod, state: &PodState, orphaned: bool) -> Result<(), Failed> {
        let key = key(pod);
        let refused = |message: String| failed(FailureReason::Sandbox)(message);
        let ids = state.containers.iter().map(|container| &container.id);
        for id in ids.chain(state.sandboxes.iter().map(|sandbox| &sandbox.id)) {
            self.runtime.remove_container(id).await.map_err(|error| refused(error.to_string()))?;
        }
        self.network.detach(&key).await.map_err(|error| refused(error.to_string()))?;
        if let Some(volumes) = &self.volumes {
            self.remove_cgroups(&key.uid);
            volumes.remove(&key.uid).map_err(|error| refused(format!("remove the pod's files: {error}")))?;
        }
        if !orphaned {
            let options = DeleteOptions {
                grace_period_seconds: Some(0),
                preconditions: Some(Preconditions { uid: Some(key.uid.clone()), resource_version: None }),
                ..Default::default()
            };
            match self.client.delete::<Pod>(&key.namespace, &key.name, options).await {
                Err(error) if !error.is_not_found() && !error.is_conflict() => {
                    return Err(refused(format!("delete the pod from the API: {error}")));
                }
                _ => {}
            }
        }
        info!(pod = %key, "removed");
        Ok(())
    }

    /// Last words of a dead container: its termination file, or the end of its log where the spec allows.
    pub async fn last_words(&self, pod: &Pod, dead: &runtime::Container) -> String {
        const BYTES_MAX: usize = 4096;
        const LOG_BYTES_MAX: usize = 2048;
        const LOG_LINES_MAX: i64 = 80;
        let Some(volumes) = &self.volumes else { return String::new() };
        let path = volumes.termination_log(&key(pod).uid, &dead.name, dead.attempt);
        let said = tokio::fs::read(&path).await.unwrap_or_default();
        if !said.is_empty() {
            return String::from_utf8_lossy(&said[..said.len().min(BYTES_MAX)]).into_owned();
        }
        let policy = container(spec(pod), &dead.name).map_or("", |spec| spec.termination_message_policy.as_str());
        if policy != "FallbackToLogsOnError" || dead.exit_code == 0 {
            return String::new();
        }
        let options = runtime::LogOptions { tail_lines: Some(LOG_LINES_MAX), ..Default::default() };
        let mut tail = Vec::new();
        if let Ok(mut log) = self.runtime.logs(&dead.id, &options).await {
            while let Some(Ok(chunk)) = futures::StreamExt::next(&mut log).await {
                tail.extend_from_slice(&chunk);
            }
        }
        String::from_utf8_lossy(&tail[tail.len().saturating_sub(LOG_BYTES_MAX)..]).into_owned()
    }

    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

struct Gathered {
    wanted: Wanted,
    services: Vec<Arc<Service>>,
}

/// All mounts of a container: its volumes, then the files every container has unless it brings its own.
fn mounts(
    container: &ContainerSpec,
    env: &[(String, String)],
    files: &PodFiles,
    termination_log: &Path,
) -> Result<Vec<Mount>, String> {
    let place = |name: &str| files.volumes.get(name).map(std::path::PathBuf::as_path);
    let mut mounts = Vec::new();
    for (mut mount, sub_path) in volume_mounts(container, env, place).map_err(|error| error.to_string())? {
        mount.host_path = volume::sub_path(&mount.host_path, &sub_path)?;
        mounts.push(mount);
    }
    let path = match container.termination_message_path.as_str() {
        "" => "/dev/termination-log",
        path => path,
    };
    let write = |path: &Path| {
        let made = path.parent().map_or(Ok(()), std::fs::create_dir_all);
        made.and_then(|()| std::fs::OpenOptions::new().create(true).append(true).open(path).map(drop))
    };
    write(termination_log).map_err(|error| format!("make {}: {error}", termination_log.display()))?;
    let allow_all = std::os::unix::fs::PermissionsExt::from_mode(0o666);
    std::fs::set_permissions(termination_log, allow_all).map_err(|error| format!("open {path} to all: {error}"))?;
    let own = [
        (files.hosts.as_path(), "/etc/hosts"),
        (files.resolv_conf.as_path(), "/etc/resolv.conf"),
        (termination_log, path),
    ];
    for (host_path, container_path) in own {
        if mounts.iter().all(|mount: &Mount| mount.container_path != container_path) {
            mounts.push(Mount {
                host_path: host_path.to_owned(),
                container_path: container_path.to_owned(),
                read_only: false,
                propagation: "rprivate",
            });
        }
    }
    Ok(mounts)
}
