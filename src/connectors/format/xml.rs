//! FORMAT XML: rows are elements, and columns what stands below them: child elements, attributes, text, by path.
//!
//! Names are compared without their namespaces' prefixes. Nothing outside of a text is ever looked up: entities other
//! than XML's own five are refused, and so are document type declarations.

use std::ops::Range;

use arrow::datatypes::{DataType, Schema};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use serde_json::{Map, Value};

use super::cell::{Row, Slot};
use super::values::{Encoding, excerpt};
use super::{BadFormat, is_json, is_whole_document};
use crate::connectors::Options;
use crate::error::{Error, Result, SqlState};
use crate::types::{SqlType, is_string};

/// The option that says which elements are rows.
pub const ROWS: &str = "rows";
/// What options that say where a column is begin with.
const COLUMNS: &str = "columns.";
/// Elements may be nested this deep.
const DEPTH_MAX: usize = 256;

/// Options of FORMAT XML.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct XmlOptions {
    /// `rows`: the elements that are rows, from the root on; `None`: the root is the one row.
    pub rows: Option<Path>,
    /// `columns.NAME`: where a column is below its row, by the column's name in lower case.
    columns: Vec<(String, Path)>,
    /// `binary.format`: how bytea is written; base64 unless said.
    binary: Encoding,
}

/// Where elements, or attributes of theirs, are: `order/item`, `*/@id`, `//row`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path {
    /// It begins at any depth.
    anywhere: bool,
    /// Names without prefixes; `None`: any.
    names: Vec<Option<String>>,
    attribute: Option<String>,
}

impl Path {
    /// A path as it is written in options.
    ///
    /// # Errors
    /// 22023 for what is none.
    pub fn new(text: &str) -> Result<Path> {
        let wrong = |why: &str| {
            let message = format!("\"{text}\" is no path of XML elements: {why}");
            Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_hint("Paths are like order/item, */price, order/@id or //row."))
        };
        let (anywhere, rest) = match text.strip_prefix("//") {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('/').unwrap_or(text)),
        };
        let mut path = Path { anywhere, ..Path::default() };
        if rest == "." {
            return Ok(path);
        }
        for part in rest.split('/') {
            if path.attribute.is_some() {
                return wrong("nothing can follow an attribute");
            }
            let (is_attribute, name) = match part.strip_prefix('@') {
                Some(name) => (true, name),
                None => (false, part),
            };
            let name = local(name);
            let is_name = !name.is_empty() && !name.contains(|c: char| "[]()@*=\"' <>&".contains(c));
            match (is_attribute, name) {
                (false, "*") => path.names.push(None),
                _ if !is_name => return wrong("it is made of names, * and, last, an @attribute"),
                (true, name) => path.attribute = Some(name.to_string()),
                (false, name) => path.names.push(Some(name.to_string())),
            }
        }
        Ok(path)
    }

    /// Whether the elements that are open, the outermost first, lead to the path's end.
    fn leads_to(&self, open: &[String]) -> bool {
        let above = match open.len().checked_sub(self.names.len()) {
            Some(above) if self.anywhere || above == 0 => above,
            _ => return false,
        };
        let names = self.names.iter().map(Option::as_deref);
        open.iter().skip(above).zip(names).all(|(open, name)| name.is_none_or(|name| name == open))
    }
}

fn local(name: &str) -> &str {
    name.rsplit(':').next().unwrap_or(name)
}

impl XmlOptions {
    /// Takes the options.
    ///
    /// # Errors
    /// 22023.
    pub(super) fn take(options: &mut Options) -> Result<Self> {
        let rows = options.take(ROWS).map(|text| Path::new(&text)).transpose()?;
        if rows.as_ref().is_some_and(|p| p.attribute.is_some() || p.names.is_empty()) {
            let message = "option \"rows\" of FORMAT XML must lead to elements";
            return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                .with_hint("For example: rows = '/Envelope/Body/GetOrdersResponse/order'."));
        }
        let binaries = [("escape", Encoding::Plain), ("base64", Encoding::Base64), ("hex", Encoding::Hex)];
        let binary = super::one_of(options, "binary.format", &binaries)?.unwrap_or(Encoding::Base64);
        let mut columns = Vec::new();
        for (name, text) in options.take_prefixed(COLUMNS) {
            let path = Path::new(&text)?;
            if path.anywhere {
                let message = format!("the path of column \"{name}\" must begin at its row, not \"{text}\"");
                return Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message));
            }
            columns.push((name, path));
        }
        Ok(XmlOptions { rows, columns, binary })
    }
}

