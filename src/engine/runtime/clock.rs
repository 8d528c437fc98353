//! The time of ticks: every tick has one, which never goes back.
//!
//! Views with conditions on `now()` change as time passes. The tick thread then wakes when something is due and makes a
//! tick of nothing but the time. As soon as there is such a view, each tick's time is journalled with it, as the position
//! of a source of its own: so a replay gives what was there, and compaction keeps the last.

use std::time::Duration;

use super::core::Core;
use super::tick::Changes;
use crate::engine::Tick;
use crate::error::Result;
use crate::world;

/// The clock's name among the sources.
const SOURCE: &str = "\u{1}clock";

/// Between two ticks for no reason but the time there is at least so much of it: what is due meanwhile comes together.
const PAUSE: Duration = Duration::from_millis(100);

/// The clock is looked at this often while something is to come: it may be set.
const LOOK: Duration = Duration::from_secs(1);

/// How the journal tells a tick's time.
pub(super) fn position(now: i64) -> (String, Vec<u8>) {
    (SOURCE.to_string(), now.to_le_bytes().to_vec())
}

/// The time that a source's position tells, if the source is the clock.
pub(super) fn told(source: &str, position: &[u8]) -> Option<i64> {
    let now = position.try_into().ok().filter(|_| source == SOURCE)?;
    Some(i64::from_le_bytes(now))
}

impl Core {
    /// What time it is for the next tick.
    pub(super) fn time(&self) -> i64 {
        self.shared.config.clock.now_micros().max(self.now)
    }

    /// How long at most to wait for something else to do; `None`: for ever.
    pub(super) fn wait_for_time(&self) -> Option<Duration> {
        let due = self.circuit.next_due().filter(|_| self.live)?;
        if self.shared.durability.poisoned().is_some() {
            return None;
        }
        let until = Duration::from_micros(due.saturating_sub(self.time()).max(0).unsigned_abs());
        let since = self.passed.map_or(PAUSE, |passed| world::instant().duration_since(passed));
        Some(until.max(PAUSE.saturating_sub(since)).min(LOOK))
    }

    /// Does what is due, if something is.
    pub(super) fn pass_time(&mut self) -> Result<Tick> {
        let now = self.time();
        if self.live && self.circuit.next_due().is_some_and(|due| due <= now) {
            return self.run_clock();
        }
        Ok(self.tick)
    }

    /// A tick of nothing but the time.
    pub(super) fn run_clock(&mut self) -> Result<Tick> {
        self.passed = Some(world::instant());
        self.run_tick(Changes::default())
    }
}
