//! Regular expressions: the operators `~` and its kin, `regexp_*`, `substring` by a pattern.
//!
//! PostgreSQL's patterns are translated to those of the engine beneath; back references and looking around are refused.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, ListBuilder, StringViewBuilder};
use arrow::datatypes::{DataType, Int32Type};
use datafusion::functions::regex::compile_regex;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{Expr, ScalarUDF, lit};

use super::define::{Arg, Call, Definition, Gives};
use crate::error::{Error, Result, SqlState};

use Arg::{Int8, Text};

const PATTERN: &[&[Arg]] = &[&[Text, Text], &[Text, Text, Text]];

const DEFINITIONS: [Definition; 9] = [
    Definition { name: "regexp_like", forms: PATTERN, variadic: false, gives: Gives::Bool, evaluate: like },
    Definition {
        name: "regexp_match",
        forms: PATTERN,
        variadic: false,
        gives: Gives::TextArray,
        evaluate: first_match,
    },
    Definition {
        name: "regexp_all_matches",
        forms: PATTERN,
        variadic: false,
        gives: Gives::TextArrays,
        evaluate: all_matches,
    },
    Definition {
        name: "regexp_split_to_array",
        forms: PATTERN,
        variadic: false,
        gives: Gives::TextArray,
        evaluate: split,
    },
    Definition {
        name: "regexp_replace",
        forms: &[
            &[Text, Text, Text],
            &[Text, Text, Text, Text],
            &[Text, Text, Text, Int8],
            &[Text, Text, Text, Int8, Int8],
            &[Text, Text, Text, Int8, Int8, Text],
        ],
        variadic: false,
        gives: Gives::Text,
        evaluate: replace,
    },
    Definition {
        name: "regexp_count",
        forms: &[&[Text, Text], &[Text, Text, Int8], &[Text, Text, Int8, Text]],
        variadic: false,
        gives: Gives::Int4,
        evaluate: count,
    },
    Definition {
        name: "regexp_instr",
        forms: &[
            &[Text, Text],
            &[Text, Text, Int8],
            &[Text, Text, Int8, Int8],
            &[Text, Text, Int8, Int8, Int8],
            &[Text, Text, Int8, Int8, Int8, Text],
            &[Text, Text, Int8, Int8, Int8, Text, Int8],
        ],
        variadic: false,
        gives: Gives::Int4,
        evaluate: position,
    },
    Definition {
        name: "regexp_substr",
        forms: &[
            &[Text, Text],
            &[Text, Text, Int8],
            &[Text, Text, Int8, Int8],
            &[Text, Text, Int8, Int8, Text],
            &[Text, Text, Int8, Int8, Text, Int8],
        ],
        variadic: false,
        gives: Gives::Text,
        evaluate: part,
    },
    Definition {
        name: "regexp_substring",
        forms: &[&[Text, Text]],
        variadic: false,
        gives: Gives::Text,
        evaluate: substring,
    },
];

/// The functions of this file.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    DEFINITIONS.into_iter().map(Definition::udf).collect()
}

/// `text ~ pattern`, or `~*` without regard to case.
pub(super) fn matches(text: Expr, pattern: Expr, case_insensitive: bool) -> Expr {
    let [like, ..] = DEFINITIONS;
    let mut args = vec![text, pattern];
    if case_insensitive {
        args.push(lit("i"));
    }
    Expr::ScalarFunction(ScalarFunction::new_udf(like.udf(), args))
}

/// `substring(text from pattern)`.
pub fn substring_of(text: Expr, pattern: Expr) -> Expr {
    let [.., substring] = DEFINITIONS;
    Expr::ScalarFunction(ScalarFunction::new_udf(substring.udf(), vec![text, pattern]))
}

