//! The DATAGEN source: rows at random, by the columns' types. Row `n` is a function of the seed and `n`.
//!
//! Per column, options say more: `fields.NAME.kind` = `sequence` (the row's number, from `min`) or `random`;
//! `fields.NAME.min` and `.max` for numbers; `fields.NAME.length` for text and bytea. Without them the key's columns and a
//! column `id` are sequences, times go on by 1 ms a row from 2024-01-01, and all else is random.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, SchemaRef};

use super::chance::mixed;
use super::pace::{Pace, decode_position, encode_position};
use crate::connectors::format::cell::Cell;
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::datetime::{MICROS_PER_DAY, write_date, write_time, write_timestamp};
use crate::connectors::format::rows::RowsBuilder;
use crate::connectors::format::values::Encoding;
use crate::connectors::{Discovered, Options, Source, SourceBatch, SourceContext, SourceDefinition};
use crate::engine::{Delta, InputChange};
use crate::error::{Error, Result, SqlState};
use crate::types::SqlType;

/// 2024-01-01T00:00:00Z, µs since 1970.
const FIRST_TIME_MICROS: i64 = 1_704_067_200_000_000;
/// Days after it that random dates fall into.
const DAYS: u64 = 365;
/// Text and bytea have so many characters or bytes unless they are told otherwise.
const LENGTH: u64 = 10;
/// The longest that they may be told.
const LENGTH_MAX: u64 = 100_000;

/// How a column's values are made.
#[derive(Clone, Debug)]
struct Column {
    make: Make,
    sequence: bool,
    min: i64,
    max: i64,
    length: u64,
    salt: u64,
}

/// What a column's values look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Make {
    Boolean,
    Integer,
    /// A decimal of this scale; floats have two digits behind the point too.
    Decimal(u32),
    Text,
    Bytes,
    Uuid,
    Json,
    Date,
    Time,
    Timestamp,
}

struct Datagen {
    rate: u64,
    rows: Option<u64>,
    columns: Vec<Column>,
    keyed: bool,
}

