//! The engine's face: every method may be called from any thread, and blocks; none from inside an async task
//! (but [`Engine::snapshot`], [`Engine::tick`], [`Engine::durable_tick`], [`Engine::progress`] and
//! [`Receipt::applied`], which never wait).

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use datafusion::logical_expr::LogicalPlan;
use parking_lot::Mutex;

use crate::engine::durable::checkpoint::Checkpointer;
use crate::engine::durable::compact::Compactor;
use crate::engine::durable::io_error;
use crate::engine::durable::recover::Recovered;
use crate::engine::durable::sync::Durability;
use crate::engine::plan::explain::explain;
use crate::engine::plan::lower::lower;
use crate::engine::runtime::circuit::Circuit;
use crate::engine::runtime::core::{Command, Core, Reply};
use crate::engine::runtime::hydrate::{Construction, Hydration, Recorder};
use crate::engine::runtime::inbox::{Inbox, Item, shut_down};
use crate::engine::runtime::replay::ReplayReport;
use crate::engine::runtime::shared::{Holds, Progress, Shared};
use crate::engine::runtime::stats::EngineStats;
use crate::engine::runtime::subscribe::{Keep, SubscribeFrom, Subscription};
use crate::engine::runtime::workers::Workers;
use crate::engine::serve::snapshot::EngineSnapshot;
use crate::engine::{CollectionId, InputSpec, Receipt, Tick, Transaction, ViewSpec};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// How an engine is to work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// The journal's directory, made if it is not there. `None`: nothing survives, for tests and benchmarks.
    pub dir: Option<PathBuf>,
    /// A tick takes queued transactions up to this many rows; a larger one goes alone. 1 or more.
    pub tick_rows_max: usize,
    /// Threads that compute a tick, 1 or more. The answers do not depend on it.
    pub workers: usize,
    /// Changed rows that may wait for a slow reader of a subscription before it is ended.
    pub subscription_rows_max: usize,
    /// Where changes wait that are too many for memory and not to be lost; there, and nobody else's. `None`: in memory.
    pub spill_dir: Option<PathBuf>,
    /// Bytes of changes that wait in memory for one such reader.
    pub subscription_bytes_max: usize,
    /// Bytes of journal from which on it is compacted (when it is also twice as long as its base).
    pub compact_bytes_min: u64,
    /// Bytes of journal from which on the views' state is written down again (when they are also half of what it took
    /// the last time). A restart computes at most the changes of so many bytes.
    pub checkpoint_bytes_min: u64,
    /// What time it is, for `now()`.
    pub clock: world::Clock,
}

impl Default for EngineConfig {
    fn default() -> Self {
        EngineConfig {
            dir: None,
            tick_rows_max: 64 << 10,
            workers: 1,
            subscription_rows_max: 8 << 20,
            spill_dir: None,
            subscription_bytes_max: 64 << 20,
            compact_bytes_min: 64 << 20,
            checkpoint_bytes_min: 32 << 20,
            clock: world::Clock::default(),
        }
    }
}

/// A running engine. Clones are the same engine; when the last one goes, it is shut down.
#[derive(Clone)]
pub struct Engine(Arc<Handle>);

/// A view's changes are recorded as long as it is under construction, however that ends.
struct Recording<'a> {
    engine: &'a Engine,
    recorder: Arc<Recorder>,
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        // When the tick thread is gone, so is its side of the recorder.
        let _ = self.engine.0.shared.inbox.command(Command::Abandon(Arc::clone(&self.recorder)));
    }
}

struct Handle {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// A view that is built, and follows what it reads, to take another one's place. Dropped, it leaves nothing.
pub struct Replacement<'a> {
    recording: Recording<'a>,
    construction: Box<Construction>,
}

impl Replacement<'_> {
    /// At a tick boundary it takes the old view's place: whoever reads or follows that gets, in a tick of its own, the
    /// difference between the two. `ready` is called on the tick thread with that tick, which is in the journal by then,
    /// before anybody sees it; when it fails, nothing has happened. Answers with the tick.
    ///
    /// # Errors
    /// What `ready` failed with; 0A000 when the old view shares its rows with another one and others read both; what
    /// its operators fail with as a whole.
    pub fn put_in_place(self, ready: impl FnOnce(Tick) -> Result<()> + Send + 'static) -> Result<Tick> {
        let Replacement { recording, construction } = self;
        let recorder = Arc::clone(&recording.recorder);
        recording.engine.ask(|reply| Command::Replace(construction, recorder, Box::new(ready), reply))
    }
}

