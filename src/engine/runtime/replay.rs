//! How everything comes back after a restart: the journal's changes again, in few big ticks.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use super::core::{Core, Kind};
use super::resume::Resumed;
use super::watermark::{self, Told};
use super::{clock, net};
use crate::engine::delta::nullable;
use crate::engine::durable::corrupted;
use crate::engine::durable::journal::Journal;
use crate::engine::durable::record::{self, Changes};
use crate::engine::durable::recover::{JournalFile, RecordReader, Recovered};
use crate::engine::durable::sync::UNDURABLE_TICKS_MAX;
use crate::engine::{CollectionId, Delta, InputChange, Tick};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Rows of the journal that become one tick in memory, at most (and at least one record).
const STEP_ROWS_MAX: usize = 1 << 20;

/// What a replay did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayReport {
    /// The last tick; numbering goes on after it.
    pub tick: Tick,
    /// The tick of the base that it began with; 0: none.
    pub base_tick: Tick,
    /// The tick of the checkpoint that the views began with; 0: none, they were computed.
    pub checkpoint_tick: Tick,
    /// Nodes that took up their state from it.
    pub nodes_restored: usize,
    /// Records read.
    pub records: u64,
    /// Changed rows in them, of inputs that still exist.
    pub rows: u64,
    /// Bytes of files read.
    pub bytes: u64,
    /// Big ticks they were applied in.
    pub steps: u64,
    /// Bytes of a record that was torn by the crash, never acknowledged and cut off.
    pub torn_bytes: u64,
    /// How long it took.
    pub elapsed: Duration,
}

/// Changes that were read and not applied yet.
pub(super) struct Step {
    by_input: BTreeMap<CollectionId, Vec<Delta>>,
    rows: usize,
    /// The last tick read.
    tick: Tick,
    /// The last time read, in microseconds since 1970.
    pub(super) now: i64,
    /// Ticks whose state must be seen by itself, in order.
    pub(super) stops: VecDeque<Tick>,
    /// The checkpoint that was not reached yet.
    resumed: Option<Resumed>,
    /// Views of which the journal says from when on they see inputs that keep no rows.
    attached: BTreeSet<CollectionId>,
    /// Rows that views had given when the base was written, of windows that were closed.
    given: BTreeMap<CollectionId, Vec<Delta>>,
    /// The tick that was read last must be seen by itself: windows close in it.
    ends_step: bool,
    pub(super) report: ReplayReport,
}

