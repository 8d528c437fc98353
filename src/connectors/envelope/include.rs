//! INCLUDE columns: what a record has besides its value.

use crate::connectors::envelope::Record;
use crate::connectors::format::cell::{Cell, Row};
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::scan::{self, Scanner};
use crate::connectors::format::values::{Encoding, FieldError};
use crate::connectors::{Include, SourceDefinition};
use crate::error::{Error, Result, SqlState};

/// A piece of a record's metadata.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The header of this name; of several the last one.
    Header(String),
}

/// Refuses what records of this kind of source do not have; who has headers has single ones, too.
///
/// # Errors
/// 22023.
pub fn allow(definition: &SourceDefinition, kind: &str, known: &[&str]) -> Result<()> {
    let is_known = |what: &str| {
        let name = if what.starts_with("header ") { "headers" } else { what };
        known.iter().any(|k| name.eq_ignore_ascii_case(k))
    };
    let Some(include) = definition.includes.iter().find(|i| !is_known(&i.what)) else { return Ok(()) };
    let message = format!("a {kind} source has no \"{}\" to include", include.what);
    Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
        .with_hint(format!("It has: {}.", known.join(", "))))
}

impl Included {
    /// Every name that INCLUDE knows.
    const NAMES: [(&'static str, Included); 8] = [
        ("key", Included::Key),
        ("topic", Included::Topic),
        ("partition", Included::Partition),
        ("offset", Included::Offset),
        ("timestamp", Included::Timestamp),
        ("headers", Included::Headers),
        // What files have in their place.
        ("path", Included::Topic),
        ("line", Included::Offset),
    ];

    /// By its name.
    ///
    /// # Errors
    /// 22023 for a name that is not known.
    pub fn new(include: &Include) -> Result<Included> {
        if let Some(quoted) = include.what.strip_prefix("header ") {
            let name = quoted.trim().trim_matches('\'').replace("''", "'");
            return Ok(Included::Header(name));
        }
        match Self::NAMES.iter().find(|(n, _)| include.what.eq_ignore_ascii_case(n)) {
            Some((_, included)) => Ok(included.clone()),
            None => {
                let mut names: Vec<&str> = Self::NAMES.iter().map(|(n, _)| *n).collect();
                names.push("header 'name'");
                let message = format!("unknown INCLUDE column \"{}\"", include.what);
                Err(Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
                    .with_hint(format!("Known: {}.", names.join(", "))))
            }
        }
    }

    /// Appends the record's own.
    pub fn append(
        &self,
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
            Included::Header(name) => {
                let mut row = Row::new(1);
                let headers = record.headers.unwrap_or("{}");
                // Sources write them; they are well formed.
                let scanned = Scanner::new(headers).object(|s, member, escaped| {
                    let mut unescaped = String::new();
                    if escaped {
                        scan::unescape(member, s.position(), &mut unescaped)?;
                    }
                    let slot = s.slot(&mut row)?;
                    if name == if escaped { unescaped.as_str() } else { member } {
                        row.set(0, slot);
                    }
                    Ok(())
                });
                match (scanned, row.cell(0, headers)) {
                    (Ok(()), cell @ Cell::Text(_)) => column.append(cell, Encoding::Plain),
                    _ => column.append(Cell::Null, Encoding::Plain),
                }
            }
        }
    }
}
