//! [`Error`]: why a call failed, by what the caller can do about it.

use prost::Message;
use proto::{k8s::meta, rpc};
use tonic::Code;

/// The type URL of a Kubernetes Status inside a `google.rpc.Status`.
pub const STATUS_TYPE_URL: &str = "type.googleapis.com/k8s.api.meta.v1.Status";

/// A refused or failed call, with the Kubernetes Status that says why.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The object, its namespace or its resource does not exist (404).
    #[error("{}", .0.message)]
    NotFound(Box<meta::v1::Status>),
    /// Something changed meanwhile, or a precondition does not hold (409): read again, decide again.
    #[error("{}", .0.message)]
    Conflict(Box<meta::v1::Status>),
    /// The name is taken (409).
    #[error("{}", .0.message)]
    AlreadyExists(Box<meta::v1::Status>),
    /// The request or the object breaks a rule (400, 405, 415, 422).
    #[error("{}", .0.message)]
    Invalid(Box<meta::v1::Status>),
    /// Policy says no: authorization, quota, a terminating namespace (403).
    #[error("{}", .0.message)]
    Forbidden(Box<meta::v1::Status>),
    /// The server does not know who asks (401).
    #[error("{}", .0.message)]
    Unauthorized(Box<meta::v1::Status>),
    /// The object is over the server's limit (413).
    #[error("{}", .0.message)]
    TooLarge(Box<meta::v1::Status>),
    /// Slow down (429).
    #[error("{}", .0.message)]
    TooManyRequests(Box<meta::v1::Status>),
    /// The revision asked for was compacted (410): start from the present state.
    #[error("{}", .0.message)]
    Expired(Box<meta::v1::Status>),
    /// The server gave up in time (504).
    #[error("{}", .0.message)]
    Timeout(Box<meta::v1::Status>),
    /// No server answered (503): try again later.
    #[error("{}", .0.message)]
    Unavailable(Box<meta::v1::Status>),
    /// The server failed (500), or answered what it should not.
    #[error("{}", .0.message)]
    Internal(Box<meta::v1::Status>),
}

impl Error {
    /// The Kubernetes Status: reason, message, code, details.
    pub fn status(&self) -> &meta::v1::Status {
        match self {
            Self::NotFound(status)
            | Self::Conflict(status)
            | Self::AlreadyExists(status)
            | Self::Invalid(status)
            | Self::Forbidden(status)
            | Self::Unauthorized(status)
            | Self::TooLarge(status)
            | Self::TooManyRequests(status)
            | Self::Expired(status)
            | Self::Timeout(status)
            | Self::Unavailable(status)
            | Self::Internal(status) => status,
        }
    }

    /// "NotFound", "Conflict", ...: Kubernetes' machine-readable reason.
    pub fn reason(&self) -> &str {
        &self.status().reason
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound(_))
    }

    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Conflict(_))
    }

    pub fn is_already_exists(&self) -> bool {
        matches!(self, Self::AlreadyExists(_))
    }

    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Forbidden(_))
    }

    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid(_))
    }

    pub fn is_expired(&self) -> bool {
        matches!(self, Self::Expired(_))
    }

    /// Whether the same call may succeed later without anything being changed by the caller.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Timeout(_) | Self::TooManyRequests(_) | Self::Internal(_))
    }

    /// Sorts a Kubernetes Status by its HTTP code and reason.
    pub fn from_status(status: meta::v1::Status) -> Self {
        let status = Box::new(status);
        match (status.code, status.reason.as_str()) {
            (409, "AlreadyExists") => Self::AlreadyExists(status),
            (409, _) => Self::Conflict(status),
            (400 | 405 | 406 | 415 | 422, _) => Self::Invalid(status),
            (401, _) => Self::Unauthorized(status),
            (403, _) => Self::Forbidden(status),
            (404, _) => Self::NotFound(status),
            (410, _) => Self::Expired(status),
            (413, _) => Self::TooLarge(status),
            (429, _) => Self::TooManyRequests(status),
            (503, _) => Self::Unavailable(status),
            (504, _) => Self::Timeout(status),
            _ => Self::Internal(status),
        }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::from_status(failure(500, "InternalError", message))
    }
}

