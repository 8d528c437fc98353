//! Group commit: one thread makes what was written last, for everybody who waits.
//!
//! While one fsync runs, further ticks are written; the next fsync covers all of them. A failed fsync poisons the
//! journal for good: the kernel may have dropped the pages, so no later fsync could promise anything.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::io_error;
use crate::engine::Tick;
use crate::error::{Error, Result};
use crate::world;

/// How long written ticks may stay unsynced when nobody waits for them.
const SYNC_IDLE_DELAY: Duration = Duration::from_millis(20);
/// How many ticks may be written and not durable; a writer beyond that waits for the disk.
/// After a crash, numbering goes on beyond this window, so no tick number is ever used twice.
pub(crate) const UNDURABLE_TICKS_MAX: Tick = 1024;

struct State {
    written: Tick,
    durable: Tick,
    /// The last tick that was written to a file, and the last of those that is durable.
    filed: Tick,
    recorded: Tick,
    /// Files written to since their last fsync.
    dirty: Vec<(PathBuf, Arc<File>)>,
    /// How many wait for durability right now.
    waiting: usize,
    poisoned: Option<Error>,
    stopping: bool,
}

/// What is written and what is durable, shared by the writer, the sync thread and those who wait.
pub(crate) struct Durability {
    state: Mutex<State>,
    /// Something was written, or somebody waits, or it is over.
    work: Condvar,
    /// `durable` went on, or never will.
    progress: Condvar,
}

impl Durability {
    /// Everything up to `tick` is durable.
    pub(crate) fn new(tick: Tick) -> Self {
        Durability {
            state: Mutex::new(State {
                written: tick,
                durable: tick,
                filed: tick,
                recorded: tick,
                dirty: Vec::new(),
                waiting: 0,
                poisoned: None,
                stopping: false,
            }),
            work: Condvar::new(),
            progress: Condvar::new(),
        }
    }

    /// The last durable tick.
    pub(crate) fn durable(&self) -> Tick {
        self.state.lock().durable
    }

    /// The last tick of which a durable record tells: after a restart the journal ends there or later.
    pub(crate) fn recorded(&self) -> Tick {
        self.state.lock().recorded
    }

    /// Numbering goes on from here; nothing is in flight.
    pub(crate) fn restart_at(&self, tick: Tick) {
        let mut state = self.state.lock();
        state.written = tick;
        state.durable = tick;
    }

    /// Waits until `tick` is durable.
    pub(crate) fn wait(&self, tick: Tick) -> Result<()> {
        let mut state = self.state.lock();
        while state.durable < tick {
            if let Some(error) = &state.poisoned {
                return Err(error.clone());
            }
            if state.stopping && state.written <= state.durable {
                return Err(crate::engine::runtime::inbox::shut_down());
            }
            state.waiting += 1;
            self.work.notify_one();
            self.progress.wait(&mut state);
            state.waiting -= 1;
        }
        Ok(())
    }

    /// Waits until so little is in flight that `tick` may be written; an error once the journal is poisoned.
    pub(crate) fn admit(&self, tick: Tick) -> Result<()> {
        self.wait(tick.saturating_sub(UNDURABLE_TICKS_MAX))?;
        match &self.state.lock().poisoned {
            Some(error) => Err(error.clone()),
            None => Ok(()),
        }
    }

    /// `tick` was written to `file`; without a file there is nothing to sync and it counts as durable.
    pub(crate) fn written(&self, tick: Tick, file: Option<(&PathBuf, &Arc<File>)>) {
        let mut state = self.state.lock();
        state.written = state.written.max(tick);
        match file {
            None => {
                state.durable = state.written;
                drop(state);
                self.progress.notify_all();
            }
            Some((path, file)) => {
                state.filed = tick;
                if !state.dirty.iter().any(|(_, f)| Arc::ptr_eq(f, file)) {
                    state.dirty.push((path.clone(), Arc::clone(file)));
                }
                drop(state);
                self.work.notify_one();
            }
        }
    }

