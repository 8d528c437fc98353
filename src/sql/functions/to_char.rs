//! `to_char` of points in time and of spans, `to_date`, and `to_timestamp` of text: values by a pattern.

use std::cell::RefCell;
use std::fmt::Write;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringViewArray};
use arrow::datatypes::{
    Date32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimestampMicrosecondType,
};
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use super::temporal::iso_week;
use super::to_char_number;
use crate::error::{Error, Result, SqlState};
use crate::types::Moment;

use Arg::{Float8, Interval, Numeric, Text, Timestamp, Timestamptz};

const DAY_MICROS: i64 = 86_400_000_000;

const DEFINITIONS: [Definition; 2] = [
    Definition {
        name: "to_char",
        forms: &[
            &[Timestamptz, Text],
            &[Timestamp, Text],
            &[Interval, Text],
            &[Numeric, Text],
            &[Float8, Text],
        ],
        variadic: false,
        gives: Gives::Text,
        evaluate: to_char,
    },
    Definition {
        name: "to_date",
        forms: &[&[Text, Text]],
        variadic: false,
        gives: Gives::Date,
        evaluate: |call| {
            let (texts, patterns) = (call.text(0)?, call.text(1)?);
            call.values::<Date32Type>(|row| {
                let micros = parse(texts.value(row), patterns.value(row))?;
                // A date of a timestamp is one of a date.
                Ok(i32::try_from(micros.div_euclid(DAY_MICROS)).ok())
            })
        },
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// `to_timestamp(text, pattern)`, in microseconds since 1970.
pub(super) fn to_timestamp(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    call.values::<TimestampMicrosecondType>(|row| parse(texts.value(row), patterns.value(row)).map(Some))
}

fn to_char(call: &Call<'_>) -> Result<ArrayRef> {
    let (values, patterns) = (call.array(0)?, call.text(1)?);
    if let Some(moments) = values.as_primitive_opt::<TimestampMicrosecondType>() {
        return formatted(call, patterns, |row| (Moment::of(moments.value(row)), None));
    }
    if let Some(spans) = values.as_primitive_opt::<IntervalMonthDayNanoType>() {
        return formatted(call, patterns, |row| {
            let span = spans.value(row);
            (moment_of(span), Some(span))
        });
    }
    to_char_number::to_char(call)
}

/// Each row's moment by its pattern, which is read once where rows have the same.
fn formatted(
    call: &Call<'_>,
    patterns: &StringViewArray,
    moment: impl Fn(usize) -> (Moment, Option<IntervalMonthDayNano>),
) -> Result<ArrayRef> {
    let known = RefCell::new((String::new(), Vec::new()));
    call.texts(|row| {
        let (pattern, known) = (patterns.value(row), &mut *known.borrow_mut());
        if known.0 != pattern {
            *known = (pattern.to_string(), items(pattern));
        }
        let (at, span) = moment(row);
        Ok(Some(format(&at, span, &known.1)))
    })
}

/// A span's parts, as a moment would have them.
fn moment_of(span: IntervalMonthDayNano) -> Moment {
    let micros = span.nanoseconds / 1000;
    let part = |n: i64| u32::try_from(n.unsigned_abs()).unwrap_or(u32::MAX);
    Moment {
        year: i64::from(span.months / 12),
        month: part(i64::from(span.months % 12)),
        day: part(span.days.into()),
        hour: part(micros / 3_600_000_000),
        minute: part(micros / 60_000_000 % 60),
        second: part(micros / 1_000_000 % 60),
        micros: part(micros % 1_000_000),
        weekday: 0,
        day_of_year: part(span.days.into()),
    }
}

/// What a token says of a span, if it says a number with a sign.
fn of_span(token: &str, span: IntervalMonthDayNano) -> Option<Piece> {
    let (years, months, days) =
        (i64::from(span.months / 12), i64::from(span.months % 12), i64::from(span.days));
    let micros = span.nanoseconds / 1000;
    let (hours, minutes, seconds) =
        (micros / 3_600_000_000, micros / 60_000_000 % 60, micros / 1_000_000 % 60);
    let fraction = micros % 1_000_000;
    let (number, width) = match token {
        "YYYY" => (years, 4),
        "YYY" => (years % 1000, 3),
        "YY" => (years % 100, 2),
        "Y" => (years % 10, 1),
        "MM" => (months, 2),
        "DDD" => (i64::from(span.months) * 30 + days, 3),
        "DD" => (days, 2),
        "HH24" => (hours, 2),
        "HH12" | "HH" => (if hours % 12 == 0 { 12 } else { hours % 12 }, 2),
        "MI" => (minutes, 2),
        "SS" => (seconds, 2),
        "MS" => (fraction / 1000, 3),
        "US" => (fraction, 6),
        "SSSSS" | "SSSS" => (hours * 3600 + minutes * 60 + seconds, 1),
        _ => return None,
    };
    // The sign has a place of its own, but for days and parts of a second.
    let signed = number < 0 && !matches!(token, "DD" | "DDD" | "MS" | "US");
    Some(Piece::Number(number, width + usize::from(signed)))
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// What a pattern can hold: longer ones come before those that they start with.
const TOKENS: [&str; 50] = [
    "SSSSS", "Y,YYY", "MONTH", "SSSS", "YYYY", "IYYY", "IDDD", "HH24", "HH12", "A.M.", "P.M.", "B.C.",
    "A.D.", "MON", "DAY", "DDD", "YYY", "IYY", "HH", "MI", "MM", "MS", "US", "SS", "DD", "DY", "YY", "IY",
    "AM", "PM", "AD", "BC", "TZ", "OF", "ID", "IW", "WW", "CC", "RM", "FF1", "FF2", "FF3", "FF4", "FF5",
    "FF6", "D", "Q", "Y", "W", "J",
];

/// The token that a pattern goes on with.
fn token(rest: &str) -> Option<&'static str> {
    TOKENS.into_iter().find(|t| rest.get(..t.len()).is_some_and(|start| start.eq_ignore_ascii_case(t)))
}

/// A number with leading zeros, or a word.
enum Piece {
    Number(i64, usize),
    Word(String),
}

fn piece(token: &str, given: &str, at: &Moment) -> Piece {
    use Piece::{Number, Word};
    let month = MONTHS[(at.month as usize + 11) % 12];
    let day = DAYS[at.weekday as usize % 7];
    let hour12 = i64::from((at.hour + 11) % 12 + 1);
    let iso = || iso_week(at);
    let iso_day = i64::from((at.weekday + 6) % 7 + 1);
    let bc = at.year <= 0;
    let year = if bc { 1 - at.year } else { at.year };
    let cased = |word: &str| {
        Word(if given.chars().all(|c| !c.is_lowercase()) {
            word.to_uppercase()
        } else if given.starts_with(char::is_uppercase) {
            word.to_string()
        } else {
            word.to_lowercase()
        })
    };
    match token {
        "YYYY" => Number(year, 4),
        "YYY" => Number(year % 1000, 3),
        "YY" => Number(year % 100, 2),
        "Y" => Number(year % 10, 1),
        "Y,YYY" => Word(format!("{},{:03}", year / 1000, year % 1000)),
        "IYYY" => Number(iso().0, 4),
        "IYY" => Number(iso().0 % 1000, 3),
        "IY" => Number(iso().0 % 100, 2),
        "IDDD" => Number((iso().1 - 1) * 7 + iso_day, 3),
        "MONTH" => cased(&format!("{month:<9}")),
        "MON" => cased(&month[..3]),
        "DAY" => cased(&format!("{day:<9}")),
        "DY" => cased(&day[..3]),
        "RM" => cased(&format!("{:<4}", ROMAN[(at.month as usize + 11) % 12])),
        "DDD" => Number(at.day_of_year.into(), 3),
        "DD" => Number(at.day.into(), 2),
        "D" => Number(i64::from(at.weekday) + 1, 1),
        "ID" => Number(iso_day, 1),
        "MM" => Number(at.month.into(), 2),
        "HH24" => Number(at.hour.into(), 2),
        "HH12" | "HH" => Number(hour12, 2),
        "MI" => Number(at.minute.into(), 2),
        "SS" => Number(at.second.into(), 2),
        "MS" => Number((at.micros / 1000).into(), 3),
        "US" => Number(at.micros.into(), 6),
        "SSSSS" | "SSSS" => Number(i64::from(at.hour * 3600 + at.minute * 60 + at.second), 1),
        "IW" => Number(iso().1, 2),
        "WW" => Number(i64::from(at.day_of_year.div_ceil(7)), 2),
        "W" => Number(i64::from(at.day.div_ceil(7)), 1),
        "CC" => Number((year + 99) / 100, 2),
        "Q" => Number(i64::from(at.month.saturating_sub(1) / 3 + 1), 1),
        // Days since 4714-11-24 BC.
        "J" => Number(Moment::days_of(at.year, at.month.into(), at.day.into()) + 2_440_588, 1),
        "AM" | "PM" => cased(if at.hour % 24 < 12 { "AM" } else { "PM" }),
        "A.M." | "P.M." => cased(if at.hour % 24 < 12 { "A.M." } else { "P.M." }),
        "AD" | "BC" => cased(if bc { "BC" } else { "AD" }),
        "A.D." | "B.C." => cased(if bc { "B.C." } else { "A.D." }),
        "TZ" => cased("UTC"),
        "OF" => Word("+00".to_string()),
        // FF1 to FF6
        fraction => {
            let places = usize::from(fraction.as_bytes()[2] - b'0');
            let unit = 10i64.pow(6 - places as u32);
            Number(i64::from(at.micros) / unit, places)
        }
    }
}

/// `st`, `nd`, `rd` or `th`.
pub(super) fn ordinal(number: i64) -> &'static str {
    let last = number.unsigned_abs() % 100;
    match (last / 10, last % 10) {
        (1, _) => "th",
        (_, 1) => "st",
        (_, 2) => "nd",
        (_, 3) => "rd",
        _ => "th",
    }
}

/// What a pattern consists of.
enum Item {
    /// Text that stands for itself.
    Plain(String),
    /// A token, as it was given; whether it is filled up; whether an ordinal's ending follows, and whether in capitals.
    Token { token: &'static str, given: String, fill: bool, ordinal: Option<bool> },
}

/// The items of a pattern, in order.
fn items(pattern: &str) -> Vec<Item> {
    let (mut items, mut plain) = (Vec::new(), String::new());
    let mut rest = pattern;
    let mut fill = true;
    while let Some(c) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            plain.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(after) = rest.strip_prefix("FM").or_else(|| rest.strip_prefix("fm")) {
            fill = false;
            rest = after;
            continue;
        }
        let Some(token) = token(rest) else {
            plain.push(c);
            rest = &rest[c.len_utf8()..];
            continue;
        };
        if !plain.is_empty() {
            items.push(Item::Plain(std::mem::take(&mut plain)));
        }
        let given = rest[..token.len()].to_string();
        rest = &rest[token.len()..];
        let mut ordinal = None;
        if is_number(token) {
            let endings = [("TH", true), ("th", false)];
            if let Some((after, capitals)) =
                endings.iter().find_map(|(e, c)| Some((rest.strip_prefix(e)?, *c)))
            {
                ordinal = Some(capitals);
                rest = after;
            }
        }
        items.push(Item::Token { token, given, fill, ordinal });
        fill = true;
    }
    if !plain.is_empty() {
        items.push(Item::Plain(plain));
    }
    items
}

/// A moment by a pattern, or a span whose parts it has.
fn format(at: &Moment, span: Option<IntervalMonthDayNano>, items: &[Item]) -> String {
    let mut out = String::with_capacity(16);
    for item in items {
        let (token, given, fill, ending) = match item {
            Item::Plain(text) => {
                out.push_str(text);
                continue;
            }
            Item::Token { token, given, fill, ordinal } => (token, given, *fill, *ordinal),
        };
        match span.and_then(|span| of_span(token, span)).unwrap_or_else(|| piece(token, given, at)) {
            Piece::Number(number, width) => {
                let width = if fill { width } else { 0 };
                // Writing to a String cannot fail.
                let _ = write!(out, "{number:0width$}");
                match ending {
                    Some(true) => out.push_str(&ordinal(number).to_uppercase()),
                    Some(false) => out.push_str(ordinal(number)),
                    None => {}
                }
            }
            Piece::Word(word) => out.push_str(if fill { &word } else { word.trim_end() }),
        }
    }
    out
}

/// The moment that a text tells by a pattern, in microseconds since 1970.
fn parse(text: &str, pattern: &str) -> Result<i64> {
    let mut reader = Reader { rest: text };
    let (mut year, mut month, mut day, mut day_of_year) = (None, 1, 1, None);
    let (mut hour, mut minute, mut second, mut micros, mut afternoon) = (0, 0, 0, 0, None);
    let mut pattern = pattern;
    while let Some(c) = pattern.chars().next() {
        if let Some(after) = pattern.strip_prefix("FM").or_else(|| pattern.strip_prefix("fm")) {
            pattern = after;
            continue;
        }
        let Some(token) = token(pattern) else {
            pattern = &pattern[c.len_utf8()..];
            // Blanks and punctuation stand for each other.
            reader.skip_separator();
            continue;
        };
        pattern = &pattern[token.len()..];
        // Digits follow at once: as many as the pattern has belong here.
        let followed = token_starts_with_digits(pattern);
        match token {
            "YYYY" => year = Some(reader.number(token, if followed { 4 } else { 9 })?),
            "YYY" | "YY" | "Y" => {
                let digits = reader.number(token, token.len())?;
                // The nearest year to 2020.
                year = Some(if digits < 70 {
                    digits + 2000
                } else if digits < 100 {
                    digits + 1900
                } else {
                    digits
                });
            }
            "MM" => month = reader.number(token, 2)?,
            "MON" | "MONTH" => month = reader.word(&MONTHS, token)?,
            "DAY" | "DY" => {
                reader.word(&DAYS, token)?;
            }
            "DD" => day = reader.number(token, 2)?,
            "DDD" => day_of_year = Some(reader.number(token, 3)?),
            "HH24" | "HH12" | "HH" => hour = reader.number(token, 2)?,
            "MI" => minute = reader.number(token, 2)?,
            "SS" => second = reader.number(token, 2)?,
            "MS" => micros = reader.fraction(token, 3)?,
            "US" => micros = reader.fraction(token, 6)?,
            "AM" | "PM" | "A.M." | "P.M." => afternoon = Some(reader.half_day(token)?),
            other => return Err(Error::unsupported(format!("{other} in a pattern to read by"))),
        }
    }
    let out_of_range =
        || Error::new(SqlState("22008"), format!("date/time field value out of range: \"{text}\""));
    // Without a year it is the first one before Christ's.
    let year = year.unwrap_or(0);
    if let Some(afternoon) = afternoon {
        if !(1..=12).contains(&hour) {
            let message = format!("hour \"{hour}\" is invalid for the 12-hour clock");
            return Err(Error::new(SqlState::INVALID_DATETIME_FORMAT, message));
        }
        hour = hour % 12 + if afternoon { 12 } else { 0 };
    }
    let known_month = u32::try_from(month).ok().filter(|m| (1..=12).contains(m)).ok_or_else(out_of_range)?;
    if !(1..=Moment::days_in_month(year, known_month)).contains(&day)
        || !(0..24).contains(&hour)
        || minute > 59
        || second > 59
        || year > 294_276
    {
        return Err(out_of_range());
    }
    let days = match day_of_year {
        Some(n) => Moment::days_of(year, 1, 1) + n - 1,
        None => Moment::days_of(year, month, day),
    };
    Ok(days * DAY_MICROS + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Whether a token of a pattern to write by stands for a number.
fn is_number(token: &str) -> bool {
    let word = ["Y,YYY", "MONTH", "MON", "DAY", "DY", "RM", "AM", "PM", "A.M.", "P.M.", "AD", "BC"];
    !word.contains(&token) && !["A.D.", "B.C.", "TZ", "OF"].contains(&token)
}

fn token_starts_with_digits(pattern: &str) -> bool {
    token(pattern).is_some_and(|t| {
        !matches!(t, "MON" | "MONTH" | "DAY" | "DY" | "AM" | "PM" | "A.M." | "P.M." | "TZ" | "OF" | "RM")
    })
}

struct Reader<'a> {
    rest: &'a str,
}

impl Reader<'_> {
    fn invalid(&self, token: &str) -> Error {
        let given: String = self.rest.chars().take(token.len()).collect();
        let message = format!("invalid value \"{given}\" for \"{token}\"");
        Error::new(SqlState::INVALID_DATETIME_FORMAT, message)
    }

    fn skip_separator(&mut self) {
        let mut chars = self.rest.chars();
        if chars.next().is_some_and(|c| !c.is_alphanumeric()) {
            self.rest = chars.as_str();
        }
    }

    /// Digits, at most so many, behind blanks.
    fn digits(&mut self, token: &str, most: usize) -> Result<&str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
        if end == 0 {
            return Err(self.invalid(token));
        }
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(digits)
    }

    fn number(&mut self, token: &str, most: usize) -> Result<i64> {
        // At most nine digits fit.
        Ok(self.digits(token, most)?.parse().unwrap_or(0))
    }

    /// Digits behind the point, in microseconds.
    fn fraction(&mut self, token: &str, most: usize) -> Result<i64> {
        let digits = self.digits(token, most)?;
        Ok(format!("{digits:0<6}").parse().unwrap_or(0))
    }

    /// The number of the word that comes next, from 1: whole, or its first three letters.
    fn word(&mut self, words: &[&str], token: &str) -> Result<i64> {
        self.rest = self.rest.trim_start();
        let starts = |n: usize, word: &str| {
            self.rest.get(..n).is_some_and(|s| word.get(..n).is_some_and(|w| s.eq_ignore_ascii_case(w)))
        };
        let whole = matches!(token, "MONTH" | "DAY");
        let found = words.iter().position(|w| starts(if whole { w.len() } else { 3 }, w));
        let Some(found) = found else { return Err(self.invalid(token)) };
        self.rest = &self.rest[if whole { words[found].len() } else { 3 }..];
        Ok(found as i64 + 1)
    }

    fn half_day(&mut self, token: &str) -> Result<bool> {
        self.rest = self.rest.trim_start();
        let half = self.rest.get(..token.len()).map(|t| t.replace('.', "").to_ascii_lowercase());
        let afternoon = match half.as_deref() {
            Some("am") => false,
            Some("pm") => true,
            _ => return Err(self.invalid(token)),
        };
        self.rest = &self.rest[token.len()..];
        Ok(afternoon)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_postgresqls() {
        // 2024-02-09 17:05:03.045678, a Friday.
        let at = Moment::of(1_707_498_303_045_678);
        for (pattern, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", "2024-02-09 17:05:03"),
            ("HH12:MI AM", "05:05 PM"),
            ("MS US", "045 045678"),
            ("Mon DD, YYYY", "Feb 09, 2024"),
            ("FMMonth FMDDth", "February 9th"),
            ("MON mon", "FEB feb"),
            ("Dy D DDD Q", "Fri 6 040 1"),
            ("\"YYYY\" YY Y,YYY", "YYYY 24 2,024"),
            ("IYYY-IW-ID J", "2024-06-5 2460350"),
        ] {
            assert_eq!(format(&at, None, &items(pattern)), expected, "{pattern}");
        }
    }

    #[test]
    fn texts_are_read_by_patterns() {
        let day = |text, pattern| parse(text, pattern).map(Moment::of).map(|m| (m.year, m.month, m.day));
        assert_eq!(day("20240131", "YYYYMMDD").unwrap(), (2024, 1, 31));
        assert_eq!(day("31 Jan 2024", "DD Mon YYYY").unwrap(), (2024, 1, 31));
        assert_eq!(day("05/12/99", "DD/MM/YY").unwrap(), (1999, 12, 5));
        assert_eq!(day("x", "YYYY").unwrap_err().sqlstate.0, "22007");
        assert_eq!(day("2024-02-30", "YYYY-MM-DD").unwrap_err().sqlstate.0, "22008");
        let at = Moment::of(parse("1:02 pm", "HH:MI AM").unwrap());
        assert_eq!((at.hour, at.minute), (13, 2));
    }
}
