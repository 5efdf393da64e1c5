//! The API as Rust: a typed client, caches fed by one watch stream, the work queue, the controller loop with its one
//! executor, leader election, events, and a fake server for tests.
//!
//! Every service of ours stands on this crate and on nothing else that talks to the API.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod action;
mod backoff;
mod cache;
mod changes;
mod client;
mod config;
pub mod contract;
pub mod controller;
pub mod election;
pub mod error;
pub mod events;
mod executor;
pub mod fake;
mod queue;
mod reflector;
mod set;

pub use action::Action;
pub use backoff::Backoff;
pub use cache::{Cache, Entry, Partial};
pub use changes::{Change, Changes};
pub use client::{
    Client, DeleteResponse, PatchKind, PodBinding, Selection, Target, WatchRequest, WatchResponse, WatchSet, target,
};
pub use config::{Config, ConfigError};
pub use controller::{Controller, Key};
pub use error::Error;
pub use executor::{Executor, Outcome};
pub use queue::Queue;
pub use reflector::{Builder, Cut, Reflector};
