//! Statements about the session and its transaction: SET, BEGIN, PREPARE, EXPLAIN and their kin.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::{StatementParser, first_words};
use crate::error::{Error, Result};
use crate::names::{fold_str, quote};
use crate::sql::ast::{Begin, Discard, Execute, Explain, Prepare, Set, Statement};

impl StatementParser<'_> {
    /// The name of a setting, also in the spellings that are several words.
    pub(super) fn variable(&mut self) -> Result<String> {
        for (words, name) in [
            (&["time", "zone"][..], "timezone"),
            (&["transaction", "isolation", "level"], "transaction_isolation"),
            (&["session", "authorization"], "session_authorization"),
        ] {
            if self.words(words) {
                return Ok(name.to_string());
            }
        }
        let mut name = self.ident()?.to_ascii_lowercase();
        while self.p.consume_token(&Token::Period) {
            name.push('.');
            name.push_str(&self.ident()?.to_ascii_lowercase());
        }
        Ok(name)
    }

    pub(super) fn set(&mut self) -> Result<Statement> {
        self.expect_word("set")?;
        if self.words(&["session", "characteristics", "as", "transaction"]) || self.word("transaction") {
            self.transaction_modes()?;
            return Ok(Statement::Set(Set::Transaction));
        }
        if self.words(&["session", "authorization"]) || self.peek_word().as_deref() == Some("role") {
            return Err(Error::unsupported("SET ROLE and SET SESSION AUTHORIZATION"));
        }
        if self.word("constraints") {
            return Err(Error::unsupported("SET CONSTRAINTS"));
        }
        let local = self.word("local");
        if !local {
            self.word("session");
        }
        let name = if self.word("names") {
            "client_encoding".to_string()
        } else if self.word("schema") {
            "search_path".to_string()
        } else if self.words(&["time", "zone"]) {
            "timezone".to_string()
        } else {
            let name = self.variable()?;
            if !self.word("to") && !self.p.consume_token(&Token::Eq) {
                return Err(self.unexpected());
            }
            name
        };
        let value = self.setting_value(name == "search_path")?;
        Ok(Statement::Set(Set::Variable { name, value, local }))
    }

    /// One or several values, as one text; `None` for DEFAULT. Values that are `names` are quoted where they have to be.
    fn setting_value(&mut self, names: bool) -> Result<Option<String>> {
        if self.word("default") {
            return Ok(None);
        }
        let values = self.comma_separated(|s| {
            s.word("interval");
            let negative = s.p.consume_token(&Token::Minus);
            let _ = !negative && s.p.consume_token(&Token::Plus);
            let text = match &s.p.peek_token_ref().token {
                Token::Number(n, _) => format!("{}{n}", if negative { "-" } else { "" }),
                Token::Word(w) if !negative && names && w.quote_style.is_none() => fold_str(&w.value),
                Token::Word(w) if !negative => w.value.clone(),
                _ if !negative => return s.string(),
                _ => return Err(s.unexpected()),
            };
            s.p.advance_token();
            Ok(text)
        })?;
        let values: Vec<_> = values.into_iter().map(|v| if names { quote(&v) } else { v }).collect();
        Ok(Some(values.join(", ")))
    }

    pub(super) fn reset(&mut self) -> Result<Statement> {
        self.expect_word("reset")?;
        let name = if self.word("all") { None } else { Some(self.variable()?) };
        Ok(Statement::Set(Set::Reset(name)))
    }

    pub(super) fn begin(&mut self) -> Result<Statement> {
        if self.word("start") {
            self.expect_word("transaction")?;
        } else {
            self.expect_word("begin")?;
            let _ = self.word("work") || self.word("transaction");
        }
        let read_only = self.transaction_modes()?;
        Ok(Statement::Begin(Begin { read_only }))
    }

    /// Modes of a transaction; answers whether it is READ ONLY. Isolation is always one consistent tick, the strictest.
    fn transaction_modes(&mut self) -> Result<bool> {
        let mut read_only = false;
        loop {
            if self.words(&["isolation", "level"]) {
                let known = self.word("serializable")
                    || self.words(&["repeatable", "read"])
                    || self.words(&["read", "committed"])
                    || self.words(&["read", "uncommitted"]);
                if !known {
                    return Err(self.unexpected());
                }
            } else if self.words(&["read", "only"]) {
                read_only = true;
            } else if self.words(&["read", "write"]) {
                read_only = false;
            } else if !self.words(&["not", "deferrable"]) && !self.word("deferrable") {
                return Ok(read_only);
            }
            let _ = self.p.consume_token(&Token::Comma);
        }
    }

    pub(super) fn commit(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.word("prepared") {
            return Err(Error::unsupported("COMMIT PREPARED"));
        }
        self.end_of_transaction()?;
        Ok(Statement::Commit)
    }

    pub(super) fn rollback(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.word("prepared") {
            return Err(Error::unsupported("ROLLBACK PREPARED"));
        }
        self.end_of_transaction()?;
        if self.word("to") {
            self.word("savepoint");
            return Ok(Statement::RollbackTo(self.ident()?));
        }
        Ok(Statement::Rollback)
    }

    pub(super) fn savepoint(&mut self) -> Result<Statement> {
        self.expect_word("savepoint")?;
        Ok(Statement::Savepoint(self.ident()?))
    }

    pub(super) fn release(&mut self) -> Result<Statement> {
        self.expect_word("release")?;
        self.word("savepoint");
        Ok(Statement::Release(self.ident()?))
    }

    fn end_of_transaction(&mut self) -> Result<()> {
        let _ = self.word("work") || self.word("transaction");
        if self.words(&["and", "chain"]) {
            return Err(Error::unsupported("AND CHAIN"));
        }
        self.words(&["and", "no", "chain"]);
        Ok(())
    }

    pub(super) fn discard(&mut self) -> Result<Statement> {
        self.expect_word("discard")?;
        let what = match self.peek_word().as_deref() {
            Some("all") => Discard::All,
            Some("plans") => Discard::Plans,
            Some("sequences") => Discard::Sequences,
            Some("temp" | "temporary") => Discard::Temp,
            _ => return Err(self.unexpected()),
        };
        self.p.advance_token();
        Ok(Statement::Discard(what))
    }

    pub(super) fn prepare(&mut self) -> Result<Statement> {
        self.expect_word("prepare")?;
        if self.word("transaction") {
            return Err(Error::unsupported("PREPARE TRANSACTION"));
        }
        let name = self.ident()?;
        let mut types = Vec::new();
        if self.p.consume_token(&Token::LParen) {
            types = self.comma_separated(Self::data_type)?;
            self.expect(&Token::RParen)?;
        }
        self.expect_word("as")?;
        let (statement, text, _) = self.spanned(Self::statement)?;
        if !matches!(
            statement,
            Statement::Query(_) | Statement::Insert(_) | Statement::Update(_) | Statement::Delete(_)
        ) {
            return Err(Error::unsupported(format!(
                "PREPARE of {}",
                first_words(&text).to_ascii_uppercase()
            )));
        }
        Ok(Statement::Prepare(Box::new(Prepare { name, types, statement, text })))
    }

    pub(super) fn execute(&mut self) -> Result<Statement> {
        self.expect_word("execute")?;
        let name = self.ident()?;
        let mut args = Vec::new();
        if self.p.consume_token(&Token::LParen) && !self.p.consume_token(&Token::RParen) {
            args = self.comma_separated(Self::expr)?;
            self.expect(&Token::RParen)?;
        }
        Ok(Statement::Execute(Execute { name, args }))
    }

    pub(super) fn deallocate(&mut self) -> Result<Statement> {
        self.expect_word("deallocate")?;
        self.word("prepare");
        Ok(Statement::Deallocate(if self.word("all") { None } else { Some(self.ident()?) }))
    }

    pub(super) fn explain(&mut self) -> Result<Statement> {
        self.expect_word("explain")?;
        let (mut analyze, mut verbose) = (false, false);
        if self.p.peek_token_ref().token == Token::LParen
            && !matches!(self.peek_word_at(1).as_deref(), Some("select" | "values" | "with" | "table"))
        {
            self.p.advance_token();
            loop {
                let option = self.ident()?;
                let value = match &self.p.peek_token_ref().token {
                    Token::Comma | Token::RParen => "true".to_string(),
                    Token::Word(w) => {
                        let value = w.value.to_ascii_lowercase();
                        self.p.advance_token();
                        value
                    }
                    _ => self.string()?,
                };
                let on = !matches!(value.as_str(), "false" | "off" | "0");
                match option.as_str() {
                    "analyze" => analyze = on,
                    "verbose" => verbose = on,
                    "costs" | "buffers" | "timing" | "summary" | "settings" | "wal" => {}
                    "format" if value == "text" => {}
                    other => {
                        return Err(Error::unsupported(format!(
                            "EXPLAIN option {}",
                            other.to_ascii_uppercase()
                        )));
                    }
                }
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.expect(&Token::RParen)?;
        } else {
            analyze = self.word("analyze");
            verbose = self.word("verbose");
        }
        let position = self.position();
        let statement = Box::new(self.statement()?);
        match *statement {
            Statement::Query(_)
            | Statement::Insert(_)
            | Statement::Update(_)
            | Statement::Delete(_)
            | Statement::CreateMaterializedView(_)
            | Statement::CreateView(_)
            | Statement::CreateSink(_) => Ok(Statement::Explain(Explain { analyze, verbose, statement })),
            _ => Err(Error::unsupported("EXPLAIN of this statement").at(position)),
        }
    }
}
