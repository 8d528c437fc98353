//! Literals with PostgreSQL's types: integers by their size, exponents, intervals with fields.

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use datafusion::sql::sqlparser::ast::{
    DataType, DateTimeField, ExactNumberInfo, Expr, Interval, Value, ValueWithSpan,
};

use super::rewrite::{call, cast};
use crate::error::{Error, Result, SqlState};
use crate::sql::functions::precision;

/// A literal that must stay one: a position, a limit, an argument.
pub(super) fn keep_literal(expr: &mut Expr) {
    match expr {
        // The flag means nothing to DataFusion; here it means "leave me alone".
        Expr::Value(ValueWithSpan { value: Value::Number(_, kept), .. }) => *kept = true,
        Expr::Nested(inner) | Expr::UnaryOp { expr: inner, .. } => keep_literal(inner),
        _ => {}
    }
}

/// An integer literal is an `integer` when it fits, a `bigint` when that fits, else `numeric`, as in PostgreSQL.
pub(super) fn type_number(expr: &mut Expr) {
    let Expr::Value(ValueWithSpan { value: Value::Number(text, kept), .. }) = expr else { return };
    let exponent = text.contains(['e', 'E']) && !text.starts_with("0x") && !text.starts_with("0X");
    if *kept && !exponent {
        return;
    }
    *kept = true;
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    if exponent {
        match without_exponent(&digits) {
            // Without a point it is a numeric still.
            Some(plain) if !plain.contains('.') => {
                let precision = plain.len() as u64;
                *text = plain;
                let literal = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                *expr = cast(literal, DataType::Numeric(ExactNumberInfo::PrecisionAndScale(precision, 0)));
            }
            Some(plain) => *text = plain,
            None => {
                let literal = Expr::Value(Value::SingleQuotedString(digits).into());
                *expr = cast(literal, DataType::DoublePrecision);
            }
        }
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        let data_type = if digits.parse::<i32>().is_ok() {
            DataType::Integer(None)
        } else if digits.parse::<i64>().is_ok() {
            return;
        } else {
            DataType::Numeric(ExactNumberInfo::PrecisionAndScale(38, 0))
        };
        let literal = std::mem::replace(expr, Expr::Value(Value::Null.into()));
        *expr = cast(literal, data_type);
    } else if let Some((whole, fraction)) = digits.split_once('.') {
        let precision = whole.trim_start_matches('0').len() + fraction.len();
        if precision > usize::from(DECIMAL128_MAX_PRECISION) {
            // A type that nobody has: it is refused by name.
            let (precision, scale) = (precision as u64, i64::try_from(fraction.len()).unwrap_or(i64::MAX));
            let data_type = DataType::Numeric(ExactNumberInfo::PrecisionAndScale(precision, scale));
            *expr = cast(Expr::Value(Value::SingleQuotedString(digits).into()), data_type);
        }
    }
}

/// `1.5e3` as `1500`: DataFusion would give it a negative scale. `None` when it does not fit the widest `numeric`.
fn without_exponent(number: &str) -> Option<String> {
    let (mantissa, exponent) = number.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok().filter(|e: &i32| e.abs() <= 38)?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let plain = if point <= 0 {
        format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if (point as usize) >= digits.len() {
        format!("{digits}{}", "0".repeat(point as usize - digits.len()))
    } else {
        format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
    };
    let width = plain.trim_start_matches('0').bytes().filter(u8::is_ascii_digit).count();
    (width <= usize::from(DECIMAL128_MAX_PRECISION)).then_some(plain)
}

/// `INTERVAL '5' MINUTE` is the text `5 MINUTE` cast to interval; what is below the last field is left out.
pub(super) fn interval_cast(interval: &Interval) -> Result<Expr> {
    let text = match interval.value.as_ref() {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => s.clone(),
            Value::Number(n, _) => n.clone(),
            Value::DollarQuotedString(s) => s.value.clone(),
            _ => return Err(Error::unsupported("INTERVAL of something else than a literal")),
        },
        _ => return Err(Error::unsupported("INTERVAL of something else than a literal")),
    };
    let singular = |field: &DateTimeField| field.to_string().trim_end_matches('S').to_string();
    let first = interval.leading_field.as_ref().map(singular);
    let last = interval.last_field.as_ref().map(singular);
    let precision = interval.fractional_seconds_precision.or(interval.leading_precision);
    interval_of(&text, first.as_deref(), last.as_deref(), precision)
}

