//! `extract`, `date_part`, `age`, spans between points in time, and intervals compared, multiplied and divided.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Decimal128Array, Float64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{
    DataType, Date32Type, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    Time64MicrosecondType, TimeUnit, TimestampMicrosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::error::{Error, SqlState};
use crate::types::{Moment, SqlType, is_string};

const DAY_MICROS: i64 = 86_400_000_000;

/// The Julian day of 1970-01-01.
const EPOCH_JULIAN: i64 = 2_440_588;

/// Decimal places of a Julian date with its time of day.
const JULIAN_SCALE: i8 = 20;

/// `date_part` and `age`, for calls by name.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Arc::new(ScalarUDF::new_from_impl(Part::new("date_part", false))),
        Arc::new(ScalarUDF::new_from_impl(Temporal::new(Kind::Age))),
    ]
}

/// `EXTRACT(field FROM value)`: as `date_part`, exact.
pub fn extract(args: Vec<Expr>) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(Part::new("extract", true)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, args))
}

/// An interval times a number.
pub fn multiply(interval: Expr, number: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(Temporal::new(Kind::Multiply)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![interval, number]))
}

/// An interval divided by a number.
pub fn divide(interval: Expr, number: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(Temporal::new(Kind::Divide)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![interval, number]))
}

/// The time from `start` to `end`, both points in time or both times of day: days and hours, never months.
pub fn difference(end: Expr, start: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(Temporal::new(Kind::Difference)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![end, start]))
}

/// How long an interval is for comparisons, in nanoseconds: a month has 30 days, a day 24 hours, as in PostgreSQL.
pub fn length(interval: Expr) -> Expr {
    let function = Arc::new(ScalarUDF::new_from_impl(Temporal::new(Kind::Length)));
    Expr::ScalarFunction(ScalarFunction::new_udf(function, vec![interval]))
}

/// What can be asked of a point in time or a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Millennium,
    Century,
    Decade,
    Year,
    Isoyear,
    Quarter,
    Month,
    Week,
    Day,
    Dow,
    Isodow,
    Doy,
    Hour,
    Minute,
    Second,
    Milliseconds,
    Microseconds,
    Epoch,
    Julian,
    Timezone,
}

impl Field {
    fn parse(name: &str) -> crate::Result<Field> {
        Ok(match name.to_ascii_lowercase().trim_end_matches('s') {
            "millennium" => Field::Millennium,
            "century" => Field::Century,
            "decade" => Field::Decade,
            "year" => Field::Year,
            "isoyear" => Field::Isoyear,
            "quarter" => Field::Quarter,
            "month" => Field::Month,
            "week" => Field::Week,
            "day" => Field::Day,
            "dow" => Field::Dow,
            "isodow" => Field::Isodow,
            "doy" => Field::Doy,
            "hour" => Field::Hour,
            "minute" => Field::Minute,
            "second" => Field::Second,
            "millisecond" | "m" => Field::Milliseconds,
            "microsecond" | "u" => Field::Microseconds,
            "epoch" => Field::Epoch,
            "julian" => Field::Julian,
            "timezone" => Field::Timezone,
            _ => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("unit \"{name}\" not recognized"),
                ));
            }
        })
    }

    fn is_within_a_day(self) -> bool {
        use Field::{Hour, Microseconds, Milliseconds, Minute, Second};
        matches!(self, Hour | Minute | Second | Milliseconds | Microseconds)
    }

    /// What a type cannot be asked.
    fn not_of(self, sql_type: &str) -> Error {
        let unit = format!("{self:?}").to_lowercase();
        let message = format!("unit \"{unit}\" not supported for type {sql_type}");
        Error::new(SqlState::FEATURE_NOT_SUPPORTED, message)
    }

    /// Decimal places of the exact value.
    fn scale(self) -> i8 {
        match self {
            Field::Second | Field::Epoch => 6,
            Field::Milliseconds => 3,
            _ => 0,
        }
    }
}

