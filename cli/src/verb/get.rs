//! `stay get`: objects as tables, YAML, JSON or names; once, or as they change.

use anyhow::bail;
use client::Selection;
use futures::StreamExt as _;
use proto::{
    Object,
    codec::ResourceInfo,
    forestay::api::v1::{self as api, WatchRequest, WatchSet, watch_event::Type},
};

use crate::{
    args::{Filenames, Printing, Selecting, Validate},
    failure::Failures,
    manifest,
    output::{self, Format, Found, Streams, columns::Columns},
    resource::{self, Query},
    session::{Session, is_not_found, target},
};

mod rows;

use rows::Rows;

/// Show objects: `stay get pods`, `stay get rc/web svc/web`, `stay get all -A`
#[derive(Debug, clap::Args)]
pub struct Get {
    /// TYPE, TYPE NAME..., or TYPE/NAME...; several types with commas
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub selecting: Selecting,
    #[command(flatten)]
    pub printing: Printing,
    /// After the present state, show every change
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub watch: bool,
    /// Show only changes
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub watch_only: bool,
    /// Say of each watched object whether it was added, modified or deleted
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub output_watch_events: bool,
    /// Show rows only
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub no_headers: bool,
    /// Show all labels in a last column
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub show_labels: bool,
    /// Show these labels in columns of their own
    #[arg(short = 'L', long, value_delimiter = ',', value_name = "LABELS")]
    pub label_columns: Vec<String>,
    /// Say of which type each object is
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub show_kind: bool,
    /// Sort by a field: .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    pub sort_by: Option<String>,
    /// A missing object is no failure
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub ignore_not_found: bool,
}

/// What is asked of one resource.
struct Request {
    info: &'static ResourceInfo,
    namespace: String,
    name: Option<String>,
}

impl Get {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<u8> {
        let (requests, is_mixed) = self.requests(session, streams)?;
        if self.watch || self.watch_only {
            self.watch(session, &requests, streams).await?;
            return Ok(0);
        }
        let (mut found, mut refused): (Vec<Found>, Vec<anyhow::Error>) = Default::default();
        for request in &requests {
            match self.fetch(session, request).await {
                Ok((objects, _)) => {
                    found.extend(objects.into_iter().map(|object| Found { info: request.info, object }))
                }
                Err(error) if is_not_found(&error) && self.ignore_not_found && request.name.is_some() => {}
                Err(error) => refused.push(error),
            }
        }
        if let Some(path) = &self.sort_by {
            rows::sort(&mut found, path)?;
        }
        self.print(&requests, is_mixed, &found, streams, refused.is_empty())?;
        let mut failures = Failures::default();
        refused.iter().try_for_each(|error| failures.tell(streams, error))?;
        failures.into_result().map(|()| 0)
    }

