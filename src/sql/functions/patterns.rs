//! Patterns with escapes as those that are matched: of LIKE with backslashes, of SIMILAR TO as regular expressions.

use std::sync::Arc;

use arrow::array::ArrayRef;
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

/// The functions of this file, for patterns and escapes that are no literals.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name, evaluate: fn(&Call<'_>) -> Result<ArrayRef>| {
        let forms: &[&[Arg]] = &[&[Arg::Text, Arg::Text]];
        Definition { name, forms, variadic: false, gives: Gives::Text, evaluate }.udf()
    };
    vec![
        function("like_escape", |call| translated(call, backslashed)),
        function("similar_to_escape", |call| translated(call, regular)),
    ]
}

fn translated(call: &Call<'_>, translate: impl Fn(&str, Option<char>) -> Result<String>) -> Result<ArrayRef> {
    let (patterns, escapes) = (call.text(0)?, call.text(1)?);
    call.texts(|row| translate(patterns.value(row), escape_character(escapes.value(row))?).map(Some))
}

/// The escape character that a text means; `None`: there is none.
///
/// # Errors
/// 22025 when it is more than a character.
pub fn escape_character(text: &str) -> Result<Option<char>> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (c, None) => Ok(c),
        _ => Err(Error::new(SqlState("22025"), "invalid escape string")
            .with_hint("Escape string must be empty or one character.")),
    }
}

/// A pattern of LIKE with its escapes as backslashes.
///
/// # Errors
/// 22025 when it ends with one.
pub fn backslashed(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut out = String::with_capacity(pattern.len() + 4);
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            out.push('\\');
            out.push(chars.next().ok_or_else(|| {
                Error::new(SqlState("22025"), "LIKE pattern must not end with escape character")
            })?);
        } else {
            if c == '\\' {
                out.push('\\');
            }
            out.push(c);
        }
    }
    Ok(out)
}

/// A pattern of SIMILAR TO as a regular expression over the whole text.
///
/// # Errors
/// 22025 when it ends with an escape.
pub fn regular(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut out = String::with_capacity(pattern.len() + 8);
    out.push_str("^(?:");
    let mut chars = pattern.chars();
    let mut in_brackets = false;
    while let Some(c) = chars.next() {
        if Some(c) == escape {
            let escaped =
                chars.next().ok_or_else(|| Error::new(SqlState("22025"), "invalid escape sequence"))?;
            if !escaped.is_alphanumeric() {
                out.push('\\');
            }
            out.push(escaped);
            continue;
        }
        match c {
            '[' if !in_brackets => {
                in_brackets = true;
                out.push('[');
            }
            ']' if in_brackets => {
                in_brackets = false;
                out.push(']');
            }
            '\\' => out.push_str("\\\\"),
            other if in_brackets => out.push(other),
            '%' => out.push_str(".*"),
            '_' => out.push('.'),
            '(' => out.push_str("(?:"),
            '.' | '^' | '$' => {
                out.push('\\');
                out.push(c);
            }
            other => out.push(other),
        }
    }
    out.push_str(")$");
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_translated() {
        assert_eq!(backslashed("a!_c\\", Some('!')).unwrap(), "a\\_c\\\\");
        assert_eq!(backslashed("a!", Some('!')).unwrap_err().sqlstate.0, "22025");
        assert_eq!(regular("a%(b|c)_.d", Some('\\')).unwrap(), "^(?:a.*(?:b|c).\\.d)$");
        assert_eq!(regular("100!%[%_]", Some('!')).unwrap(), "^(?:100\\%[%_])$");
    }
}
