//! The edges: systems that rows come from and go to.
//!
//! A connector runs on a thread of its own. It is given a context that is its whole world: where to resume,
//! where to put or take rows, how to say how it is doing, when to stop. It returns only when told to stop or
//! when it cannot go on; the database starts it again after a pause, from the last durable position.

pub mod bodies;
pub mod commits;
pub mod envelope;
pub mod files;
pub mod format;
pub mod gathered;
pub mod generate;
pub mod http;
pub mod kafka;
pub mod lines;
pub mod mqtt;
pub mod mysql;
pub mod postgres;
pub mod redshift;
pub mod registry;
pub mod replicated;
pub mod schema_registry;
pub mod shapes;
pub mod snowflake;
pub mod verify;
pub mod warehouse;
pub mod webhook;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::{FieldRef, SchemaRef};
use parking_lot::Mutex;

pub use commits::{CommitLog, CommitStore, Phases, SinkCommit};

pub use envelope::kept::Kept;

pub use crate::declared::{Envelope, FormatSpec, Include, OnSchemaChange, OptionList, OptionValue};
pub use verify::{Checks, Differences, Verified, Whole, Wish};

use crate::engine::{CollectionId, InputChange, Tick};
use crate::error::{Error, Result};

/// Tells a connector to finish: polled between pieces of work, at least twice a second.
#[derive(Clone, Debug, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// Asks the connector to return from `run`.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }

    /// Whether it was asked to.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// A record that could not become a row: what `tidemill.errors` shows.
#[derive(Clone, Debug)]
pub struct BadRecord {
    /// SQLSTATE of the failure.
    pub sqlstate: &'static str,
    /// Why it could not be decoded.
    pub reason: String,
    /// The record's bytes as they came (value; for a key failure the key).
    pub raw: Option<Vec<u8>>,
    /// Where it came from, by the source's own terms: `topic=orders partition=3 offset=77`.
    pub position: String,
    /// What it had besides its bytes; `None`: it cannot be decoded again by itself.
    pub kept: Option<Kept>,
}

/// A file that was read to its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FinishedFile {
    /// Its url.
    pub path: String,
    /// What tells its contents from others.
    pub version: String,
    /// Its length in bytes.
    pub size: u64,
    /// Rows made of it.
    pub rows: u64,
    /// Records in it that became rows of `tidemill.errors`.
    pub bad_records: u64,
}

/// What a source hands over at once; it becomes visible in one tick, with the position after it.
#[derive(Clone, Debug, Default)]
pub struct SourceBatch {
    /// Changes of the source's outputs, in order.
    pub changes: Vec<(CollectionId, InputChange)>,
    /// Records that were not understood.
    pub bad: Vec<BadRecord>,
    /// The position to resume after this batch, by the source's own encoding; `None`: unchanged.
    pub position: Option<Vec<u8>>,
    /// Files that end with this batch.
    pub finished: Vec<FinishedFile>,
}

/// Where a source puts its batches. Waits while the engine is behind.
pub trait Feed: Send + Sync {
    /// Hands a batch over; answers with the tick it became visible in.
    fn submit(&self, batch: SourceBatch) -> Result<Tick>;
    /// Waits until a tick survives a crash.
    fn wait_durable(&self, tick: Tick) -> Result<()>;
    /// Hands a batch over without waiting for its tick (back-pressure still applies): for throughput.
    fn submit_nowait(&self, batch: SourceBatch) -> Result<()>;
    /// The last position that survives a crash with all rows before it: what may be confirmed upstream.
    fn durable_position(&self) -> Option<Vec<u8>>;
    /// What becomes of the tables when their columns change upstream.
    fn on_schema_change(&self) -> OnSchemaChange {
        OnSchemaChange::Ignore
    }
    /// Gives a table more columns, behind those it has and NULL in all its rows, from the next batch on: durable, and
    /// seen by everybody, when this returns. Columns that it has already are left out. Answers with all of its columns.
    ///
    /// # Errors
    /// 2BP01 when something stands in the way that the user can take away; 57014 when the source is told to stop meanwhile.
    fn add_columns(&self, to: CollectionId, _columns: &[FieldRef]) -> Result<SchemaRef> {
        Err(Error::internal(format!("collection {} gets no columns here", to.0)))
    }
    /// Url and version of every file that some batch has ended with.
    fn finished_files(&self) -> Result<Vec<(String, String)>> {
        Ok(Vec::new())
    }
}

