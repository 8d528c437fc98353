//! An operator in a copy for every few windows, so that what is kept of windows can go when they are closed.
//!
//! A row goes to the copy of its window. When the last window of a copy is closed, no row of it comes any more (a
//! [`super::gate`] sees to that), and nobody asks for the answer (a [`super::close`] has given it): the copy is dropped as
//! a whole, and nothing in the operator itself need know how to forget.

use std::collections::BTreeMap;

use arrow::array::{Array, AsArray};
use arrow::datatypes::Int64Type;

use crate::engine::ops::single;
use crate::engine::plan::spec::{ExpiringSpec, NodeSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::Result;

/// The copy of windows that never close.
const NEVER: i64 = i64::MAX;

/// See the module.
pub struct Expiring {
    inner: NodeSpec,
    view: CollectionId,
    /// The column that tells when a row's window closes.
    closes: usize,
    length: i64,
    /// By the watermark at which the last of their windows is closed.
    copies: BTreeMap<i64, Portion>,
    after: i64,
}

/// The operator of some windows.
struct Portion {
    operator: Box<dyn Operator>,
    touched: bool,
}

impl Expiring {
    /// Does what `spec` says.
    pub fn new(spec: &ExpiringSpec) -> Expiring {
        Expiring {
            inner: NodeSpec::clone(&spec.inner),
            view: spec.closing.view,
            closes: spec.closing.closes,
            length: spec.length.max(1),
            copies: BTreeMap::new(),
            after: i64::MIN,
        }
    }

    /// When the last window is closed of those that share a copy with one that closes then.
    fn ends(&self, closes: i64) -> i64 {
        closes
            .checked_add(self.length - 1)
            .map_or(NEVER, |up| up.div_euclid(self.length).saturating_mul(self.length))
    }

    fn push_to(&mut self, ends: i64, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let copy = match self.copies.get_mut(&ends) {
            Some(copy) => copy,
            None => {
                let operator = single(&self.inner)?;
                self.copies.entry(ends).or_insert(Portion { operator, touched: true })
            }
        };
        copy.touched = true;
        copy.operator.push(port, delta, out)
    }
}

impl Operator for Expiring {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let closes = delta.rows.column(self.closes).as_primitive::<Int64Type>();
        let mut positions: BTreeMap<i64, Vec<u32>> = BTreeMap::new();
        // Rows that come together are of few windows: mostly of the one of the row before.
        let mut last: Option<(i64, i64)> = None;
        let mut runs: Vec<(i64, u32, u32)> = Vec::new();
        for row in 0..delta.num_rows() {
            let closes = if closes.is_valid(row) { closes.value(row) } else { NEVER };
            let ends = match last {
                Some((known, ends)) if known == closes => ends,
                _ => self.ends(closes),
            };
            last = Some((closes, ends));
            match runs.last_mut() {
                Some((of, _, to)) if *of == ends => *to = row as u32 + 1,
                _ => runs.push((ends, row as u32, row as u32 + 1)),
            }
        }
        if let [(ends, ..)] = runs[..] {
            return self.push_to(ends, port, delta, out);
        }
        for (ends, from, to) in runs {
            positions.entry(ends).or_default().extend(from..to);
        }
        for (ends, positions) in positions {
            self.push_to(ends, port, delta.take(&positions)?, out)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        self.copies.values_mut().filter(|copy| copy.touched).try_for_each(|copy| copy.operator.finish(out))
    }

    fn commit(&mut self) -> Result<()> {
        for copy in self.copies.values_mut().filter(|copy| copy.touched) {
            copy.touched = false;
            copy.operator.commit()?;
        }
        self.copies.retain(|ends, _| *ends > self.after);
        Ok(())
    }

    fn closes_for(&self) -> Option<CollectionId> {
        Some(self.view)
    }

    fn set_watermark(&mut self, _before: i64, after: i64) {
        self.after = after;
    }

    fn resume_watermark(&mut self, watermark: i64, _late_rows: u64) -> Result<()> {
        self.after = watermark;
        self.copies.retain(|ends, _| *ends > watermark);
        Ok(())
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        state.numbers(&[self.after]);
        state.numbers(&self.copies.keys().copied().collect::<Vec<i64>>());
        self.copies.values().try_for_each(|copy| copy.operator.save(state))
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.after = state.number()?;
        self.copies.clear();
        let ends: Vec<i64> = state.numbers()?;
        for ends in ends {
            let mut operator = single(&self.inner)?;
            operator.restore(state)?;
            self.copies.insert(ends, Portion { operator, touched: false });
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.copies.values().map(|copy| copy.operator.state_bytes()).sum()
    }

    fn state_rows(&self) -> usize {
        self.copies.values().map(|copy| copy.operator.state_rows()).sum()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array, RecordBatch};
    use datafusion::physical_expr::expressions::Column;

    use super::*;
    use crate::engine::ops::testing::tally;
    use crate::engine::plan::spec::{ClosingSpec, Expr, TopKSpec};

    fn rows(closes: &[Option<i64>]) -> RecordBatch {
        let column: ArrayRef = Arc::new(Int64Array::from(closes.to_vec()));
        RecordBatch::try_from_iter_with_nullable([("closes", column, true)]).unwrap()
    }

    /// The first row of each window, windows of 10 in a copy.
    fn expiring() -> Expiring {
        let schema = rows(&[]).schema();
        let inner = NodeSpec::TopK(TopKSpec {
            partition: vec![Arc::new(Column::new("closes", 0)) as Expr],
            order: vec![],
            offset: 0,
            limit: Some(1),
            numbered: false,
            input: Arc::clone(&schema),
            schema: Arc::clone(&schema),
        });
        let (view, watermarks) = (CollectionId(2), vec![CollectionId(1)]);
        let closing = ClosingSpec { view, watermarks, closes: 0, schema };
        Expiring::new(&ExpiringSpec { inner: Box::new(inner), closing, length: 10 })
    }

    fn tick(op: &mut Expiring, watermark: (i64, i64), closes: &[Option<i64>]) -> usize {
        let mut out = Output::default();
        op.set_watermark(watermark.0, watermark.1);
        if !closes.is_empty() {
            op.push(0, Delta::insert(rows(closes)), &mut out).unwrap();
        }
        op.finish(&mut out).unwrap();
        op.commit().unwrap();
        tally(&out.deltas).len()
    }

    #[test]
    fn what_is_kept_of_a_window_goes_when_its_copy_is_closed() {
        let mut op = expiring();
        let given = tick(&mut op, (0, 0), &[Some(1), Some(10), Some(11), None, Some(10), Some(-9)]);
        assert_eq!((given, op.copies.keys().copied().collect::<Vec<_>>()), (5, vec![10, 20, NEVER]));
        // 1 is closed, and 10, which is in its copy, is not.
        assert_eq!(tick(&mut op, (1, 9), &[Some(9)]), 1);
        let before = op.state_rows();
        tick(&mut op, (9, 10), &[]);
        assert!(op.state_rows() < before);
        tick(&mut op, (10, i64::MAX - 1), &[Some(i64::MAX - 3)]);
        assert_eq!(op.copies.keys().copied().collect::<Vec<_>>(), [NEVER]);
    }
}
