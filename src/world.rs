//! The world outside the program, behind functions that a test can own: clock, randomness, crash points.
//!
//! Nothing else in the crate reads a clock or draws a random number (`tests/tidy.rs` checks it).

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 UTC.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

/// The wall clock as an engine sees it: the machine's, or one that a test sets.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

/// What a clock says that has not been set.
const UNSET: i64 = i64::MIN;

impl Clock {
    /// A clock that goes with the machine's until it is set, and then stands.
    pub fn settable() -> Clock {
        Clock(Some(Arc::new(AtomicI64::new(UNSET))))
    }

    /// Microseconds since 1970-01-01 UTC.
    pub fn now_micros(&self) -> i64 {
        match self.0.as_ref().map_or(UNSET, |set| set.load(Ordering::SeqCst)) {
            UNSET => now_micros(),
            set => set,
        }
    }

    /// Sets a settable clock, forwards or back, in microseconds since 1970-01-01 UTC; the machine's stays as it is.
    pub fn set(&self, micros: i64) {
        if let Some(set) = &self.0 {
            set.store(micros, Ordering::SeqCst);
        }
    }
}

impl PartialEq for Clock {
    fn eq(&self, other: &Clock) -> bool {
        match (&self.0, &other.0) {
            (None, None) => true,
            (Some(a), Some(b)) => Arc::ptr_eq(a, b),
            _ => false,
        }
    }
}

impl Eq for Clock {}

/// A monotonic reading, for durations only.
pub fn instant() -> Instant {
    Instant::now()
}

/// Blocks this thread. Only for threads of their own (connectors, supervisors), never the tick thread.
pub fn sleep(d: Duration) {
    std::thread::sleep(d);
}

/// Waits without blocking the thread. Only inside a tokio runtime.
pub async fn pause(d: Duration) {
    tokio::time::sleep(d).await;
}

/// The stack of threads that plan statements and build views, in bytes of address space. What walks a tree of
/// [the deepest kind](crate::sql::parser) calls itself once for each level, with large frames.
pub const PLANNING_STACK: usize = 256 << 20;

/// A fresh random identifier.
pub fn uuid() -> uuid::Uuid {
    uuid::Uuid::new_v4()
}

/// A random number in `[0, 1)`, for jitter.
pub fn jitter() -> f64 {
    rand::random::<f64>()
}

/// Dies as `kill -9` would when the environment names this crash point:
/// `TIDEMILL_CRASH_AT=name` at its first passing, `name:3` at its third.
/// Tests place kills between any two durable steps with it; otherwise it costs one load.
pub fn crash_point(name: &str) {
    static TARGET: OnceLock<Option<(String, AtomicI64)>> = OnceLock::new();
    let target = TARGET.get_or_init(|| {
        let spec = std::env::var("TIDEMILL_CRASH_AT").ok()?;
        let (point, passes) = match spec.rsplit_once(':') {
            Some((p, n)) => (p.to_string(), n.parse().unwrap_or(1)),
            None => (spec, 1),
        };
        Some((point, AtomicI64::new(passes)))
    });
    if let Some((point, left)) = target
        && point == name
        && left.fetch_sub(1, Ordering::SeqCst) == 1
    {
        // abort() runs no destructor and flushes nothing, as a kill would.
        std::process::abort();
    }
}
