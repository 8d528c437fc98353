//! Patterns with escapes, as DataFusion understands them: `LIKE … ESCAPE`, `LIKE ANY (ARRAY[…])`, `SIMILAR TO`.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
    ValueWithSpan,
};

use super::rewrite::binary;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;

/// Rewrites a comparison with a pattern in place.
///
/// # Errors
/// 0A000 for escapes in patterns that are no literals; 22025 for escapes that are more than a character.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let rewritten = match expr {
        Expr::Like { negated, any, expr: text, pattern, escape_char }
        | Expr::ILike { negated, any, expr: text, pattern, escape_char } => {
            if let Some(escape) = escape_char.take() {
                let escape = escape_of(&escape)?;
                if escape != Some('\\') {
                    **pattern = literal(backslashed(&constant(pattern, "LIKE")?, escape)?);
                }
            }
            let several = match several(pattern, std::mem::take(any)) {
                Some(several) => several,
                None => return Ok(()),
            };
            let (patterns, all) = several;
            let (negated, text) = (*negated, text.clone());
            let case_insensitive = matches!(expr, Expr::ILike { .. });
            let each = patterns.into_iter().map(|pattern| {
                let (expr, pattern) = (text.clone(), Box::new(pattern));
                match case_insensitive {
                    true => Expr::ILike { negated, any: false, expr, pattern, escape_char: None },
                    false => Expr::Like { negated, any: false, expr, pattern, escape_char: None },
                }
            });
            let operator = if all { BinaryOperator::And } else { BinaryOperator::Or };
            let joined = each.reduce(|a, b| binary(a, operator.clone(), b));
            Expr::Nested(Box::new(joined.unwrap_or(Expr::Value(Value::Boolean(all).into()))))
        }
        Expr::SimilarTo { negated, expr: text, pattern, escape_char } => {
            let escape = match escape_char {
                Some(escape) => escape_of(escape)?,
                None => Some('\\'),
            };
            let pattern = match pattern.as_ref() {
                Expr::Value(ValueWithSpan { value: Value::Null, .. }) => Expr::Value(Value::Null.into()),
                pattern => literal(regular(&constant(pattern, "SIMILAR TO")?, escape)?),
            };
            let found = binary(text.as_ref().clone(), BinaryOperator::PGRegexMatch, pattern);
            let found = Expr::Nested(Box::new(found));
            match negated {
                true => Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(found) },
                false => found,
            }
        }
        _ => return Ok(()),
    };
    *expr = rewritten;
    Ok(())
}

fn literal(text: String) -> Expr {
    Expr::Value(Value::SingleQuotedString(text).into())
}

/// The text of a pattern that is a literal.
fn constant(pattern: &Expr, operator: &str) -> Result<String> {
    match pattern {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s),
            ..
        }) => Ok(s.clone()),
        Expr::Nested(inner) => constant(inner, operator),
        _ => Err(Error::unsupported(format!("{operator} with an escape, of a pattern that is no literal"))),
    }
}

/// The escape character; `None`: there is none.
fn escape_of(escape: &ValueWithSpan) -> Result<Option<char>> {
    let Value::SingleQuotedString(text) = &escape.value else {
        return Err(Error::unsupported("an escape character that is no literal"));
    };
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (c, None) => Ok(c),
        _ => Err(Error::new(SqlState("22025"), "invalid escape string")
            .with_hint("Escape string must be empty or one character.")),
    }
}

/// A pattern of LIKE with its escapes as backslashes.
fn backslashed(pattern: &str, escape: Option<char>) -> Result<String> {
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

/// The patterns of `ANY (ARRAY[…])` or `ALL (ARRAY[…])`, and whether it is ALL.
fn several(pattern: &Expr, any: bool) -> Option<(Vec<Expr>, bool)> {
    let elements = |expr: &Expr| {
        let mut expr = expr;
        while let Expr::Nested(inner) = expr {
            expr = inner;
        }
        match expr {
            Expr::Array(array) => Some(array.elem.clone()),
            _ => None,
        }
    };
    if any {
        return Some((elements(pattern)?, false));
    }
    match pattern {
        Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) => {
            let name = name.0.last()?.as_ident().map(fold)?;
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))] = list.args.as_slice() else {
                return None;
            };
            matches!(name.as_str(), "all" | "any" | "some").then(|| Some((elements(arg)?, name == "all")))?
        }
        _ => None,
    }
}

/// A pattern of SIMILAR TO as a regular expression over the whole text.
fn regular(pattern: &str, escape: Option<char>) -> Result<String> {
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
