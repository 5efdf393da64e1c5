//! Places pods on nodes.
//!
//! The decision ([`schedule::schedule`]) is a pure function of the cluster's view and one pod; [`driver`] feeds it and
//! [`bind`] carries it out. This room writes bindings, a waiting pod's condition and events, and nothing else.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod bind;
mod condition;
pub mod demand;
mod driver;
mod explain;
pub mod filter;
pub mod load;
pub mod queue;
mod report;
pub mod resources;
mod run;
pub mod schedule;
pub mod score;
#[cfg(test)]
mod testing;
pub mod view;

pub use run::{Options, run};
