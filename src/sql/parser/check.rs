//! CHECK of a webhook's requests: a condition in which `SECRET name` stands for a secret's value.
//!
//! The value is never part of a text or a plan: it is a column beside those of the request, so what is shown or
//! logged of a condition tells the secret's name only.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{StatementParser, tokenize};
use crate::error::Result;
use crate::names::Name;
use crate::sql::parser::SourceText;

/// A condition that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestCheck {
    /// The condition, with columns in the place of secrets.
    pub condition: String,
    /// The secrets it names, and the column that stands for each.
    pub secrets: Vec<(Name, String)>,
}

/// Understands a condition as it was written.
///
/// # Errors
/// 42601 when it is none.
pub fn parse_request_check(text: &str) -> Result<RequestCheck> {
    let source = SourceText::new(text);
    let tokens = tokenize(&source)?;
    let mut read = Vec::with_capacity(tokens.len());
    let mut secrets: Vec<(Name, String)> = Vec::new();
    let mut rest = tokens.into_iter().peekable();
    while let Some(mut token) = rest.next() {
        let names_secret = matches!(&token.token, Token::Word(w)
            if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("secret"));
        if names_secret {
            let mut blanks = Vec::new();
            while let Some(blank) = rest.next_if(|t| matches!(t.token, Token::Whitespace(_))) {
                blanks.push(blank);
            }
            let name = rest.next_if(|t| matches!(t.token, Token::Word(_)));
            if let Some(Token::Word(name)) = name.map(|t| t.token) {
                let name = match name.quote_style {
                    Some(_) => name.value,
                    None => name.value.to_lowercase(),
                };
                let column = format!("secret {name}");
                token.token = Token::make_word(&column, Some('"'));
                let name = Name::bare(name);
                if !secrets.iter().any(|(n, _)| *n == name) {
                    secrets.push((name, column));
                }
                blanks.clear();
            }
            read.push(token);
            read.extend(blanks);
        } else {
            read.push(token);
        }
    }
    let mut parser = StatementParser::new(source, read);
    let condition = parser.expr()?.to_string();
    parser.end()?;
    Ok(RequestCheck { condition, secrets })
}

impl StatementParser<'_> {
    /// `(condition)`, behind CHECK of a source; answers with the condition as written.
    pub(super) fn request_check(&mut self) -> Result<String> {
        self.expect(&Token::LParen)?;
        let start = self.p.peek_token_ref().span.start;
        let mut depth = 0usize;
        loop {
            match self.p.peek_token_ref().token {
                Token::EOF => return Err(self.unexpected()),
                Token::LParen => depth += 1,
                Token::RParen if depth == 0 => break,
                Token::RParen => depth -= 1,
                _ => (),
            }
            self.p.advance_token();
        }
        let end = self.p.peek_token_ref().span.start;
        let text = self.source.text()[self.source.byte(start)..self.source.byte(end)].trim_end().to_string();
        self.expect(&Token::RParen)?;
        let before = self.source.chars_before(start);
        parse_request_check(&text).map_err(|mut e| {
            e.position = e.position.map(|p| p + before);
            e
        })?;
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_columns() {
        let check = parse_request_check("constant_time_eq(headers->>'x', hmac(body, SECRET Key, 'sha256'))");
        let check = check.unwrap();
        assert_eq!(
            check.condition,
            "constant_time_eq(headers ->> 'x', hmac(body, \"secret key\", 'sha256'))"
        );
        assert_eq!(check.secrets, [(Name::bare("key"), "secret key".to_string())]);
        let twice = parse_request_check("SECRET a = SECRET \"A\" OR SECRET a = 'SECRET b'").unwrap();
        assert_eq!(twice.secrets.len(), 2);
        assert_eq!(parse_request_check("a = ").unwrap_err().sqlstate.0, "42601");
        assert_eq!(parse_request_check("true) OR (true").unwrap_err().sqlstate.0, "42601");
    }
}
