//! Times with fewer decimal places than microseconds, intervals with fewer fields: what `timestamp(3)` and
//! `interval hour to minute` mean in a cast.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

/// Rounds a time, timestamp or interval to so many decimal places of a second; no query says this name.
pub const ROUNDED: &str = "time_with_places";

/// Leaves out what is below the last field of an interval; no query says this name.
pub const FIELDS: &str = "interval_to_field";

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let function = |name, forms, evaluate: fn(&Call<'_>) -> Result<ArrayRef>| {
        Definition { name, forms, variadic: false, gives: Gives::Plain(0), evaluate }.udf()
    };
    vec![
        function(ROUNDED, &[&[Arg::Any, Arg::Int4]], rounded),
        function(FIELDS, &[&[Arg::Interval, Arg::Text]], to_field),
    ]
}

/// The year 2000 in microseconds, from which PostgreSQL counts.
const Y2K: i64 = 946_684_800_000_000;

/// The multiple of `unit` nearest to a number, the one farther from zero of two.
fn nearest(micros: i64, unit: i64) -> i64 {
    let half = if micros < 0 { -(unit / 2) } else { unit / 2 };
    micros.saturating_add(half) / unit * unit
}

fn rounded(call: &Call<'_>) -> Result<ArrayRef> {
    let places = call.array(1)?.as_primitive::<Int32Type>();
    // The parser lets none but 0 to 6 through.
    let unit = |row: usize| 10i64.pow(6u32.saturating_sub(places.value(row).unsigned_abs()));
    let values = call.array(0)?;
    match values.data_type() {
        DataType::Timestamp(..) => {
            let values = values.as_primitive::<TimestampMicrosecondType>();
            call.values::<TimestampMicrosecondType>(|row| {
                let micros = values.value(row);
                let finite = micros != i64::MAX && micros != i64::MIN;
                Ok(Some(if finite {
                    nearest(micros.saturating_sub(Y2K), unit(row)).saturating_add(Y2K)
                } else {
                    micros
                }))
            })
        }
        DataType::Time64(_) => {
            let values = values.as_primitive::<Time64MicrosecondType>();
            call.values::<Time64MicrosecondType>(|row| Ok(Some(nearest(values.value(row), unit(row)))))
        }
        DataType::Interval(_) => {
            let values = values.as_primitive::<IntervalMonthDayNanoType>();
            call.values::<IntervalMonthDayNanoType>(|row| {
                let value = values.value(row);
                let nanoseconds = nearest(value.nanoseconds, unit(row) * 1000);
                Ok(Some(IntervalMonthDayNano { nanoseconds, ..value }))
            })
        }
        other => Err(Error::internal(format!("{other} has no decimal places"))),
    }
}

fn to_field(call: &Call<'_>) -> Result<ArrayRef> {
    const MINUTE: i64 = 60_000_000_000;
    let (values, fields) = (call.array(0)?.as_primitive::<IntervalMonthDayNanoType>(), call.text(1)?);
    call.values::<IntervalMonthDayNanoType>(|row| {
        let value = values.value(row);
        let down_to = |unit: i64| value.nanoseconds / unit * unit;
        Ok(Some(match fields.value(row) {
            "YEAR" => IntervalMonthDayNano::new(value.months / 12 * 12, 0, 0),
            "MONTH" => IntervalMonthDayNano::new(value.months, 0, 0),
            "DAY" => IntervalMonthDayNano::new(value.months, value.days, 0),
            "HOUR" => IntervalMonthDayNano { nanoseconds: down_to(60 * MINUTE), ..value },
            "MINUTE" => IntervalMonthDayNano { nanoseconds: down_to(MINUTE), ..value },
            "SECOND" => value,
            other => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("\"{other}\" is no field of an interval"),
                ));
            }
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_go_away_from_zero() {
        assert_eq!(nearest(1_500, 1_000), 2_000);
        assert_eq!(nearest(-1_500, 1_000), -2_000);
        assert_eq!(nearest(1_499, 1_000), 1_000);
    }
}
