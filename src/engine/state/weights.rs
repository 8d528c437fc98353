//! How often each stored row counts: nothing where all count once, a bit where they count once or not at all,
//! a number otherwise; in segments that are copied only when they are written while a reader holds them.

use std::sync::Arc;

const SEGMENT_BITS: u32 = 16;
const SEGMENT_ROWS: usize = 1 << SEGMENT_BITS;

#[derive(Clone)]
enum Segment {
    Ones,
    Live(Vec<u64>),
    Counts(Vec<i64>),
}

/// Weights by row number. Cloning is cheap and gives an unchanging copy.
#[derive(Clone, Default)]
pub struct Weights {
    segments: Vec<Arc<Segment>>,
    rows: usize,
    // Rows whose weight is not 1.
    exceptions: usize,
}

impl Weights {
    /// Whether every row counts exactly once.
    pub fn all_ones(&self) -> bool {
        self.exceptions == 0
    }

    /// Whether it is known at once that all rows from `first` up to `end` count exactly once.
    pub fn ones_between(&self, first: u32, end: u32) -> bool {
        let segments = (first >> SEGMENT_BITS) as usize..(end as usize).div_ceil(SEGMENT_ROWS);
        self.all_ones() || self.segments[segments].iter().all(|s| matches!(**s, Segment::Ones))
    }

    /// The weight of row `id`.
    #[inline]
    pub fn get(&self, id: u32) -> i64 {
        let at = id as usize % SEGMENT_ROWS;
        match &*self.segments[(id >> SEGMENT_BITS) as usize] {
            Segment::Ones => 1,
            Segment::Live(bits) => (bits[at / 64] >> (at % 64) & 1) as i64,
            Segment::Counts(counts) => counts[at],
        }
    }

    /// Sets the weight of a row that is there.
    pub fn set(&mut self, id: u32, weight: i64) {
        let old = self.get(id);
        if old == weight {
            return;
        }
        self.exceptions = self.exceptions + usize::from(weight != 1) - usize::from(old != 1);
        let segment = Arc::make_mut(&mut self.segments[(id >> SEGMENT_BITS) as usize]);
        let at = id as usize % SEGMENT_ROWS;
        if matches!(segment, Segment::Ones) {
            *segment = Segment::Live(vec![u64::MAX; SEGMENT_ROWS / 64]);
        }
        if let Segment::Live(bits) = segment {
            match weight {
                0 => bits[at / 64] &= !(1 << (at % 64)),
                1 => bits[at / 64] |= 1 << (at % 64),
                _ => {
                    let counts = (0..SEGMENT_ROWS).map(|i| (bits[i / 64] >> (i % 64) & 1) as i64);
                    *segment = Segment::Counts(counts.collect());
                }
            }
        }
        if let Segment::Counts(counts) = segment {
            counts[at] = weight;
        }
    }

    /// The weights by row; `None`: every row counts once.
    pub fn exceptional(&self) -> Option<impl Iterator<Item = i64> + '_> {
        (!self.all_ones()).then(|| (0..self.rows as u32).map(|id| self.get(id)))
    }

    /// Appends `rows` rows that count once.
    pub fn push_ones(&mut self, rows: usize) {
        // What lies behind the last row of a segment is 1 in every form of it.
        self.rows += rows;
        self.segments.resize_with(self.rows.div_ceil(SEGMENT_ROWS), || Arc::new(Segment::Ones));
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        let bytes = |s: &Arc<Segment>| match &**s {
            Segment::Ones => 0,
            Segment::Live(bits) => bits.len() * 8,
            Segment::Counts(counts) => counts.len() * 8,
        };
        self.segments.iter().map(bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_does_not_see_later_writes() {
        let mut weights = Weights::default();
        weights.push_ones(70_000);
        weights.set(3, 0);
        weights.set(69_999, 5);
        let clone = weights.clone();
        weights.set(3, 1);
        weights.set(4, -2);
        weights.set(69_999, 1);
        weights.push_ones(10);
        assert_eq!([3, 4, 69_999].map(|i| clone.get(i)), [0, 1, 5]);
        assert_eq!([3, 4, 69_999, 70_005].map(|i| weights.get(i)), [1, -2, 1, 1]);
        assert!(
            !weights.all_ones() && !weights.ones_between(0, 65_536) && !weights.ones_between(65_536, 70_000)
        );
        weights.push_ones(70_000);
        assert!(weights.ones_between(131_072, 140_000) && !weights.ones_between(131_071, 140_000));
        weights.set(4, 1);
        assert!(weights.all_ones() && !clone.all_ones());
    }
}
