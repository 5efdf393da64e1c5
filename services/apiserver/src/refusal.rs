//! Why a request was refused, in Kubernetes' words: one `Status` for both doors.

use proto::{
    codec::ResourceInfo,
    k8s::meta::v1::{ListMeta, Status, StatusCause, StatusDetails},
};

/// A refused request: Kubernetes' `Status`, with its HTTP code.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal(Box<Status>);

/// What every operation of the API answers with.
pub type Result<T, E = Refusal> = std::result::Result<T, E>;

/// "pods", "deployments.apps": how messages name a resource.
pub fn qualified(resource: &ResourceInfo) -> String {
    let named = &resource.resource;
    if named.group.is_empty() { named.plural.clone() } else { format!("{}.{}", named.plural, named.group) }
}

impl Refusal {
    pub fn new(code: i32, reason: &str, message: impl Into<String>) -> Self {
        Self(Box::new(Status {
            metadata: Some(ListMeta::default()),
            status: "Failure".to_owned(),
            message: message.into(),
            reason: reason.to_owned(),
            details: None,
            code,
        }))
    }

    fn about(mut self, resource: &ResourceInfo, name: &str) -> Self {
        self.0.details = Some(StatusDetails {
            name: name.to_owned(),
            group: resource.resource.group.clone(),
            kind: resource.resource.plural.clone(),
            ..StatusDetails::default()
        });
        self
    }

    pub fn not_found(resource: &ResourceInfo, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(resource));
        Self::new(404, "NotFound", message).about(resource, name)
    }

    /// No such resource is served at all.
    pub fn unknown_resource() -> Self {
        Self::new(404, "NotFound", "the server could not find the requested resource")
    }

    pub fn already_exists(resource: &ResourceInfo, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", qualified(resource));
        Self::new(409, "AlreadyExists", message).about(resource, name)
    }

    pub fn conflict(resource: &ResourceInfo, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(resource));
        Self::new(409, "Conflict", message).about(resource, name)
    }

    /// The object changed since the caller read it.
    pub fn modified(resource: &ResourceInfo, name: &str) -> Self {
        let why = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(resource, name, why)
    }

    /// The object breaks its kind's rules; every cause names one field.
    pub fn invalid(resource: &ResourceInfo, name: &str, causes: Vec<StatusCause>) -> Self {
        Self::invalid_kind(&resource.resource.group, &resource.resource.kind, name, causes)
    }

    /// As [`Refusal::invalid`], for what is no resource: the options of a request.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, causes: Vec<StatusCause>) -> Self {
        let texts: Vec<String> = causes.iter().map(|cause| format!("{}: {}", cause.field, cause.message)).collect();
        let text = if let [only] = texts.as_slice() { only.clone() } else { format!("[{}]", texts.join(", ")) };
        let qualified = if group.is_empty() { kind.to_owned() } else { format!("{kind}.{group}") };
        let mut refusal = Self::new(422, "Invalid", format!("{qualified} {name:?} is invalid: {text}"));
        refusal.0.details = Some(StatusDetails {
            name: name.to_owned(),
            group: group.to_owned(),
            kind: kind.to_owned(),
            causes,
            ..StatusDetails::default()
        });
        refusal
    }

    /// The caller may not do this to this object; `why` completes `pods "x" is forbidden: `.
    pub fn forbidden(resource: &ResourceInfo, name: &str, why: &str) -> Self {
        let named = if name.is_empty() { String::new() } else { format!(" {name:?}") };
        let message = format!("{}{named} is forbidden: {why}", qualified(resource));
        Self::new(403, "Forbidden", message).about(resource, name)
    }

    /// The caller may not ask for this path.
    pub fn forbidden_path(user: &str, verb: &str, path: &str) -> Self {
        Self::new(403, "Forbidden", format!("forbidden: User {user:?} cannot {verb} path {path:?}"))
    }

    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn method_not_supported(resource: &ResourceInfo, verb: &str) -> Self {
        let message = format!("{verb} is not supported on resources of kind {:?}", qualified(resource));
        Self::new(405, "MethodNotAllowed", message).about(resource, "")
    }

    pub fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(415, "UnsupportedMediaType", message)
    }

    pub fn not_acceptable(message: impl Into<String>) -> Self {
        Self::new(406, "NotAcceptable", message)
    }

    /// The asked-for history is gone; start again from a fresh list.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub fn too_large(size_bytes: usize, limit_bytes: usize) -> Self {
        let message = format!(
            "Request entity too large: the object is {size_bytes} bytes, the limit is {limit_bytes} bytes; \
             split it into several objects"
        );
        Self::new(413, "RequestEntityTooLarge", message)
    }

    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i32) -> Self {
        let mut refusal = Self::new(429, "TooManyRequests", message);
        refusal.0.details = Some(StatusDetails { retry_after_seconds, ..StatusDetails::default() });
        refusal
    }

    pub fn internal(message: impl std::fmt::Display) -> Self {
        Self::new(500, "InternalError", format!("Internal error occurred: {message}"))
    }

    pub fn unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    pub fn timeout(message: impl Into<String>) -> Self {
        Self::new(504, "Timeout", message)
    }

    /// A Status that another component has already worded.
    pub fn from_status(status: Status) -> Self {
        Self(Box::new(status))
    }

    pub fn with_causes(mut self, causes: Vec<StatusCause>) -> Self {
        self.0.details.get_or_insert_default().causes = causes;
        self
    }

    /// The HTTP code.
    pub fn code(&self) -> u16 {
        u16::try_from(self.0.code).unwrap_or(500)
    }

    pub fn reason(&self) -> &str {
        &self.0.reason
    }

    pub fn message(&self) -> &str {
        &self.0.message
    }

    pub fn status(&self) -> &Status {
        &self.0
    }

    pub fn into_status(self) -> Status {
        *self.0
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for Refusal {}
