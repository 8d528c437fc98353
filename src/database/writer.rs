//! Writing tables: who may write when, which keys exist, and how a transaction becomes a tick.
//!
//! A statement outside of a block holds the write lock from its first read to its tick, so it computes against the
//! newest rows and never meets a conflict; durability is waited for after the lock is given back, so that
//! many writers share one synchronisation of the journal. A block computes against the tick it began at and is
//! checked when it commits: the first committer of a row wins, the other one fails with 40001.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::array::RecordBatch;
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use tokio::sync::OwnedMutexGuard;

use crate::database::write_set::{RowKeys, TableRef, WriteSet};
use crate::engine::{CollectionId, Delta, Engine, InputChange, Tick, Transaction};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How long a session may keep the lock between two statements of one string or pipeline.
const IDLE_LEASE: Duration = Duration::from_millis(500);

/// Changed rows that are remembered without looking whether anybody still asks.
const CHANGED_MIN: usize = 10_000;

/// The one place that writes tables.
pub(crate) struct Writer {
    engine: Engine,
    state: Arc<tokio::sync::Mutex<State>>,
    /// Ticks that open transactions read at, with their number.
    open: Arc<Mutex<BTreeMap<Tick, usize>>>,
}

/// What the lock protects.
#[derive(Default)]
pub(crate) struct State {
    /// The keys of tables that were written since the start.
    keys: HashMap<CollectionId, HashSet<Box<[u8]>>>,
    /// When rows were last changed, as far as an open transaction can ask.
    changed: HashMap<CollectionId, HashMap<Box<[u8]>, Tick>>,
    /// How many of these are looked through for what can be forgotten.
    forget_at: usize,
}

impl State {
    /// Whether a row with this key exists now. [`State::index`] has been called for the table.
    pub fn contains(&self, table: CollectionId, key: &[u8]) -> bool {
        self.keys.get(&table).is_some_and(|keys| keys.contains(key))
    }

    /// Makes sure that the keys of a table are known.
    pub fn index(&mut self, engine: &Engine, table: &TableRef) -> Result<()> {
        if table.key.is_empty() || self.keys.contains_key(&table.id) {
            return Ok(());
        }
        let snapshot = engine.snapshot();
        let collection = snapshot.collection(table.id).ok_or_else(|| table.gone())?;
        let mut keys = HashSet::with_capacity(collection.num_rows());
        let encoder = RowKeys::of(table)?;
        for batch in collection.batches()? {
            let rows = encoder.encode(&batch)?;
            keys.extend(rows.iter().map(|r| Box::<[u8]>::from(r.as_ref())));
        }
        self.keys.insert(table.id, keys);
        Ok(())
    }
}

/// The write lock, held over the statements of one transaction that is not a block.
pub(crate) struct Lease {
    guard: Arc<Mutex<Option<OwnedMutexGuard<State>>>>,
    /// Counts statements: a timer of an older one does nothing.
    turn: Arc<AtomicU64>,
}

impl Lease {
    /// A statement ended and another one may follow; nobody waits for it for long.
    pub fn idle(&self) {
        let turn = self.turn.fetch_add(1, Ordering::AcqRel) + 1;
        let (guard, now) = (Arc::clone(&self.guard), Arc::clone(&self.turn));
        tokio::spawn(async move {
            world::pause(IDLE_LEASE).await;
            let mut guard = guard.lock();
            if now.load(Ordering::Acquire) == turn {
                *guard = None;
            }
        });
    }

    /// Takes the lock out for a piece of work; `None`: it was lost while the session was idle.
    fn take(&self) -> Option<OwnedMutexGuard<State>> {
        let mut guard = self.guard.lock();
        self.turn.fetch_add(1, Ordering::AcqRel);
        guard.take()
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // A timer that still runs has its own share of the guard.
        *self.guard.lock() = None;
    }
}

/// An open transaction's claim to be told of conflicts since its tick.
pub(crate) struct Reading {
    tick: Tick,
    open: Arc<Mutex<BTreeMap<Tick, usize>>>,
}

impl Drop for Reading {
    fn drop(&mut self) {
        let mut open = self.open.lock();
        if let Some(n) = open.get_mut(&self.tick) {
            *n -= 1;
            if *n == 0 {
                open.remove(&self.tick);
            }
        }
    }
}

impl Writer {
    pub fn new(engine: Engine) -> Writer {
        Writer { engine, state: Arc::default(), open: Arc::default() }
    }

    /// Waits for the write lock.
    pub async fn lease(&self) -> Lease {
        let guard = Arc::clone(&self.state).lock_owned().await;
        Lease { guard: Arc::new(Mutex::new(Some(guard))), turn: Arc::default() }
    }

    /// A transaction reads at `tick` from now on.
    pub fn reading(&self, tick: Tick) -> Reading {
        *self.open.lock().entry(tick).or_insert(0) += 1;
        Reading { tick, open: Arc::clone(&self.open) }
    }

    /// Works with the state under the lock: the lease's, or one that is taken for the moment.
    pub async fn with_state<R>(&self, lease: Option<&Lease>, work: impl FnOnce(&mut State) -> R) -> R {
        let held = lease.and_then(Lease::take);
        let mut guard = match held {
            Some(guard) => guard,
            None => Arc::clone(&self.state).lock_owned().await,
        };
        let result = work(&mut guard);
        if let Some(lease) = lease {
            *lease.guard.lock() = Some(guard);
        }
        result
    }

