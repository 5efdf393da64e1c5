//! IPVS, the kernel's layer-4 load balancer: its objects and its generic-netlink messages.
//!
//! This crate knows the wire (`linux/ip_vs.h`) and does no I/O: [`command::Command`] becomes bytes, a kernel's answer
//! becomes [`Service`]s and [`Destination`]s. Reading arbitrary bytes never panics.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod command;
mod object;
pub mod wire;

pub use command::Command;
pub use object::{Address, Destination, Flags, Forward, Listed, Service, Stats, Target};
