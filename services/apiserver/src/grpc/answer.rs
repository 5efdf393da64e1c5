//! Refusals as gRPC statuses, and objects as arms of `forestay.api.v1.Object`.

use bytes::Bytes;
use prost::Message;
use prost_types::Any;
use proto::{Object, forestay::api::v1::View, rpc};
use tonic::{Code, Status};

use crate::{
    api::Stored,
    refusal::{Refusal, Result},
};

const STATUS_TYPE: &str = "type.googleapis.com/k8s.api.meta.v1.Status";

/// A refusal with Kubernetes' Status as its detail.
pub fn status(refusal: Refusal) -> Status {
    let code = code(&refusal);
    let message = refusal.message().to_owned();
    let detail = Any { type_url: STATUS_TYPE.to_owned(), value: refusal.into_status().encode_to_vec() };
    let details = rpc::Status { code: code as i32, message: message.clone(), details: vec![detail] };
    Status::with_details(code, message, Bytes::from(details.encode_to_vec()))
}

fn code(refusal: &Refusal) -> Code {
    match (refusal.code(), refusal.reason()) {
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, _) => Code::NotFound,
        (405 | 415, _) => Code::Unimplemented,
        (409, "AlreadyExists") => Code::AlreadyExists,
        (409, _) => Code::Aborted,
        (410, _) => Code::OutOfRange,
        (413 | 429, _) => Code::ResourceExhausted,
        (503, _) => Code::Unavailable,
        (504, _) => Code::DeadlineExceeded,
        (400..500, _) => Code::InvalidArgument,
        _ => Code::Internal,
    }
}

/// An object in the view that was asked for.
pub fn object(stored: &Stored, view: View) -> Result<Object> {
    let form = stored.form;
    if view == View::Metadata {
        return Ok(Object {
            api_version: form.api_version.to_owned(),
            kind: form.kind.to_owned(),
            metadata: Some(stored.metadata()?),
            ..Object::default()
        });
    }
    Ok(Object::from_raw(form.api_version, form.kind, form.arm, stored.raw.clone()))
}