/// A pattern and its flags in the words of the engine beneath; whether `g` was among the flags.
///
/// # Errors
/// 22023 for a flag that is none, 0A000 for what the engine cannot do.
fn translate(pattern: &str, flags: &str) -> Result<(String, bool)> {
    let (mut insensitive, mut lines, mut spaced, mut global, mut literal) =
        (false, false, false, false, false);
    for flag in flags.chars() {
        match flag {
            'i' => insensitive = true,
            'c' => insensitive = false,
            'n' | 'm' => lines = true,
            's' => lines = false,
            'x' => spaced = true,
            't' => spaced = false,
            'g' => global = true,
            'q' => literal = true,
            other => {
                return Err(Error::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    out.push_str(if lines { "(?m" } else { "(?s" });
    if insensitive {
        out.push('i');
    }
    if spaced {
        out.push('x');
    }
    out.push(')');
    let pattern = match pattern.strip_prefix("***=") {
        Some(text) => {
            literal = true;
            text
        }
        None => pattern.strip_prefix("***:").unwrap_or(pattern),
    };
    if literal {
        for c in pattern.chars() {
            if !c.is_alphanumeric() && c.is_ascii() && !c.is_ascii_whitespace() {
                out.push('\\');
            }
            out.push(c);
        }
        return Ok((out, global));
    }
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('y') => out.push_str("\\b"),
                Some('Y') => out.push_str("\\B"),
                Some('m') => out.push_str("\\b{start}"),
                Some('M') => out.push_str("\\b{end}"),
                Some('Z') => out.push_str("\\z"),
                Some('1'..='9') => {
                    return Err(Error::unsupported("a regular expression with back references"));
                }
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                // A lone backslash at the end is the engine's to refuse.
                None => out.push('\\'),
            },
            '(' if chars.peek() == Some(&'?') => {
                out.push('(');
                let rest: String = chars.clone().take(3).collect();
                if ["?=", "?!", "?<=", "?<!"].iter().any(|look| rest.starts_with(look)) {
                    return Err(Error::unsupported("a regular expression that looks around"));
                }
            }
            '{' if !chars.peek().is_some_and(char::is_ascii_digit) => out.push_str("\\{"),
            '[' => bracket(&mut chars, &mut out),
            other => out.push(other),
        }
    }
    Ok((out, global))
}

/// The rest of a bracket expression: what is special in it only to the engine beneath is escaped.
fn bracket(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    out.push('[');
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    if chars.next_if_eq(&']').is_some() {
        out.push_str("\\]");
    }
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                out.push(']');
                return;
            }
            '[' if matches!(chars.peek(), Some(':')) => {
                out.push('[');
                // The name of a class goes up to its own bracket.
                for c in chars.by_ref() {
                    out.push(c);
                    if c == ']' {
                        break;
                    }
                }
            }
            '[' | '&' | '~' => {
                out.push('\\');
                out.push(c);
            }
            '\\' => {
                out.push('\\');
                out.extend(chars.next());
            }
            other => out.push(other),
        }
    }
}

fn invalid(pattern: &str) -> Error {
    Error::new(SqlState("2201B"), format!("invalid regular expression: \"{pattern}\""))
}

/// The compiled pattern with these flags out of a batch's cache, and whether it is `g`lobal.
macro_rules! compiled {
    ($cache:ident, $pattern:expr, $flags:expr) => {{
        let key: (&str, &str) = ($pattern, $flags);
        if !$cache.contains_key(&key) {
            let (text, global) = translate(key.0, key.1)?;
            let regex = compile_regex(&text, None).map_err(|_| invalid(key.0))?;
            $cache.insert(key, (regex, global));
        }
        &$cache[&key]
    }};
}

/// The flags of a row: none where the function takes none.
fn flags<'c>(call: &'c Call<'_>, argument: usize, row: usize) -> Result<&'c str> {
    Ok(if argument < call.arrays.len() { call.text(argument)?.value(row) } else { "" })
}

/// A number of a row that counts from 1.
fn ordinal(call: &Call<'_>, argument: usize, row: usize, name: &str) -> Result<usize> {
    if argument >= call.arrays.len() {
        return Ok(1);
    }
    let value = call.int8(argument)?.value(row);
    usize::try_from(value).ok().filter(|v| *v > 0).ok_or_else(|| {
        Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"{name}\": {value}"),
        )
    })
}

/// The byte where the character with a number (from 1) starts; the end if there are fewer.
fn offset(text: &str, character: usize) -> usize {
    text.char_indices().nth(character - 1).map_or(text.len(), |(at, _)| at)
}

fn like(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.bools(|row| {
        let mut cache = cache.borrow_mut();
        let (regex, _) = compiled!(cache, patterns.value(row), flags(call, 2, row)?);
        Ok(Some(regex.is_match(texts.value(row))))
    })
}

