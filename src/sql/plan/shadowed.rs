//! `WITH` queries of one name within each other: `WITH w AS (…) SELECT … FROM (WITH w AS (…) SELECT … FROM w)`.
//!
//! DataFusion refuses them. The inner one gets a name of its own here, which no one can write, and whoever means it
//! reads it under the old name as an alias.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, Query, TableAlias, TableFactor, VisitorMut};

use super::naming;
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::walk::walk_mut;

/// Gives `WITH` queries whose names hide others within the query names of their own.
///
/// # Errors
/// 42712 for two of one name beside each other.
pub(super) fn rename(query: &mut Query) -> Result<()> {
    match walk_mut(query, &mut Scopes::default()) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The names of the queries around, from the outermost inwards.
#[derive(Default)]
struct Scopes {
    around: Vec<HashSet<String>>,
    renamed: usize,
}

fn names(query: &Query) -> impl Iterator<Item = String> {
    query.with.iter().flat_map(|with| &with.cte_tables).map(|cte| fold(&cte.alias.name))
}

impl VisitorMut for Scopes {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let mut scope = HashSet::new();
        for name in names(query) {
            if scope.contains(&name) {
                let message = format!("WITH query name \"{name}\" specified more than once");
                return ControlFlow::Break(Error::new(SqlState("42712"), message));
            }
            scope.insert(name);
        }
        self.around.push(scope);
        ControlFlow::Continue(())
    }

    /// The inner queries come first, so what still has the name means this one.
    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.around.pop();
        let hiding: Vec<String> =
            names(query).filter(|name| self.around.iter().any(|scope| scope.contains(name))).collect();
        for name in hiding {
            self.renamed += 1;
            rename_one(query, &name, &naming::marked(&name, self.renamed));
        }
        ControlFlow::Continue(())
    }
}

fn rename_one(query: &mut Query, from: &str, to: &str) {
    let Some(mut with) = query.with.take() else { return };
    let mut renaming = Renaming { from, to };
    let Some(at) = with.cte_tables.iter().position(|cte| fold(&cte.alias.name) == from) else { return };
    // Without RECURSIVE, a query and those before it see the outer one.
    let first = if with.recursive { 0 } else { at + 1 };
    for cte in with.cte_tables.iter_mut().skip(first) {
        let _ = walk_mut(&mut cte.query, &mut renaming);
    }
    let _ = walk_mut(query, &mut renaming);
    with.cte_tables[at].alias.name = Ident::with_quote('"', to);
    query.with = Some(with);
}

struct Renaming<'a> {
    from: &'a str,
    to: &'a str,
}

impl VisitorMut for Renaming<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, args: None, .. } = factor
            && let [only] = name.0.as_slice()
            && let Some(ident) = only.as_ident()
            && fold(ident) == self.from
        {
            let ident = ident.clone();
            *name = ObjectName::from(vec![Ident::with_quote('"', self.to)]);
            alias.get_or_insert(TableAlias { explicit: true, name: ident, columns: vec![], at: None });
        }
        ControlFlow::Continue(())
    }
}
