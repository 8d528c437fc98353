//! Opening a target in Redshift and applying batches to it: the transaction that makes each happen once.
//!
//! ```text
//! Parquet files and a manifest ─► S3                                   (before the transaction)
//! BEGIN; LOCK progress; UPDATE progress lo → hi (must hit its row);
//! COPY changes FROM manifest (must load every row); DELETE, UPDATE, INSERT (must do exactly what was expected); COMMIT
//! ```
//! Redshift does not remember which files it has loaded: the progress row alone says so. After any failure the session
//! is given up and with it the transaction.

use std::time::Duration;

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::json;
use tokio_postgres::{Client, SimpleQueryMessage, SimpleQueryRow};

use super::columns::{self, Convert};
use super::statements::{Names, Statements};
use crate::connectors::StopFlag;
use crate::connectors::postgres::settings::{Server, said};
use crate::connectors::warehouse::bucket::Bucket;
use crate::connectors::warehouse::staging::write_files;
use crate::connectors::warehouse::{
    Applied, Batch, Counts, Effect, Failure, Mode, Progress, Remedy, Shape, StagedFile, Step, Warehouse,
    misfit, refuse_rows, target_gone,
};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How often a statement that runs looks whether the sink is to stop.
const POLL: Duration = Duration::from_millis(100);
/// What lists the files of a batch.
const MANIFEST: &str = "manifest";

/// Where a sink's files go, and as whom Redshift reads them.
pub struct Stage {
    /// The prefix that files are put under.
    pub bucket: Bucket,
    /// The role that Redshift reads them in.
    pub role: String,
}

/// One target table in Redshift.
pub struct RedshiftTable {
    server: Server,
    stage: Stage,
    statements: Statements,
    shape: Shape,
    name: String,
    uuid: uuid::Uuid,
    /// Whether rows that nobody knows of may be replaced by the first snapshot.
    replace: bool,
    runtime: tokio::runtime::Runtime,
    session: Option<Client>,
    stop: StopFlag,
}

/// What a statement answered.
#[derive(Default)]
struct Answer {
    /// Rows, as text.
    rows: Vec<SimpleQueryRow>,
    /// Rows that it returned or changed.
    count: u64,
}

impl Answer {
    fn number(&self, row: usize, column: usize) -> Step<u64> {
        let text = self.rows.get(row).and_then(|r| r.get(column));
        text.and_then(|t| t.parse().ok()).ok_or_else(|| {
            let message = format!("Redshift answered {text:?} instead of a number");
            Error::new(SqlState::PROTOCOL_VIOLATION, message).into()
        })
    }

    fn progress(&self) -> Step<Progress> {
        Ok(Progress { generation: self.number(0, 0)?, fence: self.number(0, 1)?, epoch: self.number(0, 2)? })
    }
}

impl RedshiftTable {
    /// The target that these names say. Nothing is sent yet.
    pub fn new(
        server: Server,
        stage: Stage,
        names: Names,
        shape: Shape,
        (name, uuid): (String, uuid::Uuid),
        replace: bool,
    ) -> Result<Self> {
        let columns = columns::columns(&shape.schema)?;
        let statements = Statements::new(names, shape.clone(), columns);
        Ok(RedshiftTable {
            server,
            stage,
            statements,
            shape,
            name,
            uuid,
            replace,
            runtime: tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("redshift")
                .enable_all()
                .build()?,
            session: None,
            stop: StopFlag::default(),
        })
    }

