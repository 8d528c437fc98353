//! Looking again and again at the files of a pattern, and reading what is new in them. How far each file was read goes
//! with the rows in one transaction, so that a kill at any moment repeats and leaves out nothing.

use std::fs::File;
use std::io;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tail::{Known, News, Tail, find};
use super::{Settings, Shape};
use crate::connectors::envelope::{Decoder, NotUnderstood, Record};
use crate::connectors::format::records::{LENGTH_MAX, Splitter};
use crate::connectors::{BadRecord, Source, SourceBatch, SourceContext, SourceOutput};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// A batch has no more rows than this.
const BATCH_ROWS_MAX: usize = 65_536;
/// Nor is it made of much more than this many bytes.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// How much is read at once.
const PIECE: usize = 256 << 10;
/// How often to look whether to stop while there is nothing to do.
const STOP_POLL: Duration = Duration::from_millis(50);

/// A source of lines.
pub(super) struct LinesSource {
    pub settings: Settings,
    pub decoder: Decoder,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Position {
    files: Vec<Known>,
    /// All there was to read was read, and no more was asked for.
    finished: bool,
}

struct Reader<'a> {
    settings: &'a Settings,
    decoder: Decoder,
    cx: &'a SourceContext,
    output: &'a SourceOutput,
    tails: Vec<Tail>,
    /// What the position says of files that were not found yet.
    missing: Vec<Known>,
    bad: Vec<BadRecord>,
    /// Bytes of lines since the last batch.
    bytes: usize,
    buffer: Vec<u8>,
}

impl Source for LinesSource {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let LinesSource { settings, decoder } = *self;
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a LINES source fills exactly one collection"));
        };
        let position: Option<Position> = match &cx.resume {
            None => None,
            Some(bytes) => Some(serde_json::from_slice(bytes).map_err(|e| {
                Error::internal(format!("the position of a LINES source cannot be read: {e}"))
            })?),
        };
        if position.as_ref().is_some_and(|p| p.finished) {
            return Ok(());
        }
        let is_first = position.is_none();
        let missing = position.unwrap_or_default().files;
        let mut reader = Reader {
            settings: &settings,
            decoder,
            cx: &cx,
            output,
            tails: Vec::new(),
            missing,
            bad: Vec::new(),
            bytes: 0,
            buffer: Vec::new(),
        };
        reader.run(is_first)
    }
}

