//! Functions of all rows up to the current one: they go on from what they were at a row before, and no further than to
//! where they are again what they were.

use std::sync::Arc;

use arrow::array::{ArrayRef, ArrowNativeTypeOp, AsArray, PrimitiveArray};
use arrow::compute::kernels::{cmp, zip::zip};
use arrow::datatypes::{ArrowPrimitiveType, Decimal128Type, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;

use super::{FENCE, Fence, Merged, Part, State, Touched, Window};
use crate::engine::plan::spec::Running;
use crate::error::{Error, Result};

impl Window {
    /// Results of a part with those of running functions going on from its fence.
    pub(super) fn go_on(&self, part: &Merged, results: Vec<ArrayRef>) -> Result<Vec<ArrayRef>> {
        let Some(fence) = &part.fence else { return Ok(results) };
        let mut fence = fence.values.iter();
        let results = results.into_iter().zip(&self.running).map(|(result, running)| match running {
            Some(running) => match fence.next() {
                Some(from) => from_there(*running, from, result),
                None => Err(Error::internal("a fence without a result")),
            },
            None => Ok(result),
        });
        results.collect()
    }

    /// What the running functions come to in a part, out of its results as it is.
    pub(super) fn told(&self, part: &Merged, results: &[ArrayRef]) -> Result<Told> {
        let mut told = Told::default();
        if !self.runs() {
            return Ok(told);
        }
        let there = part.ids.iter().zip(&part.weights).filter(|(_, (_, after))| *after > 0);
        let (ids, times): (Vec<u32>, Vec<i64>) = there.map(|(id, (_, after))| (*id, *after)).unzip();
        let begins = if self.peers { self.order.begins(&self.rows, &ids)? } else { Vec::new() };
        let (mut end, mut rows) = part.fence.as_ref().map_or((0, 0), |fence| (fence.end, fence.rows));
        let (mut computed, mut since) = (0usize, 0);
        for (at, times) in times.into_iter().enumerate() {
            (end, since) = (end + 1, since + 1);
            (computed, rows) = (computed + times as usize, rows + times);
            if at + 1 == ids.len() {
                told.last = Some(self.values(results, computed - 1, rows)?);
            } else if since >= FENCE && begins.get(at + 1).is_none_or(|begins| *begins) {
                let values = self.values(results, computed - 1, rows)?;
                told.fences.push(Fence { end, rows, values });
                since = 0;
            }
        }
        Ok(told)
    }

    /// What the running functions go on from behind a row, of which all `rows` up to it are.
    fn values(&self, results: &[ArrayRef], row: usize, rows: i64) -> Result<Vec<ScalarValue>> {
        let running = results.iter().zip(&self.running).filter_map(|(r, running)| Some((r, (*running)?)));
        let values = running.map(|(result, running)| match running {
            Running::Rank => ScalarValue::Int64(Some(rows)).cast_to(result.data_type()),
            _ => ScalarValue::try_from_array(result, row),
        });
        Ok(values.collect::<datafusion::error::Result<_>>()?)
    }

    /// Lets parts that end at a fence go on to a later one, until what follows goes on from what it did before.
    pub(super) fn settle(&self, touched: &[Touched], parts: &mut [Merged]) -> Result<()> {
        let list = |at: usize| &self.lists[touched[at].partition as usize];
        let goes_on = |at: &usize| self.runs() && parts[*at].list.end < list(*at).ids.len();
        let mut open: Vec<usize> = (0..parts.len()).filter(goes_on).collect();
        let mut fences = 1;
        while !open.is_empty() {
            let looked: Vec<&Merged> = open.iter().map(|at| &parts[*at]).collect();
            // Where nothing is left of a part, it comes to what it goes on from.
            let from = |part: &&Merged| part.fence.as_ref().map(|fence| fence.values.clone());
            let mut lasts: Vec<Option<Vec<ScalarValue>>> = looked.iter().map(from).collect();
            let mut failed = vec![false; looked.len()];
            self.results(&looked, State::After, &mut |at, told| match told {
                Ok(told) => lasts[at] = told.last.or(lasts[at].take()),
                Err(_) => failed[at] = true,
            })?;
            let mut still_open = Vec::new();
            for ((at, last), failed) in open.into_iter().zip(lasts).zip(failed) {
                let (list, Merged { list: range, ids, .. }) = (list(at), &parts[at]);
                let behind = list.fences.partition_point(|fence| fence.end < range.end);
                let known = list.fences.get(behind).filter(|fence| fence.end == range.end);
                if failed || known.is_some_and(|fence| Some(&fence.values) == last.as_ref()) {
                    continue;
                }
                let end = list.fences.get(behind + fences).map_or(list.ids.len(), |fence| fence.end);
                let ids = [ids.as_slice(), &list.ids[range.end..end]].concat();
                let part = Part { list: range.start..end, ids };
                parts[at] = self.look(&touched[at], part);
                if end < list.ids.len() {
                    still_open.push(at);
                }
            }
            open = still_open;
            // What has not come to its end soon seldom does.
            fences *= 4;
        }
        Ok(())
    }
}

/// What running functions come to.
#[derive(Default)]
pub(super) struct Told {
    /// Within the part.
    pub(super) fences: Vec<Fence>,
    /// At its end, if there is any row.
    pub(super) last: Option<Vec<ScalarValue>>,
}

/// A running function's results after rows that gave `from`, where by themselves they are `result`.
fn from_there(running: Running, from: &ScalarValue, result: ArrayRef) -> Result<ArrayRef> {
    fn added<T: ArrowPrimitiveType>(result: &ArrayRef, from: T::Native) -> ArrayRef {
        let values = result.as_primitive::<T>();
        // NULL: nothing has come since.
        let sums = values.iter().map(|v| Some(v.map_or(from, |v| v.add_wrapping(from))));
        let sums: PrimitiveArray<T> = sums.collect();
        Arc::new(sums.with_data_type(result.data_type().clone()))
    }
    if running == Running::First {
        return Ok(from.to_array_of_size(result.len())?);
    }
    if from.is_null() {
        return Ok(result);
    }
    Ok(match (running, from) {
        (Running::Sum | Running::Rank, ScalarValue::Int64(Some(n))) => added::<Int64Type>(&result, *n),
        (Running::Sum | Running::Rank, ScalarValue::UInt64(Some(n))) => added::<UInt64Type>(&result, *n),
        (Running::Sum, ScalarValue::Decimal128(Some(n), ..)) => added::<Decimal128Type>(&result, *n),
        (Running::Min | Running::Max, from) => {
            let from = from.to_scalar()?;
            let better =
                if running == Running::Min { cmp::lt(&result, &from)? } else { cmp::gt(&result, &from)? };
            // Where nothing has come since it is NULL, and stays what it was.
            zip(&better, &result, &from)?
        }
        (Running::Sum | Running::Rank | Running::First, other) => {
            return Err(Error::internal(format!("a running sum of {}", other.data_type())));
        }
    })
}
