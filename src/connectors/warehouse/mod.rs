//! What all warehouses have in common that are filled by staged files: one loop, one algorithm, any destination.
//!
//! A batch of changes `(lo, hi]` is consolidated to its net effect, written as Parquet files, put where the
//! warehouse can read them, and applied in one transaction of the warehouse that also moves the sink's progress
//! row from `lo` to `hi`. That row is the only truth about what has been applied, and every writer that opens
//! the sink raises its fence, so that neither a replay nor a writer that was thought dead can apply anything
//! twice. [`sync`] is the loop; a [`Warehouse`] is one destination: [`local`] keeps tables as Parquet files in a
//! directory, `connectors::snowflake` speaks to Snowflake, `connectors::redshift` to Redshift.

pub mod bucket;
pub mod compare;
pub mod consolidate;
pub mod encode;
pub mod hash;
pub mod local;
pub mod staging;
pub mod sync;

use std::sync::Arc;
use std::time::Duration;

use crate::connectors::{Differences, Options, StopFlag};
use crate::engine::Tick;
use crate::error::{Error, Result, SqlState};
use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

pub use super::commits::Counts;
pub use consolidate::{Net, Op};

/// How the rows of the target are told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// By the columns at these positions: at most one row per key.
    Keyed(Vec<usize>),
    /// Not at all: equal rows may stand in the target several times.
    Bag,
    /// Not at all, and no row ever goes away: batches are only added.
    Append,
}

/// What a sink keeps in step: the followed collection's columns and how its rows are told apart.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Columns of the followed collection.
    pub schema: SchemaRef,
    /// How rows are told apart.
    pub mode: Mode,
}

impl Shape {
    /// The shape of a collection: keyed where a key is declared, append-only where that is proven.
    pub fn new(schema: SchemaRef, key: &[usize], append_only: bool) -> Self {
        let mode = match (key.is_empty(), append_only) {
            (false, _) => Mode::Keyed(key.to_vec()),
            (true, true) => Mode::Append,
            (true, false) => Mode::Bag,
        };
        Shape { schema, mode }
    }

    /// Positions of the columns that tell rows apart: the key's, or all.
    pub fn identity(&self) -> Vec<usize> {
        match &self.mode {
            Mode::Keyed(key) => key.clone(),
            Mode::Bag | Mode::Append => (0..self.schema.fields().len()).collect(),
        }
    }

    /// Whether staged files carry an operation beside each row. Without it they are rows to add.
    pub fn has_ops(&self) -> bool {
        self.mode != Mode::Append
    }
}

/// What the destination says about itself: the sink's progress row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// How often the target was filled from a snapshot; 0: never.
    pub generation: u64,
    /// How often the sink was opened: a writer with a smaller one changes nothing any more.
    pub fence: u64,
    /// The tick the target is at. Means nothing while the generation is 0.
    pub epoch: Tick,
}

impl std::fmt::Display for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "tick {} of generation {} under fence {}", self.epoch, self.generation, self.fence)
    }
}

/// What a batch does to the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Takes the target from one tick to a later one.
    Advance,
    /// Replaces all rows of the target: begins a new generation.
    Replace,
    /// Replaces, at one tick, the rows of those ranges of the target that a comparison just before has found to
    /// differ, or all: begins a new generation.
    Mend,
}

/// A batch: to be staged, and once all its files are there, to be applied.
#[derive(Clone, Debug)]
pub struct Batch {
    /// What it does.
    pub effect: Effect,
    /// The progress row must say exactly this, or nothing is applied.
    pub from: Progress,
    /// The progress row after the batch.
    pub to: Progress,
    /// Where its files are: a path that no other attempt of any writer uses; ends in `/`.
    pub directory: String,
    /// The files under the directory; none before it is staged.
    pub files: Vec<StagedFile>,
    /// For [`Effect::Mend`]: which ranges, as the warehouse names them; none: everything.
    pub ranges: Vec<String>,
    /// What applying it must do, row by row; anything else means that target and sink have parted.
    pub counts: Counts,
}

