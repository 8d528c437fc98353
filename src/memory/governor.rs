//! The thread that keeps the process to its memory limit, and what it knows.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{LARGE, PAGING, paged};
use crate::error::{Error, Result, SqlState};
use crate::world;

/// Bytes that the process may take; 0: as many as there are.
static LIMIT: AtomicU64 = AtomicU64::new(0);

/// Bytes that the process has taken, as of the last look.
static RESIDENT: AtomicU64 = AtomicU64::new(0);

static STARTED: AtomicBool = AtomicBool::new(false);
static EXHAUSTED: AtomicBool = AtomicBool::new(false);

/// Between two looks, and between two when much is taken: a scan brings pages back at gigabytes a second.
const LOOK: Duration = Duration::from_millis(20);
const SHORT_LOOK: Duration = Duration::from_millis(4);

/// Bytes of addresses that are put aside between two looks.
const ASIDE: usize = 64 << 20;

/// Looks in a row that find too much before anything is stopped: what a query takes for a moment stops no view.
const PATIENCE: u32 = 200;

/// Parts of the limit, in hundredths: what ordinary memory may take before large pieces go to the file; what may be
/// taken in all before pages are put aside, and how much is taken then; what is too much when nothing is left to put aside.
const PAGE_ABOVE: u64 = 40;
const LOOK_SHORT_ABOVE: u64 = 60;
const ASIDE_ABOVE: u64 = 80;
const ASIDE_UNTIL: u64 = 65;
const TOO_MUCH: u64 = 95;

/// The process's memory.
#[derive(Clone, Copy, Debug)]
pub struct Usage {
    /// Bytes that it may take; 0: no limit.
    pub limit: u64,
    /// Bytes that it takes. Without a limit, nobody looks: 0.
    pub resident: u64,
    /// Bytes of state that live in the file, whether their pages are in memory or not.
    pub paged: u64,
}

/// Keeps the process to `limit` bytes from now on, with large state in a file in `dir` as the limit draws near.
/// 0 is no limit. A process has one limit and one file: a second call changes the limit only.
///
/// # Errors
/// 58030 when the file cannot be made, 55000 when the program's allocator is another.
pub fn keep_to(limit: u64, dir: &Path) -> Result<()> {
    if limit == 0 {
        return Ok(());
    }
    let failed = |e: std::io::Error| {
        Error::new(SqlState::IO_ERROR, format!("no file for memory in {}: {e}", dir.display()))
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    paged::open(dir).map_err(failed)?;
    if !is_installed() {
        return Err(Error::new(
            SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
            "a memory limit needs tidemill::memory::Allocator as the program's allocator",
        )
        .with_hint("#[global_allocator] static ALLOCATOR: tidemill::memory::Allocator = tidemill::memory::Allocator;"));
    }
    LIMIT.store(limit, Ordering::Relaxed);
    if !STARTED.swap(true, Ordering::SeqCst) {
        std::thread::Builder::new()
            .name("memory".into())
            .spawn(govern)
            .map_err(|e| Error::new(SqlState::OUT_OF_MEMORY, format!("no thread: {e}")))?;
    }
    Ok(())
}

/// Whether large pieces come out of the file when they are told to.
fn is_installed() -> bool {
    let before = PAGING.swap(true, Ordering::SeqCst);
    let piece: Vec<u8> = Vec::with_capacity(LARGE);
    PAGING.store(before, Ordering::SeqCst);
    paged::holds(piece.as_ptr().cast_mut())
}

/// The process's memory now.
pub fn usage() -> Usage {
    Usage {
        limit: LIMIT.load(Ordering::Relaxed),
        resident: RESIDENT.load(Ordering::Relaxed),
        paged: paged::used() as u64,
    }
}

/// Whether the limit is all but reached, and nothing is left that could be put aside.
pub fn exhausted() -> bool {
    EXHAUSTED.load(Ordering::Relaxed)
}

/// For work that would take more: an error while nothing is left.
///
/// # Errors
/// 53200.
pub fn check() -> Result<()> {
    if !exhausted() {
        return Ok(());
    }
    let mib = |bytes: u64| bytes >> 20;
    let Usage { limit, resident, .. } = usage();
    Err(Error::new(SqlState::OUT_OF_MEMORY, "the memory limit is reached")
        .with_detail(format!(
            "{} MB of {} MB are taken, and none could live on disk.",
            mib(resident),
            mib(limit)
        ))
        .with_hint("Raise memory_limit, or drop what can be done without."))
}

/// Bytes of the process's pages, and how many of these stand in files or are shared.
fn resident() -> Option<(u64, u64)> {
    let text = std::fs::read_to_string("/proc/self/statm").ok()?;
    let mut pages = text.split_ascii_whitespace().skip(1).map(str::parse::<u64>);
    // SAFETY: asks for a constant.
    let page = u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).ok()?;
    Some((pages.next()?.ok()? * page, pages.next()?.ok()? * page))
}

fn govern() {
    let (mut hand, mut excess, mut look) = (0, 0, LOOK);
    loop {
        world::sleep(look);
        let Some((mut taken, of_files)) = resident() else {
            tracing::error!("/proc/self/statm cannot be read: the memory limit is not kept");
            return;
        };
        let limit = LIMIT.load(Ordering::Relaxed);
        let part = |hundredths: u64| limit / 100 * hundredths;
        let paging = taken - of_files.min(taken) > part(PAGE_ABOVE);
        if paging && !PAGING.swap(true, Ordering::Relaxed) {
            tracing::info!(limit, "much of the memory limit is taken: large pieces of state go to disk");
        }
        if let Some(number) = paged::refused() {
            let error = std::io::Error::from_raw_os_error(number);
            tracing::warn!(%error, "state could not go to disk and takes memory");
        }
        if taken > part(ASIDE_ABOVE) {
            (hand, taken) = put_aside(hand, taken, part(ASIDE_UNTIL));
        }
        look = if taken > part(LOOK_SHORT_ABOVE) { SHORT_LOOK } else { LOOK };
        RESIDENT.store(taken, Ordering::Relaxed);
        excess = if taken > part(TOO_MUCH) { excess + 1 } else { 0 };
        EXHAUSTED.store(excess > PATIENCE, Ordering::Relaxed);
    }
}

/// Puts pages aside from where the hand stands on until no more than `until` bytes are taken, or the hand was
/// everywhere; answers with where it stands then, and what is taken.
fn put_aside(mut hand: usize, mut taken: u64, until: u64) -> (usize, u64) {
    let mut rounds = 0;
    while taken > until && rounds < 2 {
        hand = paged::put_aside(hand, ASIDE);
        rounds += usize::from(hand == 0);
        taken = resident().map_or(taken, |(taken, _)| taken);
    }
    (hand, taken)
}