/// An interval literal with fields and decimal places of its seconds.
fn interval_of(text: &str, first: Option<&str>, last: Option<&str>, precision: Option<u64>) -> Result<Expr> {
    let text = text.trim();
    let is_number = |t: &str| t.parse::<f64>().is_ok();
    let words: Vec<&str> = text.split_whitespace().collect();
    let spelled = match (first, last.or(first), words.as_slice()) {
        (Some(_), Some(unit), [number]) if is_number(number) => format!("{number} {unit}"),
        (Some("DAY"), Some("HOUR"), [days, hours]) if is_number(days) && is_number(hours) => {
            format!("{days} days {hours} hours")
        }
        (Some("MINUTE"), Some("SECOND"), [time]) if time.matches(':').count() == 1 => format!("0:{time}"),
        _ => text.to_string(),
    };
    let whole = last.is_none() && text.parse::<i64>().is_ok();
    let literal = Expr::Value(Value::SingleQuotedString(spelled).into());
    let interval = cast(literal, DataType::Interval { fields: None, precision: None });
    // A whole number of the only field has nothing below it.
    let field = last.or(first).filter(|_| !whole);
    with_precision(to_field(interval, field), precision)
}

/// The interval down to a field.
fn to_field(interval: Expr, field: Option<&str>) -> Expr {
    match field.filter(|f| ["YEAR", "MONTH", "DAY", "HOUR", "MINUTE"].contains(f)) {
        Some(field) => {
            let field = Expr::Value(Value::SingleQuotedString(field.to_string()).into());
            call(precision::FIELDS, vec![interval, field])
        }
        None => interval,
    }
}

/// A time, timestamp or interval rounded to decimal places of its seconds.
fn with_precision(value: Expr, precision: Option<u64>) -> Result<Expr> {
    match precision {
        None | Some(6) => Ok(value),
        Some(places @ 0..6) => {
            let places = Expr::Value(Value::Number(places.to_string(), true).into());
            Ok(call(precision::ROUNDED, vec![value, places]))
        }
        Some(places) => Err(Error::unsupported(format!("a precision of {places} decimal places"))),
    }
}

/// What a cast to a type with decimal places of seconds, or with fields, stands for; `None` for any other type.
///
/// # Errors
/// 0A000 for more decimal places than there are.
pub(super) fn precise(value: &Expr, data_type: &DataType) -> Result<Option<Expr>> {
    Ok(Some(match data_type {
        DataType::Timestamp(Some(places), zone) if *places != 6 => {
            with_precision(cast(value.clone(), DataType::Timestamp(None, *zone)), Some(*places))?
        }
        DataType::Time(Some(places), zone) if *places != 6 => {
            with_precision(cast(value.clone(), DataType::Time(None, *zone)), Some(*places))?
        }
        DataType::Interval { fields, precision } if fields.is_some() || precision.is_some() => {
            let fields = fields.as_ref().map(ToString::to_string).unwrap_or_default();
            let (first, last) = match fields.split_once(" TO ") {
                Some((first, last)) => (Some(first), Some(last)),
                None => (Some(fields.as_str()).filter(|f| !f.is_empty()), None),
            };
            match value {
                Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => {
                    interval_of(text, first, last, *precision)?
                }
                value => {
                    let plain = cast(value.clone(), DataType::Interval { fields: None, precision: None });
                    with_precision(to_field(plain, last.or(first)), *precision)?
                }
            }
        }
        _ => return Ok(None),
    }))
}

/// LIMIT and OFFSET that are written as a broken number or as a text are whole numbers.
///
/// # Errors
/// 22P02 for a text that is none.
pub(super) fn whole_number(expr: &mut Expr) -> Result<()> {
    let Expr::Value(ValueWithSpan { value, .. }) = expr else { return Ok(()) };
    match value {
        Value::Number(text, _) if text.contains('.') => {
            // Halves go away from zero, and a literal has no sign.
            let (whole, fraction) = text.split_once('.').unwrap_or((text.as_str(), ""));
            let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| too_large())? };
            let rounded = whole.saturating_add(u64::from(fraction.as_bytes().first() >= Some(&b'5')));
            *value = Value::Number(rounded.to_string(), true);
            Ok(())
        }
        Value::SingleQuotedString(text) => match text.trim().parse::<i64>() {
            Ok(number) => {
                *value = Value::Number(number.to_string(), true);
                Ok(())
            }
            Err(_) => Err(Error::new(
                SqlState::INVALID_TEXT_REPRESENTATION,
                format!("invalid input syntax for type bigint: \"{text}\""),
            )),
        },
        _ => Ok(()),
    }
}

fn too_large() -> Error {
    Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range")
}
