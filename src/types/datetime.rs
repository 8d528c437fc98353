//! Dates, times and timestamps as text: ISO output as PostgreSQL's default, and what it reads.

use super::{Zone, invalid_text};
use crate::error::{Error, Result, SqlState};

/// Microseconds of a day.
pub(super) const DAY_MICROS: i64 = 86_400_000_000;
pub(super) const SECOND_MICROS: i64 = 1_000_000;

/// The value that PostgreSQL prints as `infinity`; its negative neighbour is `-infinity`.
pub(super) const INFINITY: i64 = i64::MAX;
/// `-infinity`.
pub(super) const NEG_INFINITY: i64 = i64::MIN;

/// Days since 1970-01-01 of a date of the proleptic Gregorian calendar.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

/// Year, month and day of a number of days since 1970-01-01.
fn civil_from_days(days: i64) -> (i64, u32, u32) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let mp = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    // Both are within 1..=31 by the arithmetic above.
    (year, month as u32, day as u32)
}

/// A moment taken apart, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the calendar's own words; micros are those of the second, Sunday is weekday 0
pub struct Moment {
    pub year: i64,
    pub month: u32,
    pub day: u32,
    pub hour: u32,
    pub minute: u32,
    pub second: u32,
    pub micros: u32,
    pub weekday: u32,
    pub day_of_year: u32,
}

impl Moment {
    /// Days since 1970-01-01 of a date, the year 0 being 1 BC.
    pub fn days_of(year: i64, month: i64, day: i64) -> i64 {
        days_from_civil(year, month, day)
    }

    /// How many days a month has.
    pub fn days_in_month(year: i64, month: u32) -> i64 {
        days_in_month(year, month.into())
    }

    /// The first day of a month, in days since 1970-01-01; months are counted from January of year 0.
    pub fn month_begins(month: i64) -> i64 {
        days_from_civil(month.div_euclid(12), month.rem_euclid(12) + 1, 1)
    }

    /// Takes microseconds since 1970-01-01 apart.
    pub fn of(micros: i64) -> Moment {
        let (days, rest) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
        let (year, month, day) = civil_from_days(days);
        let seconds = rest / SECOND_MICROS;
        // Every part is a remainder that fits by far.
        Moment {
            year,
            month,
            day,
            hour: (seconds / 3600) as u32,
            minute: (seconds / 60 % 60) as u32,
            second: (seconds % 60) as u32,
            micros: (rest % SECOND_MICROS) as u32,
            weekday: (days + 4).rem_euclid(7) as u32,
            day_of_year: (days - days_from_civil(year, 1, 1) + 1) as u32,
        }
    }
}

fn push_padded(value: u64, width: usize, out: &mut Vec<u8>) {
    let text = value.to_string();
    out.extend(std::iter::repeat_n(b'0', width.saturating_sub(text.len())));
    out.extend_from_slice(text.as_bytes());
}

/// Writes a date; answers whether it is before the year 1 (`BC` follows at the very end).
fn write_civil(days: i64, out: &mut Vec<u8>) -> bool {
    let (year, month, day) = civil_from_days(days);
    let bc = year <= 0;
    push_padded(if bc { 1 - year } else { year }.unsigned_abs(), 4, out);
    out.push(b'-');
    push_padded(month.into(), 2, out);
    out.push(b'-');
    push_padded(day.into(), 2, out);
    bc
}

pub(super) fn write_time_of_day(micros: i64, out: &mut Vec<u8>) {
    let micros = micros.unsigned_abs();
    let seconds = micros / 1_000_000;
    push_padded(seconds / 3600, 2, out);
    out.push(b':');
    push_padded(seconds / 60 % 60, 2, out);
    out.push(b':');
    push_padded(seconds % 60, 2, out);
    write_fraction(micros % 1_000_000, out);
}

fn write_fraction(micros: u64, out: &mut Vec<u8>) {
    if micros == 0 {
        return;
    }
    out.push(b'.');
    let start = out.len();
    push_padded(micros, 6, out);
    while out.len() > start && out.last() == Some(&b'0') {
        out.pop();
    }
}

