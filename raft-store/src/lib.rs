//! Consistent, versioned bytes behind the etcd v3 API: replicated by Raft, kept in RocksDB.
//!
//! ```text
//! request -> node -> consensus (one fsync per batch) -> machine (pure) -> engine (one batch) -> watch, answer
//! ```
//! It has never heard of a Pod. [`Node`] is a running member; [`Node::serve`] puts etcd's gRPC API in front of one.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod consensus;
pub mod engine;
mod lease;
pub mod machine;
mod node;
mod serve;
pub mod watch;

pub use serve::ServerConfig;

pub use node::{Cluster, ETCD_VERSION, Engine, Founding, Node, Options, PeerTls, Peering};
