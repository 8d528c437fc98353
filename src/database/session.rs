//! A session: the only door to a database, for the wire and for embedding programs alike.
//!
//! There are two ways in. [`Session::simple`] runs a string of statements, as PostgreSQL's simple protocol does:
//! outside of a block the whole string is one transaction. It answers with the first statement's outcome; when that
//! has been read to its end, [`Session::simple_next`] goes on to the next, until it says `None`.
//! [`Session::prepare`] and [`Session::execute`] run one statement with parameters.
//!
//! An outcome's rows are a stream that does not borrow the session, but the session must not be given another
//! statement before the stream has ended or was dropped.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::scalar::ScalarValue;

use crate::database::cancel::{CancelHandle, Interrupt};
use crate::database::settings::Settings;
use crate::database::statements::Params;
use crate::database::statements::cursor::Cursor;
use crate::database::statements::plan::KeptPlan;
use crate::database::transaction::Transaction;
use crate::database::{CopyIn, Database, Notice, Outcome};
use crate::error::{Error, Result, SqlState};
use crate::sql::ast::{Parsed, Statement};
use crate::sql::plan::SessionInfo;
use crate::sql::{Catalog, parse};
use crate::types::TextFormat;

/// Who opens a session, as what.
#[derive(Clone, Debug)]
pub struct SessionOptions {
    /// The user's name.
    pub user: String,
    /// The database's name.
    pub database: String,
    /// `application_name`.
    pub application_name: String,
    /// Settings to begin with, as `SET name = value` would make them: the startup packet's.
    pub settings: Vec<(String, String)>,
}

impl Default for SessionOptions {
    fn default() -> Self {
        SessionOptions {
            user: "tidemill".into(),
            database: "tidemill".into(),
            application_name: String::new(),
            settings: Vec::new(),
        }
    }
}

/// Where a session stands between statements; what ReadyForQuery says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TransactionStatus {
    /// In no block.
    Idle,
    /// In a block.
    Open,
    /// In a block that failed: only its end is allowed.
    Failed,
}

/// A statement that was analysed and can be executed many times.
#[derive(Debug)]
pub struct Prepared {
    /// Its name; empty for the unnamed one.
    pub name: String,
    /// Its text.
    pub text: String,
    /// Types of its parameters, `$1` first.
    pub params: Vec<FieldRef>,
    /// Columns of its rows; `None`: it gives none.
    pub columns: Option<SchemaRef>,
    /// `None`: there was no statement in the text.
    pub(crate) statement: Option<Arc<Parsed>>,
    pub(crate) plan: Option<KeptPlan>,
}

/// A session.
pub struct Session {
    pub(crate) database: Arc<Database>,
    pub(crate) options: SessionOptions,
    pub(crate) settings: Settings,
    pub(crate) transaction: Option<Transaction>,
    pub(crate) cursors: HashMap<String, Cursor>,
    pub(crate) prepared: HashMap<String, Arc<Prepared>>,
    pub(crate) notices: Vec<Notice>,
    /// Statements of a string that were not run yet.
    waiting: VecDeque<Parsed>,
    cancel: CancelHandle,
}

impl Session {
    pub(crate) fn new(database: Arc<Database>, options: SessionOptions) -> Session {
        let mut start = options.settings.clone();
        start.push(("application_name".into(), options.application_name.clone()));
        let (settings, errors) = Settings::new(&options.user, &start);
        let notices = errors.into_iter().map(|e| Notice::warning(e.sqlstate.0, e.message)).collect();
        Session {
            database,
            options,
            settings,
            transaction: None,
            cursors: HashMap::new(),
            prepared: HashMap::new(),
            notices,
            waiting: VecDeque::new(),
            cancel: CancelHandle::default(),
        }
    }

    /// Runs a string of statements; answers with the first one's outcome. `None`: the string held nothing.
    ///
    /// # Errors
    /// PostgreSQL's. Nothing of the string outside of a block has happened then, but for what creates objects.
    pub async fn simple(&mut self, sql: &str) -> Result<Option<Outcome>> {
        self.end_implicit(false).await?;
        self.waiting = match parse(sql) {
            Ok(parsed) => parsed.into(),
            Err(error) => {
                self.fail();
                return Err(error);
            }
        };
        self.simple_next().await
    }

    /// Goes on with the string of statements. `None`: it is through, and outside of a block it is committed.
    /// After an error the rest of the string is forgotten.
    ///
    /// # Errors
    /// As [`Session::simple`].
    pub async fn simple_next(&mut self) -> Result<Option<Outcome>> {
        let Some(parsed) = self.waiting.pop_front() else {
            self.end_implicit(true).await?;
            return Ok(None);
        };
        let ends = self.waiting.is_empty();
        let outcome = self.statement(&parsed, Vec::new(), None, ends).await.map_err(|mut e| {
            e.position = e.position.map(|p| p + parsed.offset);
            e
        });
        if outcome.is_err() {
            self.waiting.clear();
        }
        outcome.map(Some)
    }

