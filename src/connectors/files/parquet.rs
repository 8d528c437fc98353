//! Parquet: whole columns are converted at once, by name, to the types that were declared.
//!
//! A value that its column cannot hold makes its row a bad record; a column that cannot be converted at all is told
//! once for the file.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int64Array, RecordBatch, StringViewArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{CastOptions, can_cast_types, cast, cast_with_options, filter};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use object_store::{GetOptions, ObjectStore};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::{
    AsyncFileReader, ParquetRecordBatchStream, ParquetRecordBatchStreamBuilder,
};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

use super::store::{File, Place, store_error};
use crate::connectors::SourceDefinition;
use crate::connectors::envelope::include::Included;
use crate::connectors::format::cell::{Cell, Typed};
use crate::connectors::format::column::ColumnBuilder;
use crate::connectors::format::values::Encoding;
use crate::error::{Error, Result, SqlState};
use crate::types::{SqlType, is_string};

/// So many bytes of a file's end are asked for first: mostly what describes it is in there.
const FOOTER: usize = 64 << 10;
/// Rows that are converted together.
pub(super) const ROWS: usize = 8192;

/// Parts of a file, all of the same version of it.
pub(super) struct Remote {
    store: Arc<dyn ObjectStore>,
    file: File,
}

impl AsyncFileReader for Remote {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, parquet::errors::Result<Bytes>> {
        let if_match = self.file.e_tag.clone();
        let options = GetOptions { range: Some(range.into()), if_match, ..GetOptions::default() };
        async move { Ok(self.store.get_opts(&self.file.location, options).await?.bytes().await?) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, parquet::errors::Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.file.size;
            let reader = ParquetMetaDataReader::new()
                .with_metadata_options(options.map(|o| o.metadata_options().clone()))
                .with_prefetch_hint(Some(FOOTER));
            Ok(Arc::new(reader.load_and_finish(self, size).await?))
        }
        .boxed()
    }
}

/// Why a file was not read on.
#[derive(Debug)]
pub(super) enum Unread {
    /// The store did not give it.
    Store(object_store::Error),
    /// It is not what it should be.
    File(String),
}

impl From<ParquetError> for Unread {
    fn from(error: ParquetError) -> Self {
        match error {
            ParquetError::External(inner) => match inner.downcast::<object_store::Error>() {
                Ok(store) => Unread::Store(*store),
                Err(other) => Unread::File(other.to_string()),
            },
            other => Unread::File(other.to_string()),
        }
    }
}

/// A row that did not become one.
pub(super) struct BadRow {
    /// Its number in the file, from 1.
    pub row: u64,
    pub sqlstate: SqlState,
    pub reason: String,
    /// The value, as text.
    pub raw: Option<String>,
}

/// What the source's columns are made of.
#[derive(Clone, Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    included: Vec<Included>,
}

impl Columns {
    /// Of a declared source.
    ///
    /// # Errors
    /// 22023 for an INCLUDE.
    pub(super) fn new(definition: &SourceDefinition, schema: &SchemaRef) -> Result<Columns> {
        let included = definition.includes.iter().map(Included::new).collect::<Result<_>>()?;
        Ok(Columns { schema: Arc::clone(schema), included })
    }

    fn declared(&self) -> &[Arc<Field>] {
        let declared = self.schema.fields().len().saturating_sub(self.included.len());
        self.schema.fields().get(..declared).unwrap_or_default()
    }

