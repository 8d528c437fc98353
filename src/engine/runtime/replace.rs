//! A view takes another one's place: between two ticks, so that nobody sees both or neither.
//!
//! The new one is built beside the running circuit as any view, and keeps, besides its own rows, what they are more and
//! less than the old one's: so the moment itself costs what differs, not what is there. It is a tick of its own, in
//! which those who read or follow the view are given the difference.
//!
//! A sink's progress is a tick, and a tick must mean the same rows after a restart. So where a sink has to go back to
//! before the replacement, the replay begins with the old query and does the same again at the same tick.

use std::collections::{BTreeMap, HashMap};

use super::circuit::Slot;
use super::core::{Collection, Core, Kind};
use super::hydrate::{Construction, Recorder, gone};
use super::replay::Step;
use super::tick::{Changes, Told};
use crate::engine::plan::closing::closing_of;
use crate::engine::{CollectionId, Delta, Tick};
use crate::error::{Error, Result};
use crate::world;

/// What is done once the tick is journalled and before it is seen.
pub(crate) type Ready = Box<dyn FnOnce(Tick) -> Result<()> + Send>;

impl Core {
    /// See [`crate::engine::Engine::replacement`].
    pub(crate) fn replace(
        &mut self,
        mut construction: Construction,
        recorder: &Recorder,
        ready: Ready,
    ) -> Result<Tick> {
        let mut recorded = recorder.take()?;
        recorded.now = self.now;
        construction.round(recorded)?;
        let id = self.check_replaceable(&construction)?;
        let difference = difference(&construction)?;
        let none = self.begin_tick(Changes::default())?;
        let told = match ready(self.tick) {
            Ok(()) => Ok(self.put_in_place(id, construction, difference)?),
            Err(error) => Err(error),
        };
        // The tick is in the journal, whatever it brings.
        let mut changed = self.pass(&none, told.as_ref().ok(), false);
        world::crash_point("view.replaced");
        if told.is_ok() {
            // What the view lacks because of errors, those who read it lack.
            changed.extend(self.with_readers([id]));
        }
        self.publish_snapshot(changed)?;
        told.map(|_| self.tick)
    }

    /// See [`crate::engine::Engine::replace_view_at`].
    pub(crate) fn replace_at(&mut self, tick: Tick, construction: Construction) -> Result<()> {
        if self.live {
            return Err(Error::internal("what happened in the replay is told before it"));
        }
        self.check_replaceable(&construction)?;
        self.timed |= construction.circuit.is_timed();
        let at = self.replacements.partition_point(|(before, _)| *before <= tick);
        self.replacements.insert(at, (tick, construction));
        Ok(())
    }

    /// Does in the replay what was done in tick `tick`. A view that cannot be filled any more stops, and those that read it.
    pub(super) fn replace_again(&mut self, step: &mut Step, tick: Tick, new: Construction) -> Result<()> {
        self.run_step(step, tick.saturating_sub(1), false)?;
        let old = new.replaces.as_ref().and_then(|old| self.collections.get(&old.id));
        let Some(slot) = old.map(Collection::slot) else { return Ok(()) };
        if let Err(error) = self.fill_and_replace(tick, new) {
            let stopped = self.circuit.stop(slot, error);
            self.take_errors(HashMap::new(), stopped);
        }
        Ok(())
    }

    fn fill_and_replace(&mut self, tick: Tick, mut construction: Construction) -> Result<()> {
        construction.begin_filling(self.tick, self.now);
        for id in construction.follows() {
            let rows = match &self.collections.get(&id).ok_or_else(|| gone(id))?.kind {
                Kind::Input { input, .. } => input.snapshot()?,
                Kind::View { root, .. } => self.view(*root)?.snapshot(),
            };
            for delta in rows.deltas()? {
                construction.push(id, &delta)?;
            }
        }
        construction.finish()?;
        let id = self.check_replaceable(&construction)?;
        let difference = difference(&construction)?;
        self.tick = tick;
        let told = self.put_in_place(id, construction, difference)?;
        self.pass(&BTreeMap::new(), Some(&told), false);
        Ok(())
    }

