//! A session's open transaction: what it reads, what it has written, and how it ends.

use std::collections::HashMap;
use std::sync::Arc;

use crate::database::Database;
use crate::database::settings::Settings;
use crate::database::write_set::{TableRef, WriteSet};
use crate::database::writer::{Lease, Reading, State};
use crate::engine::serve::Overlay;
use crate::engine::{CollectionId, EngineSnapshot, Tick};
use crate::error::{Error, Result, SqlState};
use crate::sql::ObjectId;

/// An open transaction.
#[derive(Default)]
pub(crate) struct Transaction {
    /// Begun by BEGIN; otherwise it ends with the statement, the string of statements or the pipeline.
    pub block: bool,
    /// A statement of the block failed: only its end is allowed.
    pub failed: bool,
    /// It may not write.
    pub read_only: bool,
    /// Objects it has created, in order: they go when it is rolled back.
    pub created: Vec<ObjectId>,
    snapshot: Option<Arc<EngineSnapshot>>,
    /// The tick of the first snapshot.
    read_at: Tick,
    reading: Option<Reading>,
    lease: Option<Lease>,
    writes: Vec<WriteSet>,
    savepoints: Vec<Savepoint>,
}

/// Where a block can be rolled back to.
struct Savepoint {
    name: String,
    /// What was written before it.
    writes: Vec<WriteSet>,
    /// How many objects were created before it.
    created: usize,
    /// The session's settings before it.
    settings: Settings,
}

impl Transaction {
    /// What a statement outside of a block runs in.
    pub fn implicit(read_only: bool) -> Transaction {
        Transaction { read_only, ..Transaction::default() }
    }

    /// A block.
    pub fn block(read_only: bool) -> Transaction {
        Transaction { block: true, read_only, ..Transaction::default() }
    }

    /// The rows that every statement of the transaction sees, before its own changes.
    pub fn snapshot(&mut self, database: &Database) -> Arc<EngineSnapshot> {
        match &self.snapshot {
            Some(snapshot) => Arc::clone(snapshot),
            None => {
                // Registered before it is taken, so that no commit between the two goes unnoticed.
                self.reading = Some(database.writer.reading(database.engine.tick()));
                let snapshot = database.engine.snapshot();
                self.read_at = snapshot.tick;
                self.snapshot = Some(Arc::clone(&snapshot));
                snapshot
            }
        }
    }

    /// Reads from the newest tick from here on: an object it has created must be there.
    /// Conflicts are still those since the first tick it has read.
    pub fn refresh(&mut self, database: &Database) {
        if self.snapshot.is_some() {
            self.snapshot = Some(database.engine.snapshot());
        }
    }

    /// What it has written, for its own reads.
    pub fn overlay(&self) -> Overlay {
        let changes: HashMap<CollectionId, Vec<_>> = self
            .writes
            .iter()
            .filter(|w| !w.deltas.is_empty())
            .map(|w| (w.table.id, w.deltas.clone()))
            .collect();
        Overlay(changes)
    }

    /// Whether it has written rows.
    pub fn has_written(&self) -> bool {
        self.writes.iter().any(|w| !w.deltas.is_empty())
    }

    /// Gets ready to write: outside of a block it takes the write lock and reads the newest tick.
    pub async fn begin_write(&mut self, database: &Database, what: &str) -> Result<()> {
        if self.read_only {
            return Err(Error::new(
                SqlState("25006"),
                format!("cannot execute {what} in a read-only transaction"),
            ));
        }
        if !self.block && self.lease.is_none() {
            self.lease = Some(database.writer.lease().await);
            if !self.has_written() {
                self.snapshot = None;
                self.reading = None;
            }
        }
        Ok(())
    }

    /// Writes to a table: `write` is given what exists now and what the transaction has written to the table.
    pub async fn write<R>(
        &mut self,
        database: &Database,
        table: &Arc<TableRef>,
        write: impl FnOnce(&State, &mut WriteSet) -> Result<R>,
    ) -> Result<R> {
        // Conflicts are judged by what it has read before it wrote.
        self.snapshot(database);
        let index = match self.writes.iter().position(|w| w.table.id == table.id) {
            Some(index) => index,
            None => {
                self.writes.push(WriteSet::new(Arc::clone(table))?);
                self.writes.len() - 1
            }
        };
        let set = &mut self.writes[index];
        let work = |state: &mut State| {
            state.index(&database.engine, table)?;
            write(state, set)
        };
        database.writer.with_state(self.lease.as_ref(), work).await
    }

    /// SAVEPOINT.
    pub fn savepoint(&mut self, name: String, settings: Settings) {
        let (writes, created) = (self.writes.clone(), self.created.len());
        self.savepoints.push(Savepoint { name, writes, created, settings });
    }

    /// RELEASE: forgets a savepoint and those after it.
    ///
    /// # Errors
    /// 3B001 when there is none of that name.
    pub fn release(&mut self, name: &str) -> Result<()> {
        let index = self.savepoint_index(name)?;
        self.savepoints.truncate(index);
        Ok(())
    }

    /// ROLLBACK TO: undoes what came after a savepoint, which stays. Answers with the settings of then and with the
    /// objects that are to be dropped.
    ///
    /// # Errors
    /// 3B001 when there is none of that name.
    pub fn rollback_to(&mut self, name: &str) -> Result<(Settings, Vec<ObjectId>)> {
        let index = self.savepoint_index(name)?;
        self.savepoints.truncate(index + 1);
        let Some(savepoint) = self.savepoints.last() else {
            return Err(Error::internal("a savepoint that was found is gone"));
        };
        self.writes.clone_from(&savepoint.writes);
        self.failed = false;
        let settings = savepoint.settings.clone();
        let created = self.created.split_off(savepoint.created.min(self.created.len()));
        Ok((settings, created))
    }

    fn savepoint_index(&self, name: &str) -> Result<usize> {
        self.savepoints
            .iter()
            .rposition(|s| s.name == name)
            .ok_or_else(|| Error::new(SqlState("3B001"), format!("savepoint \"{name}\" does not exist")))
    }

    /// A statement has ended and the transaction waits for the next one.
    pub fn idle(&self) {
        if let Some(lease) = &self.lease {
            lease.idle();
        }
    }

    /// Makes everything visible in one tick, and durable.
    ///
    /// # Errors
    /// 40001 when another transaction has changed the same rows since this one began.
    pub async fn commit(self, database: &Database) -> Result<Option<Tick>> {
        database.writer.commit(self.lease, self.read_at, self.reading, self.writes).await
    }
}
