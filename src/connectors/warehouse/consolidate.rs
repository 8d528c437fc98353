//! The net effect of many changes: what a batch must do to the target, row by row.
//!
//! Between two ticks a row may come and go many times; the target only needs the difference. With a key
//! that is at most one operation per key, found without asking the target: a key that only gained a row is
//! an insert, one that lost and gained a row an update, one that only lost its row a delete. Two rows of one
//! key at the end of a batch mean that the declared key is none, which is an error, never a guess.

use arrow::array::{Array, AsArray, RecordBatch, UInt64Array};
use arrow::buffer::ScalarBuffer;
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::DataType;
use arrow::util::display::array_value_to_string;
use hashbrown::HashMap;

use super::hash::row_hashes;
use super::{Counts, Mode, Shape};
use crate::engine::Delta;
use crate::error::{Error, Result, SqlState};

/// What becomes of one row of the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// It is added; nothing with its identity is there.
    Insert,
    /// It replaces the row of its key.
    Update,
    /// It goes away.
    Delete,
}

impl Op {
    /// How the operation is written in staged files.
    pub fn letter(self) -> &'static str {
        match self {
            Op::Insert => "I",
            Op::Update => "U",
            Op::Delete => "D",
        }
    }

    /// Reads [`Op::letter`].
    pub fn from_letter(letter: &str) -> Result<Op> {
        match letter {
            "I" => Ok(Op::Insert),
            "U" => Ok(Op::Update),
            "D" => Ok(Op::Delete),
            _ => Err(Error::new(
                SqlState::DATA_CORRUPTED,
                format!("staged file has the operation \"{letter}\""),
            )),
        }
    }
}

/// The net effect of a batch.
#[derive(Clone, Debug)]
pub struct Net {
    /// The rows, in the collection's columns.
    pub rows: RecordBatch,
    /// What becomes of each row.
    pub ops: Vec<Op>,
    /// Without a key: the hash of each row. Otherwise empty.
    pub hashes: Vec<u128>,
    /// Without a key: which copy of its equals each row is, counted from 0 within the batch. Otherwise empty.
    pub copies: Vec<i64>,
}

impl Net {
    /// How many rows there are of each operation.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for op in &self.ops {
            match op {
                Op::Insert => counts.inserts += 1,
                Op::Update => counts.updates += 1,
                Op::Delete => counts.deletes += 1,
            }
        }
        counts
    }
}

/// Rows that pile up before they are worth compacting.
const COMPACT_ROWS: usize = 1 << 16;

/// Changes that were not applied yet. Kept compact, so that a sink that is far behind holds
/// no more than the difference it will apply.
#[derive(Debug)]
pub struct Pending {
    shape: Shape,
    deltas: Vec<Delta>,
    rows: usize,
    bytes: usize,
    /// Rows that remained after the last compaction.
    settled: usize,
}

impl Pending {
    /// No changes yet.
    pub fn new(shape: Shape) -> Self {
        Pending { shape, deltas: Vec::new(), rows: 0, bytes: 0, settled: 0 }
    }

    /// About how much memory the changes take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to apply. Changes that cancel out still count until [`Pending::take`].
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Adds a change.
    pub fn push(&mut self, delta: Delta) -> Result<()> {
        if delta.rows.num_rows() == 0 {
            return Ok(());
        }
        self.rows += delta.rows.num_rows();
        self.bytes += size_of(&delta.rows);
        self.deltas.push(delta);
        if self.shape.mode != Mode::Append && self.rows > COMPACT_ROWS + 2 * self.settled {
            let (delta, _) = self.settle()?;
            self.rows = delta.rows.num_rows();
            self.bytes = size_of(&delta.rows);
            self.settled = self.rows;
            self.deltas = vec![delta];
        }
        Ok(())
    }

