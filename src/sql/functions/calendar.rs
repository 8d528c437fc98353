//! Functions of dates, times and intervals that DataFusion does not have, or only within the range of nanoseconds:
//! `date_trunc`, `make_…`, `justify_…`, `isfinite`.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{
    DataType, Date32Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Time64MicrosecondType,
    TimestampMicrosecondType,
};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};
use crate::types::{Moment, Zone};

use Arg::{Any, Float8, Int4, Interval, Text, Timestamp, Timestamptz};

const SECOND: i64 = 1_000_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

const fn function(
    name: &'static str,
    forms: &'static [&'static [Arg]],
    gives: Gives,
    evaluate: fn(&Call<'_>) -> Result<ArrayRef>,
) -> Definition {
    Definition { name, forms, variadic: false, gives, evaluate }
}

const DEFINITIONS: [Definition; 13] = [
    function(
        "date_trunc",
        &[&[Text, Timestamptz], &[Text, Timestamp], &[Text, Interval], &[Text, Timestamptz, Text]],
        Gives::Plain(1),
        truncate,
    ),
    function(
        "date_bin",
        &[&[Interval, Timestamptz, Timestamptz], &[Interval, Timestamp, Timestamp]],
        Gives::Plain(1),
        binned,
    ),
    function("make_date", &[&[Int4, Int4, Int4]], Gives::Date, |call| {
        call.values::<Date32Type>(|row| {
            let part = |i| Ok::<_, Error>(i64::from(call.int4(i)?.value(row)));
            let days = day_of(part(0)?, part(1)?, part(2)?)?;
            i32::try_from(days).map(Some).map_err(|_| out_of_range("date field value out of range"))
        })
    }),
    function("make_time", &[&[Int4, Int4, Float8]], Gives::Time, |call| {
        call.values::<Time64MicrosecondType>(|row| time_of(call, 0, row).map(Some))
    }),
    function("make_timestamp", &[&[Int4, Int4, Int4, Int4, Int4, Float8]], Gives::Timestamp, moment),
    function(
        "make_timestamptz",
        &[&[Int4, Int4, Int4, Int4, Int4, Float8], &[Int4, Int4, Int4, Int4, Int4, Float8, Text]],
        Gives::Timestamptz,
        moment,
    ),
    function("make_interval", &[&[Int4, Int4, Int4, Int4, Int4, Int4, Float8]], Gives::Interval, span),
    function("justify_hours", &[&[Interval]], Gives::Interval, |call| spans(call, justify_hours)),
    function("justify_days", &[&[Interval]], Gives::Interval, |call| spans(call, justify_days)),
    function("justify_interval", &[&[Interval]], Gives::Interval, |call| spans(call, justify)),
    function("isfinite", &[&[Any]], Gives::Bool, is_finite),
    Definition {
        name: "num_nulls",
        forms: &[&[Any]],
        variadic: true,
        gives: Gives::Int4,
        evaluate: |call| count_nulls(call, true),
    },
    Definition {
        name: "num_nonnulls",
        forms: &[&[Any]],
        variadic: true,
        gives: Gives::Int4,
        evaluate: |call| count_nulls(call, false),
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

fn out_of_range(message: &str) -> Error {
    Error::new(SqlState("22008"), message)
}

/// The start of the span, of equal ones from an origin, that a moment is in.
fn binned(call: &Call<'_>) -> Result<ArrayRef> {
    let strides = call.array(0)?.as_primitive::<IntervalMonthDayNanoType>();
    let (moments, origins) = (call.moments(1)?, call.moments(2)?);
    call.values::<TimestampMicrosecondType>(|row| {
        let (stride, at) = (strides.value(row), moments.value(row));
        if stride.months != 0 {
            let message = "timestamps cannot be binned into intervals containing months or years";
            return Err(Error::new(SqlState::FEATURE_NOT_SUPPORTED, message));
        }
        let stride = i64::from(stride.days) * DAY + stride.nanoseconds / 1000;
        if stride <= 0 {
            return Err(out_of_range("stride must be greater than zero"));
        }
        if at == i64::MAX || at == i64::MIN {
            return Ok(Some(at));
        }
        let since =
            at.checked_sub(origins.value(row)).ok_or_else(|| out_of_range("interval out of range"))?;
        // Not before what there is but by less than a stride.
        Ok(Some(at.saturating_sub(since.rem_euclid(stride))))
    })
}

/// Days since 1970 of a date that there is; years before the first are counted downwards from -1.
fn day_of(year: i64, month: i64, day: i64) -> Result<i64> {
    let refused = || out_of_range(&format!("date field value out of range: {year}-{month:02}-{day:02}"));
    let astronomical = if year < 0 { year + 1 } else { year };
    let months = u32::try_from(month).ok().filter(|m| (1..=12).contains(m)).ok_or_else(refused)?;
    if year == 0 || !(1..=Moment::days_in_month(astronomical, months)).contains(&day) || year.abs() > 200_000
    {
        return Err(refused());
    }
    Ok(Moment::days_of(astronomical, month, day))
}

/// The microseconds of the time of day in three arguments.
fn time_of(call: &Call<'_>, first: usize, row: usize) -> Result<i64> {
    let (hour, minute) = (call.int4(first)?.value(row), call.int4(first + 1)?.value(row));
    let second = call.float8(first + 2)?.value(row);
    let last = hour == 24 && minute == 0 && second == 0.0;
    if !((0..24).contains(&hour) || last) || !(0..60).contains(&minute) || !(0.0..=60.0).contains(&second) {
        return Err(out_of_range(&format!("time field value out of range: {hour}:{minute:02}:{second:02}")));
    }
    // Less than 2⁶³ by the checks above.
    Ok(i64::from(hour) * HOUR + i64::from(minute) * MINUTE + (second * 1e6).round() as i64)
}

fn moment(call: &Call<'_>) -> Result<ArrayRef> {
    let zones = if call.arrays.len() > 6 { Some(call.text(6)?) } else { None };
    call.values::<TimestampMicrosecondType>(|row| {
        let part = |i| Ok::<_, Error>(i64::from(call.int4(i)?.value(row)));
        let local = day_of(part(0)?, part(1)?, part(2)?)? * DAY + time_of(call, 3, row)?;
        let Some(zones) = zones else { return Ok(Some(local)) };
        let zone = zone(zones.value(row))?;
        Ok(Some(local.saturating_sub(i64::from(zone.offset_of_local(local)) * SECOND)))
    })
}

fn zone(name: &str) -> Result<Zone> {
    Zone::parse(name).ok_or_else(|| {
        Error::new(SqlState::INVALID_PARAMETER_VALUE, format!("time zone \"{name}\" not recognized"))
    })
}

/// `make_interval(years, months, weeks, days, hours, mins, secs)`.
fn span(call: &Call<'_>) -> Result<ArrayRef> {
    let refused = || out_of_range("interval out of range");
    call.values::<IntervalMonthDayNanoType>(|row| {
        let part = |i| Ok::<_, Error>(i64::from(call.int4(i)?.value(row)));
        let months = i32::try_from(part(0)? * 12 + part(1)?).map_err(|_| refused())?;
        let days = i32::try_from(part(2)? * 7 + part(3)?).map_err(|_| refused())?;
        let seconds = call.float8(6)?.value(row);
        if !seconds.is_finite() || seconds.abs() > 1e12 {
            return Err(refused());
        }
        // Less than 2⁶³ by the check above.
        let micros = part(4)? * HOUR + part(5)? * MINUTE + (seconds * 1e6).round() as i64;
        let nanos = micros.checked_mul(1000).ok_or_else(refused)?;
        Ok(Some(IntervalMonthDayNano::new(months, days, nanos)))
    })
}

#[derive(Clone, Copy)]
enum Unit {
    /// So many microseconds.
    Micros(i64),
    Day,
    Week,
    /// So many months.
    Months(i64),
    /// So many years, counted from the year 1.
    Years(i64),
}

impl Unit {
    fn parse(name: &str) -> Result<Unit> {
        let lower = name.to_ascii_lowercase();
        Ok(match lower.trim_end_matches('s') {
            "microsecond" | "u" => Unit::Micros(1),
            "millisecond" | "m" => Unit::Micros(1000),
            "second" => Unit::Micros(SECOND),
            "minute" => Unit::Micros(MINUTE),
            "hour" => Unit::Micros(HOUR),
            "day" => Unit::Day,
            "week" => Unit::Week,
            "month" => Unit::Months(1),
            "quarter" => Unit::Months(3),
            "year" => Unit::Months(12),
            "decade" => Unit::Years(10),
            "century" | "centurie" => Unit::Years(100),
            "millennium" => Unit::Years(1000),
            _ => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unit \"{name}\" not recognized"),
                ));
            }
        })
    }

    /// The start of the unit that a local moment is in.
    fn start(self, micros: i64) -> i64 {
        if micros == i64::MAX || micros == i64::MIN {
            return micros;
        }
        let at = Moment::of(micros);
        match self {
            Unit::Micros(n) => micros - micros.rem_euclid(n),
            Unit::Day => micros - micros.rem_euclid(DAY),
            Unit::Week => {
                let since_monday = i64::from((at.weekday + 6) % 7);
                micros - micros.rem_euclid(DAY) - since_monday * DAY
            }
            Unit::Months(n) => {
                let month = i64::from(at.month) - 1;
                Moment::days_of(at.year, month - month.rem_euclid(n) + 1, 1) * DAY
            }
            // Decades start with a zero, centuries and millennia with a one.
            Unit::Years(10) => Moment::days_of(at.year - at.year.rem_euclid(10), 1, 1) * DAY,
            Unit::Years(n) => Moment::days_of(at.year - (at.year - 1).rem_euclid(n), 1, 1) * DAY,
        }
    }

    fn start_of_span(self, span: IntervalMonthDayNano) -> Result<IntervalMonthDayNano> {
        let IntervalMonthDayNano { months, days, nanoseconds } = span;
        // Months are cut towards zero; what is a multiple of them fits where they did.
        let cut = |n: i64| IntervalMonthDayNano::new((i64::from(months) / n * n) as i32, 0, 0);
        Ok(match self {
            Unit::Micros(n) => IntervalMonthDayNano::new(months, days, nanoseconds / (n * 1000) * (n * 1000)),
            Unit::Day => IntervalMonthDayNano::new(months, days, 0),
            Unit::Week => {
                return Err(Error::unsupported("date_trunc of an interval by the week"));
            }
            Unit::Months(n) => cut(n),
            Unit::Years(n) => cut(n * 12),
        })
    }
}

