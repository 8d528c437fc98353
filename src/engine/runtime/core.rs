//! The tick thread's state, and what it does between ticks.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use datafusion::logical_expr::LogicalPlan;

use super::circuit::{Body, Circuit, Slot};
use super::hydrate::{Begun, Construction, Recorder, gone};
use super::inbox::{Work, shut_down};
use super::operator::RowError;
use super::replace::Ready;
use super::replay::ReplayReport;
use super::shared::Shared;
use super::spill::Spill;
use super::stats::{CollectionStats, EngineStats, OperatorStats};
use super::subscribe::{self, Keep, Publisher, SubscribeFrom, Subscription};
use super::watermark::Windows;
use crate::engine::durable::checkpoint::Checkpointer;
use crate::engine::durable::compact::Compactor;
use crate::engine::durable::journal::Journal;
use crate::engine::durable::recover::Recovered;
use crate::engine::ops::input::Input;
use crate::engine::ops::output::View;
use crate::engine::plan::closing::closing_of;
use crate::engine::plan::explain::{describe, view_keeps};
use crate::engine::plan::lower::LoweredNode;
use crate::engine::serve::indexes::Indexes;
use crate::engine::serve::snapshot::{CollectionSnapshot, EngineSnapshot};
use crate::engine::{CheckpointStats, CollectionId, InputSpec, Tick};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Where the answer to a command goes.
pub(crate) type Reply<T> = mpsc::SyncSender<Result<T>>;

/// What is asked of the tick thread at a tick boundary.
pub(crate) enum Command {
    CreateInput(InputSpec, Reply<()>),
    /// An input has more columns from now on.
    Widen(InputSpec, super::widen::Ready, Reply<()>),
    /// A view that reads these collections, and the time or not, is about to be built.
    Begin(CollectionId, Vec<CollectionId>, bool, Reply<Begun>),
    /// It is built.
    Splice(Box<Construction>, Arc<Recorder>, Reply<()>),
    /// It is built, and takes the place of another one.
    Replace(Box<Construction>, Arc<Recorder>, Ready, Reply<Tick>),
    /// A view, before the replay, takes the place of another one in the replay of this tick.
    ReplaceAt(Tick, Box<Construction>, Reply<()>),
    /// It will not be.
    Abandon(Arc<Recorder>),
    Drop(Vec<CollectionId>, Reply<()>),
    Subscribe(CollectionId, SubscribeFrom, Keep, Reply<Subscription>),
    Replay(Vec<Tick>, Reply<ReplayReport>),
    Stats(Reply<EngineStats>),
    /// For which of these nodes of a view there is a running one already, and in which view.
    Shared(Vec<LoweredNode>, Reply<Vec<Option<CollectionId>>>),
    /// What is due is to be done.
    PassTime(Reply<Tick>),
    /// The compaction that was started has come to its end.
    Compacted(Result<crate::engine::durable::compact::Compacted>),
    /// The checkpoint that was started has come to its end.
    Checkpointed(CheckpointStats),
}

/// One collection as the tick thread keeps it.
pub(crate) struct Collection {
    pub(crate) name: String,
    pub(crate) key: Vec<usize>,
    pub(crate) kind: Kind,
    pub(crate) publishers: Vec<Publisher>,
    pub(crate) failed: Option<Error>,
    /// Rows that came in: of a view, before its inputs had given `read_before`; see [`Core::rows_in`].
    pub(crate) rows_in: u64,
    /// Rows that the collections it reads had given by then.
    pub(crate) read_before: u64,
    pub(crate) rows_out: u64,
    pub(crate) last_tick: Tick,
}

/// What a collection is.
pub(crate) enum Kind {
    Input {
        spec: InputSpec,
        input: Box<Input>,
        /// The node that hands its changes on.
        tap: Slot,
    },
    View {
        /// Its query.
        plan: Arc<LogicalPlan>,
        /// The collections its plan names.
        reads: Vec<CollectionId>,
        /// Its nodes that read inputs which keep no rows.
        passing: Vec<Slot>,
        /// The node that keeps its rows.
        root: Slot,
        /// What it knows of its windows, if it gives them when they close.
        windows: Option<Box<Windows>>,
    },
}

impl Collection {
    /// The node whose changes are the collection's.
    pub(crate) fn slot(&self) -> Slot {
        match &self.kind {
            Kind::Input { tap, .. } => *tap,
            Kind::View { root, .. } => *root,
        }
    }

    /// What a view knows of its windows, if it gives them when they close.
    pub(crate) fn windows(&self) -> Option<&Windows> {
        match &self.kind {
            Kind::Input { .. } => None,
            Kind::View { windows, .. } => windows.as_deref(),
        }
    }

