//! `stay apply`: makes objects what files declare, and leaves alone what others have set.

use anyhow::Context as _;
use model::patch;
use proto::{
    Object,
    codec::{ResourceInfo, value_to_proto},
    envelope,
    forestay::api::v1::{WriteOptions, patch_request::Type},
};
use serde_json::{Value, json};

use crate::{
    args::{Changing, DryRun, Filenames, Printing},
    failure::Failures,
    last_applied,
    manifest::{self, Manifest},
    output::{self, Format, Found, Streams},
    session::{Session, is_not_found, write_options},
};

/// How often a write is tried again after somebody else's came between.
const CONFLICTS_MAX: usize = 5;

/// Make objects what files declare: create what is missing, change what differs
#[derive(Debug, clap::Args)]
pub struct Apply {
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub changing: Changing,
    #[command(flatten)]
    pub printing: Printing,
}

/// What became of one object.
struct Applied {
    object: Object,
    /// What is shown in the object's place: the text of what was not sent.
    declared: Option<Value>,
    done: &'static str,
}

impl Apply {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let manifests = manifest::read(&self.files, session, self.changing.validate, streams.err)?;
        let (mut failures, mut printed) = (Failures::default(), Vec::new());
        for manifest in &manifests {
            match self.apply(session, manifest, streams).await {
                Ok(applied) if self.printing.output.is_some() => printed.push((manifest.info, applied)),
                Ok(applied) => {
                    let suffix = self.changing.dry_run.suffix();
                    writeln!(streams.out, "{} {}{suffix}", manifest.line_name(), applied.done)?;
                    streams.out.flush()?;
                }
                Err(error) => failures.tell(streams, &error)?,
            }
        }
        if let Some(format) = &self.printing.output {
            self.print(format, printed, streams)?;
        }
        failures.into_result()
    }

    fn print(
        &self,
        format: &Format,
        printed: Vec<(&'static ResourceInfo, Applied)>,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<()> {
        let mut values = Vec::new();
        for (info, applied) in printed {
            let found = Found { info, object: applied.object };
            match (format, applied.declared) {
                (Format::Name | Format::Wide, _) => output::print_one(streams.out, format, &found, false)?,
                (_, Some(declared)) => values.push(output::sorted(declared)),
                (_, None) => values.push(found.shown_value(self.printing.show_managed_fields)?),
            }
        }
        match values.len() {
            0 => Ok(()),
            1 => output::print_value(streams.out, format, &values.remove(0)),
            _ => output::print_value(streams.out, format, &output::list(values)),
        }
    }

    async fn apply(
        &self,
        session: &Session,
        manifest: &Manifest,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<Applied> {
        let modified = last_applied::annotated(&manifest.value);
        let (source, name) = (&manifest.source, manifest.line_name());
        let mut conflicts = 0;
        loop {
            let current = match session.get(manifest.target()).await {
                Ok(current) => current,
                Err(error) if is_not_found(&error) => {
                    let created = self.create(session, manifest, &modified).await;
                    return created.with_context(|| format!("error when creating {source:?}"));
                }
                Err(error) => {
                    return Err(
                        error.context(format!("error when retrieving current configuration of {name} from {source:?}"))
                    );
                }
            };
            match self.change(session, manifest, &modified, current, streams).await {
                Err(error) if is_conflict(&error) && conflicts < CONFLICTS_MAX => conflicts += 1,
                changed => {
                    return changed.with_context(|| format!("error when applying patch to {name} from {source:?}"));
                }
            }
        }
    }

    async fn create(&self, session: &Session, manifest: &Manifest, modified: &Value) -> anyhow::Result<Applied> {
        let object = manifest.object(modified)?;
        let (object, declared) = match self.changing.dry_run {
            DryRun::Client => (object, Some(modified.clone())),
            _ => (session.create(manifest.target(), object, self.options()).await?, None),
        };
        Ok(Applied { object, declared, done: "created" })
    }

    async fn change(
        &self,
        session: &Session,
        manifest: &Manifest,
        modified: &Value,
        current: Object,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<Applied> {
        let value = Found { info: manifest.info, object: current.clone() }.value()?;
        let original = last_applied::of(&value);
        if original.is_none() && self.changing.dry_run == DryRun::None {
            writeln!(
                streams.err,
                "Warning: resource {}/{} is missing the {} annotation which is required by stay apply. stay apply should only be \
                 used on resources created declaratively by either stay create --save-config or stay apply. The missing \
                 annotation will be patched automatically.",
                manifest.info.resource.plural,
                manifest.name,
                last_applied::ANNOTATION
            )?;
        }
        let message = manifest.info.message;
        let patch = patch::three_way(Some(message), original.as_ref(), modified, &value)?;
        // Where the patch says the same in other words (0.5 and 500m), there is nothing to send.
        let patched = patch::strategic(message, &value, patch.to_string().as_bytes())?;
        if patch == json!({}) || value_to_proto(message, &patched)?.bytes == current.raw {
            return Ok(Applied { object: current, declared: None, done: "unchanged" });
        }
        if self.changing.dry_run == DryRun::Client {
            return Ok(Applied { object: manifest.object(&patched)?, declared: None, done: "configured" });
        }
        let body = patch.to_string().into_bytes();
        let object = session.patch(manifest.target(), Type::Strategic, body, self.options()).await?;
        let revision = |object: &Object| envelope::metadata(&object.raw).map(|meta| meta.resource_version);
        let is_same = self.changing.dry_run == DryRun::None && revision(&object)? == revision(&current)?;
        Ok(Applied { object, declared: None, done: if is_same { "unchanged" } else { "configured" } })
    }

    fn options(&self) -> WriteOptions {
        write_options(self.changing.dry_run, &self.changing.field_manager)
    }
}

fn is_conflict(error: &anyhow::Error) -> bool {
    error.downcast_ref::<client::Error>().is_some_and(client::Error::is_conflict)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use crate::verb::stage::Stage;

    const WEB: &str = "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\nspec:\n  selector: {app: web}\n  ports:\n  - port: 80\n---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: web\ndata: {a: '1', b: '2'}\n";

    #[tokio::test]
    async fn what_is_missing_is_created_and_a_second_apply_changes_nothing() {
        let stage = Stage::new().await;
        let file = stage.file("web.yaml", WEB);
        stage
            .check(
                &format!("apply -f {file}"),
                expect![[r#"
            service/web created
            configmap/web created
        "#]],
            )
            .await;
        stage
            .check(
                &format!("apply -f {file}"),
                expect![[r#"
            service/web unchanged
            configmap/web unchanged
        "#]],
            )
            .await;
    }

    #[tokio::test]
    async fn a_changed_file_is_configured_and_what_it_dropped_is_gone() {
        let stage = Stage::new().await;
        stage.run(&format!("apply -f {}", stage.file("web.yaml", WEB))).await;
        let changed = WEB.replace("{a: '1', b: '2'}", "{a: '3'}");
        stage
            .check(
                &format!("apply -f {}", stage.file("web.yaml", &changed)),
                expect![[r#"
            service/web unchanged
            configmap/web configured
        "#]],
            )
            .await;
        let map: proto::k8s::core::v1::ConfigMap = stage.fake.get("default", "web").unwrap();
        assert_eq!(map.data.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "3".to_owned())]);
    }

    #[tokio::test]
    async fn nothing_is_written_where_a_file_has_an_error() {
        let stage = Stage::new().await;
        let file = stage
            .file("web.yaml", &format!("{WEB}---\napiVersion: v1\nkind: Pod\nmetadata: {{name: a}}\nspecs: {{}}\n"));
        stage
            .check(
                &format!("apply -f {file}"),
                expect![[r#"
            stderr: error: web.yaml:19:1: unknown field "specs": did you mean "spec"?
            exit code 1
        "#]],
            )
            .await;
        assert!(stage.fake.get::<proto::k8s::core::v1::Service>("default", "web").is_none());
    }

    #[tokio::test]
    async fn what_a_dry_run_would_create_is_shown_as_declared() {
        let stage = Stage::new().await;
        let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {ports: [{port: 80}]}\n";
        let shown = stage.run(&format!("apply --dry-run=client -o yaml -f {}", stage.file("a.yaml", text))).await;
        assert!(shown.ends_with("  name: a\n  namespace: default\nspec:\n  ports:\n  - port: 80\n"), "{shown}");
    }

    #[tokio::test]
    async fn a_dry_run_writes_nothing() {
        let stage = Stage::new().await;
        let file = stage.file("web.yaml", WEB);
        stage
            .check(
                &format!("apply --dry-run=client -f {file}"),
                expect![[r#"
            service/web created (dry run)
            configmap/web created (dry run)
        "#]],
            )
            .await;
        assert!(stage.fake.get::<proto::k8s::core::v1::Service>("default", "web").is_none());
    }
}
