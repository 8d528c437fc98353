//! Windows that stand on named windows: `OVER (w ORDER BY …)`; calls of window functions that cannot be.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, NamedWindowDefinition, NamedWindowExpr,
    Select, UnaryOperator, Value, VisitMut, VisitorMut, WindowSpec, WindowType,
};

use crate::error::{Error, Result, SqlState};
use crate::names::fold;

/// Gives windows the partitions and the order of the named windows that they stand on.
///
/// # Errors
/// 42704 for a name that is none, 42P20 for clauses that the named window has already.
pub(super) fn extend(select: &mut Select) -> Result<()> {
    let mut windows = Windows(select.named_window.clone());
    match VisitMut::visit(&mut select.projection, &mut windows) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Windows(Vec<NamedWindowDefinition>);

impl Windows {
    fn extend(&self, spec: &mut WindowSpec, depth: usize) -> Result<()> {
        let Some(name) = spec.window_name.take() else { return Ok(()) };
        let name = fold(&name);
        let refused = |state, message: String| Err(Error::new(state, message));
        // As many steps as there are windows lead to the last one.
        let named = self.0.iter().find(|d| fold(&d.0) == name).filter(|_| depth < self.0.len());
        let mut base = match named.map(|d| &d.1) {
            Some(NamedWindowExpr::WindowSpec(base)) => base.clone(),
            Some(NamedWindowExpr::NamedWindow(other)) => WindowSpec {
                window_name: Some(other.clone()),
                partition_by: vec![],
                order_by: vec![],
                window_frame: None,
            },
            None => return refused(SqlState::UNDEFINED_OBJECT, format!("window \"{name}\" does not exist")),
        };
        self.extend(&mut base, depth + 1)?;
        if !spec.partition_by.is_empty() {
            return refused(
                SqlState::WINDOWING_ERROR,
                format!("cannot override PARTITION BY clause of window \"{name}\""),
            );
        }
        if !base.order_by.is_empty() && !spec.order_by.is_empty() {
            return refused(
                SqlState::WINDOWING_ERROR,
                format!("cannot override ORDER BY clause of window \"{name}\""),
            );
        }
        if base.window_frame.is_some() {
            return refused(
                SqlState::WINDOWING_ERROR,
                format!("cannot copy window \"{name}\" because it has a frame clause"),
            );
        }
        spec.partition_by = base.partition_by;
        if spec.order_by.is_empty() {
            spec.order_by = base.order_by;
        }
        Ok(())
    }
}

/// Functions that are called over windows only.
const WINDOW_ONLY: [&str; 11] = [
    "row_number",
    "rank",
    "dense_rank",
    "percent_rank",
    "cume_dist",
    "ntile",
    "lag",
    "lead",
    "first_value",
    "last_value",
    "nth_value",
];

/// Refuses what DataFusion would answer, or refuse in its own words.
///
/// # Errors
/// 42809 without a window, 22014 and 22016 for numbers below 1.
pub(super) fn check(function: &Function, name: &str) -> Result<()> {
    if WINDOW_ONLY.contains(&name) && function.over.is_none() && function.within_group.is_empty() {
        let message = format!("window function {name} requires an OVER clause");
        return Err(Error::new(SqlState::WRONG_OBJECT_TYPE, message));
    }
    let FunctionArguments::List(list) = &function.args else { return Ok(()) };
    let refused = match name {
        "ntile" => (list.args.first(), "22014", "argument of ntile must be greater than zero"),
        "nth_value" => (list.args.get(1), "22016", "argument of nth_value must be greater than zero"),
        _ => return Ok(()),
    };
    let below_one = |expr: &Expr| match expr {
        Expr::Value(v) => matches!(&v.value, Value::Number(n, _) if n.parse() == Ok(0u64)),
        Expr::UnaryOp { op: UnaryOperator::Minus, .. } => true,
        _ => false,
    };
    match refused {
        (Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(number))), state, message) if below_one(number) => {
            Err(Error::new(SqlState(state), message))
        }
        _ => Ok(()),
    }
}

impl VisitorMut for Windows {
    type Break = Error;

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Function(Function { over: Some(WindowType::WindowSpec(spec)), .. }) = expr
            && let Err(error) = self.extend(spec, 0)
        {
            return ControlFlow::Break(error);
        }
        ControlFlow::Continue(())
    }
}
