//! Checkpoints: the state of the views' nodes as of one tick, so that a restart need not compute them again.
//!
//! ```text
//! journal/checkpoint-<tick>    header, the files of tiles, then one record a node, then one that says how many there are
//! journal/state-<number>       the tiles of rows that had not been written for a checkpoint before, see [`tiles`]
//! ```
//! A checkpoint only saves time: the journal alone brings everything back, and does where there is no checkpoint that
//! fits. It fits when the journal's base is not later and its end is not earlier, when nobody has to go back to a tick
//! before it, and when the same program wrote it: another one may keep its state in another form.
//! It is written beside the running ticks, under a name that is not read, and renamed when it is whole and its tick is
//! durable. Those before it go, but for the newest one of the time to which somebody may have to go back.

mod tiles;

use std::collections::{BTreeSet, VecDeque};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, UNIX_EPOCH};

use parking_lot::Mutex;

pub(crate) use self::tiles::{Known, condition as condition_of_tiles};
use self::tiles::{TileReader, TileWriter};
use super::inspect::Condition;
use super::{corrupted, io_error, sync_dir};
use crate::engine::runtime::circuit::resume::{Identity, NodeState};
use crate::engine::runtime::core::{Command, Core};
use crate::engine::runtime::shared::Shared;
use crate::engine::state::{Restored, Saved};
use crate::engine::{CheckpointStats, CollectionId, Tick};
use crate::error::{Error, Result};
use crate::world;

/// The first bytes of every file; the last one is the format's version.
const MAGIC: [u8; 8] = *b"TDMLCKP\x02";
/// Magic, program, tick, time, checksum.
pub(crate) const HEADER_BYTES: usize = 8 + 16 + 8 + 8 + 4;
/// Length of payload, identity, checksum of both and the payload.
const RECORD_HEADER_BYTES: usize = 8 + 16 + 4;
/// The identity of the last record, whose payload is the number of those before it.
const END: Identity = Identity([0; 16]);
/// The identity of the first record, whose payload are the numbers of the files of tiles.
const FILES: Identity = Identity([0xff; 16]);
/// A checkpoint when the server stops is worth it from this part of [`crate::engine::EngineConfig::checkpoint_bytes_min`].
const LAST_PART: u64 = 16;

/// So many checkpoints are told of.
const TOLD_MAX: usize = 32;

/// A file that may be taken up.
#[derive(Clone, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) path: PathBuf,
    pub(crate) tick: Tick,
    /// The time of that tick, in microseconds since 1970.
    pub(crate) now: i64,
}

/// What the tick thread knows of checkpoints.
#[derive(Default)]
pub(crate) struct Checkpointer {
    thread: Option<JoinHandle<()>>,
    /// Of the last one: its tick, the bytes that were written for it, and how much had been written to the journal by
    /// then.
    last: Tick,
    last_bytes: u64,
    written: u64,
    /// What was written for the last one that was written whole, and for those before it.
    known: Arc<Mutex<Known>>,
    told: VecDeque<CheckpointStats>,
}

/// What a checkpoint is written of.
struct Job {
    dir: PathBuf,
    tick: Tick,
    now: i64,
    workers: usize,
    nodes: Vec<NodeState<Saved>>,
    known: Arc<Mutex<Known>>,
    paused: Duration,
}

/// Bytes of a checkpoint.
#[derive(Default)]
struct Size {
    written: u64,
    /// In files that were there before.
    referred: u64,
}

impl Checkpointer {
    /// A checkpoint was taken up, whose tiles are known.
    pub(crate) fn start(&mut self, restored: CheckpointStats, known: Known) {
        self.last = restored.tick;
        *self.known.lock() = known;
        self.tell(restored);
    }

    /// What became of the last ones.
    pub(crate) fn told(&self) -> Vec<CheckpointStats> {
        self.told.iter().cloned().collect()
    }

    fn tell(&mut self, checkpoint: CheckpointStats) {
        self.told.push_back(checkpoint);
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
    }

    /// Waits for the checkpoint that is being written, if any.
    pub(crate) fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the checkpoint thread panicked");
        }
    }
}