/// Writes a date given as days since 1970-01-01.
pub fn format_date(days: i32, out: &mut Vec<u8>) {
    if days == i32::MAX || days == i32::MIN {
        out.extend_from_slice(if days > 0 { b"infinity" } else { b"-infinity" });
        return;
    }
    if write_civil(days.into(), out) {
        out.extend_from_slice(b" BC");
    }
}

/// Writes a time of day given in microseconds.
pub fn format_time(micros: i64, out: &mut Vec<u8>) {
    write_time_of_day(micros, out);
}

/// Writes a timestamp given as microseconds since 1970-01-01.
pub fn format_timestamp(micros: i64, out: &mut Vec<u8>) {
    write_timestamp(micros, None, out);
}

/// Writes a timestamp with time zone, given as microseconds since 1970-01-01 UTC, in the zone that is
/// `offset_seconds` east of UTC.
pub fn format_timestamptz(micros: i64, offset_seconds: i32, out: &mut Vec<u8>) {
    write_timestamp(micros, Some(offset_seconds), out);
}

fn write_timestamp(micros: i64, offset_seconds: Option<i32>, out: &mut Vec<u8>) {
    match micros {
        INFINITY => return out.extend_from_slice(b"infinity"),
        NEG_INFINITY => return out.extend_from_slice(b"-infinity"),
        _ => {}
    }
    let local = micros.saturating_add(i64::from(offset_seconds.unwrap_or(0)) * SECOND_MICROS);
    let bc = write_civil(local.div_euclid(DAY_MICROS), out);
    out.push(b' ');
    write_time_of_day(local.rem_euclid(DAY_MICROS), out);
    if let Some(offset) = offset_seconds {
        write_offset(offset, out);
    }
    if bc {
        out.extend_from_slice(b" BC");
    }
}

fn write_offset(offset: i32, out: &mut Vec<u8>) {
    out.push(if offset < 0 { b'-' } else { b'+' });
    let offset = offset.unsigned_abs();
    push_padded((offset / 3600).into(), 2, out);
    if !offset.is_multiple_of(3600) {
        out.push(b':');
        push_padded((offset / 60 % 60).into(), 2, out);
    }
    if !offset.is_multiple_of(60) {
        out.push(b':');
        push_padded((offset % 60).into(), 2, out);
    }
}

/// Reads text from the front, piece by piece.
pub(super) struct Scan<'a> {
    pub(super) rest: &'a str,
}

impl<'a> Scan<'a> {
    pub(super) fn digits(&mut self) -> Option<(&'a str, i64)> {
        let end = self.rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        let value = digits.parse().ok()?;
        self.rest = rest;
        Some((digits, value))
    }

    pub(super) fn eat(&mut self, c: char) -> bool {
        match self.rest.strip_prefix(c) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn skip_space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(super) fn word(&mut self) -> &'a str {
        let end = self.rest.bytes().position(|b| !b.is_ascii_alphabetic()).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];

fn month_named(word: &str) -> Option<i64> {
    let word = word.to_ascii_lowercase();
    let i = MONTHS.iter().position(|m| word.starts_with(m))?;
    Some(i as i64 + 1)
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if (year % 4 == 0 && year % 100 != 0) || year % 400 == 0 => 29,
        2 => 28,
        _ => 31,
    }
}

