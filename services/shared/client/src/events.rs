//! [`Recorder`]: tells people what happened, as `core/v1` Events; repeated ones are counted, not multiplied.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use jiff::Timestamp;
use kit::life::{Shutdown, Tasks};
use proto::{
    Kind,
    k8s::{
        core::v1::{Event, EventSource},
        meta::v1::{ObjectMeta, Time},
    },
};
use tokio::{sync::mpsc, time::Instant};
use tracing::debug;

use crate::{Client, Error, action::Note};

pub const NORMAL: &str = "Normal";
pub const WARNING: &str = "Warning";

/// Events that wait to be written. Beyond it they are dropped: they inform, nothing depends on them.
const WAITING_MAX: usize = 4096;
/// Event series remembered for counting.
const SERIES_MAX: usize = 4096;
/// Events of one object at once, and the time in which one more is earned.
const BURST: f64 = 25.0;
const REFILL: Duration = Duration::from_secs(300);

/// Takes events and writes them in the background. Cheap to clone.
#[derive(Clone)]
pub struct Recorder(mpsc::Sender<Note>);

impl Recorder {
    /// Starts writing events as `component`, from `host` where the component is of one node.
    pub fn start(client: Client, component: &str, host: &str, tasks: &Tasks, shutdown: Shutdown) -> Self {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        let source = EventSource { component: component.to_owned(), host: host.to_owned() };
        let writer = Writer { client, source, series: HashMap::new(), order: VecDeque::new(), budgets: HashMap::new() };
        tasks.spawn("event recorder", writer.run(receiver, shutdown));
        Self(sender)
    }

    /// Tells that something happened to an object; never waits.
    pub fn event<K: Kind>(&self, regarding: &K, r#type: &str, reason: &str, message: impl Into<String>) {
        self.record(Note::new(regarding, r#type, reason, message));
    }

    pub fn record(&self, note: Note) {
        if self.0.try_send(note).is_err() {
            debug!("too many events wait, one is dropped");
        }
    }
}

/// Events that say the same of the same object are one series.
type Series = (String, String, String, String);

struct Writer {
    client: Client,
    source: EventSource,
    series: HashMap<Series, Event>,
    order: VecDeque<Series>,
    /// Events an object may still have, and when that was true.
    budgets: HashMap<String, (f64, Instant)>,
}

impl Writer {
    async fn run(mut self, mut receiver: mpsc::Receiver<Note>, shutdown: Shutdown) {
        loop {
            let note = tokio::select! {
                () = shutdown.triggered() => return,
                note = receiver.recv() => note,
            };
            let Some(note) = note else { return };
            if !self.is_affordable(&note) {
                continue;
            }
            if let Err(error) = self.write(note).await {
                debug!(%error, "an event could not be written");
            }
        }
    }

    async fn write(&mut self, note: Note) -> Result<(), Error> {
        let now = Time { seconds: Timestamp::now().as_second(), nanos: 0 };
        let about = if note.regarding.uid.is_empty() {
            format!("{}/{}", note.regarding.namespace, note.regarding.name)
        } else {
            note.regarding.uid.clone()
        };
        let series = (about, note.r#type.clone(), note.reason.clone(), note.message.clone());
        if let Some(mut event) = self.series.get(&series).cloned() {
            event.count += 1;
            event.last_timestamp = Some(now);
            event.meta_mut().resource_version.clear();
            match self.client.update(&event).await {
                Err(error) if error.is_not_found() => {}
                answer => {
                    self.series.insert(series, answer?);
                    return Ok(());
                }
            }
        }
        let event = self.client.create(&self.event(note, now)).await?;
        self.remember(series, event);
        Ok(())
    }

    fn event(&self, note: Note, now: Time) -> Event {
        let namespace = match note.regarding.namespace.as_str() {
            "" => "default",
            namespace => namespace,
        };
        let metadata = ObjectMeta {
            namespace: namespace.to_owned(),
            name: format!("{}.{:016x}", note.regarding.name, rand::random::<u64>()),
            ..Default::default()
        };
        Event {
            metadata: Some(metadata),
            involved_object: Some(note.regarding),
            reason: note.reason,
            message: note.message,
            source: Some(self.source.clone()),
            first_timestamp: Some(now),
            last_timestamp: Some(now),
            count: 1,
            r#type: note.r#type,
            reporting_component: self.source.component.clone(),
            reporting_instance: self.source.host.clone(),
            ..Default::default()
        }
    }

    fn remember(&mut self, series: Series, event: Event) {
        if self.series.insert(series.clone(), event).is_none() {
            self.order.push_back(series);
        }
        if self.order.len() > SERIES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.series.remove(&oldest);
        }
    }

    /// An object that has much to say is cut short: one event per refill time once its burst is used up.
    fn is_affordable(&mut self, note: &Note) -> bool {
        let now = Instant::now();
        if self.budgets.len() > SERIES_MAX {
            self.budgets.retain(|_, (_, at)| now.duration_since(*at) < REFILL);
        }
        let (budget, at) = self.budgets.entry(note.regarding.uid.clone()).or_insert((BURST, now));
        let earned = now.duration_since(*at).as_secs_f64() / REFILL.as_secs_f64();
        *budget = (*budget + earned).min(BURST);
        *at = now;
        let is_affordable = *budget >= 1.0;
        if is_affordable {
            *budget -= 1.0;
        }
        is_affordable
    }
}
