//! Avro's object container files: blocks of rows behind the schema that they were written by. They become Arrow columns
//! as those of Parquet do, and are converted by the same rules.

use std::io::{BufReader, Read};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::reader::{Reader, ReaderBuilder};

use super::parquet::ROWS;

/// Rows of a file.
pub(super) struct Rows<'a>(Reader<BufReader<Box<dyn Read + 'a>>>);

impl<'a> Rows<'a> {
    /// Of a file whose bytes come from `input`.
    ///
    /// # Errors
    /// It is no Avro file.
    pub(super) fn new(input: Box<dyn Read + 'a>) -> Result<Rows<'a>, String> {
        let reader = ReaderBuilder::new().with_batch_size(ROWS).build(BufReader::new(input));
        reader.map(Rows).map_err(|e| e.to_string())
    }

    /// The columns that it was written with.
    pub(super) fn schema(&self) -> SchemaRef {
        self.0.schema()
    }

    /// The next rows; `None`: there are no more.
    ///
    /// # Errors
    /// The file cannot be read further.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        self.0.next().transpose().map_err(|e| e.to_string())
    }
}
