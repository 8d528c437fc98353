//! One slot per key.
//!
//! A slot is a small number that stays the key's until it is freed, and is then given to another key; operators keep
//! what they know of a key in plain vectors by slot.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};

use crate::engine::delta::{batch, take_rows};
use crate::engine::keys::{Keys, hash_is_key, hash_stored};
use crate::engine::state::NONE;
use crate::engine::state::column::{Loc, TiledColumn};
use crate::engine::state::index::HashIndex;
use crate::engine::state::rows::{RowStore, TILE_ROWS};
use crate::engine::state::saved::{Restored, Saved, misfit};
use crate::error::Result;

/// Below this number of forgotten keys nobody tidies up.
const DEAD_KEYS_MIN: usize = 4096;

/// Keys and their slots.
pub struct Table {
    keys: RowStore,
    // By slot: the number of its key in `keys` and its hash; `NONE` for a free slot.
    key_of: Vec<u32>,
    hash_of: Vec<u64>,
    free: Vec<u32>,
    index: HashIndex,
    hash_is_key: bool,
}

impl Table {
    /// A table of keys with columns of these types.
    pub fn new(types: Vec<DataType>) -> Table {
        let hash_is_key = hash_is_key(&types);
        let fields = types.into_iter().enumerate().map(|(i, t)| Field::new(format!("key {i}"), t, true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        Table {
            keys: RowStore::new(&schema),
            key_of: Vec::new(),
            hash_of: Vec::new(),
            free: Vec::new(),
            index: HashIndex::default(),
            hash_is_key,
        }
    }

    /// Keys that have a slot.
    pub fn len(&self) -> usize {
        self.key_of.len() - self.free.len()
    }

    /// Whether no key has one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Slots ever given out: all are below it.
    pub fn slots(&self) -> usize {
        self.key_of.len()
    }

    /// Bytes of keys and index.
    pub fn bytes(&self) -> usize {
        self.keys.bytes() + self.index.bytes() + self.key_of.capacity() * 4 + self.hash_of.capacity() * 8
    }

    /// The slot of each key; a key that has none gets one.
    pub fn upsert(&mut self, keys: &Keys) -> Result<Vec<u32>> {
        let mut slots = Vec::with_capacity(keys.len());
        let mut added: Vec<u32> = Vec::new();
        for (row, hash) in keys.hashes.iter().enumerate() {
            let (mut slot, _) = self.index.find(*hash);
            if slot == NONE {
                slot = self.allocate(*hash, self.keys.len() + added.len());
                added.push(row as u32);
            }
            slots.push(slot);
        }
        if !added.is_empty() {
            let new = self.rows_of(keys, &added)?;
            self.keys.append(&new)?;
        }
        for row in self.mismatches(keys, &slots) {
            // Another key of the same hash has the first slot; look at all, one by one.
            let hash = keys.hashes[row];
            let columns: Vec<TiledColumn> = keys.columns.iter().map(TiledColumn::of).collect();
            let found = self.index.chain(hash).find(|s| self.is_key(*s, &columns, row));
            slots[row] = match found {
                Some(slot) => slot,
                None => {
                    let slot = self.allocate(hash, self.keys.len());
                    let new = self.rows_of(keys, &[row as u32])?;
                    self.keys.append(&new)?;
                    slot
                }
            };
        }
        Ok(slots)
    }

    /// The slot of each key, `NONE` where it has none.
    pub fn lookup(&self, keys: &Keys) -> Vec<u32> {
        let mut slots = Vec::with_capacity(keys.len());
        self.index.find_all(&keys.hashes, &mut slots);
        let mismatches = self.mismatches(keys, &slots);
        if !mismatches.is_empty() {
            let columns: Vec<TiledColumn> = keys.columns.iter().map(TiledColumn::of).collect();
            for row in mismatches {
                let mut chain = self.index.chain(keys.hashes[row]);
                slots[row] = chain.find(|s| self.is_key(*s, &columns, row)).unwrap_or(NONE);
            }
        }
        slots
    }

    /// The keys of these slots, which are in use.
    pub fn gather(&self, slots: &[u32]) -> Result<Vec<ArrayRef>> {
        let ids: Vec<u32> = slots.iter().map(|s| self.key_of[*s as usize]).collect();
        self.keys.gather(&ids, 0..self.keys.columns().len())
    }

    /// Frees a slot that is in use.
    pub fn remove(&mut self, slot: u32) {
        debug_assert_ne!(self.key_of[slot as usize], NONE, "a slot is freed once");
        self.index.remove(self.hash_of[slot as usize], slot);
        self.key_of[slot as usize] = NONE;
        self.free.push(slot);
    }

    /// Forgets the keys of freed slots if they are the most. Slots stay as they are.
    pub fn compact(&mut self) -> Result<()> {
        let dead = self.keys.len() - self.len();
        if dead < DEAD_KEYS_MIN || dead * 2 < self.keys.len() {
            return Ok(());
        }
        let live: Vec<u32> =
            (0..self.key_of.len() as u32).filter(|s| self.key_of[*s as usize] != NONE).collect();
        let mut keys = RowStore::new(self.keys.schema());
        for slots in live.chunks(TILE_ROWS) {
            let ids: Vec<u32> = slots.iter().map(|s| self.key_of[*s as usize]).collect();
            let first = keys.len() as u32;
            keys.append(&self.keys.gather_owned(&ids)?)?;
            slots.iter().zip(first..).for_each(|(s, id)| self.key_of[*s as usize] = id);
        }
        self.keys = keys;
        Ok(())
    }

    /// Gives its keys and their slots.
    pub fn save(&self, state: &mut Saved) {
        state.rows(self.keys.schema(), self.keys.tiles().to_vec());
        state.numbers(&self.key_of);
        state.numbers(&self.free);
    }

    /// Takes up what [`Table::save`] gave, in the place of what it holds.
    pub fn restore(&mut self, state: &mut Restored) -> Result<()> {
        let tiles = state.rows(self.keys.schema())?;
        self.keys = RowStore::of(self.keys.schema(), &tiles)?;
        self.key_of = state.numbers()?;
        self.free = state.numbers()?;
        let columns: Vec<usize> = (0..self.keys.columns().len()).collect();
        let hashes: Vec<u64> =
            self.keys.tiles().iter().flat_map(|tile| hash_stored(tile, &columns)).collect();
        self.hash_of = vec![0; self.key_of.len()];
        self.index = HashIndex::default();
        self.index.reserve(self.key_of.len());
        for (slot, key) in (0u32..).zip(&self.key_of) {
            if *key != NONE {
                let hash = *hashes.get(*key as usize).ok_or_else(misfit)?;
                self.hash_of[slot as usize] = hash;
                self.index.insert(hash, slot);
            }
        }
        Ok(())
    }

    fn allocate(&mut self, hash: u64, key: usize) -> u32 {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.key_of.push(NONE);
            self.hash_of.push(0);
            (self.key_of.len() - 1) as u32
        });
        self.key_of[slot as usize] = key as u32;
        self.hash_of[slot as usize] = hash;
        self.index.insert(hash, slot);
        slot
    }

