//! What survives a crash: a journal of every tick's input changes, and a base that stands for its beginning.
//!
//! ```text
//! journal/LOCK                     held by the one server that may write here
//! journal/CURRENT                  names the base, if there is one; replaced atomically
//! journal/base-<tick>              inputs' rows as of that tick, and the history that must be kept
//! journal/segment-<tick>           records of the ticks after that one, in order
//! journal/checkpoint-<tick>        views' state as of that tick; saves computing it again
//! journal/state-<number>           rows of such states, which later checkpoints may refer to, too
//! ```
//! Views are brought back by replaying their inputs, from a checkpoint on where there is one. [`record`] is the format of all files,
//! [`journal`] the writing end, [`recover`] the reading end, [`compact`] what keeps the whole short.

pub(crate) mod checkpoint;
pub(crate) mod compact;
pub mod inspect;
pub(crate) mod journal;
pub(crate) mod lock;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod sync;

use std::fs::File;
use std::path::Path;

use crate::error::{Error, Result, SqlState};

/// The error of a file that is not as it was written.
pub(crate) fn corrupted(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::new(SqlState::DATA_CORRUPTED, format!("file \"{}\" is damaged: {what}", path.display()))
}

/// An error of the operating system, with the file it is about.
pub(crate) fn io_error(path: &Path, doing: &str, e: std::io::Error) -> Error {
    let full = matches!(
        e.kind(),
        std::io::ErrorKind::StorageFull
            | std::io::ErrorKind::QuotaExceeded
            | std::io::ErrorKind::FileTooLarge
    );
    let state = if full { SqlState::DISK_FULL } else { SqlState::IO_ERROR };
    Error::new(state, format!("could not {doing} file \"{}\": {e}", path.display()))
}

/// Makes the creation, renaming and removal of files in `dir` last.
pub(crate) fn sync_dir(dir: &Path) -> Result<()> {
    File::open(dir).and_then(|d| d.sync_all()).map_err(|e| io_error(dir, "fsync", e))
}
