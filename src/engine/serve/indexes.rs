//! Finding rows of a collection by the values of some columns.
//!
//! An index is made of one order for each tile of the collection: the tile's rows, two bytes each, by the index's
//! columns. Tiles never change, so neither do their orders; a snapshot shares with the next all but the last small tiles,
//! and the orders with them. An order is made when the first look-up needs it. So writes pay nothing for an index, a
//! look-up is a binary search in each tile, and readers need no lock of the tick thread's.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::sync::{Arc, Weak};

use arrow::array::{Array, ArrayRef, DynComparator, RecordBatch, UInt32Array, make_comparator};
use arrow::compute::{SortColumn, SortOptions, concat_batches, lexsort_to_indices, take};
use arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::ScalarValue;
use parking_lot::{Mutex, RwLock};

use crate::engine::delta::batch;
use crate::engine::state::ArrangementSnapshot;
use crate::error::Result;

/// In tiles of fewer rows all are looked at.
const ORDERED_ROWS_MIN: usize = 2048;

/// A search that finds more than one row in so many is given up: to read all of them costs less than to pick these.
const FEW_OF: usize = 8;

/// The order of all columns of an index.
const ASCENDING: SortOptions = SortOptions { descending: false, nulls_first: true };

/// A collection's indexes, the same for all its snapshots.
pub struct Indexes {
    key: Option<Arc<Index>>,
    declared: RwLock<Vec<Arc<Index>>>,
}

/// One index.
pub struct Index {
    columns: Vec<usize>,
    orders: Mutex<Orders>,
}

/// By the address of the tile's first indexed column, which is that column's as long as the weak reference is alive.
type Orders = HashMap<usize, (Weak<dyn Array>, Arc<[u16]>)>;

/// What is looked for: rows whose first columns, in the index's order, have one of these values each, and whose next
/// column is between two values. More may be found.
pub struct Search {
    index: Arc<Index>,
    /// By column: one value a point. All are equally long.
    points: Vec<ArrayRef>,
    low: Option<ArrayRef>,
    high: Option<ArrayRef>,
}

/// A bound on a column, as far as an index cares: equality with one of these values, or a side of the value.
pub(super) enum Bound {
    /// One of these.
    In(Vec<ScalarValue>),
    /// Not below it.
    Low(ScalarValue),
    /// Not above it.
    High(ScalarValue),
}

/// The most points of one search.
const POINTS_MAX: usize = 1024;

/// Whether values of this type are equal if and only if their bits are, and in the order that SQL says.
fn is_plain(data_type: &DataType) -> bool {
    data_type.is_integer()
        || matches!(
            data_type,
            DataType::Date32
                | DataType::Timestamp(..)
                | DataType::Time64(_)
                | DataType::Decimal128(..)
                | DataType::Utf8View
                | DataType::FixedSizeBinary(_)
        )
}

impl Indexes {
    /// Indexes of a collection with this key.
    pub(crate) fn new(schema: &Schema, key: &[usize]) -> Arc<Indexes> {
        let key = (!key.is_empty()).then(|| Index::new(schema, key)).flatten();
        Arc::new(Indexes { key, declared: RwLock::default() })
    }

    /// Sets which columns, by position, have indexes besides the key; those that were there stay as they are.
    pub(crate) fn declare(&self, schema: &Schema, indexes: &[Vec<usize>]) {
        let mut declared = self.declared.write();
        let found = |columns: &Vec<usize>| declared.iter().find(|i| i.columns == *columns).cloned();
        let new = indexes.iter().filter_map(|c| found(c).or_else(|| Index::new(schema, c))).collect();
        *declared = new;
    }

    /// Whether an index has this column.
    pub(super) fn has(&self, column: usize) -> bool {
        let all = self.declared.read();
        self.key.iter().chain(&*all).any(|i| i.columns.contains(&column))
    }

