//! `TUMBLE`, `HOP` and `SESSION` in FROM: a query that adds the windows of each row.
//!
//! `TUMBLE(t, at, size [, offset])` stands for `SELECT *, … AS window_start, … AS window_end FROM t`, so that what
//! there is for filters, projections and window functions runs it. The same may be written
//! `TABLE(TUMBLE(TABLE t, DESCRIPTOR(at), size))`, with names for the arguments or without. Rows without a time are in
//! no window and vanish.

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName, ObjectNamePart, OrderByExpr,
    OrderByOptions, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, WindowSpec, WindowType,
};

use super::joins::plain_table;
use super::naming;
use super::rewrite::call;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser::{self, PARTITIONED};

/// What kind of windows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Session,
}

impl Kind {
    fn of(name: &ObjectName) -> Option<Kind> {
        let [ObjectNamePart::Identifier(name)] = name.0.as_slice() else { return None };
        Some(match fold(name).as_str() {
            "tumble" => Kind::Tumble,
            "hop" => Kind::Hop,
            "session" => Kind::Session,
            _ => return None,
        })
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Tumble => "tumble",
            Kind::Hop => "hop",
            Kind::Session => "session",
        }
    }

    /// The arguments by their names; how many of them there must be.
    fn parameters(self) -> (&'static [&'static str], usize) {
        match self {
            Kind::Tumble => (&["data", "timecol", "size", "offset"], 3),
            Kind::Hop => (&["data", "timecol", "slide", "size", "offset"], 4),
            Kind::Session => (&["data", "timecol", "gap"], 3),
        }
    }
}

/// Replaces a call in FROM by the query that it stands for; other relations stay as they are.
///
/// # Errors
/// 42601 and 42883 for arguments that do not fit.
pub(super) fn expand(factor: &mut TableFactor) -> Result<()> {
    let Some((kind, args, alias)) = parts(factor) else { return Ok(()) };
    let (args, alias) = (ordered(kind, args)?, alias.clone());
    let mut args = args.into_iter();
    let (Some(relation), Some(time)) = (args.next(), args.next()) else {
        return Err(Error::internal("a window call without its first arguments"));
    };
    let lengths: Vec<Expr> = args.collect();
    let (relation, partition) = partitioned(kind, relation)?;
    let time = column(kind, time)?;
    let (relation, name) = source(kind, relation)?;
    let mut query = parser::parse_query("SELECT * FROM t WHERE t.a IS NOT NULL")?;
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a window call stands for a SELECT"));
    };
    select.from = vec![TableWithJoins { relation, joins: vec![] }];
    select.selection = Some(Expr::IsNotNull(Box::new(time.clone())));
    let with = |lengths: &[Expr]| std::iter::once(time.clone()).chain(lengths.iter().cloned()).collect();
    let (start, end) = match kind {
        Kind::Tumble => {
            let start = call("tumble_start", with(&lengths));
            (start.clone(), call("window_end", vec![start, lengths[0].clone()]))
        }
        Kind::Hop => {
            let list = |name| call("unnest", vec![call(name, with(&lengths))]);
            (list("hop_starts"), list("hop_ends"))
        }
        Kind::Session => {
            let over = WindowSpec {
                window_name: None,
                partition_by: partition,
                order_by: vec![OrderByExpr {
                    expr: time.clone(),
                    options: OrderByOptions { asc: None, nulls_first: None },
                    with_fill: None,
                }],
                window_frame: None,
            };
            let of_session = |name| match call(name, with(&lengths)) {
                Expr::Function(mut function) => {
                    function.over = Some(WindowType::WindowSpec(over.clone()));
                    Expr::Function(function)
                }
                other => other,
            };
            (of_session("session_start"), of_session("session_end"))
        }
    };
    for (expr, name) in [(start, "window_start"), (end, "window_end")] {
        select.projection.push(SelectItem::ExprWithAlias { expr, alias: Ident::new(name) });
    }
    let alias = alias.unwrap_or_else(|| TableAlias { explicit: true, name, columns: vec![], at: None });
    *factor = TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias), sample: None };
    Ok(())
}

/// The name of the relation in a call in FROM, for whoever renames it; `None` when this is no such call.
pub(super) fn relation_of(factor: &mut TableFactor) -> Option<&mut Expr> {
    fn innermost(expr: &mut Expr) -> Option<&mut Expr> {
        match expr {
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Some(expr),
            Expr::Function(function) if is_partitioned(&function.name) => match &mut function.args {
                FunctionArguments::List(list) => list.args.first_mut().and_then(argument).and_then(innermost),
                _ => None,
            },
            _ => None,
        }
    }
    fn argument(arg: &mut FunctionArg) -> Option<&mut Expr> {
        match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
            | FunctionArg::Named { arg: FunctionArgExpr::Expr(expr), .. }
            | FunctionArg::ExprNamed { arg: FunctionArgExpr::Expr(expr), .. } => Some(expr),
            _ => None,
        }
    }
    let args = match factor {
        TableFactor::Table { name, args: Some(args), .. } if Kind::of(name).is_some() => &mut args.args,
        TableFactor::TableFunction { expr: Expr::Function(function), .. }
            if Kind::of(&function.name).is_some() =>
        {
            match &mut function.args {
                FunctionArguments::List(list) => &mut list.args,
                _ => return None,
            }
        }
        _ => return None,
    };
    // By name or by place, the relation comes first in all that people write.
    args.first_mut().and_then(argument).and_then(innermost)
}

