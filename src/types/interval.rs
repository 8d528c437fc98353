//! Intervals as text: PostgreSQL's `postgres` style out, and everything it reads in.

use arrow::datatypes::IntervalMonthDayNano;

use super::datetime::{DAY_MICROS, Scan, write_time_of_day};
use super::invalid_text;
use crate::error::{Error, Result, SqlState};

/// Writes an interval in PostgreSQL's `postgres` style: `1 year 2 mons -3 days +04:05:06.7`.
pub fn format_interval(value: IntervalMonthDayNano, out: &mut Vec<u8>) {
    let micros = value.nanoseconds / 1000;
    let start = out.len();
    // A sign is written where the part before it was negative, as PostgreSQL does, so that it is never misread.
    let mut after_negative = false;
    let mut part = |n: i64, unit: &str, out: &mut Vec<u8>| {
        if n == 0 {
            return;
        }
        if out.len() > start {
            out.push(b' ');
        }
        if after_negative && n > 0 {
            out.push(b'+');
        }
        out.extend_from_slice(n.to_string().as_bytes());
        out.push(b' ');
        out.extend_from_slice(unit.as_bytes());
        if n != 1 {
            out.push(b's');
        }
        after_negative = n < 0;
    };
    part(i64::from(value.months / 12), "year", out);
    part(i64::from(value.months % 12), "mon", out);
    part(i64::from(value.days), "day", out);
    if micros != 0 || out.len() == start {
        if out.len() > start {
            out.push(b' ');
        }
        if micros < 0 {
            out.push(b'-');
        } else if after_negative {
            out.push(b'+');
        }
        write_time_of_day(micros, out);
    }
}

/// Reads an interval: `1 day 02:03:04`, `1 year -2 mons`, `5 minutes ago`, `1.5 hours`, `P1Y2M3DT4H5M6S`, `1-2`.
///
/// # Errors
/// 22007 when it is none, 22008 when it is too large.
pub fn parse_interval(text: &str) -> Result<IntervalMonthDayNano> {
    let mut sum = IntervalSum::default();
    let trimmed = text.trim();
    let understood = match trimmed.strip_prefix(['P', 'p']) {
        Some(iso) => sum.add_iso(iso),
        None => sum.add_words(trimmed),
    };
    if understood.is_none() {
        return Err(invalid_text("interval", text));
    }
    sum.finish().ok_or_else(|| {
        Error::new(SqlState("22008"), format!("interval field value out of range: \"{text}\""))
    })
}

/// An interval being added up. Fractions of months and days flow down as in PostgreSQL (a month of 30 days).
#[derive(Default)]
struct IntervalSum {
    months: f64,
    days: f64,
    micros: f64,
}

impl IntervalSum {
    fn add(&mut self, amount: f64, unit: &str) -> Option<()> {
        let unit = unit.to_ascii_lowercase();
        let singular = if unit.len() > 2 { unit.strip_suffix('s').unwrap_or(&unit) } else { unit.as_str() };
        match singular {
            "millennium" | "millennia" | "mil" => self.months += amount * 12_000.0,
            "century" | "centurie" | "c" | "cent" => self.months += amount * 1200.0,
            "decade" | "dec" => self.months += amount * 120.0,
            "year" | "yr" | "y" => self.months += amount * 12.0,
            "month" | "mon" => {
                self.months += amount.trunc();
                self.days += amount.fract() * 30.0;
            }
            "week" | "w" => self.add_days(amount * 7.0),
            "day" | "d" => self.add_days(amount),
            "hour" | "hr" | "h" => self.micros += amount * 3_600e6,
            "minute" | "min" | "m" => self.micros += amount * 60e6,
            "second" | "sec" | "s" => self.micros += amount * 1e6,
            "millisecond" | "msec" | "ms" => self.micros += amount * 1e3,
            "microsecond" | "usec" | "us" => self.micros += amount,
            _ => return None,
        }
        Some(())
    }

    fn add_days(&mut self, amount: f64) {
        self.days += amount.trunc();
        self.micros += (amount.fract() * DAY_MICROS as f64).round();
    }

