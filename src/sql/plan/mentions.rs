//! The relations that a query names, for whoever writes the query of a view anew: other names, the same meaning.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, SetExpr, TableAlias, TableFactor, VisitorMut, With,
};

use super::{rewrite, windowed};
use crate::error::{Error, Result};
use crate::names::{Name, fold};
use crate::sql::walk::walk_mut;

/// Has `rename` say what each relation that the query names is to be called; `None` leaves it. Names of WITH queries are
/// not asked for. A relation whose own name changes keeps the old one as an alias, so what is qualified by it goes on
/// meaning the same.
///
/// # Errors
/// 42601 for a name that is none.
pub fn rename_relations(query: &mut Query, rename: &mut dyn FnMut(&Name) -> Option<Name>) -> Result<()> {
    let mut mentions = Mentions { rename, scopes: Vec::new(), with: Vec::new() };
    match walk_mut(query, &mut mentions) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Mentions<'a> {
    rename: &'a mut dyn FnMut(&Name) -> Option<Name>,
    /// The names of the WITH queries that can be read, of each query around.
    scopes: Vec<HashSet<String>>,
    /// The WITH of each query around, which was walked before the rest.
    with: Vec<Option<With>>,
}

impl Mentions<'_> {
    fn new_name(&mut self, name: &Name) -> Option<Name> {
        let is_with_query = name.schema.is_none() && self.scopes.iter().any(|s| s.contains(&name.name));
        if is_with_query { None } else { (self.rename)(name) }
    }

    fn query(&mut self, query: &mut Query) -> Result<()> {
        tables_as_selects(&mut query.body)?;
        let mut with = query.with.take();
        self.scopes.push(HashSet::new());
        if let Some(with) = &mut with {
            let names = with.cte_tables.iter().map(|cte| fold(&cte.alias.name));
            let mut visible: HashSet<String> = if with.recursive { names.collect() } else { HashSet::new() };
            for cte in &mut with.cte_tables {
                if let Some(scope) = self.scopes.last_mut() {
                    scope.clone_from(&visible);
                }
                if let ControlFlow::Break(error) = walk_mut(&mut *cte.query, self) {
                    return Err(error);
                }
                visible.insert(fold(&cte.alias.name));
            }
            if let Some(scope) = self.scopes.last_mut() {
                *scope = visible;
            }
        }
        self.with.push(with);
        Ok(())
    }

    fn factor(&mut self, factor: &mut TableFactor) -> Result<()> {
        let (old, new) = if let Some(relation) = windowed::relation_of(factor) {
            let parts = match &*relation {
                Expr::Identifier(name) => vec![name.clone()],
                Expr::CompoundIdentifier(names) => names.clone(),
                _ => return Ok(()),
            };
            let old = Name::from_object_name(&ObjectName::from(parts))?;
            let Some(new) = self.new_name(&old) else { return Ok(()) };
            *relation = Expr::CompoundIdentifier(idents(&new));
            (old, new)
        } else if let TableFactor::Table { name, args: None, .. } = factor {
            let old = Name::from_object_name(name)?;
            let Some(new) = self.new_name(&old) else { return Ok(()) };
            *name = ObjectName::from(idents(&new));
            (old, new)
        } else {
            return Ok(());
        };
        if let TableFactor::Table { alias: alias @ None, .. }
        | TableFactor::TableFunction { alias: alias @ None, .. } = factor
            && old.name != new.name
        {
            let name = Ident::with_quote('"', old.name);
            *alias = Some(TableAlias { explicit: true, name, columns: Vec::new(), at: None });
        }
        Ok(())
    }
}

fn idents(name: &Name) -> Vec<Ident> {
    let parts = [name.database.as_ref(), name.schema.as_ref(), Some(&name.name)];
    parts.into_iter().flatten().map(|part| Ident::with_quote('"', part)).collect()
}

fn tables_as_selects(body: &mut SetExpr) -> Result<()> {
    match body {
        SetExpr::SetOperation { left, right, .. } => {
            tables_as_selects(left)?;
            tables_as_selects(right)
        }
        SetExpr::Table(table) => {
            *body = rewrite::table_as_select(table)?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn flow(result: Result<()>) -> ControlFlow<Error> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(error),
    }
}

impl VisitorMut for Mentions<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        flow(self.query(query))
    }

    fn post_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        query.with = self.with.pop().flatten();
        self.scopes.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Error> {
        flow(self.factor(factor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parser::parse_query;

    #[test]
    fn relations_are_renamed_and_with_queries_are_not() {
        let renamed = |sql: &str| {
            let mut query = parse_query(sql).unwrap();
            let mut rename = |name: &Name| match (name.schema.as_deref(), name.name.as_str()) {
                (None, "t") => Some(Name::qualified("s", "t")),
                (Some("a"), "u") => Some(Name::qualified("a", "v")),
                _ => None,
            };
            rename_relations(&mut query, &mut rename).unwrap();
            query.to_string()
        };
        for (from, to) in [
            ("SELECT t.x FROM t", "SELECT t.x FROM \"s\".\"t\""),
            ("SELECT u.x FROM a.u, b.t", "SELECT u.x FROM \"a\".\"v\" AS \"u\", b.t"),
            (
                "WITH t AS (SELECT * FROM t) SELECT * FROM t",
                "WITH t AS (SELECT * FROM \"s\".\"t\") SELECT * FROM t",
            ),
            (
                "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t",
                "WITH RECURSIVE t AS (SELECT 1 UNION ALL SELECT * FROM t) SELECT * FROM t",
            ),
            (
                "SELECT (WITH t AS (SELECT 1) SELECT * FROM t), x FROM t",
                "SELECT (WITH t AS (SELECT 1) SELECT * FROM t), x FROM \"s\".\"t\"",
            ),
            ("TABLE t", "SELECT * FROM \"s\".\"t\""),
            (
                "SELECT * FROM TUMBLE(t, at, INTERVAL '1 s')",
                "SELECT * FROM TUMBLE(\"s\".\"t\", at, INTERVAL '1 s')",
            ),
        ] {
            assert_eq!(renamed(from), to);
        }
    }
}
