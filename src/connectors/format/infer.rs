//! What types the columns of text seem to have, from a sample of records: the narrowest that takes all that was seen.

use std::collections::HashMap;

use arrow::datatypes::{Field, Schema};

use super::column::ColumnBuilder;
use super::csv::fields_of;
use super::scan::{Malformed, Scanner, Token};
use super::values::Encoding;
use super::{BadFormat, CsvOptions};
use crate::connectors::format::cell::Cell;
use crate::types::SqlType;

/// Types of text, the narrowest first; what none of them takes is text.
static OF_TEXT: [SqlType; 7] = [
    SqlType::Bool,
    SqlType::Int8,
    SqlType::Numeric(Some((38, 0))),
    SqlType::Float8,
    SqlType::Date,
    SqlType::Timestamp,
    SqlType::Timestamptz,
];

/// What is known of one column so far.
#[derive(Debug)]
struct Guess {
    /// Positions in [`OF_TEXT`] of the types that have taken every value.
    fits: Vec<usize>,
    seen: bool,
    checks: Vec<ColumnBuilder>,
}

impl Guess {
    fn new() -> crate::Result<Guess> {
        let checks = OF_TEXT.iter().map(|t| ColumnBuilder::new(&t.field_ref("", true)));
        Ok(Guess {
            fits: (0..OF_TEXT.len()).collect(),
            seen: false,
            checks: checks.collect::<crate::Result<_>>()?,
        })
    }

    /// A value's text.
    fn see(&mut self, text: &str) {
        self.seen = true;
        let Guess { fits, checks, .. } = self;
        fits.retain(|i| {
            let shape = match OF_TEXT.get(*i) {
                Some(SqlType::Bool) => is_bool(text),
                Some(SqlType::Float8) => is_number(text),
                Some(SqlType::Int8 | SqlType::Numeric(_)) => {
                    is_number(text) && !text.contains(['.', 'e', 'E'])
                }
                Some(SqlType::Date) => text.len() == 10 && text.starts_with(|c: char| c.is_ascii_digit()),
                // A time in a zone says which.
                Some(SqlType::Timestamp) => !has_zone(text),
                Some(SqlType::Timestamptz) => has_zone(text),
                _ => text.starts_with(|c: char| c.is_ascii_digit()),
            };
            let Some(check) = checks.get_mut(*i).filter(|_| shape) else { return false };
            check.append(Cell::Text(text), Encoding::Plain).is_ok()
        });
    }

    fn sql_type(&self) -> SqlType {
        let narrowest = self.fits.first().filter(|_| self.seen).and_then(|i| OF_TEXT.get(*i));
        narrowest.cloned().unwrap_or(SqlType::Text)
    }
}

fn is_bool(text: &str) -> bool {
    text.eq_ignore_ascii_case("true") || text.eq_ignore_ascii_case("false")
}

/// Digits that mean a number: not those of a code that begins with a zero.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.len() > 1 && digits.starts_with('0') && !digits.starts_with("0.");
    !leading_zero && digits.starts_with(|c: char| c.is_ascii_digit())
}

/// A date and a time of day, with where the sun stood: `2024-05-01T10:00:00Z`, `… +02`.
fn has_zone(text: &str) -> bool {
    let Some((_, time)) = text.split_once(['T', ' ']).filter(|(date, _)| date.len() == 10) else {
        return false;
    };
    time.ends_with(['Z', 'z']) || time.contains(['+', '-'])
}

/// The columns of CSV records: those that a header names, or `column1`, `column2`, …
///
/// # Errors
/// Why the header is none.
pub fn csv(
    header: Option<&str>,
    records: &[&str],
    options: &CsvOptions,
) -> std::result::Result<Schema, BadFormat> {
    let mut names = match header {
        None => Vec::new(),
        Some(header) => {
            let named = fields_of(header, options)?;
            named.into_iter().map(|name| name.unwrap_or_default().trim().to_string()).collect()
        }
    };
    let mut guesses: Vec<Guess> = Vec::new();
    for record in records {
        // What is no record tells nothing; reading it says what is wrong.
        let Ok(fields) = fields_of(record, options) else { continue };
        if header.is_some() && fields.len() != names.len() {
            continue;
        }
        for (i, field) in fields.into_iter().enumerate() {
            while guesses.len() <= i {
                guesses
                    .push(Guess::new().map_err(|e| BadFormat { sqlstate: e.sqlstate, reason: e.message })?);
            }
            if let (Some(guess), Some(text)) = (guesses.get_mut(i), field) {
                guess.see(&text);
            }
        }
    }
    if header.is_none() {
        names = (1..=guesses.len()).map(|n| format!("column{n}")).collect();
    }
    let mut used: HashMap<String, usize> = HashMap::new();
    let fields = names.into_iter().enumerate().map(|(i, name)| {
        let name = if name.is_empty() { format!("column{}", i + 1) } else { name };
        let count = used.entry(name.clone()).or_default();
        *count += 1;
        let name = if *count > 1 { format!("{name}_{count}") } else { name };
        guesses.get(i).map_or(SqlType::Text, Guess::sql_type).field_ref(name, true)
    });
    Ok(Schema::new(fields.collect::<Vec<_>>()))
}

