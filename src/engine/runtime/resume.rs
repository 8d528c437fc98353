//! A replay that begins with a checkpoint: up to its tick the journal is read for the inputs' rows alone.

use std::collections::BTreeSet;

use super::circuit::Slot;
use super::circuit::resume::NodeState;
use super::core::{Core, Kind};
use super::replay::Step;
use crate::engine::delta::CHUNK_ROWS;
use crate::engine::durable::checkpoint::{Checkpoint, Known};
use crate::engine::durable::recover::Recovered;
use crate::engine::state::Restored;
use crate::engine::{CheckpointStats, Delta, Tick};
use crate::error::Result;
use crate::world;

/// A checkpoint of which the nodes have taken up their state, before the journal was read up to its tick.
pub(super) struct Resumed {
    pub(super) tick: Tick,
    now: i64,
    /// The nodes that have their state; the others are to be filled at that tick.
    settled: BTreeSet<Slot>,
}

impl Core {
    /// Lets the nodes take up the newest checkpoint that fits.
    pub(super) fn resume(&mut self, recovered: &Recovered, stops: &[Tick]) -> Result<Option<Resumed>> {
        let Some(dir) = self.shared.config.dir.clone() else { return Ok(None) };
        let base_tick = recovered.base.as_ref().map_or(0, |b| b.tick);
        let workers = self.shared.config.workers;
        let found = Checkpoint::list(&dir, base_tick, recovered.last, workers)?;
        let followed = self
            .collections
            .values()
            .flat_map(|c| c.publishers.iter().map(move |p| (c.keeps_rows(), p.start())));
        let followed: Vec<(bool, Tick)> = followed.collect();
        // Who follows from the beginning begins with all rows, if they are kept.
        if followed.iter().any(|(keeps_rows, _)| !keeps_rows) {
            return Ok(None);
        }
        let asked = stops.iter().copied().chain(followed.into_iter().map(|(_, start)| start));
        // Views that are to be replaced are as they were before it.
        let asked = asked.chain(self.replacements.iter().map(|(tick, _)| tick.saturating_sub(1).max(1)));
        let latest = asked.filter(|tick| *tick > 0).min().unwrap_or(Tick::MAX);
        let mut fitting = found.into_iter().filter(|c| c.tick <= latest).peekable();
        if fitting.peek().is_none() {
            return Ok(None);
        }
        for checkpoint in fitting {
            let started = world::instant();
            match self.take_up(&checkpoint) {
                Ok((Some(settled), known, bytes)) => {
                    let took = world::instant().duration_since(started);
                    let restored = CheckpointStats {
                        tick: checkpoint.tick,
                        restored: true,
                        at_micros: world::now_micros(),
                        nodes: settled.len(),
                        bytes,
                        bytes_written: 0,
                        paused: took,
                        took,
                        error: None,
                    };
                    self.checkpointer.start(restored, known);
                    return Ok(Some(Resumed { tick: checkpoint.tick, now: checkpoint.now, settled }));
                }
                Ok((None, ..)) => {}
                Err(error) => tracing::warn!(%error, "the checkpoint is left out"),
            }
        }
        let no_states = std::iter::empty::<Result<NodeState<Restored>>>();
        let nobody = self.circuit.take_up(no_states, &self.shared.workers)?;
        self.fill(nobody)?;
        Ok(None)
    }

    /// The nodes that have taken up their state, with where its tiles are and how many bytes there were; no nodes when a
    /// view that cannot be filled from rows is not in the checkpoint.
    fn take_up(&mut self, checkpoint: &Checkpoint) -> Result<(Option<BTreeSet<Slot>>, Known, u64)> {
        let workers = &self.shared.workers;
        let (settled, known, bytes) = checkpoint.states(|states| self.circuit.take_up(states, workers))?;
        let whole = self.collections.iter().all(|(id, collection)| match &collection.kind {
            Kind::View { passing, windows, .. } => {
                passing.is_empty() && windows.is_none() || self.circuit.has_settled(*id, &settled)
            }
            Kind::Input { .. } => true,
        });
        Ok((whole.then_some(settled), known, bytes))
    }

    /// The journal was read up to the checkpoint's tick: from here on everything goes through the circuit.
    pub(super) fn resume_from(&mut self, step: &mut Step, resumed: Resumed) -> Result<()> {
        self.tick = resumed.tick;
        self.now = self.now.max(step.now).max(resumed.now);
        self.closed_as_restored();
        step.report.checkpoint_tick = resumed.tick;
        step.report.nodes_restored = resumed.settled.len();
        self.fill(resumed.settled)?;
        let stop = step.stops.front() == Some(&resumed.tick);
        if stop {
            step.stops.pop_front();
        }
        let circuit = &self.circuit;
        for collection in self.collections.values_mut() {
            collection.last_tick = resumed.tick;
            if !collection.publishers.iter().any(|p| p.wants(resumed.tick)) {
                continue;
            }
            let rows = match &collection.kind {
                Kind::Input { input, .. } => Some(input.snapshot()?),
                Kind::View { root, .. } => circuit.view(*root).map(|view| view.snapshot()),
            };
            let rows = super::net(rows.map(|rows| rows.deltas()).transpose()?.unwrap_or_default())?;
            for publisher in &collection.publishers {
                publisher.begin_with(None);
                publisher.publish(resumed.tick, rows.as_ref(), stop);
            }
        }
        Ok(())
    }

    /// Fills all nodes but these from the rows of what they read, as one tick.
    fn fill(&mut self, settled: BTreeSet<Slot>) -> Result<()> {
        self.circuit.begin(self.tick);
        self.circuit.begin_filling(settled);
        self.circuit.set_now(self.now);
        let mut told: Vec<(Slot, Vec<Delta>)> = Vec::new();
        for collection in self.collections.values() {
            let slot = collection.slot();
            let rows = match &collection.kind {
                _ if !self.circuit.fills_readers(slot) => continue,
                Kind::Input { input, .. } => input.snapshot()?,
                Kind::View { .. } if !self.circuit.is_settled(slot) => continue,
                Kind::View { root, .. } => self.view(*root)?.snapshot(),
            };
            told.push((slot, rows.deltas()?));
        }
        for (slot, deltas) in told {
            for delta in deltas {
                for at in (0..delta.num_rows()).step_by(CHUNK_ROWS) {
                    let chunk = delta.slice(at, CHUNK_ROWS.min(delta.num_rows() - at));
                    self.circuit.push_to_readers(slot, &chunk);
                }
            }
        }
        self.circuit.finish();
        let mut outcome = self.circuit.commit();
        // A view that has its rows has its errors, though a node that it shares with another was filled again.
        outcome.errors.retain(|id, _| {
            self.collections.get(id).is_some_and(|view| !self.circuit.is_settled(view.slot()))
        });
        self.circuit.end_filling();
        self.take_errors(outcome.errors, outcome.failed);
        Ok(())
    }
}
