//! Constant rows, present from the first tick on.

use arrow::array::RecordBatch;

use crate::engine::Delta;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::Restored;
use crate::error::{Error, Result};

/// Emits its rows at its first `finish` and nothing ever after.
pub struct Constant {
    rows: Vec<RecordBatch>,
}

impl Constant {
    /// A node of these rows.
    pub fn new(rows: Vec<RecordBatch>) -> Constant {
        Constant { rows }
    }
}

impl Operator for Constant {
    fn push(&mut self, port: usize, _delta: Delta, _out: &mut Output) -> Result<()> {
        Err(Error::internal(format!("constant rows have no input {port}")))
    }

    fn finish(&mut self, out: &mut Output) -> Result<()> {
        for rows in self.rows.drain(..) {
            out.deltas.extend(Delta::insert(rows).chunks());
        }
        Ok(())
    }
    /// A node that has state to take up has emitted its rows.
    fn restore(&mut self, _state: &mut Restored) -> Result<()> {
        self.rows.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::{Rng, random_delta, tally};

    #[test]
    fn it_emits_once() {
        let rows = random_delta(&mut Rng::new(1), 9, false);
        let mut op = Constant::new(vec![rows.rows.clone()]);
        let mut out = Output::default();
        op.finish(&mut out).unwrap();
        op.finish(&mut out).unwrap();
        assert_eq!(tally(&out.deltas), tally(&[rows]));
    }
}
