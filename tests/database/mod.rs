//! A database in a directory of its own, and sessions that say what went wrong.

use std::sync::Arc;

use arrow::array::RecordBatch;
use futures::TryStreamExt;
use tidemill::config::Config;
use tidemill::database::{CancelHandle, Database, Outcome, Session, SessionOptions};
use tidemill::error::{Error, Result};

/// An open database; its directory goes with it.
pub struct Db {
    pub database: Arc<Database>,
    dir: Option<tempfile::TempDir>,
    runtime: Arc<tokio::runtime::Runtime>,
}

/// A session that runs on the test's thread.
pub struct TestSession {
    session: Session,
    runtime: Arc<tokio::runtime::Runtime>,
}

fn runtime() -> Arc<tokio::runtime::Runtime> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    Arc::new(runtime.unwrap())
}

impl Db {
    /// A new, empty database.
    #[allow(dead_code)] // not every test file leaves all settings as they are
    pub fn new() -> Db {
        Db::with(|_| ())
    }

    /// The same with other settings.
    pub fn with(set: impl FnOnce(&mut Config)) -> Db {
        let dir = tempfile::tempdir().unwrap();
        let mut config = Config::at(dir.path().join("data"));
        set(&mut config);
        let database = Database::open(&config).unwrap();
        Db { database, dir: Some(dir), runtime: runtime() }
    }

    /// Closes it and opens it again; `clean`: after a shutdown.
    #[allow(dead_code)] // not every test file restarts
    pub fn reopen(mut self, clean: bool) -> Db {
        if clean {
            self.database.shutdown();
        }
        let dir = self.dir.take().unwrap();
        let config = self.database.config().clone();
        drop(self);
        Db { database: Database::open(&config).unwrap(), dir: Some(dir), runtime: runtime() }
    }

    /// A session of a database that was opened elsewhere.
    #[allow(dead_code)] // not every test file opens one
    pub fn session_of(database: &Arc<Database>) -> TestSession {
        TestSession { session: database.session(SessionOptions::default()), runtime: runtime() }
    }

    pub fn session(&self) -> TestSession {
        let session = self.database.session(SessionOptions::default());
        TestSession { session, runtime: Arc::clone(&self.runtime) }
    }
}

impl TestSession {
    /// Runs a string of statements; answers with all tags and all rows.
    pub fn try_run(&mut self, sql: &str) -> Result<(Vec<String>, Vec<String>)> {
        let (session, mut tags, mut rows) = (&mut self.session, Vec::new(), Vec::new());
        self.runtime.clone().block_on(async {
            let mut next = session.simple(sql).await?;
            while let Some(outcome) = next {
                match outcome {
                    Outcome::Rows { stream, tag, .. } => {
                        let batches: Vec<RecordBatch> = match stream.try_collect().await {
                            Ok(batches) => batches,
                            Err(e) => {
                                session.fail();
                                return Err(e.into());
                            }
                        };
                        let before = rows.len();
                        batches.iter().for_each(|b| show(b, &mut rows));
                        tags.push(tag((rows.len() - before) as u64));
                    }
                    Outcome::Done { tag, .. } => tags.push(tag),
                    other => return Err(Error::internal(format!("{other:?}"))),
                }
                next = session.simple_next().await?;
            }
            Ok((tags, rows))
        })
    }

    pub fn run(&mut self, sql: &str) {
        self.try_run(sql).unwrap_or_else(|e| panic!("{sql}: {} {e}", e.sqlstate.0));
    }

    /// The last command tag.
    #[allow(dead_code)] // not every test file looks at tags
    pub fn tag(&mut self, sql: &str) -> String {
        let (tags, _) = self.try_run(sql).unwrap_or_else(|e| panic!("{sql}: {} {e}", e.sqlstate.0));
        tags.last().cloned().unwrap()
    }

    pub fn rows(&mut self, sql: &str) -> Vec<String> {
        self.try_run(sql).unwrap_or_else(|e| panic!("{sql}: {} {e}", e.sqlstate.0)).1
    }

    #[allow(dead_code)] // not every test file expects errors
    pub fn error(&mut self, sql: &str) -> Error {
        match self.try_run(sql) {
            Ok(answer) => panic!("{sql} worked: {answer:?}"),
            Err(e) => e,
        }
    }

    /// Runs a COPY … FROM STDIN with this data.
    #[allow(dead_code)] // not every test file copies
    pub fn copy(&mut self, sql: &str, data: &[&str]) -> Result<String> {
        let session = &mut self.session;
        self.runtime.clone().block_on(async {
            let Some(Outcome::CopyIn(mut copy)) = session.simple(sql).await? else {
                panic!("{sql} is no COPY")
            };
            for piece in data {
                if let Err(e) = copy.write(piece.as_bytes()) {
                    session.fail();
                    return Err(e);
                }
            }
            let outcome = session.copy_finish(*copy).await?;
            assert!(session.simple_next().await?.is_none());
            match outcome {
                Outcome::Done { tag, .. } => Ok(tag),
                other => panic!("{other:?}"),
            }
        })
    }

    #[allow(dead_code)] // not every test file cancels
    pub fn cancel_handle(&self) -> CancelHandle {
        self.session.cancel_handle()
    }
}

/// A batch's rows as text, as psql -At shows them, with NULL in words.
fn show(batch: &RecordBatch, out: &mut Vec<String>) {
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        let cells = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
            if column.is_null(row) {
                return "NULL".to_string();
            }
            let mut text = Vec::new();
            tidemill::types::write_text(field, column, row, &mut text).unwrap();
            String::from_utf8(text).unwrap()
        });
        out.push(cells.collect::<Vec<_>>().join("|"));
    }
}

#[allow(dead_code)] // not every test file compares rows
pub fn rows(expected: &[&str]) -> Vec<String> {
    expected.iter().map(ToString::to_string).collect()
}

#[allow(dead_code)] // not every test file looks at errors
pub fn error(e: &Error) -> (&str, &str) {
    (e.sqlstate.0, &e.message)
}
