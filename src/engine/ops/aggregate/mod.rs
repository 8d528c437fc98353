//! Group and aggregate.
//!
//! A group has a slot; each call keeps its accumulators in vectors by slot. Before a tick first changes a group, its
//! results are evaluated from what is accumulated; in the end they are evaluated again, and what differs is
//! emitted: −old, +new. No result is stored.

mod call;
mod extrema;
mod floats;
mod ordered;
mod sums;
#[cfg(test)]
mod tests;

use arrow::array::ArrayRef;
use arrow::compute::concat;
use arrow::datatypes::SchemaRef;

use crate::engine::Delta;
use crate::engine::delta::{CHUNK_ROWS, batch, nullable};
use crate::engine::expr;
use crate::engine::keys::{KeySpec, Keys};
use crate::engine::plan::spec::{AggregateSpec, Expr};
use crate::engine::runtime::operator::{Operator, Output, RowError};
use crate::engine::state::column::{Loc, TiledColumn};
use crate::engine::state::{Restored, Saved, Table};
use crate::error::{Error, Result};
use call::Call;

/// GROUP BY.
pub struct Aggregate {
    key: KeySpec,
    schema: SchemaRef,
    // Filters and arguments of all calls, evaluated together so that a row counts for all of them or for none.
    inputs: Vec<Expr>,
    calls: Vec<Call>,
    groups: Table,
    // By slot: the sum of the weights of the group's rows.
    rows: Vec<i64>,
    // Slots touched in this tick, in order, with their results before it, in as many pieces as there were pushes.
    touched: Vec<u32>,
    is_touched: Vec<bool>,
    before: Vec<Results>,
    // Without keys there is one group, which is there from the first tick on.
    global: bool,
    emitted: bool,
}

/// Results of some groups.
struct Results {
    /// Whether there is a row, by group.
    present: Vec<bool>,
    /// One column a call.
    columns: Vec<ArrayRef>,
    /// Groups (by position) whose result is an error instead of a row.
    errors: Vec<(usize, Error)>,
}

impl Aggregate {
    /// Does what `spec` says.
    pub fn new(spec: &AggregateSpec) -> Result<Aggregate> {
        let key = KeySpec::new(&spec.keys, &spec.input)?;
        let mut inputs = Vec::new();
        let calls =
            spec.calls.iter().map(|c| Call::new(c, &spec.input, &mut inputs)).collect::<Result<_>>()?;
        let mut aggregate = Aggregate {
            groups: Table::new(key.types().to_vec()),
            global: spec.keys.is_empty(),
            key,
            schema: nullable(&spec.schema),
            inputs,
            calls,
            rows: Vec::new(),
            touched: Vec::new(),
            is_touched: Vec::new(),
            before: Vec::new(),
            emitted: false,
        };
        if aggregate.global {
            let slots = aggregate.groups.upsert(&Keys::new(Vec::new(), 1))?;
            aggregate.touch(&slots)?;
        }
        Ok(aggregate)
    }

    /// Notes the results of groups that are touched for the first time in this tick.
    fn touch(&mut self, slots: &[u32]) -> Result<()> {
        self.rows.resize(self.groups.slots(), 0);
        self.is_touched.resize(self.groups.slots(), false);
        self.calls.iter_mut().for_each(|c| c.resize(self.groups.slots()));
        let first = self.touched.len();
        for slot in slots {
            if !std::mem::replace(&mut self.is_touched[*slot as usize], true) {
                self.touched.push(*slot);
            }
        }
        if first < self.touched.len() {
            self.before.push(self.results(&self.touched[first..])?);
        }
        Ok(())
    }

    fn results(&self, slots: &[u32]) -> Result<Results> {
        let mut present: Vec<bool> = if self.global {
            vec![self.emitted; slots.len()]
        } else {
            slots.iter().map(|slot| self.rows[*slot as usize] > 0).collect()
        };
        let mut errors = Vec::new();
        let mut columns = Vec::with_capacity(self.calls.len());
        for call in &self.calls {
            let mut failed = Vec::new();
            columns.push(call.evaluate(slots, &mut failed)?);
            // A group with several failing calls tells of the first.
            errors.extend(failed.into_iter().filter(|(at, _)| std::mem::take(&mut present[*at])));
        }
        Ok(Results { present, columns, errors })
    }

    /// Groups (by position in `touched`) whose results are not what they were.
    fn changed(&self, before: &Results, after: &Results) -> Vec<bool> {
        let places: Vec<Loc> = (0..self.touched.len() as u32).map(|row| Loc { tile: 0, row }).collect();
        let mut same: Vec<bool> = before.present.iter().zip(&after.present).map(|(b, a)| b == a).collect();
        for (b, a) in before.columns.iter().zip(&after.columns) {
            TiledColumn::of(b).equal_all(&places, &TiledColumn::of(a), &places, &mut same);
        }
        same.into_iter().map(|same| !same).collect()
    }

