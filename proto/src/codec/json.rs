//! A pull reader for JSON text: the caller asks for what it expects and sees every key, duplicates too.

use std::borrow::Cow;

use super::{Error, text};

/// Nested arrays and objects in one document; serde_json has about the same bound.
const DEPTH_MAX: usize = 120;

#[derive(Clone)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

impl<'a> Reader<'a> {
    pub fn new(json: &'a [u8]) -> Result<Self, Error> {
        match std::str::from_utf8(json) {
            Ok(text) => Ok(Self { text, at: 0, depth: 0 }),
            Err(error) => Err(syntax(json, error.valid_up_to(), "not UTF-8")),
        }
    }

    fn fail<T>(&self, reason: &str) -> Result<T, Error> {
        Err(syntax(self.text.as_bytes(), self.at, reason))
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// The first byte of what comes next, behind white space.
    #[inline]
    pub fn peek(&mut self) -> Result<u8, Error> {
        loop {
            match self.byte() {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return Ok(byte),
                None => return self.fail("unexpected end of JSON input"),
            }
        }
    }

    /// Refuses anything but white space behind the document.
    pub fn end(&mut self) -> Result<(), Error> {
        match self.peek() {
            Err(_) => Ok(()),
            Ok(_) => self.fail("characters behind the end of the document"),
        }
    }

    /// Steps into an object or an array, whose bracket was seen.
    pub fn open(&mut self) -> Result<(), Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return self.fail("objects and arrays nest too deep");
        }
        self.at += 1;
        Ok(())
    }

    /// The next key, with its colon read; `None` behind the object. `first` is cleared.
    #[inline]
    pub fn next_key(&mut self, first: &mut bool) -> Result<Option<Cow<'a, str>>, Error> {
        match (self.peek()?, *first) {
            (b'}', _) => {
                self.at += 1;
                self.depth -= 1;
                return Ok(None);
            }
            (b',', false) => {
                self.at += 1;
                self.peek()?;
            }
            (_, true) => *first = false,
            _ => return self.fail("expected , or } in an object"),
        }
        if self.byte() != Some(b'"') {
            return self.fail("expected a key in quotes");
        }
        let key = self.string()?;
        if self.peek()? != b':' {
            return self.fail("expected : behind the key");
        }
        self.at += 1;
        Ok(Some(key))
    }

    /// Whether another element follows; false behind the array. `first` is cleared.
    #[inline]
    pub fn next_element(&mut self, first: &mut bool) -> Result<bool, Error> {
        match (self.peek()?, *first) {
            (b']', true) => {}
            (_, true) => {
                *first = false;
                return Ok(true);
            }
            (b']', false) => {}
            (b',', false) => {
                self.at += 1;
                if self.peek()? == b']' {
                    return self.fail("expected a value behind the comma");
                }
                return Ok(true);
            }
            _ => return self.fail("expected , or ] in an array"),
        }
        self.at += 1;
        self.depth -= 1;
        Ok(false)
    }

    /// `null`, `true` or `false`, whose first letter was seen.
    pub fn literal(&mut self, word: &'static str) -> Result<(), Error> {
        if !self.text.as_bytes()[self.at..].starts_with(word.as_bytes()) {
            return self.fail("expected a value");
        }
        self.at += word.len();
        Ok(())
    }

    /// A string, whose quote was seen. A half surrogate pair reads as U+FFFD, as in Go.
    #[inline]
    pub fn string(&mut self) -> Result<Cow<'a, str>, Error> {
        let start = self.at + 1;
        let bytes = self.text.as_bytes();
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => {
                    self.at = at + 1;
                    return Ok(Cow::Borrowed(&self.text[start..at]));
                }
                Some(b'\\') => return self.escaped_string(start, at),
                Some(byte) if *byte >= b' ' => at += 1,
                _ => {
                    self.at = at;
                    return self.fail(if at < bytes.len() {
                        "a control character in a string"
                    } else {
                        "a string that does not end"
                    });
                }
            }
        }
    }

    #[cold]
    fn escaped_string(&mut self, start: usize, escape: usize) -> Result<Cow<'a, str>, Error> {
        let mut value = self.text[start..escape].to_owned();
        self.at = escape;
        loop {
            let plain = self.text.as_bytes()[self.at..]
                .iter()
                .take_while(|b| **b >= b' ' && **b != b'"' && **b != b'\\')
                .count();
            value.push_str(&self.text[self.at..self.at + plain]);
            self.at += plain;
            match self.byte() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(value));
                }
                Some(b'\\') => {
                    self.at += 1;
                    let character = self.escape()?;
                    value.push(character);
                }
                Some(_) => return self.fail("a control character in a string"),
                None => return self.fail("a string that does not end"),
            }
        }
    }

    fn escape(&mut self) -> Result<char, Error> {
        let Some(letter) = self.byte() else { return self.fail("a string that does not end") };
        let character = match letter {
            b'"' | b'\\' | b'/' => letter as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                self.at += 1;
                return self.unicode_escape();
            }
            _ => return self.fail("an unknown escape in a string"),
        };
        self.at += 1;
        Ok(character)
    }

    fn unicode_escape(&mut self) -> Result<char, Error> {
        let high = self.hex4()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Ok(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.at;
        if self.text.as_bytes()[self.at..].starts_with(b"\\u") {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                let code = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
                return Ok(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.at = before;
        }
        Ok(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Result<u32, Error> {
        let mut value = 0;
        for _ in 0..4 {
            match self.byte().and_then(|byte| (byte as char).to_digit(16)) {
                Some(digit) => value = value * 16 + digit,
                None => return self.fail("expected four hexadecimal digits"),
            }
            self.at += 1;
        }
        Ok(value)
    }

    /// A number's text, checked to be one.
    pub fn number(&mut self) -> Result<&'a str, Error> {
        let start = self.at;
        if self.byte() == Some(b'-') {
            self.at += 1;
        }
        match self.byte() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.byte() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if matches!(self.byte(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.byte(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self) -> Result<(), Error> {
        let count = self.text.as_bytes()[self.at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        if count == 0 {
            return self.fail("expected a value");
        }
        self.at += count;
        Ok(())
    }

    /// Copies the next value without its white space, checked to be JSON.
    pub fn copy(&mut self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self.peek()? {
            b'{' => {
                self.open()?;
                out.push(b'{');
                let mut first = true;
                let mut comma = false;
                while let Some(key) = self.next_key(&mut first)? {
                    if comma {
                        out.push(b',');
                    }
                    comma = true;
                    text::push_string(&key, out);
                    out.push(b':');
                    self.copy(out)?;
                }
                out.push(b'}');
            }
            b'[' => {
                self.open()?;
                out.push(b'[');
                let mut first = true;
                let mut comma = false;
                while self.next_element(&mut first)? {
                    if comma {
                        out.push(b',');
                    }
                    comma = true;
                    self.copy(out)?;
                }
                out.push(b']');
            }
            b'"' => text::push_string(&self.string()?, out),
            b'n' => self.literal("null").map(|()| out.extend_from_slice(b"null"))?,
            b't' => self.literal("true").map(|()| out.extend_from_slice(b"true"))?,
            b'f' => self.literal("false").map(|()| out.extend_from_slice(b"false"))?,
            _ => out.extend_from_slice(self.number()?.as_bytes()),
        }
        Ok(())
    }

    /// Reads over the next value, checked to be JSON.
    pub fn skip(&mut self) -> Result<(), Error> {
        match self.peek()? {
            b'{' => {
                self.open()?;
                let mut first = true;
                while self.next_key(&mut first)?.is_some() {
                    self.skip()?;
                }
                Ok(())
            }
            b'[' => {
                self.open()?;
                let mut first = true;
                while self.next_element(&mut first)? {
                    self.skip()?;
                }
                Ok(())
            }
            b'"' => self.string().map(drop),
            b'n' => self.literal("null"),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            _ => self.number().map(drop),
        }
    }

    /// The next value as Go's errors name it: `string "three"`, `number 1.5`, `object`.
    pub fn describe(&mut self) -> Result<String, Error> {
        Ok(match self.peek()? {
            b'{' => "object".to_owned(),
            b'[' => "array".to_owned(),
            b'n' => "null".to_owned(),
            b't' => "bool true".to_owned(),
            b'f' => "bool false".to_owned(),
            b'"' => format!("string {}", quoted(&self.string()?)),
            _ => format!("number {}", self.number()?),
        })
    }
}

/// A value in an error message, cut where it is long.
pub(super) fn quoted(value: &str) -> String {
    const SHOWN_MAX: usize = 80;
    if value.chars().count() <= SHOWN_MAX {
        return format!("{value:?}");
    }
    format!("{:?}...", value.chars().take(SHOWN_MAX).collect::<String>())
}

fn syntax(json: &[u8], at: usize, reason: &str) -> Error {
    let before = &json[..at.min(json.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |newline| newline + 1);
    Error::Syntax {
        line: 1 + before.iter().filter(|byte| **byte == b'\n').count(),
        column: 1 + String::from_utf8_lossy(&before[line_start..]).chars().count(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(json: &str) -> Result<String, Error> {
        let mut reader = Reader::new(json.as_bytes())?;
        let mut out = Vec::new();
        reader.copy(&mut out)?;
        reader.end()?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn copies_are_compact_and_equal() {
        for (json, wanted) in [
            (
                " { \"a\" : [ 1 , -2.5e+3 , true , false , null ] , \"\" : { } } ",
                r#"{"a":[1,-2.5e+3,true,false,null],"":{}}"#,
            ),
            (r#""\u0041\ud83d\ude00\/\b\ud800x\udc00""#, "\"A\u{1f600}/\\u0008\u{fffd}x\u{fffd}\""),
            (r#""\ud800\u0041""#, "\"\u{fffd}A\""),
            ("0", "0"),
            ("[]", "[]"),
        ] {
            assert_eq!(copy(json).as_deref(), Ok(wanted));
        }
    }

    #[test]
    fn what_is_no_json_is_refused_with_its_place() {
        for json in [
            "",
            " ",
            "{",
            "[",
            "[1,",
            "[1,]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{,}",
            "{a:1}",
            "[1 2]",
            "01",
            "-",
            "1.",
            "1e",
            ".5",
            "+1",
            "nul",
            "tru",
            "\"",
            "\"\\",
            "\"\\x\"",
            "\"\\u12\"",
            "\"\u{1}\"",
            "1 2",
            "{}}",
            "NaN",
            "'a'",
            "[}",
            "{]",
        ] {
            assert!(matches!(copy(json), Err(Error::Syntax { .. })), "{json}");
        }
        let error = copy("{\n  \"\u{e9}\": x}").unwrap_err();
        assert_eq!(error.to_string(), "invalid JSON at line 2, column 8: expected a value");
        assert!(copy(&"[".repeat(1_000_000)).is_err());
    }
}
