//! Aggregates that collect their values first: `jsonb_agg(x ORDER BY y)` becomes a function of
//! `array_agg(to_jsonb(x) ORDER BY y)`, `mode() WITHIN GROUP (ORDER BY x)` one of `array_agg(x ORDER BY x)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArgumentClause, FunctionArguments, GroupByExpr, Ident, ObjectName, OrderBy, OrderByExpr,
    OrderByKind, OrderByOptions, Query, SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor,
    TableWithJoins, Value, Visitor, WindowType,
};

use super::rewrite::{binary, call, cast};
use super::{hypothetical, naming, set_returning};
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::functions::Functions;
use crate::sql::parser;
use crate::sql::walk::walk;

/// The call that a call of such an aggregate stands for; `None` for any other function.
///
/// # Errors
/// 42883 for other arguments than it has.
pub(super) fn rewrite(function: &Function) -> Result<Option<Expr>> {
    let [name] = function.name.0.as_slice() else { return Ok(None) };
    let Some(name) = name.as_ident().map(fold) else { return Ok(None) };
    Ok(Some(match name.as_str() {
        "json_agg" | "jsonb_agg" => {
            let to = if name == "json_agg" { "to_json" } else { "to_jsonb" };
            let [value] = arguments(function, &name)?;
            let items = collected(function, call(to, vec![value]), None);
            call(if name == "json_agg" { "json_of_items" } else { "jsonb_of_items" }, vec![items])
        }
        "json_object_agg" | "jsonb_object_agg" => {
            let kind = name.trim_end_matches("_object_agg");
            let [key, value] = arguments(function, &name)?;
            let members = collected(function, call(&format!("{kind}_member"), vec![key, value]), None);
            call(&format!("{kind}_of_members"), vec![members])
        }
        "mode" if !function.within_group.is_empty() => {
            let [] = arguments(function, &name)?;
            let order = one_order(function)?;
            call("most_frequent", vec![collected(function, order.expr.clone(), Some(order))])
        }
        "percentile_disc" | "percentile_cont" if !function.within_group.is_empty() => {
            let [fraction] = arguments(function, &name)?;
            let order = one_order(function)?;
            let value = order.expr.clone();
            let (finish, value) = match name.as_str() {
                "percentile_disc" => ("percentile_element", value),
                _ => ("percentile_of", cast(value, DataType::DoublePrecision)),
            };
            let values = collected(function, value, Some(order));
            let of = |fraction: Expr| call(finish, vec![values.clone(), fraction]);
            match fraction {
                Expr::Array(mut fractions) => {
                    fractions.elem = fractions.elem.into_iter().map(of).collect();
                    Expr::Array(fractions)
                }
                one => of(one),
            }
        }
        "string_agg" if function.over.is_some() || !delimiter_is_literal(function) => {
            let [value, delimiter] = arguments(function, &name)?;
            let pieces = collected(function, call("text_behind", vec![value, delimiter]), None);
            call("text_of_pieces", vec![pieces])
        }
        // The extremum of numbers can forget a row that leaves the frame.
        "bool_and" | "every" | "bool_or" if function.over.as_ref().is_some_and(slides) => {
            let [value] = arguments(function, &name)?;
            let mut extremum = function.clone();
            let number = parser::parse_expression("CASE WHEN a THEN 1 WHEN NOT a THEN 0 END")?;
            extremum.name = ObjectName::from(vec![Ident::new(if name == "bool_or" { "max" } else { "min" })]);
            if let FunctionArguments::List(list) = &mut extremum.args {
                list.args = vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(of_value(number, &value)))];
            }
            Expr::Nested(Box::new(binary(
                Expr::Function(extremum),
                BinaryOperator::Eq,
                Expr::Value(Value::Number("1".to_string(), false).into()),
            )))
        }
        "rank" | "dense_rank" | "percent_rank" | "cume_dist" if !function.within_group.is_empty() => {
            hypothetical::rank(function, &name)?
        }
        _ => return Ok(None),
    }))
}

/// The expression with the value in the place of its columns.
fn of_value(mut expr: Expr, value: &Expr) -> Expr {
    if let Expr::Case { conditions, .. } = &mut expr {
        for case in conditions {
            match &mut case.condition {
                Expr::UnaryOp { expr, .. } => **expr = Expr::Nested(Box::new(value.clone())),
                column => *column = value.clone(),
            }
        }
    }
    expr
}

/// Whether rows may leave the frame of a window; nothing is known of a named one.
fn slides(over: &WindowType) -> bool {
    match over {
        WindowType::NamedWindow(_) => true,
        WindowType::WindowSpec(spec) => spec.window_name.is_some() || spec.window_frame.is_some(),
    }
}