    /// Applies a transaction as one tick and waits until it is durable. The work goes on when the caller goes away:
    /// a transaction whose client has vanished is committed or not, never half.
    ///
    /// # Errors
    /// 40001 when a row was changed by another transaction since `read_at`.
    pub async fn commit(
        &self,
        lease: Option<Lease>,
        read_at: Tick,
        reading: Option<Reading>,
        writes: Vec<WriteSet>,
    ) -> Result<Option<Tick>> {
        if writes.iter().all(|w| w.deltas.is_empty()) {
            return Ok(None);
        }
        let guard = lease.as_ref().and_then(Lease::take);
        let (engine, state, open) = (self.engine.clone(), Arc::clone(&self.state), Arc::clone(&self.open));
        let work = async move {
            let mut guard = match guard {
                Some(guard) => guard,
                None => state.lock_owned().await,
            };
            check_conflicts(&guard, read_at, &writes)?;
            // Checked, and the lock is held: from here on nobody has to remember anything for this transaction.
            drop(reading);
            let mut changes = Vec::with_capacity(writes.len());
            for w in writes.iter().filter(|w| !w.deltas.is_empty()) {
                changes.push((w.table.id, InputChange::Delta(Delta::concat(&w.table.schema, &w.deltas)?)));
            }
            let transaction = Transaction { changes, progress: Vec::new() };
            let submit = {
                let engine = engine.clone();
                move || engine.submit(transaction)
            };
            // Submitting waits while the engine is behind.
            let receipt = tokio::task::spawn_blocking(submit).await.map_err(lost)?;
            let tick = match receipt.applied().await {
                Ok(tick) => tick,
                Err(error) => {
                    // What exists is read again by the next writer.
                    for w in &writes {
                        guard.keys.remove(&w.table.id);
                    }
                    return Err(error);
                }
            };
            let oldest = open.lock().keys().next().copied();
            remember(&mut guard, &writes, tick, oldest);
            drop(guard);
            tokio::task::spawn_blocking(move || engine.wait_durable(tick)).await.map_err(lost)??;
            Ok(Some(tick))
        };
        tokio::spawn(work).await.map_err(lost)?
    }

    /// Forgets what is known of a table that is gone. Not from async threads.
    pub fn forget(&self, table: CollectionId) {
        let mut state = self.state.blocking_lock();
        state.keys.remove(&table);
        state.changed.remove(&table);
    }
}

fn lost(e: tokio::task::JoinError) -> Error {
    Error::internal(format!("a commit was lost: {e}"))
}

fn check_conflicts(state: &State, read_at: Tick, writes: &[WriteSet]) -> Result<()> {
    for w in writes {
        let Some(changed) = state.changed.get(&w.table.id) else { continue };
        if w.touched().any(|key| changed.get(key).is_some_and(|tick| *tick > read_at)) {
            return Err(Error::new(
                SqlState::SERIALIZATION_FAILURE,
                "could not serialize access due to concurrent update",
            )
            .with_hint("The transaction might succeed if retried."));
        }
    }
    Ok(())
}

/// Notes what a commit has changed: which keys exist, and what transactions that read before it must not touch.
fn remember(state: &mut State, writes: &[WriteSet], tick: Tick, oldest: Option<Tick>) {
    let others_read = oldest.is_some_and(|oldest| oldest < tick);
    if !others_read {
        state.changed.clear();
    }
    for w in writes {
        if let Some(keys) = state.keys.get_mut(&w.table.id) {
            for (key, exists) in &w.keys {
                if *exists {
                    keys.insert(key.clone());
                } else {
                    keys.remove(key);
                }
            }
        }
        if others_read {
            let changed = state.changed.entry(w.table.id).or_default();
            changed.extend(w.touched().map(|key| (Box::from(key), tick)));
        }
    }
    // What every open transaction has seen already is forgotten whenever the memory has doubled.
    let remembered: usize = state.changed.values().map(HashMap::len).sum();
    if remembered > state.forget_at {
        let oldest = oldest.unwrap_or(tick);
        for changed in state.changed.values_mut() {
            changed.retain(|_, tick| *tick > oldest);
        }
        let left: usize = state.changed.values().map(HashMap::len).sum();
        state.forget_at = (left * 2).max(CHANGED_MIN);
    }
}

/// The batches as one change, each row `weight` times.
pub(crate) fn delta_of(rows: RecordBatch, weight: i64) -> Delta {
    let weights = (weight != 1).then(|| vec![weight; rows.num_rows()].into());
    Delta { rows, weights }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;

    #[tokio::test]
    async fn a_commit_without_changes_gives_the_lock_back_at_once() {
        let writer = Writer::new(Engine::open(EngineConfig::default()).unwrap());
        let lease = writer.lease().await;
        // The timer of a statement before has its own share of the guard.
        lease.idle();
        assert_eq!(writer.commit(Some(lease), 0, None, Vec::new()).await.unwrap(), None);
        assert!(writer.state.try_lock().is_ok());
    }
}
