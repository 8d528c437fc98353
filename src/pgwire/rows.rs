//! Rows of a running statement on their way to the client: as many as it asked for, never more than a batch in memory.

use futures::StreamExt;

use datafusion::execution::SendableRecordBatchStream;

use crate::error::Error;
use crate::pgwire::copy::CopyWriter;
use crate::pgwire::encode::{EncodableBatch, RowEncoder};
use crate::pgwire::io::{End, Io};

/// Why an answer was not finished.
pub enum Halt {
    /// The statement failed; the client is told, the session goes on.
    Failed(Error),
    /// The connection ends.
    End(End),
}

impl From<Error> for Halt {
    fn from(e: Error) -> Self {
        Halt::Failed(e)
    }
}

impl From<End> for Halt {
    fn from(e: End) -> Self {
        Halt::End(e)
    }
}

/// A stream of rows, and how far it was sent.
pub struct Rows {
    encoder: RowEncoder,
    stream: SendableRecordBatchStream,
    /// The batch in hand and its next row.
    batch: Option<(EncodableBatch, usize)>,
    tag: fn(u64) -> String,
}

/// What became of an attempt to send rows.
pub enum Sent {
    /// All of them; the command tag.
    All(String),
    /// As many as were asked for; there may be more.
    Suspended,
}

impl Rows {
    /// Rows that nothing was sent of yet.
    pub fn new(encoder: RowEncoder, stream: SendableRecordBatchStream, tag: fn(u64) -> String) -> Rows {
        Rows { encoder, stream, batch: None, tag }
    }

    /// What makes the command tag of a number of rows.
    pub fn tag(&self) -> fn(u64) -> String {
        self.tag
    }

    /// Sends rows as DataRow messages, `rows_max` at most (0: all).
    pub async fn send(&mut self, io: &mut Io, rows_max: u32) -> Result<Sent, Halt> {
        let mut sent: u64 = 0;
        loop {
            let Some((batch, next)) = self.batch.as_mut().filter(|(batch, next)| *next < batch.num_rows())
            else {
                match io.watch_stream(self.stream.next()).await? {
                    None => return Ok(Sent::All((self.tag)(sent))),
                    Some(batch) => {
                        let batch = batch.map_err(Error::from)?;
                        self.batch = Some((self.encoder.batch(&batch)?, 0));
                    }
                }
                continue;
            };
            batch.write_data_row(*next, &mut io.out.buf)?;
            *next += 1;
            sent += 1;
            io.flush_if_large().await?;
            // Without asking for one more row, which may be long in coming: as in PostgreSQL, a portal whose rows
            // are all sent is suspended, too, when the limit is just met.
            if sent == u64::from(rows_max) {
                return Ok(Sent::Suspended);
            }
        }
    }
}

/// Sends all rows as COPY data; answers with how many there were.
pub async fn copy_out(
    io: &mut Io,
    encoder: &RowEncoder,
    mut stream: SendableRecordBatchStream,
    mut writer: CopyWriter,
) -> Result<u64, Halt> {
    io.out.copy_out(encoder.width())?;
    writer.write_header(encoder.names(), &mut io.out.buf)?;
    let mut sent = 0;
    while let Some(batch) = io.watch_stream(stream.next()).await? {
        let batch = encoder.batch(&batch.map_err(Error::from)?)?;
        for row in 0..batch.num_rows() {
            writer.write_row(&batch, row, &mut io.out.buf)?;
            sent += 1;
            io.flush_if_large().await?;
        }
    }
    io.out.copy_done()?;
    Ok(sent)
}
