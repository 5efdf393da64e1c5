//! Kernel settings the proxy needs, and what they were before, so that cleaning up leaves the machine as it was.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tracing::info;

/// Setting and wanted value.
const WANTED: [(&str, &str); 1] = [("net/ipv4/ip_forward", "1")];

/// Sets what is not as it must be; the first values seen are remembered below `state_dir`.
///
/// # Errors
/// Where a setting cannot be read, remembered or set.
pub fn set(state_dir: &Path) -> anyhow::Result<()> {
    for (name, wanted) in WANTED {
        let present = read(name)?;
        if present == wanted {
            continue;
        }
        remember(state_dir, name, &present)?;
        fs::write(path(name), wanted).with_context(|| format!("set {} to {wanted} (it needs root)", dotted(name)))?;
        info!(setting = dotted(name), before = present, now = wanted, "kernel setting changed");
    }
    Ok(())
}

/// Sets everything back to what it was before [`set`], and forgets that.
///
/// # Errors
/// Where a remembered value cannot be read or set.
pub fn restore(state_dir: &Path) -> anyhow::Result<()> {
    let file = remembered(state_dir);
    let text = match fs::read_to_string(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("read {}", file.display())),
    };
    for (name, before) in text.lines().filter_map(|line| line.split_once(' ')) {
        // Only what we may have written: the file must not become a way to set anything at all.
        if WANTED.iter().any(|(known, _)| *known == name) {
            fs::write(path(name), before).with_context(|| format!("set {} back to {before}", dotted(name)))?;
        }
    }
    fs::remove_file(&file).with_context(|| format!("remove {}", file.display()))
}

fn remember(state_dir: &Path, name: &str, before: &str) -> anyhow::Result<()> {
    let file = remembered(state_dir);
    let known = fs::read_to_string(&file).unwrap_or_default();
    // After a crash the present value may be ours; the first one remembered is the machine's own.
    if known.lines().any(|line| line.split_once(' ').is_some_and(|(held, _)| held == name)) {
        return Ok(());
    }
    fs::create_dir_all(state_dir).with_context(|| format!("create {}", state_dir.display()))?;
    fs::write(&file, format!("{known}{name} {before}\n")).with_context(|| format!("write {}", file.display()))
}

fn remembered(state_dir: &Path) -> PathBuf {
    state_dir.join("settings-before")
}

fn read(name: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(path(name)).with_context(|| format!("read {}", dotted(name)))?;
    Ok(text.trim().to_owned())
}

fn path(name: &str) -> PathBuf {
    Path::new("/proc/sys").join(name)
}

fn dotted(name: &str) -> String {
    name.replace('/', ".")
}
