//! A query's tree before it is planned: PostgreSQL's spellings as DataFusion understands them.
//!
//! Integer literals become `integer` (DataFusion's are 64 bits wide), output columns get PostgreSQL's names,
//! intervals and time zones become casts and calls. What would be ignored silently is refused.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, Cte, DataType, Distinct, Expr, Fetch, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, GroupByExpr, Ident, Interval, LimitClause,
    NamedWindowExpr, ObjectName, OrderByKind, Query, Select, SelectItem, SetExpr, Table, TableAlias,
    TableFactor, TableWithJoins, UnaryOperator, Value, ValueWithSpan, VisitorMut, WindowFrameBound,
    WindowSpec, WindowType,
};

use super::literals::{interval_cast, keep_literal, precise, type_number, whole_number};
use super::{
    any_all, asof, casts, collecting, distinct, grouping, joins, named_windows, naming, patterns, recursion,
    rows, set_returning, spelled, values, windowed, windows,
};
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
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
            TableFactor::Table { sample: Some(_), .. } => {
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
        match prepare_expr(expr) {
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
fn frame_offsets(spec: &mut WindowSpec) -> impl Iterator<Item = &mut Expr> {
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
    if let Some(Fetch { with_ties, percent, quantity }) = query.fetch.take() {
        if with_ties || percent {
            return Err(Error::unsupported("FETCH FIRST … WITH TIES or PERCENT"));
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
    }
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            for count in limit.iter_mut().chain(offset.iter_mut().map(|o| &mut o.value)) {
                whole_number(count)?;
                keep_literal(count);
            }
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
            keep_literal(offset);
            keep_literal(limit);
        }
        None => {}
    }
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

fn prepare_expr(expr: &mut Expr) -> Result<()> {
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
            prepare_expr(expr)
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
                    prepare_expr(expr)
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
            prepare_expr(expr)
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

pub(super) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
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
