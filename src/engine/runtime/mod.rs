//! The circuit and its clock.
//!
//! One thread, the tick thread, owns the [`circuit`], all inputs and the journal ([`core`]); everybody else talks to it
//! through the [`inbox`] and reads what it publishes. [`tick`] is what it does with transactions, [`hydrate`] how a
//! view comes to life beside it, [`replay`] and `resume` how it all comes back after a restart, [`subscribe`] how others
//! follow, and `relieve` what happens when memory has come to its end.

pub(crate) mod circuit;
mod clock;
pub(crate) mod core;
pub(crate) mod hydrate;
pub(crate) mod inbox;
pub mod operator;
mod relieve;
pub(crate) mod replace;
pub(crate) mod replay;
mod resume;
pub(crate) mod shared;
pub(crate) mod spill;
pub mod stats;
pub mod subscribe;
pub(crate) mod tick;
mod watermark;
pub(crate) mod widen;
pub mod workers;

use crate::engine::Delta;
use crate::error::Result;

/// The net of several changes of one collection; `None` when they cancel.
pub(crate) fn net(deltas: Vec<Delta>) -> Result<Option<Delta>> {
    let Some(first) = deltas.first() else { return Ok(None) };
    let all = Delta::concat(&first.rows.schema(), &deltas)?;
    // Rows that only come never cancel, and a row may stand in several places.
    let net = if all.weights.is_none() { all } else { all.consolidate()? };
    Ok((!net.is_empty()).then_some(net))
}
