//! COPY TO STDOUT: rows as lines of PostgreSQL's text or CSV format.

use bytes::BufMut;

use crate::database::{CopyFormat, CopyKind};
use crate::error::{Error, Result, SqlState};
use crate::pgwire::encode::EncodableBatch;
use crate::types::escape_copy_text;

/// Writes rows as CopyData messages, one a row.
#[derive(Debug)]
pub struct CopyWriter {
    format: CopyFormat,
    /// One value, before it is escaped.
    value: Vec<u8>,
}

impl CopyWriter {
    /// A writer of the format; the binary one is not built.
    pub fn new(format: CopyFormat) -> Result<CopyWriter> {
        match format.kind {
            CopyKind::Text | CopyKind::Csv => Ok(CopyWriter { format, value: Vec::new() }),
            CopyKind::Binary => Err(Error::unsupported("COPY in binary format")),
        }
    }

    /// Appends the line of column names, if the format has one.
    pub fn write_header<'a>(
        &mut self,
        names: impl Iterator<Item = &'a str>,
        out: &mut Vec<u8>,
    ) -> Result<()> {
        if !self.format.header {
            return Ok(());
        }
        let start = begin(out);
        for (i, name) in names.enumerate() {
            if i > 0 {
                out.push(self.format.delimiter);
            }
            self.value.clear();
            self.value.extend_from_slice(name.as_bytes());
            self.escape(false, out);
        }
        end(start, out)
    }

    /// Appends a row.
    pub fn write_row(&mut self, batch: &EncodableBatch, row: usize, out: &mut Vec<u8>) -> Result<()> {
        let start = begin(out);
        for column in 0..batch.width() {
            if column > 0 {
                out.push(self.format.delimiter);
            }
            self.value.clear();
            if batch.write_text(row, column, &mut self.value)? {
                self.escape(batch.width() == 1, out);
            } else {
                out.extend_from_slice(self.format.null.as_bytes());
            }
        }
        end(start, out)
    }

    fn escape(&self, only_column: bool, out: &mut Vec<u8>) {
        match self.format.kind {
            CopyKind::Csv => self.escape_csv(only_column, out),
            _ => escape_copy_text(&self.value, self.format.delimiter, out),
        }
    }

    fn escape_csv(&self, only_column: bool, out: &mut Vec<u8>) {
        let format = &self.format;
        let value = self.value.as_slice();
        let special = |b: &u8| *b == format.delimiter || *b == format.quote || *b == b'\n' || *b == b'\r';
        // What reads like NULL, or alone in its line like the end of data, must be quoted to stay a value.
        let quoted =
            value.iter().any(special) || value == format.null.as_bytes() || (only_column && value == b"\\.");
        if !quoted {
            out.extend_from_slice(value);
            return;
        }
        out.push(format.quote);
        for &byte in value {
            if byte == format.quote || byte == format.escape {
                out.push(format.escape);
            }
            out.push(byte);
        }
        out.push(format.quote);
    }
}

/// Begins a CopyData message; answers where its length belongs.
fn begin(out: &mut Vec<u8>) -> usize {
    out.put_u8(b'd');
    out.put_i32(0);
    out.len() - 4
}

/// Ends the line and the message whose length stands at `start`.
fn end(start: usize, out: &mut Vec<u8>) -> Result<()> {
    out.push(b'\n');
    let length = i32::try_from(out.len() - start)
        .map_err(|_| Error::new(SqlState("54000"), "a row is too long for the protocol"))?;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
    Ok(())
}