    /// The search by the index that these bounds, by column, say the most of; `None` if they say nothing of any.
    pub(super) fn search(&self, bounds: &[(usize, Bound)]) -> Result<Option<Search>> {
        let all = self.declared.read();
        let mut best: Option<((usize, bool), &Arc<Index>)> = None;
        for index in self.key.iter().chain(&*all) {
            let equal = index.columns.iter().take_while(|c| alternatives(bounds, **c).is_some()).count();
            let range = index.columns.get(equal).is_some_and(|c| bounds.iter().any(|(b, _)| b == c));
            if (equal > 0 || range) && best.is_none_or(|(known, _)| (equal, range) > known) {
                best = Some(((equal, range), index));
            }
        }
        let Some(((equal, _), index)) = best else { return Ok(None) };
        let mut points: Vec<Vec<ScalarValue>> = vec![Vec::new()];
        for column in &index.columns[..equal] {
            let values = alternatives(bounds, *column).unwrap_or_default();
            if points.len() * values.len() > POINTS_MAX {
                return Ok(None);
            }
            let with = |point: &Vec<ScalarValue>, value: &ScalarValue| {
                [&point[..], std::slice::from_ref(value)].concat()
            };
            points = points.iter().flat_map(|p| values.iter().map(|v| with(p, v))).collect();
        }
        let columns = (0..equal).map(|c| ScalarValue::iter_to_array(points.iter().map(|p| p[c].clone())));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let side = |wanted: fn(&Bound) -> Option<&ScalarValue>| {
            let next = index.columns.get(equal)?;
            bounds.iter().filter(|(c, _)| c == next).find_map(|(_, b)| wanted(b))
        };
        let low = side(|b| if let Bound::Low(value) = b { Some(value) } else { None });
        let high = side(|b| if let Bound::High(value) = b { Some(value) } else { None });
        Ok(Some(Search {
            index: Arc::clone(index),
            points: columns,
            low: low.map(ScalarValue::to_array).transpose()?,
            high: high.map(ScalarValue::to_array).transpose()?,
        }))
    }
}

/// The values that a column may have, where the bounds name them.
fn alternatives(bounds: &[(usize, Bound)], column: usize) -> Option<&[ScalarValue]> {
    bounds.iter().filter(|(c, _)| *c == column).find_map(|(_, bound)| match bound {
        Bound::In(values) => Some(values.as_slice()),
        _ => None,
    })
}

impl Index {
    fn new(schema: &Schema, columns: &[usize]) -> Option<Arc<Index>> {
        let plain = columns.iter().all(|c| is_plain(schema.field(*c).data_type()));
        plain.then(|| Arc::new(Index { columns: columns.to_vec(), orders: Mutex::default() }))
    }

    /// The order of a tile's rows.
    fn order(&self, tile: &RecordBatch) -> Result<Arc<[u16]>> {
        let lead = tile.column(self.columns[0]);
        let address = Arc::as_ptr(lead).cast::<()>() as usize;
        if let Some((weak, order)) = self.orders.lock().get(&address)
            && weak.strong_count() > 0
        {
            return Ok(Arc::clone(order));
        }
        let columns = self
            .columns
            .iter()
            .map(|c| SortColumn { values: Arc::clone(tile.column(*c)), options: Some(ASCENDING) });
        let sorted = lexsort_to_indices(&columns.collect::<Vec<_>>(), None)?;
        // A tile has at most 2^16 rows.
        let order: Arc<[u16]> = sorted.values().iter().map(|row| *row as u16).collect();
        let mut orders = self.orders.lock();
        orders.retain(|_, (weak, _)| weak.strong_count() > 0);
        orders.insert(address, (Arc::downgrade(lead), Arc::clone(&order)));
        Ok(order)
    }
}

impl Search {
    /// How many columns have one value each in every row that it finds.
    pub(super) fn columns(&self) -> usize {
        self.points.len()
    }

