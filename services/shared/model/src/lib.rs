//! Rules over objects that several rooms share: pure functions, no I/O, no clock, no async.
//!
//! Selectors, names, ownership, conditions, resource lists, quotas, questions about pods; patches, manifests and tables.

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod condition;
pub mod meta;
pub mod patch;
pub mod pod;
pub mod quota;
pub mod resources;
pub mod selector;
pub mod table;
pub mod validate;
pub mod yaml;
