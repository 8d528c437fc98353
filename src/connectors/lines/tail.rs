//! One file that is read as it grows: who it is, how far it was read, and what is new in it.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Instant;

use ring::digest;
use serde::{Deserialize, Serialize};

use crate::world;

/// So many bytes of a file's beginning tell it from others.
const HEAD: usize = 1024;

/// What a file is known by, whatever it is called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Identity {
    pub device: u64,
    pub inode: u64,
    /// How many bytes of its beginning the digest is of: those that were read, up to 1024. An inode's number is given
    /// to another file when the file is gone.
    head: usize,
    digest: String,
}

/// How far a file was read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Known {
    pub identity: Identity,
    /// Where it was seen last.
    pub path: String,
    /// Bytes that were handed over.
    pub offset: u64,
    /// Lines that were handed over.
    pub lines: u64,
    /// The line that names the columns, when it was read.
    pub header: Option<String>,
}

/// A file that is open.
#[derive(Debug)]
pub(super) struct Tail {
    pub known: Known,
    file: File,
    /// The bytes that its identity is made of.
    head: Vec<u8>,
    /// Its length and time when it was looked at last.
    looked: Option<(u64, i64, i64)>,
    /// Since when it is not where the pattern leads to any more, and nothing new came.
    pub gone_since: Option<Instant>,
}

/// What has become of a file since it was looked at last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing.
    None,
    /// It may have grown.
    Grown,
    /// It was cut off, and what is in it now is new.
    Anew,
}

fn digest_of(head: &[u8]) -> String {
    hex::encode(digest::digest(&digest::SHA256, head).as_ref().get(..16).unwrap_or_default())
}

/// What stands at the beginning of a file, as much as there is of `length` bytes.
fn beginning(file: &File, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(bytes.get_mut(filled..).unwrap_or_default(), filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

impl Identity {
    /// Whether an open file is this one.
    pub(super) fn is_of(&self, file: &File, meta: &Metadata) -> bool {
        (self.device, self.inode) == (meta.dev(), meta.ino())
            && beginning(file, self.head).is_ok_and(|head| digest_of(&head) == self.digest)
    }
}

impl Tail {
    /// A file that is read from its beginning.
    pub(super) fn new(path: &Path, file: File, meta: &Metadata) -> Tail {
        let identity = Identity { device: meta.dev(), inode: meta.ino(), head: 0, digest: digest_of(&[]) };
        let path = path.display().to_string();
        let known = Known { identity, path, offset: 0, lines: 0, header: None };
        Tail { known, file, head: Vec::new(), looked: None, gone_since: None }
    }

    /// A file that was read before.
    ///
    /// # Errors
    /// Its beginning cannot be read.
    pub(super) fn resume(known: Known, path: &Path, file: File) -> io::Result<Tail> {
        let head = beginning(&file, known.identity.head)?;
        let known = Known { path: path.display().to_string(), ..known };
        Ok(Tail { known, file, head, looked: None, gone_since: None })
    }

    /// Goes to the last line's beginning without reading; `header`: the first line is read nevertheless.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn skip_to_end(&mut self, header: Option<String>) -> io::Result<()> {
        let mut end = self.file.metadata()?.len();
        let mut piece = vec![0; 64 << 10];
        while end > 0 {
            let from = end.saturating_sub(piece.len() as u64);
            let bytes = piece.get_mut(..(end - from) as usize).unwrap_or_default();
            self.file.read_exact_at(bytes, from)?;
            if let Some(at) = bytes.iter().rposition(|b| *b == b'\n') {
                end = from + at as u64 + 1;
                break;
            }
            end = from;
        }
        self.known.offset = end;
        self.known.header = header;
        self.head = beginning(&self.file, HEAD.min(end as usize))?;
        self.identify();
        Ok(())
    }

    /// The file's first line, if it is complete.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn first_line(&self) -> io::Result<Option<Vec<u8>>> {
        let bytes = beginning(&self.file, 64 << 10)?;
        let end = bytes.iter().position(|b| *b == b'\n');
        Ok(end.map(|end| bytes.get(..=end).unwrap_or_default().to_vec()))
    }

    fn identify(&mut self) {
        self.known.identity.head = self.head.len();
        self.known.identity.digest = digest_of(&self.head);
    }

    /// Where it is in its file system.
    pub(super) fn number(&self) -> (u64, u64) {
        (self.known.identity.device, self.known.identity.inode)
    }

    /// Looks at what has become of it.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn look(&mut self) -> io::Result<News> {
        let meta = self.file.metadata()?;
        let now = (meta.len(), meta.mtime(), meta.mtime_nsec());
        if self.looked == Some(now) {
            return Ok(News::None);
        }
        let is_same = meta.len() >= self.known.offset && beginning(&self.file, self.head.len())? == self.head;
        self.looked = Some(now);
        if is_same {
            return Ok(News::Grown);
        }
        (self.known.offset, self.known.lines, self.known.header) = (0, 0, None);
        self.head.clear();
        self.identify();
        Ok(News::Anew)
    }

    /// Bytes from `skip` bytes behind what was handed over on; how many there were.
    ///
    /// # Errors
    /// The file cannot be read.
    pub(super) fn read(&self, skip: usize, into: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.file.read_at(into, self.known.offset + skip as u64) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    /// A line, of these bytes, belongs to what is handed over.
    pub(super) fn advance(&mut self, line: &[u8]) {
        let lacking = HEAD.saturating_sub(self.head.len());
        if lacking > 0 {
            self.head.extend(line.iter().take(lacking));
        }
        self.known.offset += line.len() as u64;
        self.known.lines += 1 + line.iter().rev().skip(1).filter(|b| **b == b'\n').count() as u64;
    }

    /// How far it was read, to be remembered.
    pub(super) fn remembered(&mut self) -> Known {
        if self.known.identity.head != self.head.len() {
            self.identify();
        }
        self.known.clone()
    }

    /// It was looked at, and there was no more to be had than there is to come: look again whatever its time says.
    pub(super) fn look_again(&mut self) {
        self.looked = None;
    }

    /// It is not where the pattern leads to; says how long that has been so without news.
    pub(super) fn is_gone(&mut self, has_news: bool) -> std::time::Duration {
        let now = world::instant();
        if has_news {
            self.gone_since = Some(now);
        }
        now - *self.gone_since.get_or_insert(now)
    }
}

