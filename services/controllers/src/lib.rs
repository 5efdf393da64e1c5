//! Moves the cluster towards what its objects say: a folder per controller, each a pure plan behind one loop.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod endpoint;
mod explain;
mod node;
mod podcidr;
mod replicationcontroller;
mod run;
#[cfg(test)]
mod testing;
mod time;

pub use endpoint::EndpointsOfServices;
pub use node::Nodes;
pub use podcidr::PodCidrs;
pub use replicationcontroller::ReplicationControllers;
pub use run::{Options, run};
