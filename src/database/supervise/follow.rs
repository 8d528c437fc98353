//! What a sink follows: a subscription of the engine that yields durable ticks only and can begin again.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use parking_lot::Mutex;

use crate::connectors::Changes;
use crate::engine::{Backlog, CollectionId, Engine, SubscribeFrom, Subscription, Tick, TickDelta};
use crate::error::Result;

/// A sink's subscription. It lives as long as the sink, over all its attempts.
pub(crate) struct Followed {
    engine: Engine,
    collection: CollectionId,
    subscription: Mutex<Arc<Subscription>>,
    /// The journal is kept from the last released tick on under this name.
    hold: String,
}

impl Followed {
    /// Follows `subscription` of `collection`, which keeps what was not released; `hold` names the claim on the journal.
    pub fn new(
        engine: Engine,
        collection: CollectionId,
        subscription: Subscription,
        hold: String,
    ) -> Arc<Followed> {
        engine.hold_journal(&hold, Some(subscription.start_tick()));
        Arc::new(Followed { engine, collection, subscription: Mutex::new(Arc::new(subscription)), hold })
    }

    /// Begins after the last released tick.
    pub fn attempt(self: &Arc<Self>) -> Box<dyn Changes> {
        let subscription = Arc::clone(&self.subscription.lock());
        let start = subscription.rewind();
        Box::new(Attempt { engine: self.engine.clone(), subscription, start })
    }

    /// Begins with the rows as they are now: the sink cannot go on from what it has committed.
    pub fn begin_again(&self) -> Result<()> {
        let subscription = self.engine.subscribe_kept(self.collection, SubscribeFrom::Snapshot)?;
        self.engine.hold_journal(&self.hold, Some(subscription.start_tick()));
        *self.subscription.lock() = Arc::new(subscription);
        Ok(())
    }

    /// What waits for the sink.
    pub fn backlog(&self) -> Backlog {
        self.subscription.lock().backlog()
    }

    /// Nothing up to `tick` is needed any more.
    pub fn release(&self, tick: Tick) {
        self.subscription.lock().release(tick);
        self.engine.hold_journal(&self.hold, Some(tick));
    }

    /// The sink is gone for good.
    pub fn end(&self) {
        self.engine.hold_journal(&self.hold, None);
    }
}

struct Attempt {
    engine: Engine,
    subscription: Arc<Subscription>,
    start: Tick,
}

impl Changes for Attempt {
    fn start_tick(&self) -> Tick {
        self.start
    }

    fn snapshot(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        match self.subscription.snapshot() {
            // Once something was released the sink has committed the snapshot.
            Some(snapshot) if self.start == self.subscription.start_tick() => {
                self.engine.wait_durable(self.start)?;
                snapshot.batches().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<TickDelta>> {
        let Some(change) = self.subscription.recv_timeout(timeout)? else { return Ok(None) };
        // The journal is synchronised by group right after the tick: a short wait, or none. After an error the
        // attempt is over, and the next one receives the change again.
        self.engine.wait_durable(change.tick)?;
        Ok(Some(change))
    }
}
