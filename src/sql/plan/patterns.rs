//! Patterns with escapes, as DataFusion understands them: `LIKE … ESCAPE`, `LIKE ANY (ARRAY[…])`, `SIMILAR TO`.

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, UnaryOperator, Value,
    ValueWithSpan,
};

use super::rewrite::{binary, call};
use crate::error::{Error, Result};
use crate::names::fold;
use crate::sql::functions::patterns::{backslashed, escape_character, regular};

/// Rewrites a comparison with a pattern in place.
///
/// # Errors
/// 22025 for escapes that are more than a character.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let rewritten = match expr {
        Expr::Like { negated, any, expr: text, pattern, escape_char }
        | Expr::ILike { negated, any, expr: text, pattern, escape_char } => {
            if let Some(escape) = escape_char.take() {
                let escape = escape_of(&escape)?;
                if escape != Some('\\') {
                    **pattern = match constant(pattern) {
                        Some(constant) => literal(backslashed(&constant, escape)?),
                        None => {
                            let escape = literal(escape.map(String::from).unwrap_or_default());
                            call("like_escape", vec![pattern.as_ref().clone(), escape])
                        }
                    };
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
            let pattern = match (pattern.as_ref(), constant(pattern)) {
                (Expr::Value(ValueWithSpan { value: Value::Null, .. }), _) => Expr::Value(Value::Null.into()),
                (_, Some(constant)) => literal(regular(&constant, escape)?),
                (computed, None) if is_escaped(computed) => computed.clone(),
                (computed, None) => {
                    let escape = literal(escape.map(String::from).unwrap_or_default());
                    call("similar_to_escape", vec![computed.clone(), escape])
                }
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
fn constant(pattern: &Expr) -> Option<String> {
    match pattern {
        Expr::Value(ValueWithSpan {
            value: Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s),
            ..
        }) => Some(s.clone()),
        Expr::Nested(inner) => constant(inner),
        _ => None,
    }
}

/// Whether a pattern is what a function makes of it and its escape.
fn is_escaped(pattern: &Expr) -> bool {
    let Expr::Function(function) = pattern else { return false };
    let [name] = function.name.0.as_slice() else { return false };
    name.as_ident().is_some_and(|id| fold(id) == "similar_to_escape")
}

/// The escape character; `None`: there is none.
fn escape_of(escape: &ValueWithSpan) -> Result<Option<char>> {
    let Value::SingleQuotedString(text) = &escape.value else {
        return Err(Error::unsupported("an escape character that is no literal"));
    };
    escape_character(text)
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