impl Batch {
    /// Rows in all files together.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|f| f.rows).sum()
    }
}

/// One staged file.
#[derive(Clone, Debug)]
pub struct StagedFile {
    /// Name under the batch's directory.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// How long the parts of [`Warehouse::apply`] took, and what the destination calls its statements.
#[derive(Clone, Debug, Default)]
pub struct Applied {
    /// Reading what was staged.
    pub load: Duration,
    /// Applying it to the target.
    pub merge: Duration,
    /// Making it durable.
    pub commit: Duration,
    /// The destination's names of all statements since the batch began to be staged, if it has names for them.
    pub queries: Vec<String>,
}

/// Why a step at the destination did not happen, or is not known to have happened.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// What can help.
    pub remedy: Remedy,
}

/// What can help after a [`Failure`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Trying again, after asking the destination how far it is: a lost connection, a lock, an overloaded
    /// server, an answer that never came.
    Retry,
    /// Filling the target from a new snapshot: it does not hold what the sink had put there.
    Snapshot,
    /// Nothing that a program can do.
    Nothing,
}

impl Failure {
    /// Something that may pass.
    pub fn retry(error: Error) -> Self {
        Failure { error, remedy: Remedy::Retry }
    }

    /// Another writer has moved the progress row.
    pub fn fenced(now: Progress, expected: Progress) -> Self {
        Failure::retry(
            Error::new(SqlState::SERIALIZATION_FAILURE, "another writer has taken the sink over")
                .with_detail(format!("The destination is at {now}, this writer expected {expected}.")),
        )
    }

    /// The target does not hold what the sink had put there.
    pub fn parted(detail: impl Into<String>) -> Self {
        let error = Error::new(SqlState::DATA_CORRUPTED, "the target is not as the sink had left it")
            .with_detail(detail)
            .with_hint("Nothing was written; the target is filled again from a new snapshot.");
        Failure { error, remedy: Remedy::Snapshot }
    }
}

/// Whatever is not known to pass does not.
impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Failure { error, remedy: Remedy::Nothing }
    }
}

/// A `Result` of a step at the destination.
pub type Step<T> = std::result::Result<T, Failure>;

/// A destination: a warehouse with one target table.
pub trait Warehouse: Send {
    /// Makes what is missing (progress, stage, target), checks what is there, and raises the fence so that
    /// every writer before this one is shut out. Answers with the progress row. May be called again after any
    /// failure; whatever the last session left behind must not matter. Long waits end when `stop` is set.
    fn open(&mut self, stop: &StopFlag) -> Step<Progress>;

    /// The rows in the form in which they are staged: names and types that the destination reads.
    ///
    /// # Errors
    /// A value that the destination's type cannot hold.
    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch>;

    /// Puts a batch's rows where the warehouse can read them, in files of about `file_bytes`. Answers with the files.
    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>>;

    /// Applies a batch and moves the progress row, in one transaction. `Ok`: it has happened.
    /// An error to be retried: whether it has happened is known only to the next [`Warehouse::open`].
    fn apply(&mut self, batch: &Batch) -> Step<Applied>;

    /// Compares the target with all rows that it must hold at the batch's own tick, in the form in which they are
    /// staged. Stages what it needs for that; afterwards [`Warehouse::apply`] of the batch mends the target.
    fn compare(&mut self, _batch: &mut Batch, _rows: &RecordBatch, _file_bytes: usize) -> Step<Differences> {
        Err(Error::unsupported("VERIFY of this kind of sink").into())
    }

    /// Removes the staged files of a batch that was applied. Best effort: what stays is never read again.
    fn discard(&mut self, batch: &Batch);

    /// Whether the destination itself knows which tick it is at. Otherwise what it was sent and has not acknowledged is
    /// sent again as it was: the first batch of a start ends where the last intention ended.
    fn remembers_ranges(&self) -> bool {
        true
    }

    /// Called at least once a minute while there is nothing to do, to keep a session alive.
    fn idle(&mut self) {}
}