    /// The view that is to be replaced, if that can be.
    fn check_replaceable(&self, construction: &Construction) -> Result<CollectionId> {
        let Some(id) = construction.replaces.as_ref().map(|old| old.id) else {
            return Err(Error::internal("a view that replaces none"));
        };
        let old = self.collections.get(&id).ok_or_else(|| gone(id))?;
        let Kind::View { passing, windows, .. } = &old.kind else {
            return Err(Error::internal("what is replaced is no view"));
        };
        // Which windows have closed is told by the view's own history.
        if windows.is_some() || closing_of(&construction.spec.plan).is_some() {
            return Err(Error::unsupported("CREATE OR REPLACE of a view with EMIT ON WINDOW CLOSE"));
        }
        if let Some(error) = &old.failed {
            return Err(error.clone());
        }
        if !passing.is_empty() {
            return Err(Error::unsupported("replacing a view over a source that keeps no rows"));
        }
        // Who reads the node that keeps the rows of two views might read either: they must not both be read.
        let read = |view: CollectionId| self.collections.values().any(|c| c.reads().contains(&view));
        let mut others = self.collections.iter().filter(|(other, c)| **other != id && c.slot() == old.slot());
        if let Some((_, other)) = others.find(|(other, _)| read(id) && read(**other)) {
            return Err(Error::unsupported(format!(
                "replacing view \"{}\" while others read it and view \"{}\", which has the same query",
                old.name, other.name
            )));
        }
        for read in construction.reads() {
            if !self.collections.contains_key(&read) {
                return Err(gone(read));
            }
        }
        Ok(id)
    }

    /// The new nodes join the circuit, the old ones leave it; answers with what is to be told, and whom.
    fn put_in_place(
        &mut self,
        id: CollectionId,
        construction: Construction,
        difference: Vec<Delta>,
    ) -> Result<Told> {
        let reads = construction.reads();
        let Construction { id: building, circuit, taps, root, spec, .. } = construction;
        let slot = |id| self.collections.get(&id).map(|c| c.slot()).ok_or_else(|| gone(id));
        let known = taps.into_iter().map(|(from, tap)| Ok((tap, slot(from)?)));
        let known: HashMap<Slot, Slot> = known.collect::<Result<_>>()?;
        let before = slot(id)?;
        let shared = self.collections.iter().any(|(other, c)| *other != id && c.slot() == before);
        let read = self.collections.values().any(|c| c.reads().contains(&id));
        let root = self.circuit.absorb(circuit, known)[&root];
        // Of a node that keeps two views' rows, what reads it reads the other one when nobody reads this one.
        let readers = match root != before && (read || !shared) {
            true => self.circuit.redirect(before, root),
            false => Vec::new(),
        };
        self.circuit.remove(id);
        self.circuit.hand_over(building, id);
        self.circuit.rank_anew();
        let rows_in = self.collections.get(&id).map_or(0, |c| self.rows_in(c));
        let read_before = self.rows_given(&reads);
        if let Some(collection) = self.collections.get_mut(&id) {
            (collection.rows_in, collection.read_before) = (rows_in, read_before);
            collection.kind = Kind::View {
                plan: std::sync::Arc::new(spec.plan),
                reads,
                passing: Vec::new(),
                root,
                windows: None,
            };
        }
        Ok(Told { id, readers, difference })
    }
}

/// What is new in the view, and what is gone.
fn difference(construction: &Construction) -> Result<Vec<Delta>> {
    let old = construction.replaces.as_ref();
    let rows = old.map(|old| old.difference.snapshot().deltas()).transpose()?.unwrap_or_default();
    Ok(rows.into_iter().filter(|delta| !delta.is_empty()).collect())
}
