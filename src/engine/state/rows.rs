//! Rows in columnar tiles under stable numbers.
//!
//! A row's number is its place in the order of arrival. Tiles are sealed at [`TILE_ROWS`] rows, so the number itself
//! says where a sealed row is; the rows after them stand in a short tail of smaller tiles, which are merged
//! geometrically, so a row is copied a bounded number of times however small the deltas are. A tile never changes:
//! readers hold it as long as they like.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};

use crate::engine::delta::{batch, nullable, with_schema};
use crate::engine::state::NONE;
use crate::engine::state::column::{Loc, TiledColumn};
use crate::error::{Error, Result, SqlState};

/// Rows of a sealed tile.
pub const TILE_ROWS: usize = 1 << TILE_BITS;
const TILE_BITS: u32 = 16;

/// Tail tiles of fewer rows are merged with their neighbours.
const SMALL_ROWS: usize = 8192;

/// Rows under numbers.
pub struct RowStore {
    schema: SchemaRef,
    columns: Vec<TiledColumn>,
    tiles: Vec<Arc<RecordBatch>>,
    sealed: usize,
    // First row of each tile after the sealed ones.
    tail: Vec<u32>,
    rows: usize,
    bytes: usize,
}

impl RowStore {
    /// An empty store of rows with these columns.
    pub fn new(schema: &SchemaRef) -> RowStore {
        let columns = schema.fields().iter().map(|f| TiledColumn::new(f.data_type())).collect();
        let schema = nullable(schema);
        RowStore { schema, columns, tiles: Vec::new(), sealed: 0, tail: Vec::new(), rows: 0, bytes: 0 }
    }

    /// A store of the rows of these tiles, numbered in their order.
    pub fn of(schema: &SchemaRef, tiles: &[Arc<RecordBatch>]) -> Result<RowStore> {
        let mut store = RowStore::new(schema);
        for tile in tiles {
            let whole = tile.num_rows() == TILE_ROWS && store.rows == store.sealed * TILE_ROWS;
            if whole && tile.schema_ref() == schema {
                // As it is, so that a checkpoint knows it again.
                store.push(Arc::clone(tile));
                store.rows += TILE_ROWS;
                store.sealed += 1;
            } else {
                store.append(tile)?;
            }
        }
        Ok(store)
    }

