//! `to_char` of numbers: digits by a pattern.

use arrow::array::ArrayRef;

use super::define::Call;
use super::strings::text_of;
use super::to_char::ordinal;
use crate::error::{Error, Result, SqlState};

/// `to_char(number, pattern)`
pub(super) fn to_char(call: &Call<'_>) -> Result<ArrayRef> {
    let patterns = call.text(1)?;
    call.texts(|row| {
        let Some(number) = text_of(call, 0, row)? else { return Ok(None) };
        Pattern::parse(patterns.value(row))?.format(&plain(&number)).map(Some)
    })
}

/// A number's text without an exponent.
fn plain(number: &str) -> String {
    match number.contains(['e', 'E']) {
        true => number.parse::<f64>().map_or_else(|_| number.to_string(), |v| format!("{v}")),
        false => number.to_string(),
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    /// `9` or `0`.
    Digit {
        zero: bool,
    },
    Point,
    Group,
    /// `S`: the sign, at the number.
    Sign,
    /// `MI`, `PL` and `SG`: a sign where they stand.
    Minus,
    Plus,
    PlusMinus,
    Text(String),
    Ordinal {
        upper: bool,
    },
}

/// A pattern taken apart.
#[derive(Debug, Default)]
struct Pattern {
    parts: Vec<Part>,
    /// Without blanks that only fill.
    tight: bool,
    /// Negative numbers in angle brackets.
    brackets: bool,
    roman: Option<bool>,
    /// Digits before and behind the point.
    whole: usize,
    decimals: usize,
}

impl Pattern {
    fn parse(pattern: &str) -> Result<Pattern> {
        let mut out = Pattern::default();
        let mut rest = pattern;
        let mut behind = false;
        while let Some(c) = rest.chars().next() {
            let start = |n: usize| rest.get(..n).map(str::to_ascii_uppercase).unwrap_or_default();
            let (two, one) = (start(2), start(1));
            let length = match (two.as_str(), one.as_str()) {
                ("FM", _) => {
                    out.tight = true;
                    2
                }
                ("MI", _) => out.push(Part::Minus, 2),
                ("PL", _) => out.push(Part::Plus, 2),
                ("SG", _) => out.push(Part::PlusMinus, 2),
                ("PR", _) => {
                    out.brackets = true;
                    2
                }
                ("TH", _) => out.push(Part::Ordinal { upper: rest.starts_with('T') }, 2),
                ("RN", _) => {
                    out.roman = Some(rest.starts_with('R'));
                    2
                }
                (_, "9" | "0") => {
                    if behind {
                        out.decimals += 1;
                    } else {
                        out.whole += 1;
                    }
                    out.push(Part::Digit { zero: one == "0" }, 1)
                }
                (_, "." | "D") => {
                    if std::mem::replace(&mut behind, true) {
                        return Err(Error::new(SqlState::SYNTAX_ERROR, "multiple decimal points"));
                    }
                    out.push(Part::Point, 1)
                }
                (_, "," | "G") => out.push(Part::Group, 1),
                (_, "S") => out.push(Part::Sign, 1),
                ("EE", _) | (_, "V") => {
                    return Err(Error::unsupported("V or EEEE in a pattern for numbers"));
                }
                (_, "\"") => {
                    let quoted = &rest[1..];
                    let end = quoted.find('"').unwrap_or(quoted.len());
                    out.parts.push(Part::Text(quoted[..end].to_string()));
                    (end + 2).min(rest.len())
                }
                _ => out.push(Part::Text(c.to_string()), c.len_utf8()),
            };
            rest = &rest[length..];
        }
        Ok(out)
    }

    fn push(&mut self, part: Part, length: usize) -> usize {
        self.parts.push(part);
        length
    }

    fn format(&self, number: &str) -> Result<String> {
        let (negative, digits) = match number.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, number),
        };
        if let Some(upper) = self.roman {
            return Ok(self.roman_number(negative, digits, upper));
        }
        let (whole, decimals) = match digits.starts_with(|c: char| c.is_ascii_digit()) {
            true => rounded(digits, self.decimals),
            // Not a number, or not a finite one: nothing fits.
            false => ("#".repeat(self.whole + 1), "#".repeat(self.decimals)),
        };
        let negative = negative && format!("{whole}{decimals}").bytes().any(|b| b != b'0');
        let overflow = whole.len() > self.whole;
        let decimals = if overflow { "#".repeat(self.decimals) } else { decimals };
        // The first place before the point that shows a digit.
        let zero_at = self.parts.iter().filter(|p| matches!(p, Part::Digit { .. } | Part::Point));
        let zero_at =
            zero_at.take_while(|p| **p != Part::Point).position(|p| *p == Part::Digit { zero: true });
        let mut first = if overflow { 0 } else { self.whole - whole.len() };
        if let Some(zero_at) = zero_at {
            first = first.min(zero_at);
        }
        // A whole number shows at least one digit, and so does a tight one that has nothing behind the point.
        let nothing = whole.is_empty() && zero_at.is_none() && self.whole > 0;
        if nothing && (self.decimals == 0 || self.tight && decimals.bytes().all(|b| b == b'0')) {
            first = self.whole - 1;
        }
        // Of a tight number the zeros at the end go, but for those that are asked for.
        let mut shown = self.decimals;
        if self.tight && !overflow {
            let behind = self.parts.iter().skip_while(|p| **p != Part::Point);
            let asked = behind
                .filter(|p| matches!(p, Part::Digit { .. }))
                .enumerate()
                .filter(|(_, p)| **p == Part::Digit { zero: true })
                .map(|(i, _)| i + 1)
                .last()
                .unwrap_or(0);
            shown = decimals.trim_end_matches('0').len().max(asked);
        }
        let anchored =
            !self.parts.iter().any(|p| matches!(p, Part::Minus | Part::PlusMinus)) && !self.brackets;
        let sign_behind = self.sign_is_behind();
        let explicit = self.parts.contains(&Part::Sign);
        let lead = match (self.brackets, negative) {
            (true, true) => "<",
            (true, false) => " ",
            _ if !anchored || explicit && sign_behind => "",
            (_, true) => "-",
            (_, false) if explicit => "+",
            _ => " ",
        };
        let lead = if self.tight { lead.trim() } else { lead };
        Ok(self.laid_out(&whole, &decimals, first, shown, negative, overflow, lead))
    }

    /// Whether `S` comes after the digits.
    fn sign_is_behind(&self) -> bool {
        let sign = self.parts.iter().position(|p| *p == Part::Sign);
        let digit = self.parts.iter().position(|p| matches!(p, Part::Digit { .. }));
        matches!((sign, digit), (Some(sign), Some(digit)) if sign > digit)
    }

    #[allow(clippy::too_many_arguments)] // what was found out about one number
    fn laid_out(
        &self,
        whole: &str,
        decimals: &str,
        first: usize,
        shown: usize,
        negative: bool,
        overflow: bool,
        lead: &str,
    ) -> String {
        let mut out = String::new();
        let (mut place, mut behind, mut led) = (0, None::<usize>, false);
        let lead_now = |out: &mut String, led: &mut bool| {
            if !std::mem::replace(led, true) {
                out.push_str(lead);
            }
        };
        let fill = |out: &mut String| {
            if !self.tight {
                out.push(' ');
            }
        };
        for part in &self.parts {
            match part {
                Part::Digit { .. } => match &mut behind {
                    Some(n) => {
                        if *n < shown {
                            out.push(decimals.as_bytes().get(*n).map_or('0', |b| char::from(*b)));
                        }
                        *n += 1;
                    }
                    None => {
                        if place >= first {
                            lead_now(&mut out, &mut led);
                            let from_end = self.whole - place;
                            out.push(match whole.len().checked_sub(from_end) {
                                _ if overflow => '#',
                                Some(i) => char::from(whole.as_bytes()[i]),
                                None => '0',
                            });
                        } else {
                            fill(&mut out);
                        }
                        place += 1;
                    }
                },
                Part::Point => {
                    lead_now(&mut out, &mut led);
                    out.push('.');
                    behind = Some(0);
                }
                Part::Group => {
                    if led {
                        out.push(',');
                    } else {
                        fill(&mut out);
                    }
                }
                Part::Sign if self.sign_is_behind() => out.push(if negative { '-' } else { '+' }),
                Part::Sign => {}
                Part::Minus if negative => out.push('-'),
                Part::Plus if !negative => out.push('+'),
                Part::Minus | Part::Plus => fill(&mut out),
                Part::PlusMinus => out.push(if negative { '-' } else { '+' }),
                Part::Text(text) => out.push_str(text),
                Part::Ordinal { upper } => {
                    if !negative && !overflow && self.decimals == 0 {
                        let suffix = ordinal(whole.parse().unwrap_or(0));
                        out.push_str(&if *upper { suffix.to_uppercase() } else { suffix.to_string() });
                    }
                }
            }
        }
        lead_now(&mut out, &mut led);
        if self.brackets {
            match negative {
                true => out.push('>'),
                false => fill(&mut out),
            }
        }
        out
    }

    fn roman_number(&self, negative: bool, digits: &str, upper: bool) -> String {
        const UNITS: [(u32, &str); 13] = [
            (1000, "M"),
            (900, "CM"),
            (500, "D"),
            (400, "CD"),
            (100, "C"),
            (90, "XC"),
            (50, "L"),
            (40, "XL"),
            (10, "X"),
            (9, "IX"),
            (5, "V"),
            (4, "IV"),
            (1, "I"),
        ];
        let mut left: u32 = rounded(digits, 0).0.parse().unwrap_or(0);
        if negative || !(1..4000).contains(&left) {
            return "#".repeat(15);
        }
        let mut out = String::new();
        for (value, letters) in UNITS {
            while left >= value {
                left -= value;
                out.push_str(letters);
            }
        }
        let out = if upper { out } else { out.to_lowercase() };
        if self.tight { out } else { format!("{out:>15}") }
    }
}

