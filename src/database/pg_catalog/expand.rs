//! `information_schema._pg_expandarray(a)`, by which JDBC asks for keys: one row for each element, of a composite
//! of the element `x` and its number `n`. There are no composites here, so the two are taken apart where they are used.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{AccessExpr, Expr, Query, SelectItem, Value, VisitorMut};

use super::rewrite::{argument, call, column, is_call};
use crate::names::fold;
use crate::sql::walk::walk_mut;

const EXPAND: &str = "_pg_expandarray";

/// Rewrites a query in place; one without the function stays as it is.
pub fn rewrite(query: &mut Query) {
    let mut aliases = Aliases(Vec::new());
    // The visitors never break.
    let _ = walk_mut(query, &mut aliases);
    let _ = walk_mut(query, &mut Expand { aliases: aliases.0 });
}

/// Under which names composites leave a SELECT.
struct Aliases(Vec<String>);

impl VisitorMut for Aliases {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut datafusion::sql::sqlparser::ast::Select) -> ControlFlow<()> {
        self.0.extend(select.projection.iter().filter_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if is_call(expr, EXPAND) => Some(fold(alias)),
            _ => None,
        }));
        ControlFlow::Continue(())
    }
}

struct Expand {
    aliases: Vec<String>,
}

impl VisitorMut for Expand {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Some((of, field)) = field_access(expr) {
            if is_call(of, EXPAND)
                && let Some(array) = argument(of)
            {
                *expr =
                    if field == "n" { numbers(array.clone()) } else { call("unnest", vec![array.clone()]) };
            } else if field == "x" && column(of).is_some_and(|(_, name)| self.aliases.contains(&name)) {
                // What leaves the SELECT under that name is the element alone.
                *expr = of.clone();
            }
        } else if is_call(expr, EXPAND)
            && let Some(array) = argument(expr)
        {
            *expr = call("unnest", vec![array.clone()]);
        }
        ControlFlow::Continue(())
    }
}

/// `(e).field`
fn field_access(expr: &Expr) -> Option<(&Expr, String)> {
    let Expr::CompoundFieldAccess { root, access_chain } = expr else { return None };
    match (root.as_ref(), access_chain.as_slice()) {
        (Expr::Nested(of), [AccessExpr::Dot(Expr::Identifier(field))]) => Some((of, fold(field))),
        _ => None,
    }
}

/// The numbers of an array's elements, a row each.
fn numbers(array: Expr) -> Expr {
    let one = Expr::Value(Value::Number("1".into(), false).into());
    call("generate_series", vec![one, call("cardinality", vec![array])])
}

#[cfg(test)]
mod tests {
    use crate::sql::Statement;

    #[test]
    fn composites_are_taken_apart() {
        let sql = "SELECT r.k, r.keys FROM (SELECT (information_schema._pg_expandarray(i.indkey)).n AS k, \
                   information_schema._pg_expandarray(i.indkey) AS keys FROM pg_catalog.pg_index i) r \
                   WHERE r.a = (r.keys).x";
        let Statement::Query(mut query) = crate::sql::parse(sql).unwrap().remove(0).statement else {
            panic!("not a query")
        };
        super::super::rewrite(&mut query);
        assert_eq!(
            query.to_string(),
            "SELECT r.k, r.keys FROM (SELECT generate_series(1, cardinality(i.indkey)) AS k, \
             unnest(i.indkey) AS keys FROM pg_catalog.pg_index i) r WHERE r.a = r.keys"
        );
    }
}
