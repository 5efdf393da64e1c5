//! The API: gRPC and REST doors over one registry and one store.
//!
//! A request passes `http` or `grpc` (doors: they translate and decide nothing), `gate` (who, whether, on what terms),
//! `registry` (the verbs, each once, and a strategy per kind where it differs) and `storage` (keys, revisions, watch).

#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod api;
mod bootstrap;
pub mod gate;
pub mod grpc;
pub mod http;
mod options;
pub mod refusal;
pub mod registry;
mod server;
pub mod storage;
#[cfg(test)]
mod tests;

pub use api::Api;
pub use options::Options;
pub use refusal::Refusal;
pub use server::Server;

/// The level of Kubernetes' API that is served.
pub const VERSION_MAJOR: &str = "1";
pub const VERSION_MINOR: &str = "36";

/// "v1.36.0+forestay.0.1.0"
pub fn git_version() -> String {
    format!("v{VERSION_MAJOR}.{VERSION_MINOR}.0+forestay.{}", env!("CARGO_PKG_VERSION"))
}
