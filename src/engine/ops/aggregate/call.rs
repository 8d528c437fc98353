//! One aggregate call: which rows it is fed, and its accumulators by group.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray, Int64Array, UInt32Array};
use arrow::compute::take;
use arrow::datatypes::{DataType, SchemaRef};

use super::extrema::Extrema;
use super::sums::Sums;
use crate::engine::expr;
use crate::engine::keys::Keys;
use crate::engine::plan::spec::{AggregateCall, AggregateKind, Expr};
use crate::engine::state::{Restored, Saved, Table};
use crate::error::{Error, Result};

/// A call and what it knows of each group.
pub(super) struct Call {
    // Positions among the evaluated inputs of all calls.
    filter: Option<usize>,
    arg: Option<usize>,
    distinct: Option<DistinctArgs>,
    accumulators: Accumulators,
    output: DataType,
}

enum Accumulators {
    Count(Vec<i64>),
    Sums(Sums),
    Bools(Bools),
    Extrema(Box<Extrema>),
}

/// How many true and false values a group has.
struct Bools {
    and: bool,
    counts: Vec<[i64; 2]>,
}

/// How often each group has each argument.
struct DistinctArgs {
    // Keys: slot of the group, argument.
    args: Table,
    weights: Vec<i64>,
    // By group: how many of its arguments have a weight other than 0.
    of_group: Vec<u32>,
}

/// Rows that a call is fed.
struct Fed<'a> {
    slots: Cow<'a, [u32]>,
    weights: Option<Cow<'a, [i64]>>,
    /// Without NULLs.
    values: Option<ArrayRef>,
}

impl Call {
    /// A call over rows of `input`; appends its filter and argument to `inputs`.
    pub(super) fn new(call: &AggregateCall, input: &SchemaRef, inputs: &mut Vec<Expr>) -> Result<Call> {
        let mut add = |e: &Expr| {
            let known = inputs.iter().position(|known| known == e);
            known.unwrap_or_else(|| {
                inputs.push(Arc::clone(e));
                inputs.len() - 1
            })
        };
        let arg_type = call.arg.as_ref().map(|e| e.data_type(input)).transpose()?;
        let output = call.output.data_type().clone();
        let needs =
            || arg_type.clone().ok_or_else(|| Error::internal(format!("{:?} has no argument", call.kind)));
        let accumulators = match call.kind {
            AggregateKind::Count => Accumulators::Count(Vec::new()),
            AggregateKind::Sum => Accumulators::Sums(Sums::new(&needs()?, &output, false)?),
            AggregateKind::Avg => Accumulators::Sums(Sums::new(&needs()?, &output, true)?),
            AggregateKind::BoolAnd | AggregateKind::BoolOr => {
                Accumulators::Bools(Bools { and: call.kind == AggregateKind::BoolAnd, counts: Vec::new() })
            }
            AggregateKind::Min => Accumulators::Extrema(Box::new(Extrema::new(&needs()?, false)?)),
            AggregateKind::Max => Accumulators::Extrema(Box::new(Extrema::new(&needs()?, true)?)),
        };
        // Of the others the result is the same with equal arguments as without.
        let counts = matches!(call.kind, AggregateKind::Count | AggregateKind::Sum | AggregateKind::Avg);
        let distinct = match (&arg_type, call.distinct && counts) {
            (Some(arg), true) => Some(DistinctArgs {
                args: Table::new(vec![DataType::UInt32, arg.clone()]),
                weights: Vec::new(),
                of_group: Vec::new(),
            }),
            _ => None,
        };
        Ok(Call {
            filter: call.filter.as_ref().map(&mut add),
            arg: call.arg.as_ref().map(&mut add),
            distinct,
            accumulators,
            output,
        })
    }

    /// Makes room for groups with slots below `slots`.
    pub(super) fn resize(&mut self, slots: usize) {
        match &mut self.accumulators {
            Accumulators::Count(counts) => counts.resize(slots, 0),
            Accumulators::Sums(sums) => sums.resize(slots),
            Accumulators::Bools(bools) => bools.counts.resize(slots, [0; 2]),
            Accumulators::Extrema(extrema) => extrema.resize(slots),
        }
        if let Some(distinct) = &mut self.distinct {
            distinct.of_group.resize(slots, 0);
        }
    }