/// A date: `2024-01-31`, `20240131`, `1/31/2024`, `Jan 31 2024`, `31 Jan 2024`. `None`: no date.
fn scan_date(scan: &mut Scan<'_>) -> Option<(i64, i64, i64)> {
    if scan.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
        let month = month_named(scan.word())?;
        scan.skip_space();
        let (_, day) = scan.digits()?;
        scan.eat(',');
        scan.skip_space();
        let (_, year) = scan.digits()?;
        return Some((year, month, day));
    }
    let (text, first) = scan.digits()?;
    if text.len() == 8 {
        return Some((first / 10_000, first / 100 % 100, first % 100));
    }
    if scan.eat('-') {
        if scan.rest.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let month = month_named(scan.word())?;
            scan.eat('-');
            let last = scan.digits()?.1;
            return Some(if text.len() >= 3 { (first, month, last) } else { (last, month, first) });
        }
        let (_, month) = scan.digits()?;
        if !scan.eat('-') {
            return None;
        }
        let (_, day) = scan.digits()?;
        return Some((first, month, day));
    }
    if scan.eat('/') {
        let (_, second) = scan.digits()?;
        if !scan.eat('/') {
            return None;
        }
        let (_, third) = scan.digits()?;
        return Some(if text.len() >= 3 { (first, second, third) } else { (third, first, second) });
    }
    scan.skip_space();
    let month = month_named(scan.word())?;
    scan.skip_space();
    Some((scan.digits()?.1, month, first))
}

/// A time of day in microseconds: `04:05`, `04:05:06.789`, `4:05 PM`, `040506`. `None`: no time.
fn scan_time(scan: &mut Scan<'_>) -> Option<i64> {
    let (text, first) = scan.digits()?;
    let (mut hour, mut second, mut fraction) = (first, 0, 0);
    let minute;
    if scan.eat(':') {
        minute = scan.digits()?.1;
        if scan.eat(':') {
            second = scan.digits()?.1;
            if scan.eat('.') {
                fraction = scan_fraction(scan);
            }
        }
    } else if text.len() == 6 {
        (hour, minute, second) = (first / 10_000, first / 100 % 100, first % 100);
        if scan.eat('.') {
            fraction = scan_fraction(scan);
        }
    } else if text.len() == 4 {
        (hour, minute) = (first / 100, first % 100);
    } else {
        return None;
    }
    let before = scan.rest;
    scan.skip_space();
    match scan.rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("am") if (1..=12).contains(&hour) => {
            hour %= 12;
            scan.rest = &scan.rest[2..];
        }
        Some("pm") if (1..=12).contains(&hour) => {
            hour = hour % 12 + 12;
            scan.rest = &scan.rest[2..];
        }
        _ => scan.rest = before,
    }
    let in_range =
        minute < 60 && second <= 60 && (hour < 24 || (hour == 24 && minute + second + fraction == 0));
    in_range.then(|| ((hour * 60 + minute) * 60 + second) * SECOND_MICROS + fraction)
}

/// Digits after a point, as microseconds, rounded.
fn scan_fraction(scan: &mut Scan<'_>) -> i64 {
    let end = scan.rest.bytes().position(|b| !b.is_ascii_digit()).unwrap_or(scan.rest.len());
    let (digits, rest) = scan.rest.split_at(end);
    scan.rest = rest;
    let mut micros = 0;
    for i in 0..6 {
        micros = micros * 10 + digits.as_bytes().get(i).map_or(0, |b| i64::from(b - b'0'));
    }
    micros + i64::from(digits.as_bytes().get(6).is_some_and(|b| *b >= b'5'))
}

/// An offset in seconds east of UTC: `Z`, `UTC`, `+02`, `-0530`, `+05:30:15`. `None`: none that is known.
fn scan_zone(scan: &mut Scan<'_>) -> Option<i64> {
    let sign = if scan.eat('+') {
        1
    } else if scan.eat('-') {
        -1
    } else {
        let word = scan.word().to_ascii_lowercase();
        return matches!(word.as_str(), "z" | "utc" | "gmt" | "zulu" | "ut").then_some(0);
    };
    let (text, first) = scan.digits()?;
    let (hour, mut minute, mut second) = match text.len() {
        1 | 2 => (first, 0, 0),
        3 | 4 => (first / 100, first % 100, 0),
        _ => return None,
    };
    if scan.eat(':') {
        minute = scan.digits()?.1;
        if scan.eat(':') {
            second = scan.digits()?.1;
        }
    }
    (hour <= 15 && minute < 60 && second < 60).then_some(sign * ((hour * 60 + minute) * 60 + second))
}

