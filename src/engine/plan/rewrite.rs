//! What a query means, spelled out where DataFusion would plan something else or leave it open.
//!
//! [`normalise`] is for views, reads and the oracle alike: subqueries follow SQL's three-valued logic and
//! cardinality, GROUPING SETS over nothing give their grand totals. [`determine`] is for what is kept up to date and
//! for its oracle: where SQL leaves a choice open (ties, LIMIT without ORDER BY, array_agg without an order), it
//! orders by the whole row, so that there is one answer.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::functions_window::row_number::row_number_udwf;
use datafusion::logical_expr::expr::{AggregateFunction, GroupingSet, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Limit, LogicalPlan, LogicalPlanBuilder, Sort, Union, Window, col,
    lit,
};

use super::peers;
use super::subquery::Subqueries;
use crate::error::Result;

type Planned<T> = datafusion::error::Result<T>;

/// The same query without grouping sets and with only such subqueries as DataFusion's rules plan rightly.
pub fn normalise(plan: LogicalPlan) -> Result<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(grouping_sets)?.data;
    let mut subqueries = Subqueries::default();
    Ok(plan.transform_up_with_subqueries(|node| subqueries.node(node))?.data)
}

/// The same query with one possible answer.
pub fn determine(plan: LogicalPlan) -> Result<LogicalPlan> {
    let determined = plan.transform_up_with_subqueries(|node| {
        Ok(match node {
            LogicalPlan::Limit(limit) => {
                let input = Arc::new(ordered(Arc::unwrap_or_clone(limit.input))?);
                Transformed::yes(LogicalPlan::Limit(Limit { input, ..limit }))
            }
            LogicalPlan::Distinct(Distinct::On(on)) => Transformed::yes(distinct_on(on)?),
            LogicalPlan::Window(window) => windows(window)?,
            LogicalPlan::Aggregate(aggregate) => aggregates(aggregate)?,
            node => Transformed::no(node),
        })
    })?;
    Ok(determined.data)
}

/// An aggregation over grouping sets as the union of one aggregation for each set.
fn grouping_sets(plan: LogicalPlan) -> Planned<Transformed<LogicalPlan>> {
    let LogicalPlan::Aggregate(aggregate) = &plan else { return Ok(Transformed::no(plan)) };
    let [Expr::GroupingSet(sets)] = &aggregate.group_expr[..] else { return Ok(Transformed::no(plan)) };
    let keys: Vec<Expr> = grouping_set_to_exprlist(&aggregate.group_expr)?.into_iter().cloned().collect();
    let fields = aggregate.schema.fields();
    let id_type = fields[keys.len()].data_type();
    let mut seen: Vec<Vec<bool>> = Vec::new();
    let mut branches = Vec::new();
    for set in enumerate(sets) {
        let used: Vec<bool> = keys.iter().map(|k| set.contains(k)).collect();
        let missing = used.iter().fold(0u64, |bits, used| bits << 1 | u64::from(!used));
        // A set that stands twice counts twice; the number of its earlier copies is above the bits of the keys.
        let copy = seen.iter().filter(|s| **s == used).count() as u64;
        let id = lit(ScalarValue::UInt64(Some(copy << keys.len() | missing)).cast_to(id_type)?);
        let group: Vec<Expr> = keys.iter().zip(&used).filter(|(_, u)| **u).map(|(k, _)| k.clone()).collect();
        seen.push(used.clone());
        let groups = group.len();
        let one: LogicalPlan = if group.is_empty() && aggregate.aggr_expr.is_empty() {
            LogicalPlanBuilder::empty(true).build()?
        } else {
            LogicalPlan::Aggregate(Aggregate::try_new(
                Arc::clone(&aggregate.input),
                group,
                aggregate.aggr_expr.clone(),
            )?)
        };
        let columns = one.schema().columns();
        let mut grouped = columns[..groups].iter();
        let mut exprs = Vec::with_capacity(fields.len());
        for (i, used) in used.iter().enumerate() {
            // Only a used key takes one of the grouped columns.
            let column = if *used { grouped.next() } else { None };
            let value = match column {
                Some(column) => Expr::Column(column.clone()),
                None => lit(ScalarValue::try_from(fields[i].data_type())?),
            };
            exprs.push(value.alias(format!("g{i}")));
        }
        exprs.push(id.alias(format!("g{}", keys.len())));
        for (i, column) in columns[groups..].iter().enumerate() {
            exprs.push(Expr::Column(column.clone()).alias(format!("g{}", keys.len() + 1 + i)));
        }
        branches.push(Arc::new(LogicalPlanBuilder::from(one).project(exprs)?.build()?));
    }
    let union = LogicalPlan::Union(Union::try_new_with_loose_types(branches)?);
    let names = aggregate.schema.iter().enumerate();
    let names = names.map(|(i, (q, f))| col(format!("g{i}")).alias_qualified(q.cloned(), f.name()));
    Ok(Transformed::yes(LogicalPlanBuilder::from(union).project(names)?.build()?))
}

/// The sets that ROLLUP, CUBE or GROUPING SETS stand for.
fn enumerate(sets: &GroupingSet) -> Vec<Vec<Expr>> {
    match sets {
        GroupingSet::GroupingSets(sets) => sets.clone(),
        GroupingSet::Rollup(keys) => (0..=keys.len()).rev().map(|n| keys[..n].to_vec()).collect(),
        GroupingSet::Cube(keys) => (0..1u64 << keys.len().min(63))
            .map(|bits| {
                let kept = keys.iter().enumerate().filter(|(i, _)| bits >> i & 1 == 0);
                kept.map(|(_, key)| key.clone()).collect()
            })
            .collect(),
    }
}

