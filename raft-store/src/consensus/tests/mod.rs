//! Consensus on trial: openraft's own storage suite, and three members in one process over a link that loses things.

mod lossy;
mod storm;
mod suite;
mod three;
