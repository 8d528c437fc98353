//! The loop that keeps a warehouse in step, and the order of its durable steps.
//!
//! ```text
//! open ─► snapshot? ─► replace ─┐        memory: intent = hi
//!    ▲                          ▼        files ─► stage                    (before the transaction)
//!    │        ┌──────────► gather changes          progress lo → hi ┐
//!    │        │                 │        apply:    changes, merge   ├ one transaction of the warehouse
//!    │        └── committed ◄───┤                  commit           ┘
//!    └───────────── answer lost ┘        memory: committed = hi; history up to hi is let go
//! ```
//!
//! Nothing is ever repeated blindly: after every failure the destination is opened anew, which fences whoever
//! was writing before, and says whether the batch in hand has happened.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;

use super::consolidate::{Net, Pending};
use super::staging::staged_rows;
use super::{Batch, Counts, Effect, Failure, Progress, Remedy, Settings, Shape, Step, Warehouse};
use crate::connectors::{
    Checks, Differences, MEMORY_COMMITTED, MEMORY_INTENT, Memory, Phases, SinkCommit, SinkContext, Status,
    StopFlag, Verified, Whole, Wish,
};
use crate::engine::{Delta, Tick, TickDelta};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Ticks that changed nothing here are recorded at the destination this often: it costs it a transaction.
const IDLE_COMMIT: Duration = Duration::from_secs(600);
/// The destination's session is kept alive this often.
const IDLE: Duration = Duration::from_secs(30);
/// The longest pause between attempts.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// The longest gathering of what a relation has had so far, where it comes as changes.
const FIRST_GATHERING: Duration = Duration::from_secs(5);
/// The longest wait for changes before looking at the stop flag again.
const WAIT: Duration = Duration::from_millis(200);

/// Keeps the destination in step until told to stop.
///
/// # Errors
/// What trying again cannot mend. Afterwards the sink's memory is as the next start needs it.
pub fn run(warehouse: &mut dyn Warehouse, shape: Shape, settings: &Settings, cx: SinkContext) -> Result<()> {
    let SinkContext { name, uuid, mut changes, memory, release, status, checks, stop, .. } = cx;
    let mut sync = Sync {
        warehouse,
        shape,
        settings,
        name,
        uuid,
        memory,
        release,
        status,
        checks,
        stop,
        progress: Progress::default(),
        attempt: 0,
    };
    let outcome = sync.follow(changes.as_mut());
    if let Err(e) = &outcome {
        sync.status.update(|s| {
            s.state = "failed";
            s.error = Some(e.to_string());
        });
    }
    outcome
}

struct Sync<'a> {
    warehouse: &'a mut dyn Warehouse,
    shape: Shape,
    settings: &'a Settings,
    name: String,
    uuid: uuid::Uuid,
    memory: Arc<dyn Memory>,
    release: Arc<dyn Fn(Tick) + Send + std::marker::Sync>,
    status: Arc<Status>,
    checks: Arc<Checks>,
    stop: StopFlag,
    /// What the destination said last.
    progress: Progress,
    /// Number of attempts to stage a batch under this fence: no two write to the same place.
    attempt: u64,
}

/// Whether a step that waits was finished or the sink was told to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Went {
    Through,
    Stopped,
}