fn first_match(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let DataType::List(item) = call.gives.data_type() else {
        return Err(Error::internal("regexp_match gives no list"));
    };
    let mut out = ListBuilder::new(StringViewBuilder::new()).with_field(Arc::clone(item));
    let mut cache = HashMap::new();
    // Reused while the pattern is the same, as it nearly always is.
    let mut last = None;
    for row in 0..call.rows {
        if !call.complete(row) {
            out.append(false);
            continue;
        }
        let (text, pattern) = (texts.value(row), patterns.value(row));
        let flags = flags(call, 2, row)?;
        let (regex, global) = compiled!(cache, pattern, flags);
        if *global {
            return Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "regexp_match() does not support the \"global\" option",
            )
            .with_hint("Use the regexp_matches function instead."));
        }
        let places = match &mut last {
            Some((known, places)) if *known == (pattern, flags) => places,
            last => &mut last.insert(((pattern, flags), regex.capture_locations())).1,
        };
        let found = regex.captures_read(places, text).is_some();
        if found {
            // Without groups it is the whole match.
            for group in usize::from(places.len() > 1)..places.len() {
                out.values().append_option(places.get(group).map(|(start, end)| &text[start..end]));
            }
        }
        out.append(found);
    }
    Ok(Arc::new(out.finish()))
}

fn all_matches(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let DataType::List(outer) = call.gives.data_type() else {
        return Err(Error::internal("regexp_matches gives no list"));
    };
    let DataType::List(inner) = outer.data_type() else {
        return Err(Error::internal("regexp_matches gives no list of lists"));
    };
    let values = ListBuilder::new(StringViewBuilder::new()).with_field(Arc::clone(inner));
    let mut out = ListBuilder::new(values).with_field(Arc::clone(outer));
    let mut cache = HashMap::new();
    for row in 0..call.rows {
        if !call.complete(row) {
            out.append(false);
            continue;
        }
        let (regex, global) = compiled!(cache, patterns.value(row), flags(call, 2, row)?);
        for found in regex.captures_iter(texts.value(row)).take(if *global { usize::MAX } else { 1 }) {
            let from = usize::from(found.len() > 1);
            for m in found.iter().skip(from) {
                out.values().values().append_option(m.map(|m| m.as_str()));
            }
            out.values().append(true);
        }
        out.append(true);
    }
    Ok(Arc::new(out.finish()))
}

fn split(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.text_lists(|row| {
        let mut cache = cache.borrow_mut();
        let text = texts.value(row);
        let (regex, _) = compiled!(cache, patterns.value(row), flags(call, 2, row)?);
        let mut parts = Vec::new();
        let mut from = 0;
        for found in regex.find_iter(text) {
            // An empty match parts two characters, and nothing at the ends.
            if found.is_empty() && (found.start() == 0 || found.start() >= text.len()) {
                continue;
            }
            parts.push(Some(text[from..found.start()].to_string()));
            from = found.end();
        }
        parts.push(Some(text[from..].to_string()));
        Ok(Some(parts))
    })
}

fn replace(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns, replacements) = (call.text(0)?, call.text(1)?, call.text(2)?);
    let by_flags = call.arrays.get(3).is_some_and(|a| a.data_type() == &DataType::Utf8View);
    let cache = RefCell::new(HashMap::new());
    call.texts(|row| {
        let mut cache = cache.borrow_mut();
        let (text, replacement) = (texts.value(row), replacements.value(row));
        let (regex, global) =
            compiled!(cache, patterns.value(row), flags(call, if by_flags { 3 } else { 5 }, row)?);
        let start = if by_flags { 1 } else { ordinal(call, 3, row, "start")? };
        let every = if by_flags || call.arrays.len() < 5 { *global } else { call.int8(4)?.value(row) == 0 };
        let nth = if call.arrays.len() >= 5 && !every { ordinal(call, 4, row, "n")? } else { 1 };
        let begin = offset(text, start);
        let mut out = String::with_capacity(text.len());
        let mut from = 0;
        for (n, found) in regex.captures_iter(&text[begin..]).enumerate() {
            if !every && n + 1 < nth {
                continue;
            }
            let Some(whole) = found.get(0) else { break };
            out.push_str(&text[from..begin + whole.start()]);
            let mut rest = replacement.chars();
            while let Some(c) = rest.next() {
                match (c, rest.clone().next()) {
                    ('\\', Some(digit @ '1'..='9')) => {
                        rest.next();
                        let group = digit as usize - '0' as usize;
                        out.push_str(found.get(group).map_or("", |m| m.as_str()));
                    }
                    ('\\', Some('&')) => {
                        rest.next();
                        out.push_str(whole.as_str());
                    }
                    ('\\', Some('\\')) => {
                        rest.next();
                        out.push('\\');
                    }
                    (other, _) => out.push(other),
                }
            }
            from = begin + whole.end();
            if !every {
                break;
            }
        }
        out.push_str(&text[from..]);
        Ok(Some(out))
    })
}