    /// The net effect of all changes so far; afterwards there are none.
    ///
    /// # Errors
    /// 23505 when a key has several rows at the end. The changes are lost then: the caller starts over.
    pub fn take(&mut self) -> Result<Net> {
        let net = match &self.shape.mode {
            Mode::Keyed(key) => {
                let key = key.clone();
                let (delta, _) = self.settle()?;
                by_key(&delta, &key)?
            }
            Mode::Bag => {
                let (delta, hashes) = self.settle()?;
                by_copy(&delta, &hashes)?
            }
            Mode::Append => self.appended()?,
        };
        *self = Pending::new(self.shape.clone());
        Ok(net)
    }

    /// All changes as one, each row once with its total weight, and the rows' hashes.
    fn settle(&self) -> Result<(Delta, Vec<u128>)> {
        let (rows, weights) = self.concatenated()?;
        let hashes = row_hashes(&rows, &(0..rows.num_columns()).collect::<Vec<_>>())?;
        let mut totals: HashMap<u128, (usize, i64), ahash::RandomState> = HashMap::default();
        for (row, &hash) in hashes.iter().enumerate() {
            totals.entry(hash).or_insert((row, 0)).1 += weights[row];
        }
        let mut left: Vec<(usize, i64)> = totals.into_values().filter(|(_, weight)| *weight != 0).collect();
        left.sort_unstable();
        let rows = pick(&rows, left.iter().map(|(row, _)| *row))?;
        let left_hashes = left.iter().map(|(row, _)| hashes[*row]).collect();
        let weights = left.iter().map(|(_, weight)| *weight).collect::<Vec<_>>();
        Ok((Delta { rows, weights: Some(ScalarBuffer::from(weights)) }, left_hashes))
    }

    fn concatenated(&self) -> Result<(RecordBatch, Vec<i64>)> {
        let rows = concat_batches(&self.shape.schema, self.deltas.iter().map(|d| &d.rows))?;
        let mut weights = Vec::with_capacity(rows.num_rows());
        for delta in &self.deltas {
            match &delta.weights {
                Some(w) => weights.extend_from_slice(w),
                None => weights.resize(weights.len() + delta.rows.num_rows(), 1),
            }
        }
        Ok((rows, weights))
    }

    fn appended(&self) -> Result<Net> {
        let (rows, weights) = self.concatenated()?;
        if weights.iter().any(|w| *w < 0) {
            return Err(Error::internal("a row of an append-only relation went away"));
        }
        let rows = if weights.iter().all(|w| *w == 1) {
            rows
        } else {
            let copies = weights.iter().enumerate().flat_map(|(row, w)| (0..*w).map(move |_| row));
            pick(&rows, copies)?
        };
        let ops = vec![Op::Insert; rows.num_rows()];
        Ok(Net { rows, ops, hashes: Vec::new(), copies: Vec::new() })
    }
}

fn pick(rows: &RecordBatch, indices: impl Iterator<Item = usize>) -> Result<RecordBatch> {
    let indices = UInt64Array::from_iter_values(indices.map(|i| i as u64));
    Ok(take_record_batch(rows, &indices)?)
}

/// One operation a key, from rows that are all different.
fn by_key(delta: &Delta, key: &[usize]) -> Result<Net> {
    let hashes = row_hashes(&delta.rows, key)?;
    // Per key the row it gains and the row it loses.
    let mut keys: HashMap<u128, (Option<usize>, Option<usize>), ahash::RandomState> = HashMap::default();
    for (row, &hash) in hashes.iter().enumerate() {
        let weight = delta.weights.as_ref().map_or(1, |w| w[row]);
        let (gains, loses) = keys.entry(hash).or_default();
        let side = if weight > 0 { gains } else { loses };
        if weight.abs() != 1 || side.is_some() {
            return Err(duplicate_key(&delta.rows, key, row, weight > 0));
        }
        *side = Some(row);
    }
    let mut steps = Vec::with_capacity(keys.len());
    for sides in keys.into_values() {
        match sides {
            (Some(row), None) => steps.push((row, Op::Insert)),
            (Some(row), Some(_)) => steps.push((row, Op::Update)),
            (None, Some(row)) => steps.push((row, Op::Delete)),
            (None, None) => {}
        }
    }
    steps.sort_unstable_by_key(|(row, _)| *row);
    let rows = pick(&delta.rows, steps.iter().map(|(row, _)| *row))?;
    Ok(Net {
        rows,
        ops: steps.into_iter().map(|(_, op)| op).collect(),
        hashes: Vec::new(),
        copies: Vec::new(),
    })
}

