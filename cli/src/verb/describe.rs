//! `stay describe`: one object in full, for eyes, with what happened to it.

use anyhow::bail;
use client::Selection;
use model::table::span;
use proto::k8s::{
    coordination::v1::Lease,
    core::v1::{
        ConfigMap, Endpoints, Event, Namespace, Node, Pod, ReplicationController, ResourceQuota, Secret, Service,
    },
    meta::v1::{ObjectMeta, Time},
};

use crate::{
    args::{Filenames, Selecting, Validate},
    failure::Failures,
    manifest,
    output::{Found, Streams, sheet::Sheet},
    resource,
    session::{Session, target},
};

mod any;
mod data;
mod namespace;
mod node;
mod pod;
mod workload;

/// Show objects in full, with their events: `stay describe pod web`
#[derive(Debug, clap::Args)]
pub struct Describe {
    /// TYPE, TYPE NAME-OR-PREFIX..., or TYPE/NAME...
    pub words: Vec<String>,
    #[command(flatten)]
    pub files: Filenames,
    #[command(flatten)]
    pub selecting: Selecting,
    /// Show the events
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub show_events: bool,
}

impl Describe {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let mut failures = Failures::default();
        let found = self.found(session, streams, &mut failures).await?;
        for (at, one) in found.iter().enumerate() {
            if at > 0 {
                writeln!(streams.out, "\n")?;
            }
            let mut sheet = Sheet::default();
            self.describe(session, one, &mut sheet).await?;
            sheet.print(streams.out)?;
        }
        failures.into_result()
    }

    async fn found(
        &self,
        session: &Session,
        streams: &mut Streams<'_>,
        failures: &mut Failures,
    ) -> anyhow::Result<Vec<Found>> {
        let mut found = Vec::new();
        if !self.files.filenames.is_empty() {
            for manifest in manifest::read(&self.files, session, Validate::Ignore, streams.err)? {
                match session.get(manifest.target()).await {
                    Ok(object) => found.push(Found { info: manifest.info, object }),
                    Err(error) => failures.tell(streams, &error)?,
                }
            }
            return Ok(found);
        }
        let query = resource::query(&self.words)?;
        for wanted in query.wanted {
            let info = wanted.info;
            let Some(name) = wanted.name else {
                found.extend(
                    super::get::list(session, info, &self.selecting)
                        .await?
                        .0
                        .into_iter()
                        .map(|object| Found { info, object }),
                );
                continue;
            };
            match session.get(session.target(info, &name)).await {
                Ok(object) => found.push(Found { info, object }),
                Err(error) => {
                    // A name that is none may be the beginning of some.
                    let before = found.len();
                    for object in super::get::list(session, info, &self.selecting).await?.0 {
                        let one = Found { info, object };
                        if one.meta()?.name.starts_with(&name) {
                            found.push(one);
                        }
                    }
                    if found.len() == before {
                        failures.tell(streams, &error)?;
                    }
                }
            }
        }
        if found.is_empty() && failures.is_empty() {
            match self.selecting.all_namespaces {
                true => writeln!(streams.err, "No resources found")?,
                false => writeln!(streams.err, "No resources found in {} namespace.", session.namespace())?,
            }
        }
        Ok(found)
    }

    async fn describe(&self, session: &Session, found: &Found, sheet: &mut Sheet) -> anyhow::Result<()> {
        let kind = (found.info.api_version(), found.info.resource.kind.as_str());
        let object = &found.object;
        match (kind.0.as_str(), kind.1) {
            ("v1", "Pod") => pod::describe(sheet, &object.decode_as::<Pod>()?),
            ("v1", "Node") => {
                let node: Node = object.decode_as()?;
                let name = node.metadata.as_ref().map_or("", |meta| meta.name.as_str());
                let fields = format!("spec.nodeName={name},status.phase!=Succeeded,status.phase!=Failed");
                let (pods, _) = session.client()?.list::<Pod>("", Selection { fields, ..Default::default() }).await?;
                let lease = match session.client()?.get::<Lease>("kube-node-lease", name).await {
                    Ok(lease) => Some(lease),
                    Err(error) if error.is_not_found() => None,
                    Err(error) => return Err(error.into()),
                };
                node::describe(sheet, &node, lease.as_ref(), &pods, now());
            }
            ("v1", "Service") => {
                let service: Service = object.decode_as()?;
                let meta = service.metadata.clone().unwrap_or_default();
                let labels = format!("kubernetes.io/service-name={}", meta.name);
                let selection = Selection { labels, ..Default::default() };
                let (slices, _) = session.client()?.list(&meta.namespace, selection).await?;
                workload::describe_service(sheet, &service, &slices);
            }
            ("v1", "ReplicationController") => {
                let controller: ReplicationController = object.decode_as()?;
                let meta = controller.metadata.clone().unwrap_or_default();
                let selector = controller.spec.clone().unwrap_or_default().selector;
                let labels = model::selector::Labels::exactly(&selector).to_string();
                let (mut pods, _) =
                    session.client()?.list::<Pod>(&meta.namespace, Selection { labels, ..Default::default() }).await?;
                pods.retain(|pod| {
                    pod.metadata.as_ref().is_some_and(|pod| model::meta::is_controlled_by(pod, &meta.uid))
                });
                workload::describe_controller(sheet, &controller, &pods);
            }
            ("v1", "Namespace") => {
                let namespace: Namespace = object.decode_as()?;
                let name = namespace.metadata.clone().unwrap_or_default().name;
                let (quotas, _) = session.client()?.list(&name, Selection::default()).await?;
                let (limits, _) = session.client()?.list(&name, Selection::default()).await?;
                namespace::describe(sheet, &namespace, &quotas, &limits);
                // Nothing happens to a namespace itself.
                return Ok(());
            }
            ("v1", "Endpoints") => workload::describe_endpoints(sheet, &object.decode_as::<Endpoints>()?),
            ("v1", "ConfigMap") => data::describe_config(sheet, &object.decode_as::<ConfigMap>()?),
            ("v1", "Secret") => {
                data::describe_secret(sheet, &object.decode_as::<Secret>()?);
                return Ok(());
            }
            ("v1", "ResourceQuota") => {
                data::describe_quota(sheet, &object.decode_as::<ResourceQuota>()?);
                return Ok(());
            }
            _ => any::describe(sheet, found)?,
        }
        if self.show_events { events(session, found, sheet).await } else { Ok(()) }
    }
}