impl Core {
    /// Begins a checkpoint when the journal has grown enough since the last one.
    pub(crate) fn checkpoint_if_due(&mut self) {
        let Some(journal) = &self.journal else { return };
        let due = self.shared.config.checkpoint_bytes_min.max(self.checkpointer.last_bytes / 2);
        // One before the base is of no use any more.
        let stale = self.checkpointer.last < self.compactor.base_tick();
        let grown = journal.written() - self.checkpointer.written;
        if grown < due && !stale || self.checkpointer.last == self.tick {
            return;
        }
        if self.checkpointer.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return;
        }
        (self.checkpointer.written, self.checkpointer.last) = (journal.written(), self.tick);
        self.checkpointer.join();
        let Some(job) = self.freeze() else { return };
        let shared = Arc::clone(&self.shared);
        let run = move || {
            let done = job.run(&shared);
            if let (None, Some(dir)) = (&done.error, &shared.config.dir) {
                remove_useless(dir, shared.holds.oldest());
            }
            // When the tick thread is gone, nobody needs the answer.
            let _ = shared.inbox.command(Command::Checkpointed(done));
        };
        match std::thread::Builder::new().name("tidemill-checkpoint".to_string()).spawn(run) {
            Ok(thread) => self.checkpointer.thread = Some(thread),
            Err(error) => tracing::warn!(%error, "no checkpoint could be written"),
        }
    }

    /// The end of a checkpoint. One that failed is tried again when the journal has grown as much again.
    pub(crate) fn checkpointed(&mut self, done: CheckpointStats) {
        match &done.error {
            None => {
                tracing::debug!(tick = done.tick, bytes = done.bytes_written, took = ?done.took, "checkpoint written");
                self.checkpointer.last_bytes = done.bytes_written;
            }
            Some(error) => tracing::warn!(%error, "no checkpoint could be written"),
        }
        self.checkpointer.tell(done);
    }

    /// Before the journal is closed in order: a checkpoint of the last tick, if that saves the next start any work.
    pub(crate) fn last_checkpoint(&mut self) {
        self.checkpointer.join();
        let Some(journal) = &self.journal else { return };
        let grown = journal.written() - self.checkpointer.written;
        let due = grown >= self.shared.config.checkpoint_bytes_min / LAST_PART;
        if due && self.checkpointer.last != self.tick {
            let Some(job) = self.freeze() else { return };
            if let Some(error) = job.run(&self.shared).error {
                tracing::warn!(%error, "no checkpoint could be written");
                return;
            }
            self.checkpointer.last = self.tick;
        }
        if let Some(dir) = &self.shared.config.dir {
            remove_useless(dir, self.shared.holds.oldest());
        }
    }

    fn freeze(&self) -> Option<Job> {
        let started = world::instant();
        let dir = self.shared.config.dir.clone()?;
        let nodes = match self.circuit.save() {
            Ok(nodes) if nodes.is_empty() => return None,
            Ok(nodes) => nodes,
            Err(error) => {
                tracing::warn!(%error, "no checkpoint could be taken");
                return None;
            }
        };
        let workers = self.shared.config.workers;
        let paused = world::instant().duration_since(started);
        let known = Arc::clone(&self.checkpointer.known);
        Some(Job { dir, tick: self.tick, now: self.now, workers, nodes, known, paused })
    }
}

impl Job {
    /// Writes the file and, once its tick is durable, lets it be found.
    fn run(self, shared: &Shared) -> CheckpointStats {
        let started = world::instant();
        let (size, error) = match self.write_and_name(shared) {
            Ok(size) => (size, None),
            Err(error) => (Size::default(), Some(error)),
        };
        CheckpointStats {
            tick: self.tick,
            restored: false,
            at_micros: world::now_micros(),
            nodes: self.nodes.len(),
            bytes: size.written + size.referred,
            bytes_written: size.written,
            paused: self.paused,
            took: world::instant().duration_since(started),
            error,
        }
    }

    fn write_and_name(&self, shared: &Shared) -> Result<Size> {
        let path = path_of(&self.dir, self.tick);
        let temporary = path.with_extension("tmp");
        let mut known = self.known.lock();
        // Not the tick: a checkpoint of the same tick, which a start has left out, may refer to rows of that number, and
        // must not find others there when this one is not finished.
        let rows = world::uuid().as_u64_pair().0;
        let finish = || {
            let (next, size) = self.write(&temporary, rows, &known)?;
            world::crash_point("checkpoint.written");
            shared.durability.wait(self.tick)?;
            // What it refers to is there before it is.
            sync_dir(&self.dir)?;
            fs::rename(&temporary, &path).map_err(|e| io_error(&path, "create", e))?;
            Ok((next, size))
        };
        let (next, size) = finish().inspect_err(|_: &Error| {
            // Half a file takes up room and is never read; the next start tries to remove it again.
            let _ = fs::remove_file(&temporary);
            tiles::remove(&self.dir, rows);
        })?;
        *known = next;
        sync_dir(&self.dir)?;
        world::crash_point("checkpoint.renamed");
        Ok(size)
    }

