//! A JSON scanner: where each value of a text starts and ends, every byte of it checked.
//!
//! It makes no values: strings without escapes and numbers are taken from the text as they stand. Written
//! for input from anywhere: no recursion, depth bounded, nothing it is given makes it panic.

use super::cell::{Row, Slot};

/// Objects and arrays may be nested this deep, as deep as PostgreSQL's default stack takes comfortably.
pub const DEPTH_MAX: usize = 512;

/// Why a text is not JSON, and at which byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was wrong there.
    pub what: &'static str,
    /// Where, in bytes from the start.
    pub at: usize,
}

type Result<T> = std::result::Result<T, Malformed>;

/// A value found in the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    /// null
    Null,
    /// true, false
    Bool(bool),
    /// A number as written.
    Number(&'a str),
    /// A string; the text between its quotes, and whether there are escapes in it.
    String(&'a str, bool),
    /// An object or array as written.
    Nested(&'a str),
}

/// Reads a text from the front.
#[derive(Clone, Debug)]
pub struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Scanner<'a> {
    /// Starts at the front of the text.
    pub fn new(text: &'a str) -> Self {
        Scanner { text, at: 0 }
    }

    /// Starts at a byte of the text, such as an earlier [`Scanner::position`].
    pub fn starting_at(text: &'a str, at: usize) -> Self {
        Scanner { text, at }
    }

    /// Where the scanner stands, in bytes.
    pub fn position(&self) -> usize {
        self.at
    }

    /// The byte that comes next.
    pub fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn malformed<T>(&self, what: &'static str) -> Result<T> {
        let what = if self.at >= self.text.len() { "unexpected end of JSON" } else { what };
        Err(Malformed { what, at: self.at })
    }

    fn slice(&self, from: usize, to: usize) -> &'a str {
        // Both ends are next to ASCII bytes, so between characters.
        self.text.get(from..to).unwrap_or_default()
    }

    /// Passes white space.
    pub fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// Passes white space and then `byte`, if that is what comes.
    pub fn eat(&mut self, byte: u8) -> bool {
        self.skip_space();
        let found = self.peek() == Some(byte);
        self.at += found as usize;
        found
    }

    fn expect(&mut self, byte: u8, what: &'static str) -> Result<()> {
        if self.eat(byte) { Ok(()) } else { self.malformed(what) }
    }

    /// Nothing but white space may be left.
    pub fn end(&mut self) -> Result<()> {
        self.skip_space();
        if self.at == self.text.len() {
            Ok(())
        } else {
            self.malformed("unexpected text after the JSON value")
        }
    }

    /// The next value.
    pub fn value(&mut self) -> Result<Token<'a>> {
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string().map(|(s, escaped)| Token::String(s, escaped)),
            Some(b'-' | b'0'..=b'9') => self.number().map(Token::Number),
            Some(b'{' | b'[') => self.nested().map(Token::Nested),
            Some(b't') => self.literal("true").map(|()| Token::Bool(true)),
            Some(b'f') => self.literal("false").map(|()| Token::Bool(false)),
            Some(b'n') => self.literal("null").map(|()| Token::Null),
            _ => self.malformed("expected a JSON value"),
        }
    }

    /// The members of an object: `f` is called with the scanner before each value, and must pass it.
    pub fn object(&mut self, mut f: impl FnMut(&mut Self, &'a str, bool) -> Result<()>) -> Result<()> {
        self.expect(b'{', "expected a JSON object")?;
        if self.eat(b'}') {
            return Ok(());
        }
        loop {
            self.skip_space();
            let (name, escaped) = self.string()?;
            self.expect(b':', "expected \":\"")?;
            f(self, name, escaped)?;
            if self.eat(b',') {
                continue;
            }
            return self.expect(b'}', "expected \",\" or \"}\"");
        }
    }

    /// The elements of an array: `f` is called with the scanner before each value, and must pass it.
    pub fn array(&mut self, mut f: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.expect(b'[', "expected a JSON array")?;
        if self.eat(b']') {
            return Ok(());
        }
        loop {
            f(self)?;
            if self.eat(b',') {
                continue;
            }
            return self.expect(b']', "expected \",\" or \"]\"");
        }
    }

    /// A string: the text between the quotes, and whether it has escapes.
    pub fn string(&mut self) -> Result<(&'a str, bool)> {
        if self.peek() != Some(b'"') {
            return self.malformed("expected a JSON string");
        }
        self.at += 1;
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_prefix(self.text.as_bytes().get(self.at..).unwrap_or_default());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok((self.slice(start, self.at - 1), escaped));
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                _ => return self.malformed("control character in a JSON string"),
            }
        }
    }

    /// Passes one escape sequence, checked.
    fn escape(&mut self) -> Result<()> {
        self.at += 1;
        match self.peek() {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 1;
                Ok(())
            }
            Some(b'u') => {
                self.at += 1;
                let digits = self.text.as_bytes().get(self.at..self.at + 4).unwrap_or_default();
                if digits.len() < 4 || !digits.iter().all(u8::is_ascii_hexdigit) {
                    return self.malformed("\"\\u\" must be followed by four hexadecimal digits");
                }
                self.at += 4;
                Ok(())
            }
            _ => self.malformed("invalid escape in a JSON string"),
        }
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { self.malformed("invalid JSON number") }
    }

    fn number(&mut self) -> Result<&'a str> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        let integer_start = self.at;
        self.digits()?;
        if leading_zero && self.at - integer_start > 1 {
            self.at = integer_start;
            return self.malformed("a JSON number cannot start with 0");
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(self.slice(start, self.at))
    }

    fn literal(&mut self, word: &'static str) -> Result<()> {
        if self.text.as_bytes().get(self.at..).is_some_and(|t| t.starts_with(word.as_bytes())) {
            self.at += word.len();
            return Ok(());
        }
        self.malformed("expected a JSON value")
    }

    /// Passes an object or array, every byte checked. The stack of open brackets is one bit a level.
    fn nested(&mut self) -> Result<&'a str> {
        let start = self.at;
        let mut is_object = [0u64; DEPTH_MAX / 64];
        let mut depth = 0;
        loop {
            // A value is due.
            self.skip_space();
            let mut closed = true;
            match self.peek() {
                Some(open @ (b'{' | b'[')) => {
                    if depth == DEPTH_MAX {
                        return self.malformed("JSON is nested too deeply");
                    }
                    self.at += 1;
                    let bit = 1u64 << (depth % 64);
                    if open == b'{' {
                        is_object[depth / 64] |= bit;
                    } else {
                        is_object[depth / 64] &= !bit;
                    }
                    depth += 1;
                    if self.eat(if open == b'{' { b'}' } else { b']' }) {
                        depth -= 1;
                    } else {
                        closed = false;
                        if open == b'{' {
                            self.member_name()?;
                        }
                    }
                }
                Some(b'"') => {
                    self.string()?;
                }
                Some(b'-' | b'0'..=b'9') => {
                    self.number()?;
                }
                Some(b't') => self.literal("true")?,
                Some(b'f') => self.literal("false")?,
                Some(b'n') => self.literal("null")?,
                _ => return self.malformed("expected a JSON value"),
            }
            if !closed {
                continue;
            }
            // A value has ended: what follows is a comma, or the end of one or more brackets.
            loop {
                if depth == 0 {
                    return Ok(self.slice(start, self.at));
                }
                let in_object = is_object[(depth - 1) / 64] & (1 << ((depth - 1) % 64)) != 0;
                if self.eat(b',') {
                    if in_object {
                        self.member_name()?;
                    }
                    break;
                }
                if in_object {
                    self.expect(b'}', "expected \",\" or \"}\"")?;
                } else {
                    self.expect(b']', "expected \",\" or \"]\"")?;
                }
                depth -= 1;
            }
        }
    }

    fn member_name(&mut self) -> Result<()> {
        self.skip_space();
        self.string()?;
        self.expect(b':', "expected \":\"")
    }

    /// The next value as a slot of `row`; strings with escapes go to the row's own text.
    pub fn slot(&mut self, row: &mut Row) -> Result<Slot> {
        let value = self.value()?;
        let end = self.at;
        Ok(match value {
            Token::Null => Slot::Null,
            Token::Bool(b) => Slot::Bool(b),
            Token::Number(n) => Slot::Number((end - n.len()..end).into()),
            Token::Nested(n) => Slot::Nested((end - n.len()..end).into()),
            Token::String(s, false) => Slot::Text((end - 1 - s.len()..end - 1).into()),
            Token::String(s, true) => {
                let start = row.unescaped.len();
                unescape(s, end - 1 - s.len(), &mut row.unescaped)?;
                Slot::Unescaped((start..row.unescaped.len()).into())
            }
        })
    }
}

