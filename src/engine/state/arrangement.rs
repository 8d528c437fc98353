//! A bag of rows, looked up by key.
//!
//! Rows are appended and never change; a row that goes loses its weight, and is forgotten when most rows have gone.
//! Both indexes are built when they are first needed: the one by key at the first look-up, the one by whole row at
//! the first deletion whose key has many rows. So a bag that only grows and is only scanned costs its columns.
//!
//! "Before" and "after" a change is a matter of calling [`Arrangement::probe`] before or after [`Arrangement::apply`],
//! where an arrangement belongs to one operator, which applies each delta when the right moment has come. One
//! that several operators look rows up in is known by several keys, and knows until [`Arrangement::settle`] what it was
//! before.
//!
//! A row that goes without being there is kept with a negative weight, found by probes like any other, and
//! cancels with the row when that comes: the bag is a Z-set, so the order of changes does not matter.

mod probe;
mod shared;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{DataType, SchemaRef};

use crate::engine::Delta;
use crate::engine::keys::{Keys, hash_is_key, hash_stored};
use crate::engine::state::NONE;
use crate::engine::state::column::{Loc, TiledColumn};
use crate::engine::state::index::HashIndex;
use crate::engine::state::rows::RowStore;
use crate::engine::state::saved::{Restored, Saved};
use crate::engine::state::snapshot::ArrangementSnapshot;
use crate::engine::state::weights::Weights;
use crate::error::Result;

use probe::verify;
pub use probe::{Cursor, Matches};
use shared::{Before, Index};
pub use shared::{Key, Moment};

/// A deletion walks the chain of its key up to this length; above it, it asks the index by whole row.
const SHORT_CHAIN: u32 = 8;

/// Below this number of dead rows nobody tidies up.
const DEAD_ROWS_MIN: usize = 4096;

/// A multiset of rows with a key.
pub struct Arrangement {
    rows: RowStore,
    weights: Weights,
    key: Vec<usize>,
    hash_is_key: bool,
    by_key: Option<HashIndex>,
    by_row: Option<HashIndex>,
    // Of one that several operators look rows up in: by which keys they do.
    looked_up: Vec<Index>,
    // The hashes of a delta's rows by these keys, while it is applied.
    applied: Vec<Vec<u64>>,
    // Of such a one, what it was before the tick.
    before: Option<Before>,
    dead: usize,
    total: i64,
    // The sum of the negative weights.
    owed: i64,
}

/// An index by some columns of the rows that count.
fn index_of(rows: &RowStore, weights: &Weights, columns: &[usize]) -> HashIndex {
    let mut index = HashIndex::default();
    index.reserve(rows.len());
    let mut id = 0;
    for tile in rows.tiles() {
        for hash in hash_stored(tile, columns) {
            if weights.get(id) != 0 {
                index.insert(hash, id);
            }
            id += 1;
        }
    }
    index
}

impl Arrangement {
    /// An empty bag of rows of `schema`, by the key in columns `key` (canonical; all columns: by whole row).
    pub fn new(schema: &SchemaRef, key: Vec<usize>) -> Arrangement {
        let types: Vec<DataType> = key.iter().map(|k| schema.field(*k).data_type().clone()).collect();
        Arrangement {
            rows: RowStore::new(schema),
            weights: Weights::default(),
            key,
            hash_is_key: hash_is_key(&types),
            by_key: None,
            by_row: None,
            looked_up: Vec::new(),
            applied: Vec::new(),
            before: None,
            dead: 0,
            total: 0,
            owed: 0,
        }
    }

    /// An empty bag of rows that are found by the whole row only.
    pub fn by_row(schema: &SchemaRef) -> Arrangement {
        Arrangement::new(schema, (0..schema.fields().len()).collect())
    }

    /// Columns of the stored rows.
    pub fn schema(&self) -> &SchemaRef {
        self.rows.schema()
    }

    /// The numbers in use: all rows' numbers are below it.
    pub fn ids(&self) -> usize {
        self.rows.len()
    }

    /// Stored rows that count.
    pub fn live_rows(&self) -> usize {
        self.rows.len() - self.dead
    }

    /// The sum of all weights.
    pub fn total_weight(&self) -> i64 {
        self.total
    }

    /// Bytes of rows, weights and indexes.
    pub fn bytes(&self) -> usize {
        let index = |i: &Option<HashIndex>| i.as_ref().map_or(0, HashIndex::bytes);
        let looked_up: usize = self.looked_up.iter().map(Index::bytes).sum();
        self.rows.bytes() + self.weights.bytes() + index(&self.by_key) + index(&self.by_row) + looked_up
    }

