//! `forestay up`: every role in one process, started in the order of the arrows and stopped the other way round.

use std::{
    fs::{self, File},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, stream::FuturesUnordered};
use kit::{life::Shutdown, tls::write_private};
use nix::fcntl::{Flock, FlockArg};
use proto::k8s::core::v1::Namespace;
use tracing::{error, info};

use crate::{
    certificates::Holder,
    kubeconfig,
    role::{House, Role, store_failed},
    settings::{ProxyChoice, RuntimeChoice, Settings},
};

/// How long the apiserver may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long the roles may take to leave.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// Makes a machine's folder and certificates, for roles that run one by one.
///
/// # Errors
/// Where the folder cannot be written.
pub fn init(settings: &Settings) -> Result<()> {
    fs::create_dir_all(&settings.data_dir).with_context(|| format!("make {}", settings.data_dir.display()))?;
    let house = House::new(settings.clone());
    let mut nodes = settings.hollow_names();
    nodes.push(settings.node_name());
    house.certificates().issue_all(&settings.server_names(), &nodes)?;
    write_kubeconfig(&house)
}

/// Runs a one-node cluster until `shutdown`.
///
/// # Errors
/// Where a role cannot start, or one ends on its own.
pub async fn up(settings: Settings, shutdown: Shutdown) -> Result<()> {
    fs::create_dir_all(&settings.data_dir).with_context(|| format!("make {}", settings.data_dir.display()))?;
    let _lock = lock(&settings)?;
    let roles = roles(&settings);
    let ports: Vec<_> = roles.iter().filter_map(|role| role.port(&settings)).collect();
    settings.check(&ports)?;

    let mut house = House::new(settings);
    let mut nodes = house.settings.hollow_names();
    nodes.push(house.settings.node_name());
    house.certificates().issue_all(&house.settings.server_names(), &nodes)?;
    let store = house.open_store().await?;
    house.store = Some(store.clone());

    let ended = tokio::select! {
        ended = run_roles(&house, roles, &shutdown) => ended,
        failure = store.stopped() => Err(store_failed(failure)),
    };
    let closed = store.shutdown().await.context("close the store");
    info!("stopped");
    ended.and(closed)
}

/// The roles of this machine; the store is in the house already.
fn roles(settings: &Settings) -> Vec<Role> {
    let mut roles = vec![Role::Apiserver, Role::Controllers, Role::Scheduler];
    if settings.runtime != RuntimeChoice::None {
        roles.push(Role::Kubelet);
    }
    if settings.proxy_mode != ProxyChoice::None {
        roles.push(Role::Proxy);
    }
    roles.extend(settings.hollow_names().into_iter().map(Role::HollowKubelet));
    roles
}

/// The apiserver outlives the others, which still write through it while they leave.
async fn run_roles(house: &House, mut roles: Vec<Role>, shutdown: &Shutdown) -> Result<()> {
    let api_shutdown = Shutdown::new();
    let apiserver = roles.remove(0);
    let mut api = tokio::spawn({
        let (house, shutdown) = (house.clone(), api_shutdown.clone());
        async move { house.run(&apiserver, shutdown).await }
    });
    let ended = tokio::select! {
        ended = &mut api => match ended? {
            Ok(()) => bail!("the apiserver ended on its own"),
            Err(error) => return Err(error),
        },
        ended = run_others(house, roles, shutdown) => ended,
    };
    api_shutdown.trigger();
    match tokio::time::timeout(LEAVE_WITHIN, api).await {
        Ok(left) => ended.and(left?),
        Err(_) => ended.context("the apiserver did not leave in time"),
    }
}

async fn run_others(house: &House, roles: Vec<Role>, shutdown: &Shutdown) -> Result<()> {
    tokio::select! {
        ready = apiserver_ready(house) => ready?,
        () = shutdown.triggered() => return Ok(()),
    }
    write_kubeconfig(house)?;
    info!(server = house.settings.local_server(), kubeconfig = %house.settings.directories().admin_kubeconfig().display(), "the API answers");

    let stop = shutdown.child();
    let mut running: FuturesUnordered<_> = roles
        .into_iter()
        .map(|role| {
            let (house, stop) = (house.clone(), stop.clone());
            async move {
                let run = tokio::spawn({
                    let (role, house, stop) = (role.clone(), house.clone(), stop.clone());
                    async move { house.run(&role, stop).await }
                });
                (role, run.await)
            }
        })
        .collect();
    let mut failure = None;
    while let Some((role, ended)) = running.next().await {
        let ended = ended.context("a role panicked").and_then(|ended| ended);
        match ended {
            Err(error) => {
                error!(role = role.name(), error = format!("{error:#}"), "role failed; stopping");
                failure.get_or_insert(error);
                stop.trigger();
            }
            Ok(()) if !stop.is_triggered() => {
                failure.get_or_insert_with(|| anyhow::anyhow!("{} ended on its own", role.name()));
                stop.trigger();
            }
            Ok(()) => {}
        }
    }
    failure.map_or(Ok(()), Err)
}

/// Waits until the apiserver serves its first namespace.
async fn apiserver_ready(house: &House) -> Result<()> {
    let client = house.client_as(&Holder::Admin)?;
    let asking = async {
        while client.get::<Namespace>("", "default").await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(READY_WITHIN, asking).await.context("the apiserver does not answer")
}

fn write_kubeconfig(house: &House) -> Result<()> {
    let certificates = house.certificates();
    let admin = certificates.identity(&Holder::Admin)?;
    let text = kubeconfig::render(&house.settings.local_server(), &certificates.cluster_ca()?, &admin);
    Ok(write_private(&house.settings.directories().admin_kubeconfig(), &text)?)
}

/// Keeps a second process off the same folder for as long as the file lives.
pub fn lock(settings: &Settings) -> Result<Flock<File>> {
    let path = settings.directories().lock();
    let file =
        File::options().create(true).append(true).open(&path).with_context(|| format!("open {}", path.display()))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| {
        anyhow::anyhow!(
            "{} is in use by another forestay: stop that one, or choose another --data-dir",
            settings.data_dir.display()
        )
    })
}
