//! Reading files: each once, in the order of their names, with new ones found by looking again.
//!
//! What has been read to its end is told to the database in the transaction of its last rows, file by file; how far
//! the one file at hand was read is the source's position. So a kill at any moment repeats and leaves out nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use object_store::{GetOptions, ObjectStore};
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use super::avro;
use super::parquet::{self, Columns, Unread};
use super::store::{File, Place, store_error};
use super::text::{Broken, Compression, Records, open};
use crate::connectors::envelope::{Decoder, NotUnderstood, Record};
use crate::connectors::format::CsvOptions;
use crate::connectors::format::records::{LENGTH_MAX, Splitter};
use crate::connectors::{BadRecord, FinishedFile, Source, SourceBatch, SourceContext};
use crate::engine::{CollectionId, Delta, InputChange};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A batch has no more rows than this.
const BATCH_ROWS_MAX: usize = 65_536;
/// Nor is it made of much more than this many bytes.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How often to look whether to stop while there is nothing to do.
const POLL: Duration = Duration::from_millis(100);

/// How files are made of records.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// A value a line.
    Json,
    /// A record a line, below a header if there is one.
    Csv(CsvOptions),
    /// A line is a value.
    Text,
    /// Columns of Parquet.
    Parquet(Columns),
    /// Columns of Avro's container files.
    Avro(Columns),
}

/// What the source was told.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub place: Place,
    /// How often to look for new files; `None`: once.
    pub poll: Option<Duration>,
    /// How long a file must have been left alone.
    pub min_age: Duration,
    pub compression: Compression,
    pub shape: Shape,
}

/// A source of files.
pub(super) struct FilesSource {
    pub settings: Settings,
    /// What reads lines; columns need none.
    pub decoder: Option<Decoder>,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Begun {
    path: String,
    version: String,
    /// Records that were handed over, good and bad.
    records: u64,
    rows: u64,
    bad: u64,
}

/// The position: the file at hand, if there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    begun: Option<Begun>,
}

/// How reading a file has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// With its last record.
    Read,
    /// It is another one than it was: later.
    Changed,
    /// The source was told to stop.
    Stopped,
}

struct Reader<'a> {
    settings: &'a Settings,
    cx: &'a SourceContext,
    runtime: &'a Runtime,
    collection: CollectionId,
    keyed: bool,
    decoder: Option<Decoder>,
    /// Rows that need no decoder, since the last batch.
    converted: Vec<RecordBatch>,
    /// Versions of files that were read, by url.
    finished: HashMap<String, String>,
    begun: Option<Begun>,
    batch: SourceBatch,
    /// Bytes of records since the last batch.
    bytes: usize,
    newest_micros: i64,
}

impl Source for FilesSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let FilesSource { settings, decoder } = *self;
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a FILES source fills exactly one collection"));
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let position: Position = match &cx.resume {
            None => Position::default(),
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| {
                Error::internal(format!("the position of a FILES source cannot be read: {e}"))
            })?,
        };
        let mut reader = Reader {
            settings: &settings,
            cx: &cx,
            runtime: &runtime,
            collection: output.collection,
            keyed: !output.key.is_empty(),
            decoder,
            converted: Vec::new(),
            finished: cx.feed.finished_files()?.into_iter().collect(),
            begun: position.begun,
            batch: SourceBatch::default(),
            bytes: 0,
            newest_micros: 0,
        };
        reader.run()
    }
}

