//! Label selectors, in the set syntax: `app=web,tier in (a,b),!canary`.

use std::{collections::BTreeMap, fmt, str::FromStr};

use proto::k8s::meta::v1 as meta;

use super::Error;
use crate::validate;

/// A conjunction of requirements on labels; the empty one selects everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    requirements: Vec<Requirement>,
    nothing: bool,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Requirement {
    pub key: String,
    pub operator: Operator,
    /// Sorted. One value for `Equals`, `NotEquals`, `GreaterThan` and `LessThan`, none for the questions of existence.
    pub values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    GreaterThan,
    LessThan,
}

impl Labels {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }

    /// Selects no object: what an absent `LabelSelector` means.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Selects objects that carry all of these labels with these values.
    pub fn exactly(labels: &BTreeMap<String, String>) -> Self {
        let requirement = |(key, value): (&String, &String)| Requirement {
            key: key.clone(),
            operator: Operator::Equals,
            values: vec![value.clone()],
        };
        Self { requirements: labels.iter().map(requirement).collect(), nothing: false }
    }

    /// Reads a `LabelSelector` message: absent selects nothing, empty selects everything.
    ///
    /// # Errors
    /// Where an operator is unknown or its values do not suit it.
    pub fn of(selector: Option<&meta::LabelSelector>) -> Result<Self, Error> {
        let Some(selector) = selector else {
            return Ok(Self::nothing());
        };
        let mut labels = Self::exactly(&selector.match_labels);
        for expression in &selector.match_expressions {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                _ => return Err(Error::UnknownOperator { operator: expression.operator.clone() }),
            };
            labels.requirements.push(Requirement::new(&expression.key, operator, expression.values.clone())?);
        }
        labels.requirements.sort();
        Ok(labels)
    }

    /// Parses kubectl's `-l` syntax.
    ///
    /// # Errors
    /// Names the part that cannot be understood and what was expected there.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let mut tokens = Tokens { rest: text };
        let mut requirements = Vec::new();
        loop {
            match tokens.next() {
                Token::End => break,
                Token::Comma => continue,
                token => requirements.push(requirement(token, &mut tokens)?),
            }
            match tokens.next() {
                Token::End => break,
                Token::Comma => {}
                other => return Err(Error::Syntax { found: other.to_string(), expected: "',' or the end" }),
            }
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements, nothing: false })
    }

    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty() && !self.nothing
    }

    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }
}

impl FromStr for Labels {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl Requirement {
    /// A requirement whose key and values are proven to suit the operator.
    ///
    /// # Errors
    /// Names the key or the value that is wrong.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, Error> {
        if let Some(reason) = validate::qualified_name(key).into_iter().next() {
            return Err(Error::Key { key: key.to_owned(), reason });
        }
        let wrong = |reason| Error::Operator { operator: operator.name().to_owned(), reason };
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => return Err(wrong("values set can't be empty")),
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return Err(wrong("values set must be empty"));
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                return Err(wrong("exact-match compatibility requires one single value"));
            }
            Operator::GreaterThan | Operator::LessThan if !matches!(&values[..], [one] if one.parse::<i64>().is_ok()) =>
            {
                return Err(wrong("exactly one value is required, and it must be an integer"));
            }
            _ => {}
        }
        for value in &values {
            if let Some(reason) = validate::label_value(value).into_iter().next() {
                return Err(Error::Value { key: key.to_owned(), value: value.clone(), reason });
            }
        }
        values.sort();
        values.dedup();
        Ok(Self { key: key.to_owned(), operator, values })
    }

    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Equals | Operator::In => value.is_some_and(|value| self.values.contains(value)),
            Operator::NotEquals | Operator::NotIn => value.is_none_or(|value| !self.values.contains(value)),
            Operator::GreaterThan => self.compare(value).is_some_and(|(label, bound)| label > bound),
            Operator::LessThan => self.compare(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn compare(&self, value: Option<&String>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

impl Operator {
    fn name(self) -> &'static str {
        match self {
            Self::Equals => "=",
            Self::NotEquals => "!=",
            Self::In => "in",
            Self::NotIn => "notin",
            Self::Exists => "exists",
            Self::DoesNotExist => "!",
            Self::GreaterThan => "gt",
            Self::LessThan => "lt",
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if at == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// Reads one requirement whose first token has been taken.
fn requirement(first: Token<'_>, tokens: &mut Tokens<'_>) -> Result<Requirement, Error> {
    let key = match first {
        Token::Word(key) => key,
        Token::Not => match tokens.next() {
            Token::Word(key) => return Requirement::new(key, Operator::DoesNotExist, Vec::new()),
            other => return Err(Error::Syntax { found: other.to_string(), expected: "a label key after '!'" }),
        },
        other => return Err(Error::Syntax { found: other.to_string(), expected: "a label key or '!'" }),
    };
    let before = tokens.rest;
    match tokens.next() {
        Token::End | Token::Comma => {
            tokens.rest = before;
            Requirement::new(key, Operator::Exists, Vec::new())
        }
        Token::Equals => Requirement::new(key, Operator::Equals, vec![exact(tokens)?]),
        Token::NotEquals => Requirement::new(key, Operator::NotEquals, vec![exact(tokens)?]),
        Token::Greater => Requirement::new(key, Operator::GreaterThan, vec![exact(tokens)?]),
        Token::Less => Requirement::new(key, Operator::LessThan, vec![exact(tokens)?]),
        Token::Word("in") => Requirement::new(key, Operator::In, set(tokens)?),
        Token::Word("notin") => Requirement::new(key, Operator::NotIn, set(tokens)?),
        other => Err(Error::Syntax {
            found: other.to_string(),
            expected: "in, notin, =, ==, !=, gt, lt, or the end of the requirement",
        }),
    }
}

/// The one value after `=`; nothing there means the empty value.
fn exact(tokens: &mut Tokens<'_>) -> Result<String, Error> {
    let before = tokens.rest;
    match tokens.next() {
        Token::Word(value) => Ok(value.to_owned()),
        Token::End | Token::Comma => {
            tokens.rest = before;
            Ok(String::new())
        }
        other => Err(Error::Syntax { found: other.to_string(), expected: "a label value" }),
    }
}

/// The values in parentheses; `()` and `(a,)` hold the empty value, as upstream reads them.
fn set(tokens: &mut Tokens<'_>) -> Result<Vec<String>, Error> {
    match tokens.next() {
        Token::Open => {}
        other => return Err(Error::Syntax { found: other.to_string(), expected: "'('" }),
    }
    let mut values = Vec::new();
    loop {
        match tokens.next() {
            Token::Word(value) => {
                values.push(value.to_owned());
                match tokens.next() {
                    Token::Comma => {}
                    Token::Close => return Ok(values),
                    other => return Err(Error::Syntax { found: other.to_string(), expected: "',' or ')'" }),
                }
            }
            Token::Comma => values.push(String::new()),
            Token::Close => {
                values.push(String::new());
                return Ok(values);
            }
            other => return Err(Error::Syntax { found: other.to_string(), expected: "a label value or ')'" }),
        }
    }
}

struct Tokens<'a> {
    rest: &'a str,
}

#[derive(Clone, Copy, PartialEq)]
enum Token<'a> {
    Word(&'a str),
    Comma,
    Not,
    NotEquals,
    Equals,
    Greater,
    Less,
    Open,
    Close,
    End,
}

impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Token::Word(word) => word,
            Token::Comma => ",",
            Token::Not => "!",
            Token::NotEquals => "!=",
            Token::Equals => "=",
            Token::Greater => ">",
            Token::Less => "<",
            Token::Open => "(",
            Token::Close => ")",
            Token::End => "",
        })
    }
}

