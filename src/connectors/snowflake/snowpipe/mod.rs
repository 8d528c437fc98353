//! Snowpipe: files of rows that a pipe loads, for a relation that only grows, without a warehouse that runs.
//!
//! A pipe loads a file of the same name once in 14 days. So a file's name says which rows are in it: the ticks that its
//! batch leads from and to, and which part of it. A batch that was interrupted is made again exactly as it was, its files
//! are put and named to the pipe again, and those that had been loaded are not loaded twice. A batch is over when the
//! pipe has reported all of its files; rows or files that it has refused become rows of `tidemill.errors`.
//!
//! Which ticks are over is in the sink's own memory: pipes know of files only.

pub mod pipe;

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::connectors::snowflake::appending::{Place, Target, recall, remember};
use crate::connectors::snowflake::apply::{HEARTBEAT, SinkTag};
use crate::connectors::snowflake::client::{Repeat, Session};
use crate::connectors::snowflake::lines::{self, Part};
use crate::connectors::snowflake::statements::{put_statement, quoted};
use crate::connectors::snowflake::types::{self, Column};
use crate::connectors::snowflake::{external_stage, stage};
use crate::connectors::warehouse::bucket::Bucket;
use crate::connectors::warehouse::{
    Applied, Batch, Effect, Failure, Form, Progress, Rhythm, Settings, Shape, StagedFile, Step, Warehouse,
    sync,
};
use crate::connectors::{BadRecord, Memory, Options, Refused, Sink, SinkContext, SinkDefinition, StopFlag};
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use crate::world;
use pipe::{Pipe, Report};

/// Between two batches, unless `commit_interval` says otherwise: Snowpipe is billed by files, too.
const COMMIT_INTERVAL: Duration = Duration::from_secs(60);
/// The first and the longest pause between two questions what became of files.
const POLL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// Between two looks into the history of loads, which may not be had often: where reports say the same, and where not.
const SCAN: (Duration, Duration) = (Duration::from_secs(300), Duration::from_secs(15));
/// A file is named to the pipe again when it was not loaded for so long.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3_600);
/// How long a pipe knows which files it has loaded, less a day, in µs.
const REMEMBERED_MICROS: i64 = 13 * 86_400_000_000;
/// The history is looked at from so long before a batch began, for clocks that differ, in µs.
const SKEW_MICROS: i64 = 300_000_000;
/// What the sink remembers: [`Memory`] name; [`Known`] as JSON.
const MEMORY_KNOWN: &str = "snowpipe";

/// What is known to be in the target.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    /// How often the target was filled: 0 or 1.
    generation: u64,
    /// The tick that the target is at.
    epoch: Tick,
    /// The batch whose files may be on the way.
    under_way: Option<Begun>,
}

/// A batch whose files were put.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    /// The tick that it leads to.
    to: Tick,
    /// When it was begun for the first time, µs since 1970.
    at_micros: i64,
}

/// A sink by Snowpipe that a definition asks for.
pub struct SnowpipeSink {
    target: Target,
    uuid: uuid::Uuid,
    /// A place that an external stage points to; `None`: the stage is the sink's own.
    bucket: Option<Bucket>,
    pipe: Place,
    /// Whether the pipe is the sink's own.
    own_pipe: bool,
    /// Whether the cloud tells the pipe of files.
    auto_ingest: bool,
    settings: Settings,
}

impl SnowpipeSink {
    /// Takes the rest of the options of a sink into `table`. Nothing is sent yet.
    ///
    /// # Errors
    /// 22023 for what is wrong with them.
    pub fn new(mut options: Options, def: &SinkDefinition, table: &str) -> Result<Self> {
        let settings = Settings::take(&mut options, COMMIT_INTERVAL)?;
        let mut target = Target::new(&mut options, def, table)?;
        let external = external_stage(&mut options)?;
        let pipe = options.take("pipe");
        let auto_ingest = options.parse::<bool>("auto_ingest", "true or false")?.unwrap_or(false);
        options.finish()?;
        let wrong =
            |text: &str, hint: &str| Error::new(SqlState::INVALID_PARAMETER_VALUE, text).with_hint(hint);
        if external.is_none() && pipe.is_some() {
            let text = "a pipe of one's own loads from a stage of one's own";
            return Err(wrong(text, "Name it: stage, and stage.url for the place that it points to."));
        }
        if auto_ingest && pipe.is_none() {
            let text = "auto_ingest needs a pipe that the cloud tells of files";
            return Err(wrong(text, "Create one with AUTO_INGEST = TRUE, and name it in the option pipe."));
        }
        let own_pipe = pipe.is_none();
        let pipe = match pipe {
            Some(pipe) => Place::new(&pipe, &target.config)?,
            None => {
                let name = format!("{}__TIDEMILL_{:X}_PIPE", target.place.table, def.uuid.simple());
                Place { table: name, ..target.place.clone() }
            }
        };
        let bucket = external.map(|(stage, bucket)| {
            target.names.stage = stage;
            bucket
        });
        Ok(SnowpipeSink { target, uuid: def.uuid, bucket, pipe, own_pipe, auto_ingest, settings })
    }
}