    /// `rows` is the number of the file of tiles.
    fn write(&self, path: &Path, rows: u64, known: &Known) -> Result<(Known, Size)> {
        let file = File::create(path).map_err(|e| io_error(path, "create", e))?;
        let mut out = BufWriter::with_capacity(1 << 20, file);
        let mut written = 0;
        let mut put = |bytes: &[u8]| {
            written += bytes.len() as u64;
            out.write_all(bytes).map_err(|e| io_error(path, "write", e))
        };
        let mut header = [&MAGIC[..], &program(self.workers).0].concat();
        header.extend_from_slice(&self.tick.to_le_bytes());
        header.extend_from_slice(&self.now.to_le_bytes());
        header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
        put(&header)?;
        let all = self.nodes.iter().flat_map(|node| node.state.tiles());
        let mut tiles = TileWriter::new(&self.dir, rows, known, all);
        let mut payload: Vec<u8> = tiles.files().flat_map(u64::to_le_bytes).collect();
        put(&record_header(FILES, &payload))?;
        put(&payload)?;
        for node in &self.nodes {
            payload.clear();
            payload.extend_from_slice(&(node.owners.len() as u64).to_le_bytes());
            node.owners.iter().for_each(|owner| payload.extend_from_slice(&owner.0.to_le_bytes()));
            node.state.encode(&mut payload, |tile| tiles.place(tile))?;
            put(&record_header(node.identity, &payload))?;
            put(&payload)?;
        }
        let count = (self.nodes.len() as u64).to_le_bytes();
        put(&record_header(END, &count))?;
        put(&count)?;
        let file = out.into_inner().map_err(|e| io_error(path, "write", e.into_error()))?;
        file.sync_all().map_err(|e| io_error(path, "fsync", e))?;
        world::crash_point("checkpoint.tiles");
        let (next, of_tiles, referred) = tiles.finish()?;
        Ok((next, Size { written: written + of_tiles, referred }))
    }
}

fn record_header(identity: Identity, payload: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..8].copy_from_slice(&(payload.len() as u64).to_le_bytes());
    header[8..24].copy_from_slice(&identity.0);
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..24]);
    crc.update(payload);
    header[24..].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

/// The program that runs, with what else decides about the form of its state.
fn program(workers: usize) -> Identity {
    // Looked at once, at the start: later another program may have its name.
    static FILE: LazyLock<Option<(u64, Duration)>> = LazyLock::new(|| {
        let file = std::env::current_exe().and_then(fs::metadata).ok()?;
        Some((file.len(), file.modified().ok()?.duration_since(UNIX_EPOCH).ok()?))
    });
    Identity::of(&format!("{:?} {workers}", *FILE))
}

impl Checkpoint {
    /// The files of a directory that this program, with so many workers, wrote between two ticks; the newest first. All
    /// others are of no use any more, and go.
    pub(crate) fn list(dir: &Path, from: Tick, to: Tick, workers: usize) -> Result<Vec<Checkpoint>> {
        let mut found = Vec::new();
        for (path, tick) in files(dir)? {
            let checkpoint = Checkpoint::open(&path, workers).filter(|c| c.tick == tick);
            match checkpoint.filter(|c| (from..=to).contains(&c.tick)) {
                Some(checkpoint) => found.push(checkpoint),
                None => fs::remove_file(&path).map_err(|e| io_error(&path, "remove", e))?,
            }
        }
        found.sort_by_key(|c| std::cmp::Reverse(c.tick));
        if let Err(error) = remove_tiles(dir, found.iter().map(|c| c.path.as_path())) {
            tracing::warn!(%error, "what no checkpoint refers to could not be removed");
        }
        Ok(found)
    }

    /// What the header says, if it is one of this program.
    pub(crate) fn open(path: &Path, workers: usize) -> Option<Checkpoint> {
        let mut header = [0; HEADER_BYTES];
        File::open(path).and_then(|mut file| file.read_exact(&mut header)).ok()?;
        let (said, crc) = header.split_at(HEADER_BYTES - 4);
        let (magic, rest) = said.split_first_chunk::<8>()?;
        let (by, rest) = rest.split_first_chunk::<16>()?;
        let (tick, rest) = rest.split_first_chunk::<8>()?;
        let now = rest.first_chunk::<8>()?;
        (crc32fast::hash(said).to_le_bytes() == crc && *magic == MAGIC && Identity(*by) == program(workers))
            .then(|| Checkpoint {
                path: path.to_path_buf(),
                tick: Tick::from_le_bytes(*tick),
                now: i64::from_le_bytes(*now),
            })
    }

