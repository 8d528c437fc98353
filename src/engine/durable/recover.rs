//! The reading end: which files make up the journal, where its end is, and every record in order.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::journal::base_path;
use super::lock::lock_directory;
use super::record::{FILE_HEADER_BYTES, Header, Kind, RECORD_HEADER_BYTES, parse_file_header};
use super::{corrupted, io_error, sync_dir};
use crate::engine::Tick;
use crate::error::Result;

/// Names the current base: its tick as text, a space, the text's checksum.
pub(crate) const CURRENT: &str = "CURRENT";

/// One file of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JournalFile {
    pub(crate) path: PathBuf,
    /// For a segment the tick its first record follows; for a base the tick it stands for.
    pub(crate) tick: Tick,
    pub(crate) bytes: u64,
}

/// What a data directory's journal consists of.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// Held open by whoever goes on writing.
    pub(crate) lock: File,
    pub(crate) base: Option<JournalFile>,
    /// Oldest first.
    pub(crate) segments: Vec<JournalFile>,
    /// The last tick there is.
    pub(crate) last: Tick,
    /// The journal was closed in order: no tick after `last` was ever seen by anybody.
    pub(crate) clean: bool,
    /// Bytes of a torn record that were cut off.
    pub(crate) torn_bytes: u64,
}

impl Recovered {
    /// Takes the directory for this process, clears away what an interrupted compaction left, finds the end of the
    /// journal and cuts a torn tail off.
    ///
    /// # Errors
    /// 55006 when another process has the directory; XX001 when a file is not as it was written.
    pub(crate) fn open(dir: &Path) -> Result<Recovered> {
        std::fs::create_dir_all(dir).map_err(|e| io_error(dir, "create", e))?;
        let lock = lock_directory(dir)?;
        let base = current(dir)?;
        let base_tick = base.as_ref().map_or(0, |b| b.tick);
        let mut segments = list(dir, base.as_ref())?;
        // Between the flip of CURRENT and the removal of what the base stands for.
        while segments.len() > 1 && segments[1].tick <= base_tick {
            let old = segments.remove(0);
            std::fs::remove_file(&old.path).map_err(|e| io_error(&old.path, "remove", e))?;
        }
        if let Some(first) = segments.first()
            && first.tick > base_tick
        {
            return Err(corrupted(
                &first.path,
                format!("the journal between ticks {base_tick} and {} is missing", first.tick),
            ));
        }
        let mut recovered = Recovered { lock, base, segments, last: base_tick, clean: true, torn_bytes: 0 };
        recovered.find_end()?;
        Ok(recovered)
    }

    /// All bytes of segments.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segments.iter().map(|s| s.bytes).sum()
    }

    /// Reads the last segment to its end.
    fn find_end(&mut self) -> Result<()> {
        let Some(segment) = self.segments.last_mut() else { return Ok(()) };
        self.last = self.last.max(segment.tick);
        let mut reader = RecordReader::open(&segment.path)?;
        if reader.after != Some(segment.tick) {
            // The file was created and its header never made it to the disk, so no record did either.
            let mut bytes = Vec::new();
            let read = File::open(&segment.path).and_then(|mut f| f.read_to_end(&mut bytes));
            read.map_err(|e| io_error(&segment.path, "read", e))?;
            if bytes.len() > FILE_HEADER_BYTES {
                return Err(corrupted(&segment.path, "its header is not a journal's"));
            }
            self.torn_bytes = bytes.len() as u64;
            std::fs::remove_file(&segment.path).map_err(|e| io_error(&segment.path, "remove", e))?;
            self.clean = false;
            self.segments.pop();
            return self.find_end();
        }
        let mut ended = false;
        let mut payload = Vec::new();
        while let Some(header) = reader.next(&mut payload)? {
            ended = header.kind == Kind::End;
            self.last = self.last.max(header.tick);
        }
        self.clean &= ended;
        if reader.at < reader.len {
            refuse_damage(&segment.path, reader.at, self.last)?;
            self.torn_bytes += reader.len - reader.at;
            self.clean = false;
            let file = File::options().write(true).open(&segment.path);
            file.and_then(|f| {
                f.set_len(reader.at)?;
                f.sync_all()
            })
            .map_err(|e| io_error(&segment.path, "cut the torn end off", e))?;
            segment.bytes = reader.at;
        }
        Ok(())
    }
}

/// Reads one file's records, oldest first.
pub(crate) struct RecordReader {
    pub(crate) path: PathBuf,
    file: File,
    len: u64,
    /// Where the next record begins.
    at: u64,
    /// The header's tick; `None`: the file does not begin with a header.
    after: Option<Tick>,
}

impl RecordReader {
    /// Opens a journal or base file.
    pub(crate) fn open(path: &Path) -> Result<RecordReader> {
        let file = File::open(path).map_err(|e| io_error(path, "open", e))?;
        let len = file.metadata().map_err(|e| io_error(path, "read", e))?.len();
        let mut header = [0; FILE_HEADER_BYTES];
        let after = match len >= FILE_HEADER_BYTES as u64 {
            true => {
                file.read_exact_at(&mut header, 0).map_err(|e| io_error(path, "read", e))?;
                parse_file_header(&header)
            }
            false => None,
        };
        Ok(RecordReader { path: path.to_path_buf(), file, len, at: FILE_HEADER_BYTES as u64, after })
    }

    /// The next record, its payload in `payload`; `None` at the end and at the first bytes that are no whole record,
    /// see [`RecordReader::finish`].
    pub(crate) fn next(&mut self, payload: &mut Vec<u8>) -> Result<Option<Header>> {
        let found = read_record(&self.file, &self.path, self.at, self.len, payload)?;
        if let Some(header) = &found {
            self.at += RECORD_HEADER_BYTES as u64 + header.payload_len;
        }
        Ok(found)
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.len
    }

