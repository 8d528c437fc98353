//! Expressions before they are planned: intervals and time zones become casts and calls, operators and literals are
//! spelled as DataFusion understands them.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments,
    Ident, UnaryOperator, Value, WindowType,
};

use super::literals::{interval_cast, keep_literal, precise};
use super::rewrite::{binary, call, frame_offsets};
use super::{collecting, patterns, periods, rows, set_returning, spelled, windows};
use crate::error::{Error, Result};
use crate::names::fold;

/// Functions whose result has the type of their arguments, so that a literal's type matters.
const TYPED_BY_ARGUMENTS: [&str; 15] = [
    "coalesce",
    "nullif",
    "greatest",
    "least",
    "pg_typeof",
    "sum",
    "min",
    "max",
    "avg",
    "array_agg",
    "array_append",
    "array_fill",
    "array_prepend",
    "abs",
    "jsonb_build_array",
];

/// Functions that are called without parentheses.
pub(super) const SESSION_VALUES: [&str; 6] =
    ["user", "session_user", "current_user", "current_role", "current_schema", "current_catalog"];

/// Prepares an expression; what is within it comes afterwards.
///
/// # Errors
/// 0A000 for what is not built.
pub(super) fn prepare(expr: &mut Expr) -> Result<()> {
    match expr {
        // `(t).a` is `t.a`.
        Expr::CompoundFieldAccess { root, access_chain } if compound(root, access_chain).is_some() => {
            if let Some(name) = compound(root, access_chain) {
                *expr = Expr::CompoundIdentifier(name);
            }
            Ok(())
        }
        // DataFusion would plan the elements without the queries around this one.
        Expr::Array(array) if !array.elem.is_empty() => {
            *expr = call("make_array", std::mem::take(&mut array.elem));
            Ok(())
        }
        Expr::InList { .. } | Expr::InSubquery { .. } => rows::compare(expr),
        Expr::BinaryOp { left, op: BinaryOperator::Overlaps, right } => {
            *expr = periods::overlap(left, right)?;
            Ok(())
        }
        Expr::BinaryOp { left, right, .. }
            if rows::fields(left).is_some() && rows::fields(right).is_some() =>
        {
            rows::compare(expr)
        }
        Expr::Function(function) if two_arguments(function, "mod").is_some() => {
            if let Some((left, right)) = two_arguments(function, "mod") {
                *expr = Expr::Nested(Box::new(binary(left, BinaryOperator::Modulo, right)));
            }
            Ok(())
        }
        Expr::Function(function) if spelled::rewrite(function).is_some() => {
            if let Some(other) = spelled::rewrite(function) {
                *expr = other;
            }
            prepare(expr)
        }
        Expr::Trim { trim_where, expr: text, trim_what, trim_characters } => {
            *expr = spelled::trim(*trim_where, text, trim_what.as_deref(), trim_characters.as_deref());
            Ok(())
        }
        Expr::Function(function) => {
            let other = match collecting::empty_document(function) {
                Some(document) => Some(document),
                None => match collecting::array_of_query(function)? {
                    Some(array) => Some(array),
                    None => match collecting::rewrite(function)? {
                        Some(collected) => Some(collected),
                        None => set_returning::in_expression(function)?,
                    },
                },
            };
            match other {
                Some(other) => {
                    *expr = other;
                    prepare(expr)
                }
                None => prepare_function(function),
            }
        }
        Expr::Like { .. } | Expr::ILike { .. } | Expr::SimilarTo { .. } => patterns::rewrite(expr),
        // What SQL calls without parentheses and sqlparser takes for a column.
        Expr::Identifier(id) if id.quote_style.is_none() && SESSION_VALUES.contains(&fold(id).as_str()) => {
            *expr = call(&fold(id), vec![]);
            Ok(())
        }
        Expr::Cast { expr: value, data_type, kind: CastKind::Cast | CastKind::DoubleColon, .. } => {
            match precise(value, data_type)? {
                Some(other) => *expr = other,
                None => keep_literal(value),
            }
            Ok(())
        }
        Expr::TypedString(typed) => {
            if let Some(other) = precise(&Expr::Value(typed.value.clone()), &typed.data_type)? {
                *expr = other;
            }
            Ok(())
        }
        Expr::Substring { substring_from, substring_for, .. } => {
            substring_from.iter_mut().chain(substring_for).for_each(|e| keep_literal(e));
            Ok(())
        }
        Expr::Overlay { overlay_from, overlay_for, .. } => {
            keep_literal(overlay_from);
            overlay_for.iter_mut().for_each(|e| keep_literal(e));
            Ok(())
        }
        Expr::CompoundFieldAccess { access_chain, .. } => {
            use datafusion::sql::sqlparser::ast::Subscript;
            for access in access_chain {
                match access {
                    AccessExpr::Subscript(Subscript::Index { index }) => keep_literal(index),
                    AccessExpr::Subscript(Subscript::Slice { lower_bound, upper_bound, .. }) => {
                        // A slice without ends goes from the first element to the last.
                        let number = |n: &str| Expr::Value(Value::Number(n.to_string(), true).into());
                        keep_literal(lower_bound.get_or_insert_with(|| number("1")));
                        keep_literal(upper_bound.get_or_insert_with(|| number("2147483647")));
                    }
                    AccessExpr::Dot(_) => {}
                }
            }
            Ok(())
        }
        Expr::Interval(interval) => {
            *expr = interval_cast(interval)?;
            Ok(())
        }
        Expr::AtTimeZone { timestamp, time_zone } => {
            let null = || Expr::Value(Value::Null.into());
            let args = vec![
                std::mem::replace(time_zone.as_mut(), null()),
                std::mem::replace(timestamp.as_mut(), null()),
            ];
            *expr = call("timezone", args);
            Ok(())
        }
        Expr::Collate { expr: inner, collation } => {
            let name = collation.0.last().and_then(|p| p.as_ident()).map(|i| i.value.to_ascii_lowercase());
            if !matches!(
                name.as_deref(),
                Some("c" | "posix" | "default" | "ucs_basic" | "c.utf-8" | "c.utf8")
            ) {
                return Err(Error::unsupported(format!("collation {collation}")));
            }
            *expr = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
            prepare(expr)
        }
        Expr::BinaryOp { op, .. } => {
            if let BinaryOperator::PGCustomBinaryOperator(parts) = op {
                let Some(plain) = plain_operator(parts.last().map_or("", String::as_str)) else {
                    return Err(Error::unsupported(format!("operator {op}")));
                };
                *op = plain;
            }
            Ok(())
        }
        Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: inner } => {
            let operand = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
            let ones = Expr::Value(Value::Number("1".into(), false).into());
            *expr = Expr::BinaryOp {
                left: Box::new(operand),
                op: BinaryOperator::PGBitwiseXor,
                right: Box::new(Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(ones) }),
            };
            Ok(())
        }
        Expr::UnaryOp { op, expr: inner } => {
            let function = match op {
                UnaryOperator::PGAbs => "abs",
                UnaryOperator::PGSquareRoot => "sqrt",
                UnaryOperator::PGCubeRoot => "cbrt",
                _ => return Ok(()),
            };
            let arg = std::mem::replace(inner.as_mut(), Expr::Value(Value::Null.into()));
            *expr = call(function, vec![arg]);
            Ok(())
        }
        Expr::Value(v) => {
            if let Value::UnicodeStringLiteral(text) | Value::NationalStringLiteral(text) = &v.value {
                v.value = Value::SingleQuotedString(text.clone());
            }
            if matches!(v.value, Value::SingleQuotedByteStringLiteral(_) | Value::HexStringLiteral(_)) {
                return Err(Error::unsupported("a bit string (B'…', X'…')")
                    .with_hint("Numbers are written 0b101 and 0x1F, bytes '\\x1f'::bytea."));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The arguments of a call of the function `name` with two of them.
fn two_arguments(function: &Function, name: &str) -> Option<(Expr, Expr)> {
    if function.name.0.len() != 1 || fold(function.name.0[0].as_ident()?) != name {
        return None;
    }
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(a)), FunctionArg::Unnamed(FunctionArgExpr::Expr(b))] => {
            Some((a.clone(), b.clone()))
        }
        _ => None,
    }
}