/// Counters a connector keeps true; shown in `tidemill.sources`, `tidemill.sinks` and `tidemill.sink_commits`.
#[derive(Debug, Default)]
pub struct Status {
    values: Mutex<StatusValues>,
    commits: CommitLog,
}

/// The values of a [`Status`] at one moment.
#[derive(Clone, Debug, Default)]
pub struct StatusValues {
    /// `starting`, `snapshot`, `running`, `stalled`, `failed`, `paused`, `finished`.
    pub state: &'static str,
    /// What went wrong last, until it works again.
    pub error: Option<String>,
    /// Rows handed over, or committed at the destination.
    pub rows: u64,
    /// Bytes read or written.
    pub bytes: u64,
    /// Records that became rows of `tidemill.errors`.
    pub bad_records: u64,
    /// How many records the upstream has that were not read yet, if it says.
    pub lag: Option<u64>,
    /// The time of the newest event handed over (source) or committed (sink), µs since 1970.
    pub event_time_micros: Option<i64>,
    /// Sink: the last tick that is committed at the destination.
    pub tick_committed: Option<Tick>,
    /// While its tables are copied: rows that were read, and about how many there are.
    pub copied: (u64, u64),
    /// In what its tables differ from those upstream, by table, if it looks.
    pub differences: Vec<(CollectionId, String)>,
    /// Sink: number of commits since the start.
    pub commits: u64,
    /// Sink: from a tick's time to its commit, of the last commit, in µs.
    pub freshness_micros: Option<i64>,
}

impl Status {
    /// Changes some values.
    pub fn update(&self, f: impl FnOnce(&mut StatusValues)) {
        f(&mut self.values.lock());
    }

    /// A sink's destination has committed.
    pub fn committed(&self, commit: SinkCommit) {
        self.update(|s| {
            s.state = "running";
            s.error = None;
            s.rows += commit.rows;
            s.bytes += commit.bytes;
            s.commits += 1;
            s.freshness_micros = Some(commit.freshness_micros);
        });
        self.commits.push(commit);
    }

    /// Takes up a sink's commits where they are written down, and writes further ones there.
    ///
    /// # Errors
    /// The store's.
    pub fn keep_commits_in(&self, store: Arc<dyn CommitStore>) -> Result<()> {
        self.commits.keep_in(store)
    }

    /// A sink's newest commits, oldest first.
    pub fn commits(&self) -> Vec<Arc<SinkCommit>> {
        self.commits.newest()
    }

    /// Reads all values.
    pub fn get(&self) -> StatusValues {
        self.values.lock().clone()
    }
}

/// One collection that a source fills.
#[derive(Clone, Debug)]
pub struct SourceOutput {
    /// Where its rows go.
    pub collection: CollectionId,
    /// The upstream's name of it (`public.users`), or the source's own name.
    pub upstream: String,
    /// Columns of the collection; rows are handed over in this schema.
    pub schema: SchemaRef,
    /// Positions of the key's columns; empty: none.
    pub key: Vec<usize>,
}

/// A source's whole world.
pub struct SourceContext {
    /// The source's name, for logs.
    pub name: String,
    /// What it fills. Changes only by a restart of the source.
    pub outputs: Vec<SourceOutput>,
    /// The position of the last batch that was applied; `None`: start as the options say.
    pub resume: Option<Vec<u8>>,
    /// Where its batches go.
    pub feed: Arc<dyn Feed>,
    /// How it is doing.
    pub status: Arc<Status>,
    /// When to stop.
    pub stop: StopFlag,
}