    /// Whether all is as it was written.
    pub(crate) fn condition(&self) -> Result<Condition> {
        let file = File::open(&self.path).map_err(|e| io_error(&self.path, "open", e))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        reader.seek_relative(HEADER_BYTES as i64).map_err(|e| io_error(&self.path, "read", e))?;
        let all = self.bytes().saturating_sub(HEADER_BYTES as u64);
        let (mut rest, mut count) = (all, 0);
        loop {
            let before = rest;
            let next = match count {
                0 => read_files(&mut reader, &mut rest, &self.path).map(|_| true),
                _ => read_record(&mut reader, &mut rest, count - 1, &self.path)
                    .map(|(_, record)| record.is_some()),
            };
            match next {
                Ok(true) => count += 1,
                Ok(false) => return Ok(Condition::Sound),
                // It is taken off what is left once it is known to be there.
                Err(_) if rest == before => {
                    return Ok(Condition::Truncated(HEADER_BYTES as u64 + all - before));
                }
                Err(_) => return Ok(Condition::Corrupt(HEADER_BYTES as u64 + all - before)),
            }
        }
    }

    /// Bytes of the file.
    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(&self.path).map_or(0, |file| file.len())
    }

    /// Gives the nodes' states to `take_up`; answers with what that gives, where the tiles are that were read, and how
    /// many bytes all has.
    ///
    /// # Errors
    /// XX001 in the place of a state that is not as it was written; then it is over.
    pub(crate) fn states<T>(
        &self,
        take_up: impl FnOnce(&mut dyn Iterator<Item = Result<NodeState<Restored>>>) -> Result<T>,
    ) -> Result<(T, Known, u64)> {
        let file = File::open(&self.path).map_err(|e| io_error(&self.path, "open", e))?;
        let mut reader = BufReader::with_capacity(1 << 20, file);
        let mut rest = self.bytes().saturating_sub(HEADER_BYTES as u64);
        reader.seek_relative(HEADER_BYTES as i64).map_err(|e| io_error(&self.path, "read", e))?;
        read_files(&mut reader, &mut rest, &self.path)?;
        let mut tiles = TileReader::new(self.path.parent().unwrap_or(Path::new(".")));
        let (mut count, mut over) = (0u64, false);
        let mut states = std::iter::from_fn(|| {
            if over {
                return None;
            }
            let state = read_state(&mut reader, &mut rest, count, &self.path, &mut tiles).transpose();
            count += 1;
            over = !matches!(state, Some(Ok(_)));
            state
        });
        let taken_up = take_up(&mut states)?;
        let known = tiles.known();
        let bytes = self.bytes() + known.bytes();
        Ok((taken_up, known, bytes))
    }
}

/// Whether these bytes are the header of a checkpoint, by whatever program.
pub(crate) fn is_header(bytes: &[u8]) -> bool {
    let Some((said, crc)) = bytes.split_at_checked(HEADER_BYTES - 4) else { return false };
    said.starts_with(&MAGIC) && crc.get(..4) == Some(&crc32fast::hash(said).to_le_bytes()[..])
}

/// The record that comes next, behind `count` nodes: its identity, and what it says; `None` at the end.
fn read_record(
    file: &mut impl Read,
    rest: &mut u64,
    count: u64,
    path: &Path,
) -> Result<(Identity, Option<Vec<u8>>)> {
    let damaged = || corrupted(path, format!("node {count} is not as it was written"));
    let mut header = [0; RECORD_HEADER_BYTES];
    file.read_exact(&mut header).map_err(|_| damaged())?;
    let (len, identity) = header.split_first_chunk::<8>().ok_or_else(damaged)?;
    let len = u64::from_le_bytes(*len);
    let identity = Identity(*identity.first_chunk::<16>().ok_or_else(damaged)?);
    // No longer than the file, so it is a sensible amount of memory.
    let whole = len.checked_add(RECORD_HEADER_BYTES as u64).ok_or_else(damaged)?;
    *rest = rest.checked_sub(whole).ok_or_else(damaged)?;
    let mut payload = vec![0; len as usize];
    file.read_exact(&mut payload).map_err(|_| damaged())?;
    if record_header(identity, &payload) != header {
        return Err(damaged());
    }
    if identity != END {
        return Ok((identity, Some(payload)));
    }
    if payload == count.to_le_bytes() && *rest == 0 { Ok((identity, None)) } else { Err(damaged()) }
}