    /// The rows of some groups, given by their positions in `touched`.
    fn emit(&self, results: &Results, positions: &[u32], weight: i64, out: &mut Output) -> Result<()> {
        for positions in positions.chunks(CHUNK_ROWS) {
            let slots: Vec<u32> = positions.iter().map(|p| self.touched[*p as usize]).collect();
            let mut columns = self.groups.gather(&slots)?;
            let at = arrow::array::UInt32Array::from(positions.to_vec());
            for column in &results.columns {
                columns.push(arrow::compute::take(column, &at, None)?);
            }
            let typed =
                columns.into_iter().zip(self.schema.fields()).map(|(c, f)| expr::cast_to(c, f.data_type()));
            let rows = batch(&self.schema, typed.collect::<Result<Vec<_>>>()?, positions.len())?;
            out.deltas.push(if weight > 0 { Delta::insert(rows) } else { Delta::delete(rows) });
        }
        Ok(())
    }
}

impl Results {
    /// The results of all pieces.
    fn join(mut pieces: Vec<Results>) -> Result<Results> {
        if pieces.len() == 1 {
            return Ok(pieces.remove(0));
        }
        let width = pieces.first().map_or(0, |p| p.columns.len());
        let column = |c: usize| -> Result<ArrayRef> {
            Ok(concat(&pieces.iter().map(|p| p.columns[c].as_ref()).collect::<Vec<_>>())?)
        };
        let columns = (0..width).map(column).collect::<Result<Vec<_>>>()?;
        let (mut present, mut errors) = (Vec::new(), Vec::new());
        for piece in pieces {
            errors.extend(piece.errors.into_iter().map(|(at, e)| (at + present.len(), e)));
            present.extend(piece.present);
        }
        Ok(Results { present, columns, errors })
    }
}

impl Operator for Aggregate {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let width = delta.rows.num_columns();
        let (delta, inputs) = expr::evaluate(&self.inputs, delta, &mut out.errors)?;
        // The inputs go along as columns, so that rows whose key fails leave them too.
        let mut columns = delta.rows.columns().to_vec();
        let fields = delta.rows.schema();
        let extra =
            inputs.iter().map(|c| arrow::datatypes::Field::new("input", c.data_type().clone(), true).into());
        let fields = fields.fields().iter().cloned().chain(extra).collect::<Vec<_>>();
        columns.extend(inputs);
        let wide = batch(&arrow::datatypes::Schema::new(fields).into(), columns, delta.num_rows())?;
        let delta = Delta { rows: wide, weights: delta.weights };
        let (delta, keys) = self.key.evaluate(delta, &mut out.errors)?;
        if delta.is_empty() {
            return Ok(());
        }

        let slots = self.groups.upsert(&keys)?;
        self.touch(&slots)?;
        for (i, slot) in slots.iter().enumerate() {
            self.rows[*slot as usize] += delta.weight(i);
        }
        let inputs = &delta.rows.columns()[width..];
        for call in &mut self.calls {
            call.update(&slots, inputs, delta.weights.as_deref())?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        if self.touched.is_empty() {
            return Ok(());
        }
        let before = Results::join(std::mem::take(&mut self.before))?;
        self.emitted = true;
        let after = self.results(&self.touched)?;
        let changed = self.changed(&before, &after);
        let of = |present: &[bool]| -> Vec<u32> {
            (0..present.len() as u32).filter(|i| present[*i as usize] && changed[*i as usize]).collect()
        };
        self.emit(&before, &of(&before.present), -1, out)?;
        self.emit(&after, &of(&after.present), 1, out)?;
        let before_errors = before.errors.into_iter().map(|(_, error)| RowError { error, weight: -1 });
        let after_errors = after.errors.into_iter().map(|(_, error)| RowError { error, weight: 1 });
        out.errors.extend(before_errors.chain(after_errors));
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for slot in std::mem::take(&mut self.touched) {
            self.is_touched[slot as usize] = false;
            // Rows that came and rows that went before they came may add up to none and still be something.
            if !self.global && self.rows[slot as usize] == 0 && self.calls.iter().all(|c| c.is_zero(slot)) {
                self.groups.remove(slot);
            }
        }
        self.calls.iter_mut().try_for_each(Call::commit)?;
        self.groups.compact()
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.groups.save(state);
        state.numbers(&self.rows);
        state.numbers(&[u8::from(self.emitted)]);
        self.calls.iter().try_for_each(|call| call.save(state))
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.groups.restore(state)?;
        let slots = self.groups.slots();
        self.rows = state.numbers_of(slots)?;
        self.emitted = state.number::<u8>()? != 0;
        (self.touched, self.is_touched) = (Vec::new(), vec![false; slots]);
        self.before.clear();
        self.calls.iter_mut().try_for_each(|call| call.restore(slots, state))
    }

    fn state_bytes(&self) -> usize {
        self.groups.bytes() + self.rows.capacity() * 9 + self.calls.iter().map(Call::bytes).sum::<usize>()
    }

    fn state_rows(&self) -> usize {
        self.groups.len() + self.calls.iter().map(Call::rows).sum::<usize>()
    }
}
