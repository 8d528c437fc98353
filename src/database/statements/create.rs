//! Statements that create, change and drop objects.
//!
//! They take effect at once. In a block, objects can be created: they are there for everybody from then on, and are
//! dropped again when the block is rolled back. What changes or drops objects cannot be undone, and is refused there.

use std::sync::Arc;

use futures::TryStreamExt;

use crate::database::objects::{claim, table};
use crate::database::{Database, Notice, Outcome, Session, open};
use crate::engine::{Delta, Hydration, InputChange, Transaction};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{
    Alter, AlterChange, Comment, CreateTable, Drop, ObjectKind, Parsed, Query, Statement, TableBody,
};
use crate::sql::catalog::{Column, Entry, Object, ObjectId, Table};
use crate::sql::{Catalog, Name, watermark};

/// What a statement creates.
fn created(statement: &Statement) -> Option<(ObjectKind, Option<&Name>, bool)> {
    Some(match statement {
        Statement::CreateSecret(c) => (ObjectKind::Secret, Some(&c.name), false),
        Statement::CreateConnection(c) => (ObjectKind::Connection, Some(&c.name), false),
        Statement::CreateSource(c) => (ObjectKind::Source, Some(&c.name), false),
        Statement::CreateTable(c) => (ObjectKind::Table, Some(&c.name), false),
        Statement::CreateView(c) => (ObjectKind::View, Some(&c.name), c.or_replace),
        Statement::CreateMaterializedView(c) => (ObjectKind::MaterializedView, Some(&c.name), c.or_replace),
        Statement::CreateIndex(c) => (ObjectKind::Index, c.name.as_ref(), false),
        Statement::CreateSink(c) => (ObjectKind::Sink, Some(&c.name), false),
        Statement::CreateSchema(c) => (ObjectKind::Schema, Some(&c.name), false),
        _ => return None,
    })
}

/// What a statement has created, by what there was before it.
fn new_objects(now: &Catalog, before: &Catalog, kind: ObjectKind, name: Option<&Name>) -> Vec<ObjectId> {
    let new = match name {
        Some(name) => now.find(kind, name).map(|e| e.id),
        // An index that chose its name itself is the newest one.
        None => now.of_kind(kind).iter().map(|e| e.id).max(),
    };
    new.into_iter().filter(|id| before.get(*id).is_none()).collect()
}

/// When it is dropped, nobody waits for the work any more: a view is not filled any further, and what was made goes.
#[derive(Default)]
struct Abandoned(Arc<Hydration>);

impl std::ops::Drop for Abandoned {
    fn drop(&mut self) {
        self.0.stop();
    }
}

impl Session {
    /// Runs a CREATE.
    pub(crate) async fn create(&mut self, parsed: &Parsed) -> Result<Outcome> {
        let Some((kind, name, replaces)) = created(&parsed.statement) else {
            return Err(Error::internal("a statement that creates nothing"));
        };
        let tag = format!("CREATE {}", kind.keyword());
        if replaces {
            self.refuse_in_block(&format!("CREATE OR REPLACE {}", kind.keyword()))?;
        }
        if self.transaction.as_ref().is_some_and(|t| t.read_only) {
            return Err(Error::new(
                SqlState("25006"),
                format!("cannot execute {tag} in a read-only transaction"),
            ));
        }
        let before = self.catalog();
        if let Statement::CreateTable(create) = &parsed.statement
            && let TableBody::Query { columns, query, with_data } = &create.body
        {
            let outcome = self.create_table_as(create, columns, query, *with_data, &parsed.text).await?;
            self.remember_created(&before, kind, name);
            return Ok(outcome);
        }
        let (statement, text) = (parsed.statement.clone(), parsed.text.clone());
        let by = self.info();
        let who = by.clone();
        // A statement that is stopped leaves its work running; what comes of it is taken away again.
        let abandoned = Abandoned::default();
        let hydration = Arc::clone(&abandoned.0);
        let work = move |db: &Arc<Database>| match &statement {
            Statement::CreateSchema(c) => db.create_schema(&by, c),
            Statement::CreateSecret(c) => db.create_secret(&by, c),
            Statement::CreateConnection(c) => db.create_connection(&by, c),
            Statement::CreateSource(c) => db.create_source(&by, c),
            Statement::CreateTable(c) => match &c.body {
                TableBody::Columns { columns, key, checks, watermark } => {
                    let (columns, key) = table::columns(columns, key)?;
                    let watermark =
                        watermark.as_ref().map(|w| watermark::resolve(w, &columns)).transpose()?;
                    let append_only = c.append_only;
                    let table = Table { columns, key, append_only, watermark, ..Table::default() };
                    db.create_table(&by, &c.name, c.if_not_exists, table, checks)
                }
                TableBody::Source { source, reference } => {
                    db.create_table_from_source(&by, &c.name, c.if_not_exists, source, reference)
                }
                TableBody::Query { .. } => Err(Error::internal("a query is not run here")),
            },
            Statement::CreateView(c) => db.create_view(&by, c, &text),
            Statement::CreateMaterializedView(c) => db.create_materialized_view(&by, c, &text, &hydration),
            Statement::CreateIndex(c) => db.create_index(&by, c),
            Statement::CreateSink(c) => db.create_sink(&by, c),
            _ => Err(Error::internal("a statement that creates nothing")),
        };
        let (flag, named, known) = (Arc::clone(&abandoned.0), name.cloned(), before.clone());
        let notices = self
            .database
            .blocking(move |db| {
                let notices = work(db)?;
                if flag.is_stopped() {
                    let new = new_objects(&who.sees(&db.catalog()), &known, kind, named.as_ref());
                    db.drop_created(new)?;
                }
                Ok(notices)
            })
            .await?;
        self.remember_created(&before, kind, name);
        Ok(Outcome::Done { tag, notices })
    }

