//! The workers of all pods of this node: who has one, who is told what.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use client::{Cache, Reflector};
use futures::{StreamExt, stream::BoxStream};
use kit::life::Shutdown;
use proto::{
    Kind,
    k8s::core::v1::{Pod, PodSpec},
};
use tokio::sync::{mpsc, watch};
use tracing::{info, warn};

use crate::{
    pod::{
        backoff::BackOff,
        hands::Hands,
        worker::{self, Desired, Handle, Nudge},
    },
    runtime::{Error, Event, PodKey, Record, Runtime},
};

/// A pod before and after one change in the API.
pub type Change = (Option<Arc<Pod>>, Option<Arc<Pod>>);

/// What the crew listens to.
pub struct Sources {
    pub pods: Cache<Pod>,
    pub reflector: Reflector,
    /// From the watch, in order.
    pub changes: mpsc::UnboundedReceiver<Change>,
    /// Uids whose configMaps or secrets changed.
    pub objects: mpsc::Receiver<String>,
}

/// How long the crew goes without looking.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Between two lists of everything the runtime has.
    pub relist: Duration,
    /// Between two signs of life of the runtime, and for each to come.
    pub runtime: Duration,
}

pub struct Crew {
    hands: Arc<Hands>,
    back_off: BackOff,
    patience: Patience,
    workers: HashMap<String, Handle>,
    /// What the last list showed, to tell what a lost event would have told.
    known: HashMap<String, BTreeSet<(String, bool)>>,
    done: mpsc::UnboundedSender<String>,
    shutdown: Shutdown,
}

impl Crew {
    pub fn new(hands: Arc<Hands>, back_off: BackOff, patience: Patience, shutdown: Shutdown) -> Self {
        // Replaced when `run` begins; nothing is spawned before.
        let (done, _) = mpsc::unbounded_channel();
        Self { hands, back_off, patience, workers: HashMap::new(), known: HashMap::new(), done, shutdown }
    }

    /// Runs until shutdown. `trouble` tells the node's conditions how the runtime is.
    pub async fn run(mut self, mut sources: Sources, trouble: watch::Sender<Option<String>>) {
        let (done, mut finished) = mpsc::unbounded_channel();
        self.done = done;
        let (event_sender, mut events) = mpsc::channel(1024);
        let (runtime, patience) = (self.hands.runtime.clone(), self.patience.runtime);
        let follow = follow_events(runtime, event_sender, patience, trouble, self.shutdown.clone());
        let follower = tokio::spawn(follow);
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = shutdown.triggered() => return,
            () = sources.reflector.synced() => {}
        }
        let mut relist = tokio::time::interval(self.patience.relist);
        relist.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = shutdown.triggered() => break,
                Some((before, after)) = sources.changes.recv() => self.change(before, after),
                Some(event) = events.recv() => match event {
                    Event::Pod { uid } => self.nudge(&uid, Nudge::Look),
                    Event::Gap => self.workers.values().for_each(|worker| worker.nudge(Nudge::Look)),
                },
                Some(uid) = sources.objects.recv() => self.nudge(&uid, Nudge::Refresh),
                Some(uid) = finished.recv() => {
                    self.workers.remove(&uid);
                    self.known.remove(&uid);
                }
                _ = relist.tick() => self.relist(&sources.pods).await,
            }
        }
        follower.abort();
    }

    fn nudge(&self, uid: &str, nudge: Nudge) {
        if let Some(worker) = self.workers.get(uid) {
            worker.nudge(nudge);
        }
    }

    fn change(&mut self, before: Option<Arc<Pod>>, after: Option<Arc<Pod>>) {
        let uid = |pod: &Arc<Pod>| pod.meta().uid.clone();
        if let Some(before) = before
            && after.as_ref().map(uid) != Some(uid(&before))
        {
            self.tell(Desired { pod: before, orphaned: true });
        }
        if let Some(pod) = after {
            self.tell(Desired { pod, orphaned: false });
        }
    }

    /// Tells a pod's worker, or gives the pod one.
    fn tell(&mut self, desired: Desired) {
        let uid = desired.pod.meta().uid.clone();
        match self.workers.get(&uid) {
            Some(worker) => {
                // A worker that has just ended leaves its handle for a moment.
                if worker.desired.send(desired.clone()).is_err() && !desired.orphaned {
                    self.hire(uid, desired);
                }
            }
            // Nothing of it is here, and nobody wants it.
            None if desired.orphaned => {}
            None => self.hire(uid, desired),
        }
    }

    fn hire(&mut self, uid: String, desired: Desired) {
        let worker =
            worker::spawn(self.hands.clone(), self.back_off, desired, self.done.clone(), self.shutdown.clone());
        self.workers.insert(uid, worker);
    }

    /// Compares what the runtime has with what was known: for lost events, and for pods the API has forgotten.
    async fn relist(&mut self, pods: &Cache<Pod>) {
        let records = match within(self.patience.runtime, self.hands.runtime.pods()).await {
            Ok(records) => records,
            Err(error) => return warn!(%error, "list of the runtime's pods failed"),
        };
        let mut by_uid: HashMap<String, (PodKey, BTreeSet<(String, bool)>)> = HashMap::new();
        for Record { id, pod, running, .. } in records {
            by_uid.entry(pod.uid.clone()).or_insert_with(|| (pod, BTreeSet::new())).1.insert((id, running));
        }
        let stale: Vec<&String> = self
            .workers
            .keys()
            .filter(|uid| self.known.get(*uid) != by_uid.get(*uid).map(|(_, containers)| containers))
            .collect();
        stale.into_iter().for_each(|uid| self.nudge(uid, Nudge::Look));
        let in_api: BTreeSet<String> = pods.list().iter().map(|pod| pod.meta().uid.clone()).collect();
        for (uid, (pod, _)) in &by_uid {
            if !in_api.contains(uid) && !self.workers.contains_key(uid) {
                info!(%pod, uid, "left over from a pod that is gone, removing");
                self.hire(uid.clone(), Desired { pod: Arc::new(left_over(pod)), orphaned: true });
            }
        }
        self.hands.sweep(|uid| in_api.contains(uid) || by_uid.contains_key(uid) || self.workers.contains_key(uid));
        self.known = by_uid.into_iter().map(|(uid, (_, containers))| (uid, containers)).collect();
    }
}