    /// Where the next record begins.
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Whether the file begins as a journal's.
    pub(crate) fn has_header(&self) -> bool {
        self.after.is_some()
    }

    /// What is left after the last record of tick `last`: an error when it was more than a torn end.
    pub(crate) fn refuse_damage(&self, last: Tick) -> Result<()> {
        refuse_damage(&self.path, self.at, last)
    }

    /// Whether what is left is the beginning of a record.
    pub(crate) fn is_cut_off(&self) -> Result<bool> {
        let left = self.len - self.at;
        let mut bytes = [0; RECORD_HEADER_BYTES];
        if left < bytes.len() as u64 {
            return Ok(true);
        }
        self.file.read_exact_at(&mut bytes, self.at).map_err(|e| io_error(&self.path, "read", e))?;
        let said = Header::parse(&bytes).map(|header| header.payload_len);
        Ok(said.is_some_and(|payload| payload > left - bytes.len() as u64))
    }

    /// After the last record: an error unless the whole file was read.
    pub(crate) fn finish(&self) -> Result<()> {
        if self.after.is_none() {
            return Err(corrupted(&self.path, "its header is not a journal's"));
        }
        if self.at != self.len {
            return Err(corrupted(&self.path, format!("there is no record at byte {}", self.at)));
        }
        Ok(())
    }
}

/// The record at `at`, if a whole one is there.
fn read_record(file: &File, path: &Path, at: u64, len: u64, payload: &mut Vec<u8>) -> Result<Option<Header>> {
    if at + RECORD_HEADER_BYTES as u64 > len {
        return Ok(None);
    }
    let mut bytes = [0; RECORD_HEADER_BYTES];
    file.read_exact_at(&mut bytes, at).map_err(|e| io_error(path, "read", e))?;
    let Some(header) = Header::parse(&bytes) else { return Ok(None) };
    let start = at + RECORD_HEADER_BYTES as u64;
    if header.payload_len > len - start {
        return Ok(None);
    }
    // No longer than the file, so it is a sensible amount of memory.
    payload.resize(header.payload_len as usize, 0);
    file.read_exact_at(payload, start).map_err(|e| io_error(path, "read", e))?;
    Ok(header.check(payload))
}

/// Bytes at `at` are no record. When any record after them says that more than `last` was durable, something that
/// was acknowledged is damaged; otherwise it is a tail that never was.
fn refuse_damage(path: &Path, at: u64, last: Tick) -> Result<()> {
    let mut tail = Vec::new();
    let file = File::open(path).map_err(|e| io_error(path, "open", e))?;
    let len = file.metadata().map_err(|e| io_error(path, "read", e))?.len();
    tail.resize((len - at) as usize, 0);
    file.read_exact_at(&mut tail, at).map_err(|e| io_error(path, "read", e))?;
    for i in 1..tail.len() {
        let Some(header) = Header::parse(&tail[i..]) else { continue };
        let payload = &tail[i + RECORD_HEADER_BYTES..];
        let whole = usize::try_from(header.payload_len).ok().and_then(|n| payload.get(..n));
        let Some(header) = whole.and_then(|payload| header.check(payload)) else { continue };
        // An orderly end is only written once all before it is durable.
        if header.durable > last || header.kind == Kind::End {
            return Err(corrupted(path, format!("the record at byte {at} is not as it was written")));
        }
    }
    Ok(())
}

/// The base that CURRENT names.
fn current(dir: &Path) -> Result<Option<JournalFile>> {
    let path = dir.join(CURRENT);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => return Err(corrupted(&path, e)),
        Err(e) => return Err(io_error(&path, "read", e)),
    };
    let tick = parse_current(&text).ok_or_else(|| corrupted(&path, "it does not name a base"))?;
    let base = base_path(dir, tick);
    let bytes = std::fs::metadata(&base).map_err(|e| io_error(&base, "read", e))?.len();
    Ok(Some(JournalFile { path: base, tick, bytes }))
}

/// What CURRENT says when the base is as of `tick`.
pub(crate) fn current_text(tick: Tick) -> String {
    let tick = tick.to_string();
    format!("{tick} {:08x}\n", crc32fast::hash(tick.as_bytes()))
}

/// The tick of the base that CURRENT names.
pub(crate) fn parse_current(text: &str) -> Option<Tick> {
    let (tick, _) = text.split_once(' ')?;
    let tick = tick.parse().ok()?;
    (text == current_text(tick)).then_some(tick)
}

/// All segments, oldest first. Bases that are not the current one, and half-written files, are removed.
fn list(dir: &Path, base: Option<&JournalFile>) -> Result<Vec<JournalFile>> {
    let mut segments = Vec::new();
    let mut removed = false;
    for entry in std::fs::read_dir(dir).map_err(|e| io_error(dir, "read", e))? {
        let entry = entry.map_err(|e| io_error(dir, "read", e))?;
        let path = entry.path();
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(tick) = name.strip_prefix("segment-").and_then(|t| t.parse().ok()) {
            let bytes = entry.metadata().map_err(|e| io_error(&path, "read", e))?.len();
            segments.push(JournalFile { path, tick, bytes });
        } else if (name.starts_with("base-") && base.is_none_or(|b| b.path != path)) || name.ends_with(".tmp")
        {
            std::fs::remove_file(&path).map_err(|e| io_error(&path, "remove", e))?;
            removed = true;
        }
    }
    if removed {
        sync_dir(dir)?;
    }
    segments.sort_by_key(|s| s.tick);
    Ok(segments)
}
