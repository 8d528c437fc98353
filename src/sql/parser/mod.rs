//! Text to statements: sqlparser for what PostgreSQL has, recursive descent over its tokens for what is ours.
//!
//! A string is cut into statements at the token level first, so that each one keeps its own text and
//! a place in it. Every error is a PostgreSQL error with the 1-based character where it happened.

mod asof;
mod check;
mod copy;
mod create;
mod cursor;
mod depth;
mod dialect;
mod objects;
mod operands;
mod options;
mod session;
mod source;
mod text;
mod tokens;
mod windowed;

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{self as sql, Expr, Ident, ObjectName, Query, Visit, Visitor};
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan, Tokenizer};

pub use asof::query_text;
pub use check::{RequestCheck, parse_request_check};
use dialect::TidemillDialect;
pub use source::check_follows_schema_changes;
pub use text::SourceText;
pub(crate) use windowed::PARTITIONED;

use crate::error::{Error, Result, SqlState};
use crate::names::{Name, fold, is_reserved};
use crate::sql::ast::{CreateTable, Parsed, Show, Statement, TableBody};
use crate::sql::walk::walk;
use crate::types::{SqlType, sql_type_of};

/// The dialect of everything that is read.
pub(crate) static DIALECT: TidemillDialect = TidemillDialect;

/// What `ROWS FROM (f(…), …)` is called in the tree: a function of functions.
pub(crate) const ROWS_FROM: &str = "rows from";

/// How deep expressions and queries may nest.
const RECURSION_LIMIT: usize = 128;

/// Splits a string into statements and parses each. Empty statements vanish.
///
/// # Errors
/// 42601 for a syntax error, with its place in the whole string; 42704, 22023 … for types that are none.
/// What is understood and not built is no error here but [`Statement::Unsupported`].
pub fn parse(sql: &str) -> Result<Vec<Parsed>> {
    let whole = SourceText::new(sql);
    let tokens = tokenize(&whole)?;
    let mut parsed = Vec::new();
    for piece in tokens.split(|t| t.token == Token::SemiColon) {
        let significant = |t: &&TokenWithSpan| !matches!(t.token, Token::Whitespace(_) | Token::EOF);
        let (Some(first), Some(last)) =
            (piece.iter().find(significant), piece.iter().rev().find(significant))
        else {
            continue;
        };
        let (start, origin) = (whole.byte(first.span.start), first.span.start);
        let text = &sql[start..whole.byte(last.span.end)];
        let offset = whole.chars_before(first.span.start);
        let tokens: Vec<_> = piece
            .iter()
            .skip_while(|t| !significant(t))
            .map(|t| {
                let mut t = t.clone();
                t.span.start = relative(t.span.start, origin);
                t.span.end = relative(t.span.end, origin);
                t
            })
            .collect();
        let statement = parse_one(text, tokens).map_err(|mut e| {
            e.position = e.position.map(|p| p + offset);
            e
        })?;
        parsed.push(Parsed { statement, text: text.to_string(), offset });
    }
    Ok(parsed)
}

/// Parses an expression alone, as stored in the catalog.
///
/// # Errors
/// 42601 when it is none.
pub fn parse_expression(text: &str) -> Result<Expr> {
    let source = SourceText::new(text);
    let tokens = tokenize(&source)?;
    let mut parser = StatementParser::new(source, tokens);
    let expr = parser.expr()?;
    parser.end()?;
    Ok(expr)
}

/// Parses a query alone, as stored in the catalog.
///
/// # Errors
/// 42601 when it is none.
pub fn parse_query(text: &str) -> Result<Box<Query>> {
    let source = SourceText::new(text);
    let tokens = tokenize(&source)?;
    let mut parser = StatementParser::new(source, tokens);
    let query = parser.query()?;
    parser.end()?;
    Ok(query)
}

