//! A warehouse in a directory: a table is Parquet files and a manifest, committed by renaming the manifest.
//!
//! ```text
//! <root>/<table>/manifest.json          columns, files, and the sink's progress: the truth
//!                p00000.parquet …       the rows; a keyed row lives in the file that its key's hash says
//!                .stage/<sink>/…        staged batches
//!                .lock                  held while a batch is applied
//! ```
//!
//! A batch rewrites the files that its rows touch, next to the old ones; then the new manifest is renamed over
//! the old one, which is the commit: it holds progress and the names of the new files. Renaming those over the
//! old ones can be finished by whoever opens the table next. So a plain Parquet reader of `p*.parquet` sees
//! each file whole, before or after; a row never stands in two of them.
//!
//! Append-only tables get new files with each batch instead, as Parquet, JSON lines or CSV, and nothing is rewritten.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, SchemaRef, TimeUnit};
use bytes::Bytes;
use hashbrown::HashMap;

use super::compare::differences;
use super::consolidate::{Op, select};
use super::encode::Encoding;
use super::hash::row_hashes;
use super::staging::{parquet_bytes, read_parquet, split_ops, write_files};
use super::{
    Applied, Batch, Counts, Effect, Failure, Mode, Progress, Shape, StagedFile, Step, Warehouse, batch_of,
    check_columns, schema_of,
};
use crate::connectors::{Differences, StopFlag};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Rows in one file of a keyed table before it is split over twice as many files.
const FILE_ROWS: u64 = 250_000;
const MANIFEST: &str = "manifest.json";

/// How the files of a table are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileFormat {
    /// Parquet: the only one that rows can be replaced in.
    Parquet,
    /// One JSON object a line.
    Json,
    /// Comma-separated, with a header line.
    Csv,
}

impl FileFormat {
    fn extension(self) -> &'static str {
        match self {
            FileFormat::Parquet => "parquet",
            FileFormat::Json => "json",
            FileFormat::Csv => "csv",
        }
    }
}

/// What stands in `manifest.json`.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Manifest {
    /// The layout of the directory; 1.
    pub version: u32,
    /// The sink that writes the table.
    pub sink: String,
    /// How often the table was filled from a snapshot.
    pub generation: u64,
    /// Writers with a smaller number are shut out.
    pub fence: u64,
    /// The tick that the table is at.
    pub epoch: u64,
    /// Columns, as `name type`.
    pub columns: Vec<String>,
    /// The key's columns.
    pub key: Vec<String>,
    /// Rows in all files.
    pub rows: u64,
    /// The table's files.
    pub files: Vec<TableFile>,
    /// When it was written, µs since 1970.
    pub updated_at_micros: i64,
}

/// A file of the table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct TableFile {
    /// Its name in the table's directory.
    pub name: String,
    /// Rows in it.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
    /// While it waits to be renamed to `name`: what it is called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<String>,
}

/// Reads a table's manifest; `None`: there is no such table.
pub fn read_manifest(table: &Path) -> Result<Option<Manifest>> {
    match fs::read(table.join(MANIFEST)) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| {
            Error::new(
                SqlState::DATA_CORRUPTED,
                format!("{} is no manifest: {e}", table.join(MANIFEST).display()),
            )
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(io(table, e)),
    }
}

/// One table in a directory.
#[derive(Debug)]
pub struct LocalWarehouse {
    table: PathBuf,
    sink: uuid::Uuid,
    shape: Shape,
    format: FileFormat,
    encodings: Vec<Encoding>,
}

impl LocalWarehouse {
    /// The table in this directory. Nothing is touched yet.
    ///
    /// # Errors
    /// Columns that cannot be stored, or a format in which rows cannot be replaced.
    pub fn new(table: PathBuf, sink: uuid::Uuid, shape: Shape, format: FileFormat) -> Result<Self> {
        check_columns(&shape.schema)?;
        if format != FileFormat::Parquet && shape.mode != Mode::Append {
            return Err(Error::unsupported(format!(
                "a {} sink of a relation whose rows change",
                format.extension().to_uppercase()
            ))
            .with_hint("Use FORMAT PARQUET, which keeps a table of the current rows."));
        }
        let encodings = shape.schema.fields().iter().map(|f| encoding(f, format)).collect();
        Ok(LocalWarehouse { table, sink, shape, format, encodings })
    }

