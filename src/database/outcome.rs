//! What a statement answers.

use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;

use crate::database::copy::CopyIn;
use crate::database::{CopyFormat, Notice};

/// The answer to one statement.
pub enum Outcome {
    /// Rows, read as they are made. The statement goes on until the stream ends or is dropped.
    Rows {
        /// Columns of the rows.
        schema: SchemaRef,
        /// The rows. An error ends it.
        stream: SendableRecordBatchStream,
        /// The command tag, from the number of rows that were sent.
        tag: fn(u64) -> String,
        /// What else the client is to be told.
        notices: Vec<Notice>,
    },
    /// No rows.
    Done {
        /// The command tag: `INSERT 0 1`.
        tag: String,
        /// What else the client is to be told.
        notices: Vec<Notice>,
    },
    /// COPY … FROM STDIN: the client is to send data, then [`crate::database::Session::copy_finish`].
    CopyIn(Box<CopyIn>),
    /// COPY … TO STDOUT; the tag is `COPY n`.
    CopyOut {
        /// Columns of the rows.
        schema: SchemaRef,
        /// How they are to be written.
        format: CopyFormat,
        /// The rows. An error ends it.
        stream: SendableRecordBatchStream,
    },
    /// There was no statement.
    Empty,
}

impl Outcome {
    /// An answer without rows and without notices.
    pub(crate) fn done(tag: impl Into<String>) -> Outcome {
        Outcome::Done { tag: tag.into(), notices: Vec::new() }
    }

    /// Rows with the tag `SELECT n`.
    pub(crate) fn select(stream: SendableRecordBatchStream) -> Outcome {
        Outcome::Rows { schema: stream.schema(), stream, tag: |n| format!("SELECT {n}"), notices: Vec::new() }
    }
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Rows { schema, .. } => {
                f.debug_struct("Rows").field("schema", schema).finish_non_exhaustive()
            }
            Outcome::Done { tag, notices } => {
                f.debug_struct("Done").field("tag", tag).field("notices", notices).finish()
            }
            Outcome::CopyIn(_) => f.write_str("CopyIn"),
            Outcome::CopyOut { format, .. } => {
                f.debug_struct("CopyOut").field("format", format).finish_non_exhaustive()
            }
            Outcome::Empty => f.write_str("Empty"),
        }
    }
}
