//! A pod's files on the node: its volumes, its hosts and resolver files, its containers' last words.
//!
//! Everything of a pod lies below `pods/<uid>`, so that removing that folder (after unmounting) removes the pod. Making
//! is idempotent: it is done again before every container start and when a source changes.

pub mod atomic;
pub mod payload;

use std::{
    collections::BTreeMap,
    fs, io,
    net::IpAddr,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::{Component, Path, PathBuf},
};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use proto::k8s::core::v1::{EmptyDirVolumeSource, HostPathVolumeSource, Pod, Volume};

use crate::pod::{
    env::Sources,
    files::{self, ClusterDns},
    snapshot::spec,
};

/// Why a pod's files cannot be made yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("MountVolume.SetUp failed for volume \"{volume}\" : {why}")]
    Volume { volume: String, why: String },
    #[error("{what} {path}: {source}")]
    File { what: &'static str, path: PathBuf, source: io::Error },
}

/// The pod files of one node.
#[derive(Clone, Debug)]
pub struct Volumes {
    root: PathBuf,
    dns: ClusterDns,
    /// The node's own resolver file.
    resolv_conf: PathBuf,
}

/// Where a pod's files are.
#[derive(Clone, Debug, Default)]
pub struct PodFiles {
    pub volumes: BTreeMap<String, PathBuf>,
    pub hosts: PathBuf,
    pub resolv_conf: PathBuf,
}

impl Volumes {
    pub fn new(root: PathBuf, dns: ClusterDns, resolv_conf: PathBuf) -> Self {
        Self { root, dns, resolv_conf }
    }

    pub fn pod_dir(&self, uid: &str) -> PathBuf {
        self.root.join("pods").join(uid)
    }

    /// The file one attempt of a container leaves its last words in.
    pub fn termination_log(&self, uid: &str, container: &str, attempt: u32) -> PathBuf {
        self.pod_dir(uid).join("containers").join(container).join(attempt.to_string())
    }

    /// Makes or refreshes all files of a pod.
    ///
    /// # Errors
    /// Names the volume, and the object or path that is missing or refused.
    pub fn prepare(&self, sources: &Sources) -> Result<PodFiles, Error> {
        let uid = crate::pod::snapshot::key(sources.pod).uid;
        let dir = self.pod_dir(&uid);
        make_dir(&dir, 0o750)?;
        let mut pod_files =
            PodFiles { hosts: dir.join("hosts"), resolv_conf: dir.join("resolv.conf"), ..Default::default() };
        self.write_network_files(sources.pod, sources.pod_ips, &pod_files)?;
        for volume in &spec(sources.pod).volumes {
            let path = self.volume(&dir, sources, volume)?;
            pod_files.volumes.insert(volume.name.clone(), path);
        }
        Ok(pod_files)
    }

    fn write_network_files(&self, pod: &Pod, ips: &[IpAddr], pod_files: &PodFiles) -> Result<(), Error> {
        let spec = spec(pod);
        let hosts = match spec.host_network {
            true => fs::read_to_string("/etc/hosts").unwrap_or_default(),
            false => files::hosts(pod, ips, &self.dns.domain),
        };
        let node_conf = fs::read_to_string(&self.resolv_conf).unwrap_or_default();
        write_if_changed(&pod_files.hosts, &hosts)?;
        write_if_changed(&pod_files.resolv_conf, &files::resolv_conf(pod, &self.dns, &node_conf))
    }

    fn volume(&self, dir: &Path, sources: &Sources, volume: &Volume) -> Result<PathBuf, Error> {
        let refuse = |why: String| Error::Volume { volume: volume.name.clone(), why };
        let source = volume.volume_source.clone().unwrap_or_default();
        let place = |kind: &str| dir.join("volumes").join(kind).join(&volume.name);
        let fs_group = spec(sources.pod).security_context.as_ref().and_then(|context| context.fs_group);
        if let Some(host_path) = &source.host_path {
            return self::host_path(host_path).map_err(refuse);
        }
        if let Some(payload) = payload::of_volume(sources, &source).map_err(&refuse)? {
            let path = place(payload.kind);
            make_dir(&path, 0o755)?;
            if payload.is_secret {
                mount_tmpfs(&path, None, 0o755).map_err(|error| refuse(error.to_string()))?;
            }
            atomic::write(&path, &payload.files, fs_group).map_err(|error| refuse(error.to_string()))?;
            return Ok(path);
        }
        if let Some(empty_dir) = &source.empty_dir {
            let path = place("empty-dir");
            self::empty_dir(&path, empty_dir, fs_group).map_err(|error| refuse(error.to_string()))?;
            return Ok(path);
        }
        Err(refuse(
            "this kind of volume is not supported: use emptyDir, hostPath, configMap, secret, downwardAPI or projected"
                .to_owned(),
        ))
    }

    /// Unmounts and removes everything of a pod; a pod without files is no error.
    ///
    /// # Errors
    /// Where a mount is still in use or a file cannot be removed.
    pub fn remove(&self, uid: &str) -> io::Result<()> {
        let dir = self.pod_dir(uid);
        if !dir.exists() {
            return Ok(());
        }
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        let inside: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
        for path in inside.iter().rev().filter(|path| Path::new(path).starts_with(&dir)) {
            umount2(*path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW)?;
        }
        fs::remove_dir_all(&dir)
    }

