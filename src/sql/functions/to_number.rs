//! `to_number(text, template)`: digits where the template has `9` or `0`, the rest of it stepped over.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::Decimal128Type;
use datafusion::logical_expr::ScalarUDF;

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};
use crate::types::parse_decimal;

const DEFINITION: Definition = Definition {
    name: "to_number",
    forms: &[&[Arg::Text, Arg::Text]],
    variadic: false,
    gives: Gives::Numeric,
    evaluate: to_number,
};

/// The function of this file.
pub(super) fn function() -> Arc<ScalarUDF> {
    DEFINITION.udf()
}

fn to_number(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, templates) = (call.text(0)?, call.text(1)?);
    let arrow::datatypes::DataType::Decimal128(precision, scale) = call.gives.data_type() else {
        return Err(Error::internal("to_number gives a numeric"));
    };
    call.values::<Decimal128Type>(|row| {
        let number = read(texts.value(row), templates.value(row))?;
        parse_decimal(&number, *precision, *scale).map(Some)
    })
}

/// The number that a text holds by a template, as a plain literal.
fn read(text: &str, template: &str) -> Result<String> {
    let mut text = text.chars().peekable();
    let mut template = template.chars().peekable();
    let (mut negative, mut digits) = (false, String::new());
    let mut sign = |c: Option<&char>| match c {
        Some('-' | '<') => {
            negative = true;
            true
        }
        Some('+' | '>') => true,
        _ => false,
    };
    while let Some(pattern) = template.next() {
        match pattern.to_ascii_uppercase() {
            '9' | '0' => {
                while text.next_if(|c| *c == ' ').is_some() {}
                if digits.is_empty() && sign(text.peek()) {
                    text.next();
                }
                digits.extend(text.next_if(char::is_ascii_digit));
            }
            'D' | '.' => {
                if text.next_if_eq(&'.').is_some() && !digits.contains('.') {
                    digits.push('.');
                }
            }
            'G' | ',' => {
                text.next_if_eq(&',');
            }
            'S' => {
                if sign(text.peek()) {
                    text.next();
                }
            }
            // MI and PL; PR is an angle around what is negative.
            first @ ('M' | 'P') => {
                let second = template.next().map(|c| c.to_ascii_uppercase());
                if !matches!((first, second), ('M', Some('I')) | ('P', Some('L' | 'R'))) {
                    return Err(Error::new(
                        SqlState::SYNTAX_ERROR,
                        format!("pattern \"{first}\" of a number is not known"),
                    ));
                }
                if sign(text.peek()) {
                    text.next();
                }
            }
            'F' if template.next_if(|c| c.eq_ignore_ascii_case(&'m')).is_some() => {}
            'L' | '$' => {
                text.next_if(|c| !c.is_ascii_digit() && !matches!(c, '-' | '+' | '.' | ' '));
            }
            '"' => {
                while template.next().is_some_and(|c| c != '"') {
                    text.next();
                }
            }
            'E' | 'R' | 'V' => {
                return Err(Error::unsupported(format!("{pattern} in a pattern to read a number by")));
            }
            // What is written in the template stands in the text.
            _ => {
                text.next();
            }
        }
    }
    if sign(text.peek()) {
        text.next();
    }
    if !digits.bytes().any(|b| b.is_ascii_digit()) {
        return Err(Error::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            "invalid input syntax for type numeric: \" \"",
        ));
    }
    Ok(format!("{}{digits}", if negative { "-" } else { "" }))
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn numbers_are_read_by_their_templates() {
        for (text, template, number) in [
            ("12,454.8-", "99G999D9S", "-12454.8"),
            ("-34,338,492", "99G999G999", "-34338492"),
            ("$1,234.50", "L9,999.99", "1234.50"),
            ("<564646.654564>", "999999.999999PR", "-564646.654564"),
            ("0.00001-", "9.999999S", "-0.00001"),
            (" 5 ", "999", "5"),
            ("42nd", "99th", "42"),
        ] {
            assert_eq!(read(text, template).unwrap(), number, "{text} by {template}");
        }
        assert!(read("", "9").is_err());
        assert!(read("1e5", "9.9EEEE").is_err());
    }
}
