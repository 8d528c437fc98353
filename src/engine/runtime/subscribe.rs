//! Following a collection: net changes tick by tick, merged when the reader is slow.
//!
//! The tick thread puts changes in, a reader takes them out. What waits is merged, so that a slow reader costs
//! at most the difference between two states of the collection, not the history between them. What even so is more
//! than may wait in memory waits on disk, where the reader is one that is never cut off: a sink.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::Notify;

use super::spill::{Spill, Spilled};
use crate::engine::serve::snapshot::CollectionSnapshot;
use crate::engine::{Delta, Tick, TickDelta};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Waiting ticks from which on they are merged into one.
const BACKLOG_TICKS_MAX: usize = 256;
/// Waiting rows from which on a merge is tried; afterwards at twice the rows that were left.
const BACKLOG_ROWS_MERGE: usize = 64 << 10;

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeFrom {
    /// First the rows as of now, then every tick.
    Snapshot,
    /// Every tick after now.
    Now,
    /// Every tick after the given one. Before [`replay`](crate::engine::Engine::replay) any tick that is a stop of it;
    /// later only a tick since which the collection has not changed.
    After(Tick),
}

/// What a subscription may cost, and whether it can be read twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// What was received is gone. A reader that falls too far behind is cut off with an error.
    Nothing,
    /// What was received stays until [`Subscription::release`]; [`Subscription::rewind`] begins again after that.
    /// Never cut off where the collection keeps its rows: merged, the backlog is at most twice those.
    Unreleased,
}

/// What waits for a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// Changed rows that were not received.
    pub rows: u64,
    /// Bytes of them in memory.
    pub memory_bytes: u64,
    /// Bytes on disk.
    pub disk_bytes: u64,
}

/// One change as it waits.
#[derive(Clone)]
struct Entry {
    tick: Tick,
    rows: Rows,
    /// The reader may depend on the state after this tick: nothing later is merged into it.
    sealed: bool,
}

/// Where a change's rows are.
#[derive(Clone)]
enum Rows {
    None,
    Memory(Delta),
    Disk(Arc<Spilled>),
}

impl Entry {
    fn new(tick: Tick, delta: Option<Delta>, sealed: bool) -> Entry {
        Entry { tick, rows: delta.map_or(Rows::None, Rows::Memory), sealed }
    }

    fn rows(&self) -> usize {
        match &self.rows {
            Rows::None => 0,
            Rows::Memory(delta) => delta.num_rows(),
            Rows::Disk(spilled) => spilled.rows(),
        }
    }

    /// Bytes in memory.
    fn bytes(&self) -> usize {
        match &self.rows {
            Rows::Memory(delta) => delta.rows.get_array_memory_size(),
            Rows::None | Rows::Disk(_) => 0,
        }
    }

    /// What the reader gets. Reads from disk: not to be called under the lock.
    fn change(self) -> Result<TickDelta> {
        let delta = match self.rows {
            Rows::None => None,
            Rows::Memory(delta) => Some(delta),
            Rows::Disk(spilled) => Some(spilled.read()?),
        };
        Ok(TickDelta { tick: self.tick, delta })
    }
}

struct State {
    /// Not received yet, oldest first.
    waiting: VecDeque<Entry>,
    /// Rows in `waiting`, and bytes of them in memory.
    rows: usize,
    bytes: usize,
    /// Where what is too much for memory goes; `None`: it stays there.
    spill: Option<Spill>,
    /// Rows, and entries, above which the next merge is tried.
    merge_at: (usize, usize),
    /// Received and not released, oldest first; only with [`Keep::Unreleased`].
    kept: VecDeque<Entry>,
    /// The last tick the engine has passed.
    passed: Tick,
    /// The last tick received.
    received: Tick,
    /// The subscription was read up to here for good.
    released: Tick,
    ended: Option<Error>,
    reader_gone: bool,
}

/// The place where both sides meet.
struct Shared {
    state: Mutex<State>,
    ready: Condvar,
    ready_async: Notify,
    keep: Keep,
    rows_max: usize,
    bytes_max: usize,
}

impl Shared {
    fn wake(&self) {
        self.ready.notify_all();
        self.ready_async.notify_one();
    }
}

