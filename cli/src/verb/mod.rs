//! The verbs: a struct of flags that clap reads, and `run`.

pub mod api_resources;
pub mod apply;
pub mod completion;
pub mod create;
pub mod delete;
pub mod describe;
pub mod exec;
pub mod explain;
pub mod get;
pub mod logs;
pub mod scale;
pub mod version;

#[cfg(test)]
pub mod stage;
