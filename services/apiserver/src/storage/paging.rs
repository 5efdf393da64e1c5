//! Continue tokens: the revision a list stands at and the last key it delivered.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};

/// Where the next page begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The revision of the first page; every further page is read at it.
    pub revision: i64,
    /// The last key delivered.
    pub last: String,
}

impl Token {
    /// Opaque to clients.
    pub fn encode(&self) -> String {
        BASE64_URL_SAFE_NO_PAD.encode(format!("f1:{}:{}", self.revision, self.last))
    }

    /// `None` where the text is not one of ours.
    pub fn decode(text: &str) -> Option<Self> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (revision, last) = std::str::from_utf8(&bytes).ok()?.strip_prefix("f1:")?.split_once(':')?;
        let revision = revision.parse().ok()?;
        (revision >= 0).then(|| Self { revision, last: last.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        let token = Token { revision: 42, last: "/registry/pods/a:b/c".into() };
        assert_eq!(Token::decode(&token.encode()), Some(token));
        assert_eq!(Token::decode("nonsense"), None);
    }
}
