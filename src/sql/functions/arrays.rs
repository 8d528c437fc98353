//! Functions of arrays that DataFusion does not have, or that answer otherwise there when elements are NULL.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int32Builder, Int64Builder, ListArray, ListBuilder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::{concat, take};
use arrow::datatypes::{DataType, Int32Type};
use arrow::row::{RowConverter, Rows, SortField};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF};

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::{Beside, ElementOf, Int4, Like, List, ListBeside};

const fn function(
    name: &'static str,
    forms: &'static [&'static [Arg]],
    gives: Gives,
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms, variadic: false, gives, evaluate }
}

const CONTAINS: Definition = function("array_contains", &[&[List, Like(0)]], Gives::Bool, contains);
const OVERLAPS: Definition = function("array_overlaps", &[&[List, Like(0)]], Gives::Bool, overlaps);

const APPEND: Definition =
    function("array_append", &[&[ListBeside(1), Beside(0)]], Gives::Plain(0), |call| {
        with_element(call, call.array(0)?, call.array(1)?, false)
    });
const PREPEND: Definition =
    function("array_prepend", &[&[Beside(1), ListBeside(0)]], Gives::Plain(1), |call| {
        with_element(call, call.array(1)?, call.array(0)?, true)
    });

const DEFINITIONS: [Definition; 15] = [
    function("array_position", &[&[List, ElementOf(0)], &[List, ElementOf(0), Int4]], Gives::Int4, position),
    function("array_positions", &[&[List, ElementOf(0)]], Gives::Int4Array, positions),
    function("array_remove", &[&[List, ElementOf(0)]], Gives::Plain(0), remove),
    function("array_replace", &[&[List, ElementOf(0), ElementOf(0)]], Gives::Plain(0), replace),
    function("trim_array", &[&[List, Int4]], Gives::Plain(0), trim),
    APPEND,
    PREPEND,
    function("bucket_of", &[&[Beside(1), ListBeside(0)]], Gives::Int4, bucket),
    function("array_fill", &[&[Arg::Any, List]], Gives::ArrayOf(0), fill),
    function("array_dims", &[&[List]], Gives::Text, |call| {
        let lists = call.list(0)?;
        call.texts(|row| {
            Ok(match lists.value_length(row) {
                0 => None,
                n => Some(format!("[1:{n}]")),
            })
        })
    }),
    function("array_ndims", &[&[List]], Gives::Int4, |call| {
        let lists = call.list(0)?;
        call.values::<Int32Type>(|row| Ok((lists.value_length(row) > 0).then_some(1)))
    }),
    function("cardinality", &[&[List]], Gives::Int4, |call| {
        let lists = call.list(0)?;
        call.values::<Int32Type>(|row| {
            Ok(Some(i32::try_from(elements(&lists.value(row))).unwrap_or(i32::MAX)))
        })
    }),
    function("array_lower", &[&[List, Int4]], Gives::Int4, |call| bound(call, |_| 1)),
    function("array_upper", &[&[List, Int4]], Gives::Int4, |call| bound(call, |n| n)),
    function(
        "array_subscripts",
        &[&[List], &[List, Int4], &[List, Int4, Arg::Bool]],
        Gives::Int4Array,
        subscripts,
    ),
];

/// How many elements there are, those of arrays within counted alone.
fn elements(values: &ArrayRef) -> usize {
    match values.as_list_opt::<i32>() {
        Some(lists) => {
            (0..lists.len()).filter(|i| lists.is_valid(*i)).map(|i| elements(&lists.value(i))).sum()
        }
        None => values.len(),
    }
}

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let ordinals = function("array_ordinals", &[&[List]], Gives::Int8Array, ordinals);
    DEFINITIONS.into_iter().chain([ordinals]).map(Definition::udf).collect()
}

const ELEMENT: Definition = function("array_element_at", &[&[List, Arg::Int8]], Gives::ElementOf(0), element);