/// Why a text is not the XML it should be, and near which byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// What was wrong.
    pub what: String,
    /// Where, in bytes from the start.
    pub at: usize,
}

/// What comes next in a text.
enum Token<'a> {
    Open(BytesStart<'a>),
    Close,
    Text(String),
    End,
}

/// Reads a text with exactly one root element.
struct Tokens<'a> {
    text: &'a str,
    reader: Reader<&'a [u8]>,
    depth: usize,
    has_root: bool,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        let mut reader = Reader::from_str(text);
        reader.config_mut().expand_empty_elements = true;
        Tokens { text, reader, depth: 0, has_root: false }
    }

    /// Where what comes next begins.
    fn at(&self) -> usize {
        usize::try_from(self.reader.buffer_position()).unwrap_or(usize::MAX).min(self.text.len())
    }

    fn malformed<T>(&self, what: impl ToString) -> std::result::Result<T, Malformed> {
        Err(Malformed { what: what.to_string(), at: self.at() })
    }

    fn next(&mut self) -> std::result::Result<Token<'a>, Malformed> {
        loop {
            let event = match self.reader.read_event() {
                Ok(event) => event,
                Err(e) => return self.malformed(e),
            };
            let text = match event {
                Event::Start(element) | Event::Empty(element) => {
                    if self.depth == 0 && self.has_root {
                        return self.malformed("there is a second root element");
                    }
                    if self.depth == DEPTH_MAX {
                        return self.malformed("elements are nested too deeply");
                    }
                    (self.depth, self.has_root) = (self.depth + 1, true);
                    return Ok(Token::Open(element));
                }
                Event::End(_) => {
                    self.depth = self.depth.saturating_sub(1);
                    return Ok(Token::Close);
                }
                Event::Text(text) => match text.xml10_content() {
                    Ok(text) => text.into_owned(),
                    Err(e) => return self.malformed(e),
                },
                Event::CData(text) => match text.xml10_content() {
                    Ok(text) => text.into_owned(),
                    Err(e) => return self.malformed(e),
                },
                Event::GeneralRef(name) => {
                    let known = match name.resolve_char_ref() {
                        Ok(Some(c)) => Some(c.to_string()),
                        Ok(None) => {
                            let name = std::str::from_utf8(&name).unwrap_or_default();
                            quick_xml::escape::resolve_predefined_entity(name).map(str::to_string)
                        }
                        Err(e) => return self.malformed(e),
                    };
                    match known {
                        Some(text) if !text.contains('\0') => text,
                        _ => return self.malformed("an entity that XML does not define"),
                    }
                }
                Event::DocType(_) => return self.malformed("a document type declaration"),
                Event::Comment(_) | Event::Decl(_) | Event::PI(_) => continue,
                Event::Eof if self.depth > 0 => return self.malformed("an element is not closed"),
                Event::Eof if !self.has_root => return self.malformed("there is no element"),
                Event::Eof => return Ok(Token::End),
            };
            if self.depth > 0 {
                return Ok(Token::Text(text));
            }
            if !text.trim_start_matches('\u{feff}').trim().is_empty() {
                return self.malformed("text outside of the root element");
            }
        }
    }
}

/// An element's name without prefix.
fn name_of<'b>(element: &'b BytesStart<'_>) -> &'b str {
    // The text that it is of is UTF-8, and the name ends at ASCII bytes.
    std::str::from_utf8(element.local_name().into_inner()).unwrap_or_default()
}

/// An element's attributes but for namespaces: names without prefixes, and values.
fn attributes(element: &BytesStart<'_>) -> std::result::Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|e| e.to_string())?;
        let name = std::str::from_utf8(attribute.key.into_inner()).unwrap_or_default();
        if name == "xmlns" || name.starts_with("xmlns:") {
            continue;
        }
        let value = attribute.unescape_value().map_err(|e| e.to_string())?;
        found.push((local(name).to_string(), value.into_owned()));
    }
    Ok(found)
}

