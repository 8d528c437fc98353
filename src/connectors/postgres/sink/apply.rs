//! Opening a target in PostgreSQL and applying batches to it: the transaction that makes each happen once.
//!
//! ```text
//! TRUNCATE changes; COPY changes                                                (a temporary table)
//! BEGIN; UPDATE progress lo → hi (must hit its row); DELETE, UPDATE, INSERT (must do exactly what was expected); COMMIT
//! ```
//! The progress row is locked from its update to the end, so that two writers go one after the other and
//! the second finds the row moved. After any failure the session is given up and with it the transaction.

use std::future::Future;
use std::time::Duration;

use arrow::array::{Array, RecordBatch};
use bytes::Bytes;
use futures::SinkExt;
use tokio_postgres::{Client, Row};

use super::columns::{self, Existing, copy_rows};
use super::statements::{Names, Removal, Statements, literal};
use crate::connectors::postgres::settings::{Server, runtime, said};
use crate::connectors::warehouse::{
    Applied, Batch, Counts, Effect, Failure, Mode, Progress, Remedy, Shape, StagedFile, Step, Warehouse,
    misfit, refuse_rows, target_gone,
};
use crate::connectors::{Differences, StopFlag};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often a statement that runs looks whether the sink is to stop.
const POLL: Duration = Duration::from_millis(100);
/// Somebody holds a lock for longer than we wait.
const LOCKED: SqlState = SqlState("55P03");
/// Rows that are turned into text before they are sent.
const COPY_ROWS: usize = 1 << 10;
/// A batch of this size is worth a look by the planner.
const ANALYZE_ROWS: usize = 1_000;

/// One target table in PostgreSQL.
pub struct PostgresTable {
    server: Server,
    statements: Statements,
    shape: Shape,
    name: String,
    uuid: uuid::Uuid,
    /// Whether rows that nobody knows of may be replaced by the first snapshot.
    replace: bool,
    runtime: tokio::runtime::Runtime,
    session: Option<Client>,
    stop: StopFlag,
    /// Whether the staged batch has a NULL in a key.
    null_keys: bool,
}

impl PostgresTable {
    /// The target that these names say. Nothing is sent yet.
    pub fn new(
        server: Server,
        names: Names,
        shape: Shape,
        name: String,
        uuid: uuid::Uuid,
        replace: bool,
    ) -> Result<Self> {
        let statements = Statements::new(names, shape.clone(), columns::columns(&shape.schema), uuid);
        Ok(PostgresTable {
            server,
            statements,
            shape,
            name,
            uuid,
            replace,
            runtime: runtime()?,
            session: None,
            stop: StopFlag::default(),
            null_keys: false,
        })
    }

    /// Does something in the session. When the sink is told to stop, what runs is cancelled.
    fn ask<'a, T, F>(&'a self, doing: &str, ask: impl FnOnce(&'a Client) -> F) -> Step<T>
    where
        F: Future<Output = std::result::Result<T, tokio_postgres::Error>> + 'a,
    {
        let client = self
            .session
            .as_ref()
            .ok_or_else(|| Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, "no session")))?;
        let answer = self.runtime.block_on(async {
            let mut answer = std::pin::pin!(ask(client));
            loop {
                match tokio::time::timeout(POLL, &mut answer).await {
                    Ok(answer) => return Some(answer),
                    Err(_) if self.stop.is_set() => {
                        if let Err(e) = self.server.cancel(client).await {
                            tracing::debug!(error = %e, "a statement could not be cancelled");
                        }
                        return None;
                    }
                    Err(_) => {}
                }
            }
        });
        match answer {
            Some(answer) => answer.map_err(|e| failure(doing, &e)),
            None => Err(Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping"))),
        }
    }

    fn run(&self, sql: &str) -> Step<u64> {
        self.ask(sql, |c| c.execute(sql, &[]))
    }

    fn query(&self, sql: &str) -> Step<Vec<Row>> {
        self.ask(sql, |c| c.query(sql, &[]))
    }

