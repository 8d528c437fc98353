//! A body's records: what of it becomes a row by itself.

use crate::connectors::format::CsvOptions;
use crate::connectors::format::records::Splitter;
use crate::connectors::format::scan::{Scanner, Token};

/// How bodies are made of records.
#[derive(Clone, Debug)]
pub(super) enum Shape {
    /// One value; an array of values; or a value a line.
    Json,
    /// A record a line, below a header if there is one.
    Csv(CsvOptions),
    /// The body is the record.
    Whole,
}

/// A body cut into records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Records<'a> {
    /// The line that names the columns of the others.
    pub header: Option<&'a [u8]>,
    /// Each record's bytes.
    pub records: Vec<&'a [u8]>,
}

impl Shape {
    /// The records of a body. What cannot be cut is one record, which says what is wrong when it is decoded.
    pub(super) fn records<'a>(&self, body: &'a [u8]) -> Records<'a> {
        match self {
            Shape::Whole => Records { header: None, records: vec![body] },
            Shape::Json => Records { header: None, records: json(body) },
            Shape::Csv(options) => {
                let mut lines = cut(body, Splitter::quoted(options.quote));
                let header = (options.header && !lines.is_empty()).then(|| lines.remove(0));
                Records { header, records: lines }
            }
        }
    }
}

fn is_blank(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_whitespace)
}

/// The lines of a body but for blank ones.
fn cut(body: &[u8], mut splitter: Splitter) -> Vec<&[u8]> {
    let (mut lines, mut rest) = (Vec::new(), body);
    while let Some(length) = splitter.next(rest, true) {
        let (line, after) = rest.split_at(length);
        if !is_blank(line) {
            lines.push(line);
        }
        rest = after;
    }
    lines
}

fn json(body: &[u8]) -> Vec<&[u8]> {
    if is_blank(body) {
        return Vec::new();
    }
    let Ok(text) = std::str::from_utf8(body) else { return cut(body, Splitter::plain()) };
    let mut scanner = Scanner::new(text);
    scanner.skip_space();
    if scanner.peek() == Some(b'[') {
        let mut elements = Vec::new();
        let scanned = scanner.array(|s| {
            s.skip_space();
            let from = s.position();
            s.value()?;
            elements.push(body.get(from..s.position()).unwrap_or_default());
            Ok(())
        });
        if scanned.and_then(|()| scanner.end()).is_ok() {
            return elements;
        }
    } else if scanner.value().is_ok() && scanner.end().is_ok() {
        return vec![body];
    }
    let lines = cut(body, Splitter::plain());
    let is_document = |line: &&[u8]| {
        let text = std::str::from_utf8(line).unwrap_or_default();
        let mut scanner = Scanner::new(text);
        scanner.value().is_ok_and(|value| matches!(value, Token::Nested(_))) && scanner.end().is_ok()
    };
    // Lines are records when at least one of them is an object: else it is one value over several lines, and broken.
    if lines.iter().any(is_document) { lines } else { vec![body] }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(shape: &Shape, body: &str) -> Vec<String> {
        let records = shape.records(body.as_bytes());
        let text = |r: &[u8]| String::from_utf8_lossy(r).into_owned();
        let header = records.header.map(|h| format!("header {}", text(h)));
        header.into_iter().chain(records.records.into_iter().map(text)).collect()
    }

    #[test]
    fn json_is_a_value_a_batch_or_lines() {
        let json = |body| texts(&Shape::Json, body);
        assert_eq!(json(" \n"), [""; 0]);
        assert_eq!(json("{\"a\":\n 1}"), ["{\"a\":\n 1}"]);
        assert_eq!(json(" [ {\"a\":1} , 2,[3] ] "), ["{\"a\":1}", "2", "[3]"]);
        assert_eq!(json("[]"), [""; 0]);
        assert_eq!(json("{\"a\":1}\n\n{\"a\":2}"), ["{\"a\":1}\n", "{\"a\":2}"]);
        assert_eq!(json("{\"a\":\n{\"a\":2}\n"), ["{\"a\":\n", "{\"a\":2}\n"]);
        assert_eq!(json("[{\"a\":1}"), ["[{\"a\":1}"]);
        assert_eq!(json("{\"a\":\n1"), ["{\"a\":\n1"]);
    }

    #[test]
    fn csv_is_lines_below_a_header() {
        let csv = |header, body| texts(&Shape::Csv(CsvOptions { header, ..CsvOptions::default() }), body);
        assert_eq!(csv(false, "1,a\n2,\"b\nc\"\n"), ["1,a\n", "2,\"b\nc\"\n"]);
        assert_eq!(csv(true, "id,b\r\n1,a"), ["header id,b\r\n", "1,a"]);
        assert_eq!(csv(true, ""), [""; 0]);
    }
}
