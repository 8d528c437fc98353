//! INCLUDE columns: what a record has besides its value.

use crate::connectors::Include;
use crate::connectors::envelope::Record;
use crate::connectors::format::cell::Cell;
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::values::{Encoding, FieldError};
use crate::error::{Error, Result, SqlState};

/// A piece of a record's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Included {
    /// The key: its bytes into bytea, its text into text, its document into jsonb.
    Key,
    /// The topic's name.
    Topic,
    /// The partition's number.
    Partition,
    /// The record's number in its partition.
    Offset,
    /// The record's time.
    Timestamp,
    /// The headers: a JSON object; of headers of one name the last one counts.
    Headers,
}

impl Included {
    /// Every name that INCLUDE knows.
    const NAMES: [(&'static str, Included); 6] = [
        ("key", Included::Key),
        ("topic", Included::Topic),
        ("partition", Included::Partition),
        ("offset", Included::Offset),
        ("timestamp", Included::Timestamp),
        ("headers", Included::Headers),
    ];

    /// By its name.
    ///
    /// # Errors
    /// 22023 for a name that is not known.
    pub fn new(include: &Include) -> Result<Included> {
        match Self::NAMES.iter().find(|(n, _)| include.what.eq_ignore_ascii_case(n)) {
            Some((_, included)) => Ok(*included),
            None => {
                let names: Vec<&str> = Self::NAMES.iter().map(|(n, _)| *n).collect();
                let message = format!("unknown INCLUDE column \"{}\"", include.what);
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                    .with_hint(format!("Known: {}.", names.join(", "))))
            }
        }
    }

    /// Appends the record's own.
    pub fn append(
        self,
        record: &Record<'_>,
        column: &mut ColumnBuilder,
    ) -> std::result::Result<(), FieldError> {
        match self {
            Included::Key => column.append_bytes(record.key),
            Included::Topic => column.append(Cell::Text(record.topic), Encoding::Plain),
            Included::Partition => column.append_integer(record.partition as i64),
            Included::Offset => column.append_integer(record.offset),
            Included::Timestamp => match record.timestamp_micros {
                Some(micros) => column.append_integer(micros),
                None => column.append(Cell::Null, Encoding::Plain),
            },
            Included::Headers => column.append(Cell::Nested(record.headers.unwrap_or("{}")), Encoding::Plain),
        }
    }
}