    /// Analyses a statement and keeps it under `name` (empty: the unnamed one). `param_types` may leave types open.
    ///
    /// # Errors
    /// PostgreSQL's; 42P05 when a named statement is there already.
    pub async fn prepare(
        &mut self,
        name: &str,
        sql: &str,
        param_types: &[Option<FieldRef>],
    ) -> Result<Arc<Prepared>> {
        let prepared = self.analyse(name, sql, param_types);
        if prepared.is_err() {
            self.fail();
        }
        prepared
    }

    fn analyse(&mut self, name: &str, sql: &str, param_types: &[Option<FieldRef>]) -> Result<Arc<Prepared>> {
        let mut parsed = parse(sql)?;
        if parsed.len() > 1 {
            return Err(Error::new(
                SqlState::SYNTAX_ERROR,
                "cannot insert multiple commands into a prepared statement",
            ));
        }
        self.keep_prepared(name, sql, parsed.pop(), param_types)
    }

    /// Keeps an analysed statement under a name.
    pub(crate) fn keep_prepared(
        &mut self,
        name: &str,
        text: &str,
        parsed: Option<Parsed>,
        param_types: &[Option<FieldRef>],
    ) -> Result<Arc<Prepared>> {
        if !name.is_empty() && self.prepared.contains_key(name) {
            return Err(Error::new(
                SqlState("42P05"),
                format!("prepared statement \"{name}\" already exists"),
            ));
        }
        if let Some(parsed) = &parsed {
            self.check_usable(&parsed.statement)?;
        }
        let description = match &parsed {
            Some(parsed) => self.describe(parsed, param_types)?,
            None => Default::default(),
        };
        let prepared = Arc::new(Prepared {
            name: name.to_string(),
            text: text.to_string(),
            params: description.params,
            columns: description.columns,
            statement: parsed.map(Arc::new),
            plan: description.plan,
        });
        self.prepared.insert(name.to_string(), Arc::clone(&prepared));
        Ok(prepared)
    }

    /// The prepared statement of that name, made by [`Session::prepare`] or by PREPARE.
    pub fn prepared(&self, name: &str) -> Option<Arc<Prepared>> {
        self.prepared.get(name).cloned()
    }

    /// Forgets a prepared statement; it is no error when there is none.
    pub fn close_prepared(&mut self, name: &str) {
        self.prepared.remove(name);
    }