/// A system that rows come from.
pub trait Source: Send {
    /// Reads until told to stop (`Ok`), until there is no more by definition (`Ok`), or until it cannot go on (`Err`: tried again later).
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()>;
}

/// One followed collection, consolidated, as a sink sees it.
pub trait Changes: Send {
    /// The tick that the first change follows: all of [`Changes::snapshot`] is included at it.
    fn start_tick(&self) -> Tick;
    /// The rows at the start tick; `None` when the sink goes on from a tick it had committed.
    fn snapshot(&mut self) -> Result<Option<Vec<RecordBatch>>>;
    /// The next change whose tick is durable; `None` when nothing came within `timeout`.
    fn next(&mut self, timeout: std::time::Duration) -> Result<Option<crate::engine::TickDelta>>;
}

/// A sink's own durable memory: small values by name, flushed before `put` returns.
pub trait Memory: Send + Sync {
    /// The value stored under `name`.
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>>;
    /// Stores `value` under `name`, durably.
    fn put(&self, name: &str, value: &[u8]) -> Result<()>;
}

/// The tick a sink has certainly committed: [`Memory`] name, value 8 bytes big-endian; empty: none, the next start
/// needs a snapshot. Kept by the sink, read at start-up.
pub const MEMORY_COMMITTED: &str = "committed";
/// The tick a sink is about to commit; written before the destination is asked. Same encoding.
/// After a crash the destination's own record decides which of the two it is; history is kept for both.
pub const MEMORY_INTENT: &str = "intent";

/// Makes rows that a destination has refused rows of `tidemill.errors`; they survive a crash when it returns.
pub type Refused = Arc<dyn Fn(&[BadRecord]) -> Result<()> + Send + Sync>;

/// A sink's whole world.
pub struct SinkContext {
    /// The sink's name, for logs.
    pub name: String,
    /// Never changes, never reused: what names this sink at the destination.
    pub uuid: uuid::Uuid,
    /// Columns of the followed collection.
    pub schema: SchemaRef,
    /// Positions of the declared key's columns; empty: none.
    pub key: Vec<usize>,
    /// The collection is proven never to retract.
    pub append_only: bool,
    /// What it follows.
    pub changes: Box<dyn Changes>,
    /// Its durable memory.
    pub memory: Arc<dyn Memory>,
    /// Tells the engine that nothing up to this tick is needed any more by this sink.
    pub release: Arc<dyn Fn(Tick) + Send + Sync>,
    /// How it is doing.
    pub status: Arc<Status>,
    /// Who wants the target compared.
    pub checks: Arc<Checks>,
    /// Where rows go that the destination has refused.
    pub refused: Refused,
    /// When to stop.
    pub stop: StopFlag,
}

