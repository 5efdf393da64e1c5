//! From a pod's spec to what the runtime is told to make. PURE.

use std::{collections::HashMap, net::IpAddr, path::Path};

use prost::Message;
use proto::k8s::core::v1::{Container, Pod, PodSecurityContext, PodSpec, SecurityContext};
use sha2::{Digest, Sha256};

use super::{
    env, files, resources,
    snapshot::{key, spec},
};
use crate::runtime::{CgroupDriver, ContainerConfig, Image, Mount, SandboxConfig, Security};

/// What of the node goes into every container.
#[derive(Clone, Debug, Default)]
pub struct NodeSetup {
    pub cgroup_driver: CgroupDriver,
    /// The name below which all pods' cgroups lie.
    pub cgroup_root: String,
    pub memory_bytes: i64,
}

pub fn sandbox_config(pod: &Pod, setup: &NodeSetup, attempt: u32, ip: Option<IpAddr>) -> SandboxConfig {
    let (spec, key) = (spec(pod), key(pod));
    let sysctls = spec.security_context.as_ref().map(|context| context.sysctls.as_slice()).unwrap_or_default();
    SandboxConfig {
        attempt,
        hostname: files::hostname(pod),
        ip,
        host_network: spec.host_network,
        host_pid: spec.host_pid,
        host_ipc: spec.host_ipc,
        cgroup_parent: cgroup_parent(spec, setup, &key.uid),
        sysctls: sysctls.iter().map(|sysctl| (sysctl.name.clone(), sysctl.value.clone())).collect(),
        pod: key,
    }
}

fn cgroup_parent(spec: &PodSpec, setup: &NodeSetup, uid: &str) -> String {
    resources::cgroup_parent(setup.cgroup_driver, &setup.cgroup_root, resources::qos_class(spec), uid)
}

/// Identifies what a container is made from: another hash means it must be made anew.
///
/// Resources are left out, since they may be changed in place.
pub fn container_hash(container: &Container) -> String {
    let essence = Container { resources: None, resize_policy: Vec::new(), ..container.clone() };
    let digest = Sha256::digest(essence.encode_to_vec());
    digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect()
}

/// Why a container may not be made from this spec and image.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Refusal {
    #[error("{0}")]
    Env(#[from] env::Error),
    #[error("container has runAsNonRoot and image will run as root (pod: \"{pod}\", container: {container})")]
    RootImage { pod: String, container: String },
    #[error("container's runAsUser breaks non-root policy (pod: \"{pod}\", container: {container})")]
    RootUser { pod: String, container: String },
    #[error(
        "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root (pod: \"{pod}\", container: {container})"
    )]
    NamedUser { user: String, pod: String, container: String },
    #[error("volumeMounts \"{0}\": the pod has no volume of this name")]
    NoVolume(String),
}

/// One attempt of one container.
#[derive(Clone, Debug, Default)]
pub struct Attempt {
    pub number: u32,
    pub failures: u32,
    pub sandbox_id: String,
}

/// # Errors
/// Where the spec forbids to run this image, or a value of its environment is missing.
pub fn container_config(
    sources: &env::Sources,
    container: &Container,
    image: &Image,
    setup: &NodeSetup,
    attempt: Attempt,
    mounts: Vec<Mount>,
) -> Result<ContainerConfig, Refusal> {
    let (spec, key) = (spec(sources.pod), key(sources.pod));
    let env = env::environment(sources, container)?;
    let known: HashMap<String, String> = env.iter().cloned().collect();
    let expand = |words: &[String]| words.iter().map(|word| env::expand(word, &known)).collect();
    let security = security(sources.pod, container, image)?;
    let lifecycle = container.lifecycle.as_ref();
    Ok(ContainerConfig {
        name: container.name.clone(),
        attempt: attempt.number,
        hash: container_hash(container),
        failures: attempt.failures,
        sandbox_id: attempt.sandbox_id,
        image: container.image.clone(),
        command: expand(&container.command),
        args: expand(&container.args),
        env,
        working_dir: container.working_dir.clone(),
        mounts,
        resources: resources::container_resources(spec, container, setup.memory_bytes),
        cgroup_parent: cgroup_parent(spec, setup, &key.uid),
        security,
        stdin: container.stdin,
        stdin_once: container.stdin_once,
        tty: container.tty,
        share_pid: spec.share_process_namespace(),
        host_pid: spec.host_pid,
        stop_signal: lifecycle.and_then(|lifecycle| lifecycle.stop_signal.clone()).unwrap_or_default(),
        pod: key,
    })
}