fn parse_one(text: &str, tokens: Vec<TokenWithSpan>) -> Result<Statement> {
    let mut parser = StatementParser::new(SourceText::new(text), tokens);
    let parsed = parser.statement().and_then(|statement| parser.end().map(|()| statement));
    match parsed {
        Err(e) if e.sqlstate == SqlState::FEATURE_NOT_SUPPORTED => Ok(Statement::Unsupported(e)),
        Err(e) if e.sqlstate == SqlState::SYNTAX_ERROR => match unbuilt_clause(text) {
            Some(clause) => Ok(Statement::Unsupported(Error::unsupported(clause))),
            None => Err(e),
        },
        other => other,
    }
}

/// A clause of the dialect that is not built, in a text that cannot be parsed.
fn unbuilt_clause(text: &str) -> Option<&'static str> {
    let tokens = tokenize(&SourceText::new(text)).ok()?;
    let words: Vec<String> = tokens
        .into_iter()
        .filter(|t| !matches!(t.token, Token::Whitespace(_)))
        .map(|t| match t.token {
            Token::Word(w) if w.quote_style.is_none() => w.value.to_ascii_lowercase(),
            _ => String::new(),
        })
        .collect();
    words.windows(3).find_map(|w| match [w[0].as_str(), w[1].as_str(), w[2].as_str()] {
        ["emit", "on", "window"] => Some("EMIT ON WINDOW CLOSE"),
        ["exclude", "current" | "group" | "ties", _] => Some("EXCLUDE of rows of a window frame"),
        _ => None,
    })
}

fn tokenize(source: &SourceText<'_>) -> Result<Vec<TokenWithSpan>> {
    let mut tokens = Tokenizer::new(&DIALECT, source.text())
        .tokenize_with_location()
        .map(tokens::join_strings)
        .map_err(|e| {
            let start = source.byte(e.location);
            let message = if e.message.contains("string") {
                "unterminated quoted string"
            } else if e.message.contains("delimiter") {
                "unterminated quoted identifier"
            } else if e.message.contains("comment") {
                "unterminated /* comment"
            } else {
                "syntax error"
            };
            let near = &source.text()[start..];
            Error::new(SqlState::SYNTAX_ERROR, format!("{message} at or near \"{near}\""))
                .at(source.position(e.location))
        })?;
    asof::mark(&mut tokens);
    depth::check(&tokens, source)?;
    let empty = |t: &&TokenWithSpan| matches!(&t.token, Token::Word(w) if w.quote_style.is_some() && w.value.is_empty());
    if let Some(token) = tokens.iter().find(empty) {
        let message = "zero-length delimited identifier at or near \"\"\"\"";
        return Err(Error::new(SqlState::SYNTAX_ERROR, message).at(source.position_of(token)));
    }
    Ok(tokens::respelled(tokens))
}

fn relative(location: Location, origin: Location) -> Location {
    if location.line == origin.line {
        Location::new(1, location.column - origin.column + 1)
    } else {
        Location::new(location.line.saturating_sub(origin.line) + 1, location.column)
    }
}

/// One statement's tokens, and how far they were read.
pub(super) struct StatementParser<'a> {
    p: Parser<'static>,
    source: SourceText<'a>,
}

impl<'a> StatementParser<'a> {
    fn new(source: SourceText<'a>, tokens: Vec<TokenWithSpan>) -> Self {
        let p =
            Parser::new(&DIALECT).with_recursion_limit(RECURSION_LIMIT).with_tokens_with_locations(tokens);
        StatementParser { p, source }
    }

