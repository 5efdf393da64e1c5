//! `stay logs`: what containers print.

use anyhow::{anyhow, bail};
use client::Error;
use model::pod;
use proto::{
    forestay::node::v1::{Container as Address, LogsRequest},
    k8s::{
        core::v1::{Pod, ReplicationController, Service},
        meta::v1::{LabelSelector, Time},
    },
};

use crate::{
    output::{Found, Streams},
    resource,
    session::Session,
};

/// Show what containers print: `stay logs web`, `stay logs -f rc/web -c app`
#[derive(Debug, clap::Args)]
pub struct Logs {
    /// POD, or TYPE/NAME of what has pods
    #[arg(value_name = "POD | TYPE/NAME")]
    pub target: Option<String>,
    /// The container, as -c
    #[arg(value_name = "CONTAINER")]
    pub container_word: Option<String>,
    /// Of this container
    #[arg(short, long)]
    pub container: Option<String>,
    /// Of all containers
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub all_containers: bool,
    /// Go on as more is printed
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub follow: bool,
    /// Of the container's life before its last restart
    #[arg(short, long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub previous: bool,
    /// Put the time before each line
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub timestamps: bool,
    /// Only the last lines; -1 for all (10 with a selector)
    #[arg(long, value_name = "LINES", allow_negative_numbers = true, value_parser = clap::value_parser!(i64).range(-1..))]
    pub tail: Option<i64>,
    /// Only what is newer: 5s, 2m, 3h
    #[arg(long, value_name = "SPAN", value_parser = seconds)]
    pub since: Option<i64>,
    /// Only what is newer than this time (RFC 3339)
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub since_time: Option<Time>,
    /// At most this many bytes
    #[arg(long, value_name = "BYTES")]
    pub limit_bytes: Option<i64>,
    /// Put the pod's and the container's name before each line
    #[arg(long, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub prefix: bool,
    /// Of the pods with these labels: key1=value1,key2!=value2,key3 in (a,b)
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub selector: Option<String>,
}

impl Logs {
    pub async fn run(self, session: &Session, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let pods = match (&self.target, &self.selector) {
            (Some(_), Some(_)) => bail!("only a selector (-l) or a POD name is allowed"),
            (Some(target), None) => vec![self.pod(session, target, streams).await?],
            (None, Some(labels)) => pods_with(session, &session.namespace(), labels).await?,
            (None, None) => bail!("expected 'logs [-f] [-p] (POD | TYPE/NAME) [-c CONTAINER]'"),
        };
        if pods.is_empty() {
            writeln!(streams.err, "No resources found in {} namespace.", session.namespace())?;
        }
        let mut requests = Vec::new();
        for pod in &pods {
            for container in self.containers(pod, streams)? {
                requests.push(self.request(session, pod, &container));
            }
        }
        // Following several at once mixes their lines as they come.
        if self.follow && requests.len() > 1 {
            return self.follow_all(session, requests, streams).await;
        }
        for request in requests {
            self.print(session, request, streams).await?;
        }
        Ok(())
    }

    async fn pod(&self, session: &Session, target: &str, streams: &mut Streams<'_>) -> anyhow::Result<Pod> {
        let mut pods = pods_of(session, target).await?;
        if pods.len() > 1 {
            let name = pods[0].metadata.as_ref().map_or("", |meta| meta.name.as_str());
            writeln!(streams.err, "Found {} pods, using pod/{name}", pods.len())?;
        }
        Ok(pods.swap_remove(0))
    }

    fn containers(&self, pod: &Pod, streams: &mut Streams<'_>) -> anyhow::Result<Vec<String>> {
        if self.all_containers {
            return Ok(pod::containers(pod).map(|container| container.name.clone()).collect());
        }
        let asked = self.container.as_ref().or(self.container_word.as_ref());
        Ok(vec![container_of(pod, asked, streams)?])
    }

    fn request(&self, session: &Session, pod: &Pod, container: &str) -> LogsRequest {
        let meta = pod.metadata.clone().unwrap_or_default();
        let tail = match (self.tail, &self.selector) {
            (Some(..0), _) | (None, None) => None,
            (None, Some(_)) => Some(10),
            (lines, _) => lines,
        };
        LogsRequest {
            target: Some(address(session, &meta.name, &meta.uid, container)),
            follow: self.follow,
            previous: self.previous,
            timestamps: self.timestamps,
            tail_lines: tail,
            since_seconds: self.since,
            since_time: self.since_time,
            limit_bytes: self.limit_bytes,
        }
    }

    async fn print(&self, session: &Session, request: LogsRequest, streams: &mut Streams<'_>) -> anyhow::Result<()> {
        let mut prefixed = Prefixed::of(self.prefix.then_some(&request));
        let mut stream = session.node_client()?.logs(request).await.map_err(Error::from)?.into_inner();
        while let Some(message) = stream.message().await.map_err(Error::from)? {
            prefixed.write(&message.chunk, streams.out)?;
            streams.out.flush()?;
        }
        prefixed.finish(streams.out)
    }

