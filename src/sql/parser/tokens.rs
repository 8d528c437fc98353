//! Tokens as sqlparser understands them: what it reads in another spelling only, or would lose, is spelled so.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Whitespace};

use super::ROWS_FROM;

/// The tokens of a text in the spellings that sqlparser reads.
pub(super) fn respelled(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    table_queries(rows_from(spellings(precise_intervals(numbers(tokens)))))
}

/// Whole numbers to other bases, `0x1F`, `0o17` and `0b101`, as decimal ones.
fn numbers(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let value = |digits: &str, base: u32| {
        let digits: String = digits.chars().filter(|c| *c != '_').collect();
        u128::from_str_radix(&digits, base).ok().map(|n| Token::Number(n.to_string(), false))
    };
    let mut read: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        let number = match &token.token {
            // `X'1F'` is a bit string, and has quotes.
            Token::HexStringLiteral(digits)
                if token.span.end.column == token.span.start.column + 2 + digits.len() as u64 =>
            {
                value(digits, 16)
            }
            Token::Word(word) if word.quote_style.is_none() => {
                let zero = read.last().is_some_and(|before| {
                    matches!(&before.token, Token::Number(n, _) if n == "0")
                        && before.span.end == token.span.start
                });
                let digits = word.value.get(1..).unwrap_or_default();
                let number = match word.value.as_bytes().first() {
                    Some(b'b' | b'B') if zero => value(digits, 2),
                    Some(b'o' | b'O') if zero => value(digits, 8),
                    _ => None,
                };
                if number.is_some() {
                    read.pop();
                }
                number
            }
            _ => None,
        };
        let token = match number {
            Some(number) => TokenWithSpan { token: number, span: token.span },
            None => token,
        };
        read.push(token);
    }
    read
}

/// `interval(3) '1.2345 s'` as `'1.2345 s'::interval(3)`: sqlparser would lose the decimal places.
fn precise_intervals(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let found: Vec<[usize; 5]> = significant
        .windows(5)
        .filter_map(|around| <[usize; 5]>::try_from(around).ok())
        .filter(|[word, open, places, close, text]| {
            matches!(&tokens[*word].token, Token::Word(w) if w.quote_style.is_none() && w.value.eq_ignore_ascii_case("interval"))
                && tokens[*open].token == Token::LParen
                && matches!(tokens[*places].token, Token::Number(..))
                && tokens[*close].token == Token::RParen
                && matches!(tokens[*text].token, Token::SingleQuotedString(_))
        })
        .collect();
    for [word, .., text] in found.into_iter().rev() {
        let text = tokens.remove(text);
        let span = text.span;
        tokens.insert(word, TokenWithSpan { token: Token::DoubleColon, span });
        tokens.insert(word, text);
    }
    tokens
}

/// Strings with a line break between them are one, as SQL says.
pub(super) fn join_strings(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut joined: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    for token in tokens {
        if let Token::SingleQuotedString(more) = &token.token {
            let blanks = joined.iter().rev().take_while(|t| matches!(t.token, Token::Whitespace(_))).count();
            let end = joined.len() - blanks;
            let breaks = joined[end..].iter().any(|t| {
                matches!(
                    t.token,
                    Token::Whitespace(Whitespace::Newline | Whitespace::SingleLineComment { .. })
                )
            });
            if breaks
                && let Some(before) = end.checked_sub(1).and_then(|i| joined.get_mut(i))
                && let Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) = &mut before.token
            {
                text.push_str(more);
                before.span.end = token.span.end;
                joined.truncate(end);
                continue;
            }
        }
        joined.push(token);
    }
    joined
}

