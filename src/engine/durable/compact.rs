//! Keeping the journal short: inputs' rows as of one tick take the place of all records up to it.
//!
//! A base is written beside the running ticks. It takes effect when CURRENT names it, which waits until nobody needs
//! to go back to a tick before it; then what it stands for is removed. A crash at any moment leaves either the old
//! base with all segments, or the new one.
//!
//! What a view has given of windows that are closed cannot be told from its inputs' rows, so it is in the base as well.
//!
//! Rows of inputs that keep none are still needed to bring their views back, so their records are carried over
//! as they are, from base to base: such inputs make the base, and every restart, longer for ever.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::journal::base_path;
use super::record::{Changes, Kind, RecordWriter, Section, file_header};
use super::recover::{CURRENT, JournalFile, RecordReader, current_text};
use super::{io_error, sync_dir};
use crate::engine::runtime::core::{self, Command, Core};
use crate::engine::runtime::shared::Shared;
use crate::engine::serve::snapshot::EngineSnapshot;
use crate::engine::{CollectionId, Tick};
use crate::error::{Error, Result};
use crate::world;

/// What the tick thread knows of compactions.
#[derive(Default)]
pub(crate) struct Compactor {
    base: Option<JournalFile>,
    /// Complete segments, oldest first.
    segments: Vec<JournalFile>,
    thread: Option<JoinHandle<()>>,
    /// The journal's size at which the next try is made after one that failed.
    retry_at: u64,
    error: Option<Error>,
}

/// A compaction that has come to its end.
#[derive(Debug)]
pub(crate) struct Compacted {
    base: JournalFile,
    /// The segments that it made superfluous.
    removed: Vec<JournalFile>,
}

/// What a compaction works on; nothing in it changes.
struct Job {
    dir: PathBuf,
    tick: Tick,
    snapshot: Arc<EngineSnapshot>,
    progress: Vec<(String, Vec<u8>)>,
    /// Inputs whose rows are in the snapshot, and views of which the base must tell what they have given.
    kept: Vec<CollectionId>,
    /// Inputs whose records are carried over.
    passing: BTreeSet<CollectionId>,
    base: Option<JournalFile>,
    segments: Vec<JournalFile>,
}

impl Compactor {
    /// The files there are.
    pub(crate) fn start(&mut self, base: Option<JournalFile>, segments: Vec<JournalFile>) {
        self.base = base;
        self.segments = segments;
    }

    /// The tick that the base stands for.
    pub(crate) fn base_tick(&self) -> Tick {
        self.base.as_ref().map_or(0, |b| b.tick)
    }

    /// Bytes of the base.
    pub(crate) fn base_bytes(&self) -> u64 {
        self.base.as_ref().map_or(0, |b| b.bytes)
    }

    /// Why the last compaction did not succeed.
    pub(crate) fn error(&self) -> Option<Error> {
        self.error.clone()
    }

    /// Waits for the compaction that runs, if any.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the compaction thread panicked");
        }
    }
}

impl Core {
    /// Begins a compaction when the journal has become long against what it stands for.
    pub(crate) fn compact_if_due(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        self.compactor.segments.extend(journal.take_completed());
        let due = self
            .shared
            .config
            .compact_bytes_min
            .max(2 * self.compactor.base_bytes())
            .max(self.compactor.retry_at);
        if self.compactor.thread.is_some() || journal.segment_bytes() < due {
            return;
        }
        if let Err(error) = journal.roll(self.tick) {
            self.compaction_failed(error);
            return;
        }
        self.compactor.segments.extend(journal.take_completed());
        let (kept, passing) = self
            .collections
            .iter()
            .filter(|(_, c)| matches!(c.kind, core::Kind::Input { .. }))
            .map(|(id, c)| (*id, c.keeps_rows()))
            .partition::<Vec<_>, _>(|(_, keeps)| *keeps);
        let dir = journal.dir().to_path_buf();
        let mut progress = self.shared.progress.last();
        let closing = self.closed_for_base(&mut progress);
        let job = Job {
            dir,
            tick: self.tick,
            snapshot: self.shared.snapshot.load_full(),
            progress,
            kept: kept.into_iter().map(|(id, _)| id).chain(closing).collect(),
            passing: passing.into_iter().map(|(id, _)| id).collect(),
            base: self.compactor.base.clone(),
            segments: self.compactor.segments.clone(),
        };
        let shared = Arc::clone(&self.shared);
        let run = move || {
            if let Some(result) = job.run(&shared).transpose() {
                // When the tick thread is gone, the next start finds what was done.
                let _ = shared.inbox.command(Command::Compacted(result));
            }
        };
        match std::thread::Builder::new().name("tidemill-compact".to_string()).spawn(run) {
            Ok(thread) => self.compactor.thread = Some(thread),
            Err(e) => self.compaction_failed(e.into()),
        }
    }