    /// Runs a statement in the session, by the simple protocol, which asks for no types. When the sink is told to stop,
    /// what runs is cancelled.
    fn run(&self, sql: &str) -> Step<Answer> {
        let no_session = || Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, "no session"));
        let client = self.session.as_ref().ok_or_else(no_session)?;
        let answered = self.runtime.block_on(async {
            let mut answer = std::pin::pin!(client.simple_query(sql));
            loop {
                match tokio::time::timeout(POLL, &mut answer).await {
                    Ok(answer) => return Some(answer),
                    Err(_) if self.stop.is_set() => {
                        if let Err(error) = self.server.cancel(client).await {
                            tracing::debug!(%error, "a statement could not be cancelled");
                        }
                        return None;
                    }
                    Err(_) => {}
                }
            }
        });
        let stopping = || Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping"));
        let messages = answered.ok_or_else(stopping)?.map_err(|e| failure(sql, &e))?;
        let mut answer = Answer::default();
        for message in messages {
            match message {
                SimpleQueryMessage::Row(row) => answer.rows.push(row),
                SimpleQueryMessage::CommandComplete(count) => answer.count = count,
                _ => {}
            }
        }
        Ok(answer)
    }

    fn prepare(&self) -> Step<Progress> {
        let mut progress = None;
        for sql in self.statements.raise_fence(&self.name) {
            let answer = self.run(&sql)?;
            if !answer.rows.is_empty() {
                progress = Some(answer.progress()?);
            }
        }
        let progress = progress.ok_or_else(|| {
            Error::new(SqlState::DATA_CORRUPTED, format!("{} is empty", self.statements.names.progress))
        })?;
        self.prepare_target(progress)?;
        self.run(&self.statements.create_changes())?;
        Ok(progress)
    }

    /// Makes the target, or checks the one that is there.
    fn prepare_target(&self, progress: Progress) -> Step<()> {
        let s = &self.statements;
        let described = self.run(&s.describe_target())?;
        if described.rows.is_empty() {
            if progress.generation > 0 {
                return Err(target_gone(&s.names.target).into());
            }
            self.run(&s.create_target())?;
            return Ok(());
        }
        self.check_target(&described)?;
        if progress.generation == 0 && !self.replace && self.run(&s.count_target())?.number(0, 0)? > 0 {
            return Err(refuse_rows(&s.names.target).into());
        }
        Ok(())
    }

    fn check_target(&self, described: &Answer) -> Step<()> {
        let s = &self.statements;
        let own_columns: Vec<String> = s.own_columns().iter().map(|c| c.to_lowercase()).collect();
        let there: Vec<[&str; 3]> =
            described.rows.iter().map(|r| [0, 1, 2].map(|i| r.get(i).unwrap_or_default())).collect();
        let mut problems = Vec::new();
        for column in &s.columns {
            match there.iter().find(|[name, ..]| *name == column.name) {
                None => problems.push(format!("{} is missing", column.name)),
                Some([_, existing, _]) => problems.extend(columns::misfit(column, existing)),
            }
        }
        problems.extend(
            own_columns
                .iter()
                .filter(|name| !there.iter().any(|[n, ..]| n == *name))
                .map(|name| format!("{name} is missing, which tells equal rows of a sink without KEY apart")),
        );
        for [name, _, demanding] in &there {
            let known = own_columns.iter().any(|c| c == name) || s.columns.iter().any(|c| c.name == *name);
            if !known && *demanding == "t" {
                problems
                    .push(format!("{name} is NOT NULL without a default, and the sink has no values for it"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(misfit(&s.names.target, &problems).into()) }
    }

    fn transact(&self, batch: &Batch) -> Step<Applied> {
        let s = &self.statements;
        let mut applied = Applied::default();
        self.run("BEGIN")?;
        world::crash_point("sink.begin");
        self.run(&s.lock_progress())?;
        if self.run(&s.advance(batch.from, batch.to))?.count != 1 {
            let now = self.run(&s.read_progress())?.progress().unwrap_or_default();
            return Err(Failure::fenced(now, batch.from));
        }
        world::crash_point("sink.fenced");
        if batch.effect != Effect::Advance {
            self.run(&s.clear_target())?;
        }
        world::crash_point("sink.deleted");
        if !batch.files.is_empty() {
            let loading = world::instant();
            self.load(batch)?;
            applied.load = loading.elapsed();
            world::crash_point("sink.copied");
            let merging = world::instant();
            let done = self.apply_changes(batch)?;
            if done != batch.counts {
                return Err(Failure::parted(format!("Applying gave {done} instead of {}.", batch.counts)));
            }
            applied.merge = merging.elapsed();
        }
        world::crash_point("sink.merged");
        let committing = world::instant();
        self.run("COMMIT")?;
        applied.commit = committing.elapsed();
        Ok(applied)
    }

    /// Loads what was staged into the session's table.
    fn load(&self, batch: &Batch) -> Step<()> {
        self.run(&Statements::clear_changes())?;
        let manifest = self.stage.bucket.url_of(&format!("{}{MANIFEST}", batch.directory));
        self.run(&Statements::copy(&manifest, &self.stage.role))?;
        let loaded = self.run(&Statements::count_changes())?.number(0, 0)?;
        if loaded != batch.rows() {
            return Err(Failure::retry(Error::new(
                SqlState::DATA_EXCEPTION,
                format!("Redshift loaded {loaded} rows instead of {}", batch.rows()),
            )));
        }
        Ok(())
    }

    /// Takes the loaded changes into the target.
    fn apply_changes(&self, batch: &Batch) -> Step<Counts> {
        let s = &self.statements;
        let mut done = Counts::default();
        if batch.effect == Effect::Advance && self.shape.mode != Mode::Append {
            if self.shape.mode == Mode::Bag {
                self.run(&s.number_copies())?;
            }
            done.deletes = self.run(&s.delete())?.count;
            if let Some(update) = s.update() {
                done.updates = self.run(&update)?.count;
            }
        }
        done.inserts = self.run(&s.insert())?.count;
        Ok(done)
    }
}

impl Warehouse for RedshiftTable {
    fn open(&mut self, stop: &StopFlag) -> Step<Progress> {
        self.session = None; // ends what was open
        self.stop = stop.clone();
        self.session = Some(self.runtime.block_on(self.server.connect()).map_err(Failure::retry)?);
        // Whatever is staged belongs to attempts that are over.
        self.stage.bucket.remove(&self.runtime, &self.uuid.to_string());
        let prepared = self.prepare();
        if prepared.is_err() {
            self.session = None;
        }
        prepared
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        columns::encode(&self.statements.columns, rows)
    }

    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>> {
        let bucket = &self.stage.bucket;
        let put = |name: &str, bytes: Bytes| {
            bucket.put(&self.runtime, &format!("{}{name}", batch.directory), bytes)
        };
        let files = write_files(rows, file_bytes, put)?;
        if !files.is_empty() {
            // Parquet's entries must say their lengths.
            let entries: Vec<_> = files
                .iter()
                .map(|f| {
                    let url = bucket.url_of(&format!("{}{}", batch.directory, f.name));
                    json!({ "url": url, "mandatory": true, "meta": { "content_length": f.bytes } })
                })
                .collect();
            put(MANIFEST, Bytes::from(json!({ "entries": entries }).to_string()))?;
        }
        Ok(files)
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        let applied = self.transact(batch);
        if applied.is_err() {
            self.session = None;
        }
        applied
    }

    fn discard(&mut self, batch: &Batch) {
        self.stage.bucket.remove(&self.runtime, &batch.directory);
    }

    fn idle(&mut self) {
        // Idle sessions are ended by Redshift and by what stands in between; a failure shows at the next statement.
        if let Err(failure) = self.run("SELECT 1") {
            tracing::debug!(error = %failure.error, "the session is gone");
        }
    }
}

/// What failed, in the server's words, and whether trying again can help.
fn failure(doing: &str, e: &tokio_postgres::Error) -> Failure {
    let head: String = doing.chars().take(200).collect();
    let Some(db) = e.as_db_error() else {
        let error = Error::new(SqlState::CONNECTION_FAILURE, format!("Redshift: {}", said(e)));
        return Failure::retry(error.with_detail(format!("In: {head}")));
    };
    let code = db.code().code();
    let known = [SqlState::UNDEFINED_TABLE, SqlState::QUERY_CANCELED, SqlState::SERIALIZATION_FAILURE];
    let state = known.into_iter().find(|s| s.0 == code).unwrap_or(SqlState("HV000"));
    let detail = db.detail().map_or(format!("In: {head}"), |detail| format!("{detail} In: {head}"));
    let error = Error::new(state, format!("Redshift: {}", said(e))).with_detail(detail);
    // Wrong statements, data and rights do not pass; conflicts (1023, in XX000), restarts and lost sessions do.
    let stays = ["0A", "22", "23", "28", "3D", "3F", "42"].contains(&code.get(..2).unwrap_or_default());
    Failure { error, remedy: if stays { Remedy::Nothing } else { Remedy::Retry } }
}

/// Refuses what would be a key that Redshift cannot compare.
///
/// # Errors
/// 0A000.
pub fn check_key(shape: &Shape, columns: &[columns::Column]) -> Result<()> {
    let Mode::Keyed(key) = &shape.mode else { return Ok(()) };
    match key.iter().find(|&&k| columns[k].convert == Convert::Json) {
        None => Ok(()),
        Some(&k) => {
            let name = &columns[k].name;
            Err(Error::unsupported(format!("a KEY of type SUPER (column \"{name}\") in Redshift")))
        }
    }
}

/// Removes what a sink made besides its target.
///
/// # Errors
/// The server's.
pub fn remove(server: &Server, stage: &Stage, names: &Names, sink: uuid::Uuid) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    stage.bucket.remove(&runtime, &sink.to_string());
    runtime.block_on(async {
        let client = server.connect().await?;
        let drop = Statements::drop_progress(names);
        client.batch_execute(&drop).await.map_err(|e| failure(&drop, &e).error)
    })
}