    /// Feeds rows: the slots of their groups, the evaluated inputs of all calls, their weights.
    pub(super) fn update(
        &mut self,
        slots: &[u32],
        inputs: &[ArrayRef],
        weights: Option<&[i64]>,
    ) -> Result<()> {
        if let (Accumulators::Extrema(extrema), Some(weights)) = (&mut self.accumulators, weights)
            && weights.iter().any(|w| *w < 0)
        {
            // Whether or not this very call sees the row: its group may go with it.
            extrema.expect_retractions()?;
        }
        let mut fed = self.select(slots, inputs, weights)?;
        if fed.slots.is_empty() {
            return Ok(());
        }
        if let Some(distinct) = &mut self.distinct {
            fed = distinct.pass(fed)?;
        }
        let (slots, weights) = (&fed.slots[..], fed.weights.as_deref());
        match (&mut self.accumulators, &fed.values) {
            (Accumulators::Count(counts), _) => match weights {
                None => slots.iter().for_each(|slot| counts[*slot as usize] += 1),
                Some(w) => slots.iter().zip(w).for_each(|(slot, w)| counts[*slot as usize] += w),
            },
            (Accumulators::Sums(sums), Some(values)) => sums.update(slots, values, weights)?,
            (Accumulators::Extrema(extrema), Some(values)) => extrema.update(slots, values, weights)?,
            (Accumulators::Bools(bools), Some(values)) => {
                let values = expr::boolean(values)?;
                for (i, slot) in slots.iter().enumerate() {
                    bools.counts[*slot as usize][usize::from(values.value(i))] += weights.map_or(1, |w| w[i]);
                }
            }
            (_, None) => return Err(Error::internal("an aggregate call without its argument")),
        }
        Ok(())
    }

    /// The rows that pass the filter and whose argument is not NULL.
    fn select<'a>(
        &self,
        slots: &'a [u32],
        inputs: &[ArrayRef],
        weights: Option<&'a [i64]>,
    ) -> Result<Fed<'a>> {
        let arg = self.arg.map(|at| &inputs[at]);
        let nulls = arg.and_then(|a| a.logical_nulls()).filter(|n| n.null_count() > 0);
        let filter: Option<&BooleanArray> = self.filter.map(|at| expr::boolean(&inputs[at])).transpose()?;
        if nulls.is_none() && filter.is_none() {
            return Ok(Fed { slots: slots.into(), weights: weights.map(Into::into), values: arg.cloned() });
        }
        let passes = |i: &u32| {
            let i = *i as usize;
            filter.is_none_or(|f| f.is_valid(i) && f.value(i)) && nulls.as_ref().is_none_or(|n| n.is_valid(i))
        };
        let positions: Vec<u32> = (0..slots.len() as u32).filter(passes).collect();
        let at = |i: &u32| *i as usize;
        Ok(Fed {
            slots: positions.iter().map(|i| slots[at(i)]).collect::<Vec<_>>().into(),
            weights: weights.map(|w| positions.iter().map(|i| w[at(i)]).collect::<Vec<_>>().into()),
            values: arg.map(|a| take(a, &UInt32Array::from(positions), None)).transpose()?,
        })
    }

    /// The results of groups; those that have none for an error are told by position.
    pub(super) fn evaluate(&self, slots: &[u32], errors: &mut Vec<(usize, Error)>) -> Result<ArrayRef> {
        let column: ArrayRef = match &self.accumulators {
            Accumulators::Count(counts) => {
                Arc::new(Int64Array::from_iter_values(slots.iter().map(|slot| counts[*slot as usize])))
            }
            Accumulators::Sums(sums) => sums.evaluate(slots, errors)?,
            Accumulators::Bools(bools) => {
                Arc::new(BooleanArray::from_iter(slots.iter().map(|slot| bools.result(*slot))))
            }
            Accumulators::Extrema(extrema) => extrema.evaluate(slots)?,
        };
        expr::cast_to(column, &self.output)
    }

    /// Whether a group is as if it had never seen a row.
    pub(super) fn is_zero(&self, slot: u32) -> bool {
        let at = slot as usize;
        self.distinct.as_ref().is_none_or(|d| d.of_group[at] == 0)
            && match &self.accumulators {
                Accumulators::Count(counts) => counts[at] == 0,
                Accumulators::Sums(sums) => sums.is_zero(slot),
                Accumulators::Bools(bools) => bools.counts[at] == [0; 2],
                Accumulators::Extrema(extrema) => extrema.is_zero(slot),
            }
    }

    /// Ends a tick.
    pub(super) fn commit(&mut self) -> Result<()> {
        self.distinct.as_mut().map_or(Ok(()), |d| d.args.compact())
    }

    /// Gives what it knows of each group.
    pub(super) fn save(&self, state: &mut Saved) -> Result<()> {
        if let Some(distinct) = &self.distinct {
            distinct.args.save(state);
            state.numbers(&distinct.weights);
            state.numbers(&distinct.of_group);
        }
        match &self.accumulators {
            Accumulators::Count(counts) => state.numbers(counts),
            Accumulators::Sums(sums) => sums.save(state),
            Accumulators::Bools(bools) => state.numbers(bools.counts.as_flattened()),
            Accumulators::Extrema(extrema) => extrema.save(state)?,
        }
        Ok(())
    }

    /// Takes up what [`Call::save`] gave of groups with slots below `slots`.
    pub(super) fn restore(&mut self, slots: usize, state: &mut Restored) -> Result<()> {
        if let Some(distinct) = &mut self.distinct {
            distinct.args.restore(state)?;
            distinct.weights = state.numbers_of(distinct.args.slots())?;
            distinct.of_group = state.numbers_of(slots)?;
        }
        match &mut self.accumulators {
            Accumulators::Count(counts) => *counts = state.numbers_of(slots)?,
            Accumulators::Sums(sums) => sums.restore(slots, state)?,
            Accumulators::Bools(bools) => {
                let counts: Vec<i64> = state.numbers_of(2 * slots)?;
                bools.counts = counts.as_chunks::<2>().0.to_vec();
            }
            Accumulators::Extrema(extrema) => extrema.restore(slots, state)?,
        }
        Ok(())
    }

    /// Bytes held.
    pub(super) fn bytes(&self) -> usize {
        let distinct = self.distinct.as_ref();
        distinct.map_or(0, |d| d.args.bytes() + d.weights.capacity() * 8 + d.of_group.capacity() * 4)
            + match &self.accumulators {
                Accumulators::Count(counts) => counts.capacity() * 8,
                Accumulators::Sums(sums) => sums.bytes(),
                Accumulators::Bools(bools) => bools.counts.capacity() * 16,
                Accumulators::Extrema(extrema) => extrema.bytes(),
            }
    }

    /// Arguments held one by one.
    pub(super) fn rows(&self) -> usize {
        let extrema = match &self.accumulators {
            Accumulators::Extrema(extrema) => extrema.rows(),
            _ => 0,
        };
        extrema + self.distinct.as_ref().map_or(0, |d| d.args.len())
    }
}

