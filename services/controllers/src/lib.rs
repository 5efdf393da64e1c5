//! Moves the cluster towards what its objects say: a folder per controller, each a pure plan behind one loop.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod explain;
mod replicationcontroller;
mod run;
#[cfg(test)]
mod testing;
mod time;

pub use replicationcontroller::ReplicationControllers;
pub use run::{Options, run};
