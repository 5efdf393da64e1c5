//! Tells users why a pod waits: its PodScheduled condition and an event, written beside the decisions, never before them.

use std::{collections::BTreeMap, sync::Arc};

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
/// Tries of one write against others who write the same pod.
const TRIES_MAX: usize = 3;

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
            let writes = stream::iter(news).for_each_concurrent(WRITES_MAX, |news| self.tell(news));
            tokio::select! {
                () = shutdown.triggered() => return,
                () = writes => {}
            }
        }
    }

    async fn tell(&self, (key, (uid, message)): News) {
        let Some(cached) = self.pods.get(&key.namespace, &key.name) else { return };
        let mut pod = Pod::clone(&cached);
        for _ in 0..TRIES_MAX {
            if pod.meta().uid != uid || pod.spec.as_ref().is_some_and(|spec| !spec.node_name.is_empty()) {
                return;
            }
            let Some(told) = condition::unschedulable(&pod, &message, now(&*self.clock)) else { return };
            match self.client.update_status(&told).await {
                Ok(_) => {
                    debug!(pod = %key, message, "unschedulable");
                    self.recorder.event(&pod, "Warning", "FailedScheduling", &message);
                    return;
                }
                Err(error) if error.is_conflict() => match self.client.get(&key.namespace, &key.name).await {
                    Ok(newest) => pod = newest,
                    Err(_) => return,
                },
                Err(error) if error.is_not_found() => return,
                Err(error) => {
                    warn!(pod = %key, %error, "write why the pod waits");
                    return;
                }
            }
        }
    }
}

fn now(clock: &dyn Clock) -> proto::k8s::meta::v1::Time {
    let now = clock.now();
    proto::k8s::meta::v1::Time { seconds: now.as_second(), nanos: 0 }
}