/// How many bytes at the front are neither a quote, nor a backslash, nor a control character; eight at a time.
fn plain_prefix(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = ONES << 7;
    let zero_bytes = |w: u64| w.wrapping_sub(ONES) & !w & HIGHS;
    let mut at = 0;
    while let Some((word, _)) = bytes.get(at..).and_then(|b| b.split_first_chunk::<8>()) {
        let w = u64::from_le_bytes(*word);
        let control = w.wrapping_sub(ONES * 0x20) & !w & HIGHS;
        // The lowest set bit is exact: borrows only reach bytes above a byte that is found.
        let found = zero_bytes(w ^ (ONES * b'"' as u64)) | zero_bytes(w ^ (ONES * b'\\' as u64)) | control;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(tail.len())
}

/// Appends a string with its escapes replaced. `at` is where it stands, for errors. Code points that are no
/// text (lone surrogates, and NUL, which PostgreSQL's text cannot hold) are refused.
pub fn unescape(escaped: &str, at: usize, out: &mut String) -> Result<()> {
    let mut rest = escaped;
    while let Some(i) = rest.find('\\') {
        let (plain, tail) = rest.split_at(i);
        out.push_str(plain);
        let position = at + escaped.len() - tail.len();
        let malformed = |what| Malformed { what, at: position };
        let (char, length) = match tail.as_bytes().get(1) {
            Some(b'b') => ('\u{8}', 2),
            Some(b'f') => ('\u{c}', 2),
            Some(b'n') => ('\n', 2),
            Some(b'r') => ('\r', 2),
            Some(b't') => ('\t', 2),
            Some(b'u') => unicode_escape(tail).map_err(malformed)?,
            Some(&c) => (c as char, 2),
            None => return Err(malformed("unexpected end of JSON")),
        };
        out.push(char);
        rest = tail.get(length..).unwrap_or_default();
    }
    out.push_str(rest);
    Ok(())
}

/// The character that `\uXXXX`, or a pair of them, at the front of `text` stands for, and its length there.
fn unicode_escape(text: &str) -> std::result::Result<(char, usize), &'static str> {
    const LONE: &str = "lone surrogate in a \"\\u\" escape";
    let unit = |from: usize| {
        let digits = text.get(from..from + 6)?.strip_prefix("\\u")?;
        u32::from_str_radix(digits, 16).ok()
    };
    match unit(0).ok_or("invalid \"\\u\" escape")? {
        0 => Err("\\u0000 cannot be converted to text"),
        high @ 0xD800..=0xDBFF => match unit(6) {
            Some(low @ 0xDC00..=0xDFFF) => {
                let code = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
                char::from_u32(code).map(|c| (c, 12)).ok_or(LONE)
            }
            _ => Err(LONE),
        },
        code => char::from_u32(code).map(|c| (c, 6)).ok_or(LONE),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(text: &str) -> Result<Token<'_>> {
        let mut s = Scanner::new(text);
        let token = s.value()?;
        s.end()?;
        Ok(token)
    }

    #[test]
    fn values_are_found_as_written() {
        assert_eq!(whole(" null "), Ok(Token::Null));
        assert_eq!(whole("true"), Ok(Token::Bool(true)));
        assert_eq!(whole("-12.50e+3"), Ok(Token::Number("-12.50e+3")));
        assert_eq!(whole("\"a é long string, plain\""), Ok(Token::String("a é long string, plain", false)));
        assert_eq!(whole("\"a\\\"b\""), Ok(Token::String("a\\\"b", true)));
        let nested = r#"{"a": [1, {"b": "}]"}, []], "c": {}}"#;
        assert_eq!(whole(nested), Ok(Token::Nested(nested)));
    }

    #[test]
    fn what_is_not_json_is_refused_with_its_place() {
        for (text, at) in [
            ("", 0),
            ("{", 1),
            ("[1,]", 3),
            ("[1 2]", 3),
            ("{\"a\" 1}", 5),
            ("{\"a\":1,}", 7),
            ("{a:1}", 1),
            ("01", 0),
            ("1.", 2),
            ("-", 1),
            ("1e", 2),
            ("tru", 0),
            ("\"a", 2),
            ("\"a\n\"", 2),
            ("\"\\x\"", 2),
            ("\"\\u12g4\"", 3),
            ("1 2", 2),
            ("[}", 1),
            ("{]", 1),
        ] {
            let error = whole(text).expect_err(text);
            assert_eq!(error.at, at, "{text}: {error:?}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert!(whole(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(whole(&deep(DEPTH_MAX + 1)).expect_err("too deep").what, "JSON is nested too deeply");
        assert!(whole(&"[{\"a\":".repeat(1_000_000)).is_err());
    }

    #[test]
    fn escapes_are_replaced() {
        let mut out = String::new();
        unescape(r#"a\"\\\/\b\f\n\r\t\u00e9\ud83d\ude00z"#, 0, &mut out).unwrap();
        assert_eq!(out, "a\"\\/\u{8}\u{c}\n\r\té😀z");
        for (bad, at) in [(r"x\u0000", 1), (r"\ud83d", 0), (r"\ud83dabcdef", 0), (r"ab\ude00", 2)] {
            assert_eq!(unescape(bad, 0, &mut String::new()).expect_err(bad).at, at);
        }
    }

    #[test]
    fn the_plain_prefix_ends_at_the_first_special_byte() {
        for special in [b'"', b'\\', 0x1f, 0] {
            for at in 0..40 {
                let mut bytes = vec![b'a'; 40];
                // Bytes with the high bit, and those next to the special ones, must not be mistaken for them.
                bytes
                    .iter_mut()
                    .enumerate()
                    .for_each(|(i, b)| *b = [b'!', b'#', b'[', b']', 0x20, 0xff, 0x80][i % 7]);
                bytes[at] = special;
                assert_eq!(plain_prefix(&bytes), at, "{special} at {at}");
            }
        }
        assert_eq!(plain_prefix(&[0x20; 17]), 17);
    }
}
