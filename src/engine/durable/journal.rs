//! The writing end: records are appended to the newest segment; a failed append leaves no trace.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::record::{FILE_HEADER_BYTES, Kind, RecordWriter, file_header};
use super::recover::JournalFile;
use super::sync::Durability;
use super::{io_error, sync_dir};
use crate::engine::{CollectionId, Delta, Tick};
use crate::error::{Error, Result};
use crate::world;

/// A segment that has grown beyond this is followed by a new one.
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// The journal of one data directory, as the tick thread writes it.
pub(crate) struct Journal {
    dir: PathBuf,
    segment: Segment,
    writer: RecordWriter,
    durability: Arc<Durability>,
    sync_thread: Option<JoinHandle<()>>,
    /// Bytes of all segments, the newest one included.
    segment_bytes: u64,
    /// Bytes of all changes written since it was started.
    written: u64,
    completed: Vec<JournalFile>,
    /// The directory is ours as long as this file is open.
    _lock: File,
}

struct Segment {
    path: PathBuf,
    file: Arc<File>,
    len: u64,
    /// The tick that its first record follows.
    after: Tick,
}

impl Journal {
    /// Goes on writing in `dir`, whose `lock` is held, in a new segment after `tick`.
    /// `segment_bytes` is what the segments before it hold.
    pub(crate) fn start(
        dir: &Path,
        lock: File,
        tick: Tick,
        segment_bytes: u64,
        durability: Arc<Durability>,
    ) -> Result<Journal> {
        let segment = Segment::create(dir, tick)?;
        let sync = Arc::clone(&durability);
        let sync_thread = std::thread::Builder::new()
            .name("tidemill-fsync".to_string())
            .spawn(move || sync.run())
            .map_err(|e| io_error(dir, "start the fsync thread for", e))?;
        Ok(Journal {
            dir: dir.to_path_buf(),
            segment_bytes: segment_bytes + segment.len,
            segment,
            writer: RecordWriter::default(),
            durability,
            sync_thread: Some(sync_thread),
            written: 0,
            completed: Vec::new(),
            _lock: lock,
        })
    }

    /// Writes a tick. When it fails nothing was written, and the tick may be tried again.
    pub(crate) fn append(
        &mut self,
        tick: Tick,
        progress: &[(String, Vec<u8>)],
        changes: &[(CollectionId, &[Delta])],
    ) -> Result<()> {
        self.durability.admit(tick)?;
        if self.segment.len > SEGMENT_BYTES_MAX {
            self.roll(tick - 1)?;
        }
        let record = self.writer.changes(tick, self.durability.durable(), progress, changes)?;
        let bytes = self.segment.append(record, &self.durability)?;
        self.segment_bytes += bytes;
        self.written += bytes;
        world::crash_point("journal.append");
        self.durability.written(tick, Some((&self.segment.path, &self.segment.file)));
        Ok(())
    }

    /// Writes that a view follows inputs that keep no rows from `tick` on.
    pub(crate) fn attach(&mut self, view: CollectionId, tick: Tick) -> Result<()> {
        self.durability.admit(tick)?;
        let record = self.writer.mark(Kind::Attach(view), tick, self.durability.durable());
        self.segment_bytes += self.segment.append(record, &self.durability)?;
        self.durability.written(tick, Some((&self.segment.path, &self.segment.file)));
        Ok(())
    }

    /// Begins a new segment after `tick`, the last one written; what was written before is then in complete files.
    pub(crate) fn roll(&mut self, tick: Tick) -> Result<()> {
        if self.segment.after == tick {
            // Nothing was written to it yet.
            return Ok(());
        }
        let segment = Segment::create(&self.dir, tick).inspect_err(|_| {
            // A segment without a header must not stand between others.
            let path = segment_path(&self.dir, tick);
            if let Err(e) = std::fs::remove_file(&path)
                && e.kind() != std::io::ErrorKind::NotFound
            {
                self.durability.poison(io_error(&path, "remove", e));
            }
        })?;
        self.segment_bytes += segment.len;
        let complete = std::mem::replace(&mut self.segment, segment);
        self.completed.push(JournalFile { path: complete.path, tick: complete.after, bytes: complete.len });
        Ok(())
    }

    /// The segments that were completed since the last call, oldest first.
    pub(crate) fn take_completed(&mut self) -> Vec<JournalFile> {
        std::mem::take(&mut self.completed)
    }

    /// Bytes of all segments.
    pub(crate) fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// Bytes of all changes written since it was started.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// So many bytes of old segments were removed.
    pub(crate) fn removed(&mut self, bytes: u64) {
        self.segment_bytes = self.segment_bytes.saturating_sub(bytes);
    }

    /// Where the files are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Marks the end of the last tick, makes everything durable and lets go of the directory.
    pub(crate) fn close(mut self, tick: Tick) -> Result<()> {
        let ended = self.durability.wait(tick).and_then(|()| {
            let record = self.writer.mark(Kind::End, tick, tick);
            self.segment.append(record, &self.durability)?;
            self.durability.written(tick, Some((&self.segment.path, &self.segment.file)));
            Ok(())
        });
        self.stop_thread();
        ended
    }

    fn stop_thread(&mut self) {
        self.durability.stop();
        if let Some(thread) = self.sync_thread.take()
            && thread.join().is_err()
        {
            self.durability.poison(Error::internal("the fsync thread panicked"));
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop_thread();
    }
}

impl Segment {
    fn create(dir: &Path, after: Tick) -> Result<Segment> {
        let path = segment_path(dir, after);
        // A segment of that name holds no record, or its last tick would be a later one: it may be written over.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .map_err(|e| io_error(&path, "create", e))?;
        file.write_all_at(&file_header(after), 0).map_err(|e| io_error(&path, "write", e))?;
        file.sync_all().map_err(|e| io_error(&path, "fsync", e))?;
        sync_dir(dir)?;
        Ok(Segment { path, file: Arc::new(file), len: FILE_HEADER_BYTES as u64, after })
    }

    /// Appends whole or not at all; answers with the number of bytes.
    fn append(&mut self, record: &[u8], durability: &Durability) -> Result<u64> {
        if let Err(e) = self.file.write_all_at(record, self.len) {
            let error = io_error(&self.path, "write", e);
            // What was written of it must not stand before the next record.
            if let Err(e) = self.file.set_len(self.len) {
                durability.poison(io_error(&self.path, "truncate", e));
            }
            return Err(error);
        }
        self.len += record.len() as u64;
        Ok(record.len() as u64)
    }
}

/// The name of the segment whose first record follows `after`.
pub(crate) fn segment_path(dir: &Path, after: Tick) -> PathBuf {
    dir.join(format!("segment-{after:020}"))
}

/// The name of the base as of `tick`.
pub(crate) fn base_path(dir: &Path, tick: Tick) -> PathBuf {
    dir.join(format!("base-{tick:020}"))
}
