//! COPY … FROM STDIN: pieces of text or CSV become rows.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result, SqlState};
pub use crate::sql::ast::{CopyFormat, CopyKind};
use crate::sql::types::TextBuilder;

/// Rows per batch.
const BATCH_ROWS: usize = 8192;
/// The longest row, in bytes.
const ROW_BYTES_MAX: usize = 1 << 30;

/// A running COPY … FROM STDIN. Dropping it gives it up.
pub struct CopyIn {
    table: String,
    /// Which table, and which of its columns the data is for.
    pub(crate) target: (u64, Vec<usize>),
    columns: SchemaRef,
    format: CopyFormat,
    /// Bytes of a row that is not complete yet.
    rest: Vec<u8>,
    /// How much of `rest` was looked at already without finding its end, and whether that ends inside quotes.
    scanned: (usize, bool),
    builders: Vec<TextBuilder>,
    rows: usize,
    batches: Vec<RecordBatch>,
    line: u64,
    /// `\.` came: what follows is not data.
    ended: bool,
    field: Vec<u8>,
}

impl CopyIn {
    /// A COPY into `columns` of `table`; `target` is kept for whoever finishes it.
    pub(crate) fn new(
        table: &str,
        target: (u64, Vec<usize>),
        columns: SchemaRef,
        format: CopyFormat,
    ) -> Result<CopyIn> {
        if format.kind == CopyKind::Binary {
            return Err(Error::unsupported("COPY FROM in binary format"));
        }
        let builders =
            columns.fields().iter().map(|f| TextBuilder::new(Arc::clone(f))).collect::<Result<Vec<_>>>()?;
        Ok(CopyIn {
            table: table.to_string(),
            target,
            columns,
            format,
            rest: Vec::new(),
            scanned: (0, false),
            builders,
            rows: 0,
            batches: Vec::new(),
            line: 0,
            ended: false,
            field: Vec::new(),
        })
    }

    /// The columns that data is expected for.
    pub fn columns(&self) -> &SchemaRef {
        &self.columns
    }

    /// How the data is written.
    pub fn format(&self) -> &CopyFormat {
        &self.format
    }

    /// Takes the next piece of data, cut anywhere. An error ends the COPY.
    pub fn write(&mut self, data: &[u8]) -> Result<()> {
        if self.ended {
            return Ok(());
        }
        self.rest.extend_from_slice(data);
        let buffer = std::mem::take(&mut self.rest);
        let mut start = 0;
        while let Some(end) = self.row_end(&buffer[start..]) {
            self.row(&buffer[start..start + end])?;
            start += end + 1;
            self.scanned = (0, false);
            if self.ended {
                return Ok(());
            }
        }
        self.rest = buffer[start..].to_vec();
        if self.rest.len() > ROW_BYTES_MAX {
            return Err(self.bad("row is too long"));
        }
        Ok(())
    }

    /// All rows, once the client has sent everything.
    pub(crate) fn finish(mut self) -> Result<Vec<RecordBatch>> {
        if !self.ended && !self.rest.is_empty() {
            let rest = std::mem::take(&mut self.rest);
            if self.format.kind == CopyKind::Csv && self.scanned.1 {
                return Err(self.bad("unterminated CSV quoted field"));
            }
            self.row(&rest)?;
        }
        self.cut()?;
        Ok(self.batches)
    }

    /// Where the first row ends: the position of its newline.
    fn row_end(&mut self, data: &[u8]) -> Option<usize> {
        let (from, mut quoted) = self.scanned;
        for (i, &b) in data.iter().enumerate().skip(from) {
            if self.format.kind == CopyKind::Csv && b == self.format.quote {
                // A doubled quote flips twice; an escape that is not the quote itself is looked at below.
                if !(quoted
                    && self.format.escape != self.format.quote
                    && i > 0
                    && data[i - 1] == self.format.escape)
                {
                    quoted = !quoted;
                }
            } else if b == b'\n' && !quoted {
                if self.format.kind == CopyKind::Text && escaped(data, i) {
                    continue;
                }
                return Some(i);
            }
        }
        self.scanned = (data.len(), quoted);
        None
    }

