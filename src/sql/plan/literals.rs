//! Literals with PostgreSQL's types: integers by their size, exponents, intervals with fields.

use arrow::datatypes::DECIMAL128_MAX_PRECISION;
use datafusion::sql::sqlparser::ast::{DataType, ExactNumberInfo, Expr, Interval, Value, ValueWithSpan};

use super::rewrite::cast;
use crate::error::{Error, Result};

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

/// `INTERVAL '5' MINUTE` is the text `5 MINUTE` cast to interval.
pub(super) fn interval_cast(interval: &Interval) -> Result<Expr> {
    if interval.last_field.is_some()
        || interval.leading_precision.is_some()
        || interval.fractional_seconds_precision.is_some()
    {
        return Err(Error::unsupported("INTERVAL with a precision or a range of fields"));
    }
    let text = match interval.value.as_ref() {
        Expr::Value(v) => match &v.value {
            Value::SingleQuotedString(s) | Value::EscapedStringLiteral(s) => s.clone(),
            Value::Number(n, _) => n.clone(),
            Value::DollarQuotedString(s) => s.value.clone(),
            _ => return Err(Error::unsupported("INTERVAL of something else than a literal")),
        },
        _ => return Err(Error::unsupported("INTERVAL of something else than a literal")),
    };
    let text = match &interval.leading_field {
        Some(field) => format!("{text} {field}"),
        None => text,
    };
    let literal = Expr::Value(Value::SingleQuotedString(text).into());
    Ok(cast(literal, DataType::Interval { fields: None, precision: None }))
}