/// The source: options `rate` (rows a second, 0 for as fast as they are taken), `seed`, `rows`, and `fields.…`.
///
/// # Errors
/// 22023 for options; 0A000 for a column's type that has no random values.
pub fn source(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Box<dyn Source>> {
    const WHOLE: &str = "a whole number, 0 or more";
    let mut options = Options::new("a DATAGEN source", definition.options.clone());
    let mut fields = options.take_prefixed("fields.");
    let rate = options.parse("rate", WHOLE)?.unwrap_or(0);
    let rows = options.parse("rows", WHOLE)?;
    let seed: u32 = options.parse("seed", WHOLE)?.unwrap_or(0);
    options.finish()?;
    let column = |(i, field): (usize, &Arc<Field>)| {
        let is_key = definition.key.contains(&i) || field.name() == "id";
        Column::new(field, is_key, (u64::from(seed) << 8) + i as u64, &mut fields)
    };
    let columns = schema.fields().iter().enumerate().map(column).collect::<Result<_>>()?;
    if let Some((name, _)) = fields.first() {
        return Err(invalid(format!("unknown option \"fields.{name}\" of a DATAGEN source"))
            .with_hint("Known options: fields.COLUMN.kind, .min, .max, .length."));
    }
    Ok(Box::new(Datagen { rate, rows, columns, keyed: !definition.key.is_empty() }))
}

/// Any columns will do: there is nothing to discover.
///
/// # Errors
/// Always 0A000: the columns must be declared.
pub fn discover(_definition: &SourceDefinition) -> Result<Vec<Discovered>> {
    Err(Error::unsupported("a DATAGEN source without a list of columns"))
}

/// The declared key.
///
/// # Errors
/// None.
pub fn output_key(definition: &SourceDefinition, _schema: &SchemaRef) -> Result<Vec<usize>> {
    Ok(definition.key.clone())
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

impl Column {
    fn new(field: &Field, is_key: bool, salt: u64, options: &mut Vec<(String, String)>) -> Result<Self> {
        let make = match (SqlType::of(field), field.data_type()) {
            (SqlType::Uuid, _) => Make::Uuid,
            (SqlType::Json | SqlType::Jsonb, _) => Make::Json,
            (_, DataType::Boolean) => Make::Boolean,
            (_, DataType::Int16 | DataType::Int32 | DataType::Int64) => Make::Integer,
            (_, DataType::Float32 | DataType::Float64) => Make::Decimal(2),
            (_, DataType::Decimal128(_, scale)) => Make::Decimal((*scale).max(0) as u32),
            (_, DataType::Utf8View) => Make::Text,
            (_, DataType::Binary) => Make::Bytes,
            (_, DataType::Date32) => Make::Date,
            (_, DataType::Time64(_)) => Make::Time,
            (_, DataType::Timestamp(..)) => Make::Timestamp,
            (sql_type, _) => return Err(Error::unsupported(format!("random values of type {sql_type}"))),
        };
        let mut take = |what: &str| {
            let name = format!("{}.{what}", field.name());
            let i = options.iter().position(|(n, _)| *n == name)?;
            Some(options.remove(i).1)
        };
        let number = |what: &str, text: Option<String>| match text {
            None => Ok(None),
            Some(text) => text.parse::<i64>().map(Some).map_err(|_| {
                invalid(format!(
                    "option \"fields.{}.{what}\" must be a whole number, not \"{text}\"",
                    field.name()
                ))
            }),
        };
        let sequence = match take("kind").as_deref() {
            None => is_key || make == Make::Timestamp,
            Some("sequence") => true,
            Some("random") => false,
            Some(other) => {
                return Err(invalid(format!(
                    "option \"fields.{}.kind\" must be 'sequence' or 'random', not \"{other}\"",
                    field.name()
                )));
            }
        };
        let largest = match field.data_type() {
            DataType::Int16 => i64::from(i16::MAX),
            DataType::Decimal128(p, s) => {
                let digits = u32::try_from(i16::from(*p) - i16::from(*s)).unwrap_or(0);
                10i64.checked_pow(digits.min(6)).map_or(1_000_000, |n| n - 1)
            }
            _ => 1_000_000,
        };
        let column = Column {
            make,
            sequence,
            min: number("min", take("min"))?.unwrap_or(0),
            max: number("max", take("max"))?.unwrap_or(largest),
            length: match number("length", take("length"))? {
                None => LENGTH,
                Some(n) => u64::try_from(n).ok().filter(|n| *n <= LENGTH_MAX).ok_or_else(|| {
                    invalid(format!("option \"fields.{}.length\" must be 0 to {LENGTH_MAX}", field.name()))
                })?,
            },
            salt,
        };
        if column.max < column.min {
            return Err(invalid(format!("options of field \"{}\": max is less than min", field.name())));
        }
        Ok(column)
    }

    /// A number of the column's range, for row `n`.
    fn number(&self, n: u64) -> i64 {
        if self.sequence {
            return self.min.saturating_add(i64::try_from(n).unwrap_or(i64::MAX));
        }
        // Both are i64, so the span is a u64, and min plus less than it an i64 again.
        let span = self.max.wrapping_sub(self.min) as u64;
        let offset = mixed(n, self.salt) % span.saturating_add(1).max(1);
        self.min.wrapping_add(offset as i64)
    }

    /// Appends the value of row `n`; `text` is room for it.
    fn append(
        &self,
        n: u64,
        text: &mut String,
        column: &mut ColumnBuilder,
    ) -> std::result::Result<(), crate::connectors::format::values::FieldError> {
        use std::fmt::Write;
        text.clear();
        let chance = mixed(n, self.salt);
        let mut encoding = Encoding::Plain;
        let written = match self.make {
            Make::Boolean => return column.append(Cell::Bool(chance & 1 == 1), encoding),
            Make::Integer => return column.append_integer(self.number(n)),
            Make::Decimal(0) => write!(text, "{}", self.number(n)),
            Make::Decimal(scale) => {
                write!(
                    text,
                    "{}.{:02$}",
                    self.number(n),
                    mixed(chance, 1) % 10u64.pow(scale.min(9)),
                    scale.min(9) as usize
                )
            }
            Make::Text | Make::Json if self.sequence => write!(text, "{}", self.number(n)),
            Make::Text => {
                text.extend((0..self.length).map(|i| (b'a' + (mixed(chance, i) % 26) as u8) as char));
                Ok(())
            }
            Make::Json => write!(text, "{{\"value\": {}}}", self.number(n)),
            Make::Bytes => {
                encoding = Encoding::Hex;
                (0..self.length).try_for_each(|i| write!(text, "{:02x}", mixed(chance, i) as u8))
            }
            Make::Uuid => {
                let bits =
                    (u128::from(if self.sequence { n } else { chance }) << 64) | u128::from(mixed(chance, 2));
                write!(
                    text,
                    "{}",
                    uuid::Builder::from_u128(bits).with_version(uuid::Version::Random).into_uuid()
                )
            }
            Make::Date => {
                write_date(FIRST_TIME_MICROS / MICROS_PER_DAY + (chance % DAYS) as i64, text);
                Ok(())
            }
            Make::Time => {
                write_time((chance % MICROS_PER_DAY as u64) as i64, text);
                Ok(())
            }
            Make::Timestamp => {
                let step = if self.sequence {
                    n.saturating_mul(1000)
                } else {
                    chance % (DAYS * MICROS_PER_DAY as u64)
                };
                // Beyond what a date is written as, time stands still.
                let step = step.min(1_000 * DAYS * MICROS_PER_DAY as u64);
                write_timestamp(FIRST_TIME_MICROS + step as i64, ' ', text);
                Ok(())
            }
        };
        debug_assert!(written.is_ok(), "writing to a String does not fail");
        let cell = if self.make == Make::Json { Cell::Nested(text) } else { Cell::Text(text) };
        column.append(cell, encoding)
    }
}

impl Source for Datagen {
    fn run(self: Box<Self>, cx: SourceContext) -> Result<()> {
        let [output] = &cx.outputs[..] else {
            return Err(Error::internal("a DATAGEN source fills exactly one collection"));
        };
        let mut rows = RowsBuilder::new(Arc::clone(&output.schema))?;
        let mut position = decode_position(cx.resume.as_deref())?;
        let pace = Pace::new(self.rate, self.rows, position);
        let mut text = String::new();
        cx.status.update(|s| {
            s.state = "running";
            s.error = None;
        });
        loop {
            let due = pace.due(position, &cx.stop);
            if due == 0 {
                break;
            }
            for n in position..position + due as u64 {
                rows.push(|i, column| match self.columns.get(i) {
                    Some(made) => made.append(n, &mut text, column).map(|()| true),
                    None => Ok(false),
                })
                .map_err(|bad| {
                    Error::new(
                        bad.error.sqlstate,
                        format!("column \"{}\" of row {n}: {}", bad.column, bad.error.message),
                    )
                })?;
            }
            position += due as u64;
            let rows = rows.finish()?;
            let change = if self.keyed {
                InputChange::Upsert { rows, deletes: None }
            } else {
                InputChange::Delta(Delta { rows, weights: None })
            };
            cx.feed.submit_nowait(SourceBatch {
                changes: vec![(output.collection, change)],
                position: Some(encode_position(position)),
                ..SourceBatch::default()
            })?;
            let left = self.rows.map(|end| end.saturating_sub(position));
            cx.status.update(|s| {
                s.rows += due as u64;
                s.lag = left;
            });
        }
        if !cx.stop.is_set() {
            cx.status.update(|s| s.state = "finished");
        }
        Ok(())
    }
}