    /// Nothing written from now on, or still in flight, can be promised.
    pub(crate) fn poison(&self, error: Error) {
        let mut state = self.state.lock();
        state.poisoned.get_or_insert(error);
        drop(state);
        self.progress.notify_all();
        self.work.notify_all();
    }

    /// Why nothing can be promised any more.
    pub(crate) fn poisoned(&self) -> Option<Error> {
        self.state.lock().poisoned.clone()
    }

    /// Ends the sync thread once all that was written is durable.
    pub(crate) fn stop(&self) {
        self.state.lock().stopping = true;
        self.work.notify_all();
        self.progress.notify_all();
    }

    /// The sync thread's work, until [`stop`](Self::stop).
    pub(crate) fn run(&self) {
        loop {
            let (files, written, filed) = {
                let mut state = self.state.lock();
                loop {
                    if state.poisoned.is_some() || (state.stopping && state.dirty.is_empty()) {
                        drop(state);
                        self.progress.notify_all();
                        return;
                    }
                    if state.dirty.is_empty() {
                        self.work.wait(&mut state);
                        continue;
                    }
                    // While nobody waits, let some more ticks share the fsync.
                    let deadline = world::instant() + SYNC_IDLE_DELAY;
                    while state.waiting == 0 && !state.stopping && state.poisoned.is_none() {
                        if self.work.wait_until(&mut state, deadline).timed_out() {
                            break;
                        }
                    }
                    break;
                }
                (std::mem::take(&mut state.dirty), state.written, state.filed)
            };
            for (path, file) in files {
                if let Err(e) = file.sync_data() {
                    self.poison(io_error(&path, "fsync", e).with_detail(
                        "Nothing written since the last successful fsync can be promised. Restart the server to go on from there.",
                    ));
                }
            }
            if self.poisoned().is_some() {
                continue;
            }
            world::crash_point("journal.fsynced");
            {
                let mut state = self.state.lock();
                state.durable = written;
                state.recorded = filed;
            }
            self.progress.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::OwnedFd;

    use super::*;
    use crate::error::SqlState;

    #[test]
    fn after_a_failed_fsync_nothing_is_promised() {
        let durability = Arc::new(Durability::new(5));
        let sync = Arc::clone(&durability);
        let thread = std::thread::spawn(move || sync.run());
        let good = Arc::new(tempfile::tempfile().unwrap());
        durability.admit(6).unwrap();
        durability.written(6, Some((&PathBuf::from("good"), &good)));
        durability.wait(6).unwrap();
        // A pipe cannot be synced.
        let (_reader, writer) = std::io::pipe().unwrap();
        let bad = Arc::new(File::from(OwnedFd::from(writer)));
        durability.written(7, Some((&PathBuf::from("bad"), &bad)));
        let error = durability.wait(7).unwrap_err();
        assert_eq!(error.sqlstate, SqlState::IO_ERROR);
        assert!(error.message.contains("\"bad\""), "{error}");
        durability.written(8, Some((&PathBuf::from("good"), &good)));
        assert!(durability.wait(8).is_err());
        assert!(durability.admit(9).is_err());
        assert_eq!(durability.durable(), 6);
        durability.wait(6).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn a_writer_waits_when_too_much_is_in_flight() {
        let durability = Arc::new(Durability::new(0));
        let file = Arc::new(tempfile::tempfile().unwrap());
        durability.admit(UNDURABLE_TICKS_MAX).unwrap();
        durability.written(UNDURABLE_TICKS_MAX, Some((&PathBuf::from("f"), &file)));
        let writer = Arc::clone(&durability);
        let waiting = std::thread::spawn(move || writer.admit(UNDURABLE_TICKS_MAX + 1));
        let sync = Arc::clone(&durability);
        let thread = std::thread::spawn(move || sync.run());
        waiting.join().unwrap().unwrap();
        assert_eq!(durability.durable(), UNDURABLE_TICKS_MAX);
        durability.stop();
        thread.join().unwrap();
        let late = durability.wait(UNDURABLE_TICKS_MAX + 5).unwrap_err();
        assert_eq!(late.sqlstate, SqlState::ADMIN_SHUTDOWN);
    }
}
