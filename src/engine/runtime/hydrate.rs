//! A view under construction: built and filled beside the running circuit, on its creator's thread.
//!
//! It begins at a tick boundary with snapshots of what it reads and a recorder of what happens to that from then on.
//! The snapshots go through the new nodes as one big tick; what was recorded meanwhile follows in rounds, each
//! shorter than the one before; the short rest is done at another tick boundary, where the nodes join the circuit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::circuit::{Body, Circuit, Outcome, Slot};
use super::operator::{Operator, Output};
use super::widen::other_columns;
use super::workers::Workers;
use crate::engine::delta::CHUNK_ROWS;
use crate::engine::ops::{self, output::View};
use crate::engine::plan::spec::NodeSpec;
use crate::engine::plan::{self, lower::lower};
use crate::engine::serve::snapshot::EngineSnapshot;
use crate::engine::{CollectionId, Delta, Tick, ViewSpec};
use crate::error::{Error, Result, SqlState};
use crate::memory;

/// A backlog of at most so many rows is done at the tick boundary.
const SPLICE_ROWS_MAX: usize = 16 << 10;
/// After so many rounds the rest is done at the tick boundary, however much it is.
const ROUNDS_MAX: usize = 32;
/// Recorded rows from which on they are consolidated; afterwards at twice the rows that were left.
const RECORDED_ROWS_MERGE: usize = 1 << 20;

/// How far a view under construction has been filled, for whoever looks at it; and the way to stop that.
#[derive(Debug, Default)]
pub struct Hydration {
    done: AtomicU64,
    total: AtomicU64,
    stopped: AtomicBool,
}

impl Hydration {
    /// Rows it was filled from so far, of those there were when it began.
    pub fn rows(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }

    /// The construction is to end with an error, soon, and to leave nothing.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    /// Whether it was told to stop.
    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    fn check(&self) -> Result<()> {
        match self.is_stopped() {
            true => Err(Error::new(SqlState::QUERY_CANCELED, "the view is not filled any further")),
            false => Ok(()),
        }
    }
}

/// New nodes with what they need to join the circuit.
pub(crate) struct Construction {
    pub(crate) id: CollectionId,
    pub(crate) name: String,
    pub(crate) spec: ViewSpec,
    pub(crate) circuit: Circuit,
    /// Where the view reads which collection.
    pub(crate) taps: Vec<(CollectionId, Slot)>,
    /// The node that keeps the view's rows.
    pub(crate) root: Slot,
    /// The view whose place it is to take.
    pub(crate) replaces: Option<Replaced>,
}

/// A view that another one is built to replace.
pub(crate) struct Replaced {
    pub(crate) id: CollectionId,
    /// The new view's rows less the old one's: what its readers are told when they change hands.
    pub(crate) difference: Box<View>,
}

/// Where a construction begins.
pub(crate) struct Begun {
    pub(crate) snapshot: Arc<EngineSnapshot>,
    pub(crate) recorder: Arc<Recorder>,
    /// Collections that keep no rows: only changes after the tick are for this view.
    pub(crate) after: Vec<(CollectionId, Tick)>,
    /// The tick in which the journal says so.
    pub(crate) attached: Option<Tick>,
}

/// What happened to some collections since a tick, waiting for a view under construction.
pub(crate) struct Recorder {
    /// For which view.
    pub(crate) view: CollectionId,
    /// Of which collections.
    pub(crate) reads: Vec<CollectionId>,
    recorded: Mutex<Recorded>,
}

/// See [`Recorder`].
pub(crate) struct Recorded {
    /// Up to which tick.
    pub(crate) tick: Tick,
    /// The time of that tick.
    pub(crate) now: i64,
    pub(crate) changes: Vec<(CollectionId, Vec<Delta>)>,
    rows: usize,
    merge_at: usize,
    /// Why the construction cannot go on.
    gone: Option<Error>,
}

impl Recorder {
    pub(crate) fn new(view: CollectionId, reads: Vec<CollectionId>, tick: Tick, now: i64) -> Self {
        let recorded =
            Recorded { tick, now, changes: Vec::new(), rows: 0, merge_at: RECORDED_ROWS_MERGE, gone: None };
        Recorder { view, reads, recorded: Mutex::new(recorded) }
    }

