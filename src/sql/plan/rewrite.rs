//! A query's tree before it is planned: PostgreSQL's spellings as DataFusion understands them.
//!
//! Integer literals become `integer` (DataFusion's are 64 bits wide), output columns get PostgreSQL's names. What would be
//! ignored silently is refused. Expressions have a file of their own.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CastKind, Cte, DataType, Distinct, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Interval, NamedWindowExpr, ObjectName,
    OrderByKind, Query, Select, SelectItem, SetExpr, Table, TableAlias, TableFactor, TableWithJoins, Value,
    ValueWithSpan, VisitorMut, WindowFrameBound, WindowSpec, WindowType,
};

use super::literals::{keep_literal, type_number};
use super::{
    any_all, asof, casts, distinct, expressions, grouping, joins, limits, named_windows, naming, recursion,
    rows, set_returning, values, windowed, windows,
};
use crate::error::{Error, Result, SqlState};
use crate::sql::parser;
use crate::sql::walk::walk_mut;

/// Rewrites a query in place.
///
/// # Errors
/// 0A000 for clauses that would be ignored.
pub(super) fn query(query: &mut Query) -> Result<()> {
    match walk_mut(query, &mut Rewriter) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// A cast in the tree.
pub(super) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::DoubleColon, expr: Box::new(expr), data_type, array: false, format: None }
}

/// A call in the tree.
pub(super) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

struct Rewriter;

type Flow = ControlFlow<Error>;

impl VisitorMut for Rewriter {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> Flow {
        match prepare_query(query) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn post_visit_query(&mut self, query: &mut Query) -> Flow {
        casts::mark(query);
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> Flow {
        let alias = select.projection.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { alias, .. } if alias.quote_style == Some('\'') => Some(alias),
            _ => None,
        });
        if let Some(alias) = alias {
            let message = format!("syntax error at or near \"'{}'\"", alias.value);
            return ControlFlow::Break(Error::new(SqlState::SYNTAX_ERROR, message));
        }
        naming::name_items(select);
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut window.1 {
                frame_offsets(spec).for_each(keep_literal);
            }
        }
        if let GroupByExpr::Expressions(exprs, _) = &mut select.group_by {
            grouping::spell_out(exprs);
            exprs.iter_mut().for_each(keep_literal);
        }
        if let Err(e) = distinct::distinct_on(select) {
            return ControlFlow::Break(e);
        }
        if let Some(condition) = &mut select.selection
            && let Err(e) = rows::filter(condition)
        {
            return ControlFlow::Break(e);
        }
        if let Err(e) = windows::extend(select) {
            return ControlFlow::Break(e);
        }
        if let Some(condition) = &mut select.qualify {
            named_windows::define(condition, &select.named_window);
        }
        if let Some(condition) = &mut select.having
            && matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty())
        {
            one_group(condition);
        }
        select.from.iter_mut().for_each(asof::isolate);
        joins::gather(select);
        if select.into.is_some() {
            return ControlFlow::Break(Error::unsupported("SELECT INTO"));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, select: &mut Select) -> Flow {
        for window in &mut select.named_window {
            if let NamedWindowExpr::WindowSpec(spec) = &mut window.1 {
                restore_frame(spec);
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> Flow {
        if let Err(e) = windowed::expand(factor) {
            return ControlFlow::Break(e);
        }
        match factor {
            TableFactor::NestedJoin { table_with_joins, .. } if !asof::is_asof(table_with_joins) => {
                asof::isolate(table_with_joins);
            }
            TableFactor::Table { sample: Some(_), .. } | TableFactor::Derived { sample: Some(_), .. } => {
                return ControlFlow::Break(Error::unsupported("TABLESAMPLE"));
            }
            TableFactor::Table { args: Some(args), .. } => {
                for arg in &mut args.args {
                    if let FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) = arg {
                        keep_literal(expr);
                    }
                }
            }
            _ => {}
        }
        match set_returning::in_from(factor) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        match expressions::prepare(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(e) => ControlFlow::Break(e),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> Flow {
        type_number(expr);
        any_all::quantified(expr);
        if let Expr::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) = expr {
            restore_frame(spec);
        }
        ControlFlow::Continue(())
    }
}

/// HAVING without GROUP BY makes one group of all rows, also where no aggregate says so.
fn one_group(condition: &mut Expr) {
    let having = std::mem::replace(condition, Expr::Value(Value::Null.into()));
    let zero = Expr::Value(Value::Number("0".into(), false).into());
    let grouped = binary(count_rows(None), BinaryOperator::GtEq, zero);
    *condition = binary(Expr::Nested(Box::new(having)), BinaryOperator::And, grouped);
}

/// `count(*)` of the rows that fulfil a condition.
pub(super) fn count_rows(condition: Option<Expr>) -> Expr {
    let mut rows = call("count", vec![]);
    if let Expr::Function(Function { args: FunctionArguments::List(list), filter, .. }) = &mut rows {
        list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Wildcard));
        *filter = condition.map(Box::new);
    }
    rows
}

