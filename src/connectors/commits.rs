//! What a sink's commits were, one by one: the newest of each sink, for `tidemill.sink_commits`.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::engine::Tick;

/// How many commits of a sink are remembered.
const COMMITS_MAX: usize = 1_000;

/// One commit at a sink's destination.
#[derive(Clone, Debug, Default)]
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
#[derive(Clone, Copy, Debug, Default)]
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

/// The newest commits of a sink; older ones are forgotten.
#[derive(Debug, Default)]
pub struct CommitLog(Mutex<VecDeque<Arc<SinkCommit>>>);

impl CommitLog {
    /// Adds one.
    pub fn push(&self, commit: SinkCommit) {
        let mut commits = self.0.lock();
        if commits.len() == COMMITS_MAX {
            commits.pop_front();
        }
        commits.push_back(Arc::new(commit));
    }

    /// All that are remembered, oldest first.
    pub fn newest(&self) -> Vec<Arc<SinkCommit>> {
        self.0.lock().iter().cloned().collect()
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