/// What the user decides about the rhythm of commits.
#[derive(Clone, Debug)]
pub struct Settings {
    /// At most one commit in this time, unless much has piled up.
    pub commit_interval: Duration,
    /// Changes of this size in memory are committed at once.
    pub batch_bytes: usize,
    /// A file grows to about this size before the next one is begun.
    pub file_bytes: usize,
    /// The first pause after a failure; each next one is twice as long, up to a minute.
    pub retry: Duration,
}

impl Settings {
    /// Takes the options `commit_interval`, `batch_size`, `file_size` (bytes) and `retry`; `interval` is the default rhythm.
    pub fn take(options: &mut Options, interval: Duration) -> Result<Settings> {
        Settings::take_with(options, interval, 128 << 20)
    }

    /// [`Settings::take`] with a default of `batch_size`, too.
    pub fn take_with(options: &mut Options, interval: Duration, batch_bytes: usize) -> Result<Settings> {
        let mut settings = Settings {
            commit_interval: interval,
            batch_bytes,
            file_bytes: 128 << 20,
            retry: Duration::from_secs(1),
        };
        if let Some(text) = options.take("commit_interval") {
            settings.commit_interval = duration("commit_interval", &text)?;
        }
        if let Some(text) = options.take("retry") {
            settings.retry = duration("retry", &text)?;
        }
        if let Some(bytes) = options.parse::<usize>("batch_size", "a number of bytes")? {
            settings.batch_bytes = bytes.max(1 << 10);
        }
        if let Some(bytes) = options.parse::<usize>("file_size", "a number of bytes")? {
            settings.file_bytes = bytes.clamp(1 << 10, 1 << 30);
        }
        Ok(settings)
    }
}

/// How often a sink commits at most, and in which form.
#[derive(Clone, Debug)]
pub struct Rhythm {
    /// What the user has decided.
    pub settings: Settings,
    /// What changes are sent as.
    pub form: Form,
}

/// What a sink's changes are sent as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Parquet files of [`Settings::file_bytes`].
    Parquet,
    /// Text, in pieces of so many rows at most.
    Rows(Option<usize>),
}

impl Form {
    /// Bytes of some rows in this form, about.
    ///
    /// # Errors
    /// A column that cannot be written.
    pub fn bytes_of(self, rows: &RecordBatch) -> Result<usize> {
        match self {
            Form::Parquet => staging::parquet_bytes(&staging::plain(rows)?).map(|bytes| bytes.len()),
            Form::Rows(_) => {
                let members = super::format::encode::member_names(rows.schema_ref());
                let writer = super::format::encode::RowWriter::new(rows, &members)?;
                let mut text = String::new();
                (0..rows.num_rows()).for_each(|row| writer.write_json(row, &mut text));
                Ok(text.len())
            }
        }
    }
}

/// Takes the option `existing_rows`: whether rows that stand in the target before the first commit may be replaced.
pub fn may_replace(options: &mut Options) -> Result<bool> {
    match options.take("existing_rows").as_deref() {
        None | Some("replace") => Ok(true),
        Some("refuse") => Ok(false),
        Some(other) => Err(Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"existing_rows\" must be replace or refuse, not \"{other}\""),
        )),
    }
}

/// The first commit would replace rows, which the sink may not.
pub(crate) fn refuse_rows(target: &str) -> Error {
    Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, format!("{target} has rows already"))
        .with_hint("Empty it, or let the sink replace them: existing_rows = 'replace'.")
}

/// The target of a sink that had filled it is not there any more.
pub(crate) fn target_gone(target: &str) -> Error {
    Error::new(SqlState::UNDEFINED_TABLE, format!("the sink's target {target} is gone"))
        .with_hint("Drop the sink and create it again to fill a new table.")
}

/// The target's columns are not those that the sink needs.
pub(crate) fn misfit(target: &str, problems: &[String]) -> Error {
    Error::new(
        SqlState::DATATYPE_MISMATCH,
        format!("the columns of {target} are not those that the sink needs"),
    )
    .with_detail(problems.join("; ") + ".")
}

