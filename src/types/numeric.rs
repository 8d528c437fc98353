//! `numeric` as text: exact, rounded half away from zero to the column's scale, as PostgreSQL does.

use super::{invalid_text, out_of_range};
use crate::error::Result;

/// Reads a decimal literal (`-1.50`, `2e3`) as an integer scaled by `scale`, rounding half away from zero.
///
/// # Errors
/// 22P02 when it is no number (`NaN` and `Infinity` cannot be held), 22003 when it needs more than `precision` digits.
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128> {
    let trimmed = text.trim();
    let (negative, rest) = match trimmed.as_bytes().first() {
        Some(b'-') => (true, &trimmed[1..]),
        Some(b'+') => (false, &trimmed[1..]),
        _ => (false, trimmed),
    };
    let (mantissa, exponent) = match rest.find(['e', 'E']) {
        Some(i) => (&rest[..i], rest[i + 1..].parse::<i32>().map_err(|_| invalid_text("numeric", text))?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = || whole.bytes().chain(fraction.bytes());
    if (whole.is_empty() && fraction.is_empty()) || !digits().all(|b| b.is_ascii_digit()) {
        return Err(invalid_text("numeric", text));
    }
    // The value is digits × 10^shift, once scaled.
    let shift = i64::from(exponent) - fraction.len() as i64 + i64::from(scale);
    let kept = digits().count() as i64 + shift.min(0);
    let overflow = || {
        if scale == super::NUMERIC_SCALE && precision == super::NUMERIC_PRECISION {
            out_of_range("numeric", text)
        } else {
            crate::Error::new(crate::SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "numeric field overflow").with_detail(
                format!(
                    "A field with precision {precision}, scale {scale} must round to an absolute value less than 10^{}.",
                    i32::from(precision) - i32::from(scale)
                ),
            )
        }
    };
    let mut value: i128 = 0;
    let mut round_up = false;
    for (i, digit) in digits().enumerate() {
        let i = i as i64;
        if i < kept {
            value = value
                .checked_mul(10)
                .and_then(|v| v.checked_add(i128::from(digit - b'0')))
                .ok_or_else(overflow)?;
        } else {
            // Only the first digit that is cut off decides; with `kept` below zero even that one is too small.
            round_up = i == kept && digit >= b'5';
            break;
        }
    }
    if round_up {
        value += 1;
    }
    if shift > 0 && value != 0 {
        let factor = u32::try_from(shift).ok().and_then(|s| 10i128.checked_pow(s)).ok_or_else(overflow)?;
        value = value.checked_mul(factor).ok_or_else(overflow)?;
    }
    let limit = 10i128.checked_pow(u32::from(precision)).unwrap_or(i128::MAX);
    if value >= limit {
        return Err(overflow());
    }
    Ok(if negative { -value } else { value })
}

/// A value of a decimal type without the zeros at its end, and its scale then, if the type is that of `numeric` without
/// a scale; of any other type the value as it is.
pub fn shortest(mut value: i128, precision: u8, mut scale: i8) -> (i128, i8) {
    if (precision, scale) == (super::NUMERIC_PRECISION, super::NUMERIC_SCALE) {
        while scale > 0 && value % 10 == 0 {
            value /= 10;
            scale -= 1;
        }
    }
    (value, scale)
}

/// Writes an integer scaled by `scale` with all its decimal places: `-1.50`.
pub fn format_decimal(value: i128, scale: i8, out: &mut Vec<u8>) {
    let mut digits = itoa(value.unsigned_abs());
    if value < 0 {
        out.push(b'-');
    }
    if scale <= 0 {
        out.extend_from_slice(&digits);
        if value != 0 {
            out.extend(std::iter::repeat_n(b'0', usize::from(scale.unsigned_abs())));
        }
        return;
    }
    let scale = usize::from(scale.unsigned_abs());
    if digits.len() <= scale {
        let mut padded = vec![b'0'; scale + 1 - digits.len()];
        padded.append(&mut digits);
        digits = padded;
    }
    let point = digits.len() - scale;
    out.extend_from_slice(&digits[..point]);
    out.push(b'.');
    out.extend_from_slice(&digits[point..]);
}

fn itoa(value: u128) -> Vec<u8> {
    value.to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(text: &str, precision: u8, scale: i8) -> String {
        let mut out = Vec::new();
        format_decimal(parse_decimal(text, precision, scale).unwrap(), scale, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn rounds_half_away_from_zero() {
        assert_eq!(round_trip("1.005", 12, 2), "1.01");
        assert_eq!(round_trip("-1.005", 12, 2), "-1.01");
        assert_eq!(round_trip("1.0049999", 12, 2), "1.00");
        assert_eq!(round_trip("0.004", 12, 2), "0.00");
        assert_eq!(round_trip("0.005", 12, 2), "0.01");
        assert_eq!(round_trip("0.0009", 12, 2), "0.00");
        assert_eq!(round_trip("999.995", 12, 2), "1000.00");
        assert_eq!(round_trip("12345", 12, -2), "12300");
        assert_eq!(round_trip("5e-3", 12, 2), "0.01");
        assert_eq!(round_trip("1.5E3", 12, 2), "1500.00");
        assert_eq!(round_trip(".5", 12, 2), "0.50");
        assert_eq!(round_trip("-.5", 12, 0), "-1");
    }

    #[test]
    fn refuses_what_is_no_number_or_too_large() {
        for bad in ["", ".", "abc", "1.2.3", "1e", "--1", "NaN"] {
            assert_eq!(parse_decimal(bad, 10, 2).unwrap_err().sqlstate.0, "22P02", "{bad}");
        }
        assert_eq!(parse_decimal("100", 4, 2).unwrap_err().sqlstate.0, "22003");
        assert_eq!(parse_decimal("99.995", 4, 2).unwrap_err().sqlstate.0, "22003");
        assert_eq!(parse_decimal("1e99", 38, 0).unwrap_err().sqlstate.0, "22003");
        assert_eq!(parse_decimal("0e99", 38, 0).unwrap(), 0);
        assert_eq!(parse_decimal("1e-9999", 38, 2).unwrap(), 0);
    }
}