fn delimiter_is_literal(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return true };
    let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(delimiter))] = list.args.as_slice() else {
        return true;
    };
    let mut delimiter = delimiter;
    while let Expr::Nested(inner) | Expr::Cast { expr: inner, .. } = delimiter {
        delimiter = inner;
    }
    matches!(delimiter, Expr::Value(_))
}

/// The arguments of a call that are expressions.
pub(super) fn given_arguments(function: &Function) -> Vec<Expr> {
    match &function.args {
        FunctionArguments::List(list) => list
            .args
            .iter()
            .filter_map(|a| match a {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(e)) => Some(e.clone()),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn arguments<const N: usize>(function: &Function, name: &str) -> Result<[Expr; N]> {
    given_arguments(function).try_into().map_err(|_: Vec<Expr>| {
        Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}() does not exist"))
            .with_hint("No aggregate of this name takes these arguments.")
    })
}

fn one_order(function: &Function) -> Result<OrderByExpr> {
    match function.within_group.as_slice() {
        [order] => Ok(order.clone()),
        _ => Err(Error::unsupported("WITHIN GROUP with several columns")),
    }
}

/// Different values are collected in their order, as PostgreSQL finds them by sorting.
pub(super) fn sort_distinct(function: &mut Function, name: &str) {
    if !matches!(name, "array_agg" | "string_agg") || function.over.is_some() {
        return;
    }
    let value = given_arguments(function).into_iter().next();
    if let (FunctionArguments::List(list), Some(expr)) = (&mut function.args, value)
        && list.duplicate_treatment == Some(DuplicateTreatment::Distinct)
        && list.clauses.is_empty()
    {
        let options = OrderByOptions { asc: None, nulls_first: None };
        let order = OrderByExpr { expr, options, with_fill: None };
        list.clauses.push(FunctionArgumentClause::OrderBy(vec![order]));
    }
}

/// `array_agg(value)` with what stood around the values of the other aggregate.
fn collected(function: &Function, value: Expr, order: Option<OrderByExpr>) -> Expr {
    let mut inner = call("array_agg", vec![value]);
    if let Expr::Function(aggregate) = &mut inner {
        if let (FunctionArguments::List(to), FunctionArguments::List(from)) =
            (&mut aggregate.args, &function.args)
        {
            to.duplicate_treatment = from.duplicate_treatment;
            to.clauses = match order {
                Some(order) => vec![FunctionArgumentClause::OrderBy(vec![order])],
                None => from.clauses.clone(),
            };
        }
        aggregate.filter = function.filter.clone();
        aggregate.over = function.over.clone();
    }
    inner
}

/// `ARRAY(SELECT …)` as a subquery that collects; `None` for any other function.
///
/// # Errors
/// 0A000 when the rows have an order that cannot be told to the aggregate.
pub(super) fn array_of_query(function: &Function) -> Result<Option<Expr>> {
    let FunctionArguments::Subquery(query) = &function.args else { return Ok(None) };
    if function.name.0.last().and_then(|p| p.as_ident()).is_none_or(|id| fold(id) != "array") {
        return Ok(None);
    }
    if let Some(aggregated) = aggregated(query) {
        return Ok(Some(Expr::Subquery(Box::new(aggregated))));
    }
    let (inner, order) = ordered(query)?;
    let item = naming::marked("item", 0);
    let order: Vec<String> =
        (0..order.len()).map(|i| format!("\"{}\" {}", naming::marked("order", i), order[i])).collect();
    let order_by = if order.is_empty() { String::new() } else { format!(" ORDER BY {}", order.join(", ")) };
    let text = format!("SELECT coalesce(array_agg(\"{item}\"{order_by}), '{{}}') FROM t");
    let mut outer = parser::parse_query(&text)?;
    if let SetExpr::Select(select) = outer.body.as_mut() {
        let mut columns = vec![item];
        columns.extend((0..order.len()).map(|i| naming::marked("order", i)));
        let columns = columns
            .into_iter()
            .map(|name| TableAliasColumnDef { name: Ident::with_quote('"', name), data_type: None })
            .collect();
        let name = Ident::with_quote('"', naming::marked("rows", 0));
        let relation = TableFactor::Derived {
            lateral: false,
            subquery: Box::new(inner),
            alias: Some(TableAlias { explicit: true, name, columns, at: None }),
            sample: None,
        };
        select.from = vec![TableWithJoins { relation, joins: vec![] }];
    }
    Ok(Some(Expr::Subquery(outer)))
}

/// The query with its one column collected in its place: so it may name columns of queries around it. `None` when its
/// rows are made of others, or counted.
fn aggregated(query: &Query) -> Option<Query> {
    let SetExpr::Select(select) = query.body.as_ref() else { return None };
    let no_groups = matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
    let plain = no_groups && select.having.is_none() && select.distinct.is_none() && select.qualify.is_none();
    if !plain || query.with.is_some() || query.limit_clause.is_some() || query.fetch.is_some() {
        return None;
    }
    let [SelectItem::UnnamedExpr(value) | SelectItem::ExprWithAlias { expr: value, .. }] =
        select.projection.as_slice()
    else {
        return None;
    };
    let mut order = match &query.order_by {
        None => Vec::new(),
        Some(OrderBy { kind: OrderByKind::Expressions(order), .. }) => order.clone(),
        Some(_) => return None,
    };
    for key in &mut order {
        key.expr = meant(&key.expr, select.projection.first());
    }
    if !of_its_row(value) || !order.iter().all(|key| of_its_row(&key.expr)) {
        return None;
    }
    let mut list = call("array_agg", vec![value.clone()]);
    if let Expr::Function(Function { args: FunctionArguments::List(args), .. }) = &mut list
        && !order.is_empty()
    {
        args.clauses.push(FunctionArgumentClause::OrderBy(order));
    }
    let empty = Expr::Value(Value::SingleQuotedString("{}".to_string()).into());
    let mut select = select.clone();
    select.projection = vec![SelectItem::UnnamedExpr(call("coalesce", vec![list, empty]))];
    Some(Query { body: Box::new(SetExpr::Select(select)), order_by: None, ..query.clone() })
}

/// Whether an expression is computed of one row for it: no aggregate, no window, no rows of its own, no subquery.
fn of_its_row(expr: &Expr) -> bool {
    struct Others;
    impl Visitor for Others {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
            let name = function.name.0.last().and_then(|part| part.as_ident()).map(fold).unwrap_or_default();
            let scalar = Functions::get().scalar(&name).is_some() && !set_returning::is_known(&name);
            match scalar && function.over.is_none() {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            }
        }
    }
    walk(expr, &mut Others).is_continue()
}

/// What is ordered by: a position, or an alias, means the one column.
fn meant(key: &Expr, column: Option<&SelectItem>) -> Expr {
    let (value, alias) = match column {
        Some(SelectItem::UnnamedExpr(value)) => (value, None),
        Some(SelectItem::ExprWithAlias { expr, alias }) => (expr, Some(fold(alias))),
        _ => return key.clone(),
    };
    let is_column = match key {
        Expr::Value(v) => matches!(v.value, Value::Number(..)),
        Expr::Identifier(id) => alias.as_deref() == Some(fold(id).as_str()),
        _ => false,
    };
    if is_column { value.clone() } else { key.clone() }
}

/// The query with what it is ordered by as further columns, and how each of them is sorted.
fn ordered(query: &Query) -> Result<(Query, Vec<String>)> {
    let mut query = query.clone();
    let Some(order_by) = query.order_by.clone() else { return Ok((query, Vec::new())) };
    let OrderByKind::Expressions(exprs) = &order_by.kind else {
        return Err(Error::unsupported("ORDER BY ALL in ARRAY"));
    };
    let SetExpr::Select(select) = query.body.as_mut() else {
        return Err(Error::unsupported("an order of a set operation in ARRAY"));
    };
    if select.distinct.is_some() {
        return Err(Error::unsupported("DISTINCT with an order in ARRAY"));
    }
    let mut sorts = Vec::new();
    for order in exprs {
        let expr = meant(&order.expr, select.projection.first());
        select.projection.push(SelectItem::UnnamedExpr(expr));
        let options = &order.options;
        let direction = if options.asc == Some(false) { "DESC" } else { "ASC" };
        let nulls = match options.nulls_first {
            Some(true) => " NULLS FIRST",
            Some(false) => " NULLS LAST",
            None => "",
        };
        sorts.push(format!("{direction}{nulls}"));
    }
    Ok((query, sorts))
}

/// Functions that without arguments give a document of nothing.
pub(super) fn empty_document(function: &Function) -> Option<Expr> {
    let [name] = function.name.0.as_slice() else { return None };
    let FunctionArguments::List(list) = &function.args else { return None };
    let (text, data_type) = match fold(name.as_ident()?).as_str() {
        "json_build_object" => ("{}", DataType::JSON),
        "jsonb_build_object" => ("{}", DataType::JSONB),
        "json_build_array" => ("[]", DataType::JSON),
        "jsonb_build_array" => ("[]", DataType::JSONB),
        _ => return None,
    };
    let literal = Expr::Value(Value::SingleQuotedString(text.to_string()).into());
    list.args.is_empty().then(|| cast(literal, data_type))
}
