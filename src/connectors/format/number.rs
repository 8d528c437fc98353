//! Numbers between their text and Arrow's values: exact, rounded only where PostgreSQL rounds.

/// Why a text is no number of the wanted kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NumberError {
    /// It is no number at all.
    Syntax,
    /// It is one, but does not fit.
    Range,
}

/// The most digits an exponent may move the point by: far beyond any type here, and no loop over it is long.
const EXPONENT_MAX: i64 = 10_000;

/// A decimal number taken apart: digits with the sign aside, and the power of ten that they are multiplied by.
struct Parts<'a> {
    negative: bool,
    integer: &'a str,
    fraction: &'a str,
    exponent: i64,
}

fn parts(text: &str) -> Result<Parts<'_>, NumberError> {
    let text = text.trim_ascii();
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i64>().map_err(|_| NumberError::Syntax)?),
        None => (text, 0),
    };
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (integer.is_empty() && fraction.is_empty()) || !all_digits(integer) || !all_digits(fraction) {
        return Err(NumberError::Syntax);
    }
    Ok(Parts { negative, integer, fraction, exponent: exponent.clamp(-EXPONENT_MAX, EXPONENT_MAX) })
}

/// A number times `10^scale` as an integer, rounded half away from zero as PostgreSQL's `numeric` does;
/// `Range` when it needs more than `precision` digits (at most 38).
pub fn parse_decimal(text: &str, precision: u8, scale: i8) -> Result<i128, NumberError> {
    let p = parts(text)?;
    let digits = p.integer.bytes().chain(p.fraction.bytes());
    // So many digits of the mantissa are kept; more of them than there are is a multiplication by ten each.
    let keep = p.integer.len() as i64 + p.exponent + scale as i64;
    let limit = 10i128.checked_pow(precision as u32).ok_or(NumberError::Range)?;
    let mut value: i128 = 0;
    let mut taken = 0;
    let mut round_up = false;
    for digit in digits.map(|b| (b - b'0') as i128) {
        if taken >= keep {
            round_up = taken == keep && digit >= 5;
            break;
        }
        value = value.checked_mul(10).and_then(|v| v.checked_add(digit)).ok_or(NumberError::Range)?;
        if value >= limit {
            return Err(NumberError::Range);
        }
        taken += 1;
    }
    while value != 0 && taken < keep {
        value = value.checked_mul(10).filter(|v| *v < limit).ok_or(NumberError::Range)?;
        taken += 1;
    }
    value += round_up as i128;
    if value >= limit {
        return Err(NumberError::Range);
    }
    Ok(if p.negative { -value } else { value })
}

/// A whole number: as digits, or, where a producer writes every number with a point or an exponent, `42.0`
/// and `4.2e1` too. A fraction is a `Syntax` error.
pub fn parse_integer(text: &str) -> Result<i64, NumberError> {
    if let Ok(n) = text.parse::<i64>() {
        return Ok(n);
    }
    let p = parts(text)?;
    // All digits behind the decimal point, once the exponent moved it, must be zeros.
    let point = p.integer.len() as i64 + p.exponent;
    let mut digits = p.integer.bytes().chain(p.fraction.bytes());
    if digits.by_ref().skip(point.max(0) as usize).any(|d| d != b'0') {
        return Err(NumberError::Syntax);
    }
    let whole = parse_decimal(text, 38, 0)?;
    i64::try_from(whole).map_err(|_| NumberError::Range)
}

/// A floating-point number; `NaN`, `Infinity` and `-Infinity` as PostgreSQL writes them. A finite text that is too
/// large is a `Range` error.
pub fn parse_float(text: &str) -> Result<f64, NumberError> {
    let text = text.trim_ascii();
    let value: f64 = text.parse().map_err(|_| NumberError::Syntax)?;
    if value.is_infinite() && text.bytes().any(|b| b.is_ascii_digit()) {
        return Err(NumberError::Range);
    }
    Ok(value)
}

/// A two's complement big-endian integer, as Kafka Connect writes a decimal's unscaled value.
pub fn unscaled_from_bytes(bytes: &[u8]) -> Result<i128, NumberError> {
    let Some(&first) = bytes.first() else { return Err(NumberError::Syntax) };
    let fill: u8 = if first & 0x80 == 0 { 0 } else { 0xff };
    let (excess, kept) = bytes.split_at(bytes.len().saturating_sub(16));
    let sign_is_kept = kept.first().is_some_and(|b| b & 0x80 == fill & 0x80);
    if !excess.iter().all(|&b| b == fill) || !sign_is_kept {
        return Err(NumberError::Range);
    }
    let mut wide = [fill; 16];
    wide[16 - kept.len()..].copy_from_slice(kept);
    Ok(i128::from_be_bytes(wide))
}

/// Brings an unscaled value from one scale to another, rounded half away from zero; `Range` when it then has more than `precision` digits.
pub fn rescale(unscaled: i128, from: i32, to: i8, precision: u8) -> Result<i128, NumberError> {
    let limit = 10i128.checked_pow(precision as u32).ok_or(NumberError::Range)?;
    let up = to as i64 - from as i64;
    let value = if unscaled == 0 {
        0
    } else if up >= 0 {
        let factor = u32::try_from(up).ok().and_then(|up| 10i128.checked_pow(up));
        factor.and_then(|f| unscaled.checked_mul(f)).ok_or(NumberError::Range)?
    } else {
        match u32::try_from(-up).ok().and_then(|down| 10i128.checked_pow(down)) {
            Some(divisor) => {
                let (quotient, remainder) = (unscaled / divisor, unscaled % divisor);
                let away = remainder.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
                quotient + if away { unscaled.signum() } else { 0 }
            }
            // Divided by more than any value can be.
            None => 0,
        }
    };
    if value.unsigned_abs() >= limit.unsigned_abs() { Err(NumberError::Range) } else { Ok(value) }
}