/// One operation a copy, from rows that are all different.
fn by_copy(delta: &Delta, hashes: &[u128]) -> Result<Net> {
    let (mut picked, mut ops, mut of, mut copies) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (row, &hash) in hashes.iter().enumerate() {
        let weight = delta.weights.as_ref().map_or(1, |w| w[row]);
        let op = if weight > 0 { Op::Insert } else { Op::Delete };
        for copy in 0..weight.abs() {
            picked.push(row);
            ops.push(op);
            of.push(hash);
            copies.push(copy);
        }
    }
    Ok(Net { rows: pick(&delta.rows, picked.into_iter())?, ops, hashes: of, copies })
}

fn duplicate_key(rows: &RecordBatch, key: &[usize], row: usize, present: bool) -> Error {
    let names: Vec<&str> = key.iter().map(|&k| rows.schema_ref().field(k).name().as_str()).collect();
    let values: Vec<String> = key
        .iter()
        .map(|&k| match rows.column(k).is_null(row) {
            true => "NULL".to_string(),
            false => array_value_to_string(rows.column(k), row).unwrap_or_else(|_| "?".to_string()),
        })
        .collect();
    Error::new(SqlState::UNIQUE_VIOLATION, "the sink's KEY does not tell the rows of the relation apart")
        .with_detail(format!(
            "There {} more than one row with ({})=({}).",
            if present { "is" } else { "was" },
            names.join(", "),
            values.join(", ")
        ))
        .with_hint("Nothing was written. Choose a KEY that is unique, or none.")
}

/// About how much memory rows take, without what they share with others.
pub fn size_of(rows: &RecordBatch) -> usize {
    rows.columns().iter().map(|column| column_size(column)).sum()
}

fn column_size(column: &dyn Array) -> usize {
    let rows = column.len();
    match column.data_type() {
        DataType::Utf8View => {
            16 * rows + column.as_string_view().lengths().map(|l| l as usize).sum::<usize>()
        }
        DataType::BinaryView => {
            16 * rows + column.as_binary_view().lengths().map(|l| l as usize).sum::<usize>()
        }
        data_type => match data_type.primitive_width() {
            Some(width) => width * rows,
            None => {
                column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
            }
        },
    }
}

