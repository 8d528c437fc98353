//! Opening a target in Snowflake and applying batches to it: the transaction that makes each happen once.
//!
//! ```text
//! BEGIN; UPDATE progress lo → hi (must hit its row); DELETE changes; COPY changes (must load every row);
//! MERGE into the target (must do exactly what was expected); COMMIT
//! ```
//! The progress row is locked from its update to the end, so that two writers go one after the other and
//! the second finds the row moved. After any failure the session is given up and with it the transaction.

use arrow::array::RecordBatch;
use bytes::Bytes;
use serde_json::json;

use super::client::{Repeat, Session};
use super::compare::{differing, has_texts, named, our_digests, range_digits, read_digests};
use super::config::Config;
use super::stage;
use super::statements::{Names, Statements};
use super::types::{self, Column};
use super::wire::Rows;
use crate::connectors::warehouse::bucket::Bucket;
use crate::connectors::warehouse::consolidate::select;
use crate::connectors::warehouse::staging::write_files;
use crate::connectors::warehouse::{
    Applied, Batch, Counts, Effect, Failure, Mode, Progress, Remedy, Shape, StagedFile, Step, Warehouse,
    refuse_rows, target_gone,
};
use crate::connectors::{Differences, StopFlag};
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Between two heartbeats; the loop calls more often.
pub(super) const HEARTBEAT: std::time::Duration = std::time::Duration::from_secs(900);

/// By what a sink is known in Snowflake's history of queries.
#[derive(Clone, Debug)]
pub struct SinkTag {
    /// Its name.
    pub name: String,
    /// What it is for life.
    pub uuid: uuid::Uuid,
}

impl SinkTag {
    /// The QUERY_TAG of statements that take the target to a tick, or belong to none: JSON.
    pub(super) fn text(&self, tick: Option<Tick>) -> String {
        let id = self.uuid.to_string();
        json!({ "app": "tidemill", "sink": self.name, "sink_id": id, "tick": tick }).to_string()
    }
}

/// One target table in Snowflake.
pub struct Snowflake {
    config: Config,
    statements: Statements,
    columns: Vec<Column>,
    shape: Shape,
    sink: SinkTag,
    /// Whether rows that nobody knows of may be replaced by the first snapshot.
    replace: bool,
    /// Where files go when the stage is an external one.
    external: Option<(Bucket, tokio::runtime::Runtime)>,
    session: Option<Session>,
    used_at: std::time::Instant,
}

impl Snowflake {
    /// The target that these names say. Nothing is sent yet.
    pub fn new(config: Config, names: Names, shape: Shape, sink: SinkTag, replace: bool) -> Result<Self> {
        let columns = types::columns(&shape.schema)?;
        let statements = Statements::new(names, shape.clone(), columns.clone(), sink.uuid);
        Ok(Snowflake {
            config,
            statements,
            columns,
            shape,
            sink,
            replace,
            external: None,
            session: None,
            used_at: world::instant(),
        })
    }