impl Sync<'_> {
    fn follow(&mut self, changes: &mut dyn crate::connectors::Changes) -> Result<()> {
        self.status.update(|s| {
            s.state = "starting";
            s.error = None;
        });
        if self.open()? == Went::Stopped {
            return Ok(());
        }
        let start = changes.start_tick();
        let remembered = self.memory.get(MEMORY_COMMITTED)?;
        let filled = self.progress.generation > 0;
        let mut gathered = Gathered { pending: Pending::new(self.shape.clone()), since: None, seen: start };
        // A change that waits for what must come before it.
        let mut held: Option<TickDelta> = None;
        match changes.snapshot()? {
            // An attempt before this one has committed it.
            Some(_)
                if filled
                    && self.progress.epoch == start
                    && remembered.as_deref() == Some(start.to_be_bytes().as_slice()) => {}
            Some(rows) => {
                for rows in rows {
                    gathered.add(TickDelta { tick: start, delta: Some(Delta { rows, weights: None }) })?;
                }
                if self.fill(&mut gathered)? == Went::Stopped {
                    return Ok(());
                }
            }
            // All rows there ever were come as changes.
            None if start == 0 && (!filled || remembered.is_some_and(|tick| tick.is_empty())) => {
                match self.intended()? {
                    Some(tick) => held = self.gather_up_to(tick, &mut gathered, changes)?,
                    None => {
                        let gathering = world::instant();
                        while gathering.elapsed() < FIRST_GATHERING
                            && gathered.pending.bytes() < self.settings.batch_bytes
                            && let Some(change) = changes.next(WAIT)?
                        {
                            gathered.add(change)?;
                        }
                    }
                }
                if self.stop.is_set() {
                    return Ok(());
                }
                if self.fill(&mut gathered)? == Went::Stopped {
                    return Ok(());
                }
            }
            None if !filled || self.progress.epoch < start => return Err(self.start_over()),
            None => {}
        }
        self.status.update(|s| s.state = "running");

        // The destination may be ahead of what was recorded: ticks up to where it is come again.
        let mut reached = gathered.seen;
        gathered.seen = gathered.seen.max(self.progress.epoch);
        let mut recorded = false;
        let (mut committed_at, mut idled_at) = (world::instant(), world::instant());
        // What may have been sent already, up to this tick, is sent again exactly so.
        let mut again = self.intended()?.filter(|&tick| tick > self.progress.epoch);
        // Who wants a comparison, and all rows at its tick; the first change after that waits.
        let mut asked: Option<(Wish, Whole)> = None;
        while !self.stop.is_set() {
            if asked.is_none() && again.is_none() {
                asked = self.asked(gathered.seen);
            }
            let last =
                asked.as_ref().map_or(Tick::MAX, |(_, whole)| whole.tick).min(again.unwrap_or(Tick::MAX));
            let left = self.settings.commit_interval.saturating_sub(committed_at.elapsed());
            let wait = if gathered.pending.is_empty() { WAIT } else { left.min(WAIT) };
            let mut next = match held.take() {
                Some(change) => Some(change),
                None => changes.next(wait)?,
            };
            // When a commit is due, what is at hand already comes along, for a moment.
            let gathering = world::instant();
            while let Some(change) = next {
                if change.tick > last {
                    held = Some(change);
                    break;
                }
                if reached < self.progress.epoch
                    && change.tick > self.progress.epoch
                    && change.delta.is_some()
                {
                    // Half of this change is at the destination already and cannot be told from the rest.
                    return Err(self.start_over());
                }
                reached = reached.max(change.tick);
                if change.tick > self.progress.epoch {
                    gathered.add(change)?;
                }
                let more = wait.is_zero()
                    && gathering.elapsed() < WAIT
                    && gathered.pending.bytes() < self.settings.batch_bytes;
                next = if more { changes.next(Duration::ZERO)? } else { None };
            }
            if !recorded && reached >= self.progress.epoch {
                self.record(self.progress.epoch)?;
                recorded = true;
            }
            let rests = held.is_some() || gathered.seen >= last;
            if rests && let Some(tick) = again.take() {
                gathered.seen = tick;
                if !gathered.pending.is_empty() {
                    let since = gathered.since.take().unwrap_or_else(world::now_micros);
                    let net = gathered.pending.take()?;
                    if self.commit(Effect::Advance, tick, net, since)? == Went::Stopped {
                        return Ok(());
                    }
                }
                continue;
            }
            let comes_to_rest = asked.is_some() && rests;
            let behind = gathered.seen > self.progress.epoch;
            let due = match gathered.pending.is_empty() {
                true => behind && committed_at.elapsed() >= IDLE_COMMIT,
                false => {
                    comes_to_rest
                        || again.is_none()
                            && (committed_at.elapsed() >= self.settings.commit_interval
                                || gathered.pending.bytes() >= self.settings.batch_bytes)
                }
            };
            if due {
                let since = gathered.since.take().unwrap_or_else(world::now_micros);
                let net = gathered.pending.take()?;
                if self.commit(Effect::Advance, gathered.seen, net, since)? == Went::Stopped {
                    return Ok(());
                }
                committed_at = world::instant();
            } else if behind && gathered.pending.is_empty() {
                // Nothing changed: the target is at this tick without being told.
                self.status.update(|s| s.tick_committed = Some(gathered.seen));
            }
            if comes_to_rest
                && let Some((wish, whole)) = asked.take()
                && self.verify(wish, whole)? == Went::Stopped
            {
                return Ok(());
            }
            if idled_at.elapsed() >= IDLE {
                self.warehouse.idle();
                idled_at = world::instant();
            }
        }
        Ok(())
    }

    /// Gathers everything up to a tick, at which a first commit that may have begun was to end; answers with the first
    /// change after it, which was only looked at. Ends early when the sink is to stop.
    fn gather_up_to(
        &self,
        tick: Tick,
        gathered: &mut Gathered,
        changes: &mut dyn crate::connectors::Changes,
    ) -> Result<Option<TickDelta>> {
        while gathered.seen < tick && !self.stop.is_set() {
            match changes.next(WAIT)? {
                Some(change) if change.tick > tick => {
                    gathered.seen = tick;
                    return Ok(Some(change));
                }
                Some(change) => gathered.add(change)?,
                None => {}
            }
        }
        Ok(None)
    }

    /// Up to which tick the destination may have been sent changes that it does not know of having.
    fn intended(&self) -> Result<Option<Tick>> {
        if self.warehouse.remembers_ranges() {
            return Ok(None);
        }
        let intent = self.memory.get(MEMORY_INTENT)?.and_then(|tick| tick.try_into().ok());
        Ok(intent.map(Tick::from_be_bytes))
    }

    /// Somebody who wants a comparison, with all rows as they are now, which is not before `seen`.
    fn asked(&self, seen: Tick) -> Option<(Wish, Whole)> {
        let wish = self.checks.next()?;
        match self.checks.whole() {
            Ok(whole) if whole.tick >= seen => Some((wish, whole)),
            Ok(whole) => {
                let error = format!("tick {seen} is here before its rows, which are at tick {}", whole.tick);
                wish.answer(Err(Error::new(SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE, error)));
                None
            }
            Err(error) => {
                wish.answer(Err(error));
                None
            }
        }
    }

    /// Compares the target, which holds what it must hold at the tick of `whole`, and mends it if that is wished.
    fn verify(&mut self, wish: Wish, whole: Whole) -> Result<Went> {
        let tick = whole.tick;
        match self.compare(&wish, whole) {
            Ok(differences) => {
                wish.answer(Ok(Verified { tick, differences }));
                Ok(Went::Through)
            }
            Err(failure) => {
                wish.answer(Err(failure.error));
                // What the destination has done of it, only it knows.
                self.open()
            }
        }
    }

    fn compare(&mut self, wish: &Wish, whole: Whole) -> Step<Differences> {
        let began = world::now_micros();
        let mut all = Pending::new(self.shape.clone());
        for rows in whole.rows {
            all.push(Delta { rows, weights: None })?;
        }
        let net = all.take()?;
        let counts = net.counts();
        let encoded = self.warehouse.encode(&net.rows)?;
        let staged = staged_rows(&self.shape, &net, &encoded)?;
        drop((net, encoded));
        self.attempt += 1;
        let from = self.progress;
        let to = Progress { generation: from.generation + 1, ..from };
        let directory = format!("{}/verify/{:020}/f{}a{}/", self.uuid, from.epoch, from.fence, self.attempt);
        let (files, ranges) = (Vec::new(), Vec::new());
        let mut batch = Batch { effect: Effect::Mend, from, to, directory, files, ranges, counts };
        let differences = self.warehouse.compare(&mut batch, &staged, self.settings.file_bytes)?;
        if wish.repair && !differences.is_empty() {
            let applied = self.warehouse.apply(&batch)?;
            self.progress = to;
            let now = world::now_micros();
            self.status.committed(SinkCommit {
                at_micros: now,
                to: to.epoch,
                rows: batch.counts.inserts,
                counts: Some(batch.counts),
                bytes: batch.files.iter().map(|f| f.bytes).sum(),
                files: batch.files.len() as u64,
                attempts: 1,
                phases: Phases {
                    load: applied.load,
                    merge: applied.merge,
                    commit: applied.commit,
                    ..Phases::default()
                },
                freshness_micros: now - began,
                queries: applied.queries,
                ..SinkCommit::default()
            });
        }
        self.warehouse.discard(&batch);
        Ok(differences)
    }

    /// Replaces all rows of the target by what was gathered.
    fn fill(&mut self, gathered: &mut Gathered) -> Result<Went> {
        self.status.update(|s| s.state = "snapshot");
        let since = gathered.since.take().unwrap_or_else(world::now_micros);
        let net = gathered.pending.take()?;
        self.commit(Effect::Replace, gathered.seen, net, since)
    }

    /// Opens the destination, trying until it works, it cannot work, or the sink is told to stop.
    fn open(&mut self) -> Result<Went> {
        let mut pause = self.settings.retry;
        loop {
            match self.warehouse.open(&self.stop) {
                Ok(progress) => {
                    tracing::info!(sink = %self.name, ?progress, "destination opened");
                    self.progress = progress;
                    self.attempt = 0;
                    return Ok(Went::Through);
                }
                Err(failure) => {
                    if self.give_way(failure, &mut pause)? == Went::Stopped {
                        return Ok(Went::Stopped);
                    }
                }
            }
        }
    }

    /// After a failure: waits for the next attempt, or says that there is none.
    fn give_way(&self, failure: Failure, pause: &mut Duration) -> Result<Went> {
        if self.stop.is_set() {
            return Ok(Went::Stopped);
        }
        match failure.remedy {
            Remedy::Nothing => return Err(failure.error),
            Remedy::Snapshot => {
                self.forget()?;
                return Err(failure.error);
            }
            Remedy::Retry => {}
        }
        tracing::warn!(sink = %self.name, error = %failure.error, "destination failed, trying again");
        self.status.update(|s| {
            s.state = "stalled";
            s.error = Some(failure.error.to_string());
        });
        let until = world::instant() + pause.mul_f64(0.5 + world::jitter());
        *pause = (*pause * 2).min(RETRY_MAX);
        while let Some(left) = until.checked_duration_since(world::instant()).filter(|d| !d.is_zero()) {
            if self.stop.is_set() {
                return Ok(Went::Stopped);
            }
            world::sleep(left.min(WAIT));
        }
        Ok(Went::Through)
    }

    /// Takes the destination to tick `hi`, however many attempts that needs. `since`: when the first of the
    /// changes came, µs since 1970.
    fn commit(&mut self, effect: Effect, hi: Tick, net: Net, since: i64) -> Result<Went> {
        let counts = net.counts();
        let mut record = SinkCommit {
            from: (effect == Effect::Advance).then_some(self.progress.epoch),
            to: hi,
            counts: Some(counts),
            ..SinkCommit::default()
        };
        let encoding = world::instant();
        let encoded = self.warehouse.encode(&net.rows)?;
        let staged = staged_rows(&self.shape, &net, &encoded)?;
        drop((net, encoded));
        record.rows = staged.num_rows() as u64;
        record.phases.encode = encoding.elapsed();
        self.memory.put(MEMORY_INTENT, &hi.to_be_bytes())?;

        let from = self.progress;
        let generation = from.generation + u64::from(effect == Effect::Replace);
        let mut pause = self.settings.retry;
        loop {
            let failure = match self.attempt(effect, generation, counts, &staged, &mut record) {
                Ok(()) => break,
                Err(failure) => failure,
            };
            if self.give_way(failure, &mut pause)? == Went::Stopped || self.open()? == Went::Stopped {
                return Ok(Went::Stopped);
            }
            let now = self.progress;
            if (now.generation, now.epoch) == (generation, hi) {
                break; // it had happened, only the answer was lost
            }
            if (now.generation, now.epoch) != (from.generation, from.epoch) {
                return Err(self.start_over());
            }
        }
        self.progress = Progress { generation, epoch: hi, fence: self.progress.fence };
        record.at_micros = world::now_micros();
        record.freshness_micros = record.at_micros - since;
        // Before the note of the tick, which makes both durable.
        self.status.committed(record);
        self.record(hi)?;
        world::crash_point("sink.recorded");
        Ok(Went::Through)
    }

    /// Remembers that the destination is certainly at this tick and lets go of the history before it.
    fn record(&self, tick: Tick) -> Result<()> {
        self.memory.put(MEMORY_COMMITTED, &tick.to_be_bytes())?;
        (self.release)(tick);
        self.status.update(|s| s.tick_committed = Some(tick));
        Ok(())
    }

    /// Stages the batch under a path of its own and applies it. Notes what that took, as far as it came.
    fn attempt(
        &mut self,
        effect: Effect,
        generation: u64,
        counts: Counts,
        staged: &RecordBatch,
        record: &mut SinkCommit,
    ) -> Step<()> {
        let (from, hi) = (self.progress, record.to);
        self.attempt += 1;
        record.attempts += 1;
        record.queries.clear();
        record.phases = Phases { encode: record.phases.encode, ..Phases::default() };
        let directory = format!("{}/g{generation}/{hi:020}/f{}a{}/", self.uuid, from.fence, self.attempt);
        world::crash_point("sink.before_put");
        let warehouse = &mut *self.warehouse;
        let to = Progress { generation, epoch: hi, fence: from.fence };
        let (files, ranges) = (Vec::new(), Vec::new());
        let mut batch = Batch { effect, from, to, directory, files, ranges, counts };
        let staging = world::instant();
        batch.files = warehouse.stage(&batch, staged, self.settings.file_bytes)?;
        record.phases.stage = staging.elapsed();
        record.files = batch.files.len() as u64;
        record.bytes = batch.files.iter().map(|f| f.bytes).sum();
        world::crash_point("sink.put");
        let applied = warehouse.apply(&batch)?;
        world::crash_point("sink.committed");
        (record.phases.load, record.phases.merge) = (applied.load, applied.merge);
        record.phases.commit = applied.commit;
        record.queries = applied.queries;
        warehouse.discard(&batch);
        Ok(())
    }

    /// The destination is where this database's history cannot take it further from: the next start must
    /// begin with a snapshot.
    fn start_over(&self) -> Error {
        if let Err(e) = self.forget() {
            return e;
        }
        let at = match self.progress.generation {
            0 => "nowhere".to_string(),
            _ => format!("at tick {}", self.progress.epoch),
        };
        Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("the destination is {at}, from where there is no history to go on"),
        )
        .with_hint("The sink starts over with a snapshot.")
    }

    /// An empty value is no tick: whoever starts the sink next gives it a snapshot.
    fn forget(&self) -> Result<()> {
        self.memory.put(MEMORY_COMMITTED, &[])?;
        self.memory.put(MEMORY_INTENT, &[])
    }
}

/// Changes that came and were not committed yet.
struct Gathered {
    pending: Pending,
    /// When the first of them came, µs since 1970.
    since: Option<i64>,
    /// The last tick that came.
    seen: Tick,
}

impl Gathered {
    fn add(&mut self, change: TickDelta) -> Result<()> {
        self.seen = change.tick;
        if let Some(delta) = change.delta {
            self.pending.push(delta)?;
            self.since.get_or_insert_with(world::now_micros);
        }
        Ok(())
    }
}