impl Engine {
    /// Reads where the journal ends and cuts a torn tail off; starts nothing that writes.
    /// With a directory, transactions are taken only after [`replay`](Self::replay).
    ///
    /// # Errors
    /// 55006 when another server has the directory; XX001 when a file is damaged.
    pub fn open(config: EngineConfig) -> Result<Engine> {
        let recovered = config.dir.as_deref().map(Recovered::open).transpose()?;
        let live = recovered.is_none();
        let refused = (!live).then(|| {
            Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, "the journal has not been replayed yet")
        });
        let last = recovered.as_ref().map_or(0, |r| r.last);
        let shared = Arc::new(Shared {
            inbox: Inbox::new(refused),
            snapshot: ArcSwap::from_pointee(EngineSnapshot::begin(config.clock.clone())),
            durability: Arc::new(Durability::new(last)),
            progress: Progress::default(),
            holds: Holds::default(),
            workers: Workers::new(config.workers)?,
            config,
        });
        let core = Core {
            shared: Arc::clone(&shared),
            circuit: Circuit::default(),
            collections: Default::default(),
            followed: BTreeSet::new(),
            windowed: BTreeSet::new(),
            recorders: Vec::new(),
            journal: None,
            recovered,
            compactor: Compactor::default(),
            checkpointer: Checkpointer::default(),
            replacements: Default::default(),
            stopped_sources: Default::default(),
            tick: 0,
            now: i64::MIN,
            timed: false,
            watermarks: std::collections::BTreeMap::new(),
            passed: None,
            relieved: None,
            live,
        };
        let thread = std::thread::Builder::new()
            .name("tidemill-tick".to_string())
            .stack_size(world::PLANNING_STACK)
            .spawn(move || core.run())
            .map_err(|e| io_error("tick thread".as_ref(), "start", e))?;
        Ok(Engine(Arc::new(Handle { shared, thread: Mutex::new(Some(thread)) })))
    }

    /// The last tick of which a durable record of the journal tells. A journal that ends before a tick that was once
    /// given here is not whole.
    pub fn recorded(&self) -> Tick {
        self.0.shared.durability.recorded()
    }

    /// Adds an input, without rows.
    ///
    /// # Errors
    /// 42710 when the identity is taken.
    pub fn create_input(&self, spec: InputSpec) -> Result<()> {
        self.ask(|reply| Command::CreateInput(spec, reply))
    }

    /// Gives an input more columns, behind those it has; they are NULL in all its rows. `ready` is called on the tick
    /// thread when nothing else can fail, before anybody sees them; when it fails, nothing has happened. Views go on with
    /// the columns that they read; whoever follows the input itself, or builds a view over it, is told to begin anew.
    ///
    /// # Errors
    /// What `ready` failed with; 42P01 when there is no such input; XX000 when it keeps no rows or other columns change.
    pub fn widen_input(
        &self,
        spec: InputSpec,
        ready: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        self.ask(|reply| Command::Widen(spec, Box::new(ready), reply))
    }

    /// Adds a view: plans it, fills it from what it reads beside the running circuit, and joins it to the circuit at
    /// a tick boundary. Others are not stopped. Before [`replay`](Self::replay) there is nothing to fill it with.
    ///
    /// # Errors
    /// 0A000 for a plan that cannot be kept up to date; 42P01 when a collection it reads is not there, or was
    /// dropped meanwhile; what its operators fail with as a whole. Nothing is left of a view that failed.
    pub fn create_view(&self, spec: ViewSpec) -> Result<()> {
        self.create_view_watched(spec, &Hydration::default())
    }

    /// As [`create_view`](Self::create_view), with how far it is for others to see, and to stop.
    ///
    /// # Errors
    /// As [`create_view`](Self::create_view); 57014 when it was stopped.
    pub fn create_view_watched(&self, spec: ViewSpec, hydration: &Hydration) -> Result<()> {
        self.add_view(Construction::new(spec, &self.0.shared.workers)?, hydration)
    }

    /// As [`create_view`](Self::create_view), for one that will be replaced in the replay: other views do not share its
    /// rows, though they may have the same query until then.
    ///
    /// # Errors
    /// As [`create_view`](Self::create_view).
    pub fn create_former_view(&self, spec: ViewSpec) -> Result<()> {
        let mut construction = Construction::new(spec, &self.0.shared.workers)?;
        construction.circuit.keep_alone(construction.root);
        self.add_view(construction, &Hydration::default())
    }

    fn add_view(&self, mut construction: Construction, hydration: &Hydration) -> Result<()> {
        let (id, reads, timed) = (construction.id, construction.reads(), construction.circuit.is_timed());
        let begun = self.ask(|reply| Command::Begin(id, reads, timed, reply))?;
        let recording = Recording { engine: self, recorder: Arc::clone(&begun.recorder) };
        construction.hydrate(&begun, hydration)?;
        world::crash_point("view.filled");
        if let Some(attached) = begun.attached {
            self.wait_durable(attached)?;
        }
        // The snapshots it began with are not needed any more, and cost memory.
        drop(begun);
        let recorder = Arc::clone(&recording.recorder);
        self.ask(|reply| Command::Splice(Box::new(construction), recorder, reply))
    }

    /// Builds what is to replace a view: another query with the same columns, filled beside it under `spec.id`, an
    /// identity of its own for so long.
    ///
    /// # Errors
    /// As [`create_view_watched`](Self::create_view_watched); 55000 when the view `id` has stopped; 0A000 when one of the
    /// two reads an input that keeps no rows.
    pub fn replacement(
        &self,
        id: CollectionId,
        spec: ViewSpec,
        hydration: &Hydration,
    ) -> Result<Replacement<'_>> {
        let mut construction = Construction::new(spec, &self.0.shared.workers)?.replacing(id);
        let (new, follows, timed) =
            (construction.id, construction.follows(), construction.circuit.is_timed());
        let begun = self.ask(|reply| Command::Begin(new, follows, timed, reply))?;
        let recording = Recording { engine: self, recorder: Arc::clone(&begun.recorder) };
        if !begun.after.is_empty() {
            return Err(Error::unsupported("replacing a view over a source that keeps no rows"));
        }
        construction.hydrate(&begun, hydration)?;
        world::crash_point("view.filled");
        Ok(Replacement { recording, construction: Box::new(construction) })
    }

    /// Before [`replay`](Self::replay): has a view take the place of the view `id` in the replay as it did in tick `tick`.
    ///
    /// # Errors
    /// As [`replacement`](Self::replacement).
    pub fn replace_view_at(&self, tick: Tick, id: CollectionId, spec: ViewSpec) -> Result<()> {
        let construction = Construction::new(spec, &self.0.shared.workers)?.replacing(id);
        self.ask(|reply| Command::ReplaceAt(tick, Box::new(construction), reply))
    }

    /// The circuit of a plan, one operator a line, without building it, and what of it is there already.
    ///
    /// # Errors
    /// 0A000 for a plan that cannot be kept up to date.
    pub fn explain(&self, plan: &LogicalPlan) -> Result<String> {
        let snapshot = self.snapshot();
        let name = |id| snapshot.collection(id).map_or(format!("{}", id.0), |c| c.name().to_string());
        let lowered = lower(plan, CollectionId(u64::MAX))?;
        let shared = self.ask(|reply| Command::Shared(lowered.nodes.clone(), reply))?;
        Ok(explain(&lowered, &shared, name))
    }

    /// Removes collections, with their rows, subscriptions and views under construction that read them.
    /// What is to stay dropped must be out of the catalog before: the journal may forget their rows at once.
    ///
    /// # Errors
    /// 2BP01 when a view that is not in the list reads one that is; 42P01 when one is not there.
    pub fn drop_collections(&self, ids: &[CollectionId]) -> Result<()> {
        self.ask(|reply| Command::Drop(ids.to_vec(), reply))
    }

    /// Replays the journal, once, after the catalog's inputs and views were created: in few big ticks, but so that
    /// the state after each of `stops` is seen by itself by the subscriptions that begin [`SubscribeFrom::After`] it
    /// or before it. Afterwards transactions are taken. Without a directory there is nothing to replay or to call.
    ///
    /// # Errors
    /// XX001 when a file is damaged or does not reach back to a stop; 55000 when it was done already.
    pub fn replay(&self, stops: &[Tick]) -> Result<ReplayReport> {
        self.ask(|reply| Command::Replay(stops.to_vec(), reply))
    }

    /// A source begins (again): waits until all that was submitted before is decided, and answers with the position
    /// of the last transaction that was applied, which is where to go on from.
    ///
    /// Transactions of a source are applied in order or not at all: when one with its position fails, all that it has
    /// submitted after that fail with the same error, until this is called.
    ///
    /// # Errors
    /// The engine takes no transactions (any more, or before [`replay`](Self::replay)).
    pub fn resume_source(&self, source: &str) -> Result<Option<Vec<u8>>> {
        Receipt { rx: self.0.shared.inbox.submit(Item::Resume(source.to_string())) }.wait()?;
        Ok(self.0.shared.progress.applied(source))
    }

    /// How far a source has been read, durably: what may be confirmed upstream.
    pub fn progress(&self, source: &str) -> Option<Vec<u8>> {
        self.0.shared.progress.durable(source, self.durable_tick())
    }

    /// Queues a transaction, waiting while the queue is full. It is never split; several may share a tick.
    /// That it failed, or could not be queued, is said by the receipt.
    pub fn submit(&self, transaction: Transaction) -> Receipt {
        Receipt { rx: self.0.shared.inbox.submit(Item::Transaction(transaction)) }
    }

    /// The last tick that can be read.
    pub fn tick(&self) -> Tick {
        self.0.shared.snapshot.load().tick
    }

    /// The last tick that survives a crash.
    pub fn durable_tick(&self) -> Tick {
        self.0.shared.durability.durable()
    }

    /// Waits until `tick`, which some receipt or snapshot told of, is durable.
    ///
    /// # Errors
    /// The journal cannot promise anything any more (58030 and the like), or the engine was shut down before.
    pub fn wait_durable(&self, tick: Tick) -> Result<()> {
        self.0.shared.durability.wait(tick)
    }

    /// Has all that is due by the clock done, in a tick of its own, as happens anyway as time passes.
    ///
    /// # Errors
    /// The tick could not be journalled.
    pub fn pass_time(&self) -> Result<Tick> {
        self.ask(Command::PassTime)
    }

    /// All collections as of the last tick.
    pub fn snapshot(&self) -> Arc<EngineSnapshot> {
        self.0.shared.snapshot.load_full()
    }

    /// Follows a collection. What was received is gone; a reader that falls too far behind is cut off.
    ///
    /// # Errors
    /// 42P01 when the collection is not there; 55000 when the changes since the given tick are not kept; the view's
    /// own error when it has stopped.
    pub fn subscribe(&self, id: CollectionId, from: SubscribeFrom) -> Result<Subscription> {
        self.ask(|reply| Command::Subscribe(id, from, Keep::Nothing, reply))
    }

    /// Follows a collection so that what was received can be received again until it is released, for readers that
    /// commit elsewhere and may fail on the way. Never cut off where the collection keeps its rows.
    ///
    /// # Errors
    /// As [`subscribe`](Self::subscribe).
    pub fn subscribe_kept(&self, id: CollectionId, from: SubscribeFrom) -> Result<Subscription> {
        self.ask(|reply| Command::Subscribe(id, from, Keep::Unreleased, reply))
    }

    /// Keeps the journal able to replay what follows `tick`, in the name of a sink; `None` lets go.
    pub fn hold_journal(&self, name: &str, tick: Option<Tick>) {
        self.0.shared.holds.set(name, tick);
    }

    /// Counters and sizes, as of a tick boundary: waits for the tick in hand.
    pub fn stats(&self) -> EngineStats {
        self.ask(Command::Stats).unwrap_or_default()
    }

    /// Finishes what is queued, makes it durable and stops. Later calls are refused.
    pub fn shutdown(&self) {
        self.0.shutdown();
    }

    fn ask<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Result<T> {
        let (reply, answer) = mpsc::sync_channel(1);
        if self.0.shared.inbox.command(command(reply)).is_err() {
            return Err(shut_down());
        }
        answer.recv().unwrap_or_else(|_| Err(shut_down()))
    }
}

