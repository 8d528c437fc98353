//! What a run has done, in numbers.

use std::collections::BTreeMap;
use std::fmt;

use super::finding::words;

/// Sums over databases.
#[derive(Debug, Default)]
pub struct Totals {
    pub databases: u64,
    pub views: u64,
    pub ticks: u64,
    pub failed_statements: u64,
    pub compared: u64,
    pub compared_with_postgres: u64,
    /// Refused as not supported, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Refused by PostgreSQL alone, by reason.
    pub foreign: BTreeMap<String, u64>,
    /// What is wrong, by signature.
    pub found: BTreeMap<String, u64>,
}

impl Totals {
    /// Notes a statement that is not supported.
    pub fn refuse(&mut self, reason: &str) {
        *self.refused.entry(words(reason)).or_default() += 1;
    }

    /// Notes a statement that only PostgreSQL refuses.
    pub fn reject(&mut self, reason: &str) {
        *self.foreign.entry(words(reason)).or_default() += 1;
    }

    /// How many things are wrong.
    pub fn wrong(&self) -> u64 {
        self.found.values().sum()
    }

    /// Adds another run's.
    pub fn add(&mut self, other: Totals) {
        self.databases += other.databases;
        self.views += other.views;
        self.ticks += other.ticks;
        self.failed_statements += other.failed_statements;
        self.compared += other.compared;
        self.compared_with_postgres += other.compared_with_postgres;
        for (mine, theirs) in [
            (&mut self.refused, other.refused),
            (&mut self.foreign, other.foreign),
            (&mut self.found, other.found),
        ] {
            for (reason, count) in theirs {
                *mine.entry(reason).or_default() += count;
            }
        }
    }
}

impl fmt::Display for Totals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |f: &mut fmt::Formatter<'_>, title: &str, reasons: &BTreeMap<String, u64>| {
            if reasons.is_empty() {
                return Ok(());
            }
            writeln!(f, "{title}: {}", reasons.values().sum::<u64>())?;
            let mut sorted: Vec<_> = reasons.iter().collect();
            sorted.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
            sorted.into_iter().try_for_each(|(reason, count)| writeln!(f, "{count:>8}  {reason}"))
        };
        list(f, "refused", &self.refused)?;
        list(f, "refused by PostgreSQL alone", &self.foreign)?;
        list(f, "wrong", &self.found)?;
        writeln!(
            f,
            "{} databases, {} views, {} ticks, {} statements that failed as they should",
            self.databases, self.views, self.ticks, self.failed_statements
        )?;
        writeln!(f, "{} query-ticks compared with batch", self.compared)?;
        if self.compared_with_postgres > 0 {
            writeln!(f, "{} query-ticks compared with PostgreSQL", self.compared_with_postgres)?;
        }
        write!(f, "{} differences", self.wrong())
    }
}
