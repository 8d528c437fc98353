//! The files of a batch: Parquet, compressed with zstd, cut at a size that warehouses load well.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::consolidate::{Net, Op};
use super::encode::Encoding;
use super::{Shape, StagedFile, Step, batch_of, column, schema_of};
use crate::error::{Error, Result, SqlState};

/// Rows between two looks at the size of the file that is being written.
const SLICE_ROWS: usize = 8 << 10;

/// The batch as it is staged: the encoded columns, and before them, where the shape has operations,
/// the operation and for rows without a key their hash and copy.
pub fn staged_rows(shape: &Shape, net: &Net, encoded: &RecordBatch) -> Result<RecordBatch> {
    if !shape.has_ops() {
        return Ok(encoded.clone());
    }
    let mut fields = vec![Field::new(column::OP, DataType::Utf8, false)];
    let mut columns: Vec<ArrayRef> =
        vec![Arc::new(StringArray::from_iter_values(net.ops.iter().map(|op| op.letter())))];
    if !net.hashes.is_empty() {
        fields.push(Field::new(column::ROW, DataType::Utf8, false));
        columns.push(Arc::new(StringArray::from_iter_values(net.hashes.iter().map(|h| format!("{h:032x}")))));
        fields.push(Field::new(column::SEQ, DataType::Int64, false));
        columns.push(Arc::new(Int64Array::from(net.copies.clone())));
    }
    fields.extend(encoded.schema_ref().fields().iter().map(|f| f.as_ref().clone()));
    columns.extend(encoded.columns().iter().cloned());
    batch_of(schema_of(fields), columns, encoded.num_rows())
}

/// Writes rows to as many files as their size asks for and hands each to `put`; no rows, no files.
pub fn write_files(
    rows: &RecordBatch,
    file_bytes: usize,
    mut put: impl FnMut(&str, Bytes) -> Step<()>,
) -> Step<Vec<StagedFile>> {
    let mut files = Vec::new();
    let mut at = 0;
    while at < rows.num_rows() {
        let first = at;
        let mut writer = parquet_writer(rows)?;
        while at < rows.num_rows() && writer.bytes_written() + writer.in_progress_size() < file_bytes {
            let slice = rows.slice(at, SLICE_ROWS.min(rows.num_rows() - at));
            writer.write(&slice).map_err(parquet_error)?;
            at += slice.num_rows();
        }
        let bytes = Bytes::from(writer.into_inner().map_err(parquet_error)?);
        let name = format!("{:05}.parquet", files.len());
        let file = StagedFile { rows: (at - first) as u64, bytes: bytes.len() as u64, name };
        put(&file.name, bytes)?;
        files.push(file);
    }
    Ok(files)
}

/// The rows with intervals, of which Parquet knows nothing, as text.
pub fn plain(rows: &RecordBatch) -> Result<RecordBatch> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in rows.schema_ref().fields().iter().zip(rows.columns()) {
        let column = match field.data_type() {
            DataType::Interval(_) => Encoding::IntervalText.apply(column)?,
            _ => column.clone(),
        };
        fields.push(Field::new(field.name(), column.data_type().clone(), true));
        columns.push(column);
    }
    batch_of(schema_of(fields), columns, rows.num_rows())
}

/// One Parquet file with these rows; a file without rows still says its columns.
pub fn parquet_bytes(rows: &RecordBatch) -> Result<Vec<u8>> {
    let mut writer = parquet_writer(rows)?;
    writer.write(rows).map_err(parquet_error)?;
    writer.into_inner().map_err(parquet_error)
}

fn parquet_writer(rows: &RecordBatch) -> Result<ArrowWriter<Vec<u8>>> {
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(1 << 20))
        .set_created_by("tidemill".to_string())
        .build();
    ArrowWriter::try_new(Vec::new(), rows.schema(), Some(properties)).map_err(parquet_error)
}

/// All rows of a Parquet file.
pub fn read_parquet(bytes: Bytes) -> Result<Vec<RecordBatch>> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes)
        .and_then(|builder| builder.with_batch_size(64 << 10).build())
        .map_err(parquet_error)?;
    Ok(reader.collect::<std::result::Result<_, _>>()?)
}

/// The operations and the rows of a staged batch that has operations and a key.
pub fn split_ops(staged: &RecordBatch) -> Result<(Vec<Op>, RecordBatch)> {
    let letters = staged
        .column_by_name(column::OP)
        .and_then(|c| c.as_any().downcast_ref::<StringArray>())
        .ok_or_else(|| Error::new(SqlState::DATA_CORRUPTED, "a staged file has no operations"))?;
    let ops = letters.iter().map(|l| Op::from_letter(l.unwrap_or_default())).collect::<Result<_>>()?;
    let own = [column::OP, column::ROW, column::SEQ];
    let kept: Vec<usize> = (0..staged.num_columns())
        .filter(|&i| !own.contains(&staged.schema_ref().field(i).name().as_str()))
        .collect();
    Ok((ops, staged.project(&kept)?))
}

/// A Parquet error as a user's.
pub fn parquet_error(e: ParquetError) -> Error {
    match e {
        ParquetError::External(e) => Error::new(SqlState::IO_ERROR, e.to_string()),
        e => Error::new(SqlState::DATA_CORRUPTED, e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::Int64Type;

    #[test]
    fn files_are_cut_by_size_and_hold_every_row_once() {
        let mut mixed = 1_i64;
        let values = (0..50_000).map(|_| {
            mixed = mixed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            mixed
        });
        let rows =
            RecordBatch::try_from_iter([("n", Arc::new(Int64Array::from_iter_values(values)) as ArrayRef)])
                .unwrap();
        let mut back = Vec::new();
        let files = write_files(&rows, 100_000, |_, bytes| {
            back.extend(read_parquet(bytes)?);
            Ok(())
        })
        .unwrap();
        assert!(files.len() > 1, "{files:?}");
        assert_eq!(files.iter().map(|f| f.rows).sum::<u64>(), 50_000);
        let read: Vec<i64> =
            back.iter().flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
        assert_eq!(read, *rows.column(0).as_primitive::<Int64Type>().values());
        assert!(
            write_files(&rows.slice(0, 0), 100, |_, _| panic!("a file without rows")).unwrap().is_empty()
        );
    }
}
