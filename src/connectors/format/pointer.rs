//! JSON pointers (RFC 6901): one value of a document, by the way to it.

use super::scan::{Malformed, Scanner, Token, unescape};
use crate::error::{Error, Result, SqlState};

/// The way to a value: names of members, numbers of elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// As it is written: `/data/items/0`; nothing is the whole document.
    ///
    /// # Errors
    /// 22023 when it does not begin with a slash.
    pub fn new(text: &str) -> Result<Pointer> {
        let Some(rest) = text.strip_prefix('/') else {
            if text.is_empty() {
                return Ok(Pointer(Vec::new()));
            }
            let message = format!("\"{text}\" is no JSON pointer: it does not begin with a slash");
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_hint("Pointers are like /data or /meta/next."));
        };
        Ok(Pointer(rest.split('/').map(|part| part.replace("~1", "/").replace("~0", "~")).collect()))
    }

    /// The value in a document, as written; `None`: it has none there.
    ///
    /// # Errors
    /// The document is no JSON.
    pub fn find<'a>(&self, document: &'a str) -> std::result::Result<Option<&'a str>, Malformed> {
        let mut whole = Scanner::new(document);
        whole.value()?;
        whole.end()?;
        let mut value = document;
        for part in &self.0 {
            match step(value, part)? {
                Some(inner) => value = inner,
                None => return Ok(None),
            }
        }
        Ok(Some(value))
    }

    /// The value in a document as text: of a string its characters, of a number its digits. `None`: there is none, or
    /// nothing that says anything: null, false, an empty string.
    ///
    /// # Errors
    /// The document is no JSON.
    pub fn text(&self, document: &str) -> std::result::Result<Option<String>, Malformed> {
        let Some(value) = self.find(document)? else { return Ok(None) };
        let text = match Scanner::new(value).value()? {
            Token::Null | Token::Bool(false) => return Ok(None),
            Token::Bool(true) => "true".to_string(),
            Token::Number(text) | Token::Nested(text) | Token::String(text, false) => text.to_string(),
            Token::String(text, true) => {
                let mut unescaped = String::new();
                unescape(text, 0, &mut unescaped)?;
                unescaped
            }
        };
        Ok(Some(text).filter(|t| !t.is_empty()))
    }
}

/// The member, or the element, of a value that is known to be well formed.
fn step<'a>(value: &'a str, part: &str) -> std::result::Result<Option<&'a str>, Malformed> {
    let mut scanner = Scanner::new(value);
    scanner.skip_space();
    let mut found = None;
    let pass = |s: &mut Scanner<'a>| {
        s.skip_space();
        let from = s.position();
        s.value()?;
        Ok(value.get(from..s.position()))
    };
    match scanner.peek() {
        Some(b'{') => scanner.object(|s, name, escaped| {
            let mut unescaped = String::new();
            if escaped {
                unescape(name, s.position(), &mut unescaped)?;
            }
            let is_it = part == if escaped { unescaped.as_str() } else { name };
            let member = pass(s)?;
            if is_it {
                found = member;
            }
            Ok(())
        })?,
        Some(b'[') => {
            let wanted: Option<usize> = part.parse().ok();
            let mut n = 0;
            scanner.array(|s| {
                let element = pass(s)?;
                if wanted == Some(n) {
                    found = element;
                }
                n += 1;
                Ok(())
            })?;
        }
        _ => {}
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_lead_to_values() {
        let document = r#" {"a": {"b/c": [1, {"~": "x\u0041"}]}, "n": null, "e": "", "a": {"b/c": [ true , {"~":"x\u0041"} ]}} "#;
        let find = |pointer: &str| Pointer::new(pointer).unwrap().find(document).unwrap();
        assert_eq!(find(""), Some(document));
        assert_eq!(find("/a/b~1c/0"), Some("true"));
        assert_eq!(find("/a/b~1c/1/~0"), Some("\"x\\u0041\""));
        assert_eq!(find("/a/b~1c/2"), None);
        assert_eq!(find("/a/b~1c/x"), None);
        assert_eq!(find("/n/x"), None);
        let text = |pointer: &str| Pointer::new(pointer).unwrap().text(document).unwrap();
        assert_eq!(text("/a/b~1c/1/~0").as_deref(), Some("xA"));
        assert_eq!((text("/n"), text("/e"), text("/z")), (None, None, None));
        assert_eq!(Pointer::new("a").unwrap_err().sqlstate, SqlState::INVALID_PARAMETER_VALUE);
        assert!(Pointer::new("/a").unwrap().find("{\"a\": 1} x").is_err());
    }
}