/// The function that answers as PostgreSQL where DataFusion's of this name does not: `a[i]`.
pub fn instead_of(name: &str) -> Option<Arc<ScalarUDF>> {
    (name == "array_element").then(|| ELEMENT.udf())
}

/// `whole @> part`
pub(super) fn contains_all(whole: Expr, part: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(CONTAINS.udf(), vec![whole, part]))
}

/// `a && b`
pub(super) fn have_common(a: Expr, b: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(OVERLAPS.udf(), vec![a, b]))
}

/// `list || element`
pub(super) fn appended(list: Expr, element: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(APPEND.udf(), vec![list, element]))
}

/// `element || list`
pub(super) fn prepended(element: Expr, list: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(PREPEND.udf(), vec![element, list]))
}

/// The elements of a batch's lists in a form whose bytes are equal when the elements are.
struct Elements<'a> {
    lists: &'a ListArray,
    rows: Rows,
}

/// Brings several columns of one type into such a form.
fn comparable(columns: &[&ArrayRef]) -> Result<Vec<Rows>> {
    let Some(first) = columns.first() else { return Ok(Vec::new()) };
    let converter = RowConverter::new(vec![SortField::new(first.data_type().clone())])?;
    let rows = columns.iter().map(|c| converter.convert_columns(&[Arc::clone(c)]));
    Ok(rows.collect::<std::result::Result<_, _>>()?)
}

impl Elements<'_> {
    fn range(&self, row: usize) -> std::ops::Range<usize> {
        let offsets = self.lists.value_offsets();
        offsets[row] as usize..offsets[row + 1] as usize
    }
}

/// Two lists of one element type.
fn pair<'c>(call: &'c Call<'_>) -> Result<(Elements<'c>, Elements<'c>)> {
    let (a, b) = (call.list(0)?, call.list(1)?);
    let b_values = match a.values().data_type() == b.values().data_type() {
        true => Arc::clone(b.values()),
        false => arrow::compute::cast(b.values(), a.values().data_type())?,
    };
    let mut rows = comparable(&[a.values(), &b_values])?.into_iter();
    match (rows.next(), rows.next()) {
        (Some(x), Some(y)) => Ok((Elements { lists: a, rows: x }, Elements { lists: b, rows: y })),
        _ => Err(Error::internal("two columns became fewer")),
    }
}

/// Every element of the second is one of the first; NULLs are no element of anything.
fn contains(call: &Call<'_>) -> Result<ArrayRef> {
    let (whole, part) = pair(call)?;
    call.bools(|row| {
        Ok(Some(part.range(row).all(|i| {
            part.lists.values().is_valid(i) && whole.range(row).any(|j| whole.rows.row(j) == part.rows.row(i))
        })))
    })
}

fn overlaps(call: &Call<'_>) -> Result<ArrayRef> {
    let (a, b) = pair(call)?;
    call.bools(|row| {
        Ok(Some(
            b.range(row).any(|i| {
                b.lists.values().is_valid(i) && a.range(row).any(|j| a.rows.row(j) == b.rows.row(i))
            }),
        ))
    })
}

/// A list and a column of values that may be its elements.
fn searched<'c>(call: &'c Call<'_>) -> Result<(Elements<'c>, Rows)> {
    let (lists, wanted) = (call.list(0)?, call.array(1)?);
    let wanted = arrow::compute::cast(wanted, lists.values().data_type())?;
    let mut rows = comparable(&[lists.values(), &wanted])?.into_iter();
    match (rows.next(), rows.next()) {
        (Some(x), Some(y)) => Ok((Elements { lists, rows: x }, y)),
        _ => Err(Error::internal("two columns became fewer")),
    }
}