    /// The rows of a snapshot among which are all that are looked for, with these columns, each as often as it counts;
    /// `None` when there are so many that a scan costs less.
    pub(super) fn run(&self, rows: &ArrangementSnapshot, columns: &[usize]) -> Result<Option<RecordBatch>> {
        let schema: SchemaRef = Arc::new(rows.schema().project(columns)?);
        let all: usize = rows.tiles().iter().map(|tile| tile.num_rows()).sum();
        let mut few = all / FEW_OF + ORDERED_ROWS_MIN;
        let mut found = Vec::new();
        let mut first = 0;
        for tile in rows.tiles() {
            let mut places = Vec::new();
            let wanted = self.rows_of(tile)?;
            let Some(left) = few.checked_sub(wanted.len()) else { return Ok(None) };
            few = left;
            for row in wanted {
                let weight = rows.weight(first + row);
                places.extend((0..weight).map(|_| row));
            }
            first += tile.num_rows() as u32;
            if places.is_empty() {
                continue;
            }
            places.sort_unstable();
            let places = UInt32Array::from(places);
            let taken = columns.iter().map(|c| take(tile.column(*c), &places, None));
            found.push(batch(&schema, taken.collect::<Result<Vec<_>, _>>()?, places.len())?);
        }
        match &found[..] {
            [one] => Ok(Some(one.clone())),
            _ => Ok(Some(concat_batches(&schema, &found)?)),
        }
    }