impl Core {
    /// Replays the journal, pausing at `stops`, and goes live.
    pub(crate) fn replay(&mut self, stops: &[Tick]) -> Result<ReplayReport> {
        if self.live {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                "the journal was replayed already",
            ));
        }
        let Some(recovered) = self.recovered.take() else {
            self.go_live();
            return Ok(ReplayReport::default());
        };
        let started = world::instant();
        let mut step = Step {
            by_input: BTreeMap::new(),
            rows: 0,
            tick: 0,
            now: i64::MIN,
            stops: stops.iter().copied().collect::<BTreeSet<_>>().into_iter().collect(),
            resumed: None,
            attached: BTreeSet::new(),
            given: BTreeMap::new(),
            ends_step: false,
            report: ReplayReport { torn_bytes: recovered.torn_bytes, ..ReplayReport::default() },
        };
        let base_tick = recovered.base.as_ref().map_or(0, |b| b.tick);
        if let Some(stop) = step.stops.front().filter(|s| **s < base_tick && **s > 0) {
            return Err(Error::new(
                SqlState::DATA_CORRUPTED,
                format!(
                    "the journal begins at tick {base_tick}, and the changes after tick {stop} are needed"
                ),
            ));
        }
        step.resumed = self.resume(&recovered, stops)?;
        if let Some(base) = &recovered.base {
            self.read_file(base, &mut step)?;
            step.tick = base_tick;
        }
        for segment in &recovered.segments {
            if segment.tick > step.tick {
                return Err(corrupted(
                    &segment.path,
                    format!(
                        "it begins after tick {}, and the file before it ends at tick {}",
                        segment.tick, step.tick
                    ),
                ));
            }
            self.read_file(segment, &mut step)?;
        }
        step.tick = step.tick.max(recovered.last);
        self.reach_checkpoint(&mut step, Tick::MAX)?;
        self.reach(&mut step, Tick::MAX)?;
        let last = step.tick;
        self.run_step(&mut step, last, false)?;
        self.tick = last;
        self.start_journal(recovered)?;
        self.close_rest()?;
        self.attach_rest(&step.attached)?;
        for collection in self.collections.values() {
            collection
                .publishers
                .iter()
                .filter(|p| p.has_first())
                .for_each(|p| p.publish(last.max(1), None, true));
        }
        let every: Vec<CollectionId> = self.collections.keys().copied().collect();
        self.publish_snapshot(every)?;
        self.go_live();
        Ok(ReplayReport { tick: self.tick, base_tick, elapsed: started.elapsed(), ..step.report })
    }

    fn read_file(&mut self, file: &JournalFile, step: &mut Step) -> Result<()> {
        let mut reader = RecordReader::open(&file.path)?;
        let mut payload = Vec::new();
        while let Some(header) = reader.next(&mut payload)? {
            step.report.records += 1;
            self.reach_checkpoint(step, header.tick)?;
            self.reach(step, header.tick)?;
            match header.kind {
                record::Kind::Changes => {
                    self.read_changes(&Changes::parse(&payload, &file.path)?, header.tick, &reader, step)?
                }
                record::Kind::Attach(view) => {
                    let before = step.tick;
                    self.run_step(step, before, false)?;
                    self.attach(view, header.tick);
                    step.attached.insert(view);
                }
                record::Kind::End => {}
            }
            step.tick = step.tick.max(header.tick);
            if step.rows >= STEP_ROWS_MAX || std::mem::take(&mut step.ends_step) {
                let tick = step.tick;
                self.run_step(step, tick, false)?;
            }
        }
        reader.finish()?;
        step.report.bytes += file.bytes;
        Ok(())
    }

    fn read_changes(
        &mut self,
        changes: &Changes<'_>,
        tick: Tick,
        reader: &RecordReader,
        step: &mut Step,
    ) -> Result<()> {
        for (source, position) in &changes.progress {
            if let Some(now) = clock::told(source, position) {
                step.now = step.now.max(now);
            }
            match watermark::told(source, position) {
                Some(Told::Watermark(input, watermark)) => {
                    let closes = self.advance(input, watermark);
                    step.ends_step |= closes && step.resumed.is_none();
                }
                Some(Told::Closes(view, closed)) => {
                    // Up to here it takes in everything.
                    let before = step.tick;
                    self.run_step(step, before, false)?;
                    match closed.filter(|_| step.resumed.is_none()) {
                        Some((watermark, late_rows)) => self.resume_closing(view, watermark, late_rows)?,
                        // Or the checkpoint knows better.
                        None => self.begin_closing(view),
                    }
                    step.ends_step |= step.resumed.is_none();
                }
                None => {}
            }
            self.shared.progress.set(source, tick, position.clone(), tick);
        }
        for section in &changes.sections {
            // Of a collection that was dropped since, nobody needs the rows.
            let Some(collection) = self.collections.get(&section.collection) else { continue };
            let spec = match &collection.kind {
                Kind::Input { spec, .. } => spec,
                Kind::View { root, .. } => {
                    // What a checkpoint's views have given, they have.
                    if step.resumed.is_none() && collection.windows().is_some() {
                        let schema = nullable(self.view(*root)?.schema());
                        let given = section.decode(&schema, &reader.path)?;
                        step.rows += given.iter().map(Delta::num_rows).sum::<usize>();
                        step.given.entry(section.collection).or_default().extend(given);
                    }
                    continue;
                }
            };
            // What a checkpoint's views have seen of an input that keeps no rows, nobody needs either.
            if step.resumed.is_some() && !collection.keeps_rows() {
                continue;
            }
            let deltas = section.decode(&nullable(&spec.schema), &reader.path)?;
            let rows: usize = deltas.iter().map(Delta::num_rows).sum();
            step.rows += rows;
            step.report.rows += rows as u64;
            step.by_input.entry(section.collection).or_default().extend(deltas);
        }
        Ok(())
    }

    /// Before records of `tick` are read: the checkpoint's tick, if it lies before that.
    fn reach_checkpoint(&mut self, step: &mut Step, tick: Tick) -> Result<()> {
        if let Some(reached) = step.resumed.as_ref().map(|r| r.tick).filter(|at| *at < tick) {
            self.run_step(step, reached, false)?;
            if let Some(resumed) = step.resumed.take() {
                self.resume_from(step, resumed)?;
            }
        }
        Ok(())
    }

    /// Before records of `tick` are read: stops at ticks before it, and views that took others' places until then.
    fn reach(&mut self, step: &mut Step, tick: Tick) -> Result<()> {
        loop {
            let stop = step.stops.front().copied().filter(|stop| *stop < tick);
            let replaced = self.replacements.front().map(|(at, _)| *at).filter(|at| *at <= tick);
            match (stop, replaced) {
                (None, None) => return Ok(()),
                (Some(stop), at) if at.is_none_or(|at| stop < at) => {
                    step.stops.pop_front();
                    self.run_step(step, stop, true)?;
                }
                _ => {
                    let Some((at, construction)) = self.replacements.pop_front() else { return Ok(()) };
                    step.tick = step.tick.max(at);
                    self.replace_again(step, at, construction)?;
                }
            }
        }
    }

    /// Applies what was read as one tick numbered `tick`.
    pub(super) fn run_step(&mut self, step: &mut Step, tick: Tick, stop: bool) -> Result<()> {
        let read = std::mem::take(&mut step.by_input);
        let given = std::mem::take(&mut step.given);
        step.rows = 0;
        self.now = self.now.max(step.now);
        if step.resumed.is_some() {
            for (id, deltas) in read {
                self.apply_to_input(id, deltas)?;
                if let Some(Kind::Input { input, .. }) = self.collections.get_mut(&id).map(|c| &mut c.kind) {
                    input.commit()?;
                }
            }
            return Ok(());
        }
        let due = self.circuit.next_due().is_some_and(|due| due <= self.now);
        if read.is_empty() && given.is_empty() && !stop && !due && !self.has_to_close() {
            return Ok(());
        }
        self.tick = tick;
        let mut by_input = BTreeMap::new();
        for (id, deltas) in read {
            by_input.insert(id, self.apply_to_input(id, deltas)?);
        }
        by_input.retain(|_, deltas| !deltas.is_empty());
        self.pass_given(&by_input, given, None, stop);
        step.report.steps += 1;
        Ok(())
    }

    /// Applies changes to an input's rows; answers with what they come to.
    fn apply_to_input(&mut self, id: CollectionId, deltas: Vec<Delta>) -> Result<Vec<Delta>> {
        match (net(deltas)?, self.collections.get_mut(&id).map(|c| &mut c.kind)) {
            (Some(delta), Some(Kind::Input { input, .. })) => input.apply(InputChange::Delta(delta)),
            _ => Ok(Vec::new()),
        }
    }

    /// From `tick` on a view sees its inputs that keep no rows.
    fn attach(&mut self, view: CollectionId, tick: Tick) {
        let Some(Kind::View { passing, .. }) = self.collections.get(&view).map(|c| &c.kind) else { return };
        for slot in passing.clone() {
            self.circuit.set_after(slot, tick);
        }
    }

    /// A view that was never attached, because it was created before a replay, sees what comes from now on.
    fn attach_rest(&mut self, attached: &BTreeSet<CollectionId>) -> Result<()> {
        let new: Vec<CollectionId> = self
            .collections
            .iter()
            .filter(|(id, c)| {
                matches!(&c.kind, Kind::View { passing, .. } if !passing.is_empty()) && !attached.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        for view in new {
            if let Some(journal) = &mut self.journal {
                journal.attach(view, self.tick + 1)?;
                self.tick += 1;
            }
            self.attach(view, self.tick);
        }
        Ok(())
    }

    /// Goes on writing where the recovered journal ends.
    fn start_journal(&mut self, mut recovered: Recovered) -> Result<()> {
        let Some(dir) = self.shared.config.dir.clone() else { return Ok(()) };
        let durability = &self.shared.durability;
        durability.restart_at(self.tick);
        // A segment without a record has the name of the one that is begun now.
        recovered.segments.retain(|s| s.tick != self.tick);
        let segment_bytes = recovered.segment_bytes();
        let mut journal = Journal::start(
            &dir,
            recovered.lock,
            self.tick,
            segment_bytes,
            std::sync::Arc::clone(durability),
        )?;
        self.compactor.start(recovered.base, recovered.segments);
        if !recovered.clean {
            // Ticks beyond the journal's end may have been seen; their numbers are not used again.
            self.tick += UNDURABLE_TICKS_MAX + 1;
            durability.restart_at(self.tick - 1);
            journal.append(self.tick, &[], &[])?;
            durability.wait(self.tick)?;
        }
        self.journal = Some(journal);
        Ok(())
    }

    /// Takes transactions from now on.
    fn go_live(&mut self) {
        self.live = true;
        self.shared.inbox.refuse(None);
    }
}
