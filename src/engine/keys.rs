//! Keys: the columns by which rows are looked up, grouped and matched, in canonical form and hashed to 64 bits.
//!
//! Canonical means that values which SQL calls equal have equal bits: `-0.0` becomes `0.0`, every NaN the same one.
//! After that, equality everywhere is equality of bits, and NULL equals NULL; whoever wants NULL to match nothing
//! asks [`Keys::nulls`]. (Floats inside lists and structs are left as they are.)
//!
//! Hashes are the same in every run and process, because order of state decides ties and a journal is replayed.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, RecordBatch};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{ArrowPrimitiveType, DataType, Float32Type, Float64Type, SchemaRef};
use arrow::row::{RowConverter, SortField};
use datafusion::physical_expr::expressions::Column;

use crate::engine::Delta;
use crate::engine::expr::{self, cast_to};
use crate::engine::plan::spec::Expr;
use crate::engine::runtime::operator::RowError;
use crate::engine::state::column::FixedWidth;
use crate::error::{Error, Result};

/// Rows' keys: canonical columns and one hash per row.
#[derive(Clone, Debug)]
pub struct Keys {
    /// Canonical key columns; may be none.
    pub columns: Vec<ArrayRef>,
    /// One per row.
    pub hashes: Vec<u64>,
    /// Where any column of the key is NULL (its bit is unset); `None`: nowhere.
    pub nulls: Option<NullBuffer>,
}

impl Keys {
    /// Canonicalises and hashes key columns of `rows` rows.
    pub fn new(columns: Vec<ArrayRef>, rows: usize) -> Keys {
        Keys::exact(columns.into_iter().map(canonical).collect(), rows)
    }

    /// Hashes columns as they are: keys are equal only bit by bit.
    pub fn exact(columns: Vec<ArrayRef>, rows: usize) -> Keys {
        Keys { hashes: hash_columns(&columns, rows), nulls: any_null(&columns), columns }
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.hashes.len()
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }
}

/// How to get the key of a row: which columns of the stored row are its key. Key expressions that are not plain
/// columns (or that need canonical form) are stored behind the row's own columns.
#[derive(Debug)]
pub struct KeySpec {
    exprs: Vec<Expr>,
    types: Vec<DataType>,
    width: usize,
    stored: SchemaRef,
    positions: Vec<usize>,
}

impl KeySpec {
    /// Keys by expressions over rows of `schema`.
    pub fn new(exprs: &[Expr], schema: &SchemaRef) -> Result<KeySpec> {
        let width = schema.fields().len();
        let mut fields: Vec<_> = schema.fields().iter().cloned().collect();
        let mut positions = Vec::with_capacity(exprs.len());
        let mut types = Vec::with_capacity(exprs.len());
        for e in exprs {
            let data_type = e.data_type(schema)?;
            let column = e.downcast_ref::<Column>().filter(|_| !has_float(&data_type));
            match column {
                Some(column) => positions.push(column.index()),
                None => {
                    positions.push(fields.len());
                    let name = format!("key {}", fields.len());
                    fields.push(Arc::new(arrow::datatypes::Field::new(name, data_type.clone(), true)));
                }
            }
            types.push(data_type);
        }
        let stored = Arc::new(arrow::datatypes::Schema::new(fields));
        Ok(KeySpec { exprs: exprs.to_vec(), types, width, stored, positions })
    }

    /// Keys by columns of rows of `schema`.
    pub fn columns(columns: &[usize], schema: &SchemaRef) -> Result<KeySpec> {
        let expr = |c: &usize| Arc::new(Column::new(schema.field(*c).name(), *c)) as Expr;
        KeySpec::new(&columns.iter().map(expr).collect::<Vec<_>>(), schema)
    }

    /// Columns of a stored row: its own, then those keys that are not among them.
    pub fn stored_schema(&self) -> &SchemaRef {
        &self.stored
    }

    /// Where in a stored row the key is.
    pub fn positions(&self) -> &[usize] {
        &self.positions
    }

    /// How many of a stored row's columns are its own.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Types of the key's columns.
    pub fn types(&self) -> &[DataType] {
        &self.types
    }

    /// The keys of a delta's rows; a row whose key fails leaves the delta for `errors`.
    pub fn evaluate(&self, delta: Delta, errors: &mut Vec<RowError>) -> Result<(Delta, Keys)> {
        let (delta, columns) = expr::evaluate(&self.exprs, delta, errors)?;
        let columns = columns.into_iter().zip(&self.types).map(|(c, t)| cast_to(c, t));
        let keys = Keys::new(columns.collect::<Result<Vec<_>>>()?, delta.num_rows());
        Ok((delta, keys))
    }

    /// The delta as it is stored: with the columns of [`KeySpec::stored_schema`].
    pub fn store(&self, delta: Delta, keys: &Keys) -> Result<Delta> {
        let mut columns = delta.rows.columns().to_vec();
        for (position, key) in self.positions.iter().zip(&keys.columns) {
            if *position >= self.width {
                columns.push(Arc::clone(key));
            }
        }
        let rows = crate::engine::delta::batch(&self.stored, columns, delta.num_rows())?;
        Ok(Delta { rows, weights: delta.weights })
    }