fn security(pod: &Pod, container: &Container, image: &Image) -> Result<Security, Refusal> {
    let (of_pod, own) = (PodSecurityContext::default(), SecurityContext::default());
    let of_pod = spec(pod).security_context.as_ref().unwrap_or(&of_pod);
    let own = container.security_context.as_ref().unwrap_or(&own);
    let user = own.run_as_user.or(of_pod.run_as_user);
    let group = own.run_as_group.or(of_pod.run_as_group);
    if own.run_as_non_root.or(of_pod.run_as_non_root).unwrap_or(false) {
        check_non_root(pod, container, user, &image.user)?;
    }
    let capabilities = own.capabilities.clone().unwrap_or_default();
    let seccomp = own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref());
    let groups = of_pod.supplemental_groups.iter().chain(&of_pod.fs_group);
    Ok(Security {
        user: match (user, group) {
            (Some(user), Some(group)) => format!("{user}:{group}"),
            (Some(user), None) => user.to_string(),
            (None, Some(group)) => {
                let user = image.user.split(':').next().filter(|user| !user.is_empty()).unwrap_or("0");
                format!("{user}:{group}")
            }
            (None, None) => String::new(),
        },
        groups: groups.map(ToString::to_string).collect(),
        privileged: own.privileged(),
        capabilities_add: capabilities.add,
        capabilities_drop: capabilities.drop,
        read_only_root: own.read_only_root_filesystem(),
        no_new_privileges: own.allow_privilege_escalation == Some(false),
        // Kubernetes' default; the runtime's own profile has to be asked for.
        seccomp_unconfined: seccomp.is_none_or(|profile| profile.r#type == "Unconfined"),
    })
}

fn check_non_root(pod: &Pod, container: &Container, user: Option<i64>, image_user: &str) -> Result<(), Refusal> {
    let key = key(pod);
    let (pod, container) = (format!("{}_{}({})", key.name, key.namespace, key.uid), container.name.clone());
    match (user, image_user.split(':').next().unwrap_or("")) {
        (Some(0), _) => Err(Refusal::RootUser { pod, container }),
        (Some(_), _) => Ok(()),
        (None, "" | "0" | "root") => Err(Refusal::RootImage { pod, container }),
        (None, user) if user.parse::<i64>().is_err() => {
            Err(Refusal::NamedUser { user: user.to_owned(), pod, container })
        }
        (None, _) => Ok(()),
    }
}

/// The mounts a container asked for; `volumes` gives the place of a volume on the node.
///
/// # Errors
/// Where a mount names no volume of the pod.
pub fn volume_mounts<'a>(
    container: &Container,
    env: &[(String, String)],
    volumes: impl Fn(&str) -> Option<&'a Path>,
) -> Result<Vec<(Mount, String)>, Refusal> {
    let known: HashMap<String, String> = env.iter().cloned().collect();
    let mount = |mount: &proto::k8s::core::v1::VolumeMount| {
        let root = volumes(&mount.name).ok_or_else(|| Refusal::NoVolume(mount.name.clone()))?;
        let sub_path = match mount.sub_path_expr.as_str() {
            "" => mount.sub_path.clone(),
            expression => env::expand(expression, &known),
        };
        let propagation = match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => "rslave",
            Some("Bidirectional") => "rshared",
            _ => "rprivate",
        };
        let made = Mount {
            host_path: root.to_owned(),
            container_path: mount.mount_path.clone(),
            read_only: mount.read_only,
            propagation,
        };
        Ok((made, sub_path))
    };
    container.volume_mounts.iter().map(mount).collect()
}

/// Whether the image is looked for at its source: `Always`, `IfNotPresent`, `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullPolicy {
    Always,
    IfNotPresent,
    Never,
}

/// The policy of a container; without one, a moving tag is always looked for.
pub fn pull_policy(container: &Container) -> PullPolicy {
    match container.image_pull_policy.as_str() {
        "Always" => PullPolicy::Always,
        "IfNotPresent" => PullPolicy::IfNotPresent,
        "Never" => PullPolicy::Never,
        _ if container.image.contains('@') => PullPolicy::IfNotPresent,
        _ => match container.image.rsplit('/').next().and_then(|last| last.split_once(':')) {
            Some((_, tag)) if tag != "latest" => PullPolicy::IfNotPresent,
            _ => PullPolicy::Always,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(user: &str) -> Image {
        Image { user: user.into(), ..Default::default() }
    }

    fn non_root(user: Option<i64>) -> Container {
        let context = SecurityContext { run_as_non_root: Some(true), run_as_user: user, ..Default::default() };
        Container { name: "c".into(), security_context: Some(context), ..Default::default() }
    }

    #[test]
    fn run_as_non_root_refuses_root_in_every_form() {
        let refused = |user, of_image: &str| security(&Pod::default(), &non_root(user), &image(of_image)).is_err();
        assert!(refused(None, "") && refused(None, "root") && refused(None, "nobody") && refused(Some(0), "1000"));
        assert!(!refused(None, "1000:1000") && !refused(Some(7), ""));
    }

    #[test]
    fn a_hash_changes_with_the_image_but_not_with_resources() {
        let one = Container { image: "a".into(), ..Default::default() };
        let resized = Container { resources: Some(Default::default()), ..one.clone() };
        let other = Container { image: "b".into(), ..Default::default() };
        assert_eq!(container_hash(&one), container_hash(&resized));
        assert_ne!(container_hash(&one), container_hash(&other));
    }

    #[test]
    fn a_moving_tag_is_always_looked_for() {
        let policy = |image: &str| pull_policy(&Container { image: image.into(), ..Default::default() });
        assert_eq!(policy("web"), PullPolicy::Always);
        assert_eq!(policy("host:5000/web"), PullPolicy::Always);
        assert_eq!(policy("web:latest"), PullPolicy::Always);
        assert_eq!(policy("host:5000/web:1.0"), PullPolicy::IfNotPresent);
    }
}
