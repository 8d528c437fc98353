//! A range of addresses with a file behind it, and who has which part of it.
//!
//! The file is sparse, has no name, and ends with the process. Its blocks are reserved before a part is handed out, so
//! that a full disk is found here and not when a page is written; a part that comes back is cut out of the file, so that
//! it costs neither disk nor memory and reads as zeros.

use std::alloc::Layout;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::io::Error as IoError;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, AtomicUsize, Ordering};

use parking_lot::Mutex;

/// Addresses reserved, in bytes: they cost nothing until they are used.
const SPACE: usize = 1 << 40;

/// Parts begin and end at multiples of this: the largest page that a system has.
const PAGE: usize = 64 << 10;

/// The range of this process, once there is one.
static RANGE: OnceLock<Range> = OnceLock::new();

/// The system's error number of the last part that could not be had; 0: none since the last call of [`refused`].
static REFUSED: AtomicI32 = AtomicI32::new(0);

struct Range {
    base: usize,
    file: RawFd,
    free: Mutex<Free>,
    // Bytes handed out, and the end of the highest part that ever was.
    used: AtomicUsize,
    end: AtomicUsize,
}

/// Parts that nobody has, by where they are and by how long they are. Neighbours are one part.
struct Free {
    by_start: BTreeMap<usize, usize>,
    by_len: BTreeSet<(usize, usize)>,
}

impl Free {
    fn put(&mut self, mut start: usize, mut len: usize) {
        if let Some((&before, &its)) = self.by_start.range(..start).next_back()
            && before + its == start
        {
            self.drop(before, its);
            (start, len) = (before, its + len);
        }
        if let Some(&its) = self.by_start.get(&(start + len)) {
            self.drop(start + len, its);
            len += its;
        }
        self.by_start.insert(start, len);
        self.by_len.insert((len, start));
    }

    fn drop(&mut self, start: usize, len: usize) {
        self.by_start.remove(&start);
        self.by_len.remove(&(len, start));
    }

    /// The shortest part that is long enough: so what was never used is used last.
    fn take(&mut self, len: usize) -> Option<usize> {
        let &(its, start) = self.by_len.range((len, 0)..).next()?;
        self.drop(start, its);
        if its > len {
            self.put(start + len, its - len);
        }
        Some(start)
    }
}

/// Makes the range, with a file in this directory. Once there is one it stays.
///
/// # Errors
/// Those of the file and of the mapping.
pub(super) fn open(dir: &Path) -> Result<(), IoError> {
    if RANGE.get().is_some() {
        return Ok(());
    }
    let file = nameless(dir)?;
    // SAFETY: a system call on a file that is ours.
    if unsafe { libc::ftruncate(file, SPACE as libc::off_t) } != 0 {
        return Err(close_with(file, IoError::last_os_error()));
    }
    // SAFETY: new addresses, chosen by the system, for a file that nobody else can open; nothing refers to them yet.
    let base = unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            SPACE,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_SHARED | libc::MAP_NORESERVE,
            file,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(close_with(file, IoError::last_os_error()));
    }
    let mut free = Free { by_start: BTreeMap::new(), by_len: BTreeSet::new() };
    free.put(0, SPACE);
    let range = Range {
        base: base as usize,
        file,
        free: Mutex::new(free),
        used: AtomicUsize::new(0),
        end: AtomicUsize::new(0),
    };
    if let Err(range) = RANGE.set(range) {
        // Somebody was faster. SAFETY: these addresses were never handed out.
        unsafe { libc::munmap(range.base as *mut libc::c_void, SPACE) };
        close_with(range.file, IoError::other("there is a range"));
    }
    Ok(())
}

/// A file without a name in this directory, open for reading and writing.
fn nameless(dir: &Path) -> Result<RawFd, IoError> {
    use std::os::unix::ffi::OsStrExt;
    let path = |p: &Path| CString::new(p.as_os_str().as_bytes()).map_err(IoError::other);
    let dir_path = path(dir)?;
    let mode = libc::O_RDWR | libc::O_CLOEXEC;
    // SAFETY: a system call with a string that ends with a zero byte.
    let file = unsafe { libc::open(dir_path.as_ptr(), libc::O_TMPFILE | mode, 0o600) };
    if file >= 0 {
        return Ok(file);
    }
    // Not every file system has files without a name: this one loses its name at once.
    let named = path(&dir.join(format!("memory-{}", std::process::id())))?;
    // SAFETY: as above.
    let file = unsafe { libc::open(named.as_ptr(), libc::O_CREAT | libc::O_TRUNC | mode, 0o600) };
    if file < 0 {
        return Err(IoError::last_os_error());
    }
    // SAFETY: as above.
    if unsafe { libc::unlink(named.as_ptr()) } != 0 {
        return Err(close_with(file, IoError::last_os_error()));
    }
    Ok(file)
}

fn close_with(file: RawFd, error: IoError) -> IoError {
    // SAFETY: the descriptor is ours and not used after this.
    unsafe { libc::close(file) };
    error
}

fn len_of(layout: Layout) -> usize {
    layout.size().next_multiple_of(PAGE)
}

