//! What stands in the place of the range of addresses where the system has not what it takes: there is none.

use std::alloc::Layout;
use std::io::Error as IoError;
use std::path::Path;

/// There is no range.
///
/// # Errors
/// Always.
pub(super) fn open(_dir: &Path) -> Result<(), IoError> {
    Err(IoError::new(std::io::ErrorKind::Unsupported, "a memory limit needs Linux"))
}

/// No part.
pub(super) fn take(_layout: Layout) -> Option<*mut u8> {
    None
}

/// Nothing is in it.
pub(super) fn holds(_at: *mut u8) -> bool {
    false
}

/// Nobody has a part to give back.
pub(super) fn give(_at: *mut u8, _layout: Layout) {}

/// None.
pub(super) fn used() -> usize {
    0
}

/// Nothing was refused.
pub(super) fn refused() -> Option<i32> {
    None
}

/// Nothing to put aside.
pub(super) fn put_aside(_start: usize, _len: usize) -> usize {
    0
}