    fn columns(&self) -> Vec<String> {
        let types = self.encodings.iter().map(|e| e.data_type());
        self.shape.schema.fields().iter().zip(types).map(|(f, t)| format!("{} {t}", f.name())).collect()
    }

    fn key(&self) -> Vec<String> {
        match &self.shape.mode {
            Mode::Keyed(key) => key.iter().map(|&k| self.shape.schema.field(k).name().clone()).collect(),
            Mode::Bag | Mode::Append => Vec::new(),
        }
    }

    /// Waits for whoever applies a batch; released when the file is closed.
    fn lock(&self) -> Result<File> {
        let path = self.table.join(".lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(|e| io(&path, e))?;
        file.lock().map_err(|e| io(&path, e))?;
        Ok(file)
    }

    /// The manifest as the last writer left it, with its renames finished.
    fn manifest(&self) -> Result<Option<Manifest>> {
        let Some(mut manifest) = read_manifest(&self.table)? else { return Ok(None) };
        self.settle(&mut manifest)?;
        Ok(Some(manifest))
    }

    /// Finishes what a committed manifest says, and removes files that it does not name.
    fn settle(&self, manifest: &mut Manifest) -> Result<()> {
        let mut settled = false;
        for file in &mut manifest.files {
            let Some(pending) = file.pending.take() else { continue };
            let (from, to) = (self.table.join(&pending), self.table.join(&file.name));
            match fs::rename(&from, &to) {
                Ok(()) => settled = true,
                // Somebody had come this far already.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && to.exists() => {}
                Err(e) => return Err(io(&from, e)),
            }
        }
        for entry in fs::read_dir(&self.table).map_err(|e| io(&self.table, e))? {
            let path = entry.map_err(|e| io(&self.table, e))?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let own = is_table_file(&name) || name.ends_with(".tmp");
            if own && !manifest.files.iter().any(|f| f.name == name) {
                fs::remove_file(&path).map_err(|e| io(&path, e))?;
                settled = true;
            }
        }
        if settled {
            sync_directory(&self.table)?;
        }
        Ok(())
    }

    /// The commit.
    fn write_manifest(&self, manifest: &Manifest) -> Result<()> {
        let bytes = serde_json::to_vec_pretty(manifest).map_err(|e| Error::internal(e.to_string()))?;
        let next = self.table.join("manifest.json.next");
        write_synced(&next, &bytes)?;
        fs::rename(&next, self.table.join(MANIFEST)).map_err(|e| io(&next, e))?;
        sync_directory(&self.table)
    }

    fn own_stage(&self) -> PathBuf {
        self.table.join(".stage").join(self.sink.to_string())
    }

    /// The rows of a staged batch, as many as were written.
    fn staged(&self, batch: &Batch) -> Step<Vec<RecordBatch>> {
        let mut rows = Vec::new();
        for file in &batch.files {
            let path = self.table.join(".stage").join(&batch.directory).join(&file.name);
            let read = read_parquet(Bytes::from(fs::read(&path).map_err(|e| io(&path, e))?))?;
            let count: usize = read.iter().map(RecordBatch::num_rows).sum();
            if count as u64 != file.rows {
                return Err(Error::new(
                    SqlState::DATA_CORRUPTED,
                    format!("{} holds {count} rows instead of {}", path.display(), file.rows),
                )
                .into());
            }
            rows.extend(read);
        }
        Ok(rows)
    }

    /// Adds the batch as files of its own.
    fn append(&self, batch: &Batch, before: &Manifest, staged: Vec<RecordBatch>) -> Step<Vec<TableFile>> {
        let mut files = match batch.effect {
            Effect::Advance => before.files.clone(),
            Effect::Replace | Effect::Mend => Vec::new(),
        };
        if !staged.is_empty() {
            let name = format!("g{}-{:020}.{}", batch.to.generation, batch.to.epoch, self.format.extension());
            let rows = concat_batches(&staged[0].schema(), &staged).map_err(Error::from)?;
            files.push(self.write_table_file(name, &rows, batch)?);
        }
        Ok(files)
    }

    /// Rewrites the files that the batch touches.
    fn merge(&self, batch: &Batch, before: &Manifest, staged: Vec<RecordBatch>) -> Step<Vec<TableFile>> {
        let schema = self.staged_schema();
        let mut ops = Vec::new();
        let mut rows = Vec::new();
        for staged in &staged {
            let (more, of) = split_ops(staged)?;
            ops.extend(more);
            rows.push(batch_of(schema.clone(), of.columns().to_vec(), of.num_rows())?);
        }
        let changes = concat_batches(&schema, &rows).map_err(Error::from)?;
        let identity = self.shape.identity();
        let hashes = row_hashes(&changes, &identity)?;

        let replaced = batch.effect != Effect::Advance;
        let rows_after = if replaced { 0 } else { before.rows } + batch.counts.inserts
            - batch.counts.deletes.min(before.rows);
        let wanted = rows_after.div_ceil(FILE_ROWS).max(1).next_power_of_two() as usize;
        let spread = if replaced { wanted } else { wanted.max(before.files.len()) };
        let file_of = |hash: u128| (hash % spread as u128) as usize;

        // Existing rows by the file they belong to from now on; a file that keeps its rows is not even read.
        let mut old: Vec<Vec<(RecordBatch, Vec<u128>)>> = vec![Vec::new(); spread];
        let mut touched = vec![replaced || spread != before.files.len(); spread];
        for &hash in &hashes {
            touched[file_of(hash)] = true;
        }
        if !replaced {
            for (place, file) in before.files.iter().enumerate() {
                if spread == before.files.len() && !touched[place] {
                    continue;
                }
                let path = self.table.join(&file.name);
                let bytes = Bytes::from(fs::read(&path).map_err(|e| io(&path, e))?);
                for read in read_parquet(bytes)? {
                    let read = batch_of(schema.clone(), read.columns().to_vec(), read.num_rows())?;
                    let hashes = row_hashes(&read, &identity)?;
                    for (place, positions) in partition(spread, hashes.iter().map(|&h| file_of(h))) {
                        let of_place = positions.iter().map(|&i| hashes[i]).collect();
                        old[place].push((select(&read, &positions)?, of_place));
                    }
                }
            }
        }
        let mut new: Vec<Vec<usize>> = vec![Vec::new(); spread];
        for (place, positions) in partition(spread, hashes.iter().map(|&h| file_of(h))) {
            new[place] = positions;
        }
        let mut files = Vec::with_capacity(spread);
        let mut done = Counts::default();
        for place in 0..spread {
            if !touched[place] {
                files.push(before.files[place].clone());
                continue;
            }
            let of_place: Vec<(usize, Op)> = new[place].iter().map(|&i| (i, ops[i])).collect();
            let merged = self.merge_rows(&schema, &old[place], &changes, &hashes, &of_place, &mut done)?;
            files.push(self.write_table_file(format!("p{place:05}.parquet"), &merged, batch)?);
        }
        if done != batch.counts {
            return Err(Failure::parted(format!("Applying gave {done} instead of {}.", batch.counts)));
        }
        Ok(files)
    }

    /// The rows of one file after a batch: what stays, then what is new. Counts what was done.
    fn merge_rows(
        &self,
        schema: &SchemaRef,
        old: &[(RecordBatch, Vec<u128>)],
        changes: &RecordBatch,
        hashes: &[u128],
        of_file: &[(usize, Op)],
        done: &mut Counts,
    ) -> Result<RecordBatch> {
        // How many rows of a hash go away; where there is a key, 0 for one that must not be there yet.
        let mut gone: HashMap<u128, u64, ahash::RandomState> = HashMap::default();
        for &(row, op) in of_file {
            *gone.entry(hashes[row]).or_default() += u64::from(op != Op::Insert);
        }
        let asked: u64 = gone.values().sum();
        let keyed = matches!(self.shape.mode, Mode::Keyed(_));
        let mut doubled = 0;
        let mut parts = Vec::with_capacity(old.len() + 1);
        for (rows, of_rows) in old {
            let mut kept = Vec::with_capacity(of_rows.len());
            for (row, hash) in of_rows.iter().enumerate() {
                match gone.get_mut(hash) {
                    Some(left) if *left > 0 => *left -= 1,
                    Some(_) if keyed => doubled += 1,
                    _ => kept.push(row),
                }
            }
            parts.push(select(rows, &kept)?);
        }
        let missing: u64 = gone.values().sum();
        let added: Vec<usize> =
            of_file.iter().filter(|(_, op)| *op != Op::Delete).map(|(row, _)| *row).collect();
        let updates = of_file.iter().filter(|(_, op)| *op == Op::Update).count() as u64;
        done.inserts += (added.len() as u64 - updates).saturating_sub(doubled);
        done.updates += updates;
        done.deletes += (asked - updates).saturating_sub(missing);
        parts.push(select(changes, &added)?);
        Ok(concat_batches(schema, &parts)?)
    }

    /// Columns as they are stored.
    fn staged_schema(&self) -> SchemaRef {
        let fields = self.shape.schema.fields().iter().zip(&self.encodings);
        schema_of(fields.map(|(f, e)| Field::new(f.name(), e.data_type(), true)).collect())
    }

    /// Writes a file beside the one it will replace once the manifest is committed.
    fn write_table_file(&self, name: String, rows: &RecordBatch, batch: &Batch) -> Result<TableFile> {
        let bytes = match self.format {
            FileFormat::Parquet => parquet_bytes(rows)?,
            FileFormat::Json => json_bytes(rows)?,
            FileFormat::Csv => csv_bytes(rows)?,
        };
        let pending = format!(".{name}.g{}e{}f{}.tmp", batch.to.generation, batch.to.epoch, batch.to.fence);
        write_synced(&self.table.join(&pending), &bytes)?;
        Ok(TableFile {
            name,
            rows: rows.num_rows() as u64,
            bytes: bytes.len() as u64,
            pending: Some(pending),
        })
    }
}

impl Warehouse for LocalWarehouse {
    fn open(&mut self, _stop: &StopFlag) -> Step<Progress> {
        fs::create_dir_all(self.own_stage()).map_err(|e| io(&self.table, e))?;
        let _lock = self.lock()?;
        let mut manifest = match self.manifest()? {
            Some(m) if m.version != 1 => {
                return Err(Error::unsupported(format!("layout {} of a local warehouse", m.version)).into());
            }
            Some(m) if m.sink == self.sink.to_string() => m,
            // Another sink's table, or none: the first snapshot replaces it.
            other => Manifest {
                version: 1,
                sink: self.sink.to_string(),
                generation: 0,
                epoch: 0,
                ..other.unwrap_or_default()
            },
        };
        if manifest.generation > 0 && (manifest.columns != self.columns() || manifest.key != self.key()) {
            return Err(Error::new(
                SqlState::DATATYPE_MISMATCH,
                format!("the columns of {} are not those of the sink", self.table.display()),
            )
            .with_detail(format!(
                "The table has ({}) with key ({}).",
                manifest.columns.join(", "),
                manifest.key.join(", ")
            ))
            .into());
        }
        manifest.fence += 1;
        self.write_manifest(&manifest)?;
        // Whatever is staged belongs to attempts that are over.
        for entry in fs::read_dir(self.own_stage()).map_err(|e| io(&self.table, e))? {
            let path = entry.map_err(|e| io(&self.table, e))?.path();
            fs::remove_dir_all(&path).map_err(|e| io(&path, e))?;
        }
        Ok(Progress { generation: manifest.generation, fence: manifest.fence, epoch: manifest.epoch })
    }

