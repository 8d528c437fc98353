//! What the operators' tests share: random changes, rows as text, and collections as multisets.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, Float64Array, Int64Array, RecordBatch, StringViewArray};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::engine::Delta;
use crate::engine::delta::batch;
use crate::engine::ipc;
use crate::engine::runtime::operator::{Operator, Output};
use crate::engine::state::saved::Place;
use crate::engine::state::{Restored, Saved};

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
    let floats = [0.0, -0.0, 1.5, 1024.0, f64::NAN, f64::INFINITY, -7.25, f64::NEG_INFINITY];
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

/// Weights by row as text, none of them 0.
pub(crate) type Multiset = BTreeMap<Vec<String>, i64>;

/// The collection that deltas add up to.
pub(crate) fn tally(deltas: &[Delta]) -> Multiset {
    let mut sums: Multiset = BTreeMap::new();
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

/// Feeds random ticks and, after each, compares what was emitted so far with `expected` of what was fed so far. Then
/// does the same history backwards, until nothing is left, and once more in a single tick in another order.
pub(crate) fn check_operator(
    seed: u64,
    ports: usize,
    rows_max: usize,
    new: impl Fn() -> Box<dyn Operator>,
    expected: impl Fn(&[Multiset]) -> (Multiset, i64),
) {
    let mut rng = Rng::new(seed);
    let mut op = new();
    let mut history: Vec<Vec<Delta>> = vec![Vec::new(); ports];
    let mut emitted: Vec<Delta> = Vec::new();
    let mut errors = 0;
    let mut compare = |what: &str, out: Output, history: &[Vec<Delta>]| {
        errors += out.errors.iter().map(|e| e.weight).sum::<i64>();
        emitted.extend(out.deltas);
        let inputs: Vec<Multiset> = history.iter().map(|h| tally(h)).collect();
        let (rows, failing) = expected(&inputs);
        assert_eq!(tally(&emitted), rows, "seed {seed}, {what}");
        assert_eq!(errors, failing, "seed {seed}, {what}: weight of errors");
    };
    // A first tick without input: what is there from the first tick on must be there.
    let mut out = Output::default();
    op.finish(&mut out).unwrap();
    op.commit().unwrap();
    compare("first tick", out, &history);
    for tick in 0..7 {
        if rng.one_in(3) {
            op = saved_and_restored(op.as_ref(), &new);
        }
        let out = random_tick(&mut rng, op.as_mut(), &mut history, |rng, _| {
            let n = rng.below(rows_max);
            random_delta(rng, n, true)
        });
        compare(&format!("tick {tick}"), out, &history);
    }
    let all = history.clone();

    let mut out = Output::default();
    for (port, deltas) in history.iter_mut().enumerate() {
        for delta in deltas.drain(..).rev() {
            op.push(port, delta.negate(), &mut out).unwrap();
        }
    }
    op.finish(&mut out).unwrap();
    op.commit().unwrap();
    compare("after all has gone", out, &history);

    let mut again = new();
    let mut out = Output::default();
    for (port, delta) in all.iter().enumerate().rev().flat_map(|(port, h)| h.iter().map(move |d| (port, d))) {
        again.push(port, delta.clone(), &mut out).unwrap();
    }
    again.finish(&mut out).unwrap();
    again.commit().unwrap();
    let inputs: Vec<Multiset> = all.iter().map(|h| tally(h)).collect();
    let (rows, failing) = expected(&inputs);
    assert_eq!(tally(&out.deltas), rows, "seed {seed}, the whole history in one tick");
    assert_eq!(out.errors.iter().map(|e| e.weight).sum::<i64>(), failing, "seed {seed}");
}

/// An operator that took up the state of another, through the bytes on disk. It has had a first tick of its own, as
/// operators have when they are made.
pub(crate) fn saved_and_restored(
    op: &dyn Operator,
    new: impl Fn() -> Box<dyn Operator>,
) -> Box<dyn Operator> {
    let (mut state, mut bytes, mut tiles) = (Saved::default(), Vec::new(), Vec::new());
    op.save(&mut state).unwrap();
    let write = |tile: &Arc<RecordBatch>| {
        let mut rows = Vec::new();
        ipc::write(&mut rows, tile.schema_ref(), std::iter::once(tile.as_ref()))?;
        tiles.push(rows);
        Ok(Place { file: 1, offset: tiles.len() as u64 - 1 })
    };
    state.encode(&mut bytes, write).unwrap();
    let mut other = new();
    other.finish(&mut Output::default()).unwrap();
    other.commit().unwrap();
    let read = |place: Place| Ok(Arc::new(ipc::read(&tiles[place.offset as usize])?.1.remove(0)));
    let mut state = Restored::decode(&bytes, read).unwrap();
    other.restore(&mut state).unwrap();
    assert!(state.is_empty(), "all pieces were taken up");
    assert_eq!(other.state_rows(), op.state_rows());
    other
}

/// A value's text as keys see it: both zeros are one.
pub(crate) fn key_text(value: &str) -> String {
    value.replace("-0.0", "0.0")
}

/// Compares two texts of column `c` of [`sample_schema`]: NULL first, NaN last, and -0.0 before 0.0 unless `canonical`.
pub(crate) fn compare(c: usize, a: &str, b: &str, canonical: bool) -> Ordering {
    match (a == "∅", b == "∅") {
        (false, false) => {}
        (a, b) => return b.cmp(&a),
    }
    let float = |v: &str| if canonical { key_text(v) } else { v.to_string() }.parse::<f64>().unwrap();
    match c {
        0 => a.parse::<i64>().unwrap().cmp(&b.parse().unwrap()),
        1 => float(a).total_cmp(&float(b)),
        _ => a.cmp(b),
    }
}
