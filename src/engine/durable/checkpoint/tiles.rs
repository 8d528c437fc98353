//! Tiles of rows that checkpoints refer to: what was written for one checkpoint, the next ones need not write again.
//!
//! ```text
//! journal/state-<number>    header, then one record a tile, then one without rows
//! ```
//! A tile never changes once it is in memory, and is known by its place there. A file is written with one checkpoint, before
//! it, and never changed. It goes when no checkpoint refers to it; when less than half of it is still needed, that half
//! is written anew with the next checkpoint.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use arrow::array::RecordBatch;
use hashbrown::HashMap;

use crate::engine::durable::inspect::Condition;
use crate::engine::durable::{corrupted, io_error};
use crate::engine::ipc;
use crate::engine::state::saved::Place;
use crate::error::Result;

/// The first bytes of every file; the last one is the format's version.
const MAGIC: [u8; 8] = *b"TDMLROW\x01";
/// Magic, number, checksum.
const HEADER_BYTES: usize = 8 + 8 + 4;
/// Length of the rows' bytes, checksum of it and them.
const RECORD_HEADER_BYTES: usize = 8 + 4;
/// Files that are kept at once. Of more, those of which least is needed are written anew.
const FILES_MAX: usize = 32;

/// Which tiles in memory are in which files.
#[derive(Default)]
pub(crate) struct Known {
    /// By where a tile is in memory, as long as it is there.
    tiles: HashMap<usize, Written, ahash::RandomState>,
    /// Sizes of the files, by number.
    files: BTreeMap<u64, u64>,
}

struct Written {
    tile: Weak<RecordBatch>,
    place: Place,
    bytes: u64,
}

fn address(tile: &Arc<RecordBatch>) -> usize {
    Arc::as_ptr(tile) as usize
}

impl Known {
    fn find(&self, tile: &Arc<RecordBatch>) -> Option<&Written> {
        // A place in memory is not given to another tile while the weak pointer keeps it.
        self.tiles.get(&address(tile)).filter(|written| written.tile.as_ptr() == Arc::as_ptr(tile))
    }

    fn insert(&mut self, tile: &Arc<RecordBatch>, place: Place, bytes: u64) {
        let written = Written { tile: Arc::downgrade(tile), place, bytes };
        self.tiles.insert(address(tile), written);
    }

    /// Bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.values().sum()
    }

    /// The files that the next checkpoint of these tiles may refer to.
    fn worth_keeping<'a>(&self, tiles: impl Iterator<Item = &'a Arc<RecordBatch>>) -> BTreeSet<u64> {
        let mut needed: BTreeMap<u64, u64> = BTreeMap::new();
        let mut seen = BTreeSet::new();
        for written in tiles.filter_map(|tile| self.find(tile)) {
            if seen.insert((written.place.file, written.place.offset)) {
                *needed.entry(written.place.file).or_default() += written.bytes;
            }
        }
        let half = |(file, bytes): &(u64, u64)| self.files.get(file).is_some_and(|size| bytes * 2 >= *size);
        let mut kept: Vec<(u64, u64)> = needed.into_iter().filter(half).collect();
        kept.sort_unstable_by_key(|(file, bytes)| (std::cmp::Reverse(*bytes), *file));
        kept.truncate(FILES_MAX - 1);
        kept.into_iter().map(|(file, _)| file).collect()
    }
}

/// The name of a file of tiles.
fn path_of(dir: &Path, file: u64) -> PathBuf {
    dir.join(format!("state-{file:020}"))
}

fn header(file: u64) -> Vec<u8> {
    let mut header = [&MAGIC[..], &file.to_le_bytes()].concat();
    header.extend_from_slice(&crc32fast::hash(&header).to_le_bytes());
    header
}

fn record_header(rows: &[u8]) -> [u8; RECORD_HEADER_BYTES] {
    let mut header = [0; RECORD_HEADER_BYTES];
    header[..8].copy_from_slice(&(rows.len() as u64).to_le_bytes());
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[..8]);
    crc.update(rows);
    header[8..].copy_from_slice(&crc.finalize().to_le_bytes());
    header
}

