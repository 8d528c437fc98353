//! How fast a generator goes, and where it is: what its sources have in common.

use std::time::{Duration, Instant};

use crate::connectors::StopFlag;
use crate::error::{Error, Result, SqlState};
use crate::world;

/// The most rows in a batch.
const BATCH_MAX: u64 = 8192;
/// With a rate, how long a batch is waited for.
const PAUSE: Duration = Duration::from_millis(20);

/// Says how many rows are due.
#[derive(Debug)]
pub struct Pace {
    /// Rows a second; 0: as fast as they are taken.
    rate: u64,
    /// There are no rows from this position on; `None`: there are always more.
    end: Option<u64>,
    began: Instant,
    from: u64,
}

impl Pace {
    /// Starts at a position.
    pub fn new(rate: u64, end: Option<u64>, from: u64) -> Self {
        Pace { rate, end, began: world::instant(), from }
    }

    /// How many rows are due after `position`; waits for them. 0: the end, or told to stop.
    pub fn due(&self, position: u64, stop: &StopFlag) -> usize {
        let left = self.end.map_or(BATCH_MAX, |end| end.saturating_sub(position));
        while !stop.is_set() && left > 0 {
            let due = if self.rate == 0 {
                BATCH_MAX
            } else {
                let elapsed_ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let so_far = self.from.saturating_add(elapsed_ms.saturating_mul(self.rate) / 1000);
                so_far.saturating_sub(position)
            };
            if due > 0 {
                return due.min(left).min(BATCH_MAX) as usize;
            }
            world::sleep(PAUSE);
        }
        0
    }
}

/// A generator's stored position: the number of the next row, as digits.
pub fn decode_position(resume: Option<&[u8]>) -> Result<u64> {
    let Some(bytes) = resume else { return Ok(0) };
    let number = std::str::from_utf8(bytes).ok().and_then(|t| t.parse().ok());
    number.ok_or_else(|| Error::new(SqlState::DATA_CORRUPTED, "the stored position of a generator is broken"))
}

/// The bytes of a position.
pub fn encode_position(position: u64) -> Vec<u8> {
    position.to_string().into_bytes()
}