/// The offsets of a window's frame.
pub(super) fn frame_offsets(spec: &mut WindowSpec) -> impl Iterator<Item = &mut Expr> {
    let frame = spec.window_frame.iter_mut();
    frame.flat_map(|f| std::iter::once(&mut f.start_bound).chain(&mut f.end_bound)).filter_map(|bound| {
        match bound {
            WindowFrameBound::Preceding(Some(offset)) | WindowFrameBound::Following(Some(offset)) => {
                Some(offset.as_mut())
            }
            _ => None,
        }
    })
}

/// Frame offsets as DataFusion wants them: numbers without a flag, intervals that are no casts.
fn restore_frame(spec: &mut WindowSpec) {
    for offset in frame_offsets(spec) {
        match offset {
            Expr::Value(ValueWithSpan { value: Value::Number(_, kept), .. }) => *kept = false,
            Expr::Cast { expr, data_type: DataType::Interval { .. }, .. } => {
                let value = Box::new(std::mem::replace(expr.as_mut(), Expr::Value(Value::Null.into())));
                *offset = Expr::Interval(Interval {
                    value,
                    leading_field: None,
                    leading_precision: None,
                    last_field: None,
                    fractional_seconds_precision: None,
                });
            }
            _ => {}
        }
    }
}

/// LIMIT, FETCH, ORDER BY positions; what DataFusion would ignore is refused.
fn prepare_query(query: &mut Query) -> Result<()> {
    if let Some(with) = query.with.as_ref().filter(|with| with.recursive) {
        with.cte_tables.iter().try_for_each(recursion::check)?;
    }
    if let Some(with) = query.with.as_mut().filter(|with| !with.recursive) {
        with.cte_tables.iter_mut().try_for_each(name_in_query)?;
    }
    if !query.locks.is_empty() {
        return Err(Error::unsupported("FOR UPDATE and FOR SHARE"));
    }
    limits::prepare(query)?;
    if let Some(order_by) = &mut query.order_by
        && let OrderByKind::Expressions(exprs) = &mut order_by.kind
    {
        if let SetExpr::Select(select) = query.body.as_ref() {
            exprs.iter_mut().for_each(|e| named_windows::define(&mut e.expr, &select.named_window));
        }
        exprs.iter_mut().for_each(|e| keep_literal(&mut e.expr));
        if let SetExpr::Select(select) = query.body.as_ref()
            && matches!(select.distinct, Some(Distinct::Distinct))
        {
            exprs.iter_mut().for_each(|e| distinct::order_by_position(&mut e.expr, select));
        }
    }
    set_expr(&mut query.body)
}

/// `w(a) AS (…)` as `w AS (SELECT * FROM (…) AS w(a))`: a list of names may be shorter than the columns.
fn name_in_query(cte: &mut Cte) -> Result<()> {
    if cte.alias.columns.is_empty() {
        return Ok(());
    }
    let mut outer = parser::parse_query("SELECT * FROM (SELECT 1) AS w")?;
    if let SetExpr::Select(select) = outer.body.as_mut()
        && let Some(TableWithJoins { relation: TableFactor::Derived { subquery, alias, .. }, .. }) =
            select.from.first_mut()
    {
        let columns = std::mem::take(&mut cte.alias.columns);
        *alias = Some(TableAlias { columns, ..cte.alias.clone() });
        std::mem::swap(subquery, &mut cte.query);
    }
    cte.query = outer;
    Ok(())
}