impl Reader<'_> {
    fn run(&mut self) -> Result<()> {
        loop {
            let complete = self.look()?;
            if self.cx.stop.is_set() {
                return Ok(());
            }
            let pause = match self.settings.poll {
                None if complete => {
                    self.cx.status.update(|s| s.state = "finished");
                    return Ok(());
                }
                poll => poll.unwrap_or(self.settings.min_age),
            };
            let until = world::instant() + pause.max(POLL);
            while !self.cx.stop.is_set() && world::instant() < until {
                world::sleep(POLL);
            }
        }
    }

    /// Reads what is new; says whether nothing was left for later.
    fn look(&mut self) -> Result<bool> {
        let mut files = self.runtime.block_on(self.settings.place.list())?;
        self.cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        self.settle_begun(&files);
        if let Some(begun) = &self.begun {
            // What was begun comes first.
            files.sort_by_key(|f| f.path != begun.path);
        }
        let mut left = files.len() as u64;
        let mut complete = true;
        for file in &files {
            if self.cx.stop.is_set() {
                break;
            }
            left -= 1;
            match self.finished.get(&file.path) {
                Some(version) if *version == file.version => continue,
                Some(_) => {
                    let reason = "the file has changed after it was read; what is new in it is not read";
                    self.give_up(file.path.clone(), file.version.clone(), file.size, 0, reason);
                    continue;
                }
                None => {}
            }
            let age = world::now_micros() - file.modified.timestamp_micros();
            // A clock that is behind the file's must not keep it from being read.
            if (0..self.settings.min_age.as_micros() as i64).contains(&age) {
                complete = false;
                continue;
            }
            self.cx.status.update(|s| s.lag = Some(left + 1));
            match self.read(file)? {
                End::Read => {}
                End::Changed => complete = false,
                End::Stopped => break,
            }
        }
        self.hand_over(true)?;
        self.cx.status.update(|s| s.lag = Some(left));
        Ok(complete)
    }

    /// Gives up the file at hand if it is not there any more, or another one.
    fn settle_begun(&mut self, files: &[File]) {
        let Some(begun) = &self.begun else { return };
        let now = files.iter().find(|f| f.path == begun.path);
        if now.is_some_and(|f| f.version == begun.version) {
            return;
        }
        let reason = match now {
            Some(_) => {
                "the file has changed while it was read; what came before its change stays, the rest is not read"
            }
            None => "the file is gone before it was read to its end; what was read of it stays",
        };
        let (path, records) = (begun.path.clone(), begun.records);
        let (version, size) = now.map_or((begun.version.clone(), 0), |f| (f.version.clone(), f.size));
        self.give_up(path, version, size, records, reason);
    }

    /// A file is over, whatever is still in it, which is told as a bad record.
    fn give_up(&mut self, path: String, version: String, size: u64, records: u64, reason: &str) {
        let (rows, bad) = match self.begun.take_if(|b| b.path == path) {
            Some(begun) => (begun.rows, begun.bad),
            None => (0, 0),
        };
        self.batch.bad.push(BadRecord {
            sqlstate: SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE.0,
            reason: reason.to_string(),
            raw: None,
            position: format!("file={path} records={records}"),
            kept: None,
        });
        self.finish(FinishedFile { path, version, size, rows, bad_records: bad + 1 });
    }

    fn finish(&mut self, file: FinishedFile) {
        self.finished.insert(file.path.clone(), file.version.clone());
        self.batch.finished.push(file);
    }

    /// Reads a file from where it was left.
    fn read(&mut self, file: &File) -> Result<End> {
        let begun = self.begun.get_or_insert_with(|| Begun {
            path: file.path.clone(),
            version: file.version.clone(),
            records: 0,
            rows: 0,
            bad: 0,
        });
        if begun.path != file.path {
            // Files come by name: the one at hand is still to come.
            return Ok(End::Changed);
        }
        let end = match &self.settings.shape {
            Shape::Parquet(columns) => self.read_parquet(file, columns)?,
            Shape::Avro(columns) => self.read_avro(file, columns)?,
            Shape::Json | Shape::Csv(_) | Shape::Text => self.read_lines(file)?,
        };
        if end != End::Read {
            return Ok(end);
        }
        // A file that was written on while it was read ended anywhere.
        let now = self.runtime.block_on(self.settings.place.look(&file.location))?;
        if let Some(now) = now.filter(|now| now.version != file.version) {
            let reason = "the file has changed while it was read; what is new in it is not read";
            let records = self.begun.as_ref().map_or(0, |b| b.records);
            self.give_up(file.path.clone(), now.version, now.size, records, reason);
        } else if let Some(begun) = self.begun.take() {
            let Begun { path, version, rows, bad, .. } = begun;
            self.finish(FinishedFile { path, version, size: file.size, rows, bad_records: bad });
        }
        Ok(end)
    }

    /// What is to be done about a file that was not read on.
    fn unread(&mut self, file: &File, at: String, why: Unread) -> Result<End> {
        match why {
            Unread::Store(
                object_store::Error::Precondition { .. } | object_store::Error::NotFound { .. },
            ) => {
                self.begun.take_if(|b| b.records == 0);
                Ok(End::Changed)
            }
            Unread::Store(error) => Err(store_error(&error)),
            Unread::File(why) => {
                self.refuse(file, at, &[], SqlState::DATA_EXCEPTION, why);
                Ok(End::Read)
            }
        }
    }

    fn read_lines(&mut self, file: &File) -> Result<End> {
        let options = GetOptions { if_match: file.e_tag.clone(), ..GetOptions::default() };
        let stream = match self.runtime.block_on(self.settings.place.store.get_opts(&file.location, options))
        {
            Ok(found) => found.into_stream(),
            Err(e) => return self.unread(file, String::new(), Unread::Store(e)),
        };
        let broken = Broken::default();
        let splitter = match &self.settings.shape {
            Shape::Csv(options) => Splitter::quoted(options.quote),
            _ => Splitter::plain(),
        };
        let (name, compression) = (file.path.as_str(), self.settings.compression);
        let mut records =
            Records::new(self.runtime, stream, Arc::clone(&broken), compression, name, splitter)?;
        match self.records(file, &mut records) {
            Ok(end) => Ok(end),
            Err(Failure::Ours(error)) => Err(error),
            Err(Failure::File(why)) => {
                let why = broken.lock().take().map_or(Unread::File(why), Unread::Store);
                self.unread(file, format!("line={}", records.line()), why)
            }
        }
    }

    fn read_parquet(&mut self, file: &File, columns: &Columns) -> Result<End> {
        let read = self.begun.as_ref().map_or(0, |b| b.records);
        let runtime = self.runtime;
        match runtime.block_on(columns.open(&self.settings.place, file, read)) {
            Ok(mut stream) => {
                self.read_columns(file, columns, read, || runtime.block_on(parquet::next(&mut stream)))
            }
            Err(why) => self.unread(file, row(read + 1), why),
        }
    }

    fn read_avro(&mut self, file: &File, columns: &Columns) -> Result<End> {
        let read = self.begun.as_ref().map_or(0, |b| b.records);
        let options = GetOptions { if_match: file.e_tag.clone(), ..GetOptions::default() };
        let stream = match self.runtime.block_on(self.settings.place.store.get_opts(&file.location, options))
        {
            Ok(found) => found.into_stream(),
            Err(e) => return self.unread(file, row(read + 1), Unread::Store(e)),
        };
        let (broken, runtime) = (Broken::default(), self.runtime);
        let input = open(runtime, stream, Arc::clone(&broken), self.settings.compression, &file.path)?;
        let why = |why: String| broken.lock().take().map_or(Unread::File(why), Unread::Store);
        let mut rows = match avro::Rows::new(input) {
            Ok(rows) => rows,
            Err(e) => return self.unread(file, row(read + 1), why(e)),
        };
        let mut skip = usize::try_from(read).unwrap_or(usize::MAX);
        self.read_columns(file, columns, read, || {
            loop {
                let Some(some) = rows.next().map_err(&why)? else { return Ok(None) };
                if skip < some.num_rows() {
                    let some = some.slice(skip, some.num_rows() - skip);
                    skip = 0;
                    return Ok(Some(some));
                }
                skip -= some.num_rows();
            }
        })
    }

    /// Converts the rows of a file, of which `read` were handed over before.
    fn read_columns(
        &mut self,
        file: &File,
        columns: &Columns,
        mut read: u64,
        mut next: impl FnMut() -> std::result::Result<Option<RecordBatch>, Unread>,
    ) -> Result<End> {
        self.newest_micros = self.newest_micros.max(file.modified.timestamp_micros());
        loop {
            let rows = match next() {
                Ok(Some(rows)) => rows,
                Ok(None) => return Ok(End::Read),
                Err(why) => return self.unread(file, row(read + 1), why),
            };
            let (good, bad) = match columns.convert(&rows, file, read + 1) {
                Ok(converted) => converted,
                Err(why) => return self.unread(file, row(read + 1), Unread::File(why)),
            };
            read += rows.num_rows() as u64;
            self.bytes += rows.get_array_memory_size();
            if let Some(begun) = &mut self.begun {
                begun.records = read;
                begun.rows += good.num_rows() as u64;
            }
            for bad in bad {
                let raw = bad.raw.unwrap_or_default();
                self.refuse(file, row(bad.row), raw.as_bytes(), bad.sqlstate, bad.reason);
            }
            if good.num_rows() > 0 {
                self.converted.push(good);
            }
            if self.is_full() {
                self.hand_over(false)?;
                if self.cx.stop.is_set() {
                    return Ok(End::Stopped);
                }
            }
        }
    }

    /// Rows since the last batch.
    fn pending(&self) -> usize {
        let decoded = self.decoder.as_ref().map_or(0, Decoder::pending);
        decoded + self.converted.iter().map(RecordBatch::num_rows).sum::<usize>()
    }

    fn is_full(&self) -> bool {
        self.pending() + self.batch.bad.len() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Decodes the records of a file that were not handed over yet.
    fn records(&mut self, file: &File, records: &mut Records<'_>) -> std::result::Result<End, Failure> {
        let no_decoder = || Failure::Ours(Error::internal("lines without a decoder"));
        let skip = self.begun.as_ref().map_or(0, |b| b.records);
        let mut seen = 0;
        let is_text = matches!(&self.settings.shape, Shape::Text);
        let has_header = matches!(&self.settings.shape, Shape::Csv(options) if options.header);
        let mut header_line = None;
        if has_header {
            match records.next().map_err(|e| Failure::File(e.to_string()))? {
                None => return Ok(End::Read),
                Some((line, header)) => {
                    let decoder = self.decoder.as_mut().ok_or_else(no_decoder)?;
                    header_line = Some(header.to_vec());
                    if let Err(why) = decoder.set_header(header) {
                        let header = header.to_vec();
                        self.refuse(file, format!("line={line}"), &header, why.sqlstate, why.reason);
                        return Ok(End::Read);
                    }
                }
            }
        }
        self.newest_micros = self.newest_micros.max(file.modified.timestamp_micros());
        while let Some((line, record)) = records.next().map_err(|e| Failure::File(e.to_string()))? {
            let value = if is_text { without_break(record) } else { record };
            if !is_text && value.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            seen += 1;
            if seen <= skip {
                continue;
            }
            let decoder = self.decoder.as_mut().ok_or_else(no_decoder)?;
            let before = decoder.pending();
            let given = Record {
                value: Some(value.get(..value.len().min(LENGTH_MAX)).unwrap_or_default()),
                topic: &file.path,
                offset: i64::try_from(line).unwrap_or(i64::MAX),
                timestamp_micros: Some(file.modified.timestamp_micros()),
                ..Record::default()
            };
            let read = match value.len() > LENGTH_MAX {
                true => Err(NotUnderstood {
                    sqlstate: SqlState::DATA_EXCEPTION,
                    reason: format!("the record is longer than {LENGTH_MAX} bytes"),
                    of_key: false,
                }),
                false => decoder.push(&given),
            };
            let rows = decoder.pending() - before;
            self.bytes += record.len();
            if let Some(begun) = &mut self.begun {
                begun.records += 1;
                begun.rows += rows as u64;
                begun.bad += u64::from(read.is_err());
            }
            if let Err(why) = read {
                let position = format!("file={} line={line}", file.path);
                self.batch.bad.push(BadRecord::of(&given, why, position, header_line.as_deref()));
            }
            if self.is_full() {
                self.hand_over(false).map_err(Failure::Ours)?;
                if self.cx.stop.is_set() {
                    return Ok(End::Stopped);
                }
            }
        }
        Ok(End::Read)
    }

    fn refuse(&mut self, file: &File, at: String, raw: &[u8], sqlstate: SqlState, reason: String) {
        if let Some(begun) = &mut self.begun {
            begun.bad += 1;
        }
        self.batch.bad.push(BadRecord {
            sqlstate: sqlstate.0,
            reason,
            raw: Some(raw.to_vec()).filter(|r| !r.is_empty()),
            position: format!("file={} {at}", file.path),
            kept: None,
        });
    }

    /// Hands over what was read, with how far that is; waits until it can be seen, or goes on at once.
    fn hand_over(&mut self, wait: bool) -> Result<()> {
        let rows = self.pending() as u64;
        let mut changes: Vec<InputChange> = match &mut self.decoder {
            Some(decoder) => decoder.take()?,
            None => Vec::new(),
        };
        changes.extend(std::mem::take(&mut self.converted).into_iter().map(|rows| match self.keyed {
            true => InputChange::Upsert { rows, deletes: None },
            false => InputChange::Delta(Delta { rows, weights: None }),
        }));
        let mut batch = std::mem::take(&mut self.batch);
        if changes.is_empty() && batch.bad.is_empty() && batch.finished.is_empty() {
            return Ok(());
        }
        let bad = batch.bad.len() as u64;
        batch.changes = changes.into_iter().map(|c| (self.collection, c)).collect();
        let position = Position { begun: self.begun.clone() };
        let position = serde_json::to_vec(&position)
            .map_err(|e| Error::internal(format!("the position cannot be written: {e}")))?;
        batch.position = Some(position);
        match wait {
            true => self.cx.feed.submit(batch).map(|_| ())?,
            false => self.cx.feed.submit_nowait(batch)?,
        }
        world::crash_point("files.handed_over");
        let (bytes, newest) = (std::mem::take(&mut self.bytes) as u64, self.newest_micros);
        self.cx.status.update(|s| {
            s.rows += rows;
            s.bytes += bytes;
            s.bad_records += bad;
            s.event_time_micros = (newest > 0).then_some(newest);
        });
        Ok(())
    }
}

/// Why reading a file has ended before its end.
enum Failure {
    /// For a cause that has nothing to do with it.
    Ours(Error),
    /// It cannot be read further.
    File(String),
}

/// Where a row is.
fn row(number: u64) -> String {
    format!("row={number}")
}

/// A line without its line break.
fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}