    fn row(&mut self, row: &[u8]) -> Result<()> {
        self.line += 1;
        let row = row.strip_suffix(b"\r").unwrap_or(row);
        if row == b"\\." {
            self.ended = true;
            return Ok(());
        }
        if self.format.header && self.line == 1 {
            return Ok(());
        }
        match self.format.kind {
            CopyKind::Csv => self.csv_row(row)?,
            _ => self.text_row(row)?,
        }
        self.rows += 1;
        if self.rows == BATCH_ROWS {
            self.cut()?;
        }
        Ok(())
    }

    fn text_row(&mut self, row: &[u8]) -> Result<()> {
        let mut column = 0;
        let mut start = 0;
        let mut i = 0;
        loop {
            if i < row.len() && row[i] == b'\\' {
                i += 2;
                continue;
            }
            if i >= row.len() || row[i] == self.format.delimiter {
                let raw = &row[start..i.min(row.len())];
                let null = raw == self.format.null.as_bytes();
                if !null {
                    self.field.clear();
                    unescape(raw, &mut self.field);
                }
                self.value(column, null)?;
                column += 1;
                if i >= row.len() {
                    break;
                }
                start = i + 1;
            }
            i += 1;
        }
        self.complete(column)
    }

    fn csv_row(&mut self, row: &[u8]) -> Result<()> {
        let (delimiter, quote, escape) = (self.format.delimiter, self.format.quote, self.format.escape);
        let mut column = 0;
        let mut i = 0;
        loop {
            self.field.clear();
            let mut was_quoted = false;
            let mut quoted = false;
            while i < row.len() {
                let b = row[i];
                if quoted {
                    if b == escape && i + 1 < row.len() && (row[i + 1] == quote || row[i + 1] == escape) {
                        self.field.push(row[i + 1]);
                        i += 2;
                        continue;
                    }
                    if b == quote {
                        quoted = false;
                    } else {
                        self.field.push(b);
                    }
                } else if b == delimiter {
                    break;
                } else if b == quote {
                    quoted = true;
                    was_quoted = true;
                } else {
                    self.field.push(b);
                }
                i += 1;
            }
            let null = !was_quoted && self.field == self.format.null.as_bytes();
            self.value(column, null)?;
            column += 1;
            if i >= row.len() {
                break;
            }
            i += 1;
        }
        self.complete(column)
    }

    /// Puts the value in `field` into a column.
    fn value(&mut self, column: usize, null: bool) -> Result<()> {
        let Some(builder) = self.builders.get_mut(column) else {
            return Err(self.bad("extra data after last expected column"));
        };
        if null {
            builder.push_null();
            return Ok(());
        }
        let pushed = match std::str::from_utf8(&self.field) {
            Ok(text) => builder.push(text),
            Err(_) => Err(Error::new(SqlState("22021"), "invalid byte sequence for encoding \"UTF8\"")),
        };
        pushed.map_err(|e| {
            let place = format!(
                "COPY {}, line {}, column {}: \"{}\"",
                self.table,
                self.line,
                self.columns.field(column).name(),
                String::from_utf8_lossy(&self.field)
            );
            match e.detail {
                Some(_) => e,
                None => e.with_detail(place),
            }
        })
    }

    fn complete(&mut self, columns: usize) -> Result<()> {
        if columns < self.builders.len() {
            let name = self.columns.field(columns).name().clone();
            // An empty line of a table with one column is one empty value; of others it lacks all but the first.
            return Err(self.bad(&format!("missing data for column \"{name}\"")));
        }
        Ok(())
    }

    fn cut(&mut self) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let arrays = self.builders.iter_mut().map(TextBuilder::finish).collect::<Result<Vec<_>>>()?;
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(self.rows));
        self.batches.push(RecordBatch::try_new_with_options(Arc::clone(&self.columns), arrays, &options)?);
        self.rows = 0;
        Ok(())
    }

    fn bad(&self, message: &str) -> Error {
        Error::new(SqlState::BAD_COPY_FILE_FORMAT, message)
            .with_detail(format!("COPY {}, line {}", self.table, self.line))
    }
}

