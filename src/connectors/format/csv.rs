//! FORMAT CSV, as PostgreSQL's COPY reads it: a quote may open and close anywhere in a field, a doubled one is itself,
//! and only a field without quotes can be NULL.

use arrow::datatypes::Schema;

use super::cell::{FieldNames, Row, Slot};
use super::{BadFormat, CsvOptions};
use crate::error::SqlState;

/// Reads CSV records.
#[derive(Debug)]
pub struct CsvReader {
    options: CsvOptions,
    columns: Vec<String>,
    names: FieldNames,
    row: Row,
    /// By the field of a line, the column: what a header has said of all records that follow it.
    order: Option<Vec<Option<usize>>>,
}

/// A field of a line: where it is, and whether it had quotes.
struct Field {
    slot: Slot,
    is_null: bool,
    /// What ended it.
    end: End,
}

/// What a field ends with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Delimiter,
    Line,
    Text,
}

impl CsvReader {
    /// For records with these columns.
    pub fn new(schema: &Schema, options: &CsvOptions) -> Self {
        let columns: Vec<String> = schema.fields().iter().map(|f| f.name().clone()).collect();
        CsvReader {
            options: options.clone(),
            names: FieldNames::new(columns.iter().map(String::as_str)),
            row: Row::new(columns.len()),
            columns,
            order: None,
        }
    }

    /// Takes the names of the columns from a line of its own, for all records that follow.
    ///
    /// # Errors
    /// 22P04 for a quote left open.
    pub fn set_header(&mut self, line: &str) -> Result<(), BadFormat> {
        self.order = Some(self.header(line, &mut 0)?);
        Ok(())
    }

    /// Finds the rows of a record: mostly one line, or several; the first one names the columns when there is a header.
    ///
    /// # Errors
    /// 22P04 for a line with too few or too many fields, or a quote left open.
    pub fn read(
        &mut self,
        text: &str,
        emit: impl FnMut(&Row) -> Result<(), BadFormat>,
    ) -> Result<(), BadFormat> {
        let mut at = 0;
        let kept = self.order.take();
        let order = match &kept {
            None if self.options.header => Some(self.header(text, &mut at)?),
            _ => None,
        };
        let result = self.lines(text, at, kept.as_ref().or(order.as_ref()), emit);
        self.order = kept;
        result
    }

    /// The rows of lines, whose fields are columns by `order`.
    fn lines(
        &mut self,
        text: &str,
        mut at: usize,
        order: Option<&Vec<Option<usize>>>,
        mut emit: impl FnMut(&Row) -> Result<(), BadFormat>,
    ) -> Result<(), BadFormat> {
        loop {
            self.row.clear();
            let mut field_count = 0;
            loop {
                let field = self.field(text, &mut at)?;
                let column = match order {
                    Some(order) => order.get(field_count).copied().ok_or_else(extra_data)?,
                    None if field_count < self.columns.len() => Some(field_count),
                    None => return Err(extra_data()),
                };
                if let Some(column) = column {
                    self.row.set(column, if field.is_null { Slot::Null } else { field.slot });
                }
                field_count += 1;
                if field.end != End::Delimiter {
                    break;
                }
            }
            let wanted = order.map_or(self.columns.len(), Vec::len);
            if field_count < wanted {
                let missing = self.columns.get(field_count).map_or("", String::as_str);
                return Err(bad(match order {
                    None => format!("missing data for column \"{missing}\""),
                    Some(_) => format!("the line has {field_count} fields, the header {wanted}"),
                }));
            }
            emit(&self.row)?;
            if at >= text.len() {
                return Ok(());
            }
        }
    }

    fn header(&mut self, text: &str, at: &mut usize) -> Result<Vec<Option<usize>>, BadFormat> {
        let mut order = Vec::new();
        loop {
            self.row.clear();
            let field = self.field(text, at)?;
            let mut name = Row::new(1);
            name.unescaped = std::mem::take(&mut self.row.unescaped);
            name.set(0, field.slot);
            let super::cell::Cell::Text(name) = name.cell(0, text) else {
                return Err(bad("empty header".into()));
            };
            order.push(self.names.find(name.trim(), order.len()).map(|(column, _)| column));
            if field.end != End::Delimiter {
                return Ok(order);
            }
        }
    }

