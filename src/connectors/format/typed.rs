//! Values of binary formats, which come with their types: narrowed to a column's type, and as the text by which they
//! go into columns of other types.

use std::fmt::Write;

use super::cell::Typed;
use super::number;
use super::values::{FieldError, FieldResult};
use super::{datetime, encode};
use crate::types;

/// A whole number of fewer bits.
pub(super) fn narrowed<T: TryFrom<i64>>(n: i64, type_name: &str) -> FieldResult<T> {
    T::try_from(n).map_err(|_| FieldError::range(type_name, &n.to_string()))
}

/// A number of 32 bits.
pub(super) fn real(x: f64) -> FieldResult<f32> {
    let narrow = x as f32;
    if narrow.is_infinite() && x.is_finite() {
        return Err(FieldError::range("real", &x.to_string()));
    }
    Ok(narrow)
}

/// A decimal of a column's precision and scale.
pub(super) fn decimal(unscaled: i128, from: i32, precision: u8, scale: i8) -> FieldResult<i128> {
    number::rescale(unscaled, from, scale, precision).map_err(|_| {
        let mut text = String::new();
        write_text(Typed::Decimal(unscaled, from), &mut text);
        FieldError {
            message: format!("numeric field overflow: {text} does not fit numeric({precision},{scale})"),
            ..FieldError::range("numeric", &text)
        }
    })
}

/// Appends a value's text; whether it is a number, as JSON writes it.
pub fn write_text(value: Typed<'_>, out: &mut String) -> bool {
    match value {
        Typed::Integer(n) => {
            encode::write_integer(n, out);
            true
        }
        Typed::Float(x) => {
            encode::write_float(x, x, out);
            x.is_finite()
        }
        Typed::Decimal(unscaled, scale) => {
            match i8::try_from(scale) {
                Ok(scale) => number::write_decimal(unscaled, scale, out),
                Err(_) => {
                    let written = write!(out, "{unscaled}e{}", -i64::from(scale));
                    debug_assert!(written.is_ok(), "writing to a String does not fail");
                }
            }
            true
        }
        Typed::Bytes(bytes) => {
            out.push_str("\\x");
            out.push_str(&hex::encode(bytes));
            false
        }
        Typed::Date(days) => {
            datetime::write_date(days, out);
            false
        }
        Typed::Time(micros) => {
            datetime::write_time(micros, out);
            false
        }
        Typed::Timestamp(micros, zoned) => {
            datetime::write_timestamp(micros, 'T', out);
            if zoned {
                out.push_str("+00:00");
            }
            false
        }
        Typed::Interval(value) => {
            let mut text = Vec::new();
            types::format_interval(value, &mut text);
            out.push_str(&String::from_utf8_lossy(&text));
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_text_that_postgresql_gives_them() {
        for (value, text, is_number) in [
            (Typed::Integer(-7), "-7", true),
            (Typed::Float(0.1), "0.1", true),
            (Typed::Float(f64::NAN), "NaN", false),
            (Typed::Decimal(-12345, 2), "-123.45", true),
            (Typed::Decimal(1, 200), "1e-200", true),
            (Typed::Bytes(b"\x01\xff"), "\\x01ff", false),
            (Typed::Date(19_782), "2024-02-29", false),
            (Typed::Time(3_600_000_001), "01:00:00.000001", false),
            (Typed::Timestamp(1_709_164_800_250_000, true), "2024-02-29T00:00:00.25+00:00", false),
        ] {
            let mut out = String::new();
            assert_eq!(write_text(value, &mut out), is_number, "{value:?}");
            assert_eq!(out, text);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        assert_eq!(narrowed::<i16>(32_768, "smallint").unwrap_err().sqlstate.0, "22003");
        assert_eq!(real(1e39).unwrap_err().sqlstate.0, "22003");
        assert_eq!(decimal(123_456, 2, 5, 2).unwrap_err().sqlstate.0, "22003");
        assert_eq!(decimal(12_345, 3, 5, 2), Ok(1235));
    }
}