/// All that is known of a pod whose object is gone.
fn left_over(key: &PodKey) -> Pod {
    const GRACE_SECONDS: i64 = 5;
    let spec = PodSpec { termination_grace_period_seconds: Some(GRACE_SECONDS), ..Default::default() };
    let mut pod = Pod { spec: Some(spec), ..Default::default() };
    let meta = pod.meta_mut();
    meta.name.clone_from(&key.name);
    meta.namespace.clone_from(&key.namespace);
    meta.uid.clone_from(&key.uid);
    pod
}

async fn pass_on(mut events: BoxStream<'static, Result<Event, Error>>, sender: &mpsc::Sender<Event>) {
    while let Some(Ok(event)) = events.next().await {
        if sender.send(event).await.is_err() {
            return;
        }
    }
}

/// Ends when the runtime gives no sign of life.
async fn watch_life(runtime: &Arc<dyn Runtime>, patience: Duration) -> Error {
    loop {
        tokio::time::sleep(patience).await;
        if let Err(error) = within(patience, runtime.ping()).await {
            return error;
        }
    }
}

async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let answer = tokio::time::timeout(limit, call).await;
    answer.unwrap_or(Err(Error::Timeout { what: "its answer", limit }))
}

/// Between tries to reach a runtime that does not answer.
const RECONNECT: Duration = Duration::from_millis(500);

/// Passes the runtime's events on, reconnecting by itself; after a gap everything is looked at.
///
/// A runtime that hangs keeps its connections open and says nothing, so that it is asked for a sign of life as well.
async fn follow_events(
    runtime: Arc<dyn Runtime>,
    sender: mpsc::Sender<Event>,
    patience: Duration,
    trouble: watch::Sender<Option<String>>,
    shutdown: Shutdown,
) {
    while !shutdown.is_triggered() {
        let lost = match within(patience, runtime.events()).await {
            Ok(events) => {
                trouble.send_replace(None);
                if sender.send(Event::Gap).await.is_err() {
                    return;
                }
                tokio::select! {
                    lost = watch_life(&runtime, patience) => Some(lost),
                    () = pass_on(events, &sender) => None,
                }
            }
            Err(error) => Some(error),
        };
        if let Some(error) = lost {
            trouble.send_replace(Some(format!("container runtime is down: {error}")));
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(RECONNECT) => {}
        }
    }
}
