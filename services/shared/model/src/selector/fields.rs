//! Field selectors: `spec.nodeName=n1,status.phase!=Failed`.

use std::{fmt, str::FromStr};

use super::Error;

/// A conjunction of terms on fields; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    terms: Vec<FieldTerm>,
}

/// One term: a field equals a value, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldTerm {
    /// "spec.nodeName"
    pub path: String,
    pub value: String,
    /// `!=` was written.
    pub is_negated: bool,
}

impl Fields {
    pub fn everything() -> Self {
        Self::default()
    }

    /// Parses `path=value`, `path==value` and `path!=value`, joined by commas; `\` escapes `\`, `,` and `=` in values.
    ///
    /// # Errors
    /// Where a part has no operator, or an escape is none of these.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut terms = Vec::new();
        for part in split_unescaped(text) {
            if part.is_empty() {
                continue;
            }
            let wrong = || Error::Field { selector: text.to_owned(), part: part.to_owned() };
            let (path, is_negated, value) = split_term(part).ok_or_else(wrong)?;
            let value = unescape(value).ok_or_else(wrong)?;
            if path.is_empty() {
                return Err(wrong());
            }
            terms.push(FieldTerm { path: path.to_owned(), value, is_negated });
        }
        Ok(Self { terms })
    }

    pub fn is_everything(&self) -> bool {
        self.terms.is_empty()
    }

    pub fn terms(&self) -> &[FieldTerm] {
        &self.terms
    }

    /// The value that the field must have, where the selector says so: lets a list become a lookup.
    pub fn required(&self, path: &str) -> Option<&str> {
        self.terms.iter().find(|term| term.path == path && !term.is_negated).map(|term| term.value.as_str())
    }

    /// `value_of` gives a field's text, empty where it is unset.
    pub fn matches<T: AsRef<str>>(&self, value_of: impl Fn(&str) -> T) -> bool {
        self.terms.iter().all(|term| (value_of(&term.path).as_ref() == term.value) != term.is_negated)
    }
}

impl FromStr for Fields {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl fmt::Display for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, term) in self.terms.iter().enumerate() {
            let operator = if term.is_negated { "!=" } else { "=" };
            let value = term.value.replace('\\', "\\\\").replace(',', "\\,").replace('=', "\\=");
            write!(f, "{}{}{operator}{value}", if at == 0 { "" } else { "," }, term.path)?;
        }
        Ok(())
    }
}

fn split_unescaped(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut is_escaped) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            ',' => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

fn split_term(part: &str) -> Option<(&str, bool, &str)> {
    let at = part.find(['=', '!'])?;
    let (path, rest) = part.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((path, true, value));
    }
    Some((path, false, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?))
}

fn unescape(value: &str) -> Option<String> {
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(|next| matches!(next, '\\' | ',' | '='))?),
            ',' | '=' => return None,
            c => text.push(c),
        }
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_selectors_print_what_was_parsed() {
        for (text, canonical) in [
            ("", ""),
            ("spec.nodeName=n1,status.phase!=Failed", "spec.nodeName=n1,status.phase!=Failed"),
            ("a==b,", "a=b"),
            (r"a=b\,c\=d\\e", r"a=b\,c\=d\\e"),
            ("spec.nodeName=", "spec.nodeName="),
        ] {
            assert_eq!(Fields::parse(text).unwrap().to_string(), canonical);
        }
    }

    #[test]
    fn every_term_must_hold() {
        let fields = Fields::parse("spec.nodeName=n1,status.phase!=Failed").unwrap();
        let at = |node: &'static str, phase: &'static str| {
            fields.matches(move |path| if path == "spec.nodeName" { node } else { phase })
        };
        assert!(at("n1", "Running"));
        assert!(!at("n1", "Failed"));
        assert!(!at("n2", "Running"));
        assert_eq!(fields.required("spec.nodeName"), Some("n1"));
        assert_eq!(fields.required("status.phase"), None);
    }

    #[test]
    fn a_part_without_an_operator_is_refused() {
        for text in ["name", "a=b,c", "=x", r"a=\x", "a=b=c", "a!b"] {
            assert!(Fields::parse(text).is_err(), "{text}");
        }
    }
}
