//! Keys that stand twice in one object of a document that is no message's: a patch, of which parsers keep the last.

use std::{collections::BTreeSet, fmt::Write};

use super::{Error, ISSUES_MAX, Issue, IssueKind, json::Reader};

/// The keys of a JSON document that repeat in their object, in the document's order.
///
/// # Errors
/// Where the text is not JSON, or nests too deep.
pub fn duplicate_keys(json: &[u8]) -> Result<Vec<Issue>, Error> {
    let mut search = Search { reader: Reader::new(json)?, path: String::new(), found: Vec::new() };
    search.value()?;
    search.reader.end()?;
    Ok(search.found)
}

struct Search<'a> {
    reader: Reader<'a>,
    path: String,
    found: Vec<Issue>,
}

impl Search<'_> {
    /// The reader bounds how deep this calls itself.
    fn value(&mut self) -> Result<(), Error> {
        let outer = self.path.len();
        let mut first = true;
        match self.reader.peek()? {
            b'{' => {
                self.reader.open()?;
                let mut seen = BTreeSet::new();
                while let Some(key) = self.reader.next_key(&mut first)? {
                    let dot = if outer == 0 { "" } else { "." };
                    let _ = write!(self.path, "{dot}{key}");
                    if !seen.insert(key.clone()) && self.found.len() < ISSUES_MAX {
                        self.found.push(Issue {
                            path: self.path.clone(),
                            kind: IssueKind::DuplicateField,
                            message: None,
                            name: key.into_owned(),
                        });
                    }
                    self.value()?;
                    self.path.truncate(outer);
                }
            }
            b'[' => {
                self.reader.open()?;
                let mut index = 0;
                while self.reader.next_element(&mut first)? {
                    let _ = write!(self.path, "[{index}]");
                    self.value()?;
                    self.path.truncate(outer);
                    index += 1;
                }
            }
            _ => self.reader.skip()?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_keys_are_named_by_where_they_stand() {
        let json = br#"{"a":{"b":1,"c":{},"b":[{"x":1,"x":2}]},"d":"b","a":null}"#;
        let found: Vec<String> = duplicate_keys(json).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, [r#"duplicate field "a.b""#, r#"duplicate field "a.b[0].x""#, r#"duplicate field "a""#]);
        assert_eq!(duplicate_keys(br#"{"a":{"b":1},"c":{"b":1}}"#).unwrap(), []);
        assert!(duplicate_keys(b"{").is_err());
        assert!(duplicate_keys("[".repeat(100_000).as_bytes()).is_err());
    }
}