/// The reader's side.
pub struct Subscription {
    shared: Arc<Shared>,
    snapshot: Option<Arc<CollectionSnapshot>>,
    start: Tick,
}

/// The tick thread's side.
pub(crate) struct Publisher {
    shared: Arc<Shared>,
    /// Ticks up to this one are not of interest.
    start: Tick,
    /// What goes before the first change: see [`Publisher::begin_with`].
    first: Mutex<Option<Delta>>,
}

/// How much may wait.
pub(crate) struct Limits {
    /// Merged rows from which on the reader is cut off.
    pub(crate) rows_max: usize,
    /// Bytes in memory from which on changes go to disk, and where to; `None`: they stay in memory.
    pub(crate) spill: Option<(usize, Spill)>,
}

/// Both sides of a new subscription to the ticks after `start`.
pub(crate) fn channel(
    start: Tick,
    snapshot: Option<Arc<CollectionSnapshot>>,
    keep: Keep,
    limits: Limits,
) -> (Publisher, Subscription) {
    let Limits { rows_max, spill } = limits;
    let (bytes_max, spill) = spill.map_or((usize::MAX, None), |(bytes, spill)| (bytes, Some(spill)));
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            waiting: VecDeque::new(),
            rows: 0,
            bytes: 0,
            spill,
            merge_at: (BACKLOG_ROWS_MERGE, BACKLOG_TICKS_MAX),
            kept: VecDeque::new(),
            passed: start,
            received: start,
            released: start,
            ended: None,
            reader_gone: false,
        }),
        ready: Condvar::new(),
        ready_async: Notify::new(),
        keep,
        rows_max,
        bytes_max,
    });
    let publisher = Publisher { shared: Arc::clone(&shared), start, first: Mutex::new(None) };
    (publisher, Subscription { shared, snapshot, start })
}

impl Subscription {
    /// The rows at [`start_tick`](Self::start_tick); only of [`SubscribeFrom::Snapshot`].
    pub fn snapshot(&self) -> Option<&Arc<CollectionSnapshot>> {
        self.snapshot.as_ref()
    }

    /// The tick that the first change follows.
    pub fn start_tick(&self) -> Tick {
        self.start
    }

    /// The next change, waiting for at most `timeout`. When none came but ticks have passed: a [`TickDelta`] without rows.
    ///
    /// # Errors
    /// The collection was dropped, its view failed, the reader was too slow, or the engine is shut down.
    pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<TickDelta>> {
        let deadline = world::instant() + timeout;
        let mut state = self.shared.state.lock();
        while state.waiting.is_empty() && state.ended.is_none() {
            if self.shared.ready.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        let taken = self.take(&mut state)?;
        drop(state);
        taken.map(Entry::change).transpose()
    }

    /// The next change if there is one, else the passing of time if there is some, else `None`.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub fn try_recv(&self) -> Result<Option<TickDelta>> {
        let taken = self.take(&mut self.shared.state.lock())?;
        taken.map(Entry::change).transpose()
    }

    /// Waits for the next change. Cancel-safe.
    ///
    /// # Errors
    /// As [`recv_timeout`](Self::recv_timeout).
    pub async fn recv(&mut self) -> Result<TickDelta> {
        loop {
            let notified = self.shared.ready_async.notified();
            let taken = {
                let mut state = self.shared.state.lock();
                match !state.waiting.is_empty() || state.ended.is_some() {
                    true => self.take(&mut state)?,
                    false => None,
                }
            };
            if let Some(entry) = taken {
                return entry.change();
            }
            notified.await;
        }
    }

    /// What waits, and was not received.
    pub fn backlog(&self) -> Backlog {
        let state = self.shared.state.lock();
        Backlog {
            rows: state.rows as u64,
            memory_bytes: state.bytes as u64,
            disk_bytes: state.spill.as_ref().map_or(0, Spill::bytes),
        }
    }

    /// Nothing up to `tick` will be asked for again.
    pub fn release(&self, tick: Tick) {
        let mut state = self.shared.state.lock();
        while state.kept.front().is_some_and(|e| e.tick <= tick) {
            state.kept.pop_front();
        }
        while state.waiting.front().is_some_and(|e| e.tick <= tick) {
            state.pop();
        }
        state.released = state.released.max(tick);
    }

