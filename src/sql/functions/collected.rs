//! What aggregates make of the values that `array_agg` collects for them: JSON documents, percentiles, the mode.
//!
//! `jsonb_agg(x ORDER BY y)` is planned as `jsonb_of_items(array_agg(to_jsonb(x) ORDER BY y))`, and so on.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, ListArray};
use arrow::compute::take;
use arrow::datatypes::Float64Type;
use arrow::row::{RowConverter, SortField};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};
use crate::types::Document;

use Arg::{Any, Float8, List, Text};

const fn finisher(
    name: &'static str,
    forms: &'static [&'static [Arg]],
    gives: Gives,
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms, variadic: false, gives, evaluate }
}

const DEFINITIONS: [Definition; 11] = [
    finisher("json_of_items", &[&[List]], Gives::Json, items),
    finisher("jsonb_of_items", &[&[List]], Gives::Jsonb, items),
    finisher("json_member", &[&[Any, Any]], Gives::Text, |call| member(call, false)),
    finisher("jsonb_member", &[&[Any, Any]], Gives::Text, |call| member(call, true)),
    finisher("json_of_members", &[&[List]], Gives::Json, |call| members(call, false)),
    finisher("jsonb_of_members", &[&[List]], Gives::Jsonb, |call| members(call, true)),
    finisher("text_behind", &[&[Text, Text]], Gives::Text, text_behind),
    finisher("text_of_pieces", &[&[List]], Gives::Text, text_of_pieces),
    finisher("percentile_of", &[&[List, Float8]], Gives::Float8, interpolated),
    finisher("percentile_element", &[&[List, Float8]], Gives::ElementOf(0), discrete),
    finisher("most_frequent", &[&[List]], Gives::ElementOf(0), mode),
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let of_row = Definition { variadic: true, ..finisher("json_of_row", &[&[Any]], Gives::Json, of_row) };
    DEFINITIONS.into_iter().chain([of_row]).map(Definition::udf).collect()
}

/// `[1, null]` of JSON texts.
fn items(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    call.texts(|row| {
        let texts = super::define::texts_at(lists, row)?;
        let texts: Vec<&str> = texts.iter().map(|t| t.as_deref().unwrap_or("null")).collect();
        Ok(Some(format!("[{}]", texts.join(", "))))
    })
}

/// `"key": value`, or `: value` of a key that is NULL, which only matters if the member is collected.
fn member(call: &Call<'_>, jsonb: bool) -> Result<ArrayRef> {
    call.texts_of(|row| {
        let key = super::strings::text_of(call, 0, row)?;
        let key = key.map(|k| Document::String(k).to_string()).unwrap_or_default();
        let value = super::json::value_at(call, 1, row)?;
        Ok(Some(match jsonb {
            true => format!("{key}: {value}"),
            false => format!("{key} : {value}"),
        }))
    })
}

fn members(call: &Call<'_>, jsonb: bool) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    call.texts(|row| {
        let texts = super::define::texts_at(lists, row)?;
        let texts: Vec<&str> = texts.iter().map(|t| t.as_deref().unwrap_or_default()).collect();
        if texts.iter().any(|t| !t.starts_with('"')) {
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, "field name must not be null"));
        }
        if jsonb {
            return crate::types::json::normalize(&format!("{{{}}}", texts.join(", "))).map(Some);
        }
        Ok(Some(format!("{{ {} }}", texts.join(", "))))
    })
}

/// `{"a":1,"b":null}` of names and values in turn.
fn of_row(call: &Call<'_>) -> Result<ArrayRef> {
    call.texts_of(|row| {
        let mut document = String::from("{");
        for field in (0..call.arrays.len()).step_by(2) {
            let name = super::strings::text_of(call, field, row)?.unwrap_or_default();
            let value = super::json::value_at(call, field + 1, row)?;
            let comma = if field > 0 { "," } else { "" };
            document.push_str(&format!("{comma}{}:{value}", Document::String(name)));
        }
        document.push('}');
        Ok(Some(document))
    })
}

