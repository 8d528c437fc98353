//! What a recursive query may not be: PostgreSQL's errors, before DataFusion would refuse it in other words or never
//! come to an end.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Cte, Expr, Function, ObjectName, Query, Select, SetExpr, SetOperator, TableFactor, Visit, Visitor,
};

use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::functions::Functions;
use crate::sql::walk::walk;

/// Refuses a WITH query that refers to itself where it must not.
///
/// # Errors
/// 42P19 for one that has no term without itself, names itself twice, or aggregates itself.
pub(super) fn check(cte: &Cte) -> Result<()> {
    let name = fold(&cte.alias.name);
    if mentions(&cte.query, &name).tables == 0 {
        return Ok(());
    }
    let refused = |why: String| Err(Error::new(SqlState("42P19"), why));
    let (first, recursive) = match cte.query.body.as_ref() {
        SetExpr::SetOperation { op: SetOperator::Union, left, right, .. } => (left, right),
        _ => {
            return refused(format!(
                "recursive query \"{name}\" does not have the form non-recursive-term UNION [ALL] recursive-term"
            ));
        }
    };
    if mentions(first.as_ref(), &name).tables > 0 {
        return refused(format!(
            "recursive reference to query \"{name}\" must not appear within its non-recursive term"
        ));
    }
    let found = mentions(recursive.as_ref(), &name);
    if found.tables > 1 {
        return refused(format!("recursive reference to query \"{name}\" must not appear more than once"));
    }
    if found.aggregates && matches!(recursive.as_ref(), SetExpr::Select(select) if reads(select, &name)) {
        return refused("aggregate functions are not allowed in a recursive query's recursive term".into());
    }
    Ok(())
}

/// Whether a query reads a relation itself, not through a subquery.
fn reads(select: &Select, name: &str) -> bool {
    let is_it = |factor: &TableFactor| matches!(factor, TableFactor::Table { name: table, .. } if is_named(table, name));
    select
        .from
        .iter()
        .any(|from| is_it(&from.relation) || from.joins.iter().any(|join| is_it(&join.relation)))
}

fn is_named(table: &ObjectName, name: &str) -> bool {
    matches!(table.0.as_slice(), [only] if only.as_ident().is_some_and(|id| fold(id) == name))
}

/// What a term says of a relation.
struct Mentions<'a> {
    name: &'a str,
    /// How often it is named.
    tables: usize,
    /// Whether aggregates are called outside of subqueries.
    aggregates: bool,
    depth: usize,
}

fn mentions<'a>(term: &impl Visit, name: &'a str) -> Mentions<'a> {
    let mut found = Mentions { name, tables: 0, aggregates: false, depth: 0 };
    // The visitor never breaks.
    let _ = walk(term, &mut found);
    found
}

impl Visitor for Mentions<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if matches!(factor, TableFactor::Table { name, .. } if is_named(name, self.name)) {
            self.tables += 1;
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Expr::Function(Function { name, over: None, .. }) = expr
            && let Some(name) = name.0.last().and_then(|part| part.as_ident())
            && Functions::get().aggregate(&fold(name)).is_some()
            && self.depth == 0
        {
            self.aggregates = true;
        }
        ControlFlow::Continue(())
    }
}