    /// A whole statement, by its first word.
    fn statement(&mut self) -> Result<Statement> {
        let Some(word) = self.peek_word() else {
            return match self.p.peek_token_ref().token {
                Token::LParen => Ok(Statement::Query(self.query()?)),
                _ => Err(self.unexpected()),
            };
        };
        match word.as_str() {
            "select" | "values" | "with" => self.select(),
            "insert" | "update" | "delete" => self.dml(),
            "truncate" => self.truncate(),
            "copy" => self.copy(),
            "create" => self.create(),
            "drop" => self.drop_objects(),
            "alter" => self.alter(),
            "comment" => self.comment(),
            "show" => self.show(),
            "set" => self.set(),
            "reset" => self.reset(),
            "explain" => self.explain(),
            "subscribe" => Ok(Statement::Subscribe(self.subscribe()?)),
            "declare" => self.declare(),
            "fetch" => self.fetch(),
            "close" => self.close(),
            "begin" | "start" => self.begin(),
            "commit" | "end" => self.commit(),
            "rollback" | "abort" => self.rollback(),
            "describe" => {
                self.p.advance_token();
                Ok(Statement::Show(Show::Columns(self.name()?)))
            }
            "savepoint" => self.savepoint(),
            "release" => self.release(),
            "flush" => {
                self.p.advance_token();
                Ok(Statement::Flush)
            }
            "discard" => self.discard(),
            "prepare" => self.prepare(),
            "execute" => self.execute(),
            "deallocate" => self.deallocate(),
            "check" => self.check_view(),
            "wait" => self.wait_for_sink(),
            "verify" => self.verify_sink(),
            "validate" => self.validate_connection(),
            "replay" => self.replay_errors(),
            "grant" | "revoke" | "listen" | "notify" | "unlisten" | "lock" | "vacuum" | "analyze"
            | "analyse" | "cluster" | "reindex" | "call" | "do" | "merge" | "move" | "refresh"
            | "checkpoint" | "load" | "security" | "reassign" | "import" => {
                Err(Error::unsupported(word.to_ascii_uppercase()))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// A query; `SELECT … INTO t` makes a table.
    fn select(&mut self) -> Result<Statement> {
        let mut query = self.query()?;
        let into = match query.body.as_mut() {
            sql::SetExpr::Select(select) => select.into.take(),
            _ => None,
        };
        let Some(into) = into else { return Ok(Statement::Query(query)) };
        if into.temporary || into.unlogged {
            return Err(Error::unsupported("SELECT INTO TEMPORARY or UNLOGGED"));
        }
        let name = Name::from_object_name(&into.name)?;
        let body = TableBody::Query { columns: Vec::new(), query, with_data: true };
        Ok(Statement::CreateTable(Box::new(CreateTable {
            name,
            if_not_exists: false,
            body,
            append_only: false,
        })))
    }

    /// INSERT, UPDATE, DELETE: sqlparser's, and what PostgreSQL does not have refused.
    fn dml(&mut self) -> Result<Statement> {
        let parsed = self.p.parse_statement();
        let statement = self.lift(parsed)?;
        self.check_reserved(&statement)?;
        match statement {
            sql::Statement::Insert(insert) => Ok(Statement::Insert(Box::new(insert))),
            sql::Statement::Update(update) => Ok(Statement::Update(Box::new(update))),
            sql::Statement::Delete(delete) => Ok(Statement::Delete(Box::new(delete))),
            other => Err(Error::unsupported(first_words(&other.to_string()))),
        }
    }

    // ---- pieces -------------------------------------------------------------------------------

    fn query(&mut self) -> Result<Box<Query>> {
        if !matches!(self.peek_word().as_deref(), Some("select" | "values" | "table" | "with"))
            && self.p.peek_token_ref().token != Token::LParen
        {
            return Err(self.unexpected());
        }
        let parsed = self.p.parse_query();
        let query = self.lift(parsed)?;
        if query.body.as_select().is_none()
            && matches!(
                *query.body,
                sql::SetExpr::Insert(_)
                    | sql::SetExpr::Update(_)
                    | sql::SetExpr::Delete(_)
                    | sql::SetExpr::Merge(_)
            )
        {
            return Err(Error::unsupported("WITH before INSERT, UPDATE or DELETE"));
        }
        self.check_reserved(query.as_ref())?;
        Ok(query)
    }

    fn expr(&mut self) -> Result<Expr> {
        let parsed = self.p.parse_expr();
        self.lift(parsed)
    }

    /// Refuses reserved words where sqlparser takes them for names (`SELECT FROM FROM`).
    fn check_reserved(&self, tree: &impl Visit) -> Result<()> {
        match walk(tree, &mut Reserved) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(span) => Err(self.unexpected_at(&self.token_from(span.start))),
        }
    }

    /// An identifier, folded. String literals are none.
    fn ident(&mut self) -> Result<String> {
        match &self.p.peek_token_ref().token {
            Token::Word(_) => {
                let parsed = self.p.parse_identifier();
                self.lift(parsed).map(|i| fold(&i))
            }
            _ => Err(self.unexpected()),
        }
    }

    /// `name` or `schema.name`.
    fn name(&mut self) -> Result<Name> {
        if !matches!(self.p.peek_token_ref().token, Token::Word(_)) {
            return Err(self.unexpected());
        }
        let parsed = self.p.parse_object_name(false);
        Name::from_object_name(&self.lift(parsed)?)
    }

    fn names(&mut self) -> Result<Vec<Name>> {
        self.comma_separated(Self::name)
    }

    fn data_type(&mut self) -> Result<SqlType> {
        let position = self.position();
        let parsed = self.p.parse_data_type();
        sql_type_of(&self.lift(parsed)?).map_err(|e| e.at(position))
    }

    /// `(a, b)`
    fn ident_list(&mut self) -> Result<Vec<String>> {
        self.expect(&Token::LParen)?;
        let idents = self.comma_separated(Self::ident)?;
        self.expect(&Token::RParen)?;
        Ok(idents)
    }

    fn comma_separated<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = vec![one(self)?];
        while self.p.consume_token(&Token::Comma) {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn string(&mut self) -> Result<String> {
        match &self.p.peek_token_ref().token {
            Token::SingleQuotedString(s) | Token::EscapedStringLiteral(s) => {
                let s = s.clone();
                self.p.advance_token();
                Ok(s)
            }
            Token::DollarQuotedString(s) => {
                let s = s.value.clone();
                self.p.advance_token();
                Ok(s)
            }
            _ => Err(self.unexpected()),
        }
    }

    fn whole_number(&mut self) -> Result<u64> {
        match &self.p.peek_token_ref().token {
            Token::Number(n, _) => match n.parse() {
                Ok(n) => {
                    self.p.advance_token();
                    Ok(n)
                }
                Err(_) => Err(self.unexpected()),
            },
            _ => Err(self.unexpected()),
        }
    }

    // ---- words --------------------------------------------------------------------------------

    /// The next word in lower case, unless it is quoted or no word.
    fn peek_word(&self) -> Option<String> {
        self.peek_word_at(0)
    }

    fn peek_word_at(&self, n: usize) -> Option<String> {
        match &self.p.peek_nth_token_ref(n).token {
            Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Takes the next word if it is this one.
    fn word(&mut self, word: &str) -> bool {
        self.words(&[word])
    }

    /// Takes the next words if they are these.
    fn words(&mut self, words: &[&str]) -> bool {
        let all = words.iter().enumerate().all(|(i, word)| match &self.p.peek_nth_token_ref(i).token {
            Token::Word(w) => w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word),
            _ => false,
        });
        if all {
            words.iter().for_each(|_| self.p.advance_token());
        }
        all
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.word(word) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn expect_words(&mut self, words: &[&str]) -> Result<()> {
        words.iter().try_for_each(|word| self.expect_word(word))
    }

    fn expect(&mut self, token: &Token) -> Result<()> {
        if self.p.consume_token(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn if_not_exists(&mut self) -> bool {
        self.words(&["if", "not", "exists"])
    }

    /// Nothing may follow.
    fn end(&mut self) -> Result<()> {
        match self.p.peek_token_ref().token {
            Token::EOF => Ok(()),
            _ => Err(self.unexpected()),
        }
    }

    // ---- places and errors --------------------------------------------------------------------

    /// Where the next token starts: 1-based, in characters.
    fn position(&self) -> u32 {
        self.source.position_of(self.p.peek_token_ref())
    }

    /// The text from the next token up to where `read` stops, and the characters before it.
    fn spanned<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, String, u32)> {
        let start = self.p.peek_token_ref().span.start;
        let value = read(self)?;
        let (start_byte, next) = (self.source.byte(start), self.p.peek_token_ref());
        let end_byte = match next.token {
            Token::EOF => self.source.text().len(),
            _ => self.source.byte(next.span.start),
        };
        let text = self.source.text()[start_byte..end_byte.max(start_byte)].trim_end().to_string();
        Ok((value, text, self.source.chars_before(start)))
    }

    /// `syntax error at or near "…"`, at the next token.
    fn unexpected(&self) -> Error {
        self.unexpected_at(self.p.peek_token_ref())
    }

    fn unexpected_at(&self, token: &TokenWithSpan) -> Error {
        let position = self.source.position_of(token);
        let message = match token.token {
            Token::EOF => "syntax error at end of input".to_string(),
            _ => format!("syntax error at or near \"{}\"", self.source.slice(token.span)),
        };
        Error::new(SqlState::SYNTAX_ERROR, message).at(position)
    }

    /// An error of sqlparser as PostgreSQL would word it.
    fn lift<T>(&self, result: std::result::Result<T, ParserError>) -> Result<T> {
        result.map_err(|e| match e {
            ParserError::RecursionLimitExceeded => {
                Error::new(SqlState("54001"), "stack depth limit exceeded")
                    .with_detail(format!("Statements may nest {RECURSION_LIMIT} levels deep."))
            }
            ParserError::ParserError(message) | ParserError::TokenizerError(message) => {
                match text::location_in(&message) {
                    Some(location) => self.unexpected_at(&self.token_from(location)),
                    None if message.ends_with("EOF") => self.unexpected_at(&TokenWithSpan::new_eof()),
                    None => self.unexpected(),
                }
            }
        })
    }

    fn token_from(&self, location: Location) -> TokenWithSpan {
        (0..)
            .map(|i| self.p.token_at(i))
            .take_while(|t| t.token != Token::EOF)
            .find(|t| t.span.start == location)
            .cloned()
            .unwrap_or_else(TokenWithSpan::new_eof)
    }
}

/// Finds an unquoted reserved word that stands for a relation or a column.
struct Reserved;

impl Reserved {
    fn check(ident: &Ident) -> ControlFlow<Span> {
        // These are values, or stand for one.
        const VALUES: [&str; 7] = [
            "default",
            "user",
            "session_user",
            "current_user",
            "current_role",
            "current_schema",
            "current_catalog",
        ];
        let word = ident.value.to_ascii_lowercase();
        let reserved = ident.quote_style.is_none()
            && ident.span.start.line > 0
            && is_reserved(&word)
            && !VALUES.contains(&word.as_str());
        if reserved { ControlFlow::Break(ident.span) } else { ControlFlow::Continue(()) }
    }
}

impl Visitor for Reserved {
    type Break = Span;

    fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<Span> {
        relation.0.iter().filter_map(|p| p.as_ident()).try_for_each(Self::check)
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Span> {
        match expr {
            Expr::Identifier(ident) => Self::check(ident),
            _ => ControlFlow::Continue(()),
        }
    }
}

/// The words that a refused statement begins with, to name it.
fn first_words(text: &str) -> String {
    text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
}

/// A column's name from an expression that must be one.
fn column_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(fold(ident)),
        _ => None,
    }
}

/// The name of a column that is quoted when needed.
fn ident_of(name: &str) -> Ident {
    Ident::with_quote('"', name)
}

#[cfg(test)]
mod tests;