    /// The hashes of stored rows.
    pub fn stored_hashes(&self, rows: &RecordBatch) -> Vec<u64> {
        hash_stored(rows, &self.positions)
    }
}

/// Hashes of rows by some of their columns, which are canonical already.
pub fn hash_stored(rows: &RecordBatch, positions: &[usize]) -> Vec<u64> {
    let columns: Vec<ArrayRef> = positions.iter().map(|p| Arc::clone(rows.column(*p))).collect();
    hash_columns(&columns, rows.num_rows())
}

/// Whether equal hashes of such keys always mean equal keys, so that nobody needs to compare them: one column of at
/// most 32 bits, whose values and NULL all hash to different numbers.
pub fn hash_is_key(types: &[DataType]) -> bool {
    !weak_hash() && matches!(types, [one] if one.primitive_width().is_some_and(|w| w <= 4) && !is_struct(one))
}

/// The column with values that SQL calls equal made equal bit by bit.
pub fn canonical(column: ArrayRef) -> ArrayRef {
    match column.data_type() {
        DataType::Float32 => {
            canonical_floats::<Float32Type>(column, |v| v.to_bits().into(), f32::is_nan, 0.0, f32::NAN)
        }
        DataType::Float64 => {
            canonical_floats::<Float64Type>(column, f64::to_bits, f64::is_nan, 0.0, f64::NAN)
        }
        _ => column,
    }
}

fn canonical_floats<T: ArrowPrimitiveType>(
    column: ArrayRef,
    bits: impl Fn(T::Native) -> u64,
    is_nan: impl Fn(T::Native) -> bool,
    zero: T::Native,
    nan: T::Native,
) -> ArrayRef {
    let odd = |v: T::Native| (v == zero && bits(v) != bits(zero)) || (is_nan(v) && bits(v) != bits(nan));
    let floats: &PrimitiveArray<T> = column.as_primitive();
    if !floats.values().iter().any(|v| odd(*v)) {
        return column;
    }
    Arc::new(floats.unary::<_, T>(|v| match (v == zero, is_nan(v)) {
        (true, _) => zero,
        (_, true) => nan,
        _ => v,
    }))
}

fn has_float(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Float32 | DataType::Float64)
}

fn is_struct(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Interval(_))
}

fn any_null(columns: &[ArrayRef]) -> Option<NullBuffer> {
    let nulls =
        columns.iter().fold(None, |all, c| NullBuffer::union(all.as_ref(), c.logical_nulls().as_ref()));
    nulls.filter(|n| n.null_count() > 0)
}

// The value that stands for NULL: no value of 32 bits or less has its upper half set.
const NULL_BITS: u64 = 0x9e37_79b9_7f4a_7c15;

/// A bijection on 64 bits that spreads every input bit over the output (the finaliser of MurmurHash3, Stafford's mix 13).
#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Both halves of the 128-bit product.
#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    product as u64 ^ (product >> 64) as u64
}

/// A hash of bytes, by multiplying and folding 16 bytes at a time.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    const K0: u64 = 0xa076_1d64_78bd_642f;
    const K1: u64 = 0xe703_7ed1_a0b4_28db;
    // All callers below pass 1 to 8 bytes.
    fn word(bytes: &[u8]) -> u64 {
        let mut w = [0; 8];
        w[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(w)
    }
    let mut h = K0 ^ bytes.len() as u64;
    let mut pairs = bytes.chunks_exact(16);
    for pair in &mut pairs {
        h = fold(word(&pair[..8]) ^ K1, word(&pair[8..]) ^ h);
    }
    let rest = pairs.remainder();
    let (a, b) = rest.split_at(rest.len().min(8));
    mix(fold(word(a) ^ K1, word(b) ^ h))
}

/// One hash per row over all columns; canonical columns give equal hashes for equal rows.
pub fn hash_columns(columns: &[ArrayRef], rows: usize) -> Vec<u64> {
    let mut hashes = vec![0; rows];
    for (at, column) in columns.iter().enumerate() {
        debug_assert_eq!(column.len(), rows, "columns of one batch");
        hash_column(column, at == 0, &mut hashes);
    }
    #[cfg(test)]
    if weak_hash() {
        hashes.iter_mut().for_each(|h| *h %= 3);
    }
    hashes
}