    /// The weight of a stored row.
    pub fn weight(&self, id: u32) -> i64 {
        self.weights.get(id)
    }

    /// Whether every stored row counts exactly once.
    pub fn all_ones(&self) -> bool {
        self.weights.all_ones()
    }

    /// Columns of stored rows.
    pub fn gather(&self, ids: &[u32], columns: impl Iterator<Item = usize>) -> Result<Vec<ArrayRef>> {
        self.rows.gather(ids, columns)
    }

    /// The numbers of all rows that count, ascending.
    pub fn live_ids(&self) -> Vec<u32> {
        (0..self.rows.len() as u32).filter(|id| self.weights.get(*id) != 0).collect()
    }

    /// Applies a delta of stored rows. `hashes` are those of their keys, if the caller has them.
    pub fn apply(&mut self, delta: &Delta, hashes: Option<&[u64]>) -> Result<()> {
        self.apply_with(delta, hashes, |_, _, _, _| {})
    }

    /// As [`Arrangement::apply`], and tells of each change of a stored row: position in the delta, number of the
    /// stored row, its weight before and after. New rows are told of with a weight of 0 before.
    pub fn apply_with(
        &mut self,
        delta: &Delta,
        hashes: Option<&[u64]>,
        mut changed: impl FnMut(u32, u32, i64, i64),
    ) -> Result<()> {
        if delta.is_empty() {
            return Ok(());
        }
        self.total += delta.net_rows();
        let Some(weights) = &delta.weights else {
            if self.owed == 0 {
                return self.append(&delta.rows, hashes, None, None, &mut changed);
            }
            let ones = vec![1; delta.num_rows()];
            return self.apply_mixed(&delta.rows, hashes, &ones, &mut changed);
        };
        self.apply_mixed(&delta.rows, hashes, weights, &mut changed)
    }

    fn apply_mixed(
        &mut self,
        rows: &RecordBatch,
        hashes: Option<&[u64]>,
        weights: &[i64],
        changed: &mut impl FnMut(u32, u32, i64, i64),
    ) -> Result<()> {
        let computed;
        let hashes = match hashes {
            Some(hashes) => hashes,
            None => {
                computed = hash_stored(rows, &self.key);
                &computed
            }
        };
        let mut left = weights.to_vec();
        let columns: Vec<TiledColumn> = rows.columns().iter().map(TiledColumn::of).collect();
        let mut row_hashes = None;
        self.applied = self.looked_up.iter().map(|index| index.hashes(rows)).collect();
        // First what comes, then what goes, so that a row that comes and goes in one delta finds itself.
        if self.owed < 0 {
            for (i, left) in left.iter_mut().enumerate() {
                if *left > 0 {
                    self.cancel(rows, &columns, hashes, &mut row_hashes, i, left, changed)?;
                }
            }
        }
        self.append_where(rows, hashes, &left, |w| w > 0, changed)?;
        for (i, left) in left.iter_mut().enumerate() {
            if *left < 0 {
                self.cancel(rows, &columns, hashes, &mut row_hashes, i, left, changed)?;
            }
        }
        self.append_where(rows, hashes, &left, |w| w < 0, changed)
    }

    fn append_where(
        &mut self,
        rows: &RecordBatch,
        hashes: &[u64],
        weights: &[i64],
        take: impl Fn(i64) -> bool,
        changed: &mut impl FnMut(u32, u32, i64, i64),
    ) -> Result<()> {
        let count = weights.iter().filter(|w| take(**w)).count();
        if count == 0 {
            return Ok(());
        }
        if count == weights.len() {
            return self.append(rows, Some(hashes), Some(weights), None, changed);
        }
        let keep = BooleanArray::from_iter(weights.iter().map(|w| Some(take(*w))));
        let positions: Vec<u32> = (0..weights.len() as u32).filter(|i| take(weights[*i as usize])).collect();
        let pick = |i: &u32| *i as usize;
        let hashes: Vec<u64> = positions.iter().map(|i| hashes[pick(i)]).collect();
        let weights: Vec<i64> = positions.iter().map(|i| weights[pick(i)]).collect();
        let rows = filter_record_batch(rows, &keep)?;
        self.append(&rows, Some(&hashes), Some(&weights), Some(&positions), changed)
    }

