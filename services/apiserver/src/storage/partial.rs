//! Reads single fields out of stored messages; the rest is skipped, not decoded.

use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// A field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaf<'a> {
    Bytes(&'a [u8]),
    Number(u64),
}

/// The last value of the field that `path` (field numbers from the outside in) leads to. None where it is absent, and
/// where the bytes are no message: what cannot be read is not selected.
pub fn field<'a>(raw: &'a [u8], path: &[u32]) -> Option<Leaf<'a>> {
    let (wanted, inner) = path.split_first()?;
    let mut rest = raw;
    let mut found = None;
    while !rest.is_empty() {
        let (number, wire_type) = decode_key(&mut rest).ok()?;
        if number != *wanted {
            skip_field(wire_type, number, &mut rest, DecodeContext::default()).ok()?;
            continue;
        }
        found = match wire_type {
            WireType::Varint => Some(Leaf::Number(decode_varint(&mut rest).ok()?)),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
                let (value, after) = rest.split_at_checked(length)?;
                rest = after;
                Some(Leaf::Bytes(value))
            }
            _ => return None,
        };
    }
    match (found?, inner) {
        (leaf, []) => Some(leaf),
        (Leaf::Bytes(message), inner) => field(message, inner),
        (Leaf::Number(_), _) => None,
    }
}

/// The text at `path`; empty where it is absent.
pub fn text<'a>(raw: &'a [u8], path: &[u32]) -> &'a str {
    match field(raw, path) {
        Some(Leaf::Bytes(bytes)) => std::str::from_utf8(bytes).unwrap_or_default(),
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use proto::k8s::core::v1::{Pod, PodSpec, PodStatus};

    use super::*;

    #[test]
    fn single_fields_are_read_without_the_rest() {
        let pod = Pod {
            spec: Some(PodSpec { node_name: "n1".into(), host_network: true, ..Default::default() }),
            status: Some(PodStatus { phase: "Running".into(), ..Default::default() }),
            ..Default::default()
        };
        let raw = pod.encode_to_vec();
        assert_eq!(text(&raw, &[2, 10]), "n1");
        assert_eq!(text(&raw, &[3, 1]), "Running");
        assert_eq!(field(&raw, &[2, 11]), Some(Leaf::Number(1)));
        assert_eq!(text(&raw, &[2, 99]), "");
        assert_eq!(text(b"\xff\xff\xff", &[1]), "");
    }
}
