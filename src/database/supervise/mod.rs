//! Sources and sinks at work: a thread each, started again after a pause when it fails.

mod feed;
mod follow;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

pub(crate) use feed::{EngineFeed, refused};
pub(crate) use follow::Followed;

use crate::connectors::{Status, StopFlag};
use crate::error::{Error, Result};
use crate::world;

/// The pause before the first new attempt; it doubles with every failure in a row.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// An attempt that lasted this long was a success, whatever ended it.
const STEADY: Duration = Duration::from_secs(60);
/// How often a pausing thread looks whether it is to stop.
const POLL: Duration = Duration::from_millis(50);

/// A connector at work.
pub(crate) struct Worker {
    /// Its object's name when it was started, for logs.
    name: String,
    stop: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a thread that makes one attempt after another, each with a fresh connector, until told to stop or
    /// until an attempt says that there is no more to do.
    pub fn start(
        name: &str,
        status: Arc<Status>,
        mut attempt: impl FnMut(&StopFlag) -> Result<()> + Send + 'static,
    ) -> Result<Worker> {
        let stop = StopFlag::default();
        let (flag, state, label) = (stop.clone(), status, name.to_string());
        let run = move || {
            let mut pause = PAUSE_MIN;
            while !flag.is_set() {
                state.update(|s| s.state = "starting");
                let began = world::instant();
                // A connector calls foreign code; its panic is its failure, not the database's.
                let result = catch_unwind(AssertUnwindSafe(|| attempt(&flag)))
                    .unwrap_or_else(|panic| Err(Error::internal(panic_message(&*panic))));
                match result {
                    Ok(()) if flag.is_set() => break,
                    Ok(()) => {
                        state.update(|s| s.state = "finished");
                        tracing::info!(connector = label, "finished");
                        return;
                    }
                    Err(error) => {
                        if world::instant() - began > STEADY {
                            pause = PAUSE_MIN;
                        }
                        let wait = pause.mul_f64(0.5 + world::jitter());
                        tracing::warn!(connector = label, %error, retry_in_ms = wait.as_millis() as u64, "failed");
                        state.update(|s| {
                            s.state = "stalled";
                            s.error = Some(error.to_string());
                        });
                        let until = world::instant() + wait;
                        while !flag.is_set() && world::instant() < until {
                            world::sleep(POLL);
                        }
                        pause = (pause * 2).min(PAUSE_MAX);
                    }
                }
            }
            state.update(|s| s.state = "stopped");
        };
        let thread = std::thread::Builder::new().name(format!("connector {name}")).spawn(run)?;
        Ok(Worker { name: name.to_string(), stop, thread: Some(thread) })
    }

    /// Its object's name when it was started.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Asks it to stop, without waiting.
    pub fn ask_to_stop(&self) {
        self.stop.stop();
    }

    /// Waits until it has stopped, at most until `deadline`; says whether it has.
    pub fn join(&mut self, deadline: std::time::Instant) -> bool {
        self.ask_to_stop();
        let Some(thread) = self.thread.take() else { return true };
        while !thread.is_finished() {
            if world::instant() >= deadline {
                tracing::warn!(connector = self.name, "did not stop in time");
                self.thread = Some(thread);
                return false;
            }
            world::sleep(Duration::from_millis(5));
        }
        // Its panics were caught inside; a panic of the loop itself has nothing more to say.
        let _ = thread.join();
        true
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.ask_to_stop();
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_string());
    let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
    format!("the connector panicked: {}", text.unwrap_or_else(|| "unknown cause".into()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn a_failure_is_shown_and_tried_again_until_stopped() {
        let tries = Arc::new(AtomicU32::new(0));
        let seen = Arc::clone(&tries);
        let status = Arc::new(Status::default());
        let mut worker =
            Worker::start("t", Arc::clone(&status), move |stop| match seen.fetch_add(1, Ordering::SeqCst) {
                0 => panic!("boom"),
                _ => {
                    while !stop.is_set() {
                        world::sleep(POLL);
                    }
                    Ok(())
                }
            })
            .unwrap();
        let until = world::instant() + Duration::from_secs(10);
        while tries.load(Ordering::SeqCst) < 2 && world::instant() < until {
            world::sleep(POLL);
        }
        assert_eq!(tries.load(Ordering::SeqCst), 2);
        assert!(status.get().error.unwrap().contains("boom"));
        assert!(worker.join(until));
        assert_eq!(status.get().state, "stopped");
    }
}
