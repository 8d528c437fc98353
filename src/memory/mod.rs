//! Memory that the machine need not have: large pieces of state live in a file when the memory limit draws near.
//!
//! What operators keep grows in large pieces: tiles of columns, indexes, vectors by slot. [`Allocator`] hands these out
//! from a range of addresses that a file stands behind ([`paged`]) once the process has taken a good part of its limit.
//! The operating system writes them to the file and reads them back by pages as they are touched; [`governor`] takes
//! the pages that the process has mapped away from it, oldest first, before their number reaches the limit. Nothing is
//! lost by that: a page is read again when somebody asks for it.
//!
//! So an operator knows nothing of it, and state that fits costs nothing. What is small (a string on its own, a node of a
//! tree) stays in ordinary memory; where that alone grows to the limit, [`exhausted`] says so, and the engine stops the
//! view that holds the most.
//!
//! A process has one limit: it is the process that the system counts the memory of.

mod governor;
#[cfg(target_os = "linux")]
mod paged;
#[cfg(not(target_os = "linux"))]
#[path = "unpaged.rs"]
mod paged;

use std::alloc::{GlobalAlloc, Layout};
use std::sync::atomic::{AtomicBool, Ordering};

pub use governor::{Usage, check, exhausted, keep_to, usage};

/// Allocations of at least so many bytes may live in the file: a sealed tile of four-byte numbers has as many.
const LARGE: usize = 256 << 10;

/// Whether large allocations go to the file now.
static PAGING: AtomicBool = AtomicBool::new(false);

/// The program's allocator: mimalloc, and for large pieces under a limit the file. A program that embeds the database
/// makes it its own with `#[global_allocator]`; without it there is no memory limit.
pub struct Allocator;

impl Allocator {
    fn paged(layout: Layout) -> Option<*mut u8> {
        (layout.size() >= LARGE && PAGING.load(Ordering::Relaxed)).then(|| paged::take(layout)).flatten()
    }
}

const HEAP: mimalloc::MiMalloc = mimalloc::MiMalloc;

// SAFETY: every pointer comes either from `HEAP`, itself an allocator, or from `paged::take`, which gives each caller a
// range of its own of the layout's size and alignment until `paged::give` is called with it; `paged::holds` tells by the
// address which of the two it was, and ranges of the one never overlap those of the other, because the file's addresses
// are mapped as a whole and never given back. Nothing here unwinds.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match Self::paged(layout) {
            Some(at) => at,
            // SAFETY: the caller's promise about `layout` is the same as HEAP's.
            None => unsafe { HEAP.alloc(layout) },
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        match Self::paged(layout) {
            // What is taken anew from the file is zero: a range that was given back was cut out of it.
            Some(at) => at,
            // SAFETY: as in `alloc`.
            None => unsafe { HEAP.alloc_zeroed(layout) },
        }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        if layout.size() >= LARGE && paged::holds(at) {
            paged::give(at, layout);
        } else {
            // SAFETY: it is none of the file's, so HEAP gave it, with this layout.
            unsafe { HEAP.dealloc(at, layout) }
        }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let was_paged = layout.size() >= LARGE && paged::holds(at);
        let pages = size >= LARGE && PAGING.load(Ordering::Relaxed);
        if !(was_paged || pages) {
            // SAFETY: HEAP gave it, and the caller's promises are the same as HEAP's.
            return unsafe { HEAP.realloc(at, layout, size) };
        }
        // SAFETY: the caller promises that `size`, rounded up to the alignment, is a size that can be.
        let new = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        // SAFETY: `size` is not 0, so the caller promises. The old and the new range are different ones, both at least
        // as long as what is copied; the old one is the caller's, and not used after this.
        unsafe {
            let to = self.alloc(new);
            if !to.is_null() {
                std::ptr::copy_nonoverlapping(at, to, layout.size().min(size));
                self.dealloc(at, layout);
            }
            to
        }
    }
}
