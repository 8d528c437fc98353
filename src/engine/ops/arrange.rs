//! Keeps the rows of its input for the joins over it, and hands the changes on.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use parking_lot::RwLock;

use crate::engine::Delta;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::{Arranged, Arrangement, Restored, Saved};
use crate::error::Result;

/// An input of joins.
pub struct Arrange {
    rows: Arranged,
}

impl Arrange {
    /// Of rows with these columns.
    pub fn new(schema: &SchemaRef) -> Arrange {
        Arrange { rows: Arc::new(RwLock::new(Arrangement::shared(schema))) }
    }
}

impl Operator for Arrange {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        self.rows.write().apply(&delta, None)?;
        out.deltas.push(delta);
        Ok(())
    }

    fn commit(&mut self) -> Result<()> {
        self.rows.write().settle()
    }

    fn save(&self, state: &mut Saved) -> Result<()> {
        self.rows.read().save(state);
        Ok(())
    }

    fn restore(&mut self, state: &mut Restored) -> Result<()> {
        self.rows.write().restore(state)
    }

    fn arranged(&self) -> Option<&Arranged> {
        Some(&self.rows)
    }

    fn state_bytes(&self) -> usize {
        self.rows.read().bytes()
    }

    fn state_rows(&self) -> usize {
        self.rows.read().live_rows()
    }
}
