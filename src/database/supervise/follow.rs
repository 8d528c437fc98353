//! What a sink follows: a subscription of the engine that yields durable ticks only and can begin again.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;

use crate::connectors::Changes;
use crate::engine::{Engine, Subscription, Tick, TickDelta};
use crate::error::Result;

/// A sink's subscription. It lives as long as the sink, over all its attempts.
pub(crate) struct Followed {
    engine: Engine,
    subscription: Subscription,
    /// The journal is kept from the last released tick on under this name.
    hold: String,
}

impl Followed {
    /// Follows `subscription`, which keeps what was not released; `hold` names the claim on the journal.
    pub fn new(engine: Engine, subscription: Subscription, hold: String) -> Arc<Followed> {
        engine.hold_journal(&hold, Some(subscription.start_tick()));
        Arc::new(Followed { engine, subscription, hold })
    }

    /// Begins after the last released tick.
    pub fn attempt(self: &Arc<Self>) -> Box<dyn Changes> {
        let start = self.subscription.rewind();
        Box::new(Attempt { followed: Arc::clone(self), start })
    }

    /// Nothing up to `tick` is needed any more.
    pub fn release(&self, tick: Tick) {
        self.subscription.release(tick);
        self.engine.hold_journal(&self.hold, Some(tick));
    }

    /// The sink is gone for good.
    pub fn end(&self) {
        self.engine.hold_journal(&self.hold, None);
    }
}

struct Attempt {
    followed: Arc<Followed>,
    start: Tick,
}

impl Changes for Attempt {
    fn start_tick(&self) -> Tick {
        self.start
    }

    fn snapshot(&mut self) -> Result<Option<Vec<RecordBatch>>> {
        let subscription = &self.followed.subscription;
        match subscription.snapshot() {
            // Once something was released the sink has committed the snapshot.
            Some(snapshot) if self.start == subscription.start_tick() => {
                self.followed.engine.wait_durable(self.start)?;
                snapshot.batches().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn next(&mut self, timeout: Duration) -> Result<Option<TickDelta>> {
        let Some(change) = self.followed.subscription.recv_timeout(timeout)? else { return Ok(None) };
        // The journal is synchronised by group right after the tick: a short wait, or none. After an error the
        // attempt is over, and the next one receives the change again.
        self.followed.engine.wait_durable(change.tick)?;
        Ok(Some(change))
    }
}