    /// `1 year -2 mons +3 days 04:05:06 ago`, also `@ 1 hour`, `1-2` (years-months), and a bare number of seconds.
    fn add_words(&mut self, text: &str) -> Option<()> {
        let mut scan = Scan { rest: text.strip_prefix('@').unwrap_or(text) };
        let mut parts = 0;
        loop {
            scan.skip_space();
            if scan.rest.is_empty() {
                return (parts > 0).then_some(());
            }
            if scan.rest.eq_ignore_ascii_case("ago") && parts > 0 {
                (self.months, self.days, self.micros) = (-self.months, -self.days, -self.micros);
                return Some(());
            }
            parts += 1;
            let sign = if scan.eat('-') { -1.0 } else { 1.0 };
            scan.eat('+');
            if scan.rest.split(char::is_whitespace).next().is_some_and(|w| w.contains(':')) {
                self.micros += sign * scan_clock(&mut scan)?;
                continue;
            }
            let amount = scan_number(&mut scan)?;
            if scan.eat('-') {
                let (_, months) = scan.digits()?;
                self.months += sign * (amount * 12.0 + months as f64);
                continue;
            }
            scan.skip_space();
            match scan.word() {
                // A number before a time of day counts days.
                "" if scan.rest.split(char::is_whitespace).next().is_some_and(|w| w.contains(':')) => {
                    self.add_days(sign * amount);
                }
                "" => self.micros += sign * amount * 1e6,
                unit => self.add(sign * amount, unit)?,
            }
        }
    }

    /// ISO 8601 after the `P`.
    fn add_iso(&mut self, text: &str) -> Option<()> {
        let mut scan = Scan { rest: text };
        let mut in_time = false;
        let mut parts = 0;
        while !scan.rest.is_empty() {
            if scan.eat('T') || scan.eat('t') {
                in_time = true;
                continue;
            }
            let sign = if scan.eat('-') { -1.0 } else { 1.0 };
            let amount = sign * scan_number(&mut scan)?;
            let letter = scan.rest.chars().next()?;
            scan.rest = &scan.rest[letter.len_utf8()..];
            let unit = match (letter.to_ascii_uppercase(), in_time) {
                ('Y', false) => "year",
                ('M', false) => "month",
                ('W', false) => "week",
                ('D', false) => "day",
                ('H', true) => "hour",
                ('M', true) => "minute",
                ('S', true) => "second",
                _ => return None,
            };
            self.add(amount, unit)?;
            parts += 1;
        }
        (parts > 0).then_some(())
    }

    fn finish(self) -> Option<IntervalMonthDayNano> {
        let months = self.months.round();
        let days = self.days.trunc();
        let micros = self.micros + self.days.fract() * DAY_MICROS as f64;
        let nanos = micros.round() * 1000.0;
        let fits = months.abs() <= f64::from(i32::MAX)
            && days.abs() <= f64::from(i32::MAX)
            && nanos.abs() < i64::MAX as f64;
        fits.then(|| IntervalMonthDayNano::new(months as i32, days as i32, nanos as i64))
    }
}

fn scan_number(scan: &mut Scan<'_>) -> Option<f64> {
    let end = scan.rest.bytes().position(|b| !(b.is_ascii_digit() || b == b'.')).unwrap_or(scan.rest.len());
    let (number, rest) = scan.rest.split_at(end);
    scan.rest = rest;
    number.parse().ok()
}

/// `04:05:06.789` or `04:05`, in microseconds; hours may be many.
fn scan_clock(scan: &mut Scan<'_>) -> Option<f64> {
    let hour = scan.digits()?.1;
    if !scan.eat(':') {
        return None;
    }
    let minute = scan.digits()?.1;
    let second = if scan.eat(':') { scan_number(scan)? } else { 0.0 };
    (minute < 60 && second < 61.0).then_some((hour * 60 + minute) as f64 * 60e6 + (second * 1e6).round())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(f: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        f(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn intervals_go_both_ways() {
        for i in [
            "1 year 2 mons 3 days 04:05:06.7",
            "-1 days",
            "00:00:00",
            "1 day",
            "-1 years -2 mons +3 days -04:05:06",
            "1 mon",
            "-1 days +02:03:00",
            "100:00:00",
        ] {
            assert_eq!(text(|o| format_interval(parse_interval(i).unwrap(), o)), i);
        }
        for (given, printed) in [
            ("5 minutes ago", "-00:05:00"),
            ("1.5 hours", "01:30:00"),
            ("1.5 days", "1 day 12:00:00"),
            ("2 weeks", "14 days"),
            ("P1Y2M3DT4H5M6S", "1 year 2 mons 3 days 04:05:06"),
            ("1-2", "1 year 2 mons"),
            ("90 sec", "00:01:30"),
            ("30", "00:00:30"),
            ("10ms", "00:00:00.01"),
        ] {
            assert_eq!(text(|o| format_interval(parse_interval(given).unwrap(), o)), printed, "{given}");
        }
        for bad in ["", "day", "1 fortnight", "P", "ago"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
