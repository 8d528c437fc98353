//! An input's stored rows, and how changes of every kind become exact deltas against them.

use arrow::array::{Array, BooleanArray, RecordBatch, UInt32Array, new_null_array};
use arrow::compute::kernels::zip::zip;
use arrow::datatypes::SchemaRef;

use crate::engine::delta::{batch, nullable, take_rows, with_schema};
use crate::engine::keys::{KeySpec, Keys};
use crate::engine::state::{Arrangement, ArrangementSnapshot, Cursor, Matches, Table};
use crate::engine::{Delta, InputChange, InputSpec};
use crate::error::{Error, Result, SqlState};

/// The collection that a table or a source's output is.
pub struct Input {
    name: String,
    schema: SchemaRef,
    // With a key there is at most one stored row per key.
    key: Option<KeySpec>,
    rows: Option<Arrangement>,
}

impl Input {
    /// An empty input.
    pub fn new(spec: &InputSpec) -> Result<Input> {
        let schema = nullable(&spec.schema);
        let key = if spec.key.is_empty() { None } else { Some(KeySpec::columns(&spec.key, &schema)?) };
        let rows = match &key {
            Some(key) => Some(Arrangement::new(key.stored_schema(), key.positions().to_vec())),
            None => spec.retain.then(|| Arrangement::by_row(&schema)),
        };
        Ok(Input { name: spec.name.clone(), schema, key, rows })
    }

    /// Applies a change to the stored rows and says what became of them, exactly. Changes of one tick are applied in
    /// their order; each sees those before it.
    pub fn apply(&mut self, change: InputChange) -> Result<Vec<Delta>> {
        let deltas = match change {
            InputChange::Delta(delta) => vec![Delta { rows: self.own(&delta.rows)?, weights: delta.weights }],
            InputChange::Upsert { rows, deletes } => {
                let rows = self.own(&rows)?;
                return self.upsert(rows, |i| deletes.as_ref().is_some_and(|d| d.is_valid(i) && d.value(i)));
            }
            InputChange::Patch { rows, unchanged } => {
                let rows = self.complete(self.own(&rows)?, &unchanged)?;
                return self.upsert(rows, |_| false);
            }
            InputChange::Truncate => return self.truncate(),
            InputChange::Replace(rows) => return self.replace(rows),
        };
        if let Some(stored) = &mut self.rows {
            for delta in &deltas {
                match &self.key {
                    Some(key) => {
                        let (delta, keys) = key.evaluate(delta.clone(), &mut Vec::new())?;
                        stored.apply(&key.store(delta, &keys)?, Some(&keys.hashes))?;
                    }
                    None => stored.apply(delta, None)?,
                }
            }
        }
        Ok(deltas.into_iter().flat_map(Delta::chunks).collect())
    }

    /// The same rows in an input of these columns: its own, and more behind them, which are NULL in all rows.
    ///
    /// # Errors
    /// XX000 when it keeps no rows: what its views have seen cannot be told.
    pub fn widened(&self, spec: &InputSpec) -> Result<Input> {
        if self.rows.is_none() {
            return Err(Error::internal(format!("{} keeps no rows and gets no columns", self.name)));
        }
        let mut wider = Input::new(spec)?;
        for delta in self.snapshot()?.deltas()? {
            wider.apply(InputChange::Delta(delta))?;
        }
        wider.commit()?;
        Ok(wider)
    }

    /// The rows in the input's columns. They may have been made when it had fewer: the others are NULL then.
    fn own(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        if rows.num_columns() < self.schema.fields().len() {
            let later = self.schema.fields().iter().skip(rows.num_columns());
            let later = later.map(|field| new_null_array(field.data_type(), rows.num_rows()));
            let columns = rows.columns().iter().cloned().chain(later).collect();
            return batch(&self.schema, columns, rows.num_rows());
        }
        let types = |s: &SchemaRef| s.fields().iter().map(|f| f.data_type().clone()).collect::<Vec<_>>();
        if types(&self.schema) != types(rows.schema_ref()) {
            return Err(Error::internal(format!("rows for {} have other columns than it has", self.name)));
        }
        with_schema(rows, &self.schema)
    }

