//! How deep a statement's tree becomes without brackets: chains of operators, joins and set operations.
//!
//! `a OR b OR c …` and `SELECT … UNION ALL SELECT …` are trees that lean to the left, one level for each operator. All
//! that walks trees goes as deep, so what is too deep is refused before there is a tree.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use super::SourceText;
use crate::error::{Error, Result, SqlState};

/// How many operators may stand in a row, those around the brackets they stand in included.
const CHAIN_MAX: usize = 2_000;

/// Refuses chains that are too long.
///
/// # Errors
/// 54001, at the operator that is one too many.
pub(super) fn check(tokens: &[TokenWithSpan], source: &SourceText<'_>) -> Result<()> {
    // Operators since the last comma, for each open bracket.
    let mut chains = vec![0usize];
    let mut depth = 0;
    for token in tokens {
        match &token.token {
            Token::LParen | Token::LBracket => chains.push(0),
            Token::RParen | Token::RBracket if chains.len() > 1 => depth -= chains.pop().unwrap_or(0),
            Token::Comma | Token::SemiColon => {
                if let Some(chain) = chains.last_mut() {
                    depth -= std::mem::take(chain);
                }
            }
            other if is_operator(other) => {
                if let Some(chain) = chains.last_mut() {
                    *chain += 1;
                }
                depth += 1;
                if depth > CHAIN_MAX {
                    return Err(Error::new(SqlState("54001"), "statement is too complex")
                        .with_detail(format!("More than {CHAIN_MAX} operators stand in a row."))
                        .with_hint("Write IN (…) for many ORs, VALUES for many UNION ALLs.")
                        .at(source.position_of(token)));
                }
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_operator(token: &Token) -> bool {
    match token {
        Token::Word(word) => matches!(
            word.keyword,
            Keyword::AND
                | Keyword::OR
                | Keyword::NOT
                | Keyword::IS
                | Keyword::LIKE
                | Keyword::ILIKE
                | Keyword::UNION
                | Keyword::INTERSECT
                | Keyword::EXCEPT
                | Keyword::JOIN
        ),
        Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::DollarQuotedString(_)
        | Token::EscapedStringLiteral(_)
        | Token::HexStringLiteral(_)
        | Token::UnicodeStringLiteral(_)
        | Token::Placeholder(_)
        | Token::Whitespace(_)
        | Token::Period
        | Token::Colon
        | Token::LParen
        | Token::RParen
        | Token::LBracket
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace
        | Token::EOF => false,
        // Everything else that is written with signs.
        _ => true,
    }
}