impl Bools {
    fn result(&self, slot: u32) -> Option<bool> {
        let [falses, trues] = self.counts[slot as usize];
        (falses > 0 || trues > 0).then_some(if self.and { falses <= 0 } else { trues > 0 })
    }
}

impl DistinctArgs {
    /// Passes an argument on when it comes to a group that does not have it, and when it goes for good.
    fn pass(&mut self, fed: Fed<'_>) -> Result<Fed<'static>> {
        let values = fed.values.ok_or_else(|| Error::internal("a distinct call has an argument"))?;
        let groups: ArrayRef = Arc::new(UInt32Array::from(fed.slots.to_vec()));
        let keys = Keys::new(vec![groups, values], fed.slots.len());
        let args = self.args.upsert(&keys)?;
        self.weights.resize(self.args.slots(), 0);
        let mut positions: Vec<u32> = Vec::new();
        let mut turns: Vec<i64> = Vec::new();
        for (i, arg) in args.iter().enumerate() {
            let weight = &mut self.weights[*arg as usize];
            let before = *weight;
            *weight += fed.weights.as_ref().map_or(1, |w| w[i]);
            if (before > 0) != (*weight > 0) {
                positions.push(i as u32);
                turns.push(if *weight > 0 { 1 } else { -1 });
            }
            let of_group = &mut self.of_group[fed.slots[i] as usize];
            match (before, *weight) {
                (0, 0) => {}
                (0, _) => *of_group += 1,
                (_, 0) => *of_group -= 1,
                _ => {}
            }
        }
        // An argument may have come and gone several times: look at what it is in the end, once.
        let mut gone: Vec<u32> = args.into_iter().filter(|arg| self.weights[*arg as usize] == 0).collect();
        gone.sort_unstable();
        gone.dedup();
        gone.into_iter().for_each(|arg| self.args.remove(arg));
        let values = take(&keys.columns[1], &UInt32Array::from(positions.clone()), None)?;
        let slots: Vec<u32> = positions.iter().map(|i| fed.slots[*i as usize]).collect();
        Ok(Fed { slots: slots.into(), weights: Some(turns.into()), values: Some(values) })
    }
}
