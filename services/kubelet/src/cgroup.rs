//! The cgroups of pods: Docker makes a container's parents, but neither bounds nor removes them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::debug;

use crate::pod::resources::QUOTA_PERIOD_US;

const ROOT: &str = "/sys/fs/cgroup";

/// What a cgroup weighs among its siblings, and may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Relative weight; 1024 is one core.
    pub cpu_shares: i64,
    /// Microseconds per 100 ms; 0 is without limit.
    pub cpu_quota_us: i64,
    /// Bytes; 0 is without limit.
    pub memory_bytes: i64,
}

/// Sets a cgroup's limits in whichever version of cgroups has it; one that does not exist is passed over.
pub fn limit(cgroup: &str, limits: &Limits) {
    let folder = folder(cgroup);
    for place in places(&folder) {
        for (file, value) in files(limits) {
            let path = place.join(file);
            if path.exists()
                && let Err(error) = fs::write(&path, &value)
            {
                debug!(path = %path.display(), value, %error, "the cgroup keeps its limit");
            }
        }
    }
}

/// Removes a cgroup and all below it, in every hierarchy; those still in use stay.
pub fn remove(cgroup: &str) {
    if cgroup.trim_start_matches('/').is_empty() || cgroup.ends_with(".slice") {
        // systemd removes its own slices.
        return;
    }
    for path in places(&folder(cgroup)) {
        if let Err(error) = remove_tree(&path) {
            debug!(path = %path.display(), %error, "the cgroup stays");
        }
    }
}

/// Where a cgroup is: once in each hierarchy of version 1, once in version 2.
fn places(folder: &Path) -> Vec<PathBuf> {
    let root = Path::new(ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    hierarchies.chain([root.to_owned()]).map(|hierarchy| hierarchy.join(folder)).filter(|path| path.is_dir()).collect()
}

/// A cgroup's folder below its hierarchy. A slice's name holds those of its parents, and it lies in all of them. Pure.
fn folder(cgroup: &str) -> PathBuf {
    let Some(slice) = cgroup.strip_suffix(".slice") else { return cgroup.trim_start_matches('/').into() };
    let ends = slice.match_indices('-').map(|(at, _)| at).chain([slice.len()]);
    ends.map(|end| format!("{}.slice", &slice[..end])).collect()
}

/// The files that hold these limits, of both versions. Pure.
fn files(limits: &Limits) -> Vec<(&'static str, String)> {
    let Limits { cpu_shares, cpu_quota_us, memory_bytes } = *limits;
    let or = |value: i64, none: &str| if value > 0 { value.to_string() } else { none.to_owned() };
    vec![
        ("cpu.shares", cpu_shares.to_string()),
        ("cpu.cfs_period_us", QUOTA_PERIOD_US.to_string()),
        ("cpu.cfs_quota_us", or(cpu_quota_us, "-1")),
        ("memory.limit_in_bytes", or(memory_bytes, "-1")),
        ("cpu.weight", weight(cpu_shares).to_string()),
        ("cpu.max", format!("{} {QUOTA_PERIOD_US}", or(cpu_quota_us, "max"))),
        ("memory.max", or(memory_bytes, "max")),
    ]
}

/// Shares of 2 to 262144 as a weight of 1 to 10000, the way runtimes write it. Pure.
fn weight(shares: i64) -> i64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Folders only: the files of a cgroup go with it.
fn remove_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_lies_in_all_that_its_name_names() {
        let slice = "kubepods-besteffort-pod1_2.slice";
        let expected = "kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1_2.slice";
        assert_eq!(folder(slice), Path::new(expected));
        assert_eq!(folder("/kubepods/burstable/pod1-2"), Path::new("kubepods/burstable/pod1-2"));
    }

    #[test]
    fn limits_are_written_for_both_versions_of_cgroups() {
        let written = |limits: &Limits| -> Vec<String> {
            files(limits).into_iter().map(|(file, value)| format!("{file}={value}")).collect()
        };
        let bounded = Limits { cpu_shares: 512, cpu_quota_us: 50_000, memory_bytes: 64 << 20 };
        let expected = [
            "cpu.shares=512",
            "cpu.cfs_period_us=100000",
            "cpu.cfs_quota_us=50000",
            "memory.limit_in_bytes=67108864",
            "cpu.weight=20",
            "cpu.max=50000 100000",
            "memory.max=67108864",
        ];
        assert_eq!(written(&bounded), expected);
        let free = written(&Limits { cpu_shares: 2, ..Limits::default() });
        assert_eq!(
            free[2..],
            ["cpu.cfs_quota_us=-1", "memory.limit_in_bytes=-1", "cpu.weight=1", "cpu.max=max 100000", "memory.max=max"]
        );
        assert_eq!((weight(262_144), weight(1024)), (10_000, 39));
    }
}