    /// The next field; `at` moves behind what ended it.
    fn field(&mut self, text: &str, at: &mut usize) -> Result<Field, BadFormat> {
        let CsvOptions { delimiter, quote, .. } = self.options;
        let bytes = text.as_bytes();
        let start = *at;
        let rest = bytes.get(start..).unwrap_or_default();
        let special = |b: &u8| *b == delimiter || *b == quote || *b == b'\n';
        let plain = rest.iter().position(special).unwrap_or(rest.len());
        if rest.get(plain) != Some(&quote) {
            let (end, length) = self.end_of(bytes, start, start + plain, at);
            let is_null = text.get(start..start + length) == Some(self.options.null.as_str());
            return Ok(Field { slot: Slot::Text((start..start + length).into()), is_null, end });
        }
        // With quotes in it, the field is copied without them.
        let from = self.row.unescaped.len();
        let mut i = start;
        let mut quoted = false;
        let mut run = start;
        loop {
            let byte = bytes.get(i).copied();
            let copy = |row: &mut Row| row.unescaped.push_str(text.get(run..i).unwrap_or_default());
            match byte {
                Some(b) if b == quote => {
                    copy(&mut self.row);
                    if quoted && bytes.get(i + 1) == Some(&quote) {
                        self.row.unescaped.push(quote as char);
                        i += 1;
                    } else {
                        quoted = !quoted;
                    }
                    run = i + 1;
                }
                None if quoted => return Err(bad("unterminated CSV quoted field".to_string())),
                Some(b) if quoted || (b != delimiter && b != b'\n') => (),
                _ => {
                    let (end, length) = self.end_of(bytes, run, i, at);
                    self.row.unescaped.push_str(text.get(run..run + length).unwrap_or_default());
                    let slot = Slot::Unescaped((from..self.row.unescaped.len()).into());
                    return Ok(Field { slot, is_null: false, end });
                }
            }
            i += 1;
        }
    }

    /// What ends the field at `i`, and the length of its last run of characters (a CR before the LF is no part of it).
    fn end_of(&self, bytes: &[u8], run: usize, i: usize, at: &mut usize) -> (End, usize) {
        *at = i + 1;
        match bytes.get(i) {
            Some(b'\n') => {
                let cr = i > run && bytes.get(i - 1) == Some(&b'\r');
                (End::Line, i - run - cr as usize)
            }
            Some(_) => (End::Delimiter, i - run),
            None => (End::Text, i - run),
        }
    }
}

/// The fields of a record as text; `None`: NULL.
///
/// # Errors
/// 22P04 for a quote left open.
pub fn fields_of(text: &str, options: &CsvOptions) -> Result<Vec<Option<String>>, BadFormat> {
    let mut reader = CsvReader::new(&Schema::empty(), options);
    let (mut at, mut fields) = (0, Vec::new());
    loop {
        reader.row.clear();
        let field = reader.field(text, &mut at)?;
        let mut row = Row::new(1);
        row.unescaped = std::mem::take(&mut reader.row.unescaped);
        row.set(0, field.slot);
        let text = match row.cell(0, text) {
            super::cell::Cell::Text(text) => text.to_string(),
            _ => String::new(),
        };
        fields.push((!field.is_null).then_some(text));
        if field.end != End::Delimiter {
            return Ok(fields);
        }
    }
}

fn bad(reason: String) -> BadFormat {
    BadFormat { sqlstate: SqlState::BAD_COPY_FILE_FORMAT, reason }
}

fn extra_data() -> BadFormat {
    bad("extra data after last expected column".to_string())
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::{DataType, Field};

    use super::*;
    use crate::connectors::format::cell::Cell;

    /// The rows of `text`, fields joined by `|`, NULL as `~`; or the error.
    fn check(options: CsvOptions, text: &str, expected: Result<&[&str], &str>) {
        let fields = ["a", "b"].map(|n| Field::new(n, DataType::Utf8View, true));
        let mut reader = CsvReader::new(&Schema::new(fields.to_vec()), &options);
        let mut rows = Vec::new();
        let result = reader.read(text, |row| {
            let cell = |i| match row.cell(i, text) {
                Cell::Text(t) => t.to_string(),
                Cell::Null => "~".to_string(),
                other => format!("{other:?}"),
            };
            rows.push(format!("{}|{}", cell(0), cell(1)));
            Ok(())
        });
        let got = result.map(|()| rows).map_err(|e| e.reason);
        assert_eq!(got, expected.map(|r| r.iter().map(|s| s.to_string()).collect()).map_err(str::to_string));
    }

    #[test]
    fn lines_become_rows() {
        let plain = CsvOptions::default;
        check(plain(), "1,x", Ok(&["1|x"]));
        check(plain(), "1,x\r\n2,\n", Ok(&["1|x", "2|~"]));
        check(plain(), "\"a,\"\"b\nc\",\"\"\n", Ok(&["a,\"b\nc|"]));
        check(plain(), "pre\"q,\"post,é", Ok(&["preq,post|é"]));
        check(plain(), "1", Err("missing data for column \"b\""));
        check(plain(), "1,2,3", Err("extra data after last expected column"));
        check(plain(), "1,\"2", Err("unterminated CSV quoted field"));
        check(plain(), "", Err("missing data for column \"b\""));
    }

    #[test]
    fn options_are_kept() {
        let options = CsvOptions { delimiter: b';', quote: b'\'', null: "NA".into(), header: false };
        check(options, "NA;'NA'", Ok(&["~|NA"]));
        let header = CsvOptions { header: true, ..CsvOptions::default() };
        check(header.clone(), "B,x,\"A\"\n1,2,3\n", Ok(&["3|1"]));
        check(header.clone(), "b\n1", Ok(&["Missing|1"]));
        check(header, "b,a\n1", Err("the line has 1 fields, the header 2"));
    }
}
