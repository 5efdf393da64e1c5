//! `stay delete`: by name, label or file; waits until the objects are gone.

use std::time::Duration;

use anyhow::{anyhow, bail};
use client::Target;
use futures::StreamExt as _;
use proto::{
    codec::ResourceInfo,
    envelope,
    forestay::api::v1::{self as api, WatchRequest, WatchSet, watch_event::Type},
    k8s::meta::v1::DeleteOptions,
};

use super::logs::seconds;
use crate::{
    args::{DryRun, Filenames, Selecting, Validate},
    failure::Failures,
    manifest,
    output::{Found, Streams},
    resource::{self, line_name},
    session::{Session, is_not_found, target},
};

/// Delete objects: `stay delete pod web`, `stay delete -f web.yaml`, `stay delete pods -l app=web`
#[derive(Debug, clap::Args)]
pub struct Delete {
    /// TYPE NAME..., TYPE/NAME..., or TYPE with -l or --all
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub selecting: Selecting,
    /// Say only the names
    #[arg(short, long, value_name = "FORMAT", value_parser = ["name"])]
    pub output: Option<String>,
    /// All objects of the type in the namespace
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub all: bool,
    /// Return only when the objects are gone
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub wait: bool,
    /// How long to wait: 30s, 5m; 0s for as long as it takes
    #[arg(long, value_name = "SPAN", default_value = "0s", value_parser = seconds)]
    pub timeout: i64,
    /// Seconds that pods get to stop; -1 for what each pod asks for; 0 only with --force, else 1
    #[arg(long, default_value_t = -1, allow_negative_numbers = true)]
    pub grace_period: i64,
    /// With a grace period of 1 second
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub now: bool,
    /// At once, without waiting for the node
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub force: bool,
    /// What becomes of the objects these own: background, foreground or orphan
    #[arg(long, default_value = "background", num_args = 0..=1, require_equals = true, default_missing_value = "background")]
    pub cascade: String,
    /// A missing object is no failure
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub ignore_not_found: bool,
    /// Only say what would be done
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    pub dry_run: DryRun,
}

struct Doomed {
    info: &'static ResourceInfo,
    target: Target,
}

impl Delete {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let options = self.options()?;
        if self.force {
            writeln!(
                streams.err,
                "Warning: Immediate deletion does not wait for confirmation that the running resource has been terminated. \
                 The resource may continue to run on the cluster indefinitely."
            )?;
        }
        let doomed = self.doomed(session, streams).await?;
        let (mut failures, mut leaving) = (Failures::default(), Vec::new());
        for one in doomed {
            match self.delete(session, &one, &options).await {
                Ok(uid) => {
                    self.print(&one, streams)?;
                    leaving.extend(uid.map(|uid| (one, uid)));
                }
                Err(error) if is_not_found(&error) && self.ignores_missing() => {}
                Err(error) => failures.tell(streams, &error)?,
            }
        }
        if self.wait {
            let gone = async {
                for (one, uid) in &leaving {
                    wait_until_gone(session, one, uid).await?;
                }
                anyhow::Ok(())
            };
            match self.timeout {
                0 => gone.await?,
                seconds => {
                    tokio::time::timeout(Duration::from_secs(seconds.unsigned_abs()), gone).await.map_err(|_| {
                        anyhow!("timed out waiting for the condition: the objects are still there after {seconds}s")
                    })??
                }
            }
        }
        failures.into_result()
    }

    fn ignores_missing(&self) -> bool {
        self.ignore_not_found || self.all || self.selecting.selector.is_some()
    }

    fn options(&self) -> anyhow::Result<DeleteOptions> {
        let propagation = match self.cascade.as_str() {
            "background" | "true" => "Background",
            "foreground" => "Foreground",
            "orphan" | "false" => "Orphan",
            other => bail!("invalid cascade value ({other}). Must be \"background\", \"foreground\", or \"orphan\""),
        };
        let grace = match (self.grace_period, self.now, self.force) {
            // Only --force leaves a pod no time at all.
            (0, false, false) => Some(1),
            (_, true, true) => bail!("--force and --now cannot be specified together"),
            (seconds, true, _) if seconds >= 0 => bail!("--now and --grace-period cannot be specified together"),
            (_, true, _) => Some(1),
            (..0, _, true) => Some(0),
            (..0, _, false) => None,
            (seconds, ..) => Some(seconds),
        };
        let dry_run = if self.dry_run == DryRun::Server { vec!["All".to_owned()] } else { Vec::new() };
        Ok(DeleteOptions {
            grace_period_seconds: grace,
            propagation_policy: Some(propagation.to_owned()),
            dry_run,
            ..Default::default()
        })
    }

    async fn doomed(&self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<Vec<Doomed>> {
        if !self.files.filenames.is_empty() {
            let manifests = manifest::read(&self.files, session, Validate::Ignore, streams.err)?;
            return Ok(manifests
                .iter()
                .map(|manifest| Doomed { info: manifest.info, target: manifest.target() })
                .collect());
        }
        let query = resource::query(&self.words)?;
        let selects = self.all || self.selecting.selector.is_some() || self.selecting.field_selector.is_some();
        let mut doomed = Vec::new();
        for wanted in query.wanted {
            let info = wanted.info;
            match wanted.name {
                Some(_) if selects => bail!("name cannot be provided when a selector is specified"),
                Some(name) => doomed.push(Doomed { info, target: session.target(info, &name) }),
                None if selects => {
                    for object in super::get::list(session, info, &self.selecting).await?.0 {
                        let meta = envelope::metadata(&object.raw)?;
                        doomed.push(Doomed { info, target: target(info, &meta.namespace, &meta.name) });
                    }
                }
                None => bail!("resource(s) were provided, but no name was specified"),
            }
        }
        if doomed.is_empty() {
            writeln!(streams.err, "No resources found")?;
        }
        Ok(doomed)
    }

    /// Gives the uid of what is still there.
    async fn delete(&self, session: &Session, one: &Doomed, options: &DeleteOptions) -> anyhow::Result<Option<String>> {
        if self.dry_run == DryRun::Client {
            session.get(one.target.clone()).await?;
            return Ok(None);
        }
        let answer = session.delete(one.target.clone(), options.clone()).await?;
        if answer.gone || self.dry_run == DryRun::Server {
            return Ok(None);
        }
        let object = answer.object.unwrap_or_default();
        Ok(Some(Found { info: one.info, object }.meta()?.uid))
    }

    fn print(&self, one: &Doomed, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let (kind, name) = (line_name(one.info), &one.target.name);
        match &self.output {
            Some(_) => writeln!(streams.out, "{kind}/{name}")?,
            _ => {
                let done = if self.force { "force deleted" } else { "deleted" };
                writeln!(streams.out, "{kind} {name:?} {done}{}", self.dry_run.suffix())?;
            }
        }
        Ok(streams.out.flush()?)
    }
}