fn is_nil(attributes: &[(String, String)]) -> bool {
    attributes.iter().any(|(name, value)| name == "nil" && matches!(value.trim(), "true" | "1"))
}

/// The elements that a path leads to, each as written; what is inside of one is not looked at.
///
/// # Errors
/// Where the text is not well formed.
pub fn cut<'a>(text: &'a str, path: &Path) -> std::result::Result<Vec<&'a str>, Malformed> {
    let mut tokens = Tokens::new(text);
    let mut open: Vec<String> = Vec::new();
    let mut begun: Option<(usize, usize)> = None;
    let mut found = Vec::new();
    loop {
        let at = tokens.at();
        match tokens.next()? {
            Token::Open(element) => {
                open.push(name_of(&element).to_string());
                if begun.is_none() && path.leads_to(&open) {
                    begun = Some((open.len(), at));
                }
            }
            Token::Close => {
                if let Some((_, from)) = begun.take_if(|(depth, _)| *depth == open.len()) {
                    found.push(text.get(from..tokens.at()).unwrap_or_default());
                }
                open.pop();
            }
            Token::Text(_) => (),
            Token::End => return Ok(found),
        }
    }
}

/// An element as JSON: its text when it has neither attributes nor elements in it; else an object of attributes
/// (`@name`), elements by name, those of one name as an array, and text (`#text`).
fn to_json(text: &str) -> std::result::Result<Value, Malformed> {
    struct Open {
        name: String,
        members: Map<String, Value>,
        text: String,
        nil: bool,
    }
    let mut tokens = Tokens::new(text);
    let mut open: Vec<Open> = Vec::new();
    loop {
        match tokens.next()? {
            Token::Open(element) => {
                let attributes = attributes(&element).or_else(|e| tokens.malformed(e))?;
                let nil = is_nil(&attributes);
                let members = attributes.into_iter().filter(|(name, _)| !nil || name != "nil");
                let members = members.map(|(name, value)| (format!("@{name}"), Value::String(value)));
                let name = name_of(&element).to_string();
                open.push(Open { name, members: members.collect(), text: String::new(), nil });
            }
            Token::Text(more) => {
                if let Some(open) = open.last_mut() {
                    open.text.push_str(&more);
                }
            }
            Token::Close => {
                let Some(Open { name, mut members, text, nil }) = open.pop() else { continue };
                let value = match (members.is_empty(), nil) {
                    (true, true) => Value::Null,
                    (true, false) => Value::String(text),
                    (false, _) => {
                        if !text.trim().is_empty() {
                            members.insert("#text".to_string(), Value::String(text));
                        }
                        Value::Object(members)
                    }
                };
                let Some(above) = open.last_mut() else { return Ok(value) };
                match above.members.get_mut(&name) {
                    None => {
                        above.members.insert(name, value);
                    }
                    Some(Value::Array(values)) => values.push(value),
                    Some(first) => *first = Value::Array(vec![first.take(), value]),
                }
            }
            Token::End => return tokens.malformed("there is no element"),
        }
    }
}

/// What a column's value is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Text as it stands.
    Text,
    /// Text of another type: blanks around it do not count, and nothing is NULL.
    Value,
    /// One item for each element; of this kind.
    Items { text: bool },
    /// The whole element.
    Document,
}

/// What of a column was found in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Found {
    #[default]
    Nothing,
    Null,
    Text,
}

#[derive(Debug)]
struct Column {
    path: Path,
    /// The path is the column's name: case does not count, and an attribute of the row will do.
    is_name: bool,
    kind: Kind,
    /// How many names of the path the elements that are open have.
    matched: usize,
    /// The element that its value is in: how deep, and where it begins.
    begun: Option<(usize, usize)>,
    found: Found,
    text: String,
    items: String,
}

impl Column {
    fn clear(&mut self) {
        (self.matched, self.begun, self.found) = (0, None, Found::Nothing);
        self.text.clear();
        self.items.clear();
    }

