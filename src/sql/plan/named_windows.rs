//! `OVER w` in QUALIFY and ORDER BY: DataFusion looks names of WINDOW up in the select list only.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Function, NamedWindowDefinition, NamedWindowExpr, Query, VisitorMut, WindowType,
};

use crate::names::fold;
use crate::sql::walk::walk_mut;

/// Gives the windows that are called by a name of WINDOW their definitions. A subquery has windows of its own.
pub(super) fn define(expr: &mut Expr, named: &[NamedWindowDefinition]) {
    struct Define<'a>(&'a [NamedWindowDefinition], usize);
    impl VisitorMut for Define<'_> {
        type Break = ();

        fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.1 += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<()> {
            self.1 -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
            if let Expr::Function(Function { over: Some(over), .. }) = expr
                && let WindowType::NamedWindow(name) = over
                && self.1 == 0
            {
                let defined = self.0.iter().find(|window| fold(&window.0) == fold(name));
                if let Some(NamedWindowDefinition(_, NamedWindowExpr::WindowSpec(spec))) = defined {
                    *over = WindowType::WindowSpec(spec.clone());
                }
            }
            ControlFlow::Continue(())
        }
    }
    if !named.is_empty() {
        // The visitor never breaks.
        let _ = walk_mut(expr, &mut Define(named, 0));
    }
}