    fn requests(&self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<(Vec<Request>, bool)> {
        if !self.files.filenames.is_empty() {
            let manifests = manifest::read(&self.files, session, Validate::Ignore, streams.err)?;
            let is_mixed = manifests.iter().any(|manifest| manifest.info.message != manifests[0].info.message);
            let request = |manifest: manifest::Manifest| Request {
                info: manifest.info,
                namespace: manifest.namespace,
                name: Some(manifest.name),
            };
            return Ok((manifests.into_iter().map(request).collect(), is_mixed));
        }
        let Query { wanted, is_mixed } = resource::query(&self.words)?;
        let has_names = wanted.iter().any(|one| one.name.is_some());
        if has_names && self.selecting.all_namespaces {
            bail!("a resource cannot be retrieved by name across all namespaces");
        }
        if has_names && (self.selecting.selector.is_some() || self.selecting.field_selector.is_some()) {
            bail!("name cannot be provided when a selector is specified");
        }
        let namespace = if self.selecting.all_namespaces { String::new() } else { session.namespace() };
        let request = |one: resource::Wanted| Request { info: one.info, namespace: namespace.clone(), name: one.name };
        Ok((wanted.into_iter().map(request).collect(), is_mixed))
    }

    /// The objects, and the revision they stand at where it is known.
    async fn fetch(&self, session: &Session, request: &Request) -> anyhow::Result<(Vec<Object>, u64)> {
        match &request.name {
            Some(name) => Ok((vec![session.get(target(request.info, &request.namespace, name)).await?], 0)),
            None => list(session, request.info, &self.selecting).await,
        }
    }

    fn print(
        &self,
        requests: &[Request],
        is_mixed: bool,
        found: &[Found],
        streams: &mut Streams<'_>,
        is_whole: bool,
    ) -> anyhow::Result<()> {
        if let Some(format @ (Format::Yaml | Format::Json | Format::Name | Format::JsonPath(_))) = &self.printing.output
        {
            return match (requests, found) {
                ([Request { name: Some(_), .. }], [one]) => {
                    output::print_one(streams.out, format, one, self.printing.show_managed_fields)
                }
                ([Request { name: Some(_), .. }], []) => Ok(()),
                (_, found) => output::print_list(streams.out, format, found, self.printing.show_managed_fields),
            };
        }
        if found.is_empty() {
            if is_whole && !self.ignore_not_found {
                match requests {
                    [one, ..] if one.info.resource.namespaced && !one.namespace.is_empty() => {
                        writeln!(streams.err, "No resources found in {} namespace.", one.namespace)?;
                    }
                    _ => writeln!(streams.err, "No resources found")?,
                }
            }
            return Ok(());
        }
        let rows = self.rows(is_mixed);
        for (at, group) in found.chunk_by(|a, b| a.info.message == b.info.message).enumerate() {
            if at > 0 {
                writeln!(streams.out)?;
            }
            let mut lines = Vec::new();
            if !self.no_headers {
                lines.push(rows.header(group[0].info));
            }
            for one in group {
                lines.push(rows.row(one)?);
            }
            Columns::default().print(streams.out, &lines)?;
        }
        Ok(())
    }

    fn rows(&self, is_mixed: bool) -> Rows {
        Rows {
            now: kit::clock::system().now().as_second(),
            is_wide: self.printing.output == Some(Format::Wide),
            with_namespace: self.selecting.all_namespaces,
            with_kind: is_mixed || self.show_kind,
            with_labels: self.show_labels,
            label_columns: self.label_columns.clone(),
        }
    }

    async fn watch(&self, session: &Session, requests: &[Request], streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let [request] = requests else {
            bail!("you may only specify a single resource type, and one name of it at most, to watch");
        };
        let info = request.info;
        let mut columns = Columns::default();
        let mut is_headed = self.no_headers;
        let (objects, mut revision) = match &request.name {
            // A missing object is told at once; its revision is where the watch goes on.
            Some(name) => {
                let object = session.get(target(info, &request.namespace, name)).await?;
                let revision = model::meta::revision(&Found { info, object: object.clone() }.meta()?);
                (vec![object], revision)
            }
            None => list(session, info, &self.selecting).await?,
        };
        if !self.watch_only {
            for object in objects {
                self.print_change(Type::Added, Found { info, object }, &mut columns, &mut is_headed, streams)?;
            }
        }
        loop {
            let set = WatchSet {
                target: Some(target(info, &request.namespace, request.name.as_deref().unwrap_or_default())),
                selection: Some(selection(&self.selecting)),
                from_revision: revision,
                view: api::View::Full.into(),
            };
            let mut stream = session.client()?.watch(WatchRequest { sets: vec![set] }).await?;
            while let Some(message) = stream.next().await {
                let message = match message {
                    Ok(message) => message,
                    // The server went away: go on where we were, on this one or another.
                    Err(error) if error.is_passing() => break,
                    Err(error) => return Err(error.into()),
                };
                for event in message.events {
                    let (kind, object) = (event.r#type(), event.object.unwrap_or_default());
                    self.print_change(kind, Found { info, object }, &mut columns, &mut is_headed, streams)?;
                }
                revision = revision.max(message.revision);
            }
        }
    }

    fn print_change(
        &self,
        kind: Type,
        found: Found,
        columns: &mut Columns,
        is_headed: &mut bool,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<()> {
        let event = match kind {
            Type::Deleted => "DELETED",
            Type::Modified => "MODIFIED",
            _ => "ADDED",
        };
        match &self.printing.output {
            Some(format @ (Format::Yaml | Format::Json | Format::Name | Format::JsonPath(_))) => {
                output::separate(streams.out, format, !std::mem::replace(is_headed, true))?;
                output::print_one(streams.out, format, &found, self.printing.show_managed_fields)?;
            }
            _ => {
                let rows = self.rows(false);
                let (mut header, mut row) = (rows.header(found.info), rows.row(&found)?);
                if self.output_watch_events {
                    // As wide as the longest from the start: a watch's rows come one by one.
                    let width = "MODIFIED".len();
                    header.insert(0, format!("{:width$}", "EVENT"));
                    row.insert(0, format!("{event:width$}"));
                }
                let lines = if std::mem::replace(is_headed, true) { vec![row] } else { vec![header, row] };
                columns.print(streams.out, &lines)?;
            }
        }
        Ok(streams.out.flush()?)
    }
}

/// All objects of a resource in the session's namespace, or in all.
pub async fn list(session: &Session, info: &ResourceInfo, selecting: &Selecting) -> anyhow::Result<(Vec<Object>, u64)> {
    let namespace = if selecting.all_namespaces { String::new() } else { session.namespace() };
    Ok(session.client()?.list_objects(target(info, &namespace, ""), selection(selecting), api::View::Full).await?)
}

fn selection(selecting: &Selecting) -> Selection {
    Selection {
        labels: selecting.selector.clone().unwrap_or_default(),
        fields: selecting.field_selector.clone().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests;
