//! The columns of a table as the log describes them before each group of rows. With `binlog_row_metadata = FULL` the
//! description has all that is needed to read the rows, names included, so rows are read right whatever became of
//! the table since.

use mysql_async::binlog::events::{OptionalMetaExtractor, OptionalMetadataField, TableMapEvent};
use mysql_async::consts::ColumnType;

use super::values::{Charset, Charsets, Shape, decode};
use crate::error::{Error, Result, SqlState};

/// A table's columns at one place in the log.
#[derive(Debug)]
pub struct Layout {
    /// Names, in the order of the values.
    pub names: Vec<String>,
    /// How the values are read.
    pub shapes: Vec<Shape>,
}

impl Layout {
    /// Reads a description.
    ///
    /// # Errors
    /// 55000 when it has no names; 08P01 when it cannot be read.
    pub fn of(event: &TableMapEvent<'_>, charsets: &Charsets) -> Result<Self> {
        let extractor =
            OptionalMetaExtractor::new(event.iter_optional_meta()).map_err(|e| unreadable(event, &e))?;
        let mut names = Vec::new();
        for name in extractor.iter_column_name() {
            names.push(name.map_err(|e| unreadable(event, &e))?.name().into_owned());
        }
        let count = event.columns_count() as usize;
        if names.len() != count {
            return Err(Error::new(
                SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the binary log does not name the columns of {}", place(event)),
            )
            .with_hint("Upstream: SET GLOBAL binlog_row_metadata = 'FULL'; then drop the source here and create it anew."));
        }
        let mut charset = extractor.iter_charset();
        let mut label_charset = extractor.iter_enum_and_set_charset();
        let mut signs = extractor.iter_signedness();
        let mut labels = Labels::of(event)?;
        let mut shapes = Vec::with_capacity(count);
        for i in 0..count {
            let column_type = event
                .get_column_type(i)
                .map_err(|e| unreadable(event, &e))?
                .ok_or_else(|| unreadable(event, &"a column without a type"))?;
            let meta = event.get_column_metadata(i).unwrap_or(&[]);
            let mut shape = Shape {
                column_type,
                charset: Charset::Binary,
                length: 0,
                unsigned: false,
                labels: Vec::new(),
            };
            if column_type.is_numeric_type() {
                shape.unsigned = signs.next().unwrap_or_default();
            } else if column_type.is_character_type() {
                let collation = charset.next().transpose().map_err(|e| unreadable(event, &e))?;
                shape.charset = collation.map_or(Charset::Binary, |c| charsets.of(c));
            } else if column_type.is_enum_or_set_type() {
                let collation = label_charset.next().transpose().map_err(|e| unreadable(event, &e))?;
                let charset = collation.map_or(Charset::Utf8, |c| charsets.of(c));
                // The empty string by itself may have any character set.
                let charset = if charset == Charset::Binary { Charset::Utf8 } else { charset };
                let raw = labels.next(column_type).unwrap_or_default();
                shape.labels = raw
                    .iter()
                    .map(|bytes| {
                        let mut text = String::new();
                        decode(bytes, charset, &mut text)
                            .map_err(|_| unreadable(event, &"a label in an unknown character set"))?;
                        Ok(text)
                    })
                    .collect::<Result<_>>()?;
            }
            shape.length = match (column_type, meta) {
                (ColumnType::MYSQL_TYPE_BIT, [bits, bytes]) => usize::from(*bytes) * 8 + usize::from(*bits),
                (ColumnType::MYSQL_TYPE_STRING, [_, length]) if shape.charset == Charset::Binary => {
                    usize::from(*length)
                }
                _ => 0,
            };
            shapes.push(shape);
        }
        Ok(Layout { names, shapes })
    }
}

/// The labels of ENUM and SET columns, each kind in the columns' order.
struct Labels {
    enums: std::vec::IntoIter<Vec<Vec<u8>>>,
    sets: std::vec::IntoIter<Vec<Vec<u8>>>,
}

impl Labels {
    fn of(event: &TableMapEvent<'_>) -> Result<Self> {
        let (mut enums, mut sets) = (Vec::new(), Vec::new());
        for field in event.iter_optional_meta() {
            match field.map_err(|e| unreadable(event, &e))? {
                OptionalMetadataField::EnumStrValue(columns) => {
                    for column in columns.iter_values() {
                        let column = column.map_err(|e| unreadable(event, &e))?;
                        enums.push(column.values().iter().map(|v| v.value_raw().to_vec()).collect());
                    }
                }
                OptionalMetadataField::SetStrValue(columns) => {
                    for column in columns.iter_values() {
                        let column = column.map_err(|e| unreadable(event, &e))?;
                        sets.push(column.values().iter().map(|v| v.value_raw().to_vec()).collect());
                    }
                }
                _ => {}
            }
        }
        Ok(Labels { enums: enums.into_iter(), sets: sets.into_iter() })
    }

    fn next(&mut self, column_type: ColumnType) -> Option<Vec<Vec<u8>>> {
        if column_type == ColumnType::MYSQL_TYPE_SET { self.sets.next() } else { self.enums.next() }
    }
}

fn place(event: &TableMapEvent<'_>) -> String {
    format!("{}.{}", event.database_name(), event.table_name())
}

fn unreadable(event: &TableMapEvent<'_>, why: &dyn std::fmt::Display) -> Error {
    Error::new(
        SqlState::PROTOCOL_VIOLATION,
        format!("unreadable description of {} in the binary log: {why}", place(event)),
    )
}
