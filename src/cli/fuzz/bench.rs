//! A database in which steps are run, and every view is compared after each.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use futures::TryStreamExt;
use tokio::runtime::Runtime;

use tidemill::database::{Database, Outcome, Session, SessionOptions};
use tidemill::engine::check::check_view;
use tidemill::sql::ObjectKind;
use tidemill::{Config, Error, Result, SqlState, types, world};

use super::finding::{Finding, Kind};
use super::postgres::{Postgres, difference};
use super::script::Step;

/// What still works for a database that was shut down is through by then.
const CLOSE_MAX: Duration = Duration::from_secs(10);

/// What became of a step.
pub enum Done {
    /// It was done, and all views are what their queries say.
    Well,
    /// It was refused as not supported.
    Refused(String),
    /// It failed as it should: by its rows, or because PostgreSQL does not know such a statement, either.
    Failed,
    /// Only PostgreSQL refuses it.
    Foreign(String),
    /// Something is wrong.
    Found(Finding),
}

/// An open database, and a PostgreSQL beside it that gets the same statements.
pub struct Bench<'a> {
    /// `None` when it could not be opened again.
    open: Option<(Arc<Database>, Session)>,
    runtime: &'a Runtime,
    postgres: Option<&'a Postgres>,
    directory: PathBuf,
    /// Views that are there, and whether they are materialized.
    views: Vec<(String, bool)>,
    /// The only view to be compared; `None`: all of them.
    pub only: Option<String>,
    /// Views compared with their query.
    pub compared: u64,
    /// Views compared with PostgreSQL.
    pub compared_with_postgres: u64,
}