/// A value that can be asked, with an exact answer scaled by [`Field::scale`].
fn ask_moment(field: Field, micros: i64) -> i64 {
    let at = Moment::of(micros);
    match field {
        Field::Millennium => age_of(at.year, 1000),
        Field::Century => age_of(at.year, 100),
        Field::Decade => at.year.div_euclid(10),
        Field::Year => without_zero(at.year),
        Field::Isoyear => without_zero(iso_week(&at).0),
        Field::Quarter => i64::from((at.month - 1) / 3 + 1),
        Field::Month => at.month.into(),
        Field::Week => iso_week(&at).1,
        Field::Day => at.day.into(),
        Field::Dow => at.weekday.into(),
        Field::Isodow => i64::from((at.weekday + 6) % 7 + 1),
        Field::Doy => at.day_of_year.into(),
        Field::Hour => at.hour.into(),
        Field::Minute => at.minute.into(),
        // All three are microseconds, at their scale.
        Field::Second | Field::Milliseconds | Field::Microseconds => {
            i64::from(at.second) * 1_000_000 + i64::from(at.micros)
        }
        Field::Epoch => micros,
        Field::Julian => micros.div_euclid(DAY_MICROS) + EPOCH_JULIAN,
        Field::Timezone => 0,
    }
}

/// The year as it is counted: the one before the first is -1.
fn without_zero(year: i64) -> i64 {
    if year > 0 { year } else { year - 1 }
}

/// The number of the century or millennium that a year is in; there is none between the first and that before it.
fn age_of(year: i64, years: i64) -> i64 {
    if year > 0 { (year - 1) / years + 1 } else { year / years - 1 }
}

/// Year and number of the week by ISO 8601.
pub(super) fn iso_week(at: &Moment) -> (i64, i64) {
    let weekday = i64::from((at.weekday + 6) % 7 + 1);
    let week = (i64::from(at.day_of_year) - weekday + 10) / 7;
    let days_before = |y: i64| y * 365 + y.div_euclid(4) - y.div_euclid(100) + y.div_euclid(400);
    let weeks = |y: i64| if days_before(y) % 7 == 4 || days_before(y - 1) % 7 == 3 { 53 } else { 52 };
    match week {
        0 => (at.year - 1, weeks(at.year - 1)),
        w if w > weeks(at.year) => (at.year + 1, 1),
        w => (at.year, w),
    }
}

fn ask_interval(field: Field, value: IntervalMonthDayNano) -> crate::Result<i64> {
    let micros = value.nanoseconds / 1000;
    let months = i64::from(value.months);
    Ok(match field {
        Field::Millennium => months / 12_000,
        Field::Century => months / 1200,
        Field::Decade => months / 120,
        Field::Year => months / 12,
        Field::Quarter => months % 12 / 3 + 1,
        Field::Month => months % 12,
        Field::Day => value.days.into(),
        Field::Hour => micros / 3_600_000_000,
        Field::Minute => micros / 60_000_000 % 60,
        Field::Second | Field::Milliseconds | Field::Microseconds => micros % 60_000_000,
        // A year has 365.25 days, a month 30, as in PostgreSQL.
        Field::Epoch => {
            let days = months / 12 * 1461 * (DAY_MICROS / 4) + months % 12 * 30 * DAY_MICROS;
            days + i64::from(value.days) * DAY_MICROS + micros
        }
        other => {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unit \"{}\" not supported for type interval", format!("{other:?}").to_lowercase()),
            ));
        }
    })
}

/// `extract` and `date_part`.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Part {
    name: &'static str,
    exact: bool,
    signature: Signature,
}

