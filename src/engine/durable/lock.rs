//! One process per directory: the lock that a database, and a journal, are written under.

use std::fs::{File, TryLockError};
use std::path::Path;
use std::time::Duration;

use super::io_error;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The file of a directory that is locked.
pub(crate) const LOCK: &str = "LOCK";

/// How long a holder that is just going away is waited for: after a restart within one process, and of a process that
/// was killed while it wrote, the system needs a moment.
const PATIENCE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(5);

/// Takes `dir` for this process, as long as the file that is returned is open; however the process ends, the operating
/// system gives the lock back. Fails with 55006 when another process keeps it, and with 58030 or 53100 when the file
/// cannot be made.
pub(crate) fn lock_directory(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(|e| io_error(&path, "open", e))?;
    let since = world::instant();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if since.elapsed() < PATIENCE => world::sleep(POLL),
            Err(TryLockError::WouldBlock) => {
                let what = format!("data directory \"{}\" is in use by another server", dir.display());
                let hint = "Stop the other server, or give this one a data directory of its own.";
                return Err(Error::new(SqlState::OBJECT_IN_USE, what).with_hint(hint));
            }
            Err(TryLockError::Error(e)) => return Err(io_error(&path, "lock", e)),
        }
    }
}