    /// Rows of a file, the first of which has the number `first`, as rows of the source; and those that are none.
    ///
    /// # Errors
    /// What is wrong with the whole file.
    pub(super) fn convert(
        &self,
        rows: &RecordBatch,
        file: &File,
        first: u64,
    ) -> std::result::Result<(RecordBatch, Vec<BadRow>), String> {
        let count = rows.num_rows();
        let mut columns: Vec<ArrayRef> = Vec::with_capacity(self.schema.fields().len());
        let mut bad: Vec<BadRow> = Vec::new();
        let mut good = vec![true; count];
        for field in self.declared() {
            let given = position(rows.schema_ref(), field.name()).map(|i| rows.column(i));
            let (column, mut failures) = match given {
                Some(given) => {
                    convert(given, field).map_err(|why| format!("column \"{}\": {why}", field.name()))?
                }
                None => (new_null_array(field.data_type(), count), Vec::new()),
            };
            if !field.is_nullable() && column.null_count() > 0 {
                let missing = (0..count).filter(|i| column.is_null(*i));
                for row in missing {
                    if failures.iter().all(|(at, ..)| *at != row) {
                        let why = "the field is null, and the column is NOT NULL".to_string();
                        failures.push((row, SqlState::NOT_NULL_VIOLATION, why));
                    }
                }
            }
            for (row, sqlstate, why) in failures {
                if let Some(is_good) = good.get_mut(row).filter(|g| **g) {
                    *is_good = false;
                    let raw = given.and_then(|g| text_at(g, row));
                    let reason = format!("column \"{}\": {why}", field.name());
                    bad.push(BadRow { row: first + row as u64, sqlstate, reason, raw });
                }
            }
            columns.push(column);
        }
        for included in &self.included {
            columns.push(match included {
                Included::Topic => Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
                    file.path.as_str(),
                    count,
                ))),
                Included::Timestamp => Arc::new(
                    TimestampMicrosecondArray::from_value(file.modified.timestamp_micros(), count)
                        .with_timezone("+00:00"),
                ),
                _ => {
                    let number = |i: usize| i64::try_from(first + i as u64).unwrap_or(i64::MAX);
                    Arc::new(Int64Array::from_iter_values((0..count).map(number)))
                }
            });
        }
        if !bad.is_empty() {
            let good = BooleanArray::from(good);
            for column in &mut columns {
                *column = filter(column, &good).map_err(|e| e.to_string())?;
            }
        }
        let rows = RecordBatch::try_new(Arc::clone(&self.schema), columns).map_err(|e| e.to_string())?;
        Ok((rows, bad))
    }

    /// A file's rows but for the first `skip`, with the columns that are wanted.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(super) async fn open(
        &self,
        place: &Place,
        file: &File,
        skip: u64,
    ) -> std::result::Result<ParquetRecordBatchStream<Remote>, Unread> {
        let builder = builder(place, file).await?;
        let wanted: Vec<usize> =
            self.declared().iter().filter_map(|f| position(builder.schema(), f.name())).collect();
        let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        Ok(builder.with_projection(mask).with_offset(skip).with_batch_size(ROWS).build()?)
    }
}

async fn builder(
    place: &Place,
    file: &File,
) -> std::result::Result<ParquetRecordBatchStreamBuilder<Remote>, Unread> {
    let reader = Remote { store: Arc::clone(&place.store), file: file.clone() };
    Ok(ParquetRecordBatchStreamBuilder::new(reader).await?)
}

/// The next rows of a file; `None`: there are no more.
pub(super) async fn next(
    stream: &mut ParquetRecordBatchStream<Remote>,
) -> std::result::Result<Option<RecordBatch>, Unread> {
    stream.next().await.transpose().map_err(Unread::from)
}

/// A column by its name, or by its name in another case.
fn position(schema: &Schema, name: &str) -> Option<usize> {
    let by_case = || schema.fields().iter().position(|f| f.name().eq_ignore_ascii_case(name));
    schema.fields().iter().position(|f| f.name() == name).or_else(by_case)
}

fn text_at(array: &ArrayRef, row: usize) -> Option<String> {
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(array.as_ref(), &options).ok()?;
    Some(formatter.value(row).to_string())
}

/// A row that a column could not take, and why.
type BadValue = (usize, SqlState, String);

/// A column as another type; values that do not fit are NULL, and listed.
fn convert(given: &ArrayRef, field: &Field) -> std::result::Result<(ArrayRef, Vec<BadValue>), String> {
    let (from, to) = (given.data_type(), field.data_type());
    let sql_type = SqlType::of(field);
    let plain_text = is_string(to) && !matches!(sql_type, SqlType::Json | SqlType::Jsonb | SqlType::Uuid);
    let by_value = match from {
        DataType::FixedSizeBinary(16) | DataType::Binary | DataType::LargeBinary => sql_type == SqlType::Uuid,
        from if is_string(from) => !plain_text && *to != DataType::Binary,
        _ => false,
    };
    if by_value {
        return convert_values(given, field);
    }
    let documents = matches!(sql_type, SqlType::Json | SqlType::Jsonb | SqlType::Uuid);
    let rounds = from.is_floating() && to.is_integer();
    if documents || rounds || !can_cast_types(from, to) {
        return Err(format!("a column of type {from} cannot be read as {sql_type}"));
    }
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let column = cast_with_options(given, to, &options).map_err(|e| e.to_string())?;
    let mut bad = Vec::new();
    if column.null_count() > given.null_count() {
        let lost = (0..given.len()).filter(|i| column.is_null(*i) && given.is_valid(*i));
        bad.extend(lost.map(|i| {
            (
                i,
                SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
                format!("the value is no {sql_type}, or out of its range"),
            )
        }));
    }
    Ok((column, bad))
}

