//! Windows that stand on named windows: `OVER (w ORDER BY …)`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, NamedWindowDefinition, NamedWindowExpr, Select, VisitMut, VisitorMut, WindowSpec,
    WindowType,
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
