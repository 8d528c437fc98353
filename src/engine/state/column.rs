//! One column of many tiles, typed once, so that gathering and comparing rows costs no dispatch per row.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BinaryViewArray, BooleanArray, GenericByteViewArray,
    StringViewArray, make_array, new_empty_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::compute::interleave;
use arrow::datatypes::{ArrowNativeType, ByteViewType, DataType};

use crate::error::Result;

/// Where a row is: which tile, and where in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loc {
    /// Which tile.
    pub tile: u32,
    /// Which row of it.
    pub row: u32,
}

/// The values of a column of fixed width as plain numbers of that width: equal bits, equal values.
pub enum FixedWidth {
    /// One byte.
    W1(ScalarBuffer<u8>),
    /// Two.
    W2(ScalarBuffer<u16>),
    /// Four.
    W4(ScalarBuffer<u32>),
    /// Eight.
    W8(ScalarBuffer<u64>),
    /// Sixteen.
    W16(ScalarBuffer<i128>),
}

impl FixedWidth {
    /// The values of `array`, without copying; `None` if its type is not one number per row.
    pub fn of(array: &dyn Array) -> Option<FixedWidth> {
        fn values<T: ArrowNativeType>(array: &dyn Array) -> ScalarBuffer<T> {
            let data = array.to_data();
            ScalarBuffer::new(data.buffers()[0].clone(), data.offset(), data.len())
        }
        if matches!(array.data_type(), DataType::Interval(_)) {
            return None; // aligned to its parts, not to its width
        }
        Some(match array.data_type().primitive_width()? {
            1 => FixedWidth::W1(values(array)),
            2 => FixedWidth::W2(values(array)),
            4 => FixedWidth::W4(values(array)),
            8 => FixedWidth::W8(values(array)),
            16 => FixedWidth::W16(values(array)),
            _ => return None,
        })
    }
}

/// Strings or bytes of one tile, whatever their type: 16 bytes each, and where the long ones are.
struct ViewTile {
    views: ScalarBuffer<u128>,
    buffers: Vec<Buffer>,
}

enum Values {
    W1(Vec<ScalarBuffer<u8>>),
    W2(Vec<ScalarBuffer<u16>>),
    W4(Vec<ScalarBuffer<u32>>),
    W8(Vec<ScalarBuffer<u64>>),
    W16(Vec<ScalarBuffer<i128>>),
    Bool(Vec<BooleanBuffer>),
    View(Vec<ViewTile>),
    Other(Vec<ArrayRef>),
}

/// A column of tiles.
pub struct TiledColumn {
    data_type: DataType,
    values: Values,
    nulls: Vec<Option<NullBuffer>>,
    tiles_with_nulls: usize,
}

/// Runs `$body` with `$tiles` bound to the tiles of fixed width, or `$other` for other values.
macro_rules! fixed {
    ($values:expr, $tiles:ident => $body:expr, $($rest:tt)*) => {
        match $values {
            Values::W1($tiles) => $body,
            Values::W2($tiles) => $body,
            Values::W4($tiles) => $body,
            Values::W8($tiles) => $body,
            Values::W16($tiles) => $body,
            $($rest)*
        }
    };
}

impl TiledColumn {
    /// A column without tiles.
    pub fn new(data_type: &DataType) -> TiledColumn {
        let values = match FixedWidth::of(&new_empty_array(data_type)) {
            Some(FixedWidth::W1(_)) => Values::W1(Vec::new()),
            Some(FixedWidth::W2(_)) => Values::W2(Vec::new()),
            Some(FixedWidth::W4(_)) => Values::W4(Vec::new()),
            Some(FixedWidth::W8(_)) => Values::W8(Vec::new()),
            Some(FixedWidth::W16(_)) => Values::W16(Vec::new()),
            None => match data_type {
                DataType::Boolean => Values::Bool(Vec::new()),
                DataType::Utf8View | DataType::BinaryView => Values::View(Vec::new()),
                _ => Values::Other(Vec::new()),
            },
        };
        TiledColumn { data_type: data_type.clone(), values, nulls: Vec::new(), tiles_with_nulls: 0 }
    }