/// `(t).a` as its parts.
fn compound(root: &Expr, chain: &[AccessExpr]) -> Option<Vec<Ident>> {
    match (root, chain) {
        (Expr::Nested(inner), [AccessExpr::Dot(Expr::Identifier(field))]) => match inner.as_ref() {
            Expr::Identifier(table) => Some(vec![table.clone(), field.clone()]),
            _ => None,
        },
        _ => None,
    }
}

fn prepare_function(function: &mut Function) -> Result<()> {
    // `pg_catalog.f` is `f`.
    if function.name.0.len() == 2 && function.name.0[0].as_ident().is_some_and(|i| fold(i) == "pg_catalog") {
        function.name.0.remove(0);
    }
    if let Some(WindowType::WindowSpec(spec)) = &mut function.over {
        frame_offsets(spec).for_each(keep_literal);
    }
    let name = function.name.0.last().and_then(|p| p.as_ident()).map(fold).unwrap_or_default();
    if name == "current_time" {
        return Err(Error::unsupported("type time with time zone").with_hint("LOCALTIME has no time zone."));
    }
    windows::check(function, &name)?;
    collecting::sort_distinct(function, &name);
    if matches!(name.as_str(), "generate_series" | "series_array")
        && let FunctionArguments::List(list) = &mut function.args
    {
        let args: Option<Vec<&mut Expr>> = list
            .args
            .iter_mut()
            .map(|arg| match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            })
            .collect();
        args.into_iter().for_each(set_returning::series_literals);
    }
    if !TYPED_BY_ARGUMENTS.contains(&name.as_str())
        && let FunctionArguments::List(list) = &mut function.args
    {
        for arg in &mut list.args {
            if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                keep_literal(expr);
            }
        }
    }
    Ok(())
}

/// The operator that `OPERATOR(pg_catalog.~)` names.
fn plain_operator(symbol: &str) -> Option<BinaryOperator> {
    Some(match symbol {
        "=" => BinaryOperator::Eq,
        "<>" | "!=" => BinaryOperator::NotEq,
        "<" => BinaryOperator::Lt,
        ">" => BinaryOperator::Gt,
        "<=" => BinaryOperator::LtEq,
        ">=" => BinaryOperator::GtEq,
        "+" => BinaryOperator::Plus,
        "-" => BinaryOperator::Minus,
        "*" => BinaryOperator::Multiply,
        "/" => BinaryOperator::Divide,
        "%" => BinaryOperator::Modulo,
        "||" => BinaryOperator::StringConcat,
        "~" => BinaryOperator::PGRegexMatch,
        "~*" => BinaryOperator::PGRegexIMatch,
        "!~" => BinaryOperator::PGRegexNotMatch,
        "!~*" => BinaryOperator::PGRegexNotIMatch,
        "~~" => BinaryOperator::PGLikeMatch,
        "~~*" => BinaryOperator::PGILikeMatch,
        "!~~" => BinaryOperator::PGNotLikeMatch,
        "!~~*" => BinaryOperator::PGNotILikeMatch,
        _ => return None,
    })
}
