//! Tasks live under a name, are told to stop in one way, and are awaited.

use std::{
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Arc, OnceLock},
    time::Duration,
};

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

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
///
/// A panic in one of them stops the component: without that task it would look alive and not do its work.
#[derive(Clone, Debug, Default)]
pub struct Tasks(Arc<Crew>);

#[derive(Debug, Default)]
struct Crew {
    running: Mutex<Vec<Named>>,
    component: Shutdown,
    panicked: OnceLock<&'static str>,
}

/// A task of a component panicked; the message went to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the task \"{0}\" panicked")]
pub struct Panicked(pub &'static str);

impl Tasks {
    /// The tasks of what nobody has to stop.
    pub fn new() -> Self {
        Self::default()
    }

    /// The tasks of the component that `component` stops.
    pub fn of(component: &Shutdown) -> Self {
        Self(Arc::new(Crew { component: component.clone(), ..Crew::default() }))
    }

    /// Spawns a task that [`Tasks::join`] waits for. Finished tasks leave the list.
    pub fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let crew = self.0.clone();
        let watched = async move {
            if AssertUnwindSafe(task).catch_unwind().await.is_err() {
                error!(task = name, "task panicked; its component stops");
                let _ = crew.panicked.set(name);
                crew.component.trigger();
            }
        };
        let mut running = self.0.running.lock();
        running.retain(|(_, handle)| !handle.is_finished());
        running.push((name, tokio::spawn(watched)));
    }

    /// Whether all is well; to be asked at the component's end.
    ///
    /// # Errors
    /// Names the first task that panicked.
    pub fn check(&self) -> Result<(), Panicked> {
        self.0.panicked.get().map_or(Ok(()), |name| Err(Panicked(name)))
    }

    /// Waits until all tasks have ended; those that have not after `grace` are aborted and named in the log.
    pub async fn join(&self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        let tasks = std::mem::take(&mut *self.0.running.lock());
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
    async fn a_panic_in_a_task_stops_its_component_and_is_reported() {
        let process = Shutdown::new();
        let component = process.child();
        let tasks = Tasks::of(&component);
        tasks.spawn("sound", std::future::ready(()));
        assert_eq!(tasks.check(), Ok(()));
        tasks.spawn("broken", async { panic!("as told") });
        component.triggered().await;
        assert!(!process.is_triggered(), "the component's owner decides what follows for others");
        tasks.join(Duration::from_secs(5)).await;
        assert_eq!(tasks.check(), Err(Panicked("broken")));
    }

    #[tokio::test]
    async fn join_aborts_a_task_that_does_not_stop() {
        let tasks = Tasks::new();
        tasks.spawn("stubborn", std::future::pending());
        tasks.join(Duration::from_millis(1)).await;
    }
}