/// A text with the delimiter that it has when it is not the first: the delimiter's length, a colon, both.
fn text_behind(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, delimiters) = (call.text(0)?, call.text(1)?);
    call.texts_of(|row| {
        let delimiter = if delimiters.is_null(row) { "" } else { delimiters.value(row) };
        let text = texts.is_valid(row).then(|| texts.value(row));
        Ok(text.map(|text| format!("{}:{delimiter}{text}", delimiter.len())))
    })
}

/// The texts of [`text_behind`] in a row, without the first delimiter; NULL of none.
fn text_of_pieces(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    call.texts(|row| {
        let mut joined: Option<String> = None;
        for piece in super::define::texts_at(lists, row)?.iter().flatten() {
            let parts = piece.split_once(':').and_then(|(length, rest)| Some((length.parse().ok()?, rest)));
            let (length, rest): (usize, &str) =
                parts.ok_or_else(|| Error::internal("a text without its delimiter"))?;
            match &mut joined {
                Some(joined) => joined.push_str(rest),
                first => *first = Some(rest[length..].to_string()),
            }
        }
        Ok(joined)
    })
}

fn fraction(call: &Call<'_>, row: usize) -> Result<f64> {
    let fraction = call.float8(1)?.value(row);
    if (0.0..=1.0).contains(&fraction) {
        return Ok(fraction);
    }
    Err(Error::new(
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        format!("percentile value {fraction} is not between 0 and 1"),
    ))
}

/// The places of a row's elements that are not NULL.
fn present(lists: &ListArray, row: usize) -> Vec<usize> {
    let offsets = lists.value_offsets();
    let values = lists.values();
    (offsets[row] as usize..offsets[row + 1] as usize).filter(|i| values.is_valid(*i)).collect()
}

/// Between the two values that a fraction falls between.
fn interpolated(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    let values = lists
        .values()
        .as_primitive_opt::<Float64Type>()
        .ok_or_else(|| Error::unsupported("percentile_cont of something else than numbers"))?;
    call.values::<Float64Type>(|row| {
        let (places, fraction) = (present(lists, row), fraction(call, row)?);
        if places.is_empty() {
            return Ok(None);
        }
        let place = fraction * (places.len() - 1) as f64;
        // At most the number of values.
        let (low, high) =
            (values.value(places[place.floor() as usize]), values.value(places[place.ceil() as usize]));
        let part = place - place.floor();
        Ok(Some(low + part * (high - low)))
    })
}

/// The elements at these places, NULL where there is none.
fn chosen(
    call: &Call<'_>,
    lists: &ListArray,
    choose: impl Fn(usize) -> Result<Option<usize>>,
) -> Result<ArrayRef> {
    let places: Vec<Option<u32>> = (0..call.rows)
        .map(|row| Ok(if call.complete(row) { choose(row)?.map(|i| i as u32) } else { None }))
        .collect::<Result<_>>()?;
    Ok(take(lists.values(), &arrow::array::UInt32Array::from(places), None)?)
}

/// The first value that at least the fraction of all are not behind.
fn discrete(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    chosen(call, lists, |row| {
        let (places, fraction) = (present(lists, row), fraction(call, row)?);
        let place = (fraction * places.len() as f64).ceil() as usize;
        Ok(places.get(place.saturating_sub(1)).copied())
    })
}

/// Of the values in their order, the first of those that come most often.
fn mode(call: &Call<'_>) -> Result<ArrayRef> {
    let lists = call.list(0)?;
    let converter = RowConverter::new(vec![SortField::new(lists.values().data_type().clone())])?;
    let rows = converter.convert_columns(&[Arc::clone(lists.values())])?;
    chosen(call, lists, |row| {
        let places = present(lists, row);
        let (mut best, mut most) = (None, 0);
        let mut start = 0;
        // Equal values stand together.
        for i in 0..places.len() {
            if rows.row(places[i]) != rows.row(places[start]) {
                start = i;
            }
            if i + 1 - start > most {
                (best, most) = (Some(places[start]), i + 1 - start);
            }
        }
        Ok(best)
    })
}