    fn upsert(&mut self, rows: RecordBatch, deletes: impl Fn(usize) -> bool) -> Result<Vec<Delta>> {
        let (Some(key), Some(stored)) = (&self.key, &mut self.rows) else {
            return Err(Error::internal(format!("{} has no key to upsert by", self.name)));
        };
        let (delta, keys) = key.evaluate(Delta::insert(rows), &mut Vec::new())?;
        let last = last_of_each_key(key, &keys)?;
        let rows = take_rows(&delta.rows, &last)?;
        let columns =
            keys.columns.iter().map(|c| Ok(arrow::compute::take(c, &UInt32Array::from(last.clone()), None)?));
        let keys = Keys::new(columns.collect::<Result<Vec<_>>>()?, last.len());

        let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
        stored.probe(&keys, true, &mut cursor, usize::MAX, &mut matches)?;
        let old = batch(&self.schema, stored.gather(&matches.ids, 0..key.width())?, matches.ids.len())?;
        let old_weights: Vec<i64> = matches.ids.iter().map(|id| -stored.weight(*id)).collect();
        let old = Delta::weighted(old, old_weights)?;
        let comes: Vec<u32> =
            (0..last.len() as u32).filter(|i| !deletes(last[*i as usize] as usize)).collect();
        let new = Delta::insert(take_rows(&rows, &comes)?);

        // A row that is replaced by itself is no change.
        let change = match old.is_empty() {
            true => new,
            false => Delta::concat(&self.schema, &[old, new])?.consolidate()?,
        };
        let (change, keys) = key.evaluate(change, &mut Vec::new())?;
        stored.apply(&key.store(change.clone(), &keys)?, Some(&keys.hashes))?;
        Ok(change.chunks())
    }

    /// The rows with the values that stay taken from the stored rows of their keys; NULL where there is no such row.
    fn complete(&mut self, rows: RecordBatch, unchanged: &[(usize, BooleanArray)]) -> Result<RecordBatch> {
        let (Some(key), Some(stored)) = (&self.key, &mut self.rows) else {
            return Err(Error::internal(format!("{} has no key to patch by", self.name)));
        };
        let (delta, keys) = key.evaluate(Delta::insert(rows), &mut Vec::new())?;
        let (mut cursor, mut matches) = (Cursor::default(), Matches::default());
        stored.probe(&keys, true, &mut cursor, usize::MAX, &mut matches)?;
        let mut place: Vec<Option<u32>> = vec![None; delta.rows.num_rows()];
        matches.probe.iter().zip(0..).for_each(|(row, found)| place[*row as usize] = Some(found));
        let place = UInt32Array::from(place);
        let mut columns = delta.rows.columns().to_vec();
        for (column, stays) in unchanged {
            let old = stored.gather(&matches.ids, *column..*column + 1)?;
            let old = arrow::compute::take(&old[0], &place, None)?;
            columns[*column] = zip(stays, &old, &columns[*column])?;
        }
        Ok(RecordBatch::try_new(delta.rows.schema(), columns)?)
    }

    fn truncate(&mut self) -> Result<Vec<Delta>> {
        let Some(stored) = &mut self.rows else {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("\"{}\" keeps no rows that could be truncated", self.name),
            ));
        };
        let mut gone = Vec::new();
        for delta in stored.snapshot().project(&self.schema)?.deltas()? {
            gone.extend(delta.negate().chunks());
        }
        stored.clear();
        Ok(gone)
    }

    fn replace(&mut self, rows: RecordBatch) -> Result<Vec<Delta>> {
        // Before anything goes away.
        let rows = self.own(&rows)?;
        let mut deltas = self.truncate()?;
        deltas.extend(self.apply(match self.key {
            Some(_) => InputChange::Upsert { rows, deletes: None },
            None => InputChange::Delta(Delta::insert(rows)),
        })?);
        Ok(Delta::concat(&self.schema, &deltas)?.consolidate()?.chunks())
    }

    /// Ends a tick.
    pub fn commit(&mut self) -> Result<()> {
        if let Some(rows) = &mut self.rows {
            rows.compact()?;
        }
        Ok(())
    }

    /// Whether rows are kept.
    pub fn retains(&self) -> bool {
        self.rows.is_some()
    }

    /// The stored rows as they are now; none if none are kept.
    pub fn snapshot(&self) -> Result<ArrangementSnapshot> {
        match &self.rows {
            Some(rows) => rows.snapshot().project(&self.schema),
            None => Ok(ArrangementSnapshot::empty(&self.schema)),
        }
    }

    /// Bytes held.
    pub fn state_bytes(&self) -> usize {
        self.rows.as_ref().map_or(0, Arrangement::bytes)
    }

    /// Rows held.
    pub fn state_rows(&self) -> usize {
        self.rows.as_ref().map_or(0, Arrangement::live_rows)
    }
}

