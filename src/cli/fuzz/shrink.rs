//! From a script that fails to the smallest that fails in the same way.

use std::time::Duration;

use tokio::runtime::Runtime;

use tidemill::world;

use super::bench::{Bench, Done};
use super::finding::Finding;
use super::life::Watch;
use super::postgres::Postgres;
use super::reduce;
use super::script::Step;

/// Runs of a script that shrinking may cost.
const TRIALS_MAX: usize = 300;
/// How long it may take.
const TIME_MAX: Duration = Duration::from_secs(60);

/// Makes a failing script smaller.
pub struct Shrinker<'a> {
    runtime: &'a Runtime,
    postgres: Option<&'a Postgres>,
    finding: Finding,
    watch: &'a Watch,
    trials: usize,
    started: std::time::Instant,
}

impl<'a> Shrinker<'a> {
    /// For scripts that end in this.
    pub fn new(
        runtime: &'a Runtime,
        postgres: Option<&'a Postgres>,
        finding: Finding,
        watch: &'a Watch,
    ) -> Shrinker<'a> {
        Shrinker { runtime, postgres, finding, watch, trials: 0, started: world::instant() }
    }

    /// The smallest script, with what it ends in.
    pub fn shrink(mut self, mut steps: Vec<Step>) -> (Vec<Step>, Finding) {
        self.only_what_matters(&mut steps);
        loop {
            let before = steps.clone();
            self.fewer_steps(&mut steps);
            self.fewer_rows(&mut steps);
            self.smaller_queries(&mut steps);
            if steps == before || self.exhausted() {
                return (steps, self.finding);
            }
        }
    }

    fn exhausted(&self) -> bool {
        self.trials >= TRIALS_MAX || self.started.elapsed() > TIME_MAX
    }

    /// Takes a smaller script if it still fails in the same way.
    fn take(&mut self, steps: &mut Vec<Step>, smaller: Vec<Step>) -> bool {
        if self.exhausted() {
            return false;
        }
        self.trials += 1;
        let Ok(mut bench) = Bench::open(self.runtime, self.postgres) else { return false };
        bench.only = self.finding.view.clone();
        for (i, step) in smaller.iter().enumerate() {
            *self.watch.at.lock() = (smaller[..=i].to_vec(), world::instant());
            if let Done::Found(found) = bench.step(step)
                && found.is_like(&self.finding)
            {
                self.finding = found;
                *steps = smaller[..=i].to_vec();
                return true;
            }
        }
        false
    }

    /// Leaves out what most scripts do not need: all ticks, and all views that the last one does not read.
    fn only_what_matters(&mut self, steps: &mut Vec<Step>) {
        let Some(view) = self.finding.view.clone() else { return };
        let mut read = vec![view];
        let mut kept: Vec<Step> = Vec::new();
        for step in steps.iter().rev() {
            match step {
                Step::View { name, query, .. } if read.contains(name) => {
                    let names = steps.iter().filter_map(|s| match s {
                        Step::View { name, .. } => Some(name.clone()),
                        _ => None,
                    });
                    read.extend(names.filter(|v| query.contains(&format!("{v} AS"))));
                    kept.push(step.clone());
                }
                Step::View { .. } | Step::Drop { .. } => {}
                _ => kept.push(step.clone()),
            }
        }
        kept.reverse();
        // The views below as plain ones: they cost no more than their plans.
        let mut plain: Vec<Step> = kept.iter().filter(|s| !matches!(s, Step::Tick(_))).cloned().collect();
        let below = plain.len().saturating_sub(1);
        for step in &mut plain[..below] {
            if let Step::View { materialized, .. } = step {
                *materialized = false;
            }
        }
        if !(self.finding.is_error() && self.take(steps, plain)) {
            self.take(steps, kept);
        }
    }

    /// Leaves out halves, quarters, … and single steps.
    fn fewer_steps(&mut self, steps: &mut Vec<Step>) {
        let mut size = steps.len() / 2;
        while size > 0 {
            let mut end = steps.len();
            while end >= size && !self.exhausted() {
                let mut smaller = steps.clone();
                smaller.drain(end - size..end);
                self.take(steps, smaller);
                end = end.min(steps.len() + 1) - 1;
                if size > 1 {
                    end = end.saturating_sub(size - 1);
                }
            }
            size /= 2;
        }
    }

    /// Leaves out statements of transactions, and rows of INSERTs.
    fn fewer_rows(&mut self, steps: &mut Vec<Step>) {
        let mut at = steps.len();
        while at > 0 {
            at -= 1;
            let Some(Step::Tick(writes)) = steps.get(at) else { continue };
            let mut statement = writes.len();
            while statement > 0 {
                statement -= 1;
                let Some(Step::Tick(writes)) = steps.get(at) else { break };
                if writes.len() > 1 {
                    let mut smaller = writes.clone();
                    smaller.remove(statement);
                    let smaller = with(steps, at, Step::Tick(smaller));
                    if self.take(steps, smaller) {
                        continue;
                    }
                }
                let Some(Step::Tick(writes)) = steps.get(at) else { break };
                let mut row = writes.get(statement).map_or(0, |w| w.rows.len());
                while row > 0 {
                    row -= 1;
                    let Some(Step::Tick(writes)) = steps.get(at) else { break };
                    let mut smaller = writes.clone();
                    if smaller[statement].rows.len() < 2 {
                        break;
                    }
                    smaller[statement].rows.remove(row);
                    let smaller = with(steps, at, Step::Tick(smaller));
                    self.take(steps, smaller);
                }
            }
        }
    }

    /// Takes parts of queries away.
    fn smaller_queries(&mut self, steps: &mut Vec<Step>) {
        let mut at = steps.len();
        while at > 0 {
            at -= 1;
            let mut next = 0;
            while let Some(Step::View { name, materialized, query }) = steps.get(at) {
                let Some(smaller) = reduce::nth(query, next) else { break };
                if !reduce::is_closed(&smaller) {
                    next += 1;
                    continue;
                }
                let (name, materialized) = (name.clone(), *materialized);
                let step = Step::View { name, materialized, query: smaller };
                let smaller = with(steps, at, step);
                // What was refused here may still be taken from the query that is left.
                if !self.take(steps, smaller) {
                    next += 1;
                }
                if self.exhausted() {
                    return;
                }
            }
        }
    }
}

fn with(steps: &[Step], at: usize, step: Step) -> Vec<Step> {
    let mut steps = steps.to_vec();
    steps[at] = step;
    steps
}
