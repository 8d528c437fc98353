//! JSON as text: finding parts of a document without building it, and jsonb's one form of it.
//!
//! Documents were checked when they came in; on anything malformed the answer is "not there".

use std::collections::BTreeMap;

use crate::error::{Error, Result, SqlState};

/// How deep documents may nest.
const DEPTH_MAX: usize = 128;

fn skip_space(text: &str, mut at: usize) -> usize {
    let bytes = text.as_bytes();
    while bytes.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The end of the string that starts at `at`.
fn string_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut i = at + 1;
    loop {
        match bytes.get(i)? {
            b'"' => return Some(i + 1),
            b'\\' => i += 2,
            _ => i += 1,
        }
    }
}

/// The end of the value that starts at `at`.
fn value_end(text: &str, at: usize) -> Option<usize> {
    let bytes = text.as_bytes();
    match bytes.get(at)? {
        b'"' => string_end(text, at),
        b'{' | b'[' => {
            let (mut i, mut depth) = (at, 0usize);
            loop {
                match bytes.get(i)? {
                    b'"' => {
                        i = string_end(text, i)?;
                        continue;
                    }
                    b'{' | b'[' => depth += 1,
                    b'}' | b']' => {
                        depth -= 1;
                        if depth == 0 {
                            return Some(i + 1);
                        }
                    }
                    _ => {}
                }
                i += 1;
            }
        }
        _ => {
            let rest = &bytes[at..];
            let length = rest.iter().position(|b| matches!(b, b',' | b'}' | b']') || b.is_ascii_whitespace());
            Some(at + length.unwrap_or(rest.len()))
        }
    }
}

/// Calls `f` with each member (key as written, value) until it answers with something.
pub(super) fn each_member<'a, T>(
    text: &'a str,
    mut f: impl FnMut(&'a str, &'a str) -> Option<T>,
) -> Option<T> {
    let mut at = skip_space(text, 0);
    if text.as_bytes().get(at) != Some(&b'{') {
        return None;
    }
    at = skip_space(text, at + 1);
    while text.as_bytes().get(at) == Some(&b'"') {
        let key_end = string_end(text, at)?;
        let key = text.get(at..key_end)?;
        at = skip_space(text, key_end);
        if text.as_bytes().get(at) != Some(&b':') {
            return None;
        }
        let start = skip_space(text, at + 1);
        let end = value_end(text, start)?;
        if let Some(found) = f(key, text.get(start..end)?) {
            return Some(found);
        }
        at = skip_space(text, end);
        match text.as_bytes().get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            _ => return None,
        }
    }
    None
}

/// Calls `f` with each element until it answers with something; `None` also for what is no array.
pub(super) fn each_element<'a, T>(text: &'a str, mut f: impl FnMut(&'a str) -> Option<T>) -> Option<T> {
    let mut at = skip_space(text, 0);
    if text.as_bytes().get(at) != Some(&b'[') {
        return None;
    }
    at = skip_space(text, at + 1);
    while !matches!(text.as_bytes().get(at), None | Some(b']')) {
        let end = value_end(text, at)?;
        if let Some(found) = f(text.get(at..end)?) {
            return Some(found);
        }
        at = skip_space(text, end);
        match text.as_bytes().get(at) {
            Some(b',') => at = skip_space(text, at + 1),
            _ => return None,
        }
    }
    None
}

/// What a key as written says.
pub(super) fn unquoted(quoted: &str) -> Option<String> {
    serde_json::from_str(quoted).ok()
}

fn key_is(quoted: &str, name: &str) -> bool {
    let inner = &quoted[1..quoted.len() - 1];
    inner == name || (inner.contains('\\') && unquoted(quoted).as_deref() == Some(name))
}

/// A member's value; of a key that repeats the last one.
pub fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut last = None;
    each_member(text, |key, value| {
        if key_is(key, name) {
            last = Some(value);
        }
        None::<()>
    });
    last
}

/// An element by its position; negative positions count from the end.
pub fn element(text: &str, index: i64) -> Option<&str> {
    let index = if index >= 0 { index } else { i64::try_from(length(text)?).ok()?.checked_add(index)? };
    let mut left = usize::try_from(index).ok()?;
    each_element(text, |value| {
        let found = (left == 0).then_some(value);
        left = left.saturating_sub(1);
        found
    })
}

/// A member by its name, or an element by its position as text.
pub fn step<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    match text.trim_start().as_bytes().first()? {
        b'{' => member(text, key),
        b'[' => element(text, key.trim().parse().ok()?),
        _ => None,
    }
}

/// How many elements an array has; `None` for what is no array.
pub fn length(text: &str) -> Option<usize> {
    text.trim_start().starts_with('[').then(|| {
        let mut n = 0;
        each_element(text, |_| {
            n += 1;
            None::<()>
        });
        n
    })
}

/// Whether an object has a key, an array a string, or a string is it.
pub fn has_key(text: &str, name: &str) -> bool {
    match text.trim_start().as_bytes().first() {
        Some(b'{') => member(text, name).is_some(),
        Some(b'[') => each_element(text, |v| (v.starts_with('"') && key_is(v, name)).then_some(())).is_some(),
        Some(b'"') => key_is(text.trim(), name),
        _ => false,
    }
}