    /// An element is open, `depth` below its row.
    fn open(&mut self, depth: usize, at: usize, name: &str, attributes: &[(String, String)]) {
        let next = self.path.names.get(depth.wrapping_sub(1));
        if depth > 0 {
            let is_next = next.is_some_and(|next| match next {
                None => true,
                Some(next) if self.is_name => next.eq_ignore_ascii_case(name),
                Some(next) => next == name,
            });
            if self.matched + 1 != depth || !is_next {
                return;
            }
            self.matched = depth;
        }
        if depth == 0 && self.is_name {
            let Some(Some(name)) = self.path.names.first() else { return };
            let value = attributes.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
            return self.attribute(value);
        }
        if depth != self.path.names.len() {
            return;
        }
        match &self.path.attribute {
            Some(wanted) => self.attribute(attributes.iter().find(|(n, _)| n == wanted)),
            None if is_nil(attributes) => self.found = Found::Null,
            None => {
                self.text.clear();
                self.begun = Some((depth, at));
            }
        }
    }

    fn attribute(&mut self, value: Option<&(String, String)>) {
        let Some((_, value)) = value else { return };
        self.text.clone_from(value);
        self.found = Found::Text;
        self.end_item();
    }

    fn end_item(&mut self) {
        let Kind::Items { text } = self.kind else { return };
        let item = if text { self.text.as_str() } else { self.text.trim() };
        if !self.items.is_empty() {
            self.items.push(',');
        }
        match text || !item.is_empty() {
            true => self.items.push_str(&Value::from(item).to_string()),
            false => self.items.push_str("null"),
        }
    }

    /// The element that is open at this depth ends; its bytes, if it is the column's.
    fn close(&mut self, depth: usize, end: usize) -> Option<Range<usize>> {
        if depth > 0 && self.matched == depth {
            self.matched = depth - 1;
        }
        let (_, from) = self.begun.take_if(|(begun, _)| *begun == depth)?;
        self.found = Found::Text;
        self.end_item();
        Some(from..end)
    }

    /// The value, which is appended to the row's own text.
    fn slot(&self, own: &mut String) -> Slot {
        let start = own.len();
        match (self.found, self.kind) {
            (Found::Nothing, _) => return Slot::Missing,
            (Found::Null, _) => return Slot::Null,
            (Found::Text, Kind::Text) => own.push_str(&self.text),
            (Found::Text, Kind::Value) => {
                let text = self.text.trim();
                if text.is_empty() {
                    return Slot::Null;
                }
                own.push_str(text);
            }
            (Found::Text, Kind::Items { .. }) => {
                own.extend(["[", self.items.as_str(), "]"]);
                return Slot::Written((start..own.len()).into());
            }
            (Found::Text, Kind::Document) => {
                own.push_str(&self.text);
                return Slot::Document((start..own.len()).into());
            }
        }
        Slot::Unescaped((start..own.len()).into())
    }
}

/// Reads XML records.
#[derive(Debug)]
pub struct XmlReader {
    rows: Option<Path>,
    columns: Vec<Column>,
    row: Row,
    encodings: Vec<Encoding>,
}

