//! What Docker says, in our words. PURE.

use bollard::{
    errors::Error as BollardError,
    models::{ContainerInspectResponse, ContainerStateStatusEnum, ContainerStatsResponse},
};
use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use jiff::Timestamp;
use sha2::{Digest, Sha256};

use crate::runtime::{
    Container, Error, Phase, PodState, Record, Sandbox, Stats,
    record::{CONTAINER_HASH, FAILURES, SANDBOX_ID, number},
};

/// Docker's refusal by what it means for the caller.
pub fn refused(error: BollardError) -> Error {
    match error {
        BollardError::DockerResponseServerError { status_code: 404, message } => Error::NotFound(message),
        BollardError::DockerResponseServerError { status_code: 409, message } => Error::Conflict(message),
        BollardError::DockerResponseServerError { message, .. } => Error::Refused(message),
        BollardError::DockerStreamError { error } => Error::Refused(error),
        other => Error::Unavailable(other.to_string()),
    }
}

/// "Not modified" means that what was asked for is so already.
pub fn unless_unchanged(outcome: Result<(), BollardError>) -> Result<(), Error> {
    match outcome {
        Err(BollardError::DockerResponseServerError { status_code: 304, .. }) => Ok(()),
        outcome => outcome.map_err(refused),
    }
}

/// Repository and tag (or digest) of an image's name; without one, "latest".
pub fn tag_of(name: &str) -> (String, String) {
    if let Some((repository, digest)) = name.split_once('@') {
        return (repository.to_owned(), digest.to_owned());
    }
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository.to_owned(), tag.to_owned()),
        _ => (name.to_owned(), "latest".to_owned()),
    }
}

/// Puts an inspected container where it belongs in its pod.
pub fn file(found: ContainerInspectResponse, into: &mut PodState) {
    let (Some(id), Some(state), Some(config)) = (found.id, found.state, found.config) else { return };
    let labels = config.labels.unwrap_or_default();
    let running = state.running.unwrap_or_default();
    let Some(record) = Record::read(&id, running, &labels) else { return };
    let created_at = found.created.and_then(|at| time(&at.to_string())).unwrap_or_default();
    let Some(name) = record.container else {
        into.sandboxes.push(Sandbox {
            id,
            attempt: record.attempt,
            running,
            pid: state.pid.and_then(|pid| u32::try_from(pid).ok()).unwrap_or_default(),
            ip: record.ip,
            created_at,
        });
        return;
    };
    let phase = match state.status {
        Some(ContainerStateStatusEnum::CREATED) => Phase::Created,
        _ if running => Phase::Running,
        _ => Phase::Exited,
    };
    into.containers.push(Container {
        id,
        name,
        attempt: record.attempt,
        sandbox_id: labels.get(SANDBOX_ID).cloned().unwrap_or_default(),
        image: config.image.unwrap_or_default(),
        image_id: format!("docker://{}", found.image.unwrap_or_default()),
        phase,
        created_at,
        started_at: state.started_at.as_deref().and_then(time),
        finished_at: state.finished_at.as_deref().and_then(time),
        exit_code: state.exit_code.and_then(|code| i32::try_from(code).ok()).unwrap_or_default(),
        oom_killed: state.oom_killed.unwrap_or_default(),
        error: state.error.unwrap_or_default(),
        hash: labels.get(CONTAINER_HASH).cloned().unwrap_or_default(),
        failures: number(&labels, FAILURES),
    });
}

/// Docker's "never" is the year 1.
fn time(text: &str) -> Option<Timestamp> {
    text.parse::<Timestamp>().ok().filter(|at| at.as_second() > 0)
}

pub fn stats(found: &ContainerStatsResponse) -> Stats {
    let memory = found.memory_stats.as_ref();
    let used = memory.and_then(|memory| memory.usage).unwrap_or_default();
    let parts = memory.and_then(|memory| memory.stats.as_ref());
    // Files that can be dropped at once: one name in each version of cgroups.
    let inactive = parts.and_then(|parts| parts.get("total_inactive_file").or_else(|| parts.get("inactive_file")));
    let cpu = found.cpu_stats.as_ref().and_then(|cpu| cpu.cpu_usage.as_ref()).and_then(|cpu| cpu.total_usage);
    Stats { cpu_ns: cpu.unwrap_or_default(), memory_bytes: used.saturating_sub(inactive.copied().unwrap_or_default()) }
}

pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A tar archive of one executable file.
pub fn tar_of(name: &str, content: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut header = [0_u8; BLOCK];
    let mut put = |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, "0000755\0");
    put(108, "0000000\0");
    put(116, "0000000\0");
    put(124, &format!("{:011o}\0", content.len()));
    put(136, "00000000000\0");
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\0");
    put(263, "00");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut archive = header.to_vec();
    archive.extend_from_slice(content);
    archive.resize(archive.len().div_ceil(BLOCK) * BLOCK + 2 * BLOCK, 0);
    archive
}

/// Looks at an archive's first entry: whether `docker save` wrote it. The stream given back is whole.
pub async fn peek(mut archive: BoxStream<'static, Bytes>) -> (bool, BoxStream<'static, Bytes>) {
    const NAME_BYTES: usize = 100;
    let mut head: Vec<Bytes> = Vec::new();
    let mut name = Vec::new();
    while name.len() < NAME_BYTES {
        let Some(chunk) = archive.next().await else { break };
        name.extend_from_slice(&chunk[..chunk.len().min(NAME_BYTES)]);
        head.push(chunk);
    }
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(name.len()).min(NAME_BYTES);
    let is_saved = is_saved_entry(&String::from_utf8_lossy(&name[..end]));
    (is_saved, futures::stream::iter(head).chain(archive).boxed())
}

fn is_saved_entry(name: &str) -> bool {
    let first = name.trim_start_matches("./").split(['/', '.']).next().unwrap_or_default();
    let is_digest = first.len() == 64 && first.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_digest || ["blobs", "manifest", "index", "oci-layout", "repositories"].contains(&first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_split_into_repository_and_tag() {
        let split = |name| {
            let (repository, tag) = tag_of(name);
            format!("{repository} {tag}")
        };
        assert_eq!(split("web"), "web latest");
        assert_eq!(split("host:5000/web"), "host:5000/web latest");
        assert_eq!(split("host:5000/web:1.0"), "host:5000/web 1.0");
        assert_eq!(split("web@sha256:ab"), "web sha256:ab");
    }

    #[tokio::test]
    async fn saved_images_are_told_from_root_file_systems() {
        assert!(is_saved_entry("blobs/sha256/") && is_saved_entry(&"a".repeat(64)));
        assert!(!is_saved_entry("bin/") && !is_saved_entry("./usr/bin/env"));
        let archive = Bytes::from(tar_of("pause", b"x"));
        let (is_saved, whole) = peek(futures::stream::iter([archive.slice(..7), archive.slice(7..)]).boxed()).await;
        assert!(!is_saved);
        assert_eq!(whole.collect::<Vec<_>>().await.concat(), archive);
    }
}
