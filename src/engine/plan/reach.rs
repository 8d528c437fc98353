//! How many rows around a row decide about its window functions: with a bound, a change touches few others.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Expr as LogicalExpr, ExprSchemable, Window, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition,
};

use super::lower::{Lowering, unaliased};
use super::spec::{NodeSpec, WindowSpec};
use crate::error::Result;

/// Beyond this many rows, changes of a partition that is computed as a whole are not dearer.
const ROWS_MAX: usize = 10_000;

/// Lowers a window node over an input that is lowered already; `None` when a function looks further than a bound, or
/// when they differ in partition or order.
pub(super) fn bounded(lowering: &mut Lowering, window: &Window, input: usize) -> Result<Option<usize>> {
    let (mut before, mut after) = (0, 0);
    let mut common: Option<&WindowFunction> = None;
    for expr in &window.window_expr {
        let LogicalExpr::WindowFunction(function) = unaliased(expr) else { return Ok(None) };
        let Some((back, ahead)) = reach(function, window.input.schema()) else { return Ok(None) };
        (before, after) = (before.max(back), after.max(ahead));
        let params = &common.get_or_insert(function).params;
        if params.partition_by != function.params.partition_by || params.order_by != function.params.order_by
        {
            return Ok(None);
        }
    }
    let Some(function) = common.filter(|_| before.max(after) <= ROWS_MAX) else { return Ok(None) };
    let plan_input = window.input.schema();
    let schema: SchemaRef = Arc::new(window.schema.as_arrow().clone());
    let spec = WindowSpec {
        partition: lowering.bind_all(&function.params.partition_by, plan_input)?,
        order: lowering.order(&function.params.order_by, plan_input)?,
        functions: window.window_expr.clone(),
        plan_input: Arc::clone(plan_input),
        before,
        after,
        input: Arc::clone(lowering.schema(input)),
        schema: Arc::clone(&schema),
    };
    Ok(Some(lowering.add(NodeSpec::Window(spec), vec![input], schema)))
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
