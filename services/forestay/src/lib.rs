//! The server: every role in one binary.
//!
//! [`role`] is the table of roles, [`settings`] their flags, [`up`] all of them in one process.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod certificates;
mod kubeconfig;
pub mod machine;
pub mod reset;
pub mod role;
pub mod settings;
pub mod store;
pub mod up;
