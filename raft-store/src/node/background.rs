//! Deletes what compaction made unreachable, a slice at a time, beside everything else.

use std::{io, sync::Arc};

use kit::life::Shutdown;
use tokio::sync::watch;

use crate::{
    consensus::Stage,
    engine::Durability,
    machine::{self, layout},
};

/// Changes looked at before others get their turn.
const SLICE: usize = 1_000;

pub struct Sweeper {
    stage: Arc<Stage>,
    compactions: watch::Receiver<i64>,
    swept: watch::Sender<i64>,
}

impl Sweeper {
    pub fn new(stage: Arc<Stage>, compactions: watch::Receiver<i64>) -> (Sweeper, watch::Receiver<i64>) {
        let (swept, receiver) = watch::channel(-1);
        (Sweeper { stage, compactions, swept }, receiver)
    }

    pub async fn run(mut self, shutdown: Shutdown) {
        loop {
            let compacted = *self.compactions.borrow_and_update();
            if compacted >= 0 {
                match self.sweep(compacted, &shutdown).await {
                    Ok(()) => {
                        self.swept.send_replace(compacted);
                    }
                    Err(error) => {
                        tracing::warn!(%error, compacted, "the sweep of superseded versions stopped; the next compaction resumes it")
                    }
                }
            }
            tokio::select! {
                () = shutdown.triggered() => return,
                changed = self.compactions.changed() => if changed.is_err() { return },
            }
        }
    }

    async fn sweep(&self, compacted: i64, shutdown: &Shutdown) -> io::Result<()> {
        loop {
            let stage = self.stage.clone();
            let slice = move || -> io::Result<bool> {
                let engine = stage.engine();
                let mark = engine
                    .get(layout::SWEPT)?
                    .and_then(|mark| mark.as_ref().try_into().ok())
                    .map_or(0, i64::from_be_bytes);
                let swept = crate::engine::read(&*engine, |view| machine::sweep(view, mark, compacted, SLICE))?;
                engine.write(swept.batch, Durability::Buffered)?;
                Ok(swept.is_done)
            };
            if tokio::task::spawn_blocking(slice).await.map_err(io::Error::other)?? || shutdown.is_triggered() {
                return Ok(());
            }
        }
    }
}
