//! The world outside the program, behind functions that a test can own: clock, randomness, crash points.
//!
//! Nothing else in the crate reads a clock or draws a random number (`tests/tidy.rs` checks it).

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Microseconds since 1970-01-01 UTC.
pub fn now_micros() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as i64)
}

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
    use std::sync::atomic::{AtomicI64, Ordering};
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
