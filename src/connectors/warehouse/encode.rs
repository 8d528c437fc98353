//! Columns in the form in which warehouses read them: plain Arrow types, text for what Parquet cannot say.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringBuilder};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, IntervalMonthDayNanoType};
use arrow::json::EncoderOptions;
use arrow::json::writer::make_encoder;

use crate::error::{Error, Result};

/// How one column is staged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// As this type.
    Cast(DataType),
    /// As PostgreSQL writes intervals.
    IntervalText,
    /// As JSON text.
    Json,
}

impl Encoding {
    /// The type of the staged column.
    pub fn data_type(&self) -> DataType {
        match self {
            Encoding::Cast(data_type) => data_type.clone(),
            Encoding::IntervalText | Encoding::Json => DataType::Utf8,
        }
    }

    /// The staged column.
    ///
    /// # Errors
    /// A value that the type cannot hold.
    pub fn apply(&self, column: &ArrayRef) -> Result<ArrayRef> {
        match self {
            Encoding::Cast(data_type) if data_type == column.data_type() => Ok(column.clone()),
            Encoding::Cast(data_type) => {
                let strict = CastOptions { safe: false, ..CastOptions::default() };
                Ok(cast_with_options(column, data_type, &strict)?)
            }
            Encoding::IntervalText => intervals(column),
            Encoding::Json => json(column),
        }
    }
}

fn intervals(column: &ArrayRef) -> Result<ArrayRef> {
    let column = column
        .as_primitive_opt::<IntervalMonthDayNanoType>()
        .ok_or_else(|| Error::internal(format!("{} is no interval", column.data_type())))?;
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut text = String::new();
    for value in column {
        match value {
            Some(v) => {
                text.clear();
                write_interval(&mut text, v.months, v.days, v.nanoseconds / 1_000);
                texts.append_value(&text);
            }
            None => texts.append_null(),
        }
    }
    Ok(Arc::new(texts.finish()))
}

/// PostgreSQL's output style `postgres`: `1 year 2 mons -3 days 04:05:06.5`.
fn write_interval(out: &mut String, months: i32, days: i32, micros: i64) {
    use std::fmt::Write;
    let mut parts: Vec<String> = Vec::with_capacity(4);
    let mut unit = |n: i64, one: &str, many: &str, after_negative: bool| {
        if n != 0 {
            // PostgreSQL shows the sign of a positive field that follows a negative one.
            let sign = if after_negative && n > 0 { "+" } else { "" };
            parts.push(format!("{sign}{n} {}", if n == 1 { one } else { many }));
        }
    };
    let (years, months) = (i64::from(months) / 12, i64::from(months) % 12);
    let days = i64::from(days);
    unit(years, "year", "years", false);
    unit(months, "mon", "mons", years < 0);
    let negative = if months != 0 { months < 0 } else { years < 0 };
    unit(days, "day", "days", negative);
    let negative = if days != 0 { days < 0 } else { negative };
    if micros != 0 || parts.is_empty() {
        let sign = match (micros < 0, negative) {
            (true, _) => "-",
            (false, true) => "+",
            (false, false) => "",
        };
        let total = micros.unsigned_abs();
        let (seconds, fraction) = (total / 1_000_000, total % 1_000_000);
        let mut time = format!("{sign}{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
        if fraction != 0 {
            let digits = format!("{fraction:06}");
            // Writing to a String cannot fail.
            let _ = write!(time, ".{}", digits.trim_end_matches('0'));
        }
        parts.push(time);
    }
    out.push_str(&parts.join(" "));
}

fn json(column: &ArrayRef) -> Result<ArrayRef> {
    let field = Arc::new(arrow::datatypes::Field::new("value", column.data_type().clone(), true));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, column.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(column.len(), column.len() * 16);
    let mut text = Vec::new();
    for row in 0..column.len() {
        if column.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        texts.append_value(String::from_utf8_lossy(&text));
    }
    Ok(Arc::new(texts.finish()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{Decimal128Array, IntervalMonthDayNanoArray, ListArray};
    use arrow::datatypes::{Int64Type, IntervalMonthDayNano};

    fn texts(column: ArrayRef, encoding: &Encoding) -> Vec<Option<String>> {
        encoding.apply(&column).unwrap().as_string::<i32>().iter().map(|t| t.map(str::to_string)).collect()
    }

    #[test]
    fn intervals_read_as_in_postgresql() {
        for (months, days, micros, text) in [
            (0, 0, 0, "00:00:00"),
            (14, -3, 14_706_500_000_i64, "1 year 2 mons -3 days +04:05:06.5"),
            (-1, 2, 0, "-1 mons +2 days"),
            (0, 1, -1_000_000, "1 day -00:00:01"),
            (0, 0, 360_000_000_000, "100:00:00"),
        ] {
            let value = IntervalMonthDayNano::new(months, days, micros * 1_000);
            let column: ArrayRef = Arc::new(IntervalMonthDayNanoArray::from(vec![Some(value), None]));
            assert_eq!(texts(column, &Encoding::IntervalText), [Some(text.to_string()), None]);
        }
    }

    #[test]
    fn lists_become_json() {
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
            Some(vec![Some(1), None]),
            None,
            Some(Vec::new()),
        ]);
        assert_eq!(
            texts(Arc::new(lists), &Encoding::Json),
            [Some("[1,null]".to_string()), None, Some("[]".to_string())]
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_an_error() {
        let wide = Decimal128Array::from(vec![12_345]).with_precision_and_scale(10, 2).unwrap();
        let narrow = Encoding::Cast(DataType::Decimal128(4, 2));
        assert!(narrow.apply(&(Arc::new(wide) as ArrayRef)).is_err());
    }
}