    /// Begins again after the last released tick; answers with it. Needs [`Keep::Unreleased`].
    pub fn rewind(&self) -> Tick {
        let mut state = self.shared.state.lock();
        while let Some(entry) = state.kept.pop_back() {
            state.rows += entry.rows();
            state.bytes += entry.bytes();
            state.waiting.push_front(entry);
        }
        state.received = state.released;
        let released = state.released;
        drop(state);
        self.shared.wake();
        released
    }

    fn take(&self, state: &mut State) -> Result<Option<Entry>> {
        if let Some(entry) = state.pop() {
            state.received = entry.tick;
            if self.shared.keep == Keep::Unreleased {
                // The reader may commit at this tick and ask again for exactly what follows it.
                state.kept.push_back(Entry { sealed: true, ..entry.clone() });
            }
            return Ok(Some(entry));
        }
        if let Some(error) = &state.ended {
            return Err(error.clone());
        }
        if state.passed > state.received {
            state.received = state.passed;
            return Ok(Some(Entry::new(state.passed, None, false)));
        }
        Ok(None)
    }
}

impl State {
    fn pop(&mut self) -> Option<Entry> {
        let entry = self.waiting.pop_front()?;
        self.rows -= entry.rows();
        self.bytes -= entry.bytes();
        if self.waiting.is_empty()
            && let Some(spill) = &mut self.spill
        {
            spill.close_file();
        }
        Some(entry)
    }

    /// Moves what waits in memory to disk. What cannot be written stays.
    fn spill(&mut self) {
        let Some(spill) = &mut self.spill else { return };
        for entry in &mut self.waiting {
            let Rows::Memory(delta) = &entry.rows else { continue };
            let bytes = entry.bytes();
            match spill.write(delta) {
                Ok(spilled) => entry.rows = Rows::Disk(Arc::new(spilled)),
                Err(error) => {
                    tracing::warn!(%error, "changes that wait for a sink stay in memory");
                    return;
                }
            }
            self.bytes -= bytes;
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut state = self.shared.state.lock();
        state.reader_gone = true;
        state.waiting.clear();
        state.kept.clear();
        state.spill = None;
    }
}

impl Publisher {
    /// Ticks up to this one are not of interest.
    pub(crate) fn start(&self) -> Tick {
        self.start
    }

    /// Whether anybody still reads; otherwise this side may be dropped.
    pub(crate) fn is_read(&self) -> bool {
        let state = self.shared.state.lock();
        !state.reader_gone && state.ended.is_none()
    }

    /// The reader begins with nothing, and the collection with these rows: they are part of the first change.
    pub(crate) fn begin_with(&self, rows: Option<Delta>) {
        *self.first.lock() = rows;
    }

    /// Whether there are rows of [`begin_with`](Self::begin_with) that no change has taken along yet.
    pub(crate) fn has_first(&self) -> bool {
        self.first.lock().is_some()
    }

    /// Whether the changes of `tick` are of interest.
    pub(crate) fn wants(&self, tick: Tick) -> bool {
        tick > self.start
    }

    /// `tick` is done; `delta` is the collection's net change in it. With `stop` the reader sees this tick's state
    /// by itself: nothing that comes later is merged into it.
    pub(crate) fn publish(&self, tick: Tick, delta: Option<&Delta>, stop: bool) {
        if !self.wants(tick) {
            return;
        }
        let first = match (delta.is_some() || stop).then(|| self.first.lock().take()).flatten() {
            Some(first) => match super::net(delta.cloned().into_iter().chain([first]).collect()) {
                Ok(sum) => Some(sum),
                Err(error) => return self.end(error),
            },
            None => None,
        };
        let delta = first.as_ref().map_or(delta, Option::as_ref);
        let mut state = self.shared.state.lock();
        if state.reader_gone || state.ended.is_some() {
            return;
        }
        state.passed = tick;
        if delta.is_none() && !stop {
            return;
        }
        let entry = Entry::new(tick, delta.cloned(), stop);
        state.rows += entry.rows();
        state.bytes += entry.bytes();
        state.waiting.push_back(entry);
        let full = state.bytes > self.shared.bytes_max;
        if (full || state.rows > state.merge_at.0 || state.waiting.len() > state.merge_at.1)
            && let Err(error) = merge(&mut state, self.shared.rows_max)
        {
            state.waiting.clear();
            state.kept.clear();
            (state.rows, state.bytes) = (0, 0);
            state.ended = Some(error);
        }
        // Near the bound each tick would merge everything again.
        if full && state.bytes > self.shared.bytes_max / 2 {
            state.spill();
        }
        drop(state);
        self.shared.wake();
    }