/// The first record: the files of tiles that the others may refer to.
fn read_files(file: &mut impl Read, rest: &mut u64, path: &Path) -> Result<Vec<u64>> {
    match read_record(file, rest, 0, path)? {
        (FILES, Some(files)) => {
            let (files, _) = files.as_chunks::<8>();
            Ok(files.iter().map(|file| u64::from_le_bytes(*file)).collect())
        }
        _ => Err(corrupted(path, "it does not say where its rows are")),
    }
}

/// The state that comes next, the `count`th; `None` at the end.
fn read_state(
    file: &mut impl Read,
    rest: &mut u64,
    count: u64,
    path: &Path,
    tiles: &mut TileReader,
) -> Result<Option<NodeState<Restored>>> {
    let damaged = || corrupted(path, format!("node {count} is not as it was written"));
    let (identity, Some(payload)) = read_record(file, rest, count, path)? else { return Ok(None) };
    let (number, mut payload) = payload.split_first_chunk::<8>().ok_or_else(damaged)?;
    let mut owners = Vec::new();
    for _ in 0..u64::from_le_bytes(*number) {
        let (owner, others) = payload.split_first_chunk::<8>().ok_or_else(damaged)?;
        owners.push(CollectionId(u64::from_le_bytes(*owner)));
        payload = others;
    }
    Ok(Some(NodeState { identity, owners, state: Restored::decode(payload, |place| tiles.read(place))? }))
}

/// The name of the checkpoint of `tick`.
fn path_of(dir: &Path, tick: Tick) -> PathBuf {
    dir.join(format!("checkpoint-{tick:020}"))
}

/// The checkpoints of a directory, by name.
fn files(dir: &Path) -> Result<Vec<(PathBuf, Tick)>> {
    numbered(dir, "checkpoint-")
}

/// The files of a directory whose names are this and a number.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(|e| io_error(dir, "read", e))? {
        let path = entry.map_err(|e| io_error(dir, "read", e))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if let Some(number) = name.and_then(|n| n.strip_prefix(prefix)).and_then(|t| t.parse().ok()) {
            found.push((path, number));
        }
    }
    Ok(found)
}

/// Removes the checkpoints that no start will take up: all but the newest one, and the newest one that is not after the
/// tick that somebody `holds`. Those between the two become of use only when newer ones have come, too.
fn remove_useless(dir: &Path, holds: Option<Tick>) {
    let mut found = files(dir).unwrap_or_default();
    found.sort_by_key(|(_, tick)| *tick);
    let newest = found.pop();
    let held = holds.filter(|held| newest.as_ref().is_some_and(|(_, tick)| tick > held));
    let held = held.and_then(|held| found.iter().rposition(|(_, tick)| *tick <= held));
    let held = held.map(|at| found.remove(at));
    for (path, _) in found {
        if let Err(error) = fs::remove_file(&path) {
            tracing::warn!(path = %path.display(), %error, "an old checkpoint could not be removed");
        }
    }
    let kept = newest.iter().chain(&held).map(|(path, _)| path.as_path());
    if let Err(error) = remove_tiles(dir, kept) {
        tracing::warn!(%error, "what no checkpoint refers to could not be removed");
    }
}

/// Removes the files of tiles to which none of these checkpoints refers; none, when one does not say what it refers to.
fn remove_tiles<'a>(dir: &Path, checkpoints: impl Iterator<Item = &'a Path>) -> Result<()> {
    let mut needed = BTreeSet::new();
    for path in checkpoints {
        let file = File::open(path).map_err(|e| io_error(path, "open", e))?;
        let mut rest = file.metadata().map_err(|e| io_error(path, "read", e))?.len();
        let mut reader = BufReader::new(file);
        reader.seek_relative(HEADER_BYTES as i64).map_err(|e| io_error(path, "read", e))?;
        rest = rest.saturating_sub(HEADER_BYTES as u64);
        needed.extend(read_files(&mut reader, &mut rest, path)?);
    }
    for (path, number) in tiles::files(dir)? {
        if !needed.contains(&number) {
            fs::remove_file(&path).map_err(|e| io_error(&path, "remove", e))?;
        }
    }
    Ok(())
}