impl<'a> Bench<'a> {
    /// A new, empty database.
    pub fn open(runtime: &'a Runtime, postgres: Option<&'a Postgres>) -> Result<Bench<'a>> {
        // In memory where there is such a directory: a fuzzer does not ask what survives.
        let memory = PathBuf::from("/dev/shm");
        let base = if memory.is_dir() { memory } else { std::env::temp_dir() };
        let directory = base.join(format!("tidemill-fuzz-{}", world::uuid()));
        let open = Some(opened(&directory)?);
        if let Some(postgres) = postgres {
            runtime.block_on(postgres.reset())?;
        }
        Ok(Bench {
            open,
            runtime,
            postgres,
            directory,
            views: Vec::new(),
            only: None,
            compared: 0,
            compared_with_postgres: 0,
        })
    }

    /// Does a step and compares all views.
    pub fn step(&mut self, step: &Step) -> Done {
        match catch_unwind(AssertUnwindSafe(|| self.try_step(step))) {
            Ok(done) => done,
            Err(_) => Done::Found(Finding::new(Kind::Panic, "a panic went through the session")),
        }
    }

    fn try_step(&mut self, step: &Step) -> Done {
        let done = match step {
            Step::View { name, materialized, query } => self.create(step, name, *materialized, query),
            Step::Restart => self.restart(),
            _ => self.write(step),
        };
        if let Step::Drop { name, .. } = step
            && matches!(done, Done::Well)
        {
            self.views.retain(|v| v.0 != *name);
        }
        match done {
            Done::Well => self.compare().map_or(Done::Well, Done::Found),
            done => done,
        }
    }

    fn create(&mut self, step: &Step, name: &str, materialized: bool, query: &str) -> Done {
        let ours = self.run(&step.statements().join("; "));
        let theirs =
            self.postgres.map(|p| self.runtime.block_on(p.run(&format!("CREATE VIEW {name} AS {query}"))));
        let done = match (ours, theirs) {
            (Ok(_), Some(Err((_, message)))) => Done::Foreign(message),
            (Ok(_), _) => {
                self.views.push((name.to_string(), materialized));
                return Done::Well;
            }
            (Err(e), _) if e.sqlstate == SqlState::FEATURE_NOT_SUPPORTED => Done::Refused(e.message),
            (Err(e), Some(Err(_))) if e.sqlstate != SqlState::INTERNAL_ERROR => Done::Failed,
            // What is constant fails when the query is planned, and when it is run.
            (Err(e), _) if is_of_rows(&e) && self.rows(query).is_err_and(|b| is_of_rows(&b)) => Done::Failed,
            (Err(e), _) => Done::Found(Finding::of_error(&e).of_view(name)),
        };
        // Where one has refused it, the other must not have it.
        let kind = if materialized { "MATERIALIZED VIEW" } else { "VIEW" };
        if matches!(done, Done::Foreign(_))
            && let Err(e) = self.run(&format!("DROP {kind} {name}"))
        {
            return Done::Found(Finding::of_error(&e).of_view(name));
        }
        if let Some(postgres) = self.postgres {
            // It may not be there.
            self.runtime.block_on(postgres.run(&format!("DROP VIEW {name}"))).ok();
        }
        done
    }

    /// Views begin again with what a checkpoint of the last tick holds.
    fn restart(&mut self) -> Done {
        self.close();
        match opened(&self.directory) {
            Ok(open) => {
                self.open = Some(open);
                Done::Well
            }
            Err(e) => Done::Found(Finding::of_error(&e)),
        }
    }

    /// Shuts the database down and waits until nobody holds it any more, or its directory cannot be opened.
    fn close(&mut self) {
        let Some((database, session)) = self.open.take() else { return };
        drop(session);
        database.shutdown();
        let until = world::instant() + CLOSE_MAX;
        while Arc::strong_count(&database) > 1 && world::instant() < until {
            world::sleep(Duration::from_millis(1));
        }
    }

    fn write(&mut self, step: &Step) -> Done {
        let text = step.statements().join("; ");
        let ours = self.run(&text);
        if let Err(e) = &ours
            && e.sqlstate == SqlState::FEATURE_NOT_SUPPORTED
        {
            return Done::Refused(e.message.clone());
        }
        let theirs = self.postgres.map(|p| {
            let text = text.replace("DROP MATERIALIZED VIEW", "DROP VIEW");
            self.runtime.block_on(p.run(&text))
        });
        match (ours, theirs) {
            (Ok(_), None | Some(Ok(()))) => Done::Well,
            (Ok(_), Some(Err((state, message)))) => {
                let text = format!("PostgreSQL refuses this: {state} {message}");
                Done::Found(Finding::new(Kind::WriteDiffers, text))
            }
            (Err(e), Some(Ok(()))) => {
                let text = format!("PostgreSQL does this: {} {}", e.sqlstate.0, e.message);
                Done::Found(Finding::new(Kind::WriteDiffers, text))
            }
            (Err(e), _) if e.sqlstate == SqlState::INTERNAL_ERROR => Done::Found(Finding::of_error(&e)),
            (Err(_), Some(Err(_))) => Done::Failed,
            (Err(e), None) if is_of_rows(&e) || e.sqlstate.0.starts_with("23") => Done::Failed,
            (Err(e), None) => Done::Found(Finding::of_error(&e)),
        }
    }

    /// Compares all views; the first difference.
    fn compare(&mut self) -> Option<Finding> {
        for (name, materialized) in self.views.clone() {
            if self.only.as_ref().is_some_and(|only| *only != name) {
                continue;
            }
            let found = if materialized { self.check(&name) } else { None };
            let found = match found {
                None if self.postgres.is_some() => self.check_with_postgres(&name),
                found => found,
            };
            if let Some(found) = found {
                return Some(found.of_view(&name));
            }
        }
        None
    }

    /// A view against its query in batch.
    fn check(&mut self, name: &str) -> Option<Finding> {
        self.compared += 1;
        let (database, _) = self.open.as_ref()?;
        let catalog = database.catalog();
        let views = catalog.of_kind(ObjectKind::MaterializedView);
        let Some(entry) = views.iter().find(|e| e.name == name) else {
            return Some(Finding::new(Kind::Internal, "the view is not in the catalog"));
        };
        let id = entry.id.collection();
        let snapshot = database.engine().snapshot();
        let collection = snapshot.collection(id);
        let failed =
            collection.iter().flat_map(|c| c.failed().into_iter().chain(c.errors().iter().map(|e| &e.error)));
        if let Some(e) = failed.into_iter().find(|e| e.sqlstate == SqlState::INTERNAL_ERROR) {
            return Some(Finding::of_error(e));
        }
        match check_view(database.engine(), id) {
            Ok(None) => None,
            Ok(Some(difference)) => Some(Finding::new(Kind::Differs, difference.to_string())),
            Err(e) => Some(Finding::of_error(&e)),
        }
    }

    /// A view against the same view there.
    fn check_with_postgres(&mut self, name: &str) -> Option<Finding> {
        let postgres = self.postgres?;
        self.compared_with_postgres += 1;
        let query = format!("SELECT * FROM {name}");
        let ours = self.rows(&query);
        let theirs = self.runtime.block_on(postgres.rows(&query));
        let text = match (ours, theirs) {
            (Ok(ours), Ok(theirs)) => {
                let (more, fewer) = difference(&ours, &theirs);
                if more.is_empty() && fewer.is_empty() {
                    return None;
                }
                let list = |title: &str, rows: &[String]| {
                    let rows: String = rows.iter().take(10).map(|r| format!("\n  {r}")).collect();
                    if rows.is_empty() { String::new() } else { format!("{title}{rows}\n") }
                };
                let text = format!("{}{}", list("only here:", &more), list("only in PostgreSQL:", &fewer));
                return Some(Finding::new(Kind::DiffersFromPostgres, text).expecting(theirs));
            }
            (Err(_), Err(_)) => return None,
            (Err(e), Ok(_)) if e.sqlstate == SqlState::INTERNAL_ERROR => return Some(Finding::of_error(&e)),
            (Err(e), Ok(_)) => format!("PostgreSQL gives rows; here: {} {e}", e.sqlstate.0),
            // It was too slow there.
            (Ok(_), Err((state, _))) if state == "57014" => return None,
            (Ok(_), Err((state, message))) => format!("only PostgreSQL fails: {state} {message}"),
        };
        Some(Finding::new(Kind::DiffersFromPostgres, text))
    }

    /// Runs a string of statements to their ends.
    fn run(&mut self, sql: &str) -> Result<()> {
        self.rows(sql).map(|_| ())
    }

    /// The rows of a string of statements as text.
    fn rows(&mut self, sql: &str) -> Result<Vec<Vec<Option<String>>>> {
        let Some((_, session)) = &mut self.open else {
            return Err(Error::internal("the database is closed"));
        };
        let mut rows = Vec::new();
        self.runtime.block_on(async {
            let mut next = session.simple(sql).await?;
            while let Some(outcome) = next {
                if let Outcome::Rows { stream, .. } = outcome {
                    let batches: Vec<RecordBatch> = match stream.try_collect().await {
                        Ok(batches) => batches,
                        Err(e) => {
                            session.fail();
                            return Err(Error::from(e));
                        }
                    };
                    for batch in &batches {
                        texts(batch, &mut rows)?;
                    }
                }
                next = session.simple_next().await?;
            }
            Ok(rows)
        })
    }
}

