//! Tables: those that statements write, and those that a source fills.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{Expr, Visitor};

use crate::connectors::{Discovered, registry};
use crate::database::objects::claim;
use crate::database::{Database, Notice, connect, open};
use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::ast::{CheckDef, ColumnDef, ObjectKind};
use crate::sql::catalog::{Check, Column, Entry, Object, ObjectId, Place, Table};
use crate::sql::plan::{Planner, SessionInfo};
use crate::sql::walk::walk;
use crate::sql::{Catalog, Name};

/// Columns as declared, and the positions of the key's, which refuse NULL.
///
/// # Errors
/// 42701 for a name twice, 42703 for a key's column that is not there.
pub(crate) fn columns(declared: &[ColumnDef], key: &[String]) -> Result<(Vec<Column>, Vec<usize>)> {
    let mut columns: Vec<Column> = Vec::with_capacity(declared.len());
    for c in declared {
        if columns.iter().any(|other| other.name == c.name) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{}\" specified more than once", c.name),
            ));
        }
        columns.push(Column {
            name: c.name.clone(),
            data_type: c.data_type.clone(),
            not_null: c.not_null,
            default: c.default.as_ref().map(ToString::to_string),
        });
    }
    let mut positions = Vec::with_capacity(key.len());
    for name in key {
        let position = columns.iter().position(|c| c.name == *name).ok_or_else(|| {
            Error::new(SqlState::UNDEFINED_COLUMN, format!("column \"{name}\" named in key does not exist"))
        })?;
        if positions.contains(&position) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!("column \"{name}\" appears twice in primary key constraint"),
            ));
        }
        columns[position].not_null = true;
        positions.push(position);
    }
    Ok((columns, positions))
}

/// Checks with the names that PostgreSQL would give them.
///
/// # Errors
/// 42710 for a name twice.
fn named_checks(table: &str, columns: &[Column], declared: &[CheckDef]) -> Result<Vec<Check>> {
    let mut checks: Vec<Check> = Vec::with_capacity(declared.len());
    for check in declared {
        let taken = |name: &str| {
            checks.iter().any(|c| c.name == name) || declared.iter().any(|d| d.name.as_deref() == Some(name))
        };
        let name = match &check.name {
            Some(name) if checks.iter().any(|c| c.name == *name) => {
                return Err(Error::new(
                    SqlState::DUPLICATE_OBJECT,
                    format!("constraint \"{name}\" for relation \"{table}\" already exists"),
                ));
            }
            Some(name) => name.clone(),
            None => {
                let only = || {
                    let mut named = columns.iter().filter(|c| mentions(&check.condition, &c.name));
                    named.next().filter(|_| named.next().is_none()).map(|c| c.name.clone())
                };
                let stem = match check.column.clone().or_else(only) {
                    Some(column) => format!("{table}_{column}_check"),
                    None => format!("{table}_check"),
                };
                let numbered = (1..).map(|n| format!("{stem}{n}"));
                let free = std::iter::once(stem.clone()).chain(numbered).find(|name| !taken(name));
                free.unwrap_or(stem)
            }
        };
        checks.push(Check { name, condition: check.condition.to_string() });
    }
    Ok(checks)
}

/// Whether an expression names a column.
fn mentions(expr: &Expr, column: &str) -> bool {
    struct Mentions<'a>(&'a str);
    impl Visitor for Mentions<'_> {
        type Break = ();
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            let named = match expr {
                Expr::Identifier(ident) => fold(ident) == self.0,
                Expr::CompoundIdentifier(parts) => parts.last().is_some_and(|ident| fold(ident) == self.0),
                _ => false,
            };
            if named { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    walk(expr, &mut Mentions(column)).is_break()
}

/// A table's entry for a relation that a source offers.
pub(crate) fn from_discovered(
    id: ObjectId,
    place: Place,
    owner: &str,
    source: ObjectId,
    found: &Discovered,
) -> Entry {
    let columns: Vec<Column> = found.schema.fields().iter().map(|f| Column::from_field(f)).collect();
    let table = Table {
        columns,
        key: found.key.clone(),
        source: Some((source, found.upstream.clone())),
        ..Table::default()
    };
    Entry::new(id, place, owner, Object::Table(table))
}

