//! Tells users why a pod waits: its PodScheduled condition and an event, written beside the decisions, never before them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use client::{Cache, Client, events::Recorder};
use futures::{StreamExt, stream};
use kit::{clock::Clock, life::Shutdown};
use parking_lot::Mutex;
use proto::{Kind, k8s::core::v1::Pod};
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::{condition, demand::PodKey};

/// Status writes at once: enough to hide their latency, too few to crowd out bindings.
const WRITES_MAX: usize = 16;
/// Tries of one write in a row against others who write the same pod.
const TRIES_MAX: usize = 3;
/// What could not be told is told again after this.
const RETRY: Duration = Duration::from_millis(500);

/// Why a pod waits, with the uid of the pod that is meant.
type News = (PodKey, Told);
type Told = (String, String);

/// Hands over what is to be told; the newest per pod wins, so that it never holds more than there are waiting pods.
#[derive(Clone, Default)]
pub struct Desk(Arc<Pending>);

#[derive(Default)]
struct Pending {
    news: Mutex<BTreeMap<PodKey, Told>>,
    arrived: Notify,
}

impl Desk {
    pub fn unschedulable(&self, key: &PodKey, uid: &str, message: String) {
        self.0.news.lock().insert(key.clone(), (uid.to_owned(), message));
        self.0.arrived.notify_one();
    }

    /// Takes back what could not be told; newer news of a pod stays.
    fn take_back(&self, untold: Vec<News>) {
        let mut news = self.0.news.lock();
        for (key, told) in untold {
            news.entry(key).or_insert(told);
        }
        self.0.arrived.notify_one();
    }

    async fn next(&self) -> Vec<News> {
        loop {
            let news = std::mem::take(&mut *self.0.news.lock());
            if !news.is_empty() {
                return news.into_iter().collect();
            }
            self.0.arrived.notified().await;
        }
    }
}

/// Writes what comes to the desk.
pub struct Reporter {
    pub desk: Desk,
    pub client: Client,
    pub pods: Cache<Pod>,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
}

impl Reporter {
    pub async fn run(self, shutdown: Shutdown) {
        loop {
            let news = tokio::select! {
                () = shutdown.triggered() => return,
                news = self.desk.next() => news,
            };
            let writes = stream::iter(news).map(|news| self.tell(news)).buffer_unordered(WRITES_MAX);
            let untold: Vec<News> = tokio::select! {
                () = shutdown.triggered() => return,
                untold = writes.filter_map(std::future::ready).collect() => untold,
            };
            if !untold.is_empty() {
                self.desk.take_back(untold);
                tokio::select! {
                    () = shutdown.triggered() => return,
                    () = tokio::time::sleep(RETRY) => {}
                }
            }
        }
    }

    /// Writes why a pod waits; the news itself where that has to be tried again.
    async fn tell(&self, (key, (uid, message)): News) -> Option<News> {
        let mut pod = Pod::clone(&*self.pods.get(&key.namespace, &key.name)?);
        for _ in 0..TRIES_MAX {
            if pod.meta().uid != uid || pod.spec.as_ref().is_some_and(|spec| !spec.node_name.is_empty()) {
                return None;
            }
            let told = condition::unschedulable(&pod, &message, now(&*self.clock))?;
            let refused = match self.client.update_status(&told).await {
                Ok(_) => {
                    debug!(pod = %key, message, "unschedulable");
                    self.recorder.event(&pod, "Warning", "FailedScheduling", &message);
                    return None;
                }
                Err(error) if error.is_conflict() => match self.client.get(&key.namespace, &key.name).await {
                    Ok(newest) => {
                        pod = newest;
                        continue;
                    }
                    Err(error) => error,
                },
                Err(error) => error,
            };
            if refused.is_not_found() {
                return None;
            }
            warn!(pod = %key, error = %refused, "write why the pod waits");
            if !refused.is_passing() {
                return None;
            }
            break;
        }
        Some((key, (uid, message)))
    }
}

fn now(clock: &dyn Clock) -> proto::k8s::meta::v1::Time {
    let now = clock.now();
    proto::k8s::meta::v1::Time { seconds: now.as_second(), nanos: 0 }
}