/// A line without its line break.
fn without_break(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

fn unread(path: &str, error: &io::Error) -> Error {
    Error::new(SqlState::IO_ERROR, format!("\"{path}\" cannot be read: {error}"))
}

impl Reader<'_> {
    fn run(&mut self, is_first: bool) -> Result<()> {
        self.find_files(is_first && self.settings.from_end)?;
        self.find_missing()?;
        if is_first {
            // Where it began is durable before anything more is written.
            self.hand_over(false, true)?;
        }
        loop {
            self.cx.status.update(|s| {
                s.state = "running";
                s.error = None;
            });
            self.read_all()?;
            if self.cx.stop.is_set() {
                return Ok(());
            }
            if !self.settings.follow {
                return self.hand_over(true, true);
            }
            self.hand_over(false, false)?;
            let until = world::instant() + self.settings.poll.max(Duration::from_millis(1));
            while !self.cx.stop.is_set() && world::instant() < until {
                world::sleep(STOP_POLL.min(self.settings.poll));
            }
            if self.cx.stop.is_set() {
                return Ok(());
            }
            self.find_files(false)?;
        }
    }

    /// Opens the files that are new; notes which ones are not where they should be any more.
    fn find_files(&mut self, skip: bool) -> Result<()> {
        let mut here = Vec::new();
        for path in self.settings.list() {
            let Ok(meta) = std::fs::metadata(&path) else { continue };
            use std::os::unix::fs::MetadataExt;
            let number = (meta.dev(), meta.ino());
            here.push(number);
            if let Some(tail) = self.tails.iter_mut().find(|t| t.number() == number) {
                tail.known.path = path.display().to_string();
                continue;
            }
            // A file that cannot be opened stops the source: it would be left out unseen.
            let file = match File::open(&path) {
                Ok(file) => file,
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(unread(&path.display().to_string(), &e)),
            };
            self.open(&path, file, skip).map_err(|e| unread(&path.display().to_string(), &e))?;
        }
        for tail in &mut self.tails {
            match here.contains(&tail.number()) {
                true => tail.gone_since = None,
                false => {
                    tail.is_gone(false);
                }
            }
        }
        Ok(())
    }

    fn open(&mut self, path: &Path, file: File, skip: bool) -> io::Result<()> {
        let meta = file.metadata()?;
        if let Some(at) = self.missing.iter().position(|known| known.identity.is_of(&file, &meta)) {
            let known = self.missing.swap_remove(at);
            self.tails.push(Tail::resume(known, path, file)?);
            return Ok(());
        }
        let mut tail = Tail::new(path, file, &meta);
        if skip {
            let header = match &self.settings.shape {
                Shape::Csv(options) if options.header => tail.first_line()?,
                _ => None,
            };
            tail.skip_to_end(header.map(|h| String::from_utf8_lossy(&h).into_owned()))?;
        }
        self.tails.push(tail);
        Ok(())
    }

    /// Files that were renamed while nobody looked are read to their end; those that are nowhere are forgotten.
    fn find_missing(&mut self) -> Result<()> {
        for known in std::mem::take(&mut self.missing) {
            let directory = Path::new(&known.path).parent().unwrap_or(Path::new("/"));
            match find(&known, directory) {
                Some((path, file)) => {
                    let tail = Tail::resume(known, &path, file);
                    let mut tail = tail.map_err(|e| unread(&path.display().to_string(), &e))?;
                    tail.is_gone(true);
                    // What comes from it came before what is in the file that has its name now.
                    self.tails.insert(0, tail);
                }
                None => {
                    tracing::warn!(
                        source = self.cx.name,
                        path = known.path,
                        offset = known.offset,
                        "is gone"
                    );
                }
            }
        }
        Ok(())
    }

    /// Reads what is new in all files. A file that is gone is over when nothing more comes.
    fn read_all(&mut self) -> Result<()> {
        let wait = self.settings.rotate_wait;
        let mut i = 0;
        while i < self.tails.len() {
            if self.cx.stop.is_set() {
                return Ok(());
            }
            let is_over = self.with_tail(i, |reader, tail| {
                reader.read_news(tail)?;
                let is_over = tail.gone_since.is_some() && tail.is_gone(false) >= wait;
                if is_over {
                    reader.read(tail, true)?;
                }
                Ok(is_over && !reader.cx.stop.is_set())
            })?;
            if is_over {
                self.tails.remove(i);
            } else {
                i += 1;
            }
        }
        Ok(())
    }

    /// Does something with one of the files, which is not among the others meanwhile.
    fn with_tail<T>(&mut self, i: usize, work: impl FnOnce(&mut Self, &mut Tail) -> Result<T>) -> Result<T> {
        let mut tail = self.tails.remove(i);
        let result = work(self, &mut tail);
        self.tails.insert(i, tail);
        result
    }

    fn read_news(&mut self, tail: &mut Tail) -> Result<()> {
        let at_end = !self.settings.follow;
        let news = tail.look().map_err(|e| unread(&tail.known.path, &e))?;
        if news == News::Anew {
            tracing::info!(
                source = self.cx.name,
                path = tail.known.path,
                "was cut off: it is read from its beginning"
            );
        }
        if tail.gone_since.is_some() {
            tail.is_gone(news != News::None);
        }
        match news {
            News::None if !at_end => Ok(()),
            _ => self.read(tail, at_end),
        }
    }

    /// Reads the lines that have come to a file; with `last`, what is left without a line break is a line, too.
    fn read(&mut self, tail: &mut Tail, last: bool) -> Result<()> {
        let has_header = matches!(&self.settings.shape, Shape::Csv(options) if options.header);
        if let (true, Some(header)) = (has_header, &tail.known.header) {
            // It was understood when it was read.
            let _ = self.decoder.set_header(header.as_bytes());
        }
        let mut splitter = match &self.settings.shape {
            Shape::Csv(options) => Splitter::quoted(options.quote),
            Shape::Json | Shape::Text => Splitter::plain(),
        };
        let (mut buffer, mut start, mut ended) = (std::mem::take(&mut self.buffer), 0, false);
        buffer.clear();
        loop {
            let rest = buffer.get(start..).unwrap_or_default();
            match splitter.next(rest, ended && last) {
                Some(length) => {
                    let line = rest.get(..length).unwrap_or_default();
                    self.line(tail, line, has_header);
                    start += length;
                    if self.is_full() {
                        // What is read on is read again from there.
                        self.hand_over_amid(tail)?;
                        if self.cx.stop.is_set() {
                            tail.look_again();
                            break;
                        }
                    }
                }
                None if ended => break,
                None => {
                    buffer.drain(..start);
                    start = 0;
                    let filled = buffer.len();
                    buffer.resize(filled + PIECE, 0);
                    let into = buffer.get_mut(filled..).unwrap_or_default();
                    let n = tail.read(filled, into).map_err(|e| unread(&tail.known.path, &e))?;
                    buffer.truncate(filled + n);
                    ended = n == 0;
                }
            }
        }
        self.buffer = buffer;
        Ok(())
    }

    /// Takes a line, line break included.
    fn line(&mut self, tail: &mut Tail, line: &[u8], has_header: bool) {
        let (number, path) = (tail.known.lines + 1, tail.known.path.clone());
        let value = match self.settings.shape {
            Shape::Text => without_break(line),
            Shape::Json | Shape::Csv(_) => line,
        };
        self.bytes += line.len();
        tail.advance(line);
        if !matches!(self.settings.shape, Shape::Text) && value.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let record = Record {
            value: Some(value.get(..value.len().min(LENGTH_MAX)).unwrap_or_default()),
            topic: &path,
            offset: i64::try_from(number).unwrap_or(i64::MAX),
            timestamp_micros: Some(world::now_micros()),
            ..Record::default()
        };
        let read = if has_header && tail.known.header.is_none() {
            let header = String::from_utf8_lossy(line).into_owned();
            let read = self.decoder.set_header(header.as_bytes());
            tail.known.header = Some(header);
            read
        } else if value.len() > LENGTH_MAX {
            Err(NotUnderstood {
                sqlstate: SqlState::DATA_EXCEPTION,
                reason: format!("the line is longer than {LENGTH_MAX} bytes"),
                of_key: false,
            })
        } else {
            self.decoder.push(&record)
        };
        if let Err(why) = read {
            let header = tail.known.header.as_deref().map(str::as_bytes);
            self.bad.push(BadRecord::of(&record, why, format!("file={path} line={number}"), header));
        }
    }

    fn is_full(&self) -> bool {
        self.decoder.pending() + self.bad.len() >= BATCH_ROWS_MAX || self.bytes >= BATCH_BYTES_MAX
    }

    /// Hands over in the middle of a file.
    fn hand_over_amid(&mut self, tail: &mut Tail) -> Result<()> {
        let known = tail.remembered();
        self.submit(vec![known], false)
    }

    /// Hands over what was read, with how far that is; `finished`: there will be no more. `whatever`: even if nothing
    /// was read.
    fn hand_over(&mut self, finished: bool, whatever: bool) -> Result<()> {
        if !whatever && self.bytes == 0 {
            return Ok(());
        }
        self.submit(Vec::new(), finished)
    }

    fn submit(&mut self, mut files: Vec<Known>, finished: bool) -> Result<()> {
        files.extend(self.tails.iter_mut().map(Tail::remembered));
        let position = serde_json::to_vec(&Position { files, finished })
            .map_err(|e| Error::internal(format!("the position cannot be written: {e}")))?;
        let rows = self.decoder.pending() as u64;
        let changes = self.decoder.take()?.into_iter().map(|c| (self.output.collection, c)).collect();
        let bad = std::mem::take(&mut self.bad);
        let (bytes, bad_records) = (std::mem::take(&mut self.bytes) as u64, bad.len() as u64);
        let batch = SourceBatch { changes, bad, position: Some(position), ..SourceBatch::default() };
        match finished {
            true => self.cx.feed.submit(batch).map(|_| ())?,
            false => self.cx.feed.submit_nowait(batch)?,
        }
        world::crash_point("lines.handed_over");
        self.cx.status.update(|s| {
            s.rows += rows;
            s.bytes += bytes;
            s.bad_records += bad_records;
            s.event_time_micros = (rows > 0).then(world::now_micros).or(s.event_time_micros);
        });
        Ok(())
    }
}