impl XmlReader {
    /// For records with these columns.
    ///
    /// # Errors
    /// 42703 for a path of a column that is not there.
    pub fn new(schema: &Schema, options: &XmlOptions) -> Result<Self> {
        let named = |name: &str| schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(name));
        if let Some((name, _)) = options.columns.iter().find(|(name, _)| !named(name)) {
            let message = format!("FORMAT XML says where column \"{name}\" is, and there is none");
            return Err(Error::new(SqlState::UNDEFINED_COLUMN, message));
        }
        let whole = is_whole_document(schema);
        let is_text = |t: &DataType| is_string(t);
        let columns = schema.fields().iter().map(|field| {
            let given = options.columns.iter().find(|(name, _)| name.eq_ignore_ascii_case(field.name()));
            let (path, is_name) = match given {
                Some((_, path)) => (path.clone(), false),
                None if whole => (Path::default(), false),
                None => (Path { names: vec![Some(field.name().clone())], ..Path::default() }, true),
            };
            let kind = match field.data_type() {
                _ if is_json(field) => Kind::Document,
                DataType::List(item) => Kind::Items { text: is_text(item.data_type()) },
                t if is_text(t) && SqlType::of(field) != SqlType::Uuid => Kind::Text,
                _ => Kind::Value,
            };
            let (text, items) = (String::new(), String::new());
            let found = Found::Nothing;
            Column { path, is_name, kind, matched: 0, begun: None, found, text, items }
        });
        let encoding = |t: &DataType| match t {
            DataType::Binary => options.binary,
            DataType::List(item) if *item.data_type() == DataType::Binary => options.binary,
            _ => Encoding::Plain,
        };
        Ok(XmlReader {
            rows: options.rows.clone(),
            columns: columns.collect(),
            row: Row::new(schema.fields().len()),
            encodings: schema.fields().iter().map(|f| encoding(f.data_type())).collect(),
        })
    }

    /// How the fields are written.
    pub fn encodings(&self) -> &[Encoding] {
        &self.encodings
    }

    /// Finds the rows of a record.
    ///
    /// # Errors
    /// 22P02 when the text is not well formed.
    pub fn read(
        &mut self,
        text: &str,
        mut emit: impl FnMut(&Row) -> std::result::Result<(), BadFormat>,
    ) -> std::result::Result<(), BadFormat> {
        let rows = match &self.rows {
            None => vec![text],
            Some(path) => cut(text, path).map_err(|m| malformed(&m, text))?,
        };
        for row in rows {
            self.read_row(row).map_err(|m| malformed(&m, row))?;
            emit(&self.row)?;
        }
        Ok(())
    }

    fn read_row(&mut self, text: &str) -> std::result::Result<(), Malformed> {
        self.row.clear();
        self.columns.iter_mut().for_each(Column::clear);
        let mut tokens = Tokens::new(text);
        loop {
            let at = tokens.at();
            match tokens.next()? {
                Token::Open(element) => {
                    let attributes = attributes(&element).or_else(|e| tokens.malformed(e))?;
                    let (depth, name) = (tokens.depth - 1, name_of(&element));
                    self.columns.iter_mut().for_each(|c| c.open(depth, at, name, &attributes));
                }
                Token::Text(more) => {
                    let open = self.columns.iter_mut().filter(|c| c.begun.is_some());
                    open.for_each(|c| c.text.push_str(&more));
                }
                Token::Close => {
                    let (depth, end) = (tokens.depth, tokens.at());
                    for column in &mut self.columns {
                        if let Some(element) = column.close(depth, end)
                            && column.kind == Kind::Document
                        {
                            let element = text.get(element).unwrap_or_default();
                            column.text = to_json(element)?.to_string();
                        }
                    }
                }
                Token::End => break,
            }
        }
        for (i, column) in self.columns.iter().enumerate() {
            // An attribute is no document: its text is one as a string.
            let slot = match (column.kind, &column.path.attribute, column.found) {
                (Kind::Document, Some(_), Found::Text) => {
                    let start = self.row.unescaped.len();
                    self.row.unescaped.push_str(&Value::from(column.text.as_str()).to_string());
                    Slot::Document((start..self.row.unescaped.len()).into())
                }
                _ => column.slot(&mut self.row.unescaped),
            };
            self.row.set(i, slot);
        }
        Ok(())
    }
}

