//! Each distinct row once: a count per row, and a change when it becomes or stops being positive.
//!
//! Rows that SQL calls equal are one row, in canonical form (see [`crate::engine::keys`]).

use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::keys::Keys;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Restored, Saved, Table};
use crate::error::Result;

/// SELECT DISTINCT.
#[derive(Default)]
pub struct Distinct {
    // Known from the first delta on.
    state: Option<Counts>,
}

struct Counts {
    schema: SchemaRef,
    rows: Table,
    weights: Vec<i64>,
    // Slots touched in this tick, with whether their row was there before it.
    touched: Vec<(u32, bool)>,
    is_touched: Vec<bool>,
}

impl Distinct {
    /// An empty set of rows, of whatever columns the first delta has.
    pub fn new() -> Distinct {
        Distinct::default()
    }
}

impl Counts {
    fn new(schema: &SchemaRef) -> Counts {
        Counts {
            schema: nullable(schema),
            rows: Table::new(schema.fields().iter().map(|f| f.data_type().clone()).collect()),
            weights: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
        }
    }
}

impl Operator for Distinct {
    fn push(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<()> {
        let state = self.state.get_or_insert_with(|| Counts::new(delta.rows.schema_ref()));
        let slots = state.rows.upsert(&Keys::new(delta.rows.columns().to_vec(), delta.num_rows()))?;
        state.weights.resize(state.rows.slots(), 0);
        state.is_touched.resize(state.rows.slots(), false);
        for (row, slot) in slots.iter().enumerate() {
            let at = *slot as usize;
            if !std::mem::replace(&mut state.is_touched[at], true) {
                state.touched.push((*slot, state.weights[at] > 0));
            }
            state.weights[at] += delta.weight(row);
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        let is = |slot: u32| state.weights[slot as usize] > 0;
        let turned: Vec<(u32, bool)> =
            state.touched.iter().filter(|(s, was)| is(*s) != *was).copied().collect();
        for chunk in turned.chunks(CHUNK_ROWS) {
            let slots: Vec<u32> = chunk.iter().map(|(slot, _)| *slot).collect();
            let rows = batch(&state.schema, state.rows.gather(&slots)?, slots.len())?;
            let weights = chunk.iter().map(|(_, was)| if *was { -1 } else { 1 }).collect();
            out.deltas.push(Delta::weighted(rows, weights)?);
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        let Some(state) = &mut self.state else { return Ok(()) };
        for (slot, _) in std::mem::take(&mut state.touched) {
            state.is_touched[slot as usize] = false;
            if state.weights[slot as usize] == 0 {
                state.rows.remove(slot);
            }
        }
        state.rows.compact()
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        state.numbers(&[u8::from(self.state.is_some())]);
        if let Some(counts) = &self.state {
            state.rows(&counts.schema, Vec::new());
            counts.rows.save(state);
            state.numbers(&counts.weights);
        }
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.state = match state.number::<u8>()? {
            0 => None,
            _ => {
                let mut counts = Counts::new(&state.any_rows()?.0);
                counts.rows.restore(state)?;
                counts.weights = state.numbers_of(counts.rows.slots())?;
                counts.is_touched = vec![false; counts.weights.len()];
                Some(counts)
            }
        };
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.state.as_ref().map_or(0, |s| s.rows.bytes() + s.weights.capacity() * 9)
    }

    fn state_rows(&self) -> usize {
        self.state.as_ref().map_or(0, |s| s.rows.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Multiset, check_operator, key_text};

    fn check(seed: u64) {
        check_operator(
            seed,
            1,
            40,
            || Box::new(Distinct::new()),
            |inputs| {
                let mut rows = Multiset::new();
                for (row, weight) in &inputs[0] {
                    *rows.entry(row.iter().map(|v| key_text(v)).collect()).or_default() += weight;
                }
                rows.retain(|_, weight| *weight > 0);
                rows.values_mut().for_each(|weight| *weight = 1);
                (rows, 0)
            },
        );
    }

    #[test]
    fn each_row_is_there_once_or_not_at_all() {
        (0..20).for_each(check);
        weak::with(|| (20..30).for_each(check));
    }
}
