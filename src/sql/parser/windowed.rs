//! What only the arguments of TUMBLE, HOP and SESSION have: `TABLE t`, and `t PARTITION BY k`.

use datafusion::sql::sqlparser::ast::{Expr, Ident};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::Token;

use super::operands::call;

/// The function that stands for a relation with a PARTITION BY in the tree; no query can call it.
pub(crate) const PARTITIONED: &str = "\u{1}partitioned";

/// The rank of PARTITION BY: below all operators.
pub(super) const PARTITION: u8 = 1;

/// Whether a token is this word, given in lower case.
pub(super) fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case(word))
}

fn is_windows(token: &Token) -> bool {
    ["tumble", "hop", "session"].iter().any(|name| is_word(token, name))
}

/// The tokens that were read, the last one first.
fn read<'a>(parser: &'a Parser<'_>) -> impl Iterator<Item = &'a Token> {
    let tokens = (0..=parser.get_current_index()).rev().map(|i| &parser.token_at(i).token);
    tokens.filter(|t| !matches!(t, Token::Whitespace(_)))
}

/// Whether the first argument of a call of theirs comes next.
pub(super) fn is_argument(parser: &Parser<'_>) -> bool {
    let mut read = read(parser).peekable();
    // `DATA => …`
    if read.peek() == Some(&&Token::RArrow) {
        let _ = read.next();
        let _ = read.next();
    }
    read.next() == Some(&Token::LParen) && read.next().is_some_and(is_windows)
}

/// Whether PARTITION BY comes next, behind the first argument of a call of theirs.
pub(super) fn is_partitioned(parser: &Parser<'_>) -> bool {
    if !is_word(&parser.peek_nth_token_ref(0).token, "partition")
        || !is_word(&parser.peek_nth_token_ref(1).token, "by")
    {
        return false;
    }
    let mut depth = 0;
    let mut read = read(parser);
    while let Some(token) = read.next() {
        match token {
            Token::RParen => depth += 1,
            Token::LParen if depth > 0 => depth -= 1,
            Token::LParen => return read.next().is_some_and(is_windows),
            Token::Comma if depth == 0 => return false,
            _ => {}
        }
    }
    false
}

/// Reads the PARTITION BY behind `relation`: one column, or several in parentheses.
pub(super) fn parse_partition(parser: &mut Parser<'_>, relation: &Expr) -> Result<Expr, ParserError> {
    parser.expect_keywords(&[Keyword::PARTITION, Keyword::BY])?;
    let by = match parser.parse_subexpr(PARTITION)? {
        Expr::Tuple(columns) => columns,
        one => vec![one],
    };
    let args = std::iter::once(relation.clone()).chain(by);
    Ok(call(Ident::with_quote('"', PARTITIONED), args))
}
