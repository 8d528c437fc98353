//! LIMIT, OFFSET and FETCH. Counts that a query computes, and `WITH TIES`, become conditions on row numbers and ranks,
//! which QUALIFY looks at: DataFusion has no plan for them, and views keep those up to date.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, Expr, Fetch, Function, Ident, LimitClause, OrderByExpr, OrderByKind, Query,
    Select, SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, Value, ValueWithSpan, Visitor,
    WindowSpec, WindowType,
};

use super::literals::{keep_literal, whole_number};
use super::rewrite::{binary, call, cast};
use super::{distinct, naming};
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::parser;
use crate::sql::walk::walk;

/// Prepares the limits of a query.
///
/// # Errors
/// 0A000 for PERCENT; 42601 for ties without an order; 22P02 for a text that is no number.
pub(super) fn prepare(query: &mut Query) -> Result<()> {
    let ties = fetch(query)?;
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            for count in limit.iter_mut().chain(offset.iter_mut().map(|o| &mut o.value)) {
                whole_number(count)?;
                keep_literal(count);
            }
            let mut counts = limit.iter().chain(offset.iter().map(|o| &o.value));
            if ties || counts.any(holds_query) {
                let (limit, offset) = (limit.take(), offset.take().map(|offset| offset.value));
                query.limit_clause = None;
                return ranked(query, limit, offset, ties);
            }
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            keep_literal(offset);
            keep_literal(limit);
        }
        None => {}
    }
    Ok(())
}

/// FETCH as a LIMIT; whether it is one WITH TIES.
fn fetch(query: &mut Query) -> Result<bool> {
    let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() else { return Ok(false) };
    if percent {
        return Err(Error::unsupported("FETCH FIRST … PERCENT"));
    }
    let limit = quantity.unwrap_or_else(|| Expr::Value(Value::Number("1".into(), true).into()));
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit: empty @ None, .. }) => *empty = Some(limit),
        None => {
            query.limit_clause =
                Some(LimitClause::LimitOffset { limit: Some(limit), offset: None, limit_by: vec![] });
        }
        Some(_) => return Err(Error::unsupported("LIMIT together with FETCH FIRST")),
    }
    Ok(with_ties)
}

fn holds_query(expr: &Expr) -> bool {
    struct Queries;
    impl Visitor for Queries {
        type Break = ();
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }
    }
    walk(expr, &mut Queries).is_break()
}

fn holds_window(expr: &Expr) -> bool {
    struct Windows;
    impl Visitor for Windows {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Function(Function { over: Some(_), .. }) => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    walk(expr, &mut Windows).is_break()
}

/// The query with its counts as conditions on the number of a row, or on its rank where those of equal rank come along.
fn ranked(query: &mut Query, limit: Option<Expr>, offset: Option<Expr>, ties: bool) -> Result<()> {
    let keys = match query.order_by.as_ref().map(|order| &order.kind) {
        None => Vec::new(),
        Some(OrderByKind::Expressions(keys)) => keys.clone(),
        Some(_) => return Err(Error::unsupported("ORDER BY ALL with a computed LIMIT")),
    };
    if ties && keys.is_empty() {
        return Err(Error::new(
            SqlState::SYNTAX_ERROR,
            "WITH TIES cannot be specified without ORDER BY clause",
        ));
    }
    let of_inputs = match query.body.as_ref() {
        SetExpr::Select(select) if select.distinct.is_none() && select.qualify.is_none() => {
            keys.iter().map(|key| of_input(key, select)).collect::<Option<Vec<_>>>()
        }
        _ => None,
    };
    let keys = match of_inputs {
        Some(keys) => keys,
        None => {
            let keys = keys.into_iter().map(|key| of_output(key, &query.body)).collect::<Result<_>>()?;
            within(query)?;
            keys
        }
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::internal("a query with a limit is no SELECT"));
    };
    let number = |name: &str| match call(name, vec![]) {
        Expr::Function(mut function) => {
            function.over = Some(WindowType::WindowSpec(WindowSpec {
                window_name: None,
                partition_by: vec![],
                order_by: keys.clone(),
                window_frame: None,
            }));
            Expr::Function(function)
        }
        other => other,
    };
    let count = |name: &str, expr: Expr| call(name, vec![cast(expr, DataType::BigInt(None))]);
    let offset = offset.map(|offset| count("offset_count", offset));
    let skipped = offset.clone().map(|offset| binary(number("row_number"), BinaryOperator::Gt, offset));
    let taken = limit.map(|limit| {
        let place = number(if ties { "rank" } else { "row_number" });
        let place = match offset {
            Some(offset) => binary(place, BinaryOperator::Minus, offset),
            None => place,
        };
        binary(place, BinaryOperator::LtEq, count("limit_count", limit))
    });
    select.qualify =
        skipped.into_iter().chain(taken).reduce(|left, right| binary(left, BinaryOperator::And, right));
    Ok(())
}