    /// How many rows it holds: the number of the next one.
    pub fn len(&self) -> usize {
        self.rows
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows' columns.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The tiles, in order of their rows' numbers.
    pub fn tiles(&self) -> &[Arc<RecordBatch>] {
        &self.tiles
    }

    /// The typed columns.
    pub fn columns(&self) -> &[TiledColumn] {
        &self.columns
    }

    /// Bytes of the rows.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends rows.
    pub fn append(&mut self, rows: &RecordBatch) -> Result<()> {
        if self.rows + rows.num_rows() >= NONE as usize {
            return Err(Error::new(
                SqlState::OUT_OF_MEMORY,
                "more than 4294967294 rows in one piece of state",
            ));
        }
        let mut at = 0;
        while at < rows.num_rows() {
            let room = TILE_ROWS - (self.rows - self.sealed * TILE_ROWS);
            let len = room.min(rows.num_rows() - at);
            self.append_tile(&rows.slice(at, len))?;
            at += len;
        }
        Ok(())
    }

    /// Appends a tile that fits into what is left until the next seal.
    fn append_tile(&mut self, rows: &RecordBatch) -> Result<()> {
        let mut len = rows.num_rows();
        let tile = if len < SMALL_ROWS / 8 { with_schema(rows, &self.schema)? } else { self.owned(rows)? };
        self.tail.push(self.rows as u32);
        self.push(Arc::new(tile));
        self.rows += len;
        let mut merge = 1;
        if self.rows - self.sealed * TILE_ROWS == TILE_ROWS {
            merge = self.tail.len();
        } else {
            for tile in self.tiles[self.sealed..self.tiles.len() - 1].iter().rev() {
                if tile.num_rows() >= SMALL_ROWS || len * 2 < tile.num_rows() {
                    break;
                }
                len += tile.num_rows();
                merge += 1;
            }
        }
        self.merge_last(merge)?;
        if self.rows - self.sealed * TILE_ROWS == TILE_ROWS {
            self.sealed += 1;
            self.tail.clear();
        }
        Ok(())
    }

    fn push(&mut self, tile: Arc<RecordBatch>) {
        for (column, array) in self.columns.iter_mut().zip(tile.columns()) {
            column.push(array);
        }
        self.bytes += tile.get_array_memory_size();
        self.tiles.push(tile);
    }

    /// Makes one tile of the last `count`.
    fn merge_last(&mut self, count: usize) -> Result<()> {
        // A lone tile too is copied here when it is small, so that it does not pin a larger batch it was sliced from.
        let first = self.tiles.len() - count;
        if count == 1 && self.tiles[first].num_rows() >= SMALL_ROWS / 8 {
            return Ok(());
        }
        let rows: usize = self.tiles[first..].iter().map(|t| t.num_rows()).sum();
        let mut at = Vec::with_capacity(rows);
        for (tile, rows) in self.tiles.iter().enumerate().skip(first) {
            at.extend((0..rows.num_rows() as u32).map(|row| Loc { tile: tile as u32, row }));
        }
        let columns = self.columns.iter().map(|c| c.gather(&at, true)).collect::<Result<Vec<_>>>()?;
        let merged = batch(&self.schema, columns, rows)?;
        self.bytes -= self.tiles[first..].iter().map(|t| t.get_array_memory_size()).sum::<usize>();
        self.tiles.truncate(first);
        self.columns.iter_mut().for_each(|c| c.truncate(first));
        self.tail.truncate(self.tail.len() - count + 1);
        self.push(Arc::new(merged));
        Ok(())
    }

    /// The rows with strings that do not pin much more memory than they use.
    fn owned(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let columns = rows.columns().iter().map(own_strings).collect();
        batch(&self.schema, columns, rows.num_rows())
    }

    /// Where row `id` is.
    #[inline]
    pub fn locate(&self, id: u32) -> Loc {
        let tile = (id >> TILE_BITS) as usize;
        if tile < self.sealed {
            return Loc { tile: tile as u32, row: id & (TILE_ROWS as u32 - 1) };
        }
        // The tail is short, and its first tiles hold the most rows.
        let mut at = 0;
        while at + 1 < self.tail.len() && self.tail[at + 1] <= id {
            at += 1;
        }
        Loc { tile: (self.sealed + at) as u32, row: id - self.tail[at] }
    }

    /// Where rows are.
    pub fn locate_all(&self, ids: &[u32]) -> Vec<Loc> {
        ids.iter().map(|id| self.locate(*id)).collect()
    }

    /// The rows of these numbers, as columns `columns` of the store.
    pub fn gather(&self, ids: &[u32], columns: impl Iterator<Item = usize>) -> Result<Vec<ArrayRef>> {
        let at = self.locate_all(ids);
        columns.map(|c| self.columns[c].gather(&at, false)).collect()
    }

    /// The rows of these numbers in full, owning their strings.
    pub fn gather_owned(&self, ids: &[u32]) -> Result<RecordBatch> {
        let at = self.locate_all(ids);
        let columns = self.columns.iter().map(|c| c.gather(&at, true)).collect::<Result<Vec<_>>>()?;
        batch(&self.schema, columns, ids.len())
    }
}

/// The same strings; copied together if they use less than half of the bytes they pin, or are scattered.
fn own_strings(column: &ArrayRef) -> ArrayRef {
    fn wasteful<'a>(used: usize, buffers: impl ExactSizeIterator<Item = &'a arrow::buffer::Buffer>) -> bool {
        buffers.len() > 4 || buffers.map(|b| b.capacity()).sum::<usize>() > used * 2 + 1024
    }
    match column.data_type() {
        DataType::Utf8View => {
            let strings = column.as_string_view();
            let used = strings.total_buffer_bytes_used();
            if wasteful(used, strings.data_buffers().iter()) {
                Arc::new(strings.gc())
            } else {
                Arc::clone(column)
            }
        }
        DataType::BinaryView => {
            let bytes = column.as_binary_view();
            let used = bytes.total_buffer_bytes_used();
            if wasteful(used, bytes.data_buffers().iter()) {
                Arc::new(bytes.gc())
            } else {
                Arc::clone(column)
            }
        }
        _ => Arc::clone(column),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{BooleanArray, Int32Array, ListArray, StringViewArray};
    use arrow::datatypes::{Field, Int32Type, Schema};

    fn rows(from: usize, len: usize) -> RecordBatch {
        let range = from..from + len;
        let text = |i: usize| {
            (!i.is_multiple_of(7)).then(|| {
                if i.is_multiple_of(3) { format!("{i}") } else { format!("the long row number {i}") }
            })
        };
        let list = |i: usize| (!i.is_multiple_of(5)).then(|| vec![Some(i as i32), None]);
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int32Array::from_iter(
                range.clone().map(|i| (!i.is_multiple_of(11)).then_some(i as i32)),
            )),
            Arc::new(StringViewArray::from_iter(range.clone().map(text))),
            Arc::new(BooleanArray::from_iter(range.clone().map(|i| Some(i % 2 == 0)))),
            Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(range.map(list))),
        ];
        let names = ["n", "s", "b", "l"];
        let fields = names.iter().zip(&columns).map(|(n, c)| Field::new(*n, c.data_type().clone(), true));
        RecordBatch::try_new(Arc::new(Schema::new(fields.collect::<Vec<_>>())), columns).unwrap()
    }

    #[test]
    fn numbers_stay_while_tiles_merge_and_seal() {
        let mut store = RowStore::new(rows(0, 0).schema_ref());
        let mut total = 0;
        for len in [1, 1, 1, 5, 3000, 9000, 2, 60_000, 70_000, 65_536, 7] {
            store.append(&rows(total, len)).unwrap();
            total += len;
            for id in [0, total / 3, total / 2, total - 1] {
                let got = store.gather_owned(&[id as u32]).unwrap();
                assert_eq!(got.columns(), rows(id, 1).columns());
            }
        }
        assert_eq!(store.len(), total);
        assert!(store.tiles().len() < 3 + 13, "{} tiles", store.tiles().len());
        let ids: Vec<u32> = (0..total as u32).rev().step_by(97).collect();
        let all = rows(0, total);
        let expected = crate::engine::delta::take_rows(&all, &ids).unwrap();
        assert_eq!(store.gather(&ids, 0..4).unwrap(), expected.columns());
        let few = &ids[..5];
        let expected = crate::engine::delta::take_rows(&all, few).unwrap();
        assert_eq!(store.gather(few, 0..4).unwrap(), expected.columns());
    }

    #[test]
    fn rows_are_compared_bit_by_bit() {
        let all = rows(0, 200);
        let mut store = RowStore::new(all.schema_ref());
        store.append(&all).unwrap();
        for column in 0..4 {
            let other = TiledColumn::of(all.column(column));
            for (i, j) in (0..200u32).flat_map(|i| [(i, i), (i, (i * 7 + 1) % 200)]) {
                let expected =
                    all.column(column).slice(i as usize, 1) == all.column(column).slice(j as usize, 1);
                let (a, b) = (store.locate(i), Loc { tile: 0, row: j });
                assert_eq!(
                    store.columns()[column].equal(a, &other, b),
                    expected,
                    "column {column} rows {i} {j}"
                );
                let mut keep = [true];
                store.columns()[column].equal_all(&[a], &other, &[b], &mut keep);
                assert_eq!(keep[0], expected);
            }
        }
    }
}