/// As [`convert`], value by value: what is written as text, by PostgreSQL's rules.
fn convert_values(given: &ArrayRef, field: &Field) -> std::result::Result<(ArrayRef, Vec<BadValue>), String> {
    let nullable = Arc::new(field.clone().with_nullable(true));
    let mut column = ColumnBuilder::new(&nullable).map_err(|e| e.message)?;
    let binary = !is_string(given.data_type());
    let given = cast(given, if binary { &DataType::Binary } else { &DataType::Utf8View })
        .map_err(|e| e.to_string())?;
    let is_document = matches!(SqlType::of(field), SqlType::Json | SqlType::Jsonb);
    let encoding = if is_document { Encoding::JsonText } else { Encoding::Plain };
    let mut bad = Vec::new();
    for row in 0..given.len() {
        let cell = match (given.is_null(row), binary) {
            (true, _) => Cell::Null,
            (false, true) => Cell::Typed(Typed::Bytes(given.as_binary::<i32>().value(row))),
            (false, false) => Cell::Text(given.as_string_view().value(row)),
        };
        if let Err(e) = column.append(cell, encoding) {
            column.append_filler();
            bad.push((row, e.sqlstate, e.message));
        }
    }
    Ok((column.finish().map_err(|e| e.message)?, bad))
}

/// The columns of a file, as SQL has them.
///
/// # Errors
/// The store's; 22000 for a file that is no Parquet; 0A000 for types that have to be declared otherwise.
pub(super) async fn columns_of(place: &Place, file: &File) -> Result<SchemaRef> {
    let builder = builder(place, file).await.map_err(|why| match why {
        Unread::Store(e) => store_error(&e),
        Unread::File(why) => Error::new(SqlState::DATA_EXCEPTION, format!("{}: {why}", file.path)),
    })?;
    sql_columns(builder.schema(), &file.path)
}

/// The columns of a file at `path`, as SQL has them.
///
/// # Errors
/// 0A000 for types that have to be declared otherwise.
pub(super) fn sql_columns(schema: &Schema, path: &str) -> Result<SchemaRef> {
    let field = |f: &Arc<Field>| {
        let sql_type = sql_type(f.data_type()).ok_or_else(|| {
            Error::unsupported(format!("column \"{}\" of type {}", f.name(), f.data_type()))
                .with_detail(format!("It is in {path}."))
                .with_hint("Declare the columns that are wanted.")
        })?;
        Ok(sql_type.field_ref(f.name(), true))
    };
    let fields = schema.fields().iter().map(field).collect::<Result<Vec<_>>>()?;
    Ok(Arc::new(Schema::new(fields)))
}

fn sql_type(data_type: &DataType) -> Option<SqlType> {
    Some(match data_type {
        DataType::Boolean => SqlType::Bool,
        DataType::Int8 | DataType::UInt8 | DataType::Int16 => SqlType::Int2,
        DataType::UInt16 | DataType::Int32 => SqlType::Int4,
        DataType::UInt32 | DataType::Int64 => SqlType::Int8,
        DataType::UInt64 => SqlType::Numeric(Some((20, 0))),
        DataType::Float16 | DataType::Float32 => SqlType::Float4,
        DataType::Float64 => SqlType::Float8,
        DataType::Decimal128(precision, scale) => SqlType::Numeric(Some((*precision, *scale))),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => SqlType::Text,
        DataType::Binary | DataType::LargeBinary | DataType::FixedSizeBinary(_) => SqlType::Bytea,
        DataType::Date32 | DataType::Date64 => SqlType::Date,
        DataType::Time32(_) | DataType::Time64(_) => SqlType::Time,
        DataType::Timestamp(_, zone) => {
            if zone.is_some() {
                SqlType::Timestamptz
            } else {
                SqlType::Timestamp
            }
        }
        DataType::Dictionary(_, values) => sql_type(values)?,
        DataType::List(item) | DataType::LargeList(item) => match sql_type(item.data_type())? {
            SqlType::Array(_) => return None,
            item => SqlType::Array(Box::new(item)),
        },
        _ => return None,
    })
}
