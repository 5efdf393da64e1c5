//! JSON manifests: one value or several, one after the other, with the place of every field.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::{DEPTH_MAX, Document, Error, Place, Places, error, field_path};

struct Reader<'a> {
    source: &'a str,
    text: &'a str,
    at: usize,
    line: usize,
    line_start: usize,
    places: HashMap<String, Places>,
}

pub fn parse(text: &str, source: &str) -> Result<Vec<Document>, Error> {
    let mut reader = Reader { source, text, at: 0, line: 1, line_start: 0, places: HashMap::new() };
    let mut documents = Vec::new();
    loop {
        reader.skip_space();
        if reader.at == text.len() {
            return Ok(documents);
        }
        let start = reader.place();
        let value = reader.value("", 0)?;
        let places = std::mem::take(&mut reader.places);
        if !value.is_null() {
            documents.push(Document { value, source: source.to_owned(), start, places });
        }
    }
}

impl Reader<'_> {
    fn value(&mut self, path: &str, depth: usize) -> Result<Value, Error> {
        if depth > DEPTH_MAX {
            return Err(self.error(format!("values nest deeper than {DEPTH_MAX} levels")));
        }
        match self.peek() {
            Some(b'{') => self.fields(path, depth),
            Some(b'[') => self.list(path, depth),
            Some(b'"') => self.string().map(Value::String),
            Some(_) => self.bare(),
            None => Err(self.error("the text ends where a value was expected")),
        }
    }

    fn fields(&mut self, path: &str, depth: usize) -> Result<Value, Error> {
        let (mut map, mut seen) = (Map::new(), HashSet::new());
        self.at += 1;
        self.skip_space();
        if self.take(b'}') {
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            let place = self.place();
            let key = self.string()?;
            if !seen.insert(key.clone()) {
                return Err(error(self.source, place, format!("key {key:?} already set in map")));
            }
            self.skip_space();
            self.expect(b':')?;
            self.skip_space();
            let field = field_path(path, &key);
            self.places.insert(field.clone(), Places { key: place, value: self.place() });
            map.insert(key, self.value(&field, depth + 1)?);
            self.skip_space();
            if self.take(b'}') {
                return Ok(Value::Object(map));
            }
            self.expect(b',')?;
        }
    }

    fn list(&mut self, path: &str, depth: usize) -> Result<Value, Error> {
        let mut values = Vec::new();
        self.at += 1;
        self.skip_space();
        if self.take(b']') {
            return Ok(Value::Array(values));
        }
        loop {
            self.skip_space();
            let element = format!("{path}[{}]", values.len());
            self.places.insert(element.clone(), Places { key: self.place(), value: self.place() });
            values.push(self.value(&element, depth + 1)?);
            self.skip_space();
            if self.take(b']') {
                return Ok(Value::Array(values));
            }
            self.expect(b',')?;
        }
    }

    fn string(&mut self) -> Result<String, Error> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a name in double quotes was expected"));
        }
        let (bytes, start) = (self.text.as_bytes(), self.at);
        let mut end = start + 1;
        while end < bytes.len() && bytes[end] != b'"' {
            end += if bytes[end] == b'\\' { 2 } else { 1 };
        }
        let raw = self.text.get(start..=end).ok_or_else(|| self.error("the text ends inside a string"))?;
        let text =
            serde_json::from_str(raw).map_err(|_| self.error("a string with a bad escape or a control character"))?;
        self.at = end + 1;
        Ok(text)
    }

    /// true, false, null, or a number.
    fn bare(&mut self) -> Result<Value, Error> {
        let rest = &self.text[self.at..];
        let end =
            rest.find(|c: char| c.is_whitespace() || matches!(c, ',' | ']' | '}' | ':' | '"')).unwrap_or(rest.len());
        let value = serde_json::from_str(&rest[..end])
            .map_err(|_| self.error(format!("{:?} is not a value: quote it if it is text", &rest[..end])))?;
        self.at += end;
        Ok(value)
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        self.at += usize::from(is_there);
        is_there
    }

    fn expect(&mut self, byte: u8) -> Result<(), Error> {
        if self.take(byte) {
            return Ok(());
        }
        Err(self.error(format!("'{}' was expected", char::from(byte))))
    }

    fn skip_space(&mut self) {
        while let Some(byte @ (b' ' | b'\t' | b'\r' | b'\n')) = self.peek() {
            self.at += 1;
            if byte == b'\n' {
                (self.line, self.line_start) = (self.line + 1, self.at);
            }
        }
    }

    fn place(&self) -> Place {
        let before = self.text.get(self.line_start..self.at).unwrap_or_default();
        Place { line: self.line, column: before.chars().count() + 1 }
    }

    fn error(&self, message: impl Into<String>) -> Error {
        error(self.source, self.place(), message)
    }
}