fn hash_column(column: &ArrayRef, first: bool, hashes: &mut [u64]) {
    // The first column's 64-bit hash is a bijection of its value; the others are folded in.
    let combine = |h: u64, bits: u64| {
        if first { mix(bits) } else { mix(h.wrapping_mul(0x9ddf_ea08_eb38_2d69) ^ bits) }
    };
    let nulls = column.logical_nulls().filter(|n| n.null_count() > 0);
    let fold_in = |hashes: &mut [u64], bits: &dyn Fn(usize) -> u64| {
        for (i, h) in hashes.iter_mut().enumerate() {
            let bits = if nulls.as_ref().is_some_and(|n| n.is_null(i)) { NULL_BITS } else { bits(i) };
            *h = combine(*h, bits);
        }
    };
    macro_rules! fixed {
        ($values:expr, $bits:expr) => {{
            let values = $values;
            match &nulls {
                None => hashes.iter_mut().zip(values.iter()).for_each(|(h, v)| *h = combine(*h, $bits(*v))),
                Some(n) => hashes.iter_mut().zip(values.iter()).enumerate().for_each(|(i, (h, v))| {
                    *h = combine(*h, if n.is_null(i) { NULL_BITS } else { $bits(*v) })
                }),
            }
        }};
    }
    match FixedWidth::of(column) {
        Some(FixedWidth::W1(v)) => return fixed!(v, u64::from),
        Some(FixedWidth::W2(v)) => return fixed!(v, u64::from),
        Some(FixedWidth::W4(v)) => return fixed!(v, u64::from),
        Some(FixedWidth::W8(v)) => return fixed!(v, |v: u64| v),
        Some(FixedWidth::W16(v)) => return fixed!(v, |v: i128| mix(v as u64) ^ (v >> 64) as u64),
        None => {}
    }
    match column.data_type() {
        DataType::Boolean => {
            let values = column.as_boolean();
            fold_in(hashes, &|i| u64::from(values.value(i)));
        }
        DataType::Utf8View => {
            let values = column.as_string_view();
            fold_in(hashes, &|i| hash_bytes(values.value(i).as_bytes()));
        }
        DataType::BinaryView => {
            let values = column.as_binary_view();
            fold_in(hashes, &|i| hash_bytes(values.value(i)));
        }
        DataType::Utf8 => {
            let values = column.as_string::<i32>();
            fold_in(hashes, &|i| hash_bytes(values.value(i).as_bytes()));
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            fold_in(hashes, &|i| hash_bytes(values.value(i)));
        }
        DataType::Null => fold_in(hashes, &|_| NULL_BITS),
        _ => match row_bytes(column) {
            Ok(rows) => fold_in(hashes, &|i| hash_bytes(rows.row(i).as_ref())),
            // A type without a byte form: one bucket for all, told apart by comparing.
            Err(_) => fold_in(hashes, &|_| NULL_BITS),
        },
    }
}

fn row_bytes(column: &ArrayRef) -> Result<arrow::row::Rows> {
    let converter = RowConverter::new(vec![SortField::new(column.data_type().clone())])?;
    converter.convert_columns(std::slice::from_ref(column)).map_err(Error::from)
}

#[cfg(not(test))]
const fn weak_hash() -> bool {
    false
}

#[cfg(test)]
fn weak_hash() -> bool {
    weak::ON.with(std::cell::Cell::get)
}

/// Lets a test make nearly all hashes collide, so that every comparison behind a hash is put to work.
#[cfg(test)]
pub(crate) mod weak {
    use std::cell::Cell;

    thread_local! {
        pub(super) static ON: Cell<bool> = const { Cell::new(false) };
    }

    /// Runs `f` with hashes of three values only.
    pub(crate) fn with<R>(f: impl FnOnce() -> R) -> R {
        ON.with(|on| on.set(true));
        let result = f();
        ON.with(|on| on.set(false));
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Float64Array, Int32Array, Int64Array, StringViewArray};

    #[test]
    fn hashes_are_the_same_forever() {
        let ints: ArrayRef = Arc::new(Int64Array::from(vec![Some(0), Some(1), Some(-1), None]));
        let text: ArrayRef = Arc::new(StringViewArray::from(vec![
            Some(""),
            Some("short"),
            Some("longer than sixteen bytes, and then some"),
            None,
        ]));
        assert_eq!(
            hash_columns(&[ints, text], 4),
            vec![6174561237540784349, 15610862651431715721, 13463267910151228885, 5796348751283339785]
        );
    }

    #[test]
    fn equal_floats_have_equal_keys() {
        let other_nan = f64::from_bits(f64::NAN.to_bits() ^ 1 ^ (1 << 63));
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, other_nan, 1.0]));
        let keys = Keys::new(vec![floats], 5);
        assert_eq!(keys.hashes[0], keys.hashes[1]);
        assert_eq!(keys.hashes[2], keys.hashes[3]);
        assert_ne!(keys.hashes[0], keys.hashes[4]);
        let values: &Float64Array = keys.columns[0].as_primitive();
        assert_eq!(values.value(1).to_bits(), 0);
        assert_eq!(values.value(2).to_bits(), values.value(3).to_bits());
    }

    #[test]
    fn narrow_keys_never_collide_with_null() {
        let ints: ArrayRef = Arc::new(Int32Array::from_iter((-5000..5000).map(Some).chain([None])));
        let mut hashes = Keys::new(vec![ints], 10_001).hashes;
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 10_001);
        assert!(hash_is_key(&[DataType::Int32]) && !hash_is_key(&[DataType::Int64]));
    }
}
