//! Text as a JSON string.

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
    fn only_what_must_be_is_escaped() {
        let mut out = String::new();
        write_string("aé/\u{7}\n\t\u{8}\u{c}\r\"\\😀", &mut out);
        assert_eq!(out, "\"aé/\\u0007\\n\\t\\b\\f\\r\\\"\\\\😀\"");
        assert_eq!(serde_json::from_str::<String>(&out).unwrap(), "aé/\u{7}\n\t\u{8}\u{c}\r\"\\😀");
    }
}