    /// Takes note of a collection's changes in a tick.
    pub(crate) fn record(&self, tick: Tick, now: i64, id: CollectionId, deltas: &[Delta]) {
        let mut recorded = self.recorded.lock();
        let recorded = &mut *recorded;
        (recorded.tick, recorded.now) = (tick, now);
        recorded.rows += deltas.iter().map(Delta::num_rows).sum::<usize>();
        if deltas.is_empty() {
            return;
        }
        match recorded.changes.iter_mut().find(|(of, _)| *of == id) {
            Some((_, waiting)) => waiting.extend_from_slice(deltas),
            None => recorded.changes.push((id, deltas.to_vec())),
        }
        if recorded.rows > recorded.merge_at {
            recorded.rows = 0;
            for (_, waiting) in &mut recorded.changes {
                match super::net(std::mem::take(waiting)) {
                    Ok(delta) => {
                        recorded.rows += delta.as_ref().map_or(0, Delta::num_rows);
                        waiting.extend(delta);
                    }
                    Err(error) => recorded.gone = Some(error),
                }
            }
            recorded.merge_at = RECORDED_ROWS_MERGE.max(2 * recorded.rows);
        }
    }

    /// The construction cannot go on.
    pub(crate) fn end(&self, error: Error) {
        self.recorded.lock().gone.get_or_insert(error);
    }

    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Result<Recorded> {
        let mut recorded = self.recorded.lock();
        if let Some(error) = &recorded.gone {
            return Err(error.clone());
        }
        let (tick, now) = (recorded.tick, recorded.now);
        let empty =
            Recorded { tick, now, changes: Vec::new(), rows: 0, merge_at: RECORDED_ROWS_MERGE, gone: None };
        Ok(std::mem::replace(&mut *recorded, empty))
    }

    /// Rows recorded since the last [`take`](Self::take).
    fn rows(&self) -> usize {
        self.recorded.lock().rows
    }
}

impl Construction {
    /// Plans the view and makes its nodes, for these workers.
    pub(crate) fn new(spec: ViewSpec, workers: &Workers) -> Result<Construction> {
        let lowered = lower(&spec.plan, spec.id)?;
        let types = |schema: &arrow::datatypes::Schema| -> Vec<_> {
            schema.fields().iter().map(|f| f.data_type().clone()).collect()
        };
        let root_schema = &lowered.nodes[lowered.root].schema;
        if types(root_schema) != types(&spec.schema) {
            return Err(Error::internal(format!(
                "the circuit of \"{}\" gives {:?} where the view has {:?}",
                spec.name,
                types(root_schema),
                types(&spec.schema)
            )));
        }
        let mut circuit = Circuit::default();
        let mut taps = Vec::new();
        let mut slots: Vec<Slot> = Vec::with_capacity(lowered.nodes.len());
        for node in lowered.nodes {
            let inputs: Vec<Slot> = node.inputs.iter().map(|i| slots[*i]).collect();
            let slot = match &node.spec {
                NodeSpec::Collection(id) => {
                    let slot = circuit.add(spec.id, Body::Tap { after: 0 }, &[]);
                    taps.push((*id, slot));
                    slot
                }
                other => {
                    let operator = ops::build(other, &node.schema, workers)?;
                    circuit.add_lowered(spec.id, operator, node, &inputs)
                }
            };
            slots.push(slot);
        }
        let view = Body::View(Box::new(View::new(&spec.schema)));
        let root = circuit.add(spec.id, view, &[slots[lowered.root]]);
        let (id, name) = (spec.id, spec.name.clone());
        Ok(Construction { id, name, spec, circuit, taps, root, replaces: None })
    }

    /// It is to take the place of the view `id`, which has the same columns.
    pub(crate) fn replacing(mut self, id: CollectionId) -> Construction {
        self.replaces = Some(Replaced { id, difference: Box::new(View::new(&self.spec.schema)) });
        self
    }

    /// The collections the view reads.
    pub(crate) fn reads(&self) -> Vec<CollectionId> {
        plan::collections(&self.spec.plan)
    }