/// The plan under a LIMIT with its order made total.
fn ordered(plan: LogicalPlan) -> Planned<LogicalPlan> {
    Ok(match plan {
        LogicalPlan::Projection(mut p) => {
            p.input = Arc::new(ordered(Arc::unwrap_or_clone(p.input))?);
            LogicalPlan::Projection(p)
        }
        LogicalPlan::SubqueryAlias(mut a) => {
            a.input = Arc::new(ordered(Arc::unwrap_or_clone(a.input))?);
            LogicalPlan::SubqueryAlias(a)
        }
        LogicalPlan::Sort(mut sort) if sort.fetch.is_none() => {
            sort.expr = total(sort.expr, sort.input.schema());
            LogicalPlan::Sort(sort)
        }
        other => {
            let expr = total(Vec::new(), other.schema());
            if expr.is_empty() {
                return Ok(other);
            }
            LogicalPlan::Sort(Sort { expr, input: Arc::new(other), fetch: None })
        }
    })
}

/// An order, then all columns that are not in it.
pub(super) fn total(mut order: Vec<SortExpr>, schema: &DFSchema) -> Vec<SortExpr> {
    for column in schema.columns() {
        let column = Expr::Column(column);
        if !order.iter().any(|s| s.expr == column) {
            order.push(column.sort(true, false));
        }
    }
    order
}

/// The first row of each group by its row number.
fn distinct_on(on: DistinctOn) -> Planned<LogicalPlan> {
    let order = total(on.sort_expr.unwrap_or_default(), on.input.schema());
    let mut number = WindowFunction::new(row_number_udwf(), Vec::new());
    number.params.partition_by = on.on_expr;
    number.params.order_by = order;
    let number = Expr::from(number);
    let rank = Expr::Column(Column::from_name(number.schema_name().to_string()));
    let names = on.schema.iter().zip(on.select_expr);
    let select: Vec<Expr> =
        names.map(|((q, f), e)| unalias(e).alias_qualified(q.cloned(), f.name())).collect();
    LogicalPlanBuilder::from(on.input).window([number])?.filter(rank.eq(lit(1u64)))?.project(select)?.build()
}

fn unalias(e: Expr) -> Expr {
    e.unalias_nested().data
}

/// Window functions that look at single rows get a total order; what the analysis has renamed is renamed above, for a
/// window node takes bare window functions only.
fn windows(window: Window) -> Planned<Transformed<LogicalPlan>> {
    let schema = Arc::clone(window.input.schema());
    let bare: Vec<Expr> = window.window_expr.iter().cloned().map(unalias).collect();
    let exprs = determined(&bare, |e| {
        let Expr::WindowFunction(function) = e else { return Ok(e) };
        Ok(Expr::from(peers::determined(*function, &schema)?))
    })?;
    if exprs.is_none() && bare == window.window_expr {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let exprs = exprs.unwrap_or(bare);
    let mut columns = schema.columns();
    columns.extend(exprs.iter().map(|e| Column::from_name(e.schema_name().to_string())));
    // Two that were told apart by their names only are computed once.
    let mut distinct: Vec<Expr> = Vec::with_capacity(exprs.len());
    for expr in exprs {
        if !distinct.contains(&expr) {
            distinct.push(expr);
        }
    }
    // Functions of different orders now are of different nodes.
    let input = Arc::unwrap_or_clone(window.input);
    renamed(LogicalPlanBuilder::window_plan(input, distinct)?, columns, &window.schema)
}

/// Aggregate functions whose answer depends on the order get one.
fn aggregates(aggregate: Aggregate) -> Planned<Transformed<LogicalPlan>> {
    let exprs = determined(&aggregate.aggr_expr, |e| {
        let Expr::AggregateFunction(AggregateFunction { func, mut params }) = e else { return Ok(e) };
        if matches!(func.name(), "array_agg" | "string_agg" | "first_value" | "last_value" | "nth_value")
            && let Some(arg) = params.args.first()
            && !params.order_by.iter().any(|s| s.expr == *arg)
        {
            params.order_by.push(arg.clone().sort(true, false));
        }
        Ok(Expr::AggregateFunction(AggregateFunction { func, params }))
    })?;
    let Some(exprs) = exprs else { return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate))) };
    let changed = LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, aggregate.group_expr, exprs)?);
    let columns = changed.schema().columns();
    renamed(changed, columns, &aggregate.schema)
}

/// The expressions with `change` made below their aliases; `None` when it changes nothing.
fn determined(exprs: &[Expr], change: impl Fn(Expr) -> Planned<Expr>) -> Planned<Option<Vec<Expr>>> {
    fn below(e: Expr, change: &impl Fn(Expr) -> Planned<Expr>) -> Planned<Expr> {
        match e {
            Expr::Alias(mut alias) => {
                alias.expr = Box::new(below(*alias.expr, change)?);
                Ok(Expr::Alias(alias))
            }
            e => change(e),
        }
    }
    let changed: Vec<Expr> = exprs.iter().map(|e| below(e.clone(), &change)).collect::<Planned<_>>()?;
    Ok((changed != exprs).then_some(changed))
}

/// These columns of the plan, called as in `schema`.
fn renamed(plan: LogicalPlan, columns: Vec<Column>, schema: &DFSchema) -> Planned<Transformed<LogicalPlan>> {
    let names = columns.into_iter().zip(schema.iter());
    let names: Vec<Expr> = names
        .map(|(column, (qualifier, field))| {
            let same = column.relation.as_ref() == qualifier && &column.name == field.name();
            let column = Expr::Column(column);
            if same { column } else { column.alias_qualified(qualifier.cloned(), field.name()) }
        })
        .collect();
    Ok(Transformed::yes(LogicalPlanBuilder::from(plan).project(names)?.build()?))
}