    /// A column of one tile.
    pub fn of(array: &ArrayRef) -> TiledColumn {
        let mut column = TiledColumn::new(array.data_type());
        column.push(array);
        column
    }

    /// Appends a tile; its type is the column's.
    pub fn push(&mut self, array: &ArrayRef) {
        debug_assert_eq!(array.data_type(), &self.data_type, "a tile of the column's type");
        match (&mut self.values, FixedWidth::of(array)) {
            (Values::W1(tiles), Some(FixedWidth::W1(v))) => tiles.push(v),
            (Values::W2(tiles), Some(FixedWidth::W2(v))) => tiles.push(v),
            (Values::W4(tiles), Some(FixedWidth::W4(v))) => tiles.push(v),
            (Values::W8(tiles), Some(FixedWidth::W8(v))) => tiles.push(v),
            (Values::W16(tiles), Some(FixedWidth::W16(v))) => tiles.push(v),
            (Values::Bool(tiles), _) => tiles.push(array.as_boolean().values().clone()),
            (Values::View(tiles), _) => tiles.push(ViewTile::of(array)),
            (Values::Other(tiles), _) => tiles.push(Arc::clone(array)),
            _ => unreachable!("the width of a type does not change"),
        }
        let nulls = match &self.values {
            Values::Other(_) => array.logical_nulls(),
            _ => array.nulls().cloned(),
        };
        let nulls = nulls.filter(|n| n.null_count() > 0);
        self.tiles_with_nulls += usize::from(nulls.is_some());
        self.nulls.push(nulls);
    }

    /// Forgets the tiles from `tiles` on.
    pub fn truncate(&mut self, tiles: usize) {
        fixed!(&mut self.values, v => v.truncate(tiles),
            Values::Bool(v) => v.truncate(tiles),
            Values::View(v) => v.truncate(tiles),
            Values::Other(v) => v.truncate(tiles),
        );
        self.nulls.truncate(tiles);
        self.tiles_with_nulls = self.nulls.iter().flatten().count();
    }

    fn is_null(&self, at: Loc) -> bool {
        self.tiles_with_nulls > 0
            && self.nulls[at.tile as usize].as_ref().is_some_and(|n| n.is_null(at.row as usize))
    }

