//! COPY: its formats, and data on the way in.

use arrow::datatypes::SchemaRef;

use crate::error::{Error, Result};

/// How COPY data is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFormat {
    /// The format.
    pub kind: CopyKind,
    /// Between columns.
    pub delimiter: u8,
    /// How NULL is written.
    pub null: String,
    /// Whether the first line holds the columns' names.
    pub header: bool,
    /// CSV: around values.
    pub quote: u8,
    /// CSV: before a quote inside a value.
    pub escape: u8,
}

/// The format of COPY data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyKind {
    /// One line a row, backslash escapes.
    Text,
    /// Comma-separated values.
    Csv,
    /// PostgreSQL's binary format.
    Binary,
}

/// A running COPY … FROM STDIN. Dropping it gives it up.
pub struct CopyIn {
    columns: SchemaRef,
    format: CopyFormat,
}

impl CopyIn {
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
        let _ = data;
        Err(Error::unsupported("COPY FROM"))
    }
}
