//! What the operators' tests share: random changes, rows as text, and collections as multisets.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::engine::Delta;
use crate::engine::delta::batch;
use crate::engine::runtime::operator::{Operator, Output};

/// A small generator of random numbers (SplitMix64), the same for the same seed everywhere.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xdead_beef)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

/// a bigint, f double precision, s text.
pub(crate) fn sample_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("a", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("s", DataType::Utf8View, true),
    ]))
}

/// Rows of [`sample_schema`] out of few values, so that duplicates and equal keys abound; NULLs, both zeros, NaN and
/// long strings among them.
pub(crate) fn random_delta(rng: &mut Rng, rows: usize, weighted: bool) -> Delta {
    let floats = [0.0, -0.0, 1.5, 1e300, f64::NAN, f64::INFINITY, -7.25, 1e-300];
    let mut a = Vec::new();
    let mut f = Vec::new();
    let mut s = Vec::new();
    let mut w = Vec::new();
    for _ in 0..rows {
        a.push((!rng.one_in(7)).then(|| rng.below(7) as i64 - 1));
        f.push((!rng.one_in(7)).then(|| floats[rng.below(floats.len())]));
        s.push(
            (!rng.one_in(7))
                .then(|| ["", "x", "exactly12byt", "a text that is longer than a view"][rng.below(4)]),
        );
        w.push(if weighted { [1, 1, 1, 2, -1, -1, -3][rng.below(7)] } else { 1 });
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from(a)),
        Arc::new(Float64Array::from(f)),
        Arc::new(StringViewArray::from(s)),
    ];
    Delta::weighted(batch(&sample_schema(), columns, rows).unwrap(), w).unwrap()
}

/// Row `i` as text, column by column; NULL is `∅`.
pub(crate) fn row_at(rows: &RecordBatch, i: usize) -> Vec<String> {
    let options = FormatOptions::default().with_null("∅");
    let text = |c: &ArrayRef| {
        if c.is_null(i) {
            return "∅".to_string();
        }
        ArrayFormatter::try_new(c.as_ref(), &options).unwrap().value(i).to_string()
    };
    rows.columns().iter().map(text).collect()
}

/// The collection that deltas add up to: weights by row, without those that are 0.
pub(crate) fn tally(deltas: &[Delta]) -> BTreeMap<Vec<String>, i64> {
    let mut sums: BTreeMap<Vec<String>, i64> = BTreeMap::new();
    for delta in deltas {
        for i in 0..delta.num_rows() {
            *sums.entry(row_at(&delta.rows, i)).or_default() += delta.weight(i);
        }
    }
    sums.retain(|_, w| *w != 0);
    sums
}

/// One tick of random length over `ports`: random deltas in random order, each kept in `history` too.
pub(crate) fn random_tick(
    rng: &mut Rng,
    op: &mut dyn Operator,
    history: &mut [Vec<Delta>],
    mut delta: impl FnMut(&mut Rng, usize) -> Delta,
) -> Output {
    let mut out = Output::default();
    for _ in 0..rng.below(5) {
        let port = rng.below(history.len());
        let delta = delta(rng, port);
        history[port].push(delta.clone());
        op.push(port, delta, &mut out).unwrap();
    }
    op.finish(&mut out).unwrap();
    op.commit().unwrap();
    assert!(out.deltas.iter().all(|d| !d.is_empty()), "no empty batches");
    out
}