fn count(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.values::<Int32Type>(|row| {
        let mut cache = cache.borrow_mut();
        let text = texts.value(row);
        let (regex, _) = compiled!(cache, patterns.value(row), flags(call, 3, row)?);
        let begin = offset(text, ordinal(call, 2, row, "start")?);
        // A text has less than 2³¹ characters.
        Ok(Some(regex.find_iter(&text[begin..]).count() as i32))
    })
}

fn position(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.values::<Int32Type>(|row| {
        let mut cache = cache.borrow_mut();
        let text = texts.value(row);
        let (regex, _) = compiled!(cache, patterns.value(row), flags(call, 5, row)?);
        let begin = offset(text, ordinal(call, 2, row, "start")?);
        let nth = ordinal(call, 3, row, "n")?;
        let at_end = call.arrays.len() > 4 && call.int8(4)?.value(row) == 1;
        let group = group_of(call, 6, row)?;
        let found = regex.captures_iter(&text[begin..]).nth(nth - 1).and_then(|found| {
            let found = found.get(group)?;
            Some(begin + if at_end { found.end() } else { found.start() })
        });
        Ok(Some(found.map_or(0, |at| text[..at].chars().count() as i32 + 1)))
    })
}

fn part(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.texts(|row| {
        let mut cache = cache.borrow_mut();
        let text = texts.value(row);
        let (regex, _) = compiled!(cache, patterns.value(row), flags(call, 4, row)?);
        let begin = offset(text, ordinal(call, 2, row, "start")?);
        let nth = ordinal(call, 3, row, "n")?;
        let group = group_of(call, 5, row)?;
        let found = regex.captures_iter(&text[begin..]).nth(nth - 1);
        Ok(found.and_then(|found| found.get(group).map(|m| m.as_str().to_string())))
    })
}

/// The number of a group; 0 is the whole.
fn group_of(call: &Call<'_>, argument: usize, row: usize) -> Result<usize> {
    if argument >= call.arrays.len() {
        return Ok(0);
    }
    let value = call.int8(argument)?.value(row);
    usize::try_from(value).map_err(|_| {
        Error::new(
            SqlState::INVALID_PARAMETER_VALUE,
            format!("invalid value for parameter \"subexpr\": {value}"),
        )
    })
}

fn substring(call: &Call<'_>) -> Result<ArrayRef> {
    let (texts, patterns) = (call.text(0)?, call.text(1)?);
    let cache = RefCell::new(HashMap::new());
    call.texts(|row| {
        let mut cache = cache.borrow_mut();
        let (regex, _) = compiled!(cache, patterns.value(row), "");
        Ok(regex.captures(texts.value(row)).and_then(|found| {
            let group = usize::from(found.len() > 1);
            found.get(group).map(|m| m.as_str().to_string())
        }))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_translated() {
        for (pattern, flags, expected) in [
            ("a.c", "", "(?s)a.c"),
            (r"\mfoo\M\y", "i", r"(?si)\b{start}foo\b{end}\b"),
            ("[]a[:digit:]&]", "", r"(?s)[\]a[:digit:]\&]"),
            ("[^[x]{", "n", r"(?m)[^\[x]\{"),
            ("a{2,3}", "x", "(?sx)a{2,3}"),
            ("a.b", "q", r"(?s)a\.b"),
            ("***=a+", "", r"(?s)a\+"),
        ] {
            assert_eq!(translate(pattern, flags).unwrap().0, expected, "{pattern}");
        }
        for (pattern, state) in [(r"(a)\1", "0A000"), ("a(?=b)", "0A000")] {
            assert_eq!(translate(pattern, "").unwrap_err().sqlstate.0, state);
        }
        assert_eq!(translate("a", "z").unwrap_err().sqlstate.0, "22023");
    }
}