    fn rows_of(&self, tile: &RecordBatch) -> Result<Vec<u32>> {
        let column = |at: usize| tile.column(self.index.columns[at]);
        let compare = |at: usize, values: &ArrayRef| make_comparator(column(at), values, ASCENDING);
        let points: Vec<DynComparator> =
            self.points.iter().enumerate().map(|(at, v)| compare(at, v)).collect::<Result<_, _>>()?;
        let next = self.points.len();
        let low = self.low.as_ref().map(|v| compare(next, v)).transpose()?;
        let high = self.high.as_ref().map(|v| compare(next, v)).transpose()?;
        // How a row stands to the range that begins with a point: before it, in it, behind it.
        let stands = |row: usize, point: usize| {
            let equal = points.iter().map(|c| c(row, point)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal);
            equal.then_with(|| match (&low, &high) {
                (Some(low), _) if low(row, 0).is_lt() => Ordering::Less,
                (_, Some(high)) if high(row, 0).is_gt() => Ordering::Greater,
                _ => Ordering::Equal,
            })
        };
        let count = self.points.first().map_or(1, |p| p.len());
        let mut found = Vec::new();
        if tile.num_rows() < ORDERED_ROWS_MIN {
            let wanted = |row: &usize| (0..count).any(|point| stands(*row, point).is_eq());
            found.extend((0..tile.num_rows()).filter(wanted).map(|row| row as u32));
            return Ok(found);
        }
        let order = self.index.order(tile)?;
        for point in 0..count {
            let begin = order.partition_point(|row| stands(usize::from(*row), point).is_lt());
            let rows = order[begin..].iter().take_while(|row| stands(usize::from(**row), point).is_eq());
            found.extend(rows.map(|row| u32::from(*row)));
        }
        // The same value may have been asked for twice.
        if count > 1 {
            found.sort_unstable();
            found.dedup();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Delta;
    use crate::engine::ops::testing::Rng;
    use crate::engine::state::Arrangement;
    use arrow::array::{AsArray, Int64Array, StringViewArray};
    use arrow::datatypes::{Field, Int64Type};

    fn rows(rng: &mut Rng, n: usize) -> RecordBatch {
        let schema = Schema::new(vec![
            Field::new("a", DataType::Int64, true),
            Field::new("s", DataType::Utf8View, true),
            Field::new("n", DataType::Int64, true),
        ]);
        let a = Int64Array::from_iter((0..n).map(|_| (!rng.one_in(9)).then(|| rng.below(50) as i64)));
        let s = StringViewArray::from_iter((0..n).map(|_| Some(format!("text {}", rng.below(20)))));
        let n = Int64Array::from_iter_values((0..n).map(|_| rng.below(1000) as i64));
        RecordBatch::try_new(Arc::new(schema), vec![Arc::new(a), Arc::new(s), Arc::new(n)]).unwrap()
    }

    /// Random searches in tiles of all sizes, among rows that came twice and rows that went, against a look at all rows.
    #[test]
    fn a_search_finds_what_a_scan_finds() {
        let mut rng = Rng::new(7);
        let first = rows(&mut rng, 70_000);
        let schema = first.schema();
        let mut arrangement = Arrangement::by_row(&schema);
        arrangement.apply(&Delta::insert(first.clone()), None).unwrap();
        let indexes = Indexes::new(&schema, &[0, 1]);
        indexes.declare(&schema, &[vec![2], vec![1, 2]]);
        let int = |v: usize| ScalarValue::Int64(Some(v as i64));
        let text = |v: usize| ScalarValue::Utf8View(Some(format!("text {v}")));
        for step in 0..60 {
            let more = rows(&mut rng, 1 + step * 40);
            arrangement.apply(&Delta::insert(more.clone()), None).unwrap();
            arrangement.apply(&Delta::insert(more.slice(0, more.num_rows() / 2)), None).unwrap();
            let at = rng.below(60_000);
            arrangement.apply(&Delta::delete(more.slice(0, 1)), None).unwrap();
            if step % 7 == 0 {
                arrangement.apply(&Delta::delete(first.slice(at / 7 * 7 + step, 1)), None).unwrap();
            }
            let (a, s, n) = (rng.below(60), rng.below(22), rng.below(1000));
            let bounds = match step % 6 {
                0 => vec![(0, Bound::In(vec![int(a)]))],
                1 => vec![(0, Bound::In(vec![int(a), int(a + 1), int(a)])), (1, Bound::In(vec![text(s)]))],
                2 => vec![(2, Bound::Low(int(n))), (2, Bound::High(int(n + 3)))],
                3 => vec![(1, Bound::In(vec![text(s)])), (2, Bound::Low(int(990)))],
                4 => vec![(2, Bound::High(int(1)))],
                _ => vec![(2, Bound::In(vec![int(n), int(n + 500)]))],
            };
            let snapshot = arrangement.snapshot();
            let search = indexes.search(&bounds).unwrap().expect("an index fits");
            let found = search.run(&snapshot, &[2, 0, 1]).unwrap().expect("few rows");
            let keep = |row: usize, all: &RecordBatch| {
                bounds.iter().all(|(column, bound)| {
                    let value = ScalarValue::try_from_array(all.column(*column), row).unwrap();
                    match bound {
                        Bound::In(values) => values.contains(&value),
                        Bound::Low(low) => !value.is_null() && value >= *low,
                        Bound::High(high) => !value.is_null() && value <= *high,
                    }
                })
            };
            let mut expected = Vec::new();
            for all in snapshot.batches().unwrap() {
                for row in (0..all.num_rows()).filter(|row| keep(*row, &all)) {
                    expected.push(all.column(2).as_primitive::<Int64Type>().value(row));
                }
            }
            let mut got: Vec<i64> = found.column(0).as_primitive::<Int64Type>().values().to_vec();
            got.sort_unstable();
            expected.sort_unstable();
            assert_eq!(got, expected, "step {step}");
        }
        assert!(indexes.search(&[(0, Bound::Low(int(1))), (2, Bound::In(vec![int(1)]))]).unwrap().is_some());
        let most = indexes.search(&[(2, Bound::Low(int(100)))]).unwrap().expect("an index fits");
        assert!(most.run(&arrangement.snapshot(), &[0]).unwrap().is_none(), "most rows are scanned");
        indexes.declare(&schema, &[]);
        assert!(indexes.search(&[(2, Bound::In(vec![int(1)]))]).unwrap().is_none());
        assert!(indexes.has(0) && indexes.has(1) && !indexes.has(2));
    }
}
