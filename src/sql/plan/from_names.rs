//! How relations in FROM are called: `s.t` is `t` to the rest of the query, and a list of column names may be shorter
//! than the columns.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;

use datafusion::common::Result;
use datafusion::logical_expr::planner::{
    PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
};
use datafusion::sql::sqlparser::ast::{
    Expr, Ident, ObjectName, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, TableAlias,
    TableAliasColumnDef, TableFactor, TableWithJoins, VisitorMut,
};

use super::naming;
use crate::error::{Error, SqlState};
use crate::names::{Name, SYSTEM_SCHEMAS, fold};
use crate::sql::catalog::Catalog;
use crate::sql::walk::walk_mut;

/// Gives every relation that is named with its schema its bare name, by which `t.*` and `t.a` find it, and takes the
/// schema off what is qualified with it. Two relations of one name in one FROM stay as they are.
///
/// # Errors
/// 42P01 for a qualifier with another schema than the relation's.
pub(super) fn unqualify(query: &mut Query, catalog: &Catalog) -> crate::Result<()> {
    let mut names = Names { catalog, bare: HashMap::new(), twice: HashSet::new() };
    // The visitor never breaks off.
    let _ = walk_mut(query, &mut names);
    match walk_mut(query, &mut Unqualify(names)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

/// The bare name of a relation, and the schema that it was named with.
fn bare(factor: &TableFactor) -> Option<(&Ident, Option<&Ident>)> {
    match factor {
        TableFactor::Table { name, alias: None, args: None, .. } => {
            let schema = name.0.len().checked_sub(2).and_then(|i| name.0[i].as_ident());
            Some((name.0.last()?.as_ident()?, schema))
        }
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } => Some((&alias.name, None)),
        _ => None,
    }
}

/// The relations of a FROM item, those in joins included.
fn each<'a>(item: &'a mut TableWithJoins, what: &mut dyn FnMut(&mut TableFactor)) {
    let factors = std::iter::once(&mut item.relation).chain(item.joins.iter_mut().map(|j| &mut j.relation));
    for factor in factors {
        match factor {
            TableFactor::NestedJoin { table_with_joins, alias: None } => each(table_with_joins, what),
            factor => what(factor),
        }
    }
}

/// What relations are called anywhere in a query.
struct Names<'a> {
    catalog: &'a Catalog,
    /// Bare names of tables without an alias, with the schemas that they were named with.
    bare: HashMap<String, HashSet<Option<String>>>,
    /// Those that stand for two relations of one FROM.
    twice: HashSet<String>,
}

impl Names<'_> {
    /// Whether a table can be meant by this name alone.
    fn is_one(&self, name: &Ident) -> bool {
        let name = fold(name);
        self.bare.contains_key(&name) && !self.twice.contains(&name)
    }

    /// Whether a table that is named somewhere in the query is in this schema.
    fn is_in(&self, name: &Ident, schema: &Ident) -> bool {
        let (name, schema) = (fold(name), fold(schema));
        let Some(written) = self.bare.get(&name) else { return false };
        written.contains(&Some(schema.clone()))
            || (written.contains(&None)
                && match self.catalog.find_relation(&Name::bare(name.as_str())) {
                    Some(entry) => self.catalog.qualified(entry).schema.as_ref() == Some(&schema),
                    None => SYSTEM_SCHEMAS.contains(&schema.as_str()),
                })
    }
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut seen = HashSet::new();
        for item in &mut select.from {
            each(item, &mut |factor| {
                let Some((name, schema)) = bare(factor) else { return };
                if !seen.insert(fold(name)) {
                    self.twice.insert(fold(name));
                }
                if matches!(factor, TableFactor::Table { alias: None, .. }) {
                    self.bare.entry(fold(name)).or_default().insert(schema.map(fold));
                }
            });
        }
        ControlFlow::Continue(())
    }
}

struct Unqualify<'a>(Names<'a>);

impl Unqualify<'_> {
    /// Takes what stands before the last `kept` parts of a name away.
    fn shorten(&self, parts: &mut Vec<Ident>, kept: usize) -> ControlFlow<Error> {
        let Some(before) = parts.len().checked_sub(kept).filter(|n| *n > 0) else {
            return ControlFlow::Continue(());
        };
        let relation = &parts[before];
        if self.0.is_one(relation) {
            if !self.0.is_in(relation, &parts[before - 1]) {
                let message =
                    format!("invalid reference to FROM-clause entry for table \"{}\"", fold(relation));
                return ControlFlow::Break(Error::new(SqlState::UNDEFINED_TABLE, message));
            }
            parts.drain(..before);
        }
        ControlFlow::Continue(())
    }
}

impl VisitorMut for Unqualify<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.from {
            each(item, &mut |factor| {
                let name = match bare(factor) {
                    Some((name, Some(_))) if self.0.is_one(name) => name.clone(),
                    _ => return,
                };
                if let TableFactor::Table { alias, .. } = factor {
                    *alias = Some(TableAlias { explicit: true, name, columns: vec![], at: None });
                }
            });
        }
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) = item
            {
                let parts: Option<Vec<Ident>> = name.0.iter().map(|p| p.as_ident().cloned()).collect();
                if let Some(mut parts) = parts {
                    self.shorten(&mut parts, 1)?;
                    *name = ObjectName::from(parts);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::CompoundIdentifier(parts) = expr {
            self.shorten(parts, 2)?;
        }
        ControlFlow::Continue(())
    }
}

/// Plans relations whose alias names fewer columns than they have: the others keep their names.
#[derive(Debug)]
pub(super) struct ShortAliases;

impl RelationPlanner for ShortAliases {
    fn plan_relation(
        &self,
        mut relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> Result<RelationPlanning> {
        let given = match &mut relation {
            TableFactor::Table { alias, args: None, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::NestedJoin { alias, .. }
                if alias.as_ref().is_some_and(|a| !a.columns.is_empty()) =>
            {
                alias.as_mut().map(|a| TableAlias { columns: std::mem::take(&mut a.columns), ..a.clone() })
            }
            _ => None,
        };
        let Some(mut alias) = given else { return Ok(RelationPlanning::Original(Box::new(relation))) };
        let plan = context.plan(relation)?;
        let columns = plan.schema().fields();
        if alias.columns.len() > columns.len() {
            return Err(Error::new(
                SqlState("42P10"),
                format!(
                    "table \"{}\" has {} columns available but {} columns specified",
                    fold(&alias.name),
                    columns.len(),
                    alias.columns.len()
                ),
            )
            .into());
        }
        let mut taken: HashSet<String> = alias.columns.iter().map(|c| fold(&c.name)).collect();
        for (i, column) in columns.iter().enumerate().skip(alias.columns.len()) {
            let mut name = column.name().clone();
            if !taken.insert(name.clone()) {
                name = naming::marked(naming::shown(&name), i);
            }
            let name = Ident::with_quote('"', name);
            alias.columns.push(TableAliasColumnDef { name, data_type: None });
        }
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, Some(alias)))))
    }
}