    /// The rows at these places as one array, which owns its strings unless sharing them is cheaper and `own` is not asked.
    pub fn gather(&self, at: &[Loc], own: bool) -> Result<ArrayRef> {
        if at.is_empty() {
            return Ok(new_empty_array(&self.data_type));
        }
        let nulls = || {
            (self.tiles_with_nulls > 0)
                .then(|| NullBuffer::from_iter(at.iter().map(|l| !self.is_null(*l))))
                .filter(|n| n.null_count() > 0)
        };
        Ok(match &self.values {
            Values::Bool(tiles) => {
                let value = |i: usize| tiles[at[i].tile as usize].value(at[i].row as usize);
                Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(at.len(), value), nulls()))
            }
            Values::View(tiles) => self.gather_views(tiles, at, nulls(), own),
            Values::Other(tiles) => gather_other(tiles, at)?,
            fixed => fixed!(fixed, tiles => {
                let values = gather_fixed(tiles, at);
                let data = ArrayData::builder(self.data_type.clone()).len(at.len()).add_buffer(values);
                make_array(data.nulls(nulls()).build()?)
            }, _ => unreachable!("all other kinds stand above")),
        })
    }

    fn gather_views(&self, tiles: &[ViewTile], at: &[Loc], nulls: Option<NullBuffer>, own: bool) -> ArrayRef {
        // Base of each used tile's buffers in the result's, when shared.
        let mut base = vec![u32::MAX; tiles.len()];
        let mut buffers: Vec<Buffer> = Vec::new();
        let shared_max = if own { 0 } else { 4 + at.len() / 64 };
        let mut share = true;
        for l in at {
            let tile = l.tile as usize;
            if base[tile] == u32::MAX {
                base[tile] = buffers.len() as u32;
                buffers.extend(tiles[tile].buffers.iter().cloned());
                if buffers.len() > shared_max {
                    share = false;
                    break;
                }
            }
        }
        let view = |l: &Loc| if self.is_null(*l) { 0 } else { tiles[l.tile as usize].views[l.row as usize] };
        let views: Vec<u128> = if share {
            let moved = |l: &Loc| {
                let view = view(l);
                let moved_by = u128::from(base[l.tile as usize]) << 64;
                if view as u32 > INLINE_MAX { view + moved_by } else { view }
            };
            at.iter().map(moved).collect()
        } else {
            buffers.clear();
            let mut writer = ViewWriter { buffers: &mut buffers, open: Vec::new() };
            let views = at.iter().map(|l| match view(l) {
                short if short as u32 <= INLINE_MAX => short,
                long => writer.write(long, tiles[l.tile as usize].bytes(long)),
            });
            let views = views.collect();
            writer.close();
            views
        };
        // SAFETY: every view is inline, or copied from a valid array of the same type with its buffer's number (or
        // number and offset) adapted to where the same bytes are in `buffers`.
        unsafe {
            match self.data_type {
                DataType::Utf8View => Arc::new(StringViewArray::new_unchecked(views.into(), buffers, nulls)),
                _ => Arc::new(BinaryViewArray::new_unchecked(views.into(), buffers, nulls)),
            }
        }
    }

    /// Whether the rows at `a` here and `b` there are equal: bit by bit, NULL equal to NULL. Both columns are of one type.
    #[inline]
    pub fn equal(&self, a: Loc, other: &TiledColumn, b: Loc) -> bool {
        match (self.is_null(a), other.is_null(b)) {
            (false, false) => {}
            (a_null, b_null) => return a_null == b_null,
        }
        let (ta, ra, tb, rb) = (a.tile as usize, a.row as usize, b.tile as usize, b.row as usize);
        match (&self.values, &other.values) {
            (Values::W1(x), Values::W1(y)) => x[ta][ra] == y[tb][rb],
            (Values::W2(x), Values::W2(y)) => x[ta][ra] == y[tb][rb],
            (Values::W4(x), Values::W4(y)) => x[ta][ra] == y[tb][rb],
            (Values::W8(x), Values::W8(y)) => x[ta][ra] == y[tb][rb],
            (Values::W16(x), Values::W16(y)) => x[ta][ra] == y[tb][rb],
            (Values::Bool(x), Values::Bool(y)) => x[ta].value(ra) == y[tb].value(rb),
            (Values::View(x), Values::View(y)) => x[ta].equal(ra, &y[tb], rb),
            (Values::Other(x), Values::Other(y)) => equal_other(&x[ta], ra, &y[tb], rb),
            _ => false,
        }
    }

    /// For each pair of places whose `keep` is still true: whether their rows are equal.
    pub fn equal_all(&self, a: &[Loc], other: &TiledColumn, b: &[Loc], keep: &mut [bool]) {
        macro_rules! compare {
            ($x:expr, $y:expr) => {
                for ((k, a), b) in keep.iter_mut().zip(a).zip(b) {
                    let same = $x[a.tile as usize][a.row as usize] == $y[b.tile as usize][b.row as usize];
                    *k &= same;
                }
            };
        }
        if self.tiles_with_nulls == 0 && other.tiles_with_nulls == 0 {
            match (&self.values, &other.values) {
                (Values::W1(x), Values::W1(y)) => return compare!(x, y),
                (Values::W2(x), Values::W2(y)) => return compare!(x, y),
                (Values::W4(x), Values::W4(y)) => return compare!(x, y),
                (Values::W8(x), Values::W8(y)) => return compare!(x, y),
                (Values::W16(x), Values::W16(y)) => return compare!(x, y),
                _ => {}
            }
        }
        for ((k, a), b) in keep.iter_mut().zip(a).zip(b) {
            *k = *k && self.equal(*a, other, *b);
        }
    }
}

