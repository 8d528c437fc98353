//! Functions that are written in ways of their own: `date('2024-01-01')`, `make_interval(days => 3)`, `trim(both from x)`.

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, TrimWhereField, Value,
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
    let FunctionArguments::List(list) = &function.args else { return None };
    match (name.as_str(), list.args.as_slice()) {
        ("make_interval", args) => interval(args),
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
