//! Threads that share an operator's work within a tick. The one that has the work does its part and waits for the rest.

use std::sync::Arc;

use crossbeam_channel::{Sender, unbounded};

use super::circuit::guarded;
use crate::error::{Error, Result, SqlState};
use crate::world;

type Job = Box<dyn FnOnce() + Send>;

/// A fixed number of threads, the caller's among them. Clones are the same threads; they end with the last clone.
#[derive(Clone)]
pub struct Workers {
    count: usize,
    jobs: Option<Sender<Job>>,
}

impl Workers {
    /// `count` workers: the caller of [`run`](Self::run), and one thread less than that.
    ///
    /// # Errors
    /// 53200 when the system gives no thread.
    pub fn new(count: usize) -> Result<Workers> {
        if count <= 1 {
            return Ok(Workers::one());
        }
        let (jobs, queue) = unbounded::<Job>();
        for n in 1..count {
            let queue = queue.clone();
            std::thread::Builder::new()
                .name(format!("tidemill-worker-{n}"))
                .stack_size(world::PLANNING_STACK)
                .spawn(move || queue.iter().for_each(|job| job()))
                .map_err(|e| Error::new(SqlState::OUT_OF_MEMORY, format!("no worker thread: {e}")))?;
        }
        Ok(Workers { count, jobs: Some(jobs) })
    }

    /// The caller alone.
    pub fn one() -> Workers {
        Workers { count: 1, jobs: None }
    }

    /// How many parts work can be done in at once.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Does `work` with each part, in parallel; the parts come back in their order, with what became of them.
    ///
    /// # Errors
    /// The first part's that failed. The parts are gone then: what a panic left half-done is never used again.
    pub fn run<P: Send + 'static, R: Send + 'static>(
        &self,
        parts: Vec<P>,
        work: impl Fn(&mut P) -> Result<R> + Send + Sync + 'static,
    ) -> Result<Vec<(P, R)>> {
        let work = Arc::new(work);
        let mut own = Vec::new();
        let (answers, done) = unbounded();
        let count = parts.len();
        for (at, mut part) in parts.into_iter().enumerate() {
            match &self.jobs {
                // The first part is the caller's.
                Some(jobs) if at > 0 => {
                    let (work, answers) = (Arc::clone(&work), answers.clone());
                    let job = move || {
                        let result = guarded(|| work(&mut part));
                        // The caller waits for every part.
                        let _ = answers.send((at, result.map(|r| (part, r))));
                    };
                    if jobs.send(Box::new(job)).is_err() {
                        return Err(Error::internal("the worker threads are gone"));
                    }
                }
                _ => own.push((at, part)),
            }
        }
        drop(answers);
        let mut results = Vec::with_capacity(count);
        for (at, mut part) in own {
            results.push((at, guarded(|| work(&mut part)).map(|r| (part, r))));
        }
        results.extend(done);
        results.sort_by_key(|(at, _)| *at);
        results.into_iter().map(|(_, result)| result).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_in_order_and_panics_are_errors() {
        for count in [1, 2, 4] {
            let workers = Workers::new(count).unwrap();
            for parts in 0..9usize {
                let done = workers.run((0..parts).collect(), |n| Ok(*n * 2)).unwrap();
                assert_eq!(done, (0..parts).map(|n| (n, 2 * n)).collect::<Vec<_>>());
            }
            let failed = workers.run(vec![1, 2, 3], |n| {
                assert_ne!(*n, 2, "as the test wants it");
                Ok(())
            });
            assert!(failed.unwrap_err().message.contains("as the test wants it"));
            assert_eq!(workers.run(vec![7], |n| Ok(*n)).unwrap(), [(7, 7)]);
        }
    }
}
