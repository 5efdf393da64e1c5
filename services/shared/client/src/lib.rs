//! The API as Rust: a typed client, caches fed by one watch stream, the work queue, the controller loop with its one
//! executor, leader election, events, and a fake server for tests.
//!
//! Every service of ours stands on this crate and on nothing else that talks to the API.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod backoff;
mod cache;
mod changes;
mod client;
mod config;
pub mod error;
pub mod fake;
mod reflector;
mod set;

pub use backoff::Backoff;
pub use cache::{Cache, Entry, Partial};
pub use changes::{Change, Changes};
pub use client::{
    Client, DeleteResponse, PatchKind, PodBinding, Selection, Target, WatchRequest, WatchResponse, WatchSet, target,
};
pub use config::Config;
pub use error::Error;
pub use reflector::{Builder, Cut, Reflector};
