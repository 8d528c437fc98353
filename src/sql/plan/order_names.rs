//! Names in ORDER BY: alone, a name is that of an output column; in an expression, that of an input column.
//!
//! DataFusion looks for output columns in both. Where a query tells the two apart, its output columns get names that
//! nothing in an expression can mean, and are shown without what makes them so.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, GroupByExpr, Ident, OrderByKind, Query, Select, SelectItem, SetExpr, Visitor,
};

use super::naming;
use crate::names::fold;
use crate::sql::walk::walk;

/// Keeps output names out of the expressions that a query is ordered by. The query is a statement's own: nothing
/// outside of it names its columns.
pub(super) fn separate(query: &mut Query) {
    let Some(order_by) = &mut query.order_by else { return };
    let OrderByKind::Expressions(keys) = &mut order_by.kind else { return };
    let SetExpr::Select(select) = query.body.as_mut() else { return };
    if select.distinct.is_some() {
        return;
    }
    let mut named = Named(HashSet::new());
    for key in keys.iter().filter(|key| !matches!(key.expr, Expr::Identifier(_))) {
        // The visitor never breaks off.
        let _ = walk(&key.expr, &mut named);
    }
    let clauses = clauses(select);
    for (n, item) in select.projection.iter_mut().enumerate() {
        let SelectItem::ExprWithAlias { expr, alias } = item else { continue };
        let name = fold(alias);
        // A column under its own name is the same in and out.
        let own = match expr {
            Expr::Identifier(column) => fold(column) == name,
            Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|column| fold(column) == name),
            _ => false,
        };
        if own || !named.0.contains(&name) || clauses.contains(&name) {
            continue;
        }
        let marked = Ident { value: naming::marked(&name, n), quote_style: Some('"'), span: alias.span };
        for key in keys.iter_mut() {
            if let Expr::Identifier(column) = &mut key.expr
                && fold(column) == name
            {
                *column = Ident { span: column.span, ..marked.clone() };
            }
        }
        *alias = marked;
    }
}

/// Names that GROUP BY and HAVING may mean output columns by.
fn clauses(select: &Select) -> HashSet<String> {
    let mut named = Named(HashSet::new());
    if let GroupByExpr::Expressions(exprs, _) = &select.group_by {
        for expr in exprs {
            let _ = walk(expr, &mut named);
        }
    }
    for expr in select.having.iter().chain(&select.qualify) {
        let _ = walk(expr, &mut named);
    }
    named.0
}

/// The names without a qualifier in expressions.
struct Named(HashSet<String>);

impl Visitor for Named {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Identifier(name) = expr {
            self.0.insert(fold(name));
        }
        ControlFlow::Continue(())
    }
}