/// The digits before the point, without zeros that lead, and so many behind it, half rounded away from zero.
fn rounded(digits: &str, places: usize) -> (String, String) {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut all: Vec<u8> =
        whole.bytes().chain(fraction.bytes().chain(std::iter::repeat(b'0')).take(places)).collect();
    let up = fraction.as_bytes().get(places).is_some_and(|b| *b >= b'5');
    if up {
        let mut i = all.len();
        loop {
            if i == 0 {
                all.insert(0, b'1');
                break;
            }
            i -= 1;
            if all[i] == b'9' {
                all[i] = b'0';
            } else {
                all[i] += 1;
                break;
            }
        }
    }
    let text = String::from_utf8_lossy(&all).into_owned();
    let (whole, decimals) = text.split_at(text.len() - places);
    (whole.trim_start_matches('0').to_string(), decimals.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_laid_out_as_in_postgresql() {
        for (number, pattern, expected) in [
            ("1234.567", "9,999,999.99", "     1,234.57"),
            ("-12.5", "S9999.9", "  -12.5"),
            ("0.1", "9.9", "  .1"),
            ("-0.1", "FM9.99", "-.1"),
            ("0", "FM9.9", "0."),
            ("42", "9", " #"),
            ("-7", "999PR", "  <7>"),
            ("7", "FM000", "007"),
            ("485", "FMRN", "CDLXXXV"),
            ("99.995", "99.99", " ##.##"),
        ] {
            assert_eq!(
                Pattern::parse(pattern).unwrap().format(number).unwrap(),
                expected,
                "{number} {pattern}"
            );
        }
    }
}
