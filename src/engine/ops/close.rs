//! The rows of each window once, when the watermark reaches its end.
//!
//! What comes of a window before that waits in an [`Agenda`], where what is taken back again cancels out; so nothing is
//! ever taken back of what is given.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Int64Type, SchemaRef};

use crate::engine::delta::{nullable, take_rows, with_schema};
use crate::engine::plan::spec::ClosingSpec;
use crate::engine::runtime::net;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::agenda::Agenda;
use crate::engine::state::{Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::Result;

/// See the module.
pub struct Close {
    view: CollectionId,
    closes: usize,
    schema: SchemaRef,
    agenda: Agenda,
    /// The watermark before this tick and after it.
    before: i64,
    after: i64,
}

impl Close {
    /// Does what `spec` says.
    pub fn new(spec: &ClosingSpec) -> Close {
        let schema = nullable(&spec.schema);
        Close {
            view: spec.view,
            closes: spec.closes,
            agenda: Agenda::new(&schema),
            schema,
            before: i64::MIN,
            after: i64::MIN,
        }
    }
}

impl Operator for Close {
    fn push(&mut self, _port: usize, delta: Delta, _out: &mut Output) -> Result<()> {
        let closes = delta.rows.column(self.closes).as_primitive::<Int64Type>();
        // What is not told when to close never does.
        let waits = |row: &u32| {
            let row = *row as usize;
            closes.is_valid(row) && closes.value(row) > self.before
        };
        let waiting: Vec<u32> = (0..delta.num_rows() as u32).filter(waits).collect();
        let moments = waiting.iter().map(|row| closes.value(*row as usize)).collect();
        let weights = waiting.iter().map(|row| delta.weight(*row as usize)).collect();
        let rows = take_rows(&with_schema(&delta.rows, &self.schema)?, &waiting)?;
        self.agenda.add(&rows, moments, weights)
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        let Some(closed) = net(self.agenda.take(self.after)?)? else { return Ok(()) };
        debug_assert!(!closed.has_negative(), "a window has no row that it never had");
        out.deltas.extend(closed.chunks());
        Ok(())
    }

    fn closes_for(&self) -> Option<CollectionId> {
        Some(self.view)
    }

    fn set_watermark(&mut self, before: i64, after: i64) {
        (self.before, self.after) = (before, after);
    }

    fn resume_watermark(&mut self, watermark: i64, _late_rows: u64) -> Result<()> {
        (self.before, self.after) = (watermark, watermark);
        self.agenda.take(watermark).map(drop)
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.agenda.save(state);
        state.numbers(&[self.after]);
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.agenda.restore(state)?;
        let watermark = state.number()?;
        (self.before, self.after) = (watermark, watermark);
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.agenda.bytes()
    }

    fn state_rows(&self) -> usize {
        self.agenda.rows()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, row_at, sample_schema, tally};

    fn spec() -> ClosingSpec {
        ClosingSpec {
            view: CollectionId(9),
            watermarks: vec![CollectionId(1)],
            closes: 0,
            schema: sample_schema(),
        }
    }

    /// In every tick exactly the rows that are there of the windows which close in it, and never one taken back.
    #[test]
    fn a_window_is_given_once_as_it_is_when_it_closes() {
        let mut rng = Rng::new(11);
        let mut close = Close::new(&spec());
        let mut rows: BTreeMap<Vec<String>, i64> = BTreeMap::new();
        let (mut before, mut given) = (-3, 0);
        for step in 0..300 {
            let after = before + i64::from(rng.one_in(40));
            close.set_watermark(before, after);
            // What is there may change or go; nothing goes that is not there.
            let mut deltas = vec![random_delta(&mut rng, step % 9, false)];
            if step % 4 == 3 {
                let again = deltas[0].clone();
                deltas.push(again.negate());
            }
            let mut out = Output::default();
            for delta in deltas {
                for i in 0..delta.num_rows() {
                    let row = row_at(&delta.rows, i);
                    if row[0].parse::<i64>().is_ok_and(|closes| closes > before) {
                        *rows.entry(row).or_default() += delta.weight(i);
                    }
                }
                close.push(0, delta, &mut out).unwrap();
            }
            close.finish(&mut out).unwrap();
            assert!(out.deltas.iter().all(|delta| !delta.has_negative()));
            let closes = |row: &Vec<String>| row[0].parse::<i64>().unwrap();
            rows.retain(|_, weight| *weight != 0);
            let closed: BTreeMap<_, _> =
                rows.iter().filter(|(row, _)| closes(row) <= after).map(|(r, w)| (r.clone(), *w)).collect();
            given += closed.len();
            assert_eq!(tally(&out.deltas), closed, "from {before} to {after}");
            rows.retain(|row, _| closes(row) > after);
            before = after;
        }
        assert!(given > 10, "{given}");
        close.resume_watermark(i64::MAX, 0).unwrap();
        assert_eq!(close.state_rows(), 0);
    }
}