/// Writes those tiles of a checkpoint that are in no file yet.
pub(super) struct TileWriter<'a> {
    path: PathBuf,
    file: u64,
    out: Option<BufWriter<File>>,
    offset: u64,
    known: &'a Known,
    kept: BTreeSet<u64>,
    next: Known,
    buffer: Vec<u8>,
    referred: u64,
}

impl<'a> TileWriter<'a> {
    /// For a checkpoint of these tiles. `file` is a number that no file of the directory has.
    pub(super) fn new<'b>(
        dir: &Path,
        file: u64,
        known: &'a Known,
        tiles: impl Iterator<Item = &'b Arc<RecordBatch>>,
    ) -> TileWriter<'a> {
        let kept = known.worth_keeping(tiles);
        let files =
            known.files.iter().filter(|(file, _)| kept.contains(file)).map(|(f, b)| (*f, *b)).collect();
        let next = Known { tiles: HashMap::default(), files };
        let (path, buffer) = (path_of(dir, file), Vec::new());
        TileWriter { path, file, out: None, offset: 0, known, kept, next, buffer, referred: 0 }
    }

    /// The files that the checkpoint may refer to.
    pub(super) fn files(&self) -> impl Iterator<Item = u64> {
        self.kept.iter().copied().chain(std::iter::once(self.file))
    }

    /// Where a tile is written down.
    pub(super) fn place(&mut self, tile: &Arc<RecordBatch>) -> Result<Place> {
        if let Some(written) = self.next.find(tile) {
            return Ok(written.place);
        }
        let known: &'a Known = self.known;
        let written = known.find(tile).filter(|written| self.kept.contains(&written.place.file));
        if let Some(Written { place, bytes, .. }) = written {
            self.referred += bytes;
            self.next.insert(tile, *place, *bytes);
            return Ok(*place);
        }
        self.buffer.clear();
        ipc::write(&mut self.buffer, tile.schema_ref(), std::iter::once(tile.as_ref()))?;
        let place = Place { file: self.file, offset: self.append()? };
        self.next.insert(tile, place, (RECORD_HEADER_BYTES + self.buffer.len()) as u64);
        Ok(place)
    }

    /// Writes the buffer as a record; answers with where.
    fn append(&mut self) -> Result<u64> {
        let failed = |e| io_error(&self.path, "write", e);
        let out = match &mut self.out {
            Some(out) => out,
            None => {
                let file = File::create_new(&self.path).map_err(|e| io_error(&self.path, "create", e))?;
                let out = self.out.insert(BufWriter::with_capacity(1 << 20, file));
                out.write_all(&header(self.file)).map_err(failed)?;
                self.offset = HEADER_BYTES as u64;
                out
            }
        };
        let at = self.offset;
        out.write_all(&record_header(&self.buffer)).map_err(failed)?;
        out.write_all(&self.buffer).map_err(failed)?;
        self.offset += (RECORD_HEADER_BYTES + self.buffer.len()) as u64;
        Ok(at)
    }

    /// Makes what was written last; answers with what is known from now on, and with the bytes that were written and
    /// those that are in files of before.
    pub(super) fn finish(mut self) -> Result<(Known, u64, u64)> {
        if self.out.is_some() {
            self.buffer.clear();
            self.append()?;
        }
        if let Some(out) = self.out.take() {
            let file = out.into_inner().map_err(|e| io_error(&self.path, "write", e.into_error()))?;
            file.sync_all().map_err(|e| io_error(&self.path, "fsync", e))?;
            self.next.files.insert(self.file, self.offset);
        }
        Ok((self.next, self.offset, self.referred))
    }
}

/// Reads tiles, each by its place, and remembers where they are.
pub(super) struct TileReader {
    dir: PathBuf,
    open: BTreeMap<u64, (File, u64)>,
    known: Known,
}

impl TileReader {
    pub(super) fn new(dir: &Path) -> TileReader {
        TileReader { dir: dir.to_path_buf(), open: BTreeMap::new(), known: Known::default() }
    }