    /// Files go to this place, which the stage points to.
    ///
    /// # Errors
    /// The operating system's.
    pub fn stage_in(&mut self, bucket: Bucket) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        self.external = Some((bucket, runtime));
        Ok(())
    }

    fn session(&mut self) -> Step<&mut Session> {
        self.used_at = world::instant();
        self.session
            .as_mut()
            .ok_or_else(|| Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, "no session")))
    }

    fn run(&mut self, sql: &str, repeat: Repeat) -> Step<Rows> {
        self.session()?.query(sql, repeat)
    }

    fn prepare(&mut self) -> Step<Progress> {
        let s = self.statements.clone();
        self.run(&s.create_progress(), Repeat::Harmless)?;
        self.run(&s.insert_progress(), Repeat::Harmless)?;
        // Raising it twice does no harm. From here on nobody else can be past the first statement of a transaction.
        if let Err(failure) = self.run(&s.raise_fence(), Repeat::Harmless) {
            if failure.remedy == Remedy::Retry && failure.error.sqlstate != SqlState::CONNECTION_FAILURE {
                self.end_stuck_transactions();
            }
            return Err(failure);
        }
        let rows = self.run(&s.read_progress(), Repeat::Harmless)?;
        if rows.len() != 1 {
            return Err(Error::new(
                SqlState::DATA_CORRUPTED,
                format!("{} has {} rows for this sink instead of one", s.names.progress, rows.len()),
            )
            .into());
        }
        let progress = Progress {
            generation: rows.number(0, "GENERATION")?,
            fence: rows.number(0, "FENCE")?,
            epoch: rows.number(0, "EPOCH")?,
        };
        self.prepare_target(progress)?;
        self.run(&s.create_changes(), Repeat::Harmless)?;
        if self.external.is_none() {
            self.run(&s.create_stage(), Repeat::Harmless)?;
        }
        // Whatever is staged belongs to attempts that are over.
        self.remove_staged(&format!("{}/", self.sink.uuid));
        Ok(progress)
    }

    /// Makes the target, or checks the one that is there.
    fn prepare_target(&mut self, progress: Progress) -> Step<()> {
        let s = self.statements.clone();
        let described = match self.run(&s.describe_target(), Repeat::Harmless) {
            Ok(rows) => rows,
            Err(failure) if failure.error.sqlstate == SqlState::UNDEFINED_TABLE => {
                if progress.generation > 0 {
                    return Err(target_gone(&s.names.target).into());
                }
                self.run(&s.create_target(), Repeat::Harmless)?;
                return Ok(());
            }
            Err(failure) => return Err(failure),
        };
        types::check_target(&s.names.target, &self.columns, s.own_columns(), &described)?;
        if progress.generation == 0 && !self.replace {
            let rows = self.run(&s.count_target(), Repeat::Harmless)?;
            if rows.number(0, "N")? > 0 {
                return Err(refuse_rows(&s.names.target).into());
            }
        }
        Ok(())
    }

    /// A writer that died may have left a transaction that holds the progress row. Best effort.
    fn end_stuck_transactions(&mut self) {
        let progress = self.statements.names.progress.replace('"', "");
        let Ok(locks) = self.run("SHOW LOCKS", Repeat::Harmless) else { return };
        for i in 0..locks.len() {
            let holds = locks.get(i, "status").is_some_and(|s| s.eq_ignore_ascii_case("HOLDING"));
            let here = locks.get(i, "resource").is_some_and(|r| r.replace('"', "").ends_with(&progress));
            let number = locks.get(i, "transaction").filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
            if let (true, true, Some(transaction)) = (holds, here, number) {
                tracing::warn!(transaction, "ending a transaction that was left open on the sink's progress");
                if let Err(failure) =
                    self.run(&format!("SELECT SYSTEM$ABORT_TRANSACTION({transaction})"), Repeat::Harmless)
                {
                    tracing::warn!(error = %failure.error, "it did not end");
                }
            }
        }
    }

    fn remove_staged(&mut self, directory: &str) {
        if let Some((bucket, runtime)) = &self.external {
            return bucket.remove(runtime, directory);
        }
        let remove = self.statements.remove(directory);
        if let Err(failure) = self.run(&remove, Repeat::Harmless) {
            tracing::debug!(error = %failure.error, "staged files stay");
        }
    }

    fn transact(&mut self, batch: &Batch) -> Step<Applied> {
        let s = self.statements.clone();
        let mut applied = Applied::default();
        self.run("BEGIN TRANSACTION", Repeat::Never)?;
        world::crash_point("sink.begin");
        let moved = self.run(&s.advance(batch.from, batch.to), Repeat::Never)?;
        if moved.number(0, "number of rows updated")? != 1 {
            let now = self.run(&s.read_progress(), Repeat::Never)?;
            let read = |column| now.number(0, column).unwrap_or_default();
            let now = Progress { generation: read("GENERATION"), fence: read("FENCE"), epoch: read("EPOCH") };
            return Err(Failure::fenced(now, batch.from));
        }
        world::crash_point("sink.fenced");
        let straight = s.copies_into_target();
        match batch.effect {
            Effect::Advance => {}
            Effect::Replace => {
                self.run(&s.clear_target(), Repeat::Never)?;
            }
            Effect::Mend => self.mend(batch)?,
        }
        if batch.effect != Effect::Mend && !batch.files.is_empty() {
            if !straight {
                self.run(&s.clear_changes(), Repeat::Never)?;
            }
            world::crash_point("sink.deleted");
            let loading = world::instant();
            let loaded = self.run(&s.copy(batch), Repeat::Never)?;
            check_loaded(&loaded, batch)?;
            applied.load = loading.elapsed();
            world::crash_point("sink.copied");
            if !straight {
                let merging = world::instant();
                self.apply_changes(batch)?;
                applied.merge = merging.elapsed();
            }
            world::crash_point("sink.merged");
        }
        let committing = world::instant();
        self.run("COMMIT", Repeat::Never)?;
        applied.commit = committing.elapsed();
        let untagged = self.sink.text(None);
        applied.queries = self.session()?.begin(&untagged);
        Ok(applied)
    }

    /// Replaces ranges of the target by the rows that a comparison has loaded beside it.
    fn mend(&mut self, batch: &Batch) -> Step<()> {
        let s = self.statements.clone();
        let loaded = self.run(&s.count_changes(), Repeat::Never)?.number(0, "N")?;
        self.run(&s.clear_ranges(&batch.ranges), Repeat::Never)?;
        let done = counts(&self.run(&s.insert(), Repeat::Never)?);
        if loaded != batch.rows() || done != batch.counts {
            let expected = batch.counts;
            return Err(Failure::parted(format!("Mending gave {done} instead of {expected}.")));
        }
        Ok(())
    }

    /// Fails when the progress row does not say what it must.
    fn check_progress(&mut self, expected: Progress) -> Step<()> {
        let rows = self.run(&self.statements.read_progress(), Repeat::Harmless)?;
        let read = |column| rows.number(0, column).unwrap_or_default();
        let now = Progress { generation: read("GENERATION"), fence: read("FENCE"), epoch: read("EPOCH") };
        if now == expected { Ok(()) } else { Err(Failure::fenced(now, expected)) }
    }

    fn compare_ranges(
        &mut self,
        batch: &mut Batch,
        staged: &RecordBatch,
        file_bytes: usize,
    ) -> Step<Differences> {
        let s = self.statements.clone();
        self.check_progress(batch.from)?;
        let mut apart = None;
        if has_texts(&s.columns) {
            let digits = range_digits(staged.num_rows());
            let (range_of, ours) = our_digests(&s, staged, digits)?;
            let theirs = read_digests(&self.run(&s.digests(digits), Repeat::Harmless)?)?;
            batch.ranges = named(differing(&ours, &theirs));
            if ours == theirs {
                self.check_progress(batch.from)?;
                return Ok(Differences::default());
            }
            if !batch.ranges.is_empty() {
                let rows = 0..staged.num_rows();
                let within = rows.filter(|&row| batch.ranges.binary_search(&range_of[row]).is_ok());
                apart = Some(select(staged, &within.collect::<Vec<_>>())?);
            }
        }
        let rows = apart.as_ref().unwrap_or(staged);
        batch.counts = Counts { inserts: rows.num_rows() as u64, ..Counts::default() };
        batch.files = self.stage(batch, rows, file_bytes)?;
        self.run(&s.clear_changes(), Repeat::Harmless)?;
        if !batch.files.is_empty() {
            // Not to be repeated: the second time it would load nothing.
            let loaded = self.run(&s.copy(batch), Repeat::Never)?;
            check_loaded(&loaded, batch)?;
        }
        let apart = self.run(&s.apart(&batch.ranges), Repeat::Harmless)?;
        self.check_progress(batch.from)?;
        s.differences(&apart)
    }

    fn put(&mut self, directory: &str, name: &str, bytes: &Bytes) -> Step<()> {
        if let Some((bucket, runtime)) = &self.external {
            return bucket.put(runtime, &format!("{directory}{name}"), bytes.clone());
        }
        let sql = self.statements.put(directory, name);
        let local = self.config.local_stage;
        stage::upload(self.session()?, &sql, name, bytes, local)
    }

    /// Takes the loaded changes into the target.
    fn apply_changes(&mut self, batch: &Batch) -> Step<()> {
        let s = self.statements.clone();
        let done = if batch.effect == Effect::Replace || self.shape.mode == Mode::Append {
            counts(&self.run(&s.insert(), Repeat::Never)?)
        } else {
            if self.shape.mode == Mode::Bag {
                self.run(&s.number_copies(), Repeat::Never)?;
            }
            counts(&self.run(&s.merge(), Repeat::Never)?)
        };
        if done != batch.counts {
            return Err(Failure::parted(format!("Applying gave {done} instead of {}.", batch.counts)));
        }
        Ok(())
    }
}