/// A call's kind, arguments and alias.
fn parts(factor: &TableFactor) -> Option<(Kind, &[FunctionArg], &Option<TableAlias>)> {
    match factor {
        TableFactor::Table { name, args: Some(args), alias, with_ordinality: false, .. } => {
            Some((Kind::of(name)?, &args.args, alias))
        }
        TableFactor::TableFunction { expr: Expr::Function(function), alias } => match &function.args {
            FunctionArguments::List(list) => Some((Kind::of(&function.name)?, &list.args, alias)),
            _ => None,
        },
        _ => None,
    }
}

/// The arguments in the order of the parameters.
fn ordered(kind: Kind, args: &[FunctionArg]) -> Result<Vec<Expr>> {
    let (names, needed) = kind.parameters();
    let mismatch = || {
        let mut shown: Vec<&str> = vec!["relation", "column"];
        shown.extend(&names[2..needed]);
        let rest: String = names[needed..].iter().map(|name| format!(" [, {name}]")).collect();
        let function = kind.name().to_ascii_uppercase();
        Error::new(SqlState::UNDEFINED_FUNCTION, format!("wrong arguments of {function}"))
            .with_hint(format!("Write {function}({}{rest}).", shown.join(", ")))
    };
    let mut found: Vec<Option<Expr>> = vec![None; names.len()];
    for (position, arg) in args.iter().enumerate() {
        let (place, expr) = match arg {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => (position, expr),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(expr), .. }
            | FunctionArg::ExprNamed {
                name: Expr::Identifier(name), arg: FunctionArgExpr::Expr(expr), ..
            } => (names.iter().position(|n| *n == fold(name)).ok_or_else(mismatch)?, expr),
            _ => return Err(mismatch()),
        };
        match found.get_mut(place) {
            Some(empty @ None) => *empty = Some(expr.clone()),
            _ => return Err(mismatch()),
        }
    }
    let given = found.iter().take_while(|a| a.is_some()).count();
    let all: Vec<Expr> = found.into_iter().flatten().collect();
    if given < needed || given != all.len() { Err(mismatch()) } else { Ok(all) }
}

fn is_partitioned(name: &ObjectName) -> bool {
    matches!(name.0.as_slice(), [ObjectNamePart::Identifier(name)] if name.value == PARTITIONED)
}

/// A relation, and what it is partitioned by.
fn partitioned(kind: Kind, relation: Expr) -> Result<(Expr, Vec<Expr>)> {
    let Expr::Function(function) = relation else { return Ok((relation, Vec::new())) };
    let FunctionArguments::List(list) = function.args else {
        return Err(no_relation(kind));
    };
    if !is_partitioned(&function.name) {
        return Err(no_relation(kind));
    }
    if kind != Kind::Session {
        return Err(Error::new(
            SqlState::SYNTAX_ERROR,
            format!("PARTITION BY has no meaning in {}", kind.name().to_ascii_uppercase()),
        )
        .with_detail("Its windows are the same for all rows."));
    }
    let mut args = list.args.into_iter().filter_map(|arg| match arg {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    });
    let relation = args.next().ok_or_else(|| no_relation(kind))?;
    Ok((relation, args.collect()))
}

fn no_relation(kind: Kind) -> Error {
    Error::new(
        SqlState::SYNTAX_ERROR,
        format!("the first argument of {} must be a relation", kind.name().to_ascii_uppercase()),
    )
    .with_hint("Put a query into parentheses of its own.")
}

/// The time column, out of its DESCRIPTOR.
fn column(kind: Kind, time: Expr) -> Result<Expr> {
    match time {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => Ok(time),
        Expr::Function(function)
            if function.name.0.len() == 1
                && function.name.0[0].as_ident().is_some_and(|name| fold(name) == "descriptor") =>
        {
            match function.args {
                FunctionArguments::List(mut list) if list.args.len() == 1 => match list.args.remove(0) {
                    FunctionArg::Unnamed(FunctionArgExpr::Expr(time)) => column(kind, time),
                    _ => Err(no_column(kind)),
                },
                _ => Err(no_column(kind)),
            }
        }
        _ => Err(no_column(kind)),
    }
}

fn no_column(kind: Kind) -> Error {
    Error::new(
        SqlState::SYNTAX_ERROR,
        format!("the second argument of {} must be a column", kind.name().to_ascii_uppercase()),
    )
}

/// What to read from, and its name outside unless it is given another.
fn source(kind: Kind, relation: Expr) -> Result<(TableFactor, Ident)> {
    match relation {
        Expr::Identifier(name) => Ok((plain_table(ObjectName::from(vec![name.clone()]), None), name)),
        Expr::CompoundIdentifier(names) => {
            let last = names.last().cloned().ok_or_else(|| no_relation(kind))?;
            Ok((plain_table(ObjectName::from(names), None), last))
        }
        Expr::Subquery(subquery) => {
            let inner = Ident::with_quote('"', naming::marked(kind.name(), 0));
            let inner = TableAlias { explicit: true, name: inner, columns: vec![], at: None };
            let derived = TableFactor::Derived { lateral: false, subquery, alias: Some(inner), sample: None };
            Ok((derived, Ident::new(kind.name())))
        }
        _ => Err(no_relation(kind)),
    }
}