    /// The end of a compaction.
    pub(crate) fn compacted(&mut self, result: Result<Compacted>) {
        self.compactor.join();
        let done = match result {
            Ok(done) => done,
            Err(error) => return self.compaction_failed(error),
        };
        self.compactor.error = None;
        self.compactor.retry_at = 0;
        self.compactor.segments.retain(|s| !done.removed.contains(s));
        self.compactor.base = Some(done.base);
        if let Some(journal) = &mut self.journal {
            journal.removed(done.removed.iter().map(|s| s.bytes).sum());
        }
    }

    /// Nothing is lost; it is tried again when the journal is longer by half.
    fn compaction_failed(&mut self, error: Error) {
        tracing::warn!(%error, "the journal could not be compacted");
        self.compactor.error = Some(error);
        self.compactor.retry_at = self.journal.as_ref().map_or(0, |j| j.segment_bytes() / 2 * 3);
    }
}

impl Job {
    /// Writes the base, waits until it may take effect, lets it. `None`: it was over before that.
    fn run(self, shared: &Shared) -> Result<Option<Compacted>> {
        let path = base_path(&self.dir, self.tick);
        match self.write(&path, shared) {
            Ok(true) => {}
            unfinished => {
                // Half a base takes up room and is never read; the next start tries to remove it again.
                let _ = fs::remove_file(&path);
                return unfinished.map(|_| None);
            }
        }
        world::crash_point("compact.written");
        if !shared.holds.wait_past(self.tick) {
            return Ok(None);
        }
        let bytes = fs::metadata(&path).map_err(|e| io_error(&path, "read", e))?.len();
        self.flip()?;
        world::crash_point("compact.flipped");
        for old in self.segments.iter().chain(&self.base) {
            fs::remove_file(&old.path).map_err(|e| io_error(&old.path, "remove", e))?;
        }
        sync_dir(&self.dir)?;
        Ok(Some(Compacted { base: JournalFile { path, tick: self.tick, bytes }, removed: self.segments }))
    }

    /// Writes the base; false when it was over before that.
    fn write(&self, path: &Path, shared: &Shared) -> Result<bool> {
        let file = File::create(path).map_err(|e| io_error(path, "create", e))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut put = |bytes: &[u8]| out.write_all(bytes).map_err(|e| io_error(path, "write", e));
        let mut writer = RecordWriter::default();
        put(&file_header(self.tick))?;
        for old in self.base.iter().chain(&self.segments) {
            self.carry_over(old, &mut writer, &mut put)?;
        }
        for id in &self.kept {
            let Some(collection) = self.snapshot.collection(*id) else { continue };
            for delta in collection.deltas()? {
                if shared.holds.stopped() {
                    return Ok(false);
                }
                put(writer.changes(self.tick, self.tick, &[], &[(*id, &[delta])])?)?;
            }
        }
        put(writer.changes(self.tick, self.tick, &self.progress, &[])?)?;
        put(writer.mark(Kind::End, self.tick, self.tick))?;
        let file = out.into_inner().map_err(|e| io_error(path, "write", e.into_error()))?;
        file.sync_all().map_err(|e| io_error(path, "fsync", e))?;
        sync_dir(&self.dir)?;
        Ok(true)
    }

    /// Copies the records of inputs that keep no rows, and what says who sees them.
    fn carry_over(
        &self,
        old: &JournalFile,
        writer: &mut RecordWriter,
        put: &mut impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        if self.passing.is_empty() {
            return Ok(());
        }
        let mut reader = RecordReader::open(&old.path)?;
        let mut payload = Vec::new();
        while let Some(header) = reader.next(&mut payload)? {
            match header.kind {
                Kind::Changes => {
                    let changes = Changes::parse(&payload, &old.path)?;
                    let sections: Vec<Section<'_>> = changes
                        .sections
                        .into_iter()
                        .filter(|s| self.passing.contains(&s.collection))
                        .collect();
                    if !sections.is_empty() {
                        put(writer.copied(header.tick, header.tick, &sections)?)?;
                    }
                }
                Kind::Attach(_) => put(writer.mark(header.kind, header.tick, header.tick))?,
                Kind::End => {}
            }
        }
        reader.finish()
    }

    /// Makes the base the current one.
    fn flip(&self) -> Result<()> {
        let current = self.dir.join(CURRENT);
        let temporary = self.dir.join("CURRENT.tmp");
        let written = File::create(&temporary).and_then(|mut file| {
            file.write_all(current_text(self.tick).as_bytes())?;
            file.sync_all()
        });
        written.map_err(|e| io_error(&temporary, "write", e))?;
        fs::rename(&temporary, &current).map_err(|e| io_error(&current, "replace", e))?;
        sync_dir(&self.dir)
    }
}