/// The position of the last row of each key, ascending.
fn last_of_each_key(key: &KeySpec, keys: &Keys) -> Result<Vec<u32>> {
    let mut table = Table::new(key.types().to_vec());
    let slots = table.upsert(keys)?;
    let mut last: Vec<u32> = vec![0; table.slots()];
    slots.iter().zip(0..).for_each(|(slot, row)| last[*slot as usize] = row);
    last.sort_unstable();
    Ok(last)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::datatypes::{DataType, Schema};

    use super::*;
    use crate::engine::CollectionId;
    use crate::engine::keys::weak;
    use crate::engine::ops::testing::{Rng, random_delta, row_at, sample_schema, tally};

    fn spec(key: Vec<usize>, retain: bool) -> InputSpec {
        InputSpec {
            id: CollectionId(1),
            name: "t".into(),
            schema: sample_schema(),
            key,
            retain,
            watermark: None,
        }
    }

    /// Upserts, deletes, exact deltas and truncations against a map, key by key.
    fn check_keyed(seed: u64) {
        let mut rng = Rng::new(seed);
        let key = [vec![0], vec![1], vec![2, 0]][seed as usize % 3].clone();
        let mut input = Input::new(&spec(key.clone(), true)).unwrap();
        let mut model: BTreeMap<Vec<String>, Vec<String>> = BTreeMap::new();
        let mut followed: Vec<Delta> = Vec::new();
        for _ in 0..40 {
            let n = rng.below(25);
            let rows = random_delta(&mut rng, n, false).rows;
            let key_of =
                |row: &[String]| key.iter().map(|k| row[*k].replace("-0.0", "0.0")).collect::<Vec<_>>();
            let change = match rng.below(10) {
                0 => {
                    model.clear();
                    InputChange::Truncate
                }
                2 => {
                    model.clear();
                    (0..n).map(|i| row_at(&rows, i)).for_each(|row| {
                        model.insert(key_of(&row), row);
                    });
                    InputChange::Replace(rows)
                }
                1 => {
                    // What is there goes, exactly.
                    let all = input.snapshot().unwrap().batches().unwrap();
                    let Some(some) = all.first() else { continue };
                    let some = some.slice(0, some.num_rows().div_ceil(2));
                    (0..some.num_rows()).for_each(|i| {
                        model.remove(&key_of(&row_at(&some, i)));
                    });
                    InputChange::Delta(Delta::delete(some))
                }
                _ => {
                    let deletes = BooleanArray::from_iter(
                        (0..n).map(|_| [Some(true), Some(false), Some(false), None][rng.below(4)]),
                    );
                    for i in 0..n {
                        let row = row_at(&rows, i);
                        if deletes.is_valid(i) && deletes.value(i) {
                            model.remove(&key_of(&row));
                        } else {
                            model.insert(key_of(&row), row);
                        }
                    }
                    InputChange::Upsert { rows, deletes: Some(deletes) }
                }
            };
            followed.extend(input.apply(change).unwrap());
            if rng.one_in(3) {
                input.commit().unwrap();
            }
            let mut expected: BTreeMap<Vec<String>, i64> = BTreeMap::new();
            model.values().for_each(|row| *expected.entry(row.clone()).or_default() += 1);
            assert_eq!(tally(&followed), expected);
            assert_eq!(tally(&input.snapshot().unwrap().deltas().unwrap()), expected);
            assert_eq!(input.snapshot().unwrap().num_rows(), model.len());
        }
    }

    #[test]
    fn the_last_row_of_a_key_wins() {
        (0..60).for_each(check_keyed);
        weak::with(|| (60..90).for_each(check_keyed));
    }

    #[test]
    fn without_a_key_it_is_a_bag() {
        let mut rng = Rng::new(5);
        let mut kept = Input::new(&spec(vec![], true)).unwrap();
        let mut passed = Input::new(&spec(vec![], false)).unwrap();
        let mut all = Vec::new();
        for _ in 0..20 {
            let delta = random_delta(&mut rng, 30, true);
            all.push(delta.clone());
            let out = kept.apply(InputChange::Delta(delta.clone())).unwrap();
            assert_eq!(tally(&out), tally(std::slice::from_ref(&delta)));
            assert_eq!(tally(&passed.apply(InputChange::Delta(delta)).unwrap()), tally(&out));
            assert_eq!(tally(&kept.snapshot().unwrap().deltas().unwrap()), tally(&all));
        }
        assert_eq!(passed.snapshot().unwrap().num_rows(), 0);
        assert!(passed.apply(InputChange::Truncate).is_err());
        all.extend(kept.apply(InputChange::Truncate).unwrap());
        assert!(tally(&all).is_empty());
        let upsert = InputChange::Upsert { rows: random_delta(&mut rng, 1, false).rows, deletes: None };
        assert!(kept.apply(upsert).is_err(), "there is no key to upsert by");
    }

    #[test]
    fn a_patch_keeps_what_it_does_not_tell() {
        let mut rng = Rng::new(9);
        let mut input = Input::new(&spec(vec![0], true)).unwrap();
        let rows = random_delta(&mut rng, 40, false).rows;
        let mut followed = input.apply(InputChange::Upsert { rows, deletes: None }).unwrap();
        let before: Vec<RecordBatch> = input.snapshot().unwrap().batches().unwrap();
        let before = arrow::compute::concat_batches(&before[0].schema(), &before).unwrap();
        // New values in every column but the key; every other row keeps its last column.
        let other = random_delta(&mut rng, before.num_rows(), false).rows;
        let last = before.num_columns() - 1;
        let stays: BooleanArray = (0..before.num_rows()).map(|i| Some(i % 2 == 0)).collect();
        let mut patched = other.columns().to_vec();
        patched[0] = before.column(0).clone();
        let mut expected = patched.clone();
        expected[last] = zip(&stays, before.column(last), &patched[last]).unwrap();
        let patch = RecordBatch::try_new(other.schema(), patched).unwrap();
        let change = InputChange::Patch { rows: patch, unchanged: vec![(last, stays)] };
        followed.extend(input.apply(change).unwrap());
        let expected = Delta::insert(RecordBatch::try_new(other.schema(), expected).unwrap());
        assert_eq!(tally(&followed), tally(std::slice::from_ref(&expected)));
        assert_eq!(tally(&input.snapshot().unwrap().deltas().unwrap()), tally(&[expected]));
    }

    #[test]
    fn more_columns_are_null_in_the_rows_there_are() {
        let mut rng = Rng::new(8);
        for key in [vec![], vec![0]] {
            let mut input = Input::new(&spec(key.clone(), true)).unwrap();
            input.apply(InputChange::Replace(random_delta(&mut rng, 20, false).rows)).unwrap();
            let before = input.snapshot().unwrap();
            let mut fields = sample_schema().fields().to_vec();
            fields.push(Arc::new(arrow::datatypes::Field::new("more", DataType::Int64, true)));
            let wide = InputSpec { schema: Arc::new(Schema::new(fields)), ..spec(key, true) };
            let wider = input.widened(&wide).unwrap().snapshot().unwrap();
            assert_eq!(wider.num_rows(), before.num_rows());
            let last = before.schema().fields().len();
            let (before, after) = (before.deltas().unwrap(), wider.deltas().unwrap());
            assert!(after.iter().all(|d| d.rows.column(last).null_count() == d.num_rows()));
            let own: Vec<usize> = (0..last).collect();
            let narrowed = after.into_iter().map(|d| Delta { rows: d.rows.project(&own).unwrap(), ..d });
            assert_eq!(tally(&narrowed.collect::<Vec<_>>()), tally(&before));
        }
        let passed = Input::new(&spec(vec![], false)).unwrap();
        assert!(passed.widened(&spec(vec![], false)).is_err());
    }

    #[test]
    fn what_replaces_all_rows_tells_what_differs() {
        let mut rng = Rng::new(7);
        for key in [vec![], vec![0]] {
            let mut input = Input::new(&spec(key, true)).unwrap();
            let rows = random_delta(&mut rng, 20, false).rows;
            let mut followed = input.apply(InputChange::Replace(rows.clone())).unwrap();
            assert!(input.apply(InputChange::Replace(rows.clone())).unwrap().is_empty());
            followed.extend(input.apply(InputChange::Replace(rows.slice(0, 5))).unwrap());
            assert_eq!(tally(&followed), tally(&input.snapshot().unwrap().deltas().unwrap()));
        }
        let mut passed = Input::new(&spec(vec![], false)).unwrap();
        assert!(passed.apply(InputChange::Replace(random_delta(&mut rng, 1, false).rows)).is_err());
    }

    #[test]
    fn replacing_a_row_by_itself_is_no_change() {
        let mut rng = Rng::new(6);
        let mut input = Input::new(&spec(vec![0], true)).unwrap();
        let rows = random_delta(&mut rng, 20, false).rows;
        let upsert = || InputChange::Upsert { rows: rows.clone(), deletes: None };
        assert!(!input.apply(upsert()).unwrap().is_empty());
        assert!(input.apply(upsert()).unwrap().is_empty());
    }
}