    /// As [`windows`](Self::windows).
    pub(crate) fn windows_mut(&mut self) -> Option<&mut Windows> {
        match &mut self.kind {
            Kind::Input { .. } => None,
            Kind::View { windows, .. } => windows.as_deref_mut(),
        }
    }

    /// The collections that its plan names; of an input, none.
    pub(crate) fn reads(&self) -> &[CollectionId] {
        match &self.kind {
            Kind::Input { .. } => &[],
            Kind::View { reads, .. } => reads,
        }
    }

    /// Whether its rows are kept.
    pub(crate) fn keeps_rows(&self) -> bool {
        match &self.kind {
            Kind::Input { input, .. } => input.retains(),
            Kind::View { .. } => true,
        }
    }
}

/// The tick thread's state.
pub(crate) struct Core {
    pub(crate) shared: Arc<Shared>,
    pub(crate) circuit: Circuit,
    pub(crate) collections: BTreeMap<CollectionId, Collection>,
    /// Those that somebody may follow.
    pub(crate) followed: BTreeSet<CollectionId>,
    /// Views that give their windows when they close.
    pub(crate) windowed: BTreeSet<CollectionId>,
    pub(crate) recorders: Vec<Arc<Recorder>>,
    pub(crate) journal: Option<Journal>,
    /// What is to be replayed; `None` once it was, and without a directory.
    pub(crate) recovered: Option<Recovered>,
    pub(crate) compactor: Compactor,
    pub(crate) checkpointer: Checkpointer,
    /// Views that take others' places in the replay, in the order of their ticks.
    pub(crate) replacements: VecDeque<(Tick, Construction)>,
    /// Sources with a transaction that failed, and why: see [`Core::run_transactions`].
    pub(crate) stopped_sources: HashMap<String, Error>,
    /// The last tick.
    pub(crate) tick: Tick,
    /// The time of the last tick, in microseconds since 1970; it never goes back.
    pub(crate) now: i64,
    /// How far the event time of inputs has come, where they have a watermark.
    pub(crate) watermarks: BTreeMap<CollectionId, i64>,
    /// Some view asks for the time: each tick's is journalled.
    pub(crate) timed: bool,
    /// When there was a tick for no reason but the time.
    pub(crate) passed: Option<Instant>,
    /// When a view was last stopped for want of memory.
    pub(crate) relieved: Option<Instant>,
    /// Transactions are taken.
    pub(crate) live: bool,
}

