//! Changes that wait on disk: what a reader that is stuck has not taken, beyond what may wait in memory.
//!
//! A spill is nothing that has to last. The journal has it all; a file is unlinked as soon as it is open, so that
//! whatever ends the process frees it. Files are short, and each goes when nobody refers to its last change.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;

use crate::engine::{Delta, ipc};
use crate::error::Result;

/// A file that has grown to this gets no more changes.
const FILE_BYTES: u64 = 64 << 20;

/// Where one subscription's changes go.
pub(crate) struct Spill {
    dir: PathBuf,
    /// What the next file is called while it has a name.
    name: String,
    /// The file that grows, and how far it has.
    file: Option<(Arc<SpillFile>, u64)>,
    /// Bytes on disk that somebody still refers to, a file at a time.
    bytes: Arc<AtomicU64>,
    buffer: Vec<u8>,
}

/// A file without a name. It is gone with the last change that is in it.
struct SpillFile {
    file: File,
    /// Its bytes, and where they are counted.
    length: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.length.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// A change on disk.
pub(crate) struct Spilled {
    file: Arc<SpillFile>,
    at: u64,
    length: usize,
    schema: SchemaRef,
    weighted: bool,
    rows: usize,
}

impl Spill {
    /// Into this directory, under a name that no other spill of it has. Nothing is written yet.
    pub(crate) fn new(dir: &Path, name: String) -> Spill {
        Spill { dir: dir.to_path_buf(), name, file: None, bytes: Arc::default(), buffer: Vec::new() }
    }

    /// Bytes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes a change down.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn write(&mut self, delta: &Delta) -> Result<Spilled> {
        self.buffer.clear();
        let weighted = ipc::write_delta(&mut self.buffer, delta)?;
        let (file, at) = match self.file.take().filter(|(_, length)| *length < FILE_BYTES) {
            Some(open) => open,
            None => (Arc::new(self.open()?), 0),
        };
        let length = self.buffer.len();
        file.file.write_all_at(&self.buffer, at)?;
        file.length.fetch_add(length as u64, Ordering::Relaxed);
        self.bytes.fetch_add(length as u64, Ordering::Relaxed);
        let (schema, rows) = (delta.rows.schema(), delta.num_rows());
        let spilled = Spilled { file: Arc::clone(&file), at, length, schema, weighted, rows };
        self.file = Some((file, at + length as u64));
        Ok(spilled)
    }

    /// The next change begins a file: what was written so far can go as soon as it is read.
    pub(crate) fn close_file(&mut self) {
        self.file = None;
    }

    fn open(&self) -> Result<SpillFile> {
        let path = self.dir.join(&self.name);
        let file = File::options().create(true).truncate(true).read(true).write(true).open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(SpillFile { file, length: AtomicU64::new(0), bytes: Arc::clone(&self.bytes) })
    }
}

impl Spilled {
    /// How many rows it has.
    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Reads it back.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn read(&self) -> Result<Delta> {
        let mut bytes = vec![0; self.length];
        self.file.file.read_exact_at(&mut bytes, self.at)?;
        let deltas = ipc::read_deltas(&bytes, &self.schema, self.weighted)?;
        Ok(super::net(deltas)?.unwrap_or_else(|| Delta::empty(&self.schema)))
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    #[test]
    fn changes_come_back_and_their_files_go() {
        let dir = tempfile::tempdir().unwrap();
        let mut spill = Spill::new(dir.path(), "a".to_string());
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
        let delta = Delta::insert(RecordBatch::try_from_iter([("x", column)]).unwrap());
        let (first, second) = (spill.write(&delta).unwrap(), spill.write(&delta.clone().negate()).unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "files have no names");
        assert_eq!((first.rows(), second.rows()), (1000, 1000));
        assert_eq!(second.read().unwrap().net_rows(), -1000);
        assert_eq!(first.read().unwrap().rows, delta.rows);
        let all = spill.bytes();
        assert!(all > 0);
        spill.close_file();
        drop(second);
        assert_eq!(spill.bytes(), all, "the file still has a change");
        drop(first);
        assert_eq!(spill.bytes(), 0);
    }
}
