//! Intervals compared by their length, as PostgreSQL does: `1 month` equals `30 days` and `720 hours`.
//!
//! DataFusion compares months, days and the rest one after the other. Here comparisons, orders and extrema look at
//! [`temporal::length`] instead. GROUP BY, DISTINCT and PARTITION BY still tell apart what is written differently.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, Result};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{AggregateFunction, InList, Sort as SortExpr};
use datafusion::logical_expr::{Between, Expr, ExprSchemable, LogicalPlan, Sort};

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
        Expr::AggregateFunction(call) => aggregate(call, schema),
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

/// An ORDER BY over intervals, by their length.
pub(super) fn sorted(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Sort(Sort { mut expr, input, fetch }) = plan else { return Ok(Transformed::no(plan)) };
    let changed = by_length(&mut expr, input.schema())?;
    Ok(Transformed::new_transformed(LogicalPlan::Sort(Sort { expr, input, fetch }), changed))
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
