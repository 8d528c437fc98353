//! Functions that are written in ways of their own: `date('2024-01-01')`, `make_interval(days => 3)`, `trim(both from x)`.

use datafusion::sql::sqlparser::ast::helpers::attached_token::AttachedToken;
use datafusion::sql::sqlparser::ast::{
    Array, CaseWhen, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, TimezoneInfo, TrimWhereField, Value, ValueWithSpan,
};

use super::rewrite::{call, cast};
use crate::names::fold;
use crate::sql::functions::Functions;
use crate::sql::parser;

/// Types whose names can be called to cast a value. Those that have words of their own in SQL's grammar are none.
const TYPES: [&str; 14] = [
    "bool",
    "int2",
    "int4",
    "int8",
    "float4",
    "float8",
    "numeric",
    "text",
    "varchar",
    "date",
    "timestamptz",
    "bytea",
    "uuid",
    "jsonb",
];

/// The arguments of `make_interval`, in their order.
const INTERVAL: [&str; 7] = ["years", "months", "weeks", "days", "hours", "mins", "secs"];

/// What such a call stands for; `None` for any other.
pub(super) fn rewrite(function: &Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let name = fold(name.as_ident()?);
    let FunctionArguments::List(list) = &function.args else {
        // It has no parentheses.
        return (name == "localtime")
            .then(|| cast(call("localtimestamp", vec![]), DataType::Time(None, TimezoneInfo::None)));
    };
    match (name.as_str(), list.args.as_slice()) {
        ("make_interval", args) => interval(args),
        // How long ago that was when the day began.
        ("age", [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))]) => {
            let today = parser::parse_expression("current_date::timestamp").ok()?;
            Some(call("age", vec![today, value.clone()]))
        }
        ("localtime", [FunctionArg::Unnamed(FunctionArgExpr::Expr(places))]) => {
            let time = DataType::Time(Some(whole(places)?), TimezoneInfo::None);
            Some(cast(call("localtimestamp", vec![]), time))
        }
        ("localtimestamp" | "current_timestamp", [FunctionArg::Unnamed(FunctionArgExpr::Expr(places))]) => {
            let zone = if name == "localtimestamp" { TimezoneInfo::None } else { TimezoneInfo::WithTimeZone };
            Some(cast(call(&name, vec![]), DataType::Timestamp(Some(whole(places)?), zone)))
        }
        // A numeric without a scale is shown without the zeros at its end.
        ("trim_scale", [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))]) => {
            Some(cast(value.clone(), DataType::Numeric(ExactNumberInfo::None)))
        }
        ("lag" | "lead", [FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), offset, ..])
            if function.over.is_some() && is_null(offset) =>
        {
            Some(null_of(value))
        }
        (
            "width_bucket",
            [
                FunctionArg::Unnamed(FunctionArgExpr::Expr(value)),
                FunctionArg::Unnamed(FunctionArgExpr::Expr(bounds)),
            ],
        ) => Some(call("bucket_of", vec![value.clone(), bounds.clone()])),
        ("array_fill", [FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), sizes]) => filled(value, sizes),
        (name, [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))])
            if TYPES.contains(&name) && Functions::get().scalar(name).is_none() =>
        {
            match parser::parse_expression(&format!("NULL::{name}")).ok()? {
                Expr::Cast { data_type, .. } => Some(cast(value.clone(), data_type)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// A whole number as written.
fn whole(expr: &Expr) -> Option<u64> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(n, _), .. }) => n.parse().ok(),
        _ => None,
    }
}

/// Whether an argument is a NULL as written, whatever its type.
fn is_null(arg: &FunctionArg) -> bool {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg else { return false };
    let mut expr = expr;
    while let Expr::Nested(inner) | Expr::Cast { expr: inner, .. } = expr {
        expr = inner;
    }
    matches!(expr, Expr::Value(v) if v.value == Value::Null)
}

/// NULL with the type of a value.
fn null_of(value: &Expr) -> Expr {
    let never = CaseWhen { condition: Expr::Value(Value::Boolean(false).into()), result: value.clone() };
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions: vec![never],
        else_result: None,
    }
}

/// `array_fill` of several dimensions: arrays of arrays, the last dimension inside.
fn filled(value: &Expr, sizes: &FunctionArg) -> Option<Expr> {
    let FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Array(sizes))) = sizes else { return None };
    let (outer, inner) = sizes.elem.split_first().filter(|(_, inner)| !inner.is_empty())?;
    let array = |elem: Vec<Expr>| Expr::Array(Array { elem, named: true });
    let within = call("array_fill", vec![value.clone(), array(inner.to_vec())]);
    Some(call("array_fill", vec![within, array(vec![outer.clone()])]))
}

/// `make_interval` with every argument in its place; `None` when it is so already, or cannot be.
fn interval(args: &[FunctionArg]) -> Option<Expr> {
    if args.len() == INTERVAL.len() && args.iter().all(|a| matches!(a, FunctionArg::Unnamed(_))) {
        return None;
    }
    let zero = || Expr::Value(Value::Number("0".to_string(), false).into());
    let mut all: Vec<Expr> = INTERVAL.iter().map(|_| zero()).collect();
    for (i, arg) in args.iter().enumerate() {
        let (at, value) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => (i, value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                let name = fold(name);
                (INTERVAL.iter().position(|known| *known == name)?, value)
            }
            FunctionArg::ExprNamed {
                name: Expr::Identifier(name),
                arg: FunctionArgExpr::Expr(value),
                ..
            } => {
                let name = fold(name);
                (INTERVAL.iter().position(|known| *known == name)?, value)
            }
            _ => return None,
        };
        *all.get_mut(at)? = value.clone();
    }
    Some(call("make_interval", all))
}

/// `trim(…)` as the function that it calls, which also takes `bytea`.
pub(super) fn trim(
    side: Option<TrimWhereField>,
    text: &Expr,
    what: Option<&Expr>,
    characters: Option<&[Expr]>,
) -> Expr {
    let name = match side {
        Some(TrimWhereField::Leading) => "ltrim",
        Some(TrimWhereField::Trailing) => "rtrim",
        Some(TrimWhereField::Both) | None => "btrim",
    };
    let args = std::iter::once(text).chain(what).chain(characters.unwrap_or_default());
    call(name, args.cloned().collect())
}
