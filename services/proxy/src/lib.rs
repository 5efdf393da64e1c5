//! Service addresses in the kernel of one node.
//!
//! [`rules::rules`] says what a service means here and [`diff`] what a change of it changes; both are pure. A
//! [`backend`] carries that into effect, and [`driver`] connects them. What is in the kernel is known from our own
//! memory, never read back: listing large tables takes seconds, and nft prints some of them wrongly.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod backend;
pub mod conntrack;
pub mod diff;
mod door;
mod driver;
pub mod nftables;
pub mod recording;
mod route;
pub mod rules;
mod run;
mod sysctl;
#[cfg(test)]
mod testing;

pub use recording::Recording;
pub use run::{Mode, Options, cleanup, run};
