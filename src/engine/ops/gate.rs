//! Rows of windows that are not closed yet; those that come later are counted and left out.

use arrow::array::{Array, AsArray, BooleanArray};
use arrow::datatypes::Int64Type;

use crate::engine::plan::spec::ClosingSpec;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Restored, Saved};
use crate::engine::{CollectionId, Delta};
use crate::error::Result;

/// See the module.
pub struct Gate {
    view: CollectionId,
    /// The column that tells when a row's window closes.
    closes: usize,
    /// The watermark before this tick.
    before: i64,
    after: i64,
    late: u64,
}

impl Gate {
    /// Does what `spec` says.
    pub fn new(spec: &ClosingSpec) -> Gate {
        Gate { view: spec.view, closes: spec.closes, before: i64::MIN, after: i64::MIN, late: 0 }
    }
}

impl Operator for Gate {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        let closes = delta.rows.column(self.closes).as_primitive::<Int64Type>();
        let is_open = |row: usize| closes.is_null(row) || closes.value(row) > self.before;
        let late = (0..delta.num_rows()).filter(|row| !is_open(*row));
        let late: u64 = late.map(|row| delta.weight(row).unsigned_abs()).sum();
        self.late += late;
        let open = match late {
            0 => delta,
            _ => delta
                .filter(&(0..delta.num_rows()).map(|row| Some(is_open(row))).collect::<BooleanArray>())?,
        };
        if !open.is_empty() {
            out.deltas.push(open);
        }
        Ok(())
    }

    fn closes_for(&self) -> Option<CollectionId> {
        Some(self.view)
    }

    fn set_watermark(&mut self, before: i64, after: i64) {
        (self.before, self.after) = (before, after);
    }

    fn resume_watermark(&mut self, watermark: i64, late_rows: u64) -> Result<()> {
        (self.before, self.after) = (watermark, watermark);
        self.late = late_rows;
        Ok(())
    }

    fn late_rows(&self) -> u64 {
        self.late
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        state.numbers(&[self.after]);
        state.numbers(&[self.late]);
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let watermark = state.number()?;
        self.resume_watermark(watermark, state.number()?)
    }
}