    async fn follow_all(
        &self,
        session: &Session,
        requests: Vec<LogsRequest>,
        streams: &mut Streams<'_>,
    ) -> anyhow::Result<()> {
        use futures::StreamExt as _;
        let mut all = futures::stream::SelectAll::new();
        let mut writers = Vec::new();
        for (at, request) in requests.into_iter().enumerate() {
            // Lines of several must not be cut into one another.
            writers.push(Prefixed { prefix: String::new(), rest: Vec::new(), by_line: true });
            if self.prefix {
                writers[at] = Prefixed::of(Some(&request));
            }
            let stream = session.node_client()?.logs(request).await.map_err(Error::from)?.into_inner();
            all.push(stream.map(move |message| (at, message)));
        }
        while let Some((at, message)) = all.next().await {
            writers[at].write(&message.map_err(Error::from)?.chunk, streams.out)?;
            streams.out.flush()?;
        }
        writers.into_iter().try_for_each(|mut writer| writer.finish(streams.out))
    }
}

/// Writes chunks as they are, or line by line with a prefix.
struct Prefixed {
    prefix: String,
    rest: Vec<u8>,
    by_line: bool,
}

impl Prefixed {
    fn of(request: Option<&LogsRequest>) -> Self {
        let target = request.and_then(|request| request.target.as_ref());
        let prefix = target.map(|target| format!("[pod/{}/{}] ", target.pod, target.container));
        Self { by_line: prefix.is_some(), prefix: prefix.unwrap_or_default(), rest: Vec::new() }
    }

    fn write(&mut self, chunk: &[u8], out: &mut dyn std::io::Write) -> anyhow::Result<()> {
        if !self.by_line {
            return Ok(out.write_all(chunk)?);
        }
        self.rest.extend_from_slice(chunk);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            out.write_all(self.prefix.as_bytes())?;
            out.write_all(&self.rest[..=end])?;
            self.rest.drain(..=end);
        }
        Ok(())
    }

    /// A last line without an end gets one.
    fn finish(&mut self, out: &mut dyn std::io::Write) -> anyhow::Result<()> {
        if !self.rest.is_empty() {
            self.write(b"\n", out)?;
        }
        Ok(())
    }
}

/// The container that is meant: the one named, else the default one; where there are several that is said.
pub fn container_of(pod: &Pod, asked: Option<&String>, streams: &mut Streams<'_>) -> anyhow::Result<String> {
    let name = pod.metadata.as_ref().map_or("", |meta| meta.name.as_str());
    let names = || pod::containers(pod).map(|container| container.name.as_str()).collect::<Vec<_>>();
    if let Some(asked) = asked {
        let is_there = pod::container(pod, asked).is_some()
            || pod::spec(pod)
                .ephemeral_containers
                .iter()
                .any(|one| one.ephemeral_container_common.as_ref().is_some_and(|common| common.name == *asked));
        if !is_there {
            bail!("container {asked} is not valid for pod {name}: it has {}", names().join(", "));
        }
        return Ok(asked.clone());
    }
    let container = pod::default_container(pod).ok_or_else(|| anyhow!("pod {name} has no containers"))?;
    if names().len() > 1 {
        writeln!(streams.err, "Defaulted container {:?} out of: {}", container.name, names().join(", "))?;
    }
    Ok(container.name.clone())
}

/// The pod that is meant by `web`, `pod/web` or, for what has pods, `rc/web`.
pub async fn pod_of(session: &Session, word: &str) -> anyhow::Result<Pod> {
    Ok(pods_of(session, word).await?.swap_remove(0))
}

/// As [`pod_of`], with all that could be meant behind it: ready ones before others. Never empty.
async fn pods_of(session: &Session, word: &str) -> anyhow::Result<Vec<Pod>> {
    let (info, name) = match word.split_once('/') {
        Some((kind, name)) => (resource::lookup(kind)?, name),
        None => (resource::lookup("pods")?, word),
    };
    let object = session.get(session.target(info, name)).await?;
    let selector = match info.resource.kind.as_str() {
        "Pod" => return Ok(vec![object.decode_as()?]),
        "ReplicationController" => {
            labels_of(object.decode_as::<ReplicationController>()?.spec.unwrap_or_default().selector)
        }
        "Service" => labels_of(object.decode_as::<Service>()?.spec.unwrap_or_default().selector),
        kind => {
            let value = Found { info, object }.value()?;
            let message = proto::codec::schema().message("k8s.api.meta.v1.LabelSelector");
            let selector =
                value.pointer("/spec/selector").zip(message).ok_or_else(|| anyhow!("a {kind} has no pods"))?;
            let bytes = proto::codec::value_to_proto(selector.1, selector.0)?.bytes;
            let selector = <LabelSelector as prost::Message>::decode(bytes.as_slice())?;
            model::selector::Labels::of(Some(&selector))?.to_string()
        }
    };
    if selector.is_empty() {
        bail!("{word} selects no pods");
    }
    let mut pods = pods_with(session, &session.namespace(), &selector).await?;
    pods.sort_by_key(|pod| (!pod::is_ready(pod), pod.metadata.as_ref().map(|meta| meta.name.clone())));
    if pods.is_empty() {
        bail!("{word} has no pods now (selector {selector})");
    }
    Ok(pods)
}

