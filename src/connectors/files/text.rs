//! A file's bytes as a stream of records: fetched piece by piece, decompressed, cut.

use std::io::{self, Read};
use std::sync::Arc;

use bytes::{Buf, Bytes};
use futures::StreamExt;
use futures::stream::BoxStream;
use parking_lot::Mutex;
use tokio::runtime::Runtime;

use crate::connectors::format::records::Splitter;
use crate::error::{Error, Result, SqlState};

/// How much is asked for at once.
const PIECE: usize = 256 << 10;

/// How a file is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compression {
    /// By its name: `.gz`, `.zst`.
    Auto,
    None,
    Gzip,
    Zstd,
}

impl Compression {
    /// By its name in the option.
    pub(super) fn new(name: &str) -> Result<Compression> {
        match name.to_ascii_lowercase().as_str() {
            "auto" => Ok(Compression::Auto),
            "none" => Ok(Compression::None),
            "gzip" => Ok(Compression::Gzip),
            "zstd" => Ok(Compression::Zstd),
            _ => Err(Error::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("option \"compression\" must be auto, none, gzip or zstd, not \"{name}\""),
            )),
        }
    }
}

/// Why the store's bytes ended too soon, which a decompressor in between would not tell.
pub(super) type Broken = Arc<Mutex<Option<object_store::Error>>>;

/// What a store sends, read by a thread that waits.
struct Download<'a> {
    runtime: &'a Runtime,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    piece: Bytes,
    broken: Broken,
}

impl Read for Download<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while self.piece.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(Ok(piece)) => self.piece = piece,
                Some(Err(error)) => {
                    let message = error.to_string();
                    *self.broken.lock() = Some(error);
                    return Err(io::Error::other(message));
                }
            }
        }
        let n = out.len().min(self.piece.len());
        self.piece.copy_to_slice(out.get_mut(..n).unwrap_or_default());
        Ok(n)
    }
}

/// What is in a file called `name` that comes as `stream`, unpacked.
///
/// # Errors
/// The decompressor cannot be made.
pub(super) fn open<'a>(
    runtime: &'a Runtime,
    stream: BoxStream<'static, object_store::Result<Bytes>>,
    broken: Broken,
    compression: Compression,
    name: &str,
) -> Result<Box<dyn Read + 'a>> {
    let download = Download { runtime, stream, piece: Bytes::new(), broken };
    Ok(match compression {
        Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(download)),
        Compression::Auto if name.ends_with(".gz") => Box::new(flate2::read::MultiGzDecoder::new(download)),
        Compression::Zstd => Box::new(zstd::Decoder::new(download)?),
        Compression::Auto if name.ends_with(".zst") => Box::new(zstd::Decoder::new(download)?),
        Compression::Auto | Compression::None => Box::new(download),
    })
}

/// The records of a file, one after the other.
pub(super) struct Records<'a> {
    input: Box<dyn Read + 'a>,
    splitter: Splitter,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    /// The line that the next record begins at.
    line: u64,
}

impl<'a> Records<'a> {
    /// Of a file called `name` that comes as `stream`.
    ///
    /// # Errors
    /// The decompressor cannot be made.
    pub(super) fn new(
        runtime: &'a Runtime,
        stream: BoxStream<'static, object_store::Result<Bytes>>,
        broken: Broken,
        compression: Compression,
        name: &str,
        splitter: Splitter,
    ) -> Result<Records<'a>> {
        let input = open(runtime, stream, broken, compression, name)?;
        Ok(Records { input, splitter, buffer: Vec::new(), start: 0, ended: false, line: 1 })
    }

    /// The next record, line break included, and the line that it begins at.
    ///
    /// # Errors
    /// The file cannot be read, or unpacked, further.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, &[u8])>> {
        let length = loop {
            let rest = self.buffer.get(self.start..).unwrap_or_default();
            match self.splitter.next(rest, self.ended) {
                Some(length) => break length,
                None if self.ended => return Ok(None),
                None => self.fill()?,
            }
        };
        let record = self.buffer.get(self.start..self.start + length).unwrap_or_default();
        let line = self.line;
        self.start += length;
        self.line += record.iter().filter(|b| **b == b'\n').count() as u64;
        Ok(Some((line, record)))
    }

    /// The line that the next record begins at.
    pub(super) fn line(&self) -> u64 {
        self.line
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let filled = self.buffer.len();
        self.buffer.resize(filled + PIECE, 0);
        let n = loop {
            match self.input.read(self.buffer.get_mut(filled..).unwrap_or_default()) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Ok(n) => break Ok(n),
                Err(e) => break Err(e),
            }
        };
        self.buffer.truncate(filled + n.as_ref().map_or(0, |n| *n));
        self.ended = n? == 0;
        Ok(())
    }
}