/// A system that rows go to.
pub trait Sink: Send {
    /// Keeps the destination in step until told to stop (`Ok`) or until it cannot go on (`Err`: tried again later).
    fn run(self: Box<Self>, cx: SinkContext) -> Result<()>;
    /// What at the destination belongs to this sink alone, spelled the same however a statement names it;
    /// `None`: others may write there too.
    fn target(&self) -> Option<String> {
        None
    }
    /// In what rhythm and form it commits, where that can be told before it runs.
    fn rhythm(&self) -> Option<warehouse::Rhythm> {
        None
    }
    /// Whether it compares its target when asked to.
    fn verifies(&self) -> bool {
        false
    }
    /// Removes what the sink made at the destination besides its target, when it is dropped for good.
    fn clean_up(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// Everything that `CREATE SOURCE` said and a connector needs, secrets resolved.
#[derive(Clone, Debug)]
pub struct SourceDefinition {
    /// The source's name (consumer group, slot and the like are named after it).
    pub name: String,
    /// `kafka`, `postgres`, `http`, …: a name of [`registry`].
    pub kind: String,
    /// Options of its CONNECTION; empty when it has none.
    pub connection: Vec<(String, String)>,
    /// Options of the source.
    pub options: Vec<(String, String)>,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// ENVELOPE.
    pub envelope: Envelope,
    /// INCLUDE columns, in order; they stand after the declared columns in the output's schema.
    pub includes: Vec<Include>,
    /// The declared primary key's positions; empty: none declared.
    pub key: Vec<usize>,
}

/// A relation that a source offers, before anything is created from it.
#[derive(Clone, Debug)]
pub struct Discovered {
    /// The upstream's name: `public.users`, `bid`.
    pub upstream: String,
    /// Its columns.
    pub schema: SchemaRef,
    /// Positions of its key's columns; empty: none.
    pub key: Vec<usize>,
}

/// Everything that `CREATE SINK` said and a connector needs, secrets resolved.
#[derive(Clone, Debug)]
pub struct SinkDefinition {
    /// The sink's name.
    pub name: String,
    /// Never changes, never reused: what names this sink at the destination.
    pub uuid: uuid::Uuid,
    /// `snowflake`, `kafka`, `files`.
    pub kind: String,
    /// Options of its CONNECTION; empty when it has none.
    pub connection: Vec<(String, String)>,
    /// Options of the sink, those of WITH included.
    pub options: Vec<(String, String)>,
    /// FORMAT.
    pub format: Option<FormatSpec>,
    /// ENVELOPE.
    pub envelope: Envelope,
    /// What it follows is proven never to retract.
    pub append_only: bool,
}

/// Options with secrets resolved, taken one by one; what is left over at the end is an error that lists the known names.
#[derive(Debug)]
pub struct Options {
    values: Vec<(String, String)>,
    known: Vec<&'static str>,
    of: String,
}

impl Options {
    /// `of` names the object in errors: `KAFKA source`.
    pub fn new(of: impl Into<String>, values: Vec<(String, String)>) -> Self {
        Options { values, known: Vec::new(), of: of.into() }
    }

    /// Takes an option that may be left out.
    pub fn take(&mut self, name: &'static str) -> Option<String> {
        self.known.push(name);
        let i = self.values.iter().position(|(n, _)| n == name)?;
        Some(self.values.remove(i).1)
    }

    /// Takes an option that must be there.
    pub fn require(&mut self, name: &'static str) -> Result<String> {
        self.take(name).ok_or_else(|| {
            Error::new(
                crate::SqlState::INVALID_PARAMETER_VALUE,
                format!("{} needs the option \"{name}\"", self.of),
            )
        })
    }

    /// Takes an option and parses it; `what` says what is wanted: `a whole number`.
    pub fn parse<T: std::str::FromStr>(&mut self, name: &'static str, what: &str) -> Result<Option<T>> {
        let Some(text) = self.take(name) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            Error::new(
                crate::SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"{name}\" of {} must be {what}, not \"{text}\"", self.of),
            )
        })
    }

    /// Takes every option whose name starts with `prefix`, without the prefix.
    pub fn take_prefixed(&mut self, prefix: &str) -> Vec<(String, String)> {
        let (taken, left) = std::mem::take(&mut self.values)
            .into_iter()
            .partition(|(n, _): &(String, String)| n.starts_with(prefix));
        self.values = left;
        taken.into_iter().map(|(n, v): (String, String)| (n[prefix.len()..].to_string(), v)).collect()
    }

    /// Nothing may be left over.
    pub fn finish(self) -> Result<()> {
        let Some((name, _)) = self.values.first() else { return Ok(()) };
        let mut known = self.known;
        known.sort_unstable();
        known.dedup();
        Err(Error::new(
            crate::SqlState::INVALID_PARAMETER_VALUE,
            format!("unknown option \"{name}\" of {}", self.of),
        )
        .with_hint(format!("Known options: {}.", known.join(", "))))
    }
}
