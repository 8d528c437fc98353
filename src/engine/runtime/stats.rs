//! What the engine says about itself.

use std::time::Duration;

use crate::engine::{CollectionId, Tick};
use crate::error::Error;

/// The engine at one tick.
#[derive(Clone, Debug, Default)]
pub struct EngineStats {
    /// The last tick.
    pub tick: Tick,
    /// The last durable tick.
    pub durable_tick: Tick,
    /// Rows that wait for a tick.
    pub queued_rows: usize,
    /// Bytes of the journal's segments.
    pub journal_bytes: u64,
    /// Bytes of the journal's base.
    pub base_bytes: u64,
    /// Why the last compaction did not succeed; `None` when it did, or there was none.
    pub compaction_error: Option<Error>,
    /// The last checkpoints, and the one that the start took up, the oldest first.
    pub checkpoints: Vec<CheckpointStats>,
    /// By identity.
    pub collections: Vec<CollectionStats>,
    /// In the order in which rows go through them.
    pub operators: Vec<OperatorStats>,
}

/// One operator of the circuit.
#[derive(Clone, Debug)]
pub struct OperatorStats {
    /// The views it works for, the oldest first.
    pub views: Vec<CollectionId>,
    /// What it does, as EXPLAIN says it.
    pub does: String,
    /// What it keeps, and what bounds that; `None`: nothing.
    pub keeps: Option<String>,
    /// Rows that it keeps.
    pub rows: usize,
    /// Bytes of these, of indexes and of caches.
    pub bytes: usize,
    /// Up to which event time it has closed windows, in microseconds since 1970, if it closes any.
    pub watermark: Option<i64>,
    /// Changed rows that came when their window was closed, since the view is there.
    pub late_rows: u64,
}

/// A checkpoint that was written or, at the start, taken up.
#[derive(Clone, Debug)]
pub struct CheckpointStats {
    /// Its tick.
    pub tick: Tick,
    /// Whether it was taken up.
    pub restored: bool,
    /// When that was done, in microseconds since 1970.
    pub at_micros: i64,
    /// Nodes whose state it has, or whose state was taken up.
    pub nodes: usize,
    /// Bytes of what it consists of.
    pub bytes: u64,
    /// Bytes of it that were written anew; the others were in files of checkpoints before it.
    pub bytes_written: u64,
    /// How long no tick could run.
    pub paused: Duration,
    /// How long it took in all.
    pub took: Duration,
    /// Why it was not written after all.
    pub error: Option<Error>,
}

/// One collection.
#[derive(Clone, Debug)]
pub struct CollectionStats {
    /// Which one.
    pub id: CollectionId,
    /// Its name.
    pub name: String,
    /// Whether it is a view; otherwise it is an input.
    pub view: bool,
    /// Changed rows of the collections it reads, for an input: rows that were written to it, since the start.
    pub rows_in: u64,
    /// Changed rows that it gave to those who read or follow it, since the start.
    pub rows_out: u64,
    /// Rows that its operators keep.
    pub state_rows: usize,
    /// Bytes of these, of indexes and of caches.
    pub state_bytes: usize,
    /// The last tick in which it changed; 0: not since the start.
    pub last_tick: Tick,
    /// An input's watermark, or up to where a view has closed windows, in microseconds since 1970.
    pub watermark: Option<i64>,
    /// Distinct errors of rows that could not be computed.
    pub errors: usize,
    /// Why the view has stopped, if it has.
    pub failed: Option<Error>,
}