    fn encode(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = rows
            .columns()
            .iter()
            .zip(&self.encodings)
            .map(|(c, e)| e.apply(c))
            .collect::<Result<Vec<_>>>()?;
        batch_of(self.staged_schema(), columns, rows.num_rows())
    }

    fn stage(&mut self, batch: &Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Vec<StagedFile>> {
        let directory = self.table.join(".stage").join(&batch.directory);
        fs::create_dir_all(&directory).map_err(|e| io(&directory, e))?;
        write_files(rows, file_bytes, |name, bytes| Ok(write_synced(&directory.join(name), &bytes)?))
    }

    fn apply(&mut self, batch: &Batch) -> Step<Applied> {
        world::crash_point("sink.begin");
        let _lock = self.lock()?;
        let before = self.manifest()?.filter(|m| m.sink == self.sink.to_string());
        let now = before.as_ref().map_or(Progress::default(), |m| Progress {
            generation: m.generation,
            fence: m.fence,
            epoch: m.epoch,
        });
        let Some(before) = before.filter(|_| now == batch.from) else {
            return Err(Failure::fenced(now, batch.from));
        };
        world::crash_point("sink.fenced");
        let mut applied = Applied::default();
        let mut began = world::instant();
        let staged = self.staged(batch)?;
        applied.load = began.elapsed();
        world::crash_point("sink.copied");
        began = world::instant();
        let files = match self.shape.mode {
            Mode::Append => self.append(batch, &before, staged)?,
            Mode::Keyed(_) | Mode::Bag => self.merge(batch, &before, staged)?,
        };
        applied.merge = began.elapsed();
        world::crash_point("sink.merged");
        began = world::instant();
        let mut after = Manifest {
            version: 1,
            sink: self.sink.to_string(),
            generation: batch.to.generation,
            fence: batch.to.fence,
            epoch: batch.to.epoch,
            columns: self.columns(),
            key: self.key(),
            rows: files.iter().map(|f| f.rows).sum(),
            files,
            updated_at_micros: world::now_micros(),
        };
        self.write_manifest(&after)?;
        world::crash_point("sink.renaming");
        // Committed: what is left to do is done by the next one to open the table if it fails here.
        if let Err(error) = self.settle(&mut after).and_then(|()| self.write_manifest(&after)) {
            tracing::warn!(table = %self.table.display(), %error, "renames are left to the next opening");
        }
        applied.commit = began.elapsed();
        Ok(applied)
    }

    fn compare(&mut self, batch: &mut Batch, rows: &RecordBatch, file_bytes: usize) -> Step<Differences> {
        if self.format != FileFormat::Parquet {
            return Err(Error::unsupported("VERIFY of a FILES sink in another format than Parquet").into());
        }
        let kept = {
            let _lock = self.lock()?;
            let manifest = self.manifest()?.filter(|m| m.sink == self.sink.to_string()).unwrap_or_default();
            let now =
                Progress { generation: manifest.generation, fence: manifest.fence, epoch: manifest.epoch };
            if now != batch.from {
                return Err(Failure::fenced(now, batch.from));
            }
            let mut kept = Vec::new();
            for file in &manifest.files {
                let path = self.table.join(&file.name);
                kept.extend(read_parquet(Bytes::from(fs::read(&path).map_err(|e| io(&path, e))?))?);
            }
            kept
        };
        let rows_only = match self.shape.has_ops() {
            true => split_ops(rows)?.1,
            false => rows.clone(),
        };
        let schema = self.staged_schema();
        let alike = |rows: &RecordBatch| batch_of(schema.clone(), rows.columns().to_vec(), rows.num_rows());
        let key: &[usize] = if let Mode::Keyed(key) = &self.shape.mode { key } else { &[] };
        let kept = kept.iter().map(alike).collect::<Result<Vec<_>>>()?;
        let found = differences(&[alike(&rows_only)?], &kept, key)?;
        if !found.is_empty() {
            batch.files = self.stage(batch, rows, file_bytes)?;
        }
        Ok(found)
    }

    fn discard(&mut self, batch: &Batch) {
        let directory = self.table.join(".stage").join(&batch.directory);
        if let Err(error) = fs::remove_dir_all(&directory)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(directory = %directory.display(), %error, "staged files stay");
        }
    }
}

/// Removes what a sink's staging left in a table's directory; the table stays, and what other sinks have staged.
pub fn remove_stage(table: &Path, sink: uuid::Uuid) -> Result<()> {
    let stages = table.join(".stage");
    let own = stages.join(sink.to_string());
    match fs::remove_dir_all(&own) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(io(&own, e)),
        _ => {}
    }
    match fs::remove_dir(&stages) {
        Err(e)
            if !matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::DirectoryNotEmpty) =>
        {
            Err(io(&stages, e))
        }
        _ => Ok(()),
    }
}