/// Whether the byte at `i` stands after an odd number of backslashes.
fn escaped(data: &[u8], i: usize) -> bool {
    data[..i].iter().rev().take_while(|b| **b == b'\\').count() % 2 == 1
}

fn unescape(raw: &[u8], out: &mut Vec<u8>) {
    let mut i = 0;
    while i < raw.len() {
        if raw[i] != b'\\' || i + 1 == raw.len() {
            out.push(raw[i]);
            i += 1;
            continue;
        }
        let b = raw[i + 1];
        i += 2;
        match b {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'v' => out.push(11),
            b'x' => {
                let digits = raw[i..].iter().take(2).take_while(|b| b.is_ascii_hexdigit()).count();
                match std::str::from_utf8(&raw[i..i + digits])
                    .ok()
                    .and_then(|d| u8::from_str_radix(d, 16).ok())
                {
                    Some(byte) => out.push(byte),
                    None => out.push(b'x'),
                }
                i += digits;
            }
            b'0'..=b'7' => {
                let more = raw[i..].iter().take(2).take_while(|b| (b'0'..=b'7').contains(b)).count();
                let byte = raw[i - 1..i + more].iter().fold(0u32, |n, d| n * 8 + u32::from(d - b'0'));
                out.push(byte as u8);
                i += more;
            }
            other => out.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::types::SqlType;
    use arrow::datatypes::Schema;

    fn copy(kind: CopyKind) -> CopyIn {
        let columns =
            Arc::new(Schema::new(vec![SqlType::Int4.field("a", true), SqlType::Text.field("b", true)]));
        CopyIn::new("t", (1, vec![0, 1]), columns, CopyFormat::new(kind)).unwrap()
    }

    fn rows(kind: CopyKind, data: &str) -> Result<String> {
        // Every way to cut the data in two gives the same rows.
        let mut first: Option<String> = None;
        for cut in 0..=data.len() {
            let mut c = copy(kind);
            c.write(&data.as_bytes()[..cut])?;
            c.write(&data.as_bytes()[cut..])?;
            let text = arrow::util::pretty::pretty_format_batches(&c.finish()?).unwrap().to_string();
            assert_eq!(first.get_or_insert_with(|| text.clone()), &text, "cut at {cut}");
        }
        Ok(first.unwrap_or_default())
    }

    #[test]
    fn text_escapes_nulls_and_the_end_mark() {
        let shown = rows(CopyKind::Text, "1\ta\\tb\n2\t\\N\n3\tx\\\ny\n\\.\nnot data\n").unwrap();
        assert!(shown.contains("| 1 | a\tb |"), "{shown}");
        assert!(shown.contains("| 2 |"), "{shown}");
        assert!(!shown.contains("not data"), "{shown}");
        assert_eq!(rows(CopyKind::Text, "1\n").unwrap_err().message, "missing data for column \"b\"");
        assert_eq!(
            rows(CopyKind::Text, "1\t2\t3\n").unwrap_err().message,
            "extra data after last expected column"
        );
        let e = rows(CopyKind::Text, "1\tok\nx\ty\n").unwrap_err();
        assert_eq!(e.sqlstate.0, "22P02");
        assert_eq!(e.detail.as_deref(), Some("COPY t, line 2, column a: \"x\""));
    }

    #[test]
    fn csv_quotes_and_nulls() {
        let mut c = copy(CopyKind::Csv);
        c.write(b"1,\"a \"\"q\"\", b\"\r\n2,\n3,\"\"\n4,\"two\nlines\"").unwrap();
        let batches = c.finish().unwrap();
        let b = arrow::array::AsArray::as_string_view(batches[0].column(1).as_ref());
        assert_eq!(b.value(0), "a \"q\", b");
        assert!(arrow::array::Array::is_null(b, 1) && !arrow::array::Array::is_null(b, 2));
        assert_eq!(b.value(3), "two\nlines");
        let mut c = copy(CopyKind::Csv);
        c.write(b"1,\"open").unwrap();
        assert_eq!(c.finish().unwrap_err().message, "unterminated CSV quoted field");
    }
}