/// Follows the object until it, or the object of this uid, is there no more.
async fn wait_until_gone(session: &Session, one: &Doomed, uid: &str) -> anyhow::Result<()> {
    loop {
        let set = WatchSet {
            target: Some(one.target.clone()),
            selection: None,
            from_revision: 0,
            view: api::View::Metadata.into(),
        };
        let mut stream = session.client()?.watch(WatchRequest { sets: vec![set] }).await?;
        let mut is_there = false;
        while let Some(message) = stream.next().await {
            let message = match message {
                Ok(message) => message,
                Err(error) if error.is_passing() => break,
                Err(error) => return Err(error.into()),
            };
            for event in &message.events {
                let found = event.object.as_ref().and_then(|object| object.metadata.as_ref());
                is_there = event.r#type() != Type::Deleted && found.is_none_or(|meta| meta.uid == uid);
                if !is_there {
                    return Ok(());
                }
            }
            if message.synced && !is_there {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn objects_are_deleted_by_name_and_by_file() {
        let stage = Stage::new().await;
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, labels: {app: x}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: b}\n";
        let file = stage.file("maps.yaml", text);
        stage.run(&format!("create -f {file}")).await;
        stage.check("delete cm -l app=x", expect!["configmap \"a\" deleted\n"]).await;
        stage
            .check(
                &format!("delete -f {file}"),
                expect![[r#"
            configmap "b" deleted
            stderr: Error from server (NotFound): configmaps "a" not found
            exit code 1
        "#]],
            )
            .await;
        stage.check(&format!("delete -f {file} --ignore-not-found"), expect![""]).await;
    }

    #[tokio::test]
    async fn only_a_name_is_printed_in_another_format() {
        let stage = Stage::new().await;
        stage.given("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n").await;
        let told = stage.run("delete cm a -o yaml").await;
        assert!(told.contains("invalid value 'yaml' for '--output <FORMAT>'"), "{told}");
        stage.check("delete cm a -o name", expect!["configmap/a\n"]).await;
    }

    #[tokio::test]
    async fn what_is_meant_must_be_said() {
        let stage = Stage::new().await;
        stage
            .check(
                "delete pods",
                expect![[r#"
            stderr: error: resource(s) were provided, but no name was specified
            exit code 1
        "#]],
            )
            .await;
        stage
            .check(
                "delete pod a --cascade=maybe",
                expect![[r#"
            stderr: error: invalid cascade value (maybe). Must be "background", "foreground", or "orphan"
            exit code 1
        "#]],
            )
            .await;
    }

    #[tokio::test]
    async fn a_pod_that_takes_its_time_is_waited_for() {
        let stage = Stage::new().await;
        let text = "apiVersion: v1\nkind: Pod\nmetadata: {name: slow}\nspec: {nodeName: n1, containers: [{name: a, image: i}]}\n";
        stage.given(text).await;
        let its_node = async {
            let is_leaving = |pod: proto::k8s::core::v1::Pod| model::pod::is_deleting(&pod);
            stage
                .fake
                .until("the pod is being deleted", |fake| fake.get("default", "slow").is_some_and(is_leaving))
                .await;
            stage.fake.remove::<proto::k8s::core::v1::Pod>("default", "slow");
        };
        let (told, ()) = tokio::join!(stage.run("delete pod slow"), its_node);
        assert_eq!(told, "pod \"slow\" deleted\n");
    }
}
