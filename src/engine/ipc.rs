//! Rows as bytes on disk: Arrow's stream format, compressed where that pays.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Int64Array, ListArray, RecordBatch, RecordBatchOptions, new_null_array,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::ipc::{CompressionType, MetadataVersion};

use crate::engine::Delta;
use crate::error::Result;

/// Rows smaller than this are stored as they are: compressing them costs more than it saves.
const COMPRESS_BYTES_MIN: usize = 4 << 10;
/// zstd's fastest ordinary level: the journal is written on the tick thread.
const COMPRESSION_LEVEL: i32 = 1;

/// Appends batches of these columns to `buffer`, without string bytes that no row refers to.
pub(crate) fn write<'a>(
    buffer: &mut Vec<u8>,
    schema: &SchemaRef,
    batches: impl Iterator<Item = &'a RecordBatch>,
) -> Result<()> {
    let own = |batch: &RecordBatch| -> Result<RecordBatch> {
        let columns = batch.columns().iter().map(compact).collect::<Result<Vec<_>>>()?;
        let rows = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &rows)?)
    };
    let batches = batches.map(own).collect::<Result<Vec<_>>>()?;
    let mut options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
    if batches.iter().any(|b| b.get_array_memory_size() >= COMPRESS_BYTES_MIN) {
        options = options
            .try_with_compression(Some(CompressionType::ZSTD))?
            .try_with_compression_level(Some(COMPRESSION_LEVEL))?;
    }
    let mut writer = StreamWriter::try_new_with_options(buffer, schema, options)?;
    for batch in &batches {
        writer.write(batch)?;
    }
    Ok(writer.finish()?)
}

/// Appends a change: its rows, and the weights as a last column where there are some. Answers whether there are.
pub(crate) fn write_delta(buffer: &mut Vec<u8>, delta: &Delta) -> Result<bool> {
    let Some(weights) = &delta.weights else {
        write(buffer, delta.rows.schema_ref(), std::iter::once(&delta.rows))?;
        return Ok(false);
    };
    let mut fields = delta.rows.schema_ref().fields().to_vec();
    fields.push(Arc::new(Field::new("weight", DataType::Int64, false)));
    let mut columns: Vec<ArrayRef> = delta.rows.columns().to_vec();
    columns.push(Arc::new(Int64Array::new(weights.clone(), None)));
    let options = RecordBatchOptions::new().with_row_count(Some(delta.rows.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
    write(buffer, batch.schema_ref(), std::iter::once(&batch))?;
    Ok(true)
}

/// What [`write_delta`] wrote, in the columns of `schema`: those that the collection got since then are NULL.
pub(crate) fn read_deltas(
    bytes: &[u8],
    schema: &SchemaRef,
    weighted: bool,
) -> Result<Vec<Delta>, ArrowError> {
    let (_, batches) = read(bytes)?;
    let mut deltas = Vec::with_capacity(batches.len());
    for batch in batches {
        let mut columns = batch.columns().to_vec();
        let weights = if weighted {
            let column = columns.pop();
            let numbers = column.as_ref().and_then(|c| c.as_primitive_opt::<Int64Type>());
            let missing = || ArrowError::SchemaError("the weights are missing or no numbers".to_string());
            Some(numbers.ok_or_else(missing)?.values().clone())
        } else {
            None
        };
        let later = schema.fields().iter().skip(columns.len());
        columns.extend(later.map(|field| new_null_array(field.data_type(), batch.num_rows())));
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let rows = RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?;
        deltas.push(Delta { rows, weights });
    }
    Ok(deltas)
}

/// What [`write()`] wrote.
pub(crate) fn read(bytes: &[u8]) -> Result<(SchemaRef, Vec<RecordBatch>), ArrowError> {
    let reader = StreamReader::try_new(bytes, None)?;
    Ok((reader.schema(), reader.collect::<Result<_, _>>()?))
}

/// A column that holds less than twice the string bytes it refers to. Views pin whole buffers, and all of a pinned
/// buffer would be written: a row cut out of a large batch would take the batch with it.
fn compact(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Utf8View => {
            let views = column.as_string_view();
            let held: usize = views.data_buffers().iter().map(|b| b.len()).sum();
            if held > 2 * views.total_buffer_bytes_used() { Arc::new(views.gc()) } else { Arc::clone(column) }
        }
        DataType::BinaryView => {
            let views = column.as_binary_view();
            let held: usize = views.data_buffers().iter().map(|b| b.len()).sum();
            if held > 2 * views.total_buffer_bytes_used() { Arc::new(views.gc()) } else { Arc::clone(column) }
        }
        DataType::List(field) => {
            let list: &ListArray = column.as_list();
            // Only the elements between the first and the last offset belong to these rows.
            let offsets = list.offsets();
            let (first, last) = (offsets[0], offsets[offsets.len() - 1]);
            let values = compact(&list.values().slice(first as usize, (last - first) as usize))?;
            let offsets = OffsetBuffer::new(offsets.iter().map(|o| o - first).collect());
            Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, list.nulls().cloned())?)
        }
        _ => Arc::clone(column),
    })
}
