//! One tick: transactions become exact changes, are journalled, go through the circuit, and are seen.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use tokio::sync::oneshot;

use super::circuit::{Outcome, Slot};
use super::core::{Core, Kind};
use super::hydrate::gone;
use super::inbox::{Item, Queued};
use super::operator::RowError;
use super::{clock, net};
use crate::engine::{CollectionId, Delta, InputChange, Tick, Transaction};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// What a tick does to the inputs.
#[derive(Default)]
pub(super) struct Changes {
    by_input: BTreeMap<CollectionId, Vec<Delta>>,
    progress: Vec<(String, Vec<u8>)>,
}

impl Changes {
    /// Adds the position of a source.
    pub(super) fn tell(&mut self, position: (String, Vec<u8>)) {
        self.progress.push(position);
    }
}

/// What the readers of a view are given besides what the inputs bring.
pub(crate) struct Told {
    pub(super) id: CollectionId,
    /// Nodes and ports.
    pub(super) readers: Vec<(Slot, usize)>,
    pub(super) difference: Vec<Delta>,
}

impl Core {
    /// Runs one tick with these transactions and answers all of them.
    pub(crate) fn run_transactions(&mut self, transactions: Vec<Queued>) {
        let mut changes = Changes::default();
        let mut accepted = Vec::with_capacity(transactions.len());
        for Queued { item, answer, .. } in transactions {
            let applied = match item {
                Item::Transaction(transaction) => self.apply_in_order(transaction, &mut changes),
                Item::Resume(source) => {
                    // What the source submitted before may be in this very tick, and fail with it.
                    let result = self.run_changes(std::mem::take(&mut changes));
                    accepted.drain(..).for_each(|answer| tell(answer, result.clone()));
                    self.stopped_sources.remove(&source);
                    Ok(())
                }
            };
            match applied {
                Ok(()) => accepted.push(answer),
                Err(error) => tell(answer, Err(error)),
            }
        }
        let result = self.run_changes(changes);
        accepted.into_iter().for_each(|answer| tell(answer, result.clone()));
    }

    /// As [`apply`](Self::apply). When a source's transaction fails, those that it has queued behind it fail too, until
    /// it resumes: their positions would pass over rows that are not there.
    fn apply_in_order(&mut self, transaction: Transaction, changes: &mut Changes) -> Result<()> {
        let sources: Vec<String> = transaction.progress.iter().map(|(source, _)| source.clone()).collect();
        if let Some(error) = sources.iter().find_map(|s| self.stopped_sources.get(s)) {
            return Err(error.clone());
        }
        self.apply(transaction, changes).inspect_err(|error| self.stop_sources(sources, error))
    }

    fn stop_sources(&mut self, sources: impl IntoIterator<Item = String>, error: &Error) {
        self.stopped_sources.extend(sources.into_iter().map(|s| (s, error.clone())));
    }

    /// Applies a transaction to the inputs, whole or not at all.
    fn apply(&mut self, transaction: Transaction, changes: &mut Changes) -> Result<()> {
        let mut applied: Vec<(CollectionId, Vec<Delta>)> = Vec::with_capacity(transaction.changes.len());
        for (id, change) in transaction.changes {
            match self.apply_change(id, change) {
                Ok(deltas) => applied.push((id, deltas)),
                Err(error) => {
                    self.undo(applied);
                    return Err(error);
                }
            }
        }
        for (id, deltas) in applied {
            if !deltas.is_empty() {
                changes.by_input.entry(id).or_default().extend(deltas);
            }
        }
        changes.progress.extend(transaction.progress);
        Ok(())
    }

    fn apply_change(&mut self, id: CollectionId, change: InputChange) -> Result<Vec<Delta>> {
        let collection = self.collections.get_mut(&id).ok_or_else(|| gone(id))?;
        let Kind::Input { input, .. } = &mut collection.kind else {
            return Err(Error::new(
                SqlState::WRONG_OBJECT_TYPE,
                format!("\"{}\" is a view and cannot be written to", collection.name),
            ));
        };
        let mut deltas = input.apply(change)?;
        deltas.retain(|d| !d.is_empty());
        collection.rows_in += deltas.iter().map(|d| d.num_rows() as u64).sum::<u64>();
        Ok(deltas)
    }