fn labels_of(selector: std::collections::BTreeMap<String, String>) -> String {
    model::selector::Labels::exactly(&selector).to_string()
}

async fn pods_with(session: &Session, namespace: &str, labels: &str) -> anyhow::Result<Vec<Pod>> {
    let selection = client::Selection { labels: labels.to_owned(), fields: String::new() };
    Ok(session.client()?.list::<Pod>(namespace, selection).await?.0)
}

pub fn address(session: &Session, pod: &str, uid: &str, container: &str) -> Address {
    Address {
        namespace: session.namespace(),
        pod: pod.to_owned(),
        uid: uid.to_owned(),
        container: container.to_owned(),
    }
}

/// A time as manifests write it.
fn moment(text: &str) -> anyhow::Result<Time> {
    let time = text.parse::<jiff::Timestamp>();
    let time = time.map_err(|_| anyhow!("{text:?} is not a time such as 2026-01-31T12:00:00Z"))?;
    Ok(Time { seconds: time.as_second(), nanos: 0 })
}

/// Seconds of a span such as 90s, 5m, 1h30m; a bare number is seconds.
pub fn seconds(text: &str) -> anyhow::Result<i64> {
    let wrong = || anyhow!("{text:?} is not a span of time such as 30s, 5m or 2h");
    if let Ok(seconds) = text.parse::<i64>() {
        return Ok(seconds);
    }
    let (mut total, mut digits) = (0f64, String::new());
    for c in text.chars() {
        if c.is_ascii_digit() || c == '.' {
            digits.push(c);
            continue;
        }
        let scale = match c {
            's' => 1.0,
            'm' => 60.0,
            'h' => 3600.0,
            _ => return Err(wrong()),
        };
        total += digits.parse::<f64>().map_err(|_| wrong())? * scale;
        digits.clear();
    }
    if digits.is_empty() && !text.is_empty() { Ok(total.ceil() as i64) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::verb::stage::Stage;

    #[test]
    fn spans_are_read() {
        assert_eq!(seconds("90").unwrap(), 90);
        assert_eq!(seconds("1h30m").unwrap(), 5400);
        assert_eq!(seconds("1.5m").unwrap(), 90);
        for text in ["", "m", "5x", "1h5"] {
            assert!(seconds(text).is_err(), "{text}");
        }
    }

    #[test]
    fn prefixed_lines_are_whole() {
        let mut out = Vec::new();
        let mut writer = Prefixed { prefix: "[p] ".into(), rest: Vec::new(), by_line: true };
        writer.write(b"on", &mut out).unwrap();
        writer.write(b"e\ntwo\nthr", &mut out).unwrap();
        writer.finish(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "[p] one\n[p] two\n[p] thr\n");
    }

    const PODS: &str = "
apiVersion: v1
kind: Pod
metadata: {name: one, labels: {app: x}}
spec: {containers: [{name: a, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: two, labels: {app: x}}
spec: {containers: [{name: a, image: i}, {name: b, image: i}]}
---
apiVersion: v1
kind: ReplicationController
metadata: {name: web}
spec: {selector: {app: x}, replicas: 2}
";

    #[tokio::test]
    async fn logs_are_of_the_container_that_is_meant() {
        let stage = Stage::new().await;
        stage.given(PODS).await;
        stage
            .check(
                "logs one --tail=5 --since=1m",
                expect![[r#"
            default/one/a follow=false tail=Some(5) since=Some(60)
        "#]],
            )
            .await;
        stage
            .check(
                "logs two",
                expect![[r#"
            default/two/a follow=false tail=None since=None
            stderr: Defaulted container "a" out of: a, b
        "#]],
            )
            .await;
        stage
            .check(
                "logs pod/two -c b",
                expect![[r#"
            default/two/b follow=false tail=None since=None
        "#]],
            )
            .await;
        stage
            .check(
                "logs two -c z",
                expect![[r#"
            stderr: error: container z is not valid for pod two: it has a, b
            exit code 1
        "#]],
            )
            .await;
        stage
            .check(
                "logs rc/web",
                expect![[r#"
            default/one/a follow=false tail=None since=None
            stderr: Found 2 pods, using pod/one
        "#]],
            )
            .await;
        stage
            .check(
                "logs nope",
                expect![[r#"
            stderr: Error from server (NotFound): pods "nope" not found
            exit code 1
        "#]],
            )
            .await;
        stage
            .check(
                "logs -l app=x --all-containers --prefix -f",
                expect![[r#"
            [pod/one/a] default/one/a follow=true tail=Some(10) since=None
            [pod/two/a] default/two/a follow=true tail=Some(10) since=None
            [pod/two/b] default/two/b follow=true tail=Some(10) since=None
        "#]],
            )
            .await;
    }
}
