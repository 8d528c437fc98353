//! SUBSCRIBE and cursors.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::StatementParser;
use super::options::{duration_of, finish, take, take_bool};
use crate::declared::OptionValue;
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{CursorOf, Declare, Fetch, Statement, Subscribe, SubscribeTo};

impl StatementParser<'_> {
    pub(super) fn subscribe(&mut self) -> Result<Subscribe> {
        self.expect_word("subscribe")?;
        self.word("to");
        let what = if self.p.consume_token(&Token::LParen) {
            let (query, text, _) = self.spanned(Self::query)?;
            self.expect(&Token::RParen)?;
            SubscribeTo::Query { query, text }
        } else {
            SubscribeTo::Relation(self.name()?)
        };
        let mut subscribe = Subscribe { what, snapshot: true, progress: false, as_of: None };
        loop {
            if self.word("with") {
                let mut options = self.options()?;
                if let Some(snapshot) = take_bool(&mut options, "snapshot")? {
                    subscribe.snapshot = snapshot;
                }
                if let Some(progress) = take_bool(&mut options, "progress")? {
                    subscribe.progress = progress;
                }
                finish(&options, "SUBSCRIBE", &["progress", "snapshot"])?;
            } else if self.words(&["as", "of"]) {
                subscribe.as_of = Some(self.whole_number()?);
            } else {
                return Ok(subscribe);
            }
        }
    }

    pub(super) fn declare(&mut self) -> Result<Statement> {
        self.expect_word("declare")?;
        let name = self.ident()?;
        if self.word("binary") {
            return Err(Error::unsupported("BINARY cursor"));
        }
        let _ = self.word("insensitive") || self.word("asensitive");
        self.words(&["no", "scroll"]);
        if self.word("scroll") {
            return Err(Error::unsupported("SCROLL cursor"));
        }
        self.expect_word("cursor")?;
        let hold = self.words(&["with", "hold"]);
        if !hold {
            self.words(&["without", "hold"]);
        }
        self.expect_word("for")?;
        let what = match self.peek_word().as_deref() {
            Some("subscribe") => CursorOf::Subscribe(Box::new(self.subscribe()?)),
            _ => CursorOf::Query(self.query()?),
        };
        Ok(Statement::Declare(Declare { name, what, hold }))
    }

    pub(super) fn fetch(&mut self) -> Result<Statement> {
        self.expect_word("fetch")?;
        let mut count = Some(1);
        let directed = self.word("next");
        if !directed {
            let forward = self.word("forward");
            if let Some(word @ ("prior" | "first" | "last" | "absolute" | "relative" | "backward")) =
                self.peek_word().as_deref()
            {
                return Err(Error::unsupported(format!("FETCH {}", word.to_ascii_uppercase())));
            }
            if self.word("all") {
                count = None;
            } else if matches!(self.p.peek_token_ref().token, Token::Number(..)) {
                count = Some(self.whole_number()?);
            } else if forward {
                count = Some(1);
            }
        }
        let _ = self.word("from") || self.word("in");
        let name = self.ident()?;
        let mut timeout_micros = None;
        if self.word("with") {
            let mut options = self.options()?;
            if let Some(value) = take(&mut options, "timeout") {
                let OptionValue::Literal(text) = value else {
                    return Err(Error::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "option \"timeout\" must be a duration",
                    ));
                };
                timeout_micros = Some(duration_of(&text)?);
            }
            finish(&options, "FETCH", &["timeout"])?;
        }
        Ok(Statement::Fetch(Fetch { name, count, timeout_micros }))
    }

    pub(super) fn close(&mut self) -> Result<Statement> {
        self.expect_word("close")?;
        Ok(Statement::Close(if self.word("all") { None } else { Some(self.ident()?) }))
    }
}