/// A part for this layout, which reads as zeros; `None` when the disk has no room, or it cannot be aligned so.
pub(super) fn take(layout: Layout) -> Option<*mut u8> {
    let range = RANGE.get().filter(|_| layout.align() <= 4096)?;
    let len = len_of(layout);
    let start = range.free.lock().take(len)?;
    // SAFETY: a system call on a file that is ours.
    let reserved = unsafe { libc::fallocate(range.file, 0, start as libc::off_t, len as libc::off_t) };
    if reserved != 0 {
        REFUSED.store(IoError::last_os_error().raw_os_error().unwrap_or(libc::EIO), Ordering::Relaxed);
        range.free.lock().put(start, len);
        return None;
    }
    range.used.fetch_add(len, Ordering::Relaxed);
    range.end.fetch_max(start + len, Ordering::Relaxed);
    Some((range.base + start) as *mut u8)
}

/// Whether an address is in the range.
pub(super) fn holds(at: *mut u8) -> bool {
    RANGE.get().is_some_and(|range| (range.base..range.base + SPACE).contains(&(at as usize)))
}

/// Takes back a part that [`take`] gave for this layout.
pub(super) fn give(at: *mut u8, layout: Layout) {
    let Some(range) = RANGE.get() else { return };
    let (start, len) = (at as usize - range.base, len_of(layout));
    // SAFETY: the part is nobody's any more and still in no list; its pages and its blocks of the file go.
    let cut = unsafe { libc::madvise(at.cast(), len, libc::MADV_REMOVE) };
    if cut != 0 {
        // A file system that cannot cut. The next who gets the part is promised zeros.
        // SAFETY: `len` bytes from `at` on are mapped and nobody's.
        unsafe { std::ptr::write_bytes(at, 0, len) };
    }
    range.used.fetch_sub(len, Ordering::Relaxed);
    range.free.lock().put(start, len);
}

/// Bytes handed out.
pub(super) fn used() -> usize {
    RANGE.get().map_or(0, |range| range.used.load(Ordering::Relaxed))
}

/// The system's error number of a part that could not be had since the last call.
pub(super) fn refused() -> Option<i32> {
    Some(REFUSED.swap(0, Ordering::Relaxed)).filter(|number| *number != 0)
}

/// Takes the pages of `len` bytes from `start` on away from the process, which gets them again when it touches them.
/// Answers with where to go on: at the end, from the beginning.
pub(super) fn put_aside(start: usize, len: usize) -> usize {
    let Some(range) = RANGE.get() else { return 0 };
    let end = range.end.load(Ordering::Relaxed);
    if start >= end {
        return 0;
    }
    let stop = end.min(start + len);
    // SAFETY: for a shared mapping of a file this only unmaps pages: what was written to them is the file's, and is
    // there when they are touched again, whoever holds references to it.
    unsafe { libc::madvise((range.base + start) as *mut libc::c_void, stop - start, libc::MADV_DONTNEED) };
    if stop == end { 0 } else { stop }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::ops::testing::Rng;

    #[test]
    fn parts_are_found_again_when_their_neighbours_are_free_too() {
        let mut free = Free { by_start: BTreeMap::new(), by_len: BTreeSet::new() };
        free.put(0, 100);
        let parts: Vec<usize> = (0..10).map(|_| free.take(10).unwrap()).collect();
        assert_eq!(free.take(1), None);
        for start in [3, 5, 4] {
            free.put(parts[start], 10);
        }
        free.put(parts[8], 10);
        assert_eq!(free.by_start, BTreeMap::from([(30, 30), (80, 10)]));
        assert_eq!(free.take(7), Some(80), "the shortest that is long enough");
        assert_eq!(free.take(30), Some(30));
        assert_eq!(free.by_len, BTreeSet::from([(3, 87)]));
    }

    /// Parts come and go at random; nobody's bytes are another's, whether their pages were put aside or not.
    #[test]
    fn parts_keep_what_was_written_and_begin_with_zeros() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "the file has no name");
        let mut rng = Rng::new(1);
        let mut parts: Vec<(*mut u8, Layout, u8)> = Vec::new();
        let mut aside = 0;
        for step in 0..400 {
            if parts.is_empty() || rng.below(3) > 0 {
                let layout = Layout::from_size_align(1 + rng.below(200_000), 64).unwrap();
                let at = take(layout).unwrap();
                assert!(holds(at) && (at as usize).is_multiple_of(4096));
                // SAFETY: the part is ours, as long as its layout.
                let bytes = unsafe { std::slice::from_raw_parts_mut(at, layout.size()) };
                assert!(bytes.iter().all(|b| *b == 0));
                bytes.fill(step as u8);
                parts.push((at, layout, step as u8));
            } else {
                let (at, layout, byte) = parts.swap_remove(rng.below(parts.len()));
                // SAFETY: as above.
                let bytes = unsafe { std::slice::from_raw_parts(at, layout.size()) };
                assert!(bytes.iter().all(|b| *b == byte));
                give(at, layout);
            }
            aside = put_aside(aside, 1 << 20);
        }
        let held: usize = parts.iter().map(|(_, layout, _)| len_of(*layout)).sum();
        assert_eq!(used(), held);
        parts.into_iter().for_each(|(at, layout, _)| give(at, layout));
        assert_eq!(used(), 0);
        let on_heap = Box::into_raw(Box::new(7u8));
        assert!(!holds(on_heap));
        // SAFETY: it came out of a box above.
        drop(unsafe { Box::from_raw(on_heap) });
    }
}