/// A pipe as it stands in SQL.
fn in_sql(pipe: &Place) -> String {
    [&pipe.database, &pipe.schema, &pipe.table].map(|part| quoted(part)).join(".")
}

impl Sink for SnowpipeSink {
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()> {
        let shape = Shape::new(cx.schema.clone(), &cx.key, cx.append_only);
        let settings = self.settings.clone();
        let mut snowpipe = Snowpipe {
            columns: types::columns(&shape.schema)?,
            tag: SinkTag { name: cx.name.clone(), uuid: cx.uuid },
            sink: *self,
            memory: Arc::clone(&cx.memory),
            refused: Arc::clone(&cx.refused),
            stop: cx.stop.clone(),
            runtime: tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?,
            session: None,
            used_at: world::instant(),
            at: Progress::default(),
            begun: (0, false),
            files: Vec::new(),
        };
        sync::run(&mut snowpipe, shape, &settings, cx)
    }

    fn target(&self) -> Option<String> {
        Some(self.target.key())
    }

    fn clean_up(self: Box<Self>) -> Result<()> {
        let mut session =
            Session::open(&self.target.config, "tidemill", &StopFlag::default()).map_err(|f| f.error)?;
        let mut drop = |what: String| session.query(&what, Repeat::Harmless).map_err(|f| f.error);
        if self.own_pipe {
            drop(format!("DROP PIPE IF EXISTS {}", in_sql(&self.pipe)))?;
        }
        match &self.bucket {
            None => drop(format!("DROP STAGE IF EXISTS {}", self.target.names.stage)).map(|_| ()),
            Some(bucket) => {
                let runtime =
                    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
                bucket.remove(&runtime, &self.uuid.to_string());
                Ok(())
            }
        }
    }

    fn rhythm(&self) -> Option<Rhythm> {
        Some(Rhythm { settings: self.settings.clone(), form: Form::Rows(None) })
    }
}

/// A file of the batch in hand.
struct File {
    /// Its path in the stage: a name that no other rows ever have.
    path: String,
    part: Part,
    /// What has become of it, once that is final.
    report: Option<Report>,
    /// Whether it was reported as half loaded: later counts may be of the rest only.
    in_pieces: bool,
}

/// A pipe at work.
struct Snowpipe {
    sink: SnowpipeSink,
    columns: Vec<Column>,
    tag: SinkTag,
    memory: Arc<dyn Memory>,
    refused: Refused,
    stop: StopFlag,
    /// For the bucket's requests.
    runtime: tokio::runtime::Runtime,
    session: Option<Session>,
    used_at: std::time::Instant,
    at: Progress,
    /// Since when files of the batch in hand may be on the way, µs since 1970, and whether they were before.
    begun: (i64, bool),
    files: Vec<File>,
}

impl Snowpipe {
    /// Makes what is the sink's own: stage and pipe.
    fn make_own(&mut self) -> Step<()> {
        let mut session = Session::open(&self.sink.target.config, &self.tag.text(None), &self.stop)?;
        let (target, stage) = (&self.sink.target.names.target, &self.sink.target.names.stage);
        if self.sink.bucket.is_none() {
            // Encrypted by the server, so that what we put is what is loaded.
            let create = format!("CREATE STAGE IF NOT EXISTS {stage} ENCRYPTION = (TYPE = 'SNOWFLAKE_SSE')");
            session.query(&create, Repeat::Harmless)?;
        }
        if self.sink.own_pipe {
            // A row that does not fit is told, and keeps no other from being loaded.
            let create = format!(
                "CREATE PIPE IF NOT EXISTS {} AS COPY INTO {target} FROM @{stage} \
                 FILE_FORMAT = (TYPE = JSON COMPRESSION = ZSTD BINARY_FORMAT = BASE64 NULL_IF = ()) \
                 MATCH_BY_COLUMN_NAME = CASE_INSENSITIVE ON_ERROR = CONTINUE",
                in_sql(&self.sink.pipe)
            );
            session.query(&create, Repeat::Harmless)?;
        }
        self.session = Some(session);
        self.used_at = world::instant();
        Ok(())
    }