    /// Runs a prepared statement; outside of a block it is a transaction of its own, durable when this returns.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome> {
        self.end_implicit(true).await?;
        self.waiting.clear();
        self.execute_part(prepared, params, true).await
    }

    /// Runs a prepared statement as a part of a pipeline: outside of a block, all that is executed until
    /// [`Session::sync`] is one transaction. For the extended protocol.
    ///
    /// # Errors
    /// PostgreSQL's.
    pub async fn execute_pipelined(
        &mut self,
        prepared: &Prepared,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.waiting.clear();
        self.execute_part(prepared, params, false).await
    }

    async fn execute_part(
        &mut self,
        prepared: &Prepared,
        params: Vec<ScalarValue>,
        ends: bool,
    ) -> Result<Outcome> {
        if params.len() != prepared.params.len() {
            self.fail();
            return Err(Error::new(
                SqlState::PROTOCOL_VIOLATION,
                format!(
                    "bind message supplies {} parameters, but prepared statement \"{}\" requires {}",
                    params.len(),
                    prepared.name,
                    prepared.params.len()
                ),
            ));
        }
        match &prepared.statement {
            None => Ok(Outcome::Empty),
            Some(parsed) => {
                let params = prepared.params.iter().cloned().zip(params).collect();
                let (parsed, plan) = (Arc::clone(parsed), prepared.plan.as_ref());
                self.statement(&parsed, params, plan, ends).await
            }
        }
    }

    /// Ends a pipeline: commits what it did outside of a block; after an error in it, undoes it.
    ///
    /// # Errors
    /// 40001, and what keeps it from being durable.
    pub async fn sync(&mut self) -> Result<()> {
        self.end_implicit(true).await.map(|_| ())
    }

    /// The client has sent all data of a COPY FROM.
    ///
    /// # Errors
    /// What is wrong with the data or with the rows.
    pub async fn copy_finish(&mut self, copy: CopyIn) -> Result<Outcome> {
        let ends = self.waiting.is_empty();
        let interrupt = self.cancel.begin(self.settings.statement_timeout());
        let done = interrupt.guard(self.copy_rows(copy)).await;
        self.conclude(done, ends).await
    }

    /// The client gives a COPY FROM up, for this reason. The error is what it is to be told.
    pub fn copy_fail(&mut self, copy: CopyIn, reason: &str) -> Error {
        drop(copy);
        self.fail();
        Error::new(SqlState::QUERY_CANCELED, format!("COPY from stdin failed: {reason}"))
    }

    /// Tells the session that an error came up in sending an outcome's rows: the transaction fails.
    pub fn fail(&mut self) {
        self.waiting.clear();
        match &mut self.transaction {
            Some(transaction) if transaction.block => transaction.failed = true,
            _ => self.transaction = None,
        }
    }

    /// Whether it is in a block.
    pub fn transaction_status(&self) -> TransactionStatus {
        match &self.transaction {
            Some(t) if t.block && t.failed => TransactionStatus::Failed,
            Some(t) if t.block => TransactionStatus::Open,
            _ => TransactionStatus::Idle,
        }
    }

    /// What stops its statements.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// The value of a setting, as SHOW would say it. `None`: there is no such setting.
    pub fn setting(&self, name: &str) -> Option<String> {
        self.settings.get(name).map(str::to_string)
    }

    /// Settings that the wire reports at the start (ParameterStatus).
    pub fn reported_settings(&self) -> Vec<(&'static str, String)> {
        self.settings.reported()
    }

    /// Settings changed by statements since the last call that the wire reports (ParameterStatus).
    pub fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        self.settings.take_changed()
    }

    /// How values are written as text, by the session's settings.
    pub fn text_format(&self) -> TextFormat {
        TextFormat { zone: self.settings.zone(), rounded_floats: self.settings.rounded_floats() }
    }

    /// Remarks that belong to no outcome (to an error, or to settings at the start). Emptied by the call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        std::mem::take(&mut self.notices)
    }

    /// What planning needs to know of the session.
    pub(crate) fn info(&self) -> SessionInfo {
        SessionInfo {
            user: self.options.user.clone(),
            database: self.options.database.clone(),
            search_path: self.settings.search_path(),
        }
    }

    /// What there is now, as this session sees it.
    pub(crate) fn catalog(&self) -> Catalog {
        self.info().sees(&self.database.catalog())
    }

    /// A failed block takes nothing but its end.
    fn check_usable(&self, statement: &Statement) -> Result<()> {
        match &self.transaction {
            Some(t) if t.failed && !statement.ends_transaction() => Err(Error::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )),
            _ => Ok(()),
        }
    }

    /// Runs a statement. Outside of a block its transaction is committed when `ends`.
    async fn statement(
        &mut self,
        parsed: &Parsed,
        params: Params,
        plan: Option<&KeptPlan>,
        ends: bool,
    ) -> Result<Outcome> {
        self.check_usable(&parsed.statement)?;
        let interrupt = self.cancel.begin(self.settings.statement_timeout());
        let outcome = self.run_interruptible(parsed, params, plan, &interrupt).await;
        // A query's rows are still to come, and may fail: what was written before it waits for them.
        let written = self.transaction.as_ref().is_some_and(Transaction::has_written);
        let waits = written && matches!(parsed.statement, Statement::Query(_));
        self.conclude(outcome, ends && !waits).await
    }

    async fn run_interruptible(
        &mut self,
        parsed: &Parsed,
        params: Params,
        plan: Option<&KeptPlan>,
        interrupt: &Interrupt,
    ) -> Result<Outcome> {
        let outcome = match &parsed.statement {
            // What ends a transaction is not stopped half-way.
            Statement::Commit | Statement::Rollback => self.run(parsed, params, plan).await?,
            _ => interrupt.guard(self.run(parsed, params, plan)).await?,
        };
        Ok(match outcome {
            Outcome::Rows { schema, stream, tag, notices } => {
                Outcome::Rows { schema, stream: interrupt.stream(stream), tag, notices }
            }
            Outcome::CopyOut { schema, format, stream } => {
                Outcome::CopyOut { schema, format, stream: interrupt.stream(stream) }
            }
            other => other,
        })
    }

    /// What a statement's end means to its transaction.
    async fn conclude(&mut self, outcome: Result<Outcome>, ends: bool) -> Result<Outcome> {
        match outcome {
            // The transaction goes on until the data has come.
            Ok(outcome @ Outcome::CopyIn(_)) => Ok(outcome),
            Ok(outcome) => {
                if ends {
                    self.end_implicit(true).await?;
                } else if let Some(transaction) = &self.transaction {
                    transaction.idle();
                }
                Ok(outcome)
            }
            Err(error) => {
                self.fail();
                Err(error)
            }
        }
    }

    /// Ends a transaction that is not a block.
    pub(crate) async fn end_implicit(&mut self, commit: bool) -> Result<()> {
        if self.transaction.as_ref().is_none_or(|t| t.block) {
            return Ok(());
        }
        let Some(transaction) = self.transaction.take() else { return Ok(()) };
        if commit {
            transaction.commit(&self.database).await?;
        }
        Ok(())
    }
}

impl Drop for Session {
    /// A block whose client is gone is rolled back: what it has created goes.
    fn drop(&mut self) {
        let Some(transaction) = self.transaction.take() else { return };
        if transaction.created.is_empty() {
            return;
        }
        let database = Arc::clone(&self.database);
        let undo = move || {
            if let Err(error) = database.drop_created(transaction.created) {
                tracing::warn!(%error, "what a broken-off transaction has created is still there");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("rollback".into()).spawn(undo) {
            tracing::warn!(%error, "what a broken-off transaction has created is still there");
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("options", &self.options).finish_non_exhaustive()
    }
}
