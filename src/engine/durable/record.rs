//! The format of journal and base files: a file header, then records, each guarded by checksums.
//!
//! A record's header carries, besides its own tick, the last tick that was durable when it was written.
//! That tells a torn tail (never acknowledged, cut off at open) from damage to something acknowledged.

use std::path::Path;

use arrow::datatypes::SchemaRef;

use super::corrupted;
use crate::engine::{CollectionId, Delta, Tick, ipc};
use crate::error::{Error, Result};

/// The first bytes of every file; the last one is the format's version.
const FILE_MAGIC: [u8; 8] = *b"TDMLJNL\x01";
/// Length of a file's header: the magic, then the tick that its first record follows.
pub(crate) const FILE_HEADER_BYTES: usize = 16;
/// The first bytes of every record.
const RECORD_MAGIC: [u8; 4] = *b"TICK";
/// Length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: usize = 40;

/// What a record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Changes of inputs, and how far sources were read.
    Changes,
    /// A view began to follow inputs that keep no rows: it sees only later ticks of them.
    Attach(CollectionId),
    /// The end of a complete file: of a base, or of a segment when the server was shut down in order.
    End,
}

/// A record's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: Kind,
    pub(crate) tick: Tick,
    /// The last durable tick when it was written.
    pub(crate) durable: Tick,
    pub(crate) payload_len: u64,
    payload_crc: u32,
}

/// One input's changes in a record, still encoded.
#[derive(Clone, Copy)]
pub(crate) struct Section<'a> {
    pub(crate) collection: CollectionId,
    weighted: bool,
    bytes: &'a [u8],
}

/// The decoded frame of a [`Kind::Changes`] record.
pub(crate) struct Changes<'a> {
    pub(crate) progress: Vec<(String, Vec<u8>)>,
    pub(crate) sections: Vec<Section<'a>>,
}

/// A file's header.
pub(crate) fn file_header(after: Tick) -> [u8; FILE_HEADER_BYTES] {
    let mut header = [0; FILE_HEADER_BYTES];
    header[..8].copy_from_slice(&FILE_MAGIC);
    header[8..].copy_from_slice(&after.to_le_bytes());
    header
}

/// The tick that the file's first record follows; `None` when these bytes are no header.
pub(crate) fn parse_file_header(bytes: &[u8]) -> Option<Tick> {
    let header: &[u8; FILE_HEADER_BYTES] = bytes.get(..FILE_HEADER_BYTES)?.try_into().ok()?;
    let (magic, after) = header.split_at(8);
    (magic == FILE_MAGIC).then(|| u64_at(after, 0))
}

/// Builds one record in a buffer that is reused.
#[derive(Default)]
pub(crate) struct RecordWriter {
    buffer: Vec<u8>,
}

impl RecordWriter {
    /// A record of changes; answers with its bytes.
    pub(crate) fn changes(
        &mut self,
        tick: Tick,
        durable: Tick,
        progress: &[(String, Vec<u8>)],
        changes: &[(CollectionId, &[Delta])],
    ) -> Result<&[u8]> {
        self.start();
        self.put_progress(progress)?;
        let sections: usize = changes.iter().map(|(_, deltas)| deltas.len()).sum();
        self.put_len(sections)?;
        for (id, deltas) in changes {
            for delta in *deltas {
                self.put_section(*id, delta)?;
            }
        }
        Ok(self.seal(Kind::Changes, tick, durable))
    }

    /// A record of changes whose sections are taken from another record as they are.
    pub(crate) fn copied(&mut self, tick: Tick, durable: Tick, sections: &[Section<'_>]) -> Result<&[u8]> {
        self.start();
        self.put_progress(&[])?;
        self.put_len(sections.len())?;
        for section in sections {
            self.buffer.extend_from_slice(&section.collection.0.to_le_bytes());
            self.buffer.push(u8::from(section.weighted));
            self.buffer.extend_from_slice(&(section.bytes.len() as u64).to_le_bytes());
            self.buffer.extend_from_slice(section.bytes);
        }
        Ok(self.seal(Kind::Changes, tick, durable))
    }

    /// A record without rows.
    pub(crate) fn mark(&mut self, kind: Kind, tick: Tick, durable: Tick) -> &[u8] {
        self.start();
        self.seal(kind, tick, durable)
    }

    fn start(&mut self) {
        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER_BYTES, 0);
    }

    fn put_len(&mut self, len: usize) -> Result<()> {
        let len = u32::try_from(len).map_err(|_| Error::internal("a journal record has too many parts"))?;
        self.buffer.extend_from_slice(&len.to_le_bytes());
        Ok(())
    }

    fn put_progress(&mut self, progress: &[(String, Vec<u8>)]) -> Result<()> {
        self.put_len(progress.len())?;
        for (source, position) in progress {
            self.put_len(source.len())?;
            self.buffer.extend_from_slice(source.as_bytes());
            self.put_len(position.len())?;
            self.buffer.extend_from_slice(position);
        }
        Ok(())
    }