/// What a JSON member has been.
#[derive(Debug)]
struct Member {
    text: Guess,
    bool: bool,
    integer: bool,
    number: bool,
    string: bool,
    nested: bool,
}

impl Member {
    fn sql_type(&self) -> SqlType {
        match (self.bool, self.number || self.integer, self.string, self.nested) {
            (true, false, false, false) => SqlType::Bool,
            (false, true, false, false) if !self.number => SqlType::Int8,
            (false, true, false, false) => SqlType::Float8,
            // Text that looks like a number was meant as text.
            (false, false, true, false) => match self.text.sql_type() {
                time @ (SqlType::Date | SqlType::Timestamp | SqlType::Timestamptz) => time,
                _ => SqlType::Text,
            },
            (false, false, false, false) => SqlType::Text,
            _ => SqlType::Jsonb,
        }
    }
}

/// The columns of JSON objects: their members, in the order in which they were seen first. Objects and arrays are
/// `jsonb`, and so are members of several types.
pub fn json(records: &[&str]) -> crate::Result<Schema> {
    let mut names: Vec<String> = Vec::new();
    let mut members: HashMap<String, Member> = HashMap::new();
    for record in records {
        // What is no object tells nothing; reading it says what is wrong.
        let mut found = Vec::new();
        let scanned = Scanner::new(record).object(|s, name, escaped| {
            let value = s.value()?;
            found.push((unescaped(name, escaped)?, value));
            Ok(())
        });
        if scanned.is_err() {
            continue;
        }
        for (name, value) in found {
            if !members.contains_key(&name) {
                names.push(name.clone());
                let (bool, integer, number, string, nested) = (false, false, false, false, false);
                let text = Guess::new()?;
                members.insert(name.clone(), Member { text, bool, integer, number, string, nested });
            }
            let Some(member) = members.get_mut(&name) else { continue };
            match value {
                Token::Null => {}
                Token::Bool(_) => member.bool = true,
                Token::Number(n) if n.parse::<i64>().is_ok() => member.integer = true,
                Token::Number(_) => member.number = true,
                Token::String(text, _) => {
                    member.string = true;
                    member.text.see(text);
                }
                Token::Nested(_) => member.nested = true,
            }
        }
    }
    let field = |name: &String| {
        members.get(name).map_or(SqlType::Text, Member::sql_type).field_ref(name.as_str(), true)
    };
    let fields: Vec<std::sync::Arc<Field>> = names.iter().map(field).collect();
    Ok(Schema::new(fields))
}

fn unescaped(name: &str, escaped: bool) -> std::result::Result<String, Malformed> {
    let mut text = String::new();
    match escaped {
        true => super::scan::unescape(name, 0, &mut text)?,
        false => text.push_str(name),
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(schema: &Schema) -> String {
        let field = |f: &std::sync::Arc<Field>| format!("{} {}", f.name(), SqlType::of(f));
        schema.fields().iter().map(field).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn csv_has_the_narrowest_types() {
        let check = |header: Option<&str>, records: &[&str], expected: &str| {
            assert_eq!(shown(&csv(header, records, &CsvOptions::default()).unwrap()), expected);
        };
        check(
            Some("id,zip,price, ok ,day,at,tz,note,empty\n"),
            &[
                "1,01234,2.5,true,2024-05-01,2024-05-01 10:00:00,2024-05-01T10:00:00Z,x,",
                "-7,99999,3,FALSE,2024-12-31,2024-05-01T10:00:00.5,2024-05-01 10:00:00+02,\"1\",",
                "too,few",
                "8,,,,,,,,",
            ],
            "id bigint, zip text, price double precision, ok boolean, day date, at timestamp without time zone, \
             tz timestamp with time zone, note text, empty text",
        );
        check(None, &["1,a", "9223372036854775808,b"], "column1 numeric(38,0), column2 text");
        check(Some("a,a,"), &["2024-05-01,yes,1e5"], "a date, a_2 text, column3 double precision");
        check(Some("a"), &["2024-02-31"], "a text");
    }

    #[test]
    fn json_has_its_own_types() {
        let schema = json(&[
            r#"{"id": 1, "x": 1, "t": "2024-05-01T10:00:00Z", "n": "12", "o": {"a": 1}, "b": null}"#,
            "broken",
            r#"{"id": 2, "x": 2.5, "\u0069d2": true, "o": [1], "m": 1}"#,
            r#"{"m": "a", "b": false}"#,
        ])
        .unwrap();
        assert_eq!(
            shown(&schema),
            "id bigint, x double precision, t timestamp with time zone, n text, o jsonb, b boolean, id2 boolean, m jsonb"
        );
    }
}