    fn prepare(&mut self) -> Step<Progress> {
        let label = format!("tidemill sink {}", self.uuid);
        let settings = format!("SET application_name = {}; SET lock_timeout = '10s'", literal(&label));
        self.ask("opening the session", |c| c.batch_execute(&settings))?;
        let create = self.statements.create_progress(&self.name);
        self.ask(&create, |c| c.batch_execute(&create))?;
        // From here on nobody else can be past the first statement of a transaction.
        let raised = self.query(&self.statements.raise_fence()).inspect_err(|failure| {
            if failure.error.sqlstate == LOCKED {
                self.end_other_sessions(&label);
            }
        })?;
        let progress = progress(&raised).ok_or_else(|| {
            Failure::retry(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the sink's row of {} has just gone", self.statements.names.progress),
            ))
        })?;
        self.prepare_target(progress)?;
        self.run(&self.statements.create_changes())?;
        Ok(progress)
    }

    /// A writer whose machine is gone may have left a transaction that holds the progress row. Best effort.
    fn end_other_sessions(&self, label: &str) {
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE application_name = {} AND pid <> pg_backend_pid()",
            literal(label)
        );
        match self.query(&end) {
            Ok(ended) => {
                tracing::warn!(sink = %self.name, sessions = ended.len(), "ended the sink's older sessions")
            }
            Err(failure) => tracing::warn!(error = %failure.error, "the sink's older sessions stay"),
        }
    }

    /// Makes the target, or checks the one that is there.
    fn prepare_target(&self, progress: Progress) -> Step<()> {
        let s = &self.statements;
        let described = self.query(&s.describe_target())?;
        if described.is_empty() {
            if progress.generation > 0 {
                return Err(target_gone(&s.names.target).into());
            }
            let create = s.create_target();
            return self.ask(&create, |c| c.batch_execute(&create));
        }
        let there: Vec<Existing> = described
            .iter()
            .map(|row| Existing {
                name: row.get(0),
                oid: row.get(1),
                modifier: row.get(2),
                printed: row.get(3),
                demanding: row.get(4),
            })
            .collect();
        self.check_target(&there)?;
        if progress.generation == 0
            && !self.replace
            && self.query(&s.has_rows())?.first().is_some_and(|row| row.get(0))
        {
            return Err(refuse_rows(&s.names.target).into());
        }
        Ok(())
    }

    fn check_target(&self, there: &[Existing]) -> Step<()> {
        let s = &self.statements;
        let own = s.own_columns();
        let mut problems = Vec::new();
        for column in &s.columns {
            match there.iter().find(|e| e.name == column.name) {
                None => problems.push(format!("{} is missing", column.name)),
                Some(e) if !columns::takes(e, &column.sql_type) => problems.push(format!(
                    "{} is {}, which does not hold every {}",
                    e.name, e.printed, column.sql_type
                )),
                Some(_) => {}
            }
        }
        problems.extend(
            own.iter()
                .filter(|name| !there.iter().any(|e| e.name == **name))
                .map(|name| format!("{name} is missing, which tells equal rows of a sink without KEY apart")),
        );
        for e in there.iter().filter(|e| e.demanding) {
            if !own.contains(&e.name.as_str()) && !s.columns.iter().any(|c| c.name == e.name) {
                problems.push(format!(
                    "{} is NOT NULL without a default, and the sink has no values for it",
                    e.name
                ));
            }
        }
        if !problems.is_empty() {
            return Err(misfit(&s.names.target, &problems).into());
        }
        let mut key: Vec<&str> = s.key().into_iter().map(|(name, _)| name).collect();
        key.sort_unstable();
        let is_key = |row: &Row| {
            let mut columns: Vec<String> = row.get(0);
            columns.sort_unstable();
            columns == key
        };
        if key.is_empty() || self.query(&s.unique_indexes())?.iter().any(is_key) {
            return Ok(());
        }
        let columns = key.join(", ");
        Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "{} has no unique index on ({columns}), by which the sink finds its rows",
                s.names.target
            ),
        )
        .with_hint("Make one there: CREATE UNIQUE INDEX.")
        .into())
    }

    fn transact(&self, batch: &Batch) -> Step<Applied> {
        let s = &self.statements;
        let mut applied = Applied::default();
        self.run("BEGIN")?;
        world::crash_point("sink.begin");
        if self.run(&s.advance(batch.from, batch.to))? != 1 {
            let now = progress(&self.query(&s.read_progress())?).unwrap_or_default();
            return Err(Failure::fenced(now, batch.from));
        }
        world::crash_point("sink.fenced");
        let merging = world::instant();
        if batch.effect != Effect::Advance {
            self.run(&s.clear_target())?;
        }
        world::crash_point("sink.deleted");
        if !batch.files.is_empty() {
            let done = self.apply_changes(batch)?;
            if done != batch.counts {
                return Err(Failure::parted(format!("Applying gave {done} instead of {}.", batch.counts)));
            }
        }
        applied.merge = merging.elapsed();
        world::crash_point("sink.merged");
        let committing = world::instant();
        self.run("COMMIT")?;
        applied.commit = committing.elapsed();
        Ok(applied)
    }

    /// Compares the target with the copied rows, at the tick where both are.
    fn compare_whole(&self, batch: &Batch) -> Step<Differences> {
        self.run("BEGIN ISOLATION LEVEL REPEATABLE READ")?;
        let now = progress(&self.query(&self.statements.read_progress())?).unwrap_or_default();
        if now != batch.from {
            return Err(Failure::fenced(now, batch.from));
        }
        let apart = self.query(&self.statements.compare())?;
        self.run("COMMIT")?;
        let mut differences = Differences::default();
        for row in &apart {
            let (side, text): (String, String) = (row.get(0), row.get(1));
            let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or_default();
            differences.shown.push(format!("{side} {text}"));
            (differences.lacks, differences.extra, differences.changed) = (number(2), number(3), number(4));
        }
        Ok(differences)
    }

    /// Takes the copied changes into the target.
    fn apply_changes(&self, batch: &Batch) -> Step<Counts> {
        let s = &self.statements;
        let mut done = Counts::default();
        if batch.effect == Effect::Advance && self.shape.mode != Mode::Append {
            if self.shape.mode == Mode::Bag {
                self.run(&s.number_copies())?;
            }
            for delete in s.delete(self.null_keys) {
                done.deletes += self.run(&delete)?;
            }
            for update in s.update(self.null_keys) {
                done.updates += self.run(&update)?;
            }
        }
        done.inserts = self.run(&s.insert())?;
        Ok(done)
    }

    /// Copies a batch into the session's table of changes. Answers with the bytes sent.
    fn copy(&self, rows: &RecordBatch) -> Step<u64> {
        let sql = Statements::copy_changes();
        let (mut bytes, mut broken) = (0, None);
        let (sent, problem, statement) = (&mut bytes, &mut broken, sql.as_str());
        let copied = self.ask(statement, |client| async move {
            let mut into = std::pin::pin!(client.copy_in::<_, Bytes>(statement).await?);
            for from in (0..rows.num_rows()).step_by(COPY_ROWS) {
                let mut text = Vec::with_capacity(COPY_ROWS * 64);
                if let Err(e) = copy_rows(rows, from, (from + COPY_ROWS).min(rows.num_rows()), &mut text) {
                    *problem = Some(e);
                    return Ok(0); // not finished: the server forgets it
                }
                *sent += text.len() as u64;
                into.send(Bytes::from(text)).await?;
            }
            into.as_mut().finish().await
        })?;
        if let Some(error) = broken {
            return Err(error.into());
        }
        if copied != rows.num_rows() as u64 {
            return Err(Failure::retry(Error::new(
                SqlState::DATA_EXCEPTION,
                format!("PostgreSQL took {copied} rows instead of {}", rows.num_rows()),
            )));
        }
        Ok(bytes)
    }
}

