//! Avro's object container files: blocks of rows behind the schema that they were written by. They become Arrow columns
//! as those of Parquet do, and are converted by the same rules.

use std::io::{self, BufReader, Read};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow_avro::reader::{Reader, ReaderBuilder};
use parking_lot::Mutex;

use super::parquet::ROWS;

/// So long is what every block, and so every file, ends with.
const SYNC: usize = 16;

/// Remembers the last bytes that were read.
struct Ending<'a> {
    input: Box<dyn Read + 'a>,
    last: Arc<Mutex<Vec<u8>>>,
}

impl Read for Ending<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.input.read(out)?;
        let mut last = self.last.lock();
        last.extend_from_slice(out.get(n.saturating_sub(SYNC)..n).unwrap_or_default());
        let surplus = last.len().saturating_sub(SYNC);
        last.drain(..surplus);
        Ok(n)
    }
}

/// Rows of a file.
pub(super) struct Rows<'a> {
    reader: Reader<BufReader<Ending<'a>>>,
    last: Arc<Mutex<Vec<u8>>>,
}

impl<'a> Rows<'a> {
    /// Of a file whose bytes come from `input`.
    ///
    /// # Errors
    /// It is no Avro file.
    pub(super) fn new(input: Box<dyn Read + 'a>) -> Result<Rows<'a>, String> {
        let last = Arc::default();
        let input = BufReader::new(Ending { input, last: Arc::clone(&last) });
        let reader = ReaderBuilder::new().with_batch_size(ROWS).build(input).map_err(|e| e.to_string())?;
        Ok(Rows { reader, last })
    }

    /// The columns that it was written with.
    pub(super) fn schema(&self) -> SchemaRef {
        self.reader.schema()
    }

    /// The next rows; `None`: there are no more.
    ///
    /// # Errors
    /// The file cannot be read further.
    pub(super) fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        let rows = self.reader.next().transpose().map_err(|e| e.to_string())?;
        // The reader takes a block that breaks off for the end.
        if rows.is_none() && self.last.lock()[..] != self.reader.avro_header().sync() {
            return Err("the file breaks off: it does not end as its blocks do".to_string());
        }
        Ok(rows)
    }
}