    /// The tile that is written there.
    ///
    /// # Errors
    /// XX001 when it is not as it was written, 58030 when the file cannot be read.
    pub(super) fn read(&mut self, place: Place) -> Result<Arc<RecordBatch>> {
        let path = path_of(&self.dir, place.file);
        let (file, size) = match self.open.entry(place.file) {
            std::collections::btree_map::Entry::Occupied(open) => open.into_mut(),
            std::collections::btree_map::Entry::Vacant(none) => {
                let file = File::open(&path).map_err(|e| io_error(&path, "open", e))?;
                let size = file.metadata().map_err(|e| io_error(&path, "read", e))?.len();
                none.insert((file, size))
            }
        };
        let damaged =
            || corrupted(&path, format!("the rows at byte {} are not as they were written", place.offset));
        let mut header = [0; RECORD_HEADER_BYTES];
        file.read_exact_at(&mut header, place.offset).map_err(|_| damaged())?;
        let len = header.first_chunk::<8>().map_or(u64::MAX, |len| u64::from_le_bytes(*len));
        let begin = place.offset + RECORD_HEADER_BYTES as u64;
        // No longer than the file, so it is a sensible amount of memory.
        let end = begin.checked_add(len).filter(|end| end <= size).ok_or_else(damaged)?;
        let mut rows = vec![0; len as usize];
        file.read_exact_at(&mut rows, begin).map_err(|_| damaged())?;
        if record_header(&rows) != header {
            return Err(damaged());
        }
        let (_, mut tiles) = ipc::read(&rows)?;
        let tile = Arc::new(tiles.pop().filter(|_| tiles.is_empty()).ok_or_else(damaged)?);
        self.known.insert(&tile, place, end - place.offset);
        self.known.files.insert(place.file, *size);
        Ok(tile)
    }

    /// Where the tiles are that were read.
    pub(super) fn known(self) -> Known {
        self.known
    }
}

/// The files of tiles in a directory, with their numbers.
pub(super) fn files(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    super::numbered(dir, "state-")
}

/// Whether all of a file of tiles is as it was written.
pub(crate) fn condition(path: &Path) -> Result<Condition> {
    let file = File::open(path).map_err(|e| io_error(path, "open", e))?;
    let size = file.metadata().map_err(|e| io_error(path, "read", e))?.len();
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut start = [0; HEADER_BYTES];
    if size < HEADER_BYTES as u64 {
        return Ok(Condition::Truncated(0));
    }
    reader.read_exact(&mut start).map_err(|e| io_error(path, "read", e))?;
    let number = start[8..].first_chunk::<8>().map_or(0, |number| u64::from_le_bytes(*number));
    if start[..] != header(number)[..] {
        return Ok(Condition::Corrupt(0));
    }
    let mut at = HEADER_BYTES as u64;
    loop {
        let mut header = [0; RECORD_HEADER_BYTES];
        if size - at < RECORD_HEADER_BYTES as u64 {
            return Ok(Condition::Truncated(at));
        }
        reader.read_exact(&mut header).map_err(|e| io_error(path, "read", e))?;
        let len = header.first_chunk::<8>().map_or(u64::MAX, |len| u64::from_le_bytes(*len));
        if len > size - at - RECORD_HEADER_BYTES as u64 {
            return Ok(Condition::Truncated(at));
        }
        let mut rows = vec![0; len as usize];
        reader.read_exact(&mut rows).map_err(|e| io_error(path, "read", e))?;
        if record_header(&rows) != header {
            return Ok(Condition::Corrupt(at));
        }
        at += RECORD_HEADER_BYTES as u64 + len;
        match (len, at == size) {
            (0, true) => return Ok(Condition::Sound),
            (0, false) => return Ok(Condition::Corrupt(at)),
            _ => {}
        }
    }
}

/// Removes a file that is no checkpoint's.
pub(super) fn remove(dir: &Path, file: u64) {
    // Half a file takes up room and is never read; the next start tries to remove it again.
    let _ = fs::remove_file(path_of(dir, file));
}
