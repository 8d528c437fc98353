//! Dates, times, timestamps and intervals between their text and microseconds (or days) since 1970.
//!
//! Read: ISO 8601 and PostgreSQL's own output. Written: PostgreSQL's ISO style for CSV, ISO 8601 for JSON.

use std::fmt::Write;

/// Microseconds in a second.
pub const MICROS_PER_SECOND: i64 = 1_000_000;
/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;
/// Years that are read, before and after the year 0 (1 BC): those that PostgreSQL's timestamps reach.
const YEAR_MAX: i32 = 294_276;

/// Reads a text from the front; every method answers `None` where the text is not what it is asked for.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn eat(&mut self, byte: u8) -> Option<()> {
        let (&first, rest) = self.0.split_first()?;
        (first == byte).then(|| self.0 = rest)
    }

    /// A number of `least` to `most` digits.
    fn digits(&mut self, least: usize, most: usize) -> Option<i32> {
        let n = self.0.iter().take(most).take_while(|b| b.is_ascii_digit()).count();
        if n < least {
            return None;
        }
        let (digits, rest) = self.0.split_at(n);
        self.0 = rest;
        Some(digits.iter().fold(0, |v, b| v * 10 + (b - b'0') as i32))
    }

    /// A date, as days since 1970. Years beyond four digits, and those before the year 0, may have a sign.
    fn date(&mut self) -> Option<i32> {
        let sign = if self.eat(b'-').is_some() { -1 } else { 1 };
        if sign > 0 {
            // No sign is as good.
            let _ = self.eat(b'+');
        }
        let year = sign * self.digits(4, 6)?;
        self.eat(b'-')?;
        let month = self.digits(1, 2)?;
        self.eat(b'-')?;
        let day = self.digits(1, 2)?;
        if year.abs() > YEAR_MAX || !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month)
        {
            return None;
        }
        Some(days_from_civil(year, month, day))
    }

    /// A time of day, in µs; up to 24:00:00, as PostgreSQL reads it. Digits beyond µs round.
    fn time(&mut self) -> Option<i64> {
        let hour = self.digits(1, 2)? as i64;
        self.eat(b':')?;
        let minute = self.digits(2, 2)? as i64;
        let mut second = 0;
        let mut micros = 0;
        if self.eat(b':').is_some() {
            second = self.digits(2, 2)? as i64;
            if self.eat(b'.').or_else(|| self.eat(b',')).is_some() {
                micros = self.fraction()?;
            }
        }
        // 60 is a leap second: the next minute begins.
        if minute > 59 || second > 60 {
            return None;
        }
        let total = ((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros;
        (total <= MICROS_PER_DAY).then_some(total)
    }

    /// Digits behind a decimal point of seconds, in µs.
    fn fraction(&mut self) -> Option<i64> {
        let n = self.0.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.0.split_at(n);
        self.0 = rest;
        let digit = |i: usize| digits.get(i).map_or(0, |b| (b - b'0') as i64);
        let micros = (0..6).fold(0, |v, i| v * 10 + digit(i));
        (n > 0).then_some(micros + (digit(6) >= 5) as i64)
    }

    /// A zone as an offset: `Z`, `+02`, `+0200`, `+02:00`, `-03:30:15`; in µs to take off the local time.
    fn zone(&mut self) -> Option<i64> {
        if self.eat(b'Z').or_else(|| self.eat(b'z')).is_some() {
            return Some(0);
        }
        let sign = if self.eat(b'+').is_some() { 1 } else { self.eat(b'-').map(|()| -1)? };
        let hours = self.digits(2, 2)? as i64;
        let mut minutes = 0;
        let mut seconds = 0;
        if self.eat(b':').is_some() || self.0.first().is_some_and(u8::is_ascii_digit) {
            minutes = self.digits(2, 2)? as i64;
            if self.eat(b':').is_some() {
                seconds = self.digits(2, 2)? as i64;
            }
        }
        let valid = hours <= 15 && minutes <= 59 && seconds <= 59;
        valid.then_some(sign * ((hours * 60 + minutes) * 60 + seconds) * MICROS_PER_SECOND)
    }

    fn spaces(&mut self) {
        while self.eat(b' ').is_some() {}
    }
}

/// A date as days since 1970. A zone or a time of day behind it is passed over, as PostgreSQL does.
pub fn parse_date(text: &str) -> Option<i32> {
    let text = text.trim_ascii();
    let mut r = Reader(text.as_bytes());
    let days = r.date()?;
    if r.0.is_empty() || (r.zone().is_some() && r.0.is_empty()) {
        return Some(days);
    }
    parse_timestamp(text).map(|_| days)
}

/// A time of day in µs. A zone behind it is passed over.
pub fn parse_time(text: &str) -> Option<i64> {
    let mut r = Reader(text.trim_ascii().as_bytes());
    let micros = r.time()?;
    r.spaces();
    (r.0.is_empty() || (r.zone().is_some() && r.0.is_empty())).then_some(micros)
}

/// A time of day with a zone, in µs of the day in UTC.
pub fn parse_time_in_utc(text: &str) -> Option<i64> {
    let mut r = Reader(text.trim_ascii().as_bytes());
    let micros = r.time()?;
    let offset = if r.0.is_empty() { 0 } else { r.zone()? };
    r.0.is_empty().then_some((micros - offset).rem_euclid(MICROS_PER_DAY))
}

/// A timestamp: local µs since 1970, and the zone's offset in µs when one is written.
pub fn parse_timestamp(text: &str) -> Option<(i64, Option<i64>)> {
    let mut r = Reader(text.trim_ascii().as_bytes());
    let days = r.date()?;
    let mut micros = 0;
    let mut offset = None;
    if !r.0.is_empty() {
        r.eat(b'T').or_else(|| r.eat(b't')).or_else(|| r.eat(b' '))?;
        r.spaces();
        micros = r.time()?;
        r.spaces();
        if !r.0.is_empty() {
            offset = Some(r.zone()?);
        }
    }
    if !r.0.is_empty() {
        return None;
    }
    // Wider, as the first day that has a moment in range starts before it.
    let local = days as i128 * MICROS_PER_DAY as i128 + micros as i128;
    Some((i64::try_from(local).ok()?, offset))
}

/// Days of a month of the Gregorian calendar.
fn days_in_month(year: i32, month: i32) -> i32 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i32, month: i32, day: i32) -> i32 {
    // Years that start in March put the leap day last.
    let y = if month <= 2 { year - 1 } else { year };
    let era = y.div_euclid(400);
    let year_of_era = y.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + (month <= 2) as i64;
    (year, month, day)
}