impl Handle {
    fn shutdown(&self) {
        self.shared.inbox.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the tick thread panicked while it was shut down");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shutdown();
    }
}

impl Receipt {
    /// Waits until the transaction is applied; answers with its tick. Durable it is when
    /// [`Engine::wait_durable`] says so.
    ///
    /// # Errors
    /// Why it was not applied; then nothing of it was.
    pub fn wait(self) -> Result<Tick> {
        futures::executor::block_on(self.applied())
    }

    /// As [`wait`](Self::wait), for async tasks.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub async fn applied(self) -> Result<Tick> {
        self.rx.await.unwrap_or_else(|_| Err(shut_down()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use arrow::datatypes::SchemaRef;
    use datafusion::logical_expr::LogicalPlanBuilder;

    use super::*;
    use crate::engine::ops::output::View;
    use crate::engine::plan::CollectionSource;
    use crate::engine::runtime::circuit::Body;
    use crate::engine::runtime::operator::{Operator, Output};
    use crate::engine::{Delta, InputChange};

    fn rows(values: &[i64]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("x", column, true)]).unwrap()
    }

    fn schema() -> SchemaRef {
        rows(&[]).schema()
    }

    fn spec(id: u64, from: u64) -> ViewSpec {
        let source =
            CollectionSource { id: CollectionId(from), schema: schema(), key: vec![], watermark: None };
        let plan = LogicalPlanBuilder::scan("t", Arc::new(source), None).unwrap().build().unwrap();
        ViewSpec { id: CollectionId(id), name: format!("v{id}"), schema: schema(), plan }
    }

