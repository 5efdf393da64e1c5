//! Moves the cluster towards what its objects say: a folder per controller, each a pure plan behind one loop.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod catalog;
mod endpoint;
mod explain;
mod garbage;
mod namespace;
mod node;
mod podcidr;
mod replicationcontroller;
mod resourcequota;
mod run;
mod serviceaccount;
#[cfg(test)]
mod testing;
mod time;

use endpoint::EndpointsOfServices;
use garbage::Garbage;
use namespace::Namespaces;
use node::Nodes;
use podcidr::PodCidrs;
use replicationcontroller::ReplicationControllers;
use resourcequota::ResourceQuotas;
pub use run::{Options, run};
use serviceaccount::ServiceAccounts;