    /// The collections of which the construction must be told: those the view reads, and the one that it replaces.
    pub(crate) fn follows(&self) -> Vec<CollectionId> {
        self.reads().into_iter().chain(self.replaces.as_ref().map(|old| old.id)).collect()
    }

    /// Fills the nodes from where they begin until little is left to catch up with.
    pub(crate) fn hydrate(&mut self, begun: &Begun, hydration: &Hydration) -> Result<()> {
        for (id, tick) in &begun.after {
            for (_, slot) in self.taps.iter().filter(|(of, _)| of == id) {
                self.circuit.set_after(*slot, *tick);
            }
        }
        self.fill(&begun.snapshot, hydration)?;
        for _ in 0..ROUNDS_MAX {
            hydration.check()?;
            if begun.recorder.rows() <= SPLICE_ROWS_MAX {
                break;
            }
            self.round(begun.recorder.take()?)?;
        }
        Ok(())
    }

    /// The snapshots, as one tick.
    fn fill(&mut self, snapshot: &EngineSnapshot, hydration: &Hydration) -> Result<()> {
        self.begin_filling(snapshot.tick, snapshot.now);
        let mut told = Vec::new();
        for id in self.follows() {
            let collection = snapshot.collection(id).ok_or_else(|| gone(id))?;
            told.push((id, collection.deltas()?));
        }
        for (id, columns) in plan::widths(&self.spec.plan) {
            let collection = snapshot.collection(id).ok_or_else(|| gone(id))?;
            if collection.schema().fields().len() != columns {
                return Err(other_columns(collection.name()));
            }
        }
        let rows = told.iter().flat_map(|(_, deltas)| deltas).map(|delta| delta.num_rows() as u64);
        hydration.total.store(rows.sum(), Ordering::Relaxed);
        for (id, deltas) in told {
            for delta in deltas {
                for at in (0..delta.num_rows()).step_by(CHUNK_ROWS) {
                    memory::check()?;
                    hydration.check()?;
                    let rows = CHUNK_ROWS.min(delta.num_rows() - at);
                    self.push(id, &delta.slice(at, rows))?;
                    hydration.done.fetch_add(rows as u64, Ordering::Relaxed);
                }
            }
        }
        self.finish()
    }

    /// The first tick of the new nodes begins.
    pub(crate) fn begin_filling(&mut self, tick: Tick, now: i64) {
        self.circuit.begin(tick);
        self.circuit.set_now(now);
        self.circuit.touch_all();
    }

    /// What was recorded, as one tick.
    pub(crate) fn round(&mut self, recorded: Recorded) -> Result<()> {
        self.circuit.begin(recorded.tick);
        self.circuit.set_now(recorded.now);
        for (id, deltas) in &recorded.changes {
            for delta in deltas {
                self.push(*id, delta)?;
            }
        }
        self.finish()
    }

    /// Gives the nodes a change of something that the view reads or replaces.
    pub(crate) fn push(&mut self, id: CollectionId, delta: &Delta) -> Result<()> {
        if let Some(old) = self.replaces.as_mut().filter(|old| old.id == id) {
            old.difference.push(0, delta.clone().negate(), &mut Output::default())?;
        }
        for (_, slot) in self.taps.iter().filter(|(of, _)| *of == id) {
            for at in (0..delta.num_rows()).step_by(CHUNK_ROWS) {
                let chunk = delta.slice(at, CHUNK_ROWS.min(delta.num_rows() - at));
                self.circuit.push(*slot, 0, chunk);
            }
        }
        Ok(())
    }

    /// The tick ends.
    pub(crate) fn finish(&mut self) -> Result<()> {
        self.circuit.finish();
        let Outcome { errors, failed, mut changes } = self.circuit.commit();
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
        }
        if let Some(old) = &mut self.replaces {
            for delta in changes.remove(&self.id).unwrap_or_default() {
                old.difference.push(0, delta, &mut Output::default())?;
            }
            old.difference.commit()?;
        }
        if let Some(view) = self.circuit.view_mut(self.root) {
            view.add_errors(errors.into_values().flatten().collect());
        }
        Ok(())
    }
}

/// The error of a collection that is not there, or not any more.
pub(crate) fn gone(id: CollectionId) -> Error {
    Error::new(SqlState::UNDEFINED_TABLE, format!("collection {} does not exist", id.0))
}
