//! How many rows around a row decide about its window functions: with a bound, a change touches few others. One that adds
//! up from the first row goes on from a row before the change.

use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Expr as LogicalExpr, ExprSchemable, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::lower::{Lowering, unaliased};
use super::spec::{NodeSpec, Running, WindowSpec};
use crate::error::Result;

/// Beyond this many rows, changes of a partition that is computed as a whole are not dearer.
const ROWS_MAX: usize = 10_000;

/// Lowers a window node over an input that is lowered already; `None` when a function looks further than a bound, or
/// when they differ in partition or order.
pub(super) fn bounded(lowering: &mut Lowering, window: &Window, input: usize) -> Result<Option<usize>> {
    let (mut before, mut after) = (0, 0);
    let mut running = Vec::with_capacity(window.window_expr.len());
    let mut peers = false;
    let mut common: Option<&WindowFunction> = None;
    for expr in &window.window_expr {
        let LogicalExpr::WindowFunction(function) = unaliased(expr) else { return Ok(None) };
        let goes_on = goes_on(function, expr, window.input.schema());
        peers |= goes_on.is_some_and(|(_, peers)| peers);
        running.push(goes_on.map(|(running, _)| running));
        let around = match running.last() {
            Some(Some(_)) => Some((0, 0)),
            _ => reach(function, window.input.schema()),
        };
        let Some((back, ahead)) = around else { return Ok(None) };
        (before, after) = (before.max(back), after.max(ahead));
        let params = &common.get_or_insert(function).params;
        if params.partition_by != function.params.partition_by || params.order_by != function.params.order_by
        {
            return Ok(None);
        }
    }
    // What looks at rows around is not known of rows that go along only because they are equal to one that changed.
    let far = if peers { 0 } else { ROWS_MAX };
    let Some(function) = common.filter(|_| before.max(after) <= far) else { return Ok(None) };
    let plan_input = window.input.schema();
    let schema: SchemaRef = Arc::new(window.schema.as_arrow().clone());
    let spec = WindowSpec {
        partition: lowering.bind_all(&function.params.partition_by, plan_input)?,
        order: lowering.order(&function.params.order_by, plan_input)?,
        functions: window.window_expr.clone(),
        plan_input: Arc::clone(plan_input),
        running,
        peers,
        before,
        after,
        input: Arc::clone(lowering.schema(input)),
        schema: Arc::clone(&schema),
    };
    Ok(Some(lowering.add(NodeSpec::Window(spec), vec![input], schema)))
}

/// How the function goes on from a row before, if it is of all rows up to the current one; and whether the rows that are
/// equal to that in the order are among these.
fn goes_on(function: &WindowFunction, expr: &LogicalExpr, schema: &DFSchema) -> Option<(Running, bool)> {
    use DataType::{Date32, Decimal128, Int64, Timestamp, UInt64, Utf8View};
    let (params, name) = (&function.params, function.fun.name());
    let frame = &params.window_frame;
    let from_first = matches!(&frame.start_bound, WindowFrameBound::Preceding(n) if n.is_null());
    // Zeros of both signs, and every NaN, are equal for some and not for others.
    let exact = |e: &LogicalExpr| e.get_type(schema).is_ok_and(|t| !t.is_floating());
    let ordered = params.order_by.iter().all(|by| exact(&by.expr));
    if matches!(&function.fun, WindowFunctionDefinition::WindowUDF(_)) {
        return match name {
            "row_number" => Some((Running::Sum, false)),
            "rank" if ordered => Some((Running::Rank, true)),
            "dense_rank" if ordered => Some((Running::Sum, true)),
            "first_value" if from_first && params.null_treatment != Some(NullTreatment::IgnoreNulls) => {
                // The first row is in every frame that does not end before its own row.
                let ends_behind = !matches!(&frame.end_bound, WindowFrameBound::Preceding(_));
                ends_behind.then_some((Running::First, false))
            }
            _ => None,
        };
    }
    let peers = frame.units != WindowFrameUnits::Rows;
    let up_to_here = frame.end_bound == WindowFrameBound::CurrentRow && (ordered || !peers);
    if !from_first || !up_to_here || params.distinct {
        return None;
    }
    let result = expr.get_type(schema).ok()?;
    let running = match (name, result) {
        ("count", Int64) => Running::Sum,
        // Sums of floats depend on where they were begun.
        ("sum", Int64 | UInt64 | Decimal128(..)) => Running::Sum,
        ("min", t) if t.is_integer() => Running::Min,
        ("max", t) if t.is_integer() => Running::Max,
        ("min", Decimal128(..) | Date32 | Timestamp(..) | Utf8View) => Running::Min,
        ("max", Decimal128(..) | Date32 | Timestamp(..) | Utf8View) => Running::Max,
        _ => return None,
    };
    Some((running, peers))
}

/// Rows before and after a row that decide about the function's result there.
fn reach(function: &WindowFunction, schema: &DFSchema) -> Option<(usize, usize)> {
    let params = &function.params;
    let name = function.fun.name();
    if let WindowFunctionDefinition::WindowUDF(_) = &function.fun
        && matches!(name, "lag" | "lead")
    {
        if params.null_treatment == Some(NullTreatment::IgnoreNulls) {
            return None;
        }
        let offset = match params.args.get(1) {
            None => 1,
            Some(LogicalExpr::Literal(ScalarValue::Int64(Some(n)), _)) => *n,
            Some(_) => return None,
        };
        let rows = usize::try_from(offset.unsigned_abs()).ok()?;
        return Some(if (name == "lag") == (offset >= 0) { (rows, 0) } else { (0, rows) });
    }
    let by_frame = match &function.fun {
        // Sums of floats depend on where they were begun.
        WindowFunctionDefinition::AggregateUDF(_) if matches!(name, "sum" | "avg") => {
            let exact = |arg: &LogicalExpr| arg.get_type(schema).is_ok_and(|t| !t.is_floating());
            params.args.iter().all(exact)
        }
        WindowFunctionDefinition::AggregateUDF(_) => {
            matches!(name, "count" | "min" | "max" | "array_agg")
        }
        WindowFunctionDefinition::WindowUDF(_) => matches!(name, "first_value" | "last_value" | "nth_value"),
    };
    let frame = &params.window_frame;
    if !by_frame || frame.units != WindowFrameUnits::Rows {
        return None;
    }
    let rows = |n: &ScalarValue| match n {
        ScalarValue::UInt64(Some(n)) => usize::try_from(*n).ok(),
        _ => None,
    };
    let before = match &frame.start_bound {
        WindowFrameBound::Preceding(n) => rows(n)?,
        WindowFrameBound::CurrentRow => 0,
        WindowFrameBound::Following(n) => rows(n).map(|_| 0)?,
    };
    let after = match &frame.end_bound {
        WindowFrameBound::Following(n) => rows(n)?,
        WindowFrameBound::CurrentRow => 0,
        WindowFrameBound::Preceding(n) => rows(n).map(|_| 0)?,
    };
    Some((before, after))
}
