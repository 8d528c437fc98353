//! `generate_series` in FROM.

use std::sync::{Arc, LazyLock};

use datafusion::catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::functions_table::generate_series::GenerateSeriesFunc;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, lit};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;

use crate::error::{Error, Result, SqlState};

/// A kept view holds a series as constant rows, at most this many.
const ROWS_MAX: usize = 10_000;

/// Whether the list that a function gives is a set of rows, where rows are asked for.
pub fn returns_rows(name: &str) -> bool {
    matches!(name, "generate_series" | "unnest")
}

/// What a call in FROM gives.
pub enum Series {
    /// Constant rows.
    Rows(LogicalPlan),
    /// Rows made as they are read.
    Provider(Arc<dyn TableProvider>),
}

/// The function looks nothing up in it.
static SESSION: LazyLock<SessionState> = LazyLock::new(|| SessionStateBuilder::new().build());

/// Plans a function called in FROM. `constant` asks for rows that a kept view can hold.
///
/// # Errors
/// 42883 for functions that are none, 22023 for arguments out of range, 0A000 for series too long for a kept view.
pub fn plan(name: &str, args: Vec<Expr>, constant: bool) -> Result<Series> {
    if name != "generate_series" {
        return Err(Error::new(SqlState::UNDEFINED_FUNCTION, format!("function {name}() does not exist"))
            .with_hint("It cannot be called in FROM."));
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().build());
    let schema = DFSchema::empty();
    let args = args
        .into_iter()
        .map(|arg| simplifier.coerce(arg, &schema).and_then(|e| simplifier.simplify(e)))
        .map(|arg| arg.map(widen))
        .collect::<datafusion::error::Result<Vec<_>>>()?;
    if let Some(Expr::Literal(ScalarValue::Int64(Some(0)), _)) = args.get(2) {
        return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "step size cannot equal zero"));
    }
    if constant {
        return rows(&args).map(Series::Rows);
    }
    let function = GenerateSeriesFunc {};
    Ok(Series::Provider(function.call_with_args(TableFunctionArgs::new(&args, &*SESSION))?))
}

fn widen(arg: Expr) -> Expr {
    match arg {
        Expr::Literal(ScalarValue::Int32(n), metadata) => {
            Expr::Literal(ScalarValue::Int64(n.map(i64::from)), metadata)
        }
        Expr::Literal(ScalarValue::Int16(n), metadata) => {
            Expr::Literal(ScalarValue::Int64(n.map(i64::from)), metadata)
        }
        other => other,
    }
}

fn rows(args: &[Expr]) -> Result<LogicalPlan> {
    let mut numbers = Vec::with_capacity(3);
    for arg in args {
        match arg {
            Expr::Literal(ScalarValue::Int64(Some(n)), _) => numbers.push(*n),
            _ => {
                return Err(Error::unsupported(
                    "generate_series of something else than whole numbers in a materialized view",
                ));
            }
        }
    }
    let (start, stop, step) = match numbers.as_slice() {
        [start, stop] => (*start, *stop, 1),
        [start, stop, step] => (*start, *stop, *step),
        _ => {
            return Err(Error::new(
                SqlState::UNDEFINED_FUNCTION,
                "function generate_series() does not exist with these arguments",
            ));
        }
    };
    let mut values = Vec::new();
    let mut next = Some(start);
    while let Some(n) = next.filter(|n| if step > 0 { *n <= stop } else { *n >= stop }) {
        if values.len() == ROWS_MAX {
            return Err(Error::unsupported(format!(
                "generate_series of more than {ROWS_MAX} rows in a materialized view"
            )));
        }
        values.push(vec![lit(n)]);
        next = n.checked_add(step);
    }
    if values.is_empty() {
        let schema = arrow::datatypes::Schema::new(vec![arrow::datatypes::Field::new(
            "value",
            arrow::datatypes::DataType::Int64,
            true,
        )]);
        let schema = Arc::new(DFSchema::try_from(schema)?);
        return Ok(LogicalPlan::EmptyRelation(datafusion::logical_expr::EmptyRelation {
            produce_one_row: false,
            schema,
        }));
    }
    Ok(LogicalPlanBuilder::values(values)?
        .project(vec![datafusion::logical_expr::col("column1").alias("value")])?
        .build()?)
}