/// Rows by group, keeping their order: the groups that have any.
fn partition(
    groups: usize,
    of_row: impl Iterator<Item = usize>,
) -> impl Iterator<Item = (usize, Vec<usize>)> {
    let mut partitions = vec![Vec::new(); groups];
    for (row, group) in of_row.enumerate() {
        partitions[group].push(row);
    }
    partitions.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty())
}

/// Whether a file of this name can only be one that a sink wrote.
fn is_table_file(name: &str) -> bool {
    let Some((stem, extension)) = name.rsplit_once('.') else { return false };
    let numbered = |s: &str, digits: usize| s.len() >= digits && s.bytes().all(|b| b.is_ascii_digit());
    ["parquet", "json", "csv"].contains(&extension)
        && match (stem.strip_prefix('p'), stem.strip_prefix('g').and_then(|s| s.split_once('-'))) {
            (Some(place), _) => numbered(place, 5),
            (_, Some((generation, epoch))) => numbered(generation, 1) && numbered(epoch, 20),
            _ => false,
        }
}

/// Parquet files are for every reader: no views, no intervals; JSON and CSV keep what Arrow can write.
fn encoding(field: &Field, format: FileFormat) -> Encoding {
    fn plain(data_type: &DataType) -> DataType {
        match data_type {
            DataType::Utf8View | DataType::LargeUtf8 | DataType::Null => DataType::Utf8,
            DataType::BinaryView | DataType::LargeBinary => DataType::Binary,
            DataType::List(f) => DataType::List(Arc::new(Field::new("item", plain(f.data_type()), true))),
            other => other.clone(),
        }
    }
    fn has_interval(data_type: &DataType) -> bool {
        match data_type {
            DataType::Interval(_) => true,
            DataType::List(f) => has_interval(f.data_type()),
            _ => false,
        }
    }
    match field.data_type() {
        DataType::Interval(_) => Encoding::IntervalText,
        t if has_interval(t) => Encoding::Json,
        DataType::List(_) if format == FileFormat::Csv => Encoding::Json,
        DataType::Time64(TimeUnit::Nanosecond) => Encoding::Cast(DataType::Time64(TimeUnit::Microsecond)),
        t => Encoding::Cast(plain(t)),
    }
}

fn json_bytes(rows: &RecordBatch) -> Result<Vec<u8>> {
    let builder = arrow::json::WriterBuilder::new().with_explicit_nulls(true);
    let mut writer = builder.build::<_, arrow::json::writer::LineDelimited>(Vec::new());
    writer.write(rows)?;
    writer.finish()?;
    Ok(writer.into_inner())
}

fn csv_bytes(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    arrow::csv::WriterBuilder::new().with_header(true).build(&mut bytes).write(rows)?;
    Ok(bytes)
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = File::create(path).map_err(|e| io(path, e))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(|e| io(path, e))
}

/// Makes renames and new names in a directory durable.
fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|d| d.sync_all()).map_err(|e| io(path, e))
}

fn io(path: &Path, e: std::io::Error) -> Error {
    let mut error = Error::from(e);
    error.message = format!("{}: {}", path.display(), error.message);
    error
}
