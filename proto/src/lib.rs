//! Wire contracts of Forestay: Kubernetes' objects, Forestay's services and etcd's v3 API, as generated code.
//!
//! This crate does no I/O. Protobuf is the truth here; JSON is one more form of it (see [`codec`]).

#![cfg_attr(test, allow(clippy::unwrap_used))]

#[allow(clippy::all, clippy::pedantic, missing_docs)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/all.rs"));
}

pub mod codec;
pub mod envelope;
mod object;
pub mod quantity;
pub mod time;
mod wire;

pub use generated::google::rpc;
pub use generated::{authpb, etcdserverpb, forestay, mvccpb, v3electionpb, v3lockpb};
pub use object::{Kind, Object, ObjectError, Resource};

/// Kubernetes' messages: `k8s::core::v1::Pod`, `k8s::meta::v1::ObjectMeta`, `k8s::resource::Quantity`.
pub mod k8s {
    pub use super::generated::k8s::api::*;
}

/// The options that describe fields, messages and resources (`proto/k8s/options.proto`).
pub mod schema {
    pub use super::generated::k8s::{FieldSchema, Form, MessageSchema, Resource, Subresource};
}

/// Every arm of [`Object`]: number, message, apiVersion and kind.
pub use kinds::ARMS;

mod kinds {
    include!(concat!(env!("OUT_DIR"), "/kinds.rs"));
}

/// All file descriptors with options and comments, as an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