impl Warehouse for PostgresTable {
    fn open(&mut self, stop: &StopFlag) -> Step<Progress> {
        self.session = None; // ends what was open
        self.stop = stop.clone();
        let client = self.runtime.block_on(self.server.connect()).map_err(Failure::retry)?;
        self.session = Some(client);
        let prepared = self.prepare();
        if prepared.is_err() {
            self.session = None;
        }
        prepared
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        Ok(rows.clone())
    }

    fn stage(&mut self, _batch: &Batch, rows: &RecordBatch, _file_bytes: usize) -> Step<Vec<StagedFile>> {
        let key = self.statements.key();
        self.null_keys = key
            .iter()
            .filter(|(_, nullable)| *nullable)
            .any(|(name, _)| rows.column_by_name(name).is_some_and(|c| c.null_count() > 0));
        self.run(&Statements::clear_changes())?;
        if rows.num_rows() == 0 {
            return Ok(Vec::new());
        }
        let bytes = self.copy(rows)?;
        if rows.num_rows() >= ANALYZE_ROWS {
            self.run(&Statements::analyze_changes())?;
        }
        Ok(vec![StagedFile { name: "COPY".to_string(), rows: rows.num_rows() as u64, bytes }])
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        let applied = self.transact(batch);
        if applied.is_err() {
            self.session = None;
        }
        applied
    }

