//! Events in both of their shapes: core/v1 and events.k8s.io/v1.

use prost::Message;
use proto::{
    Kind,
    k8s::{
        core::v1::{Event, EventSource, ObjectReference},
        events::v1::Event as NewEvent,
        meta::v1::{MicroTime, Time},
    },
};

use super::{Column, NAME, Row, Sheet, or, since, text};

pub static CORE: Sheet = sheet!(COLUMNS, Event, core);
pub static EVENTS: Sheet = sheet!(COLUMNS, NewEvent, new);

const COLUMNS: &[Column] = &[
    Column::text("Last Seen", "Time since it happened last."),
    Column::text("Type", "Normal or Warning."),
    Column::text("Reason", "What happened, in one word for programs."),
    Column::text("Object", "What it happened to."),
    Column::text("Subobject", "The part it happened to.").wide(),
    Column::text("Source", "Who saw it.").wide(),
    Column::text("Message", "What happened, for people."),
    Column::text("First Seen", "Time since it happened first.").wide(),
    Column::text("Count", "How often it happened.").wide(),
    NAME.wide(),
];

/// Both shapes, read alike.
struct Sight<'a> {
    first: Option<Time>,
    last: Option<Time>,
    at: Option<MicroTime>,
    series: Option<(i32, Option<MicroTime>)>,
    count: i32,
    object: Option<&'a ObjectReference>,
    source: Option<&'a EventSource>,
    reporter: (&'a str, &'a str),
}

fn core(event: &Event, now: i64) -> Row {
    let sight = Sight {
        first: event.first_timestamp,
        last: event.last_timestamp,
        at: event.event_time,
        series: event.series.as_ref().map(|series| (series.count, series.last_observed_time)),
        count: event.count,
        object: event.involved_object.as_ref(),
        source: event.source.as_ref(),
        reporter: (&event.reporting_component, &event.reporting_instance),
    };
    row([&event.r#type, &event.reason, &event.message, &event.meta().name], &sight, now)
}

fn new(event: &NewEvent, now: i64) -> Row {
    let sight = Sight {
        first: event.deprecated_first_timestamp,
        last: event.deprecated_last_timestamp,
        at: event.event_time,
        series: event.series.as_ref().map(|series| (series.count, series.last_observed_time)),
        count: event.deprecated_count,
        object: event.regarding.as_ref(),
        source: event.deprecated_source.as_ref(),
        reporter: (&event.reporting_controller, &event.reporting_instance),
    };
    row([&event.r#type, &event.reason, &event.note, &event.meta().name], &sight, now)
}

fn row([kind, reason, message, name]: [&String; 4], sight: &Sight<'_>, now: i64) -> Row {
    let seconds = |time: Option<Time>| time.map(|time| time.seconds).filter(|seconds| *seconds != 0);
    let micro = |time: Option<MicroTime>| time.map(|time| time.seconds).filter(|seconds| *seconds != 0);
    let first = seconds(sight.first).or(micro(sight.at));
    let last = match sight.series {
        Some((_, observed)) => micro(observed),
        None => seconds(sight.last).or(first),
    };
    let count = match sight.series {
        Some((count, _)) => count,
        None => sight.count.max(1),
    };
    let (object, part) = object(sight.object);
    Row::of([
        since(last, now).into(),
        text(kind),
        text(reason),
        object.into(),
        text(part),
        source(sight).into(),
        text(message.trim()),
        since(first, now).into(),
        i64::from(count).into(),
        text(name),
    ])
}

fn object(reference: Option<&ObjectReference>) -> (String, &str) {
    let Some(reference) = reference else { return (String::new(), "") };
    let kind = reference.kind.to_lowercase();
    let object = if reference.name.is_empty() { kind } else { format!("{kind}/{}", reference.name) };
    (object, &reference.field_path)
}

fn source(sight: &Sight<'_>) -> String {
    let (component, host) = sight.source.map_or(("", ""), |source| (&source.component, &source.host));
    let (component, host) = (or(component, sight.reporter.0), or(host, sight.reporter.1));
    if host.is_empty() { component.to_owned() } else { format!("{component}, {host}") }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn at(seconds: i64) -> Option<Time> {
        Some(Time { seconds, nanos: 0 })
    }

    #[test]
    fn a_repeated_event_shows_when_first_and_last() {
        let mut event = Event {
            first_timestamp: at(100),
            last_timestamp: at(400),
            count: 4,
            r#type: "Warning".into(),
            reason: "BackOff".into(),
            message: "back-off restarting web\n".into(),
            involved_object: Some(ObjectReference {
                kind: "Pod".into(),
                name: "web-1".into(),
                field_path: "spec.containers{web}".into(),
                ..Default::default()
            }),
            source: Some(EventSource { component: "kubelet".into(), host: "n1".into() }),
            ..Default::default()
        };
        event.meta_mut().name = "web-1.17".into();
        expect![[r#"
            Last Seen   10s
            Type        Warning
            Reason      BackOff
            Object      pod/web-1
            Subobject   spec.containers{web}
            Source      kubelet, n1
            Message     back-off restarting web
            First Seen  5m10s
            Count       4
            Name        web-1.17
        "#]]
        .assert_eq(&super::super::show::row(&CORE, &core(&event, 410)));
    }

    #[test]
    fn the_newer_shape_reads_alike() {
        let event = NewEvent {
            event_time: Some(MicroTime { seconds: 100, nanos: 0 }),
            reporting_controller: "scheduler".into(),
            note: "assigned".into(),
            ..Default::default()
        };
        let row = new(&event, 130);
        assert_eq!([&row.cells[0], &row.cells[5], &row.cells[8]].map(ToString::to_string), ["30s", "scheduler", "1"]);
    }
}
