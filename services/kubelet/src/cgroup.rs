//! The cgroups pods leave behind: Docker makes a container's parents and never removes them.

use std::{fs, io, path::Path};

use tracing::debug;

const ROOT: &str = "/sys/fs/cgroup";

/// Removes a cgroup and all below it, in every hierarchy; those still in use stay.
pub fn remove(cgroup: &str) {
    let relative = cgroup.trim_start_matches('/');
    if relative.is_empty() || relative.ends_with(".slice") {
        // systemd removes its own slices.
        return;
    }
    let root = Path::new(ROOT);
    let hierarchies = fs::read_dir(root).into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        let path = hierarchy.join(relative);
        if path.is_dir()
            && let Err(error) = remove_tree(&path)
        {
            debug!(path = %path.display(), %error, "the cgroup stays");
        }
    }
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
