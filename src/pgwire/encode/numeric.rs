//! PostgreSQL's binary `numeric`: groups of four decimal digits, with the weight of the first.

use bytes::{Buf, BufMut, Bytes};

use crate::error::{Error, Result, SqlState};

const NEGATIVE: u16 = 0x4000;
const NAN: u16 = 0xC000;
const INFINITY: u16 = 0xD000;
const NEGATIVE_INFINITY: u16 = 0xF000;

/// Appends the number `unscaled` × 10^-`scale` (without the length before it). `unscaled` is decimal digits, perhaps with a minus sign before them.
pub fn write(unscaled: &str, scale: i8, out: &mut Vec<u8>) {
    let (negative, digits) = match unscaled.strip_prefix('-') {
        Some(digits) => (true, digits.as_bytes()),
        None => (false, unscaled.as_bytes()),
    };
    // Digit i of the number counts 10^(int_len - 1 - i).
    let int_len = digits.len() as i32 - i32::from(scale);
    let weight_of = |group_power: i32| group_power.div_euclid(4);
    let first = weight_of(int_len - 1);
    let last = weight_of(-i32::from(scale));
    let group = |weight: i32| -> u16 {
        let mut value = 0;
        for place in (0..4).rev() {
            let i = int_len - 1 - (weight * 4 + place);
            let digit = usize::try_from(i).ok().and_then(|i| digits.get(i)).map_or(0, |d| d - b'0');
            value = value * 10 + u16::from(digit);
        }
        value
    };
    let start = out.len();
    out.put_bytes(0, 8);
    let (mut weight, mut n, mut n_kept) = (0, 0u16, 0u16);
    let mut w = first;
    while w >= last {
        let value = group(w);
        if value != 0 || n > 0 {
            if n == 0 {
                weight = w;
            }
            out.put_u16(value);
            n += 1;
            if value != 0 {
                n_kept = n;
            }
        }
        w -= 1;
    }
    out.truncate(start + 8 + usize::from(n_kept) * 2);
    let sign = if negative && n_kept > 0 { NEGATIVE } else { 0 };
    let mut head = &mut out[start..start + 8];
    head.put_u16(n_kept);
    head.put_i16(weight as i16);
    head.put_u16(sign);
    head.put_u16(scale.max(0) as u16);
}

/// Reads a binary number as decimal text, for the type's own input function.
pub fn read(mut value: Bytes) -> Result<String> {
    let short = || Error::new(SqlState("22P03"), "incorrect binary data format");
    let n = value.try_get_u16().map_err(|_| short())?;
    let weight = i32::from(value.try_get_i16().map_err(|_| short())?);
    let sign = value.try_get_u16().map_err(|_| short())?;
    let scale = i32::from(value.try_get_u16().map_err(|_| short())?);
    if value.len() != usize::from(n) * 2 {
        return Err(short());
    }
    let mut text = String::new();
    match sign {
        0 => {}
        NEGATIVE => text.push('-'),
        NAN => return Ok("NaN".into()),
        INFINITY => return Ok("Infinity".into()),
        NEGATIVE_INFINITY => return Ok("-Infinity".into()),
        _ => return Err(Error::new(SqlState("22P03"), "invalid sign in external \"numeric\" value")),
    }
    let groups: Vec<u16> = (0..n).map(|_| value.get_u16()).collect();
    if groups.iter().any(|g| *g > 9999) {
        return Err(Error::new(SqlState("22P03"), "invalid digit in external \"numeric\" value"));
    }
    // The group at weight w, if it was sent.
    let group = |w: i32| usize::try_from(weight - w).ok().and_then(|i| groups.get(i)).copied().unwrap_or(0);
    let mut w = weight.max(0);
    text.push_str(&group(w).to_string());
    while w > 0 {
        w -= 1;
        text.push_str(&format!("{:04}", group(w)));
    }
    if scale > 0 {
        text.push('.');
        let mut fraction = String::new();
        while (fraction.len() as i32) < scale {
            w -= 1;
            fraction.push_str(&format!("{:04}", group(w)));
        }
        fraction.truncate(scale as usize);
        text.push_str(&fraction);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(unscaled: &str, scale: i8) -> Vec<u16> {
        let mut out = Vec::new();
        write(unscaled, scale, &mut out);
        out.chunks(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect()
    }

    #[test]
    fn numbers_are_written_as_postgresql_writes_them() {
        // Taken from PostgreSQL: numeric_send(x).
        assert_eq!(written("0", 0), [0, 0, 0, 0]);
        assert_eq!(written("0", 2), [0, 0, 0, 2]);
        assert_eq!(written("1", 0), [1, 0, 0, 0, 1]);
        assert_eq!(written("-12345678", 4), [2, 0, NEGATIVE, 4, 1234, 5678]);
        assert_eq!(written("12345", 0), [2, 1, 0, 0, 1, 2345]);
        assert_eq!(written("10000", 0), [1, 1, 0, 0, 1]);
        assert_eq!(written("5", 1), [1, 0xffff, 0, 1, 5000]);
        assert_eq!(written("1", 5), [1, 0xfffe, 0, 5, 1000]);
        assert_eq!(written("100", 2), [1, 0, 0, 2, 1]);
        assert_eq!(written("12", -3), [2, 1, 0, 0, 1, 2000]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for (unscaled, scale, text) in [
            ("0", 0, "0"),
            ("0", 3, "0.000"),
            ("123456789012345678901234567890", 10, "12345678901234567890.1234567890"),
            ("-1", 10, "-0.0000000001"),
            ("99999999", 4, "9999.9999"),
            ("100000000", 0, "100000000"),
            ("7", -5, "700000"),
        ] {
            let mut out = Vec::new();
            write(unscaled, scale, &mut out);
            assert_eq!(read(out.into()).unwrap(), text);
        }
    }

    #[test]
    fn broken_numbers_are_errors() {
        for bytes in [&b""[..], b"\0\x01\0\0\0\0\0\0", b"\0\0\0\0\x12\x34\0\0", b"\0\x01\0\0\0\0\0\0\xff\xff"]
        {
            assert!(read(Bytes::from_static(bytes)).is_err(), "{bytes:?}");
        }
    }
}