/// The place of an output column that a key of ORDER BY is the number of.
fn position(key: &Expr) -> Option<usize> {
    match key {
        Expr::Value(ValueWithSpan { value: Value::Number(n, _), .. }) => {
            n.parse::<usize>().ok()?.checked_sub(1)
        }
        _ => None,
    }
}

fn is_wildcard(item: &SelectItem) -> bool {
    matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..))
}

/// A key of ORDER BY by the columns that the SELECT reads; `None` when it cannot be said so.
fn of_input(key: &OrderByExpr, select: &Select) -> Option<OrderByExpr> {
    let item = |item: &SelectItem| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr.clone()),
        _ => None,
    };
    let expr = match (&key.expr, position(&key.expr)) {
        (_, Some(place)) => {
            if select.projection.iter().take(place + 1).any(is_wildcard) {
                return None;
            }
            item(select.projection.get(place)?)?
        }
        (Expr::Identifier(id), _) => {
            let named = select.projection.iter().find(
                |item| matches!(item, SelectItem::ExprWithAlias { alias, .. } if fold(alias) == fold(id)),
            );
            match named {
                Some(named) => item(named)?,
                None => key.expr.clone(),
            }
        }
        (other, _) => other.clone(),
    };
    (!holds_window(&expr)).then_some(OrderByExpr { expr, ..key.clone() })
}

/// A key of ORDER BY by the names of what the query gives.
fn of_output(mut key: OrderByExpr, body: &SetExpr) -> Result<OrderByExpr> {
    if let SetExpr::Select(select) = body {
        distinct::order_by_position(&mut key.expr, select);
    }
    if let Some(place) = position(&key.expr) {
        let name = output_name(body, place).ok_or_else(|| {
            Error::unsupported("ORDER BY a position among the columns of * with a computed LIMIT")
                .with_hint("Order by the column's name.")
        })?;
        key.expr = Expr::Identifier(Ident::with_quote('"', name));
    }
    Ok(key)
}

/// What the column at a place is called.
fn output_name(body: &SetExpr, place: usize) -> Option<String> {
    match body {
        SetExpr::Select(select) => match select.projection.get(place)? {
            _ if select.projection.iter().take(place + 1).any(is_wildcard) => None,
            SelectItem::ExprWithAlias { alias, .. } => Some(fold(alias)),
            SelectItem::UnnamedExpr(expr) => Some(naming::output_name(expr)),
            _ => None,
        },
        SetExpr::Query(query) => output_name(&query.body, place),
        SetExpr::SetOperation { left, .. } => output_name(left, place),
        SetExpr::Values(_) => Some(format!("column{}", place + 1)),
        _ => None,
    }
}

/// `q ORDER BY …` as `SELECT * FROM (q) ORDER BY …`.
fn within(query: &mut Query) -> Result<()> {
    let mut outer = parser::parse_query("SELECT * FROM (SELECT 1) AS limited")?;
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(TableWithJoins { relation: TableFactor::Derived { subquery, alias, .. }, .. }) =
            select.from.first_mut()
    {
        let name = Ident::with_quote('"', naming::marked("limited", 0));
        *alias = Some(TableAlias { explicit: true, name, columns: vec![], at: None });
        std::mem::swap(&mut subquery.body, &mut query.body);
    }
    query.body = outer.body;
    Ok(())
}
