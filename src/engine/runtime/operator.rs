//! The protocol every operator follows: two data calls a tick, then a fold.

use datafusion::common::ScalarValue;

use crate::engine::state::{Arranged, Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::{Error, Result};

/// A row whose expression failed: it stands in no view, but in the errors of the view it would have fed.
#[derive(Clone, Debug, PartialEq)]
pub struct RowError {
    /// What failed; equal for the same row on insert and on retraction.
    pub error: Error,
    /// How often: positive when the row came, negative when it went.
    pub weight: i64,
}

/// What an operator emits in one call.
#[derive(Debug, Default)]
pub struct Output {
    /// Changes of the operator's output collection; not necessarily consolidated, never empty batches.
    pub deltas: Vec<Delta>,
    /// Rows that failed.
    pub errors: Vec<RowError>,
}

/// Rows of which an operator takes no others.
#[derive(Clone, Debug, PartialEq)]
pub struct Wanted {
    /// By which column of its input they are known.
    pub column: usize,
    /// What is in it; not NULL.
    pub value: ScalarValue,
}

/// A node of the circuit. Runs on one thread at a time.
///
/// In each tick in which any input changed, and only then: `push` zero or more times for each port, in any order;
/// then `finish` once; then, after the whole circuit is through with the tick, `commit` once.
/// The first tick of a node is the one in which it is added, whether or not anything is pushed then: constant rows and
/// the one row of a global aggregate come in its `finish`.
/// "Before" is the state without this tick's deltas, "after" the state with them.
/// A whole history may arrive as one tick in many pushes (hydration), so memory in `push` is bounded by chunks.
pub trait Operator: Send {
    /// A change of input `port`. Linear operators emit here; others keep it until `finish`.
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()>;

    /// Of input `port`, the only rows that make a difference to it: others need not be pushed.
    fn wanted(&self, port: usize) -> Option<Wanted> {
        let _ = port;
        None
    }

    /// Every input of this tick was pushed. Operators that need the whole tick emit here.
    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let _ = out;
        Ok(())
    }

    /// Folds this tick's deltas into the state.
    fn commit(&mut self) -> Result<()> {
        Ok(())
    }

    /// Whether its output changes as time passes: then it is told the time, and when it is due it is touched.
    fn is_timed(&self) -> bool {
        false
    }

    /// The time of the tick that begins, in microseconds since 1970; never earlier than that of the tick before.
    fn set_now(&mut self, now: i64) {
        let _ = now;
    }

    /// The first time at which its output changes if none of its inputs does.
    fn next_due(&self) -> Option<i64> {
        None
    }

    /// The view whose closed windows it must know of: then it is told the watermark.
    fn closes_for(&self) -> Option<CollectionId> {
        None
    }

    /// The watermark before the tick that begins and after it, in microseconds since 1970: windows that end up to `before`
    /// are closed, those up to `after` close in this tick.
    fn set_watermark(&mut self, before: i64, after: i64) {
        let _ = (before, after);
    }

    /// Between two ticks: what closes up to the watermark is closed, and was given already.
    fn resume_watermark(&mut self, watermark: i64, late_rows: u64) -> Result<()> {
        let _ = (watermark, late_rows);
        Ok(())
    }

    /// Changed rows that came when their window was closed, and were left out.
    fn late_rows(&self) -> u64 {
        0
    }

    /// Gives its state as it is between two ticks; an operator that keeps nothing from tick to tick gives nothing.
    /// The tick thread waits: what can be shared is not to be copied.
    fn save(&self, state: &mut Saved) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// Takes up what [`save`](Self::save) gave for an operator that does the same, in the place of what it holds;
    /// never within a tick. What it has emitted in its first tick it does not emit again.
    ///
    /// # Errors
    /// XX001 when the pieces are not those of such an operator; its state is then undefined.
    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let _ = state;
        Ok(())
    }

    /// Its input's rows, if it keeps them for those that read it: they look rows up there in their `finish`.
    fn arranged(&self) -> Option<&Arranged> {
        None
    }

    /// The rows of input `port` are there from now on. Called between two ticks.
    fn bind(&mut self, port: usize, rows: &Arranged) {
        let _ = (port, rows);
    }

    /// Bytes of rows, indexes and caches held.
    fn state_bytes(&self) -> usize {
        0
    }

    /// Rows held.
    fn state_rows(&self) -> usize {
        0
    }
}