async fn events(session: &Session, found: &Found, sheet: &mut Sheet) -> anyhow::Result<()> {
    let meta = found.meta()?;
    let kind = &found.info.resource.kind;
    if meta.name.contains([',', '=']) {
        bail!("the name {:?} cannot be asked for", meta.name);
    }
    let mut fields = format!("involvedObject.kind={kind},involvedObject.name={}", meta.name);
    if found.info.resource.namespaced {
        fields += &format!(",involvedObject.namespace={}", meta.namespace);
    }
    let info = resource::lookup("events")?;
    let selection = Selection { fields, ..Default::default() };
    // Events of cluster-scoped objects stand in the namespace `default`.
    let client = session.client()?;
    let list = client.list_objects(target(info, &meta.namespace, ""), selection, proto::forestay::api::v1::View::Full);
    let mut events: Vec<Event> = list.await?.0.iter().map(|object| object.decode_as()).collect::<Result<_, _>>()?;
    // An object that was made anew under the same name has its own story; nodes' events carry names as uids.
    events.retain(|event| {
        let uid = event.involved_object.as_ref().map_or("", |object| object.uid.as_str());
        uid.is_empty() || uid == meta.uid || uid == meta.name
    });
    if events.is_empty() {
        sheet.line(0, ["Events:", "<none>"]);
        return Ok(());
    }
    events.sort_by_key(last_seen);
    sheet.heading(0, "Events");
    sheet.line(1, ["Type", "Reason", "Age", "From", "Message"]);
    sheet.line(1, ["----", "------", "----", "----", "-------"]);
    let now = now();
    for event in events {
        let age = span((now - last_seen(&event)).max(0));
        let first = event.first_timestamp.map(|time| time.seconds).filter(|_| event.count > 1);
        let age = match first {
            Some(first) => format!("{age} (x{} over {})", event.count, span((now - first).max(0))),
            None => age,
        };
        let from = event.source.as_ref().map(|source| source.component.clone()).filter(|from| !from.is_empty());
        let from = from.unwrap_or_else(|| event.reporting_component.clone());
        sheet.line(1, [event.r#type, event.reason, age, from, event.message.trim().replace('\n', " ")]);
    }
    Ok(())
}

fn last_seen(event: &Event) -> i64 {
    let series = event.series.as_ref().and_then(|series| series.last_observed_time.as_ref()).map(|time| time.seconds);
    let times =
        [series, event.last_timestamp.map(|time| time.seconds), event.event_time.as_ref().map(|time| time.seconds)];
    let created = event.metadata.as_ref().and_then(|meta| meta.creation_timestamp).map(|time| time.seconds);
    times.into_iter().chain([created]).flatten().find(|seconds| *seconds > 0).unwrap_or(0)
}

fn now() -> i64 {
    kit::clock::system().now().as_second()
}

/// Name, namespace, labels, annotations.
fn head(sheet: &mut Sheet, meta: &ObjectMeta) {
    sheet.field(0, "Name", &meta.name);
    sheet.field_if(0, "Namespace", &meta.namespace);
}

fn labels(sheet: &mut Sheet, meta: &ObjectMeta) {
    sheet.values(0, "Labels", pairs(&meta.labels, "="));
    let annotations: std::collections::BTreeMap<String, String> = meta
        .annotations
        .iter()
        // What `apply` remembers is no news to its author.
        .filter(|(key, _)| *key != crate::last_applied::ANNOTATION)
        .map(|(key, value)| (key.clone(), value.replace('\n', " ")))
        .collect();
    sheet.values(0, "Annotations", pairs(&annotations, ": "));
}

fn pairs(map: &std::collections::BTreeMap<String, String>, between: &str) -> Vec<String> {
    map.iter().map(|(key, value)| format!("{key}{between}{value}")).collect()
}

fn joined(map: &std::collections::BTreeMap<String, String>) -> String {
    or(&pairs(map, "=").join(","), "<none>").to_owned()
}

fn or<'a>(value: &'a str, absent: &'a str) -> &'a str {
    if value.is_empty() { absent } else { value }
}

/// "Mon, 02 Jan 2006 15:04:05 +0000"
fn moment(time: Option<&Time>) -> String {
    second(time.map_or(0, |time| time.seconds))
}

/// As [`moment`]; 1970's first second is none.
fn second(seconds: i64) -> String {
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) if seconds != 0 => time.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string(),
        _ => "<unset>".to_owned(),
    }
}

#[cfg(test)]
mod tests;