/// The error of a text that is not the XML it should be.
fn malformed(m: &Malformed, text: &str) -> BadFormat {
    let found = text.get(m.at..).map(excerpt).filter(|t| !t.is_empty());
    let at = found.map_or(String::new(), |t| format!(" at \"{t}\""));
    BadFormat {
        sqlstate: SqlState::INVALID_TEXT_REPRESENTATION,
        reason: format!("invalid XML: {} (byte {}){at}", m.what, m.at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connectors::format::cell::Cell;

    /// The rows of `text` in columns of these names and types, fields joined by `|`, NULL as `~`, nothing as `-`.
    fn check(columns: &[(&str, SqlType)], options: &[(&str, &str)], text: &str, expected: &[&str]) {
        let fields: Vec<_> = columns.iter().map(|(n, t)| t.field_ref(*n, true)).collect();
        let options = options.iter().map(|(n, v)| ((*n).to_string(), (*v).to_string())).collect();
        let mut options = Options::new("FORMAT XML", options);
        let taken = XmlOptions::take(&mut options).unwrap();
        options.finish().unwrap();
        let mut reader = XmlReader::new(&Schema::new(fields), &taken).unwrap();
        let mut rows = Vec::new();
        let read = reader.read(text, |row| {
            let cell = |i| match row.cell(i, "") {
                Cell::Text(t) | Cell::Nested(t) | Cell::Document(t) => t.to_string(),
                Cell::Null => "~".to_string(),
                Cell::Missing => "-".to_string(),
                other => format!("{other:?}"),
            };
            rows.push((0..columns.len()).map(cell).collect::<Vec<_>>().join("|"));
            Ok(())
        });
        if let Err(bad) = read {
            rows.push(bad.reason);
        }
        assert_eq!(rows, expected, "{text}");
    }

    #[test]
    fn columns_are_elements_and_attributes() {
        let columns = [("id", SqlType::Int4), ("name", SqlType::Text)];
        let row = "<o:row ID=' 7 '><x><name>no</name></x><o:Name>a &amp; <b>b</b><![CDATA[<]]>&#33;</o:Name></o:row>";
        check(&columns, &[], row, &["7|a & b<!"]);
        check(&columns, &[], "<r><id/><name/></r>", &["~|"]);
        check(&columns, &[], "<r><id>1</id><id>2</id><name xsi:nil='true'/></r>", &["2|~"]);
        check(&columns, &[], "<?xml version='1.0'?><!-- a --><r/>\n", &["-|-"]);
        let given = [("columns.id", "key/@v"), ("columns.name", "*/n"), ("rows", "/s:e/b//@x")];
        check(&columns, &given[..2], "<r><key v='1'><n>q</n></key></r>", &["1|q"]);
        assert!(Path::new("a/@b/c").is_err() && Path::new(given[2].1).is_err() && Path::new("").is_err());
    }

    #[test]
    fn rows_are_elements_of_a_path() {
        let id = [("id", SqlType::Int4)];
        let soap = "<s:Envelope xmlns:s='x'><s:Body><l><o><id>1</id></o><n/><o><id>2</id></o></l></s:Body></s:Envelope>";
        check(&id, &[("rows", "/soap:Envelope/Body/l/o")], soap, &["1", "2"]);
        check(&id, &[("rows", "//o")], soap, &["1", "2"]);
        check(&id, &[("rows", "//id"), ("columns.id", ".")], soap, &["1", "2"]);
        check(&id, &[("rows", "/Body/o")], soap, &[]);
        check(&id, &[("rows", "//o")], "<o><o/></o>", &["-"]);
    }

    #[test]
    fn elements_are_arrays_and_documents() {
        let lists =
            [("t", SqlType::Array(Box::new(SqlType::Text))), ("n", SqlType::Array(Box::new(SqlType::Int4)))];
        check(&lists, &[], "<r><t>a\"</t><n> 1 </n><t/><n/></r>", &["[\"a\\\"\",\"\"]|[\"1\",null]"]);
        let document = [("body", SqlType::Jsonb)];
        let text = "<r a='1'><x>1</x><x/><y><z>2</z></y> t </r>";
        check(&document, &[], text, &[r##"{"#text":" t ","@a":"1","x":["1",""],"y":{"z":"2"}}"##]);
        let beside = [("id", SqlType::Int4), ("y", SqlType::Jsonb)];
        check(&beside, &[], "<r id='1'><y z='2'/></r>", &[r#"1|{"@z":"2"}"#]);
    }

    #[test]
    fn what_is_no_xml_is_refused() {
        let id = [("id", SqlType::Int4)];
        for (text, why) in [
            ("", "there is no element"),
            ("<a>", "an element is not closed"),
            ("<a/><b/>", "a second root"),
            ("x<a/>", "text outside"),
            ("<a>&nope;</a>", "an entity that XML does not define"),
            ("<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", "a document type"),
            ("<a></b>", "invalid XML"),
            ("<a x=1/>", "invalid XML"),
        ] {
            let mut reader = XmlReader::new(
                &Schema::new(id.iter().map(|(n, t)| t.field_ref(*n, true)).collect::<Vec<_>>()),
                &XmlOptions::default(),
            )
            .unwrap();
            let bad = reader.read(text, |_| Ok(())).unwrap_err();
            assert!(bad.reason.contains(why), "{text}: {}", bad.reason);
        }
        let deep = "<a>".repeat(DEPTH_MAX + 1);
        check(
            &id,
            &[],
            &deep,
            &[&format!("invalid XML: elements are nested too deeply (byte {})", deep.len())],
        );
    }
}
