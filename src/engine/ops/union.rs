//! All rows of all inputs (UNION ALL).

use crate::engine::Delta;
use crate::engine::runtime::operator::{Operator, Output};
use crate::error::Result;

/// Passes every delta on.
#[derive(Default)]
pub struct Union;

impl Union {
    /// A union of any number of ports.
    pub fn new() -> Union {
        Union
    }
}

impl Operator for Union {
    fn push(&mut self, _port: usize, delta: Delta, out: &mut Output) -> Result<()> {
        if !delta.is_empty() {
            out.deltas.push(delta);
        }
        Ok(())
    }
}
