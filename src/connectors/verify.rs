//! Comparing a sink's target with what it follows: the wish for it, and the answer.
//!
//! The sink itself compares, between two commits: only it knows when the target is at a tick of which all rows are at
//! hand. It takes the rows as they are now, goes on to that tick and no further, compares, and goes on.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use crate::engine::Tick;
use crate::error::Result;

/// What a sink follows, whole, at one tick.
#[derive(Clone, Debug)]
pub struct Whole {
    /// The tick.
    pub tick: Tick,
    /// All rows at it.
    pub rows: Vec<RecordBatch>,
}

/// How a target differs from what its sink follows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Differences {
    /// Rows that the target lacks.
    pub lacks: u64,
    /// Rows that only the target has.
    pub extra: u64,
    /// Rows that both have, by their key, with other values; they are not counted above.
    pub changed: u64,
    /// Some of both, as text.
    pub shown: Vec<String>,
}

impl Differences {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.lacks + self.extra + self.changed == 0
    }
}

/// The answer to a [`Wish`].
#[derive(Clone, Debug)]
pub struct Verified {
    /// The tick of the comparison.
    pub tick: Tick,
    /// What it has shown.
    pub differences: Differences,
}

/// Somebody wants the target compared.
#[derive(Debug)]
pub struct Wish {
    /// Whether it is also to be mended.
    pub repair: bool,
    answer: SyncSender<Result<Verified>>,
}

impl Wish {
    /// Says how it went. Whoever has asked may have gone.
    pub fn answer(self, answer: Result<Verified>) {
        let _ = self.answer.send(answer);
    }
}

type View = dyn Fn() -> Result<Whole> + Send + Sync;

/// Where wishes wait for a sink that is at work.
pub struct Checks {
    wishes: Mutex<Vec<Wish>>,
    view: Box<View>,
}

impl Checks {
    /// `view` gives the rows of what is followed, as they are when it is called.
    pub fn new(view: impl Fn() -> Result<Whole> + Send + Sync + 'static) -> Self {
        Checks { wishes: Mutex::default(), view: Box::new(view) }
    }

    /// Asks for a comparison. The answer never comes when the sink stops before.
    pub fn ask(&self, repair: bool) -> Receiver<Result<Verified>> {
        let (answer, receiver) = sync_channel(1);
        self.wishes.lock().push(Wish { repair, answer });
        receiver
    }

    /// The next wish, if there is one.
    pub fn next(&self) -> Option<Wish> {
        self.wishes.lock().pop()
    }

    /// All rows of what is followed, as they are now.
    ///
    /// # Errors
    /// Why there are none to be had.
    pub fn whole(&self) -> Result<Whole> {
        (self.view)()
    }
}
