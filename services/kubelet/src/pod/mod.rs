//! One pod: what is wanted, what is, what to do about it, and what to tell the API.

pub mod backoff;
pub mod env;
pub mod files;
pub mod hands;
pub mod plan;
pub mod resources;
pub mod snapshot;
pub mod spec;
pub mod status;
pub mod worker;

#[cfg(test)]
mod world;
