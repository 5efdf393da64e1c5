//! Netlink's framing: messages of attributes, four-byte aligned, in the machine's byte order.

/// Marks an attribute that holds attributes.
const NESTED: u16 = 0x8000;
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;

/// Writes attributes.
#[derive(Debug, Default)]
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn bytes(&mut self, number: u16, value: &[u8]) {
        let start = self.begin(number);
        self.0.extend_from_slice(value);
        self.end(start);
    }

    pub fn u16(&mut self, number: u16, value: u16) {
        self.bytes(number, &value.to_ne_bytes());
    }

    /// Ports travel in network order.
    pub fn u16_be(&mut self, number: u16, value: u16) {
        self.bytes(number, &value.to_be_bytes());
    }

    pub fn u32(&mut self, number: u16, value: u32) {
        self.bytes(number, &value.to_ne_bytes());
    }

    /// Text ends with a zero byte.
    pub fn text(&mut self, number: u16, value: &str) {
        let start = self.begin(number);
        self.0.extend_from_slice(value.as_bytes());
        self.0.push(0);
        self.end(start);
    }

    pub fn nested(&mut self, number: u16, write: impl FnOnce(&mut Self)) {
        let start = self.begin(number | NESTED);
        write(self);
        self.end(start);
    }

    pub fn raw(&mut self, value: &[u8]) {
        self.0.extend_from_slice(value);
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn begin(&mut self, number: u16) -> usize {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&number.to_ne_bytes());
        start
    }

    /// Puts the length in, which does not count the padding.
    fn end(&mut self, start: usize) {
        let length = u16::try_from(self.0.len() - start).expect("attributes of this crate are far below 64 KiB");
        self.0[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.0.resize(start + usize::from(length).next_multiple_of(4), 0);
    }
}

/// Attributes of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Attributes<'a>(pub &'a [u8]);

impl<'a> Attributes<'a> {
    /// Number and value of each; ends at the first that is damaged.
    pub fn iter(self) -> impl Iterator<Item = (u16, &'a [u8])> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let length = usize::from(u16::from_ne_bytes(array(rest)?));
            let number = u16::from_ne_bytes(array(rest.get(2..)?)?) & TYPE_MASK;
            let value = rest.get(HEADER..length)?;
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            Some((number, value))
        })
    }

    pub fn get(self, number: u16) -> Option<&'a [u8]> {
        self.iter().find(|(found, _)| *found == number).map(|(_, value)| value)
    }

    pub fn nested(self, number: u16) -> Attributes<'a> {
        Attributes(self.get(number).unwrap_or_default())
    }

    pub fn u16(self, number: u16) -> Option<u16> {
        array(self.get(number)?).map(u16::from_ne_bytes)
    }

    pub fn u16_be(self, number: u16) -> Option<u16> {
        array(self.get(number)?).map(u16::from_be_bytes)
    }

    pub fn u32(self, number: u16) -> Option<u32> {
        array(self.get(number)?).map(u32::from_ne_bytes)
    }

    pub fn u64(self, number: u16) -> Option<u64> {
        array(self.get(number)?).map(u64::from_ne_bytes)
    }

    pub fn text(self, number: u16) -> Option<String> {
        let bytes = self.get(number)?;
        let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
        String::from_utf8(text.to_vec()).ok()
    }
}

/// The first bytes, where there are as many.
pub fn array<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    bytes.get(..N)?.try_into().ok()
}
