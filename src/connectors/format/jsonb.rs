//! jsonb's one form of a document: members sorted (by the names' length, then bytes) and unique, the last one of
//! a name kept, numbers exact, one space after each colon and comma. Equal documents are then equal text.

use super::scan::{self, Malformed, Scanner, Token};

/// The one form of a JSON text.
///
/// # Errors
/// Where and why the text is not JSON.
pub fn normalise(text: &str) -> Result<String, Malformed> {
    let mut out = String::with_capacity(text.len() + text.len() / 8);
    let mut scanner = Scanner::new(text);
    value(&mut scanner, 0, &mut out)?;
    scanner.end()?;
    Ok(out)
}

/// Appends the one form of the scanner's next value; `depth` brackets are open around it.
fn value(s: &mut Scanner<'_>, depth: usize, out: &mut String) -> Result<(), Malformed> {
    s.skip_space();
    match s.peek() {
        Some(b'{' | b'[') if depth == scan::DEPTH_MAX => {
            return Err(Malformed { what: "JSON is nested too deeply", at: s.position() });
        }
        Some(b'{') => return object(s, depth + 1, out),
        Some(b'[') => return array(s, depth + 1, out),
        _ => (),
    }
    match s.value()? {
        Token::Null => out.push_str("null"),
        Token::Bool(true) => out.push_str("true"),
        Token::Bool(false) => out.push_str("false"),
        Token::Number(n) => number(n, out),
        Token::String(text, escaped) => string(text, escaped, s.position(), out)?,
        // Brackets were taken above.
        Token::Nested(text) => out.push_str(text),
    }
    Ok(())
}

fn string(text: &str, escaped: bool, end: usize, out: &mut String) -> Result<(), Malformed> {
    if !escaped {
        write_string(text, out);
        return Ok(());
    }
    let mut plain = String::with_capacity(text.len());
    scan::unescape(text, end - 1 - text.len(), &mut plain)?;
    write_string(&plain, out);
    Ok(())
}

fn array(s: &mut Scanner<'_>, depth: usize, out: &mut String) -> Result<(), Malformed> {
    out.push('[');
    let mut first = true;
    s.array(|s| {
        if !std::mem::take(&mut first) {
            out.push_str(", ");
        }
        value(s, depth, out)
    })?;
    out.push(']');
    Ok(())
}

fn object(s: &mut Scanner<'_>, depth: usize, out: &mut String) -> Result<(), Malformed> {
    let mut members: Vec<(String, String)> = Vec::new();
    s.object(|s, name, escaped| {
        let mut plain = String::with_capacity(name.len());
        if escaped {
            scan::unescape(name, s.position(), &mut plain)?;
        } else {
            plain.push_str(name);
        }
        let mut text = String::new();
        value(s, depth, &mut text)?;
        members.push((plain, text));
        Ok(())
    })?;
    // The sort keeps equal names in their order; of those the last one stays.
    members.sort_by(|(a, _), (b, _)| a.len().cmp(&b.len()).then_with(|| a.cmp(b)));
    out.push('{');
    let mut first = true;
    for (i, (name, text)) in members.iter().enumerate() {
        if members.get(i + 1).is_some_and(|(next, _)| next == name) {
            continue;
        }
        if !std::mem::take(&mut first) {
            out.push_str(", ");
        }
        write_string(name, out);
        out.push_str(": ");
        out.push_str(text);
    }
    out.push('}');
    Ok(())
}

/// A number as PostgreSQL's `numeric` prints it: no exponent, no sign on zero, digits after the point kept.
fn number(text: &str, out: &mut String) {
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (negative, digits) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    // Beyond what `numeric` holds, the number stays as it is written.
    const EXPONENT_MAX: i32 = 10_000;
    let Some(exponent) = exponent.parse::<i32>().ok().filter(|e| e.abs() <= EXPONENT_MAX) else {
        out.push_str(text);
        return;
    };
    let zero = digits.bytes().all(|b| b == b'0' || b == b'.');
    if negative && !zero {
        out.push('-');
    }
    if exponent == 0 {
        out.push_str(digits);
        return;
    }
    let (integer, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all: String = [integer, fraction].concat();
    let point = integer.len() as i32 + exponent;
    let (before, after) = if point <= 0 {
        ("0".to_string(), "0".repeat(point.unsigned_abs() as usize) + &all)
    } else if point as usize >= all.len() {
        (all.clone() + &"0".repeat(point as usize - all.len()), String::new())
    } else {
        let (before, after) = all.split_at(point as usize);
        (before.to_string(), after.to_string())
    };
    let before = before.trim_start_matches('0');
    out.push_str(if before.is_empty() { "0" } else { before });
    if !after.is_empty() {
        out.push('.');
        out.push_str(&after);
    }
}

/// Appends a JSON string: quoted, and only that escaped which must be.
pub fn write_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain_from = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0x08 => "\\b",
            0x0c => "\\f",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(text.get(plain_from..i).unwrap_or_default());
        plain_from = i + 1;
        if escape.is_empty() {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            out.push_str("\\u00");
            out.push(DIGITS[(byte >> 4) as usize] as char);
            out.push(DIGITS[(byte & 15) as usize] as char);
        } else {
            out.push_str(escape);
        }
    }
    out.push_str(text.get(plain_from..).unwrap_or_default());
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_take_jsonb_s_form() {
        for (text, expected) in [
            (" null ", "null"),
            (r#"{"bb":1,"a":[1,2,{}],"c":"x","a":[]}"#, r#"{"a": [], "c": "x", "bb": 1}"#),
            ("[1.10,-0,-0.0,1e3,12.5e-1,1E-3,0.0e2,-1.5e0]", "[1.10, 0, 0.0, 1000, 1.25, 0.001, 0, -1.5]"),
            (r#""a\u00e9\/\u0007\n\"""#, "\"aé/\\u0007\\n\\\"\""),
            (r#"{"\u0061":1}"#, r#"{"a": 1}"#),
            ("123456789012345678901234567890.5", "123456789012345678901234567890.5"),
            ("1e99999999999", "1e99999999999"),
        ] {
            assert_eq!(normalise(text).as_deref(), Ok(expected), "{text}");
        }
        assert!(normalise("{\"a\":\"\\u0000\"}").is_err());
        assert!(normalise("{} {}").is_err());
        assert!(normalise(&"[".repeat(100_000)).is_err());
        let deep = "[".repeat(scan::DEPTH_MAX) + &"]".repeat(scan::DEPTH_MAX);
        assert_eq!(normalise(&deep).as_deref(), Ok(deep.as_str()));
    }

    #[test]
    fn the_form_is_its_own_form() {
        let text = r#"{"z": [1.0, {"a": null, "bc": "\\"}], "yy": -12}"#;
        assert_eq!(normalise(text).as_deref(), Ok(text));
    }
}