    fn compare(&mut self, batch: &mut Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Differences> {
        batch.files = self.stage(batch, rows, file_bytes)?;
        let compared = self.compare_whole(batch);
        if compared.is_err() {
            self.session = None;
        }
        compared
    }

    /// The next batch takes its place; a session that ends takes it along.
    fn discard(&mut self, _batch: &Batch) {}

    fn idle(&mut self) {
        // A failure shows at the next batch.
        if let Err(failure) = self.query("SELECT 1") {
            tracing::debug!(error = %failure.error, "the session is lost");
        }
    }
}

fn progress(rows: &[Row]) -> Option<Progress> {
    let row = rows.first()?;
    let number = |i: usize| u64::try_from(row.get::<_, i64>(i)).unwrap_or_default();
    Some(Progress { generation: number(0), fence: number(1), epoch: number(2) })
}

/// What failed, in the server's words, and whether trying again can help.
fn failure(doing: &str, e: &tokio_postgres::Error) -> Failure {
    let head: String = doing.chars().take(200).collect();
    let Some(db) = e.as_db_error() else {
        let error = Error::new(SqlState::CONNECTION_FAILURE, format!("PostgreSQL: {}", said(e)));
        return Failure::retry(error.with_detail(format!("In: {head}")));
    };
    let code = db.code().code();
    let known = [
        SqlState::UNDEFINED_TABLE,
        SqlState::QUERY_CANCELED,
        SqlState::SERIALIZATION_FAILURE,
        SqlState::UNIQUE_VIOLATION,
        SqlState::INVALID_AUTHORIZATION,
        LOCKED,
    ];
    let state = known.into_iter().find(|s| s.0 == code).unwrap_or(SqlState("HV000"));
    let mut error = Error::new(state, format!("PostgreSQL: {}", said(e)));
    error.detail = Some(match db.detail() {
        Some(detail) => format!("{detail} In: {head}"),
        None => format!("In: {head}"),
    });
    // Wrong statements, data and rights do not pass; locks, restarts and lost sessions do.
    let stays = ["0A", "22", "23", "28", "3D", "3F", "42"].contains(&code.get(..2).unwrap_or_default());
    Failure { error, remedy: if stays { Remedy::Nothing } else { Remedy::Retry } }
}

/// Removes what a sink made besides its target.
pub fn remove(server: &Server, names: &Names, sink: uuid::Uuid) -> Result<()> {
    runtime()?.block_on(async {
        let client = server.connect().await?;
        let remove = Removal::new(names, sink);
        let failed = |e: tokio_postgres::Error| failure("removing the sink's progress", &e).error;
        client.batch_execute(&remove.begin).await.map_err(failed)?;
        let known: bool = client.query_one(&remove.known, &[]).await.map_err(failed)?.get(0);
        if known {
            client.execute(&remove.row, &[]).await.map_err(failed)?;
            let used: bool = client.query_one(&remove.used, &[]).await.map_err(failed)?.get(0);
            if !used {
                client.execute(&remove.table, &[]).await.map_err(failed)?;
            }
        }
        client.batch_execute("COMMIT").await.map_err(failed)
    })
}
