//! A view's rows and errors, stored for readers and passed on to those who follow.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::{nullable, with_schema};
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::state::{Arrangement, ArrangementSnapshot, Restored, Saved};
use crate::error::{Error, Result};

/// The end of a view's circuit.
pub struct View {
    schema: SchemaRef,
    rows: Arrangement,
    errors: Errors,
}

impl View {
    /// A view without rows, of the columns that users see.
    pub fn new(schema: &SchemaRef) -> View {
        let schema = nullable(schema);
        View { rows: Arrangement::by_row(&schema), schema, errors: Errors::default() }
    }

    /// Columns of its rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Takes in errors of the operators that feed the view.
    pub fn add_errors(&mut self, errors: Vec<RowError>) {
        self.errors.add(errors);
    }

    /// The rows as they are now.
    pub fn snapshot(&self) -> ArrangementSnapshot {
        self.rows.snapshot()
    }

    /// The rows that cannot be shown, by what is wrong with them.
    pub fn errors(&self) -> Vec<RowError> {
        self.errors.list()
    }
}

impl Operator for View {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        let delta = Delta { rows: with_schema(&delta.rows, &self.schema)?, weights: delta.weights };
        self.rows.apply(&delta, None)?;
        out.deltas.push(delta);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.rows.compact()?;
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.rows.save(state);
        state.errors(self.errors.counts.values().map(|(error, weight)| (*weight, error)))
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.rows.restore(state)?;
        self.errors = Errors::default();
        let errors = state.errors()?;
        self.errors.add(errors.into_iter().map(|(weight, error)| RowError { error, weight }).collect());
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.rows.bytes()
    }

    fn state_rows(&self) -> usize {
        self.rows.live_rows()
    }
}

/// A multiset of errors.
#[derive(Debug, Default)]
pub struct Errors {
    counts: BTreeMap<(&'static str, String), (Error, i64)>,
}

impl Errors {
    /// Adds errors by their weights; those that cancel are forgotten.
    pub fn add(&mut self, errors: Vec<RowError>) {
        for RowError { error, weight } in errors {
            let key = (error.sqlstate.0, error.to_string());
            let entry = self.counts.entry(key.clone()).or_insert((error, 0));
            entry.1 += weight;
            if entry.1 == 0 {
                self.counts.remove(&key);
            }
        }
    }

    /// Whether nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }

    /// Each error once, with its weight, by SQLSTATE and text.
    pub fn list(&self) -> Vec<RowError> {
        self.counts
            .values()
            .map(|(error, weight)| RowError { error: error.clone(), weight: *weight })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, sample_schema, tally};
    use crate::error::SqlState;

    #[test]
    fn rows_are_stored_and_passed_on() {
        let mut rng = Rng::new(3);
        let mut view = View::new(&sample_schema());
        let mut all = Vec::new();
        for n in [0, 1, 40, 40, 40, 3000, 40] {
            let delta = random_delta(&mut rng, n, true);
            let mut out = Output::default();
            view.push(0, delta.clone(), &mut out).unwrap();
            view.commit().unwrap();
            assert_eq!(tally(&out.deltas), tally(std::slice::from_ref(&delta)));
            all.push(delta);
            assert_eq!(tally(&view.snapshot().deltas().unwrap()), tally(&all));
        }
        let mut out = Output::default();
        for delta in all {
            view.push(0, delta.negate(), &mut out).unwrap();
        }
        view.commit().unwrap();
        assert_eq!((view.state_rows(), view.snapshot().num_rows()), (0, 0));
    }

    #[test]
    fn errors_cancel_when_their_rows_go() {
        let error = |m: &str, weight| RowError { error: Error::new(SqlState::DIVISION_BY_ZERO, m), weight };
        let mut view = View::new(&sample_schema());
        view.add_errors(vec![error("b", -1), error("a", 2), error("a", 1)]);
        assert_eq!(view.errors(), vec![error("a", 3), error("b", -1)]);
        view.add_errors(vec![error("a", -3), error("b", 1)]);
        assert!(view.errors().is_empty());
    }
}
