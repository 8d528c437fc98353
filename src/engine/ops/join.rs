//! Inner join: every pair of rows with equal keys that passes the residual condition.
//!
//! Δ(A⋈B) = ΔA ⋈ B before + A after ⋈ ΔB. Changes of A probe B at once, streaming; those of B wait until all of A's
//! have been stored. Without keys every pair is a candidate (a cross or theta join): the cost of a change is then
//! the size of the other side.

use crate::engine::Delta;
use crate::engine::ops::outer::Outer;
use crate::engine::ops::side::{Change, Pairs, Side};
use crate::engine::plan::spec::{JoinKind, JoinSpec};
use crate::engine::runtime::operator::{Operator, Output};
use crate::error::Result;

/// A join of two inputs.
pub struct Join {
    sides: [Side; 2],
    pairs: Pairs,
    // Of port 1, in this tick.
    waiting: Vec<Change>,
}

impl Join {
    /// An inner join.
    pub fn new(spec: &JoinSpec) -> Result<Join> {
        debug_assert_eq!(spec.kind, JoinKind::Inner, "other kinds are done by the outer join");
        Ok(Join { sides: Side::both(spec)?, pairs: Pairs::new(spec)?, waiting: Vec::new() })
    }

    /// The operator for a join of any kind.
    pub fn of_kind(spec: &JoinSpec) -> Result<Box<dyn Operator>> {
        Ok(match spec.kind {
            JoinKind::Inner => Box::new(Join::new(spec)?),
            _ => Box::new(Outer::new(spec)?),
        })
    }

    fn emit(&mut self, port: usize, change: &Change, out: &mut Output) -> Result<()> {
        let Output { deltas, errors } = out;
        self.pairs.each(port, change, &mut self.sides[1 - port], errors, |other, matches, weights| {
            deltas.push(self.pairs.rows(port, change, other, matches, weights)?);
            Ok(())
        })
    }
}

impl Operator for Join {
    fn push(&mut self, port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        for delta in delta.chunks() {
            // Rows whose key is NULL have no partners, ever.
            let (change, _) = self.sides[port].prepare(delta, &mut out.errors)?;
            if change.delta.is_empty() {
                continue;
            }
            if port == 1 {
                self.waiting.push(change);
            } else {
                self.emit(0, &change, out)?;
                self.sides[0].rows.apply(&change.delta, Some(&change.keys.hashes))?;
            }
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        for change in std::mem::take(&mut self.waiting) {
            self.emit(1, &change, out)?;
            self.sides[1].rows.apply(&change.delta, Some(&change.keys.hashes))?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        for side in &mut self.sides {
            side.rows.compact()?;
        }
        Ok(())
    }

    fn state_bytes(&self) -> usize {
        self.sides.iter().map(|s| s.rows.bytes()).sum()
    }

    fn state_rows(&self) -> usize {
        self.sides.iter().map(|s| s.rows.live_rows()).sum()
    }
}