    fn rows_of(&self, keys: &Keys, rows: &[u32]) -> Result<RecordBatch> {
        take_rows(&batch(self.keys.schema(), keys.columns.clone(), keys.len())?, rows)
    }

    fn is_key(&self, slot: u32, columns: &[TiledColumn], row: usize) -> bool {
        let at = self.keys.locate(self.key_of[slot as usize]);
        let there = Loc { tile: 0, row: row as u32 };
        self.keys.columns().iter().zip(columns).all(|(c, other)| c.equal(at, other, there))
    }

    /// The rows whose slot is that of another key.
    fn mismatches(&self, keys: &Keys, slots: &[u32]) -> Vec<usize> {
        if self.hash_is_key || keys.columns.is_empty() {
            return Vec::new();
        }
        let found: Vec<u32> = (0..slots.len() as u32).filter(|row| slots[*row as usize] != NONE).collect();
        let here: Vec<Loc> = found.iter().map(|row| Loc { tile: 0, row: *row }).collect();
        let stored = found.iter().map(|row| self.keys.locate(self.key_of[slots[*row as usize] as usize]));
        let stored: Vec<Loc> = stored.collect();
        let mut same = vec![true; found.len()];
        for (column, key) in self.keys.columns().iter().zip(&keys.columns) {
            column.equal_all(&stored, &TiledColumn::of(key), &here, &mut same);
        }
        found.iter().zip(same).filter(|(_, same)| !same).map(|(row, _)| *row as usize).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::Rng;
    use arrow::array::{Int64Array, StringViewArray};

    /// A table against a map, with keys coming and going and slots being reused.
    fn check(seed: u64) {
        let mut rng = Rng::new(seed);
        let mut table = Table::new(vec![DataType::Int64, DataType::Utf8View]);
        let mut model: HashMap<(Option<i64>, String), u32> = HashMap::new();
        for _ in 0..60 {
            let n = rng.below(40);
            let rows: Vec<(Option<i64>, String)> = (0..n)
                .map(|_| ((!rng.one_in(6)).then(|| rng.below(9) as i64), "text ".repeat(rng.below(5))))
                .collect();
            let columns: Vec<ArrayRef> = vec![
                Arc::new(Int64Array::from_iter(rows.iter().map(|r| r.0))),
                Arc::new(StringViewArray::from_iter_values(rows.iter().map(|r| &r.1))),
            ];
            let keys = Keys::new(columns, n);
            for (slot, row) in table.lookup(&keys).iter().zip(&rows) {
                assert_eq!(*slot, model.get(row).copied().unwrap_or(NONE));
            }
            let slots = table.upsert(&keys).unwrap();
            for (slot, row) in slots.iter().zip(&rows) {
                assert_eq!(*model.entry(row.clone()).or_insert(*slot), *slot);
            }
            let mut distinct: Vec<u32> = model.values().copied().collect();
            distinct.sort_unstable();
            distinct.dedup();
            assert_eq!((distinct.len(), table.len()), (model.len(), model.len()), "one slot a key");
            let gathered = table.gather(&slots).unwrap();
            assert_eq!(gathered, keys.columns);
            let gone: Vec<_> = model.keys().filter(|_| rng.one_in(3)).cloned().collect();
            for key in gone {
                table.remove(model.remove(&key).unwrap());
            }
        }
    }

    #[test]
    fn a_key_keeps_its_slot_until_it_is_freed() {
        (0..30).for_each(check);
        weak::with(|| (30..60).for_each(check));
    }

    #[test]
    fn forgotten_keys_make_room_and_slots_stay() {
        let mut table = Table::new(vec![DataType::Int64]);
        let keys = |range: std::ops::Range<i64>| {
            let n = range.clone().count();
            Keys::new(vec![Arc::new(Int64Array::from_iter_values(range)) as ArrayRef], n)
        };
        let slots = table.upsert(&keys(0..20_000)).unwrap();
        slots[..19_000].iter().for_each(|s| table.remove(*s));
        table.compact().unwrap();
        assert_eq!(table.keys.len(), 1000);
        assert_eq!(table.lookup(&keys(19_000..20_000)), slots[19_000..]);
        assert!(
            table.upsert(&keys(0..5)).unwrap().iter().all(|s| *s < 19_000),
            "freed slots are given again"
        );
    }

    /// Columns of the less common types are stored, hashed, compared and gathered like all others.
    #[test]
    fn keys_may_be_of_any_type() {
        use arrow::array::{Array, BinaryArray, BinaryViewArray, Int64Builder, StringDictionaryBuilder};
        use arrow::array::{
            Decimal256Array, FixedSizeBinaryArray, IntervalDayTimeArray, IntervalMonthDayNanoArray,
            LargeStringArray, MapBuilder, NullArray, StringBuilder, StructArray, UInt8Array,
        };
        use arrow::datatypes::{Int32Type, IntervalDayTime, IntervalMonthDayNano, i256};
        // Values 0, 1, NULL, 0, 1, NULL, …
        let n = 3000;
        let pick = |i: usize| [Some(0u8), Some(1), None][i % 3];
        let text = |v: u8| if v == 0 { "a" } else { "some text that is long enough to stand elsewhere" };
        let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
        let mut dictionary = StringDictionaryBuilder::<Int32Type>::new();
        for i in 0..n {
            if let Some(v) = pick(i) {
                map.keys().append_value(text(v));
                map.values().append_value(v.into());
            }
            map.append(pick(i).is_some()).unwrap();
            dictionary.append_option(pick(i).map(text));
        }
        let numbers: ArrayRef = Arc::new(UInt8Array::from_iter((0..n).map(pick)));
        let field = Arc::new(Field::new("n", DataType::UInt8, true));
        let month = |v: u8| IntervalMonthDayNano { months: v.into(), days: 1, nanoseconds: 2 };
        let day = |v: u8| IntervalDayTime { days: v.into(), milliseconds: 3 };
        let fixed = (0..n).map(|i| pick(i).map(|v| [v; 5]));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(NullArray::new(n)),
            Arc::clone(&numbers),
            Arc::new(Decimal256Array::from_iter((0..n).map(|i| pick(i).map(|v| i256::from_i128(v.into()))))),
            Arc::new(IntervalMonthDayNanoArray::from_iter((0..n).map(|i| pick(i).map(month)))),
            Arc::new(IntervalDayTimeArray::from_iter((0..n).map(|i| pick(i).map(day)))),
            Arc::new(LargeStringArray::from_iter((0..n).map(|i| pick(i).map(text)))),
            Arc::new(BinaryArray::from_iter((0..n).map(|i| pick(i).map(text)))),
            Arc::new(BinaryViewArray::from_iter((0..n).map(|i| pick(i).map(text)))),
            Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(fixed, 5).unwrap()),
            Arc::new(StructArray::from(vec![(field, numbers)])),
            Arc::new(map.finish()),
            Arc::new(dictionary.finish()),
        ];
        for column in columns {
            let distinct = if column.data_type() == &DataType::Null { 1 } else { 3 };
            let mut table = Table::new(vec![column.data_type().clone()]);
            for start in [0, 1000, 2000] {
                let keys = Keys::new(vec![column.slice(start, 1000)], 1000);
                let slots = table.upsert(&keys).unwrap();
                assert_eq!(table.len(), distinct, "{}", column.data_type());
                assert_eq!(table.lookup(&keys), slots);
                let gathered = table.gather(&slots).unwrap();
                let same = (0..1000)
                    .all(|i| gathered[0].slice(i, 1).as_ref() == keys.columns[0].slice(i, 1).as_ref());
                assert!(same, "{}", column.data_type());
            }
        }
    }
}