/// These rows only, in this order.
pub fn select(rows: &RecordBatch, positions: &[usize]) -> Result<RecordBatch> {
    pick(rows, positions.iter().copied())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use arrow::array::{ArrayRef, Int64Array};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::connectors::warehouse::schema_of;
    use arrow::datatypes::Field;

    fn shape(key: &[usize], append_only: bool) -> Shape {
        let schema =
            schema_of(vec![Field::new("k", DataType::Int64, true), Field::new("v", DataType::Int64, true)]);
        Shape::new(schema, key, append_only)
    }

    fn delta(changes: &[(i64, i64, i64)]) -> Delta {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(changes.iter().map(|c| c.0))),
            Arc::new(Int64Array::from_iter_values(changes.iter().map(|c| c.1))),
        ];
        Delta {
            rows: RecordBatch::try_new(shape(&[], false).schema, columns).unwrap(),
            weights: Some(changes.iter().map(|c| c.2).collect::<Vec<_>>().into()),
        }
    }

    fn steps(net: &Net) -> Vec<(Op, i64, i64)> {
        let (k, v) =
            (net.rows.column(0).as_primitive::<Int64Type>(), net.rows.column(1).as_primitive::<Int64Type>());
        (0..net.rows.num_rows()).map(|i| (net.ops[i], k.value(i), v.value(i))).collect()
    }

    #[test]
    fn one_operation_a_key() {
        let mut pending = Pending::new(shape(&[0], false));
        pending.push(delta(&[(1, 10, 1), (2, 20, -1), (3, 30, -1)])).unwrap();
        pending.push(delta(&[(2, 21, 1), (1, 10, -1), (1, 11, 1), (4, 40, 1), (5, 50, -1)])).unwrap();
        pending.push(delta(&[(4, 40, -1), (5, 50, 1)])).unwrap();
        let net = pending.take().unwrap();
        assert_eq!(steps(&net), [(Op::Delete, 3, 30), (Op::Update, 2, 21), (Op::Insert, 1, 11)]);
        assert_eq!(net.counts(), Counts { inserts: 1, updates: 1, deletes: 1 });
        assert!(pending.is_empty());
    }

    #[test]
    fn a_key_with_two_rows_is_an_error_that_names_it() {
        let mut pending = Pending::new(shape(&[0], false));
        pending.push(delta(&[(7, 1, 1), (7, 2, 1)])).unwrap();
        let e = pending.take().unwrap_err();
        assert_eq!(e.sqlstate, SqlState::UNIQUE_VIOLATION);
        assert!(e.detail.unwrap().contains("(k)=(7)"));

        pending = Pending::new(shape(&[0], false));
        pending.push(delta(&[(7, 1, 2)])).unwrap();
        assert_eq!(pending.take().unwrap_err().sqlstate, SqlState::UNIQUE_VIOLATION);
    }

    #[test]
    fn copies_of_equal_rows_are_counted() {
        let mut pending = Pending::new(shape(&[], false));
        pending.push(delta(&[(1, 1, 3), (2, 2, -2), (3, 3, 1)])).unwrap();
        pending.push(delta(&[(1, 1, -1), (3, 3, -1)])).unwrap();
        let net = pending.take().unwrap();
        assert_eq!(
            steps(&net),
            [(Op::Insert, 1, 1), (Op::Insert, 1, 1), (Op::Delete, 2, 2), (Op::Delete, 2, 2)]
        );
        assert_eq!(net.copies, [0, 1, 0, 1]);
        assert_eq!(net.hashes[0], net.hashes[1]);
        assert_ne!(net.hashes[0], net.hashes[2]);
    }

    #[test]
    fn append_only_rows_are_repeated_and_never_go_away() {
        let mut pending = Pending::new(shape(&[], true));
        pending.push(delta(&[(1, 1, 2), (2, 2, 1)])).unwrap();
        assert_eq!(
            steps(&pending.take().unwrap()),
            [(Op::Insert, 1, 1), (Op::Insert, 1, 1), (Op::Insert, 2, 2)]
        );
        pending.push(delta(&[(1, 1, -1)])).unwrap();
        assert_eq!(pending.take().unwrap_err().sqlstate, SqlState::INTERNAL_ERROR);
    }

    /// A long random history, taken at random moments, always leads from one state of a keyed table to the next.
    #[test]
    fn random_histories_lead_from_state_to_state() {
        let mut random = 1_u64;
        let mut next = move |n: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % n
        };
        let mut pending = Pending::new(shape(&[0], false));
        let (mut table, mut target) = (BTreeMap::<i64, i64>::new(), BTreeMap::<i64, i64>::new());
        for _ in 0..3_000 {
            let mut changes = Vec::new();
            for _ in 0..next(60) {
                let key = next(200) as i64;
                if let Some(old) = table.remove(&key) {
                    changes.push((key, old, -1));
                }
                if next(3) > 0 {
                    let value = next(5) as i64;
                    table.insert(key, value);
                    changes.push((key, value, 1));
                }
            }
            pending.push(delta(&changes)).unwrap();
            if next(40) == 0 {
                for (op, key, value) in steps(&pending.take().unwrap()) {
                    let before = match op {
                        Op::Delete => target.remove(&key),
                        Op::Insert | Op::Update => target.insert(key, value),
                    };
                    assert_eq!(before.is_none(), op == Op::Insert);
                }
                assert_eq!(target, table);
            }
        }
    }
}