impl Drop for Bench<'_> {
    fn drop(&mut self) {
        self.close();
        // What is left in the directory of temporary files is the system's to clean.
        std::fs::remove_dir_all(&self.directory).ok();
    }
}

/// The database of a directory, with a checkpoint after every tick.
fn opened(directory: &Path) -> Result<(Arc<Database>, Session)> {
    let database = Database::open(&Config { checkpoint_bytes: 1, ..Config::at(directory) })?;
    let session = database.session(SessionOptions::default());
    Ok((database, session))
}

/// Whether it is an error that a row makes.
fn is_of_rows(e: &Error) -> bool {
    e.sqlstate.0.starts_with("22") || e.sqlstate == SqlState::CARDINALITY_VIOLATION
}

fn texts(batch: &RecordBatch, rows: &mut Vec<Vec<Option<String>>>) -> Result<()> {
    let schema = batch.schema();
    for row in 0..batch.num_rows() {
        let mut cells = Vec::with_capacity(batch.num_columns());
        for (column, field) in batch.columns().iter().zip(schema.fields()) {
            let mut text = Vec::new();
            cells.push(match column.is_null(row) {
                true => None,
                false => {
                    types::write_text(field, column, row, &mut text)?;
                    Some(String::from_utf8_lossy(&text).into_owned())
                }
            });
        }
        rows.push(cells);
    }
    Ok(())
}
