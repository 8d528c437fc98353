//! Intervals compared by their length, as PostgreSQL does: `1 month` equals `30 days` and `720 hours`.
//!
//! DataFusion compares months, days and the rest one after the other. Here comparisons, orders, groups and extrema look
//! at [`temporal::length`] instead. INTERSECT, EXCEPT, count(DISTINCT) and arrays still tell apart what is written differently.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, InList, InSubquery, Sort as SortExpr};
use datafusion::logical_expr::{
    Aggregate, Between, Distinct, Expr, ExprSchemable, LogicalPlan, LogicalPlanBuilder, Sort,
};

use super::naming;
use crate::sql::functions::temporal;

/// Whether a value is an interval.
pub(super) fn is_interval(expr: &Expr, schema: &DFSchema) -> Result<bool> {
    Ok(matches!(expr.get_type(schema)?, DataType::Interval(_)))
}

/// BETWEEN, IN, min, max and orders in aggregates, all by length.
pub(super) fn compared(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    match expr {
        Expr::Between(Between { expr, negated, low, high }) if is_interval(&expr, schema)? => {
            let [expr, low, high] = [expr, low, high].map(|e| Box::new(temporal::length(*e)));
            Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
        }
        Expr::InList(InList { expr, list, negated }) if is_interval(&expr, schema)? => {
            let list = list.into_iter().map(temporal::length).collect();
            Ok(Transformed::yes(Expr::InList(InList::new(Box::new(temporal::length(*expr)), list, negated))))
        }
        Expr::InSubquery(InSubquery { expr, mut subquery, negated }) if is_interval(&expr, schema)? => {
            let plan = subquery.subquery.as_ref().clone();
            if let [column] = plan.schema().columns().as_slice()
                && holds_interval(plan.schema())
            {
                let length =
                    temporal::length(Expr::Column(column.clone())).alias(naming::marked("length", 0));
                subquery.subquery = Arc::new(LogicalPlanBuilder::from(plan).project([length])?.build()?);
            }
            let expr = Box::new(temporal::length(*expr));
            Ok(Transformed::yes(Expr::InSubquery(InSubquery { expr, subquery, negated })))
        }
        Expr::AggregateFunction(call) => aggregate(call, schema),
        Expr::WindowFunction(mut call) => {
            let mut changed = by_length(&mut call.params.order_by, schema)?;
            for key in &mut call.params.partition_by {
                if is_interval(key, schema)? {
                    *key = temporal::length(std::mem::take(key));
                    changed = true;
                }
            }
            Ok(Transformed::new_transformed(Expr::WindowFunction(call), changed))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// The shortest interval is the first one by length.
fn aggregate(mut call: AggregateFunction, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let extremum = match (call.func.name(), call.params.args.as_slice()) {
        ("min", [arg]) if is_interval(arg, schema)? => Some((arg.clone(), true)),
        ("max", [arg]) if is_interval(arg, schema)? => Some((arg.clone(), false)),
        _ => None,
    };
    if let Some((arg, ascending)) = extremum {
        call.func = first_value_udaf();
        call.params.distinct = false;
        // Those of one length have an order, too, so that there is one answer.
        call.params.order_by =
            vec![temporal::length(arg.clone()).sort(ascending, false), arg.sort(ascending, false)];
        return Ok(Transformed::yes(Expr::AggregateFunction(call)));
    }
    let changed = by_length(&mut call.params.order_by, schema)?;
    Ok(Transformed::new_transformed(Expr::AggregateFunction(call), changed))
}

/// ORDER BY, GROUP BY and DISTINCT over intervals, by their length.
pub(super) fn sorted(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    match plan {
        LogicalPlan::Sort(Sort { mut expr, input, fetch }) => {
            let changed = by_length(&mut expr, input.schema())?;
            Ok(Transformed::new_transformed(LogicalPlan::Sort(Sort { expr, input, fetch }), changed))
        }
        LogicalPlan::Distinct(Distinct::All(input)) if holds_interval(input.schema()) => {
            let columns = input.schema().columns().into_iter().map(Expr::Column).collect();
            let plan = Aggregate::try_new(input, columns, vec![])?;
            Ok(Transformed::yes(grouped(plan)?))
        }
        LogicalPlan::Aggregate(plan) => {
            let keys = plan.group_expr.iter();
            let intervals = keys.map(|key| {
                Ok(!matches!(key, Expr::GroupingSet(_)) && is_interval(key, plan.input.schema())?)
            });
            if intervals.collect::<Result<Vec<_>>>()?.contains(&true) {
                Ok(Transformed::yes(grouped(plan)?))
            } else {
                Ok(Transformed::no(LogicalPlan::Aggregate(plan)))
            }
        }
        other => Ok(Transformed::no(other)),
    }
}

fn holds_interval(schema: &DFSchema) -> bool {
    schema.fields().iter().any(|f| matches!(f.data_type(), DataType::Interval(_)))
}

/// An aggregation by the lengths of its intervals; of those of one length the group shows the least by its parts.
fn grouped(plan: Aggregate) -> Result<LogicalPlan> {
    let names: Vec<_> = plan.schema.iter().map(|(q, f)| (q.cloned(), f.name().clone())).collect();
    let mut keys = Vec::with_capacity(plan.group_expr.len());
    let mut shown = Vec::new();
    for (i, key) in plan.group_expr.into_iter().enumerate() {
        if is_interval(&key, plan.input.schema())? {
            let key = key.unalias();
            let order = vec![key.clone().sort(true, false)];
            let first =
                AggregateFunction::new_udf(first_value_udaf(), vec![key.clone()], false, None, order, None);
            shown.push((i, Expr::AggregateFunction(first).alias(naming::marked("interval", i))));
            keys.push(temporal::length(key).alias(naming::marked("length", i)));
        } else {
            keys.push(key);
        }
    }
    let (groups, calls) = (keys.len(), plan.aggr_expr.len());
    let firsts = shown.iter().map(|(_, first)| first.clone());
    let calls_and_firsts: Vec<Expr> = plan.aggr_expr.into_iter().chain(firsts).collect();
    let inner = LogicalPlan::Aggregate(Aggregate::try_new(plan.input, keys, calls_and_firsts)?);
    let columns = inner.schema().columns();
    let place = |i: usize| match shown.iter().position(|(key, _)| *key == i) {
        Some(n) => groups + calls + n,
        None => i,
    };
    let exprs: Vec<Expr> = names
        .into_iter()
        .enumerate()
        .map(|(i, (qualifier, name))| {
            Expr::Column(columns[place(i)].clone()).alias_qualified(qualifier, name)
        })
        .collect();
    LogicalPlanBuilder::from(inner).project(exprs)?.build()
}

fn by_length(order: &mut [SortExpr], schema: &DFSchema) -> Result<bool> {
    let mut changed = false;
    for sort in order {
        if is_interval(&sort.expr, schema)? {
            sort.expr = temporal::length(std::mem::take(&mut sort.expr));
            changed = true;
        }
    }
    Ok(changed)
}
