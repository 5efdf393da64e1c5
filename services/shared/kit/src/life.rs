//! Tasks live under a name, are told to stop in one way, and are awaited.

use std::{future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// The wish that everything holding a clone of it stops.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    pub fn new() -> Self {
        Self::default()
    }

    /// A shutdown that SIGINT and SIGTERM trigger.
    ///
    /// # Errors
    /// Where the process may not install signal handlers.
    pub fn on_signals() -> std::io::Result<Self> {
        let shutdown = Self::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let triggered = shutdown.clone();
        tokio::spawn(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            info!(signal = name, "stopping");
            triggered.trigger();
        });
        Ok(shutdown)
    }

    pub fn trigger(&self) {
        self.0.cancel();
    }

    pub fn is_triggered(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves once triggered; at once where it already is.
    pub async fn triggered(&self) {
        self.0.cancelled().await;
    }

    /// A shutdown that this one triggers, and that can be triggered alone.
    pub fn child(&self) -> Self {
        Self(self.0.child_token())
    }
}

/// A task and the name it is known by.
type Named = (&'static str, JoinHandle<()>);

/// The tasks of one component.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Mutex<Vec<Named>>>);

impl Tasks {
    pub fn new() -> Self {
        Self::default()
    }

    /// Spawns a task that [`Tasks::join`] waits for. Finished tasks leave the list.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.0.lock();
        tasks.retain(|(_, handle)| !handle.is_finished());
        tasks.push((name, tokio::spawn(task)));
    }

    /// Waits until all tasks have ended; those that have not after `grace` are aborted and named in the log.
    pub async fn join(&self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        let tasks = std::mem::take(&mut *self.0.lock());
        for (name, mut handle) in tasks {
            match tokio::time::timeout_at(deadline, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => warn!(task = name, %error, "task ended badly"),
                Err(_) => {
                    warn!(task = name, "task did not stop in time and was aborted");
                    handle.abort();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_but_not_the_other_way_round() {
        let parent = Shutdown::new();
        let (one, other) = (parent.child(), parent.child());
        one.trigger();
        assert!(one.is_triggered() && !parent.is_triggered() && !other.is_triggered());
        parent.trigger();
        other.triggered().await;
    }

    #[tokio::test]
    async fn join_aborts_a_task_that_does_not_stop() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        tasks.join(Duration::from_millis(1)).await;
    }
}
