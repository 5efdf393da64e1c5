//! `forestay reset`: takes out what a stopped node left on its machine.

use std::fs;

use anyhow::{Context, Result};
use tracing::info;

use crate::{
    role::kubelet_options,
    settings::{RuntimeChoice, Settings},
    up,
};

/// Removes containers, network, service rules, and the data directory with all data of the cluster.
///
/// # Errors
/// Where a forestay still runs there, or something cannot be removed; what came before is removed then.
pub async fn reset(settings: &Settings) -> Result<()> {
    let folder = &settings.data_dir;
    if !folder.exists() {
        info!(folder = %folder.display(), "nothing to remove");
        return Ok(());
    }
    let _lock = up::lock(settings)?;
    let directories = settings.directories();
    if settings.runtime == RuntimeChoice::Docker {
        kubelet::clean_up(&kubelet_options(settings)).await.context("remove pods and their network")?;
    }
    proxy::cleanup(&directories.proxy()).await.context("remove service rules")?;
    fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    info!(folder = %folder.display(), "removed");
    Ok(())
}
