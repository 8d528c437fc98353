//! `ASOF JOIN` for sqlparser, which only knows one spelling of it.
//!
//! `a ASOF LEFT JOIN b ON …` reaches the tree as a join with the flag `global`, which no other system's dialect is
//! read with here. `MATCH_CONDITION (…) ON …` and `LEFT ASOF JOIN` are other spellings of the same.

use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Word};

use super::windowed::is_word;
use super::{DIALECT, SourceText};

/// Marks the joins among a statement's tokens.
pub(super) fn mark(tokens: &mut [TokenWithSpan]) {
    let words = ["asof", "global"];
    if !tokens.iter().any(|t| words.iter().any(|w| is_word(&t.token, w))) {
        return;
    }
    let places: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let mut seen = false;
    for n in 0..places.len() {
        let is = |tokens: &[TokenWithSpan], n: usize, word: &str| {
            places.get(n).is_some_and(|i| is_word(&tokens[*i].token, word))
        };
        if is(tokens, n, "global") {
            rename(&mut tokens[places[n]].token, None, Keyword::NoKeyword);
        } else if is(tokens, n, "asof") {
            let joins = ["join", "left", "right", "full", "inner", "cross"];
            if !joins.iter().any(|word| is(tokens, n + 1, word)) {
                continue;
            }
            seen = true;
            rename(&mut tokens[places[n]].token, None, Keyword::GLOBAL);
            if n > 0 && is(tokens, n + 1, "join") && is(tokens, n - 1, "left") {
                tokens.swap(places[n - 1], places[n]);
            }
        } else if seen && is(tokens, n, "match_condition") {
            let Some(close) = closing(tokens, &places, n + 1) else { continue };
            rename(&mut tokens[places[n]].token, Some("ON"), Keyword::ON);
            if is(tokens, close + 1, "on") {
                rename(&mut tokens[places[close + 1]].token, Some("AND"), Keyword::AND);
            }
        }
    }
}

/// The place of the parenthesis that closes the one at `open`.
fn closing(tokens: &[TokenWithSpan], places: &[usize], open: usize) -> Option<usize> {
    let mut depth = 0;
    for (n, i) in places.iter().enumerate().skip(open) {
        match tokens[*i].token {
            Token::LParen => depth += 1,
            Token::RParen => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (n > open).then_some(n);
        }
    }
    None
}

fn rename(token: &mut Token, value: Option<&str>, keyword: Keyword) {
    if let Token::Word(Word { value: old, keyword: of, .. }) = token {
        if let Some(value) = value {
            *old = value.to_string();
        }
        *of = keyword;
    }
}

/// A query's text, as it can be read again.
pub fn query_text(query: &Query) -> String {
    let text = query.to_string();
    let Ok(tokens) = Tokenizer::new(&DIALECT, &text).tokenize_with_location() else { return text };
    let source = SourceText::new(&text);
    let mut written = String::with_capacity(text.len());
    let mut from = 0;
    for (i, token) in tokens.iter().enumerate() {
        let mut next = tokens[i + 1..].iter().filter(|t| !matches!(t.token, Token::Whitespace(_)));
        let joins =
            next.next().is_some_and(|t| ["JOIN", "LEFT", "INNER"].iter().any(|w| is_word(&t.token, w)));
        if is_word(&token.token, "GLOBAL") && joins {
            written.push_str(&text[from..source.byte(token.span.start)]);
            written.push_str("ASOF");
            from = source.byte(token.span.end);
        }
    }
    written.push_str(&text[from..]);
    written
}

#[cfg(test)]
mod tests {
    use super::query_text;
    use crate::sql::parser::parse_query;

    fn joined(from: &str) -> String {
        query_text(&parse_query(&format!("SELECT * FROM {from}")).unwrap())
    }

    #[test]
    fn every_spelling_is_one_join() {
        let left = "SELECT * FROM t ASOF LEFT JOIN q ON (t.a >= q.a) AND t.k = q.k";
        assert_eq!(joined("t asof left join q on (t.a >= q.a) and t.k = q.k"), left);
        assert_eq!(joined("t ASOF LEFT JOIN q MATCH_CONDITION (t.a >= q.a) ON t.k = q.k"), left);
        assert_eq!(joined("t LEFT ASOF JOIN q MATCH_CONDITION (t.a >= q.a) ON t.k = q.k"), left);
        assert_eq!(
            joined("t ASOF JOIN q MATCH_CONDITION (t.a > q.a)"),
            "SELECT * FROM t ASOF JOIN q ON (t.a > q.a)"
        );
        assert_eq!(joined("t AS asof"), "SELECT * FROM t AS asof");
        assert_eq!(joined("t AS global CROSS JOIN q"), "SELECT * FROM t AS global CROSS JOIN q");
    }
}