    /// Hands on until it is given a 13.
    struct Superstitious;

    impl Operator for Superstitious {
        fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
            if delta.rows == rows(&[13]) {
                return Err(Error::new(SqlState::OUT_OF_MEMORY, "unlucky"));
            }
            out.deltas.push(delta);
            Ok(())
        }
    }

    #[test]
    fn a_view_that_stops_says_so_and_the_others_go_on() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        let t = CollectionId(1);
        let input = InputSpec {
            id: t,
            name: "t".into(),
            schema: schema(),
            key: vec![],
            retain: true,
            watermark: None,
        };
        engine.create_input(input).unwrap();
        let insert = |value: i64| {
            let changes = vec![(t, InputChange::Delta(Delta::insert(rows(&[value]))))];
            engine.submit(Transaction { changes, progress: vec![] }).wait().unwrap();
        };
        // v2 by way of the operator above, v3 reads v2, v4 reads t.
        let mut circuit = Circuit::default();
        let id = CollectionId(2);
        let tap = circuit.add(id, Body::Tap { after: 0 }, &[]);
        let node = circuit.add(id, Body::Operator(Box::new(Superstitious)), &[tap]);
        let root = circuit.add(id, Body::View(Box::new(View::new(&schema()))), &[node]);
        let (name, spec_2) = ("v2".to_string(), spec(2, 1));
        let construction =
            Construction { id, name, spec: spec_2, circuit, taps: vec![(t, tap)], root, replaces: None };
        let begun = engine.ask(|reply| Command::Begin(id, vec![t], false, reply)).unwrap();
        engine.ask(|reply| Command::Splice(Box::new(construction), begun.recorder, reply)).unwrap();
        engine.create_view(spec(3, 2)).unwrap();
        engine.create_view(spec(4, 1)).unwrap();
        let followed = engine.subscribe(CollectionId(3), SubscribeFrom::Now).unwrap();
        insert(1);
        insert(13);
        insert(2);
        let read = |id: u64| engine.snapshot().collection(CollectionId(id)).unwrap().batches();
        for stopped in [2, 3] {
            let error = read(stopped).unwrap_err();
            assert_eq!((error.sqlstate, error.message.as_str()), (SqlState::OUT_OF_MEMORY, "unlucky"));
            assert!(error.detail.unwrap().contains(&format!("\"v{stopped}\" has stopped")));
            let again = engine.subscribe(CollectionId(stopped), SubscribeFrom::Now).err().unwrap();
            assert_eq!(again.sqlstate, SqlState::OUT_OF_MEMORY);
        }
        assert_eq!(read(4).unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
        assert!(followed.recv_timeout(Duration::ZERO).unwrap().unwrap().delta.is_some());
        assert_eq!(followed.recv_timeout(Duration::ZERO).unwrap_err().sqlstate, SqlState::OUT_OF_MEMORY);
        let late = engine.create_view(spec(5, 3)).unwrap_err();
        assert_eq!(late.sqlstate, SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE);
        let failed: Vec<u64> =
            engine.stats().collections.iter().filter(|c| c.failed.is_some()).map(|c| c.id.0).collect();
        assert_eq!(failed, [2, 3]);
        engine.drop_collections(&[CollectionId(3), CollectionId(2)]).unwrap();
        // Made anew it is as good as new.
        engine.create_view(spec(2, 1)).unwrap();
        assert_eq!(read(2).unwrap().iter().map(RecordBatch::num_rows).sum::<usize>(), 3);
    }
}
