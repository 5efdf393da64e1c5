//! `stay create`: new objects from files, and namespaces by name.

use anyhow::{Context as _, bail};
use serde_json::json;

use crate::{
    args::{Changing, DryRun, Filenames, Printing},
    failure::Failures,
    last_applied,
    manifest::{self, Manifest},
    output::{self, Found, Streams},
    resource,
    session::{Session, write_options},
};

/// Create objects from files; or a namespace: `stay create namespace NAME`
#[derive(Debug, clap::Args)]
pub struct Create {
    /// `namespace NAME`, where no file is given
    #[arg(value_name = "KIND NAME", num_args = 0..=2)]
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub changing: Changing,
    #[command(flatten)]
    pub printing: Printing,
    /// Keep the declared state in an annotation, so that apply can be used later
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub save_config: bool,
}

impl Create {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let manifests = match &self.words[..] {
            [] => manifest::read(&self.files, session, self.changing.validate, streams.err)?,
            words => vec![named(words)?],
        };
        let mut failures = Failures::default();
        for manifest in &manifests {
            if let Err(error) = self.create(session, manifest, streams).await {
                failures.tell(streams.err, &error)?;
            }
        }
        failures.into_result()
    }

    async fn create(&self, session: &Session, manifest: &Manifest, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let declared = if self.save_config { last_applied::annotated(&manifest.value) } else { manifest.value.clone() };
        let mut object = manifest.object(&declared)?;
        if self.changing.dry_run != DryRun::Client {
            let options = write_options(self.changing.dry_run, &self.changing.field_manager);
            let created = session.create(manifest.target(), object, options).await;
            object = match &manifest.source {
                source if source.is_empty() => created?,
                source => created.with_context(|| format!("error when creating {source:?}"))?,
            };
        }
        let found = Found { info: manifest.info, object };
        match &self.printing.output {
            Some(format) => output::print_one(streams.out, format, &found, self.printing.show_managed_fields)?,
            None => {
                let name = format!("{}/{}", resource::line_name(manifest.info), found.meta()?.name);
                writeln!(streams.out, "{name} created{}", self.changing.dry_run.suffix())?;
            }
        }
        Ok(())
    }
}

fn named(words: &[String]) -> anyhow::Result<Manifest> {
    let [kind, name] = words else {
        bail!("exactly one NAME is required, got 0: stay create {} NAME", words.join(" "));
    };
    let info = resource::lookup(kind)?;
    if info.resource.kind != "Namespace" {
        bail!("{kind} cannot be made from a name alone: write a manifest and use stay create -f FILE");
    }
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    Ok(Manifest { source: String::new(), info, value, namespace: String::new(), name: name.clone() })
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    #[tokio::test]
    async fn an_object_is_created_once() {
        let stage = Stage::new().await;
        let file = stage.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n");
        stage.check(&format!("create -f {file}"), expect!["configmap/m created\n"]).await;
        stage
            .check(
                &format!("create -f {file}"),
                expect![[r#"
            stderr: Error from server (AlreadyExists): error when creating "map.yaml": configmaps "m" already exists
            exit code 1
        "#]],
            )
            .await;
    }

    #[tokio::test]
    async fn a_client_dry_run_shows_the_object() {
        let stage = Stage::new().await;
        let file = stage.file("map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {k: v}\n");
        stage.check(&format!("create --dry-run=client --save-config -o yaml -f {file}"), expect![[r#"
            apiVersion: v1
            data:
              k: v
            kind: ConfigMap
            metadata:
              annotations:
                kubectl.kubernetes.io/last-applied-configuration: |
                  {"apiVersion":"v1","data":{"k":"v"},"kind":"ConfigMap","metadata":{"annotations":{},"name":"m","namespace":"default"}}
              name: m
              namespace: default
        "#]]).await;
    }

    #[tokio::test]
    async fn a_namespace_is_created_by_name() {
        let stage = Stage::new().await;
        stage.check("create ns team", expect!["namespace/team created\n"]).await;
        stage
            .check(
                "create ns",
                expect![[r#"
            stderr: error: exactly one NAME is required, got 0: stay create ns NAME
            exit code 1
        "#]],
            )
            .await;
    }
}
