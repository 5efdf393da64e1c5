//! `stay create`: new objects from files, and namespaces by name.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use crate::{
    args::{Changing, DryRun, Filenames, Printing},
    failure::Failures,
    last_applied,
    manifest::{self, Manifest},
    output::{self, Format, Found, Streams, sorted},
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
            [] => manifest::read_new(&self.files, session, self.changing.validate, streams.err)?,
            words => vec![named(words)?],
        };
        let (mut failures, mut is_first) = (Failures::default(), true);
        for manifest in &manifests {
            match self.create(session, manifest).await {
                Ok(created) => self.print(&created, std::mem::take(&mut is_first), streams)?,
                Err(error) => failures.tell(streams, &error)?,
            }
        }
        failures.into_result()
    }

    async fn create(&self, session: &Session, manifest: &Manifest) -> anyhow::Result<Created> {
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
        Ok(Created { found: Found { info: manifest.info, object }, declared })
    }

    fn print(&self, created: &Created, is_first: bool, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let Created { found, declared } = created;
        let Some(format) = &self.printing.output else {
            let meta = found.meta()?;
            let name = if meta.name.is_empty() { meta.generate_name + "<random>" } else { meta.name };
            let kind = resource::line_name(found.info);
            writeln!(streams.out, "{kind}/{name} created{}", self.changing.dry_run.suffix())?;
            return Ok(());
        };
        output::separate(streams.out, format, is_first)?;
        match (format, self.changing.dry_run) {
            // What nobody has checked is shown as it was written.
            (Format::Yaml | Format::Json | Format::JsonPath(_), DryRun::Client) => {
                output::print_value(streams.out, format, &sorted(declared.clone()))
            }
            _ => output::print_one(streams.out, format, found, self.printing.show_managed_fields),
        }
    }
}

/// An object that was made, and the text that declared it.
struct Created {
    found: Found,
    declared: Value,
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

    /// Two documents without a line between them would be one, with the fields of both.
    #[tokio::test]
    async fn several_objects_are_printed_as_documents_of_their_own_and_as_written() {
        let stage = Stage::new().await;
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {generateName: b-}\n";
        let file = stage.file("both.yaml", text);
        stage
            .check(
                &format!("create --dry-run=client -o yaml -f {file}"),
                expect![[r#"
                    apiVersion: v1
                    kind: Service
                    metadata:
                      name: a
                      namespace: default
                    spec:
                      ports:
                      - port: 80
                    ---
                    apiVersion: v1
                    kind: ConfigMap
                    metadata:
                      generateName: b-
                      namespace: default
                "#]],
            )
            .await;
        stage
            .check(
                &format!("create --dry-run=client -f {file}"),
                expect![[r#"
                    service/a created (dry run)
                    configmap/b-<random> created (dry run)
                "#]],
            )
            .await;
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
