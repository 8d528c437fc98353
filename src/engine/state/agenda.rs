//! Rows that are to come or to go at a moment, in the order of their moments.
//!
//! The rows lie in runs, each sorted, of which the later ones are shorter; runs of like length are merged, and what
//! cancels out in a merge is gone. So adding costs a sort of what is added, and what is due is the front of each run.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};

use crate::engine::Delta;
use crate::engine::delta::batch;
use crate::engine::state::saved::{Restored, Saved};
use crate::error::Result;

/// See the module.
pub struct Agenda {
    schema: SchemaRef,
    /// The rows with the moment as last column.
    dated: SchemaRef,
    runs: Vec<Run>,
}

/// Rows sorted by moment.
struct Run {
    /// In the columns of [`Agenda::dated`].
    rows: Delta,
    /// The rows before this one are done.
    at: usize,
}

impl Run {
    fn moments(&self) -> &[i64] {
        let last = self.rows.rows.num_columns() - 1;
        // The last column is made by `Agenda::add`.
        &self.rows.rows.column(last).as_primitive::<Int64Type>().values()[self.at..]
    }

    fn len(&self) -> usize {
        self.rows.num_rows() - self.at
    }

    fn rest(&self) -> Delta {
        self.rows.slice(self.at, self.len())
    }
}

impl Agenda {
    /// Nothing, of rows with these columns.
    pub fn new(schema: &SchemaRef) -> Agenda {
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new("moment", DataType::Int64, false)));
        Agenda { schema: Arc::clone(schema), dated: Arc::new(Schema::new(fields)), runs: Vec::new() }
    }

    /// Adds rows, each with its moment.
    pub fn add(&mut self, rows: &RecordBatch, moments: Vec<i64>, weights: Vec<i64>) -> Result<()> {
        if moments.is_empty() {
            return Ok(());
        }
        let mut columns: Vec<ArrayRef> = rows.columns().to_vec();
        let count = moments.len();
        columns.push(Arc::new(Int64Array::from(moments)));
        let rows = Delta::weighted(batch(&self.dated, columns, count)?, weights)?;
        self.runs.push(sorted(&rows)?);
        while let [.., before, last] = &self.runs[..]
            && before.len() <= 2 * last.len()
        {
            let merged = Delta::concat(&self.dated, &[before.rest(), last.rest()])?.consolidate()?;
            self.runs.truncate(self.runs.len() - 2);
            if !merged.is_empty() {
                self.runs.push(sorted(&merged)?);
            }
        }
        Ok(())
    }

    /// The first moment at which something is due.
    pub fn next(&self) -> Option<i64> {
        self.runs.iter().filter_map(|run| run.moments().first().copied()).min()
    }

    /// Takes what is due up to this moment.
    pub fn take(&mut self, now: i64) -> Result<Vec<Delta>> {
        let mut due = Vec::new();
        for run in &mut self.runs {
            let count = run.moments().partition_point(|moment| *moment <= now);
            if count == 0 {
                continue;
            }
            let Delta { rows, weights } = run.rows.slice(run.at, count);
            let columns = rows.columns()[..rows.num_columns() - 1].to_vec();
            due.push(Delta { rows: batch(&self.schema, columns, count)?, weights });
            run.at += count;
            // The rows that are done go as soon as they are the greater part.
            if run.at > run.rows.num_rows() / 2 {
                let rest: Vec<u32> = (run.at as u32..run.rows.num_rows() as u32).collect();
                *run = Run { rows: run.rows.take(&rest)?, at: 0 };
            }
        }
        self.runs.retain(|run| run.len() > 0);
        Ok(due)
    }

    /// Gives its rows with their moments.
    pub fn save(&self, state: &mut Saved) {
        let rests: Vec<Delta> = self.runs.iter().map(Run::rest).collect();
        let weights: Vec<i64> = rests.iter().flat_map(Delta::weights_vec).collect();
        state.rows(&self.dated, rests.into_iter().map(|rest| Arc::new(rest.rows)).collect());
        state.numbers(&weights);
    }

    /// Takes up what [`Agenda::save`] gave, in the place of what it holds.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let tiles = state.rows(&self.dated)?;
        let rows = tiles.iter().map(|tile| tile.num_rows()).sum();
        let weights: Vec<i64> = state.numbers_of(rows)?;
        let mut weights = &weights[..];
        self.runs.clear();
        for tile in tiles {
            let (own, others) = weights.split_at(tile.num_rows());
            let rows = batch(&self.dated, tile.columns().to_vec(), tile.num_rows())?;
            self.runs.push(Run { rows: Delta::weighted(rows, own.to_vec())?, at: 0 });
            weights = others;
        }
        Ok(())
    }

    /// Rows held.
    pub fn rows(&self) -> usize {
        self.runs.iter().map(Run::len).sum()
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.runs.iter().map(|run| run.rows.rows.get_array_memory_size() + 8 * run.rows.num_rows()).sum()
    }
}

fn sorted(rows: &Delta) -> Result<Run> {
    let last = rows.rows.num_columns() - 1;
    let moments = rows.rows.column(last).as_primitive::<Int64Type>().values();
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_by_key(|row| moments[*row as usize]);
    Ok(Run { rows: rows.take(&order)?, at: 0 })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, row_at, sample_schema, tally};

    /// Against a map from moments to rows.
    #[test]
    fn what_is_due_comes_once_and_what_cancels_out_is_gone() {
        let schema = sample_schema();
        let mut agenda = Agenda::new(&schema);
        let mut model: BTreeMap<(i64, Vec<String>), i64> = BTreeMap::new();
        let mut rng = Rng::new(7);
        let mut now = 0;
        for step in 0..200 {
            let delta = random_delta(&mut rng, step % 13, true);
            let moments: Vec<i64> = (0..delta.num_rows()).map(|_| now + 1 + rng.below(50) as i64).collect();
            for (row, moment) in moments.iter().enumerate() {
                *model.entry((*moment, row_at(&delta.rows, row))).or_default() += delta.weight(row);
            }
            agenda.add(&delta.rows, moments, delta.weights_vec()).unwrap();
            now += rng.below(4) as i64;
            let later = model.split_off(&(now + 1, Vec::new()));
            let mut expected: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            for ((_, row), weight) in std::mem::replace(&mut model, later) {
                *expected.entry(row).or_default() += weight;
            }
            expected.retain(|_, weight| *weight != 0);
            assert_eq!(tally(&agenda.take(now).unwrap()), expected);
            model.retain(|_, weight| *weight != 0);
            assert!(agenda.next().is_none_or(|next| next > now));
            assert!(agenda.next() <= model.keys().next().map(|k| k.0) || model.is_empty());
        }
        let held = agenda.rows();
        let rest = agenda.take(i64::MAX).unwrap();
        assert!(held >= rest.iter().map(Delta::num_rows).sum::<usize>());
        assert_eq!(agenda.rows(), 0);
    }

    #[test]
    fn rows_that_come_and_go_before_their_moment_take_no_room() {
        let schema = sample_schema();
        let mut agenda = Agenda::new(&schema);
        let mut rng = Rng::new(3);
        for _ in 0..50 {
            let delta = random_delta(&mut rng, 20, false);
            let moments = vec![5; 20];
            agenda.add(&delta.rows, moments.clone(), delta.weights_vec()).unwrap();
            let negative = delta.clone().negate();
            agenda.add(&delta.rows, moments, negative.weights_vec()).unwrap();
        }
        assert_eq!(agenda.rows(), 0);
        assert_eq!(agenda.next(), None);
    }
}