/// Appends a decimal with all digits of its scale, as PostgreSQL prints a `numeric(p, s)`.
pub fn write_decimal(value: i128, scale: i8, out: &mut String) {
    use std::fmt::Write;
    if value < 0 {
        out.push('-');
    }
    let digits = value.unsigned_abs();
    let printed = match u32::try_from(scale) {
        Ok(0) => write!(out, "{digits}"),
        Ok(s) => match 10u128.checked_pow(s) {
            Some(unit) => write!(out, "{}.{:0width$}", digits / unit, digits % unit, width = s as usize),
            None => write!(out, "0.{digits:0width$}", width = s as usize),
        },
        Err(_) if digits == 0 => write!(out, "0"),
        Err(_) => write!(out, "{digits}{:0<width$}", "", width = scale.unsigned_abs() as usize),
    };
    debug_assert!(printed.is_ok(), "writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact_and_round_half_away_from_zero() {
        for (text, scale, expected) in [
            ("0", 2, Ok(0)),
            ("12.34", 2, Ok(1234)),
            ("-12.345", 2, Ok(-1235)),
            ("12.344999", 2, Ok(1234)),
            ("0.005", 2, Ok(1)),
            ("0.0049", 2, Ok(0)),
            ("1e3", 2, Ok(100_000)),
            ("1.5E-2", 2, Ok(2)),
            ("1e-9999999", 2, Ok(0)),
            ("0e9999999", 2, Ok(0)),
            ("+7.", 0, Ok(7)),
            (".5", 0, Ok(1)),
            ("99999999.994", 2, Ok(9_999_999_999)),
            ("99999999.995", 2, Err(NumberError::Range)),
            ("1e9999999", 2, Err(NumberError::Range)),
            ("", 2, Err(NumberError::Syntax)),
            (".", 2, Err(NumberError::Syntax)),
            ("1.2.3", 2, Err(NumberError::Syntax)),
            ("0x10", 2, Err(NumberError::Syntax)),
            ("1e", 2, Err(NumberError::Syntax)),
            ("é", 2, Err(NumberError::Syntax)),
        ] {
            assert_eq!(parse_decimal(text, 10, scale), expected, "{text}");
        }
        let widest = "9".repeat(38);
        assert_eq!(parse_decimal(&widest, 38, 0), Ok(10i128.pow(38) - 1));
        assert_eq!(parse_decimal(&(widest + "0"), 38, 0), Err(NumberError::Range));
        assert_eq!(parse_decimal("1234", 4, -2), Ok(12));
    }

    #[test]
    fn integers_may_be_written_as_decimals_without_a_fraction() {
        assert_eq!(parse_integer("-9223372036854775808"), Ok(i64::MIN));
        assert_eq!(parse_integer("9223372036854775808"), Err(NumberError::Range));
        assert_eq!(parse_integer("42.0"), Ok(42));
        assert_eq!(parse_integer("4.2e1"), Ok(42));
        assert_eq!(parse_integer("1200e-2"), Ok(12));
        assert_eq!(parse_integer("42.5"), Err(NumberError::Syntax));
        assert_eq!(parse_integer("5e-1"), Err(NumberError::Syntax));
        assert_eq!(parse_integer("1e40"), Err(NumberError::Range));
        assert_eq!(parse_integer("x"), Err(NumberError::Syntax));
    }

    #[test]
    fn floats_out_of_range_are_not_infinity() {
        assert_eq!(parse_float("1e400"), Err(NumberError::Range));
        assert_eq!(parse_float("-Infinity"), Ok(f64::NEG_INFINITY));
        assert_eq!(parse_float("0.1"), Ok(0.1));
        assert!(parse_float("NaN").is_ok_and(f64::is_nan));
    }

    #[test]
    fn connect_decimals() {
        assert_eq!(unscaled_from_bytes(&[0x04, 0xd2]), Ok(1234));
        assert_eq!(unscaled_from_bytes(&[0xfb, 0x2e]), Ok(-1234));
        assert_eq!(unscaled_from_bytes(&[0; 20]), Ok(0));
        assert_eq!(unscaled_from_bytes(&[0xff; 17]), Ok(-1));
        assert_eq!(unscaled_from_bytes(&[1; 17]), Err(NumberError::Range));
        assert_eq!(unscaled_from_bytes(&[]), Err(NumberError::Syntax));
        let mut just_too_large = vec![0; 17];
        just_too_large[1] = 0x80;
        assert_eq!(unscaled_from_bytes(&just_too_large), Err(NumberError::Range));
        assert_eq!(rescale(12345, 3, 2, 10), Ok(1235));
        assert_eq!(rescale(-12344, 3, 2, 10), Ok(-1234));
        assert_eq!(rescale(5, 1, 0, 10), Ok(1));
        assert_eq!(rescale(12, 0, 2, 3), Err(NumberError::Range));
        assert_eq!(rescale(1, 2_000_000_000, 2, 3), Ok(0));
        assert_eq!(rescale(1, -2_000_000_000, 2, 3), Err(NumberError::Range));
    }

    #[test]
    fn decimals_are_printed_with_their_scale() {
        for (value, scale, expected) in [
            (1234, 2, "12.34"),
            (-5, 2, "-0.05"),
            (0, 3, "0.000"),
            (12, 0, "12"),
            (12, -2, "1200"),
            (0, -2, "0"),
        ] {
            let mut out = String::new();
            write_decimal(value, scale, &mut out);
            assert_eq!(out, expected);
        }
    }
}
