//! What is wrong with an object, field by field, in the words users of Kubernetes know.

use std::fmt::Display;

use proto::k8s::meta::v1::StatusCause;

/// Problems found while validating one object.
#[derive(Debug, Default, PartialEq)]
pub struct Causes(Vec<StatusCause>);

impl Causes {
    fn push(&mut self, reason: &str, field: impl Display, message: String) {
        self.0.push(StatusCause { reason: reason.to_owned(), message, field: field.to_string() });
    }

    pub fn required(&mut self, field: impl Display, detail: &str) {
        let message = if detail.is_empty() { "Required value".into() } else { format!("Required value: {detail}") };
        self.push("FieldValueRequired", field, message);
    }

    /// `value` is shown as Go shows it: texts quoted, numbers bare ([`Causes::invalid_number`]).
    pub fn invalid(&mut self, field: impl Display, value: &str, detail: impl Display) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {value:?}: {detail}"));
    }

    pub fn invalid_number(&mut self, field: impl Display, value: i64, detail: impl Display) {
        self.push("FieldValueInvalid", field, format!("Invalid value: {value}: {detail}"));
    }

    /// One cause per problem that one of `model::validate`'s functions found.
    pub fn invalid_each(&mut self, field: impl Display, value: &str, problems: Vec<String>) {
        let field = field.to_string();
        for problem in problems {
            self.invalid(&field, value, problem);
        }
    }

    pub fn not_supported(&mut self, field: impl Display, value: &str, supported: &[&str]) {
        let supported: Vec<String> = supported.iter().map(|name| format!("{name:?}")).collect();
        let message = format!("Unsupported value: {value:?}: supported values: {}", supported.join(", "));
        self.push("FieldValueNotSupported", field, message);
    }

    pub fn forbidden(&mut self, field: impl Display, detail: impl Display) {
        self.push("FieldValueForbidden", field, format!("Forbidden: {detail}"));
    }

    pub fn duplicate(&mut self, field: impl Display, value: &str) {
        self.push("FieldValueDuplicate", field, format!("Duplicate value: {value:?}"));
    }

    pub fn too_long(&mut self, field: impl Display, bytes_max: usize) {
        self.push("FieldValueTooLong", field, format!("Too long: may not be more than {bytes_max} bytes"));
    }

    pub fn not_found(&mut self, field: impl Display, value: &str) {
        self.push("FieldValueNotFound", field, format!("Not found: {value:?}"));
    }

    /// `field` may only be one of `supported`; an empty value is required.
    pub fn one_of(&mut self, field: impl Display, value: &str, supported: &[&str]) {
        if value.is_empty() {
            self.required(field, "");
        } else if !supported.contains(&value) {
            self.not_supported(field, value, supported);
        }
    }

    /// Values that must stay what they were.
    pub fn immutable(&mut self, field: impl Display, value: &str) {
        self.invalid(field, value, "field is immutable");
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_causes(self) -> Vec<StatusCause> {
        self.0
    }

    /// `field: message` lines, for tests.
    #[cfg(test)]
    pub fn lines(&self) -> String {
        self.0.iter().map(|cause| format!("{}: {}\n", cause.field, cause.message)).collect()
    }
}