    /// In a block, notes what a statement has created, and lets the block see it.
    fn remember_created(&mut self, before: &Catalog, kind: ObjectKind, name: Option<&Name>) {
        let created = new_objects(&self.catalog(), before, kind, name);
        let Some(transaction) = self.transaction.as_mut() else { return };
        if transaction.block {
            transaction.created.extend(created);
        }
        transaction.refresh(&self.database);
    }

    /// CREATE TABLE … AS: the rows are durable before the table is there, so it is never seen half-filled.
    async fn create_table_as(
        &mut self,
        create: &CreateTable,
        names: &[String],
        query: &Query,
        with_data: bool,
        text: &str,
    ) -> Result<Outcome> {
        let mut notices = Vec::new();
        let catalog = self.catalog();
        let claimed = claim(&catalog, ObjectKind::Table, &create.name, create.if_not_exists, &mut notices)?;
        let Some(place) = claimed else {
            return Ok(Outcome::Done { tag: "CREATE TABLE AS".into(), notices });
        };
        let planned = self.plan_query(query, text, &[])?;
        let mut columns: Vec<Column> = Vec::new();
        for (i, field) in planned.schema.fields().iter().enumerate() {
            let mut column = Column { not_null: false, ..Column::from_field(field) };
            if let Some(name) = names.get(i) {
                column.name.clone_from(name);
            }
            if columns.iter().any(|c| c.name == column.name) {
                return Err(Error::new(
                    SqlState::DUPLICATE_COLUMN,
                    format!("column \"{}\" specified more than once", column.name),
                ));
            }
            columns.push(column);
        }
        if names.len() > columns.len() {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "too many column names were specified"));
        }
        let rows = match with_data {
            true => self.start(planned.bind(Vec::new())?).await?.try_collect().await?,
            false => Vec::new(),
        };
        let count: usize = rows.iter().map(arrow::array::RecordBatch::num_rows).sum();
        let (owner, append_only) = (self.options.user.clone(), create.append_only);
        self.database
            .blocking(move |db| {
                let object = Object::Table(Table { columns, append_only, ..Table::default() });
                let entry = Entry::new(db.new_id()?, place, &owner, object);
                db.create_inputs(std::slice::from_ref(&entry))?;
                let schema = open::input(&entry).map(|input| input.schema);
                let filled =
                    schema.ok_or_else(|| Error::internal("a table without a schema")).and_then(|schema| {
                        let mut changes = Vec::with_capacity(rows.len());
                        for batch in rows {
                            let rows = crate::database::statements::query::with_schema(&batch, &schema)?;
                            changes.push((
                                entry.id.collection(),
                                InputChange::Delta(Delta { rows, weights: None }),
                            ));
                        }
                        if changes.is_empty() {
                            return Ok(());
                        }
                        let tick = db.engine.submit(Transaction { changes, progress: Vec::new() }).wait()?;
                        db.engine.wait_durable(tick)
                    });
                if let Err(error) = filled {
                    db.discard(&[entry.id]);
                    return Err(error);
                }
                db.add_inputs(std::slice::from_ref(&entry))
            })
            .await?;
        let tag = if with_data { format!("SELECT {count}") } else { "CREATE TABLE AS".into() };
        Ok(Outcome::Done { tag, notices })
    }

    pub(crate) async fn drop_objects(&mut self, drop: &Drop) -> Result<Outcome> {
        let tag = format!("DROP {}", drop.kind.keyword());
        self.refuse_in_block(&tag)?;
        let (by, drop) = (self.info(), drop.clone());
        let notices = self.database.blocking(move |db| db.drop_objects(&by, &drop)).await?;
        Ok(Outcome::Done { tag, notices })
    }

    pub(crate) async fn alter(&mut self, alter: &Alter) -> Result<Outcome> {
        let tag = format!("ALTER {}", alter.kind.keyword());
        self.refuse_in_block(&tag)?;
        if let AlterChange::Rename(name) = &alter.change
            && name.is_empty()
        {
            return Err(Error::new(SqlState::SYNTAX_ERROR, "zero-length delimited identifier"));
        }
        let (by, alter) = (self.info(), alter.clone());
        let notices = self.database.blocking(move |db| db.alter(&by, &alter)).await?;
        Ok(Outcome::Done { tag, notices })
    }

    pub(crate) async fn comment(&mut self, comment: &Comment) -> Result<Outcome> {
        self.refuse_in_block("COMMENT")?;
        let (by, comment) = (self.info(), comment.clone());
        self.database.blocking(move |db| db.comment(&by, &comment)).await?;
        Ok(Outcome::Done { tag: "COMMENT".into(), notices: Vec::<Notice>::new() })
    }
}