/// The offset in seconds east of UTC that a setting names: `UTC`, `+02:00`, `Etc/UTC`. `None`: not known.
pub fn parse_zone(text: &str) -> Option<i32> {
    let text = text.trim();
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "utc" | "gmt" | "etc/utc" | "etc/gmt" | "universal" | "zulu") {
        return Some(0);
    }
    let mut scan = Scan { rest: text };
    let offset = scan_zone(&mut scan)?;
    if scan.rest.is_empty() { i32::try_from(offset).ok() } else { None }
}

fn day_number(text: &str, (year, month, day): (i64, i64, i64), bc: bool) -> Result<i64> {
    let year = if bc { 1 - year } else { year };
    let valid = (1..=12).contains(&month) && day >= 1 && day <= days_in_month(year, month);
    if !valid || !(-4713..=294_276).contains(&year) {
        return Err(Error::new(SqlState("22008"), format!("date/time field value out of range: \"{text}\"")));
    }
    Ok(days_from_civil(year, month, day))
}

/// Days since 1970-01-01 of a date as text.
pub(super) fn parse_date(text: &str) -> Result<i32> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" => return Ok(i32::MAX),
        "-infinity" => return Ok(i32::MIN),
        "epoch" => return Ok(0),
        _ => {}
    }
    let (days, _, _) = parse_instant(text, "date")?;
    i32::try_from(days).map_err(|_| invalid_text("date", text))
}

/// Days, microseconds of the day and zone of a timestamp as text.
fn parse_instant(text: &str, what: &str) -> Result<(i64, i64, Option<i64>)> {
    let invalid = || invalid_text(what, text);
    let mut scan = Scan { rest: text.trim() };
    let date = scan_date(&mut scan).ok_or_else(invalid)?;
    let (mut micros, mut zone) = (0, None);
    let spaced = scan.rest.starts_with(' ');
    scan.skip_space();
    if (scan.eat('T') || scan.eat('t') || spaced) && scan.rest.starts_with(|c: char| c.is_ascii_digit()) {
        micros = scan_time(&mut scan).ok_or_else(|| {
            Error::new(SqlState("22008"), format!("date/time field value out of range: \"{text}\""))
        })?;
        scan.skip_space();
    }
    let mut bc = false;
    if !scan.rest.is_empty() && !starts_with_era(scan.rest) {
        let named = scan.rest;
        zone = match scan_zone(&mut scan) {
            Some(zone) => Some(zone),
            // A place, whose offset depends on the moment.
            None => {
                let place = Zone::parse(named).ok_or_else(invalid)?;
                scan.rest = "";
                let local = day_number(text, date, false)?.saturating_mul(DAY_MICROS).saturating_add(micros);
                Some(place.offset_of_local(local).into())
            }
        };
        scan.skip_space();
    }
    if starts_with_era(scan.rest) {
        bc = scan.word().eq_ignore_ascii_case("bc");
    }
    if !scan.rest.is_empty() {
        return Err(invalid());
    }
    Ok((day_number(text, date, bc)?, micros, zone))
}

fn starts_with_era(text: &str) -> bool {
    text.eq_ignore_ascii_case("bc") || text.eq_ignore_ascii_case("ad")
}

/// Microseconds since 1970-01-01 of a timestamp as text; a zone in it is read and ignored, as PostgreSQL does.
pub(super) fn parse_timestamp(text: &str) -> Result<i64> {
    if let Some(special) = special_instant(text) {
        return Ok(special);
    }
    let (days, micros, _) = parse_instant(text, "timestamp")?;
    to_micros(text, days, micros)
}

/// Microseconds since 1970-01-01 UTC of a timestamp with time zone as text; without a zone it is in the zone
/// `offset_seconds` east of UTC.
pub(super) fn parse_timestamptz(text: &str, offset_seconds: i32) -> Result<i64> {
    if let Some(special) = special_instant(text) {
        return Ok(special);
    }
    let (days, micros, zone) = parse_instant(text, "timestamp with time zone")?;
    to_micros(text, days, micros - zone.unwrap_or(i64::from(offset_seconds)) * SECOND_MICROS)
}

