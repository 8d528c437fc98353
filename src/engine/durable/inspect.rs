//! Looks at the files of a journal directory without changing them: what each is, and whether it is as it was written.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

use super::checkpoint::{self, Checkpoint};
use super::lock::LOCK;
use super::record::{FILE_HEADER_BYTES, Kind};
use super::recover::{CURRENT, RecordReader, parse_current};
use super::{corrupted, io_error};
use crate::engine::Tick;
use crate::error::Result;

/// How a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As it was written.
    Sound,
    /// It ends in the middle of what begins at this byte.
    Truncated(u64),
    /// What begins at this byte is not as it was written.
    Corrupt(u64),
    /// Not written by this program, or not for it: it is left out.
    Foreign,
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Condition::Sound => write!(f, "sound"),
            Condition::Truncated(at) => write!(f, "truncated at byte {at}"),
            Condition::Corrupt(at) => write!(f, "corrupt at byte {at}"),
            Condition::Foreign => write!(f, "foreign"),
        }
    }
}

/// One file of a journal directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Which one.
    pub path: PathBuf,
    /// How it is.
    pub condition: Condition,
    /// The last tick of which it tells as it should; 0: none.
    pub tick: Tick,
    /// Whether a start does without what is lacking: a checkpoint, or an end that nobody was told of.
    pub harmless: bool,
}

/// All files of a journal directory, by name. A server must not be writing there.
///
/// # Errors
/// 58030 when the directory or a file cannot be read.
pub fn inspect(dir: &Path, workers: usize) -> Result<Vec<Inspected>> {
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(|e| io_error(dir, "read", e))? {
        paths.push(entry.map_err(|e| io_error(dir, "read", e))?.path());
    }
    paths.sort();
    let newest = paths.iter().rfind(|path| name(path).starts_with("segment-")).cloned();
    let mut all = Vec::new();
    for path in paths {
        let file = name(&path);
        let last = newest.as_ref() == Some(&path);
        all.push(match file {
            LOCK => continue,
            CURRENT => current(path)?,
            _ if file.ends_with(".tmp") => foreign(path),
            _ if file.starts_with("segment-") => records(path, last)?,
            _ if file.starts_with("base-") => records(path, false)?,
            _ if file.starts_with("checkpoint-") => states(path, workers)?,
            _ if file.starts_with("state-") => tiles(path)?,
            _ => foreign(path),
        });
    }
    Ok(all)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn foreign(path: PathBuf) -> Inspected {
    Inspected { path, condition: Condition::Foreign, tick: 0, harmless: true }
}

fn current(path: PathBuf) -> Result<Inspected> {
    let bytes = std::fs::read(&path).map_err(|e| io_error(&path, "read", e))?;
    let tick = std::str::from_utf8(&bytes).ok().and_then(parse_current);
    let condition = if tick.is_some() { Condition::Sound } else { Condition::Corrupt(0) };
    Ok(Inspected { path, condition, tick: tick.unwrap_or(0), harmless: false })
}

/// A segment or a base. The `last` segment may end in the middle of a record that nobody was told of.
fn records(path: PathBuf, last: bool) -> Result<Inspected> {
    let mut reader = RecordReader::open(&path)?;
    let is_base = name(&path).starts_with("base-");
    let len = reader.bytes();
    if !reader.has_header() {
        let short = len < FILE_HEADER_BYTES as u64;
        let condition = if short { Condition::Truncated(0) } else { Condition::Foreign };
        return Ok(Inspected { path, condition, tick: 0, harmless: short && last });
    }
    let (mut payload, mut tick, mut ended) = (Vec::new(), 0, false);
    while let Some(header) = reader.next(&mut payload)? {
        tick = tick.max(header.tick);
        ended = header.kind == Kind::End;
    }
    let at = reader.position();
    let (condition, harmless) = match at < len {
        false if is_base && !ended => (Condition::Truncated(at), false),
        false => (Condition::Sound, true),
        true if last && reader.refuse_damage(tick).is_ok() => (Condition::Truncated(at), true),
        true if reader.is_cut_off()? => (Condition::Truncated(at), false),
        true => (Condition::Corrupt(at), false),
    };
    Ok(Inspected { path, condition, tick, harmless })
}

fn states(path: PathBuf, workers: usize) -> Result<Inspected> {
    let mut start = vec![0; checkpoint::HEADER_BYTES];
    let file = File::open(&path).map_err(|e| io_error(&path, "open", e))?;
    let len = file.metadata().map_err(|e| io_error(&path, "read", e))?.len();
    if len < checkpoint::HEADER_BYTES as u64 {
        return Ok(Inspected { path, condition: Condition::Truncated(0), tick: 0, harmless: true });
    }
    BufReader::new(file).read_exact(&mut start).map_err(|e| io_error(&path, "read", e))?;
    let Some(checkpoint) = Checkpoint::open(&path, workers) else {
        let sound = checkpoint::is_header(&start);
        let condition = if sound { Condition::Foreign } else { Condition::Corrupt(0) };
        return Ok(Inspected { path, condition, tick: 0, harmless: true });
    };
    let condition = checkpoint.condition()?;
    Ok(Inspected { path, condition, tick: checkpoint.tick, harmless: true })
}

fn tiles(path: PathBuf) -> Result<Inspected> {
    let condition = checkpoint::condition_of_tiles(&path)?;
    Ok(Inspected { path, condition, tick: 0, harmless: true })
}

/// The error of the first file without which a start is refused.
///
/// # Errors
/// XX001, naming the file and the byte.
pub fn refuse(files: &[Inspected]) -> Result<()> {
    match files.iter().find(|file| file.condition != Condition::Sound && !file.harmless) {
        Some(file) => Err(corrupted(&file.path, file.condition)),
        None => Ok(()),
    }
}