impl Part {
    fn new(name: &'static str, exact: bool) -> Self {
        Part { name, exact, signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Part {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let undefined = || {
            let types: Vec<_> = types.iter().map(ToString::to_string).collect();
            datafusion::error::DataFusionError::Plan(format!(
                "No function matches the given name and argument types '{}({})'",
                self.name,
                types.join(", ")
            ))
        };
        let [field, value] = types else { return Err(undefined()) };
        let value = match value {
            // To a date the exact form gives less than to a timestamp.
            DataType::Date32 if self.exact => DataType::Date32,
            DataType::Timestamp(_, None) | DataType::Date32 | DataType::Date64 => SqlType::Timestamp.arrow(),
            DataType::Timestamp(_, Some(_)) => SqlType::Timestamptz.arrow(),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Time32(_) | DataType::Time64(_) => DataType::Time64(TimeUnit::Microsecond),
            DataType::Null => SqlType::Timestamp.arrow(),
            _ => return Err(undefined()),
        };
        // The field stays as it is written: cast, it would not be a constant any more.
        let field = if field.is_string() { field.clone() } else { DataType::Utf8View };
        Ok(vec![field, value])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs<'_>) -> Result<arrow::datatypes::FieldRef> {
        if !self.exact {
            return Ok(SqlType::Float8.field_ref(self.name, true));
        }
        let field = match args.scalar_arguments.first() {
            Some(Some(value)) => Field::parse(value.try_as_str().flatten().unwrap_or_default())?,
            _ => return Err(Error::unsupported("extract of a field that is no constant").into()),
        };
        let of_date = args.arg_fields.get(1).is_some_and(|f| f.data_type() == &DataType::Date32);
        let (precision, scale) = match field {
            Field::Julian if !of_date => (38, JULIAN_SCALE),
            _ if of_date => (20, 0),
            _ => (20, field.scale()),
        };
        Ok(SqlType::Numeric(Some((precision, scale))).field_ref(self.name, true))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let Some(ColumnarValue::Scalar(name)) = args.args.first() else {
            return Err(Error::unsupported("date_part of a field that is no constant").into());
        };
        let field = Field::parse(name.try_as_str().flatten().unwrap_or_default())?;
        let Some(values) = args.args.get(1) else {
            return Err(Error::internal("date_part without a value").into());
        };
        let values = values.to_array(if scalar { 1 } else { args.number_rows })?;
        let answers: Vec<Option<i64>> = match values.data_type() {
            DataType::Interval(_) => values
                .as_primitive::<IntervalMonthDayNanoType>()
                .iter()
                .map(|v| v.map(|v| ask_interval(field, v)).transpose())
                .collect::<crate::Result<_>>()?,
            DataType::Time64(_) => {
                if !field.is_within_a_day() && field != Field::Epoch {
                    return Err(field.not_of("time without time zone").into());
                }
                let times = values.as_primitive::<Time64MicrosecondType>();
                times.iter().map(|v| v.map(|v| ask_moment(field, v))).collect()
            }
            DataType::Date32 => {
                if field.is_within_a_day() || field == Field::Timezone {
                    return Err(field.not_of("date").into());
                }
                let unit = if field == Field::Epoch { 1_000_000 } else { 1 };
                let days = values.as_primitive::<Date32Type>();
                days.iter().map(|v| v.map(|v| ask_moment(field, i64::from(v) * DAY_MICROS) / unit)).collect()
            }
            _ => values
                .as_primitive::<TimestampMicrosecondType>()
                .iter()
                .map(|v| v.map(|v| ask_moment(field, v)))
                .collect(),
        };
        let result: ArrayRef = if field == Field::Julian
            && matches!(values.data_type(), DataType::Timestamp(..))
        {
            let moments = values.as_primitive::<TimestampMicrosecondType>().iter();
            let (day, unit) = (i128::from(DAY_MICROS), 10i128.pow(u32::from(JULIAN_SCALE.unsigned_abs())));
            let since = |micros: i64| i128::from(micros) + i128::from(EPOCH_JULIAN) * day;
            match self.exact {
                true => {
                    let exact =
                        |v: i128| v.div_euclid(day) * unit + (v.rem_euclid(day) * unit + day / 2) / day;
                    let dates: Decimal128Array = moments.map(|v| v.map(|v| exact(since(v)))).collect();
                    Arc::new(dates.with_data_type(args.return_field.data_type().clone()))
                }
                false => Arc::new(
                    moments.map(|v| v.map(|v| since(v) as f64 / day as f64)).collect::<Float64Array>(),
                ),
            }
        } else if self.exact {
            let exact: Decimal128Array = answers.into_iter().map(|a| a.map(i128::from)).collect();
            Arc::new(exact.with_data_type(args.return_field.data_type().clone()))
        } else {
            let unit = 10f64.powi(field.scale().into());
            Arc::new(answers.into_iter().map(|a| a.map(|a| a as f64 / unit)).collect::<Float64Array>())
        };
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    Age,
    Difference,
    Length,
    Multiply,
    Divide,
}

/// Functions that give an interval.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Temporal {
    kind: Kind,
    signature: Signature,
}

impl Temporal {
    fn new(kind: Kind) -> Self {
        let interval = DataType::Interval(IntervalUnit::MonthDayNano);
        let types = match kind {
            Kind::Age | Kind::Difference => {
                return Temporal { kind, signature: Signature::user_defined(Volatility::Immutable) };
            }
            Kind::Length => vec![interval],
            Kind::Multiply | Kind::Divide => vec![interval, DataType::Float64],
        };
        Temporal { kind, signature: Signature::exact(types, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for Temporal {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Age => "age",
            Kind::Difference => "difference",
            Kind::Length => "interval_length",
            Kind::Multiply => "interval_multiply",
            Kind::Divide => "interval_divide",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// Of two points in time the one with a zone decides: the other one is taken in that zone.
    fn coerce_types(&self, types: &[DataType]) -> Result<Vec<DataType>> {
        let moment = |t: &DataType| {
            matches!(t, DataType::Timestamp(..) | DataType::Date32 | DataType::Null) || is_string(t)
        };
        if self.kind == Kind::Age && (types.len() != 2 || !types.iter().all(moment)) {
            let types: Vec<_> = types.iter().map(ToString::to_string).collect();
            return Err(datafusion::error::DataFusionError::Plan(format!(
                "No function matches the given name and argument types 'age({})'",
                types.join(", ")
            )));
        }
        let zoned = types.iter().any(|t| matches!(t, DataType::Timestamp(_, Some(_))));
        let to = match types.first() {
            Some(DataType::Time32(_) | DataType::Time64(_)) => SqlType::Time.arrow(),
            _ if zoned => SqlType::Timestamptz.arrow(),
            _ => SqlType::Timestamp.arrow(),
        };
        Ok(vec![to; types.len()])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Length => DataType::Decimal128(38, 0),
            _ => DataType::Interval(IntervalUnit::MonthDayNano),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let scalar = args.args.iter().all(|a| matches!(a, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        if let (Kind::Length, [interval]) = (self.kind, arrays.as_slice()) {
            let lengths: Decimal128Array =
                interval.as_primitive::<IntervalMonthDayNanoType>().unary(nanoseconds);
            let lengths: ArrayRef = Arc::new(lengths.with_precision_and_scale(38, 0)?);
            if scalar {
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?));
            }
            return Ok(ColumnarValue::Array(lengths));
        }
        let [left, right] = arrays.as_slice() else {
            return Err(Error::internal(format!("{} needs two arguments", self.name())).into());
        };
        let result: IntervalMonthDayNanoArray = match self.kind {
            Kind::Difference if matches!(left.data_type(), DataType::Time64(_)) => {
                let ends = left.as_primitive::<Time64MicrosecondType>().iter();
                ends.zip(right.as_primitive::<Time64MicrosecondType>())
                    // Times of day are less than a day apart.
                    .map(|(a, b)| Some(IntervalMonthDayNano::new(0, 0, (a? - b?) * 1000)))
                    .collect()
            }
            Kind::Difference => {
                let ends = left.as_primitive::<TimestampMicrosecondType>().iter();
                ends.zip(right.as_primitive::<TimestampMicrosecondType>())
                    .map(|(a, b)| match (a, b) {
                        (Some(a), Some(b)) => difference_of(a, b).map(Some),
                        _ => Ok(None),
                    })
                    .collect::<crate::Result<_>>()?
            }
            Kind::Length => return Err(Error::internal("the length of two intervals").into()),
            Kind::Age => {
                let ends = left.as_primitive::<TimestampMicrosecondType>().iter();
                ends.zip(right.as_primitive::<TimestampMicrosecondType>())
                    .map(|(a, b)| Some(age(a?, b?)))
                    .collect()
            }
            Kind::Multiply | Kind::Divide => self.scaled(left, right)?,
        };
        let result: ArrayRef = Arc::new(result);
        if scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// Intervals divided by floats; NULL where either is.
///
/// # Errors
/// 22012, 22008.
pub(super) fn divided(intervals: &ArrayRef, by: &ArrayRef) -> crate::Result<ArrayRef> {
    Ok(Arc::new(Temporal::new(Kind::Divide).scaled(intervals, by)?))
}

impl Temporal {
    fn scaled(&self, intervals: &ArrayRef, by: &ArrayRef) -> crate::Result<IntervalMonthDayNanoArray> {
        let numbers = by.as_primitive::<Float64Type>();
        let pairs = intervals.as_primitive::<IntervalMonthDayNanoType>().iter().zip(numbers);
        pairs
            .map(|(interval, by)| match (interval, by) {
                (Some(interval), Some(by)) => self.scale(interval, by).map(Some),
                _ => Ok(None),
            })
            .collect()
    }

    /// What does not make a whole month or day flows down, as in PostgreSQL.
    fn scale(&self, interval: IntervalMonthDayNano, by: f64) -> crate::Result<IntervalMonthDayNano> {
        if self.kind == Kind::Divide && by == 0.0 {
            return Err(Error::new(SqlState::DIVISION_BY_ZERO, "division by zero"));
        }
        let factor = if self.kind == Kind::Divide { 1.0 / by } else { by };
        let months = f64::from(interval.months) * factor;
        // What is left of the months and what is left of the days go their ways apart.
        let (left_days, own_days) = (months.fract() * 30.0, f64::from(interval.days) * factor);
        let left_nanos = (own_days.fract() + left_days.fract()) * 86_400e9;
        let carried = (left_nanos / 86_400e9).trunc();
        let days = own_days.trunc() + left_days.trunc() + carried;
        let nanos = interval.nanoseconds as f64 * factor + left_nanos - carried * 86_400e9;
        let nanos = (nanos / 1000.0).round() * 1000.0;
        let fits = |v: f64, limit: f64| v.is_finite() && v.abs() < limit;
        if !fits(months, 2e9) || !fits(days, 2e9) || !fits(nanos, 9.2e18) {
            return Err(Error::new(SqlState("22008"), "interval out of range"));
        }
        Ok(IntervalMonthDayNano::new(months.trunc() as i32, days.trunc() as i32, nanos as i64))
    }
}

/// How long an interval is when a month has 30 days and a day 24 hours.
fn nanoseconds(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    days * i128::from(DAY_MICROS) * 1000 + i128::from(interval.nanoseconds)
}

/// The time from `b` to `a`, both in microseconds, in days and the rest.
fn difference_of(a: i64, b: i64) -> crate::Result<IntervalMonthDayNano> {
    let out_of_range = || Error::new(SqlState("22008"), "interval out of range");
    let micros = a.checked_sub(b).ok_or_else(out_of_range)?;
    let days = i32::try_from(micros / DAY_MICROS).map_err(|_| out_of_range())?;
    Ok(IntervalMonthDayNano::new(0, days, micros % DAY_MICROS * 1000))
}

/// The time from `b` to `a` in years, months, days and the rest.
fn age(a: i64, b: i64) -> IntervalMonthDayNano {
    if a < b {
        let positive = age(b, a);
        return IntervalMonthDayNano::new(-positive.months, -positive.days, -positive.nanoseconds);
    }
    let (x, y) = (Moment::of(a), Moment::of(b));
    let mut months = (x.year - y.year) * 12 + i64::from(x.month) - i64::from(y.month);
    let mut days = i64::from(x.day) - i64::from(y.day);
    let mut micros = a.rem_euclid(DAY_MICROS) - b.rem_euclid(DAY_MICROS);
    if micros < 0 {
        micros += DAY_MICROS;
        days -= 1;
    }
    if days < 0 {
        // A borrowed month has the length of the earlier date's month.
        days += Moment::days_in_month(y.year, y.month);
        months -= 1;
    }
    // Timestamps of 64 bits are less than 600 000 years apart.
    IntervalMonthDayNano::new(months as i32, days as i32, micros * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_are_iso() {
        // (µs of a date, year, week)
        for (days, year, week) in
            [(19_723, 2024, 1), (19_722, 2023, 52), (18_627, 2020, 53), (18_628, 2020, 53)]
        {
            let at = Moment::of(days * DAY_MICROS);
            assert_eq!(iso_week(&at), (year, week), "{at:?}");
        }
    }

    #[test]
    fn ages_borrow_days_and_months() {
        let day = |d: i64| d * DAY_MICROS;
        // 2024-03-01 and 2024-01-31
        assert_eq!(age(day(19_783), day(19_753)), IntervalMonthDayNano::new(1, 1, 0));
        assert_eq!(age(day(19_753), day(19_783)), IntervalMonthDayNano::new(-1, -1, 0));
        assert_eq!(age(1_000_000, 0), IntervalMonthDayNano::new(0, 0, 1_000_000_000));
    }

    #[test]
    fn differences_have_days_and_hours() {
        let hours = |h: i64| h * 3_600_000_000;
        assert_eq!(difference_of(hours(49), 0).unwrap(), IntervalMonthDayNano::new(0, 2, hours(1) * 1000));
        assert_eq!(difference_of(0, hours(49)).unwrap(), IntervalMonthDayNano::new(0, -2, -hours(1) * 1000));
        assert_eq!(difference_of(i64::MAX, -1).unwrap_err().sqlstate, SqlState("22008"));
    }

    #[test]
    fn months_are_as_long_as_thirty_days() {
        let month = nanoseconds(IntervalMonthDayNano::new(1, 0, 0));
        assert_eq!(month, nanoseconds(IntervalMonthDayNano::new(0, 30, 0)));
        assert_eq!(month, nanoseconds(IntervalMonthDayNano::new(0, 0, 30 * DAY_MICROS * 1000)));
        assert!(month < nanoseconds(IntervalMonthDayNano::new(0, 30, 1)));
    }
}
