//! COPY, in its present and its old spelling.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{StatementParser, ident_of, parse_query};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{Copy, CopyFormat, CopyKind, CopyWhat, Statement};

impl StatementParser<'_> {
    pub(super) fn copy(&mut self) -> Result<Statement> {
        self.expect_word("copy")?;
        if self.p.consume_token(&Token::LParen) {
            let what = match self.peek_word().as_deref() {
                Some("subscribe") => CopyWhat::Subscribe(Box::new(self.subscribe()?)),
                _ => CopyWhat::Query(self.query()?),
            };
            self.expect(&Token::RParen)?;
            self.expect_word("to")?;
            self.standard("stdout")?;
            let format = self.copy_format()?;
            return Ok(Statement::Copy(Copy::To { what, format }));
        }
        let table = self.name()?;
        let columns = match self.p.peek_token_ref().token {
            Token::LParen => self.ident_list()?,
            _ => Vec::new(),
        };
        if self.word("from") {
            self.standard("stdin")?;
            let format = self.copy_format()?;
            return Ok(Statement::Copy(Copy::From { table, columns, format }));
        }
        self.expect_word("to")?;
        self.standard("stdout")?;
        let format = self.copy_format()?;
        let list = match columns.is_empty() {
            true => "*".to_string(),
            false => columns.iter().map(|c| ident_of(c).to_string()).collect::<Vec<_>>().join(", "),
        };
        let query = parse_query(&format!("SELECT {list} FROM {table}"))?;
        Ok(Statement::Copy(Copy::To { what: CopyWhat::Query(query), format }))
    }

    /// STDIN or STDOUT; files and programs of the server are not reachable.
    fn standard(&mut self, which: &str) -> Result<()> {
        if self.word("program") || matches!(self.p.peek_token_ref().token, Token::SingleQuotedString(_)) {
            return Err(Error::unsupported("COPY with a file or a program of the server")
                .with_hint(format!("Use COPY … {}, or psql's \\copy.", which.to_ascii_uppercase())));
        }
        self.expect_word(which)
    }

    fn copy_format(&mut self) -> Result<CopyFormat> {
        let mut given: Vec<(String, String)> = Vec::new();
        self.word("with");
        if self.p.consume_token(&Token::LParen) {
            loop {
                let name = self.ident()?;
                let value = self.copy_value()?;
                given.push((name, value));
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        } else {
            // The spelling of PostgreSQL before 9.0: CSV HEADER DELIMITER AS ';'.
            while let Some(word) = self.peek_word() {
                match word.as_str() {
                    "csv" | "binary" | "text" => given.push(("format".to_string(), word)),
                    "header" => given.push((word, "true".to_string())),
                    "delimiter" | "delimiters" | "null" | "quote" | "escape" | "encoding" => {
                        self.p.advance_token();
                        self.word("as");
                        let value = self.string()?;
                        let name = if word == "delimiters" { "delimiter" } else { word.as_str() };
                        given.push((name.to_string(), value));
                        continue;
                    }
                    _ => break,
                }
                self.p.advance_token();
            }
        }
        build_format(&given)
    }

    fn copy_value(&mut self) -> Result<String> {
        let value = match &self.p.peek_token_ref().token {
            Token::Comma | Token::RParen => return Ok("true".to_string()),
            Token::Word(w) => w.value.to_ascii_lowercase(),
            Token::Number(n, _) => n.clone(),
            Token::LParen => return Ok(self.ident_list()?.join(", ")),
            Token::Mul => "*".to_string(),
            _ => return self.string(),
        };
        self.p.advance_token();
        Ok(value)
    }
}

fn build_format(given: &[(String, String)]) -> Result<CopyFormat> {
    let kind = match given.iter().find(|(n, _)| n == "format").map(|(_, v)| v.as_str()) {
        None | Some("text") => CopyKind::Text,
        Some("csv") => CopyKind::Csv,
        Some("binary") => CopyKind::Binary,
        Some(other) => {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("COPY format \"{other}\" not recognized"),
            ));
        }
    };
    let mut format = CopyFormat::new(kind);
    let mut escape = None;
    for (name, value) in given {
        let for_csv = |what: &str| match kind {
            CopyKind::Csv => Ok(()),
            _ => Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, format!("COPY {what} requires CSV mode"))),
        };
        match name.as_str() {
            "format" => {}
            "header" => {
                format.header = match value.as_str() {
                    "true" | "on" | "1" => true,
                    "false" | "off" | "0" => false,
                    "match" => return Err(Error::unsupported("COPY option HEADER MATCH")),
                    _ => {
                        return Err(Error::new(
                            SqlState::SYNTAX_ERROR,
                            "header requires a Boolean value or \"match\"",
                        ));
                    }
                }
            }
            "delimiter" => format.delimiter = one_byte("delimiter", value)?,
            "null" => format.null.clone_from(value),
            "quote" => {
                for_csv("QUOTE")?;
                format.quote = one_byte("quote", value)?;
            }
            "escape" => {
                for_csv("ESCAPE")?;
                escape = Some(one_byte("escape", value)?);
            }
            "freeze" => {}
            "encoding" if matches!(value.to_ascii_lowercase().as_str(), "utf8" | "utf-8") => {}
            "encoding" | "force_quote" | "force_not_null" | "force_null" | "default" | "on_error"
            | "log_verbosity" | "reject_limit" => {
                return Err(Error::unsupported(format!("COPY option {}", name.to_ascii_uppercase())));
            }
            _ => {
                return Err(Error::new(SqlState::SYNTAX_ERROR, format!("option \"{name}\" not recognized")));
            }
        }
    }
    format.escape = escape.unwrap_or(format.quote);
    if kind == CopyKind::Binary && format != (CopyFormat { escape: format.escape, ..CopyFormat::new(kind) }) {
        return Err(Error::new(
            SqlState::SYNTAX_ERROR,
            "cannot specify DELIMITER, NULL or HEADER in BINARY mode",
        ));
    }
    Ok(format)
}

fn one_byte(what: &str, value: &str) -> Result<u8> {
    match value.as_bytes() {
        [b'\r' | b'\n'] => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("COPY {what} cannot be newline or carriage return"),
        )),
        [byte] => Ok(*byte),
        _ => Err(Error::new(
            SqlState::FEATURE_NOT_SUPPORTED,
            format!("COPY {what} must be a single one-byte character"),
        )),
    }
}