fn truncate(call: &Call<'_>) -> Result<ArrayRef> {
    let (units, values) = (call.text(0)?, call.array(1)?);
    if let Some(spans) = values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        return call.values::<IntervalMonthDayNanoType>(|row| {
            Unit::parse(units.value(row))?.start_of_span(spans.value(row)).map(Some)
        });
    }
    let moments = call.moments(1)?;
    let zones = match call.arrays.len() {
        3 => Some(call.text(2)?),
        _ => None,
    };
    call.values::<TimestampMicrosecondType>(|row| {
        let (unit, at) = (Unit::parse(units.value(row))?, moments.value(row));
        let Some(zones) = zones else { return Ok(Some(unit.start(at))) };
        let zone = zone(zones.value(row))?;
        let local = unit.start(at.saturating_add(i64::from(zone.offset_at(at)) * SECOND));
        Ok(Some(local.saturating_sub(i64::from(zone.offset_of_local(local)) * SECOND)))
    })
}

fn spans(
    call: &Call<'_>,
    change: impl Fn(IntervalMonthDayNano) -> Option<IntervalMonthDayNano>,
) -> Result<ArrayRef> {
    let values = call
        .array(0)?
        .as_primitive_opt::<IntervalMonthDayNanoType>()
        .ok_or_else(|| Error::internal(format!("{} of something else than an interval", call.name)))?;
    call.values::<IntervalMonthDayNanoType>(|row| {
        change(values.value(row)).map(Some).ok_or_else(|| out_of_range("interval out of range"))
    })
}