    /// Takes applied changes back, the last first. They are exact, so what they brought is there to go.
    fn undo(
        &mut self,
        applied: impl IntoIterator<Item = (CollectionId, Vec<Delta>), IntoIter: DoubleEndedIterator>,
    ) {
        for (id, deltas) in applied.into_iter().rev() {
            let Some(collection) = self.collections.get_mut(&id) else { continue };
            let Kind::Input { input, .. } = &mut collection.kind else { continue };
            for delta in deltas.into_iter().rev() {
                if let Err(error) = input.apply(InputChange::Delta(delta.negate())) {
                    // The stored rows are not what the journal says any more: nothing may be promised on top of them.
                    self.shared.durability.poison(error.clone());
                    self.shared.inbox.refuse(Some(error));
                    return;
                }
            }
        }
    }

    /// Makes applied changes a tick; answers with its number. When they cannot be journalled they are taken back.
    fn run_changes(&mut self, changes: Changes) -> Result<Tick> {
        if changes.by_input.is_empty() && changes.progress.is_empty() {
            return Ok(self.tick);
        }
        self.run_tick(changes)
    }

    /// Makes a tick of changes, if any, at the time that it is by now.
    pub(super) fn run_tick(&mut self, changes: Changes) -> Result<Tick> {
        let by_input = self.begin_tick(changes)?;
        let changed = self.pass(&by_input, None, false);
        world::crash_point("tick.applied");
        self.publish_snapshot(changed)?;
        Ok(self.tick)
    }

    /// The next tick begins: it is in the journal, and nobody has seen it yet. Answers with the inputs' changes.
    pub(super) fn begin_tick(&mut self, changes: Changes) -> Result<BTreeMap<CollectionId, Vec<Delta>>> {
        let Changes { by_input, mut progress } = changes;
        let now = self.time();
        if self.timed {
            progress.push(clock::position(now));
        }
        let advancing = self.advancing(&by_input);
        progress.extend(Core::positions_of(&advancing));
        let tick = self.tick + 1;
        if let Err(error) = self.journal_tick(tick, &progress, &by_input) {
            self.undo(by_input);
            self.stop_sources(progress.into_iter().map(|(source, _)| source), &error);
            if let Some(error) = self.shared.durability.poisoned() {
                self.shared.inbox.refuse(Some(error));
            }
            return Err(error);
        }
        (self.tick, self.now) = (tick, now);
        self.watermarks.extend(advancing);
        let durable = self.shared.durability.durable();
        for (source, position) in progress {
            self.shared.progress.set(&source, tick, position, durable);
        }
        Ok(by_input)
    }

    fn journal_tick(
        &mut self,
        tick: Tick,
        progress: &[(String, Vec<u8>)],
        by_input: &BTreeMap<CollectionId, Vec<Delta>>,
    ) -> Result<()> {
        let Some(journal) = &mut self.journal else {
            self.shared.durability.written(tick, None);
            return Ok(());
        };
        let changes: Vec<(CollectionId, &[Delta])> =
            by_input.iter().map(|(id, deltas)| (*id, deltas.as_slice())).collect();
        journal.append(tick, progress, &changes)
    }

    /// Sends the inputs' changes, and what else is `told`, through the circuit as tick `self.tick` and on to those who
    /// follow; answers with the collections that changed. With `stop`, followers see the state after this tick by itself.
    pub(crate) fn pass(
        &mut self,
        by_input: &BTreeMap<CollectionId, Vec<Delta>>,
        told: Option<&Told>,
        stop: bool,
    ) -> BTreeSet<CollectionId> {
        self.pass_given(by_input, BTreeMap::new(), told, stop)
    }

    /// As [`pass`](Self::pass), with rows that views have given before the journal begins.
    pub(super) fn pass_given(
        &mut self,
        by_input: &BTreeMap<CollectionId, Vec<Delta>>,
        given: BTreeMap<CollectionId, Vec<Delta>>,
        told: Option<&Told>,
        stop: bool,
    ) -> BTreeSet<CollectionId> {
        self.circuit.begin(self.tick);
        self.circuit.set_now(self.now);
        self.close_windows();
        for (id, deltas) in by_input {
            let Some(collection) = self.collections.get_mut(id) else { continue };
            let Kind::Input { input, tap, .. } = &mut collection.kind else { continue };
            for delta in deltas {
                self.circuit.push(*tap, 0, delta.clone());
            }
            if let Err(error) = input.commit() {
                tracing::error!(input = collection.name, %error, "the stored rows could not be tidied up");
            }
        }
        for (id, deltas) in given {
            let Some(Kind::View { root, .. }) = self.collections.get(&id).map(|c| &c.kind) else { continue };
            for delta in deltas.into_iter().flat_map(Delta::chunks) {
                self.circuit.push(*root, 0, delta);
            }
        }
        if let Some(Told { readers, difference, .. }) = told {
            for chunk in difference.iter().cloned().flat_map(Delta::chunks) {
                readers.iter().for_each(|(to, port)| self.circuit.push(*to, *port, chunk.clone()));
            }
        }
        self.circuit.finish();
        let Outcome { mut changes, errors, failed } = self.circuit.commit();
        changes.extend(by_input.iter().map(|(id, deltas)| (*id, deltas.clone())));
        if let Some(Told { id, difference, .. }) = told {
            changes.entry(*id).or_default().extend(difference.iter().cloned());
        }
        let mut changed: BTreeSet<CollectionId> = changes.keys().copied().collect();
        changed.extend(self.take_errors(errors, failed));
        changed.extend(self.windows_closed(&changes));
        self.tell_followers(&changes, stop);
        changed
    }