/// A file in `directory` that is known, whatever it is called now.
pub(super) fn find(known: &Known, directory: &Path) -> Option<(PathBuf, File)> {
    let entries = std::fs::read_dir(directory).ok()?;
    for entry in entries.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if (meta.dev(), meta.ino()) != (known.identity.device, known.identity.inode) {
            continue;
        }
        let file = File::open(entry.path()).ok()?;
        let is_it = file.metadata().is_ok_and(|meta| known.identity.is_of(&file, &meta));
        return is_it.then(|| (entry.path(), file));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(path: &Path) -> (File, Metadata) {
        let file = File::open(path).unwrap();
        let meta = file.metadata().unwrap();
        (file, meta)
    }

    #[test]
    fn a_file_is_known_by_how_it_begins() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let (file, meta) = open(&path);
        let mut tail = Tail::new(&path, file, &meta);
        assert_eq!(tail.look().unwrap(), News::Grown);
        tail.advance(b"one\n");
        let known = tail.remembered();
        assert_eq!((known.offset, known.lines), (4, 1));
        let renamed = dir.path().join("b.log");
        std::fs::rename(&path, &renamed).unwrap();
        assert_eq!(find(&known, dir.path()).unwrap().0, renamed);
        let (file, meta) = open(&renamed);
        assert!(known.identity.is_of(&file, &meta));
        // The same inode with something else in it, shorter or longer than what was read.
        std::fs::write(&renamed, "ONE\ntwo and more\n").unwrap();
        assert!(!known.identity.is_of(&file, &meta));
        assert!(find(&known, dir.path()).is_none());
        assert_eq!(tail.look().unwrap(), News::Anew);
        assert_eq!((tail.known.offset, tail.look().unwrap()), (0, News::None));
        tail.advance(b"ONE\n");
        std::fs::write(&renamed, "O").unwrap();
        assert_eq!(tail.look().unwrap(), News::Anew);
    }

    #[test]
    fn the_end_is_the_last_line_break() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.log");
        let long = "x".repeat(100_000);
        for (text, end) in [("", 0), ("a\nb", 2), ("a\n", 2), ("abc", 0), (&format!("a\n{long}"), 2)] {
            std::fs::write(&path, text).unwrap();
            let (file, meta) = open(&path);
            let mut tail = Tail::new(&path, file, &meta);
            tail.skip_to_end(None).unwrap();
            assert_eq!(tail.known.offset, end, "{} bytes", text.len());
            assert_eq!(tail.look().unwrap(), News::Grown);
        }
    }
}
