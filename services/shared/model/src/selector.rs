//! Label and field selectors: parsed once, matched many times, printed as Kubernetes prints them.
//!
//! A `Service`'s or a `ReplicationController`'s plain map is [`Labels::exactly`], a `LabelSelector` message is
//! [`Labels::of`], the text after `-l` is [`Labels::parse`]; [`Fields`] is the text after `--field-selector`.

mod fields;
mod labels;

pub use fields::{FieldTerm, Fields};
pub use labels::{Labels, Operator, Requirement};

/// Why a selector cannot be used. The text names the part and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("unable to parse requirement: found '{found}', expected: {expected}")]
    Syntax { found: String, expected: &'static str },
    #[error("unable to parse requirement: key {key:?}: {reason}")]
    Key { key: String, reason: String },
    #[error("unable to parse requirement: values[0][{key}]: Invalid value: {value:?}: {reason}")]
    Value { key: String, value: String, reason: String },
    #[error("for '{operator}' operator, {reason}")]
    Operator { operator: String, reason: &'static str },
    #[error("{operator:?} is not a valid label selector operator: use In, NotIn, Exists or DoesNotExist")]
    UnknownOperator { operator: String },
    #[error("invalid selector: '{selector}'; can't understand '{part}': use path=value or path!=value")]
    Field { selector: String, part: String },
}