/// A Status of a failure, in Kubernetes' shape.
pub fn failure(code: i32, reason: &str, message: impl Into<String>) -> meta::v1::Status {
    meta::v1::Status {
        status: "Failure".into(),
        message: message.into(),
        reason: reason.into(),
        code,
        ..Default::default()
    }
}

impl From<tonic::Status> for Error {
    fn from(status: tonic::Status) -> Self {
        if let Some(detail) = kubernetes_status(status.details()) {
            return Self::from_status(detail);
        }
        let (code, reason) = match status.code() {
            Code::InvalidArgument | Code::FailedPrecondition => (400, "BadRequest"),
            Code::Unauthenticated => (401, "Unauthorized"),
            Code::PermissionDenied => (403, "Forbidden"),
            Code::NotFound => (404, "NotFound"),
            Code::AlreadyExists => (409, "AlreadyExists"),
            Code::Aborted => (409, "Conflict"),
            Code::OutOfRange => (410, "Expired"),
            Code::ResourceExhausted => (429, "TooManyRequests"),
            Code::DeadlineExceeded => (504, "Timeout"),
            Code::Unavailable | Code::Cancelled | Code::Unknown => (503, "ServiceUnavailable"),
            Code::Unimplemented => (405, "MethodNotAllowed"),
            _ => (500, "InternalError"),
        };
        Self::from_status(failure(code, reason, with_causes(&status)))
    }
}

impl From<proto::ObjectError> for Error {
    fn from(error: proto::ObjectError) -> Self {
        Self::internal(format!("the server's answer cannot be read: {error}"))
    }
}

/// A transport error's own words are deep in its chain of causes ("transport error: connection refused").
fn with_causes(status: &tonic::Status) -> String {
    let mut message = status.message().to_owned();
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

fn kubernetes_status(details: &[u8]) -> Option<meta::v1::Status> {
    if details.is_empty() {
        return None;
    }
    let status = rpc::Status::decode(details).ok()?;
    let detail = status.details.iter().find(|detail| detail.type_url == STATUS_TYPE_URL)?;
    meta::v1::Status::decode(&detail.value[..]).ok()
}

/// The gRPC form of a Kubernetes Status: the code nearest in meaning, and the Status itself as detail.
pub fn to_grpc(status: &meta::v1::Status) -> tonic::Status {
    let code = match (status.code, status.reason.as_str()) {
        (400 | 405 | 406 | 415 | 422, _) => Code::InvalidArgument,
        (401, _) => Code::Unauthenticated,
        (403, _) => Code::PermissionDenied,
        (404, _) => Code::NotFound,
        (409, "AlreadyExists") => Code::AlreadyExists,
        (409, _) => Code::Aborted,
        (410, _) => Code::OutOfRange,
        (413 | 429, _) => Code::ResourceExhausted,
        (503, _) => Code::Unavailable,
        (504, _) => Code::DeadlineExceeded,
        _ => Code::Internal,
    };
    let mut envelope = rpc::Status { code: code as i32, message: status.message.clone(), ..Default::default() };
    envelope.details.push(Default::default());
    if let Some(detail) = envelope.details.last_mut() {
        detail.type_url = STATUS_TYPE_URL.to_owned();
        detail.value = status.encode_to_vec();
    }
    tonic::Status::with_details(code, status.message.clone(), envelope.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_survives_the_wire() {
        for (code, reason) in [(404, "NotFound"), (409, "Conflict"), (409, "AlreadyExists"), (410, "Expired")] {
            let status = failure(code, reason, "pods \"web\" said no");
            let error = Error::from(to_grpc(&status));
            assert_eq!(error.status(), &status);
        }
        assert!(Error::from(to_grpc(&failure(410, "Expired", ""))).is_expired());
        assert!(Error::from(to_grpc(&failure(409, "Conflict", ""))).is_conflict());
    }

    #[test]
    fn an_error_without_details_is_sorted_by_its_code() {
        assert!(Error::from(tonic::Status::not_found("gone")).is_not_found());
        assert!(Error::from(tonic::Status::unavailable("down")).is_passing());
        let not_running = Error::from(tonic::Status::failed_precondition("container \"web\" is not running"));
        assert_eq!(not_running.reason(), "BadRequest");
    }
}
