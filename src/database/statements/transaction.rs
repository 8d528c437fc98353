//! BEGIN, COMMIT, ROLLBACK.

use crate::database::transaction::Transaction;
use crate::database::{Notice, Outcome, Session};
use crate::error::{Error, Result, SqlState};
use crate::sql::ObjectId;
use crate::sql::ast::Begin;

impl Session {
    pub(crate) async fn begin(&mut self, begin: Begin) -> Result<Outcome> {
        let mut notices = Vec::new();
        match &mut self.transaction {
            Some(t) if t.block => {
                notices.push(Notice::warning("25001", "there is already a transaction in progress"));
            }
            // What a string of statements did before its BEGIN belongs to the block, as in PostgreSQL.
            Some(t) => {
                t.block = true;
                t.read_only |= begin.read_only;
                self.settings.begin();
            }
            None => {
                self.transaction = Some(Transaction::block(begin.read_only));
                self.settings.begin();
            }
        }
        Ok(Outcome::Done { tag: "BEGIN".into(), notices })
    }

    pub(crate) async fn commit(&mut self) -> Result<Outcome> {
        let Some(transaction) = self.transaction.take_if(|t| t.block) else {
            // What a string of statements did before is committed, as in PostgreSQL.
            self.end_implicit(true).await?;
            return Ok(no_block("COMMIT"));
        };
        self.close_transaction_cursors();
        if transaction.failed {
            self.settings.end(false);
            self.undo_created(transaction.created).await;
            return Ok(Outcome::done("ROLLBACK"));
        }
        let created = transaction.created.clone();
        match transaction.commit(&self.database).await {
            Ok(_) => {
                self.settings.end(true);
                Ok(Outcome::done("COMMIT"))
            }
            Err(error) => {
                self.settings.end(false);
                self.undo_created(created).await;
                Err(error)
            }
        }
    }

    pub(crate) async fn rollback(&mut self) -> Result<Outcome> {
        let Some(transaction) = self.transaction.take_if(|t| t.block) else {
            // What a string of statements did before is undone, as in PostgreSQL.
            self.end_implicit(false).await?;
            return Ok(no_block("ROLLBACK"));
        };
        self.close_transaction_cursors();
        self.settings.end(false);
        self.undo_created(transaction.created).await;
        Ok(Outcome::done("ROLLBACK"))
    }

    pub(crate) fn savepoint(&mut self, name: &str) -> Result<Outcome> {
        let settings = self.settings.clone();
        self.in_block("SAVEPOINT")?.savepoint(name.to_string(), settings);
        Ok(Outcome::done("SAVEPOINT"))
    }

    pub(crate) fn release(&mut self, name: &str) -> Result<Outcome> {
        self.in_block("RELEASE SAVEPOINT")?.release(name)?;
        Ok(Outcome::done("RELEASE"))
    }

    pub(crate) async fn rollback_to(&mut self, name: &str) -> Result<Outcome> {
        let (settings, created) = self.in_block("ROLLBACK TO SAVEPOINT")?.rollback_to(name)?;
        self.settings.restore(settings);
        self.undo_created(created).await;
        Ok(Outcome::done("ROLLBACK"))
    }

    /// The block that a statement can only be run in.
    fn in_block(&mut self, what: &str) -> Result<&mut Transaction> {
        self.transaction.as_mut().filter(|t| t.block).ok_or_else(|| {
            Error::new(SqlState("25P01"), format!("{what} can only be used in transaction blocks"))
        })
    }

    /// Drops what a transaction has created.
    async fn undo_created(&mut self, created: Vec<ObjectId>) {
        if created.is_empty() {
            return;
        }
        let undone = self.database.blocking(move |db| db.drop_created(created));
        if let Err(error) = undone.await {
            let message = format!("what the transaction has created could not be dropped again: {error}");
            self.notices.push(Notice::warning(error.sqlstate.0, message));
        }
    }

    /// Some statements do not work in a block.
    pub(crate) fn refuse_in_block(&self, what: &str) -> Result<()> {
        if self.transaction.as_ref().is_some_and(|t| t.block) {
            return Err(Error::new(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!("{what} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }
}

fn no_block(tag: &str) -> Outcome {
    let notice = Notice::warning("25P01", "there is no transaction in progress");
    Outcome::Done { tag: tag.into(), notices: vec![notice] }
}
