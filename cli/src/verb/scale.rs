//! `stay scale`: a new number of replicas.

use anyhow::{Context as _, bail};
use proto::forestay::api::v1::{Target, patch_request::Type};
use serde_json::json;

use crate::{
    args::{DryRun, Filenames, Selecting, Validate},
    failure::Failures,
    manifest,
    output::{Found, Streams},
    resource::{self, line_name},
    session::{Session, target, write_options},
};

/// Set how many replicas run: `stay scale rc/web --replicas=5`
#[derive(Debug, clap::Args)]
pub struct Scale {
    /// TYPE NAME... or TYPE/NAME...
    pub words: Vec<String>,
    /// How many are wanted
    #[arg(long, required = true)]
    pub replicas: u32,
    /// Only where this many are wanted now
    #[arg(long)]
    pub current_replicas: Option<u32>,
    /// Only at this resourceVersion
    #[arg(long)]
    pub resource_version: Option<String>,
    /// Only say what would be done
    #[arg(long, value_enum, num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client")]
    pub dry_run: DryRun,
    /// All objects of the type
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub all: bool,
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub selecting: Selecting,
}

impl Scale {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let mut failures = Failures::default();
        for (name, target) in self.targets(session, streams).await? {
            match self.scale(session, target).await {
                Ok(()) => writeln!(streams.out, "{name} scaled{}", self.dry_run.suffix())?,
                Err(error) => failures.tell(streams.err, &error)?,
            }
        }
        failures.into_result()
    }

    async fn targets(&self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<Vec<(String, Target)>> {
        if !self.files.filenames.is_empty() {
            let manifests = manifest::read(&self.files, session, Validate::Ignore, streams.err)?;
            return Ok(manifests.iter().map(|manifest| (manifest.line_name(), manifest.target())).collect());
        }
        let mut targets = Vec::new();
        for wanted in resource::query(&self.words)?.wanted {
            let name = |name: &str| format!("{}/{name}", line_name(wanted.info));
            match &wanted.name {
                Some(one) => targets.push((name(one), session.target(wanted.info, one))),
                None if self.all || self.selecting.selector.is_some() => {
                    for object in super::get::list(session, wanted.info, &self.selecting).await?.0 {
                        let meta = Found { info: wanted.info, object }.meta()?;
                        targets.push((name(&meta.name), target(wanted.info, &meta.namespace, &meta.name)));
                    }
                }
                None => bail!("resource(s) were provided, but no name was specified"),
            }
        }
        Ok(targets)
    }

    async fn scale(&self, session: &Session, target: Target) -> anyhow::Result<()> {
        let scale = Target { subresource: "scale".to_owned(), ..target.clone() };
        if let Some(expected) = self.current_replicas {
            let current = session.get(scale.clone()).await?;
            let found: proto::k8s::autoscaling::v1::Scale = current.decode_as().context("read the scale")?;
            let replicas = found.spec.map_or(0, |spec| spec.replicas);
            if i64::from(replicas) != i64::from(expected) {
                bail!("Expected replicas to be {expected}, was {replicas}");
            }
        }
        if self.dry_run == DryRun::Client {
            session.get(target).await?;
            return Ok(());
        }
        let mut patch = json!({"spec": {"replicas": self.replicas}});
        if let Some(revision) = &self.resource_version {
            patch["metadata"] = json!({"resourceVersion": revision});
        }
        let options = write_options(self.dry_run, "stay");
        session.patch(scale, Type::Merge, patch.to_string().into_bytes(), options).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn a_missing_controller_cannot_be_scaled() {
        let stage = Stage::new().await;
        stage
            .check(
                "scale rc/web --replicas=5",
                expect![[r#"
            stderr: Error from server (NotFound): replicationcontrollers "web" not found
            exit code 1
        "#]],
            )
            .await;
        stage
            .check(
                "scale rc --replicas=5",
                expect![[r#"
            stderr: error: resource(s) were provided, but no name was specified
            exit code 1
        "#]],
            )
            .await;
    }
}
