//! `stay scale`: a new number of replicas.

use anyhow::{Context as _, bail};
use client::Target;
use proto::{codec::ResourceInfo, forestay::api::v1::patch_request::Type};
use serde_json::json;

use crate::{
    args::{DryRun, Filenames, Printing, Selecting, Validate},
    failure::Failures,
    manifest,
    output::{self, Found, Streams},
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
    #[command(flatten)]
    pub printing: Printing,
}

type Scaled = (&'static ResourceInfo, Target);

impl Scale {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let (mut failures, mut is_first) = (Failures::default(), true);
        for (info, target) in self.targets(session, streams).await? {
            match self.scale(session, &target).await {
                Ok(()) => self.print(session, info, target, std::mem::take(&mut is_first), streams).await?,
                Err(error) => failures.tell(streams, &error)?,
            }
        }
        failures.into_result()
    }

    async fn print(
        &self,
        session: &Session,
        info: &'static ResourceInfo,
        target: Target,
        is_first: bool,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<()> {
        let Some(format) = &self.printing.output else {
            writeln!(streams.out, "{}/{} scaled{}", line_name(info), target.name, self.dry_run.suffix())?;
            return Ok(());
        };
        let object = session.get(target).await?;
        output::separate(streams.out, format, is_first)?;
        output::print_one(streams.out, format, &Found { info, object }, self.printing.show_managed_fields)
    }

    async fn targets(&self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<Vec<Scaled>> {
        if !self.files.filenames.is_empty() {
            let manifests = manifest::read(&self.files, session, Validate::Ignore, streams.err)?;
            return Ok(manifests.iter().map(|manifest| (manifest.info, manifest.target())).collect());
        }
        let mut targets = Vec::new();
        for wanted in resource::query(&self.words)?.wanted {
            match &wanted.name {
                Some(one) => targets.push((wanted.info, session.target(wanted.info, one))),
                None if self.all || self.selecting.selector.is_some() => {
                    for object in super::get::list(session, wanted.info, &self.selecting).await?.0 {
                        let meta = Found { info: wanted.info, object }.meta()?;
                        targets.push((wanted.info, target(wanted.info, &meta.namespace, &meta.name)));
                    }
                }
                None => bail!("resource(s) were provided, but no name was specified"),
            }
        }
        Ok(targets)
    }

    async fn scale(&self, session: &Session, target: &Target) -> anyhow::Result<()> {
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
            session.get(target.clone()).await?;
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
    async fn what_was_scaled_is_shown_in_the_format_that_is_asked_for() {
        let stage = Stage::new().await;
        stage.given("apiVersion: v1\nkind: ReplicationController\nmetadata: {name: web}\nspec: {replicas: 1}\n").await;
        stage
            .check(
                "scale rc/web --replicas=2 --dry-run=client",
                expect!["replicationcontroller/web scaled (dry run)\n"],
            )
            .await;
        stage.check("scale rc/web --replicas=2 --dry-run=client -o name", expect!["replicationcontroller/web\n"]).await;
    }

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