impl Warehouse for Snowflake {
    fn open(&mut self, stop: &StopFlag) -> Step<Progress> {
        self.session = None; // logs out, which ends what was open
        self.session = Some(Session::open(&self.config, &self.sink.text(None), stop)?);
        let prepared = self.prepare();
        if prepared.is_err() {
            self.session = None;
        }
        prepared
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        types::encode(&self.columns, rows)
    }

    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>> {
        let tag = self.sink.text(Some(batch.to.epoch));
        self.session()?.begin(&tag);
        write_files(rows, file_bytes, |name, bytes| self.put(&batch.directory, name, &bytes))
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        let applied = self.transact(batch);
        if applied.is_err() {
            // Ends the transaction at once if the session still can; logging out does otherwise.
            if let Err(failure) = self.run("ROLLBACK", Repeat::Never) {
                tracing::debug!(error = %failure.error, "no rollback");
            }
            self.session = None;
        }
        applied
    }

    fn compare(&mut self, batch: &mut Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Differences> {
        let compared = self.compare_ranges(batch, rows, file_bytes);
        if compared.is_err() {
            self.session = None;
        }
        compared
    }

    fn discard(&mut self, batch: &Batch) {
        self.remove_staged(&batch.directory);
    }

    fn idle(&mut self) {
        if self.used_at.elapsed() >= HEARTBEAT
            && let Ok(session) = self.session()
        {
            session.heartbeat();
        }
    }
}

/// Every file must have been loaded whole.
fn check_loaded(loaded: &Rows, batch: &Batch) -> Step<()> {
    let mut rows = 0;
    for i in 0..loaded.len() {
        let status = loaded.get(i, "status").unwrap_or_default();
        if status != "LOADED" {
            let problem = loaded.get(i, "first_error").unwrap_or_default();
            return Err(Failure::retry(Error::new(
                SqlState::DATA_EXCEPTION,
                format!("Snowflake did not load a staged file: {status} {problem}"),
            )));
        }
        rows += loaded.number(i, "rows_loaded")?;
    }
    if loaded.len() != batch.files.len() || rows != batch.rows() {
        return Err(Failure::retry(Error::new(
            SqlState::DATA_EXCEPTION,
            format!(
                "Snowflake loaded {rows} rows of {} files instead of {} of {}",
                loaded.len(),
                batch.rows(),
                batch.files.len()
            ),
        )));
    }
    Ok(())
}

/// What a statement says that it did. Kinds that it could not do are not in its answer.
fn counts(rows: &Rows) -> Counts {
    let of = |kind: &str| rows.number(0, &format!("number of rows {kind}")).unwrap_or(0);
    Counts { inserts: of("inserted"), updates: of("updated"), deletes: of("deleted") }
}

/// Removes what a sink made besides its target.
pub fn remove(config: &Config, names: &Names, own_stage: bool) -> Step<()> {
    let mut session = Session::open(config, "tidemill", &StopFlag::default())?;
    for table in [&names.changes, &names.progress] {
        session.query(&format!("DROP TABLE IF EXISTS {table}"), Repeat::Harmless)?;
    }
    if !own_stage {
        return Ok(());
    }
    if let Err(failure) = session.query(&format!("DROP STAGE IF EXISTS {}", names.stage), Repeat::Harmless) {
        // An empty stage costs nothing, and nobody else uses its name.
        tracing::warn!(stage = %names.stage, error = %failure.error, "the sink's stage stays");
    }
    Ok(())
}
