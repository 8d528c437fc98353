//! What a sink's commits were, one by one: the newest of each sink, for `tidemill.sink_commits`. They are written down
//! as they come, so that a restart does not forget them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::Tick;
use crate::error::Result;

/// How many commits of a sink are remembered.
const COMMITS_MAX: usize = 1_000;

/// One commit at a sink's destination.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct SinkCommit {
    /// When it was done, µs since 1970.
    pub at_micros: i64,
    /// The tick the destination was at before; `None`: it was filled from a snapshot.
    pub from: Option<Tick>,
    /// The tick it is at since.
    pub to: Tick,
    /// Changes that it holds.
    pub rows: u64,
    /// How many of them add, replace and remove a row, where the sink tells that apart.
    pub counts: Option<Counts>,
    /// Bytes handed to the destination.
    pub bytes: u64,
    /// Files among them.
    pub files: u64,
    /// How often it was tried; more than once: something had failed.
    pub attempts: u64,
    /// How long its parts took.
    pub phases: Phases,
    /// From the arrival of the first change to the commit, µs.
    pub freshness_micros: i64,
    /// What the destination calls the statements of the last attempt, if it names them.
    pub queries: Vec<String>,
}

/// What a commit does to the target's rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Rows whose key (or copy) was not in the target.
    pub inserts: u64,
    /// Rows that replace the row of their key.
    pub updates: u64,
    /// Rows that go away.
    pub deletes: u64,
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} rows added, {} replaced, {} removed", self.inserts, self.updates, self.deletes)
    }
}

/// How long the parts of a commit took, in its last attempt.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Phases {
    /// Bringing the changes into the destination's form.
    pub encode: Duration,
    /// Putting them where the destination reads them.
    pub stage: Duration,
    /// The destination's reading of them.
    pub load: Duration,
    /// Applying them to the target.
    pub merge: Duration,
    /// Making it durable there.
    pub commit: Duration,
}

/// Where a sink's commits are written down, by number.
pub trait CommitStore: Send + Sync {
    /// All that are there, in order.
    fn read(&self) -> Result<Vec<(u64, SinkCommit)>>;
    /// Writes one down and removes an older one. It is durable with whatever is made durable next.
    fn write(&self, number: u64, commit: &SinkCommit, outdated: Option<u64>) -> Result<()>;
}

/// The newest commits of a sink; older ones are forgotten.
#[derive(Default)]
pub struct CommitLog(Mutex<Log>);

#[derive(Default)]
struct Log {
    commits: VecDeque<Arc<SinkCommit>>,
    /// The number of the next one.
    next: u64,
    store: Option<Arc<dyn CommitStore>>,
}

impl std::fmt::Debug for CommitLog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "CommitLog({} commits)", self.0.lock().commits.len())
    }
}

impl CommitLog {
    /// Takes up what is written down there, and writes further commits there. Only the first time.
    ///
    /// # Errors
    /// The store's.
    pub fn keep_in(&self, store: Arc<dyn CommitStore>) -> Result<()> {
        let mut log = self.0.lock();
        if log.store.is_some() {
            return Ok(());
        }
        for (number, commit) in store.read()? {
            log.next = number + 1;
            log.commits.push_back(Arc::new(commit));
        }
        while log.commits.len() > COMMITS_MAX {
            log.commits.pop_front();
        }
        log.store = Some(store);
        Ok(())
    }

    /// Adds one.
    pub fn push(&self, commit: SinkCommit) {
        let mut log = self.0.lock();
        let number = log.next;
        log.next += 1;
        let outdated = number.checked_sub(COMMITS_MAX as u64);
        if let Some(store) = &log.store
            && let Err(error) = store.write(number, &commit, outdated)
        {
            tracing::warn!(%error, "a commit is not written down");
        }
        if log.commits.len() == COMMITS_MAX {
            log.commits.pop_front();
        }
        log.commits.push_back(Arc::new(commit));
    }

    /// All that are remembered, oldest first.
    pub fn newest(&self) -> Vec<Arc<SinkCommit>> {
        self.0.lock().commits.iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_commits_are_forgotten() {
        let log = CommitLog::default();
        for to in 0..COMMITS_MAX as Tick + 3 {
            log.push(SinkCommit { to, ..SinkCommit::default() });
        }
        let ticks: Vec<Tick> = log.newest().iter().map(|c| c.to).collect();
        assert_eq!(ticks, (3..COMMITS_MAX as Tick + 3).collect::<Vec<_>>());
    }
}
