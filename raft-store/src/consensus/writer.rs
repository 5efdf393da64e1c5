//! The one thread that writes the log: it takes everything that waits, writes it as one batch, syncs once, and only
//! then tells whoever waits.
//!
//! Votes and entries pass through one queue, so they reach the disk in the order in which consensus made them. A
//! failed write or sync is final: what the disk holds afterwards is unknown, so every later request fails as well.

use std::{
    io,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use bytes::Bytes;
use openraft::storage::IOFlushed;
use tokio::sync::oneshot;

use super::Types;
use crate::engine::{Batch, Durability, Engine, Op};

/// Bytes that one batch takes before it is written, so that a burst does not delay the first of it.
const BATCH_BYTES_MAX: usize = 4 << 20;

/// How long a note may wait for a batch to ride on.
const NOTE_DELAY: Duration = Duration::from_millis(50);

pub enum Request {
    /// Entries; the callback hears of durability.
    Append {
        ops: Vec<Op>,
        bytes: usize,
        last: u64,
        flushed: IOFlushed<Types>,
    },
    /// Rows that must be durable before the reply: a vote, a truncation.
    Durable {
        ops: Vec<Op>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    /// Rows that only must not overtake what came before: the committed index, a purge.
    Note {
        ops: Vec<Op>,
    },
    Stop {
        reply: oneshot::Sender<io::Result<()>>,
    },
}

/// Starts the thread; it ends when the queue is dropped or told to stop.
pub fn start(
    name: &str,
    engine: Arc<dyn Engine>,
    durable: impl Fn(u64) + Send + 'static,
) -> io::Result<mpsc::Sender<Request>> {
    let (queue, requests) = mpsc::channel();
    let writer = Writer { engine, durable, failed: None, notes: Vec::new() };
    thread::Builder::new().name(format!("raft-log {name}")).spawn(move || writer.run(requests))?;
    Ok(queue)
}

struct Writer<F> {
    engine: Arc<dyn Engine>,
    durable: F,
    failed: Option<String>,
    notes: Vec<Op>,
}

#[derive(Default)]
struct Waiting {
    appends: Vec<(u64, IOFlushed<Types>)>,
    replies: Vec<oneshot::Sender<io::Result<()>>>,
}

impl<F: Fn(u64)> Writer<F> {
    fn run(mut self, requests: mpsc::Receiver<Request>) {
        loop {
            let first = if self.notes.is_empty() {
                requests.recv().map_err(|_| mpsc::RecvTimeoutError::Disconnected)
            } else {
                requests.recv_timeout(NOTE_DELAY)
            };
            match first {
                Ok(Request::Stop { reply }) => return self.stop(reply),
                Ok(first) => {
                    if let Some(reply) = self.drain(first, &requests) {
                        return self.stop(reply);
                    }
                }
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    let notes = std::mem::take(&mut self.notes);
                    // A note that is lost is only found out again.
                    let _ = self.write(notes, Durability::Buffered);
                }
                Err(mpsc::RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Writes `first` and all that waits behind it; gives back a request to stop.
    fn drain(&mut self, first: Request, requests: &mpsc::Receiver<Request>) -> Option<oneshot::Sender<io::Result<()>>> {
        let mut ops = Vec::new();
        let mut waiting = Waiting::default();
        let mut bytes = 0;
        let mut stop = None;
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append { ops: entries, bytes: size, last, flushed } => {
                    ops.append(&mut self.notes);
                    ops.extend(entries);
                    bytes += size;
                    waiting.appends.push((last, flushed));
                }
                Request::Durable { ops: rows, reply } => {
                    ops.append(&mut self.notes);
                    ops.extend(rows);
                    waiting.replies.push(reply);
                }
                Request::Note { ops: rows } => self.notes.extend(rows),
                Request::Stop { reply } => {
                    stop = Some(reply);
                    break;
                }
            }
            next = if bytes < BATCH_BYTES_MAX { requests.try_recv().ok() } else { None };
        }
        if !waiting.appends.is_empty() || !waiting.replies.is_empty() {
            let result = self.write(ops, Durability::Synced);
            self.tell(waiting, &result);
        }
        stop
    }

    fn write(&mut self, ops: Vec<Op>, durability: Durability) -> Result<(), String> {
        if let Some(failed) = &self.failed {
            return Err(format!("the raft log failed before: {failed}"));
        }
        self.engine.write(Batch { ops }, durability).map_err(|error| {
            tracing::error!(%error, "the raft log cannot be written; this member stops");
            self.failed = Some(error.to_string());
            error.to_string()
        })
    }

    fn tell(&self, waiting: Waiting, result: &Result<(), String>) {
        let outcome = || result.clone().map_err(io::Error::other);
        for reply in waiting.replies {
            let _ = reply.send(outcome());
        }
        for (last, flushed) in waiting.appends {
            if result.is_ok() {
                (self.durable)(last);
            }
            flushed.io_completed(outcome());
        }
    }

    fn stop(mut self, reply: oneshot::Sender<io::Result<()>>) {
        let notes = std::mem::take(&mut self.notes);
        let result = self.write(notes, Durability::Synced).map_err(io::Error::other);
        let _ = reply.send(result);
    }
}

/// The row of an entry.
pub fn entry_key(index: u64) -> Bytes {
    let mut key = Vec::with_capacity(9);
    key.push(b'l');
    key.extend_from_slice(&index.to_be_bytes());
    key.into()
}
