//! A view under construction: built and filled beside the running circuit, on its creator's thread.
//!
//! It begins at a tick boundary with snapshots of what it reads and a recorder of what happens to that from then on.
//! The snapshots go through the new nodes as one big tick; what was recorded meanwhile follows in rounds, each
//! shorter than the one before; the short rest is done at another tick boundary, where the nodes join the circuit.

use std::sync::Arc;

use parking_lot::Mutex;

use super::circuit::{Body, Circuit, Outcome, Slot};
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
        Ok(Construction { id: spec.id, name: spec.name.clone(), spec, circuit, taps, root })
    }

    /// The collections the view reads.
    pub(crate) fn reads(&self) -> Vec<CollectionId> {
        plan::collections(&self.spec.plan)
    }

    /// Fills the nodes from where they begin until little is left to catch up with.
    pub(crate) fn hydrate(&mut self, begun: &Begun) -> Result<()> {
        for (id, tick) in &begun.after {
            for (_, slot) in self.taps.iter().filter(|(of, _)| of == id) {
                self.circuit.set_after(*slot, *tick);
            }
        }
        self.fill(&begun.snapshot)?;
        for _ in 0..ROUNDS_MAX {
            if begun.recorder.rows() <= SPLICE_ROWS_MAX {
                break;
            }
            self.round(begun.recorder.take()?)?;
        }
        Ok(())
    }

    /// The snapshots, as one tick.
    fn fill(&mut self, snapshot: &EngineSnapshot) -> Result<()> {
        self.circuit.begin(snapshot.tick);
        self.circuit.set_now(snapshot.now);
        self.circuit.touch_all();
        for id in self.reads() {
            let collection = snapshot.collection(id).ok_or_else(|| gone(id))?;
            for delta in collection.deltas()? {
                memory::check()?;
                self.push(id, &delta);
            }
        }
        self.finish()
    }

    /// What was recorded, as one tick.
    pub(crate) fn round(&mut self, recorded: Recorded) -> Result<()> {
        self.circuit.begin(recorded.tick);
        self.circuit.set_now(recorded.now);
        for (id, deltas) in &recorded.changes {
            for delta in deltas {
                self.push(*id, delta);
            }
        }
        self.finish()
    }

    fn push(&mut self, id: CollectionId, delta: &Delta) {
        for (_, slot) in self.taps.iter().filter(|(of, _)| *of == id) {
            for at in (0..delta.num_rows()).step_by(CHUNK_ROWS) {
                let chunk = delta.slice(at, CHUNK_ROWS.min(delta.num_rows() - at));
                self.circuit.push(*slot, 0, chunk);
            }
        }
    }

    fn finish(&mut self) -> Result<()> {
        self.circuit.finish();
        let Outcome { errors, failed, .. } = self.circuit.commit();
        if let Some((_, error)) = failed.into_iter().next() {
            return Err(error);
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