/// Strings up to this length stand in the view itself.
const INLINE_MAX: u32 = 12;

/// Bytes per buffer of copied strings; below the 2 GiB that a view can address.
const BUFFER_BYTES: usize = 1 << 26;

impl ViewTile {
    fn of(array: &ArrayRef) -> ViewTile {
        fn parts<T: ByteViewType>(a: &GenericByteViewArray<T>) -> ViewTile {
            ViewTile { views: a.views().clone(), buffers: a.data_buffers().to_vec() }
        }
        match array.data_type() {
            DataType::Utf8View => parts(array.as_string_view()),
            _ => parts(array.as_binary_view()),
        }
    }

    /// The bytes of a view longer than [`INLINE_MAX`].
    fn bytes(&self, view: u128) -> &[u8] {
        let (len, buffer, offset) =
            (view as u32 as usize, (view >> 64) as u32 as usize, (view >> 96) as usize);
        &self.buffers[buffer][offset..offset + len]
    }

    fn equal(&self, row: usize, other: &ViewTile, other_row: usize) -> bool {
        let (a, b) = (self.views[row], other.views[other_row]);
        // Length and the first four bytes.
        if a as u64 != b as u64 {
            return false;
        }
        if a as u32 <= INLINE_MAX { a == b } else { self.bytes(a) == other.bytes(b) }
    }
}

/// Copies long strings into buffers of their own.
struct ViewWriter<'a> {
    buffers: &'a mut Vec<Buffer>,
    open: Vec<u8>,
}

impl ViewWriter<'_> {
    fn write(&mut self, view: u128, bytes: &[u8]) -> u128 {
        if self.open.len() + bytes.len() > BUFFER_BYTES && !self.open.is_empty() {
            self.close();
        }
        let place = (self.buffers.len() as u128) << 64 | (self.open.len() as u128) << 96;
        self.open.extend_from_slice(bytes);
        u128::from(view as u64) | place
    }

    fn close(&mut self) {
        if !self.open.is_empty() {
            self.buffers.push(Buffer::from_vec(std::mem::take(&mut self.open)));
        }
    }
}

fn gather_fixed<T: ArrowNativeType>(tiles: &[ScalarBuffer<T>], at: &[Loc]) -> Buffer {
    Buffer::from_vec(at.iter().map(|l| tiles[l.tile as usize][l.row as usize]).collect::<Vec<T>>())
}

fn gather_other(tiles: &[ArrayRef], at: &[Loc]) -> Result<ArrayRef> {
    // Only the tiles that are used, because interleave looks at each.
    let mut dense = vec![usize::MAX; tiles.len()];
    let mut used: Vec<&dyn Array> = Vec::new();
    let indices: Vec<(usize, usize)> = at
        .iter()
        .map(|l| {
            let tile = l.tile as usize;
            if dense[tile] == usize::MAX {
                dense[tile] = used.len();
                used.push(tiles[tile].as_ref());
            }
            (dense[tile], l.row as usize)
        })
        .collect();
    Ok(interleave(&used, &indices)?)
}

fn equal_other(a: &ArrayRef, i: usize, b: &ArrayRef, j: usize) -> bool {
    match a.data_type() {
        DataType::Utf8 => a.as_string::<i32>().value(i) == b.as_string::<i32>().value(j),
        DataType::Binary => a.as_binary::<i32>().value(i) == b.as_binary::<i32>().value(j),
        _ => a.slice(i, 1).to_data() == b.slice(j, 1).to_data(),
    }
}