const DAY_NANOS: i64 = DAY * 1000;

/// Whole days of 24 hours are days, both with one sign.
fn justify_hours(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let whole = i32::try_from(span.nanoseconds / DAY_NANOS).ok()?;
    let (mut days, mut rest) = (span.days.checked_add(whole)?, span.nanoseconds % DAY_NANOS);
    if days > 0 && rest < 0 {
        (days, rest) = (days - 1, rest + DAY_NANOS);
    } else if days < 0 && rest > 0 {
        (days, rest) = (days + 1, rest - DAY_NANOS);
    }
    Some(IntervalMonthDayNano::new(span.months, days, rest))
}

/// Whole months of 30 days are months, both with one sign.
fn justify_days(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let (mut months, mut days) = (span.months.checked_add(span.days / 30)?, span.days % 30);
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - 30);
    }
    Some(IntervalMonthDayNano::new(months, days, span.nanoseconds))
}

/// Both, and all parts with one sign.
fn justify(span: IntervalMonthDayNano) -> Option<IntervalMonthDayNano> {
    let whole = i32::try_from(span.nanoseconds / DAY_NANOS).ok()?;
    let (mut days, mut rest) = (span.days.checked_add(whole)?, span.nanoseconds % DAY_NANOS);
    let mut months = span.months.checked_add(days / 30)?;
    days %= 30;
    if months > 0 && (days < 0 || days == 0 && rest < 0) {
        (months, days) = (months - 1, days + 30);
    } else if months < 0 && (days > 0 || days == 0 && rest > 0) {
        (months, days) = (months + 1, days - 30);
    }
    if days > 0 && rest < 0 {
        (days, rest) = (days - 1, rest + DAY_NANOS);
    } else if days < 0 && rest > 0 {
        (days, rest) = (days + 1, rest - DAY_NANOS);
    }
    Some(IntervalMonthDayNano::new(months, days, rest))
}

