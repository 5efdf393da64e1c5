//! The gate: who asks (`authn`), whether they may (`authz`), and what the cluster demands of what they send
//! (`admission`).

pub mod admission;
pub mod authn;
pub mod authz;
pub(crate) mod cluster;