/// Reads a length of time as it is written in options: `5 s`, `500ms`, `2 minutes`, `00:00:05`; a bare number is seconds.
pub fn duration(option: &str, text: &str) -> Result<Duration> {
    let wrong = || {
        Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("option \"{option}\" must be a length of time such as '5 s', not \"{text}\""),
        )
    };
    let text = text.trim();
    let seconds = if let [h, m, s] = text.split(':').collect::<Vec<_>>()[..] {
        let (h, m, s): (u32, u32, f64) = (
            h.parse().map_err(|_| wrong())?,
            m.parse().map_err(|_| wrong())?,
            s.parse().map_err(|_| wrong())?,
        );
        f64::from(h) * 3600.0 + f64::from(m) * 60.0 + s
    } else {
        let unit_at = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
        let number: f64 = text[..unit_at].parse().map_err(|_| wrong())?;
        number
            * match text[unit_at..].trim().to_ascii_lowercase().as_str() {
                "" | "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
                "ms" | "msec" | "millisecond" | "milliseconds" => 0.001,
                "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
                "h" | "hour" | "hours" => 3600.0,
                "d" | "day" | "days" => 86_400.0,
                _ => return Err(wrong()),
            }
    };
    if !(0.0..=31_536_000.0).contains(&seconds) {
        return Err(wrong());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// The names of columns that warehouses add to a user's rows.
pub mod column {
    /// What becomes of the row: [`super::Op::letter`].
    pub const OP: &str = "_TIDEMILL_OP";
    /// Without a key: the hash that equal rows share, 32 hexadecimal digits.
    pub const ROW: &str = "_TIDEMILL_ROW";
    /// Without a key: which one of several equal rows, from 0.
    pub const SEQ: &str = "_TIDEMILL_SEQ";
}

/// Refuses columns whose names are the sink's own, and relations without columns.
pub fn check_reserved(schema: &SchemaRef) -> Result<()> {
    let own = [column::OP, column::ROW, column::SEQ];
    if let Some(field) = schema.fields().iter().find(|f| own.contains(&f.name().to_uppercase().as_str())) {
        return Err(Error::new(
            SqlState::INVALID_TABLE_DEFINITION,
            format!("column name \"{}\" is reserved for the sink itself", field.name()),
        ));
    }
    if schema.fields().is_empty() {
        return Err(Error::unsupported("a sink of a relation without columns"));
    }
    Ok(())
}

/// [`check_reserved`], and refuses names that differ only in case: a warehouse may not tell them apart.
pub fn check_columns(schema: &SchemaRef) -> Result<()> {
    check_reserved(schema)?;
    let mut seen: Vec<String> = Vec::new();
    for field in schema.fields() {
        let upper = field.name().to_uppercase();
        if seen.contains(&upper) {
            return Err(Error::new(
                SqlState::DUPLICATE_COLUMN,
                format!(
                    "column \"{}\" stands twice in the sink's target if case does not count",
                    field.name()
                ),
            ));
        }
        seen.push(upper);
    }
    Ok(())
}

/// The same columns under a schema of their own, for building batches.
pub(crate) fn batch_of(
    schema: SchemaRef,
    columns: Vec<arrow::array::ArrayRef>,
    rows: usize,
) -> Result<RecordBatch> {
    let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(schema, columns, &options)?)
}

/// A schema without metadata, of these columns.
pub(crate) fn schema_of(fields: Vec<arrow::datatypes::Field>) -> SchemaRef {
    Arc::new(arrow::datatypes::Schema::new(fields))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time() {
        for (text, ms) in [
            ("5 s", 5_000),
            ("500ms", 500),
            ("2 minutes", 120_000),
            ("00:01:05", 65_000),
            ("1.5", 1_500),
            ("0", 0),
        ] {
            assert_eq!(duration("x", text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for text in ["", "s", "-1 s", "5 parsecs", "1e400", "a:b:c", "99999999 d"] {
            assert_eq!(
                duration("x", text).unwrap_err().sqlstate,
                SqlState::INVALID_PARAMETER_VALUE,
                "{text}"
            );
        }
    }
}
