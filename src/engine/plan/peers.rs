//! Window functions that take single rows out of frames of peers, made to look at one order only.
//!
//! `last_value(x) OVER (ORDER BY k)` is the value of *some* row with the current `k`: SQL does not say of which. Here
//! it is the last by all columns. A frame of values or groups cannot simply be ordered by more columns, for then its
//! rows would have no peers; so it becomes one of rows, over the peers alone where it begins or ends with them.

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::expr::{NullTreatment, Sort, WindowFunction};
use datafusion::logical_expr::{
    WindowFrame, WindowFrameBound, WindowFrameUnits, WindowFunctionDefinition, expr::Expr,
};

use super::rewrite::total;
use crate::error::Error;

type Planned<T> = datafusion::error::Result<T>;

/// The function with one possible answer over rows of these columns.
///
/// # Errors
/// 0A000 for those that would need the order of peers inside of a frame that neither begins nor ends with them.
pub(super) fn determined(mut function: WindowFunction, schema: &DFSchema) -> Planned<WindowFunction> {
    let params = &mut function.params;
    let name = match &function.fun {
        WindowFunctionDefinition::WindowUDF(f) => f.name(),
        WindowFunctionDefinition::AggregateUDF(f) => f.name(),
    };
    // Ranks are of peers, which another order would part; frames mean nothing to them.
    if matches!(name, "rank" | "dense_rank" | "percent_rank" | "cume_dist") {
        return Ok(function);
    }
    if params.window_frame.units == WindowFrameUnits::Rows
        || matches!(name, "row_number" | "lag" | "lead" | "ntile")
    {
        params.order_by = total(std::mem::take(&mut params.order_by), schema);
        return Ok(function);
    }
    if !matches!(name, "first_value" | "last_value" | "nth_value" | "array_agg" | "string_agg") {
        return Ok(function);
    }
    let all = total(params.order_by.clone(), schema);
    if all.len() == params.order_by.len() {
        return Ok(function);
    }
    let (first, last) = match name {
        "first_value" => (true, false),
        "last_value" => (false, true),
        _ => (false, false),
    };
    let frame = &params.window_frame;
    let (start, end) = (&frame.start_bound, &frame.end_bound);
    let ignores = params.null_treatment == Some(NullTreatment::IgnoreNulls) || params.filter.is_some();
    let begins_before = *start == WindowFrameBound::CurrentRow || is_preceding(start);
    let ends_behind = *end == WindowFrameBound::CurrentRow || is_following(end);
    let whole = first && is_unbounded(start) && ends_behind || last && is_unbounded(end) && begins_before;
    let of_peers = first && *start == WindowFrameBound::CurrentRow && ends_behind
        || last && *end == WindowFrameBound::CurrentRow && begins_before;
    if ignores || !(whole || of_peers) {
        return Err(Error::unsupported(format!(
            "{name} over a {} frame whose order leaves ties, in a materialized view",
            frame.units
        ))
        .with_hint("Order by more columns, with ROWS, or take min or max.")
        .into());
    }
    if of_peers {
        let peers = params.order_by.iter().map(|Sort { expr, .. }| expr.clone());
        let peers: Vec<Expr> = peers.filter(|e| !params.partition_by.contains(e)).collect();
        params.partition_by.extend(peers);
    }
    params.order_by = all;
    params.window_frame = WindowFrame::new_bounds(
        WindowFrameUnits::Rows,
        WindowFrameBound::Preceding(ScalarValue::UInt64(None)),
        WindowFrameBound::Following(ScalarValue::UInt64(None)),
    );
    Ok(function)
}

fn is_preceding(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::Preceding(_))
}

fn is_following(bound: &WindowFrameBound) -> bool {
    matches!(bound, WindowFrameBound::Following(_))
}

fn is_unbounded(bound: &WindowFrameBound) -> bool {
    match bound {
        WindowFrameBound::Preceding(n) | WindowFrameBound::Following(n) => n.is_null(),
        WindowFrameBound::CurrentRow => false,
    }
}
