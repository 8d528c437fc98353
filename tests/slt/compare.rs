//! How answers are compared with what another system printed, and how failures are told apart by cause.

use sqllogictest::{DefaultColumnType, Normalizer};

/// A validator for foreign suites: rows by line or value by value, and each value as any system may print it.
pub fn foreign_validator(_: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let expected: Vec<String> = expected.iter().map(|l| words(l)).collect();
    let by_row = actual.iter().map(|row| words(&row.join(" ")));
    let by_value = actual.iter().flatten().map(|value| words(value));
    by_row.eq(expected.iter().cloned()) || by_value.eq(expected.iter().cloned())
}

/// As [`foreign_validator`], for what has no order.
pub fn foreign_unordered_validator(_: Normalizer, actual: &[Vec<String>], expected: &[String]) -> bool {
    let sorted = |lines: &mut dyn Iterator<Item = String>| {
        let mut lines: Vec<String> = lines.collect();
        lines.sort_unstable();
        lines
    };
    let expected = sorted(&mut expected.iter().map(|l| words(l)));
    sorted(&mut actual.iter().map(|row| words(&row.join(" ")))) == expected
        || sorted(&mut actual.iter().flatten().map(|value| words(value))) == expected
}

fn words(line: &str) -> String {
    line.split_whitespace().map(plain).collect::<Vec<_>>().join(" ")
}

/// A word in one of its spellings: `t` is `true`, `1.0` is `1`, `2020-01-01T00:00:00` has a blank inside.
fn plain(word: &str) -> String {
    match word {
        "t" | "true" => return "1".into(),
        "f" | "false" => return "0".into(),
        _ => {}
    }
    let number = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    if let (true, Ok(value)) = (number, word.parse::<f64>()) {
        return format!("{value:.9e}");
    }
    match word.split_once('T') {
        Some((date, time)) if date.len() == 10 && time.contains(':') => format!("{date} {time}"),
        _ => word.to_string(),
    }
}

/// A value as SQLite's suite shows one of the declared type.
pub fn as_sqlite(value: &str, declared: Option<&DefaultColumnType>) -> String {
    let number = match value {
        "t" => Some(1.0),
        "f" => Some(0.0),
        _ => value.parse::<f64>().ok(),
    };
    match (declared, number) {
        (Some(DefaultColumnType::Integer), Some(number)) => format!("{}", number.trunc() as i64),
        (Some(DefaultColumnType::FloatingPoint), Some(number)) => format!("{number:.3}"),
        _ => value.to_string(),
    }
}

/// The class of a failure: its SQLSTATE and message without names and numbers, or that the answer was another.
pub fn cause(failure: &str) -> String {
    let line = |wanted: &str| failure.lines().find_map(|l| Some(l[l.find(wanted)?..].to_string()));
    if failure.contains("query result mismatch") {
        return "a wrong result".into();
    }
    if failure.contains("is expected to fail") {
        return "it should have failed".into();
    }
    let message = line("[SQLSTATE").or_else(|| line("panicked")).unwrap_or_else(|| {
        let sqlstate = failure.lines().find(|l| {
            l.split(": ").any(|part| part.len() == 5 && part.bytes().all(|b| b.is_ascii_alphanumeric()))
        });
        sqlstate.or(failure.lines().next()).unwrap_or_default().to_string()
    });
    let mut class = String::new();
    let (mut quoted, mut digits) = (false, false);
    for c in message.chars().take(220) {
        if c == '"' {
            quoted = !quoted;
        }
        let digit = c.is_ascii_digit();
        if (quoted && c != '"') || (digit && digits && class.len() > 12) {
            continue;
        }
        class.push(if digit && class.len() > 12 { 'N' } else { c });
        digits = digit;
    }
    class.chars().take(140).collect()
}