impl Database {
    /// CREATE TABLE with columns: `table` but for its checks, which have no names yet.
    pub(crate) fn create_table(
        &self,
        by: &SessionInfo,
        name: &Name,
        if_not_exists: bool,
        table: Table,
        checks: &[CheckDef],
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let Some(place) = claim(&catalog, ObjectKind::Table, name, if_not_exists, &mut notices)? else {
            return Ok(notices);
        };
        let checks = named_checks(&place.name, &table.columns, checks)?;
        let object = Object::Table(Table { checks, ..table });
        let entry = Entry::new(self.new_id()?, place, &by.user, object);
        // What cannot be checked must not be declared.
        let mut with_it = catalog;
        with_it.insert(entry.clone())?;
        Planner::new(&with_it, &SessionInfo::default(), None).plan_checks(&entry)?;
        self.create_inputs(std::slice::from_ref(&entry))?;
        self.add_inputs(std::slice::from_ref(&entry))?;
        Ok(notices)
    }

    /// CREATE TABLE … FROM SOURCE. Asks the upstream for the columns.
    pub(crate) fn create_table_from_source(
        &self,
        by: &SessionInfo,
        name: &Name,
        if_not_exists: bool,
        source: &Name,
        reference: &str,
    ) -> Result<Vec<Notice>> {
        let mut notices = Vec::new();
        let catalog = by.sees(&self.catalog());
        let Some(place) = claim(&catalog, ObjectKind::Table, name, if_not_exists, &mut notices)? else {
            return Ok(notices);
        };
        let source = Arc::clone(catalog.require(ObjectKind::Source, source)?);
        let found = self.discover(&catalog, &source, reference)?;
        let entry = from_discovered(self.new_id()?, place, &by.user, source.id, &found);
        self.create_inputs(std::slice::from_ref(&entry))?;
        self.add_inputs(std::slice::from_ref(&entry))?;
        self.start_source(&source);
        Ok(notices)
    }

    /// The one relation of that name that a source offers.
    fn discover(&self, catalog: &Catalog, source: &Entry, reference: &str) -> Result<Discovered> {
        let Object::Source(object) = &source.object else {
            return Err(Error::internal("a source is not a source"));
        };
        let offered =
            registry::discover(&connect::source_definition(catalog, &catalog.full_name(source), object)?)?;
        // `users` means the only relation of that name, in whatever schema it is.
        let matches: Vec<&Discovered> = offered
            .iter()
            .filter(|d| d.upstream == reference || d.upstream.rsplit('.').next() == Some(reference))
            .collect();
        let exact = matches.iter().find(|d| d.upstream == reference);
        let names = |found: &mut dyn Iterator<Item = &Discovered>| {
            found.map(|d| d.upstream.as_str()).collect::<Vec<_>>().join(", ")
        };
        match (exact, &matches[..]) {
            (Some(found), _) => Ok((*found).clone()),
            (None, [found]) => Ok((*found).clone()),
            (None, []) => Err(Error::new(
                SqlState::UNDEFINED_TABLE,
                format!("source \"{}\" has no relation \"{reference}\"", source.name),
            )
            .with_hint(format!("It offers: {}.", names(&mut offered.iter())))),
            (None, several) => Err(Error::new(
                SqlState("42P09"),
                format!("relation \"{reference}\" of source \"{}\" is ambiguous", source.name),
            )
            .with_hint(format!("It can be: {}.", names(&mut several.iter().copied())))),
        }
    }

    /// Gives the engine the collections of these objects.
    pub(crate) fn create_inputs(&self, entries: &[Entry]) -> Result<()> {
        for (i, entry) in entries.iter().enumerate() {
            let Some(spec) = open::input(entry) else { continue };
            if let Err(error) = self.engine.create_input(spec) {
                self.discard(&entries[..i].iter().map(|e| e.id).collect::<Vec<_>>());
                return Err(error);
            }
        }
        Ok(())
    }

    /// Adds objects whose collections were just created; takes these away again when that fails.
    pub(crate) fn add_inputs(&self, entries: &[Entry]) -> Result<()> {
        self.add(entries).inspect_err(|_| {
            let made: Vec<_> = entries.iter().filter(|e| e.is_collection()).map(|e| e.id).collect();
            self.discard(&made);
        })
    }
}