/// `TABLE t` as `SELECT * FROM t`: sqlparser would lose what stands behind the name.
fn table_queries(tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    const BEFORE: [&str; 10] =
        ["as", "for", "union", "intersect", "except", "all", "distinct", "explain", "analyze", "verbose"];
    const BEFORE_QUERY: [&str; 17] = [
        "copy", "from", "in", "exists", "any", "some", "all", "as", "join", "lateral", "array", "not", "and",
        "or", "where", "select", "on",
    ];
    let word = |token: &TokenWithSpan| match &token.token {
        Token::Word(w) if w.quote_style.is_none() => Some(w.value.to_ascii_lowercase()),
        _ => None,
    };
    let mut read: Vec<TokenWithSpan> = Vec::with_capacity(tokens.len());
    // The last two that are no blanks.
    let (mut last, mut before_last): (Option<TokenWithSpan>, Option<TokenWithSpan>) = (None, None);
    for i in 0..tokens.len() {
        let token = &tokens[i];
        if matches!(token.token, Token::Whitespace(_)) {
            read.push(token.clone());
            continue;
        }
        let begins_query = || match &last {
            None => true,
            Some(t) if matches!(t.token, Token::SemiColon | Token::RParen) => true,
            // A parenthesis around a query, not a function's.
            Some(t) if t.token == Token::LParen => match &before_last {
                Some(TokenWithSpan { token: Token::Word(_), .. }) => {
                    before_last.as_ref().and_then(word).is_some_and(|w| BEFORE_QUERY.contains(&w.as_str()))
                }
                _ => true,
            },
            Some(t) => {
                let into = before_last.as_ref().and_then(word).is_some_and(|w| w == "into");
                into || word(t).is_some_and(|w| BEFORE.contains(&w.as_str()))
            }
        };
        let names = || {
            let next = tokens[i + 1..].iter().find(|t| !matches!(t.token, Token::Whitespace(_)));
            next.is_some_and(|t| matches!(t.token, Token::Word(_)))
        };
        if word(token).as_deref() == Some("table") && begins_query() && names() {
            for part in [Token::make_keyword("SELECT"), Token::Mul, Token::make_keyword("FROM")] {
                read.push(TokenWithSpan { token: part, span: token.span });
            }
        } else {
            read.push(token.clone());
        }
        before_last = last.replace(token.clone());
    }
    read
}

/// What sqlparser reads in another spelling only: `trim(both from x)` as `trim(both x)`, `* EXCEPT (a)` as
/// `* EXCLUDE (a)`, a frame `EXCLUDE NO OTHERS` without these words.
fn spellings(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let word = |i: Option<&usize>, words: &[&str]| match i.map(|i| &tokens[*i].token) {
        Some(Token::Word(w)) => {
            w.quote_style.is_none() && words.iter().any(|x| w.value.eq_ignore_ascii_case(x))
        }
        _ => false,
    };
    let is = |i: Option<&usize>, token: &Token| i.is_some_and(|i| tokens[*i].token == *token);
    let (mut gone, mut excluded): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for (n, i) in significant.iter().enumerate() {
        let at = |k: usize| significant.get(n + k);
        if word(Some(i), &["trim"]) && is(at(1), &Token::LParen) {
            let from = if word(at(2), &["both", "leading", "trailing"]) { at(3) } else { at(2) };
            gone.extend(from.filter(|from| word(Some(from), &["from"])));
        }
        if word(Some(i), &["exclude"]) && word(at(1), &["no"]) && word(at(2), &["others"]) {
            gone.extend([Some(i), at(1), at(2)].into_iter().flatten());
        }
        let columns = matches!(at(3).map(|i| &tokens[*i].token), Some(Token::Word(_)))
            && (is(at(4), &Token::Comma) || is(at(4), &Token::RParen));
        if is(Some(i), &Token::Mul) && word(at(1), &["except"]) && is(at(2), &Token::LParen) && columns {
            excluded.extend(at(1));
        }
    }
    for i in excluded {
        tokens[i].token = Token::make_keyword("EXCLUDE");
    }
    for i in gone.into_iter().rev() {
        tokens.remove(i);
    }
    tokens
}

/// `FROM ROWS FROM (f(…))` as a call of [`ROWS_FROM`], which sqlparser can read.
fn rows_from(mut tokens: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let significant: Vec<usize> =
        (0..tokens.len()).filter(|i| !matches!(tokens[*i].token, Token::Whitespace(_))).collect();
    let is = |tokens: &[TokenWithSpan], i: usize, words: &[&str]| match &tokens[i].token {
        Token::Word(w) => w.quote_style.is_none() && words.iter().any(|x| w.value.eq_ignore_ascii_case(x)),
        _ => false,
    };
    let mut gone = Vec::new();
    for around in significant.windows(6) {
        let [before, rows, from, open, name, call] = around else { continue };
        let begins = is(&tokens, *before, &["from", "join", "lateral"])
            || (tokens[*before].token == Token::Comma && !is(&tokens, *name, &["select", "values", "with"]));
        let calls = matches!(tokens[*name].token, Token::Word(_)) && tokens[*call].token == Token::LParen;
        if begins
            && calls
            && is(&tokens, *rows, &["rows"])
            && is(&tokens, *from, &["from"])
            && tokens[*open].token == Token::LParen
        {
            let end = tokens[*from].span.end;
            tokens[*rows].token = Token::make_word(ROWS_FROM, Some('"'));
            tokens[*rows].span.end = end;
            gone.push(*from);
        }
    }
    for i in gone.into_iter().rev() {
        tokens.remove(i);
    }
    tokens
}