impl Core {
    /// Serves the inbox until it is closed. A panic here is a bug that nothing can be built upon: the engine then
    /// refuses everything, and the journal is as of the last tick written.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            self.serve();
            self.close();
        }));
        if ended.is_err() {
            let error = Error::internal("the tick thread panicked; restart the server");
            shared.durability.poison(error.clone());
            shared.inbox.abort(error);
        }
        shared.holds.stop();
    }

    fn serve(&mut self) {
        loop {
            let wait = self.wait_for_time();
            match self.shared.inbox.next(self.shared.config.tick_rows_max, wait) {
                Work::Commands(commands) => commands.into_iter().for_each(|c| self.command(c)),
                Work::Transactions(transactions) => {
                    self.run_transactions(transactions);
                    self.compact_if_due();
                    self.checkpoint_if_due();
                    self.relieve_memory();
                }
                Work::Due => {
                    if let Err(error) = self.pass_time() {
                        tracing::error!(%error, "what is due could not be done");
                    }
                }
                Work::Closed => return,
            }
        }
    }

    fn close(&mut self) {
        for collection in self.collections.values_mut() {
            collection.publishers.drain(..).for_each(|p| p.end(shut_down()));
        }
        self.recorders.drain(..).for_each(|r| r.end(shut_down()));
        self.shared.holds.stop();
        self.compactor.join();
        self.last_checkpoint();
        if let Some(journal) = self.journal.take()
            && let Err(error) = journal.close(self.tick)
        {
            tracing::error!(%error, "the journal could not be closed in order");
        }
    }

    fn command(&mut self, command: Command) {
        // Whoever asked may have gone away; then nobody needs the answer.
        match command {
            Command::CreateInput(spec, reply) => drop(reply.send(self.create_input(spec))),
            Command::Widen(spec, ready, reply) => drop(reply.send(self.widen(spec, ready))),
            Command::Begin(view, reads, timed, reply) => drop(reply.send(self.begin(view, reads, timed))),
            Command::Splice(construction, recorder, reply) => {
                self.recorders.retain(|r| !Arc::ptr_eq(r, &recorder));
                drop(reply.send(self.splice(*construction, &recorder)));
            }
            Command::Replace(construction, recorder, ready, reply) => {
                self.recorders.retain(|r| !Arc::ptr_eq(r, &recorder));
                drop(reply.send(self.replace(*construction, &recorder, ready)));
            }
            Command::ReplaceAt(tick, construction, reply) => {
                drop(reply.send(self.replace_at(tick, *construction)));
            }
            Command::Abandon(recorder) => self.recorders.retain(|r| !Arc::ptr_eq(r, &recorder)),
            Command::Drop(ids, reply) => drop(reply.send(self.drop_collections(&ids))),
            Command::Subscribe(id, from, keep, reply) => drop(reply.send(self.subscribe(id, from, keep))),
            Command::Replay(stops, reply) => drop(reply.send(self.replay(&stops))),
            Command::Stats(reply) => drop(reply.send(Ok(self.stats()))),
            Command::Shared(nodes, reply) => drop(reply.send(Ok(self.running(&nodes)))),
            Command::PassTime(reply) => drop(reply.send(self.pass_time())),
            Command::Compacted(result) => self.compacted(result),
            Command::Checkpointed(done) => self.checkpointed(done),
        }
    }

    fn create_input(&mut self, spec: InputSpec) -> Result<()> {
        self.check_free(spec.id)?;
        let input = Box::new(Input::new(&spec)?);
        let tap = self.circuit.add(spec.id, Body::Tap { after: 0 }, &[]);
        let collection = Collection {
            name: spec.name.clone(),
            key: spec.key.clone(),
            kind: Kind::Input { input, tap, spec: spec.clone() },
            publishers: Vec::new(),
            failed: None,
            rows_in: 0,
            read_before: 0,
            rows_out: 0,
            last_tick: 0,
        };
        self.collections.insert(spec.id, collection);
        self.publish_snapshot([spec.id])
    }

    fn check_free(&self, id: CollectionId) -> Result<()> {
        let taken = self.collections.contains_key(&id) || self.recorders.iter().any(|r| r.view == id);
        if taken {
            return Err(Error::new(
                SqlState::DUPLICATE_OBJECT,
                format!("collection {} exists already", id.0),
            ));
        }
        Ok(())
    }

    fn begin(&mut self, view: CollectionId, reads: Vec<CollectionId>, timed: bool) -> Result<Begun> {
        self.check_free(view)?;
        if timed {
            self.timed = true;
            // The view begins at a time that is journalled, so that it is the same after a restart.
            if self.live {
                self.run_clock()?;
            }
        }
        let mut passing = Vec::new();
        for id in &reads {
            let collection = self.collections.get(id).ok_or_else(|| gone(*id))?;
            if let Some(error) = &collection.failed {
                return Err(Error::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("view \"{}\" has stopped because of an error", collection.name),
                )
                .with_detail(error.to_string()));
            }
            if !collection.keeps_rows() {
                passing.push(*id);
            }
        }
        // From which tick on the view sees inputs that keep no rows must be the same after a restart.
        let mut after = Tick::MAX;
        let mut attached = None;
        if self.live && !passing.is_empty() {
            if let Some(journal) = &mut self.journal {
                journal.attach(view, self.tick + 1)?;
                self.tick += 1;
                attached = Some(self.tick);
            }
            after = self.tick;
        }
        let after = passing.into_iter().map(|id| (id, after)).collect();
        let recorder = Arc::new(Recorder::new(view, reads, self.tick, self.now));
        self.recorders.push(Arc::clone(&recorder));
        Ok(Begun { snapshot: self.shared.snapshot.load_full(), recorder, after, attached })
    }

    fn splice(&mut self, mut construction: Construction, recorder: &Recorder) -> Result<()> {
        let mut recorded = recorder.take()?;
        // A view that reads nothing is told of no tick, and still of the time.
        recorded.now = self.now;
        construction.round(recorded)?;
        let id = construction.id;
        let reads = construction.reads();
        let Construction { circuit, taps, root, name, spec, .. } = construction;
        // Inputs that keep no rows show each view another part of their history: nothing over them can be shared.
        let (mut known, mut passing) = (HashMap::new(), Vec::new());
        for (from, tap) in taps {
            let Some(collection) = self.collections.get(&from) else { return Err(gone(from)) };
            if collection.keeps_rows() {
                known.insert(tap, collection.slot());
            } else {
                passing.push((collection.slot(), tap));
            }
        }
        let moved = self.circuit.absorb(circuit, known);
        passing.iter().for_each(|(from, tap)| self.circuit.connect(*from, moved[tap]));
        let passing = passing.into_iter().map(|(_, tap)| moved[&tap]).collect();
        let windows = closing_of(&spec.plan).map(|closing| Box::new(Windows::new(closing.watermarks)));
        let closes = windows.is_some();
        if closes {
            self.windowed.insert(id);
        }
        let read_before = self.rows_given(&reads);
        let collection = Collection {
            name,
            key: Vec::new(),
            kind: Kind::View { plan: Arc::new(spec.plan), reads, passing, root: moved[&root], windows },
            publishers: Vec::new(),
            failed: None,
            rows_in: 0,
            read_before,
            rows_out: 0,
            last_tick: 0,
        };
        self.collections.insert(id, collection);
        self.publish_snapshot([id])?;
        if closes
            && self.live
            && let Err(error) = self.close_from_now_on(id)
        {
            self.drop_collections(&[id])?;
            return Err(error);
        }
        Ok(())
    }

    fn running(&self, nodes: &[LoweredNode]) -> Vec<Option<CollectionId>> {
        let source = |id| self.collections.get(&id).filter(|c| c.keeps_rows()).map(Collection::slot);
        self.circuit.shared(nodes, source)
    }

    fn drop_collections(&mut self, ids: &[CollectionId]) -> Result<()> {
        let dropped: BTreeSet<CollectionId> = ids.iter().copied().collect();
        for id in &dropped {
            if !self.collections.contains_key(id) {
                return Err(gone(*id));
            }
        }
        for (id, collection) in &self.collections {
            if !dropped.contains(id)
                && let Some(read) = collection.reads().iter().find(|r| dropped.contains(r))
            {
                let read = self.collections.get(read).map_or("", |c| c.name.as_str());
                return Err(Error::new(
                    SqlState::DEPENDENT_OBJECTS_STILL_EXIST,
                    format!("cannot drop \"{read}\" because view \"{}\" depends on it", collection.name),
                ));
            }
        }
        let mut snapshot = EngineSnapshot::clone(&self.shared.snapshot.load());
        for id in dropped {
            self.circuit.remove(id);
            snapshot.remove(id);
            self.windowed.remove(&id);
            if let Some(collection) = self.collections.remove(&id) {
                let message = format!("\"{}\" was dropped", collection.name);
                for publisher in &collection.publishers {
                    publisher.end(Error::new(SqlState::UNDEFINED_TABLE, message.clone()));
                }
            }
            for recorder in self.recorders.iter().filter(|r| r.reads.contains(&id)) {
                recorder.end(gone(id));
            }
        }
        self.shared.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    fn subscribe(&mut self, id: CollectionId, from: SubscribeFrom, keep: Keep) -> Result<Subscription> {
        let tick = self.tick;
        let collection = self.collections.get_mut(&id).ok_or_else(|| gone(id))?;
        if let Some(error) = &collection.failed {
            return Err(error.clone());
        }
        let (start, snapshot) = match from {
            SubscribeFrom::Snapshot => (tick, self.shared.snapshot.load().collection(id)),
            SubscribeFrom::Now => (tick, None),
            SubscribeFrom::After(after) => {
                if self.live && (after < collection.last_tick || after > tick) {
                    return Err(Error::new(
                        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                        format!("the changes of \"{}\" after tick {after} are not kept", collection.name),
                    ));
                }
                (after, None)
            }
        };
        // Merged, what waits for a reader is at most twice the collection's rows, if it keeps any; on disk there is room.
        let config = &self.shared.config;
        let spill = config.spill_dir.as_ref().filter(|_| keep == Keep::Unreleased);
        let spill =
            spill.map(|dir| (config.subscription_bytes_max, Spill::new(dir, world::uuid().to_string())));
        let rows_max = match keep {
            Keep::Unreleased if spill.is_some() || collection.keeps_rows() => usize::MAX,
            Keep::Unreleased | Keep::Nothing => config.subscription_rows_max,
        };
        let limits = subscribe::Limits { rows_max, spill };
        let (publisher, subscription) = subscribe::channel(start, snapshot, keep, limits);
        if !self.live && start == 0 {
            // A query over nothing may have rows, and who follows from tick 0 on begins without any.
            let rows = match &collection.kind {
                Kind::View { root, .. } => {
                    self.circuit.view(*root).map(|v| v.snapshot().deltas()).transpose()?
                }
                Kind::Input { .. } => None,
            };
            publisher.begin_with(super::net(rows.unwrap_or_default())?);
        }
        collection.publishers.push(publisher);
        self.followed.insert(id);
        Ok(subscription)
    }

    /// Publishes the current tick with new entries for these collections.
    pub(crate) fn publish_snapshot(&self, changed: impl IntoIterator<Item = CollectionId>) -> Result<()> {
        let mut snapshot = EngineSnapshot::clone(&self.shared.snapshot.load());
        snapshot.tick = self.tick;
        snapshot.now = self.now;
        for id in changed {
            let Some(collection) = self.collections.get(&id) else { continue };
            let rows = match &collection.kind {
                Kind::Input { input, .. } => input.snapshot()?,
                Kind::View { root, .. } => self.view(*root)?.snapshot(),
            };
            let errors = self.errors(id);
            // A view that was replaced may have other columns.
            let before = snapshot.collection(id).filter(|before| before.schema() == rows.schema());
            let indexes = before.map_or_else(
                || Indexes::new(rows.schema(), &collection.key),
                |before| Arc::clone(before.indexes()),
            );
            let entry = CollectionSnapshot::new(
                collection.name.clone(),
                rows,
                errors,
                collection.failed.clone(),
                collection.keeps_rows(),
                match &collection.kind {
                    Kind::Input { .. } => None,
                    Kind::View { plan, .. } => Some(Arc::clone(plan)),
                },
                collection.windows().map(|windows| windows.closed.clone()),
                indexes,
            );
            snapshot.put(id, Arc::new(entry));
        }
        self.shared.snapshot.store(Arc::new(snapshot));
        Ok(())
    }

    pub(crate) fn view(&self, root: Slot) -> Result<&View> {
        self.circuit.view(root).ok_or_else(|| Error::internal("a view without the node that keeps its rows"))
    }

    /// Rows that these collections have given so far.
    pub(super) fn rows_given(&self, collections: &[CollectionId]) -> u64 {
        collections.iter().filter_map(|id| self.collections.get(id)).map(|c| c.rows_out).sum()
    }

    /// Rows that came into a collection so far. What a view reads counts what it gives; no tick counts for all who read.
    pub(super) fn rows_in(&self, collection: &Collection) -> u64 {
        collection.rows_in + self.rows_given(collection.reads()).saturating_sub(collection.read_before)
    }

    /// The errors of a view and of all views it reads: the rows that are lacking in it.
    fn errors(&self, id: CollectionId) -> Vec<RowError> {
        let mut upstream = BTreeSet::from([id]);
        let mut new = vec![id];
        let mut errors = Vec::new();
        while let Some(id) = new.pop() {
            let Some(collection) = self.collections.get(&id) else { continue };
            if let Kind::View { root, .. } = &collection.kind
                && let Some(view) = self.circuit.view(*root)
            {
                errors.extend(view.errors());
            }
            new.extend(collection.reads().iter().copied().filter(|r| upstream.insert(*r)));
        }
        errors
    }

    fn operators(&self) -> Vec<OperatorStats> {
        let operators = self.circuit.operators().into_iter().map(|node| {
            let (does, keeps) = match node.lowered {
                Some(lowered) => describe(&lowered.spec, &lowered.schema, &node.go),
                None => ("view".to_string(), Some(view_keeps(node.go[..] == [true]).to_string())),
            };
            OperatorStats {
                views: node.owners.to_vec(),
                does,
                keeps,
                rows: node.rows,
                bytes: node.bytes,
                watermark: node.closes_for.and_then(|view| self.watermark_of(view)),
                late_rows: node.late_rows,
            }
        });
        operators.collect()
    }

    fn stats(&self) -> EngineStats {
        let state = self.circuit.state();
        let collections = self.collections.iter().map(|(id, collection)| {
            let (mut state_rows, mut state_bytes) = state.get(id).copied().unwrap_or_default();
            let view = match &collection.kind {
                Kind::Input { input, .. } => {
                    state_rows += input.state_rows();
                    state_bytes += input.state_bytes();
                    false
                }
                Kind::View { .. } => true,
            };
            CollectionStats {
                id: *id,
                name: collection.name.clone(),
                view,
                rows_in: self.rows_in(collection),
                rows_out: collection.rows_out,
                state_rows,
                state_bytes,
                last_tick: collection.last_tick,
                watermark: self.watermark_of(*id),
                errors: self.errors(*id).len(),
                failed: collection.failed.clone(),
            }
        });
        EngineStats {
            tick: self.tick,
            durable_tick: self.shared.durability.durable(),
            queued_rows: self.shared.inbox.rows(),
            journal_bytes: self.journal.as_ref().map_or(0, Journal::segment_bytes),
            base_bytes: self.compactor.base_bytes(),
            compaction_error: self.compactor.error(),
            checkpoints: self.checkpointer.told(),
            collections: collections.collect(),
            operators: self.operators(),
        }
    }
}