    /// Notes that files of a batch may be on the way from now on. Answers since when they may be, and whether they may
    /// have been on the way already.
    fn begin(&self, batch: &Batch) -> Step<(i64, bool)> {
        let mut known: Known = recall(&*self.memory, MEMORY_KNOWN)?;
        let now = world::now_micros();
        match &known.under_way {
            Some(begun) if begun.to == batch.to.epoch && now - begun.at_micros > REMEMBERED_MICROS => {
                let text = "whether the last files were loaded is not known any more";
                let detail =
                    "They were begun more than 13 days ago, and pipes know what they have loaded for 14.";
                let error = Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, text).with_detail(detail);
                Err(error.with_hint("Drop the sink, empty the table, and create the sink again.").into())
            }
            Some(begun) if begun.to == batch.to.epoch => Ok((begun.at_micros, true)),
            _ => {
                known.under_way = Some(Begun { to: batch.to.epoch, at_micros: now });
                remember(&*self.memory, MEMORY_KNOWN, &known)?;
                Ok((now, false))
            }
        }
    }

    fn put(&mut self, path: &str, body: &bytes::Bytes) -> Step<()> {
        if let Some(bucket) = &self.sink.bucket {
            return bucket.put(&self.runtime, path, body.clone());
        }
        let (directory, name) = path.rsplit_once('/').unwrap_or(("", path));
        let sql = put_statement(&self.sink.target.names.stage, &format!("{directory}/"), name);
        let local = self.sink.target.config.local_stage;
        self.used_at = world::instant();
        let lost = || Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, "no session"));
        stage::upload(self.session.as_mut().ok_or_else(lost)?, &sql, name, body, local)
    }

    fn note(&mut self, reports: Vec<Report>) {
        for report in reports {
            let Some(file) = self.files.iter_mut().find(|file| report.is_of(&file.path)) else { continue };
            if report.is_final() {
                file.report = Some(report);
            } else {
                file.in_pieces = true;
            }
        }
    }

    /// Waits until something final has become of every file.
    fn follow(&mut self, pipe: &mut Pipe) -> Step<()> {
        let began = world::instant();
        let mut pause = POLL.0;
        let (since, again) = self.begun;
        // What was loaded already is not reported again: then the history is looked at before the first wait.
        let mut scanned = (!again && !self.sink.auto_ingest).then_some(began);
        loop {
            let mut complete = true;
            if !self.sink.auto_ingest {
                let (reports, whole) = pipe.report()?;
                complete = whole;
                self.note(reports);
            }
            let waits = |file: &File| file.report.is_none();
            let due = scanned.is_none_or(|at: std::time::Instant| {
                at.elapsed() >= if complete && !self.sink.auto_ingest { SCAN.0 } else { SCAN.1 }
            });
            if due && self.files.iter().any(waits) {
                self.note(pipe.history(since - SKEW_MICROS)?);
                scanned = Some(world::instant());
            }
            if !self.files.iter().any(waits) {
                return Ok(());
            }
            if began.elapsed() > LOAD_TIMEOUT {
                let text = format!("Snowpipe has not loaded files within {} s", LOAD_TIMEOUT.as_secs());
                return Err(Failure::retry(Error::new(SqlState::CONNECTION_FAILURE, text)));
            }
            if !pipe.wait(pause) {
                return Err(Failure::retry(Error::new(SqlState::QUERY_CANCELED, "the sink is stopping")));
            }
            pause = (pause * 2).min(POLL.1);
        }
    }

    /// What was refused of a batch.
    fn refusals(&self, batch: &Batch) -> Vec<BadRecord> {
        let refused = |file: &&File| !file.is_loaded();
        let record = |file: &File| {
            let report = file.report.clone().unwrap_or_default();
            let reason = report.reason().unwrap_or_else(|| "no reason was given".to_string());
            let (loaded, rows, status) = (report.rows_inserted, file.part.rows, &report.status);
            BadRecord {
                sqlstate: SqlState::DATA_EXCEPTION.0,
                reason: format!("Snowpipe has loaded {loaded} of {rows} rows of a file ({status}): {reason}"),
                raw: None,
                position: format!(
                    "tick {} to {}, file @{}/{}, which stays",
                    batch.from.epoch, batch.to.epoch, self.sink.target.names.stage, file.path
                ),
                kept: None,
            }
        };
        self.files.iter().filter(refused).map(record).collect()
    }
}