/// `TABLE t` as `SELECT * FROM t`.
pub(super) fn table_as_select(table: &Table) -> Result<SetExpr> {
    let mut name = String::new();
    if let Some(schema) = &table.schema_name {
        name.push_str(&Ident::with_quote('"', schema).to_string());
        name.push('.');
    }
    name.push_str(&Ident::with_quote('"', table.table_name.clone().unwrap_or_default()).to_string());
    Ok(*parser::parse_query(&format!("SELECT * FROM {name}"))?.body)
}

/// `TABLE t` is `SELECT * FROM t`; VALUES are a union where they have to be.
fn set_expr(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            set_expr(left)?;
            set_expr(right)
        }
        SetExpr::Table(table) => {
            *body = table_as_select(table)?;
            Ok(())
        }
        SetExpr::Values(values) if values::needs_union(values) => {
            *body = values::rows_as_selects(values)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the flag off again, which would be printed.
    struct Unflag;

    impl VisitorMut for Unflag {
        type Break = ();

        fn pre_visit_value(&mut self, value: &mut ValueWithSpan) -> ControlFlow<()> {
            if let Value::Number(_, kept) = &mut value.value {
                *kept = false;
            }
            ControlFlow::Continue(())
        }
    }

    fn rewritten(expr: &str) -> String {
        let mut expr = parser::parse_expression(expr).unwrap();
        assert!(walk_mut(&mut expr, &mut Rewriter).is_continue());
        assert!(walk_mut(&mut expr, &mut Unflag).is_continue());
        expr.to_string()
    }

    #[test]
    fn literals_get_postgresqls_types() {
        assert_eq!(rewritten("a + 1"), "a + 1::INTEGER");
        assert_eq!(rewritten("3000000000"), "3000000000");
        assert_eq!(rewritten("9223372036854775808"), "9223372036854775808::NUMERIC(38,0)");
        assert_eq!(rewritten("1.5"), "1.5");
        assert_eq!(rewritten("1.5e3"), "1500::NUMERIC(4,0)");
        assert_eq!(rewritten("15e-1"), "1.5");
        assert_eq!(rewritten("1e-3"), "0.001");
        assert_eq!(rewritten("1e36"), format!("1{}::NUMERIC(37,0)", "0".repeat(36)));
        assert_eq!(rewritten("1e38"), "'1e38'::DOUBLE PRECISION");
        assert_eq!(rewritten("1e300"), "'1e300'::DOUBLE PRECISION");
        assert_eq!(rewritten("abs(1e300)"), "abs('1e300'::DOUBLE PRECISION)");
        assert_eq!(rewritten("1e-39"), "'1e-39'::DOUBLE PRECISION");
        assert_eq!(rewritten("round(x, 2)"), "round(x, 2)");
        assert_eq!(rewritten("coalesce(x, 2)"), "coalesce(x, 2::INTEGER)");
    }

    #[test]
    fn frame_offsets_stay_literals() {
        for sql in [
            "sum(a) OVER (ORDER BY b ROWS BETWEEN 1 PRECEDING AND 2 FOLLOWING)",
            "sum(a) OVER (ROWS 3 PRECEDING)",
        ] {
            assert_eq!(rewritten(sql), sql);
        }
        assert_eq!(
            rewritten("sum(a) OVER (ORDER BY b RANGE interval '1' day PRECEDING)"),
            "sum(a) OVER (ORDER BY b RANGE INTERVAL '1 DAY' PRECEDING)"
        );
    }

    #[test]
    fn spellings_become_calls_and_casts() {
        assert_eq!(rewritten("interval '5' minute"), "'5 MINUTE'::INTERVAL");
        assert_eq!(rewritten("a at time zone 'UTC'"), "timezone('UTC', a)");
        assert_eq!(rewritten("pg_catalog.lower(a)"), "lower(a)");
        assert_eq!(rewritten("a OPERATOR(pg_catalog.~) 'x'"), "a ~ 'x'");
        assert_eq!(rewritten("@ a"), "abs(a)");
    }
}