/// Appends a date as `2024-02-29`, the years before the year 0 (1 BC) with a sign.
pub fn write_date(days: i64, out: &mut String) {
    let (year, month, day) = civil_from_days(days);
    if year < 0 {
        out.push('-');
    }
    let year = year.unsigned_abs();
    let written = write!(out, "{year:04}-{month:02}-{day:02}");
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// Appends a time of day as `13:00:05.25`: only as many digits of the fraction as it has.
pub fn write_time(micros: i64, out: &mut String) {
    let seconds = micros / MICROS_PER_SECOND;
    let mut fraction = micros % MICROS_PER_SECOND;
    let mut written = write!(out, "{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60);
    if fraction != 0 {
        let mut width = 6;
        while fraction % 10 == 0 {
            fraction /= 10;
            width -= 1;
        }
        written = written.and_then(|()| write!(out, ".{fraction:0width$}"));
    }
    debug_assert!(written.is_ok(), "writing to a String does not fail");
}

/// Appends a timestamp, its date and time held apart by `separator`.
pub fn write_timestamp(micros: i64, separator: char, out: &mut String) {
    write_date(micros.div_euclid(MICROS_PER_DAY), out);
    out.push(separator);
    write_time(micros.rem_euclid(MICROS_PER_DAY), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        assert_eq!(parse_date("1970-01-01"), Some(0));
        assert_eq!(parse_date("2000-02-29"), Some(11_016));
        assert_eq!(parse_date("1969-12-31"), Some(-1));
        assert_eq!(parse_date("-0043-03-15Z"), Some(-735_160));
        assert_eq!(parse_date("+20000-01-01"), Some(6_585_322));
        for zoned in ["2024-05-06T10:00:00Z", "2024-05-06Z", "2024-05-06+02:00", "2024-05-06-11"] {
            assert_eq!(parse_date(zoned), Some(19_849), "{zoned}");
        }
        for bad in [
            "",
            "2023-02-29",
            "2024-13-01",
            "2024-00-10",
            "2024-1-0",
            "24-01-01",
            "2024-01-01x",
            "2024-01-01Zx",
            "é",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        for days in [-735_160, -719_468, -1, 0, 59, 60, 11_015, 11_016, 19_849, 2_932_896] {
            let mut text = String::new();
            write_date(days, &mut text);
            assert_eq!(parse_date(&text), Some(days as i32), "{text}");
        }
    }

    #[test]
    fn timestamps_in_all_common_spellings() {
        let noon = 1_709_208_000 * MICROS_PER_SECOND;
        for (text, expected) in [
            ("2024-02-29 12:00:00", (noon, None)),
            ("2024-02-29T12:00", (noon, None)),
            ("2024-02-29T12:00:00.5Z", (noon + 500_000, Some(0))),
            ("2024-02-29T12:00:00.0000005Z", (noon + 1, Some(0))),
            ("2024-02-29 12:00:00+02", (noon, Some(7200 * MICROS_PER_SECOND))),
            ("2024-02-29 12:00:00 -0330", (noon, Some(-12_600 * MICROS_PER_SECOND))),
            ("2024-02-29T12:00:00.123456+05:45", (noon + 123_456, Some(20_700 * MICROS_PER_SECOND))),
            ("2024-02-29", (noon - 12 * 3600 * MICROS_PER_SECOND, None)),
        ] {
            assert_eq!(parse_timestamp(text), Some(expected), "{text}");
        }
        for bad in [
            "",
            "2024-02-29T",
            "2024-02-29 25:00:00",
            "2024-02-29 12:60:00",
            "2024-02-29 12:00:00.Z",
            "294276-12-31",
        ] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
        assert_eq!(parse_timestamp("99999-12-31 23:59:59.999999Z").map(|t| t.1), Some(Some(0)));
    }

    #[test]
    fn times() {
        assert_eq!(parse_time("24:00:00"), Some(MICROS_PER_DAY));
        assert_eq!(parse_time("24:00:01"), None);
        assert_eq!(parse_time("01:02:03.000004"), Some(3_723_000_004));
        assert_eq!(parse_time("01:02:03+01"), Some(3_723_000_000));
        assert_eq!(parse_time_in_utc("01:00:00+02:00"), Some(23 * 3600 * MICROS_PER_SECOND));
    }

    #[test]
    fn written_text_reads_back() {
        for micros in
            [0, 1, -1, 999_999, -62_135_596_800_000_000, 1_709_208_000_120_000, 253_402_300_799_999_999]
        {
            let mut text = String::new();
            write_timestamp(micros, 'T', &mut text);
            assert_eq!(parse_timestamp(&text), Some((micros, None)), "{text}");
        }
        let mut text = String::new();
        write_timestamp(1_709_208_000_120_000, ' ', &mut text);
        assert_eq!(text, "2024-02-29 12:00:00.12");
    }
}