    /// Takes note of rows and views that failed; answers with the collections that are not what they were for it.
    pub(super) fn take_errors(
        &mut self,
        errors: HashMap<CollectionId, Vec<RowError>>,
        failed: Vec<(CollectionId, Error)>,
    ) -> BTreeSet<CollectionId> {
        let mut changed = BTreeSet::new();
        for (view, error) in failed {
            self.fail_view(view, error);
            changed.insert(view);
        }
        if !errors.is_empty() {
            // A row that a view lacks is lacking in every view that reads it.
            changed.extend(self.with_readers(errors.keys().copied()));
            let mut told = BTreeSet::new();
            for (view, errors) in errors {
                // Views that share the node which keeps their rows have the same errors.
                if let Some(Kind::View { root, .. }) = self.collections.get(&view).map(|c| &c.kind)
                    && told.insert(*root)
                    && let Some(view) = self.circuit.view_mut(*root)
                {
                    view.add_errors(errors);
                }
            }
        }
        changed
    }

    fn fail_view(&mut self, view: CollectionId, error: Error) {
        let Some(collection) = self.collections.get_mut(&view) else { return };
        tracing::error!(view = collection.name, %error, "the view has stopped");
        collection.publishers.drain(..).for_each(|p| p.end(error.clone()));
        for recorder in self.recorders.iter().filter(|r| r.reads.contains(&view)) {
            recorder.end(error.clone());
        }
        collection.failed = Some(error);
    }

    /// All views that read any of these, directly or through other views, and these.
    pub(super) fn with_readers(&self, of: impl IntoIterator<Item = CollectionId>) -> BTreeSet<CollectionId> {
        let mut found: BTreeSet<CollectionId> = of.into_iter().collect();
        let mut new: Vec<CollectionId> = found.iter().copied().collect();
        while let Some(read) = new.pop() {
            for (id, collection) in &self.collections {
                if collection.reads().contains(&read) && found.insert(*id) {
                    new.push(*id);
                }
            }
        }
        found
    }

    fn tell_followers(&mut self, changes: &HashMap<CollectionId, Vec<Delta>>, stop: bool) {
        let tick = self.tick;
        for recorder in &self.recorders {
            for id in &recorder.reads {
                recorder.record(tick, self.now, *id, changes.get(id).map_or(&[][..], Vec::as_slice));
            }
        }
        for (id, deltas) in changes {
            let Some(collection) = self.collections.get_mut(id) else { continue };
            collection.rows_out += deltas.iter().map(|d| d.num_rows() as u64).sum::<u64>();
            collection.last_tick = tick;
        }
        let collections = &mut self.collections;
        self.followed.retain(|id| {
            let Some(collection) = collections.get_mut(id) else { return false };
            collection.publishers.retain(|p| p.is_read());
            if collection.publishers.iter().any(|p| p.wants(tick)) {
                match changes.get(id).map_or(Ok(None), |deltas| net(deltas.clone())) {
                    Ok(delta) => {
                        collection.publishers.iter().for_each(|p| p.publish(tick, delta.as_ref(), stop));
                    }
                    Err(error) => collection.publishers.drain(..).for_each(|p| p.end(error.clone())),
                }
            }
            !collection.publishers.is_empty()
        });
    }
}

/// Answers a transaction; its sender may have gone away, then nobody needs the answer.
fn tell(answer: oneshot::Sender<Result<Tick>>, result: Result<Tick>) {
    let _ = answer.send(result);
}
