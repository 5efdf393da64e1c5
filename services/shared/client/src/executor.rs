//! [`Executor`]: does what plans say, and decides nothing.

use std::sync::Arc;

use futures::{StreamExt, future::join_all, stream};
use jiff::Timestamp;
use kit::life::Shutdown;
use proto::{Object, k8s::meta::v1::DeleteOptions};
use tokio::sync::Semaphore;
use tracing::debug;

use crate::{
    Action, Client, Error, Selection,
    action::{Deletion, Note, Telling},
    cache::meta_of_raw,
    error::failure,
    events::{NORMAL, Recorder, WARNING},
};

/// Requests in flight from one executor: enough to keep the server's batches full, few enough to leave room for others.
const REQUESTS_MAX: usize = 64;

/// The one doer. Cheap to clone; all clones share one bound on requests in flight.
#[derive(Clone)]
pub struct Executor {
    client: Client,
    recorder: Recorder,
    requests: Arc<Semaphore>,
    shutdown: Shutdown,
}

/// What came of a plan.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Every object written: group, resource and the revision of the write.
    pub written: Vec<(String, String, u64)>,
    /// When to look again.
    pub wake_at: Option<Timestamp>,
    /// The most telling failure; a conflict only where nothing worse happened.
    pub error: Option<Error>,
}

impl Outcome {
    fn add(&mut self, done: Result<Option<(String, String, u64)>, Error>) {
        match done {
            Ok(written) => self.written.extend(written),
            Err(error) if self.error.as_ref().is_none_or(|present| present.is_conflict()) => self.error = Some(error),
            Err(_) => {}
        }
    }
}

impl Executor {
    /// An executor that begins nothing more after `shutdown`: another may lead by then.
    pub fn new(client: Client, recorder: Recorder, shutdown: Shutdown) -> Self {
        Self { client, recorder, requests: Arc::new(Semaphore::new(REQUESTS_MAX)), shutdown }
    }

    /// Does all actions, side by side. Creations start slowly: where the first is refused (a quota, a policy), the
    /// others are not tried.
    pub async fn execute(&self, actions: Vec<Action>) -> Outcome {
        let mut outcome = Outcome::default();
        let (mut creations, mut others) = (Vec::new(), Vec::new());
        for action in actions {
            match action {
                Action::WakeAt(time) => {
                    outcome.wake_at = Some(outcome.wake_at.map_or(time, |earlier| earlier.min(time)));
                }
                Action::Event(note) => self.recorder.record(note),
                Action::Create(_) => creations.push(action),
                _ => others.push(action),
            }
        }
        let others = stream::iter(others).map(|action| self.act(action)).buffer_unordered(REQUESTS_MAX);
        let (created, others) = tokio::join!(self.create_all(creations), others.collect::<Vec<_>>());
        created.into_iter().chain(others).for_each(|done| outcome.add(done));
        outcome
    }

    /// One creation, then two, four, ... side by side; ends with the first round that has a refusal.
    async fn create_all(&self, creations: Vec<Action>) -> Vec<Result<Option<(String, String, u64)>, Error>> {
        let mut done = Vec::with_capacity(creations.len());
        let mut waiting = creations.into_iter();
        let mut together = 1;
        loop {
            let round: Vec<Action> = waiting.by_ref().take(together).collect();
            if round.is_empty() {
                return done;
            }
            let answers = join_all(round.into_iter().map(|action| self.act(action))).await;
            let is_refused = answers.iter().any(|answer| answer.as_ref().is_err_and(|error| !error.is_conflict()));
            done.extend(answers);
            if is_refused {
                return done;
            }
            together = (together * 2).min(REQUESTS_MAX);
        }
    }

    /// Does one write; its resource and revision.
    async fn act(&self, action: Action) -> Result<Option<(String, String, u64)>, Error> {
        let _permit = self.requests.acquire().await;
        if self.shutdown.is_triggered() {
            return Err(Error::from_status(failure(503, "ServiceUnavailable", "this controller is stopping")));
        }
        let text = tracing::enabled!(tracing::Level::DEBUG).then(|| action.to_string());
        let done = self.send(action).await;
        if let Some(action) = text {
            match &done {
                Ok(_) => debug!(%action, "done"),
                Err(error) => debug!(%action, %error, "failed"),
            }
        }
        done
    }

    async fn send(&self, action: Action) -> Result<Option<(String, String, u64)>, Error> {
        let (target, object) = match action {
            Action::Create(write) => {
                let answer = self.client.create_object(write.target.clone(), write.object).await;
                self.tell(write.telling, answer.as_ref().map(name_of));
                (write.target, answer?)
            }
            Action::Update(write) => {
                (write.target.clone(), self.client.update_object(write.target, write.object).await?)
            }
            Action::UpdateStatus(write) => {
                (write.target.clone(), self.client.update_status_object(write.target, write.object).await?)
            }
            Action::Patch(patch) => {
                (patch.target.clone(), self.client.patch_object(patch.target, patch.kind, patch.body).await?)
            }
            Action::Delete(mut deletion) => {
                let (telling, name) = (deletion.telling.take(), deletion.target.name.clone());
                let answer = self.delete(deletion).await;
                self.tell(telling, answer.as_ref().map(|_| name));
                return answer;
            }
            Action::Clear(target) => {
                self.client.delete_collection(target, Selection::default(), DeleteOptions::default()).await?;
                return Ok(None);
            }
            Action::Event(_) | Action::WakeAt(_) => return Ok(None),
        };
        Ok(Some((target.group, target.resource, revision_of(&object))))
    }

    /// Tells people of an outcome; a conflict is not worth telling, the next plan meets it.
    fn tell(&self, telling: Option<Telling>, outcome: Result<String, &Error>) {
        let Some(Telling { regarding, done, failed }) = telling else { return };
        let (r#type, reason, message) = match outcome {
            Ok(name) => (NORMAL, done.0, format!("{}{name}", done.1)),
            Err(error) if error.is_conflict() => return,
            Err(error) => (WARNING, failed.0, format!("{}{error}", failed.1)),
        };
        self.recorder.record(Note { regarding, r#type: r#type.to_owned(), reason: reason.to_owned(), message });
    }

    /// What is gone already needs no deletion.
    async fn delete(&self, deletion: Deletion) -> Result<Option<(String, String, u64)>, Error> {
        let target = deletion.target.clone();
        match self.client.delete_object(deletion.target, deletion.options).await {
            Ok(answer) => {
                let revision = answer.object.as_ref().map_or(0, revision_of);
                Ok(Some((target.group, target.resource, revision)))
            }
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }
}

fn revision_of(object: &Object) -> u64 {
    match &object.metadata {
        Some(meta) => model::meta::revision(meta),
        None => meta_of_raw(&object.raw).map_or(0, |meta| model::meta::revision(&meta)),
    }
}

fn name_of(object: &Object) -> String {
    meta_of_raw(&object.raw).map(|meta| meta.name).unwrap_or_default()
}
