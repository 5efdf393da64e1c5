//! What the schema says about a place in an object, as far as patches care.

use proto::{
    codec::{Cardinality, Field, FieldType, MessageId, schema},
    schema::Form,
};

/// What stands at one place.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    Message(MessageId),
    /// Nothing is known: objects merge, lists are replaced.
    Free,
}

/// How the value of one field is patched.
#[derive(Clone, Copy, Debug)]
pub struct Strategy {
    /// What the field holds, or what its elements are.
    pub shape: Shape,
    pub list: List,
    /// A patch may name the fields that are to stay: the others go.
    pub is_retaining: bool,
    /// The value is replaced as a whole.
    pub is_replacing: bool,
}

/// How a list is patched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum List {
    Replace,
    /// Elements are told apart by this field.
    ByKey(&'static str),
    /// A set of scalars.
    Set,
}

impl Shape {
    /// How the field of this JSON name is patched.
    pub fn field(self, json_name: &str) -> Strategy {
        match self {
            Self::Message(message) => schema().json_field(message, json_name).map_or(Strategy::FREE, Strategy::of),
            Self::Free => Strategy::FREE,
        }
    }
}

impl Strategy {
    const FREE: Self = Self { shape: Shape::Free, list: List::Replace, is_retaining: false, is_replacing: false };

    fn of(field: &'static Field) -> Self {
        let has = |strategy: &str| field.schema.patch_strategy.iter().any(|found| found == strategy);
        let shape = match field.field_type {
            FieldType::Message(message)
                if field.cardinality != Cardinality::Map && schema()[message].form == Form::Plain =>
            {
                Shape::Message(message)
            }
            _ => Shape::Free,
        };
        let list = match (field.cardinality, has("merge"), field.schema.patch_merge_key.as_str()) {
            (Cardinality::List, true, "") => List::Set,
            (Cardinality::List, true, key) => List::ByKey(key),
            _ => List::Replace,
        };
        Self { shape, list, is_retaining: has("retainKeys"), is_replacing: has("replace") }
    }
}