/// An element by its subscript; there are none before the first.
fn element(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, subscripts) = (call.list(0)?, call.int8(1)?);
    let places: arrow::array::UInt32Array = (0..call.rows)
        .map(|row| {
            let place = usize::try_from(subscripts.value(row)).ok()?.checked_sub(1)?;
            let offsets = lists.value_offsets();
            let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
            // An index of a batch fits by far.
            (call.complete(row) && place < to - from).then_some((from + place) as u32)
        })
        .collect();
    Ok(take(lists.values(), &places, None)?)
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, wanted) = searched(call)?;
    let starts = match call.arrays.len() {
        3 => Some(call.int4(2)?),
        _ => None,
    };
    let found = (0..call.rows).map(|row| {
        let start = starts.map_or(1, |s| if s.is_valid(row) { s.value(row) } else { 1 });
        let skipped = usize::try_from(start - 1).unwrap_or(0);
        if lists.lists.is_null(row) {
            return None;
        }
        let range = lists.range(row);
        let first = range.start;
        let place = range.skip(skipped).find(|i| lists.rows.row(*i) == wanted.row(row))?;
        // A list has less than 2³¹ elements.
        Some((place - first) as i32 + 1)
    });
    Ok(Arc::new(found.collect::<arrow::array::Int32Array>()))
}

fn positions(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, wanted) = searched(call)?;
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..call.rows {
        if lists.lists.is_null(row) {
            out.append(false);
            continue;
        }
        let range = lists.range(row);
        let first = range.start;
        for i in range.filter(|i| lists.rows.row(*i) == wanted.row(row)) {
            out.values().append_value((i - first) as i32 + 1);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

/// Lists of the elements with these numbers.
fn collected(
    call: &Call<'_>,
    lists: &ListArray,
    values: &ArrayRef,
    elements: impl Fn(usize, &mut Vec<u32>) -> Result<()>,
) -> Result<ArrayRef> {
    let DataType::List(item) = call.gives.data_type() else {
        return Err(Error::internal(format!("{} gives no list", call.name)));
    };
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    for row in 0..call.rows {
        let before = indices.len();
        if lists.is_valid(row) {
            elements(row, &mut indices)?;
        }
        lengths.push(indices.len() - before);
    }
    let taken = take(values, &arrow::array::UInt32Array::from(indices), None)?;
    let nulls: Option<NullBuffer> = lists.nulls().cloned();
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), taken, nulls)?))
}

fn remove(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, wanted) = searched(call)?;
    collected(call, lists.lists, lists.lists.values(), |row, out| {
        // An index of a batch fits by far.
        out.extend(lists.range(row).filter(|i| lists.rows.row(*i) != wanted.row(row)).map(|i| i as u32));
        Ok(())
    })
}

fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, wanted) = searched(call)?;
    let values = lists.lists.values();
    let new = arrow::compute::cast(call.array(2)?, values.data_type())?;
    // The new values stand behind the old ones.
    let all = concat(&[values.as_ref(), new.as_ref()])?;
    let old = values.len();
    collected(call, lists.lists, &all, |row, out| {
        out.extend(
            lists
                .range(row)
                .map(|i| (if lists.rows.row(i) == wanted.row(row) { old + row } else { i }) as u32),
        );
        Ok(())
    })
}

/// Lists with one more element; of NULL it is the only one.
fn with_element(call: &Call<'_>, lists: &ArrayRef, elements: &ArrayRef, first: bool) -> Result<ArrayRef> {
    let DataType::List(item) = call.gives.data_type() else {
        return Err(Error::internal(format!("{} gives no list", call.name)));
    };
    let lists = arrow::array::AsArray::as_list::<i32>(lists);
    let values = arrow::compute::cast(lists.values(), item.data_type())?;
    let elements = arrow::compute::cast(elements, item.data_type())?;
    let all = concat(&[values.as_ref(), elements.as_ref()])?;
    let (mut indices, mut lengths) = (Vec::new(), Vec::with_capacity(call.rows));
    let offsets = lists.value_offsets();
    for row in 0..call.rows {
        let before = indices.len();
        // An index of a batch fits by far.
        let new = (values.len() + row) as u32;
        indices.extend(first.then_some(new));
        if lists.is_valid(row) {
            indices.extend((offsets[row]..offsets[row + 1]).map(|i| i as u32));
        }
        indices.extend((!first).then_some(new));
        lengths.push(indices.len() - before);
    }
    let taken = take(&all, &arrow::array::UInt32Array::from(indices), None)?;
    Ok(Arc::new(ListArray::try_new(Arc::clone(item), OffsetBuffer::from_lengths(lengths), taken, None)?))
}

