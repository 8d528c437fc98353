//! `WATERMARK FOR at AS at - INTERVAL '5 seconds'`: what it follows, and how far behind.

use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType, Expr, Value, ValueWithSpan};

use crate::error::{Error, Result, SqlState};
use crate::names::fold;
use crate::sql::ast::WatermarkDef;
use crate::sql::catalog::{Column, Watermark};
use crate::types::{SqlType, parse_interval};

const DAY_MICROS: i64 = 86_400_000_000;

/// What a declaration means for a relation with these columns.
///
/// # Errors
/// 42703 for a column that is not there, 42804 for one that is no timestamp, 22023 for a delay below zero, 0A000 for
/// another expression than the column, or the column minus a constant interval without months.
pub fn resolve(declared: &WatermarkDef, columns: &[Column]) -> Result<Watermark> {
    let at = |error: Error| error.at(declared.position);
    let name = &declared.column;
    let column = columns.iter().position(|c| c.name == *name).ok_or_else(|| {
        at(Error::new(
            SqlState::UNDEFINED_COLUMN,
            format!("column \"{name}\" of the watermark does not exist"),
        ))
    })?;
    let data_type = &columns[column].data_type;
    if !matches!(data_type, SqlType::Timestamp | SqlType::Timestamptz) {
        return Err(at(Error::new(
            SqlState::DATATYPE_MISMATCH,
            format!("a watermark follows a timestamp, and column \"{name}\" is of type {data_type}"),
        )));
    }
    let delay = delay(&declared.expr, name).map_err(at)?;
    Ok(Watermark { column, delay, expr: declared.expr.to_string() })
}

/// How far the expression is behind the column, in microseconds.
fn delay(expr: &Expr, column: &str) -> Result<i64> {
    let unknown = || {
        Error::unsupported("a WATERMARK by another expression than its column minus a constant interval")
            .with_hint(format!("Write WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds'."))
    };
    let is_column = |e: &Expr| matches!(e, Expr::Identifier(name) if fold(name) == column);
    match expr {
        Expr::Nested(inner) => delay(inner, column),
        e if is_column(e) => Ok(0),
        Expr::BinaryOp { left, op: BinaryOperator::Minus, right } if is_column(left) => {
            let interval = parse_interval(&interval_text(right).ok_or_else(unknown)?)?;
            if interval.months != 0 {
                return Err(Error::unsupported("a WATERMARK with a delay in months")
                    .with_detail("Months differ in length."));
            }
            let days = i64::from(interval.days).saturating_mul(DAY_MICROS);
            match days.saturating_add(interval.nanoseconds / 1000) {
                delay @ 0.. => Ok(delay),
                _ => Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    "a watermark cannot be ahead of its column",
                )),
            }
        }
        _ => Err(unknown()),
    }
}

/// The text of a constant interval.
fn interval_text(expr: &Expr) -> Option<String> {
    let text = |e: &Expr| match e {
        Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) => Some(text.clone()),
        _ => None,
    };
    match expr {
        Expr::Nested(inner) => interval_text(inner),
        Expr::Interval(interval) if interval.last_field.is_none() => {
            let unit = interval.leading_field.as_ref().map_or(String::new(), |unit| format!(" {unit}"));
            Some(text(&interval.value)? + &unit)
        }
        Expr::Cast { expr, data_type: DataType::Interval { fields: None, precision: None }, .. } => {
            text(expr)
        }
        _ => None,
    }
}
