//! Applying a strategic merge patch.
//!
//! Source of the rules: Kubernetes' "Strategic Merge Patch" API convention. Directives: `$patch` (replace, merge,
//! delete), `$retainKeys`, `$deleteFromPrimitiveList/<field>`, `$setElementOrder/<field>`.

use serde_json::{Map, Value};

use super::{
    Error,
    shape::{List, Shape, Strategy},
};

pub const PATCH: &str = "$patch";
pub const RETAIN_KEYS: &str = "$retainKeys";
pub const DELETE_FROM_LIST: &str = "$deleteFromPrimitiveList/";
pub const ELEMENT_ORDER: &str = "$setElementOrder/";

pub fn apply(shape: Shape, object: &Value, patch: &Value) -> Result<Value, Error> {
    let empty = Map::new();
    let original = object.as_object().unwrap_or(&empty);
    let patch = patch.as_object().ok_or_else(|| malformed("the patch must be a JSON object"))?;
    Ok(Value::Object(merge_fields(shape, original, patch)?))
}

fn merge_fields(
    shape: Shape,
    original: &Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<Map<String, Value>, Error> {
    let mut result = match directive(patch)? {
        Some("delete") => return Ok(Map::new()),
        Some("replace") => Map::new(),
        _ => original.clone(),
    };
    if let Some(keep) = patch.get(RETAIN_KEYS) {
        let keep = keep.as_array().ok_or_else(|| malformed("$retainKeys must be a list of field names"))?;
        result.retain(|name, _| keep.iter().any(|kept| kept == name));
    }
    for (name, wanted) in patch {
        if name == PATCH || name == RETAIN_KEYS {
            continue;
        }
        if let Some(field) = name.strip_prefix(DELETE_FROM_LIST) {
            let gone = wanted.as_array().ok_or_else(|| malformed(format!("{name} must be a list")))?;
            if let Some(Value::Array(list)) = result.get_mut(field) {
                list.retain(|element| !gone.contains(element));
            }
        } else if !name.starts_with(ELEMENT_ORDER) {
            set_field(shape.field(name), &mut result, name, wanted)?;
        }
    }
    for (name, order) in patch {
        let Some(field) = name.strip_prefix(ELEMENT_ORDER) else { continue };
        let order = order.as_array().ok_or_else(|| malformed(format!("{name} must be a list")))?;
        let before = original.get(field).and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
        if let Some(Value::Array(list)) = result.get_mut(field) {
            *list = in_order(shape.field(field).list, std::mem::take(list), order, before);
        }
    }
    Ok(result)
}

fn set_field(strategy: Strategy, result: &mut Map<String, Value>, name: &str, wanted: &Value) -> Result<(), Error> {
    let merged = match (result.get(name), wanted) {
        (_, Value::Null) => {
            // shift_remove keeps the order of the fields that stay.
            result.shift_remove(name);
            return Ok(());
        }
        (Some(Value::Object(original)), Value::Object(patch)) if !strategy.is_replacing => {
            Value::Object(merge_fields(strategy.shape, original, patch)?)
        }
        (_, Value::Object(patch)) => Value::Object(merge_fields(strategy.shape, &Map::new(), patch)?),
        (Some(Value::Array(original)), Value::Array(patch)) => Value::Array(merge_list(strategy, original, patch)?),
        (_, Value::Array(patch)) => Value::Array(merge_list(strategy, &[], patch)?),
        (_, scalar) => scalar.clone(),
    };
    result.insert(name.to_owned(), merged);
    Ok(())
}

fn merge_list(strategy: Strategy, original: &[Value], patch: &[Value]) -> Result<Vec<Value>, Error> {
    match strategy.list {
        List::Replace => patch.iter().map(|element| stripped(strategy.shape, element)).collect(),
        List::Set => {
            let mut result = original.to_vec();
            for element in patch {
                if !result.contains(element) {
                    result.push(element.clone());
                }
            }
            Ok(result)
        }
        List::ByKey(key) => merge_by_key(strategy.shape, key, original, patch),
    }
}

fn merge_by_key(shape: Shape, key: &str, original: &[Value], patch: &[Value]) -> Result<Vec<Value>, Error> {
    let mut elements = Vec::with_capacity(patch.len());
    let mut is_replacing = false;
    for element in patch {
        let element = element
            .as_object()
            .ok_or_else(|| malformed(format!("an element of a list keyed by {key} must be an object")))?;
        match directive(element)? {
            Some("replace") => is_replacing = true,
            found => elements.push((found, element)),
        }
    }
    let mut result = if is_replacing { Vec::new() } else { original.to_vec() };
    for (directive, element) in elements {
        let wanted = element.get(key).ok_or_else(|| {
            malformed(format!("map: {} does not contain declared merge key: {key}", Value::Object(element.clone())))
        })?;
        if directive == Some("delete") {
            result.retain(|found| found.get(key) != Some(wanted));
            continue;
        }
        match result.iter_mut().find(|found| found.get(key) == Some(wanted)) {
            Some(Value::Object(found)) => *found = merge_fields(shape, found, element)?,
            _ => result.push(Value::Object(merge_fields(shape, &Map::new(), element)?)),
        }
    }
    Ok(result)
}

/// A value of the patch without directives and nulls, where there is nothing to merge it with.
fn stripped(shape: Shape, value: &Value) -> Result<Value, Error> {
    match value {
        Value::Object(fields) => Ok(Value::Object(merge_fields(shape, &Map::new(), fields)?)),
        other => Ok(other.clone()),
    }
}

/// Puts the listed elements into the listed order; the others keep their places relative to their old neighbours.
fn in_order(kind: List, list: Vec<Value>, order: &[Value], before: &[Value]) -> Vec<Value> {
    let key_of = |element: &Value| match kind {
        List::ByKey(key) => element.get(key).cloned().unwrap_or(Value::Null),
        _ => element.clone(),
    };
    let rank = |element: &Value, among: &[Value]| {
        let key = key_of(element);
        among.iter().position(|other| key_of(other) == key)
    };
    let (mut listed, mut others): (Vec<Value>, Vec<Value>) =
        list.into_iter().partition(|element| rank(element, order).is_some());
    listed.sort_by_key(|element| rank(element, order));
    others.sort_by_key(|element| rank(element, before).unwrap_or(usize::MAX));
    let mut result = Vec::with_capacity(listed.len() + others.len());
    let (mut listed, mut others) = (listed.into_iter().peekable(), others.into_iter().peekable());
    loop {
        let is_other_first = match (listed.peek(), others.peek()) {
            (Some(listed), Some(other)) => {
                matches!((rank(other, before), rank(listed, before)), (Some(other), Some(listed)) if other < listed)
            }
            (None, Some(_)) => true,
            (_, None) => false,
        };
        match if is_other_first { others.next() } else { listed.next() } {
            Some(element) => result.push(element),
            None => return result,
        }
    }
}

fn directive(fields: &Map<String, Value>) -> Result<Option<&str>, Error> {
    match fields.get(PATCH) {
        None => Ok(None),
        Some(Value::String(directive)) if matches!(directive.as_str(), "replace" | "merge" | "delete") => {
            Ok(Some(directive))
        }
        Some(other) => Err(malformed(format!("unknown patch type found: {other}: use replace, merge or delete"))),
    }
}

fn malformed(message: impl Into<String>) -> Error {
    Error::Malformed(message.into())
}