/// How many of the lower bounds in a list a value has reached.
fn bucket(call: &Call<'_>) -> Result<ArrayRef> {
    let (operands, bounds) = (call.array(0)?, call.list(1)?);
    let mut rows = comparable(&[bounds.values(), operands])?.into_iter();
    let (Some(limits), Some(values)) = (rows.next(), rows.next()) else {
        return Err(Error::internal("two columns became fewer"));
    };
    call.values::<Int32Type>(|row| {
        let offsets = bounds.value_offsets();
        let (from, to) = (offsets[row] as usize, offsets[row + 1] as usize);
        if (from..to).any(|i| bounds.values().is_null(i)) {
            return Err(Error::new(SqlState("22004"), "thresholds array must not contain NULLs"));
        }
        let places: Vec<usize> = (from..to).collect();
        // A list has less than 2³¹ elements.
        Ok(Some(places.partition_point(|i| limits.row(*i) <= values.row(row)) as i32))
    })
}

fn trim(call: &Call<'_>) -> Result<ArrayRef> {
    let (lists, counts) = (call.list(0)?, call.int4(1)?);
    collected(call, lists, lists.values(), |row, out| {
        let offsets = lists.value_offsets();
        let (from, to) = (offsets[row], offsets[row + 1]);
        let n = counts.value(row);
        if n < 0 || n > to - from {
            return Err(Error::new(
                SqlState("2202E"),
                format!("number of elements to trim must be between 0 and {}", to - from),
            ));
        }
        out.extend((from..to - n).map(|i| i as u32));
        Ok(())
    })
}

/// At most so many elements are filled in.
const FILL_MAX: i32 = 10_000_000;

fn fill(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, sizes) = (call.array(0)?, call.list(1)?);
    let counts = arrow::compute::cast(sizes.values(), &DataType::Int32)?;
    let counts = arrow::array::AsArray::as_primitive::<Int32Type>(&counts);
    collected(call, sizes, values, |row, out| {
        if sizes.value_length(row) != 1 {
            return Err(Error::unsupported("array_fill of more than one dimension"));
        }
        let count = counts.value(sizes.value_offsets()[row] as usize);
        if count > FILL_MAX {
            return Err(Error::new(SqlState("54000"), format!("array size exceeds {FILL_MAX}")));
        }
        out.extend((0..count.max(0)).map(|_| row as u32));
        Ok(())
    })
}

/// The first or the last subscript; NULL of empty arrays and other dimensions.
fn bound(call: &Call<'_>, of: impl Fn(i32) -> i32) -> Result<ArrayRef> {
    let (lists, dimensions) = (call.list(0)?, call.int4(1)?);
    call.values::<Int32Type>(|row| {
        let length = lists.value_length(row);
        Ok((length > 0 && dimensions.value(row) == 1).then(|| of(length)))
    })
}

fn subscripts(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    let backwards: Option<&BooleanArray> = if call.arrays.len() > 2 { Some(call.bool(2)?) } else { None };
    let mut out = ListBuilder::new(Int32Builder::new());
    for row in 0..call.rows {
        let one_dimension = call.arrays.len() < 2 || call.int4(1)?.value(row) == 1;
        if call.complete(row) && one_dimension {
            let n = lists.value_length(row);
            match backwards.is_some_and(|b| b.value(row)) {
                true => (1..=n).rev().for_each(|i| out.values().append_value(i)),
                false => (1..=n).for_each(|i| out.values().append_value(i)),
            }
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn ordinals(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    let mut out = ListBuilder::new(Int64Builder::new());
    for row in 0..call.rows {
        if lists.is_valid(row) {
            (1..=i64::from(lists.value_length(row))).for_each(|i| out.values().append_value(i));
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}
