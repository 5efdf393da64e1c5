//! What Docker is told to make. PURE.

use std::collections::HashMap;

use bollard::models::{
    ContainerCreateBody, HostConfig, HostConfigLogConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum,
    MountType, RestartPolicy, RestartPolicyNameEnum,
};

use crate::{
    pod::resources::{QUOTA_PERIOD_US, SANDBOX_OOM_SCORE_ADJ},
    runtime::{ContainerConfig, SandboxConfig},
};

/// Logs turn over at 10 MiB, and one older file is kept: a chatty container cannot fill the disk.
fn log_config() -> HostConfigLogConfig {
    let limits = [("max-size", "10m"), ("max-file", "2")];
    HostConfigLogConfig {
        typ: Some("json-file".to_owned()),
        config: Some(limits.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()),
    }
}

/// Restarts are the kubelet's.
fn no_restart() -> RestartPolicy {
    RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }
}

fn oom_score(wanted: i32, may_lower: bool) -> i64 {
    i64::from(if may_lower { wanted } else { wanted.max(0) })
}

pub fn sandbox(
    config: &SandboxConfig,
    image: &str,
    labels: HashMap<String, String>,
    may_lower_oom_score: bool,
) -> ContainerCreateBody {
    let host = HostConfig {
        network_mode: Some(if config.host_network { "host" } else { "none" }.to_owned()),
        ipc_mode: Some(if config.host_ipc { "host" } else { "shareable" }.to_owned()),
        pid_mode: config.host_pid.then(|| "host".to_owned()),
        cgroup_parent: Some(config.cgroup_parent.clone()),
        oom_score_adj: Some(oom_score(SANDBOX_OOM_SCORE_ADJ, may_lower_oom_score)),
        cpu_shares: Some(2),
        sysctls: (!config.sysctls.is_empty()).then(|| config.sysctls.clone().into_iter().collect()),
        log_config: Some(log_config()),
        restart_policy: Some(no_restart()),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        hostname: (!config.host_network).then(|| config.hostname.clone()),
        labels: Some(labels),
        host_config: Some(host),
        ..Default::default()
    }
}

pub fn container(
    config: &ContainerConfig,
    labels: HashMap<String, String>,
    may_lower_oom_score: bool,
) -> ContainerCreateBody {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let words = |words: &[String]| (!words.is_empty()).then(|| words.to_vec());
    let has_quota = config.resources.cpu_quota_us > 0;
    let memory = (config.resources.memory_bytes > 0).then_some(config.resources.memory_bytes);
    let security = &config.security;
    let mut options = Vec::new();
    if security.seccomp_unconfined {
        options.push("seccomp=unconfined".to_owned());
    }
    if security.no_new_privileges {
        options.push("no-new-privileges".to_owned());
    }
    let sandbox = format!("container:{}", config.sandbox_id);
    let host = HostConfig {
        network_mode: Some(sandbox.clone()),
        ipc_mode: Some(sandbox.clone()),
        pid_mode: match (config.host_pid, config.share_pid) {
            (true, _) => Some("host".to_owned()),
            (false, true) => Some(sandbox),
            (false, false) => None,
        },
        cgroup_parent: Some(config.cgroup_parent.clone()),
        cpu_shares: Some(config.resources.cpu_shares),
        cpu_period: has_quota.then_some(QUOTA_PERIOD_US),
        cpu_quota: has_quota.then_some(config.resources.cpu_quota_us),
        memory,
        // As much with swap as without: pods do not swap.
        memory_swap: memory,
        oom_score_adj: Some(oom_score(config.resources.oom_score_adj, may_lower_oom_score)),
        privileged: Some(security.privileged),
        readonly_rootfs: Some(security.read_only_root),
        cap_add: words(&bare(&security.capabilities_add)),
        cap_drop: words(&bare(&security.capabilities_drop)),
        group_add: words(&security.groups),
        security_opt: words(&options),
        mounts: Some(config.mounts.iter().map(mount).collect()),
        log_config: Some(log_config()),
        restart_policy: Some(no_restart()),
        ..Default::default()
    };
    ContainerCreateBody {
        image: Some(config.image.clone()),
        entrypoint: words(&config.command),
        cmd: words(&config.args),
        env: Some(config.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
        working_dir: text(&config.working_dir),
        user: text(&security.user),
        open_stdin: Some(config.stdin),
        stdin_once: Some(config.stdin_once),
        tty: Some(config.tty),
        stop_signal: text(&config.stop_signal),
        labels: Some(labels),
        host_config: Some(host),
        ..Default::default()
    }
}

fn bare(capabilities: &[String]) -> Vec<String> {
    capabilities.iter().map(|name| name.strip_prefix("CAP_").unwrap_or(name).to_owned()).collect()
}

fn mount(mount: &crate::runtime::Mount) -> Mount {
    let propagation = match mount.propagation {
        "rslave" => MountBindOptionsPropagationEnum::RSLAVE,
        "rshared" => MountBindOptionsPropagationEnum::RSHARED,
        _ => MountBindOptionsPropagationEnum::RPRIVATE,
    };
    Mount {
        target: Some(mount.container_path.clone()),
        source: Some(mount.host_path.display().to_string()),
        typ: Some(MountType::BIND),
        read_only: Some(mount.read_only),
        bind_options: Some(MountBindOptions { propagation: Some(propagation), ..Default::default() }),
        ..Default::default()
    }
}
