//! COPY as it was written.

use super::{Query, Subscribe};
use crate::names::Name;

/// COPY.
#[derive(Clone, Debug)]
pub enum Copy {
    /// COPY t [(columns)] FROM STDIN.
    From {
        /// Into which table.
        table: Name,
        /// Into which columns; empty: all.
        columns: Vec<String>,
        /// How the data is written.
        format: CopyFormat,
    },
    /// COPY t | (SELECT … | SUBSCRIBE …) TO STDOUT.
    To {
        /// What is copied.
        what: CopyWhat,
        /// How the data is written.
        format: CopyFormat,
    },
}

/// What COPY … TO copies.
#[derive(Clone, Debug)]
pub enum CopyWhat {
    /// A query; `COPY t TO` is one, too.
    Query(Box<Query>),
    /// A subscription, which ends when the client stops it.
    Subscribe(Box<Subscribe>),
}

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

impl CopyFormat {
    /// The format's defaults, as PostgreSQL's.
    pub fn new(kind: CopyKind) -> Self {
        let (delimiter, null) = match kind {
            CopyKind::Csv => (b',', ""),
            CopyKind::Text | CopyKind::Binary => (b'\t', "\\N"),
        };
        CopyFormat { kind, delimiter, null: null.to_string(), header: false, quote: b'"', escape: b'"' }
    }
}