    fn put_section(&mut self, id: CollectionId, delta: &Delta) -> Result<()> {
        self.buffer.extend_from_slice(&id.0.to_le_bytes());
        self.buffer.push(u8::from(delta.weights.is_some()));
        let len_at = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 8]);
        ipc::write_delta(&mut self.buffer, delta)?;
        let len = (self.buffer.len() - len_at - 8) as u64;
        self.buffer[len_at..len_at + 8].copy_from_slice(&len.to_le_bytes());
        Ok(())
    }

    fn seal(&mut self, kind: Kind, tick: Tick, durable: Tick) -> &[u8] {
        let (kind, subject) = match kind {
            Kind::Changes => (1, None),
            Kind::Attach(view) => (2, Some(view.0)),
            Kind::End => (3, None),
        };
        if let Some(subject) = subject {
            self.buffer.extend_from_slice(&subject.to_le_bytes());
        }
        let (header, payload) = self.buffer.split_at_mut(RECORD_HEADER_BYTES);
        header[0..4].copy_from_slice(&RECORD_MAGIC);
        header[4] = kind;
        header[8..16].copy_from_slice(&(payload.len() as u64).to_le_bytes());
        header[16..24].copy_from_slice(&tick.to_le_bytes());
        header[24..32].copy_from_slice(&durable.to_le_bytes());
        header[32..36].copy_from_slice(&crc32fast::hash(payload).to_le_bytes());
        let crc = crc32fast::hash(&header[..36]);
        header[36..40].copy_from_slice(&crc.to_le_bytes());
        &self.buffer
    }
}

impl Header {
    /// Reads a header; `None` when these bytes are none. The kind's subject is in the payload, see [`Header::check`].
    pub(crate) fn parse(bytes: &[u8]) -> Option<Header> {
        let bytes = bytes.get(..RECORD_HEADER_BYTES)?;
        if bytes[..4] != RECORD_MAGIC || u32_at(bytes, 36) != crc32fast::hash(&bytes[..36]) {
            return None;
        }
        let kind = match bytes[4] {
            1 => Kind::Changes,
            2 => Kind::Attach(CollectionId(0)),
            3 => Kind::End,
            _ => return None,
        };
        Some(Header {
            kind,
            payload_len: u64_at(bytes, 8),
            tick: u64_at(bytes, 16),
            durable: u64_at(bytes, 24),
            payload_crc: u32_at(bytes, 32),
        })
    }

    /// Whether `payload` is this record's; then the header with the kind's subject.
    pub(crate) fn check(mut self, payload: &[u8]) -> Option<Header> {
        if payload.len() as u64 != self.payload_len || crc32fast::hash(payload) != self.payload_crc {
            return None;
        }
        if let Kind::Attach(_) = self.kind {
            let view: [u8; 8] = payload.try_into().ok()?;
            self.kind = Kind::Attach(CollectionId(u64::from_le_bytes(view)));
        }
        Some(self)
    }
}

impl<'a> Changes<'a> {
    /// Takes a payload apart; `path` is for the error.
    pub(crate) fn parse(payload: &'a [u8], path: &Path) -> Result<Changes<'a>> {
        let mut cursor = Cursor { rest: payload };
        let parsed = cursor.changes().filter(|_| cursor.rest.is_empty());
        parsed.ok_or_else(|| corrupted(path, "a record's parts do not fit together"))
    }
}

impl Section<'_> {
    /// Rows and weights, in the columns of `schema`.
    pub(crate) fn decode(&self, schema: &SchemaRef, path: &Path) -> Result<Vec<Delta>> {
        let damaged = |e: &dyn std::fmt::Display| {
            corrupted(path, format!("rows of collection {} cannot be read: {e}", self.collection.0))
        };
        ipc::read_deltas(self.bytes, schema, self.weighted).map_err(|e| damaged(&e))
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        Some(u32_at(self.take(4)?, 0))
    }

    fn u64(&mut self) -> Option<u64> {
        Some(u64_at(self.take(8)?, 0))
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn changes(&mut self) -> Option<Changes<'a>> {
        let mut progress = Vec::new();
        for _ in 0..self.u32()? {
            let source = String::from_utf8(self.bytes()?.to_vec()).ok()?;
            progress.push((source, self.bytes()?.to_vec()));
        }
        let mut sections = Vec::new();
        for _ in 0..self.u32()? {
            let collection = CollectionId(self.u64()?);
            let weighted = self.take(1)?[0] != 0;
            let len = usize::try_from(self.u64()?).ok()?;
            sections.push(Section { collection, weighted, bytes: self.take(len)? });
        }
        Some(Changes { progress, sections })
    }
}

/// Little-endian number at `at`; the caller has checked the length.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

/// Little-endian number at `at`; the caller has checked the length.
fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