    /// Nothing more will come, and why; what waits can still be received.
    pub(crate) fn end(&self, error: Error) {
        let mut state = self.shared.state.lock();
        if state.ended.is_none() {
            state.ended = Some(error);
        }
        drop(state);
        self.shared.wake();
    }
}

/// Merges what waits in memory, up to each sealed entry; an error when more than `rows_max` rows are left.
fn merge(state: &mut State, rows_max: usize) -> Result<()> {
    let mut merged = VecDeque::new();
    let mut group = Vec::new();
    let mut tick = 0;
    while let Some(entry) = state.waiting.pop_front() {
        tick = entry.tick;
        let (sealed, next_is_apart) = match entry.rows {
            Rows::Disk(_) => {
                merged.push_back(entry);
                continue;
            }
            Rows::Memory(delta) => {
                group.push(delta);
                (
                    entry.sealed,
                    matches!(state.waiting.front(), None | Some(Entry { rows: Rows::Disk(_), .. })),
                )
            }
            Rows::None => (
                entry.sealed,
                matches!(state.waiting.front(), None | Some(Entry { rows: Rows::Disk(_), .. })),
            ),
        };
        if sealed || next_is_apart {
            merged.push_back(Entry::new(tick, super::net(std::mem::take(&mut group))?, sealed));
        }
    }
    state.rows = merged.iter().map(Entry::rows).sum();
    state.bytes = merged.iter().map(Entry::bytes).sum();
    // Twice what was left, so that merging stays cheap; near the bound sooner, so that it is one.
    let rows = BACKLOG_ROWS_MERGE.max(2 * state.rows).min(rows_max.max(state.rows + state.rows / 8));
    state.merge_at = (rows, BACKLOG_TICKS_MAX.max(2 * merged.len()));
    state.waiting = merged;
    if state.rows > rows_max {
        return Err(Error::new(
            SqlState::CONFIGURATION_LIMIT_EXCEEDED,
            "the subscription was ended because its reader is too slow",
        )
        .with_detail(format!(
            "{} changed rows were waiting up to tick {tick}; at most {rows_max} may.",
            state.rows
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array, RecordBatch};

    use super::*;

    fn rows(values: std::ops::Range<i64>) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from_iter_values(values));
        RecordBatch::try_from_iter([("x", column)]).unwrap()
    }

    fn in_memory(rows_max: usize) -> Limits {
        Limits { rows_max, spill: None }
    }

    fn drain(subscription: &Subscription) -> Vec<(Tick, i64)> {
        let mut all = Vec::new();
        while let Some(change) = subscription.try_recv().unwrap() {
            all.push((change.tick, change.delta.map_or(0, |d| d.net_rows())));
        }
        all
    }

    #[test]
    fn what_waits_is_merged_but_not_over_a_stop() {
        let (publisher, subscription) = channel(10, None, Keep::Nothing, in_memory(usize::MAX));
        publisher.publish(10, Some(&Delta::insert(rows(0..5))), false);
        for tick in 11..=1000 {
            // Every even tick takes back what the odd one before brought.
            let delta = Delta::insert(rows(0..1));
            let delta = if tick % 2 == 0 { delta.negate() } else { delta };
            publisher.publish(tick, Some(&delta), tick == 501);
        }
        let got = drain(&subscription);
        assert!(got.len() < 2 * BACKLOG_TICKS_MAX, "{} entries", got.len());
        assert_eq!(got.iter().filter(|(t, _)| *t <= 501).map(|c| c.1).sum::<i64>(), 1);
        assert!(got.iter().any(|(t, _)| *t == 501));
        assert_eq!(got.iter().map(|c| c.1).sum::<i64>(), 0);
        assert_eq!(got.last().unwrap().0, 1000);
    }

    #[test]
    fn a_reader_that_is_too_slow_is_cut_off() {
        let (publisher, subscription) = channel(0, None, Keep::Nothing, in_memory(100_000));
        for tick in 1..=4 {
            let first = tick as i64 * 50_000;
            publisher.publish(tick, Some(&Delta::insert(rows(first..first + 50_000))), false);
        }
        let error = subscription.try_recv().unwrap_err();
        assert_eq!(error.sqlstate, SqlState::CONFIGURATION_LIMIT_EXCEEDED);
        assert!(!publisher.is_read());
    }

    #[test]
    fn what_was_received_stays_apart_when_it_comes_again() {
        let (publisher, subscription) = channel(0, None, Keep::Unreleased, in_memory(usize::MAX));
        for tick in 1..=3 {
            publisher.publish(tick, Some(&Delta::insert(rows(0..1))), false);
        }
        assert_eq!(drain(&subscription), [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(subscription.rewind(), 0);
        for tick in 4..=2000 {
            publisher.publish(tick, Some(&Delta::insert(rows(0..1))), false);
        }
        let got = drain(&subscription);
        assert_eq!(got[..3], [(1, 1), (2, 1), (3, 1)]);
        assert_eq!(got.iter().map(|c| c.1).sum::<i64>(), 2000);
        subscription.release(2);
        assert_eq!(subscription.rewind(), 2);
        assert_eq!(drain(&subscription)[0], (3, 1));
    }

    #[test]
    fn what_is_too_much_for_memory_waits_on_disk_and_comes_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let spill = Spill::new(dir.path(), "s".to_string());
        let limits = Limits { rows_max: usize::MAX, spill: Some((1 << 20, spill)) };
        let (publisher, subscription) = channel(0, None, Keep::Unreleased, limits);
        for tick in 1..=400 {
            let first = tick as i64 * 10_000;
            publisher.publish(tick, Some(&Delta::insert(rows(first..first + 10_000))), tick == 77);
            assert!(subscription.backlog().memory_bytes <= 2 << 20);
        }
        let backlog = subscription.backlog();
        assert_eq!(backlog.rows, 4_000_000);
        assert!(backlog.disk_bytes > 1 << 20, "{backlog:?}");
        let read = |subscription: &Subscription| {
            let (mut values, mut ticks) = (Vec::new(), Vec::new());
            while let Some(change) = subscription.try_recv().unwrap() {
                ticks.push(change.tick);
                let rows = change.delta.unwrap().rows;
                values.extend_from_slice(
                    rows.column(0).as_any().downcast_ref::<Int64Array>().unwrap().values(),
                );
            }
            values.sort_unstable();
            (values, ticks)
        };
        let (values, ticks) = read(&subscription);
        assert!(values.iter().copied().eq(10_000..4_010_000));
        assert!(ticks.is_sorted() && ticks.contains(&77) && ticks.last() == Some(&400), "{ticks:?}");
        // What was received and not released comes again, from disk as well; what was released goes.
        assert_eq!(subscription.rewind(), 0);
        assert_eq!(read(&subscription), (values, ticks));
        subscription.release(400);
        assert_eq!(subscription.backlog(), Backlog::default());
    }

    #[test]
    fn an_end_comes_after_what_waits() {
        let (publisher, mut subscription) = channel(0, None, Keep::Nothing, in_memory(usize::MAX));
        publisher.publish(1, Some(&Delta::insert(rows(0..1))), false);
        publisher.end(Error::new(SqlState::UNDEFINED_TABLE, "dropped"));
        assert_eq!(futures::executor::block_on(subscription.recv()).unwrap().tick, 1);
        assert!(futures::executor::block_on(subscription.recv()).is_err());
        assert!(subscription.recv_timeout(Duration::ZERO).is_err());
        drop(subscription);
        assert!(!publisher.is_read());
    }
}
