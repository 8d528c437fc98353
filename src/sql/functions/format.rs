//! `format`: text by a pattern, with values as they are, as identifiers or as literals.

use std::iter::Peekable;
use std::str::Chars;
use std::sync::Arc;

use arrow::array::Array;
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use super::strings::{literal, text_of};
use crate::error::{Error, Result, SqlState};
use crate::names::quote;

/// The function.
pub(super) fn function() -> Arc<ScalarUDF> {
    Definition {
        name: "format",
        forms: &[&[Arg::Text, Arg::Any]],
        variadic: true,
        gives: Gives::Text,
        evaluate: |call| {
            let patterns = call.text(0)?;
            call.texts_of(|row| {
                if patterns.is_null(row) {
                    return Ok(None);
                }
                Formatter { call, row, next: 1 }.format(patterns.value(row)).map(Some)
            })
        },
    }
    .udf()
}

struct Formatter<'a, 'c> {
    call: &'a Call<'c>,
    row: usize,
    /// The number of the argument that the next specifier takes.
    next: usize,
}

impl Formatter<'_, '_> {
    fn format(&mut self, pattern: &str) -> Result<String> {
        let mut out = String::with_capacity(pattern.len());
        let mut chars = pattern.chars().peekable();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
            } else if chars.next_if_eq(&'%').is_some() {
                out.push('%');
            } else {
                self.specifier(&mut chars, &mut out)?;
            }
        }
        Ok(out)
    }

    /// `%[position$][-][width]type`
    fn specifier(&mut self, chars: &mut Peekable<Chars<'_>>, out: &mut String) -> Result<()> {
        let mut left = false;
        let mut width = None;
        let mut position = None;
        if let Some(number) = number(chars)? {
            if chars.next_if_eq(&'$').is_some() {
                position = Some(number);
            } else {
                width = Some(i64::from(number));
            }
        }
        if width.is_none() {
            while chars.next_if_eq(&'-').is_some() {
                left = true;
            }
            if chars.next_if_eq(&'*').is_some() {
                let place = match number(chars)? {
                    Some(number) if chars.next_if_eq(&'$').is_some() => Some(number),
                    Some(_) => return Err(refused("width argument position must be ended by \"$\"")),
                    None => None,
                };
                let text = self.argument(place)?;
                width = Some(
                    text.map_or(Ok(0), |t| t.parse::<i64>().map_err(|_| refused("width is no number")))?,
                );
            } else if let Some(number) = number(chars)? {
                width = Some(i64::from(number));
            }
        }
        let Some(kind) = chars.next() else {
            return Err(
                refused("unterminated format() type specifier").with_hint("For a single \"%\" use \"%%\".")
            );
        };
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(refused(&format!("unrecognized format() type specifier \"{kind}\""))
                .with_hint("For a single \"%\" use \"%%\"."));
        }
        let value = self.argument(position)?;
        let text = match (kind, value) {
            ('s', value) => value.unwrap_or_default(),
            ('I', Some(name)) => quote(&name),
            ('I', None) => {
                return Err(Error::new(
                    SqlState("22004"),
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            (_, Some(text)) => literal(&text),
            (_, None) => "NULL".to_string(),
        };
        let width = width.unwrap_or(0);
        let fill = usize::try_from(width.unsigned_abs()).unwrap_or(0).saturating_sub(text.chars().count());
        if left || width < 0 {
            out.push_str(&text);
        }
        out.extend(std::iter::repeat_n(' ', fill));
        if !left && width >= 0 {
            out.push_str(&text);
        }
        Ok(())
    }

    /// The text of an argument: that with a number, or the next.
    fn argument(&mut self, position: Option<i32>) -> Result<Option<String>> {
        let place = match position {
            Some(0) => {
                return Err(refused("format specifies argument 0, but arguments are numbered from 1"));
            }
            Some(n) => usize::try_from(n).unwrap_or(usize::MAX),
            None => self.next,
        };
        if place >= self.call.arrays.len() {
            return Err(refused("too few arguments for format()"));
        }
        self.next = place + 1;
        text_of(self.call, place, self.row)
    }
}

/// Digits ahead, as a number.
fn number(chars: &mut Peekable<Chars<'_>>) -> Result<Option<i32>> {
    let mut value: Option<i32> = None;
    while let Some(digit) = chars.next_if(char::is_ascii_digit).and_then(|c| c.to_digit(10)) {
        // A width of many millions would only fill the memory.
        let next = value.unwrap_or(0).checked_mul(10).and_then(|v| v.checked_add(digit as i32));
        value = Some(
            next.filter(|v| *v <= 10_000_000)
                .ok_or_else(|| Error::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "number is out of range"))?,
        );
    }
    Ok(value)
}

fn refused(message: &str) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}