/// A value as text: strings without quotes, null as NULL.
pub fn as_text(value: &str) -> Option<String> {
    match value.as_bytes().first()? {
        b'"' => unquoted(value),
        b'n' => None,
        _ => Some(value.to_string()),
    }
}

/// `object`, `array`, `string`, `number`, `boolean`, `null`.
pub fn type_name(text: &str) -> Option<&'static str> {
    Some(match text.trim_start().as_bytes().first()? {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "boolean",
        b'n' => "null",
        _ => "number",
    })
}

/// jsonb's one form: keys sorted by length, then bytes, the last of equal ones kept, a space after `:` and `,`.
///
/// # Errors
/// 22P02 when it is no JSON.
pub fn normalize(text: &str) -> Result<String> {
    serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|e| {
        Error::new(SqlState::INVALID_TEXT_REPRESENTATION, "invalid input syntax for type json")
            .with_detail(format!("{e}."))
    })?;
    let mut out = String::with_capacity(text.len());
    write_normal(text.trim(), 0, &mut out).ok_or_else(|| {
        Error::new(SqlState("54001"), format!("a json document nests deeper than {DEPTH_MAX} levels"))
    })?;
    Ok(out)
}

fn write_normal(value: &str, depth: usize, out: &mut String) -> Option<()> {
    if depth > DEPTH_MAX {
        return None;
    }
    match value.as_bytes().first()? {
        b'{' => {
            let mut members = BTreeMap::new();
            each_member(value, |key, value| {
                let name = unquoted(key).unwrap_or_default();
                members.insert((name.len(), name), value);
                None::<()>
            });
            out.push('{');
            for (i, ((_, name), value)) in members.into_iter().enumerate() {
                if i > 0 {
                    out.push_str(", ");
                }
                out.push_str(&serde_json::Value::String(name).to_string());
                out.push_str(": ");
                write_normal(value, depth + 1, out)?;
            }
            out.push('}');
        }
        b'[' => {
            out.push('[');
            let mut first = true;
            let failed = each_element(value, |element| {
                if !std::mem::take(&mut first) {
                    out.push_str(", ");
                }
                match write_normal(element, depth + 1, out) {
                    Some(()) => None,
                    None => Some(()),
                }
            });
            if failed.is_some() {
                return None;
            }
            out.push(']');
        }
        b'"' => out.push_str(&serde_json::Value::String(unquoted(value)?).to_string()),
        // There is no negative zero among numerics.
        _ => match plain_number(value).as_str() {
            "-0" => out.push('0'),
            number => out.push_str(number),
        },
    }
    Some(())
}

/// A number without exponent, as numeric prints it; anything else as it is.
fn plain_number(value: &str) -> String {
    let Some((mantissa, exponent)) = value.split_once(['e', 'E']) else { return value.to_string() };
    let Ok(exponent) = exponent.parse::<i32>() else { return value.to_string() };
    if exponent.abs() > 300 {
        return value.to_string();
    }
    let (sign, mantissa) = match mantissa.strip_prefix('-') {
        Some(m) => ("-", m),
        None => ("", mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let point = whole.len() as i32 + exponent;
    let plain = if point <= 0 {
        format!("0.{}{digits}", "0".repeat(point.unsigned_abs() as usize))
    } else if point as usize >= digits.len() {
        format!("{digits}{}", "0".repeat(point as usize - digits.len()))
    } else {
        format!("{}.{}", &digits[..point as usize], &digits[point as usize..])
    };
    let whole_end = plain.find('.').unwrap_or(plain.len());
    let zeros =
        plain[..whole_end].bytes().take_while(|b| *b == b'0').count().min(whole_end.saturating_sub(1));
    format!("{sign}{}", &plain[zeros..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_with_their_digits() {
        let doc = r#" {"a": {"b": [10, 1.10, "x\"y"]}, "c\u0064": null, "a b": true} "#;
        let inner = member(doc, "a").and_then(|a| member(a, "b")).unwrap();
        assert_eq!(inner, r#"[10, 1.10, "x\"y"]"#);
        assert_eq!(element(inner, 1), Some("1.10"));
        assert_eq!(element(inner, -1).and_then(as_text).as_deref(), Some("x\"y"));
        assert_eq!(element(inner, 3), None);
        assert_eq!(member(doc, "cd"), Some("null"));
        assert_eq!(as_text("null"), None);
        assert_eq!(member(doc, "a b"), Some("true"));
        assert_eq!(length(inner), Some(3));
        assert_eq!(length(doc), None);
        assert!(has_key(doc, "cd") && !has_key(doc, "d"));
        assert!(has_key(r#"["a","b"]"#, "b"));
        for broken in ["", "{", "{\"a\"", "{\"a\":", "[1", "\"", "{\"a\" 1}"] {
            assert_eq!(member(broken, "a"), None, "{broken}");
            assert_eq!(element(broken, 5), None, "{broken}");
        }
    }

    #[test]
    fn jsonb_has_one_form() {
        assert_eq!(
            normalize(r#"{"bb":1.50,"a":[1,2 ,{}], "a":[], "c":1e3, "d":-1.5e-2}"#).unwrap(),
            r#"{"a": [], "c": 1000, "d": -0.015, "bb": 1.50}"#
        );
        assert_eq!(normalize(" \"\\u0041\" ").unwrap(), "\"A\"");
        assert!(normalize("{'a':1}").is_err());
    }
}
