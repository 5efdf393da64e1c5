//! Protobuf's wire format by hand: what the codec and the envelope need to work on bytes without decoding them.

/// One field's value as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// Bytes that are not protobuf; says what was wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf: {0}")]
pub struct Malformed(pub(crate) &'static str);

/// Walks the fields of one message.
#[derive(Clone)]
pub(crate) struct Fields<'a> {
    whole: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    pub fn new(message: &'a [u8]) -> Self {
        Self { whole: message, at: 0 }
    }

    /// Where the next field starts.
    pub fn offset(&self) -> usize {
        self.at
    }

    /// The next field's number and value; `None` at the end.
    #[inline]
    pub fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, Malformed> {
        if self.at == self.whole.len() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| Malformed("a field number out of range"))?;
        if number == 0 || number > 0x1fff_ffff {
            return Err(Malformed("a field number out of range"));
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.take(8)?.try_into().expect("eight bytes were taken"))),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| Malformed("a length out of range"))?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.take(4)?.try_into().expect("four bytes were taken"))),
            _ => return Err(Malformed("a wire type that proto3 does not have")),
        };
        Ok(Some((number, value)))
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let end = self.at.checked_add(length).filter(|end| *end <= self.whole.len());
        let end = end.ok_or(Malformed("a field that is longer than its message"))?;
        let taken = &self.whole[self.at..end];
        self.at = end;
        Ok(taken)
    }

    #[inline]
    pub fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..70).step_by(7) {
            let byte = *self.whole.get(self.at).ok_or(Malformed("a number that ends too early"))?;
            self.at += 1;
            if shift == 63 && byte > 1 {
                return Err(Malformed("a number longer than 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number longer than 64 bits"))
    }

    pub fn is_empty(&self) -> bool {
        self.at == self.whole.len()
    }
}

#[inline]
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

#[inline]
pub(crate) fn put_tag(number: u32, wire_type: u32, out: &mut Vec<u8>) {
    put_varint(u64::from(number << 3 | wire_type), out);
}

pub(crate) fn put_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    put_tag(number, 2, out);
    put_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

/// Writes the tag and length of what was written since `from`, in front of it.
pub(crate) fn wrap(number: u32, from: usize, out: &mut Vec<u8>) {
    let mut head = [0u8; 20];
    let mut used = 0;
    for mut value in [u64::from(number << 3 | 2), (out.len() - from) as u64] {
        while value >= 0x80 {
            head[used] = value as u8 | 0x80;
            used += 1;
            value >>= 7;
        }
        head[used] = value as u8;
        used += 1;
    }
    let end = out.len();
    out.extend_from_slice(&head[..used]);
    out.copy_within(from..end, from + used);
    out[from..from + used].copy_from_slice(&head[..used]);
}
