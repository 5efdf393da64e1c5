//! The difference that `apply` sends: additions and changes against the live object, deletions against the last applied one.

use serde_json::{Map, Value, json};

use super::{
    Error,
    shape::{List, Shape, Strategy},
    strategic::{self, DELETE_FROM_LIST, ELEMENT_ORDER, PATCH, RETAIN_KEYS},
};

/// Which half of a difference is wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Half {
    Changes,
    Deletions,
}

pub fn difference(shape: Shape, original: Option<&Value>, modified: &Value, current: &Value) -> Result<Value, Error> {
    let empty = Map::new();
    let fields = |value: &'_ Value| value.as_object().cloned().unwrap_or_default();
    let (modified, current_fields) = (fields(modified), fields(current));
    let changes = differing_fields(shape, &current_fields, &modified, Half::Changes, false)?;
    let original = original.and_then(Value::as_object).unwrap_or(&empty);
    let deletions = differing_fields(shape, original, &modified, Half::Deletions, false)?;
    let patch = Value::Object(joined(shape, deletions, changes));
    // Deletions of what is gone already, and orders that hold already, are nothing to send.
    if strategic::apply(shape, current, &patch)? == *current { Ok(json!({})) } else { Ok(patch) }
}

fn differing_fields(
    shape: Shape,
    from: &Map<String, Value>,
    to: &Map<String, Value>,
    half: Half,
    is_retaining: bool,
) -> Result<Map<String, Value>, Error> {
    let mut patch = Map::new();
    for (name, wanted) in to {
        let strategy = shape.field(name);
        match (from.get(name), wanted) {
            (Some(Value::Object(found)), Value::Object(wanted)) if !strategy.is_replacing => {
                let inner = differing_fields(strategy.shape, found, wanted, half, strategy.is_retaining)?;
                if !inner.is_empty() {
                    patch.insert(name.clone(), Value::Object(inner));
                }
            }
            (Some(Value::Array(found)), Value::Array(wanted)) if strategy.list != List::Replace => {
                differing_list(strategy, name, found, wanted, half, &mut patch)?;
            }
            (found, wanted) if half == Half::Changes && found != Some(wanted) => {
                patch.insert(name.clone(), wanted.clone());
            }
            _ => {}
        }
    }
    let missing = || from.iter().filter(|(name, value)| !value.is_null() && !to.contains_key(*name));
    if half == Half::Deletions {
        patch.extend(missing().map(|(name, _)| (name.clone(), Value::Null)));
    }
    if is_retaining && (!patch.is_empty() || missing().next().is_some()) {
        let mut names: Vec<&String> = to.keys().collect();
        names.sort();
        patch.insert(RETAIN_KEYS.to_owned(), json!(names));
    }
    Ok(patch)
}

fn differing_list(
    strategy: Strategy,
    name: &str,
    from: &[Value],
    to: &[Value],
    half: Half,
    patch: &mut Map<String, Value>,
) -> Result<(), Error> {
    let (elements, gone) = match strategy.list {
        List::ByKey(key) => (differing_elements(strategy, key, from, to, half)?, Vec::new()),
        _ => {
            let only_in = |list: &[Value], other: &[Value], wanted: Half| -> Vec<Value> {
                if half != wanted {
                    return Vec::new();
                }
                list.iter().filter(|element| !other.contains(element)).cloned().collect()
            };
            (only_in(to, from, Half::Changes), only_in(from, to, Half::Deletions))
        }
    };
    let keys = |list: &[Value]| -> Vec<Value> {
        match strategy.list {
            List::ByKey(key) => list.iter().map(|element| json!({ key: element.get(key) })).collect(),
            _ => list.to_vec(),
        }
    };
    let (from_keys, to_keys) = (keys(from), keys(to));
    let shared: Vec<&Value> = from_keys.iter().filter(|key| to_keys.contains(key)).collect();
    let is_reordered =
        half == Half::Changes && shared.iter().copied().ne(to_keys.iter().filter(|key| from_keys.contains(key)));
    if !elements.is_empty() || !gone.is_empty() || is_reordered {
        patch.insert(format!("{ELEMENT_ORDER}{name}"), Value::Array(to_keys));
    }
    if !elements.is_empty() {
        patch.insert(name.to_owned(), Value::Array(elements));
    }
    if !gone.is_empty() {
        patch.insert(format!("{DELETE_FROM_LIST}{name}"), Value::Array(gone));
    }
    Ok(())
}

fn differing_elements(
    strategy: Strategy,
    key: &str,
    from: &[Value],
    to: &[Value],
    half: Half,
) -> Result<Vec<Value>, Error> {
    let of_key = |list: &[Value], wanted: &Value| list.iter().find(|element| element.get(key) == Some(wanted)).cloned();
    let mut elements = Vec::new();
    for element in to {
        let id = key_of(element, key)?;
        match of_key(from, id) {
            Some(Value::Object(found)) => {
                let wanted = element.as_object().ok_or_else(|| keyless(element, key))?;
                let mut inner = differing_fields(strategy.shape, &found, wanted, half, strategy.is_retaining)?;
                if !inner.is_empty() {
                    inner.insert(key.to_owned(), id.clone());
                    elements.push(Value::Object(inner));
                }
            }
            _ if half == Half::Changes => elements.push(element.clone()),
            _ => {}
        }
    }
    if half == Half::Deletions {
        for element in from {
            let id = key_of(element, key)?;
            if of_key(to, id).is_none() {
                elements.push(json!({ PATCH: "delete", key: id }));
            }
        }
    }
    Ok(elements)
}

fn key_of<'a>(element: &'a Value, key: &str) -> Result<&'a Value, Error> {
    element.get(key).filter(|id| !id.is_null()).ok_or_else(|| keyless(element, key))
}

fn keyless(element: &Value, key: &str) -> Error {
    Error::Malformed(format!("map: {element} does not contain declared merge key: {key}"))
}

/// Both halves as one patch; they never disagree about a field, since one speaks of what is declared and the other of
/// what is not.
fn joined(shape: Shape, mut deletions: Map<String, Value>, changes: Map<String, Value>) -> Map<String, Value> {
    for (name, change) in changes {
        let strategy = shape.field(&name);
        let value = match (deletions.remove(&name), change) {
            (Some(Value::Object(deletion)), Value::Object(change)) => {
                Value::Object(joined(strategy.shape, deletion, change))
            }
            (Some(Value::Array(deletion)), Value::Array(change)) => match strategy.list {
                List::ByKey(key) => Value::Array(joined_elements(strategy.shape, key, deletion, change)),
                _ => Value::Array(change),
            },
            (_, change) => change,
        };
        deletions.insert(name, value);
    }
    deletions
}

fn joined_elements(shape: Shape, key: &str, deletions: Vec<Value>, changes: Vec<Value>) -> Vec<Value> {
    let mut result = changes;
    for deletion in deletions {
        let same = result.iter_mut().find(|element| element.get(key) == deletion.get(key));
        match (same, deletion) {
            (Some(Value::Object(change)), Value::Object(deletion)) => {
                *change = joined(shape, deletion, std::mem::take(change));
            }
            (_, deletion) => result.push(deletion),
        }
    }
    result
}