    /// Appends rows as they are. `positions`: what to call each in `changed`, if not by its position.
    fn append(
        &mut self,
        rows: &RecordBatch,
        hashes: Option<&[u64]>,
        weights: Option<&[i64]>,
        positions: Option<&[u32]>,
        changed: &mut impl FnMut(u32, u32, i64, i64),
    ) -> Result<()> {
        let first = self.rows.len() as u32;
        self.rows.append(rows)?;
        self.weights.push_ones(rows.num_rows());
        for (i, weight) in weights.into_iter().flatten().enumerate() {
            if *weight != 1 {
                self.weights.set(first + i as u32, *weight);
                self.owed += (*weight).min(0);
            }
        }
        for i in 0..rows.num_rows() {
            let position = positions.map_or(i as u32, |p| p[i]);
            changed(position, first + i as u32, 0, weights.map_or(1, |w| w[i]));
        }
        if let Some(index) = &mut self.by_key {
            let computed;
            let hashes = match hashes {
                Some(hashes) => hashes,
                None => {
                    computed = hash_stored(rows, &self.key);
                    &computed
                }
            };
            index.reserve(hashes.len());
            hashes.iter().zip(first..).for_each(|(hash, id)| index.insert(*hash, id));
        }
        if let Some(index) = &mut self.by_row {
            let all: Vec<usize> = (0..rows.num_columns()).collect();
            hash_stored(rows, &all).iter().zip(first..).for_each(|(hash, id)| index.insert(*hash, id));
        }
        self.looked_up.iter_mut().for_each(|index| index.append(rows, first));
        Ok(())
    }

    /// Sets off row `i` of a delta, of which `left` are left, against equal stored rows of the opposite sign.
    #[allow(clippy::too_many_arguments)] // the delta, decomposed once for all its rows
    fn cancel(
        &mut self,
        rows: &RecordBatch,
        columns: &[TiledColumn],
        hashes: &[u64],
        row_hashes: &mut Option<Vec<u64>>,
        i: usize,
        left: &mut i64,
        changed: &mut impl FnMut(u32, u32, i64, i64),
    ) -> Result<()> {
        let mut short = shared::short_chain(&self.looked_up, &self.applied, i);
        if self.before.is_none() {
            let by_key = Self::indexed(&mut self.by_key, &self.rows, &self.weights, &self.key);
            let (id, len) = by_key.find(hashes[i]);
            short = (len <= SHORT_CHAIN || self.key.len() == columns.len()).then_some((by_key, id));
        }
        let (index, mut id) = match short {
            Some(short) => short,
            None => {
                let all: Vec<usize> = (0..columns.len()).collect();
                let row_hashes = row_hashes.get_or_insert_with(|| hash_stored(rows, &all));
                if let Some(before) = self.before.as_mut().filter(|_| self.by_row.is_none()) {
                    before.unlisted = before.emptied.len();
                }
                let by_row = Self::indexed(&mut self.by_row, &self.rows, &self.weights, &all);
                (by_row, by_row.find(row_hashes[i]).0)
            }
        };
        let here = Loc { tile: 0, row: i as u32 };
        let mut emptied = Vec::new();
        while id != NONE && *left != 0 {
            let weight = self.weights.get(id);
            if weight.signum() == -left.signum() {
                let at = self.rows.locate(id);
                if self.rows.columns().iter().zip(columns).all(|(c, other)| c.equal(at, other, here)) {
                    let moved = if left.abs() < weight.abs() { *left } else { -weight };
                    *left -= moved;
                    if let Some(before) = &mut self.before {
                        before.note(id, weight);
                    }
                    self.weights.set(id, weight + moved);
                    changed(i as u32, id, weight, weight + moved);
                    self.owed += (weight + moved).min(0) - weight.min(0);
                    if weight + moved == 0 {
                        self.dead += 1;
                        emptied.push(id);
                    }
                }
            }
            id = index.next(id);
        }
        if let Some(before) = &mut self.before {
            // They are found until nobody asks any more what was before.
            before.emptied.extend(emptied);
            return Ok(());
        }
        for id in emptied {
            if let Some(index) = &mut self.by_key {
                index.remove(hashes[i], id);
            }
            if let Some(index) = &mut self.by_row {
                let hash = match row_hashes {
                    Some(hashes) => hashes[i],
                    None => row_hashes.insert(hash_stored(rows, &(0..columns.len()).collect::<Vec<_>>()))[i],
                };
                index.remove(hash, id);
            }
        }
        Ok(())
    }