impl File {
    /// Whether all of its rows are in the target.
    fn is_loaded(&self) -> bool {
        self.report.as_ref().is_some_and(|report| {
            let whole = self.in_pieces || report.rows_inserted == self.part.rows;
            report.status == "LOADED" && report.errors_seen == 0 && whole
        })
    }
}

impl Warehouse for Snowpipe {
    fn open(&mut self, stop: &StopFlag) -> Step<Progress> {
        self.session = None;
        let known: Known = recall(&*self.memory, MEMORY_KNOWN)?;
        self.sink.target.prepare(&self.columns, &self.tag, known.generation > 0, stop)?;
        if known.generation == 0 && known.under_way.is_none() {
            self.sink.target.check_empty()?;
        }
        self.make_own()?;
        self.at = Progress { generation: known.generation, fence: self.at.fence + 1, epoch: known.epoch };
        Ok(self.at)
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        types::encode(&self.columns, rows)
    }

    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>> {
        if batch.effect != Effect::Advance && batch.from.generation > 0 {
            return Err(self.sink.target.cannot_replace().into());
        }
        let from = if batch.effect == Effect::Advance { batch.from.epoch } else { 0 };
        let parts = lines::parts(&self.columns, rows, file_bytes)?;
        let (count, to, generation) = (parts.len(), batch.to.epoch, batch.to.generation);
        let file = |(i, part): (usize, Part)| {
            let path = format!("{}/g{generation}-{from}-{to}-{}-of-{count}.json.zst", self.sink.uuid, i + 1);
            File { path, part, report: None, in_pieces: false }
        };
        self.files = parts.into_iter().enumerate().map(file).collect();
        if self.files.is_empty() {
            return Ok(Vec::new());
        }
        self.begun = self.begin(batch)?;
        for i in 0..self.files.len() {
            let (path, body) = (self.files[i].path.clone(), self.files[i].part.body.clone());
            self.put(&path, &body)?;
            world::crash_point("snowpipe.put");
        }
        let staged = |file: &File| StagedFile {
            name: file.path.clone(),
            rows: file.part.rows,
            bytes: file.part.body.len() as u64,
        };
        Ok(self.files.iter().map(staged).collect())
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        world::crash_point("sink.begin");
        if self.at != batch.from {
            return Err(Failure::fenced(self.at, batch.from));
        }
        let mut applied = Applied::default();
        if !self.files.is_empty() {
            let mut pipe =
                Pipe::new(&self.sink.target.config, &self.sink.pipe, self.sink.own_pipe, &self.stop)?;
            let loading = world::instant();
            if !self.sink.auto_ingest {
                let named = |file: &File| (file.path.clone(), file.part.body.len() as u64);
                pipe.insert(&self.files.iter().map(named).collect::<Vec<_>>())?;
            }
            world::crash_point("snowpipe.inserted");
            self.follow(&mut pipe)?;
            applied.load = loading.elapsed();
            world::crash_point("snowpipe.loaded");
            let refused = self.refusals(batch);
            if !refused.is_empty() {
                tracing::warn!(sink = %self.tag.name, files = refused.len(), "files were not loaded whole");
                (self.refused)(&refused)?;
            }
            world::crash_point("snowpipe.told");
        }
        let to = batch.to;
        let known = Known { generation: to.generation, epoch: to.epoch, under_way: None };
        remember(&*self.memory, MEMORY_KNOWN, &known)?;
        self.at = to;
        Ok(applied)
    }

    /// Removes the files that were loaded; those that were not keep the rows that are missing.
    fn discard(&mut self, _batch: &Batch) {
        for file in std::mem::take(&mut self.files).into_iter().filter(File::is_loaded) {
            if let Some(bucket) = &self.sink.bucket {
                bucket.delete(&self.runtime, &file.path);
            } else if let Some(session) = &mut self.session {
                let remove = format!("REMOVE @{}/{}", self.sink.target.names.stage, file.path);
                if let Err(failure) = session.query(&remove, Repeat::Harmless) {
                    tracing::debug!(error = %failure.error, "a loaded file stays in the stage");
                }
            }
        }
    }

    fn remembers_ranges(&self) -> bool {
        false
    }

    fn idle(&mut self) {
        if self.used_at.elapsed() >= HEARTBEAT
            && let Some(session) = &mut self.session
        {
            session.heartbeat();
            self.used_at = world::instant();
        }
    }
}