fn is_finite(call: &Call<'_>) -> Result<ArrayRef> {
    let values = call.array(0)?;
    match values.data_type() {
        DataType::Date32 => {
            let days = values.as_primitive::<Date32Type>();
            call.bools(|row| Ok(Some(!matches!(days.value(row), i32::MAX | i32::MIN))))
        }
        DataType::Timestamp(..) => {
            let moments = call.moments(0)?;
            call.bools(|row| Ok(Some(!matches!(moments.value(row), i64::MAX | i64::MIN))))
        }
        DataType::Interval(_) => call.bools(|_| Ok(Some(true))),
        _ => {
            Err(Error::new(SqlState::UNDEFINED_FUNCTION, "function isfinite() does not exist for this type"))
        }
    }
}

fn count_nulls(call: &Call<'_>, nulls: bool) -> Result<ArrayRef> {
    let counts = (0..call.rows).map(|row| {
        // A call has few arguments.
        call.arrays.iter().filter(|a| (a.is_null(row) || a.data_type().is_null()) == nulls).count() as i32
    });
    Ok(Arc::new(counts.collect::<arrow::array::PrimitiveArray<Int32Type>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_start_where_the_calendar_says() {
        // 2024-02-29 23:59:59.5, a Thursday.
        let at = Moment::days_of(2024, 2, 29) * DAY + DAY - SECOND / 2;
        for (unit, year, month, day) in [
            ("day", 2024, 2, 29),
            ("week", 2024, 2, 26),
            ("month", 2024, 2, 1),
            ("quarter", 2024, 1, 1),
            ("year", 2024, 1, 1),
            ("decade", 2020, 1, 1),
            ("century", 2001, 1, 1),
            ("millennium", 2001, 1, 1),
        ] {
            let start = Unit::parse(unit).unwrap().start(at);
            assert_eq!(start, Moment::days_of(year, month, day) * DAY, "{unit}");
        }
        assert_eq!(Unit::Months(1).start(i64::MAX), i64::MAX);
    }

    #[test]
    fn parts_of_a_justified_span_have_one_sign() {
        let span = IntervalMonthDayNano::new(1, -1, -DAY_NANOS / 2);
        assert_eq!(justify(span), Some(IntervalMonthDayNano::new(0, 28, DAY_NANOS / 2)));
        assert_eq!(
            justify_hours(IntervalMonthDayNano::new(0, 0, 27 * 3_600_000_000_000)),
            Some(IntervalMonthDayNano::new(0, 1, 3 * 3_600_000_000_000))
        );
    }
}
