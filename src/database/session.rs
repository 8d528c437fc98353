//! A session: the only door to a database, for the wire and for embedding programs alike.
//!
//! There are two ways in. [`Session::simple`] runs a string of statements, as PostgreSQL's simple protocol does:
//! outside of a block the whole string is one transaction. It answers with the first statement's outcome; when that
//! has been read to its end, [`Session::simple_next`] goes on to the next, until it says `None`.
//! [`Session::prepare`] and [`Session::execute`] run one statement with parameters.
//!
//! An outcome's rows are a stream that does not borrow the session, but the session must not be given another
//! statement before the stream has ended or was dropped.

use std::sync::Arc;

use arrow::datatypes::{FieldRef, SchemaRef};
use datafusion::scalar::ScalarValue;

use crate::database::{CopyIn, Database, Notice, Outcome};
use crate::error::{Error, Result};

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
}

/// Stops a session's running statement, from any thread.
#[derive(Clone, Debug, Default)]
pub struct CancelHandle {}

impl CancelHandle {
    /// Stops the running statement with SQLSTATE 57014. Without one, nothing happens.
    pub fn cancel(&self) {}
}

/// A session.
pub struct Session {
    database: Arc<Database>,
    options: SessionOptions,
}

impl Session {
    pub(crate) fn new(database: Arc<Database>, options: SessionOptions) -> Session {
        Session { database, options }
    }

    /// Runs a string of statements; answers with the first one's outcome. `None`: the string held nothing.
    pub async fn simple(&mut self, sql: &str) -> Result<Option<Outcome>> {
        let _ = (sql, &self.database, &self.options);
        Err(Error::unsupported("a statement"))
    }

    /// Goes on with the string of statements. `None`: it is through, and outside of a block it is committed.
    /// After an error the rest of the string is forgotten.
    pub async fn simple_next(&mut self) -> Result<Option<Outcome>> {
        Ok(None)
    }

    /// Analyses a statement and keeps it under `name` (empty: the unnamed one). `param_types` may leave types open.
    pub async fn prepare(
        &mut self,
        name: &str,
        sql: &str,
        param_types: &[Option<FieldRef>],
    ) -> Result<Arc<Prepared>> {
        let _ = (name, sql, param_types);
        Err(Error::unsupported("a prepared statement"))
    }

    /// The prepared statement of that name, made by [`Session::prepare`] or by PREPARE.
    pub fn prepared(&self, name: &str) -> Option<Arc<Prepared>> {
        let _ = name;
        None
    }

    /// Forgets a prepared statement; it is no error when there is none.
    pub fn close_prepared(&mut self, name: &str) {
        let _ = name;
    }

    /// Runs a prepared statement; outside of a block it is a transaction of its own, durable when this returns.
    pub async fn execute(&mut self, prepared: &Prepared, params: Vec<ScalarValue>) -> Result<Outcome> {
        let _ = (prepared, params);
        Err(Error::unsupported("a prepared statement"))
    }

    /// Runs a prepared statement as a part of a pipeline: outside of a block, all that is executed until
    /// [`Session::sync`] is one transaction. For the extended protocol.
    pub async fn execute_pipelined(
        &mut self,
        prepared: &Prepared,
        params: Vec<ScalarValue>,
    ) -> Result<Outcome> {
        self.execute(prepared, params).await
    }

    /// Ends a pipeline: commits what it did outside of a block; after an error in it, undoes it.
    pub async fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// The client has sent all data of a COPY FROM.
    pub async fn copy_finish(&mut self, copy: CopyIn) -> Result<Outcome> {
        drop(copy);
        Err(Error::unsupported("COPY FROM"))
    }

    /// The client gives a COPY FROM up, for this reason. The error is what it is to be told.
    pub fn copy_fail(&mut self, copy: CopyIn, reason: &str) -> Error {
        drop(copy);
        Error::new(crate::SqlState::QUERY_CANCELED, format!("COPY from stdin failed: {reason}"))
    }

    /// Tells the session that an error came up in sending an outcome's rows: the transaction fails.
    pub fn fail(&mut self) {}

    /// Whether it is in a block.
    pub fn transaction_status(&self) -> TransactionStatus {
        TransactionStatus::Idle
    }

    /// What stops its statements.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle {}
    }

    /// The value of a setting, as SHOW would say it. `None`: there is no such setting.
    pub fn setting(&self, name: &str) -> Option<String> {
        let _ = name;
        None
    }

    /// Settings changed by statements since the last call that the wire reports (ParameterStatus).
    pub fn changed_settings(&mut self) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// Remarks that belong to no outcome (to an error, or to settings at the start). Emptied by the call.
    pub fn take_notices(&mut self) -> Vec<Notice> {
        Vec::new()
    }
}