fn special_instant(text: &str) -> Option<i64> {
    match text.trim().to_ascii_lowercase().as_str() {
        "infinity" => Some(INFINITY),
        "-infinity" => Some(NEG_INFINITY),
        "epoch" => Some(0),
        _ => None,
    }
}

fn to_micros(text: &str, days: i64, micros: i64) -> Result<i64> {
    days.checked_mul(DAY_MICROS)
        .and_then(|d| d.checked_add(micros))
        .ok_or_else(|| Error::new(SqlState("22008"), format!("timestamp out of range: \"{text}\"")))
}

/// Microseconds of a time of day as text.
pub(super) fn parse_time(text: &str) -> Result<i64> {
    let invalid = || invalid_text("time", text);
    let mut scan = Scan { rest: text.trim() };
    let clock = text.contains(':') && text.trim().bytes().all(|b| b.is_ascii_digit() || b == b':');
    let micros = scan_time(&mut scan).ok_or_else(|| match clock {
        true => Error::new(SqlState("22008"), format!("date/time field value out of range: \"{text}\"")),
        false => invalid(),
    })?;
    scan.skip_space();
    if !scan.rest.is_empty() {
        scan_zone(&mut scan).ok_or_else(invalid)?;
    }
    if scan.rest.is_empty() { Ok(micros) } else { Err(invalid()) }
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
    fn dates_go_both_ways() {
        for date in ["1970-01-01", "2024-02-29", "1600-12-31", "9999-12-31", "0001-01-01", "12024-05-06"] {
            let days = parse_date(date).unwrap();
            assert_eq!(text(|o| format_date(days, o)), date);
        }
        assert_eq!(parse_date("2000-01-01").unwrap(), 10_957);
        assert_eq!(parse_date("20240131").unwrap(), parse_date("Jan 31, 2024").unwrap());
        assert_eq!(parse_date("1/31/2024").unwrap(), parse_date("31 January 2024").unwrap());
        assert_eq!(parse_date("infinity").unwrap(), i32::MAX);
        assert_eq!(text(|o| format_date(parse_date("0044-03-15 BC").unwrap(), o)), "0044-03-15 BC");
        for bad in ["2024-02-30", "2024-13-01", "hello", "", "2024-01"] {
            assert!(parse_date(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn timestamps_go_both_ways() {
        for t in ["2024-05-06 07:08:09.123456", "1969-12-31 23:59:59.5", "2024-05-06 00:00:00"] {
            assert_eq!(text(|o| format_timestamp(parse_timestamp(t).unwrap(), o)), t);
        }
        let t = parse_timestamptz("2024-05-06T07:08:09+02", 0).unwrap();
        assert_eq!(text(|o| format_timestamptz(t, 0, o)), "2024-05-06 05:08:09+00");
        assert_eq!(text(|o| format_timestamptz(t, 19_800, o)), "2024-05-06 10:38:09+05:30");
        assert_eq!(
            parse_timestamptz("2024-05-06 07:08:09Z", 0).unwrap(),
            parse_timestamptz("2024-05-06 07:08:09 UTC", 0).unwrap()
        );
        assert_eq!(
            parse_timestamp("2024-05-06 4:05 PM").unwrap(),
            parse_timestamp("2024-05-06 16:05").unwrap()
        );
        for bad in ["2024-05-06 25:00", "2024-05-06 07:61", "2024-05-06 07:08:09 Nowhere/Land", "x"] {
            assert!(parse_timestamp(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones_of_settings() {
        assert_eq!(parse_zone("UTC"), Some(0));
        assert_eq!(parse_zone("+05:30"), Some(19_800));
        assert_eq!(parse_zone("Mars/Olympus"), None);
    }
}