    /// The index by some columns, built first if it is not there.
    fn indexed<'a>(
        index: &'a mut Option<HashIndex>,
        rows: &RowStore,
        weights: &Weights,
        columns: &[usize],
    ) -> &'a HashIndex {
        index.get_or_insert_with(|| index_of(rows, weights, columns))
    }

    /// Finds stored rows with the keys of the probing rows, at most about `max` pairs at a time; true while there may
    /// be more. NULL keys find NULL keys unless `nulls_match` is false.
    pub fn probe(
        &mut self,
        keys: &Keys,
        nulls_match: bool,
        cursor: &mut Cursor,
        max: usize,
        matches: &mut Matches,
    ) -> Result<bool> {
        matches.clear();
        if self.rows.len() == self.dead {
            return Ok(false);
        }
        let index = Self::indexed(&mut self.by_key, &self.rows, &self.weights, &self.key);
        let more = cursor.walk(index, keys, nulls_match, max, matches);
        if !self.hash_is_key {
            verify(&self.rows, &self.key, keys, matches);
        }
        Ok(more)
    }

    /// Forgets dead rows if they are the most. Then numbers change: the row that had number `renumbered[n]` has `n`.
    pub fn compact(&mut self) -> Result<Option<Vec<u32>>> {
        if self.dead < DEAD_ROWS_MIN || self.dead * 2 < self.rows.len() {
            return Ok(None);
        }
        let live = self.live_ids();
        let mut rows = RowStore::new(self.rows.schema());
        let mut weights = Weights::default();
        for ids in live.chunks(crate::engine::state::rows::TILE_ROWS) {
            let first = rows.len() as u32;
            rows.append(&self.rows.gather_owned(ids)?)?;
            weights.push_ones(ids.len());
            for (id, old) in (first..).zip(ids) {
                weights.set(id, self.weights.get(*old));
            }
        }
        (self.rows, self.weights, self.dead) = (rows, weights, 0);
        self.forget_indexes();
        Ok(Some(live))
    }

    /// Indexes are built again when they are needed.
    fn forget_indexes(&mut self) {
        (self.by_key, self.by_row) = (None, None);
        self.look_up_anew();
    }

    /// Changes numbers of rows that count to what they are after [`Arrangement::compact`] has kept `kept`.
    pub fn renumber<'a>(kept: &[u32], ids: impl Iterator<Item = &'a mut u32>) {
        let mut now = vec![NONE; kept.last().map_or(0, |last| *last as usize + 1)];
        kept.iter().zip(0u32..).for_each(|(old, new)| now[*old as usize] = new);
        ids.for_each(|id| *id = now[*id as usize]);
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        (self.rows, self.weights) = (RowStore::new(self.rows.schema()), Weights::default());
        self.forget_indexes();
        (self.dead, self.total, self.owed) = (0, 0, 0);
    }

    /// Gives its rows, those that do not count among them: their numbers stay what they are.
    pub fn save(&self, state: &mut Saved) {
        state.rows(self.rows.schema(), self.rows.tiles().to_vec());
        state.weights(&self.weights);
    }

    /// Takes up what [`Arrangement::save`] gave, in the place of what it holds.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let tiles = state.rows(self.rows.schema())?;
        self.rows = RowStore::of(self.rows.schema(), &tiles)?;
        self.weights = state.weights(self.rows.len())?;
        self.forget_indexes();
        (self.dead, self.total, self.owed) = (0, self.rows.len() as i64, 0);
        if let Some(weights) = self.weights.exceptional() {
            self.total = 0;
            for weight in weights {
                self.dead += usize::from(weight == 0);
                self.total += weight;
                self.owed += weight.min(0);
            }
        }
        Ok(())
    }

    /// The rows as they are now, unchanging.
    pub fn snapshot(&self) -> ArrangementSnapshot {
        ArrangementSnapshot::new(
            self.rows.schema(),
            self.rows.tiles().to_vec(),
            self.weights.clone(),
            self.total - self.owed,
        )
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use super::*;
    use crate::engine::delta::batch;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Rng, tally};
    use arrow::array::{Array, AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Int64Type, Schema};

    fn delta(rows: &[(Option<i64>, Option<String>, i64)]) -> Delta {
        let schema = Arc::new(Schema::new(vec![
            Field::new("k", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
        ]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))),
            Arc::new(StringViewArray::from_iter(rows.iter().map(|r| r.1.as_ref()))),
        ];
        let rows_only = batch(&schema, columns, rows.len()).unwrap();
        Delta::weighted(rows_only, rows.iter().map(|r| r.2).collect()).unwrap()
    }

    fn random_rows(rng: &mut Rng, n: usize) -> Vec<(Option<i64>, Option<String>, i64)> {
        let row = |_| {
            let key = (!rng.one_in(8)).then(|| rng.below(6) as i64);
            let text = (!rng.one_in(8)).then(|| {
                let n = rng.below(4);
                if rng.one_in(2) { format!("{n}") } else { format!("a rather long text {n}") }
            });
            let weight = [1, 1, 1, 2, -1, -1, -1, -2][rng.below(8)];
            (key, text, weight)
        };
        (0..n).map(row).collect()
    }

    /// Applies random changes, with retractions of what is not there among them, and compares scan, snapshot and probe.
    fn check(seed: u64) {
        let mut rng = Rng::new(seed);
        let schema = delta(&[]).rows.schema();
        let mut bag = Arrangement::new(&schema, vec![0]);
        let mut all: Vec<Delta> = Vec::new();
        let mut degrees: BTreeMap<u32, i64> = BTreeMap::new();
        for round in 0..30 {
            let n = rng.below(60);
            let change = delta(&random_rows(&mut rng, n));
            let before = (bag.snapshot(), tally(&all));
            bag.apply_with(&change, None, |position, id, old, new| {
                assert_eq!(*degrees.get(&id).unwrap_or(&0), old, "told weights follow each other");
                assert!((position as usize) < change.num_rows());
                degrees.insert(id, new);
            })
            .unwrap();
            all.push(change);
            if round % 7 == 0
                && let Some(map) = bag.compact().unwrap()
            {
                degrees = map.iter().zip(0..).map(|(old, new)| (new, degrees[old])).collect();
            }
            for (id, weight) in &degrees {
                assert_eq!(bag.weight(*id), *weight);
            }
            assert_eq!(tally(&bag.snapshot().deltas().unwrap()), tally(&all));
            assert_eq!(tally(&before.0.deltas().unwrap()), before.1, "a snapshot does not change");
            assert_eq!(bag.total_weight(), all.iter().map(Delta::net_rows).sum::<i64>());

            let probing: ArrayRef =
                Arc::new(Int64Array::from(vec![Some(1), None, Some(5), Some(9), Some(1)]));
            let keys = Keys::new(vec![Arc::clone(&probing)], 5);
            let nulls_match = rng.one_in(2);
            let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
            let mut found: BTreeMap<u32, i64> = BTreeMap::new();
            loop {
                let more = bag.probe(&keys, nulls_match, &mut cursor, 3, &mut matches).unwrap();
                let stored = bag.gather(&matches.ids, 0..2).unwrap();
                let stored: &Int64Array = stored[0].as_primitive::<Int64Type>();
                for (at, (row, id)) in matches.probe.iter().zip(&matches.ids).enumerate() {
                    assert!(probing.slice(*row as usize, 1).to_data() == stored.slice(at, 1).to_data());
                    *found.entry(*row).or_default() += bag.weight(*id);
                }
                if !more {
                    break;
                }
            }
            for (row, key) in [(0, Some(1)), (1, None), (2, Some(5)), (3, Some(9)), (4, Some(1))] {
                let mut expected = 0;
                for d in &all {
                    let keys: &Int64Array = d.rows.column(0).as_primitive();
                    let hits = (0..d.num_rows()).filter(|i| keys.is_valid(*i).then(|| keys.value(*i)) == key);
                    expected += hits.map(|i| d.weight(i)).sum::<i64>();
                }
                let expected = if key.is_none() && !nulls_match { 0 } else { expected };
                assert_eq!(found.get(&row).copied().unwrap_or(0), expected);
            }
        }
    }

    #[test]
    fn it_is_a_multiset_whatever_comes() {
        (0..15).for_each(check);
        weak::with(|| (15..30).for_each(check));
    }

    #[test]
    fn equal_rows_go_in_time_proportional_to_their_number() {
        let rows: Vec<_> = (0..50_000)
            .map(|i| (Some(7), Some("the very same row again".to_string()), if i % 2 == 0 { 1 } else { 2 }))
            .collect();
        let change = delta(&rows);
        let mut bag = Arrangement::new(&change.rows.schema(), vec![0]);
        bag.apply(&change, None).unwrap();
        bag.apply(&change.negate(), None).unwrap();
        assert_eq!((bag.live_rows(), bag.total_weight()), (0, 0));
        assert!(bag.compact().unwrap().is_some());
        assert_eq!(bag.ids(), 0);
    }
}