impl<'a> Tokens<'a> {
    fn next(&mut self) -> Token<'a> {
        const MARKS: [(&str, Token<'_>); 9] = [
            ("!=", Token::NotEquals),
            ("!", Token::Not),
            ("==", Token::Equals),
            ("=", Token::Equals),
            (",", Token::Comma),
            (">", Token::Greater),
            ("<", Token::Less),
            ("(", Token::Open),
            (")", Token::Close),
        ];
        let text = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        if text.is_empty() {
            self.rest = text;
            return Token::End;
        }
        for (mark, token) in MARKS {
            if let Some(rest) = text.strip_prefix(mark) {
                self.rest = rest;
                return token;
            }
        }
        let ends = |c: char| matches!(c, '!' | '=' | ',' | '>' | '<' | '(' | ')' | ' ' | '\t' | '\r' | '\n');
        let (word, rest) = text.split_at(text.find(ends).unwrap_or(text.len()));
        self.rest = rest;
        Token::Word(word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn selectors_print_in_canonical_form() {
        for (text, canonical) in [
            ("", ""),
            ("app=web", "app=web"),
            ("app==web , tier in (b, a)", "app=web,tier in (a,b)"),
            ("x notin (c),!y, z", "x notin (c),!y,z"),
            ("a!=b,n>3,m<4", "a!=b,m<4,n>3"),
            ("example.com/role=", "example.com/role="),
            (" a = b ", "a=b"),
            ("in in (in)", "in in (in)"),
        ] {
            let selector = Labels::parse(text).unwrap();
            assert_eq!(selector.to_string(), canonical, "{text}");
            assert_eq!(Labels::parse(canonical).unwrap(), selector, "{text}");
        }
    }

    #[test]
    fn matching_follows_the_operators() {
        let web = labels(&[("app", "web"), ("tier", "a"), ("n", "5")]);
        for (text, expected) in [
            ("", true),
            ("app=web", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=x", true),
            ("missing notin (x)", true),
            ("missing", false),
            ("!missing", true),
            ("tier in (a,b)", true),
            ("tier notin (a,b)", false),
            ("n>4,n<6", true),
            ("n>5", false),
            ("app>5", false),
        ] {
            assert_eq!(Labels::parse(text).unwrap().matches(&web), expected, "{text}");
        }
    }

    #[test]
    fn wrong_selectors_say_what_was_expected() {
        for (text, message) in [
            ("a=b=c", "unable to parse requirement: found '=', expected: ',' or the end"),
            ("=b", "unable to parse requirement: found '=', expected: a label key or '!'"),
            ("a in b", "unable to parse requirement: found 'b', expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            ("n>x", "for 'gt' operator, exactly one value is required, and it must be an integer"),
        ] {
            assert_eq!(Labels::parse(text).unwrap_err().to_string(), message, "{text}");
        }
        assert!(Labels::parse("-a=b").is_err());
        assert!(Labels::parse("a=-b").is_err());
    }

    #[test]
    fn an_absent_selector_selects_nothing_and_an_empty_one_everything() {
        assert!(!Labels::of(None).unwrap().matches(&labels(&[])));
        assert!(Labels::of(Some(&meta::LabelSelector::default())).unwrap().matches(&labels(&[])));
    }

    #[test]
    fn expressions_and_labels_of_a_message_are_joined() {
        let selector = meta::LabelSelector {
            match_labels: labels(&[("app", "web")]),
            match_expressions: vec![meta::LabelSelectorRequirement {
                key: "tier".into(),
                operator: "NotIn".into(),
                values: vec!["b".into()],
            }],
        };
        let selector = Labels::of(Some(&selector)).unwrap();
        assert_eq!(selector.to_string(), "app=web,tier notin (b)");
        assert!(selector.matches(&labels(&[("app", "web")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "b")])));
    }
}