    /// The pods that have files here.
    pub fn uids(&self) -> Vec<String> {
        let entries = fs::read_dir(self.root.join("pods")).into_iter().flatten().flatten();
        entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
    }
}

/// The place of a `subPath` inside a volume, made where it is missing.
///
/// # Errors
/// Where it leads out of the volume.
pub fn sub_path(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let relative = Path::new(sub_path);
    if !relative.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err(format!("subPath \"{sub_path}\" must be a relative path without \"..\""));
    }
    let path = volume.join(relative);
    if fs::symlink_metadata(&path).is_err() {
        fs::create_dir_all(&path).map_err(|error| format!("make subPath \"{sub_path}\": {error}"))?;
    }
    let (real, root) = (path.canonicalize(), volume.canonicalize());
    match (real, root) {
        (Ok(real), Ok(root)) if real.starts_with(&root) => Ok(real),
        _ => Err(format!("subPath \"{sub_path}\" leads out of its volume")),
    }
}

fn make_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let failed = |source| Error::File { what: "make folder", path: path.to_owned(), source };
    if path.is_dir() {
        return Ok(());
    }
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}

/// Keeps the file's inode: containers see it through a bind mount.
fn write_if_changed(path: &Path, text: &str) -> Result<(), Error> {
    if fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    fs::write(path, text).map_err(|source| Error::File { what: "write", path: path.to_owned(), source })
}

fn empty_dir(path: &Path, source: &EmptyDirVolumeSource, fs_group: Option<i64>) -> io::Result<()> {
    let is_new = !path.is_dir();
    fs::create_dir_all(path)?;
    if source.medium == "Memory" {
        let size = source.size_limit.as_ref().map(|limit| limit.value()).filter(|bytes| *bytes > 0);
        mount_tmpfs(path, size, 0o777)?;
    }
    if is_new {
        if let Some(group) = fs_group {
            std::os::unix::fs::chown(path, None, u32::try_from(group).ok())?;
        }
        let mode = if fs_group.is_some() { 0o2777 } else { 0o777 };
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn mount_tmpfs(path: &Path, size_bytes: Option<i64>, mode: u32) -> io::Result<()> {
    if is_mount_point(path)? {
        return Ok(());
    }
    let size = size_bytes.map(|bytes| format!(",size={bytes}")).unwrap_or_default();
    let options = format!("mode={mode:o}{size}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some(options.as_str()))?)
}

fn is_mount_point(path: &Path) -> io::Result<bool> {
    let parent = path.parent().unwrap_or(path);
    Ok(fs::metadata(path)?.dev() != fs::metadata(parent)?.dev())
}

/// Checks, and where its type says so makes, a path of the node.
fn host_path(source: &HostPathVolumeSource) -> Result<PathBuf, String> {
    let path = PathBuf::from(&source.path);
    if !path.is_absolute() || path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("hostPath \"{}\" must be an absolute path without \"..\"", source.path));
    }
    let kind = source.r#type.as_deref().unwrap_or("");
    let made = match kind {
        // What is missing becomes a folder, as Docker-based nodes have always done.
        "" if !path.exists() => fs::create_dir_all(&path),
        "DirectoryOrCreate" if !path.exists() => {
            fs::create_dir_all(&path).and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
        }
        "FileOrCreate" if !path.exists() => fs::write(&path, b""),
        _ => Ok(()),
    };
    made.map_err(|error| format!("hostPath make {}: {error}", source.path))?;
    let found = fs::metadata(&path).map_err(|error| format!("hostPath {}: {error}", source.path))?.file_type();
    let (fits, wanted) = match kind {
        "Directory" | "DirectoryOrCreate" => (found.is_dir(), "directory"),
        "File" | "FileOrCreate" => (found.is_file(), "file"),
        "Socket" => (found.is_socket(), "socket"),
        "CharDevice" => (found.is_char_device(), "character device"),
        "BlockDevice" => (found.is_block_device(), "block device"),
        _ => (true, ""),
    };
    if fits { Ok(path) } else { Err(format!("hostPath type check failed: {} is not a {wanted}", source.path)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &Path, kind: &str) -> Result<PathBuf, String> {
        host_path(&HostPathVolumeSource { path: path.display().to_string(), r#type: Some(kind.into()) })
    }

    #[test]
    fn host_paths_are_checked_and_made_by_their_type() {
        let dir = tempfile::tempdir().unwrap();
        assert!(host(&dir.path().join("none"), "Directory").is_err());
        assert!(host(&dir.path().join("made"), "DirectoryOrCreate").unwrap().is_dir());
        assert!(host(&dir.path().join("file"), "FileOrCreate").unwrap().is_file());
        assert!(host(&dir.path().join("file"), "Directory").unwrap_err().contains("is not a directory"));
        assert!(host(Path::new("/a/../b"), "").is_err());
    }

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let dir = tempfile::tempdir().unwrap();
        assert!(sub_path(dir.path(), "a/b").unwrap().is_dir());
        assert!(sub_path(dir.path(), "../up").is_err());
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        assert!(sub_path(dir.path(), "link").unwrap_err().contains("leads out"));
    }
}
