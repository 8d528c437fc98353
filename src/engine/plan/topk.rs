//! `row_number() … <= k` needs only the first k rows of each partition: a top-k that numbers its rows is the window.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::WindowFunction;
use datafusion::logical_expr::{
    BinaryExpr, Expr as LogicalExpr, Filter, LogicalPlan, Operator, Window, WindowFunctionDefinition, utils,
};

use super::lower::{Lowering, unaliased};
use super::spec::{NodeSpec, TopKSpec};
use crate::error::Result;

/// Lowers the input of a filter that bounds a row number; `None` for every other filter.
///
/// The filter still has to run: it may say more.
pub(super) fn ranked(lowering: &mut Lowering, filter: &Filter) -> Result<Option<usize>> {
    let (window, chosen) = match filter.input.as_ref() {
        LogicalPlan::Window(window) => (window, None),
        LogicalPlan::Projection(chosen)
            if chosen.expr.iter().all(|e| matches!(e, LogicalExpr::Column(_))) =>
        {
            match chosen.input.as_ref() {
                LogicalPlan::Window(window) => (window, Some(chosen)),
                _ => return Ok(None),
            }
        }
        _ => return Ok(None),
    };
    let Some(function) = row_number(window) else { return Ok(None) };
    let number = window.input.schema().fields().len();
    let column = window.schema.columns().swap_remove(number);
    let bounds = utils::split_conjunction(&filter.predicate);
    let Some(limit) =
        bounds.into_iter().filter_map(|e| upper_bound(e, &LogicalExpr::Column(column.clone()))).min()
    else {
        return Ok(None);
    };
    let input_schema = window.input.schema();
    let partition = lowering.bind_all(&function.params.partition_by, input_schema)?;
    let order = lowering.order(&function.params.order_by, input_schema)?;
    let input = lowering.node(&window.input)?;
    let schema: SchemaRef = Arc::new(window.schema.as_arrow().clone());
    let spec = TopKSpec {
        partition,
        order,
        offset: 0,
        limit: Some(limit),
        numbered: true,
        input: Arc::clone(lowering.schema(input)),
        schema: Arc::clone(&schema),
    };
    let top = lowering.add(NodeSpec::TopK(spec), vec![input], schema);
    Ok(Some(match chosen {
        Some(chosen) => lowering.project(top, chosen)?,
        None => top,
    }))
}

/// The only function of a window node, if that is a plain row_number().
fn row_number(window: &Window) -> Option<&WindowFunction> {
    let [expr] = &window.window_expr[..] else { return None };
    let LogicalExpr::WindowFunction(function) = unaliased(expr) else { return None };
    let plain = matches!(&function.fun, WindowFunctionDefinition::WindowUDF(f) if f.name() == "row_number");
    (plain && function.params.filter.is_none()).then_some(function.as_ref())
}

/// The greatest number that a conjunct lets pass.
fn upper_bound(conjunct: &LogicalExpr, number: &LogicalExpr) -> Option<usize> {
    let LogicalExpr::BinaryExpr(BinaryExpr { left, op, right }) = conjunct else { return None };
    let (op, bound) = if uncast(left) == number {
        (*op, right)
    } else if uncast(right) == number {
        (op.swap()?, left)
    } else {
        return None;
    };
    let LogicalExpr::Literal(value, _) = bound.as_ref() else { return None };
    let value = match value {
        ScalarValue::Int64(Some(v)) => usize::try_from(*v).unwrap_or(0),
        ScalarValue::Int32(Some(v)) => usize::try_from(*v).unwrap_or(0),
        ScalarValue::UInt64(Some(v)) => usize::try_from(*v).ok()?,
        // The common type of a number without sign and one with.
        ScalarValue::Decimal128(Some(v), _, scale) => {
            let whole = 10i128.checked_pow(u32::try_from(*scale).ok()?)?;
            // A bound that is no whole number lets pass what is below it.
            usize::try_from(v.div_euclid(whole)).unwrap_or(0) + usize::from(v.rem_euclid(whole) != 0)
        }
        _ => return None,
    };
    match op {
        Operator::Eq | Operator::LtEq => Some(value),
        Operator::Lt => Some(value.saturating_sub(1)),
        _ => None,
    }
}

/// What is cast; compared with a whole number, the number stays what it was.
fn uncast(e: &LogicalExpr) -> &LogicalExpr {
    match e {
        LogicalExpr::Cast(c) => &c.expr,
        LogicalExpr::ScalarFunction(f) if f.name() == "cast" && f.args.len() == 1 => &f.args[0],
        e => e,
    }
}
