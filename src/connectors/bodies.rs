//! Bodies of requests and answers: what of one becomes a row by itself, and how all of it is decoded.

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};

use super::envelope::{Declaration, Decoder, Record};
use super::format::records::Splitter;
use super::format::scan::{Scanner, Token};
use super::format::{CsvOptions, Format, xml};
use super::{BadRecord, Discovered, SourceDefinition};
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// How bodies are made of records.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One value; an array of values; or a value a line.
    Json,
    /// A record a line, below a header if there is one.
    Csv(CsvOptions),
    /// An element of this path is a record.
    Xml(xml::Path),
    /// The body is the record.
    Whole,
}

/// How many records of a body became rows, and how many did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows.
    pub rows: u64,
    /// Bad records.
    pub bad: u64,
}

/// Turns bodies into rows.
#[derive(Debug)]
pub struct BodyDecoder {
    shape: Shape,
    decoder: Decoder,
}

impl BodyDecoder {
    /// For bodies of the definition's FORMAT; `kind` names the kind of source in errors.
    ///
    /// # Errors
    /// What does not fit together in the definition; 0A000 for formats that bodies are not read in.
    pub fn new(definition: &SourceDefinition, schema: &SchemaRef, kind: &str) -> Result<BodyDecoder> {
        let mut cut = definition.clone();
        let shape = match Format::new(definition.format.as_ref())? {
            Format::Json(_) => Shape::Json,
            Format::Csv(options) => Shape::Csv(options),
            Format::Xml(options) => match options.rows {
                None => Shape::Whole,
                Some(rows) => {
                    // What is decoded are the pieces, each of which is a row.
                    if let Some(format) = &mut cut.format {
                        format.options.retain(|(name, _)| name != xml::ROWS);
                    }
                    Shape::Xml(rows)
                }
            },
            Format::Text | Format::Bytes => Shape::Whole,
            Format::Avro(_) => return Err(Error::unsupported(format!("FORMAT AVRO of a {kind} source"))),
            Format::Protobuf(_) => {
                return Err(Error::unsupported(format!("FORMAT PROTOBUF of a {kind} source")));
            }
        };
        let declaration = Declaration { definition: &cut, schema, full_before_images: false };
        Ok(BodyDecoder { shape, decoder: Decoder::new(&declaration)? })
    }

    /// What decodes a body's records one by one.
    pub fn into_decoder(self) -> Decoder {
        self.decoder
    }

    /// What the rows wait in.
    pub fn decoder(&mut self) -> &mut Decoder {
        &mut self.decoder
    }

    /// Decodes a body's records, which have what `of` says besides their values; the rows wait in the decoder.
    /// `position` says where the record of a number is, from 1.
    pub fn decode(
        &mut self,
        body: &[u8],
        of: &Record<'_>,
        position: impl Fn(usize) -> String,
        bad: &mut Vec<BadRecord>,
    ) -> Counts {
        let (rows, errors) = (self.decoder.pending(), bad.len());
        let cut = self.shape.records(body);
        if let Some(header) = cut.header
            && let Err(why) = self.decoder.set_header(header)
        {
            bad.push(BadRecord::of(&Record { value: Some(body), ..*of }, why, position(0), None));
            return Counts { rows: 0, bad: 1 };
        }
        for (n, value) in cut.records.iter().enumerate() {
            let record = Record { value: Some(value), ..*of };
            if let Err(why) = self.decoder.push(&record) {
                bad.push(BadRecord::of(&record, why, position(n + 1), cut.header));
            }
        }
        let rows = self.decoder.pending() - rows;
        Counts { rows: rows as u64, bad: (bad.len() - errors) as u64 }
    }
}

/// The one column `body` that a source of bodies has when none is declared. `kind` names the kind of source, and
/// `from` says how one is created.
///
/// # Errors
/// 42601 for a format whose columns must be declared.
pub fn undeclared(definition: &SourceDefinition, kind: &str, from: &str) -> Result<Vec<Discovered>> {
    let body = match Format::new(definition.format.as_ref())? {
        Format::Json(_) | Format::Xml(_) => SqlType::Jsonb,
        Format::Text => SqlType::Text,
        Format::Bytes => SqlType::Bytea,
        _ => {
            let message = format!("a {kind} source of this FORMAT needs a column list");
            return Err(Error::new(SqlState::SYNTAX_ERROR, message)
                .with_hint(format!("For example: CREATE SOURCE s (id bigint, name text) FROM {from}.")));
        }
    };
    let schema = Arc::new(Schema::new(vec![body.field_ref("body", true)]));
    Ok(vec![Discovered { upstream: definition.name.clone(), schema, key: Vec::new() }])
}

/// A body cut into records.
#[derive(Debug, Default, PartialEq, Eq)]
struct Records<'a> {
    /// The line that names the columns of the others.
    pub header: Option<&'a [u8]>,
    /// Each record's bytes.
    pub records: Vec<&'a [u8]>,
}

impl Shape {
    /// The records of a body. What cannot be cut is one record, which says what is wrong when it is decoded.
    fn records<'a>(&self, body: &'a [u8]) -> Records<'a> {
        match self {
            Shape::Whole => Records { header: None, records: vec![body] },
            Shape::Json => Records { header: None, records: json(body) },
            Shape::Xml(path) => Records { header: None, records: elements(body, path) },
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

/// The elements of a path; the body itself when it is no XML.
fn elements<'a>(body: &'a [u8], path: &xml::Path) -> Vec<&'a [u8]> {
    let cut = std::str::from_utf8(body).ok().and_then(|text| xml::cut(text, path).ok());
    match cut {
        Some(elements) => elements.into_iter().map(str::as_bytes).collect(),
        None => vec![body],
    }
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
    fn xml_is_elements_of_a_path() {
        let shape = Shape::Xml(xml::Path::new("rows/row").unwrap());
        assert_eq!(
            texts(&shape, "<rows><row a='1'/><x/><row>2</row></rows>"),
            ["<row a='1'/>", "<row>2</row>"]
        );
        assert_eq!(texts(&shape, "<rows/>"), [""; 0]);
        assert_eq!(texts(&shape, "<rows><row/>"), ["<rows><row/>"]);
    }

    #[test]
    fn csv_is_lines_below_a_header() {
        let csv = |header, body| texts(&Shape::Csv(CsvOptions { header, ..CsvOptions::default() }), body);
        assert_eq!(csv(false, "1,a\n2,\"b\nc\"\n"), ["1,a\n", "2,\"b\nc\"\n"]);
        assert_eq!(csv(true, "id,b\r\n1,a"), ["header id,b\r\n", "1,a"]);
        assert_eq!(csv(true, ""), [""; 0]);
    }
}
